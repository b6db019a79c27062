//! The bodies of Meta's pages as they are printed there, and the odd forms in which they really come: whole bodies in, what the
//! host goes by out. `events.rs` holds the rules; this table holds the shapes.
#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

use frontdesk_messenger::event::{Event, EventKind, needs_turn, parse};
use frontdesk_messenger::window::{is_ad_click, opens_window};
use serde_json::{Value, json};

const PAGE: &str = "106000000000001";
const PERSON: &str = "7200000000000001";

/// One line of an event: kind, channel, person, message id, time, then what it starts and opens.
fn line(event: &Event) -> String {
    let mut parts = vec![event.kind_name().to_owned(), event.channel.name().to_owned()];
    parts.push(event.person_key().unwrap_or_else(|| "nobody".to_owned()));
    parts.push(event.kind.mid().map_or("-".to_owned(), ToString::to_string));
    parts.push(event.timestamp_ms.map_or("-".to_owned(), |ms| ms.to_string()));
    if needs_turn(event) {
        parts.push("turn".to_owned());
    }
    if let Some(rule) = opens_window(event) {
        parts.push(format!("{}:{}h", rule.opener.name(), rule.duration_ms / 3_600_000));
    }
    if is_ad_click(event) {
        parts.push("ad-click".to_owned());
    }
    parts.join(" ")
}

fn lines(body: &Value) -> Vec<String> {
    parse(body.to_string().as_bytes()).expect("Meta's envelope").events.iter().map(line).collect()
}

fn body(list: &str, piece: Value) -> Value {
    json!({"object":"page","entry":[{"id":PAGE,"time":1458692752478i64, list:[piece]}]})
}

/// `{sender, recipient}` and these fields, without a time.
fn from_person(fields: Value) -> Value {
    let mut piece = json!({"sender":{"id":PERSON},"recipient":{"id":PAGE}});
    piece.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    piece
}

#[test]
fn every_shape_of_the_pages_of_meta_is_read() {
    let said = |fields: Value| body("messaging", from_person(fields));
    let read_along = |fields: Value| body("standby", from_person(fields));
    #[rustfmt::skip]
    let cases: Vec<(Value, &str)> = vec![
        // ids as numbers, times in seconds, as strings, or absent
        (json!({"object":"page","entry":[{"id":106000000000001u64,"time":1458692752478i64,"messaging":[{"sender":{"id":7200000000000001u64},
            "recipient":{"id":106000000000001u64},"timestamp":1458692752i64,"message":{"mid":"m_1","seq":3,"text":"hi"}}]}]}),
            "message messaging 7200000000000001 m_1 1458692752000 turn message:24h"),
        (said(json!({"timestamp":"1527459824","postback":{"mid":"m_p","title":"Get Started","payload":"START"}})),
            "postback messaging 7200000000000001 m_p 1527459824000 turn postback:24h"),
        (said(json!({"timestamp":1665424533,"referral":{"ref":"shelf","source":"SHORTLINK","type":"OPEN_THREAD"}})),
            "referral messaging 7200000000000001 - 1665424533000 referral:24h"),
        (said(json!({"delivery":{"mids":["m_1"],"watermark":"1458668856253"}})),
            "delivery messaging 7200000000000001 - 1458692752478"),
        (said(json!({"delivery":{"mids":"m_1","watermark":1458668856253i64}})),
            "delivery messaging 7200000000000001 - 1458692752478"),
        (said(json!({"delivery":{"watermark":1458668856253i64}})), "delivery messaging 7200000000000001 - 1458692752478"),
        (said(json!({"read":{"watermark":"1458668856253"}})), "read messaging 7200000000000001 - 1458692752478"),
        // messages
        (said(json!({"message":{"mid":"m_1","text":"Red","quick_reply":{"payload":"RED"}}})),
            "message messaging 7200000000000001 m_1 1458692752478 turn message:24h"),
        (said(json!({"message":{"mid":"m_1","text":null,"attachments":null}})),
            "message messaging 7200000000000001 m_1 1458692752478 message:24h"),
        (said(json!({"message":{"mid":"m_1","attachments":[{"type":"fallback","title":"A shop","url":"https://x.example/"}]}})),
            "message messaging 7200000000000001 m_1 1458692752478 turn message:24h"),
        (said(json!({"message":{"mid":"m_1","attachments":[{"type":"sticker","payload":{"url":"https://x/1","sticker_id":369239263222822u64}}]}})),
            "message messaging 7200000000000001 m_1 1458692752478 message:24h"),
        // where the person came from: in the message, or beside it
        (said(json!({"message":{"mid":"m_1","text":"Is it new?","referral":{"ref":"r","ad_id":"604","source":"ADS","type":"OPEN_THREAD",
            "ads_context_data":{"ad_title":"Bikes","photo_url":"https://x/p.jpg","post_id":"1_2"}}}})),
            "message messaging 7200000000000001 m_1 1458692752478 turn ad_message:168h"),
        (said(json!({"message":{"mid":"m_1","text":"Is it new?"},"referral":{"ad_id":604,"source":"ADS","type":"OPEN_THREAD"}})),
            "message messaging 7200000000000001 m_1 1458692752478 turn ad_message:168h"),
        (said(json!({"message":{"mid":"m_1","text":"Which?","referral":{"product":{"id":"77"}}}})),
            "message messaging 7200000000000001 m_1 1458692752478 turn message:24h"),
        (said(json!({"postback":{"title":"Start","payload":"GO"},"referral":{"ad_id":604,"source":"ADS","type":"OPEN_THREAD"}})),
            "postback messaging 7200000000000001 - 1458692752478 turn postback:24h ad-click"),
        (said(json!({"referral":{"ref":"r","ad_id":"604","source":"ADS","type":"OPEN_THREAD","ads_context_data":{}}})),
            "referral messaging 7200000000000001 - 1458692752478 ad-click"),
        // leads
        (said(json!({"timestamp":1665424533,"referral":{"type":"LEAD_COMPLETE","ad_id":604,"source":"ADS"},
            "lead":{"data":[{"question":"When?","answer":"Monday"}]}})),
            "lead messaging 7200000000000001 - 1665424533000 turn"),
        (said(json!({"referral":{"type":"LEAD_INCOMPLETE"},"lead":[{"question":"When?"}]})),
            "lead messaging 7200000000000001 - 1458692752478"),
        // corrections
        (said(json!({"message_edit":{"mid":"m_1","text":"Blue","num_edit":"1"}})),
            "edit messaging 7200000000000001 m_1 1458692752478"),
        (said(json!({"message":{"mid":"m_1","is_deleted":"true"}})), "unsend messaging 7200000000000001 m_1 1458692752478"),
        // reactions
        (said(json!({"reaction":{"reaction":"smile","emoji":"\u{1f600}","action":"react","mid":"m_1"}})),
            "reaction messaging 7200000000000001 m_1 1458692752478 reaction:24h"),
        (said(json!({"reaction":{"action":"unreact","mid":"m_1"}})), "reaction messaging 7200000000000001 m_1 1458692752478"),
        // opt-ins, with a sender or without
        (said(json!({"optin":{"type":"notification_messages","payload":"p","notification_messages_token":"123","topic":"News",
            "notification_messages_frequency":"DAILY","token_expiry_timestamp":1458692752478i64,"user_token_status":"REFRESHED"}})),
            "optin messaging 7200000000000001 - 1458692752478"),
        (said(json!({"optin":{"type":"notification_messages","notification_messages_token":"123",
            "notification_messages_status":"STOP_NOTIFICATIONS"}})), "optin messaging 7200000000000001 - 1458692752478"),
        (body("messaging", json!({"recipient":{"id":PAGE},"timestamp":1458692752478i64,"optin":{"ref":"r","user_ref":"u-9"}})),
            "optin messaging user_ref:u-9 - 1458692752478"),
        // who has the thread
        (said(json!({"pass_thread_control":{"previous_owner_app_id":null,"new_owner_app_id":263902037430900u64,"metadata":"m"}})),
            "pass_thread_control messaging 7200000000000001 - 1458692752478"),
        (said(json!({"take_thread_control":{"previous_owner_app_id":"12","new_owner_app_id":null}})),
            "take_thread_control messaging 7200000000000001 - 1458692752478"),
        (said(json!({"request_thread_control":{"requested_owner_app_id":123456789,"metadata":"please"}})),
            "request_thread_control messaging 7200000000000001 - 1458692752478"),
        (body("messaging", json!({"recipient":{"id":PAGE},"timestamp":"1458692752478","app_roles":{"123456789":["automation"]}})),
            "app_roles messaging nobody - 1458692752478"),
        // standby: read, never answered
        (read_along(json!({"message":{"mid":"m_1","text":"hi"}})), "message standby 7200000000000001 m_1 1458692752478 message:24h"),
        (read_along(json!({"postback":{"title":"Start"}})), "postback standby 7200000000000001 - 1458692752478 postback:24h"),
        (read_along(json!({"read":{"watermark":1}})), "read standby 7200000000000001 - 1458692752478"),
        (body("standby", json!({"sender":{"id":PAGE},"recipient":{"id":PERSON},"message":{"mid":"m_2","is_echo":true,"app_id":99,
            "metadata":"x","attachments":[{"type":"image","payload":{"url":"https://x/i","attachment_id":1234567}}]}})),
            "echo standby 7200000000000001 m_2 1458692752478"),
        // the Page itself
        (body("messaging", json!({"recipient":{"id":PAGE},"timestamp":1458692752478i64,"policy_enforcement":{"action":"block","reason":"x"}})),
            "policy_enforcement messaging nobody - 1458692752478"),
        (body("messaging", json!({"recipient":{"id":PAGE},"policy_enforcement":{"action":"unblock"}})),
            "policy_enforcement messaging nobody - 1458692752478"),
        // the rest
        (said(json!({"account_linking":{"status":"unlinked"}})), "account_linking messaging 7200000000000001 - 1458692752478"),
        (said(json!({"response_feedback":{"feedback":"Bad response","mid":"m_2"}})),
            "response_feedback messaging 7200000000000001 m_2 1458692752478"),
        (said(json!({"messaging_feedback":{"feedback_screens":[{"screen_id":0,"questions":{"q1":{"type":"csat","payload":"4",
            "follow_up":{"type":"free_form","payload":"fine"}}}}]}})), "customer_feedback messaging 7200000000000001 - 1458692752478"),
        (said(json!({"order":{"products":[{"id":"9","retailer_id":"r","name":"Mug","unit_price":12,"currency":"EUR","quantity":"2"}],
            "note":"a gift","source":"FBShop"}})), "order messaging 7200000000000001 - 1458692752478 turn"),
        (said(json!({"messaging_customer_information":{"screens":[{"screen_id":"s","responses":[{"key":"email","value":"a@b.example"}]}]}})),
            "customer_information messaging 7200000000000001 - 1458692752478 turn"),
        (said(json!({"game_play":{"game_id":5,"player_id":"6","context_type":"SOLO","score":3,"payload":"p"}})),
            "game_play messaging 7200000000000001 - 1458692752478"),
        // kinds that the pages name without a shape, and kinds of tomorrow
        (said(json!({"message_context":{"id":"1"}})), "unknown messaging 7200000000000001 - 1458692752478"),
        (said(json!({"payment":{"payload":"p"}})), "unknown messaging 7200000000000001 - 1458692752478"),
        (body("changes", json!({"field":"calls","value":{"id":"c"}})), "unknown changes nobody - 1458692752478"),
        (body("changes", json!({"field":"inbox_labels","value":{"action":"add","label":{"id":3,"page_label_name":"vip"},"user":{"id":PERSON}}})),
            "inbox_labels changes nobody - 1458692752478"),
        (body("changes", json!({"field":"messenger_template_status_update","value":{"event":"REJECTED","message_template_id":594425479261596u64,
            "message_template_name":"n","reason":"INVALID_FORMAT"}})), "template_status changes nobody - 1458692752478"),
        (body("changes", json!({"field":"feed","value":{"item":"comment","verb":"add","comment_id":"1_2","post_id":"1_1",
            "from":{"id":"5","name":"n"},"message":"How much?","created_time":1458692753}})),
            "feed changes nobody - 1458692753000 comment:168h"),
        (body("surprise", json!({"x":1})), "unknown envelope nobody - 1458692752478"),
    ];
    for (body, expected) in cases {
        assert_eq!(lines(&body), [expected], "{body}");
    }
}

#[test]
fn several_entries_lists_and_duplicates_are_all_read_in_order() {
    let message = |mid: &str| from_person(json!({"timestamp":1458692752478i64,"message":{"mid":mid,"text":"x"}}));
    let body = json!({"object":"page","entry":[
        {"id":PAGE,"time":1,"messaging":[message("m_1"), message("m_1")],"standby":[message("m_2")]},
        {"id":"206","time":1458692752478i64,"messaging":[message("m_3")]},
        {"id":PAGE,"messaging":[]},
        {"id":PAGE,"changes":[{"field":"feed","value":{"item":"like","verb":"add"}}],"messaging":[message("m_4")]},
    ]});
    let batch = parse(body.to_string().as_bytes()).expect("Meta's envelope");
    let mids: Vec<_> = batch.events.iter().map(|event| event.kind.mid().map_or("-", |mid| mid.as_str())).collect();
    assert_eq!(mids, ["m_1", "m_1", "m_2", "m_3", "m_4", "-"]);
    assert_eq!(batch.events[0].dedupe_key(), batch.events[1].dedupe_key(), "one message, twice in one body");
    assert_eq!(batch.events[3].page_id.as_ref().map(|id| id.as_str()), Some("206"), "the entry says whose it is");
}

#[test]
fn apps_that_had_the_thread_before_are_read_from_the_message_or_from_beside_it() {
    let hop = json!([{"app_id":413038776280800u64,"metadata":"lead"}]);
    let within = from_person(json!({"message":{"mid":"m_1","text":"x","hop_context":hop}}));
    let beside = from_person(json!({"message":{"mid":"m_1","text":"x"},"hop_context":hop}));
    for piece in [within, beside] {
        let events = parse(body("messaging", piece).to_string().as_bytes()).expect("Meta's envelope").events;
        let EventKind::Message(message) = &events[0].kind else { panic!("{events:?}") };
        assert_eq!(message.hop_context[0].app_id.as_ref().map(|id| id.as_str()), Some("413038776280800"));
    }
}

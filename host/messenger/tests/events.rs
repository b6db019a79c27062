//! Every event kind of the platform, in the shapes Meta documents and in those it really sends.
#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

use frontdesk_messenger::event::{
    AttachmentKind, Channel, EchoOrigin, Event, EventKind, Feedback, MessageShape, ParseError, PolicyAction,
    ReactionAction, needs_turn, parse,
};
use frontdesk_messenger::ids::{AppId, PageId};
use frontdesk_messenger::window::{WindowOpener, is_ad_click, opens_window};
use serde_json::{Value, json};

const PAGE: &str = "106000000000001";
const PERSON: &str = "7200000000000001";
const T: i64 = 1_767_225_600_123;

fn envelope(list: &str, pieces: Value) -> Vec<u8> {
    json!({ "object": "page", "entry": [{ "id": PAGE, "time": T, list: pieces }] }).to_string().into_bytes()
}

/// A piece from the person to the Page with the given fields.
fn inbound(fields: Value) -> Value {
    let mut piece = json!({ "sender": { "id": PERSON }, "recipient": { "id": PAGE }, "timestamp": T });
    let target = piece.as_object_mut().expect("an object");
    target.extend(fields.as_object().expect("an object").clone());
    piece
}

fn one(list: &str, piece: Value) -> Event {
    let mut batch = parse(&envelope(list, json!([piece]))).expect("Meta's envelope");
    assert_eq!(batch.events.len(), 1);
    batch.events.remove(0)
}

fn messaging(fields: Value) -> Event {
    one("messaging", inbound(fields))
}

#[test]
fn each_kind_is_recognised_with_its_turn_and_its_window() {
    use WindowOpener as W;
    let ad = json!({ "ref": "spring", "ad_id": 6045246247433u64, "source": "ADS", "type": "OPEN_THREAD" });
    let link = json!({ "ref": "shelf", "source": "SHORTLINK", "type": "OPEN_THREAD" });
    let image = json!([{ "type": "image", "payload": { "url": "https://cdn.example/a.jpg" } }]);
    let sticker =
        json!([{ "type": "sticker", "payload": { "sticker_id": 369239263222822u64, "url": "https://x/1.png" } }]);
    #[rustfmt::skip]
    let cases: Vec<(Value, &str, bool, Option<W>)> = vec![
        (json!({"message":{"mid":"m_1","text":"hi"}}), "message", true, Some(W::Message)),
        (json!({"message":{"mid":"m_1","text":"hi","seq":4,"nlp":{"intents":[]}}}), "message", true, Some(W::Message)),
        (json!({"message":{"mid":"m_1","text":"Red","quick_reply":{"payload":"R"}}}), "message", true, Some(W::Message)),
        (json!({"message":{"mid":"m_1","attachments":image}}), "message", true, Some(W::Message)),
        (json!({"message":{"mid":"m_1","attachments":sticker}}), "message", false, Some(W::Message)),
        (json!({"message":{"mid":"m_1","text":"hi","referral":ad}}), "message", true, Some(W::AdMessage)),
        (json!({"message":{"mid":"m_1","text":"hi","referral":{"product":{"id":"77"}}}}), "message", true, Some(W::Message)),
        (json!({"message":{"text":"/help","commands":[{"name":"help"}]}}), "message", true, Some(W::Message)),
        (json!({"message":{"mid":"m_1","is_unsupported":true}}), "message", true, Some(W::Message)),
        (json!({"message":{"mid":"m_1"}}), "message", false, Some(W::Message)),
        (json!({"message":{"mid":"m_1","is_deleted":true}}), "unsend", false, None),
        (json!({"message_edit":{"mid":"m_1","text":"hello","num_edit":"2"}}), "edit", false, None),
        (json!({"reaction":{"mid":"m_1","action":"react","reaction":"love","emoji":"\u{2764}"}}), "reaction", false, Some(W::Reaction)),
        (json!({"reaction":{"mid":"m_1","action":"unreact"}}), "reaction", false, None),
        (json!({"delivery":{"mids":["m_1"],"watermark":T}}), "delivery", false, None),
        (json!({"delivery":{"watermark":"1767225600123"}}), "delivery", false, None),
        (json!({"read":{"watermark":T}}), "read", false, None),
        (json!({"postback":{"mid":"m_2","title":"Start","payload":"GO"}}), "postback", true, Some(W::Postback)),
        (json!({"postback":{"title":"Start","payload":"GO","referral":ad}}), "postback", true, Some(W::Postback)),
        (json!({"referral":link}), "referral", false, Some(W::Referral)),
        (json!({"referral":ad}), "referral", false, None),
        (json!({"referral":{"type":"LEAD_COMPLETE","source":"ADS"},"lead":{"data":[{"question":"Size?","answer":"M"}]}}), "lead", true, None),
        (json!({"referral":{"type":"LEAD_INCOMPLETE"},"lead":[{"question":"Size?","answer":"M"}]}), "lead", false, None),
        (json!({"referral":{"type":"LEAD_COMPLETE"}}), "lead", true, None),
        (json!({"optin":{"type":"notification_messages","notification_messages_token":"t"}}), "optin", false, None),
        (json!({"pass_thread_control":{"previous_owner_app_id":null,"new_owner_app_id":"12"}}), "pass_thread_control", false, None),
        (json!({"take_thread_control":{"previous_owner_app_id":12,"new_owner_app_id":"263902037430900"}}), "take_thread_control", false, None),
        (json!({"request_thread_control":{"requested_owner_app_id":12}}), "request_thread_control", false, None),
        (json!({"app_roles":{"12":["primary_receiver"]}}), "app_roles", false, None),
        (json!({"policy_enforcement":{"action":"block","reason":"spam"}}), "policy_enforcement", false, None),
        (json!({"account_linking":{"status":"linked","authorization_code":"c"}}), "account_linking", false, None),
        (json!({"response_feedback":{"feedback":"Good response","mid":"m_1"}}), "response_feedback", false, None),
        (json!({"order":{"products":[{"id":"9","name":"Mug","quantity":2}],"note":"gift"}}), "order", true, None),
        (json!({"messaging_customer_information":{"screens":[{"responses":[]}]}}), "customer_information", true, None),
        (json!({"game_play":{"game_id":"1","player_id":"2"}}), "game_play", false, None),
        (json!({"messenger_template_status_update":{"template_name":"ship","event":"APPROVED"}}), "template_status", false, None),
        (json!({"hologram":{"mid":"m_1"}}), "unknown", false, None),
        (json!({"message":17}), "malformed", false, None),
        (json!({"postback":[1]}), "malformed", false, None),
        (json!({}), "unknown", false, None),
    ];
    for (fields, kind, turn, opener) in cases {
        let event = messaging(fields.clone());
        assert_eq!(event.kind_name(), kind, "{fields}");
        assert_eq!(needs_turn(&event), turn, "{fields}");
        assert_eq!(opens_window(&event).map(|rule| rule.opener), opener, "{fields}");
        assert_eq!(event.psid.as_ref().map(|psid| psid.as_str()), Some(PERSON), "{fields}");
        assert_eq!(event.timestamp_ms, Some(T), "{fields}");
        assert!(!event.from_page, "{fields}");

        let standby = one("standby", inbound(fields.clone()));
        assert!(!needs_turn(&standby), "standby never starts a turn: {fields}");
        assert_ne!(standby.dedupe_key(), event.dedupe_key(), "{fields}");
        for event in [event, standby] {
            let again = Event::from_stored(event.page_id.clone(), event.channel, event.timestamp_ms, event.raw.clone());
            assert_eq!(again, event, "stored and read again: {fields}");
            assert_eq!(again.dedupe_key(), event.dedupe_key());
        }
    }
}

#[test]
fn a_window_lasts_a_day_after_most_actions_and_a_week_after_an_ad() {
    let day = 24 * 3_600_000;
    let text = messaging(json!({"message":{"mid":"m","text":"hi"}}));
    let from_ad = messaging(json!({"message":{"mid":"m","text":"hi","referral":{"source":"ADS","ad_id":"1"}}}));
    let link = messaging(json!({"referral":{"source":"SHORTLINK","type":"OPEN_THREAD"}}));
    let click = messaging(json!({"referral":{"source":"ADS","type":"OPEN_THREAD","ad_id":"1"}}));
    assert_eq!(opens_window(&text).map(|rule| rule.duration_ms), Some(day));
    assert_eq!(opens_window(&from_ad).map(|rule| rule.duration_ms), Some(7 * day));
    assert_eq!(opens_window(&link).map(|rule| rule.needs_existing_thread), Some(true));
    assert!(is_ad_click(&click) && !is_ad_click(&link), "the click itself opens nothing; the next message does");
    assert!(opens_window(&one("standby", inbound(json!({"message":{"mid":"m","text":"hi"}})))).is_some());
}

#[test]
fn message_content_is_typed() {
    let event = messaging(json!({"message":{
        "mid":"m_9","text":"this one","reply_to":{"mid":"m_8","is_self_reply":true},
        "hop_context":[{"app_id":413038776280800u64,"metadata":"lead"}],
        "quick_reply":{"payload":"P"},
    }}));
    let EventKind::Message(message) = &event.kind else { panic!("{event:?}") };
    assert_eq!(message.shape(), MessageShape::QuickReply);
    assert_eq!(message.quick_reply_payload.as_deref(), Some("P"));
    let reply_to = message.reply_to.as_ref().unwrap();
    assert_eq!((reply_to.mid.as_ref().map(|mid| mid.as_str()), reply_to.is_self_reply), (Some("m_8"), true));
    assert_eq!(message.hop_context[0].app_id, Some(AppId::from("413038776280800")));
}

#[test]
fn attachments_of_every_type() {
    let attachments = json!([
        {"type":"image","payload":{"url":"https://x/i.jpg"}},
        {"type":"audio","payload":{"url":"https://x/a.mp4"}},
        {"type":"video","payload":{"url":"https://x/v.mp4"}},
        {"type":"file","payload":{"url":"https://x/f.pdf","attachment_id":123}},
        {"type":"reel","payload":{"url":"/reel/55","title":"r","reel_video_id":55}},
        {"type":"ig_post","payload":{"id":"8"}},
        {"type":"appointment_booking","payload":{}},
        {"type":"template","payload":{"product":{"elements":[{"id":"33","title":"Mug"}]}}},
        {"type":"location","payload":{"coordinates":{"lat":48.2,"long":16.4}}},
        {"type":"fallback","title":"A page","url":"https://x/p","payload":null},
        {"type":"fallback","title":"B page"},
        {"type":"telepathy"},
        {"payload":{}}
    ]);
    let event = messaging(json!({"message":{"mid":"m","attachments":attachments}}));
    let EventKind::Message(message) = &event.kind else { panic!("{event:?}") };
    let kinds: Vec<_> = message.attachments.iter().map(|attachment| attachment.kind.clone()).collect();
    use AttachmentKind::*;
    let expected = [
        Image,
        Audio,
        Video,
        File,
        Reel,
        Post,
        AppointmentBooking,
        Template,
        Location,
        Fallback,
        Fallback,
        Other("telepathy".to_owned()),
        Other(String::new()),
    ];
    assert_eq!(kinds, expected);
    let at = |index: usize| &message.attachments[index];
    assert_eq!(at(3).id.as_deref(), Some("123"));
    assert_eq!(at(4).url.as_deref(), Some("/reel/55"), "kept relative");
    assert_eq!(at(7).id.as_deref(), Some("33"));
    assert_eq!(at(8).coordinates.map(|c| c.lat), Some(48.2));
    assert_eq!((at(9).title.as_deref(), at(9).url.as_deref()), (Some("A page"), Some("https://x/p")));
}

#[test]
fn a_sticker_is_one_in_its_old_its_new_and_its_doubled_form() {
    let old = json!({"type":"image","payload":{"url":"https://x/1.png","sticker_id":369239383222810u64}});
    let new = json!({"type":"sticker","payload":{"url":"https://x/1.png","sticker_id":"369239383222810"}});
    for list in [json!([old]), json!([new]), json!([old, new]), json!([new, old])] {
        let event = messaging(json!({"message":{"mid":"m","attachments":list}}));
        let EventKind::Message(message) = &event.kind else { panic!("{event:?}") };
        assert_eq!(message.shape(), MessageShape::Sticker, "{list}");
        assert_eq!(message.attachments.len(), 1, "{list}");
        assert!(message.attachments[0].is_like());
        assert!(!needs_turn(&event));
    }
}

#[test]
fn an_echo_tells_who_wrote() {
    let cases = [
        (json!(12345), EchoOrigin::Ours),
        (json!("12345"), EchoOrigin::Ours),
        (json!(263902037430900u64), EchoOrigin::Inbox),
        (json!("26390203743090"), EchoOrigin::Inbox),
        (json!("1217981644879628"), EchoOrigin::Inbox),
        (Value::Null, EchoOrigin::Inbox),
        (json!(999), EchoOrigin::OtherApp(AppId::from("999"))),
    ];
    for (app_id, origin) in cases {
        let piece = json!({"sender":{"id":PAGE},"recipient":{"id":PERSON},"timestamp":T,
            "message":{"mid":"m_3","is_echo":true,"app_id":app_id,"metadata":"row-1","text":"Yes"}});
        let event = one("messaging", piece);
        let EventKind::Echo(echo) = &event.kind else { panic!("{event:?}") };
        assert_eq!(echo.origin(&AppId::from("12345")), origin);
        assert_eq!(echo.metadata.as_deref(), Some("row-1"));
        assert_eq!(event.psid.as_ref().map(|psid| psid.as_str()), Some(PERSON), "the person is the recipient");
        assert!(event.from_page && !needs_turn(&event) && opens_window(&event).is_none());
    }
    let absent = json!({"sender":{"id":PAGE},"recipient":{"id":PERSON},"message":{"mid":"m","is_echo":true}});
    let event = one("messaging", absent);
    let EventKind::Echo(echo) = &event.kind else { panic!("{event:?}") };
    assert_eq!(echo.origin(&AppId::from("12345")), EchoOrigin::Inbox);
}

#[test]
fn what_the_page_sends_without_the_echo_flag_is_still_the_pages() {
    let piece = json!({"sender":{"id":PAGE},"recipient":{"id":PERSON},"timestamp":T,"message":{"mid":"m","text":"x"}});
    let event = one("messaging", piece);
    assert!(event.from_page && !needs_turn(&event) && opens_window(&event).is_none());
    assert_eq!(event.psid.as_ref().map(|psid| psid.as_str()), Some(PERSON));
    let EventKind::Echo(echo) = &event.kind else { panic!("{event:?}") };
    assert_eq!(echo.origin(&AppId::from("12345")), EchoOrigin::Inbox, "somebody wrote it, and it does not say: an app");
    let ours = json!({"sender":{"id":PAGE},"recipient":{"id":PERSON},"timestamp":T,
        "message":{"mid":"m","text":"x","is_echo":false,"app_id":12345,"metadata":"row-1"}});
    let EventKind::Echo(echo) = one("messaging", ours).kind else { panic!("an echo") };
    assert_eq!((echo.origin(&AppId::from("12345")), echo.metadata.as_deref()), (EchoOrigin::Ours, Some("row-1")));
}

#[test]
fn control_policy_feedback_and_optin_fields() {
    let pass =
        messaging(json!({"pass_thread_control":{"previous_owner_app_id":12,"new_owner_app_id":null,"metadata":"m"}}));
    assert_eq!(
        pass.kind,
        EventKind::PassThreadControl {
            previous_owner: Some(AppId::from("12")),
            new_owner: None,
            metadata: Some("m".to_owned())
        }
    );
    let roles =
        one("messaging", json!({"recipient":{"id":PAGE},"timestamp":T,"app_roles":{"12":["primary_receiver"]}}));
    assert!(matches!(&roles.kind, EventKind::AppRoles { roles } if roles[&AppId::from("12")] == ["primary_receiver"]));
    assert_eq!(roles.psid, None);
    let policy =
        one("messaging", json!({"recipient":{"id":PAGE},"policy_enforcement":{"action":"warning","reason":"r"}}));
    assert!(matches!(&policy.kind, EventKind::PolicyEnforcement { action: PolicyAction::Warning, .. }));
    assert_eq!((policy.psid.as_ref(), policy.timestamp_ms), (None, Some(T)), "the entry's time stands in");
    let bad = messaging(json!({"response_feedback":{"feedback":"Bad response","mid":"m_1"}}));
    assert!(matches!(&bad.kind, EventKind::ResponseFeedback { verdict: Feedback::Bad, mid: Some(_) }));
    let edit = messaging(json!({"message_edit":{"mid":"m_1","text":"t","num_edit":3}}));
    assert!(matches!(&edit.kind, EventKind::Edit { num_edit: Some(3), .. }));
    let reaction = messaging(json!({"reaction":{"mid":"m_1","action":"react","emoji":"x"}}));
    assert!(matches!(&reaction.kind, EventKind::Reaction(r) if r.action == ReactionAction::React));

    let optin = one("messaging", json!({"recipient":{"id":PAGE},"timestamp":T,"optin":{"ref":"r","user_ref":"u-1"}}));
    assert_eq!((optin.psid.as_ref(), optin.user_ref.as_ref().map(|u| u.as_str())), (None, Some("u-1")));
    let plugin =
        one("messaging", json!({"sender":{"user_ref":"u-2"},"recipient":{"id":PAGE},"postback":{"payload":"GO"}}));
    assert_eq!(plugin.user_ref.as_ref().map(|u| u.as_str()), Some("u-2"));
    assert!(needs_turn(&plugin));
}

#[test]
fn times_come_as_seconds_milliseconds_strings_or_not_at_all() {
    let cases = [
        (json!(1_665_424_533), Some(1_665_424_533_000)),
        (json!("1527459824"), Some(1_527_459_824_000)),
        (json!(1_767_225_600_123i64), Some(1_767_225_600_123)),
        (json!("1767225600123"), Some(1_767_225_600_123)),
        (json!(99_999_999_999i64), Some(99_999_999_999_000)),
        (json!(100_000_000_000i64), Some(100_000_000_000)),
        (json!("2026-01-01T00:00:00+0000"), Some(1_767_225_600_000)),
        (json!(0), Some(T)),
        (json!(-5), Some(T)),
        (json!("soon"), Some(T)),
        (json!(1e300), Some(T)),
        (json!(null), Some(T)),
    ];
    for (time, expected) in cases {
        let event = messaging(json!({"timestamp":time,"message":{"mid":"m","text":"x"}}));
        assert_eq!(event.timestamp_ms, expected, "{time}");
    }
    let body = json!({"object":"page","entry":[{"id":PAGE,"messaging":[{"read":{"watermark":1}}]}]});
    assert_eq!(parse(body.to_string().as_bytes()).unwrap().events[0].timestamp_ms, None);
}

#[test]
fn ids_come_as_numbers_or_strings_and_the_page_may_be_missing_from_the_entry() {
    let body = json!({"object":"page","entry":[{"time":T,"messaging":[
        {"sender":{"id":7200000000000001u64},"recipient":{"id":106000000000001u64},"message":{"mid":"m","text":"x"}},
        {"sender":{"id":PAGE},"recipient":{"id":PERSON},"message":{"mid":"m","is_echo":true}},
        {"sender":PERSON,"recipient":PAGE,"message":{"mid":"m","text":"bare"}}
    ]}]});
    for event in parse(body.to_string().as_bytes()).unwrap().events {
        assert_eq!(event.page_id, Some(PageId::from(PAGE)));
        assert_eq!(event.psid.as_ref().map(|psid| psid.as_str()), Some(PERSON));
    }
}

#[test]
fn changes_are_typed() {
    let change = |field: &str, value: Value| one("changes", json!({"field":field,"value":value}));
    let comment = change(
        "feed",
        json!({"item":"comment","verb":"add","comment_id":"1_2","from":{"id":"5"},"created_time":1767225601}),
    );
    assert!(matches!(&comment.kind, EventKind::Feed(feed) if feed.comment_id.as_deref() == Some("1_2")));
    assert_eq!(opens_window(&comment).map(|rule| rule.messages_max), Some(Some(1)));
    assert_eq!(comment.timestamp_ms, Some(1_767_225_601_000));
    let own = change("feed", json!({"item":"comment","verb":"add","from":{"id":PAGE}}));
    assert_eq!(opens_window(&own), None);
    let post = change("feed", json!({"item":"post","verb":"add","from":{"id":"5"}}));
    assert_eq!(opens_window(&post).map(|rule| rule.opener), Some(WindowOpener::VisitorPost));
    assert_eq!(change("inbox_labels", json!({"action":"add","label":{"id":3}})).kind_name(), "inbox_labels");
    assert_eq!(change("messenger_template_status_update", json!({"event":"PAUSED"})).kind_name(), "template_status");
    assert_eq!(change("ratings", json!({})).kind_name(), "unknown");
    // Fields that Meta lists without a shape are kept, although they begin like the ones whose events come in `messaging`.
    for field in ["messaging_optouts", "messaging_integrity", "message_context", "messaging_direct_sends"] {
        assert_eq!(change(field, json!({"sender":{"id":"5"}})).kind_name(), "unknown", "{field}");
    }
    for field in
        ["messages", "message_edits", "messaging_policy_enforcement", "standby", "send_cart", "response_feedback"]
    {
        assert_eq!(change(field, json!({"sender":{"id":"5"}})).kind, EventKind::DashboardTest, "{field}");
    }
    assert_eq!(one("changes", json!({"value":{}})).kind_name(), "malformed");
    assert_eq!(one("changes", json!({"field":"feed","value":"x"})).kind_name(), "malformed");
}

#[test]
fn dashboard_tests_are_acknowledged_and_ignored() {
    let bodies = [
        json!({"object":"page","entry":[{"messaging":[{"message":"TEST_MESSAGE"}]}]}),
        json!({"field":"messages","value":{"sender":{"id":"12334"},"recipient":{"id":"23245"},
            "timestamp":"1527459824","message":{"mid":"test_message_id","text":"test_message"}}}),
        json!({"object":"page","entry":[{"id":"0","time":1,"changes":[{"field":"messages","value":{"message":{"text":"t"}}}]}]}),
    ];
    for body in bodies {
        let batch = parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(batch.events.len(), 1, "{body}");
        assert_eq!(batch.events[0].kind, EventKind::DashboardTest, "{body}");
        assert!(!needs_turn(&batch.events[0]));
    }
}

#[test]
fn one_bad_neighbour_costs_only_itself() {
    let good = |mid: &str| inbound(json!({"message":{"mid":mid,"text":"x"}})).to_string();
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let bad = [
        "null".to_owned(),
        "17".to_owned(),
        "\"text\"".to_owned(),
        "[]".to_owned(),
        r#"{"message":{"mid":"m_x","text":"cut emoji \ud83d"}}"#.to_owned(),
        r#"{"message":{"mid":"m_x","text":"nul \u0000"}}"#.to_owned(),
        r#"{"timestamp":1e999,"message":{"mid":"m_x"}}"#.to_owned(),
        format!(r#"{{"message":{deep}}}"#),
        "{\"message\":{\"text\":\"\u{0}\"}}".replace('\u{0}', "\\u0000"),
    ];
    for bad in bad {
        let body = format!(
            r#"{{"object":"page","entry":[{{"id":"{PAGE}","time":{T},"messaging":[{},{bad},{}]}},null,
               {{"id":"{PAGE}","surprise":1}},{{"id":"{PAGE}","standby":[{}]}}]}}"#,
            good("m_1"),
            good("m_2"),
            good("m_3")
        );
        let events = parse(body.as_bytes()).unwrap().events;
        assert_eq!(events.len(), 6, "{bad:.80}");
        let mids: Vec<_> = [0, 2, 5].iter().map(|at: &usize| events[*at].kind.mid().unwrap().to_string()).collect();
        assert_eq!(mids, ["m_1", "m_2", "m_3"]);
        assert_eq!(events[5].channel, Channel::Standby);
        let keys: std::collections::BTreeSet<_> = events.iter().map(Event::dedupe_key).collect();
        assert_eq!(keys.len(), 6, "no two of them count as the same: {bad:.80}");
        assert!(!serde_json::to_string(&events[1].raw).unwrap().contains("\\u0000"), "jsonb takes it: {bad:.80}");
    }
    // Bytes that are not UTF-8 inside one text.
    let mut body = envelope("messaging", json!([inbound(json!({"message":{"mid":"m","text":"#"}}))]));
    let at = body.iter().position(|byte| *byte == b'#').unwrap();
    body[at] = 0xff;
    assert_eq!(parse(&body).unwrap().events[0].kind_name(), "message");
}

#[test]
fn lists_may_be_single_objects() {
    let body =
        json!({"object":"page","entry":{"id":PAGE,"time":T,"messaging":inbound(json!({"read":{"watermark":1}}))}});
    assert_eq!(parse(body.to_string().as_bytes()).unwrap().events[0].kind_name(), "read");
}

#[test]
fn what_is_not_for_a_page_is_refused_with_the_right_status() {
    let cases: [(&[u8], u16); 9] = [
        (br#"{"object":"instagram","entry":[]}"#, 404),
        (br#"{"object":"whatsapp_business_account","entry":[]}"#, 404),
        (br#"{"object":"Page","entry":[]}"#, 404),
        (br#"{}"#, 404),
        (b"", 400),
        (b"hello", 400),
        (b"[]", 400),
        (b"null", 400),
        (br#"{"object":"page""#, 400),
    ];
    for (body, status) in cases {
        let error = parse(body).unwrap_err();
        assert_eq!(error.http_status(), status, "{}", String::from_utf8_lossy(body));
    }
    assert!(parse(br#"{"object":"page","entry":[]}"#).unwrap().events.is_empty());
    let large = vec![b' '; frontdesk_messenger::event::BODY_BYTES_MAX + 1];
    assert!(matches!(parse(&large), Err(ParseError::TooLarge { .. })));
    let many = |count: usize| {
        format!(r#"{{"object":"page","entry":[{{"id":"1","messaging":[{}]}}]}}"#, vec!["1"; count].join(","))
    };
    assert_eq!(parse(many(10_000).as_bytes()).unwrap().events.len(), 10_000);
    assert_eq!(parse(many(10_001).as_bytes()), Err(ParseError::TooManyEvents));
}

#[test]
fn identity_survives_a_retry_and_separates_what_differs() {
    let key = |fields: Value| messaging(fields).dedupe_key();
    // The same event, delivered twice, in another key order, in another entry.
    let first = r#"{"object":"page","entry":[{"id":"1","time":5000000000000,"messaging":[{"sender":{"id":"2"},"recipient":{"id":"1"},"timestamp":1767225600123,"read":{"watermark":7}}]}]}"#;
    let again = r#"{"object":"page","entry":[{"time":6000000000000,"id":1,"messaging":[{"timestamp":1767225600123,"read":{"watermark":7},"recipient":{"id":"1"},"sender":{"id":"2"}}]}]}"#;
    let [first, again] = [first, again].map(|body| parse(body.as_bytes()).unwrap().events[0].dedupe_key());
    assert_eq!(first, again);

    let distinct = [
        json!({"message":{"mid":"m_1","text":"a"}}),
        json!({"message":{"mid":"m_2","text":"a"}}),
        json!({"message":{"mid":"m_1","is_deleted":true}}),
        json!({"message":{"mid":"m_1","is_echo":true}}),
        json!({"message_edit":{"mid":"m_1","text":"b","num_edit":1}}),
        json!({"message_edit":{"mid":"m_1","text":"c","num_edit":2}}),
        json!({"reaction":{"mid":"m_1","action":"react","emoji":"x"}}),
        json!({"reaction":{"mid":"m_1","action":"unreact","emoji":"x"}}),
        json!({"timestamp":T+1,"reaction":{"mid":"m_1","action":"react","emoji":"x"}}),
        json!({"delivery":{"mids":["m_1"],"watermark":1}}),
        json!({"delivery":{"mids":["m_2"],"watermark":1}}),
        json!({"postback":{"mid":"m_1","payload":"p"}}),
        json!({"postback":{"payload":"p"}}),
        json!({"timestamp":T+1,"postback":{"payload":"p"}}),
        json!({"response_feedback":{"feedback":"Good response","mid":"m_1"}}),
        json!({"response_feedback":{"feedback":"Bad response","mid":"m_1"}}),
    ];
    let keys: std::collections::BTreeSet<_> = distinct.iter().map(|fields| key(fields.clone())).collect();
    assert_eq!(keys.len(), distinct.len());
    // A message's identity is its id: how its text is written does not matter.
    assert_eq!(
        key(json!({"message":{"mid":"m_1","text":"a"}})),
        key(json!({"message":{"mid":"m_1","text":"a","seq":1}}))
    );
    // Two Pages may see the same id.
    let other = json!({"object":"page","entry":[{"id":"99","messaging":[inbound(json!({"message":{"mid":"m_1"}}))]}]});
    assert_ne!(parse(other.to_string().as_bytes()).unwrap().events[0].dedupe_key(), key(distinct[0].clone()));
    let long = messaging(json!({"message":{"mid":"m".repeat(100_000),"text":"a"}}));
    assert!(long.dedupe_key().len() <= 1024);
}

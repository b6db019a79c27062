//! What Meta posts, through the real webhook: acknowledged, stored once, applied once, and answered only when it is due.

mod corrections;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use frontdesk_messenger::signature;
use frontdesk_testkit::wire;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::host::{ANSWER, APP_ID, APP_SECRET, Host, OTHER_PAGE, PAGE, QUESTION, VERIFY_TOKEN};

/// Some other app.
const OTHER_APP: &str = "999888777666555";

fn sign(secret: &str, body: &[u8]) -> String {
    signature::sign(&SecretString::from(secret), body)
}

/// A body with one text message.
fn text_body(psid: &str, mid: &str, text: &str) -> Value {
    let now_ms = wire::now_ms();
    wire::body(PAGE, now_ms, vec![wire::from_person(PAGE, psid, now_ms, wire::text(mid, text))])
}

/// A host whose workers only start with the second start: what is posted before waits in the inbox.
async fn host_that_only_takes() -> (Host, Arc<AtomicBool>) {
    let works = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&works);
    let host = Host::start_with(move |plan| plan.roles.work = switch.load(Ordering::SeqCst)).await;
    host.teach_answer().await;
    (host, works)
}

async fn let_work(host: Host, works: &AtomicBool) -> Host {
    works.store(true, Ordering::SeqCst);
    let host = host.restart().await;
    host.drained().await;
    host
}

#[tokio::test]
async fn the_handshake_echoes_digits_for_the_right_token_only() {
    let host = Host::start().await;
    let token = VERIFY_TOKEN.replace(' ', "%20");
    let ok = format!("hub.mode=subscribe&hub.verify_token={token}");
    let cases = [
        (format!("{ok}&hub.challenge=1158201444"), 200),
        (format!("{ok}&hub.challenge=0"), 200),
        (format!("{ok}&hub.challenge=7&other=x"), 200),
        (format!("hub.mode=subscribe&hub.verify_token={token}x&hub.challenge=5"), 403),
        ("hub.mode=subscribe&hub.verify_token=&hub.challenge=5".to_owned(), 403),
        (format!("hub.mode=unsubscribe&hub.verify_token={token}&hub.challenge=5"), 403),
        (ok.clone(), 400),
        ("hub.mode=subscribe&hub.challenge=5".to_owned(), 403),
        (format!("hub.verify_token={token}&hub.challenge=5"), 403),
        (String::new(), 403),
        (format!("{ok}&hub.verify_token={token}&hub.challenge=5"), 403),
        (format!("{ok}&hub.challenge="), 400),
        (format!("{ok}&hub.challenge=12a"), 400),
        (format!("{ok}&hub.challenge=-5"), 400),
        (format!("{ok}&hub.challenge=%3Cscript%3E"), 400),
        (format!("{ok}&hub.challenge={}", "1".repeat(65)), 400),
        (format!("{ok}&hub.challenge=1&hub.challenge=2"), 400),
    ];
    for path in ["/meta/webhook", "/webhook"] {
        for (query, expected) in &cases {
            let response = host.http.get(format!("{}{path}?{query}", host.address)).send().await.unwrap();
            assert_eq!(response.status().as_u16(), *expected, "{path}?{query}");
            let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
            assert!(kind.starts_with("text/plain"), "{kind}");
            let body = response.text().await.unwrap();
            if *expected == 200 {
                assert_eq!(format!("hub.challenge={body}"), query.split('&').nth(2).unwrap());
            } else {
                assert!(!body.contains("script"), "{body}");
                assert!(!body.contains(VERIFY_TOKEN), "{body}");
            }
        }
    }
}

#[tokio::test]
async fn only_what_the_app_secret_signed_is_stored() {
    let host = Host::start().await;
    let body = |mid: &str| wire::to_wire(&text_body("301", mid, "äöå https://x/y"));
    let signed = |mid: &str| sign(APP_SECRET, &body(mid));
    let upper = |header: String| format!("sha256={}", header["sha256=".len()..].to_uppercase());
    let altered = {
        let mut bytes = body("m_altered");
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        bytes
    };
    let reserialised = serde_json::to_vec(&serde_json::from_slice::<Value>(&body("m_again")).unwrap()).unwrap();
    let cases: [(&str, Vec<u8>, Option<String>, u16); 10] = [
        ("right", body("m_right"), Some(signed("m_right")), 200),
        ("uppercase digits", body("m_upper"), Some(upper(signed("m_upper"))), 200),
        ("none", body("m_none"), None, 401),
        ("another secret", body("m_wrong"), Some(sign("another secret", &body("m_wrong"))), 403),
        ("altered body", altered, Some(signed("m_altered")), 403),
        ("re-serialised body", reserialised, Some(signed("m_again")), 403),
        ("cut short", body("m_cut"), Some(signed("m_cut")[..70].to_owned()), 401),
        ("no prefix", body("m_bare"), Some(signed("m_bare")["sha256=".len()..].to_owned()), 401),
        ("another algorithm", body("m_sha1"), Some(signed("m_sha1").replace("sha256=", "sha1=")), 401),
        ("empty", body("m_empty"), Some(String::new()), 401),
    ];
    for (what, body, header, expected) in cases {
        assert_eq!(host.meta.post_bytes(body, header.as_deref()).await.unwrap(), expected, "{what}");
    }
    // The old header alone counts for nothing, whatever it holds.
    let old = host.http.post(format!("{}/meta/webhook", host.address)).body(body("m_old"));
    let old = old.header("X-Hub-Signature", signed("m_old").replace("sha256=", "sha1=")).send().await.unwrap();
    assert_eq!(old.status(), 401);
    let stored: Vec<String> =
        sqlx::query_scalar("select mid from inbox order by mid").fetch_all(host.pool()).await.unwrap();
    assert_eq!(stored, ["m_right", "m_upper"]);
}

#[tokio::test]
async fn what_is_no_page_envelope_is_refused_with_its_status() {
    let host = Host::start_with(|plan| plan.settings.server.webhook_body_bytes_max = 65_536).await;
    let filled = |bytes: usize| {
        let mut body = wire::to_wire(&text_body("302", "m_large", ""));
        let padding = " ".repeat(bytes - body.len());
        body.extend_from_slice(padding.as_bytes());
        body
    };
    let cases: [(&str, Vec<u8>, u16); 10] = [
        ("as large as allowed", filled(65_536), 200),
        ("one byte larger", filled(65_537), 413),
        ("Instagram", br#"{"object":"instagram","entry":[]}"#.to_vec(), 404),
        ("WhatsApp", br#"{"object":"whatsapp_business_account","entry":[]}"#.to_vec(), 404),
        ("no object", br#"{"entry":[]}"#.to_vec(), 404),
        ("no JSON", b"hello".to_vec(), 400),
        ("nothing", Vec::new(), 400),
        ("a list", b"[]".to_vec(), 400),
        ("no entries", br#"{"object":"page","entry":[]}"#.to_vec(), 200),
        ("broken after the start", br#"{"object":"page","entry":[{"#.to_vec(), 400),
    ];
    for (what, body, expected) in cases {
        let signature = sign(APP_SECRET, &body);
        assert_eq!(host.meta.post_bytes(body, Some(&signature)).await.unwrap(), expected, "{what}");
    }
    assert_eq!(host.count("select count(*) from inbox").await, 1);
}

#[tokio::test]
async fn a_batch_is_taken_whole_and_each_good_event_counts_once() {
    let host = Host::start().await;
    host.teach_answer().await;
    let now_ms = wire::now_ms();
    let from = |page: &str, psid: &str, fields: Value| wire::from_person(page, psid, now_ms, fields);
    let ours: u64 = APP_ID.parse().unwrap();
    let first = from(PAGE, "401", wire::text("m_401", QUESTION));
    let body = wire::batch(vec![
        wire::entry(
            PAGE,
            now_ms,
            "messaging",
            vec![
                first.clone(),
                first.clone(),
                json!("not an event"),
                json!({ "sender": { "id": "402" }, "recipient": { "id": PAGE }, "timestamp": now_ms, "message": 7 }),
                from(PAGE, "403", json!({ "brand_new_kind": { "mid": "m_403" } })),
                from(PAGE, "404", wire::text("m_404", QUESTION)),
            ],
        ),
        wire::entry(OTHER_PAGE, now_ms, "messaging", vec![from(OTHER_PAGE, "405", wire::text("m_405", QUESTION))]),
        wire::entry(
            PAGE,
            now_ms,
            "messaging",
            vec![
                wire::from_page(PAGE, "404", now_ms, wire::echo("m_echo", "sent by our app", ours, None)),
                from(PAGE, "401", wire::delivery(&["m_x"], now_ms)),
            ],
        ),
        json!({ "id": PAGE, "time": now_ms, "brand_new_list": [1] }),
        json!(null),
    ]);
    // The whole body again, the first event alone again, and two at once.
    assert_eq!(host.meta.post(&body).await.unwrap(), 200);
    let again = wire::body(PAGE, now_ms, vec![first]);
    let (one, two) = tokio::join!(host.meta.post(&again), host.meta.post(&body));
    assert_eq!((one.unwrap(), two.unwrap()), (200, 200));
    host.drained().await;

    let kinds: Vec<(String, i64)> = sqlx::query_as(
        // The echoes of the answers come when they come.
        "select kind, count(*) from inbox where kind <> 'echo' or mid = 'm_echo' group by kind order by kind",
    )
    .fetch_all(host.pool())
    .await
    .unwrap();
    let expected = [("delivery", 1), ("echo", 1), ("malformed", 3), ("message", 3), ("unknown", 2)];
    assert_eq!(kinds, expected.map(|(kind, count)| (kind.to_owned(), count)));
    for psid in ["401", "404", "405"] {
        let got = host.got(psid);
        assert!(got.len() == 1 && got[0].contains(ANSWER), "{psid} got {got:?}");
    }
    assert_eq!(host.graph.sends_to("405")[0].page_id, OTHER_PAGE);
    assert_eq!(host.graph.sends().len(), 3);
    assert_eq!(host.count("select count(*) from decisions").await, 3);
}

/// Meta's shapes of everything in the facts of the platform: the fields, the kind, and whether a turn is due.
fn every_kind() -> Vec<(Value, &'static str, bool)> {
    let attachment = |kind: &str, payload: Value| wire::attachment("m", kind, payload);
    let url = json!({ "url": "https://cdn.invalid/x" });
    vec![
        (wire::text("m", QUESTION), "message", true),
        (wire::quick_reply("m", "Shipping to Austria", "SHIPPING"), "message", true),
        (wire::reply_to("m", QUESTION, "m_before"), "message", true),
        (wire::text_from_ad("m", QUESTION, "23842"), "message", true),
        (json!({ "message": { "mid": "m", "text": "/menu", "commands": [{ "name": "menu" }] } }), "message", true),
        (attachment("image", url.clone()), "message", true),
        (attachment("audio", url.clone()), "message", true),
        (attachment("video", url.clone()), "message", true),
        (attachment("file", url.clone()), "message", true),
        (attachment("reel", json!({ "url": "/reel/1", "reel_video_id": 5 })), "message", true),
        (attachment("location", json!({ "coordinates": { "lat": 48.2, "long": 16.4 } })), "message", true),
        (attachment("fallback", Value::Null), "message", true),
        (attachment("appointment_booking", json!({})), "message", true),
        (wire::like("m"), "message", false),
        (
            attachment("image", json!({ "url": "https://x.invalid", "sticker_id": 369_239_263_222_822_u64 })),
            "message",
            false,
        ),
        (json!({ "message": { "mid": "m" } }), "message", false),
        (wire::postback("m", "Get started", "GET_STARTED"), "postback", true),
        (json!({ "order": { "products": [{ "id": "1", "quantity": 1 }], "note": "" } }), "order", true),
        (
            json!({ "messaging_customer_information": { "screens": [{ "screen_id": "a" }] } }),
            "customer_information",
            true,
        ),
        (
            json!({ "referral": { "type": "LEAD_COMPLETE", "source": "ADS" },
                    "lead": { "data": [{ "question": "City?", "answer": "Graz" }] } }),
            "lead",
            true,
        ),
        (json!({ "referral": { "type": "LEAD_INCOMPLETE", "source": "ADS" }, "lead": { "data": [] } }), "lead", false),
        (wire::unsend("m"), "unsend", false),
        (wire::edit("m", QUESTION, 1), "edit", false),
        (wire::reaction("m", "react", "👍"), "reaction", false),
        (wire::reaction("m", "unreact", "👍"), "reaction", false),
        (wire::delivery(&["m"], 1_700_000_000_000), "delivery", false),
        (json!({ "delivery": { "watermark": "1700000000000" } }), "delivery", false),
        (wire::read(1_700_000_000_000), "read", false),
        (wire::referral("link"), "referral", false),
        (
            json!({ "referral": { "source": "ADS", "type": "OPEN_THREAD", "ad_id": 5 }, "timestamp": 1_700_000_000 }),
            "referral",
            false,
        ),
        (wire::optin("x"), "optin", false),
        (wire::pass_thread_control(Some(OTHER_APP), Some(APP_ID)), "pass_thread_control", false),
        (wire::pass_thread_control(None, None), "pass_thread_control", false),
        (wire::take_thread_control(Some(APP_ID), OTHER_APP), "take_thread_control", false),
        (
            json!({ "request_thread_control": { "requested_owner_app_id": 5, "metadata": "" } }),
            "request_thread_control",
            false,
        ),
        (json!({ "account_linking": { "status": "linked", "authorization_code": "c" } }), "account_linking", false),
        (wire::response_feedback("m", false), "response_feedback", false),
        (json!({ "game_play": { "game_id": "1", "player_id": "2" } }), "game_play", false),
    ]
}

/// Gives every event ids of its own.
fn with_own_mid(mut fields: Value, mid: &str) -> Value {
    for body in fields.as_object_mut().unwrap().values_mut() {
        if let Some(own) = body.get_mut("mid") {
            *own = json!(mid);
        }
    }
    fields
}

#[tokio::test]
async fn every_kind_of_event_is_taken_and_only_those_that_ask_start_a_turn() {
    let host = Host::start().await;
    host.teach_answer().await;
    let cases = every_kind();
    for (index, (fields, ..)) in cases.iter().enumerate() {
        let fields = with_own_mid(fields.clone(), &format!("m_kind_{index}"));
        assert_eq!(host.meta.from_person(&format!("50{index:02}"), fields).await.unwrap(), 200, "case {index}");
    }
    host.drained().await;
    for (index, (fields, kind, has_turn)) in cases.iter().enumerate() {
        let psid = format!("50{index:02}");
        let found: Vec<(String, String)> =
            sqlx::query_as("select kind, state from inbox where psid = $1 and (kind <> 'echo' or kind = $2)")
                .bind(&psid)
                .bind(*kind)
                .fetch_all(host.pool())
                .await
                .unwrap();
        assert_eq!(found, [((*kind).to_owned(), "done".to_owned())], "{fields}");
        let turns = host.turns(&psid).await;
        assert_eq!(turns.len(), usize::from(*has_turn), "{fields} led to {turns:?}");
        if !has_turn {
            assert_eq!(host.got(&psid), [""; 0], "{fields}");
        }
    }
}

#[tokio::test]
async fn events_of_the_page_itself_are_taken_and_answered_by_nobody() {
    let host = Host::start().await;
    let now_ms = wire::now_ms();
    let without_sender = |fields: Value| {
        let mut piece = json!({ "recipient": { "id": PAGE }, "timestamp": now_ms });
        piece.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        wire::body(PAGE, now_ms, vec![piece])
    };
    let change = |field: &str, value: Value| {
        wire::batch(vec![wire::entry(PAGE, now_ms, "changes", vec![json!({ "field": field, "value": value })])])
    };
    let cases = [
        (without_sender(json!({ "app_roles": { APP_ID: ["primary_receiver"] } })), "app_roles"),
        (without_sender(wire::policy_enforcement("warning", "spam")), "policy_enforcement"),
        (without_sender(json!({ "optin": { "ref": "plugin", "user_ref": "u1" } })), "optin"),
        (change("feed", json!({ "item": "comment", "verb": "add", "from": { "id": "9" }, "message": "?" })), "feed"),
        (change("inbox_labels", json!({ "action": "add", "label": { "id": 7 } })), "inbox_labels"),
        (change("messenger_template_status_update", json!({ "event": "APPROVED" })), "template_status"),
        (change("brand_new", json!({})), "unknown"),
    ];
    for (body, kind) in &cases {
        assert_eq!(host.meta.post(body).await.unwrap(), 200, "{kind}");
    }
    host.read_all().await;
    let kinds: Vec<String> =
        sqlx::query_scalar("select kind from inbox order by id").fetch_all(host.pool()).await.unwrap();
    assert_eq!(kinds, cases.map(|(_, kind)| kind));
    assert_eq!(host.count("select count(*) from decisions").await, 0);

    // A block stops the Page, an unblock lets it go on.
    for (action, state) in [("block", "stopped"), ("unblock", "active")] {
        let body = without_sender(wire::policy_enforcement(action, "spam"));
        assert_eq!(host.meta.post(&body).await.unwrap(), 200);
        host.until(action, async || host.page_state(PAGE).await == state).await;
        assert_eq!(host.page_state(OTHER_PAGE).await, "active");
    }
}

#[tokio::test]
async fn characters_that_postgres_refuses_cost_nobody_anything() {
    let host = Host::start().await;
    host.teach_answer().await;
    let now_ms = wire::now_ms();
    let body = format!(
        r#"{{"object":"page","entry":[{{"id":"{PAGE}","time":{now_ms},"messaging":[
            {{"sender":{{"id":"601"}},"recipient":{{"id":"{PAGE}"}},"timestamp":{now_ms},"message":{{"mid":"m_601","text":"Do you ship to \u0000Austria?"}}}},
            {{"sender":{{"id":"602"}},"recipient":{{"id":"{PAGE}"}},"timestamp":{now_ms},"message":{{"mid":"m_602","text":"Do you ship to Austria? \ud83d"}}}},
            {{"sender":{{"id":"603"}},"recipient":{{"id":"{PAGE}"}},"timestamp":{now_ms},"message":{{"mid":"m_603","text":"Do you ship to Austria? \ud83d\ude00"}}}}]}}]}}"#
    );
    let signature = sign(APP_SECRET, body.as_bytes());
    assert_eq!(host.meta.post_bytes(body.into_bytes(), Some(&signature)).await.unwrap(), 200);
    host.drained().await;
    let mut texts = Vec::new();
    for psid in ["601", "602", "603"] {
        texts.extend(host.said(psid).await);
    }
    let expected =
        ["Do you ship to \u{fffd}Austria?", "Do you ship to Austria? \u{fffd}", "Do you ship to Austria? 😀"];
    assert_eq!(texts, expected);
    for psid in ["601", "602", "603"] {
        assert_eq!(host.turns(psid).await.len(), 1, "{psid}");
    }
}

#[tokio::test]
async fn test_bodies_of_the_dashboard_are_acknowledged_and_leave_nothing() {
    let host = Host::start().await;
    let bodies = [
        json!({ "object": "page", "entry": [{ "messaging": [{ "message": "TEST_MESSAGE" }] }] }),
        json!({ "field": "messages", "value": { "sender": { "id": "12334" }, "recipient": { "id": "23245" },
                "timestamp": "1527459824", "message": { "mid": "test_message_id", "text": "test_message" } } }),
    ];
    for body in bodies {
        assert_eq!(host.meta.post(&body).await.unwrap(), 200, "{body}");
    }
    assert_eq!(host.count("select count(*) from inbox").await, 0);
}

#[tokio::test]
async fn messages_are_ordered_by_metas_time_and_not_by_arrival() {
    let (host, works) = host_that_only_takes().await;
    let now_ms = wire::now_ms();
    // Seconds and milliseconds, as numbers and strings: Meta uses all of them.
    let stamps = [
        ("m_c", json!(now_ms - 1_000), "and how long does it take?"),
        ("m_a", json!((now_ms / 1_000 - 30).to_string()), "Hello,"),
        ("m_b", json!(now_ms / 1_000 - 20), "do you ship to Austria"),
    ];
    for (mid, stamp, text) in stamps {
        let mut fields = wire::text(mid, text);
        fields["timestamp"] = stamp;
        assert_eq!(host.meta.from_person("741", fields).await.unwrap(), 200);
    }
    let host = let_work(host, &works).await;
    let turns = host.turns("741").await;
    assert_eq!(turns.len(), 1, "a burst is one turn: {turns:?}");
    assert_eq!(turns[0]["mids"], json!(["m_a", "m_b", "m_c"]));
    assert_eq!(host.said("741").await, ["Hello,", "do you ship to Austria", "and how long does it take?"]);
}

#[tokio::test]
async fn nothing_is_answered_from_standby_until_the_thread_is_ours_again() {
    let host = Host::start().await;
    host.teach_answer().await;
    assert_eq!(host.meta.standby("751", wire::text("m_751", QUESTION)).await.unwrap(), 200);
    assert_eq!(host.meta.standby("751", json!({ "postback": { "title": "Get started" } })).await.unwrap(), 200);
    host.drained().await;
    assert_eq!(host.owner("751").await, "not_ours");
    assert_eq!(host.turns("751").await.len(), 0);
    host.ask("751", QUESTION).await;
    host.drained().await;
    assert_eq!(host.owner("751").await, "bot");
    assert_eq!(host.got("751").len(), 1);
    let authors: Vec<String> =
        sqlx::query_scalar("select author from messages order by sent_at, id").fetch_all(host.pool()).await.unwrap();
    assert_eq!(authors, ["customer", "customer", "customer", "bot"], "standby is read along");
}

//! No input panics, whatever it is; and good pieces survive any neighbour.

use frontdesk_messenger::event::{Channel, Event, needs_turn, parse, parse_each};
use frontdesk_messenger::handshake::verify_handshake_query;
use frontdesk_messenger::signature;
use frontdesk_messenger::signed_request::parse_signed_request;
use frontdesk_messenger::split::{TEXT_UNITS_MAX, split_text, split_text_at, text_units};
use frontdesk_messenger::window::opens_window;
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::{Value, json};

/// Keys and values that steer into the readers rather than past them.
fn json_like() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        prop::sample::select(vec![
            "sender",
            "recipient",
            "id",
            "user_ref",
            "timestamp",
            "message",
            "mid",
            "text",
            "attachments",
            "payload",
            "type",
            "referral",
            "lead",
            "data",
            "optin",
            "delivery",
            "mids",
            "watermark",
            "reaction",
            "postback",
            "message_edit",
            "num_edit",
            "app_roles",
            "is_echo",
            "app_id",
            "field",
            "value",
            "quick_reply",
            "commands",
        ])
        .prop_map(str::to_owned),
        "[a-z\\u{0}]{0,4}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn exercise(event: &Event) {
    let again = Event::from_stored(event.page_id.clone(), event.channel, event.timestamp_ms, event.raw.clone());
    assert_eq!(&again, event);
    assert!(event.dedupe_key().len() <= 1024);
    assert_eq!(again.dedupe_key(), event.dedupe_key());
    assert!(!(needs_turn(event) && event.channel != Channel::Messaging));
    let _ = opens_window(event);
}

proptest! {
    #[test]
    fn any_bytes(body in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(batch) = parse(&body) { batch.events.iter().for_each(exercise); }
    }

    #[test]
    fn any_pieces_and_a_good_one(bad in prop::collection::vec(json_like(), 0..5), list in prop::sample::select(vec!["messaging", "standby", "changes"])) {
        let mut pieces = bad.clone();
        pieces.push(json!({"sender":{"id":"2"},"recipient":{"id":"1"},"timestamp":1_767_225_600_123i64,"message":{"mid":"m_good","text":"x"}}));
        let body = json!({"object":"page","entry":[{"id":"1","time":1,list:pieces},{"id":"1","messaging":[{"sender":{"id":"2"},"message":{"mid":"m_good","text":"x"}}]}, bad]});
        let batch = parse(body.to_string().as_bytes()).expect("an envelope");
        prop_assert!(batch.events.len() >= bad.len() + 2);
        batch.events.iter().for_each(exercise);
        prop_assert!(batch.events.iter().any(|e| e.channel == Channel::Messaging && e.kind.mid().is_some_and(|mid| mid.as_str() == "m_good")));
    }

    #[test]
    fn the_text_of_an_event_reads_as_its_value(pieces in prop::collection::vec(json_like(), 0..5), list in prop::sample::select(vec!["messaging", "standby", "entry"])) {
        let body = json!({"object":"page","entry":[{"id":"1","time":1,list:pieces}]});
        let mut checked = Ok(());
        parse_each(body.to_string().as_bytes(), |event, text| {
            if serde_json::from_str::<Value>(text).ok().as_ref() != Some(&event.raw) || text.contains("\\u0000") && !text.contains("\\\\u0000") {
                checked = Err(format!("{text} is not {}", event.raw));
            }
        }).expect("an envelope");
        prop_assert_eq!(checked, Ok(()));
    }

    #[test]
    fn any_mutation_of_a_good_body(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let good = json!({"object":"page","entry":[{"id":"1","time":1,"messaging":[{"sender":{"id":"2"},"recipient":{"id":"1"},
            "timestamp":1,"message":{"mid":"m","text":"\u{1F600}","attachments":[{"type":"image","payload":{"url":"u"}}]}}]}]}).to_string();
        let mut body = good.into_bytes();
        let index = at.index(body.len());
        if let Some(slot) = body.get_mut(index) { *slot = byte; }
        if let Ok(batch) = parse(&body) { batch.events.iter().for_each(exercise); }
        body.truncate(cut.index(body.len()));
        if let Ok(batch) = parse(&body) { batch.events.iter().for_each(exercise); }
    }

    #[test]
    fn signatures_round_trip_and_any_other_header_is_refused(secret in "[ -~]{1,40}", body in prop::collection::vec(any::<u8>(), 0..200), other in ".*") {
        let secrets = [SecretString::from(secret)];
        let header = signature::sign(&secrets[0], &body);
        prop_assert_eq!(signature::verify(Some(&header), &secrets, &body), Ok(0));
        prop_assert!(signature::verify(Some(&other), &secrets, &body).is_err());
        let mut changed = body.clone();
        changed.push(b' ');
        prop_assert!(signature::verify(Some(&header), &secrets, &changed).is_err());
    }

    #[test]
    fn callbacks_take_any_text(field in ".*", mode in ".*", token in ".*", challenge in ".*") {
        let secrets = [SecretString::from("s".to_owned())];
        prop_assert!(parse_signed_request(&field, &secrets, 0).is_err());
        let pairs = [("hub.mode", mode.as_str()), ("hub.verify_token", token.as_str()), ("hub.challenge", challenge.as_str())];
        if let Ok(echo) = verify_handshake_query(pairs, &secrets) {
            prop_assert!(echo.bytes().all(|byte| byte.is_ascii_digit()));
        }
    }

    #[test]
    fn a_split_loses_only_blanks(text in "([a-zä\u{1F600}\u{1F468}\u{200D} .\n]|\\PC){0,400}", limit in 1usize..60, hints in prop::collection::vec(0usize..600, 0..4)) {
        let parts = split_text_at(&text, &hints, limit.max(2));
        let squeeze = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        prop_assert_eq!(squeeze(&parts.concat()), squeeze(&text));
        for part in &parts {
            prop_assert!(text_units(part) <= limit.max(2));
            prop_assert!(!part.trim().is_empty());
        }
    }

    #[test]
    fn a_long_text_is_cut_under_metas_limit(text in "[a-z .\n]{1500,5000}") {
        for part in split_text(&text, &[]) { prop_assert!(text_units(&part) <= TEXT_UNITS_MAX); }
    }
}

//! Webhook bodies as they travel.
//!
//! Builders give JSON values of Meta's shapes; [`to_wire`] writes them the way Meta does: every character outside ASCII as
//! `\uXXXX` (lowercase hex, surrogate pairs) and `/` as `\/`. The signature covers those bytes.

use serde_json::{Map, Value, json};

/// The Page Inbox's app id, as its echoes carry it.
pub const PAGE_INBOX_APP_ID: u64 = 263_902_037_430_900;

/// Stands before a plugin's `user_ref` where a builder takes a PSID.
pub const USER_REF: &str = "user_ref:";

/// A whole body: one entry with some pieces in `messaging`.
pub fn body(page_id: &str, time_ms: i64, pieces: Vec<Value>) -> Value {
    batch(vec![entry(page_id, time_ms, "messaging", pieces)])
}

/// A whole body of several entries.
pub fn batch(entries: Vec<Value>) -> Value {
    json!({ "object": "page", "entry": entries })
}

/// An entry; `list` is `messaging`, `standby` or `changes`.
pub fn entry(page_id: &str, time_ms: i64, list: &str, pieces: Vec<Value>) -> Value {
    json!({ "id": page_id, "time": time_ms, list: pieces })
}

/// A piece from a person to the Page with the fields of a JSON object.
pub fn from_person(page_id: &str, psid: &str, timestamp_ms: i64, fields: Value) -> Value {
    piece(psid, page_id, timestamp_ms, fields)
}

/// A piece from the Page to a person with the fields of a JSON object.
pub fn from_page(page_id: &str, psid: &str, timestamp_ms: i64, fields: Value) -> Value {
    piece(page_id, psid, timestamp_ms, fields)
}

fn piece(sender: &str, recipient: &str, timestamp_ms: i64, fields: Value) -> Value {
    let mut piece = Map::new();
    piece.insert("sender".to_owned(), party(sender));
    piece.insert("recipient".to_owned(), party(recipient));
    piece.insert("timestamp".to_owned(), json!(timestamp_ms));
    if let Value::Object(fields) = fields {
        piece.extend(fields);
    }
    Value::Object(piece)
}

fn party(id: &str) -> Value {
    match id.strip_prefix(USER_REF) {
        Some(user_ref) => json!({ "user_ref": user_ref }),
        None => json!({ "id": id }),
    }
}

/// The fields of a text message.
pub fn text(mid: &str, text: &str) -> Value {
    json!({ "message": { "mid": mid, "text": text } })
}

/// The fields of a tapped quick reply.
pub fn quick_reply(mid: &str, title: &str, payload: &str) -> Value {
    json!({ "message": { "mid": mid, "text": title, "quick_reply": { "payload": payload } } })
}

/// The fields of a message that replies to another.
pub fn reply_to(mid: &str, text: &str, to_mid: &str) -> Value {
    json!({ "message": { "mid": mid, "text": text, "reply_to": { "mid": to_mid } } })
}

/// The fields of a message with one attachment of a type.
pub fn attachment(mid: &str, kind: &str, payload: Value) -> Value {
    json!({ "message": { "mid": mid, "attachments": [{ "type": kind, "payload": payload }] } })
}

/// The fields of a thumbs-up.
pub fn like(mid: &str) -> Value {
    attachment(mid, "sticker", json!({ "url": "https://cdn.invalid/like.png", "sticker_id": 369_239_263_222_822_u64 }))
}

/// The fields of a text that came through a Click-to-Messenger ad.
pub fn text_from_ad(mid: &str, text: &str, ad_id: &str) -> Value {
    let referral = json!({ "ref": "ad", "ad_id": ad_id, "source": "ADS", "type": "OPEN_THREAD" });
    json!({ "message": { "mid": mid, "text": text, "referral": referral } })
}

/// The fields of a postback.
pub fn postback(mid: &str, title: &str, payload: &str) -> Value {
    json!({ "postback": { "mid": mid, "title": title, "payload": payload } })
}

/// The fields of a link into an existing thread.
pub fn referral(reference: &str) -> Value {
    json!({ "referral": { "ref": reference, "source": "SHORTLINK", "type": "OPEN_THREAD" } })
}

/// The fields of a reaction; `action` is `react` or `unreact`.
pub fn reaction(mid: &str, action: &str, emoji: &str) -> Value {
    json!({ "reaction": { "mid": mid, "action": action, "reaction": "other", "emoji": emoji } })
}

/// The fields of a changed message. The count is a string, as Meta prints it.
pub fn edit(mid: &str, text: &str, num_edit: u32) -> Value {
    json!({ "message_edit": { "mid": mid, "text": text, "num_edit": num_edit.to_string() } })
}

/// The fields of a withdrawn message.
pub fn unsend(mid: &str) -> Value {
    json!({ "message": { "mid": mid, "is_deleted": true } })
}

/// The fields of a delivery receipt.
pub fn delivery(mids: &[&str], watermark_ms: i64) -> Value {
    json!({ "delivery": { "mids": mids, "watermark": watermark_ms } })
}

/// The fields of a read receipt.
pub fn read(watermark_ms: i64) -> Value {
    json!({ "read": { "watermark": watermark_ms } })
}

/// The fields of an opt-in.
pub fn optin(reference: &str) -> Value {
    json!({ "optin": { "type": "notification_messages", "ref": reference, "notification_messages_token": "sim" } })
}

/// The fields of a handed-over thread; `None` is idle.
pub fn pass_thread_control(previous_app_id: Option<&str>, new_app_id: Option<&str>) -> Value {
    let control = json!({ "previous_owner_app_id": previous_app_id, "new_owner_app_id": new_app_id, "metadata": "" });
    json!({ "pass_thread_control": control })
}

/// The fields of a taken thread.
pub fn take_thread_control(previous_app_id: Option<&str>, new_app_id: &str) -> Value {
    let control = json!({ "previous_owner_app_id": previous_app_id, "new_owner_app_id": new_app_id, "metadata": "" });
    json!({ "take_thread_control": control })
}

/// The fields of a policy notice: `warning`, `block` or `unblock`.
pub fn policy_enforcement(action: &str, reason: &str) -> Value {
    json!({ "policy_enforcement": { "action": action, "reason": reason } })
}

/// The fields of a thumbs up or down on an answer.
pub fn response_feedback(mid: &str, is_good: bool) -> Value {
    let feedback = if is_good { "Good response" } else { "Bad response" };
    json!({ "response_feedback": { "feedback": feedback, "mid": mid } })
}

/// The fields of an echo, to be used with [`from_page`].
pub fn echo(mid: &str, text: &str, app_id: u64, metadata: Option<&str>) -> Value {
    let mut message = json!({ "mid": mid, "is_echo": true, "app_id": app_id, "text": text });
    if let (Some(metadata), Some(message)) = (metadata, message.as_object_mut()) {
        message.insert("metadata".to_owned(), json!(metadata));
    }
    json!({ "message": message })
}

/// The fields of what a person of the Page wrote in Business Suite: an echo without an app id.
pub fn inbox_echo(mid: &str, text: &str) -> Value {
    json!({ "message": { "mid": mid, "is_echo": true, "text": text } })
}

/// JSON as Meta writes it.
pub fn to_wire(body: &Value) -> Vec<u8> {
    let plain = body.to_string();
    let mut wire = String::with_capacity(plain.len());
    for character in plain.chars() {
        match character {
            // A slash stands only inside strings.
            '/' => wire.push_str("\\/"),
            ascii if ascii.is_ascii() => wire.push(ascii),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    wire.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    wire.into_bytes()
}

/// A message id of the length and alphabet of Meta's.
pub fn new_mid() -> String {
    use rand::Rng;
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = rand::rng();
    let letters =
        (0..110).map(|_| char::from(ALPHABET.get(random.random_range(0..ALPHABET.len())).copied().unwrap_or(b'x')));
    format!("m_{}", letters.collect::<String>())
}

/// The wall clock in milliseconds since 1970, as Meta stamps events.
pub fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_ascii_and_means_the_same() {
        let value = body("1", 2, vec![from_person("1", "9", 3, text("m_1", "äöå https://x/y 😀 \"q\" \\ \n"))]);
        let wire = to_wire(&value);
        assert!(wire.is_ascii());
        let written = String::from_utf8(wire.clone()).unwrap();
        assert!(written.contains(r"\u00e4\u00f6\u00e5 https:\/\/x\/y \ud83d\ude00"), "{written}");
        assert_eq!(serde_json::from_slice::<Value>(&wire).unwrap(), value);
    }

    #[test]
    fn every_builder_is_read_as_what_it_builds() {
        let cases = [
            (text("m", "x"), "message"),
            (quick_reply("m", "x", "p"), "message"),
            (reply_to("m", "x", "n"), "message"),
            (like("m"), "message"),
            (text_from_ad("m", "x", "1"), "message"),
            (postback("m", "x", "p"), "postback"),
            (referral("r"), "referral"),
            (reaction("m", "react", "x"), "reaction"),
            (edit("m", "x", 1), "edit"),
            (unsend("m"), "unsend"),
            (delivery(&["m"], 1), "delivery"),
            (read(1), "read"),
            (optin("r"), "optin"),
            (pass_thread_control(None, Some("1")), "pass_thread_control"),
            (take_thread_control(None, "1"), "take_thread_control"),
            (policy_enforcement("block", "r"), "policy_enforcement"),
            (response_feedback("m", true), "response_feedback"),
            (echo("m", "x", 1, Some("d")), "echo"),
            (inbox_echo("m", "x"), "echo"),
        ];
        for (fields, kind) in cases {
            let wire = to_wire(&body("1", 2, vec![from_person("1", "9", 3, fields)]));
            let events = frontdesk_messenger::parse(&wire).unwrap().events;
            assert_eq!(events.first().map(|event| event.kind_name()), Some(kind));
        }
    }
}

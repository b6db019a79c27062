//! What makes two deliveries the same event.
//!
//! A message's id is not enough: an edit, a reaction, an unsend and the standby copy all name the same one. So the key
//! is `page / kind / channel` and then
//!
//! | kind | identity |
//! |---|---|
//! | message, echo, unsend, postback with an id | the message id |
//! | edit | message id, number of the edit (its text's digest where the number is missing) |
//! | reaction | message id, sender, action, emoji, timestamp: one may react, take it back and react again |
//! | feedback | message id, verdict, timestamp: one may change one's mind |
//! | everything else, and the above without an id | SHA-256 of page, kind, sender, timestamp and canonical body |
//!
//! The canonical body has its keys sorted: Meta does not promise that a retry is byte-identical.

use std::borrow::Cow;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Channel, Event, EventKind, Feedback, ReactionAction};

pub(super) fn dedupe_key(event: &Event) -> String {
    let page = page_part(event.page_id.as_ref().map_or("-", |page| page.as_str()));
    let mid = event.kind.mid().map(|mid| mid.as_str());
    let mut key = start(&page, event.kind_name(), event.channel, mid);
    let detail = match (&event.kind, mid) {
        (EventKind::Message(_) | EventKind::Echo(_) | EventKind::Unsend { .. } | EventKind::Postback(_), Some(_)) => {
            return key;
        }
        (EventKind::Edit { num_edit, text, .. }, Some(_)) => match num_edit {
            Some(number) => number.to_string(),
            None => format!("text-{}", digest(&[text.as_deref().unwrap_or_default()])),
        },
        (EventKind::Reaction(reaction), Some(_)) => {
            let action = match &reaction.action {
                ReactionAction::React => "react",
                ReactionAction::Unreact => "unreact",
                ReactionAction::Other(other) => other,
            };
            let emoji = reaction.emoji.as_deref().or(reaction.reaction.as_deref()).unwrap_or_default();
            digest(&[&person(event), action, emoji, &time(event)])
        }
        (EventKind::ResponseFeedback { verdict, .. }, Some(_)) => {
            let verdict = match verdict {
                Feedback::Good => "good",
                Feedback::Bad => "bad",
                Feedback::Other(other) => other,
            };
            digest(&[&person(event), verdict, &time(event)])
        }
        _ => {
            let mut canonical = String::new();
            write_canonical(&event.raw, &mut canonical);
            let digest = digest(&[&page, event.kind_name(), &person(event), &time(event), &canonical]);
            return start(&page, event.kind_name(), event.channel, None) + "sha256:" + &digest;
        }
    };
    key.push(':');
    key.push_str(&detail);
    key
}

/// `page/kind/channel/`, and the message's id where that is the identity, or the beginning of it.
fn start(page: &str, kind: &str, channel: Channel, mid: Option<&str>) -> String {
    let mut key = String::with_capacity(page.len() + mid.map_or(0, str::len) + 128);
    for part in [page, "/", kind, "/", channel.name(), "/"] {
        key.push_str(part);
    }
    if let Some(mid) = mid {
        key.push_str("mid:");
        key.push_str(mid);
    }
    key
}

fn page_part(page: &str) -> Cow<'_, str> {
    if page.len() <= 64 { Cow::Borrowed(page) } else { Cow::Owned(digest(&[page])) }
}

/// The key of a customer's message, for whoever looks for it.
pub fn message_key(page_id: &str, channel: Channel, mid: &str) -> String {
    start(&page_part(page_id), "message", channel, Some(mid))
}

fn person(event: &Event) -> String {
    let id = event.psid.as_ref().map(|psid| psid.as_str()).or(event.user_ref.as_ref().map(|user| user.as_str()));
    format!("{}{}", if event.from_page { "page>" } else { "" }, id.unwrap_or_default())
}

fn time(event: &Event) -> String {
    event.timestamp_ms.map(|ms| ms.to_string()).unwrap_or_default()
}

/// SHA-256 over length-prefixed parts, so that no two lists of parts run together to the same bytes.
fn digest(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hex::encode(hasher.finalize())
}

/// Compact JSON with sorted keys. The depth is bounded by the JSON reader.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(object) => {
            let mut fields: Vec<_> = object.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in fields {
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write_canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

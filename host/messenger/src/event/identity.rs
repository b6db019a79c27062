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

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Channel, Event, EventKind, Feedback, ReactionAction};

pub(super) fn dedupe_key(event: &Event) -> String {
    let page = event.page_id.as_ref().map_or("-", |page| page.as_str());
    let page = page_part(page);
    let mid = event.kind.mid().map(|mid| mid.as_str());
    let detail = match (&event.kind, mid) {
        (EventKind::Message(_) | EventKind::Echo(_) | EventKind::Unsend { .. } | EventKind::Postback(_), Some(mid)) => {
            format!("mid:{mid}")
        }
        (EventKind::Edit { num_edit, text, .. }, Some(mid)) => match num_edit {
            Some(number) => format!("mid:{mid}:{number}"),
            None => format!("mid:{mid}:text-{}", digest(&[text.as_deref().unwrap_or_default()])),
        },
        (EventKind::Reaction(reaction), Some(mid)) => {
            let action = match &reaction.action {
                ReactionAction::React => "react",
                ReactionAction::Unreact => "unreact",
                ReactionAction::Other(other) => other,
            };
            let emoji = reaction.emoji.as_deref().or(reaction.reaction.as_deref()).unwrap_or_default();
            format!("mid:{mid}:{}", digest(&[&person(event), action, emoji, &time(event)]))
        }
        (EventKind::ResponseFeedback { verdict, .. }, Some(mid)) => {
            let verdict = match verdict {
                Feedback::Good => "good",
                Feedback::Bad => "bad",
                Feedback::Other(other) => other,
            };
            format!("mid:{mid}:{}", digest(&[&person(event), verdict, &time(event)]))
        }
        _ => {
            let mut canonical = String::new();
            write_canonical(&event.raw, &mut canonical);
            format!("sha256:{}", digest(&[&page, event.kind_name(), &person(event), &time(event), &canonical]))
        }
    };
    format!("{page}/{}/{}/{detail}", event.kind_name(), event.channel.name())
}

fn page_part(page: &str) -> String {
    if page.len() <= 64 { page.to_owned() } else { digest(&[page]) }
}

/// The key of a customer's message, for whoever asks whether it has arrived.
pub fn message_key(page_id: &str, mid: &str) -> String {
    format!("{}/message/{}/mid:{mid}", page_part(page_id), Channel::Messaging.name())
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

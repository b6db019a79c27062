//! The envelope: finding the pieces without parsing them, so that one broken piece stays alone.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{
    BODY_BYTES_MAX, Batch, Channel, EVENTS_MAX, Event, ParseError, UNREADABLE_PIECE_BYTES_MAX, lenient, piece,
};
use crate::ids::PageId;

type RawObject = HashMap<String, Box<RawValue>>;
type RawList = Vec<Box<RawValue>>;

/// Reads a whole webhook body. The signature must have been verified over the same bytes before.
///
/// Gives every event of the body, in order; see the module for what becomes of unreadable ones.
///
/// # Errors
/// Only for what is not Meta's envelope for a Page; [`ParseError::http_status`] is the answer to give.
pub fn parse(body: &[u8]) -> Result<Batch, ParseError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(ParseError::TooLarge { bytes: body.len() });
    }
    let text = String::from_utf8_lossy(body);
    let text = replace_lone_surrogates(text.trim_start_matches('\u{feff}'));
    let top: RawObject =
        serde_json::from_str(&text).map_err(|error| ParseError::NotJson { detail: describe(&error) })?;

    let object = top.get("object").map(|raw| value_of(raw));
    match object.as_ref().and_then(Value::as_str) {
        Some("page") => {}
        Some(other) => return Err(ParseError::OtherObject { object: Some(other.chars().take(64).collect()) }),
        // The dashboard's field test posts a bare change, without an envelope.
        None if top.contains_key("field") && top.contains_key("value") => {
            let event = piece::read(None, Channel::Envelope, None, value_from(&text));
            return Ok(Batch { events: vec![event] });
        }
        None => return Err(ParseError::OtherObject { object: None }),
    }

    let mut reader = Reader::default();
    match top.get("entry") {
        Some(raw) => {
            for entry in items(raw) {
                reader.entry(&entry)?;
            }
        }
        None => reader.push(None, Channel::Envelope, None, value_from(&text))?,
    }
    Ok(Batch { events: reader.events })
}

#[derive(Default)]
struct Reader {
    events: Vec<Event>,
}

impl Reader {
    fn entry(&mut self, raw: &RawValue) -> Result<(), ParseError> {
        let Some(entry) = read::<RawObject>(raw) else {
            return self.push(None, Channel::Envelope, None, value_of(raw));
        };
        let page_id = entry.get("id").and_then(|raw| lenient::id(&value_of(raw))).map(PageId::new);
        let time_ms = entry.get("time").and_then(|raw| lenient::time(&value_of(raw)));
        let lists = [("messaging", Channel::Messaging), ("standby", Channel::Standby), ("changes", Channel::Changes)];
        let mut is_known = false;
        for (key, channel) in lists {
            let Some(list) = entry.get(key).filter(|raw| raw.get() != "null") else { continue };
            is_known = true;
            for item in items(list) {
                self.push(page_id.clone(), channel, time_ms, value_of(&item))?;
            }
        }
        if is_known { Ok(()) } else { self.push(page_id, Channel::Envelope, time_ms, value_of(raw)) }
    }

    fn push(
        &mut self,
        page_id: Option<PageId>,
        channel: Channel,
        time_ms: Option<i64>,
        raw: Value,
    ) -> Result<(), ParseError> {
        if self.events.len() >= EVENTS_MAX {
            return Err(ParseError::TooManyEvents);
        }
        self.events.push(piece::read(page_id, channel, time_ms, raw));
        Ok(())
    }
}

/// A list's items, or the one thing that stands in a list's place.
fn items(raw: &RawValue) -> RawList {
    read::<RawList>(raw).unwrap_or_else(|| vec![raw.to_owned()])
}

fn read<T: DeserializeOwned>(raw: &RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

fn value_of(raw: &RawValue) -> Value {
    value_from(raw.get())
}

/// The JSON of a piece, or, when it cannot be read, its text as a JSON string so that it can still be stored.
fn value_from(text: &str) -> Value {
    let mut value = serde_json::from_str(text).unwrap_or_else(|_| {
        let end = text.floor_char_boundary(UNREADABLE_PIECE_BYTES_MAX);
        Value::String(text[..end].to_owned())
    });
    replace_nul(&mut value);
    value
}

/// U+0000 is legal in JSON and refused by Postgres' `jsonb`. Nesting is bounded by the JSON reader (128).
fn replace_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Value::Array(items) => items.iter_mut().for_each(replace_nul),
        Value::Object(object) => {
            if object.keys().any(|key| key.contains('\0')) {
                let fields = std::mem::take(object);
                object.extend(fields.into_iter().map(|(key, value)| (key.replace('\0', "\u{fffd}"), value)));
            }
            object.values_mut().for_each(replace_nul);
        }
        _ => {}
    }
}

/// Replaces `\ud800`-like escapes without their other half by `\ufffd`. A text cut in the middle of an emoji gives such,
/// and a JSON reader refuses the whole document for it.
fn replace_lone_surrogates(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut fixed: Option<String> = None;
    let mut copied = 0;
    let mut at = 0;
    while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += offset;
        let Some(unit) = escape_unit(bytes, at) else {
            at += 2;
            continue;
        };
        let is_high = (0xd800..0xdc00).contains(&unit);
        let is_low = (0xdc00..0xe000).contains(&unit);
        if is_high && escape_unit(bytes, at + 6).is_some_and(|next| (0xdc00..0xe000).contains(&next)) {
            at += 12;
        } else if is_high || is_low {
            let out = fixed.get_or_insert_with(|| String::with_capacity(text.len()));
            out.push_str(&text[copied..at]);
            out.push_str("\\ufffd");
            at += 6;
            copied = at;
        } else {
            at += 6;
        }
    }
    match fixed {
        Some(mut out) => {
            out.push_str(&text[copied..]);
            Cow::Owned(out)
        }
        None => Cow::Borrowed(text),
    }
}

/// The UTF-16 unit of a `\uXXXX` escape at this place.
fn escape_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let escape = bytes.get(at..at + 6)?;
    if escape[0] != b'\\' || escape[1] != b'u' || !escape[2..].iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(&escape[2..]).ok()?, 16).ok()
}

/// Where the JSON breaks, without quoting it.
fn describe(error: &serde_json::Error) -> String {
    format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_are_kept() {
        let cases = [
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\ude00 x""#, r#""\ufffd x""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\u00e4\/""#, r#""\u00e4\/""#),
            ("\\", "\\"),
            ("\\u12", "\\u12"),
        ];
        for (given, expected) in cases {
            assert_eq!(replace_lone_surrogates(given), expected, "given {given}");
        }
    }
}

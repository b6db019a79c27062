//! The envelope: finding the pieces without parsing them, so that one broken piece stays alone.
//!
//! What Meta sends is read in one pass ([`Plain`]). Whatever differs from it (an entry that is no object, a field that comes twice,
//! no list at all) is read step by step, a level at a time, and so tolerantly. Both give the same events of the same body.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{
    BODY_BYTES_MAX, Batch, Channel, EVENTS_MAX, Event, ParseError, UNREADABLE_PIECE_BYTES_MAX, lenient, piece,
};
use crate::ids::PageId;

type RawObject = HashMap<String, Box<RawValue>>;
type RawList = Vec<Box<RawValue>>;

/// The envelope as Meta writes it.
#[derive(Deserialize)]
struct Plain<'a> {
    #[serde(borrow)]
    object: Cow<'a, str>,
    #[serde(borrow)]
    entry: Vec<PlainEntry<'a>>,
}

#[derive(Deserialize)]
struct PlainEntry<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    messaging: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    standby: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    changes: Option<Vec<&'a RawValue>>,
}

impl PlainEntry<'_> {
    fn has_list(&self) -> bool {
        self.messaging.is_some() || self.standby.is_some() || self.changes.is_some()
    }
}

/// Reads a whole webhook body. The signature must have been verified over the same bytes before.
///
/// Gives every event of the body, in order; see the module for what becomes of unreadable ones.
///
/// # Errors
/// Only for what is not Meta's envelope for a Page; [`ParseError::http_status`] is the answer to give.
pub fn parse(body: &[u8]) -> Result<Batch, ParseError> {
    let mut events = Vec::new();
    parse_each(body, |event, _| events.push(event))?;
    Ok(Batch { events })
}

/// As [`parse`], but hands each event on with its JSON text: what [`Event::raw`] was read from, character for character where it can
/// be stored so. What was handed on before an error counts for nothing.
///
/// # Errors
/// As [`parse`].
pub fn parse_each(body: &[u8], each: impl FnMut(Event, &str)) -> Result<(), ParseError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(ParseError::TooLarge { bytes: body.len() });
    }
    let text = String::from_utf8_lossy(body);
    let text = replace_lone_surrogates(text.trim_start_matches('\u{feff}'));
    let mut reader = Reader { events: 0, each };
    match serde_json::from_str::<Plain<'_>>(&text) {
        Ok(plain) if plain.object == "page" && plain.entry.iter().all(PlainEntry::has_list) => {
            plain.entry.iter().try_for_each(|entry| reader.plain_entry(entry))
        }
        _ => step_by_step(&text, &mut reader),
    }
}

fn step_by_step<F: FnMut(Event, &str)>(text: &str, reader: &mut Reader<F>) -> Result<(), ParseError> {
    let top: RawObject =
        serde_json::from_str(text).map_err(|error| ParseError::NotJson { detail: describe(&error) })?;

    let object = top.get("object").map(|raw| value_of(raw));
    match object.as_ref().and_then(Value::as_str) {
        Some("page") => {}
        Some(other) => return Err(ParseError::OtherObject { object: Some(other.chars().take(64).collect()) }),
        // The dashboard's field test posts a bare change, without an envelope.
        None if top.contains_key("field") && top.contains_key("value") => {
            return reader.push(None, Channel::Envelope, None, text);
        }
        None => return Err(ParseError::OtherObject { object: None }),
    }

    match top.get("entry") {
        Some(raw) => items(raw).iter().try_for_each(|entry| reader.entry(entry)),
        None => reader.push(None, Channel::Envelope, None, text),
    }
}

struct Reader<F> {
    /// How many were handed on.
    events: usize,
    each: F,
}

impl<F: FnMut(Event, &str)> Reader<F> {
    fn plain_entry(&mut self, entry: &PlainEntry<'_>) -> Result<(), ParseError> {
        let page_id = entry.id.and_then(|raw| lenient::id(&value_of(raw))).map(PageId::new);
        let time_ms = entry.time.and_then(|raw| lenient::time(&value_of(raw)));
        let lists = [
            (&entry.messaging, Channel::Messaging),
            (&entry.standby, Channel::Standby),
            (&entry.changes, Channel::Changes),
        ];
        for (list, channel) in lists {
            for item in list.iter().flatten() {
                self.push(page_id.clone(), channel, time_ms, item.get())?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, raw: &RawValue) -> Result<(), ParseError> {
        let Some(entry) = read::<RawObject>(raw) else {
            return self.push(None, Channel::Envelope, None, raw.get());
        };
        let page_id = entry.get("id").and_then(|raw| lenient::id(&value_of(raw))).map(PageId::new);
        let time_ms = entry.get("time").and_then(|raw| lenient::time(&value_of(raw)));
        let lists = [("messaging", Channel::Messaging), ("standby", Channel::Standby), ("changes", Channel::Changes)];
        let mut is_known = false;
        for (key, channel) in lists {
            let Some(list) = entry.get(key).filter(|raw| raw.get() != "null") else { continue };
            is_known = true;
            for item in items(list) {
                self.push(page_id.clone(), channel, time_ms, item.get())?;
            }
        }
        if is_known { Ok(()) } else { self.push(page_id, Channel::Envelope, time_ms, raw.get()) }
    }

    fn push(
        &mut self,
        page_id: Option<PageId>,
        channel: Channel,
        time_ms: Option<i64>,
        text: &str,
    ) -> Result<(), ParseError> {
        if self.events >= EVENTS_MAX {
            return Err(ParseError::TooManyEvents);
        }
        self.events += 1;
        let (raw, is_as_written) = value_from(text);
        let text = if is_as_written { Cow::Borrowed(text) } else { Cow::Owned(raw.to_string()) };
        (self.each)(piece::read(page_id, channel, time_ms, raw), &text);
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
    value_from(raw.get()).0
}

/// The JSON of a piece, or, when it cannot be read, its text as a JSON string so that it can still be stored. And whether it is what
/// the text says.
fn value_from(text: &str) -> (Value, bool) {
    let read = serde_json::from_str(text);
    let is_as_written = read.is_ok() && !text.contains("\\u0000");
    let mut value = read.unwrap_or_else(|_| {
        let end = text.floor_char_boundary(UNREADABLE_PIECE_BYTES_MAX);
        Value::String(text[..end].to_owned())
    });
    if !is_as_written {
        replace_nul(&mut value);
    }
    (value, is_as_written)
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
    fn one_pass_and_step_by_step_give_the_same_events() {
        let piece = r#"{"sender":{"id":"2"},"recipient":{"id":1},"timestamp":1767225600123,"message":{"mid":"m","text":"a\/\u00e4 \u0000 \ud83d"}}"#;
        let cases = [
            format!(r#"{{"object":"page","entry":[{{"id":"1","time":1767225600,"messaging":[{piece},{piece}]}}]}}"#),
            format!(
                r#"{{"entry":[{{"standby":[{piece}],"messaging":[],"id":7,"x":[1]}},{{"changes":[1e999]}}],"object":"page","y":0}}"#
            ),
            r#"{"object":"page","entry":[]}"#.to_owned(),
            r#"{"object":"page","entry":[{"id":"1","messaging":null,"standby":[null]}]}"#.to_owned(),
        ];
        for body in cases {
            let text = replace_lone_surrogates(&body);
            let plain = serde_json::from_str::<Plain<'_>>(&text).unwrap();
            assert!(plain.entry.iter().all(PlainEntry::has_list), "{body}");
            let (mut at_once, mut in_steps) = (Vec::new(), Vec::new());
            parse_each(body.as_bytes(), |event, text| at_once.push((event, text.to_owned()))).unwrap();
            let mut reader =
                Reader { events: 0, each: |event: Event, text: &str| in_steps.push((event, text.to_owned())) };
            step_by_step(&text, &mut reader).unwrap();
            assert_eq!(at_once, in_steps, "{body}");
        }
    }

    #[test]
    fn what_is_no_plain_envelope_is_read_all_the_same() {
        let cases = [
            (r#"{"object":"page","entry":{"id":"1","messaging":{"message":{"mid":"m"}}}}"#, 1),
            (r#"{"object":"page","entry":[{"id":"1","messaging":[]},{"id":"1"},7]}"#, 2),
            (r#"{"object":"page","entry":[],"entry":[{"id":"1","messaging":[{}],"messaging":[{},{}]}]}"#, 2),
            (r#"{"object":"page"}"#, 1),
        ];
        for (body, count) in cases {
            assert_eq!(parse(body.as_bytes()).unwrap().events.len(), count, "{body}");
        }
    }

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

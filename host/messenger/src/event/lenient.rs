//! Reading values as Meta prints them rather than as it documents them.

use chrono::DateTime;
use serde_json::{Map, Value};

use crate::ids::ID_BYTES_MAX;

/// Times below this are seconds, from it on milliseconds: 1e11 ms is March 1973, 1e11 s the year 5138.
const MILLISECONDS_FROM: i64 = 100_000_000_000;
/// The end of year 9999 in milliseconds; later times are nonsense.
const EPOCH_MS_MAX: i64 = 253_402_300_799_999;

/// An id from a string or a whole number. Blank, `0`-length and over-long ones are missing.
pub fn id(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => whole.to_string(),
            // A float holds a whole number exactly up to 2^53; beyond that digits are already lost.
            (None, Some(float)) if float.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&float) => {
                format!("{float:.0}")
            }
            _ => return None,
        },
        _ => return None,
    };
    (!text.is_empty() && text.len() <= ID_BYTES_MAX).then_some(text)
}

/// A field's id.
pub fn id_at(object: &Map<String, Value>, key: &str) -> Option<String> {
    object.get(key).and_then(id)
}

/// A field's text; numbers are printed.
pub fn text_at(object: &Map<String, Value>, key: &str) -> Option<String> {
    match object.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A field's whole number, from a number or a string.
pub fn whole_at(object: &Map<String, Value>, key: &str) -> Option<i64> {
    object.get(key).and_then(whole)
}

/// A whole number from a number or a string; fractions are dropped.
pub fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(truncate)),
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| text.parse::<f64>().ok().and_then(truncate))
        }
        _ => None,
    }
}

fn truncate(float: f64) -> Option<i64> {
    // 2^53: beyond it a float no longer counts by ones.
    (float.is_finite() && float.abs() < 9_007_199_254_740_992.0).then_some(float as i64)
}

/// A truth value: Meta's own, and the strings that proxies and dashboards make of it.
pub fn flag_at(object: &Map<String, Value>, key: &str) -> bool {
    match object.get(key) {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true") || text == "1",
        Some(Value::Number(number)) => number.as_i64() == Some(1),
        _ => false,
    }
}

/// Milliseconds since 1970 from a count of seconds or milliseconds. Zero, negative and far-future counts are missing.
pub fn epoch_ms(count: i64) -> Option<i64> {
    let ms = if count < MILLISECONDS_FROM { count.checked_mul(1000)? } else { count };
    (ms > 0 && ms <= EPOCH_MS_MAX).then_some(ms)
}

/// A time in milliseconds since 1970 from seconds or milliseconds, number or string, or an ISO 8601 string.
pub fn time(value: &Value) -> Option<i64> {
    if let Some(count) = whole(value) {
        return epoch_ms(count);
    }
    let text = value.as_str()?.trim();
    DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%z"))
        .ok()
        .map(|time| time.timestamp_millis())
        .filter(|ms| (1..=EPOCH_MS_MAX).contains(ms))
}

/// A field's time.
pub fn time_at(object: &Map<String, Value>, key: &str) -> Option<i64> {
    object.get(key).and_then(time)
}

/// A field's object; anything else in its place is missing.
pub fn object_at<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
    object.get(key).and_then(Value::as_object)
}

/// A field's objects: those of a list, or one that stands alone.
pub fn objects_at<'a>(object: &'a Map<String, Value>, key: &str) -> Vec<&'a Map<String, Value>> {
    match object.get(key) {
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_object).collect(),
        Some(Value::Object(item)) => vec![item],
        _ => Vec::new(),
    }
}

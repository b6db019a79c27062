//! The form of a record that people may read: verdicts, labels, reasons, fuel and times as they are; in the place of every text
//! its kind and its length.
//!
//! What is kept is listed, and everything else is replaced: a field that a later version adds is hidden until somebody decides
//! that it may be shown. What policies say in their own words (a reason, a label) is kept as long as it quotes neither three words in
//! a row of the conversation nor an address or number.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

/// Parts of the record that hold nothing of a person's.
const WHOLE: [&str; 9] =
    ["manifest", "times", "evidence", "host_version", "wit_digest", "chain", "no_draft_reason", "local_time", "window"];
/// Texts that are identifiers, enumerations or names of the Page's own things.
const IDENTIFIERS: [&str; 24] = [
    "id",
    "author",
    "source",
    "attachments",
    "locale",
    "language",
    "detected_language",
    "title",
    "passages",
    "passage_ids",
    "cited",
    "route",
    "kind",
    "policy",
    "version",
    "hook",
    "function",
    "fault",
    "limit",
    "priority",
    "outcome",
    "model",
    "level",
    "guest_frames",
];
/// Words of a policy, kept unless they quote somebody.
const POLICY_WORDS: [&str; 4] = ["reason", "labels", "tags", "rule"];
/// So many words in a row are a quotation.
const QUOTED_WORDS: usize = 3;
/// So many digits make a number that may be somebody's.
const DIGITS: usize = 6;

/// The masked form of a record of any version.
#[must_use]
pub fn masked(record: &Value) -> Value {
    let mut quotations = HashSet::new();
    for list in ["messages", "history"] {
        for message in record["turn"][list].as_array().into_iter().flatten() {
            let words = words(message["text"].as_str().unwrap_or_default());
            quotations.extend(words.windows(QUOTED_WORDS).map(<[String]>::to_vec));
        }
    }
    Masker { quotations }.value("", record)
}

struct Masker {
    quotations: HashSet<Vec<String>>,
}

impl Masker {
    fn value(&self, key: &str, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(key, text),
            Value::Array(items) => Value::Array(items.iter().map(|item| self.value(key, item)).collect()),
            Value::Object(fields) => Value::Object(self.fields(key, fields)),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn fields(&self, within: &str, fields: &Map<String, Value>) -> Map<String, Value> {
        let field = |(key, value): (&String, &Value)| {
            // A Page's name is not a customer's.
            let is_page = key == "page" || (within == "page" && key == "name");
            let value = if WHOLE.contains(&key.as_str()) || is_page { value.clone() } else { self.value(key, value) };
            (key.clone(), value)
        };
        fields.iter().map(field).collect()
    }

    fn text(&self, key: &str, text: &str) -> Value {
        if IDENTIFIERS.contains(&key) {
            return json!(text);
        }
        if POLICY_WORDS.contains(&key) && !self.quotes(text) {
            return json!(without_numbers(text));
        }
        json!({ "masked": if key.is_empty() { "text" } else { key }, "characters": text.chars().count() })
    }

    fn quotes(&self, text: &str) -> bool {
        words(text).windows(QUOTED_WORDS).any(|window| self.quotations.contains(window))
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// Addresses and long numbers are replaced by their kind and length.
fn without_numbers(text: &str) -> String {
    let digits = |token: &str| token.chars().filter(char::is_ascii_digit).count();
    let is_numeric = |token: &str| digits(token) > 0 && !token.chars().any(char::is_alphabetic);
    let mut out: Vec<String> = Vec::new();
    let mut tokens = text.split(' ').peekable();
    while let Some(token) = tokens.next() {
        let characters = token.chars().count();
        if token.split_once('@').is_some_and(|(before, after)| !before.is_empty() && after.contains('.')) {
            out.push(format!("[email {characters}]"));
        } else if token.contains("://") || token.starts_with("www.") {
            out.push(format!("[address {characters}]"));
        } else if is_numeric(token) {
            // A telephone number is often written in groups.
            let mut group = vec![token];
            while let Some(next) = tokens.next_if(|next| is_numeric(next)) {
                group.push(next);
            }
            let joined = group.join(" ");
            let is_long = digits(&joined) >= DIGITS;
            out.push(if is_long { format!("[number {}]", joined.chars().count()) } else { joined });
        } else if digits(token) >= DIGITS {
            out.push(format!("[number {characters}]"));
        } else {
            out.push(token.to_owned());
        }
    }
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_kind_and_length_and_verdicts_stay() {
        let record = json!({
            "host_version": "0.1.0", "chain": "default", "manifest": { "policies": [{ "name": "classify-rules" }] },
            "turn": {
                "id": "t1", "now_ms": 7, "page": { "id": "42", "name": "Lindner Tea", "language": "en" },
                "customer": { "name": "Ana Pérez", "locale": "es_ES" },
                "messages": [{ "id": "m_1", "author": "customer", "source": "text", "text": "My number is +43 660 123",
                               "payload": "SIZE_L", "attachments": ["image"], "sent_at_ms": 5 }],
                "history": [], "detected_language": ["en", 0.9], "attributes": [["x", "Ana"]], "disclosure_due": true,
            },
            "classify": { "result": { "Ok": { "route": "human", "confidence": 0.5, "labels": ["phone"],
                                              "reason": "They wrote: my number is secret" } },
                          "fuel_used": 12, "logs": [{ "level": "info", "message": "Ana" }],
                          "host_answers": [{ "function": "knowledge.search", "query": "Ana", "limit": 3 }] },
            "escalate": { "result": { "Ok": { "kind": "hand-over", "value": { "priority": "high", "reason": "asked-for-person",
                          "summary": "Ana wants a call", "tags": ["call"], "notice": null } } } },
            "replies": ["A colleague will call you."], "times": { "classify_us": 9 }, "something_new": "Ana",
        });
        let masked = masked(&record);
        let text = masked.to_string();
        for word in ["Ana", "SIZE_L", "660", "colleague", "my number is"] {
            assert!(!text.contains(word), "{word} in {text}");
        }
        assert_eq!(masked["turn"]["messages"][0]["text"], json!({ "masked": "text", "characters": 24 }));
        assert_eq!(masked["classify"]["result"]["Ok"]["reason"], json!({ "masked": "reason", "characters": 31 }));
        assert_eq!(masked["classify"]["result"]["Ok"]["labels"], json!(["phone"]));
        assert_eq!(masked["classify"]["fuel_used"], 12);
        assert_eq!(masked["escalate"]["result"]["Ok"]["value"]["reason"], "asked-for-person");
        assert_eq!(
            masked["escalate"]["result"]["Ok"]["value"]["summary"],
            json!({ "masked": "summary", "characters": 16 })
        );
        assert_eq!(masked["turn"]["page"], record["turn"]["page"]);
        assert_eq!(masked["turn"]["detected_language"], json!(["en", 0.9]));
        assert_eq!(masked["manifest"], record["manifest"]);
        assert_eq!(masked["times"], record["times"]);
        assert_eq!(masked["something_new"], json!({ "masked": "something_new", "characters": 3 }));
    }

    #[test]
    fn addresses_and_long_numbers_do_not_hide_in_reasons() {
        let cases = [
            ("order 12 of 2026", "order 12 of 2026"),
            ("order 12345678", "order [number 8]"),
            ("call +43 660 1234567 now", "call [number 15] now"),
            ("ana@example.org wrote", "[email 15] wrote"),
            ("see https://example.org/x", "see [address 21]"),
            ("AB1234567", "[number 9]"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(without_numbers(text), expected);
        }
    }

    #[test]
    fn a_record_of_any_shape_can_be_masked() {
        for record in [json!(null), json!({}), json!("x"), json!({ "turn": 7 }), json!({ "turn": { "messages": {} } })]
        {
            let _ = masked(&record);
        }
        assert_eq!(masked(&json!("x")), json!({ "masked": "text", "characters": 1 }));
    }
}

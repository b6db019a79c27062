//! One message through the whole of Frontdesk, from the simulator's point of view, and what came of it in words.
//!
//! `POST /api/messages {"psid", "text"}` makes the simulator post a signed webhook; `GET /api/conversations/{psid}?wait_ms=N` answers
//! when something new happened, or after N milliseconds, with `{"turns": […]}`. A turn has, as far as it has got: `reply` (a text or a
//! list of texts), `ticket`, and `decision` with `route`, `confidence`, `revision`, `passages`, `citations`, `ticket`.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::http;
use crate::process::{Background, interrupted};

const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Sends `text` as the customer `psid` and waits for the turn with its reply or ticket.
pub fn ask(port: u16, psid: &str, text: &str, programs: &mut [&mut Background]) -> Result<Value> {
    http::post(port, "/api/messages", &json!({ "psid": psid, "text": text }))?.json()?;
    let begin = Instant::now();
    while begin.elapsed() < ANSWER_DEADLINE {
        if interrupted() {
            bail!("interrupted");
        }
        for program in &mut *programs {
            program.require_alive()?;
        }
        let conversation = http::get(port, &format!("/api/conversations/{psid}?wait_ms=1000"))?.json()?;
        if let Some(turn) = finished_turn(&conversation) {
            return Ok(turn.clone());
        }
        // Even if the simulator answers at once, it is not asked more than some times a second.
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("neither a reply nor a ticket came within {} s", ANSWER_DEADLINE.as_secs())
}

fn finished_turn(conversation: &Value) -> Option<&Value> {
    let turns = conversation["turns"].as_array()?;
    turns.iter().rev().find(|turn| !texts(&turn["reply"]).is_empty() || ticket(turn).is_some())
}

fn ticket(turn: &Value) -> Option<&Value> {
    [&turn["ticket"], &turn["decision"]["ticket"]].into_iter().find(|ticket| !ticket.is_null())
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) if text.is_empty() => Vec::new(),
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        Value::Object(fields) => {
            ["text", "title", "id"].iter().find_map(|key| fields.get(*key)).map(texts).unwrap_or_default()
        }
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

/// The turn in words, a line each.
pub fn describe(turn: &Value) -> String {
    let decision = &turn["decision"];
    let mut lines = Vec::new();
    for text in texts(&turn["reply"]) {
        lines.push(format!("reply       {}", text.replace('\n', "\n            ")));
    }
    if let Some(ticket) = ticket(turn) {
        lines.push(format!("ticket      {}", one_line(ticket)));
    }
    let citations = [&turn["citations"], &decision["citations"]].into_iter().find(|value| !value.is_null());
    for citation in citations.and_then(Value::as_array).into_iter().flatten() {
        lines.push(format!("citation    {}", one_line(citation)));
    }
    for name in ["route", "confidence", "revision"] {
        if !decision[name].is_null() {
            lines.push(format!("{name:<11} {}", one_line(&decision[name])));
        }
    }
    for passage in decision["passages"].as_array().into_iter().flatten() {
        lines.push(format!("passage     {}", one_line(passage)));
    }
    lines.join("\n")
}

/// A value on one line: text as it is, records as `key: value`, cut to a terminal's patience.
fn one_line(value: &Value) -> String {
    const CHARS_MAX: usize = 300;
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let parts: Vec<_> = fields
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| format!("{name}: {}", one_line(value)))
                .collect();
            parts.join(", ")
        }
        other => other.to_string(),
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= CHARS_MAX { text } else { text.chars().take(CHARS_MAX).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_counts_when_it_has_a_reply_or_a_ticket() {
        for (turn, finished) in [
            (json!({ "reply": "Yes." }), true),
            (json!({ "reply": ["Yes.", "More."] }), true),
            (json!({ "reply": [], "ticket": { "id": "7" } }), true),
            (json!({ "reply": null, "decision": { "ticket": "7" } }), true),
            (json!({ "reply": null, "ticket": null, "decision": { "route": "human" } }), false),
            (json!({ "reply": "" }), false),
            (json!({ "reply": [] }), false),
        ] {
            assert_eq!(finished_turn(&json!({ "turns": [turn] })).is_some(), finished, "{turn}");
        }
        assert!(finished_turn(&json!({})).is_none());
    }

    #[test]
    fn a_turn_is_told_with_reply_citations_and_decision() {
        let turn = json!({
            "reply": "We ship to Austria.",
            "citations": [{ "title": "Shipping", "passage": "p1" }],
            "decision": { "route": "answer", "confidence": 0.91, "revision": "ab12", "passages": [{ "id": "p1", "score": 0.8 }] },
        });
        assert_eq!(
            describe(&turn),
            "reply       We ship to Austria.\n\
             citation    title: Shipping, passage: p1\n\
             route       answer\n\
             confidence  0.91\n\
             revision    ab12\n\
             passage     id: p1, score: 0.8"
        );
    }
}

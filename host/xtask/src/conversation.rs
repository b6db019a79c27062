//! One message through the whole of Frontdesk, from the simulator's point of view, and what came of it in words.
//!
//! `POST /api/messages {"psid", "text"}` makes the simulator post a signed webhook and answers `{"mid"}`. `GET
//! /api/conversations/{psid}?wait_ms=N` answers when the message is settled, or after N milliseconds: `messages` as the customer sees
//! them, and `turns` as the host's admin API tells them.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::http;
use crate::process::{Background, interrupted};

const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// A passage's text is shown up to this length.
const PASSAGE_CHARS_MAX: usize = 160;

/// What came of one message.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// The messages that reached the customer.
    replies: Vec<String>,
    /// The turn that read the message; null when the host told of none.
    turn: Value,
}

impl Outcome {
    /// Whether the customer got an answer, or a person will give one.
    pub fn is_answered(&self) -> bool {
        !self.replies.is_empty() || !self.turn["ticket"].is_null()
    }
}

/// Sends `text` as the customer `psid` and waits until the host has done with it.
pub fn ask(port: u16, psid: &str, text: &str, programs: &mut [&mut Background]) -> Result<Outcome> {
    let sent = http::post(port, "/api/messages", &json!({ "psid": psid, "text": text }))?.json()?;
    let Some(mid) = sent["mid"].as_str() else { bail!("the simulator took the message, but gave it no id") };
    let begin = Instant::now();
    loop {
        if interrupted() {
            bail!("interrupted");
        }
        for program in &mut *programs {
            program.require_alive()?;
        }
        let conversation = http::get(port, &format!("/api/conversations/{psid}?wait_ms=1000"))?.json()?;
        let outcome = outcome(&conversation, mid);
        let is_told = conversation["is_settled"] == true && !outcome.turn.is_null();
        let is_late = begin.elapsed() >= ANSWER_DEADLINE;
        if is_told || (is_late && outcome.is_answered()) {
            return Ok(outcome);
        }
        if is_late {
            let why = conversation["admin_error"].as_str().unwrap_or("see the log of the host");
            bail!("nothing came of the message within {} s: {why}", ANSWER_DEADLINE.as_secs());
        }
        // A settled message whose turn is not told yet is answered at once: ask some times a second, not more.
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn outcome(conversation: &Value, mid: &str) -> Outcome {
    let is_of_mid = |turn: &&Value| items(&turn["mids"]).iter().any(|read| read == mid);
    let turn = items(&conversation["turns"]).iter().find(is_of_mid).cloned().unwrap_or_default();
    let after = items(&conversation["messages"]).iter().skip_while(|message| message["mid"] != mid);
    let from_bot = after.filter(|message| message["from"] == "bot");
    Outcome { replies: from_bot.filter_map(|message| Some(message["text"].as_str()?.to_owned())).collect(), turn }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The outcome in words: the reply with its citations, the ticket, the decision.
pub fn describe(outcome: &Outcome) -> String {
    let turn = &outcome.turn;
    let mut lines = Vec::new();
    let mut say =
        |name: &str, words: String| lines.push(format!("{name:<11} {}", words.replace('\n', "\n            ")));
    for reply in &outcome.replies {
        say("reply", reply.clone());
    }
    for citation in items(&turn["citations"]) {
        let titles: Vec<_> = items(&citation["passages"]).iter().map(|id| title(turn, id)).collect();
        say("citation", format!("{} <- {}", one_line(&citation["sentence"]), titles.join("; ")));
    }
    let ticket = &turn["ticket"];
    if !ticket.is_null() {
        let [priority, reason, summary, id] = ["priority", "reason", "summary", "id"].map(|key| one_line(&ticket[key]));
        say("ticket", format!("{priority}, {reason}: {summary} ({id})"));
    }
    for name in ["outcome", "route", "confidence", "reason", "revision"] {
        if !turn[name].is_null() {
            say(name, one_line(&turn[name]));
        }
    }
    for passage in items(&turn["passages"]) {
        let [title, score, text] = ["title", "score", "text"].map(|key| one_line(&passage[key]));
        say("passage", format!("[{score}] {title}: {}", cut(&text)));
    }
    lines.join("\n")
}

/// The title of a cited passage; its id when it has none.
fn title(turn: &Value, id: &Value) -> String {
    let passage = items(&turn["passages"]).iter().find(|passage| passage["id"] == *id);
    let title = passage.map(|passage| one_line(&passage["title"])).filter(|title| !title.is_empty());
    title.unwrap_or_else(|| one_line(id))
}

fn one_line(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cut(text: &str) -> String {
    if text.chars().count() <= PASSAGE_CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(PASSAGE_CHARS_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(turn: Value) -> Value {
        json!({
            "messages": [
                { "mid": "m0", "from": "bot", "text": "An answer to something earlier." },
                { "mid": "m1", "from": "customer", "text": "Do you ship to Austria?" },
                { "mid": "m2", "from": "agent", "text": "Hello" },
            ],
            "turns": [{ "mids": ["m0"], "ticket": { "id": "not this one" } }, turn],
        })
    }

    #[test]
    fn only_what_came_of_this_message_counts() {
        for (turn, answered) in [
            (json!({ "mids": ["m1"], "ticket": { "id": "7" } }), true),
            (json!({ "mids": ["m1"], "ticket": null, "outcome": "spam" }), false),
            // Decided, but not delivered.
            (json!({ "mids": ["m1"], "ticket": null, "outcome": "sent", "reply": "Yes." }), false),
            (json!({ "mids": ["m9"], "ticket": { "id": "7" } }), false),
        ] {
            assert_eq!(outcome(&conversation(turn.clone()), "m1").is_answered(), answered, "{turn}");
        }
        let mut delivered = conversation(json!({}));
        let message = json!({ "mid": "m3", "from": "bot", "text": "Yes." });
        delivered["messages"].as_array_mut().unwrap().push(message);
        assert_eq!(outcome(&delivered, "m1"), Outcome { replies: vec!["Yes.".to_owned()], turn: Value::Null });
    }

    #[test]
    fn an_outcome_is_told_with_reply_citations_and_decision() {
        let turn = json!({
            "citations": [{ "sentence": "We ship to Austria.", "passages": ["p1"] }],
            "outcome": "sent", "route": "answer", "confidence": 0.91, "reason": "", "revision": "ab12", "ticket": null,
            "passages": [{ "id": "p1", "title": "Shipping", "score": 0.8, "text": "We ship\nto Austria." }],
        });
        let outcome = Outcome { replies: vec!["We ship to Austria.\nAnd to Spain.".to_owned()], turn };
        assert_eq!(
            describe(&outcome),
            "reply       We ship to Austria.\n            And to Spain.\n\
             citation    We ship to Austria. <- Shipping\n\
             outcome     sent\n\
             route       answer\n\
             confidence  0.91\n\
             reason      \n\
             revision    ab12\n\
             passage     [0.8] Shipping: We ship to Austria."
        );
    }
}

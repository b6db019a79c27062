//! The turn on which every candidate is tried before it may judge a customer's.

use crate::types::{
    Author, Classification, Customer, Dossier, Draft, Evidence, FilterOutcome, LocalTime, Message, MessageSource, Page,
    Passage, Route, Turn, Weekday, Window,
};

const QUESTION: &str = "Hi, do you ship to Austria, and how long does it take?";
const ANSWER: &str = "Yes, we ship to Austria. It takes three to five working days.";
/// 2026-01-14T09:30:00Z, a Wednesday.
const NOW_MS: u64 = 1_768_383_000_000;

fn message(id: &str, author: Author, text: &str, sent_at_ms: u64) -> Message {
    Message {
        id: id.to_owned(),
        author,
        source: MessageSource::Text,
        text: text.to_owned(),
        payload: None,
        attachments: Vec::new(),
        sent_at_ms,
    }
}

/// An everyday question with a short history.
pub(crate) fn turn() -> Turn {
    Turn {
        id: "turn-canary".to_owned(),
        now_ms: NOW_MS,
        local_time: LocalTime {
            weekday: Weekday::Wednesday,
            minute_of_day: 630,
            date: "2026-01-14".to_owned(),
            time_zone: "Europe/Vienna".to_owned(),
        },
        page: Page { id: "100000000000001".to_owned(), name: "Sample Shop".to_owned(), language: "en".to_owned() },
        customer: Customer { name: Some("Sam".to_owned()), locale: Some("en_GB".to_owned()) },
        messages: vec![message("m_canary_3", Author::Customer, QUESTION, NOW_MS - 2_000)],
        history: vec![
            message("m_canary_1", Author::Customer, "Hello!", NOW_MS - 90_000),
            message("m_canary_2", Author::Bot, "Hello, how can I help you?", NOW_MS - 88_000),
        ],
        detected_language: Some(("en".to_owned(), 0.98)),
        window: Some(Window { opened_by: "message".to_owned(), closes_at_ms: NOW_MS + 86_398_000 }),
        automated_turns: 1,
        disclosure_due: false,
        attributes: Vec::new(),
    }
}

pub(crate) fn passages() -> Vec<Passage> {
    vec![Passage {
        id: "passage-canary".to_owned(),
        title: "Shipping".to_owned(),
        source: "faq".to_owned(),
        text: "We ship to Austria, Germany and Switzerland within three to five working days.".to_owned(),
        language: Some("en".to_owned()),
        score: 0.87,
        labels: vec!["shipping".to_owned()],
    }]
}

pub(crate) fn classification() -> Classification {
    Classification {
        route: Route::Answer,
        confidence: 0.9,
        labels: vec!["topic:shipping".to_owned()],
        reason: "A question about shipping.".to_owned(),
    }
}

pub(crate) fn draft() -> Draft {
    Draft {
        text: ANSWER.to_owned(),
        language: Some("en".to_owned()),
        cited: vec!["passage-canary".to_owned()],
        instructions: vec!["Answer from the passages only.".to_owned()],
    }
}

pub(crate) fn dossier() -> Dossier {
    Dossier {
        classification: classification(),
        passages: passages(),
        draft: Some(ANSWER.to_owned()),
        no_draft_reason: None,
        evidence: Evidence { sentences: 2, supported: 2, best_score: 0.87, confidence: 0.9 },
        filters: vec![FilterOutcome {
            policy: "filter-safety".to_owned(),
            outcome: "pass".to_owned(),
            reason: String::new(),
            findings: Vec::new(),
        }],
    }
}

//! Builders for unit tests: a turn with sensible values, changed where the test needs it. Not compiled into components.

use crate::types::{
    AttachmentKind, Author, Classification, Customer, LocalTime, Message, MessageSource, Page, Passage, Route, Turn,
    Weekday, Window,
};

/// 2026-03-02T10:30:00Z, a Monday.
pub const NOW_MS: u64 = 1_772_447_400_000;

/// A typed message.
#[must_use]
pub fn message(author: Author, text: &str) -> Message {
    Message {
        id: format!("m_{:x}", text.len()),
        author,
        source: MessageSource::Text,
        text: text.to_owned(),
        payload: None,
        attachments: Vec::new(),
        sent_at_ms: NOW_MS,
    }
}

/// A message of attachments without text.
#[must_use]
pub fn attachments(kinds: &[AttachmentKind]) -> Message {
    Message { attachments: kinds.to_vec(), ..message(Author::Customer, "") }
}

/// A turn in which the customer typed `text`, on a Monday at 11:30 in Vienna, with an English page.
#[must_use]
pub fn turn(text: &str) -> Turn {
    Turn {
        id: "turn-1".to_owned(),
        now_ms: NOW_MS,
        local_time: LocalTime {
            weekday: Weekday::Monday,
            minute_of_day: 11 * 60 + 30,
            date: "2026-03-02".to_owned(),
            time_zone: "Europe/Vienna".to_owned(),
        },
        page: Page { id: "100".to_owned(), name: "Alpenrad".to_owned(), language: "en".to_owned() },
        customer: Customer { name: None, locale: None },
        messages: vec![message(Author::Customer, text)],
        history: Vec::new(),
        detected_language: None,
        window: Some(Window { opened_by: "message".to_owned(), closes_at_ms: NOW_MS + 86_400_000 }),
        automated_turns: 0,
        disclosure_due: false,
        attributes: Vec::new(),
    }
}

/// The same with a language detected with certainty.
#[must_use]
pub fn turn_in(language: &str, text: &str) -> Turn {
    Turn { detected_language: Some((language.to_owned(), 1.0)), ..turn(text) }
}

/// A passage with this text and score.
#[must_use]
pub fn passage(id: &str, text: &str, score: f32) -> Passage {
    Passage {
        id: id.to_owned(),
        title: "Shipping".to_owned(),
        source: "shipping.md".to_owned(),
        text: text.to_owned(),
        language: Some("en".to_owned()),
        score,
        labels: Vec::new(),
    }
}

/// A classification on `route` with these labels.
#[must_use]
pub fn classification(route: Route, labels: &[&str]) -> Classification {
    Classification {
        route,
        confidence: 0.9,
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
        reason: "test".to_owned(),
    }
}

//! Spam and requests for a person, as the shipped classifier sorts them.

use std::fmt;

use anyhow::{Result, anyhow};
use frontdesk_policy_engine::types::{Author, Customer, LocalTime, Message, MessageSource, Page, Route, Turn, Weekday};
use frontdesk_policy_engine::{CallContext, Engine, EngineOptions};
use frontdesk_server::knowledge::detect_language;
use serde::{Deserialize, Serialize};

use super::sets::SortingSet;
use super::share;

pub const HEAD: &str = "\
| set | messages | spam | spam precision | spam recall | asking for a person | recall | others sent to a person |
|---|---:|---:|---:|---:|---:|---:|---:|";

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sorted {
    pub set: String,
    pub messages: usize,
    pub spam: usize,
    pub spam_found: usize,
    pub spam_wrong: usize,
    pub person: usize,
    pub person_found: usize,
    /// Neither spam nor asking for a person, and yet sent to one.
    pub person_wrong: usize,
    pub failed: usize,
}

impl fmt::Display for Sorted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = self.messages.saturating_sub(self.spam + self.person);
        // A share of nothing is not a figure.
        let of = |part: usize, all: usize| if all == 0 { "–".to_owned() } else { format!("{:.3}", share(part, all)) };
        write!(
            f,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            self.set,
            self.messages,
            self.spam,
            of(self.spam_found, self.spam_found + self.spam_wrong),
            of(self.spam_found, self.spam),
            self.person,
            of(self.person_found, self.person),
            of(self.person_wrong, others),
        )
    }
}

pub async fn measure(sets: &[SortingSet]) -> Result<Vec<Sorted>> {
    let bundle = crate::policy::read_bundle()?;
    let revision = tokio::task::spawn_blocking(move || {
        let engine = Engine::new(EngineOptions::default())?;
        engine.stage(&bundle).map_err(|error| anyhow!(error))
    })
    .await??;
    let context = CallContext::default();
    let mut all = Vec::new();
    for set in sets {
        let mut sorted = Sorted { set: set.name.clone(), messages: set.messages.len(), ..Sorted::default() };
        for (text, label) in &set.messages {
            let route = match revision.classify(&context, &turn(text)).await.result {
                Ok(classification) => classification.route,
                Err(_) => {
                    sorted.failed += 1;
                    continue;
                }
            };
            let (is_spam, is_person) = (matches!(route, Route::Spam), matches!(route, Route::Human));
            match label.as_str() {
                "spam" => {
                    sorted.spam += 1;
                    sorted.spam_found += usize::from(is_spam);
                }
                "person" => {
                    sorted.person += 1;
                    sorted.person_found += usize::from(is_person);
                    sorted.spam_wrong += usize::from(is_spam);
                }
                _ => {
                    sorted.spam_wrong += usize::from(is_spam);
                    sorted.person_wrong += usize::from(is_person);
                }
            }
        }
        all.push(sorted);
    }
    Ok(all)
}

fn turn(text: &str) -> Turn {
    Turn {
        id: "eval".to_owned(),
        now_ms: 1_790_000_000_000,
        local_time: LocalTime {
            weekday: Weekday::Tuesday,
            minute_of_day: 600,
            date: "2026-09-22".to_owned(),
            time_zone: "UTC".to_owned(),
        },
        page: Page { id: "1".to_owned(), name: "Page".to_owned(), language: "en".to_owned() },
        customer: Customer { name: None, locale: None },
        messages: vec![Message {
            id: "m".to_owned(),
            author: Author::Customer,
            source: MessageSource::Text,
            text: text.to_owned(),
            payload: None,
            attachments: Vec::new(),
            sent_at_ms: 1_790_000_000_000,
        }],
        history: Vec::new(),
        detected_language: detect_language(text).map(|tag| (tag.to_owned(), 1.0)),
        window: None,
        automated_turns: 0,
        disclosure_due: false,
        attributes: Vec::new(),
    }
}

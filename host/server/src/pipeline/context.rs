//! Brings what the database knows into the contract's words.

use chrono::{DateTime, Datelike, Timelike, Utc};
use frontdesk_policy_engine::types as policy;

use super::TurnInput;
use crate::db::messages::StoredMessage;
use crate::knowledge::{Detected, Likely, detect_likely};

/// Longest text of one message that policies and models see, in characters; Messenger itself allows 2,000.
const MESSAGE_CHARACTERS_MAX: usize = 8_000;

/// The turn as the policies see it.
pub fn turn(input: &TurnInput, disclosure_gap_hours: i64) -> policy::Turn {
    let conversation = &input.conversation;
    let messages: Vec<policy::Message> = input.messages.iter().map(message).collect();
    let history: Vec<policy::Message> = input.history.iter().map(message).collect();
    let detected_language = detect(&messages, &history, &input.page.language);
    policy::Turn {
        id: input.turn_id.to_string(),
        now_ms: ms_of(input.now),
        local_time: local_time(input.now, &input.page.time_zone),
        page: policy::Page {
            id: input.page.page_id.clone(),
            name: input.page.name.clone(),
            language: input.page.language.clone(),
        },
        customer: policy::Customer {
            name: conversation.customer_name.clone(),
            locale: conversation.customer_locale.clone(),
        },
        messages,
        history,
        detected_language,
        window: match (&conversation.window_opened_by, conversation.window_closes_at) {
            (Some(opened_by), Some(closes_at)) if closes_at > input.now => {
                Some(policy::Window { opened_by: opened_by.clone(), closes_at_ms: ms_of(closes_at) })
            }
            _ => None,
        },
        automated_turns: u32::try_from(conversation.automated_turns).unwrap_or(0),
        disclosure_due: disclosure_due(input, disclosure_gap_hours),
        attributes: Vec::new(),
    }
}

fn message(stored: &StoredMessage) -> policy::Message {
    policy::Message {
        id: stored.mid.clone(),
        author: match stored.author.as_str() {
            "bot" => policy::Author::Bot,
            "agent" => policy::Author::Agent,
            _ => policy::Author::Customer,
        },
        source: match stored.source.as_str() {
            "quick-reply" => policy::MessageSource::QuickReply,
            "postback" => policy::MessageSource::Postback,
            "lead" => policy::MessageSource::Lead,
            _ => policy::MessageSource::Text,
        },
        text: stored.text.chars().take(MESSAGE_CHARACTERS_MAX).collect(),
        payload: stored.payload.clone(),
        attachments: stored.attachments.iter().map(|name| attachment(name)).collect(),
        sent_at_ms: ms_of(stored.sent_at),
    }
}

fn attachment(name: &str) -> policy::AttachmentKind {
    match name {
        "image" => policy::AttachmentKind::Image,
        "audio" => policy::AttachmentKind::Audio,
        "video" => policy::AttachmentKind::Video,
        "file" => policy::AttachmentKind::File,
        "sticker" => policy::AttachmentKind::Sticker,
        "location" => policy::AttachmentKind::Location,
        "share" => policy::AttachmentKind::Share,
        _ => policy::AttachmentKind::Other,
    }
}

/// At the start, after a long gap, and when a person has handed back (which the conversation notes by itself).
fn disclosure_due(input: &TurnInput, gap_hours: i64) -> bool {
    let conversation = &input.conversation;
    let gap = chrono::Duration::hours(gap_hours);
    conversation.disclosure_due || conversation.last_reply_at.is_none_or(|at| input.now - at > gap)
}

/// Earlier messages by which the language of the conversation is told.
const EARLIER_MAX: usize = 5;

/// The customer's language, in the light of what they wrote before and of the Page's.
fn detect(messages: &[policy::Message], history: &[policy::Message], page: &str) -> Option<(String, f32)> {
    let joined = |texts: Vec<&str>| texts.join("\n");
    let earlier = history.iter().rev().filter(|message| message.author == policy::Author::Customer);
    let earlier = joined(earlier.take(EARLIER_MAX).map(|message| message.text.as_str()).collect());
    let page = Likely { conversation: None, page: Some(page) };
    let before = detect_likely(&earlier, page).map(|detected| detected.code);
    let text = joined(messages.iter().map(|message| message.text.as_str()).collect());
    let found = detect_likely(&text, Likely { conversation: before, ..page })?;
    Some((found.code.to_owned(), found.confidence))
}

/// The language of the customer's text, when the text itself speaks for it: what its words are compared by.
pub fn asked_in(turn: &policy::Turn) -> Option<String> {
    let (tag, confidence) = turn.detected_language.as_ref()?;
    (*confidence > Detected::CARRIED_ON).then(|| tag.clone())
}

fn local_time(now: DateTime<Utc>, time_zone: &str) -> policy::LocalTime {
    // Checked when the settings were read.
    let zone: chrono_tz::Tz = time_zone.parse().unwrap_or(chrono_tz::UTC);
    let local = now.with_timezone(&zone);
    policy::LocalTime {
        weekday: match local.weekday() {
            chrono::Weekday::Mon => policy::Weekday::Monday,
            chrono::Weekday::Tue => policy::Weekday::Tuesday,
            chrono::Weekday::Wed => policy::Weekday::Wednesday,
            chrono::Weekday::Thu => policy::Weekday::Thursday,
            chrono::Weekday::Fri => policy::Weekday::Friday,
            chrono::Weekday::Sat => policy::Weekday::Saturday,
            chrono::Weekday::Sun => policy::Weekday::Sunday,
        },
        minute_of_day: u16::try_from(local.hour() * 60 + local.minute()).unwrap_or(0),
        date: local.format("%Y-%m-%d").to_string(),
        time_zone: zone.name().to_owned(),
    }
}

fn ms_of(at: DateTime<Utc>) -> u64 {
    u64::try_from(at.timestamp_millis()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_goes_on_in_the_language_of_the_conversation() {
        let said = |text: &str| policy::Message {
            id: "m".to_owned(),
            author: policy::Author::Customer,
            source: policy::MessageSource::Text,
            text: text.to_owned(),
            payload: None,
            attachments: Vec::new(),
            sent_at_ms: 0,
        };
        let history = [said("Habt ihr das Fernweh in der Größe 54?")];
        let found = |text: &str, history: &[policy::Message]| detect(&[said(text)], history, "en");
        assert_eq!(found("Flaneur?", &history), Some(("de".to_owned(), 0.5)));
        assert_eq!(found("Flaneur?", &[]), None);
        assert_eq!(found("Do you ship to Austria?", &history), Some(("en".to_owned(), 1.0)));
    }

    #[test]
    fn local_time_follows_the_zone_over_midnight_and_daylight_saving() {
        let cases = [
            ("2026-01-31T23:30:00Z", "Europe/Vienna", ("2026-02-01", 30, policy::Weekday::Sunday)),
            ("2026-07-01T12:00:00Z", "Europe/Vienna", ("2026-07-01", 14 * 60, policy::Weekday::Wednesday)),
            ("2026-03-01T03:00:00Z", "America/New_York", ("2026-02-28", 22 * 60, policy::Weekday::Saturday)),
        ];
        for (at, zone, (date, minute, weekday)) in cases {
            let local = local_time(at.parse().unwrap(), zone);
            assert_eq!(
                (local.date.as_str(), local.minute_of_day, local.weekday),
                (date, minute, weekday),
                "{at} {zone}"
            );
        }
    }
}

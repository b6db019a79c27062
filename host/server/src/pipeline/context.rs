//! Brings what the database knows into the contract's words.

use chrono::{DateTime, Datelike, Timelike, Utc};
use frontdesk_policy_engine::types as policy;

use super::TurnInput;
use crate::db::messages::StoredMessage;
use crate::knowledge;

/// Longest text of one message that policies and models see, in characters; Messenger itself allows 2,000.
const MESSAGE_CHARACTERS_MAX: usize = 8_000;

/// The turn as the policies see it.
pub fn turn(input: &TurnInput, disclosure_gap_hours: i64) -> policy::Turn {
    let conversation = &input.conversation;
    let messages: Vec<policy::Message> = input.messages.iter().map(message).collect();
    let detected_language = detect(&messages);
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
        history: input.history.iter().map(message).collect(),
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

fn detect(messages: &[policy::Message]) -> Option<(String, f32)> {
    let text = messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>().join("\n");
    knowledge::detect_language(&text).map(|tag| (tag.to_owned(), 1.0))
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

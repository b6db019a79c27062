//! Which action of a person lets the Page write to them, and for how long.
//!
//! Source: Meta's Messenger policy page (updated 2026-09-28) and the send-messages page. The rules are data ([`WindowRules`]), because
//! Meta changed them several times in a year: [`WindowRules::default`] is that page, and a host may be given others. A ledger stores
//! `opened_by`, `opened_at` and `closes_at` per conversation and takes `closes_at = max(closes_at, opened_at + duration)`, so a
//! later, shorter rule never shortens an open window. Meta says the long window lasts *up to* seven days: error 10-2018278 has the
//! last word.
//!
//! Not openers: receipts, edits, withdrawals, opt-ins, removed reactions, thread control, and whatever the Page does. A
//! person's message opens the window in standby too: the window belongs to the conversation, not to the app.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::event::{Channel, Event, EventKind, ReactionAction, Referral};

const HOUR_MS: i64 = 3_600_000;
/// The longest window that a rule may give: far beyond all of Meta's, and short of a typing error.
const HOURS_MAX: u32 = 31 * 24;

/// The action that opens a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WindowOpener {
    Message,
    /// The first message after a click on a Click-to-Messenger or Click-to-Direct ad.
    AdMessage,
    /// A button, such as Get Started.
    Postback,
    Reaction,
    /// A link into a thread that exists. Into a new thread it opens nothing until the person acts.
    Referral,
    /// A comment on a post: one private reply.
    Comment,
    /// A post on the Page by a visitor.
    VisitorPost,
}

/// What an opener allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRule {
    pub opener: WindowOpener,
    pub duration_ms: i64,
    /// Counts only when the thread existed before.
    pub needs_existing_thread: bool,
    /// How many messages may be sent; `None` is any number.
    pub messages_max: Option<u32>,
}

/// What an opener allows, as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OpenerRule {
    /// 0: the action opens nothing.
    pub hours: u32,
    #[serde(default)]
    pub needs_existing_thread: bool,
    #[serde(default)]
    pub messages_max: Option<u32>,
}

/// The rules of one state of Meta's policy page.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WindowRules {
    /// The day of the policy page that they come from, as `2026-09-28`.
    pub version: String,
    /// How long after the person's last message a person of the Page may answer with the HUMAN_AGENT tag.
    pub human_agent_hours: u32,
    pub message: OpenerRule,
    pub ad_message: OpenerRule,
    pub postback: OpenerRule,
    pub reaction: OpenerRule,
    pub referral: OpenerRule,
    pub comment: OpenerRule,
    pub visitor_post: OpenerRule,
}

impl Default for WindowRules {
    fn default() -> Self {
        let day = OpenerRule { hours: 24, needs_existing_thread: false, messages_max: None };
        Self {
            version: "2026-09-28".to_owned(),
            human_agent_hours: 7 * 24,
            message: day,
            ad_message: OpenerRule { hours: 7 * 24, ..day },
            postback: day,
            reaction: day,
            referral: OpenerRule { needs_existing_thread: true, ..day },
            comment: OpenerRule { hours: 7 * 24, messages_max: Some(1), ..day },
            visitor_post: day,
        }
    }
}

/// A rule that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {found}, expected {expected}")]
pub struct WindowRulesError {
    /// The rule, such as `message.hours`.
    pub key: String,
    pub found: String,
    pub expected: String,
}

impl WindowRules {
    /// The rule of an opener; `None` when it opens nothing.
    pub fn of(&self, opener: WindowOpener) -> Option<WindowRule> {
        let OpenerRule { hours, needs_existing_thread, messages_max } = match opener {
            WindowOpener::Message => self.message,
            WindowOpener::AdMessage => self.ad_message,
            WindowOpener::Postback => self.postback,
            WindowOpener::Reaction => self.reaction,
            WindowOpener::Referral => self.referral,
            WindowOpener::Comment => self.comment,
            WindowOpener::VisitorPost => self.visitor_post,
        };
        let duration_ms = i64::from(hours) * HOUR_MS;
        (hours > 0).then_some(WindowRule { opener, duration_ms, needs_existing_thread, messages_max })
    }

    /// The window an event opens, if any. A ledger that saw [`is_ad_click`] before a person's message uses the rule of
    /// [`WindowOpener::AdMessage`] for that message, even when the message itself does not name the ad.
    pub fn opened_by(&self, event: &Event) -> Option<WindowRule> {
        self.of(opener(event)?)
    }

    /// How long after the person's last message a person of the Page may answer with the HUMAN_AGENT tag.
    pub fn human_agent_ms(&self) -> i64 {
        i64::from(self.human_agent_hours) * HOUR_MS
    }

    /// Refuses what Meta's page cannot say.
    ///
    /// # Errors
    /// Names the first rule that cannot be meant, and what was expected.
    pub fn check(&self) -> Result<(), WindowRulesError> {
        let error =
            |key: &str, found: String, expected: String| Err(WindowRulesError { key: key.to_owned(), found, expected });
        if self.version.parse::<NaiveDate>().is_err() {
            return error(
                "version",
                format!("{:?}", self.version),
                "the day of Meta's policy page, as 2026-09-28".into(),
            );
        }
        if !(1..=HOURS_MAX).contains(&self.human_agent_hours) {
            return error("human_agent_hours", self.human_agent_hours.to_string(), format!("1 to {HOURS_MAX}"));
        }
        let rules = [
            ("message", self.message),
            ("ad_message", self.ad_message),
            ("postback", self.postback),
            ("reaction", self.reaction),
            ("referral", self.referral),
            ("comment", self.comment),
            ("visitor_post", self.visitor_post),
        ];
        for (name, rule) in rules {
            if rule.hours > HOURS_MAX {
                let expected = format!("0 (opens nothing) to {HOURS_MAX}");
                return error(&format!("{name}.hours"), rule.hours.to_string(), expected);
            }
            if rule.messages_max == Some(0) {
                let expected = "1 or more, or no limit at all; hours = 0 opens nothing".into();
                return error(&format!("{name}.messages_max"), "0".into(), expected);
            }
        }
        Ok(())
    }
}

impl WindowOpener {
    /// The stable name, as stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::AdMessage => "ad_message",
            Self::Postback => "postback",
            Self::Reaction => "reaction",
            Self::Referral => "referral",
            Self::Comment => "comment",
            Self::VisitorPost => "visitor_post",
        }
    }
}

/// The window an event opens by [`WindowRules::default`], if any.
pub fn opens_window(event: &Event) -> Option<WindowRule> {
    WindowRules::default().opened_by(event)
}

/// The opener that an event is.
fn opener(event: &Event) -> Option<WindowOpener> {
    if event.from_page {
        return None;
    }
    let opener = match &event.kind {
        EventKind::Message(message) if message.is_from_ad() => WindowOpener::AdMessage,
        EventKind::Message(_) => WindowOpener::Message,
        EventKind::Postback(_) => WindowOpener::Postback,
        EventKind::Reaction(reaction) if reaction.action == ReactionAction::React => WindowOpener::Reaction,
        EventKind::Referral(referral) if !referral.is_ad() => WindowOpener::Referral,
        EventKind::Feed(change) if event.channel == Channel::Changes && change.verb.as_deref() == Some("add") => {
            if change.from_id.as_deref() == event.page_id.as_ref().map(|page| page.as_str()) {
                return None;
            }
            match change.item.as_deref() {
                Some("comment") => WindowOpener::Comment,
                Some("post" | "status" | "photo" | "video") => WindowOpener::VisitorPost,
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(opener)
}

/// Whether the event is a click on an ad without a message yet: the person's next message opens the long window.
pub fn is_ad_click(event: &Event) -> bool {
    let referral = match &event.kind {
        EventKind::Referral(referral) => Some(referral),
        EventKind::Postback(postback) => postback.referral.as_ref(),
        _ => None,
    };
    referral.is_some_and(Referral::is_ad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_cannot_be_meant_are_refused_with_their_key() {
        let good = WindowRules::default();
        assert_eq!(good.check(), Ok(()));
        let day = good.message;
        let cases = [
            (WindowRules { version: "last week".into(), ..good.clone() }, "version is \"last week\", expected the day"),
            (WindowRules { human_agent_hours: 0, ..good.clone() }, "human_agent_hours is 0, expected 1 to 744"),
            (
                WindowRules { reaction: OpenerRule { hours: 745, ..day }, ..good.clone() },
                "reaction.hours is 745, expected 0",
            ),
            (
                WindowRules { comment: OpenerRule { messages_max: Some(0), ..day }, ..good.clone() },
                "comment.messages_max is 0",
            ),
        ];
        for (rules, expected) in cases {
            let said = rules.check().unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
        }
        let closed = WindowRules { reaction: OpenerRule { hours: 0, ..day }, ..good };
        assert_eq!((closed.check(), closed.of(WindowOpener::Reaction)), (Ok(()), None));
    }
}

//! Which action of a person lets the Page write to them, and for how long.
//!
//! Source: Meta's Messenger policy page (updated 2026-09-28) and the send-messages page. The rules are data, because Meta
//! changed them several times in a year: a ledger stores `opened_by`, `opened_at` and `closes_at` per conversation and
//! takes `closes_at = max(closes_at, opened_at + duration)`, so a later, shorter rule never shortens an open window.
//! Meta says the long window lasts *up to* seven days: error 10-2018278 has the last word.
//!
//! Not openers: receipts, edits, withdrawals, opt-ins, removed reactions, thread control, and whatever the Page does. A
//! person's message opens the window in standby too: the window belongs to the conversation, not to the app.

use crate::event::{Channel, Event, EventKind, ReactionAction, Referral};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// How long after the person's last message a person of the Page may answer with the HUMAN_AGENT tag.
pub const HUMAN_AGENT_WINDOW_MS: i64 = 7 * DAY_MS;

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

/// The rules, one per opener.
pub const WINDOW_RULES: [WindowRule; 7] = [
    rule(WindowOpener::Message, DAY_MS, false, None),
    rule(WindowOpener::AdMessage, 7 * DAY_MS, false, None),
    rule(WindowOpener::Postback, DAY_MS, false, None),
    rule(WindowOpener::Reaction, DAY_MS, false, None),
    rule(WindowOpener::Referral, DAY_MS, true, None),
    rule(WindowOpener::Comment, 7 * DAY_MS, false, Some(1)),
    rule(WindowOpener::VisitorPost, DAY_MS, false, None),
];

const fn rule(
    opener: WindowOpener,
    duration_ms: i64,
    needs_existing_thread: bool,
    messages_max: Option<u32>,
) -> WindowRule {
    WindowRule { opener, duration_ms, needs_existing_thread, messages_max }
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

    /// The opener's rule.
    pub fn rule(self) -> WindowRule {
        WINDOW_RULES.into_iter().find(|rule| rule.opener == self).unwrap_or(WINDOW_RULES[0])
    }
}

/// The window an event opens, if any. A ledger that saw [`is_ad_click`] before a person's message uses
/// `WindowOpener::AdMessage.rule()` for that message, even when the message itself does not name the ad.
pub fn opens_window(event: &Event) -> Option<WindowRule> {
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
    Some(opener.rule())
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

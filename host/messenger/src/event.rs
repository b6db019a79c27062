//! From a webhook body to typed events.
//!
//! # The body
//! ```text
//! {"object":"page","entry":[
//!   {"id":PAGE_ID, "time":ms, "messaging":[ piece, … ]},   we own the thread, or nobody does
//!   {"id":PAGE_ID, "time":ms, "standby":  [ piece, … ]},   another app owns it: never answer
//!   {"id":PAGE_ID, "time":ms, "changes":  [ piece, … ]}    the Page itself: feed, labels
//! ]}
//! ```
//! A piece is one event. Meta documents one piece per list; any number is read here.
//!
//! # Invariants
//! - A refusal of the whole body makes Meta retry it and, after an hour, unsubscribe the app. So the body is only refused
//!   when it is not JSON, not Meta's envelope, or another product's. A piece that cannot be read becomes
//!   [`EventKind::Malformed`], one of an unknown kind [`EventKind::Unknown`]; the pieces beside it are unharmed. Pieces are
//!   parsed one by one from the body's text, so that not even broken JSON escapes, numbers out of range or absurd
//!   nesting in one of them reach the others.
//! - [`Event::raw`] is the piece as it came and can be stored in a `jsonb` column: U+0000 and lone surrogates, which
//!   Postgres refuses, are replaced by U+FFFD. [`Event::from_stored`] gives the same event from it again, and from what
//!   [`parse_each`] gives beside it.
//! - No input panics, and what is built is bounded by [`BODY_BYTES_MAX`] and [`EVENTS_MAX`].
//!
//! # Tolerance
//! Ids come as strings or numbers, times as seconds or milliseconds, numbers or strings ([`lenient`]). A missing optional
//! field is `None`, whatever stands in its place.

mod envelope;
mod identity;
pub mod kind;
pub mod lenient;
mod piece;

pub use envelope::{parse, parse_each};
pub use identity::message_key;
pub use kind::*;

use serde_json::Value;

use crate::ids::{PageId, Psid, UserRef};
use crate::outbound::Recipient;

/// The largest body that is parsed, in bytes. Meta sends at most 1000 updates in one, of some hundred bytes each.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most events taken from one body: ten times what Meta documents.
pub const EVENTS_MAX: usize = 10_000;
/// The most bytes kept of a piece that is not JSON.
pub const UNREADABLE_PIECE_BYTES_MAX: usize = 16 * 1024;

/// All events of one body, in the body's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub events: Vec<Event>,
}

/// Where in an entry a piece stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// `entry.messaging`: ours to answer.
    Messaging,
    /// `entry.standby`: another app or a person owns the thread. Read along, never answer.
    Standby,
    /// `entry.changes`: about the Page, not about a thread.
    Changes,
    /// In none of the three: the raw JSON is a whole entry or body.
    Envelope,
}

impl Channel {
    /// The stable name, as stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messaging => "messaging",
            Self::Standby => "standby",
            Self::Changes => "changes",
            Self::Envelope => "envelope",
        }
    }

    /// The channel of a stored name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Messaging, Self::Standby, Self::Changes, Self::Envelope]
            .into_iter()
            .find(|channel| channel.name() == name)
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The entry's id, else the side of the conversation that must be the Page. `None` only in bodies that name neither.
    pub page_id: Option<PageId>,
    pub channel: Channel,
    /// The person of the conversation: the sender of what came in, the recipient of what the Page sent.
    pub psid: Option<Psid>,
    /// The person, when a plugin knows only this.
    pub user_ref: Option<UserRef>,
    /// Whether the Page is the one who acted (echoes, the Page's own reactions).
    pub from_page: bool,
    /// The piece's own time, else the entry's, in milliseconds since 1970. Order a conversation by this, not by arrival.
    pub timestamp_ms: Option<i64>,
    pub kind: EventKind,
    /// The piece as it came.
    pub raw: Value,
}

impl Event {
    /// Reads an event again from what was stored of it. `fallback_ms` is used when the piece has no time of its own; storing
    /// [`Event::timestamp_ms`] and passing that gives the same event.
    pub fn from_stored(page_id: Option<PageId>, channel: Channel, fallback_ms: Option<i64>, raw: Value) -> Self {
        piece::read(page_id, channel, fallback_ms, raw)
    }

    /// The kind's stable name, for metrics and rows.
    pub fn kind_name(&self) -> &'static str {
        self.kind.name()
    }

    /// Under which the person's conversation is kept: the PSID, or for somebody whom only a plugin knows what
    /// [`Recipient::person_key`](crate::Recipient::person_key) makes of the `user_ref`. `None`: nobody's.
    pub fn person_key(&self) -> Option<String> {
        let user_ref = || self.user_ref.clone().map(|user_ref| Recipient::UserRef(user_ref).person_key());
        self.psid.as_ref().map(|psid| psid.as_str().to_owned()).or_else(|| user_ref().flatten())
    }

    /// Equal for two deliveries of the same event and different for different events; at most 1 KiB. See the module
    /// `identity` for what goes into it.
    pub fn dedupe_key(&self) -> String {
        identity::dedupe_key(self)
    }
}

/// Why a body gives no events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    #[error("the body has {bytes} bytes, more than the {BODY_BYTES_MAX} that are read; Meta sends no such body")]
    TooLarge { bytes: usize },
    #[error("the body holds more than {EVENTS_MAX} events; Meta sends at most 1000")]
    TooManyEvents,
    #[error("the body is not a JSON object ({detail}); expected Meta's webhook envelope")]
    NotJson { detail: String },
    #[error("the body's object is {object:?}, expected \"page\"; subscribe only the Page product to this callback")]
    OtherObject { object: Option<String> },
}

impl ParseError {
    /// The status to answer with. Meta's sample answers 404 to an object that is not `page`.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } | Self::TooManyEvents => 413,
            Self::NotJson { .. } => 400,
            Self::OtherObject { .. } => 404,
        }
    }
}

/// Whether the Page owes the customer an answer to this event, so that it starts a turn of the pipeline.
///
/// Yes: what a person wrote, tapped or handed in: text, quick reply, command, attachments, content Meta cannot show
/// apps, cart, postback, completed lead, form. No: stickers alone (a thumbs-up ends a conversation more often than it
/// asks something), a bare referral or opt-in (nothing was asked), an incomplete lead (the person is still in it), edits
/// and withdrawals (they change a turn that already exists), receipts, reactions, and all that the Page itself did.
/// Never: anything in standby, and anything from nobody.
pub fn needs_turn(event: &Event) -> bool {
    if event.channel != Channel::Messaging || event.from_page || (event.psid.is_none() && event.user_ref.is_none()) {
        return false;
    }
    match &event.kind {
        EventKind::Message(message) => !matches!(message.shape(), MessageShape::Sticker | MessageShape::Empty),
        EventKind::Lead(lead) => lead.is_complete,
        EventKind::Postback(_) | EventKind::Order(_) | EventKind::CustomerInformation { .. } => true,
        _ => false,
    }
}

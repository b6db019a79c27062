//! What can happen in a conversation, typed. Field names are Meta's.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::ids::{AppId, Mid, UserRef};

/// One event's content. Every optional field is optional on the wire too: what is missing or has another type is `None`
/// here and still stands in [`super::Event::raw`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A person wrote: text, quick reply, attachments, a cart, a command.
    Message(Message),
    /// The Page wrote, by us, another app or a person in the Page Inbox.
    Echo(Echo),
    /// A message was withdrawn; its text must be erased.
    Unsend {
        mid: Option<Mid>,
    },
    /// A message's text was changed.
    Edit {
        mid: Option<Mid>,
        text: Option<String>,
        /// How often the message has been edited so far; at most 5 by Meta's client.
        num_edit: Option<u32>,
    },
    Reaction(Reaction),
    Delivery {
        /// May be empty: then everything up to the watermark was delivered.
        mids: Vec<Mid>,
        watermark_ms: Option<i64>,
    },
    Read {
        mid: Option<Mid>,
        watermark_ms: Option<i64>,
    },
    Postback(Postback),
    /// A person came through a link or an ad into an existing thread, without writing.
    Referral(Referral),
    /// A lead form inside Messenger was filled in, wholly or in part.
    Lead(Lead),
    Optin(Optin),
    /// A thread was given to another app. `None` means: idle, no owner.
    PassThreadControl {
        previous_owner: Option<AppId>,
        new_owner: Option<AppId>,
        metadata: Option<String>,
    },
    /// An app took the thread.
    TakeThreadControl {
        previous_owner: Option<AppId>,
        new_owner: Option<AppId>,
        metadata: Option<String>,
    },
    /// An app asks the owner for the thread.
    RequestThreadControl {
        requested_owner: Option<AppId>,
        metadata: Option<String>,
    },
    /// The roles of the apps connected to the Page changed.
    AppRoles {
        roles: BTreeMap<AppId, Vec<String>>,
    },
    /// Meta warned, blocked or unblocked the Page: sending must stop on a block.
    PolicyEnforcement {
        action: PolicyAction,
        reason: Option<String>,
    },
    AccountLinking {
        status: Option<String>,
        authorization_code: Option<String>,
    },
    /// Thumbs up or down on one of our messages.
    ResponseFeedback {
        verdict: Feedback,
        mid: Option<Mid>,
    },
    /// A customer filled in a feedback form. What they wrote stays in the raw JSON.
    CustomerFeedback {
        answers: usize,
    },
    /// A cart sent by the customer.
    Order(Order),
    /// Personal data entered in a form. The content stays in the raw JSON: it is not copied around.
    CustomerInformation {
        screens: usize,
    },
    GamePlay {
        game_id: Option<String>,
        player_id: Option<String>,
        payload: Option<String>,
    },
    /// A post, comment or reaction on the Page itself.
    Feed(FeedChange),
    InboxLabels {
        action: Option<String>,
        label_id: Option<String>,
    },
    /// A utility message template was approved, rejected, paused, …
    TemplateStatus {
        template: Option<String>,
        status: Option<String>,
        reason: Option<String>,
    },
    /// A body from the app dashboard's test button: acknowledged, never acted on.
    DashboardTest,
    /// Well-formed, of a kind this version does not know. Stored and acknowledged.
    Unknown {
        /// The piece's keys apart from sender, recipient and timestamp, for the log.
        keys: Vec<String>,
    },
    /// Not of the shape its place promises. Stored and acknowledged.
    Malformed {
        /// What was found and what was expected, without the content.
        problem: String,
    },
}

/// A message as its writer sent it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    pub mid: Option<Mid>,
    pub text: Option<String>,
    /// The payload of the quick reply that was tapped; `text` holds its title.
    pub quick_reply_payload: Option<String>,
    pub reply_to: Option<ReplyTo>,
    pub attachments: Vec<Attachment>,
    /// The ad or product this message came through; an ad opens the long window.
    pub referral: Option<Referral>,
    pub commands: Vec<String>,
    pub order: Option<Order>,
    /// Apps that handled the thread before, with what they left for us (lead ads).
    pub hop_context: Vec<HopContext>,
    /// Meta could not show the content to apps.
    pub is_unsupported: bool,
}

/// What a message mainly is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageShape {
    QuickReply,
    Text,
    Command,
    Order,
    /// At least one attachment that is not a sticker.
    Attachments,
    /// Nothing but stickers (a thumbs-up is one).
    Sticker,
    Unsupported,
    Empty,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ReplyTo {
    pub mid: Option<Mid>,
    pub is_self_reply: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HopContext {
    pub app_id: Option<AppId>,
    pub metadata: Option<String>,
}

/// One attachment.
#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    pub kind: AttachmentKind,
    /// Expires soon: fetch at once. May be relative for reels.
    pub url: Option<String>,
    pub title: Option<String>,
    /// An id of the attached thing: sticker, reel, attachment, post or product.
    pub id: Option<String>,
    pub sticker_id: Option<String>,
    pub coordinates: Option<Coordinates>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttachmentKind {
    Image,
    Audio,
    Video,
    File,
    Sticker,
    Reel,
    Post,
    AppointmentBooking,
    /// A product or another template.
    Template,
    Location,
    /// A shared link.
    Fallback,
    Other(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coordinates {
    pub lat: f64,
    pub long: f64,
}

/// A message that the Page sent, as Meta reports it back.
#[derive(Clone, Debug, PartialEq)]
pub struct Echo {
    pub message: Message,
    pub app_id: Option<AppId>,
    /// What the sender put there; ours is the outbox row's id, hence the proof of delivery.
    pub metadata: Option<String>,
}

/// Who wrote an echoed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EchoOrigin {
    Ours,
    /// A person in Business Suite's inbox: they have taken over.
    Inbox,
    OtherApp(AppId),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Reaction {
    pub mid: Option<Mid>,
    pub action: ReactionAction,
    /// Meta's name: `like`, `love`, `other`, …
    pub reaction: Option<String>,
    pub emoji: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReactionAction {
    React,
    Unreact,
    Other(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Postback {
    /// Absent on older events and withheld in standby.
    pub mid: Option<Mid>,
    pub title: Option<String>,
    /// Withheld in standby.
    pub payload: Option<String>,
    pub referral: Option<Referral>,
}

/// Where a person came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Referral {
    /// The free text of an m.me link or an ad.
    pub r#ref: Option<String>,
    pub source: Option<String>,
    pub r#type: Option<String>,
    pub ad_id: Option<String>,
    pub referer_uri: Option<String>,
    pub product_id: Option<String>,
    pub ads_context_data: Option<Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Lead {
    /// False for `LEAD_INCOMPLETE`.
    pub is_complete: bool,
    pub referral: Referral,
    pub answers: Vec<LeadAnswer>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LeadAnswer {
    pub question: Option<String>,
    pub answer: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Optin {
    pub r#type: Option<String>,
    pub r#ref: Option<String>,
    pub user_ref: Option<UserRef>,
    pub payload: Option<String>,
    /// A right to send one topic's messages: a credential, so [`std::fmt::Debug`] of the raw JSON must not be logged.
    pub notification_messages_token: Option<String>,
    /// `STOP_NOTIFICATIONS` or `RESUME_NOTIFICATIONS`.
    pub notification_messages_status: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyAction {
    Warning,
    Block,
    Unblock,
    Other(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feedback {
    Good,
    Bad,
    Other(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Order {
    pub products: Vec<OrderProduct>,
    pub note: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OrderProduct {
    pub id: Option<String>,
    pub name: Option<String>,
    pub quantity: Option<u32>,
}

/// A change on the Page's feed.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedChange {
    /// `comment`, `post`, `status`, `reaction`, …
    pub item: Option<String>,
    /// `add`, `edited`, `remove`, …
    pub verb: Option<String>,
    pub post_id: Option<String>,
    pub comment_id: Option<String>,
    /// The writer's id; not a PSID.
    pub from_id: Option<String>,
    pub message: Option<String>,
}

impl Message {
    /// What the message mainly is, in the order of what an answer should go by.
    pub fn shape(&self) -> MessageShape {
        if self.quick_reply_payload.is_some() {
            MessageShape::QuickReply
        } else if !self.commands.is_empty() {
            MessageShape::Command
        } else if self.text.as_deref().is_some_and(|text| !text.trim().is_empty()) {
            MessageShape::Text
        } else if self.order.is_some() {
            MessageShape::Order
        } else if self.attachments.iter().any(|attachment| !attachment.is_sticker()) {
            MessageShape::Attachments
        } else if !self.attachments.is_empty() {
            MessageShape::Sticker
        } else if self.is_unsupported {
            MessageShape::Unsupported
        } else {
            MessageShape::Empty
        }
    }

    /// Whether the message came through an ad.
    pub fn is_from_ad(&self) -> bool {
        self.referral.as_ref().is_some_and(Referral::is_ad)
    }
}

impl Referral {
    /// Whether an ad led here. An `ad_id` alone is enough: older events name no source.
    pub fn is_ad(&self) -> bool {
        match self.source.as_deref() {
            Some(source) => source.eq_ignore_ascii_case("ADS"),
            None => self.ad_id.is_some(),
        }
    }
}

/// The three sizes of Messenger's thumbs-up.
pub const LIKE_STICKER_IDS: [&str; 3] = ["369239263222822", "369239343222814", "369239383222810"];

impl Attachment {
    /// Whether this is a sticker. Until Meta's change of 2026-08-30 a sticker came as an image with a `sticker_id`.
    pub fn is_sticker(&self) -> bool {
        self.kind == AttachmentKind::Sticker || self.sticker_id.is_some()
    }

    /// Whether this is the thumbs-up, in any of its sizes.
    pub fn is_like(&self) -> bool {
        self.sticker_id.as_deref().is_some_and(|id| LIKE_STICKER_IDS.contains(&id))
    }
}

impl Echo {
    /// Who wrote the message, by its app id. No app id means the Page Inbox. An echo whose `metadata` is one of our
    /// outbox ids is ours whatever the app id says: compare that first.
    pub fn origin(&self, our_app_id: &AppId) -> EchoOrigin {
        match &self.app_id {
            Some(app_id) if app_id == our_app_id => EchoOrigin::Ours,
            Some(app_id) if !app_id.is_inbox() => EchoOrigin::OtherApp(app_id.clone()),
            _ => EchoOrigin::Inbox,
        }
    }
}

impl EventKind {
    /// A short, stable name: part of the dedupe key, and the label of metrics and rows. Never rename one.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::Echo(_) => "echo",
            Self::Unsend { .. } => "unsend",
            Self::Edit { .. } => "edit",
            Self::Reaction(_) => "reaction",
            Self::Delivery { .. } => "delivery",
            Self::Read { .. } => "read",
            Self::Postback(_) => "postback",
            Self::Referral(_) => "referral",
            Self::Lead(_) => "lead",
            Self::Optin(_) => "optin",
            Self::PassThreadControl { .. } => "pass_thread_control",
            Self::TakeThreadControl { .. } => "take_thread_control",
            Self::RequestThreadControl { .. } => "request_thread_control",
            Self::AppRoles { .. } => "app_roles",
            Self::PolicyEnforcement { .. } => "policy_enforcement",
            Self::AccountLinking { .. } => "account_linking",
            Self::ResponseFeedback { .. } => "response_feedback",
            Self::CustomerFeedback { .. } => "customer_feedback",
            Self::Order(_) => "order",
            Self::CustomerInformation { .. } => "customer_information",
            Self::GamePlay { .. } => "game_play",
            Self::Feed(_) => "feed",
            Self::InboxLabels { .. } => "inbox_labels",
            Self::TemplateStatus { .. } => "template_status",
            Self::DashboardTest => "dashboard_test",
            Self::Unknown { .. } => "unknown",
            Self::Malformed { .. } => "malformed",
        }
    }

    /// The id of the message this event is or is about.
    pub fn mid(&self) -> Option<&Mid> {
        match self {
            Self::Message(message) | Self::Echo(Echo { message, .. }) => message.mid.as_ref(),
            Self::Unsend { mid }
            | Self::Edit { mid, .. }
            | Self::Read { mid, .. }
            | Self::ResponseFeedback { mid, .. } => mid.as_ref(),
            Self::Reaction(reaction) => reaction.mid.as_ref(),
            Self::Postback(postback) => postback.mid.as_ref(),
            _ => None,
        }
    }
}

//! What may be sent, with Meta's limits checked on construction.
//!
//! The machine's messages are `messaging_type: RESPONSE` and cannot carry a tag: [`OutboundMessage`] has no public way to
//! set one. The only tag left that fits a conversation, `HUMAN_AGENT`, is for what a person wrote, so it is reachable only
//! through [`AgentReply`], which needs that person's id. `CONFIRMED_EVENT_UPDATE`, `ACCOUNT_UPDATE` and
//! `POST_PURCHASE_UPDATE` were retired on 2026-04-27 and do not exist here.

use serde_json::{Map, Value, json};

use crate::ids::{AgentId, Mid, Psid, UserRef};
use crate::split::{TEXT_UNITS_MAX, text_units};

/// `message.metadata` must be shorter than 1000 characters. It comes back in the echo.
pub const METADATA_UNITS_MAX: usize = 999;
pub const QUICK_REPLIES_MAX: usize = 13;
pub const QUICK_REPLY_TITLE_UNITS_MAX: usize = 20;
pub const QUICK_REPLY_PAYLOAD_UNITS_MAX: usize = 1000;

/// Who receives a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    Psid(Psid),
    UserRef(UserRef),
    /// A private reply to a comment: one message within seven days.
    CommentId(String),
    /// A private reply to a visitor's post.
    PostId(String),
}

/// Stands before a `user_ref` where a PSID is expected. A PSID is made of digits, so the two cannot be confused.
const USER_REF_PREFIX: &str = "user_ref:";

impl Recipient {
    /// Whom a conversation's key names: the reverse of [`Recipient::person_key`].
    pub fn of_person(key: &str) -> Self {
        match key.strip_prefix(USER_REF_PREFIX) {
            Some(user_ref) => Self::UserRef(UserRef::new(user_ref)),
            None => Self::Psid(Psid::new(key)),
        }
    }

    /// The key of a person's conversation: the PSID, or `user_ref:` and the id that a plugin gave a person who has no PSID yet.
    /// A comment or post is no person.
    pub fn person_key(&self) -> Option<String> {
        match self {
            Self::Psid(psid) => Some(psid.as_str().to_owned()),
            Self::UserRef(user_ref) => Some(format!("{USER_REF_PREFIX}{user_ref}")),
            Self::CommentId(_) | Self::PostId(_) => None,
        }
    }

    /// Whether a conversation's key is a `user_ref`: the person may turn out to have a PSID, and with it another conversation.
    pub fn is_user_ref(key: &str) -> bool {
        key.starts_with(USER_REF_PREFIX)
    }

    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Psid(id) => json!({ "id": id }),
            Self::UserRef(id) => json!({ "user_ref": id }),
            Self::CommentId(id) => json!({ "comment_id": id }),
            Self::PostId(id) => json!({ "post_id": id }),
        }
    }
}

impl From<Psid> for Recipient {
    fn from(psid: Psid) -> Self {
        Self::Psid(psid)
    }
}

/// Why a message cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    #[error("the text is blank; Messenger takes no empty message")]
    BlankText,
    #[error("{field} has {units} UTF-16 units, more than the {units_max} that Messenger takes")]
    TooLong { field: &'static str, units: usize, units_max: usize },
    #[error("{count} quick replies, more than the {QUICK_REPLIES_MAX} that Messenger takes")]
    TooManyQuickReplies { count: usize },
    #[error("a quick reply's title is blank")]
    BlankTitle,
}

/// A button under a message that sends its title as the person's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuickReply {
    title: String,
    payload: String,
}

impl QuickReply {
    /// # Errors
    /// When title or payload is too long, or the title blank.
    pub fn new(title: impl Into<String>, payload: impl Into<String>) -> Result<Self, OutboundError> {
        let (title, payload) = (title.into(), payload.into());
        if title.trim().is_empty() {
            return Err(OutboundError::BlankTitle);
        }
        check("a quick reply's title", &title, QUICK_REPLY_TITLE_UNITS_MAX)?;
        check("a quick reply's payload", &payload, QUICK_REPLY_PAYLOAD_UNITS_MAX)?;
        Ok(Self { title, payload })
    }
}

/// One message to one person. What the machine builds is always a RESPONSE.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboundMessage {
    recipient: Recipient,
    text: String,
    quick_replies: Vec<QuickReply>,
    metadata: Option<String>,
    reply_to: Option<Mid>,
    is_human_agent: bool,
}

impl OutboundMessage {
    /// A text, already short enough for one message; see [`crate::split::split_text`].
    ///
    /// # Errors
    /// When the text is blank or too long.
    pub fn text(recipient: impl Into<Recipient>, text: impl Into<String>) -> Result<Self, OutboundError> {
        let text = text.into();
        if text.trim().is_empty() {
            return Err(OutboundError::BlankText);
        }
        check("the text", &text, TEXT_UNITS_MAX)?;
        Ok(Self {
            recipient: recipient.into(),
            text,
            quick_replies: Vec::new(),
            metadata: None,
            reply_to: None,
            is_human_agent: false,
        })
    }

    /// Adds what the echo will carry: the outbox row's id.
    ///
    /// # Errors
    /// When it is too long.
    pub fn with_metadata(mut self, metadata: impl Into<String>) -> Result<Self, OutboundError> {
        let metadata = metadata.into();
        check("metadata", &metadata, METADATA_UNITS_MAX)?;
        self.metadata = Some(metadata);
        Ok(self)
    }

    /// Adds quick replies.
    ///
    /// # Errors
    /// When there are too many.
    pub fn with_quick_replies(mut self, quick_replies: Vec<QuickReply>) -> Result<Self, OutboundError> {
        if quick_replies.len() > QUICK_REPLIES_MAX {
            return Err(OutboundError::TooManyQuickReplies { count: quick_replies.len() });
        }
        self.quick_replies = quick_replies;
        Ok(self)
    }

    /// Shows the message as a reply to another.
    pub fn in_reply_to(mut self, mid: Mid) -> Self {
        self.reply_to = Some(mid);
        self
    }

    /// Who receives it.
    pub fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// What the echo will carry.
    pub fn metadata(&self) -> Option<&str> {
        self.metadata.as_deref()
    }

    /// The Send API's body.
    pub fn to_json(&self) -> Value {
        let mut message = Map::new();
        message.insert("text".to_owned(), json!(self.text));
        if !self.quick_replies.is_empty() {
            let replies = self.quick_replies.iter();
            let replies: Vec<_> = replies
                .map(|reply| json!({ "content_type": "text", "title": reply.title, "payload": reply.payload }))
                .collect();
            message.insert("quick_replies".to_owned(), Value::Array(replies));
        }
        if let Some(metadata) = &self.metadata {
            message.insert("metadata".to_owned(), json!(metadata));
        }
        let mut body = Map::new();
        body.insert("recipient".to_owned(), self.recipient.to_json());
        body.insert("message".to_owned(), Value::Object(message));
        if self.is_human_agent {
            body.insert("messaging_type".to_owned(), json!("MESSAGE_TAG"));
            body.insert("tag".to_owned(), json!("HUMAN_AGENT"));
        } else {
            body.insert("messaging_type".to_owned(), json!("RESPONSE"));
        }
        if let Some(mid) = &self.reply_to {
            body.insert("reply_to".to_owned(), json!({ "mid": mid }));
        }
        Value::Object(body)
    }
}

/// A message that an authenticated person wrote: the only way to the HUMAN_AGENT tag.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentReply {
    agent: AgentId,
    message: OutboundMessage,
}

impl AgentReply {
    /// Binds a message to the person who wrote it.
    pub fn new(agent: AgentId, message: OutboundMessage) -> Self {
        Self { agent, message }
    }

    /// Who wrote it.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// To send within the standard window, without a tag.
    pub fn within_window(self) -> OutboundMessage {
        self.message
    }

    /// To send after the standard window and up to seven days after the person's message, as HUMAN_AGENT. Needs Meta's
    /// Human Agent permission.
    pub fn as_human_agent(mut self) -> OutboundMessage {
        self.message.is_human_agent = true;
        self.message
    }
}

/// What the person sees beside messages. Sent alone, never with a message (error 100-2018014).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderAction {
    MarkSeen,
    TypingOn,
    TypingOff,
    React { mid: Mid, reaction: String },
    Unreact { mid: Mid },
}

impl SenderAction {
    /// The Send API's body: recipient and action, nothing else.
    pub fn to_json(&self, recipient: &Recipient) -> Value {
        let recipient = recipient.to_json();
        match self {
            Self::MarkSeen => json!({ "recipient": recipient, "sender_action": "mark_seen" }),
            Self::TypingOn => json!({ "recipient": recipient, "sender_action": "typing_on" }),
            Self::TypingOff => json!({ "recipient": recipient, "sender_action": "typing_off" }),
            Self::React { mid, reaction } => json!({
                "recipient": recipient, "sender_action": "react", "payload": { "message_id": mid, "reaction": reaction },
            }),
            Self::Unreact { mid } => json!({
                "recipient": recipient, "sender_action": "unreact", "payload": { "message_id": mid },
            }),
        }
    }
}

fn check(field: &'static str, text: &str, units_max: usize) -> Result<(), OutboundError> {
    let units = text_units(text);
    if units > units_max { Err(OutboundError::TooLong { field, units, units_max }) } else { Ok(()) }
}

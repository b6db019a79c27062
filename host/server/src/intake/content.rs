//! What an event says, in the words of the policies' contract.

use frontdesk_messenger::event::{Attachment, AttachmentKind, Lead, Message, Postback};

/// The words that an event carries.
pub(super) struct Words<'a> {
    pub source: &'static str,
    pub text: String,
    pub payload: Option<&'a str>,
    pub attachments: Vec<&'static str>,
}

impl<'a> Words<'a> {
    pub fn of_message(message: &'a Message) -> Self {
        let payload = message.quick_reply_payload.as_deref();
        let mut attachments: Vec<&'static str> = message.attachments.iter().map(attachment_name).collect();
        if message.order.is_some() || message.is_unsupported {
            attachments.push("other");
        }
        Self {
            source: if payload.is_some() { "quick-reply" } else { "text" },
            text: message.text.clone().unwrap_or_default(),
            payload,
            attachments,
        }
    }

    pub fn of_postback(postback: &'a Postback) -> Self {
        Self {
            source: "postback",
            text: postback.title.clone().unwrap_or_default(),
            payload: postback.payload.as_deref(),
            attachments: Vec::new(),
        }
    }

    pub fn of_lead(lead: &'a Lead) -> Self {
        let text = lead
            .answers
            .iter()
            .map(|a| format!("{}: {}", a.question.as_deref().unwrap_or("?"), a.answer.as_deref().unwrap_or("?")))
            .collect::<Vec<_>>()
            .join("\n");
        Self { source: "lead", text, payload: None, attachments: Vec::new() }
    }

    /// Carts and forms hold personal data: only that there was one is told on.
    pub fn of_form() -> Self {
        Self { source: "text", text: String::new(), payload: None, attachments: vec!["other"] }
    }
}

fn attachment_name(attachment: &Attachment) -> &'static str {
    if attachment.is_sticker() {
        return "sticker";
    }
    match attachment.kind {
        AttachmentKind::Image => "image",
        AttachmentKind::Audio => "audio",
        AttachmentKind::Video => "video",
        AttachmentKind::File => "file",
        AttachmentKind::Location => "location",
        AttachmentKind::Reel | AttachmentKind::Post | AttachmentKind::Fallback | AttachmentKind::Template => "share",
        _ => "other",
    }
}

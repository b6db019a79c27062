//! What the customer sent in this turn, as one text.

use frontdesk_policy_sdk::text::{Words, clip};
use frontdesk_policy_sdk::types::{AttachmentKind, Turn};

/// More of a turn is not read: Messenger allows 2,000 characters a message, and a verdict does not need more than this.
const TEXT_MAX_BYTES: usize = 8_000;

#[derive(Debug)]
pub(crate) struct Scan {
    pub text: String,
    pub words: Words,
    /// There are stickers and nothing else.
    pub only_stickers: bool,
    /// There are attachments and no text.
    pub only_attachments: bool,
}

impl Scan {
    pub(crate) fn of(turn: &Turn) -> Self {
        let length = turn.messages.iter().map(|message| message.text.len() + 1).sum::<usize>();
        let mut text = String::with_capacity(length.min(TEXT_MAX_BYTES));
        for message in &turn.messages {
            let room = TEXT_MAX_BYTES.saturating_sub(text.len() + 1);
            text.push_str(clip(&message.text, room));
            // Two messages are two sentences.
            text.push('\n');
        }
        let words = Words::scan(&text);
        let mut kinds = turn.messages.iter().flat_map(|message| &message.attachments).peekable();
        let attached = kinds.peek().is_some();
        let wordless = text.trim().is_empty();
        let stickers = kinds.all(|kind| *kind == AttachmentKind::Sticker);
        Self { text, words, only_stickers: wordless && attached && stickers, only_attachments: wordless && attached }
    }
}

//! People's words at rest: every text that a person wrote, or was told, is sealed under the person's data key (see [`crate::keys`])
//! before it reaches a table, so that deleting the key ends it in every copy of the database too.
//!
//! | column | sealed as |
//! |--------|-----------|
//! | `messages.text`, `messages.payload`, `outbox.text`, `tickets.summary`, `tickets.matters[].summary` | text: U+0001, then base64 |
//! | `faq_proposals.question`, `faq_proposals.answer` (see [`crate::learning`]) | the same |
//! | `inbox.sealed` | bytes: whose key it is (16), then the sealed value |
//!
//! A text that does not begin with U+0001 was written by a version before this module and is read as it stands; [`start_upkeep`]
//! seals those in the background, in small transactions, until none is left.
//!
//! # What holds
//! - **Writers hold the conversation's lock**, or write rows that refer to the conversation in one statement ([`crate::outbox`]). An
//!   erasure takes a lock first that keeps both out, so no text is sealed under a key that is being deleted.
//! - **A key is remembered by its conversation**, never by its person: an erasure deletes the conversation, and its id never comes
//!   again, so nobody seals under a remembered key that is gone. The process that erases forgets at once, others within minutes. Keys
//!   that an open transaction has made are not remembered.
//! - A text is bound to its column and conversation; copied elsewhere it does not open.
//! - A text whose key is gone reads as empty: its person was erased while somebody looked. One that does not open though the key is
//!   there is an error.

mod inbox;
mod upkeep;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::db;
use crate::db::messages::StoredMessage;
use crate::db::outbox::{Claimed, InDoubt, Row};
use crate::db::tickets::{Ticket, TicketSummary};
use crate::keys::{Binding, Keys, PersonKey, Wrapped};

pub use inbox::{open_events, open_page_events};
pub use upkeep::start_upkeep;

const PURPOSE: &str = "words";
const VERSION: u32 = 1;
/// Begins every sealed text. No person's message begins with it: what Meta delivers is sealed, whatever it begins with.
const MARK: char = '\u{1}';
/// Keys remembered; then all are forgotten, which costs one more read each.
const REMEMBERED_MAX: usize = 10_000;
/// How long a key is remembered: an erased person's key, which another process deleted, is not for long in anybody's memory.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

pub const MESSAGE_TEXT: &str = "messages.text";
pub const MESSAGE_PAYLOAD: &str = "messages.payload";
pub const OUTBOX_TEXT: &str = "outbox.text";
pub const TICKET_SUMMARY: &str = "tickets.summary";

/// Something goes wrong with a column's value, as when it cannot be decoded.
fn column_error(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

fn is_sealed(text: &str) -> bool {
    text.starts_with(MARK)
}

/// Seals and opens one conversation's texts.
#[derive(Debug, Clone)]
pub struct Sealer {
    key: PersonKey,
    conversation: String,
}

impl Sealer {
    fn new(key: PersonKey, conversation_id: Uuid) -> Self {
        Self { key, conversation: conversation_id.to_string() }
    }

    /// The form in which a text is stored. An empty one stays empty: queries ask for it.
    ///
    /// # Errors
    /// When the system's random numbers fail.
    pub fn seal(&self, column: &'static str, text: &str) -> sqlx::Result<String> {
        if text.is_empty() {
            return Ok(String::new());
        }
        let sealed =
            self.key.seal(&self.binding(&[column, &self.conversation]), text.as_bytes()).map_err(column_error)?;
        let mut stored = String::with_capacity(1 + sealed.len().div_ceil(3) * 4);
        stored.push(MARK);
        BASE64.encode_string(sealed, &mut stored);
        Ok(stored)
    }

    /// The text of a stored form.
    ///
    /// # Errors
    /// When it is sealed and does not open.
    pub fn open(&self, column: &'static str, stored: &str) -> sqlx::Result<String> {
        let Some(encoded) = stored.strip_prefix(MARK) else { return Ok(stored.to_owned()) };
        let sealed = BASE64.decode(encoded).map_err(column_error)?;
        let plain = self.key.open(&self.binding(&[column, &self.conversation]), &sealed).map_err(column_error)?;
        Ok(String::from_utf8_lossy(&plain).into_owned())
    }

    fn binding<'a>(&self, ids: &'a [&'a str]) -> Binding<'a> {
        Binding { purpose: PURPOSE, version: VERSION, ids }
    }
}

/// What [`HasWords::each`] does with a text: given its column.
pub type EachText<'a> = dyn FnMut(&'static str, &mut String) -> sqlx::Result<()> + 'a;

/// A row that holds sealed texts.
pub trait HasWords {
    fn conversation_id(&self) -> Uuid;

    /// Visits every text of the row.
    ///
    /// # Errors
    /// The visitor's.
    fn each(&mut self, visit: &mut EachText<'_>) -> sqlx::Result<()>;
}

impl HasWords for StoredMessage {
    fn conversation_id(&self) -> Uuid {
        self.conversation_id
    }

    fn each(&mut self, visit: &mut EachText<'_>) -> sqlx::Result<()> {
        visit(MESSAGE_TEXT, &mut self.text)?;
        self.payload.as_mut().map_or(Ok(()), |payload| visit(MESSAGE_PAYLOAD, payload))
    }
}

macro_rules! one_text {
    ($row:ty, $column:ident, $field:ident) => {
        impl HasWords for $row {
            fn conversation_id(&self) -> Uuid {
                self.conversation_id
            }

            fn each(&mut self, visit: &mut EachText<'_>) -> sqlx::Result<()> {
                visit($column, &mut self.$field)
            }
        }
    };
}

one_text!(Row, OUTBOX_TEXT, text);
one_text!(Claimed, OUTBOX_TEXT, text);
one_text!(InDoubt, OUTBOX_TEXT, text);
one_text!(TicketSummary, TICKET_SUMMARY, summary);

impl HasWords for Ticket {
    fn conversation_id(&self) -> Uuid {
        self.conversation_id
    }

    fn each(&mut self, visit: &mut EachText<'_>) -> sqlx::Result<()> {
        visit(TICKET_SUMMARY, &mut self.summary)?;
        let matters = self.matters.as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
        for summary in matters.iter_mut().filter_map(|matter| matter.get_mut("summary")) {
            if let Value::String(text) = summary {
                visit(TICKET_SUMMARY, text)?;
            }
        }
        Ok(())
    }
}

/// The keys of people's words. Clones share what is remembered.
#[derive(Debug, Clone)]
pub struct WordSeals {
    keys: Keys,
    remembered: Arc<Mutex<HashMap<Uuid, (Sealer, Instant)>>>,
}

impl WordSeals {
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self { keys, remembered: Arc::default() }
    }

    /// A conversation's sealer, if it is remembered.
    pub fn recall(&self, conversation_id: Uuid) -> Option<Sealer> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (sealer, since) = remembered.get(&conversation_id)?;
        (since.elapsed() < REMEMBERED_FOR).then(|| sealer.clone())
    }

    /// Forgets a conversation's key: its person is erased.
    pub fn forget(&self, conversation_id: Uuid) {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).remove(&conversation_id);
    }

    /// Remembers a conversation's key, which is stored and committed.
    pub fn remember(&self, conversation_id: Uuid, sealer: &Sealer) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(conversation_id, (sealer.clone(), Instant::now()));
    }

    /// What seals a conversation's texts; its person's key is made when there is none. The transaction must hold the conversation's lock,
    /// and what is sealed must be stored in it.
    ///
    /// # Errors
    /// When the conversation is gone, or the key does not open.
    pub async fn of(&self, tx: &mut PgConnection, conversation_id: Uuid) -> sqlx::Result<Sealer> {
        if let Some(sealer) = self.recall(conversation_id) {
            return Ok(sealer);
        }
        let found = db::keys::of_conversations(&mut *tx, &[conversation_id]).await?;
        let found = found.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
        if let Some(sealer) = self.sealer(&found)? {
            return Ok(sealer);
        }
        let made = self.keys.make_person_key(tx, &found.page_id, &found.psid).await.map_err(column_error)?;
        if let Some(key) = made {
            return Ok(Sealer::new(key, conversation_id));
        }
        let found = db::keys::of_conversations(&mut *tx, &[conversation_id]).await?;
        let found = found.first().ok_or(sqlx::Error::RowNotFound)?;
        self.sealer(found)?.ok_or(sqlx::Error::RowNotFound)
    }

    /// The sealer of a stored key, which is remembered unless the asking transaction has made it.
    fn sealer(&self, found: &db::keys::ConversationKey) -> sqlx::Result<Option<Sealer>> {
        let (Some(key_id), Some(wrapped)) = (&found.key_id, &found.wrapped) else { return Ok(None) };
        let wrapped = Wrapped { key_id: key_id.clone(), sealed: wrapped.clone() };
        let key = self.keys.person_key(&found.page_id, &found.psid, &wrapped).map_err(column_error)?;
        let sealer = Sealer::new(key, found.conversation_id);
        if found.is_committed {
            self.remember(found.conversation_id, &sealer);
        }
        Ok(Some(sealer))
    }

    /// Opens the texts of rows, of any conversations, in place.
    ///
    /// # Errors
    /// When keys cannot be read, or a text does not open.
    pub async fn open<T: HasWords>(&self, db: impl PgExecutor<'_>, rows: &mut [T]) -> sqlx::Result<()> {
        let mut sealers: HashMap<Uuid, Sealer> = HashMap::new();
        let mut unknown: Vec<Uuid> = Vec::new();
        for row in &mut *rows {
            let id = row.conversation_id();
            let mut needs_key = false;
            row.each(&mut |_, text| {
                needs_key |= is_sealed(text);
                Ok(())
            })?;
            if needs_key && !sealers.contains_key(&id) {
                match self.recall(id) {
                    Some(sealer) => drop(sealers.insert(id, sealer)),
                    None => unknown.push(id),
                }
            }
        }
        if !unknown.is_empty() {
            unknown.sort_unstable();
            unknown.dedup();
            for found in db::keys::of_conversations(db, &unknown).await? {
                if let Some(sealer) = self.sealer(&found)? {
                    sealers.insert(found.conversation_id, sealer);
                }
            }
        }
        for row in rows {
            let sealer = sealers.get(&row.conversation_id());
            row.each(&mut |column, text| {
                match sealer {
                    _ if !is_sealed(text) => {}
                    Some(sealer) => *text = sealer.open(column, text)?,
                    None => text.clear(),
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyRing;

    fn person() -> PersonKey {
        let day = chrono::NaiveDate::from_ymd_opt(2027, 1, 15).unwrap();
        let ring = KeyRing::parse(&KeyRing::new_line(day).unwrap()).unwrap();
        Keys::of_ring(ring).new_person_key("42", "7").unwrap().0
    }

    #[test]
    fn a_text_opens_in_its_own_place_only_and_old_ones_are_read_as_they_stand() {
        let (person, stranger) = (person(), person());
        let (here, there) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let sealer = Sealer::new(person.clone(), here);
        for text in ["Where is my parcel?", "\u{1}looks sealed", "ä\u{0}\u{1F600}", &"x".repeat(10_000)] {
            let stored = sealer.seal(MESSAGE_TEXT, text).unwrap();
            assert!(is_sealed(&stored) && !stored.contains("parcel"), "{stored}");
            assert_ne!(stored, sealer.seal(MESSAGE_TEXT, text).unwrap(), "equal texts do not look equal");
            assert_eq!(sealer.open(MESSAGE_TEXT, &stored).unwrap(), text);
            assert!(sealer.open(OUTBOX_TEXT, &stored).is_err(), "another column");
            assert!(Sealer::new(person.clone(), there).open(MESSAGE_TEXT, &stored).is_err(), "another conversation");
            assert!(Sealer::new(stranger.clone(), here).open(MESSAGE_TEXT, &stored).is_err(), "another person");
            let cut: String = stored.chars().take(20).collect();
            assert!(sealer.open(MESSAGE_TEXT, &cut).is_err());
        }
        assert_eq!(sealer.seal(MESSAGE_TEXT, "").unwrap(), "");
        assert_eq!(sealer.open(MESSAGE_TEXT, "written before").unwrap(), "written before");
    }
}

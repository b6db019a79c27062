//! Decision records at rest: sealed under the person's key, with a masked form beside, read through one place.
//!
//! # Writing
//! The small row of a decision (route, outcome, revision, …) is part of the turn's own transaction. The record follows after the commit,
//! through a bounded queue ([`writer`]), so that nothing it meets delays or stops a reply. Until it is written the row says
//! `pending`; the row also says what became of it otherwise:
//!
//! ```text
//! pending --writer--> sealed --records.keep_days--> expired
//!    |--queue full, too large, database away-> dropped (counted in frontdesk_records_total)
//!    |--the process ended first-------------> lost
//!    `--the customer withdrew the message----> erased (sealed ones too)
//! inline: written by a version before 0.2, still in the row; moved to `sealed` in the background
//! ```
//!
//! # Reading
//! [`Records`] is the only reader. The clear form needs the person's key; the masked form needs none. A record that does not
//! open is `unreadable`, counted and logged, and never fails the list that it stands in. What the clear form is used for is
//! written to the audit log by whoever answers a person: see [`crate::admin`].
//!
//! # Format
//! What is sealed is one byte for the encoding (0: JSON, as versions before this one wrote it; 1: JSON compressed with zstd) and the
//! record's JSON under its version ([`crate::pipeline::RECORD_VERSION`]). `sdk/policyctl/tests/fixtures` holds records of each released
//! version, which must stay readable.

mod mask;
mod upkeep;
mod writer;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::db;
use crate::db::decisions::StoredDecision;
use crate::keys::{Binding, KeyError, Keys, PersonKey, Wrapped};

pub use mask::masked;
pub use upkeep::{prune, start_upkeep};
pub use writer::{Job, Writer};

const PURPOSE: &str = "decision-record";
/// The first byte of what is sealed: JSON follows.
const ENCODING_JSON: u8 = 0;
/// The same, compressed with zstd.
const ENCODING_ZSTD: u8 = 1;
/// Of zstd's usual levels the fastest: every turn's record is compressed, and few are ever read.
const ZSTD_LEVEL: i32 = 1;

/// Which form of a record is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As it was written. Reading it for a person belongs in the audit log.
    #[default]
    Clear,
    /// Without anybody's words.
    Masked,
}

/// A decision with its record.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    pub turn_id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: String,
    pub chain: Option<String>,
    pub revision: String,
    /// Where the revision stood: `active` or `canary`.
    pub slot: String,
    pub route: String,
    pub outcome: String,
    pub confidence: f32,
    pub reason: String,
    pub mids: Vec<String>,
    pub record_version: i32,
    /// `sealed` or `inline`: `record` is there. Otherwise it is null, and this says why: `pending`, `dropped`, `lost`, `erased`,
    /// `expired`, `unreadable`.
    pub record_state: String,
    pub record: Value,
    pub duration_us: i64,
    pub created_at: DateTime<Utc>,
}

impl Decision {
    /// Whether the record is there.
    #[must_use]
    pub fn has_record(&self) -> bool {
        !self.record.is_null()
    }
}

/// Why a sealed record does not open.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the person's key is gone")]
    Shredded,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the sealed record has an encoding that this version does not know: {found}")]
    Encoding { found: u8 },
    #[error("the sealed record is empty")]
    Empty,
    #[error("the sealed record cannot be decompressed: {source}")]
    Compressed {
        #[source]
        source: std::io::Error,
    },
    #[error("the sealed record holds no JSON: {source}")]
    Json {
        #[source]
        source: serde_json::Error,
    },
}

/// The records: writing through a queue, reading in either form. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Records {
    pool: PgPool,
    keys: Keys,
    writer: Writer,
}

impl Records {
    #[must_use]
    pub fn new(pool: PgPool, keys: Keys, writer: Writer) -> Self {
        Self { pool, keys, writer }
    }

    /// Takes a record to be written. Returns at once; what cannot be taken is counted and noted on the decision's row.
    pub fn write(&self, job: Job) {
        self.writer.take(job);
    }

    /// One decision.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn load(&self, turn_id: Uuid, form: Form) -> sqlx::Result<Option<Decision>> {
        self.writer.caught_up().await;
        let stored = db::decisions::get(&self.pool, turn_id, form == Form::Clear).await?;
        Ok(stored.map(|stored| self.open(stored, form)))
    }

    /// The decisions of a conversation after a time, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn of_conversation(
        &self,
        conversation_id: Uuid,
        after: Option<DateTime<Utc>>,
        limit: i64,
        form: Form,
    ) -> sqlx::Result<Vec<Decision>> {
        self.writer.caught_up().await;
        let stored = db::decisions::after(&self.pool, conversation_id, after, limit, form == Form::Clear).await?;
        Ok(self.open_all(stored, form))
    }

    /// Decisions of all conversations after a place in time, oldest first, as far as they are written: the list ends before the
    /// first one that is on its way. Those whose record is gone are left out by the reader, not here.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn all_after(
        &self,
        after: Option<(DateTime<Utc>, Uuid)>,
        chain: Option<&str>,
        limit: i64,
        form: Form,
    ) -> sqlx::Result<Vec<Decision>> {
        self.writer.caught_up().await;
        let stored = db::decisions::all_after(&self.pool, after, chain, limit, form == Form::Clear).await?;
        Ok(self.open_all(stored, form))
    }

    /// The latest decisions of a chain that have a record, newest first, in the clear form: what a candidate is tried on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn latest(&self, chain: &str, limit: u32) -> sqlx::Result<Vec<Decision>> {
        Ok(self.latest_before(chain, None, limit).await?.0)
    }

    /// As [`Records::latest`], of those before a place in time; and the place at which the next ones begin, if there may be
    /// any.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn latest_before(
        &self,
        chain: &str,
        before: Option<(DateTime<Utc>, Uuid)>,
        limit: u32,
    ) -> sqlx::Result<(Vec<Decision>, Option<(DateTime<Utc>, Uuid)>)> {
        if before.is_none() {
            self.writer.caught_up().await;
        }
        let stored = db::decisions::latest(&self.pool, chain, before, limit.into()).await?;
        let is_full = stored.len() >= limit as usize;
        let next = stored.last().map(|last| (last.created_at, last.turn_id)).filter(|_| is_full);
        let mut decisions = self.open_all(stored, Form::Clear);
        decisions.retain(Decision::has_record);
        Ok((decisions, next))
    }

    /// How many decisions of a chain have a record; counted up to `most`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count(&self, chain: &str, most: u32) -> sqlx::Result<u32> {
        let count = db::decisions::count_recorded(&self.pool, chain, most.into()).await?;
        Ok(u32::try_from(count).unwrap_or(most))
    }

    fn open_all(&self, stored: Vec<StoredDecision>, form: Form) -> Vec<Decision> {
        stored.into_iter().map(|stored| self.open(stored, form)).collect()
    }

    fn open(&self, stored: StoredDecision, form: Form) -> Decision {
        let mut state = stored.record_state.clone();
        let record = match (form, state.as_str()) {
            (Form::Clear, "inline") => stored.record.clone().unwrap_or_default(),
            (Form::Masked, "inline") => stored.record.as_ref().map(masked).unwrap_or_default(),
            (Form::Masked, "sealed") => stored.masked.clone().unwrap_or_default(),
            (Form::Clear, "sealed") => self.unseal(&stored).unwrap_or_else(|error| {
                metrics::counter!("frontdesk_records_total", "result" => "unreadable").increment(1);
                tracing::error!(%error, turn = %stored.turn_id, "a decision record cannot be read");
                state = "unreadable".to_owned();
                Value::Null
            }),
            _ => Value::Null,
        };
        Decision {
            turn_id: stored.turn_id,
            conversation_id: stored.conversation_id,
            page_id: stored.page_id,
            chain: stored.chain,
            revision: stored.revision,
            slot: stored.slot,
            route: stored.route,
            outcome: stored.outcome,
            confidence: stored.confidence,
            reason: stored.reason,
            mids: stored.mids,
            record_version: stored.record_version,
            record_state: state,
            record,
            duration_us: stored.duration_us,
            created_at: stored.created_at,
        }
    }

    fn unseal(&self, stored: &StoredDecision) -> Result<Value, RecordError> {
        let (Some(key_id), Some(wrapped)) = (&stored.key_id, &stored.wrapped) else {
            return Err(RecordError::Shredded);
        };
        let wrapped = Wrapped { key_id: key_id.clone(), sealed: wrapped.clone() };
        let key = self.keys.person_key(&stored.page_id, &stored.psid, &wrapped)?;
        let place = Place { page_id: &stored.page_id, psid: &stored.psid, turn_id: stored.turn_id };
        unseal(&key, &place, stored.record_version, stored.sealed.as_deref().unwrap_or_default())
    }
}

/// Where a sealed record belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub page_id: &'a str,
    pub psid: &'a str,
    pub turn_id: Uuid,
}

impl Place<'_> {
    fn bound<T>(&self, version: i32, run: impl FnOnce(&Binding<'_>) -> T) -> T {
        let turn_id = self.turn_id.to_string();
        let ids = [self.page_id, self.psid, &turn_id];
        run(&Binding { purpose: PURPOSE, version: u32::try_from(version).unwrap_or(0), ids: &ids })
    }
}

pub(crate) fn seal(key: &PersonKey, place: &Place<'_>, version: i32, record: &[u8]) -> Result<Vec<u8>, KeyError> {
    // Before sealing: what is sealed cannot be compressed any more.
    let compressed = zstd::bulk::compress(record, ZSTD_LEVEL).ok().map(zeroize::Zeroizing::new);
    let (encoding, body) = compressed.as_ref().map_or((ENCODING_JSON, record), |body| (ENCODING_ZSTD, body.as_slice()));
    let mut plain = zeroize::Zeroizing::new(Vec::with_capacity(body.len() + 1));
    plain.push(encoding);
    plain.extend_from_slice(body);
    Ok(place.bound(version, |binding| key.seal(binding, &plain))?)
}

fn unseal(key: &PersonKey, place: &Place<'_>, version: i32, sealed: &[u8]) -> Result<Value, RecordError> {
    let plain = place.bound(version, |binding| key.open(binding, sealed)).map_err(KeyError::from)?;
    let of_json = |json: &[u8]| serde_json::from_slice(json).map_err(|source| RecordError::Json { source });
    match plain.split_first() {
        Some((&ENCODING_JSON, json)) => of_json(json),
        Some((&ENCODING_ZSTD, body)) => {
            let json = zstd::decode_all(body).map_err(|source| RecordError::Compressed { source })?;
            of_json(&zeroize::Zeroizing::new(json))
        }
        Some((&found, _)) => Err(RecordError::Encoding { found }),
        None => Err(RecordError::Empty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyRing;

    #[test]
    fn a_record_opens_in_its_own_place_and_so_does_one_that_was_never_compressed() {
        let day = chrono::NaiveDate::from_ymd_opt(2027, 1, 15).unwrap();
        let keys = Keys::of_ring(KeyRing::parse(&KeyRing::new_line(day).unwrap()).unwrap());
        let key = keys.new_person_key("42", "7").unwrap().0;
        let place = |turn| Place { page_id: "42", psid: "7", turn_id: Uuid::from_u128(turn) };
        let record = serde_json::json!({ "turn": { "messages": vec!["Do you ship to Austria?"; 50] } });
        let json = record.to_string().into_bytes();
        let sealed = seal(&key, &place(1), 1, &json).unwrap();
        assert!(sealed.len() < json.len() / 3, "{} of {}", sealed.len(), json.len());
        assert_eq!(unseal(&key, &place(1), 1, &sealed).unwrap(), record);
        assert!(unseal(&key, &place(2), 1, &sealed).is_err(), "another turn's");

        let of_before = [&[ENCODING_JSON], json.as_slice()].concat();
        let sealed = place(1).bound(1, |binding| key.seal(binding, &of_before)).unwrap();
        assert_eq!(unseal(&key, &place(1), 1, &sealed).unwrap(), record);
        let of_later = place(1).bound(1, |binding| key.seal(binding, &[9, b'{', b'}'])).unwrap();
        assert!(matches!(unseal(&key, &place(1), 1, &of_later), Err(RecordError::Encoding { found: 9 })));
    }
}

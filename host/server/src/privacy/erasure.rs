//! Forgetting a person: queued, carried out in the background, one transaction per Page on which the person is known.
//!
//! ```text
//! request --queued--> whom? (ids_for_pages, or the PSID) --> for each person, in one transaction:
//!    conversation locked -> notice to the CRM, if it knows of tickets -> audit log: ids replaced by a keyed digest -> conversation deleted, and with it messages, decisions,
//!    records, outbox, tickets and their deliveries -> inbox emptied -> data key deleted
//! --> done: the request forgets whom it was about
//! ```
//! # What holds
//! - A crash repeats what is left: a person who is gone already costs nothing.
//! - A turn or a send that runs meanwhile finds no conversation and changes nothing. While a send or its
//!   echo is on its way the erasure waits, because the echo would bring the words back.
//! - Later messages of the same person start anew, under a new key.
//! - The data key goes with the rows: what a backup without that key holds of the person's words stays unreadable; see
//!   `ARCHITECTURE.md`.
//! - Knowledge is the Page's own and holds nothing of people; vectors of questions are not stored.

use std::sync::Arc;
use std::time::Duration;

use frontdesk_messenger::{AppId, Failure, Recipient};
use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::Sha256;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::db;
use crate::db::erasures::Taken;
use crate::keys::{Binding, KeyError, Keys, Wrapped};
use crate::queue::pause;
use crate::tickets;

const PURPOSE: &str = "erasure-subject";
const POLL: Duration = Duration::from_millis(1_000);
/// One attempt is lost after this, and another process takes the request.
const LEASE_MS: i64 = 300_000;
/// A request that failed this often is given up; with the pauses between, that is about a day.
const ATTEMPTS_MAX: i32 = 32;
const RETRY_MS: i64 = 15_000;
const RETRY_MS_MAX: i64 = 3_600_000;
const CODE_CHARACTERS: usize = 24;
/// Characters of a code; none is mistaken for another.
const ALPHABET: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";

/// Whom to forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Subject {
    /// As Meta's callback names a person: app-scoped, on all Pages.
    User { user_id: String },
    /// As this host knows a person: on one Page.
    Person { page_id: String, psid: String },
}

#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    #[error("the request's subject cannot be sealed or opened: {source}")]
    Key {
        #[from]
        source: KeyError,
    },
    #[error("the database failed: {source}")]
    Database {
        #[from]
        source: sqlx::Error,
    },
    #[error("the request's subject cannot be read")]
    Unreadable {
        #[source]
        source: serde_json::Error,
    },
    #[error("Meta did not say which people the id belongs to: {found}")]
    Graph { found: &'static str },
    #[error("a message to the person is being sent; its outcome is awaited")]
    Sending,
}

/// Whether a text has the form of a code: nothing else is looked up.
pub fn is_code(text: &str) -> bool {
    text.len() == CODE_CHARACTERS && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// Queues an erasure and returns its code.
///
/// # Errors
/// When it could not be stored.
pub async fn request(app: &App, subject: &Subject, requested_by: &str) -> Result<String, ErasureError> {
    let code = new_code();
    let json = serde_json::to_vec(subject).map_err(|source| ErasureError::Unreadable { source })?;
    let wrapped = app.keys.ring().wrap(&binding(&[&code]), &json)?;
    let source = match subject {
        Subject::User { .. } => "callback",
        Subject::Person { .. } => "operator",
    };
    let mut tx = app.pool.begin().await?;
    db::erasures::insert(&mut *tx, &code, source, &wrapped, requested_by).await?;
    db::audit::write(&mut *tx, requested_by, "person.erase", &code, json!({ "source": source })).await?;
    tx.commit().await?;
    metrics::counter!("frontdesk_erasures_total", "event" => "requested").increment(1);
    tracing::info!(code, source, "an erasure was requested");
    Ok(code)
}

fn new_code() -> String {
    let mut rng = rand::rng();
    let mut letter = || ALPHABET.get(rng.random_range(0..ALPHABET.len())).map_or('a', |byte| char::from(*byte));
    (0..CODE_CHARACTERS).map(|_| letter()).collect()
}

fn binding<'a>(ids: &'a [&'a str]) -> Binding<'a> {
    Binding { purpose: PURPOSE, version: 1, ids }
}

/// Wraps the subjects of open requests again under the current key, at most `limit`. Returns how many.
///
/// # Errors
/// See [`KeyError`].
pub async fn rewrap_subjects(keys: &Keys, pool: &PgPool, limit: i64) -> Result<u64, KeyError> {
    let mut tx = pool.begin().await?;
    let stored = db::erasures::not_under(&mut *tx, keys.ring().current(), limit).await?;
    for (code, key_id, sealed) in &stored {
        let wrapped = Wrapped { key_id: key_id.clone(), sealed: sealed.clone() };
        let again = keys.ring().rewrap(&binding(&[code]), &wrapped)?;
        db::erasures::rewrap(&mut *tx, code, &again).await?;
    }
    tx.commit().await?;
    Ok(stored.len() as u64)
}

/// Starts carrying requests out. Every worker does; a request is taken by one.
pub fn start(app: &Arc<App>, tasks: &TaskTracker, stop: &CancellationToken) {
    tasks.spawn(run(Arc::clone(app), stop.clone()));
}

async fn run(app: Arc<App>, stop: CancellationToken) {
    while pause(POLL, &stop).await {
        loop {
            match db::erasures::take(&app.pool, LEASE_MS).await {
                Ok(Some(taken)) => carry_out(&app, &taken).await,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "erasures could not be looked for");
                    break;
                }
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }
}

async fn carry_out(app: &App, taken: &Taken) {
    let code = taken.code.as_str();
    let result = erase(app, taken).await;
    let stored = match &result {
        Ok(()) => db::erasures::finish(&app.pool, code).await,
        Err(error) if taken.attempts >= ATTEMPTS_MAX => {
            tracing::error!(%error, code, "an erasure was given up; mend the cause and queue it again");
            metrics::counter!("frontdesk_erasures_total", "event" => "failed").increment(1);
            db::erasures::fail(&app.pool, code, &error.to_string()).await
        }
        Err(error) => {
            tracing::warn!(%error, code, attempt = taken.attempts, "an erasure is tried again");
            let doubled = RETRY_MS.saturating_mul(1 << u32::try_from(taken.attempts - 1).unwrap_or(0).min(16));
            // A send ends within seconds.
            let after = if matches!(error, ErasureError::Sending) { 1_000 } else { doubled.min(RETRY_MS_MAX) };
            db::erasures::postpone(&app.pool, code, after, &error.to_string()).await
        }
    };
    match (result, stored) {
        (Ok(()), Ok(())) => {
            metrics::counter!("frontdesk_erasures_total", "event" => "done").increment(1);
            tracing::info!(code, "an erasure was carried out");
        }
        (_, Err(error)) => {
            tracing::error!(%error, code, "what became of an erasure could not be stored; it is repeated")
        }
        (Err(_), Ok(())) => {}
    }
}

async fn erase(app: &App, taken: &Taken) -> Result<(), ErasureError> {
    let wrapped = Wrapped { key_id: taken.key_id.clone(), sealed: taken.subject.clone() };
    let json = app.keys.ring().unwrap(&binding(&[&taken.code]), &wrapped)?;
    let subject: Subject = serde_json::from_slice(&json).map_err(|source| ErasureError::Unreadable { source })?;
    for (page_id, psid) in people(app, subject).await? {
        erase_person(app, taken, &page_id, &psid).await?;
    }
    Ok(())
}

/// The people whom a subject means, under all keys. A PSID stands before the `user_ref`s that it was learned for: their conversations
/// hold the connection, which a repetition needs.
async fn people(app: &App, subject: Subject) -> Result<Vec<(String, String)>, ErasureError> {
    let mut people = named(app, subject).await?;
    for (page_id, key) in people.clone() {
        let others = db::conversations::other_keys(&app.pool, &page_id, &key).await?;
        people.extend(others.into_iter().map(|other| (page_id.clone(), other)));
    }
    people.sort_by_key(|(page_id, key)| (Recipient::is_user_ref(key), page_id.clone(), key.clone()));
    people.dedup();
    Ok(people)
}

async fn named(app: &App, subject: Subject) -> Result<Vec<(String, String)>, ErasureError> {
    let user_id = match subject {
        Subject::Person { page_id, psid } => return Ok(vec![(page_id, psid)]),
        Subject::User { user_id } => user_id,
    };
    // Some apps' ids are Page-scoped ones already.
    let same = db::erasures::pages_of_psid(&app.pool, &user_id).await?;
    let mut people: Vec<(String, String)> = same.into_iter().map(|page_id| (page_id, user_id.clone())).collect();
    let app_id = &app.settings.graph.app_id;
    if let Some(secret) = app.secrets.app_secrets.first().filter(|_| !app_id.is_empty()) {
        let reply = app.outbox.graph().ids_for_pages(&AppId::new(app_id.clone()), secret, &user_id).await;
        match reply.result {
            Ok(found) => people.extend(found.into_iter().map(|p| (p.page_id.into_string(), p.psid.into_string()))),
            // Meta knows no such person, or does not tell this app: then only the id itself can be looked for.
            Err(Failure::Permanent { .. } | Failure::PersonUnreachable | Failure::StopPage { .. }) => {
                tracing::info!(code = reply.trace.code, "Meta maps no Page-scoped ids to a deletion request");
            }
            Err(failure) => return Err(ErasureError::Graph { found: failure.name() }),
        }
    }
    Ok(people)
}

async fn erase_person(app: &App, taken: &Taken, page_id: &str, psid: &str) -> Result<(), ErasureError> {
    let pseudonym = pseudonym(app, page_id, psid);
    let mut tx = app.pool.begin().await?;
    let mut rows = 0;
    let conversation = db::erasures::lock_conversation(&mut *tx, page_id, psid).await?;
    if let Some(conversation) = conversation {
        if db::erasures::is_sending(&mut *tx, conversation).await? {
            return Err(ErasureError::Sending);
        }
        tickets::note_erasure(app, &mut tx, conversation, page_id, psid).await?;
        rows += db::erasures::delete_conversation(&mut tx, conversation, &pseudonym).await?;
    }
    rows += db::erasures::erase_inbox(&mut tx, page_id, psid).await?;
    rows += i64::from(db::keys::delete(&mut *tx, page_id, psid).await?);
    if rows > 0 {
        db::erasures::count(&mut *tx, &taken.code, 1, rows).await?;
        let detail = json!({ "code": taken.code, "rows": rows });
        db::audit::write(&mut *tx, &taken.requested_by, "person.erased", &pseudonym, detail).await?;
    }
    tx.commit().await?;
    if let Some(conversation) = conversation {
        app.words.forget(conversation);
    }
    Ok(())
}

/// What stands for the person in the audit log: tells two people apart, and nothing without this host's key.
fn pseudonym(app: &App, page_id: &str, psid: &str) -> String {
    let key = app.keys.ring().digest_key();
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length; the error cannot occur")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_ref()).expect("any key length");
    mac.update(page_id.as_bytes());
    mac.update(b"/");
    mac.update(psid.as_bytes());
    let digest = hex::encode(mac.finalize().into_bytes());
    format!("erased:{}", digest.get(..32).unwrap_or(&digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_plain_and_never_the_same() {
        let (one, two) = (new_code(), new_code());
        assert_ne!(one, two);
        assert!(is_code(&one) && is_code(&two));
        for other in ["", "abc", "ABCDEFGHJKMNPQRSTUVWXYZ2", &format!("{one}a"), "../../../../etc/passwd.x"] {
            assert!(!is_code(other), "{other}");
        }
    }

    #[test]
    fn a_subject_is_read_back() {
        for subject in
            [Subject::User { user_id: "7".into() }, Subject::Person { page_id: "42".into(), psid: "7".into() }]
        {
            let json = serde_json::to_vec(&subject).unwrap();
            assert_eq!(serde_json::from_slice::<Subject>(&json).unwrap(), subject);
        }
    }
}

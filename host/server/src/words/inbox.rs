//! What Meta delivered, from the key of the acknowledgement's path to the key of its person.
//!
//! `inbox.sealed` begins with sixteen bytes: the id of the inbox key that sealed it, or zeros once it is sealed under the person's
//! key (events of no person: under the Page's own, which no erasure deletes).

use serde_json::Value;
use sqlx::PgConnection;

use super::{Sealer, column_error};
use crate::app::App;
use crate::db;
use crate::db::inbox::{Kept, StoredEvent};
use crate::keys::{Binding, PersonKey};

const PURPOSE: &str = "inbox-event";
/// Stands for the person's key where an inbox key's id stands otherwise.
const PERSONS: [u8; 16] = [0; 16];

/// Opens a conversation's events. The transaction holds the conversation's lock. An event that does not open is marked so, and not
/// taken for an empty one. Returns what is sealed anew, of those that were not under the person's key: the caller stores it.
pub async fn open_events(
    app: &App,
    tx: &mut PgConnection,
    sealer: &Sealer,
    events: &mut [StoredEvent],
) -> sqlx::Result<Vec<Kept>> {
    open(app, tx, &sealer.key, events).await
}

/// As [`open_events`], for events of a Page's own; what is sealed anew is stored.
pub async fn open_page_events(
    app: &App,
    tx: &mut PgConnection,
    page_id: &str,
    events: &mut [StoredEvent],
) -> sqlx::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let lane = (page_id.to_owned(), String::new());
    let mut keys = app.keys.person_keys(tx, std::slice::from_ref(&lane)).await.map_err(column_error)?;
    let key = keys.remove(&lane).ok_or(sqlx::Error::RowNotFound)?;
    let sealed_anew = open(app, tx, &key, events).await?;
    db::inbox::keep(tx, &sealed_anew).await
}

async fn open(
    app: &App,
    tx: &mut PgConnection,
    key: &PersonKey,
    events: &mut [StoredEvent],
) -> sqlx::Result<Vec<Kept>> {
    let mut sealed_anew = Vec::new();
    let anew = |id: i64, plain: &[u8]| -> sqlx::Result<Kept> {
        Ok(Kept { id, sealed: Some(seal(key, id, plain)?), counts: false })
    };
    for event in events {
        let plain = match event.sealed.take() {
            Some(sealed) => match sealed.split_at_checked(PERSONS.len()) {
                Some((PERSONS_SLICE, body)) => opened(key.open(&binding(&[&event.id.to_string()]), body)),
                Some((id, body)) => {
                    let plain = app.inbox.keys().open(tx, id, &event.page_id, event.psid.as_deref(), body).await?;
                    if let Some(plain) = &plain {
                        sealed_anew.push(anew(event.id, plain)?);
                    }
                    plain
                }
                None => None,
            },
            None if is_empty(&event.payload) => continue,
            // Stored by an earlier version.
            None => {
                sealed_anew.push(anew(event.id, event.payload.to_string().as_bytes())?);
                continue;
            }
        };
        match plain.and_then(|plain| serde_json::from_slice(&plain).ok()) {
            Some(payload) => event.payload = payload,
            None => event.is_unreadable = true,
        }
    }
    Ok(sealed_anew)
}

const PERSONS_SLICE: &[u8] = &PERSONS;

fn opened(result: Result<zeroize::Zeroizing<Vec<u8>>, crate::keys::OpenError>) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    result.inspect_err(|error| tracing::error!(%error, "a stored event does not open")).ok()
}

fn is_empty(payload: &Value) -> bool {
    payload.as_object().is_some_and(serde_json::Map::is_empty)
}

/// A payload as `inbox.sealed` holds it under a person's key.
pub(super) fn seal(key: &PersonKey, id: i64, plain: &[u8]) -> sqlx::Result<Vec<u8>> {
    let sealed = key.seal(&binding(&[&id.to_string()]), plain).map_err(column_error)?;
    Ok([PERSONS_SLICE, &sealed].concat())
}

fn binding<'a>(ids: &'a [&'a str]) -> Binding<'a> {
    Binding { purpose: PURPOSE, version: 1, ids }
}

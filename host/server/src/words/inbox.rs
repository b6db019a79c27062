//! What Meta delivered, from the key of the acknowledgement's path to the key of its person.
//!
//! `inbox.sealed` begins with sixteen bytes: the id of the inbox key that sealed it, or zeros once it is sealed under the person's
//! key (events of no person: under the Page's own, which no erasure deletes).

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::column_error;
use crate::app::App;
use crate::db;
use crate::db::inbox::StoredEvent;
use crate::keys::{Binding, PersonKey};

const PURPOSE: &str = "inbox-event";
/// Stands for the person's key where an inbox key's id stands otherwise.
const PERSONS: [u8; 16] = [0; 16];

/// Opens a conversation's events, and seals those anew that are not under the person's key yet. The transaction holds the
/// conversation's lock. An event that does not open is marked so, and not taken for an empty one.
pub async fn open_events(
    app: &App,
    tx: &mut PgConnection,
    conversation_id: Uuid,
    events: &mut [StoredEvent],
) -> sqlx::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let key = app.words.of(tx, conversation_id).await?.key;
    open(app, tx, &key, events).await
}

/// As [`open_events`], for events of a Page's own.
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
    open(app, tx, &key, events).await
}

async fn open(app: &App, tx: &mut PgConnection, key: &PersonKey, events: &mut [StoredEvent]) -> sqlx::Result<()> {
    let mut ids = Vec::new();
    let mut sealed_anew = Vec::new();
    for event in events {
        let plain = match event.sealed.take() {
            Some(sealed) => match sealed.split_at_checked(PERSONS.len()) {
                Some((PERSONS_SLICE, body)) => opened(key.open(&binding(&[&event.id.to_string()]), body)),
                Some((id, body)) => {
                    let plain = app.inbox.keys().open(tx, id, &event.page_id, event.psid.as_deref(), body).await?;
                    if let Some(plain) = &plain {
                        ids.push(event.id);
                        sealed_anew.push(seal(key, event.id, plain)?);
                    }
                    plain
                }
                None => None,
            },
            None if is_empty(&event.payload) => continue,
            // Stored by an earlier version.
            None => {
                ids.push(event.id);
                sealed_anew.push(seal(key, event.id, event.payload.to_string().as_bytes())?);
                continue;
            }
        };
        match plain.and_then(|plain| serde_json::from_slice(&plain).ok()) {
            Some(payload) => event.payload = payload,
            None => event.is_unreadable = true,
        }
    }
    if !ids.is_empty() {
        db::inbox::reseal(&mut *tx, &ids, &sealed_anew).await?;
    }
    Ok(())
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

//! Sealing what earlier versions stored as it was, and deleting inbox keys that nobody needs.
//!
//! One process at a time does it (a lease), in small transactions that lock their rows and pass over those that others hold. While a
//! row is locked, its conversation cannot be deleted, so its person's key is used only while it may be.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{MESSAGE_PAYLOAD, MESSAGE_TEXT, OUTBOX_TEXT, Sealer, TICKET_SUMMARY, column_error, inbox};
use crate::app::App;
use crate::db;
use crate::db::inbox::Kept;
use crate::db::words::{PlainEvent, PlainText, PlainTicket};
use crate::keys::{Keys, PersonKey};
use crate::queue::pause;

/// Rows sealed in one transaction.
const BATCH: i64 = 200;
const BETWEEN: Duration = Duration::from_millis(100);
/// How often dead keys, and rows that a replica of an earlier version stored meanwhile, are looked for.
const EVERY: Duration = Duration::from_secs(60);
const LEASE: &str = "words-upkeep";
const LEASE_MS: i64 = 180_000;

/// Starts the upkeep; it runs as long as the process.
pub fn start_upkeep(app: &Arc<App>, tasks: &TaskTracker, stop: &CancellationToken) {
    tasks.spawn(run(Arc::clone(app), stop.clone()));
}

async fn run(app: Arc<App>, stop: CancellationToken) {
    let mut wait = Duration::from_millis(rand::rng().random_range(100..=2_000));
    while pause(wait, &stop).await {
        wait = match db::leases::take(&app.pool, LEASE, &app.replica, LEASE_MS).await {
            Ok(true) => match step(&app).await {
                Ok(0) => EVERY,
                Ok(rows) => {
                    tracing::info!(rows, "texts of an earlier version were encrypted");
                    BETWEEN
                }
                Err(error) => {
                    tracing::error!(%error, "texts of an earlier version could not be encrypted; it is tried again");
                    EVERY
                }
            },
            Ok(false) => EVERY,
            Err(error) => {
                tracing::debug!(%error, "the lease for the texts' upkeep could not be asked for");
                EVERY
            }
        };
    }
    // A successor need not wait for the lease to run out.
    let _ = db::leases::release(&app.pool, LEASE, &app.replica).await;
}

/// One batch of each table. Returns how many rows were sealed.
async fn step(app: &App) -> sqlx::Result<usize> {
    let dead = db::keys::delete_dead_inbox_keys(&app.pool).await?;
    if dead > 0 {
        tracing::debug!(keys = dead, "inbox keys that nothing needs any more were deleted");
    }
    let mut tx = app.pool.begin().await?;
    let messages = db::words::plain_messages(&mut *tx, BATCH).await?;
    let rows = db::words::plain_outbox(&mut *tx, BATCH).await?;
    let tickets = db::words::plain_tickets(&mut *tx, BATCH).await?;
    let events = db::words::plain_events(&mut *tx, BATCH).await?;
    let keys = keys_of(&app.keys, &mut tx, &messages, &rows, &tickets, &events).await?;
    let key =
        |page_id: &str, psid: &str| keys.get(&(page_id.to_owned(), psid.to_owned())).ok_or(sqlx::Error::RowNotFound);
    for row in &messages {
        let sealer = Sealer::new(key(&row.page_id, &row.psid)?.clone(), row.conversation_id);
        let text = sealed(&sealer, MESSAGE_TEXT, &row.text)?;
        let payload = row.payload.as_deref().map(|payload| sealed(&sealer, MESSAGE_PAYLOAD, payload)).transpose()?;
        db::words::seal_message(&mut *tx, row.id, &text, payload.as_deref()).await?;
    }
    for row in &rows {
        let sealer = Sealer::new(key(&row.page_id, &row.psid)?.clone(), row.conversation_id);
        db::words::seal_outbox(&mut *tx, row.id, &sealed(&sealer, OUTBOX_TEXT, &row.text)?).await?;
    }
    for row in &tickets {
        let sealer = Sealer::new(key(&row.page_id, &row.psid)?.clone(), row.conversation_id);
        let mut matters = row.matters.clone();
        for matter in matters.as_array_mut().map(Vec::as_mut_slice).unwrap_or_default() {
            if let Some(serde_json::Value::String(summary)) = matter.get_mut("summary") {
                *summary = sealed(&sealer, TICKET_SUMMARY, summary)?;
            }
        }
        let summary = sealed(&sealer, TICKET_SUMMARY, &row.summary)?;
        db::words::seal_ticket(&mut *tx, row.id, &summary, &matters).await?;
    }
    let mut sealed_events = Vec::with_capacity(events.len());
    for row in &events {
        let key = key(&row.page_id, row.psid.as_deref().unwrap_or_default())?;
        let sealed = Some(inbox::seal(key, row.id, row.payload.to_string().as_bytes())?);
        sealed_events.push(Kept { id: row.id, sealed, counts: false });
    }
    db::inbox::keep(&mut *tx, &sealed_events).await?;
    tx.commit().await?;
    Ok(messages.len() + rows.len() + tickets.len() + events.len())
}

/// A text in its stored form, unless it has that already.
fn sealed(sealer: &Sealer, column: &'static str, text: &str) -> sqlx::Result<String> {
    if super::is_sealed(text) { Ok(text.to_owned()) } else { sealer.seal(column, text) }
}

async fn keys_of(
    keys: &Keys,
    tx: &mut PgConnection,
    messages: &[PlainText<i64>],
    rows: &[PlainText<uuid::Uuid>],
    tickets: &[PlainTicket],
    events: &[PlainEvent],
) -> sqlx::Result<std::collections::HashMap<(String, String), PersonKey>> {
    let mut people: Vec<(String, String)> = Vec::new();
    people.extend(messages.iter().map(|row| (row.page_id.clone(), row.psid.clone())));
    people.extend(rows.iter().map(|row| (row.page_id.clone(), row.psid.clone())));
    people.extend(tickets.iter().map(|row| (row.page_id.clone(), row.psid.clone())));
    people.extend(events.iter().map(|row| (row.page_id.clone(), row.psid.clone().unwrap_or_default())));
    people.sort();
    people.dedup();
    keys.person_keys(tx, &people).await.map_err(column_error)
}

//! Events of a Page's own, which belong to no conversation.

use frontdesk_messenger::Channel;
use frontdesk_messenger::event::{Event, EventKind, PolicyAction};
use frontdesk_messenger::ids::PageId;
use sqlx::PgConnection;

use crate::app::App;
use crate::db;
use crate::db::inbox::StoredEvent;

/// Applies what Meta's policy enforcement did to the Page.
pub(super) async fn enforce(
    app: &App,
    tx: &mut PgConnection,
    page_id: &str,
    action: &PolicyAction,
    reason: Option<&str>,
) -> sqlx::Result<()> {
    let reason = reason.unwrap_or("no reason given");
    match action {
        PolicyAction::Block => {
            let text = format!("{} blocked the Page: {reason}", db::pages::ENFORCEMENT);
            db::pages::set_state(&mut *tx, page_id, "stopped", &text).await?;
            tracing::error!(page = page_id, reason, "Meta blocked the Page; nothing more is sent");
        }
        PolicyAction::Unblock => {
            if db::pages::lift_enforcement(&mut *tx, page_id, "Meta unblocked the Page").await? {
                tracing::warn!(page = page_id, "Meta unblocked the Page; sending goes on");
            }
        }
        PolicyAction::Warning | PolicyAction::Other(_) => {
            tracing::error!(page = page_id, reason, "Meta warned the Page about its messages");
        }
    }
    metrics::counter!("frontdesk_policy_enforcement_total", "page" => page_id.to_owned()).increment(1);
    app.outbox.wake();
    Ok(())
}

/// Applies an event of a Page's own: enforcement of Meta's policies, roles, posts.
pub async fn apply_page_event(app: &App, tx: &mut PgConnection, stored: &StoredEvent) -> sqlx::Result<()> {
    let event = Event::from_stored(
        Some(PageId::new(stored.page_id.clone())),
        Channel::from_name(&stored.channel).unwrap_or(Channel::Envelope),
        stored.event_at.map(|at| at.timestamp_millis()),
        stored.payload.clone(),
    );
    let note = match &event.kind {
        _ if stored.is_unreadable => "does not open",
        EventKind::PolicyEnforcement { action, reason } => {
            enforce(app, tx, &stored.page_id, action, reason.as_deref()).await?;
            "enforcement noted"
        }
        EventKind::Malformed { .. } => "malformed",
        EventKind::Unknown { .. } => "unknown kind",
        _ => "belongs to no conversation",
    };
    db::inbox::mark_done(&mut *tx, &[stored.id], None, Some(note)).await
}

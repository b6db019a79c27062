//! The numbers that the status page and the gauges share.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::app::App;
use crate::db;
use crate::db::page_health::PageHealth;
use crate::db::pages::Page;

/// What the database says about the work, at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    pub inbox_pending: i64,
    /// Age of the oldest unread event, in seconds.
    pub inbox_oldest_s: f64,
    /// Unsettled rows by state: `queued`, `sending` and `unknown` are always there.
    pub outbox: BTreeMap<String, i64>,
    pub tickets_open: i64,
    pub ticket_deliveries_queued: i64,
    pub ticket_deliveries_failed: i64,
    pub pages: Vec<Page>,
    /// What Meta said of each Page when it was last asked.
    pub page_health: Vec<PageHealth>,
}

impl Facts {
    pub async fn gather(app: &App) -> sqlx::Result<Self> {
        let (inbox_pending, inbox_oldest_s) = db::inbox::backlog(&app.pool).await?;
        let mut outbox: BTreeMap<String, i64> =
            ["queued", "sending", "unknown"].into_iter().map(|state| (state.to_owned(), 0)).collect();
        outbox.extend(db::outbox::counts(&app.pool).await?);
        let (tickets_open, ticket_deliveries_queued, ticket_deliveries_failed) = db::tickets::counts(&app.pool).await?;
        Ok(Self {
            inbox_pending,
            inbox_oldest_s,
            outbox,
            tickets_open,
            ticket_deliveries_queued,
            ticket_deliveries_failed,
            pages: db::pages::list(&app.pool).await?,
            page_health: db::page_health::list(&app.pool).await?,
        })
    }
}

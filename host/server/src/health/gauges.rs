//! Numbers that must be asked for, set every ten seconds; and the pruning of what is handled.
//!
//! Every replica does both: the gauges describe the shared database, so a scrape of any replica sees them, and two
//! prunings at once only delete the same rows.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Unit, describe_gauge, gauge};
use rand::Rng;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Facts;
use crate::app::App;
use crate::db;
use crate::embedded::EngineStatus;
use crate::pages;
use crate::policies::Policies;
use crate::queue::pause;
use crate::records;

const GAUGES_EVERY: Duration = Duration::from_secs(10);
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
/// One pruning deletes at most this many times what `db::inbox::prune` deletes in a statement; the next goes on.
const PRUNE_STEPS_MAX: u32 = 200;
/// Pause between two steps, so that the database's other users get their turn.
const PRUNE_PAUSE: Duration = Duration::from_millis(50);

/// Starts both. They end when `stop` is cancelled.
pub fn start(app: &Arc<App>, tasks: &TaskTracker, stop: &CancellationToken) {
    describe();
    tasks.spawn(gauge_loop(Arc::clone(app), stop.clone()));
    tasks.spawn(prune_loop(Arc::clone(app), stop.clone()));
}

fn describe() {
    describe_gauge!("frontdesk_build_info", "1, labelled with the version");
    describe_gauge!("frontdesk_uptime_seconds", Unit::Seconds, "Since this process started");
    describe_gauge!("frontdesk_database_up", "1 when the last look at the database went well");
    describe_gauge!("frontdesk_redis_up", "1 when the last contact with Redis went well");
    describe_gauge!("frontdesk_inbox_pending", "Events that no turn has read yet");
    describe_gauge!("frontdesk_inbox_oldest_seconds", Unit::Seconds, "Age of the oldest unread event");
    describe_gauge!("frontdesk_inbox_deliveries_waiting", "Webhook deliveries that wait for the database");
    describe_gauge!("frontdesk_outbox_rows", "Unsettled messages by state");
    describe_gauge!("frontdesk_tickets_open", "Matters that wait for a person");
    describe_gauge!("frontdesk_ticket_deliveries", "Ticket webhooks that wait, or failed for good");
    describe_gauge!("frontdesk_page_state", "1 for the state that a Page is in");
    describe_gauge!("frontdesk_page_token_valid", "1 when Meta last called the Page's token valid");
    describe_gauge!("frontdesk_page_token_expires_in_seconds", Unit::Seconds, "Infinite when it does not expire");
    describe_gauge!("frontdesk_page_data_access_expires_in_seconds", Unit::Seconds, "Infinite when it does not expire");
    describe_gauge!("frontdesk_page_fields_missing", "Events of the Page that Meta does not send");
    describe_gauge!("frontdesk_page_scopes_missing", "Permissions that the Page's token lacks");
    describe_gauge!("frontdesk_page_health_age_seconds", Unit::Seconds, "Since Meta was last asked about the Page");
    describe_gauge!("frontdesk_shadow_waiting", "Committed turns that wait for a shadow");
    describe_gauge!("frontdesk_engine_up", "1 when the embedded engine answers");
    describe_gauge!("frontdesk_engine_restarts", "How often the embedded engine was started again");
}

async fn gauge_loop(app: Arc<App>, stop: CancellationToken) {
    gauge!("frontdesk_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    loop {
        set_gauges(&app).await;
        // Without upkeep, histograms that nobody scrapes grow without bound.
        app.metrics.run_upkeep();
        if !pause(GAUGES_EVERY, &stop).await {
            return;
        }
    }
}

async fn set_gauges(app: &App) {
    gauge!("frontdesk_uptime_seconds").set(app.started.elapsed().as_secs_f64());
    gauge!("frontdesk_redis_up").set(flag(app.queue.is_healthy()));
    gauge!("frontdesk_inbox_deliveries_waiting").set(app.inbox.waiting() as f64);
    gauge!("frontdesk_shadow_waiting").set(app.observer.shadow_waiting() as f64);
    if let Some(engines) = &app.engines {
        let status = engines.status();
        set_engine_gauges("postgres", status.postgres.as_ref());
        set_engine_gauges("valkey", status.valkey.as_ref());
    }
    if let Err(error) = pages::health::set_gauges(app).await {
        tracing::debug!(%error, "the Pages' gauges could not be read from the database");
    }
    match Facts::gather(app).await {
        Ok(facts) => {
            gauge!("frontdesk_database_up").set(1.0);
            set_fact_gauges(&facts);
        }
        Err(error) => {
            gauge!("frontdesk_database_up").set(0.0);
            tracing::debug!(%error, "the gauges could not be read from the database");
        }
    }
}

fn set_fact_gauges(facts: &Facts) {
    gauge!("frontdesk_inbox_pending").set(facts.inbox_pending as f64);
    gauge!("frontdesk_inbox_oldest_seconds").set(facts.inbox_oldest_s);
    for (state, rows) in &facts.outbox {
        gauge!("frontdesk_outbox_rows", "state" => state.clone()).set(*rows as f64);
    }
    gauge!("frontdesk_tickets_open").set(facts.tickets_open as f64);
    gauge!("frontdesk_ticket_deliveries", "state" => "queued").set(facts.ticket_deliveries_queued as f64);
    gauge!("frontdesk_ticket_deliveries", "state" => "failed").set(facts.ticket_deliveries_failed as f64);
    for page in &facts.pages {
        for state in ["active", "parked", "stopped"] {
            gauge!("frontdesk_page_state", "page" => page.page_id.clone(), "state" => state)
                .set(flag(page.state == state));
        }
    }
}

/// Which revision is in each place of each chain, as Prometheus text of the moment. Not a gauge of the recorder's, which
/// keeps a series for every revision that ever served: on a host whose policies change often they would grow for ever.
pub fn policy_info(policies: &Policies) -> String {
    let mut text = String::from(
        "# HELP frontdesk_policy_info 1 for the revision in each place of a chain\n# TYPE frontdesk_policy_info gauge\n",
    );
    for chain in policies.chains() {
        let slots = policies.slots(chain);
        let canary = slots.canary.as_ref().map(|canary| &canary.serving);
        for (slot, held) in [("active", slots.active.as_ref()), ("canary", canary), ("shadow", slots.shadow.as_ref())] {
            if let Some(held) = held {
                // Neither needs an escape: a chain's name is a plain one (`settings::is_plain_name`), a revision hex digits.
                text.push_str(&format!(
                    "frontdesk_policy_info{{chain=\"{chain}\",slot=\"{slot}\",revision=\"{}\"}} 1\n",
                    held.id()
                ));
            }
        }
    }
    text
}

fn set_engine_gauges(engine: &'static str, status: Option<&EngineStatus>) {
    let Some(status) = status else { return };
    gauge!("frontdesk_engine_up", "engine" => engine).set(flag(status.up_since.is_some()));
    gauge!("frontdesk_engine_restarts", "engine" => engine).set(status.restarts as f64);
}

/// What was learned from turns, and is old.
async fn prune_rollouts(app: &App, stop: &CancellationToken) {
    let keep_days = i32::try_from(app.settings.policies.shadow.keep_days).unwrap_or(i32::MAX);
    for _ in 0..PRUNE_STEPS_MAX {
        match db::shadow::prune(&app.pool, keep_days).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "old results of shadows could not be pruned; the next hour tries again");
                return;
            }
        }
        if !pause(PRUNE_PAUSE, stop).await {
            return;
        }
    }
    if let Err(error) = db::turn_windows::prune(&app.pool).await {
        tracing::error!(%error, "old windows of turns could not be pruned; the next hour tries again");
    }
}

fn flag(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}

async fn prune_loop(app: Arc<App>, stop: CancellationToken) {
    // Replicas that start together do not prune together.
    let mut wait = Duration::from_millis(rand::rng().random_range(30_000..=300_000));
    while pause(wait, &stop).await {
        prune(&app, &stop).await;
        wait = PRUNE_EVERY;
    }
}

async fn prune(app: &App, stop: &CancellationToken) {
    prune_rollouts(app, stop).await;
    let keep_days = i32::try_from(app.settings.inbox.keep_days).unwrap_or(i32::MAX);
    let mut deleted = 0;
    prune_records(app, stop).await;
    for _ in 0..PRUNE_STEPS_MAX {
        match db::inbox::prune(&app.pool, keep_days).await {
            Ok(0) => break,
            Ok(rows) => deleted += rows,
            Err(error) => {
                tracing::error!(%error, "handled events could not be pruned; the next hour tries again");
                return;
            }
        }
        if !pause(PRUNE_PAUSE, stop).await {
            return;
        }
    }
    if deleted > 0 {
        tracing::info!(deleted, keep_days, "handled events were pruned from the inbox");
    }
}

async fn prune_records(app: &App, stop: &CancellationToken) {
    let keep_days = i32::try_from(app.settings.records.keep_days).unwrap_or(i32::MAX);
    let mut touched = 0;
    for _ in 0..PRUNE_STEPS_MAX {
        match records::prune(&app.pool, keep_days).await {
            Ok(0) => break,
            Ok(rows) => touched += rows,
            Err(error) => {
                tracing::error!(%error, "old decision records could not be pruned; the next hour tries again");
                return;
            }
        }
        if !pause(PRUNE_PAUSE, stop).await {
            return;
        }
    }
    if touched > 0 {
        tracing::info!(touched, keep_days, "old decision records were pruned");
    }
}

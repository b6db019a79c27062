//! Asks Meta, on a schedule, whether each Page's token is good and whether the app still gets its events.
//!
//! Two things fail silently: a token dies with a password or a role, and Meta unsubscribes an app whose webhook failed for an
//! hour. `debug_token` and `subscribed_apps` tell of both before a customer does.
//!
//! - One replica asks at a time (a lease); what it learns stands in `page_health` for all, and in the gauges of each.
//! - A call that fails says nothing about the token: the verdict of before stays, and the failure is the problem.
//! - A token that Meta calls invalid parks its Page. Missing fields are an alert, and with `page_health.resubscribe` they are
//!   subscribed to again.
//! - An alert is logged when the problem changes, not at every look.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use frontdesk_messenger::graph::{ConnectedApp, DebugToken};
use frontdesk_messenger::{AppId, PageCredentials};
use metrics::gauge;
use rand::Rng;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connect::described;
use super::{FIELDS, SCOPES_NEEDED, SCOPES_WANTED, TOKEN_DEAD};
use crate::app::App;
use crate::db;
use crate::db::page_health::PageHealth;
use crate::queue::pause;

const LEASE: &str = "page-health";
/// Between two Pages, so that many Pages are not asked about in one breath.
const BETWEEN: Duration = Duration::from_millis(250);
/// So long before a date the operator is told.
const WARN_BEFORE_DAYS: i64 = 7;

/// Starts the schedule. Ends when `stop` is cancelled.
pub fn start(app: &Arc<App>, tasks: &TaskTracker, stop: &CancellationToken) {
    tasks.spawn(run(Arc::clone(app), stop.clone()));
}

async fn run(app: Arc<App>, stop: CancellationToken) {
    let every = Duration::from_secs(app.settings.page_health.every_s);
    // Replicas that start together do not ask together, and a host that restarts in a loop does not ask at each start.
    let mut wait = every.min(Duration::from_secs(60)).mul_f64(rand::rng().random_range(0.5..1.0));
    while pause(wait, &stop).await {
        wait = every;
        let lease_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).saturating_mul(2);
        match db::leases::take(&app.pool, LEASE, &app.replica, lease_ms).await {
            Ok(true) => check_all(&app, &stop).await,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the lease for asking about the Pages could not be taken"),
        }
    }
    let _ = db::leases::release(&app.pool, LEASE, &app.replica).await;
}

async fn check_all(app: &App, stop: &CancellationToken) {
    let pages = match db::pages::list(&app.pool).await {
        Ok(pages) => pages,
        Err(error) => {
            tracing::error!(%error, "the Pages to ask about could not be read");
            return;
        }
    };
    for page in pages {
        if let Err(error) = check_page(app, &page.page_id).await {
            tracing::error!(%error, page = page.page_id, "what Meta says of the Page could not be stored");
        }
        if !pause(BETWEEN, stop).await {
            return;
        }
    }
}

/// Asks about one Page now, stores the answer, and does what follows from it. `None`: there is no token to ask with.
///
/// # Errors
/// When the database fails.
pub async fn check_page(app: &App, page_id: &str) -> sqlx::Result<Option<PageHealth>> {
    let Some(page) = app.tokens.find(page_id).await else { return Ok(None) };
    let before = db::page_health::get(&app.pool, page_id).await?.unwrap_or_default();
    let mut health = look(app, &page, &before).await;
    if health.token_valid == Some(false) && !app.tokens.is_current(&page).await {
        // It was connected again while Meta was asked.
        return Ok(Some(before));
    }
    if health.token_valid == Some(false) {
        let reason = dead_reason(&health);
        if db::pages::set_state(&app.pool, page_id, "parked", &reason).await? {
            tracing::error!(page = page_id, reason, "the Page is parked");
        }
    } else if !health.fields_missing.is_empty() && app.settings.page_health.resubscribe {
        resubscribe(app, &page, &mut health).await;
    }
    alert(&before, &health);
    db::page_health::put(&app.pool, &health).await?;
    Ok(Some(health))
}

fn dead_reason(health: &PageHealth) -> String {
    match health.token_error_subcode {
        Some(subcode) => format!("{TOKEN_DEAD}: Meta says 190, subcode {subcode}"),
        None => format!("{TOKEN_DEAD}: Meta calls it invalid"),
    }
}

/// What Meta says, with what it said before where it says nothing now.
async fn look(app: &App, page: &PageCredentials, before: &PageHealth) -> PageHealth {
    let mut health = PageHealth {
        page_id: page.page_id.as_str().to_owned(),
        checked_at: Utc::now(),
        problem: None,
        ..before.clone()
    };
    let mut problems = Vec::new();
    let graph = app.outbox.graph();
    let app_id = AppId::new(app.settings.graph.app_id.clone());
    let secret = app.secrets.app_secrets.first().filter(|_| !app.settings.graph.app_id.is_empty());
    match secret {
        None => problems.push("graph.app_id is not set, so Meta cannot be asked about the token".to_owned()),
        Some(secret) => {
            let reply = graph.debug_token(&app_id, secret, &page.token).await;
            match &reply.result {
                Ok(token) => read_token(token, &app_id, &mut health, &mut problems),
                Err(failure) => {
                    problems.push(format!("Meta did not explain the token: {}", described(failure, &reply.trace)));
                }
            }
        }
    }
    // A dead token would only make the second call fail as well.
    if health.token_valid != Some(false) && secret.is_some() {
        let reply = graph.subscribed_apps(page).await;
        match &reply.result {
            Ok(apps) => {
                health.fields = fields_of(apps, &app_id);
                health.fields_missing = missing(&FIELDS, &health.fields);
            }
            Err(failure) => {
                problems.push(format!("Meta did not list the subscriptions: {}", described(failure, &reply.trace)));
            }
        }
        if !health.fields_missing.is_empty() {
            problems.push(format!("the app is not subscribed to {}", health.fields_missing.join(", ")));
        }
    }
    health.problem = (!problems.is_empty()).then(|| problems.join("; "));
    health
}

fn read_token(token: &DebugToken, app_id: &AppId, health: &mut PageHealth, problems: &mut Vec<String>) {
    let time = |seconds: Option<i64>| seconds.filter(|s| *s > 0).and_then(|s| DateTime::<Utc>::from_timestamp(s, 0));
    health.token_valid = Some(token.is_valid);
    health.token_user.clone_from(&token.user_id);
    health.token_error_subcode = token.error_subcode;
    health.expires_at = time(token.expires_at_s);
    health.data_access_expires_at = time(token.data_access_expires_at_s);
    if !token.is_valid {
        problems.push(dead_reason(health));
        return;
    }
    health.scopes.clone_from(&token.scopes);
    health.scopes_missing = missing(&SCOPES_NEEDED, &token.scopes);
    health.scopes_missing.extend(missing(&SCOPES_WANTED, &token.scopes));
    if token.app_id.as_ref().is_some_and(|found| found != app_id) {
        problems.push("the token belongs to another app than graph.app_id".to_owned());
    }
    if !health.scopes_missing.is_empty() {
        problems.push(format!("the token lacks {}", health.scopes_missing.join(", ")));
    }
    for (what, at) in [("the token", health.expires_at), ("the access to data", health.data_access_expires_at)] {
        if let Some(at) = at.filter(|at| *at - health.checked_at < chrono::Duration::days(WARN_BEFORE_DAYS)) {
            problems.push(format!("{what} expires at {}; connect the Page again before", at.to_rfc3339()));
        }
    }
}

async fn resubscribe(app: &App, page: &PageCredentials, health: &mut PageHealth) {
    let mut wanted = health.fields.clone();
    wanted.extend(health.fields_missing.iter().cloned());
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let reply = app.outbox.graph().subscribe(page, &wanted).await;
    let result = if reply.result.is_ok() { "subscribed" } else { "failed" };
    metrics::counter!("frontdesk_page_resubscriptions_total", "page" => health.page_id.clone(), "result" => result)
        .increment(1);
    match &reply.result {
        Ok(()) => {
            tracing::warn!(
                page = health.page_id,
                fields = health.fields_missing.join(","),
                "the app was subscribed again"
            );
            let app_id = AppId::new(app.settings.graph.app_id.clone());
            if let Ok(apps) = app.outbox.graph().subscribed_apps(page).await.result {
                health.fields = fields_of(&apps, &app_id);
                health.fields_missing = missing(&FIELDS, &health.fields);
                if health.fields_missing.is_empty() {
                    health.problem = None;
                }
            }
        }
        Err(failure) => {
            tracing::error!(
                page = health.page_id,
                failure = described(failure, &reply.trace),
                "the app could not be subscribed again"
            );
        }
    }
}

/// The fields that this app is subscribed to.
pub(super) fn fields_of(apps: &[ConnectedApp], app_id: &AppId) -> Vec<String> {
    let mut fields: Vec<String> =
        apps.iter().filter(|app| app.app_id == *app_id).flat_map(|app| app.subscribed_fields.clone()).collect();
    fields.sort();
    fields.dedup();
    fields
}

fn missing(wanted: &[&str], held: &[String]) -> Vec<String> {
    wanted.iter().filter(|wanted| !held.iter().any(|held| held == *wanted)).map(|field| (*field).to_owned()).collect()
}

fn alert(before: &PageHealth, now: &PageHealth) {
    if before.problem == now.problem {
        return;
    }
    match &now.problem {
        Some(problem) => tracing::error!(page = now.page_id, problem, "a Page needs attention"),
        None => tracing::info!(page = now.page_id, "the Page is healthy again"),
    }
}

/// Sets the gauges of all Pages from what was stored last.
///
/// # Errors
/// When the database fails.
pub async fn set_gauges(app: &App) -> sqlx::Result<()> {
    let now = Utc::now();
    for health in db::page_health::list(&app.pool).await? {
        let page = || health.page_id.clone();
        let seconds = |at: DateTime<Utc>| (at - now).as_seconds_f64();
        gauge!("frontdesk_page_health_age_seconds", "page" => page()).set(-seconds(health.checked_at));
        gauge!("frontdesk_page_fields_missing", "page" => page()).set(health.fields_missing.len() as f64);
        gauge!("frontdesk_page_scopes_missing", "page" => page()).set(health.scopes_missing.len() as f64);
        if let Some(is_valid) = health.token_valid {
            gauge!("frontdesk_page_token_valid", "page" => page()).set(if is_valid { 1.0 } else { 0.0 });
        }
        let never = f64::INFINITY;
        gauge!("frontdesk_page_token_expires_in_seconds", "page" => page())
            .set(health.expires_at.map_or(never, seconds));
        gauge!("frontdesk_page_data_access_expires_in_seconds", "page" => page())
            .set(health.data_access_expires_at.map_or(never, seconds));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_token_lacks_is_a_problem_and_an_invalid_one_is_dead() {
        let now = Utc::now();
        let scopes: Vec<String> = SCOPES_NEEDED.iter().chain(&SCOPES_WANTED).map(|scope| (*scope).to_owned()).collect();
        let good = DebugToken {
            is_valid: true,
            app_id: Some("7".into()),
            expires_at_s: Some(0),
            data_access_expires_at_s: Some((now + chrono::Duration::days(60)).timestamp()),
            scopes,
            ..DebugToken::default()
        };
        let cases: [(&str, DebugToken); 6] = [
            ("", good.clone()),
            ("belongs to another app", DebugToken { app_id: Some("8".into()), ..good.clone() }),
            (
                "lacks pages_manage_metadata",
                DebugToken { scopes: vec!["pages_messaging".into(), "pages_read_engagement".into()], ..good.clone() },
            ),
            ("the token expires at", DebugToken { expires_at_s: Some(now.timestamp() + 86_400), ..good.clone() }),
            (
                "the access to data expires at",
                DebugToken { data_access_expires_at_s: Some(now.timestamp() + 86_400), ..good.clone() },
            ),
            ("190, subcode 460", DebugToken { is_valid: false, error_subcode: Some(460), ..good }),
        ];
        for (expected, token) in cases {
            let mut health = PageHealth { checked_at: now, ..PageHealth::default() };
            let mut problems = Vec::new();
            read_token(&token, &"7".into(), &mut health, &mut problems);
            assert_eq!(health.token_valid, Some(token.is_valid));
            match expected {
                "" => assert!(problems.is_empty(), "{problems:?}"),
                expected => assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}"),
            }
        }
    }

    #[test]
    fn only_this_apps_fields_count() {
        let app = |id: &str, fields: &[&str]| ConnectedApp {
            app_id: id.into(),
            name: None,
            subscribed_fields: fields.iter().map(|field| (*field).to_owned()).collect(),
        };
        let apps = [app("8", &FIELDS), app("7", &["standby", "messages"])];
        let fields = fields_of(&apps, &"7".into());
        assert_eq!(fields, ["messages", "standby"]);
        assert_eq!(missing(&FIELDS, &fields).len(), FIELDS.len() - 2);
        assert!(fields_of(&apps, &"9".into()).is_empty());
    }
}

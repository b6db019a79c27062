//! Connecting a Page while the host runs: from a person's token to a subscribed Page that sends.
//!
//! ```text
//! user token -> long-lived user token -> me/accounts: the Page's token -> debug_token: permissions
//!            -> subscribed_apps: subscribe, and read back -> sealed in page_tokens, Page active, audit
//! ```
//! Everything up to the last step changes nothing here, so a connection that fails can be tried again. The user's token is
//! used and forgotten; it is neither stored nor logged. Connecting a Page again replaces its token and resumes it, if it was
//! parked; a Page that Meta or an operator stopped stays stopped.

use frontdesk_messenger::graph::{Account, CallTrace, DebugToken, Reply};
use frontdesk_messenger::{AppId, Failure, PageCredentials};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::json;

use super::{FIELDS, SCOPES_NEEDED, SCOPES_WANTED, health};
use crate::app::App;
use crate::db;
use crate::keys::KeyError;

/// What is to be connected.
#[derive(Debug, Clone)]
pub struct Request {
    pub user_token: SecretString,
    /// `None`: the only Page that the token reaches.
    pub page_id: Option<String>,
    /// For a Page that is new here; `None`: as it is, or the default.
    pub chain: Option<String>,
    pub time_zone: Option<String>,
    pub language: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Connected {
    pub page_id: String,
    pub name: String,
    /// `active`, or `stopped` when it was.
    pub state: String,
    /// Whether it was parked before.
    pub resumed: bool,
    pub fields: Vec<String>,
    /// Permissions without which something is worse.
    pub scopes_missing: Vec<String>,
}

/// Why a Page was not connected. Nothing was changed here.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("graph.app_id is not set: connecting a Page needs the Meta app's id")]
    NoApp,
    #[error("Meta did not {step}: {found}")]
    Graph { step: &'static str, found: String },
    #[error("the token reaches no Page; give one of a person who manages the Page, with pages_show_list")]
    NoPages,
    #[error("the token reaches several Pages ({found}); name one")]
    SeveralPages { found: String },
    #[error("the token does not reach the Page {wanted}, only {found}")]
    OtherPages { wanted: String, found: String },
    #[error("the person may not {task} on the Page {page}; Meta lists the tasks {found}")]
    Task { page: String, task: &'static str, found: String },
    #[error("the permission(s) {missing} are missing; log in again and grant them")]
    Scopes { missing: String },
    #[error("{field}: {problem}")]
    Field { field: &'static str, problem: String },
    #[error("the Page {page_id} is not connected here")]
    NotConnected { page_id: String },
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("the connection could not be stored")]
    Database {
        #[from]
        source: sqlx::Error,
    },
}

/// Connects a Page, in the name of `actor`.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(app: &App, actor: &str, request: Request) -> Result<Connected, ConnectError> {
    check(&request, app.policies.chains())?;
    let (app_id, app_secret) = meta_app(app)?;
    let graph = app.outbox.graph();
    let long = settle("exchange the token", graph.exchange_token(&app_id, &app_secret, &request.user_token).await)?;
    let accounts = settle("list the Pages", graph.accounts(&long.token).await)?;
    let account = choose(accounts, request.page_id.as_deref())?;
    let debugged =
        settle("explain the Page's token", graph.debug_token(&app_id, &app_secret, &account.page.token).await)?;
    let scopes_missing = scopes(&debugged)?;
    let fields = subscribe(app, &account.page, &app_id).await?;
    store(app, actor, &request, &account, debugged.user_id.as_deref(), fields, scopes_missing).await
}

fn meta_app(app: &App) -> Result<(AppId, SecretString), ConnectError> {
    let id = &app.settings.graph.app_id;
    let secret = app.secrets.app_secrets.first().filter(|_| !id.is_empty());
    secret.map(|secret| (AppId::new(id.clone()), secret.clone())).ok_or(ConnectError::NoApp)
}

fn settle<T>(step: &'static str, reply: Reply<T>) -> Result<T, ConnectError> {
    let trace = reply.trace;
    reply.result.map_err(|failure| ConnectError::Graph { step, found: described(&failure, &trace) })
}

/// What a failed call may say: its numbers, never its address.
pub(super) fn described(failure: &Failure, trace: &CallTrace) -> String {
    let number = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let status = trace.http_status.map_or_else(|| "no answer".to_owned(), |status| format!("HTTP {status}"));
    format!("{} ({status}, code {}, subcode {})", failure.name(), number(trace.code), number(trace.subcode))
}

fn check(request: &Request, chains: &[String]) -> Result<(), ConnectError> {
    let field = |field, problem: &str| Err(ConnectError::Field { field, problem: problem.to_owned() });
    if let Some(chain) = request.chain.as_ref().filter(|chain| !chains.contains(chain)) {
        let found = if crate::settings::is_plain_name(chain) { chain } else { "no plain name" };
        let known = chains.join(", ");
        return field(
            "chain",
            &format!("is {found}, expected a chain of this host: {known}; a new folder is found at the next start"),
        );
    }
    if request.time_zone.as_deref().is_some_and(|zone| zone.parse::<chrono_tz::Tz>().is_err()) {
        return field("time_zone", "expected an IANA name such as Europe/Vienna");
    }
    if request.language.as_deref().is_some_and(|language| language.is_empty() || language.len() > 35) {
        return field("language", "expected a BCP 47 tag such as en");
    }
    Ok(())
}

fn choose(accounts: Vec<Account>, wanted: Option<&str>) -> Result<Account, ConnectError> {
    let found = || accounts.iter().map(|account| account.page.page_id.as_str()).collect::<Vec<_>>().join(", ");
    let chosen = match wanted {
        _ if accounts.is_empty() => return Err(ConnectError::NoPages),
        None if accounts.len() > 1 => return Err(ConnectError::SeveralPages { found: found() }),
        None => 0,
        Some(wanted) => accounts
            .iter()
            .position(|account| account.page.page_id.as_str() == wanted)
            .ok_or_else(|| ConnectError::OtherPages { wanted: wanted.to_owned(), found: found() })?,
    };
    let account = accounts.into_iter().nth(chosen).ok_or(ConnectError::NoPages)?;
    for task in ["MESSAGING", "MODERATE"] {
        // An app with older permissions gets no list; then the later steps tell.
        if !account.tasks.is_empty() && !account.tasks.iter().any(|held| held == task) {
            let (page, found) = (account.page.page_id.as_str().to_owned(), account.tasks.join(", "));
            return Err(ConnectError::Task { page, task, found });
        }
    }
    Ok(account)
}

/// The permissions that are merely wanted and missing; an error for needed ones.
fn scopes(token: &DebugToken) -> Result<Vec<String>, ConnectError> {
    let missing = |scopes: &[&str]| -> Vec<String> {
        scopes.iter().filter(|scope| !token.scopes.iter().any(|held| held == *scope)).map(|s| (*s).to_owned()).collect()
    };
    let needed = missing(&SCOPES_NEEDED);
    if !needed.is_empty() {
        return Err(ConnectError::Scopes { missing: needed.join(", ") });
    }
    Ok(missing(&SCOPES_WANTED))
}

/// Subscribes, keeping fields that somebody added by hand, and reads back what Meta made of it.
async fn subscribe(app: &App, page: &PageCredentials, app_id: &AppId) -> Result<Vec<String>, ConnectError> {
    let graph = app.outbox.graph();
    let before = settle("list the subscriptions", graph.subscribed_apps(page).await)?;
    let mut fields = health::fields_of(&before, app_id);
    fields.extend(
        FIELDS.iter().map(|field| (*field).to_owned()).filter(|field| !fields.contains(field)).collect::<Vec<_>>(),
    );
    let wanted: Vec<&str> = fields.iter().map(String::as_str).collect();
    settle("subscribe the app to the Page", graph.subscribe(page, &wanted).await)?;
    let after = settle("list the subscriptions", graph.subscribed_apps(page).await)?;
    Ok(health::fields_of(&after, app_id))
}

async fn store(
    app: &App,
    actor: &str,
    request: &Request,
    account: &Account,
    user_id: Option<&str>,
    fields: Vec<String>,
    scopes_missing: Vec<String>,
) -> Result<Connected, ConnectError> {
    let page_id = account.page.page_id.as_str();
    let wrapped = app.tokens.wrap(page_id, &account.page.token)?;
    let mut tx = app.pool.begin().await?;
    let chosen = (request.chain.as_deref(), request.time_zone.as_deref(), request.language.as_deref());
    let before = db::pages::connect(&mut *tx, page_id, &account.name, chosen).await?;
    db::page_tokens::put(&mut *tx, page_id, &wrapped, user_id, actor).await?;
    let resumed = before == "parked" && db::pages::set_state(&mut *tx, page_id, "active", "connected again").await?;
    let detail = json!({ "resumed": resumed, "fields": fields, "scopes_missing": scopes_missing });
    db::audit::write(&mut *tx, actor, "page.connect", page_id, detail).await?;
    tx.commit().await?;
    app.tokens.refresh().await?;
    if let Err(error) = health::check_page(app, page_id).await {
        tracing::warn!(%error, page = page_id, "the connected Page could not be looked at yet");
    }
    app.outbox.wake();
    tracing::info!(page = page_id, actor, resumed, "a Page was connected");
    let state = if resumed { "active".to_owned() } else { before };
    Ok(Connected { page_id: page_id.to_owned(), name: account.name.clone(), state, resumed, fields, scopes_missing })
}

/// Ends a connection: unsubscribes as far as Meta answers, forgets the token, parks the Page. What waits to be sent waits on. A Page
/// whose token stands in the settings cannot be disconnected here.
///
/// # Errors
/// See [`ConnectError`].
pub async fn disconnect(app: &App, actor: &str, page_id: &str) -> Result<bool, ConnectError> {
    let not_connected = || ConnectError::NotConnected { page_id: page_id.to_owned() };
    let page = app.tokens.find(page_id).await.ok_or_else(not_connected)?;
    let unsubscribed = app.outbox.graph().unsubscribe(&page).await.result.is_ok();
    let mut tx = app.pool.begin().await?;
    if !db::page_tokens::delete(&mut *tx, page_id).await? && !app.tokens.is_given(page_id) {
        return Err(not_connected());
    }
    db::pages::set_state(&mut *tx, page_id, "parked", &format!("disconnected by {actor}")).await?;
    let detail = json!({ "unsubscribed": unsubscribed, "token_in_settings": app.tokens.is_given(page_id) });
    db::audit::write(&mut *tx, actor, "page.disconnect", page_id, detail).await?;
    tx.commit().await?;
    app.tokens.refresh().await?;
    tracing::warn!(page = page_id, actor, unsubscribed, "a Page was disconnected");
    Ok(unsubscribed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(id: &str, tasks: &[&str]) -> Account {
        Account {
            page: PageCredentials { page_id: id.into(), token: SecretString::from("t") },
            name: id.to_owned(),
            tasks: tasks.iter().map(|task| (*task).to_owned()).collect(),
        }
    }

    #[test]
    fn the_right_page_is_chosen_or_the_choice_is_left_to_the_person() {
        let all = ["MESSAGING", "MODERATE", "ANALYZE"];
        let two = || vec![account("1", &all), account("2", &all)];
        let chosen = |accounts, wanted| choose(accounts, wanted).map(|found| found.name).map_err(|e| e.to_string());
        assert_eq!(chosen(two(), Some("2")).unwrap(), "2");
        assert_eq!(chosen(vec![account("1", &[])], None).unwrap(), "1");
        assert!(chosen(two(), None).unwrap_err().contains("several Pages (1, 2)"));
        assert!(chosen(two(), Some("3")).unwrap_err().contains("the Page 3, only 1, 2"));
        assert!(chosen(Vec::new(), Some("3")).unwrap_err().contains("reaches no Page"));
        assert!(chosen(vec![account("1", &["MESSAGING"])], None).unwrap_err().contains("may not MODERATE"));
    }

    #[test]
    fn needed_permissions_refuse_and_wanted_ones_are_named() {
        let token = |scopes: &[&str]| DebugToken {
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..DebugToken::default()
        };
        assert!(scopes(&token(&["pages_messaging"])).unwrap_err().to_string().contains("pages_manage_metadata"));
        assert_eq!(scopes(&token(&SCOPES_NEEDED)).unwrap(), SCOPES_WANTED);
        assert!(
            scopes(&token(&["pages_messaging", "pages_manage_metadata", "pages_read_engagement"])).unwrap().is_empty()
        );
    }
}

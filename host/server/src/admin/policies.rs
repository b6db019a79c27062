//! Revisions of policies: what runs where, publishing, and moving revisions between the places of a chain.
//!
//! A revision is named by its id or by the first digits of it, at least six. Every change needs a reason; it stands with
//! the actor in the revision's history and in the audit log. `force` overrules the gate. A change goes on to its end even
//! when whoever asked for it hangs up; its outcome then stands in the revision's history.
//!
//! | route under `/admin/policies/{chain}` | body |
//! |---|---|
//! | `POST …/revisions` | `{"bundle": …, "to": "stage"\|"shadow"\|"canary"\|"activate", "reason", "force"?}` and, for a canary, as below; `bundle` is a [`Document`] |
//! | `GET …/revisions/{id}` | |
//! | `POST …/promote`, `…/activate` | `{"revision"?, "reason", "force"?}`; without a revision, what waits: canary, shadow, staged last |
//! | `POST …/canary` | `{"revision"?, "percent"?, "page_ids"?, "steps"?: [{"percent", "minutes"}], "reason", "force"?}` |
//! | `POST …/shadow` | `{"revision"?, "reason"}` |
//! | `POST …/rollback` | `{"slot"?: "canary"\|"shadow"\|"active", "revision"?, "reason"}` |
//! | `POST …/unquarantine` | `{"revision", "reason"}` |

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use frontdesk_policy_bundle::Document;
use frontdesk_policy_engine::rollout::{CanaryStep, STEP_MINUTES_MAX, STEPS_MAX};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::Instrument as _;

use super::access::Actor;
use super::error::AdminError;
use super::request::{self, Body, Params};
use crate::app::App;
use crate::db;
use crate::policies::slots::{Share, Slot};
use crate::policies::{By, Moved, Placement, PolicyError};

/// Longest reason, in characters.
const REASON_CHARACTERS_MAX: usize = 500;
/// Most Pages of a canary.
const PAGES_MAX: usize = 1_000;
/// Fewest digits that name a revision.
const DIGITS_MIN: usize = 6;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyParams {
    /// Only this chain's revisions and changes of state.
    chain: Option<String>,
    limit: Option<i64>,
}

/// What this replica runs, what every replica runs, the newest revisions with the gate's verdict, the newest changes.
pub async fn list(
    State(app): State<Arc<App>>,
    Params(params): Params<PolicyParams>,
) -> Result<Json<Value>, AdminError> {
    let limit = request::limit(params.limit)?;
    let chain = params.chain.as_deref();
    let transitions = db::revisions::transitions(&app.pool, chain, limit).await?;
    let revisions = db::revisions::list(&app.pool, chain, limit).await?;
    let rollouts = db::rollouts::list(&app.pool).await?;
    let replicas = db::replicas::list(&app.pool).await?;
    Ok(Json(json!({
        "replica": app.replica,
        "chains": app.policies.status(),
        "rollouts": rollouts,
        "replicas": replicas,
        "revisions": revisions,
        "transitions": transitions,
    })))
}

/// One revision with everything that staging it needs.
pub async fn revision(
    State(app): State<Arc<App>>,
    Path((chain, id)): Path<(String, String)>,
) -> Result<Json<Value>, AdminError> {
    let id = resolve(&app, &chain, &id).await?;
    let row = db::revisions::find(&app.pool, &chain, &id).await?;
    let bundle = app.policies.bundle_of(&chain, &id).await?;
    let document = Document::of(&bundle).map_err(PolicyError::from)?;
    Ok(Json(json!({ "revision": row, "bundle": document })))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Bytes {
    None,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentParams {
    /// `none`: only whether it is there.
    bytes: Option<Bytes>,
}

/// A stored component.
pub async fn component(
    State(app): State<Arc<App>>,
    Path(digest): Path<String>,
    Params(params): Params<ComponentParams>,
) -> Result<Json<Value>, AdminError> {
    if params.bytes == Some(Bytes::None) {
        return match db::revisions::has_component(&app.pool, &digest).await? {
            true => Ok(Json(json!({ "digest": digest }))),
            false => Err(AdminError::not_found("component", digest)),
        };
    }
    let wasm = db::revisions::component(&app.pool, &digest)
        .await?
        .ok_or_else(|| AdminError::not_found("component", &digest))?;
    Ok(Json(json!({ "digest": digest, "wasm": STANDARD.encode(wasm) })))
}

/// Where a revision is to go, in the words of a request.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum To {
    Stage,
    Shadow,
    Canary,
    Activate,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    percent: f64,
    minutes: u32,
}

/// What canaries need to know. Kept as fields of the bodies below: a flattened struct would let misspelt fields pass.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CanaryBody {
    percent: Option<f64>,
    page_ids: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishBody {
    bundle: Document,
    to: To,
    percent: Option<f64>,
    #[serde(default)]
    page_ids: Vec<String>,
    #[serde(default)]
    steps: Vec<Step>,
    reason: String,
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveBody {
    revision: Option<String>,
    percent: Option<f64>,
    #[serde(default)]
    page_ids: Vec<String>,
    #[serde(default)]
    steps: Vec<Step>,
    reason: Option<String>,
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackBody {
    slot: Option<String>,
    revision: Option<String>,
    reason: Option<String>,
}

pub async fn publish(
    State(app): State<Arc<App>>,
    Path(chain): Path<String>,
    Actor(actor): Actor,
    Body(body): Body<PublishBody>,
) -> Result<Json<Value>, AdminError> {
    let reason = reason(Some(&body.reason))?;
    let canary = CanaryBody { percent: body.percent, page_ids: body.page_ids, steps: body.steps };
    let to = placement(body.to, canary)?;
    let (forced, bundle, policies, of) = (body.force, body.bundle, app.policies.clone(), chain.clone());
    let moved = to_its_end(async move {
        let by = By { actor: &actor, reason: &reason, forced };
        policies.publish(&of, bundle, to, by).await
    });
    answer(&app, &chain, moved.await?).await
}

pub async fn activate(
    State(app): State<Arc<App>>,
    Path(chain): Path<String>,
    Actor(actor): Actor,
    Body(body): Body<MoveBody>,
) -> Result<Json<Value>, AdminError> {
    place(&app, &chain, To::Activate, &actor, body).await
}

pub async fn canary(
    State(app): State<Arc<App>>,
    Path(chain): Path<String>,
    Actor(actor): Actor,
    Body(body): Body<MoveBody>,
) -> Result<Json<Value>, AdminError> {
    place(&app, &chain, To::Canary, &actor, body).await
}

pub async fn shadow(
    State(app): State<Arc<App>>,
    Path(chain): Path<String>,
    Actor(actor): Actor,
    Body(body): Body<MoveBody>,
) -> Result<Json<Value>, AdminError> {
    place(&app, &chain, To::Shadow, &actor, body).await
}

pub async fn roll_back(
    State(app): State<Arc<App>>,
    Path(chain): Path<String>,
    Actor(actor): Actor,
    Body(body): Body<RollbackBody>,
) -> Result<Json<Value>, AdminError> {
    let reason = reason(body.reason.as_deref())?;
    let slot = match body.slot.as_deref() {
        None => None,
        Some("active") => Some(Slot::Active),
        Some("canary") => Some(Slot::Canary),
        Some("shadow") => Some(Slot::Shadow),
        Some(_) => return Err(AdminError::field("slot", "expected active, canary or shadow")),
    };
    if body.revision.is_some() && slot.is_some_and(|slot| slot != Slot::Active) {
        return Err(AdminError::field("revision", "a canary or shadow ends; only the active place goes to a revision"));
    }
    let revision = resolve_given(&app, &chain, body.revision).await?;
    let (policies, of) = (app.policies.clone(), chain.clone());
    let moved = to_its_end(async move {
        let by = By { actor: &actor, reason: &reason, forced: false };
        policies.roll_back(&of, slot, revision.as_deref(), by).await
    });
    answer(&app, &chain, moved.await?).await
}

pub async fn unquarantine(
    State(app): State<Arc<App>>,
    Path(chain): Path<String>,
    Actor(actor): Actor,
    Body(body): Body<MoveBody>,
) -> Result<Json<Value>, AdminError> {
    let reason = reason(body.reason.as_deref())?;
    let given = body.revision.ok_or_else(|| AdminError::field("revision", "name the revision"))?;
    let revision = resolve(&app, &chain, &given).await?;
    let (policies, of, lifted) = (app.policies.clone(), chain.clone(), revision.clone());
    to_its_end(async move {
        let by = By { actor: &actor, reason: &reason, forced: false };
        policies.lift_quarantine(&of, &lifted, by).await
    })
    .await?;
    answer(&app, &chain, Moved { revision, rollout: None, gate: None }).await
}

async fn place(app: &App, chain: &str, to: To, actor: &str, body: MoveBody) -> Result<Json<Value>, AdminError> {
    let reason = reason(body.reason.as_deref())?;
    let canary = CanaryBody { percent: body.percent, page_ids: body.page_ids, steps: body.steps };
    let to = placement(to, canary)?;
    let revision = resolve_given(app, chain, body.revision).await?;
    let (forced, actor) = (body.force, actor.to_owned());
    let (policies, of) = (app.policies.clone(), chain.to_owned());
    let moved = to_its_end(async move {
        let by = By { actor: &actor, reason: &reason, forced };
        policies.place(&of, revision.as_deref(), to, by).await
    });
    answer(app, chain, moved.await?).await
}

/// Does work in a task of its own. A request's future is dropped with its connection, and a gate may take longer than
/// somebody's patience or a proxy's; cut off there, a change would be left half done, and nobody told.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, PolicyError>> + Send + 'static,
) -> Result<T, AdminError> {
    Ok(tokio::spawn(work.in_current_span()).await.map_err(PolicyError::from)??)
}

async fn answer(app: &App, chain: &str, moved: Moved) -> Result<Json<Value>, AdminError> {
    let row = db::revisions::find(&app.pool, chain, &moved.revision).await?;
    let rollout = match moved.rollout {
        Some(rollout) => Some(rollout),
        None => db::rollouts::get(&app.pool, chain).await?,
    };
    Ok(Json(json!({
        "chain": chain,
        "revision": moved.revision,
        "state": row.map(|row| row.state),
        "rollout": rollout,
        "gate": moved.gate,
    })))
}

fn placement(to: To, canary: CanaryBody) -> Result<Placement, AdminError> {
    if !matches!(to, To::Canary) {
        if canary.percent.is_some() || !canary.page_ids.is_empty() || !canary.steps.is_empty() {
            return Err(AdminError::field("percent, page_ids, steps", "these are for a canary"));
        }
        return Ok(match to {
            To::Stage => Placement::Stage,
            To::Shadow => Placement::Shadow,
            To::Activate | To::Canary => Placement::Activate,
        });
    }
    let share = |field, percent| {
        Share::from_percent(percent)
            .ok_or_else(|| AdminError::field(field, format!("{percent} was given, expected 0 to 100")))
    };
    if canary.percent.is_some() && !canary.steps.is_empty() {
        return Err(AdminError::field("percent", "the first of the steps gives the share; give one of them"));
    }
    if canary.page_ids.len() > PAGES_MAX || canary.page_ids.iter().any(|id| !is_page_id(id)) {
        return Err(AdminError::field("page_ids", format!("expected at most {PAGES_MAX} Page ids, digits each")));
    }
    if canary.steps.len() > STEPS_MAX {
        return Err(AdminError::field("steps", format!("expected at most {STEPS_MAX}")));
    }
    let mut steps: Vec<CanaryStep> = Vec::with_capacity(canary.steps.len());
    for step in canary.steps {
        let share_bp = share("steps", step.percent)?.basis_points();
        let is_growing = steps.last().is_none_or(|last| last.share_bp < share_bp);
        if share_bp == 0 || !is_growing || !(1..=STEP_MINUTES_MAX).contains(&step.minutes) {
            let expected = format!("expected growing percents above 0, and minutes of 1 to {STEP_MINUTES_MAX}");
            return Err(AdminError::field("steps", expected));
        }
        steps.push(CanaryStep { share_bp, minutes: step.minutes });
    }
    let share = share("percent", canary.percent.unwrap_or_default())?;
    Ok(Placement::Canary { share, page_ids: canary.page_ids, steps })
}

fn is_page_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 32 && id.bytes().all(|byte| byte.is_ascii_digit())
}

fn reason(given: Option<&str>) -> Result<String, AdminError> {
    let reason = request::text("reason", given.unwrap_or_default(), REASON_CHARACTERS_MAX)?;
    if reason.is_empty() {
        return Err(AdminError::field("reason", "say why, in a few words; it stands in the revision's history"));
    }
    Ok(reason)
}

async fn resolve_given(app: &App, chain: &str, given: Option<String>) -> Result<Option<String>, AdminError> {
    match given {
        Some(given) => resolve(app, chain, &given).await.map(Some),
        None => Ok(None),
    }
}

/// The whole id of a revision that is named by its first digits.
async fn resolve(app: &App, chain: &str, given: &str) -> Result<String, AdminError> {
    if !app.policies.chains().iter().any(|known| known == chain) {
        let known = app.policies.chains().to_vec();
        return Err(PolicyError::UnknownChain { chain: chain.to_owned(), known }.into());
    }
    let is_id = (DIGITS_MIN..=64).contains(&given.len()) && given.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        let expected = format!("expected a revision's id, or at least {DIGITS_MIN} of its first digits");
        return Err(AdminError::field("revision", expected));
    }
    let found = db::revisions::beginning_with(&app.pool, chain, &given.to_ascii_lowercase()).await?;
    match <[String; 1]>::try_from(found) {
        Ok([one]) => Ok(one),
        Err(found) if found.is_empty() => Err(PolicyError::UnknownRevision { revision: given.to_owned() }.into()),
        Err(_) => Err(AdminError::field("revision", "several revisions begin so; give more digits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(text: &str) -> Result<Placement, String> {
        let body: CanaryBody = serde_json::from_str(text).unwrap();
        placement(To::Canary, body).map_err(|error| error.to_string())
    }

    #[test]
    fn canaries_are_checked_at_their_limits() {
        let Ok(Placement::Canary { share, .. }) = canary(r#"{"percent": 0.1}"#) else { panic!("a tenth of a percent") };
        assert_eq!(share.basis_points(), 10);
        let Ok(Placement::Canary { steps, .. }) = canary(
            r#"{"page_ids": ["42"], "steps": [{"percent": 1, "minutes": 1}, {"percent": 100, "minutes": 20160}]}"#,
        ) else {
            panic!("two steps")
        };
        assert_eq!(steps.iter().map(|step| step.share_bp).collect::<Vec<_>>(), [100, 10_000]);
        for (text, expected) in [
            (r#"{"percent": 100.1}"#, "0 to 100"),
            (r#"{"percent": 5, "steps": [{"percent": 1, "minutes": 1}]}"#, "give one of them"),
            (r#"{"page_ids": ["x"]}"#, "digits each"),
            (r#"{"steps": [{"percent": 1, "minutes": 0}]}"#, "minutes of 1"),
            (r#"{"steps": [{"percent": 1, "minutes": 20161}]}"#, "minutes of 1"),
            (r#"{"steps": [{"percent": 5, "minutes": 1}, {"percent": 5, "minutes": 1}]}"#, "growing"),
        ] {
            let found = canary(text).unwrap_err();
            assert!(found.contains(expected), "{text}: {found}");
        }
        let body: CanaryBody = serde_json::from_str(r#"{"percent": 5}"#).unwrap();
        assert!(placement(To::Shadow, body).is_err());
    }

    #[test]
    fn a_change_needs_a_reason() {
        assert!(reason(None).is_err());
        assert!(reason(Some("  ")).is_err());
        assert!(reason(Some(&"x".repeat(REASON_CHARACTERS_MAX))).is_ok());
        assert!(reason(Some(&"x".repeat(REASON_CHARACTERS_MAX + 1))).is_err());
    }
}

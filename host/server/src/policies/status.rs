//! What this process runs, in the words of the admin API.

use chrono::{DateTime, Utc};
use frontdesk_policy_engine::{Revision, SnapshotStatus};
use serde::Serialize;

use super::Serving;
use super::slots::{Canary, Slots};

/// A candidate that was not taken.
#[derive(Debug, Clone, Serialize)]
pub struct Rejection {
    pub at: DateTime<Utc>,
    /// SHA-256 of what the folder held; none when it could not be read.
    pub content_sha256: Option<String>,
    /// The reason's name: the label `reason` of `frontdesk_policy_rejections_total`.
    pub code: String,
    pub reason: String,
}

/// One policy of a serving revision.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyStatus {
    pub hook: &'static str,
    pub name: String,
    pub version: String,
    pub component_sha256: String,
    pub settings_sha256: String,
    pub on_fault: &'static str,
    /// `snapshotted`, or why every call has to configure again.
    pub snapshot: String,
    pub unused_grants: Vec<String>,
}

/// A revision beside the active one.
#[derive(Debug, Clone, Serialize)]
pub struct BesideStatus {
    pub revision: String,
    pub since: DateTime<Utc>,
}

/// A canary.
#[derive(Debug, Clone, Serialize)]
pub struct CanaryStatus {
    pub revision: String,
    pub since: DateTime<Utc>,
    /// The share of customers.
    pub percent: f64,
    /// Pages whose customers it serves all.
    pub page_ids: Vec<String>,
}

/// What a chain does now.
#[derive(Debug, Clone, Serialize)]
pub struct ChainStatus {
    pub chain: String,
    pub revision: Option<String>,
    pub since: Option<DateTime<Utc>>,
    /// What made it active: `folder`, `api`, or `last-good` when the folder could not be used at the start.
    pub origin: Option<&'static str>,
    pub policies: Vec<PolicyStatus>,
    pub canary: Option<CanaryStatus>,
    pub shadow: Option<BesideStatus>,
    /// What serves again when the active one is taken out.
    pub previous: Option<String>,
    /// The newest candidate of the folder that was refused, unless the folder is good again.
    pub rejected: Option<Rejection>,
    /// Why the folder is not used, though nothing is wrong with it.
    pub folder: Option<String>,
    /// Why this process does not run what the fleet runs, or what is wrong with what it runs.
    pub problem: Option<String>,
}

impl ChainStatus {
    pub(super) fn of(chain: &str, slots: &Slots) -> Self {
        let active = slots.active.as_ref();
        Self {
            chain: chain.to_owned(),
            revision: active.map(|serving| serving.id().to_owned()),
            since: active.map(|serving| serving.since),
            origin: active.map(|serving| serving.origin),
            policies: active.map(|serving| policies_of(&serving.revision)).unwrap_or_default(),
            canary: slots.canary.as_ref().map(canary_of),
            shadow: slots.shadow.as_deref().map(beside),
            previous: slots.previous.as_ref().map(|serving| serving.id().to_owned()),
            rejected: None,
            folder: None,
            problem: None,
        }
    }
}

fn beside(serving: &Serving) -> BesideStatus {
    BesideStatus { revision: serving.id().to_owned(), since: serving.since }
}

fn canary_of(canary: &Canary) -> CanaryStatus {
    CanaryStatus {
        revision: canary.serving.id().to_owned(),
        since: canary.serving.since,
        percent: canary.share.percent(),
        page_ids: canary.page_ids.clone(),
    }
}

fn policies_of(revision: &Revision) -> Vec<PolicyStatus> {
    revision
        .policies()
        .zip(&revision.manifest().policies)
        .map(|(staged, manifest)| PolicyStatus {
            hook: manifest.hook.as_str(),
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            component_sha256: manifest.component_sha256.clone(),
            settings_sha256: manifest.settings_sha256.clone(),
            on_fault: manifest.on_fault.as_str(),
            snapshot: match staged.policy.snapshot() {
                SnapshotStatus::Snapshotted => "snapshotted".to_owned(),
                SnapshotStatus::NotPossible { reason } => format!("configured for each call: {reason}"),
            },
            unused_grants: staged.policy.unused_grants().to_vec(),
        })
        .collect()
}

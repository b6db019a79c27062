//! All settings: one typed struct per concern, defaults in `defaults.toml`, unknown keys refused.
//!
//! Secrets are not settings (see [`crate::secrets`]), so a settings file can be shown and committed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use frontdesk_messenger::window::{WindowRules, WindowRulesError};
use serde::{Deserialize, Serialize};

use crate::answer::ModelSettings;
use crate::golden::Strictness;
use crate::ingestion::website::WebsiteSettings;
use crate::knowledge::{EmbeddingSettings, ExtractionSettings, RedactionSettings, RetrievalSettings};
use crate::objects::ObjectSettings;
use crate::policies::{RegistrySettings, TrustError, TrustSettings};
use crate::spending::ModelBudget;

/// Most entries of `policies.dir` that are looked at for chains.
const FOLDERS_MAX: usize = 10_000;
/// The defaults, which are documentation too.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub server: ServerSettings,
    pub inbox: InboxSettings,
    pub graph: GraphSettings,
    pub queue: QueueSettings,
    pub worker: WorkerSettings,
    pub turn: TurnSettings,
    pub window_rules: WindowRules,
    pub handover: HandoverSettings,
    pub outbox: OutboxSettings,
    pub policies: PolicySettings,
    pub engines: EngineSettings,
    pub keys: KeySettings,
    pub records: RecordSettings,
    pub page_health: PageHealthSettings,
    pub database: DatabaseSettings,
    pub tickets: TicketSettings,
    pub knowledge: KnowledgeSettings,
    pub golden: GoldenSettings,
    #[serde(default)]
    pub embeddings: EmbeddingSettings,
    #[serde(default)]
    pub retrieval: RetrievalSettings,
    #[serde(default)]
    pub extraction: ExtractionSettings,
    pub redaction: RedactionSettings,
    pub objects: ObjectSettings,
    pub website: WebsiteSettings,
    #[serde(default)]
    pub model: ModelSettings,
    /// Asked in this order when the model fails.
    #[serde(default)]
    pub fallback_models: Vec<ModelSettings>,
    #[serde(default)]
    pub model_budget: ModelBudget,
    #[serde(default)]
    pub pages: Vec<PageSettings>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    pub listen: String,
    pub webhook_body_bytes_max: usize,
    pub ack_timeout_ms: u64,
    pub home_url: String,
    pub public_url: String,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InboxSettings {
    pub pending_max: usize,
    pub writers: usize,
    pub rows_per_insert_max: usize,
    pub keep_days: u32,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GraphSettings {
    pub base_url: String,
    pub version: String,
    pub app_id: String,
    pub timeout_ms: u64,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    pub namespace: String,
    pub length_max: usize,
    pub sweep_ms: u64,
    pub claim_after_ms: u64,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSettings {
    pub concurrency: usize,
    pub lease_ms: u64,
    pub attempts_max: i32,
    pub retry_ms: u64,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TurnSettings {
    pub events_max: i64,
    pub history_max: i64,
    pub settle_ms: u64,
    pub typing_indicator: bool,
    pub disclosure_gap_hours: i64,
}

/// What the echo of another app's message means for the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtherApps {
    Takeover,
    Ignore,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HandoverSettings {
    pub quiet_hours: i64,
    pub other_apps: OtherApps,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OutboxSettings {
    pub concurrency: usize,
    pub poll_ms: u64,
    pub attempts_max: i32,
    pub retry_ms: u64,
    pub retry_max_ms: u64,
    pub in_doubt_after_ms: u64,
    pub echo_grace_ms: u64,
    pub unknown_ticket_after_ms: u64,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    pub dir: PathBuf,
    pub poll_ms: u64,
    pub settle_ms: u64,
    pub instances_max: u32,
    pub shadow: ShadowSettings,
    pub registries: RegistrySettings,
    pub trust: TrustSettings,
}

/// How much of a shadow is judged.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowSettings {
    pub queue_max: usize,
    pub concurrency: usize,
    pub load_percent_max: u32,
    pub keep_days: u32,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSettings {
    pub binaries_dir: PathBuf,
    pub data_dir: PathBuf,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    pub generate: bool,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PageHealthSettings {
    pub every_s: u64,
    pub resubscribe: bool,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RecordSettings {
    pub keep_days: u32,
    pub pending_max: usize,
    pub bytes_max: usize,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    pub connections_max: u32,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TicketSettings {
    pub webhook_url: String,
    pub timeout_ms: u64,
    pub attempts_max: i32,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KnowledgeSettings {
    pub passages_max: usize,
    pub versions_kept: u16,
    pub jobs_at_once: u16,
}

/// Golden questions as a gate.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenSettings {
    pub file: PathBuf,
    pub on_knowledge: Strictness,
    pub on_policy: Strictness,
    pub run_ms_max: u64,
}

/// One Facebook Page that this host answers for.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PageSettings {
    /// Meta's Page id.
    pub id: String,
    pub name: String,
    /// Folder name of the policy chain.
    #[serde(default = "default_chain")]
    pub chain: String,
    /// IANA time zone, such as `Europe/Vienna`: business hours are local.
    #[serde(default = "default_time_zone")]
    pub time_zone: String,
    /// BCP 47 tag of the Page's main language.
    #[serde(default = "default_language")]
    pub language: String,
    /// File that holds the Page access token; or name the variable that does with `token_env`.
    pub token_file: Option<PathBuf>,
    pub token_env: Option<String>,
    /// Addresses and numbers of the Page's own, which its documents may hold: see `[redaction]`.
    #[serde(default)]
    pub public_contacts: Vec<String>,
}

fn default_chain() -> String {
    "default".into()
}
fn default_time_zone() -> String {
    "UTC".into()
}
fn default_language() -> String {
    "en".into()
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("the settings file {path} was not found; give an existing file with --config, or none for the defaults")]
    FileMissing { path: PathBuf },
    #[error("the settings do not fit: {source}; `frontdesk settings` prints every key with its default")]
    Invalid {
        #[source]
        source: Box<figment::Error>,
    },
    #[error("setting {key} is {found}, expected {expected}")]
    OutOfRange { key: &'static str, found: String, expected: String },
    #[error("setting window_rules.{source}")]
    WindowRules {
        #[from]
        source: WindowRulesError,
    },
    #[error("[[pages]] number {index}: {problem}")]
    Page { index: usize, problem: String },
    #[error("{source}")]
    Trust {
        #[from]
        source: TrustError,
    },
}

impl Settings {
    /// Reads defaults, then the file, then the environment, and checks settings against each other.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingsError> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(path) = file {
            if !path.is_file() {
                return Err(SettingsError::FileMissing { path: path.to_owned() });
            }
            figment = figment.merge(Toml::file_exact(path));
        }
        let settings: Self = figment
            .merge(Env::prefixed("FRONTDESK__").split("__"))
            .extract()
            .map_err(|source| SettingsError::Invalid { source: Box::new(source) })?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), SettingsError> {
        let signed = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
        let ranges: [(&'static str, u64, std::ops::RangeInclusive<u64>); 44] = [
            ("server.webhook_body_bytes_max", self.server.webhook_body_bytes_max as u64, 65_536..=64 << 20),
            ("server.ack_timeout_ms", self.server.ack_timeout_ms, 100..=4_900),
            ("inbox.pending_max", self.inbox.pending_max as u64, 1..=1_000_000),
            ("inbox.writers", self.inbox.writers as u64, 1..=32),
            ("inbox.rows_per_insert_max", self.inbox.rows_per_insert_max as u64, 1..=10_000),
            ("queue.length_max", self.queue.length_max as u64, 100..=10_000_000),
            ("queue.sweep_ms", self.queue.sweep_ms, 50..=600_000),
            ("worker.concurrency", self.worker.concurrency as u64, 1..=1_024),
            ("worker.lease_ms", self.worker.lease_ms, 1_000..=600_000),
            ("turn.events_max", signed(self.turn.events_max), 1..=1_000),
            ("turn.history_max", signed(self.turn.history_max), 0..=30),
            ("turn.disclosure_gap_hours", signed(self.turn.disclosure_gap_hours), 1..=8_760),
            ("handover.quiet_hours", signed(self.handover.quiet_hours), 1..=8_760),
            // Meta repeats a delivery for an hour; the rows that recognise it must live longer.
            ("inbox.keep_days", u64::from(self.inbox.keep_days), 2..=3_650),
            ("queue.claim_after_ms", self.queue.claim_after_ms, 100..=3_600_000),
            ("worker.attempts_max", signed(self.worker.attempts_max.into()), 1..=1_000_000),
            ("outbox.attempts_max", signed(self.outbox.attempts_max.into()), 1..=1_000_000),
            ("outbox.poll_ms", self.outbox.poll_ms, 10..=60_000),
            ("graph.timeout_ms", self.graph.timeout_ms, 100..=120_000),
            ("policies.poll_ms", self.policies.poll_ms, 100..=3_600_000),
            ("policies.settle_ms", self.policies.settle_ms, 10..=60_000),
            ("policies.shadow.queue_max", self.policies.shadow.queue_max as u64, 1..=100_000),
            // Each holds an instance that turns could use.
            ("policies.shadow.concurrency", self.policies.shadow.concurrency as u64, 1..=2),
            ("policies.shadow.load_percent_max", u64::from(self.policies.shadow.load_percent_max), 0..=100),
            ("policies.shadow.keep_days", u64::from(self.policies.shadow.keep_days), 1..=3_650),
            ("policies.registries.timeout_ms", self.policies.registries.timeout_ms, 100..=600_000),
            ("policies.registries.retry_ms", self.policies.registries.retry_ms, 0..=3_600_000),
            ("turn.settle_ms", self.turn.settle_ms, 0..=60_000),
            ("outbox.concurrency", self.outbox.concurrency as u64, 1..=1_024),
            ("page_health.every_s", self.page_health.every_s, 1..=86_400),
            ("records.keep_days", u64::from(self.records.keep_days), 1..=3_650),
            ("records.pending_max", self.records.pending_max as u64, 1..=65_536),
            ("records.bytes_max", self.records.bytes_max as u64, 65_536..=64 << 20),
            ("golden.run_ms_max", self.golden.run_ms_max, 1_000..=3_600_000),
            ("knowledge.passages_max", self.knowledge.passages_max as u64, 1..=20),
            ("knowledge.jobs_at_once", u64::from(self.knowledge.jobs_at_once), 1..=16),
            ("website.pages_max", u64::from(self.website.pages_max), 1..=50_000),
            ("website.page_bytes_max", self.website.page_bytes_max as u64, 1_024..=32 << 20),
            ("website.site_bytes_max", self.website.site_bytes_max, 1_024..=16 << 30),
            ("website.time_max_s", self.website.time_max_s, 1..=86_400),
            ("website.sitemap_depth_max", u64::from(self.website.sitemap_depth_max), 0..=10),
            ("website.delay_ms", self.website.delay_ms, 0..=60_000),
            ("website.timeout_ms", self.website.timeout_ms, 100..=300_000),
            ("knowledge.versions_kept", u64::from(self.knowledge.versions_kept), 1..=1_000),
        ];
        for (key, found, allowed) in ranges {
            if !allowed.contains(&found) {
                let expected = format!("{} to {}", allowed.start(), allowed.end());
                return Err(SettingsError::OutOfRange { key, found: found.to_string(), expected });
            }
        }
        // A send in doubt must not be looked up while its own request may still be running.
        if self.outbox.in_doubt_after_ms <= self.graph.timeout_ms {
            return Err(SettingsError::OutOfRange {
                key: "outbox.in_doubt_after_ms",
                found: self.outbox.in_doubt_after_ms.to_string(),
                expected: format!("more than graph.timeout_ms ({})", self.graph.timeout_ms),
            });
        }
        if self.queue.namespace.is_empty() {
            return Err(SettingsError::OutOfRange {
                key: "queue.namespace",
                found: "an empty text".into(),
                expected: "a prefix such as frontdesk".into(),
            });
        }
        self.window_rules.check()?;
        self.check_pages()?;
        self.policies.trust.policy()?;
        Ok(self.policies.trust.check_chains(&self.chains(), &self.policies.dir)?)
    }

    /// The chains that Pages have, or can get: those of `[[pages]]`, the one without any, and the folders in
    /// `policies.dir`, by whose names Pages are connected while the host runs.
    fn chains(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = self.pages.iter().map(|page| page.chain.clone()).collect();
        if names.is_empty() {
            names.insert("default".into());
        }
        // A folder that cannot be read has no chains that could be served either.
        let entries = std::fs::read_dir(&self.policies.dir).into_iter().flatten().take(FOLDERS_MAX);
        let folders = entries.filter_map(Result::ok).filter(|entry| entry.path().join("chain.toml").is_file());
        names.extend(folders.filter_map(|entry| entry.file_name().into_string().ok()));
        names
    }

    fn check_pages(&self) -> Result<(), SettingsError> {
        let mut seen = std::collections::HashSet::new();
        for (index, page) in self.pages.iter().enumerate() {
            let problem = if page.id.is_empty() || !page.id.bytes().all(|b| b.is_ascii_digit()) {
                Some(format!("id is {:?}, expected the digits of a Meta Page id", page.id))
            } else if !seen.insert(&page.id) {
                Some(format!("id {} is configured twice", page.id))
            } else if page.time_zone.parse::<chrono_tz::Tz>().is_err() {
                Some(format!("time_zone is {:?}, expected an IANA name such as Europe/Vienna", page.time_zone))
            } else if !is_plain_name(&page.chain) {
                Some(format!("chain is {:?}, expected the name of a folder in policies.dir", page.chain))
            } else {
                None
            };
            if let Some(problem) = problem {
                return Err(SettingsError::Page { index: index + 1, problem });
            }
        }
        Ok(())
    }
}

/// A name that cannot lead out of its folder.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

pub(crate) fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_load_and_fit_each_other() {
        let settings = Settings::load(None).unwrap();
        assert_eq!(settings.graph.version, "v26.0");
        assert!(settings.pages.is_empty());
        // What the file says is what the code takes without it.
        assert_eq!(settings.extraction, ExtractionSettings::default());
        assert_eq!(settings.retrieval, RetrievalSettings::default());
        assert_eq!(settings.website, WebsiteSettings::default());
        assert_eq!(settings.redaction, RedactionSettings::default());
        assert_eq!(settings.window_rules, WindowRules::default());
    }

    #[test]
    fn signatures_are_demanded_of_chains_that_there_are() {
        let dir = tempfile::tempdir().unwrap();
        for chain in ["shop", "support"] {
            std::fs::create_dir(dir.path().join(chain)).unwrap();
            std::fs::write(dir.path().join(chain).join("chain.toml"), "version = 1").unwrap();
        }
        std::fs::create_dir(dir.path().join("components")).unwrap();
        let load = |chains: &str, pages: &str| {
            let path = dir.path().join("frontdesk.toml");
            let text = format!("[policies]\ndir = {:?}\n[policies.trust]\nchains = {chains}\n{pages}", dir.path());
            std::fs::write(&path, text).unwrap();
            Settings::load(Some(&path)).map_err(|error| error.to_string())
        };
        let page = "[[pages]]\nid = \"1\"\nname = \"x\"\nchain = \"of-api\"\n";
        for (chains, pages) in [(r#"["shop", "support", "default"]"#, ""), (r#"["of-api", "shop"]"#, page), ("[]", "")]
        {
            assert_eq!(load(chains, pages).map(|_| ()), Ok(()), "{chains}");
        }
        for (chains, pages) in [(r#"["shop", "supprot"]"#, ""), (r#"["components"]"#, ""), (r#"["default"]"#, page)] {
            let said = load(chains, pages).unwrap_err();
            assert!(said.contains("policies.trust.chains names") && said.contains("shop, support"), "{chains}: {said}");
        }
    }

    #[test]
    fn mistakes_name_the_key_and_what_was_expected() {
        let dir = tempfile::tempdir().unwrap();
        let cases = [
            ("[server]\nlisten_on = \"x\"\n", "listen_on"),
            ("[worker]\nconcurrency = 0\n", "setting worker.concurrency is 0, expected 1 to 1024"),
            ("[window_rules]\nmessage = { hours = 9000 }\n", "setting window_rules.message.hours is 9000, expected 0"),
            ("[window_rules]\nmesage = { hours = 9 }\n", "mesage"),
            ("[outbox]\nin_doubt_after_ms = 5\n", "more than graph.timeout_ms (10000)"),
            ("[policies.trust]\nrequired = true\n", "no component could ever be used"),
            ("[[pages]]\nid = \"12a\"\nname = \"x\"\n", "expected the digits of a Meta Page id"),
            ("[[pages]]\nid = \"12\"\nname = \"x\"\ntime_zone = \"Mars\"\n", "Europe/Vienna"),
            ("[[pages]]\nid = \"12\"\nname = \"x\"\nchain = \"../x\"\n", "name of a folder"),
            ("[[pages]]\nid = \"1\"\nname = \"x\"\n[[pages]]\nid = \"1\"\nname = \"y\"\n", "configured twice"),
        ];
        for (text, expected) in cases {
            let path = dir.path().join("frontdesk.toml");
            std::fs::write(&path, text).unwrap();
            let message = Settings::load(Some(&path)).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?} gave {message:?}");
        }
    }
}

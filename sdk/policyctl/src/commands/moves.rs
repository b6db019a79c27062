//! `policyctl publish | promote | canary | shadow | rollback | unquarantine`: revisions on a running host.

use std::fmt::Write;
use std::path::PathBuf;

use frontdesk_policy_bundle::Document;
use frontdesk_policy_engine::{Bundle, sha256_hex};
use serde_json::{Map, Value, json};

use crate::admin::AdminClient;
use crate::cli::{Failure, Outcome, RemoteOptions, Report, Verdict};
use crate::{subject, words};

/// Who moves a revision, and why.
#[derive(Debug, Clone, clap::Args)]
pub struct Why {
    /// Why, in a few words; it stands in the revision's history and in the host's audit log.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who does it, for the same places.
    #[arg(long = "as", value_name = "NAME", env = "USER", default_value = "policyctl")]
    pub actor: String,
    #[command(flatten)]
    pub remote: RemoteOptions,
}

/// How much a canary serves.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Share {
    /// The share of customers, 0.01 to 100.
    #[arg(long, value_name = "PERCENT")]
    pub percent: Option<f64>,
    /// A Page whose customers it serves all; may be given several times.
    #[arg(long = "page", value_name = "PAGE_ID")]
    pub pages: Vec<String>,
    /// A step of the share and how long it lasts, such as 1:30 for 1 % during 30 minutes; in growing order. After the last
    /// step it becomes active by itself.
    #[arg(long = "step", value_name = "PERCENT:MINUTES", value_parser = step, conflicts_with = "percent")]
    pub steps: Vec<Step>,
}

/// One step of a canary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    percent: f64,
    minutes: u32,
}

fn step(text: &str) -> Result<Step, String> {
    let parts = text
        .split_once(':')
        .and_then(|(percent, minutes)| Some(Step { percent: percent.parse().ok()?, minutes: minutes.parse().ok()? }));
    parts.ok_or_else(|| format!("{text:?} was given, expected PERCENT:MINUTES such as 10:60"))
}

impl Share {
    fn is_given(&self) -> bool {
        self.percent.is_some() || !self.pages.is_empty() || !self.steps.is_empty()
    }

    fn put_into(&self, body: &mut Map<String, Value>) {
        if let Some(percent) = self.percent {
            body.insert("percent".into(), json!(percent));
        }
        if !self.pages.is_empty() {
            body.insert("page_ids".into(), json!(self.pages));
        }
        if !self.steps.is_empty() {
            let steps: Vec<Value> =
                self.steps.iter().map(|step| json!({"percent": step.percent, "minutes": step.minutes})).collect();
            body.insert("steps".into(), steps.into());
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("to").args(["stage", "shadow", "canary", "activate"])))]
pub struct Publish {
    /// The chain's folder (with its chain.toml).
    #[arg(value_name = "CHAIN_DIR")]
    pub folder: PathBuf,
    /// The chain's name on the host; by default that of the folder.
    #[arg(long, value_name = "NAME")]
    pub chain: Option<String>,
    /// Only store and judge it (the default); `promote`, `canary` and `shadow` move it on.
    #[arg(long)]
    pub stage: bool,
    /// Let it judge beside the active revision; customers are not told what it says.
    #[arg(long)]
    pub shadow: bool,
    /// Let it serve some: say how many with --percent, --page or --step.
    #[arg(long)]
    pub canary: bool,
    /// Let it serve everybody.
    #[arg(long)]
    pub activate: bool,
    #[command(flatten)]
    pub share: Share,
    /// Let it serve though the gate refuses it.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub why: Why,
}

#[derive(Debug, clap::Args)]
pub struct Promote {
    /// The chain's name on the host.
    #[arg(value_name = "CHAIN")]
    pub chain: String,
    /// The revision, or its first digits; by default what waits: the canary, the shadow, or what was staged last.
    #[arg(value_name = "REVISION")]
    pub revision: Option<String>,
    /// Let it serve though the gate refuses it.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub why: Why,
}

#[derive(Debug, clap::Args)]
pub struct Canary {
    /// The chain's name on the host.
    #[arg(value_name = "CHAIN")]
    pub chain: String,
    /// The revision, or its first digits; by default what waits: the canary, the shadow, or what was staged last.
    #[arg(value_name = "REVISION")]
    pub revision: Option<String>,
    #[command(flatten)]
    pub share: Share,
    /// Let it serve though the gate refuses it.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub why: Why,
}

#[derive(Debug, clap::Args)]
pub struct Shadow {
    /// The chain's name on the host.
    #[arg(value_name = "CHAIN")]
    pub chain: String,
    /// The revision, or its first digits; by default what waits.
    #[arg(value_name = "REVISION")]
    pub revision: Option<String>,
    #[command(flatten)]
    pub why: Why,
}

/// A place of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Slot {
    Active,
    Canary,
    Shadow,
}

#[derive(Debug, clap::Args)]
pub struct Rollback {
    /// The chain's name on the host.
    #[arg(value_name = "CHAIN")]
    pub chain: String,
    /// What ends; by default the canary if there is one, else the active revision.
    #[arg(long, value_enum)]
    pub slot: Option<Slot>,
    /// The revision that serves again, or its first digits; by default the one before.
    #[arg(long, value_name = "REVISION", conflicts_with = "slot")]
    pub to: Option<String>,
    #[command(flatten)]
    pub why: Why,
}

#[derive(Debug, clap::Args)]
pub struct Unquarantine {
    /// The chain's name on the host.
    #[arg(value_name = "CHAIN")]
    pub chain: String,
    /// The revision, or its first digits.
    #[arg(value_name = "REVISION")]
    pub revision: String,
    #[command(flatten)]
    pub why: Why,
}

pub async fn publish(options: &Publish) -> Outcome {
    if options.share.is_given() != options.canary {
        return Err(Failure::input(
            "--canary needs --percent, --page or --step, and these are for --canary; see `policyctl publish --help`",
        ));
    }
    // Staged here first: a mistake is named by file and field, and costs the host nothing. The folder is read once, so that
    // what is sent is what was staged.
    let engine = subject::engine()?;
    let bundle = subject::bundle(&options.folder)?;
    let local = subject::stage_bundle(&engine, &options.folder, &bundle)?.id().to_string();
    let mut document = Document::of(&bundle).map_err(Failure::input)?;
    let chain = match &options.chain {
        Some(chain) => chain.clone(),
        None => folder_name(&options.folder)?,
    };
    let to = match (options.shadow, options.canary, options.activate) {
        (true, _, _) => "shadow",
        (_, true, _) => "canary",
        (_, _, true) => "activate",
        _ => "stage",
    };
    let client = AdminClient::new(&options.why.remote)?;
    leave_out_known(&client, &bundle, &mut document).await?;
    let mut body = body(None, options.force, &options.why);
    body.insert("bundle".into(), json!(document));
    body.insert("to".into(), to.into());
    options.share.put_into(&mut body);
    let path = ["policies", &chain, "revisions"];
    let answer = client.post(&path, &options.why.actor, &Value::Object(body)).await?;
    if answer["revision"].as_str().is_some_and(|remote| remote != local) {
        return Err(Failure::refused(format!(
            "the host names this chain {}, and this policyctl {local}: they are of different versions",
            answer["revision"].as_str().unwrap_or_default()
        )));
    }
    report(&answer)
}

/// A change of settings needs no upload of components that the host has.
async fn leave_out_known(client: &AdminClient, bundle: &Bundle, document: &mut Document) -> Result<(), Failure> {
    let paths: Vec<String> = document.components.keys().cloned().collect();
    for path in paths {
        let Some(wasm) = bundle.files.get(&path) else { continue };
        let digest = sha256_hex(wasm);
        if client.find(&["components", &digest], &[("bytes", "none".to_owned())]).await?.is_some() {
            document.omit(&path, &digest);
        }
    }
    Ok(())
}

fn folder_name(folder: &std::path::Path) -> Result<String, Failure> {
    let whole = folder.canonicalize().map_err(|error| Failure::file(folder, "read", &error))?;
    let name = whole.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| Failure::input(format!("{} has no name; give --chain", folder.display())))
}

pub async fn promote(options: &Promote) -> Outcome {
    let body = body(options.revision.as_deref(), options.force, &options.why);
    post(&options.chain, "promote", &options.why, body).await
}

pub async fn canary(options: &Canary) -> Outcome {
    if !options.share.is_given() {
        return Err(Failure::input("say how many the canary serves: --percent, --page or --step"));
    }
    let mut body = body(options.revision.as_deref(), options.force, &options.why);
    options.share.put_into(&mut body);
    post(&options.chain, "canary", &options.why, body).await
}

pub async fn shadow(options: &Shadow) -> Outcome {
    let body = body(options.revision.as_deref(), false, &options.why);
    post(&options.chain, "shadow", &options.why, body).await
}

pub async fn rollback(options: &Rollback) -> Outcome {
    let mut body = body(options.to.as_deref(), false, &options.why);
    if let Some(slot) = options.slot {
        let slot = match slot {
            Slot::Active => "active",
            Slot::Canary => "canary",
            Slot::Shadow => "shadow",
        };
        body.insert("slot".into(), slot.into());
    }
    post(&options.chain, "rollback", &options.why, body).await
}

pub async fn unquarantine(options: &Unquarantine) -> Outcome {
    let body = body(Some(&options.revision), false, &options.why);
    post(&options.chain, "unquarantine", &options.why, body).await
}

fn body(revision: Option<&str>, is_forced: bool, why: &Why) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("reason".into(), why.reason.as_str().into());
    if let Some(revision) = revision {
        body.insert("revision".into(), revision.into());
    }
    if is_forced {
        body.insert("force".into(), true.into());
    }
    body
}

async fn post(chain: &str, what: &str, why: &Why, body: Map<String, Value>) -> Outcome {
    let client = AdminClient::new(&why.remote)?;
    let answer = client.post(&["policies", chain, what], &why.actor, &Value::Object(body)).await?;
    report(&answer)
}

fn report(answer: &Value) -> Outcome {
    Report::new(text(answer), answer, Verdict::Well)
}

fn text(answer: &Value) -> String {
    let said = |value: &Value| words::one_line(value.as_str().unwrap_or("?"), 200);
    let mut out = format!(
        "chain {}: revision {} is {}\n",
        said(&answer["chain"]),
        said(&answer["revision"]),
        said(&answer["state"])
    );
    let rollout = &answer["rollout"];
    for (title, field) in [("active", "active"), ("canary", "canary"), ("shadow", "shadow"), ("stands by", "previous")]
    {
        if let Some(revision) = rollout[field].as_str() {
            let share = match field {
                "canary" => format!(" ({})", canary_share(rollout)),
                _ => String::new(),
            };
            let _ = writeln!(out, "  {title:<9} {}{share}", revision.get(..12).unwrap_or(revision));
        }
    }
    if !answer["gate"].is_null() {
        out.push_str(&gate(&answer["gate"], "  "));
    }
    out
}

/// How much a canary serves, from a chain's row.
pub fn canary_share(rollout: &Value) -> String {
    #[expect(clippy::cast_precision_loss, reason = "at most 10,000")]
    let percent = rollout["canary_share_bp"].as_i64().unwrap_or_default() as f64 / 100.0;
    let pages = rollout["canary_page_ids"].as_array().map_or(0, Vec::len);
    let steps = rollout["canary_steps"].as_array().map_or(0, Vec::len);
    let mut out = format!("{percent} % of customers");
    if pages > 0 {
        let _ = write!(out, ", all of {}", words::count(pages, "Page", "Pages"));
    }
    if steps > 0 {
        let step = rollout["canary_step"].as_i64().unwrap_or_default() + 1;
        let _ = write!(out, ", step {step} of {steps}");
    }
    out
}

/// What the gate found, in a few lines.
pub fn gate(verdict: &Value, indent: &str) -> String {
    let n = |value: &Value| words::number(value.as_u64().unwrap_or_default());
    let (golden, replays) = (&verdict["golden"], &verdict["replays"]);
    let passed = if verdict["passed"].as_bool().unwrap_or_default() { "passed" } else { "REFUSED" };
    let mut out = format!(
        "{indent}gate {passed}: {} golden cases, {} failed; {} decisions judged again, {} take another route\n",
        n(&golden["cases"]),
        n(&golden["failed"]),
        n(&replays["records"]),
        n(&replays["routes_changed"]),
    );
    let lists = [("failure", &verdict["failures"]), ("warning", &verdict["warnings"])];
    for (title, list) in lists {
        for line in list.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let _ = writeln!(out, "{indent}  {title}: {}", words::one_line(line, 500));
        }
    }
    for list in [&golden["failures"], &replays["changes"]] {
        for line in list.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let _ = writeln!(out, "{indent}    {}", words::one_line(line, 300));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read() {
        assert_eq!(step("0.1:30").unwrap(), Step { percent: 0.1, minutes: 30 });
        for wrong in ["", "10", "10:", "x:1", "1:1:1", "1:-1"] {
            assert!(step(wrong).unwrap_err().contains("expected PERCENT:MINUTES"), "{wrong}");
        }
    }

    #[test]
    fn a_verdict_is_told_with_what_failed() {
        let found = gate(
            &json!({
                "passed": false, "failures": ["1 of 3 golden cases fail"], "warnings": [],
                "golden": {"cases": 3, "failed": 1, "failures": ["cases/classify.toml, case 2"]},
                "replays": {"records": 100, "routes_changed": 0, "changes": []},
            }),
            "",
        );
        assert!(found.contains("REFUSED: 3 golden cases, 1 failed; 100 decisions"), "{found}");
        assert!(found.contains("failure: 1 of 3") && found.contains("case 2"), "{found}");
    }
}

//! What a policy costs: one call on a fresh instance, and the chain of four, with the shipped components and settings on
//! an everyday turn; beside it the bare runtime, instantiating and calling the same (snapshotted) component.
//!
//! Ours and bare take turns in short blocks, so that a noisy neighbour meets both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use frontdesk_policy_engine::bench_support::{Bare, snapshot_bytes};
use frontdesk_policy_engine::chain::settings_from_file;
use frontdesk_policy_engine::types::{
    Author, Classification, Customer, Dossier, Draft, Evidence, FilterOutcome, LocalTime, Message, MessageSource, Page,
    Passage, Route, Turn, Weekday, Window,
};
use frontdesk_policy_engine::{
    Bundle, CallContext, Called, ChainSpec, Engine, EngineOptions, Hook, Revision, SettingsSource, SnapshotStatus,
};

use crate::Options;
use crate::ground;
use crate::table::{Aim, Figure, Findings, Row, Times};

const MEASURE: &str = "policy";
const BLOCK: usize = 100;
const WARM_UP: usize = 200;
const THREADS: [usize; 2] = [1, 2];
const HOOKS: [Hook; 4] = [Hook::Classify, Hook::Tone, Hook::Filter, Hook::Escalate];

/// Times of one hook, and the fuel of its last call.
#[derive(Default)]
struct Costs {
    ours: Vec<f64>,
    bare: Vec<f64>,
    fuel: u64,
}

pub async fn measure(options: &Options) -> Result<Findings> {
    let options = options.clone();
    // Compiling blocks for seconds, and the loops below want threads of their own.
    tokio::task::spawn_blocking(move || blocking(&options)).await?
}

fn blocking(options: &Options) -> Result<Findings> {
    let mut findings = Findings::default();
    let bundle = read_bundle()?;
    let engine = Engine::new(EngineOptions::default())?;
    let revision = Arc::new(engine.stage(&bundle)?);
    for staged in revision.policies() {
        if let SnapshotStatus::NotPossible { reason } = staged.policy.snapshot() {
            findings
                .notes
                .push(format!("{} is configured again in every call: {reason}", staged.policy.description().name));
        }
    }
    let floors = Arc::new(floors(&engine, &bundle)?);
    let case = Arc::new(Case::new());
    let rounds = if options.quick { 1_000 } else { 10_000 };
    one_thread(&revision, &floors, &case, rounds, &mut findings)?;
    for threads in THREADS {
        chains(&revision, &case, threads, rounds, &mut findings)?;
    }
    Ok(findings)
}

/// The default chain as the host reads it.
pub fn read_bundle() -> Result<Bundle> {
    let folder = ground::policies()?.join("default");
    let read =
        |path: &str| std::fs::read(folder.join(path)).with_context(|| format!("reading {path} of the default chain"));
    let chain_toml = String::from_utf8(read("chain.toml")?)?;
    let mut files = BTreeMap::new();
    for wanted in ChainSpec::parse(&chain_toml)?.wanted_files() {
        let bytes = read(&wanted.path)?;
        files.insert(wanted.path, bytes);
    }
    Ok(Bundle { chain_toml, files, ..Bundle::default() })
}

/// The components as the engine runs them, on the bare runtime, in the order of [`HOOKS`].
fn floors(engine: &Engine, bundle: &Bundle) -> Result<Vec<Bare>> {
    let spec = ChainSpec::parse(&bundle.chain_toml)?;
    let floor = |hook: Hook| {
        let wanted =
            spec.policies.iter().find(|policy| policy.hook == hook).context("the default chain has every hook")?;
        let file = |path: &str| bundle.files.get(path).with_context(|| format!("{path} is in the bundle"));
        let settings = match &wanted.settings {
            SettingsSource::Empty => serde_json::json!({}),
            SettingsSource::Inline(value) => value.clone(),
            SettingsSource::File(path) => settings_from_file(path, file(path)?).map_err(|reason| anyhow!(reason))?,
        };
        let wasm = file(&wanted.component.file_key())?;
        let configured = snapshot_bytes(engine, hook, wasm, &settings).map_err(|reason| anyhow!(reason))?;
        Bare::new(hook, &configured).map_err(|reason| anyhow!(reason))
    };
    HOOKS.into_iter().map(floor).collect()
}

fn one_thread(revision: &Revision, floors: &[Bare], case: &Case, rounds: usize, findings: &mut Findings) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (hook, bare) in HOOKS.into_iter().zip(floors) {
        let costs = runtime.block_on(costs(revision, hook, bare, case, rounds))?;
        let (ours, bare) = (Times::new(costs.ours), Times::new(costs.bare));
        let (us, floor_us) = (Figure::Micros(ours.median_us()), Figure::Micros(bare.median_us()));
        let name = revision.policies().find(|staged| staged.policy.hook() == hook);
        let name = name.map(|staged| staged.policy.description().name.clone()).unwrap_or_default();
        findings.rows.push(
            Row::new(MEASURE, format!("{name}: fresh call, median"), us)
                .against("bare wasmtime, instantiate and call", floor_us)
                .aim(Aim::RatioAtMost(1.5)),
        );
        findings.rows.push(
            Row::new(MEASURE, format!("{name}: fresh call, p99"), Figure::Micros(ours.quantile_us(0.99)))
                .against("bare wasmtime, instantiate and call", Figure::Micros(bare.quantile_us(0.99))),
        );
        findings.notes.push(format!("{name}: {} units of fuel", costs.fuel));
    }
    let describe = runtime.block_on(async {
        let floor = floors.first().context("there is a classifier")?;
        let mut micros = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let took = floor.describe().await.map_err(|reason| anyhow!(reason))?;
            micros.push(took.as_secs_f64() * 1e6);
        }
        Ok::<_, anyhow::Error>(Times::new(micros))
    })?;
    findings.notes.push(format!(
        "bare wasmtime, instantiate and call the smallest export: median {:.1} µs, p99 {:.1} µs",
        describe.median_us(),
        describe.quantile_us(0.99)
    ));
    Ok(())
}

async fn costs(revision: &Revision, hook: Hook, bare: &Bare, case: &Case, rounds: usize) -> Result<Costs> {
    let mut costs = Costs::default();
    let context = CallContext::default();
    let mut left = rounds + WARM_UP;
    while left > 0 {
        let block = BLOCK.min(left);
        for _ in 0..block {
            let started = Instant::now();
            costs.fuel = case.call(revision, &context, hook).await?;
            costs.ours.push(started.elapsed().as_secs_f64() * 1e6);
        }
        for _ in 0..block {
            let took = case.call_bare(bare, hook).await.map_err(|reason| anyhow!(reason))?;
            costs.bare.push(took.as_secs_f64() * 1e6);
        }
        left -= block;
    }
    costs.ours.drain(..WARM_UP);
    costs.bare.drain(..WARM_UP);
    Ok(costs)
}

/// Whole chains on some threads at once.
fn chains(
    revision: &Arc<Revision>,
    case: &Arc<Case>,
    threads: usize,
    rounds: usize,
    findings: &mut Findings,
) -> Result<()> {
    let began = Instant::now();
    let running = (0..threads).map(|_| {
        let (revision, case) = (Arc::clone(revision), Arc::clone(case));
        std::thread::spawn(move || -> Result<Vec<f64>> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let context = CallContext::default();
                let mut micros = Vec::with_capacity(rounds);
                for _ in 0..rounds {
                    let started = Instant::now();
                    for hook in HOOKS {
                        case.call(&revision, &context, hook).await?;
                    }
                    micros.push(started.elapsed().as_secs_f64() * 1e6);
                }
                Ok(micros)
            })
        })
    });
    let running: Vec<_> = running.collect();
    let mut micros = Vec::new();
    for thread in running {
        micros.extend(thread.join().map_err(|_| anyhow!("a thread of the policy measure panicked"))??);
    }
    let elapsed = began.elapsed().as_secs_f64();
    let times = Times::new(micros);
    #[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
    let per_second = times.len() as f64 / elapsed;
    let chain = format!("chain of four, {threads} thread{}", if threads == 1 { "" } else { "s" });
    let median = Row::new(MEASURE, format!("{chain}: median"), Figure::Micros(times.median_us()));
    findings.rows.push(if threads == 1 { median.aim(Aim::AtMost(100.0)) } else { median });
    findings.rows.push(Row::new(MEASURE, format!("{chain}: p99"), Figure::Micros(times.quantile_us(0.99))));
    findings.rows.push(Row::new(MEASURE, format!("{chain}: chains"), Figure::PerSecond(per_second)));
    Ok(())
}

/// What the policies judge: a question about shipping in a conversation of some length, with six passages and a draft.
struct Case {
    turn: Turn,
    classification: Classification,
    passages: Vec<Passage>,
    draft: Draft,
    dossier: Dossier,
}

impl Case {
    fn new() -> Self {
        let passages = passages();
        let text = "Yes, we ship to Austria. A parcel to Austria costs 4.90 euros, is free from 60 euros, and takes 1 to 3 \
                    working days. Bicycles come by a forwarding agent, who calls you to agree on a day.";
        let draft = Draft {
            text: text.to_owned(),
            language: Some("en".to_owned()),
            cited: vec!["passage-0".to_owned(), "passage-1".to_owned()],
            instructions: vec![
                "Answer in the customer's language, in short sentences, from the passages only.".to_owned(),
            ],
        };
        let classification = Classification {
            route: Route::Answer,
            confidence: 0.9,
            labels: Vec::new(),
            reason: "Nothing speaks against an answer".to_owned(),
        };
        let dossier = Dossier {
            classification: classification.clone(),
            passages: passages.clone(),
            draft: Some(draft.text.clone()),
            no_draft_reason: None,
            evidence: Evidence { sentences: 3, supported: 3, best_score: 0.82, confidence: 0.86 },
            filters: vec![FilterOutcome {
                policy: "filter-safety".to_owned(),
                outcome: "pass".to_owned(),
                reason: String::new(),
                findings: Vec::new(),
            }],
        };
        Self { turn: turn(), classification, passages, draft, dossier }
    }

    /// One call on the engine; gives the fuel.
    async fn call(&self, revision: &Revision, context: &CallContext, hook: Hook) -> Result<u64> {
        fn fuel<T>(called: Called<T>) -> Result<u64> {
            let fuel = called.fuel_used;
            called.result.map(|_| fuel).map_err(|fault| anyhow!("a policy faulted: {fault}"))
        }
        match hook {
            Hook::Classify => fuel(revision.classify(context, &self.turn).await),
            Hook::Tone => fuel(revision.compose(context, &self.turn, &self.classification, &self.passages).await),
            Hook::Filter => {
                let run = revision.filter(context, &self.turn, &self.draft, &self.passages).await;
                if run.text().is_none() {
                    bail!("the filters hold the sample draft: {:?}", run.result);
                }
                Ok(run.steps.iter().map(|step| step.called.fuel_used).sum())
            }
            Hook::Escalate => fuel(revision.decide(context, &self.turn, &self.dossier).await),
        }
    }

    async fn call_bare(&self, bare: &Bare, hook: Hook) -> Result<std::time::Duration, String> {
        match hook {
            Hook::Classify => bare.classify(&self.turn).await,
            Hook::Tone => bare.compose(&self.turn, &self.classification, &self.passages).await,
            Hook::Filter => bare.apply(&self.turn, &self.draft, &self.passages).await,
            Hook::Escalate => bare.decide(&self.turn, &self.dossier).await,
        }
    }
}

fn turn() -> Turn {
    // 2026-01-14T09:30:00Z, a Wednesday.
    let now_ms = 1_768_383_000_000;
    let message = |number: u64, author, text: &str| Message {
        id: format!("m_{number}"),
        author,
        source: MessageSource::Text,
        text: text.to_owned(),
        payload: None,
        attachments: Vec::new(),
        sent_at_ms: now_ms - 600_000 + number * 60_000,
    };
    Turn {
        id: "0198a0b2-6f4e-7c1d-9e55-0c6c6a1f2b3d".to_owned(),
        now_ms,
        local_time: LocalTime {
            weekday: Weekday::Wednesday,
            minute_of_day: 630,
            date: "2026-01-14".to_owned(),
            time_zone: "Europe/Vienna".to_owned(),
        },
        page: Page { id: ground::PAGE.to_owned(), name: "Alpenrad".to_owned(), language: "en".to_owned() },
        customer: Customer { name: Some("Sam".to_owned()), locale: Some("en_GB".to_owned()) },
        messages: vec![message(
            9,
            Author::Customer,
            "Thanks! One more thing: do you ship to Austria, how long does a parcel take, and what would a bicycle cost to deliver?",
        )],
        history: vec![
            message(1, Author::Customer, "Hello, which helmet size do I need?"),
            message(2, Author::Bot, "Measure the circumference of your head just above the ears. M fits 55 to 59 cm."),
            message(3, Author::Customer, "And can I try a bicycle before I buy it?"),
            message(
                4,
                Author::Bot,
                "Yes. Test rides are free in our shop during opening hours. Bring an identity card.",
            ),
        ],
        detected_language: Some(("en".to_owned(), 0.98)),
        window: Some(Window { opened_by: "message".to_owned(), closes_at_ms: now_ms + 86_000_000 }),
        automated_turns: 2,
        disclosure_due: false,
        attributes: Vec::new(),
    }
}

fn passages() -> Vec<Passage> {
    let texts = [
        (
            "Shipping",
            "Yes. A parcel to Austria costs 4.90 euros, is free from 60 euros, and takes 1 to 3 working days.",
        ),
        (
            "Shipping: Bicycles",
            "Bicycles are delivered by a forwarding agent, who calls you to agree on a day. Delivery of a bicycle costs 39 euros in Austria and Germany, and 79 euros in Switzerland.",
        ),
        (
            "Shipping",
            "Yes. A parcel to Switzerland costs 14.90 francs and takes 3 to 6 working days. Customs and import tax are included.",
        ),
        (
            "Returns",
            "You can return unused goods within 30 days. Please put the return form into the parcel; the refund takes up to ten working days after the goods have arrived with us.",
        ),
        (
            "Contact",
            "Write to service@alpenrad.example or call +43 512 555 0100 during opening hours, Tuesday to Saturday from 10:00 to 18:00.",
        ),
        (
            "Tracking",
            "Use the tracking link in the dispatch e-mail. If there is no movement for three working days, write to us with your order number.",
        ),
    ];
    let passages = texts.into_iter().zip([0.82_f32, 0.61, 0.55, 0.31, 0.24, 0.2]).enumerate();
    passages
        .map(|(number, ((title, text), score))| Passage {
            id: format!("passage-{number}"),
            title: title.to_owned(),
            source: "shipping.md".to_owned(),
            text: text.to_owned(),
            language: Some("en".to_owned()),
            score,
            labels: Vec::new(),
        })
        .collect()
}

//! Records: judged again by the chain that made them, and by others.

use std::path::{Path, PathBuf};

use frontdesk_policy_engine::{
    Bundle, ChainSpec, Engine, EngineOptions, RecordedTurn, Revision, WantedFile, assembly, replay,
};
use serde_json::{Value, json};

use crate::support::{Chains, policyctl};

fn stage(engine: &Engine, chains: &Chains) -> Revision {
    let chain_toml = std::fs::read_to_string(chains.dir().join("chain.toml")).unwrap();
    let wanted = ChainSpec::parse(&chain_toml).unwrap().wanted_files();
    let read = |WantedFile { path, .. }: WantedFile| {
        let bytes = std::fs::read(chains.dir().join(&path)).unwrap();
        (path, bytes)
    };
    engine.stage(&Bundle { chain_toml, files: wanted.into_iter().map(read).collect(), ..Bundle::default() }).unwrap()
}

fn turn(id: &str, text: &str) -> Value {
    json!({
        "id": id, "now_ms": 1_772_447_400_000_u64,
        "local_time": { "weekday": "monday", "minute_of_day": 690, "date": "2026-03-02", "time_zone": "Europe/Vienna" },
        "page": { "id": "100", "name": "Alpenrad", "language": "en" },
        "customer": { "name": null, "locale": null },
        "messages": [{ "id": "m_1", "author": "customer", "source": "text", "text": text, "payload": null,
                       "attachments": [], "sent_at_ms": 1_772_447_400_000_u64 }],
        "history": [], "detected_language": ["en", 1.0], "window": null, "automated_turns": 0,
        "disclosure_due": false, "attributes": [],
    })
}

/// Turns as a host records them: what drafting gave, and then every verdict of the chain.
async fn record(revision: &Revision) -> Vec<Value> {
    let passage = json!({ "id": "p1", "title": "Shipping", "source": "faq", "text": "We ship to Austria in five days.",
                          "language": "en", "score": 0.87, "labels": [] });
    let drafted = |answer: &str| {
        json!({ "passages": [passage], "answer": answer, "citations": [{ "sentence": answer, "passages": ["p1"], "support": 1.0 }],
                "evidence": { "sentences": 1, "supported": 1, "best_score": 0.87, "confidence": 0.9 } })
    };
    let declined = json!({ "passages": [passage], "no_draft_reason": "declined",
                           "evidence": { "sentences": 0, "supported": 0, "best_score": 0.87, "confidence": 0.0 } });
    let turns = [
        ("Do you ship to Austria, and how long does it take?", drafted("Yes, we ship to Austria in five days.")),
        ("Where can I read about returns?", drafted("It is **simple**: see https://example.org/returns for more.")),
        ("Which of your bikes has a belt drive and eight gears?", declined),
        ("I want to talk to a real person", json!({ "no_draft_reason": "route" })),
        ("Thanks a lot!", json!({})),
    ];
    let mut rows = Vec::new();
    for (i, (text, drafting)) in turns.into_iter().enumerate() {
        let id = format!("turn-{i}");
        let mut document = json!({ "turn": turn(&id, text), "chain": "default", "manifest": revision.manifest() });
        let fields = document.as_object_mut().unwrap();
        fields.extend(drafting.as_object().unwrap().clone());
        let mut recorded: RecordedTurn = serde_json::from_value(document).unwrap();
        let judged = replay(revision, &recorded).await;
        recorded.classify = Some(judged.classify);
        (recorded.tone, recorded.plan, recorded.filter) = (judged.tone, judged.plan, judged.filter);
        recorded.escalate = judged.escalate;
        let mut record = serde_json::to_value(&recorded).unwrap();
        record["a_field_of_a_later_host"] = json!({ "x": 1 });
        rows.push(json!({ "turn_id": id, "record_version": 1, "record": record }));
    }
    rows
}

struct Recorded {
    chains: Chains,
    file: PathBuf,
    rows: Vec<Value>,
}

fn recorded() -> Recorded {
    let chains = Chains::new();
    let engine = Engine::new(EngineOptions { max_concurrent_calls: 2, ..EngineOptions::default() }).unwrap();
    let revision = stage(&engine, &chains);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let rows = runtime.block_on(record(&revision));
    let file = chains.root().join("records.jsonl");
    write(&file, &rows);
    Recorded { chains, file, rows }
}

fn write(file: &Path, rows: &[Value]) {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(file, lines.join("\n")).unwrap();
}

impl Recorded {
    fn replay(&self, code: i32) -> Value {
        let (records, chain) = (self.file.display().to_string(), self.chains.text());
        let ran = policyctl(&["replay", "--records", &records, "--with", &chain, "--json"]);
        ran.ended(code);
        ran.json()
    }
}

#[test]
fn the_revision_that_decided_decides_the_same_again() {
    let recorded = recorded();
    let report = recorded.replay(0);
    assert_eq!((&report["records"], &report["equal"], &report["same_revision"]), (&json!(5), &json!(5), &json!(5)));
    assert_eq!(report["levels"], json!({ "exact": 5 }));
    assert_eq!(report["fuel_recorded"], report["fuel_replayed"]);
}

#[test]
fn a_changed_filter_shows_where_and_only_there() {
    let recorded = recorded();
    recorded.chains.change("filter-safety.toml", "markdown = \"rewrite\"", "markdown = \"off\"");
    let report = recorded.replay(1);
    assert_eq!((&report["different"], &report["same_revision"]), (&json!(1), &json!(0)));
    let detail = &report["details"][0];
    assert_eq!(detail["turn_id"], "turn-1");
    assert_eq!(detail["level"], "exact");
    let paths: Vec<String> = detail["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{} {}", it["hook"].as_str().unwrap(), it["path"].as_str().unwrap()))
        .collect();
    assert!(paths.iter().all(|path| path.starts_with("filter ") || path.starts_with("escalate ")), "{paths:?}");
    assert!(paths.contains(&"filter /outcome/value/text".to_owned()), "{paths:?}");
}

#[test]
fn a_changed_tone_says_that_the_draft_would_differ() {
    let recorded = recorded();
    recorded.chains.change("tone-brand.toml", "tone = \"friendly\"", "tone = \"formal\"");
    let report = recorded.replay(1);
    // The three turns that were to be answered; the other two need no draft.
    assert_eq!(report["levels"], json!({ "draft-would-differ": 3, "exact": 2 }));
    // A signature is added to whatever is drafted.
    recorded.chains.change("tone-brand.toml", "tone = \"formal\"", "tone = \"friendly\"");
    recorded.chains.change("tone-brand.toml", "[signature]", "[signature]\nen = \"Your team\"");
    assert_eq!(recorded.replay(1)["levels"], json!({ "exact": 5 }));
}

#[test]
fn a_turn_that_would_be_answered_now_has_no_draft() {
    let recorded = recorded();
    let rules = std::fs::read_to_string(recorded.chains.dir().join("classify-rules.toml")).unwrap();
    let deaf = rules
        .replace("name = \"asks-for-person\"\nroute = \"human\"", "name = \"asks-for-person\"\nroute = \"answer\"");
    assert_ne!(rules, deaf);
    std::fs::write(recorded.chains.dir().join("classify-rules.toml"), deaf).unwrap();
    let report = recorded.replay(1);
    assert_eq!(report["levels"]["no-draft-recorded"], 1, "{report:#}");
    assert_eq!(report["details"][0]["differences"][0]["path"], "/route");
}

#[test]
fn diff_counts_what_changes_from_one_chain_to_the_other() {
    let (recorded, other) = (recorded(), Chains::new());
    let records = recorded.file.display().to_string();
    let same = policyctl(&["diff", &recorded.chains.text(), &other.text(), "--records", &records]).ended(0);
    assert!(same.contains("0 would end differently"), "{same}");
    other.change("escalate-default.toml", "min-best-score = 0.2", "min-best-score = 0.9");
    other.change("filter-safety.toml", "markdown = \"rewrite\"", "markdown = \"off\"");
    let ran = policyctl(&["diff", &recorded.chains.text(), &other.text(), "--records", &records, "--json"]);
    ran.ended(1);
    let report = ran.json();
    assert_eq!((&report["records"], &report["draft_would_differ"]), (&json!(5), &json!(0)));
    let outcomes = report["outcomes"].as_array().unwrap();
    let count = |from: &str, to: &str| {
        outcomes.iter().find(|it| it["from"] == from && it["to"] == to).map_or(0, |it| it["count"].as_u64().unwrap())
    };
    assert_eq!(
        (count("sent", "ticket"), count("ticket", "ticket"), count("ignored", "ignored")),
        (2, 2, 1),
        "{report:#}"
    );
    assert_eq!(report["samples"].as_array().unwrap().len(), report["changed"].as_u64().unwrap() as usize);
    assert!(report["distance_max"].as_f64().unwrap() > 0.5);
    let text = policyctl(&["diff", &recorded.chains.text(), &other.text(), "--file", &records]).ended(1);
    assert!(text.contains("Outcomes (rows before, columns after)") && text.contains("low-score"), "{text}");
}

#[test]
fn a_record_that_cannot_be_read_is_named() {
    let recorded = recorded();
    let mut rows = recorded.rows.clone();
    rows[2]["record"]["classify"]["result"]["Ok"]["route"] = json!("maybe");
    write(&recorded.file, &rows);
    let (records, chain) = (recorded.file.display().to_string(), recorded.chains.text());
    let said = policyctl(&["replay", "--records", &records, "--with", &chain]).ended(2);
    assert!(said.contains("line 3") && said.contains("record.classify.result"), "{said}");
    // Before it, there are two that can be.
    policyctl(&["replay", "--file", &records, "--with", &chain, "--limit", "2"]).ended(0);
}

/// Records of version 1 as a host wrote them, on its demo knowledge, for questions sent through the simulator. They stay
/// readable: later versions get files of their own.
#[test]
fn records_of_version_1_are_read_and_end_as_the_host_said() {
    let text = include_str!("../fixtures/records-v1.jsonl");
    let mut outcomes = Vec::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let recorded: RecordedTurn = serde_json::from_value(row["record"].clone()).unwrap();
        let ended = recorded.conclusion();
        assert_eq!(
            (&json!(ended.route), &json!(ended.outcome)),
            (&row["route"], &row["outcome"]),
            "{}",
            row["turn_id"]
        );
        assert_eq!(json!(ended.reason), row["reason"]);
        assert_eq!(recorded.revision_id().as_deref(), row["revision"].as_str());
        // These texts fit into one message each, so what was sent is what was decided; only that the host which wrote
        // these records did not disclose itself on turns without a plan.
        let disclosure = assembly::disclosure(&recorded.turn, recorded.plan.as_ref());
        let undisclosed = |text: String| match disclosure {
            Some(said) if recorded.plan.is_none() => text.trim_start_matches(said).trim_start().to_owned(),
            _ => text,
        };
        assert_eq!(ended.text.map(undisclosed).into_iter().collect::<Vec<_>>(), recorded.replies);
        outcomes.push(ended.outcome);
    }
    outcomes.sort();
    outcomes.dedup();
    assert_eq!(outcomes, ["ignored", "sent", "spam", "ticket"]);
}

//! Chains: checked, tested, measured.

use serde_json::{Value, json};

use crate::support::{Chains, guest, policyctl};

fn items(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

#[test]
fn check_says_what_a_chain_is() {
    let chains = Chains::new();
    let ran = policyctl(&["check", &chains.text(), "--json"]);
    ran.ended(0);
    let report = ran.json();
    assert_eq!(report["revision"].as_str().unwrap().len(), 64);
    let hooks: Vec<&str> = items(&report["policies"]).iter().filter_map(|policy| policy["hook"].as_str()).collect();
    assert_eq!(hooks, ["classify", "tone", "filter", "escalate"]);
    assert!(items(&report["policies"]).iter().all(|policy| policy["snapshotted"] == true), "{report:#}");
    // What nobody uses is told, and makes another revision.
    chains.change("chain.toml", "on_fault = \"hold\"", "on_fault = \"hold\"\n[policy.grants]\nknowledge = true");
    let again = policyctl(&["check", &chains.text()]).ended(0);
    assert!(again.contains("NOT USED: knowledge"), "{again}");
    assert!(!again.contains(report["revision"].as_str().unwrap()));
}

#[test]
fn a_mistake_is_named_by_file_and_field() {
    let table: [(&str, &str, &str, i32, &[&str]); 7] = [
        ("chain.toml", "version = 1", "version = 2", 2, &["chain.toml", "version = 2"]),
        ("chain.toml", "hook = \"tone\"", "hook = \"tune\"", 2, &["chain.toml", "tune"]),
        ("chain.toml", "tone-brand.wasm", "tone-brandy.wasm", 2, &["tone-brandy.wasm", "cannot be read"]),
        ("chain.toml", "../components", "../../components", 2, &["leads out of the folder"]),
        (
            "filter-safety.toml",
            "markdown = \"rewrite\"",
            "markdown = \"erase\"",
            2,
            &["filter-safety.toml", "/markdown"],
        ),
        ("filter-safety.toml", "markdown = \"rewrite\"", "markdown = ", 2, &["filter-safety.toml", "not TOML"]),
        (
            "chain.toml",
            "component = \"../components/tone-brand.wasm\"",
            "component = \"../components/classify-rules.wasm\"",
            3,
            &["policy 2", "serves the hook `classify`"],
        ),
    ];
    for (file, from, to, code, expected) in table {
        let chains = Chains::new();
        chains.change(file, from, to);
        let said = policyctl(&["check", &chains.text()]).ended(code);
        for part in expected {
            assert!(said.contains(part), "{to}: {part:?} is not in: {said}");
        }
    }
}

#[test]
fn every_case_of_the_default_chain_passes() {
    let chains = Chains::new();
    let ran = policyctl(&["test", &chains.text(), "--json"]);
    let report = ran.json();
    let failed: Vec<&Value> = items(&report["cases"]).iter().filter(|case| case["passed"] == false).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    ran.ended(0);
    for hook in ["classify", "tone", "filter", "escalate", "chain"] {
        assert!(items(&report["cases"]).iter().any(|case| case["hook"] == hook), "no case for {hook}");
    }
    let fuel = |case: &Value| items(&case["calls"]).iter().all(|call| call["fuel_used"].as_u64() > Some(0));
    assert!(items(&report["cases"]).iter().all(fuel));
}

/// Trying another of the tones that the settings offer is the first thing that a Page's owner does: it must not be refused.
#[test]
fn every_named_tone_passes_the_default_chains_cases() {
    for tone in ["formal", "concise", "playful"] {
        let chains = Chains::new();
        chains.change("tone-brand.toml", "tone = \"friendly\"", &format!("tone = \"{tone}\""));
        policyctl(&["test", &chains.text()]).ended(0);
    }
}

#[test]
fn a_case_that_does_not_hold_is_shown_with_the_difference() {
    let chains = Chains::new();
    let cases = chains.root().join("chain-more.toml");
    let text = r#"
        [[case]]
        name = "wrong on purpose"
        text = "I want to talk to a real person"
        language = "en"
        [case.expect]
        route = "answer"
        priority = "normal"
        text_contains = "a phone number"
        fuel_max = 7
        [[case]]
        name = "right"
        text = "Thanks!"
        language = "en"
        expect.outcome = "ignored"
    "#;
    std::fs::write(&cases, text).unwrap();
    let cases = cases.display().to_string();
    let ran = policyctl(&["test", &chains.text(), &cases, "--json"]);
    ran.ended(1);
    let report = ran.json();
    assert_eq!((&report["passed"], &report["failed"]), (&json!(1), &json!(1)));
    let fields: Vec<&str> =
        items(&report["cases"][0]["problems"]).iter().filter_map(|problem| problem["field"].as_str()).collect();
    assert_eq!(fields, ["fuel_max", "route", "text_contains"]);
    let said = policyctl(&["test", &chains.text(), &cases]).ended(1);
    for part in ["FAIL chain", "wrong on purpose", "expected answer", "found    human", "1 passed, 1 failed"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

#[test]
fn a_chain_goes_on_without_a_policy_that_faults() {
    let chains = Chains::new();
    std::fs::copy(guest("guest-misbehaving"), chains.root().join("components/classify-rules.wasm")).unwrap();
    chains.change(
        "chain.toml",
        "settings = \"classify-rules.toml\"",
        "[policy.settings]\ndo = \"later:trap\"\n[policy.limits]\nfuel = 10_000_000\n[policy.grants]\nknowledge = true",
    );
    // `on_fault` stood after the settings; it belongs to the policy, before its tables.
    chains.change("chain.toml", "# When the component fails, a person answers.\non_fault = \"human\"\n", "");
    chains.change("chain.toml", "hook = \"classify\"", "hook = \"classify\"\non_fault = \"human\"");
    let ran = policyctl(&["run", &chains.text(), "--text", "Hello", "--json"]);
    ran.ended(3);
    let report = ran.json();
    assert_eq!(report["verdict"]["outcome"], "ticket", "{report:#}");
    assert_eq!(report["verdict"]["ticket"]["reason"], "policy-fault");
    assert_eq!(report["fault"]["fault"], "trap");
    assert_eq!(report["calls"][0]["fuel_limit"], 10_000_000);
}

#[test]
fn bench_measures_every_hook_and_the_whole() {
    let chains = Chains::new();
    let ran = policyctl(&["bench", &chains.text(), "--calls", "20", "--json"]);
    ran.ended(0);
    let report = ran.json();
    let hooks: Vec<&str> = items(&report["costs"]).iter().filter_map(|cost| cost["hook"].as_str()).collect();
    assert_eq!(hooks, ["classify", "tone", "filter", "escalate", "chain"]);
    for cost in items(&report["costs"]) {
        let (median, p99) = (cost["median_us"].as_f64().unwrap(), cost["p99_us"].as_f64().unwrap());
        assert!(0.0 < median && median <= p99 && cost["fuel"].as_u64() > Some(0), "{cost}");
    }
}

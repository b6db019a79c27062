//! Whole chains: parsing, staging, and what a turn meets.

use std::collections::BTreeMap;

use frontdesk_policy_engine::gate::GateSpec;
use frontdesk_policy_engine::rollout::RolloutSpec;
use frontdesk_policy_engine::types::{Classification, Dossier, EscalationVerdict, Evidence, Route};
use frontdesk_policy_engine::{
    Bundle, CallContext, ChainSpec, FileKind, FilterResult, FilterRun, Grants, Hook, Limits, LoadRequest, Revision,
    RevisionId, WantedFile, sha256_hex,
};
use serde_json::json;

use crate::support::{draft, engine, guest, obedient, passage, turn};

const CHAIN: &str = r#"
version = 1
description = "For tests"

[[policy]]
hook = "escalate"
component = "../components/obedient.wasm"
on_fault = "human"

[[policy]]
hook = "filter"
component = "../components/obedient.wasm"
settings = "first.toml"
on_fault = "hold"

[[policy]]
hook = "classify"
component = "../components/obedient.wasm"
on_fault = "human"
[policy.settings]
route = "answer"
[policy.limits]
fuel = 20_000_000

[[policy]]
hook = "filter"
component = "../components/obedient.wasm"
settings = "second.json"
on_fault = "hold"

[[policy]]
hook = "tone"
component = "../components/obedient.wasm"
on_fault = "default-prompt"
[policy.grants]
knowledge = true

[gate]
routes_changed_max_percent = 5.0
"#;

fn bundle(chain_toml: &str, first: &str, second: &str) -> Bundle {
    let files = BTreeMap::from([
        ("../components/obedient.wasm".to_owned(), guest("guest-obedient")),
        ("first.toml".to_owned(), first.as_bytes().to_vec()),
        ("second.json".to_owned(), second.as_bytes().to_vec()),
    ]);
    Bundle { chain_toml: chain_toml.to_owned(), files, ..Bundle::default() }
}

fn stage(first: &str, second: &str) -> Revision {
    engine().stage(&bundle(CHAIN, first, second)).unwrap_or_else(|error| panic!("{error}"))
}

fn stage_error(bundle: &Bundle) -> String {
    engine().stage(bundle).expect_err("it must be refused").to_string()
}

#[test]
fn a_chain_is_read_in_the_order_of_a_turn() {
    let spec = ChainSpec::parse(CHAIN).expect("a chain");
    let hooks: Vec<_> = spec.policies.iter().map(|policy| (policy.hook, policy.number)).collect();
    assert_eq!(
        hooks,
        [(Hook::Classify, 3), (Hook::Tone, 5), (Hook::Filter, 2), (Hook::Filter, 4), (Hook::Escalate, 1)]
    );
    assert_eq!(spec.policies[0].limits, Limits { fuel: 20_000_000, ..Limits::default() });
    assert_eq!(spec.gate, GateSpec { routes_changed_max_percent: 5.0, ..GateSpec::default() });
    assert_eq!(spec.rollout, RolloutSpec::default());
    let wanted = |path: &str, kind| WantedFile { path: path.to_owned(), kind };
    assert_eq!(
        spec.wanted_files(),
        [
            wanted("../components/obedient.wasm", FileKind::Component),
            wanted("first.toml", FileKind::Settings),
            wanted("second.json", FileKind::Settings)
        ]
    );
}

#[test]
fn a_wrong_chain_is_refused_in_words() {
    let cases = [
        ("version = 1\n", "version = 2\n", "chain.toml says version = 2; this host reads version = 1"),
        ("version = 1\n", "", "missing field `version`"),
        ("hook = \"tone\"", "hook = \"tome\"", "unknown variant `tome`"),
        (
            "hook = \"tone\"",
            "hook = \"classify\"",
            "policy 5 (hook `classify`), on_fault: `default-prompt` is not possible here",
        ),
        (
            "hook = \"escalate\"\n",
            "hook = \"filter\"\n",
            "policy 1 (hook `filter`), on_fault: `human` is not possible here; for this hook write on_fault = \"hold\"",
        ),
        ("on_fault = \"hold\"", "", "missing field `on_fault`"),
        ("fuel = 20_000_000", "fuel = 20", "policy 3 (hook `classify`), limits: limits.fuel is 20"),
        ("fuel = 20_000_000", "fool = 20", "unknown field `fool`"),
        ("knowledge = true", "network = true", "unknown field `network`"),
        ("../components/obedient.wasm", "/etc/obedient.wasm", "must be a path relative to the chain's folder"),
        ("../components/obedient.wasm", "sha256:abc", "must have 64 lower-case hexadecimal digits"),
        ("first.toml", "first.yaml", "`first.yaml` must end in .toml or .json"),
        ("settings = \"first.toml\"", "settings = 5", "settings must be the name of a file, or a table"),
        ("[gate]", "[[gate]]", "chain.toml cannot be read"),
        ("max_percent = 5.0", "max_percent = 101.0", "chain.toml, [gate], routes_changed_max_percent: 101 was given"),
        ("[gate]", "[rollout]\non_change = \"canary\"\n[gate]", "chain.toml, [rollout], steps: on_change"),
    ];
    for (from, to, text) in cases {
        let error = ChainSpec::parse(&CHAIN.replacen(from, to, 1)).expect_err(text).to_string();
        assert!(error.contains(text), "{to}: {error}");
    }
    let twice =
        format!("{CHAIN}\n[[policy]]\nhook = \"tone\"\ncomponent = \"x.wasm\"\non_fault = \"default-prompt\"\n");
    let error =
        ChainSpec::parse(&twice.replace("[gate]\nroutes_changed_max_percent = 5.0", "")).expect_err("two tones");
    assert_eq!(error.to_string(), "chain.toml has 2 policies with hook = \"tone\"; it must have exactly one");
}

#[test]
fn filters_are_counted() {
    let chain = |filters: usize| {
        let policy = |hook: &str, on_fault: &str| {
            format!("[[policy]]\nhook = \"{hook}\"\ncomponent = \"x.wasm\"\non_fault = \"{on_fault}\"\n")
        };
        let rest = policy("classify", "human") + &policy("tone", "default-prompt") + &policy("escalate", "human");
        format!("version = 1\n{rest}{}", policy("filter", "hold").repeat(filters))
    };
    assert!(ChainSpec::parse(&chain(0)).is_ok());
    assert!(ChainSpec::parse(&chain(16)).is_ok());
    let error = ChainSpec::parse(&chain(17)).expect_err("too many").to_string();
    assert_eq!(error, "chain.toml has 17 policies with hook = \"filter\"; it must have at most 16");
}

#[test]
fn staging_names_the_policy_the_file_and_the_reason() {
    let mut missing = bundle(CHAIN, "", "{}");
    missing.files.remove("second.json");
    let error = stage_error(&missing);
    assert!(
        error.contains(
            "policy 4 (hook `filter`, component `../components/obedient.wasm`): the file `second.json` is missing"
        ),
        "{error}"
    );
    let error = stage_error(&bundle(CHAIN, "append = ", "{}"));
    assert!(error.contains("policy 2") && error.contains("settings `first.toml`: not TOML"), "{error}");
    let error = stage_error(&bundle(CHAIN, "", "{\"append\": }"));
    assert!(error.contains("settings `second.json`: not JSON") && error.contains("line 1 column"), "{error}");
    let error = stage_error(&bundle(CHAIN, "append = 5", "{}"));
    assert!(error.contains("the component refuses its settings") && error.contains("expected a string"), "{error}");
    let mut wrong = bundle(CHAIN, "", "{}");
    wrong.files.insert("../components/obedient.wasm".to_owned(), guest("guest-wrong-world"));
    let error = stage_error(&wrong);
    assert!(
        error.starts_with("policy 3 (hook `classify`") && error.contains("was to serve the hook `classify`"),
        "{error}"
    );
}

#[test]
fn a_component_may_be_named_by_its_digest() {
    let wasm = guest("guest-obedient");
    let digest = sha256_hex(&wasm);
    let chain = CHAIN.replace("../components/obedient.wasm", &format!("sha256:{digest}"));
    let mut by_digest = bundle(&chain, "", "{}");
    by_digest.files.insert(format!("sha256:{digest}"), wasm);
    let revision = engine().stage(&by_digest).expect("a revision");
    assert_eq!(*revision.id(), *stage("", "{}").id(), "where a component lies is not part of its revision");
    by_digest.files.insert(format!("sha256:{digest}"), guest("guest-wrong-world"));
    assert!(stage_error(&by_digest).contains(&format!("and the chain asks for sha256:{digest}")));
}

#[test]
fn the_id_follows_from_the_content_and_only_from_it() {
    let one = stage("append = \"!\"\nblock = \"x\"", "{}");
    let same = stage("# a comment\nblock = \"x\"\nappend = \"!\"", " { } ");
    assert_eq!(one.id(), same.id());
    assert_ne!(one.id(), stage("append = \"?\"\nblock = \"x\"", "{}").id(), "settings");
    assert_ne!(stage("append = \"!\"", "{}").id(), stage("", "{\"append\": \"!\"}").id(), "order of the filters");
    let id = |chain: &str| engine().stage(&bundle(chain, "", "{}")).expect("a revision").id().clone();
    assert_ne!(id(CHAIN), id(&CHAIN.replace("20_000_000", "20_000_001")), "limits");
    assert_ne!(id(CHAIN), id(&CHAIN.replace("knowledge = true", "knowledge = false")), "grants");
    assert_eq!(id(CHAIN), id(&CHAIN.replace("For tests", "For nobody")), "words about it");

    let text = serde_json::to_string(one.manifest()).expect("JSON");
    let manifest: frontdesk_policy_engine::Manifest = serde_json::from_str(&text).expect("a manifest");
    assert_eq!(manifest.id().expect("an id"), *one.id(), "a stored manifest still gives its id");
    assert_eq!(manifest.contract, "frontdesk:policy@0.1.0");
    assert_eq!(RevisionId::parse(one.id().as_str()).as_ref(), Some(one.id()));
    assert_eq!(RevisionId::parse("not an id"), None);
    let staged: Vec<_> = one.policies().map(|staged| staged.policy.hook()).collect();
    assert_eq!(staged, [Hook::Classify, Hook::Tone, Hook::Filter, Hook::Filter, Hook::Escalate]);
    assert_eq!(one.policies().nth(1).expect("tone").policy.unused_grants(), ["knowledge"]);
}

async fn filter(revision: &Revision, text: &str) -> FilterRun {
    revision.filter(&CallContext::default(), &turn("t"), &draft(text), &[passage("p")]).await
}

fn dossier(run: Option<&FilterRun>) -> Dossier {
    Dossier {
        classification: Classification {
            route: Route::Answer,
            confidence: 1.0,
            labels: Vec::new(),
            reason: String::new(),
        },
        passages: Vec::new(),
        draft: run.and_then(FilterRun::text).map(str::to_owned),
        no_draft_reason: None,
        evidence: Evidence::default(),
        filters: run.map(FilterRun::outcomes).unwrap_or_default(),
    }
}

#[tokio::test]
async fn a_turn_goes_through_the_chain() {
    let revision = stage("append = \" — Your shop\"", "{\"append\": \" (automated)\", \"block\": \"refund\"}");
    let (context, turn) = (&CallContext::default(), &turn("t"));
    let classification = revision.classify(context, turn).await.result.expect("a verdict");
    assert_eq!((classification.route, classification.labels), (Route::Answer, vec!["messages:1".to_owned()]));
    let classification =
        Classification { labels: Vec::new(), ..revision.classify(context, turn).await.result.expect("a verdict") };
    let plan = revision.compose(context, turn, &classification, &[passage("p")]).await.result.expect("a plan");
    assert_eq!(plan.instructions[0].text, "Shop: Route::Answer, 1 passages");
    assert_eq!((plan.language.as_deref(), plan.temperature), (Some("de"), Some(0.2)));

    let run = filter(&revision, "It is on its way.").await;
    let text = "It is on its way. — Your shop (automated)";
    let hint = u32::try_from("It is on its way. — Your shop".len()).expect("short");
    assert_eq!(run.result, FilterResult::Passed { text: text.to_owned(), split_hints: vec![hint] });
    assert_eq!(run.outcomes().len(), 2);
    let verdict = revision.decide(context, turn, &dossier(Some(&run))).await.result.expect("a verdict");
    assert_eq!(verdict, EscalationVerdict::Send);

    let run = filter(&revision, "No refund.").await;
    assert_eq!(
        run.result,
        FilterResult::Blocked { policy: "obedient".to_owned(), reason: "a word that must not go out".to_owned() }
    );
    assert_eq!((run.text(), run.outcomes()[1].outcome.as_str()), (None, "block"));
    let verdict = revision.decide(context, turn, &dossier(Some(&run))).await.result.expect("a verdict");
    assert_eq!(verdict.as_str(), "hand-over");
}

#[tokio::test]
async fn a_filter_that_faults_holds_the_text() {
    let revision = stage("panic_at = \"bomb\"", "{\"append\": \"!\"}");
    let run = filter(&revision, "A bomb").await;
    assert_eq!(run.result, FilterResult::Held { policy: "obedient".to_owned() });
    assert_eq!(run.steps.len(), 1, "the filters after it are not asked");
    assert!(run.fault().expect("a fault").detail.contains("the word was found"));
    let outcome = &run.outcomes()[0];
    assert_eq!((outcome.outcome.as_str(), outcome.reason.as_str()), ("block", "the filter failed: trap"));
    assert!(filter(&revision, "Peace").await.fault().is_none());
}

/// What a filter makes of a text must be a text that can be sent, and what a tone policy tells must be something.
#[tokio::test]
async fn texts_are_there_and_fit() {
    let replaced = |text: &str, times: usize| json!({"replace": [text, times]});
    for (settings, problem) in [
        (replaced("x", 20_000), None),
        (replaced("x", 20_001), Some("outcome.rewrite.text: 20001 bytes; at most 20000 are allowed")),
        (replaced("x", 100 << 10), Some("outcome.rewrite.text: 102400 bytes")),
        (replaced("x", 300 << 10), Some("more than 256 KiB were handed to the host at once")),
        (replaced("", 0), Some("outcome.rewrite.text: empty")),
        (replaced(" \n\t", 3), Some("outcome.rewrite.text: empty")),
        (replaced("\u{200b}\u{feff}\u{2060}", 5), Some("outcome.rewrite.text: empty")),
    ] {
        let request = LoadRequest {
            hook: Hook::Filter,
            wasm: &guest("guest-obedient"),
            settings: &settings,
            limits: Limits::default(),
            grants: Grants::default(),
        };
        match (engine().load(request), problem) {
            (Ok(_), None) => {}
            (Err(error), Some(problem)) => {
                assert_eq!(error.code(), "sample-turn-bad-output", "{error}");
                assert!(error.to_string().contains(problem), "{error}");
            }
            (loaded, _) => panic!("{settings}: {loaded:?}"),
        }
    }
    let settings = &json!({"instruct": " \u{200b} "});
    let (wasm, limits) = (&guest("guest-obedient"), Limits::default());
    let request = LoadRequest { hook: Hook::Tone, wasm, settings, limits, grants: Grants::default() };
    let error = engine().load(request).expect_err("an empty instruction");
    assert!(error.to_string().contains("instructions[0].text: empty; a text is required"), "{error}");
}

#[tokio::test]
async fn verdicts_of_filters_and_escalation_are_checked() {
    let cases = [
        (json!({"split_hints": [2, 1]}), "split-hints[1]: 1 follows 2; the offsets must ascend"),
        (json!({"split_hints": [1, 1]}), "split-hints[1]: 1 follows 1; the offsets must ascend"),
        (json!({"split_hints": [7]}), "split-hints[0]: 7 lies beyond the text, which has 6 bytes"),
        (json!({"split_hints": [5]}), "split-hints[0]: 5 lies inside a character"),
        (
            json!({"finding_at": [0, 5]}),
            "findings[0].at: 0..5 is no range of characters of the text, which has 6 bytes",
        ),
        (json!({"finding_at": [3, 2]}), "findings[0].at: 3..2 is no range of characters"),
    ];
    for (settings, text) in cases {
        // What is wrong whatever the text shows on the sample turn already.
        let policy = LoadRequest {
            hook: Hook::Filter,
            wasm: &guest("guest-obedient"),
            settings: &settings,
            limits: Limits::default(),
            grants: Grants::default(),
        };
        let fault = match engine().load(policy) {
            Ok(policy) => {
                policy.apply(&CallContext::default(), &turn("t"), &draft("Grieß"), &[]).await.result.expect_err(text)
            }
            Err(frontdesk_policy_engine::LoadError::Canary(fault)) => *fault,
            Err(other) => panic!("{other}"),
        };
        assert!(fault.to_string().contains(text), "{settings}: {fault}");
    }
    let fine = obedient(Hook::Filter, &json!({"split_hints": [0, 4, 6], "finding_at": [4, 6]}));
    assert!(fine.apply(&CallContext::default(), &turn("t"), &draft("Grieß"), &[]).await.result.is_ok());

    let blocked = Dossier { draft: Some("x".to_owned()), ..dossier(None) };
    for verdict in ["send", "send-and-ticket"] {
        let policy = obedient(Hook::Escalate, &json!({"verdict": verdict}));
        let context = &CallContext::default();
        let fault = policy.decide(context, &turn("t"), &dossier(None)).await.result.expect_err("no draft");
        assert!(fault.to_string().contains(&format!("{verdict}: there is no draft to send")), "{fault}");
        assert!(policy.decide(context, &turn("t"), &blocked).await.result.is_ok());
        let mut dossier = blocked.clone();
        dossier.filters = vec![frontdesk_policy_engine::types::FilterOutcome {
            policy: "f".to_owned(),
            outcome: "block".to_owned(),
            reason: "r".to_owned(),
            findings: Vec::new(),
        }];
        let fault = policy.decide(context, &turn("t"), &dossier).await.result.expect_err("blocked");
        assert!(fault.to_string().contains("a filter blocked the draft"), "{fault}");
    }
}

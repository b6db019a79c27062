//! What is refused, and in which words.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use frontdesk_policy_engine::{
    ArtifactCache, Engine, EngineError, EngineOptions, Grants, Hook, Limits, LoadError, LoadRequest, PoolUse,
    SnapshotStatus,
};
use serde_json::{Value, json};

use crate::support::{GRANTED, engine, fresh_engine, guest, load, turn};

fn refused(hook: Hook, wasm: &[u8], settings: &Value, grants: Grants) -> LoadError {
    engine()
        .load(LoadRequest { hook, wasm, settings, limits: Limits::default(), grants })
        .expect_err("it must be refused")
}

fn misbehaving(settings: &Value) -> LoadError {
    refused(Hook::Classify, &guest("guest-misbehaving"), settings, GRANTED)
}

#[test]
fn bytes_that_are_no_component() {
    let none = &json!({});
    let error = refused(Hook::Classify, b"\x7fELF and more", none, GRANTED);
    assert!(matches!(error, LoadError::NotWasm { bytes: 13 }), "{error}");
    let error = refused(Hook::Classify, b"", none, GRANTED);
    assert!(matches!(error, LoadError::NotWasm { bytes: 0 }), "{error}");
    let error = refused(Hook::Classify, b"\0asm\x01\0\0\0", none, GRANTED);
    assert!(matches!(error, LoadError::CoreModule), "{error}");
    assert!(error.to_string().contains("wasm-tools component new"), "{error}");
    let error = refused(Hook::Classify, b"\0asm\x0d\0\x01\0\xff\xff\xff", none, GRANTED);
    assert!(matches!(error, LoadError::Compile { .. }), "{error}");
    let error = refused(Hook::Classify, b"\0asm\x0d\0\x01\0", none, GRANTED);
    assert!(error.to_string().ends_with("It exports: nothing"), "{error}");
    let half = guest("guest-misbehaving");
    let error = refused(Hook::Classify, &half[..half.len() / 2], none, GRANTED);
    assert!(matches!(error, LoadError::Compile { .. }), "{error}");
}

/// Machine code is what the cache holds; it must not come in by the front door.
#[test]
fn a_precompiled_artefact_is_refused() {
    let cache = Arc::new(Cache::default());
    let engine = engine_with(&cache);
    load(&engine, Hook::Classify, "guest-obedient", &json!({}), Limits::default(), Grants::default())
        .expect("a policy");
    let artifact = cache.entries.lock().expect("the cache").values().next().expect("an artefact").clone();
    let error = refused(Hook::Classify, &artifact, &json!({}), GRANTED);
    assert!(matches!(error, LoadError::Precompiled), "{error}");
}

#[test]
fn another_world() {
    let error = refused(Hook::Classify, &guest("guest-wrong-world"), &json!({}), Grants::default());
    assert!(
        matches!(&error, LoadError::WrongWorld { expected: Hook::Classify, found } if *found == [Hook::Tone]),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "the component serves the hook `tone` (world `tone`), and was to serve the hook `classify`: write hook = \"tone\" in \
         chain.toml, or build it for the world `classifier`"
    );
}

#[test]
fn a_missing_grant_says_which_lines_to_add() {
    let error = refused(Hook::Classify, &guest("guest-misbehaving"), &json!({}), Grants::default());
    assert!(matches!(error, LoadError::GrantMissing { grant: "knowledge" }), "{error}");
    assert!(error.to_string().contains("\n[policy.grants]\nknowledge = true\n"), "{error}");
}

#[test]
fn an_unused_grant_is_reported() {
    let policy =
        load(engine(), Hook::Classify, "guest-obedient", &json!({}), Limits::default(), GRANTED).expect("a policy");
    assert_eq!(policy.unused_grants(), ["knowledge"]);
}

#[test]
fn a_component_that_cannot_describe_itself() {
    let error = refused(Hook::Tone, &guest("guest-wrong-world"), &json!({}), Grants::default());
    let LoadError::Describe(fault) = &error else { panic!("{error}") };
    assert_eq!(fault.function, "describe");
    assert!(matches!(fault.kind.as_str(), "out-of-fuel" | "deadline"), "{fault:?}");
    assert_eq!(error.code(), format!("describe-{}", fault.kind.as_str()));
    assert!(error.to_string().contains("guest_wrong_world::spin"), "{error}");
}

#[test]
fn a_component_that_fails_on_its_settings() {
    let error = misbehaving(&json!({"do": "trap-in-configure"}));
    let LoadError::Configure(fault) = &error else { panic!("{error}") };
    assert_eq!(
        (fault.function.as_str(), fault.kind.as_str(), fault.policy.as_str()),
        ("configure", "trap", "misbehaving")
    );
    assert!(error.to_string().contains("it exploded while configuring"), "{error}");
    let error = misbehaving(&json!({"do": "loop-in-configure"}));
    assert!(matches!(&error, LoadError::Configure(fault) if fault.kind.as_str() != "trap"), "{error}");
}

/// Whatever `configure` does, it ends, and has a name.
#[test]
fn a_component_that_will_not_be_configured() {
    for (action, code, says) in [
        ("trap-in-configure", "configure-trap", "it exploded while configuring"),
        ("loop-in-configure", "configure-out-of-fuel", "used up its fuel"),
        ("sleep-in-configure", "configure-deadline", "clocks stand still"),
        ("exit-in-configure", "configure-trap", "called exit(0)"),
        ("refuse", "settings-refused", "/do: `refuse` was found"),
    ] {
        let error = misbehaving(&json!({"do": action, "n": 60_000}));
        // A machine that is slow enough ends the loop by the clock.
        assert!(error.code() == code || action == "loop-in-configure", "{}: {error}", error.code());
        assert!(error.to_string().contains(says) || action == "loop-in-configure", "{error}");
    }
}

#[test]
fn refused_settings_are_told_in_bounded_words() {
    let error = misbehaving(&json!({"do": "refuse-at-length", "n": 500}));
    let LoadError::Refused { errors } = &error else { panic!("{error}") };
    assert_eq!(errors.len(), 100);
    let text = error.to_string();
    assert!(text.len() < 12_000 && text.ends_with("\n  and 80 more"), "{} bytes", text.len());
    assert_eq!(text.lines().count(), 22, "a line of the component's is one line here");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "nothing that moves a terminal's cursor");
    let error = misbehaving(&json!({"do": "refuse-at-length", "n": 20}));
    assert_eq!(error.to_string().lines().count(), 21);
}

#[test]
fn a_component_that_describes_itself_otherwise_when_it_is_configured() {
    let settings = json!({"do": "describe-otherwise"});
    for snapshots in [true, false] {
        let engine = Engine::new(EngineOptions { snapshots, ..crate::support::options(1) }).expect("an engine");
        let error = load(&engine, Hook::Classify, "guest-misbehaving", &settings, Limits::default(), GRANTED)
            .expect_err("it must be refused");
        assert_eq!(error.code(), "bad-description", "{error}");
        assert!(error.to_string().contains("it must always be the same"), "{error}");
    }
}

/// The guest's own bytes with one text in them replaced by another of the same length.
fn patched(from: &str, to: &str) -> Vec<u8> {
    let (mut wasm, from, to) = (guest("guest-obedient"), from.as_bytes(), to.as_bytes());
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = (0..wasm.len() - from.len()).filter(|at| wasm[*at..].starts_with(from)).collect();
    assert!(!places.is_empty(), "{from:?} is not in the guest");
    for at in places {
        wasm[at..at + to.len()].copy_from_slice(to);
    }
    wasm
}

#[test]
fn a_component_that_describes_itself_badly() {
    const SCHEMA: &str = r#"{"type": "object", "maxProperties": 3}"#;
    for (from, to, says) in [
        (SCHEMA, r#"{"type": "objekt", "maxProperties": 3}"#, "settings-schema: /type: \"objekt\" was found"),
        (SCHEMA, r#"{"type": "object", "maxProperties":-3}"#, "settings-schema: /maxProperties: -3 was found"),
        (SCHEMA, r#"{"type": "object", "maxProperties": 3 "#, "settings-schema: not JSON"),
        (SCHEMA, r#"["type", "object", "maxProperties", 3]"#, "settings-schema: a JSON object is required"),
        ("1.2.3-test.1", "1.2.3_test.1", "version: a semantic version"),
    ] {
        let error = refused(Hook::Classify, &patched(from, to), &json!({}), Grants::default());
        assert_eq!(error.code(), "bad-description", "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn refused_settings_come_with_their_places() {
    let error = misbehaving(&json!({"do": "refuse"}));
    assert_eq!(
        error.to_string(),
        "the component refuses its settings:\n  /do: `refuse` was found; anything else is taken"
    );
    let error = misbehaving(&json!({"did": "x"}));
    assert!(
        error.to_string().contains("\n  (the whole document): not settings of this policy: unknown field `did`"),
        "{error}"
    );
}

#[test]
fn what_fails_on_the_sample_turn_is_refused() {
    for (action, kind) in
        [("trap", "trap"), ("nan-confidence", "bad-output"), ("loop", "out-of-fuel"), ("sleep", "deadline")]
    {
        let error = misbehaving(&json!({"do": action, "n": 60_000}));
        let LoadError::Canary(fault) = &error else { panic!("{action}: {error}") };
        assert_eq!((fault.kind.as_str(), fault.function.as_str()), (kind, "classify"), "{action}: {error}");
        assert!(error.to_string().starts_with("the component fails on a sample turn: misbehaving 0.1.0"), "{error}");
    }
}

#[test]
fn refusals_leave_nothing_in_the_pool() {
    let engine = fresh_engine(1);
    for settings in [json!({"do": "trap-in-configure"}), json!({"do": "refuse"}), json!({"do": "trap"})] {
        for _ in 0..5 {
            load(&engine, Hook::Classify, "guest-misbehaving", &settings, Limits::default(), GRANTED)
                .expect_err("refused");
        }
    }
    assert_eq!(
        engine.pool_use(),
        PoolUse { component_instances: 0, core_instances: 0, memories: 0, tables: 0, stacks: 0, free_calls: 1 }
    );
}

#[test]
fn limits_and_options_out_of_range_are_refused() {
    let limits = Limits { memory_mib: 1_000, ..Limits::default() };
    let error = load(engine(), Hook::Classify, "guest-obedient", &json!({}), limits, GRANTED).expect_err("too much");
    assert!(error.to_string().starts_with("limits.memory_mib is 1000"), "{error}");
    let options = EngineOptions { max_concurrent_calls: 0, ..EngineOptions::default() };
    assert!(matches!(Engine::new(options), Err(EngineError::MaxConcurrentCalls { found: 0 })));
}

#[test]
fn a_component_whose_memory_starts_too_large() {
    // The guest's stack alone takes 1 MiB.
    let limits = Limits { memory_mib: 1, ..Limits::default() };
    let error = load(engine(), Hook::Classify, "guest-obedient", &json!({}), limits, GRANTED).expect_err("too little");
    let LoadError::Describe(fault) = &error else { panic!("{error}") };
    assert_eq!((fault.kind.as_str(), fault.function.as_str()), ("memory", "instantiate"), "{error}");
}

#[test]
fn what_a_policy_says_about_itself_and_its_settings() {
    let settings = json!({"verdict": "send", "append": null, "block": "x"});
    let policy = load(engine(), Hook::Filter, "guest-obedient", &settings, Limits::default(), Grants::default())
        .expect("a policy");
    assert_eq!(
        (policy.description().name.as_str(), policy.description().version.as_str()),
        ("obedient", "1.2.3-test.1")
    );
    assert_eq!(policy.settings(), r#"{"append":null,"block":"x","verdict":"send"}"#);
    assert_eq!(policy.settings_schema(), &json!({"type": "object", "maxProperties": 3}));
    assert_eq!(*policy.snapshot(), SnapshotStatus::Snapshotted);
    assert_eq!(policy.component_sha256().len(), 64);
}

#[derive(Default)]
struct Cache {
    entries: Mutex<BTreeMap<String, Vec<u8>>>,
    hits: Mutex<Vec<String>>,
}

impl ArtifactCache for Cache {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let found = self.entries.lock().expect("the cache").get(key).cloned();
        if found.is_some() {
            self.hits.lock().expect("the hits").push(key.to_owned());
        }
        found
    }

    fn put(&self, key: &str, artifact: &[u8]) {
        self.entries.lock().expect("the cache").insert(key.to_owned(), artifact.to_vec());
    }
}

fn engine_with(cache: &Arc<Cache>) -> Engine {
    let cache = Some(Arc::clone(cache) as Arc<dyn ArtifactCache>);
    Engine::new(EngineOptions { cache, max_concurrent_calls: 2, ..EngineOptions::default() }).expect("an engine")
}

#[tokio::test]
async fn compiled_components_come_from_the_cache() {
    let cache = Arc::new(Cache::default());
    let load_on = |engine: &Engine, route: &str| {
        let settings = json!({"route": route});
        load(engine, Hook::Classify, "guest-obedient", &settings, Limits::default(), Grants::default())
            .expect("a policy")
    };
    let first = load_on(&engine_with(&cache), "spam");
    let keys: Vec<String> = cache.entries.lock().expect("the cache").keys().cloned().collect();
    assert_eq!(keys.len(), 2, "the readable component and its snapshot: {keys:?}");
    assert!(keys.iter().all(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')));
    assert!(cache.hits.lock().expect("the hits").is_empty());

    let engine = engine_with(&cache);
    let again = load_on(&engine, "spam");
    assert_eq!(cache.hits.lock().expect("the hits").len(), 1, "the snapshot alone was needed");
    let context = frontdesk_policy_engine::CallContext::default();
    let (one, two) = (first.classify(&context, &turn("t")).await, again.classify(&context, &turn("t")).await);
    assert_eq!((one.result, one.fuel_used), (two.result, two.fuel_used));

    let other = load_on(&engine, "human").classify(&context, &turn("t")).await;
    assert_eq!(other.result.expect("a verdict").route.as_str(), "human", "other settings, another snapshot");

    for artifact in cache.entries.lock().expect("the cache").values_mut() {
        artifact.truncate(100);
    }
    load_on(&engine_with(&cache), "spam");
}

//! Limits as a chain's author writes them, from `chain.toml` to the call: each at the limit, and one past it. A fault names
//! hook, component, version, function, and the limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use frontdesk_policy_engine::chain::settings_from_file;
use frontdesk_policy_engine::types::Classification;
use frontdesk_policy_engine::{
    Bundle, CallContext, Called, FaultKind, Grants, Hook, KnowledgeLookup, Limits, LoadError, LoadRequest,
    LookupFuture, Revision,
};

use crate::support::{engine, guest, turn};

/// A chain whose classifier does as it is told, within these limits.
fn stage(action: &str, n: u32, limits: &str) -> Revision {
    let policy = |hook: &str, on_fault: &str| {
        format!("[[policy]]\nhook = \"{hook}\"\ncomponent = \"obedient.wasm\"\non_fault = \"{on_fault}\"\n")
    };
    let chain_toml = format!(
        "version = 1\n[[policy]]\nhook = \"classify\"\ncomponent = \"misbehaving.wasm\"\non_fault = \"human\"\n\
         [policy.settings]\ndo = \"later:{action}\"\nn = {n}\n[policy.limits]\n{limits}\n[policy.grants]\nknowledge = true\n\
         {}{}",
        policy("tone", "default-prompt"),
        policy("escalate", "human")
    );
    let files = BTreeMap::from([
        ("misbehaving.wasm".to_owned(), guest("guest-misbehaving")),
        ("obedient.wasm".to_owned(), guest("guest-obedient")),
    ]);
    let bundle = Bundle { chain_toml, files, ..Bundle::default() };
    engine().stage(&bundle).unwrap_or_else(|error| panic!("{action} {limits}: {error}"))
}

async fn called(action: &str, n: u32, limits: &str) -> Called<Classification> {
    stage(action, n, limits).classify(&CallContext::default(), &turn("t")).await
}

async fn labels(action: &str, n: u32, limits: &str) -> Vec<String> {
    called(action, n, limits).await.result.unwrap_or_else(|fault| panic!("{action} {limits}: {fault}")).labels
}

/// The fault of a call one past a limit; its text for logs names everything but what the guest said.
async fn fault(action: &str, n: u32, limits: &str) -> FaultKind {
    let fault = called(action, n, limits).await.result.expect_err(limits);
    assert_eq!(
        (fault.hook, fault.policy.as_str(), fault.version.as_str(), fault.function.as_str()),
        (Hook::Classify, "misbehaving", "0.1.0", "classify"),
        "{limits}"
    );
    let text = fault.to_string();
    assert!(text.starts_with("misbehaving 0.1.0 (classify), classify: "), "{text}");
    fault.kind
}

#[tokio::test]
async fn fuel_of_the_chain_is_the_fuel_of_the_call() {
    let used = called("work", 20_000, "fuel = 5_000_000_000").await.fuel_used;
    assert_eq!(called("work", 20_000, &format!("fuel = {used}")).await.fuel_used, used);
    let short = used - 1;
    assert_eq!(
        fault("work", 20_000, &format!("fuel = {short}")).await,
        FaultKind::OutOfFuel { limit: short, used: short }
    );
}

#[tokio::test]
async fn the_deadline_of_the_chain_ends_the_call() {
    let limits = "fuel = 5_000_000_000\ndeadline_ms = 40";
    let FaultKind::Deadline { limit_ms: 40, used_ms } = fault("loop", 0, limits).await else { panic!("a deadline") };
    assert!(used_ms >= 40, "{used_ms}");
    assert!(called("ok", 0, "deadline_ms = 10000").await.result.is_ok());
}

#[tokio::test]
async fn memory_of_the_chain_is_the_memory_of_the_instance() {
    let allocated = called("allocate", 3 << 20, "memory_mib = 128").await.memory_bytes;
    let enough = allocated.div_ceil(1 << 20);
    assert_eq!(called("allocate", 3 << 20, &format!("memory_mib = {enough}")).await.memory_bytes, allocated);
    let kind = fault("allocate", 3 << 20, &format!("memory_mib = {}", enough - 1)).await;
    assert_eq!(kind, FaultKind::Memory { limit_bytes: (enough - 1) << 20, wanted_bytes: allocated });
}

#[tokio::test]
async fn output_of_the_chain_is_what_is_handed_over() {
    assert!(called("long-line", 1_024, "output_kib = 1").await.result.is_ok());
    let FaultKind::BadOutput { field, problem } = fault("long-line", 1_026, "output_kib = 1").await else {
        panic!("bad output")
    };
    assert_eq!((field.as_str(), problem.as_str()), ("result", "more than 1 KiB were handed to the host at once"));
    let generous = "output_kib = 4096\nfuel = 5_000_000_000\nmemory_mib = 128\ndeadline_ms = 10000";
    for (n, limits, expected) in [
        (1_000_000, generous, "more than 4096 KiB were handed to the host at once"),
        (33, generous, "33 entries; at most 32 are allowed"),
    ] {
        let FaultKind::BadOutput { problem, .. } = fault("too-many-labels", n, limits).await else {
            panic!("bad output")
        };
        assert_eq!(problem, expected);
    }
}

#[tokio::test]
async fn log_lines_of_the_chain_are_kept() {
    for (n, dropped) in [(7, 0), (8, 1)] {
        let called = called("log-flood", n, "log_lines = 7").await;
        assert_eq!((called.logs.len(), called.logs_dropped), (7, dropped));
    }
}

#[tokio::test]
async fn lookups_of_the_chain_are_counted() {
    assert_eq!(labels("lookup", 2, "lookups = 2").await, ["unavailable", "unavailable"]);
    assert_eq!(labels("lookup", 3, "lookups = 2").await, ["unavailable", "unavailable", "limit-reached"]);
    assert_eq!(labels("lookup", 1, "lookups = 0").await, ["limit-reached"]);
}

struct Slow(Duration);

impl KnowledgeLookup for Slow {
    fn search<'a>(&'a self, _query: &'a str, _limit: u32) -> LookupFuture<'a> {
        Box::pin(async move {
            tokio::time::sleep(self.0).await;
            Ok(Vec::new())
        })
    }
}

#[tokio::test]
async fn the_lookup_time_of_the_chain_cuts_a_lookup_off() {
    let revision = stage("lookup", 1, "lookup_timeout_ms = 150\ndeadline_ms = 10000");
    for (ms, expected) in [(0, "found:0"), (60_000, "limit-reached")] {
        let context = CallContext::with_lookup(Arc::new(Slow(Duration::from_millis(ms))));
        let started = std::time::Instant::now();
        let verdict = revision.classify(&context, &turn("t")).await.result.expect("a verdict");
        assert_eq!(verdict.labels, [expected], "{ms} ms");
        assert!(ms == 0 || started.elapsed() >= Duration::from_millis(150));
    }
}

/// What is shipped is a release build: a fault in it must still say where.
#[test]
fn first_party_components_name_their_functions() {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let components = std::env::var_os("FRONTDESK_COMPONENTS_DIR")
        .map_or_else(|| repository.join("policies/components"), std::path::PathBuf::from);
    for (name, hook) in [
        ("classify-rules", Hook::Classify),
        ("tone-brand", Hook::Tone),
        ("filter-safety", Hook::Filter),
        ("escalate-default", Hook::Escalate),
    ] {
        let path = components.join(format!("{name}.wasm"));
        let wasm = std::fs::read(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask components` first", path.display()));
        let settings = format!("{name}.toml");
        let bytes = std::fs::read(repository.join("policies/default").join(&settings)).expect("its settings");
        let settings = settings_from_file(&settings, &bytes).expect("settings");
        let limits = Limits { fuel: 10_000, ..Limits::default() };
        let request = LoadRequest { hook, wasm: &wasm, settings: &settings, limits, grants: Grants::default() };
        let Err(LoadError::Canary(fault)) = engine().load(request) else {
            panic!("{name} needs more than 10,000 fuel")
        };
        assert_eq!(fault.kind, FaultKind::OutOfFuel { limit: 10_000, used: 10_000 });
        assert_eq!((fault.policy.as_str(), fault.function.as_str()), (name, hook.function()));
        let named = fault.guest_frames.iter().any(|frame| frame.contains("::") && !frame.starts_with("function "));
        assert!(named, "{name}: {:?}", fault.guest_frames);
        assert!(fault.to_string().contains("; in "), "{fault}");
    }
}

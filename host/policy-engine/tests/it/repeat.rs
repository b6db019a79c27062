//! Same arguments, same bytes: on another engine, at another time, snapshotted or not.

use frontdesk_policy_engine::{CallContext, Called, Engine, EngineOptions, Hook, Limits, SnapshotStatus};
use serde_json::json;

use crate::support::{fresh_engine, misbehaving_on, options, turn};

/// What a replay compares: everything but the time it took.
fn record<T: serde::Serialize>(called: &Called<T>) -> String {
    let mut record = serde_json::to_value(called).expect("JSON");
    record["elapsed_us"] = json!(0);
    record.to_string()
}

fn unsnapshotted() -> Engine {
    Engine::new(EngineOptions { snapshots: false, ..options(2) }).expect("an engine")
}

#[tokio::test]
async fn two_engines_agree_to_the_byte_and_the_unit_of_fuel() {
    let (first, second) = (fresh_engine(2), fresh_engine(3));
    for (action, n) in [("ok", 0), ("work", 10_000), ("random", 0), ("clock", 0), ("log-flood", 9), ("environment", 0)]
    {
        let one = misbehaving_on(&first, action, n, Limits::default());
        let two = misbehaving_on(&second, action, n, Limits::default());
        for id in ["turn-1", "turn-2"] {
            let context = CallContext::default();
            let (one, two) = (one.classify(&context, &turn(id)).await, two.classify(&context, &turn(id)).await);
            assert!(one.result.is_ok(), "{action}: {:?}", one.result);
            assert_eq!(record(&one), record(&two), "{action} {id}");
        }
    }
}

#[tokio::test]
async fn a_snapshot_changes_nothing_but_the_time() {
    let (with, without) = (fresh_engine(2), unsnapshotted());
    for (action, n) in [
        ("ok", 0),
        ("work", 10_000),
        ("random", 0),
        ("random-in-configure", 0),
        ("log-flood", 9),
        ("allocate", 1 << 20),
        ("lookup", 2),
    ] {
        let with = misbehaving_on(&with, action, n, Limits::default());
        let without = misbehaving_on(&without, action, n, Limits::default());
        assert_eq!(*with.snapshot(), SnapshotStatus::Snapshotted);
        let SnapshotStatus::NotPossible { reason } = without.snapshot() else { panic!("it was switched off") };
        assert_eq!(reason, "snapshots are switched off");
        let context = CallContext::default();
        let (with, without) = (with.classify(&context, &turn("t")).await, without.classify(&context, &turn("t")).await);
        assert!(with.result.is_ok(), "{action}: {:?}", with.result);
        assert_eq!(record(&with), record(&without), "{action}");
    }
}

/// The standard library keeps the stream that it printed to, and a snapshot cannot hold it. The component works all the
/// same, and says why it is slower.
#[tokio::test]
async fn a_component_that_cannot_be_snapshotted_is_configured_before_every_call() {
    let engine = fresh_engine(1);
    let policy = misbehaving_on(&engine, "print-in-configure", 0, Limits::default());
    let SnapshotStatus::NotPossible { reason } = policy.snapshot() else { panic!("it printed") };
    assert!(reason.contains("the stream that it printed to"), "{reason}");
    for _ in 0..3 {
        let fault = policy.classify(&CallContext::default(), &turn("t")).await.result.expect_err("it explodes");
        assert!(fault.detail.contains("line 0 on standard output"), "{}", fault.detail);
        assert!(
            !fault.detail.contains("configuring"),
            "what `configure` printed is not of this call: {}",
            fault.detail
        );
    }
    assert_eq!(engine.pool_use().component_instances, 0);
}

#[test]
fn records_keep_their_form() {
    use frontdesk_policy_engine::{Fault, FaultKind};
    let fault = Fault {
        hook: Hook::Filter,
        policy: "filter-safety".to_owned(),
        version: "1.0.0".to_owned(),
        function: "apply".to_owned(),
        kind: FaultKind::Deadline { limit_ms: 500, used_ms: 503 },
        detail: "the component ran past its deadline".to_owned(),
        guest_frames: vec!["spin".to_owned()],
    };
    let text = r#"{"hook":"filter","policy":"filter-safety","version":"1.0.0","function":"apply","fault":"deadline","limit_ms":500,"used_ms":503,"detail":"the component ran past its deadline","guest_frames":["spin"]}"#;
    assert_eq!(serde_json::to_string(&fault).expect("JSON"), text);
    assert_eq!(serde_json::from_str::<Fault>(text).expect("a fault"), fault);
    for kind in [
        FaultKind::Trap,
        FaultKind::OutOfFuel { limit: 5, used: 5 },
        FaultKind::Memory { limit_bytes: 1, wanted_bytes: 2 },
        FaultKind::BadOutput { field: "confidence".to_owned(), problem: "NaN".to_owned() },
    ] {
        let fault = Fault { kind: kind.clone(), ..fault.clone() };
        let text = serde_json::to_string(&fault).expect("JSON");
        assert_eq!(serde_json::from_str::<Fault>(&text).expect("a fault"), fault, "{text}");
        assert!(text.contains(kind.as_str()), "{text}");
    }
    let before = r#"{"fault":"out-of-fuel","limit":7}"#;
    assert_eq!(serde_json::from_str::<FaultKind>(before).expect("a fault"), FaultKind::OutOfFuel { limit: 7, used: 0 });
    use frontdesk_policy_engine::types::{EscalationVerdict, Outcome};
    let ask = EscalationVerdict::AskBack("Which?".to_owned());
    assert_eq!(serde_json::to_string(&ask).expect("JSON"), r#"{"kind":"ask-back","value":"Which?"}"#);
    assert_eq!(serde_json::to_string(&Outcome::Pass).expect("JSON"), r#"{"kind":"pass"}"#);
    let turn = turn("t");
    let text = serde_json::to_string(&turn).expect("JSON");
    assert!(text.contains(r#""detected_language":["de",0.9]"#), "{text}");
    assert_eq!(serde_json::from_str::<frontdesk_policy_engine::types::Turn>(&text).expect("a turn"), turn);
}

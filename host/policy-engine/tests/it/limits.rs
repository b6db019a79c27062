//! Each limit, at the limit and one past it.

use frontdesk_policy_engine::{CallContext, FaultKind, Limits};

use crate::support::{misbehaving, turn};

async fn called(
    action: &str,
    n: u32,
    limits: Limits,
) -> frontdesk_policy_engine::Called<frontdesk_policy_engine::types::Classification> {
    misbehaving(action, n, limits).classify(&CallContext::default(), &turn("t")).await
}

fn generous() -> Limits {
    Limits { fuel: 5_000_000_000, deadline_ms: 10_000, memory_mib: 128, output_kib: 4_096, ..Limits::default() }
}

#[tokio::test]
async fn fuel_is_exact() {
    for (action, n) in [("work", 50_000), ("log-flood", 40), ("lookup", 30)] {
        let used = called(action, n, generous()).await.fuel_used;
        assert!(used > 10_000, "{action}: {used}");
        let enough = called(action, n, Limits { fuel: used, ..generous() }).await;
        assert!(enough.result.is_ok(), "{action}: {:?}", enough.result);
        assert_eq!(enough.fuel_used, used, "{action}");
        let short = called(action, n, Limits { fuel: used - 1, ..generous() }).await;
        let fault = short.result.expect_err("one unit short");
        assert_eq!(fault.kind, FaultKind::OutOfFuel { limit: used - 1, used: used - 1 }, "{action}");
        assert_eq!(short.fuel_used, used - 1, "{action}");
    }
}

#[tokio::test]
async fn log_lines_are_kept_up_to_the_limit_and_counted_beyond() {
    for (n, limit, kept, dropped) in [(5, 5, 5, 0), (6, 5, 5, 1), (3, 0, 0, 3), (1_000, 1_000, 1_000, 0)] {
        let called = called("log-flood", n, Limits { log_lines: limit, ..generous() }).await;
        assert!(called.result.is_ok(), "{:?}", called.result);
        assert_eq!((called.logs.len(), called.logs_dropped), (kept, dropped), "{n} lines, at most {limit}");
        if let Some(line) = called.logs.first() {
            assert_eq!(line.message, "line 0\\nwith a break");
        }
    }
}

#[tokio::test]
async fn a_long_log_line_is_cut_between_characters() {
    for (n, kept) in [(1_024, 1_024), (1_026, 1_024), (4_000, 1_024), (10, 10)] {
        let called = called("long-line", n, generous()).await;
        assert_eq!(called.logs[0].message.len(), kept);
        assert!(called.logs[0].message.chars().all(|c| c == 'é'));
    }
}

/// A result's only text of its own is as long as the limit allows, or one byte longer.
#[tokio::test]
async fn output_is_exact() {
    let limits = || Limits { output_kib: 1, ..generous() };
    let at = called("long-line", 1_024, limits()).await;
    assert!(at.result.is_ok(), "{:?}", at.result);
    let past = called("long-line", 1_026, limits()).await;
    let fault = past.result.expect_err("past the limit");
    assert_eq!(
        fault.kind,
        FaultKind::BadOutput {
            field: "result".to_owned(),
            problem: "more than 1 KiB were handed to the host at once".to_owned()
        }
    );
}

#[tokio::test]
async fn labels_are_counted_and_measured() {
    assert!(called("too-many-labels", 32, generous()).await.result.is_ok());
    let fault = called("too-many-labels", 33, generous()).await.result.expect_err("33 labels");
    assert!(fault.to_string().contains("labels: 33 entries; at most 32 are allowed"), "{fault}");
    assert!(called("long-label", 64, generous()).await.result.is_ok());
    let fault = called("long-label", 65, generous()).await.result.expect_err("65 bytes");
    assert!(fault.to_string().contains("labels[0]: 65 bytes; at most 64 are allowed"), "{fault}");
    assert!(called("huge-output", 500, generous()).await.result.is_ok());
}

#[tokio::test]
async fn memory_is_bounded_to_the_page() {
    // What the instance has before it allocates, and the smallest limit that holds it with 3 MiB more.
    let before = called("ok", 0, generous()).await.memory_bytes;
    let allocated = called("allocate", 3 << 20, generous()).await.memory_bytes;
    assert!(allocated >= before + (3 << 20), "{before} {allocated}");
    assert_eq!(allocated % 65_536, 0);
    let enough = u32::try_from(allocated.div_ceil(1 << 20)).expect("a few MiB");
    let at = called("allocate", 3 << 20, Limits { memory_mib: enough, ..generous() }).await;
    assert_eq!(at.memory_bytes, allocated, "{:?}", at.result);
    let past = called("allocate", 3 << 20, Limits { memory_mib: enough - 1, ..generous() }).await;
    let FaultKind::Memory { limit_bytes, wanted_bytes } = past.result.expect_err("too little").kind else {
        panic!("a memory fault");
    };
    assert_eq!((limit_bytes, wanted_bytes), (u64::from(enough - 1) << 20, allocated));
}

#[test]
fn limits_outside_their_range_are_refused_by_name() {
    let cases = [
        (Limits { fuel: 9_999, ..Limits::default() }, "limits.fuel is 9999; it must be between 10000 and 5000000000"),
        (Limits { deadline_ms: 9, ..Limits::default() }, "limits.deadline_ms is 9; it must be between 10 and 10000"),
        (Limits { memory_mib: 129, ..Limits::default() }, "limits.memory_mib is 129; it must be between 1 and 128"),
        (Limits { output_kib: 0, ..Limits::default() }, "limits.output_kib is 0; it must be between 1 and 4096"),
        (Limits { log_lines: 1_001, ..Limits::default() }, "limits.log_lines is 1001; it must be between 0 and 1000"),
        (Limits { lookups: 33, ..Limits::default() }, "limits.lookups is 33; it must be between 0 and 32"),
        (
            Limits { lookup_timeout_ms: 0, ..Limits::default() },
            "limits.lookup_timeout_ms is 0; it must be between 1 and 5000",
        ),
    ];
    for (limits, text) in cases {
        assert_eq!(limits.checked().expect_err(text).to_string(), text);
    }
    let widest = Limits {
        fuel: 5_000_000_000,
        deadline_ms: 10_000,
        memory_mib: 128,
        output_kib: 4_096,
        log_lines: 1_000,
        lookups: 32,
        lookup_timeout_ms: 5_000,
    };
    assert!(widest.checked().is_ok());
    assert!(Limits::default().checked().is_ok());
}

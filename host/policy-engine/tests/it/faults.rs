//! Every way to misbehave ends in a named fault; the host, the pool and the next call know nothing of it.

use frontdesk_policy_engine::{CallContext, Fault, FaultKind, Limits, PoolUse};

use crate::support::{fresh_engine, misbehaving, misbehaving_on, turn};

/// Limits that end a bad call soon. The deadline is no part of them: on a busy machine it would come first.
fn tight() -> Limits {
    Limits { fuel: 20_000_000, deadline_ms: 10_000, memory_mib: 8, output_kib: 16, ..Limits::default() }
}

fn hurried() -> Limits {
    Limits { deadline_ms: 100, ..tight() }
}

async fn fault(action: &str, n: u32, limits: Limits) -> Fault {
    let policy = misbehaving(action, n, limits);
    policy.classify(&CallContext::default(), &turn("t")).await.result.expect_err(action)
}

#[tokio::test]
async fn each_misbehaviour_has_its_fault() {
    let cases: [(&str, u32, Limits, &str, &str); 21] = [
        ("loop", 0, tight(), "out-of-fuel", "used up its fuel"),
        ("loop", 0, Limits { fuel: 5_000_000_000, deadline_ms: 30, ..tight() }, "deadline", "ran past its deadline"),
        ("eat-memory", 0, tight(), "memory", "more memory than it may have"),
        ("trap", 0, tight(), "trap", "it exploded while classifying"),
        ("exit", 0, tight(), "trap", "called exit("),
        ("recurse", 0, Limits { fuel: 5_000_000_000, ..tight() }, "trap", "most likely too deep a recursion"),
        ("recurse-lightly", 0, Limits { fuel: 5_000_000_000, ..tight() }, "trap", "overflowed its stack"),
        ("err", 0, tight(), "trap", "the component gave up: I would rather not"),
        ("huge-output", 1_000_000, tight(), "bad-output", "more than 16 KiB"),
        ("huge-output", 501, tight(), "bad-output", "reason: 501 bytes; at most 500"),
        ("nan-confidence", 0, tight(), "bad-output", "confidence: NaN"),
        ("big-confidence", 0, tight(), "bad-output", "a number from 0 to 1 is required"),
        ("invalid-utf8", 0, tight(), "bad-output", "the result could not be read"),
        ("no-such-route", 0, tight(), "bad-output", "the result could not be read"),
        ("text-outside", 0, tight(), "bad-output", "the result could not be read"),
        ("text-of-negative-length", 0, tight(), "bad-output", "out of bounds of memory"),
        ("log-outside", 0, tight(), "trap", "a function of the host refused"),
        ("long-line", 1_000_000, tight(), "bad-output", "more than 16 KiB"),
        ("log-flood", 1_000_000, tight(), "out-of-fuel", "used up its fuel"),
        ("busy-host-calls", 0, tight(), "out-of-fuel", "used up its fuel"),
        ("sleep", 60_000, hurried(), "deadline", "clocks stand still"),
    ];
    for (action, n, limits, kind, detail) in cases {
        let fault = fault(action, n, limits).await;
        assert_eq!(fault.kind.as_str(), kind, "{action} {n}: {fault:?}");
        assert!(fault.detail.contains(detail), "{action} {n}: {fault:?}");
        assert_eq!(
            (fault.policy.as_str(), fault.version.as_str(), fault.function.as_str()),
            ("misbehaving", "0.1.0", "classify")
        );
    }
}

#[tokio::test]
async fn a_fault_names_the_functions_of_the_guest() {
    // Of a snapshotted one, which is another program than the one that was given.
    let policy = misbehaving_on(&fresh_engine(1), "loop", 0, tight());
    let fault = policy.classify(&CallContext::default(), &turn("t")).await.result.expect_err("it loops");
    assert!(fault.guest_frames.iter().any(|frame| frame == "guest_misbehaving::spin"), "{:?}", fault.guest_frames);
    assert!(fault.to_string().starts_with("misbehaving 0.1.0 (classify), classify: out of fuel"), "{fault}");
}

#[tokio::test]
async fn numbers_of_a_fault_are_the_limits_and_what_was_wanted() {
    let FaultKind::Memory { limit_bytes, wanted_bytes } = fault("eat-memory", 0, tight()).await.kind else {
        panic!("a memory fault");
    };
    assert_eq!(limit_bytes, 8 << 20);
    assert!(wanted_bytes > limit_bytes && wanted_bytes <= limit_bytes + (2 << 20), "{wanted_bytes}");
    let FaultKind::Deadline { limit_ms, used_ms } = fault("sleep", 60_000, hurried()).await.kind else {
        panic!("a deadline fault");
    };
    assert_eq!(limit_ms, 100);
    assert!(used_ms >= 100, "{used_ms}");
}

#[tokio::test]
async fn a_panic_message_stays_out_of_the_text_for_logs() {
    let fault = fault("trap", 0, tight()).await;
    assert!(fault.detail.contains("it exploded"));
    assert!(!fault.to_string().contains("exploded"), "{fault}");
}

#[tokio::test]
async fn what_is_printed_is_bounded_and_its_end_is_kept() {
    let fault = fault("print-flood", 10_000, Limits { fuel: 500_000_000, deadline_ms: 5_000, ..tight() }).await;
    assert_eq!(fault.kind, FaultKind::Trap, "{fault:?}");
    assert!(
        fault.detail.contains("line 9999") && fault.detail.contains("it exploded while printing"),
        "{}",
        fault.detail
    );
    assert!(fault.detail.len() <= 2_048);
}

/// Many more bad calls than the pool has slots, then as many good ones as it has, at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pool_gets_everything_back() {
    let engine = fresh_engine(4);
    let good = misbehaving_on(&engine, "ok", 0, tight());
    let quick = Limits { fuel: 1_000_000, deadline_ms: 20, ..tight() };
    for action in ["loop", "eat-memory", "trap", "exit", "recurse", "err", "huge-output", "log-flood", "sleep"] {
        let bad = misbehaving_on(&engine, action, 1_000_000, quick.clone());
        let calls = (0..12).map(|i| {
            let bad = bad.clone();
            tokio::spawn(async move { bad.classify(&CallContext::default(), &turn(&format!("t{i}"))).await })
        });
        for call in calls.collect::<Vec<_>>() {
            assert!(call.await.expect("no panic").result.is_err(), "{action}");
        }
        let called = good.classify(&CallContext::default(), &turn("after")).await;
        assert_eq!(called.result.expect(action).labels, ["calls:1"], "after {action}");
    }
    let calls = (0..4).map(|_| {
        let good = good.clone();
        tokio::spawn(async move { good.classify(&CallContext::default(), &turn("t")).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.expect("no panic").result.is_ok());
    }
    assert_eq!(
        engine.pool_use(),
        PoolUse { component_instances: 0, core_instances: 0, memories: 0, tables: 0, stacks: 0, free_calls: 4 }
    );
}

#[tokio::test]
async fn a_call_that_its_caller_drops_gives_its_slot_back() {
    let engine = fresh_engine(1);
    let policy = misbehaving_on(&engine, "sleep", 60_000, Limits { deadline_ms: 10_000, ..tight() });
    for _ in 0..5 {
        let call = policy.classify(&CallContext::default(), &turn("t")).await_for_ms(5).await;
        assert!(call.is_none(), "it was still asleep");
    }
    // A dropped call may still be leaving its thread.
    let begin = std::time::Instant::now();
    while engine.pool_use().component_instances > 0 || engine.pool_use().free_calls != 1 {
        assert!(begin.elapsed().as_secs() < 30, "{:?}", engine.pool_use());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// One thread, one hundred sleepers: none of them holds the thread.
#[tokio::test]
async fn sleepers_and_loops_leave_the_thread_to_others() {
    let engine = fresh_engine(100);
    let sleeper = misbehaving_on(&engine, "sleep", 60_000, Limits { deadline_ms: 300, ..tight() });
    let looper = misbehaving_on(&engine, "loop", 0, Limits { fuel: 5_000_000_000, deadline_ms: 150, ..tight() });
    let started = std::time::Instant::now();
    let calls: Vec<_> = (0..90)
        .map(|_| {
            let sleeper = sleeper.clone();
            tokio::spawn(async move { sleeper.classify(&CallContext::default(), &turn("t")).await })
        })
        .collect();
    let looping = tokio::spawn(async move { looper.classify(&CallContext::default(), &turn("t")).await });
    // A task that does nothing but wait its turn gets it while the loop runs.
    let mut turns = 0;
    while !looping.is_finished() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        turns += 1;
    }
    assert!(turns >= 5, "{turns}");
    assert_eq!(looping.await.expect("no panic").result.expect_err("a fault").kind.as_str(), "deadline");
    for call in calls {
        assert_eq!(call.await.expect("no panic").result.expect_err("a fault").kind.as_str(), "deadline");
    }
    // One after the other they would take 27 s.
    assert!(started.elapsed().as_secs() < 15, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_full_pool_makes_calls_wait_and_gives_up_in_bounded_time() {
    use frontdesk_policy_engine::{Engine, EngineOptions};
    let options = EngineOptions { queue_wait_ms: 200, ..crate::support::options(1) };
    let engine = Engine::new(options).expect("an engine");
    let short = misbehaving_on(&engine, "sleep", 60_000, Limits { deadline_ms: 50, ..tight() });
    let long = misbehaving_on(&engine, "sleep", 60_000, Limits { deadline_ms: 2_000, ..tight() });
    let good = misbehaving_on(&engine, "ok", 0, tight());
    let context = &CallContext::default();
    let (turn, other) = (&turn("t"), &turn("u"));
    let (held, waited) = tokio::join!(short.classify(context, turn), good.classify(context, other));
    assert!(held.result.is_err());
    assert!(waited.result.is_ok(), "{waited:?}");
    let (held, refused) = tokio::join!(long.classify(context, turn), good.classify(context, other));
    assert!(held.result.is_err());
    let fault = refused.result.expect_err("no instance came free in time");
    assert!(matches!(fault.kind, FaultKind::Deadline { limit_ms: 200, .. }), "{fault:?}");
    assert!(fault.detail.contains("no instance was free"), "{fault:?}");
    assert!(engine.pool_use().free_calls == 1 && good.classify(context, turn).await.result.is_ok());
}

#[tokio::test]
async fn a_policy_of_another_hook_is_not_called() {
    let policy = misbehaving("ok", 0, Limits::default());
    let called = policy.apply(&CallContext::default(), &turn("t"), &crate::support::draft("x"), &[]).await;
    assert!(called.result.expect_err("a fault").detail.contains("serves the hook classify"));
}

trait AwaitForMs: Future + Sized {
    async fn await_for_ms(self, ms: u64) -> Option<Self::Output> {
        tokio::time::timeout(std::time::Duration::from_millis(ms), self).await.ok()
    }
}

impl<F: Future> AwaitForMs for F {}

//! The one import that needs a grant: answered by the caller, bounded, recorded, replayed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use frontdesk_policy_engine::types::{LookupError, Passage};
use frontdesk_policy_engine::{
    CallContext, HostAnswer, KnowledgeLookup, Limits, LookupFuture, RecordedLookup, SearchAnswer,
};

use crate::support::{misbehaving, passage, turn};

#[derive(Default)]
struct Knowledge {
    asked: AtomicU32,
    delay_ms: u64,
    found: u32,
}

impl KnowledgeLookup for Knowledge {
    fn search<'a>(&'a self, query: &'a str, _limit: u32) -> LookupFuture<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(self.delay_ms)).await;
            if query == "query 1" {
                return Err(LookupError::Unavailable("the index is being rebuilt".to_owned()));
            }
            Ok((0..self.found).map(|i| passage(&format!("{query}/{i}"))).collect::<Vec<Passage>>())
        })
    }
}

#[tokio::test]
async fn answers_are_given_recorded_and_replayed() {
    let policy = misbehaving("lookup", 5, Limits { lookups: 4, ..Limits::default() });
    let knowledge = Arc::new(Knowledge { found: 9, ..Knowledge::default() });
    let called = policy.classify(&CallContext::with_lookup(Arc::clone(&knowledge) as _), &turn("t")).await;
    let verdict = called.result.clone().expect("a verdict");
    // Five at most are asked for, four look-ups at most are made.
    assert_eq!(verdict.labels, ["found:5", "unavailable", "found:5", "found:5", "limit-reached"]);
    assert_eq!(knowledge.asked.load(Ordering::Relaxed), 4);
    assert_eq!(called.host_answers.len(), 4);
    let HostAnswer::Search { query, limit, answer } = &called.host_answers[1];
    assert_eq!((query.as_str(), *limit), ("query 1", 5));
    assert_eq!(*answer, SearchAnswer::Failed(LookupError::Unavailable("the index is being rebuilt".to_owned())));

    let text = serde_json::to_string(&called.host_answers).expect("JSON");
    let answers: Vec<HostAnswer> = serde_json::from_str(&text).expect("the record");
    let replay = policy.classify(&CallContext::with_lookup(Arc::new(RecordedLookup::new(answers))), &turn("t")).await;
    assert_eq!(replay.result, called.result);
    assert_eq!(replay.host_answers, called.host_answers);
    assert_eq!(replay.fuel_used, called.fuel_used);
    assert_eq!(knowledge.asked.load(Ordering::Relaxed), 4, "nobody was asked again");
}

#[tokio::test]
async fn a_slow_lookup_is_cut_off_and_the_call_goes_on() {
    let limits = Limits { lookup_timeout_ms: 20, deadline_ms: 2_000, ..Limits::default() };
    let policy = misbehaving("lookup", 1, limits);
    let knowledge = Knowledge { delay_ms: 60_000, ..Knowledge::default() };
    let called = policy.classify(&CallContext::with_lookup(Arc::new(knowledge)), &turn("t")).await;
    assert_eq!(called.result.expect("a verdict").labels, ["limit-reached"]);
    assert_eq!(called.host_answers.len(), 1);
}

#[tokio::test]
async fn the_deadline_covers_lookups() {
    let limits = Limits { lookup_timeout_ms: 5_000, deadline_ms: 50, ..Limits::default() };
    let policy = misbehaving("lookup", 1, limits);
    let knowledge = Knowledge { delay_ms: 60_000, ..Knowledge::default() };
    let called = policy.classify(&CallContext::with_lookup(Arc::new(knowledge)), &turn("t")).await;
    assert_eq!(called.result.expect_err("a fault").kind.as_str(), "deadline");
}

#[tokio::test]
async fn without_a_lookup_the_component_is_told_so() {
    let policy = misbehaving("lookup", 2, Limits::default());
    let called = policy.classify(&CallContext::default(), &turn("t")).await;
    assert_eq!(called.result.expect("a verdict").labels, ["unavailable", "unavailable"]);
}

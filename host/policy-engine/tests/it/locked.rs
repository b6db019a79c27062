//! WASI is there so that standard libraries work, and gives nothing away.

use frontdesk_policy_engine::{CallContext, Limits};

use crate::support::{misbehaving, turn};

async fn labels(action: &str, id: &str) -> Vec<String> {
    let policy = misbehaving(action, 0, Limits::default());
    policy.classify(&CallContext::default(), &turn(id)).await.result.expect(action).labels
}

#[tokio::test]
async fn files_sockets_and_the_environment_are_out_of_reach() {
    assert_eq!(labels("read-file", "t").await, ["denied"]);
    assert_eq!(labels("write-file", "t").await, ["denied"]);
    assert_eq!(labels("open-socket", "t").await, ["denied", "denied"]);
    assert_eq!(labels("environment", "t").await, ["0:0"]);
}

#[tokio::test]
async fn clocks_stand_at_the_turn() {
    assert_eq!(labels("clock", "t").await, ["wall:1768383000123", "elapsed:0"]);
}

#[tokio::test]
async fn random_numbers_follow_from_the_turn_and_from_nothing_else() {
    let first = labels("random", "turn-1").await;
    assert_eq!(first, labels("random", "turn-1").await);
    assert_ne!(first, labels("random", "turn-2").await, "another turn, other numbers");
    let drawn = labels("random-in-configure", "turn-1").await;
    assert_eq!(drawn, labels("random-in-configure", "turn-2").await, "`configure` knows of no turn");
    assert_ne!(drawn, ["drawn:0"]);
}

#[tokio::test]
async fn nothing_is_left_of_a_call_in_the_next() {
    let policy = misbehaving("ok", 0, Limits::default());
    for i in 0..20 {
        let called = policy.classify(&CallContext::default(), &turn(&format!("t{i}"))).await;
        assert_eq!(called.result.expect("a verdict").labels, ["calls:1"]);
    }
}

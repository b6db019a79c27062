//! Whoever asks for a change and hangs up does not cut it off.

use std::time::Duration;

use serde_json::json;

use crate::fleet::{DISCLOSURE, changed_bundle, own_policies};
use crate::host::Host;

#[tokio::test]
async fn a_publication_ends_though_its_author_hung_up() {
    let policies = own_policies();
    let dir = policies.path().to_owned();
    let host = Host::start_with(move |plan| plan.settings.policies.dir.clone_from(&dir)).await;
    let active = || host.app.policies.current("default").map(|serving| serving.id().to_owned());
    let first = active().unwrap();
    let bundle = changed_bundle(&host, &first, DISCLOSURE, "You are writing to the automated assistant").await;
    let body = json!({ "bundle": bundle, "to": "activate", "reason": "new words" });

    // The revision cannot be stored while this is held, as if the gate before a move took long.
    let mut held = host.pool().begin().await.unwrap();
    sqlx::query("lock table policy_revisions in exclusive mode").execute(&mut *held).await.unwrap();
    let waiting = "select count(*) from pg_locks where not granted and relation = 'policy_revisions'::regclass
                      and database = (select oid from pg_database where datname = current_database())";
    tokio::select! {
        answer = host.admin("POST", "/admin/policies/default/revisions", Some(body)) => {
            panic!("it did not wait: {answer:?}");
        }
        () = host.until("the publication is under way", async || host.count(waiting).await > 0) => {}
    }
    // The connection is gone. Time for a host that would give up with it; one that does not, waits all the same.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(host.count(waiting).await > 0, "the publication was given up");
    held.rollback().await.unwrap();
    host.until("the revision is active", async || active().is_some_and(|now| now != first)).await;
}

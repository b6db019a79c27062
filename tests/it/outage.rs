//! What the host does while something it stands on is away: Redis, Postgres, its policies.

mod postgres;
mod redis;

use std::path::Path;

use serde_json::{Value, json};

use crate::fleet::{copy_folder, own_policies, replace};
use crate::host::{ANSWER, Host, QUESTION};

pub use postgres::{Line, Proxy};

async fn host_on(policies: &Path) -> Host {
    let dir = policies.to_owned();
    let host = Host::start_with(move |plan| {
        plan.settings.policies.dir.clone_from(&dir);
        plan.settings.policies.poll_ms = 500;
    })
    .await;
    host.teach_answer().await;
    host
}

pub async fn chain(host: &Host) -> Value {
    let (status, answer) = host.admin("GET", "/admin/policies", None).await;
    assert_eq!(status, 200, "{answer}");
    answer["chains"][0].clone()
}

#[tokio::test]
async fn without_any_policy_a_person_gets_the_turn() {
    let empty = tempfile::tempdir().unwrap();
    let host = host_on(empty.path()).await;
    let status = chain(&host).await;
    assert_eq!(status["revision"], Value::Null, "{status}");
    assert!(status["rejected"]["reason"].as_str().unwrap().contains("chain.toml"), "{status}");
    host.ask("1401", QUESTION).await;
    host.drained().await;
    assert_eq!(host.got("1401"), [""; 0]);
    assert_eq!(host.tickets("1401").await, ["no-policy"]);
    assert_eq!(host.owner("1401").await, "human");
    // The folder is filled while the host runs.
    copy_folder(own_policies().path(), empty.path());
    host.until("the policies serve", async || chain(&host).await["revision"].is_string()).await;
    host.ask("1402", QUESTION).await;
    host.drained().await;
    assert_eq!(host.got("1402").len(), 1);
}

#[tokio::test]
async fn a_start_with_a_broken_folder_serves_what_served_last() {
    let policies = own_policies();
    let host = host_on(policies.path()).await;
    let before = chain(&host).await;
    assert_eq!(before["origin"], "folder", "{before}");
    std::fs::write(policies.path().join("default/chain.toml"), "version = 1\n[[policy]]\nhook = \"nonsense\"\n")
        .unwrap();
    let host = host.restart().await;
    let after = chain(&host).await;
    assert_eq!((&after["origin"], &after["revision"]), (&json!("last-good"), &before["revision"]), "{after}");
    assert!(after["rejected"]["reason"].as_str().is_some_and(|reason| reason.contains("nonsense")), "{after}");
    host.ask("1501", QUESTION).await;
    host.drained().await;
    assert!(host.got("1501")[0].contains(ANSWER));
}

#[tokio::test]
async fn a_changed_component_serves_without_a_restart_and_a_broken_one_never() {
    let policies = own_policies();
    let host = host_on(policies.path()).await;
    let component = policies.path().join("components/filter-safety.wasm");
    let good = std::fs::read(&component).unwrap();
    let first = chain(&host).await["revision"].clone();
    host.ask("1601", QUESTION).await;
    host.drained().await;
    assert_eq!(host.turns("1601").await[0]["revision"], first);

    // The same component with a custom section more: other bytes, the same behaviour.
    let mut changed = good.clone();
    changed.extend_from_slice(&[0, 5, 4, b't', b'e', b's', b't']);
    replace(&component, &changed);
    host.until("the changed component serves", async || {
        let now = chain(&host).await["revision"].clone();
        now.is_string() && now != first
    })
    .await;
    let second = chain(&host).await["revision"].clone();
    host.ask("1602", QUESTION).await;
    host.drained().await;
    assert_eq!(host.turns("1602").await[0]["revision"], second);

    // A broken component and broken settings change nothing, and the reason is told.
    let settings = policies.path().join("default/tone-brand.toml");
    let good_settings = std::fs::read(&settings).unwrap();
    let broken: [(&Path, &[u8], &[u8], &str); 3] = [
        (&component, &good[..good.len() / 2], &changed, "filter-safety"),
        (&component, b"not wasm at all", &changed, "filter-safety"),
        (&settings, b"tone = 5\n", &good_settings, "tone"),
    ];
    for (at, (path, content, mended, said)) in broken.into_iter().enumerate() {
        replace(path, content);
        host.until("the broken one is rejected", async || !chain(&host).await["rejected"].is_null()).await;
        let status = chain(&host).await;
        assert_eq!(status["revision"], second, "{status}");
        let reason = status["rejected"]["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains(said), "{reason}");
        let psid = format!("161{at}");
        host.ask(&psid, QUESTION).await;
        host.drained().await;
        assert_eq!(host.turns(&psid).await[0]["revision"], second);
        assert_eq!(host.got(&psid).len(), 1);
        // Mended: the complaint goes, and the same revision serves on.
        replace(path, mended);
        host.until("the complaint is gone", async || chain(&host).await["rejected"].is_null()).await;
        assert_eq!(chain(&host).await["revision"], second);
    }
    assert!(host.count("select count(*) from policy_transitions").await >= 5);

    // Settings alone are enough for a new revision, and its words are the ones that are sent.
    let text = String::from_utf8(good_settings).unwrap();
    let reworded =
        text.replace("You are chatting with the automated assistant", "You are writing to the automated assistant");
    assert_ne!(reworded, text);
    replace(&settings, reworded.as_bytes());
    host.until("the settings serve", async || chain(&host).await["revision"] != second).await;
    host.ask("1620", QUESTION).await;
    host.drained().await;
    assert!(host.got("1620")[0].contains("You are writing to the automated assistant"), "{:?}", host.got("1620"));
}

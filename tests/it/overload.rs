//! More than the host can do at once, and engines that fall over amid work: what was taken is kept, what cannot be taken is
//! refused in time, and what must wait waits.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use frontdesk_server::embedded::{Durability, Engines, EnginesConfig, Which};
use frontdesk_testkit::wire;
use secrecy::ExposeSecret;
use serde_json::Value;
use sqlx::PgPool;

use crate::host::{ADMIN_TOKEN, ANSWER, APP_SECRET, Host, PAGE, QUESTION};
use crate::model::HeldModel;
use crate::outage::{Line, Proxy};

const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn while_the_model_is_slow_turns_wait_and_the_customer_sees_typing() {
    let model = HeldModel::start(&format!("{ANSWER} [1]")).await;
    let settings = model.settings();
    let host = Host::start_with(move |plan| {
        plan.settings.model = settings.clone();
        plan.settings.worker.concurrency = 2;
    })
    .await;
    host.teach_answer().await;
    let psids: Vec<String> = (0..6).map(|at| format!("41{at:02}")).collect();
    for psid in &psids {
        host.ask(psid, QUESTION).await;
    }
    host.until("the first drafts", async || model.asked() == 2).await;
    let typing = async || {
        let calls = host.graph.calls().into_iter();
        calls
            .filter(|call| call.body["sender_action"].as_str().is_some_and(|a| a.eq_ignore_ascii_case("typing_on")))
            .count()
    };
    host.until("typing is shown to both", async || typing().await == 2).await;
    assert_eq!(model.asked(), 2, "no more at once than workers");
    assert!(psids.iter().all(|psid| host.got(psid).is_empty()));
    assert_eq!(host.count("select count(*) from inbox where state = 'pending'").await, 6, "all of it is kept");
    model.release(psids.len());
    host.drained().await;
    for psid in &psids {
        assert_eq!((host.got(psid).len(), host.tickets(psid).await.len()), (1, 0), "{psid}");
    }
}

#[tokio::test]
async fn more_deliveries_than_the_inbox_may_hold_are_refused_at_once_and_taken_later() {
    let proxy = Proxy::start().await;
    let port = proxy.port;
    let host = Host::start_with(move |plan| {
        plan.settings.inbox.pending_max = 3;
        plan.settings.inbox.writers = 1;
        plan.settings.server.ack_timeout_ms = 2_000;
        plan.secrets.database_url = plan.secrets.database_url.as_ref().map(|url| Proxy::through(port, url));
    })
    .await;
    host.teach_answer().await;
    host.ask("4200", QUESTION).await;
    host.drained().await;
    proxy.set(Line::Dead);
    let bodies: Vec<(String, String, Value)> = (0..12)
        .map(|at| {
            let (psid, mid, now_ms) = (format!("42{:02}", at + 1), wire::new_mid(), wire::now_ms());
            host.graph.record_inbound(PAGE, &psid, &mid, QUESTION);
            let piece = wire::from_person(PAGE, &psid, now_ms, wire::text(&mid, QUESTION));
            (psid, mid, wire::body(PAGE, now_ms, vec![piece]))
        })
        .collect();
    let posts: Vec<_> = bodies
        .iter()
        .map(|(_, _, body)| {
            let (meta, body) = (host.meta.clone(), body.clone());
            tokio::spawn(async move {
                let begin = Instant::now();
                (meta.post(&body).await.unwrap(), begin.elapsed())
            })
        })
        .collect();
    let mut at_once = 0;
    for post in posts {
        let (status, took) = post.await.unwrap();
        assert_eq!(status, 503, "nothing is acknowledged that is not stored");
        assert!(took < Duration::from_millis(4_500), "{took:?}");
        at_once += usize::from(took < Duration::from_millis(1_500));
    }
    assert!(at_once >= 6, "{at_once} were refused without waiting for the database");
    let stored = async |mid: &str| -> bool {
        sqlx::query_scalar("select exists (select from inbox where mid = $1)")
            .bind(mid)
            .fetch_one(host.pool())
            .await
            .unwrap()
    };
    proxy.set(Line::Open);
    for (psid, mid, body) in &bodies {
        let begin = Instant::now();
        while host.meta.post(body).await.ok() != Some(200) {
            assert!(begin.elapsed() < PATIENCE, "{psid}: the host does not recover");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(stored(mid).await, "{psid} was acknowledged and is not stored");
    }
    host.drained().await;
    for (psid, ..) in &bodies {
        assert_eq!(host.got(psid).len(), 1, "{psid}");
    }
}

/// Engines of the test's own, in a folder that their user can reach.
async fn own_postgres() -> (tempfile::TempDir, Engines) {
    let binaries = std::env::var_os("FRONTDESK_ENGINES_DIR").expect(
        "FRONTDESK_ENGINES_DIR is not set: run `cargo xtask test`, or set it to what `cargo xtask fetch` prints",
    );
    let folder = tempfile::Builder::new().prefix("frontdesk-it-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let config = EnginesConfig {
        binaries_dir: PathBuf::from(binaries),
        data_dir: folder.path().join("data"),
        // As in service: an acknowledgement outlives the server's death.
        durability: Durability::Durable,
    };
    let engines = Engines::start(config, Which::Postgres).await.unwrap();
    (folder, engines)
}

#[tokio::test]
async fn a_postgres_that_is_killed_amid_commits_loses_nothing_that_was_acknowledged() {
    const ROUNDS: u64 = 4;
    let (_folder, engines) = own_postgres().await;
    let url = engines.database_url().unwrap();
    let given = url.clone();
    let host = Host::start_with(move |plan| {
        plan.settings.server.ack_timeout_ms = 1_000;
        plan.settings.worker.lease_ms = 2_000;
        plan.settings.worker.attempts_max = 100;
        plan.settings.graph.timeout_ms = 400;
        plan.settings.outbox.in_doubt_after_ms = 600;
        plan.secrets.database_url = Some(given.clone());
    })
    .await;
    host.teach_answer().await;
    let pool = PgPool::connect(url.expose_secret()).await.unwrap();
    let mut psids = Vec::new();
    for round in 0..ROUNDS {
        let posts: Vec<_> = (0..8)
            .map(|at| {
                let (psid, mid, now_ms) = (format!("43{round}{at}"), wire::new_mid(), wire::now_ms());
                host.graph.record_inbound(PAGE, &psid, &mid, QUESTION);
                psids.push(psid.clone());
                let piece = wire::from_person(PAGE, &psid, now_ms, wire::text(&mid, QUESTION));
                let (meta, body) = (host.meta.clone(), wire::body(PAGE, now_ms, vec![piece]));
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(at * 10)).await;
                    // Meta repeats it until it is acknowledged.
                    let begin = Instant::now();
                    while meta.post(&body).await.ok() != Some(200) {
                        assert!(begin.elapsed() < PATIENCE, "{psid}: Postgres does not come back");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(20 + 30 * round)).await;
        let begin = Instant::now();
        // It may still be on its way back from the round before.
        let pid = loop {
            if let Some(pid) = engines.status().postgres.and_then(|postgres| postgres.pid) {
                break pid;
            }
            assert!(begin.elapsed() < PATIENCE, "Postgres was not started again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        for post in posts {
            post.await.unwrap();
        }
    }
    let begin = Instant::now();
    loop {
        let open: Result<i64, _> = sqlx::query_scalar(
            "select (select count(*) from inbox where state = 'pending')
                  + (select count(*) from outbox where state in ('queued', 'sending', 'unknown'))",
        )
        .fetch_one(&pool)
        .await;
        if matches!(open, Ok(0)) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "the host does not finish: {open:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let asked: HashSet<String> = sqlx::query_scalar("select psid from inbox where kind = 'message'")
        .fetch_all(&pool)
        .await
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(asked, psids.iter().cloned().collect(), "everything that was acknowledged is there");
    for psid in &psids {
        assert_eq!(host.got(psid).len(), 1, "{psid}");
    }
    let tickets: i64 = sqlx::query_scalar("select count(*) from tickets").fetch_one(&pool).await.unwrap();
    assert_eq!(tickets, 0);
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_load_command_reports_times_and_looks_for_losses() {
    let host = Host::start_with(|plan| plan.roles.work = false).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, secret: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, secret).unwrap();
        path
    };
    let (app_secret, admin_token) = (file("app", APP_SECRET), file("admin", ADMIN_TOKEN));
    let load = async |secret: &std::path::Path| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_frontdesk-bench"))
            .args(["load", "--rate", "40", "--seconds", "2", "--batch", "3", "--connections", "4", "--page", PAGE])
            .args(["--address", host.address.trim_start_matches("http://"), "--app-secret-file"])
            .arg(secret)
            .arg("--admin-token-file")
            .arg(&admin_token)
            .output()
            .await
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    };
    let (good, said) = load(&app_secret).await;
    assert!(good, "{said}");
    let expected = ["acknowledged         80 ", "p50", "p99.9", "lost                 0 of 240 acknowledged messages"];
    assert!(expected.iter().all(|line| said.contains(line)), "{said}");
    assert_eq!(host.count("select count(*) from inbox where kind = 'message'").await, 240);

    // What is not there is found out.
    let mids: Vec<String> = vec!["m_never".into()];
    let question = serde_json::json!({ "page_id": PAGE, "mids": mids });
    let (status, answer) = host.admin("POST", "/admin/inbox/missing", Some(question)).await;
    assert_eq!((status, &answer["missing"]), (200, &serde_json::json!(["m_never"])), "{answer}");
    // A wrong secret is refused, and the command fails.
    let (good, said) = load(&file("other", "another secret")).await;
    assert!(!good && said.contains("answered 403"), "{said}");
}

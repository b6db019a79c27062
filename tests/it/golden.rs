//! Golden questions: the demo's own, with the real policies, search and model; and as a gate before changes.

use std::path::{Path, PathBuf};

use frontdesk_server::golden::Strictness;
use frontdesk_server::knowledge::{EmbeddingSettings, NewDocument};
use serde_json::{Value, json};

use crate::host::{ANSWER, Host, PAGE, QUESTION, shipped_policies};
use crate::jobs::{over, queue_with};

/// The setting of the fetched multilingual model.
fn local_model() -> EmbeddingSettings {
    let folder =
        std::env::var_os("FRONTDESK_MODEL_DIR").expect("FRONTDESK_MODEL_DIR is not set: run `cargo xtask test`");
    let text = std::fs::read_to_string(Path::new(&folder).join("embeddings.toml")).unwrap();
    let setting: toml::Value = toml::from_str(&text).unwrap();
    setting["embeddings"].clone().try_into().unwrap()
}

async fn run(host: &Host, goldens: &str) -> Value {
    let body = json!({ "goldens": goldens, "page_id": PAGE });
    let (status, answer) = host.admin("POST", "/admin/golden/runs", Some(body)).await;
    assert_eq!(status, 200, "{answer:#}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_does_what_its_golden_questions_say() {
    let host = Host::start_with(|plan| {
        plan.settings.embeddings = local_model();
        plan.settings.golden.run_ms_max = 600_000;
    })
    .await;
    let demo = shipped_policies().join("default");
    for entry in std::fs::read_dir(demo.join("demo-knowledge")).unwrap() {
        let path = entry.unwrap().path();
        let source = path.file_name().unwrap().to_string_lossy().into_owned();
        let (page_id, bytes) = (Some(PAGE.to_owned()), std::fs::read(&path).unwrap());
        host.app.knowledge.add(NewDocument { page_id, source, bytes, ..NewDocument::default() }).await.unwrap();
    }
    let goldens = std::fs::read_to_string(demo.join("demo-goldens.toml")).unwrap();
    let answer = run(&host, &goldens).await;
    let cases = answer["report"]["cases"].as_array().unwrap();
    assert!(cases.len() >= 100, "only {} questions", cases.len());
    let wrong: Vec<String> = cases
        .iter()
        .filter(|case| !case["problems"].as_array().unwrap().is_empty())
        .map(|case| format!("{} -> {} {} {}", case["name"], case["route"], case["problems"], case["reply"]))
        .collect();
    assert!(wrong.is_empty(), "{} of {} questions:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    // Nobody was asked, nothing was stored but the run.
    assert_eq!(host.count("select count(*) from decisions").await, 0);
    assert_eq!(host.count("select count(*) from outbox").await, 0);
    let (status, runs) = host.admin("GET", &format!("/admin/golden/runs?page_id={PAGE}"), None).await;
    assert_eq!((status, runs["runs"][0]["failed"].as_i64()), (200, Some(0)), "{runs}");
}

/// Goldens in a file, with a host that tries every change on them.
async fn guarded(strictness: Strictness, dir: &tempfile::TempDir) -> Host {
    let file = dir.path().join("goldens.toml");
    let goldens = format!(
        "version = 1\n[[golden]]\nquestion = {QUESTION:?}\nroute = \"answer\"\nmust = [\"three working days\"]\n"
    );
    std::fs::write(&file, goldens).unwrap();
    Host::start_with(move |plan| {
        plan.settings.golden.file = file.clone();
        plan.settings.golden.on_knowledge = strictness;
        plan.settings.golden.on_policy = strictness;
    })
    .await
}

async fn teach(host: &Host, title: &str, text: &str) -> (u16, Value) {
    host.admin("POST", "/admin/knowledge/text", Some(json!({ "title": title, "text": text }))).await
}

async fn known(host: &Host) -> String {
    let (status, found) = host.admin("GET", "/admin/knowledge/search?q=ship%20to%20Austria", None).await;
    assert_eq!(status, 200);
    found["hits"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_knowledge_that_breaks_an_answer_is_refused_and_never_seen() {
    let dir = tempfile::tempdir().unwrap();
    let host = guarded(Strictness::Refuse, &dir).await;
    host.teach_answer().await;
    let (status, answer) = teach(&host, "Shipping to Austria", "We ship to nobody any more, sorry about that.").await;
    assert_eq!((status, answer["error"]["code"].as_str()), (409, Some("golden")), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains(QUESTION), "{answer}");
    let found = known(&host).await;
    assert!(found.contains(ANSWER) && !found.contains("nobody any more"), "{found}");
    // Deleting the only answer is such a change, too.
    let (_, list) = host.admin("GET", "/admin/knowledge", None).await;
    let id = list["documents"][0]["document_id"].as_str().unwrap().to_owned();
    let (status, answer) = host.admin("DELETE", &format!("/admin/knowledge/{id}"), None).await;
    assert_eq!(status, 409, "{answer}");
    assert!(known(&host).await.contains(ANSWER));
    // So is a file that replaces it, by way of a job.
    let fields = [("source", "text: Shipping to Austria"), ("format", "text")];
    let (status, queued) = queue_with(&host.address, &fields, "shipping.txt", b"We ship to nobody any more.").await;
    assert_eq!(status, 202, "{queued}");
    let ended = over(&host, queued["job_id"].as_str().unwrap()).await;
    assert_eq!(ended["job"]["state"], "failed", "{ended}");
    assert!(ended["job"]["error"].as_str().unwrap().contains(QUESTION), "{ended}");
    assert!(known(&host).await.contains(ANSWER));
    // What breaks nothing is taken, and can be found at once.
    let (status, answer) = teach(&host, "Parking", "There are four parking spaces in our yard.").await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(host.count("select count(*) from documents").await, 2);
    // Each try left its run: the score over time.
    let (_, runs) = host.admin("GET", "/admin/golden/runs", None).await;
    let failed: Vec<i64> = runs["runs"].as_array().unwrap().iter().map(|run| run["failed"].as_i64().unwrap()).collect();
    assert_eq!(failed, [0, 1, 1, 1, 0], "{runs}");
    let (newest, second) = (&runs["runs"][0]["id"], &runs["runs"][1]["id"]);
    let path = format!("/admin/golden/runs/{}?before={}", newest.as_str().unwrap(), second.as_str().unwrap());
    let (status, compared) = host.admin("GET", &path, None).await;
    assert_eq!((status, compared["comparison"]["mended"][0].as_str()), (200, Some(QUESTION)), "{compared}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_lets_the_change_pass_and_names_what_got_worse() {
    let dir = tempfile::tempdir().unwrap();
    let host = guarded(Strictness::Warn, &dir).await;
    host.teach_answer().await;
    let (status, answer) = teach(&host, "Shipping to Austria", "We ship to nobody any more, sorry about that.").await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["warnings"][0].as_str().unwrap().contains(QUESTION), "{answer}");
    assert!(known(&host).await.contains("nobody any more"));
}

/// The shipped chain in a folder of one's own, without its cases: only the goldens are to speak.
fn copied_policies(dir: &Path) -> PathBuf {
    let (shipped, copy) = (shipped_policies(), dir.join("policies"));
    std::fs::create_dir_all(copy.join("default")).unwrap();
    std::os::unix::fs::symlink(shipped.join("components").canonicalize().unwrap(), copy.join("components")).unwrap();
    for entry in std::fs::read_dir(shipped.join("default")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, copy.join("default").join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_breaks_an_answer_does_not_serve() {
    let dir = tempfile::tempdir().unwrap();
    let policies = copied_policies(dir.path());
    let file = dir.path().join("goldens.toml");
    let goldens = format!("version = 1\n[[golden]]\nquestion = {QUESTION:?}\nroute = \"answer\"\n");
    std::fs::write(&file, goldens).unwrap();
    let dir_of_chains = policies.clone();
    let host = Host::start_with(move |plan| {
        plan.settings.policies.dir = dir_of_chains.clone();
        plan.settings.policies.poll_ms = 100;
        plan.settings.golden.file = file.clone();
        plan.settings.golden.on_policy = Strictness::Refuse;
    })
    .await;
    host.teach_answer().await;
    let active = || async { host.admin("GET", "/admin/policies", None).await.1["chains"][0].clone() };
    let before = active().await["revision"].clone();
    assert!(before.is_string(), "{}", active().await);
    let settings = policies.join("default/escalate-default.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace("min-confidence = 0.35", "min-confidence = 1.0")).unwrap();
    host.until("a rejected candidate", async || !active().await["rejected"].is_null()).await;
    let now = active().await;
    assert_eq!(now["revision"], before, "{now:#}");
    assert!(now["rejected"].to_string().contains(QUESTION), "{now:#}");
}

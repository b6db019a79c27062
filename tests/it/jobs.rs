//! Long jobs on knowledge: their progress, their end, and what a crash leaves of them.

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use crate::host::{ADMIN_TOKEN, Host, PAGE, PATIENCE};
use crate::process::{Installation, Process};

/// Questions of a catalogue; enough that embedding them takes a while.
fn catalogue(rows: usize) -> String {
    let mut csv = String::from("question,answer\n");
    for row in 0..rows {
        csv.push_str(&format!(
            "What does part number {row} cost?,\"Part {row} costs {} euros, weighs {} grams, and fits wheel type {}.\"\n",
            row * 7 % 900,
            row * 13 % 4_000,
            row % 97
        ));
    }
    csv
}

/// Uploads a file as a job; gives the job's id.
async fn queue(address: &str, name: &str, bytes: &[u8]) -> (u16, Value) {
    queue_with(address, &[("source", name), ("page_id", PAGE)], name, bytes).await
}

/// Uploads a file as a job, with these further fields.
pub async fn queue_with(address: &str, fields: &[(&str, &str)], name: &str, bytes: &[u8]) -> (u16, Value) {
    let mut body = Vec::new();
    for (field, value) in fields {
        body.extend_from_slice(
            format!("--b\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n").as_bytes(),
        );
    }
    let head = format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n");
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(bytes);
    body.extend_from_slice(b"\r\n--b--\r\n");
    let answer = reqwest::Client::new()
        .post(format!("{address}/admin/knowledge/jobs/file"))
        .bearer_auth(ADMIN_TOKEN)
        .header("X-Frontdesk-Agent", "ada")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(body)
        .send()
        .await
        .unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn job(process: &Process, id: &str) -> Value {
    process.ask_admin(&format!("/admin/knowledge/jobs/{id}")).await["job"].clone()
}

/// Waits until a job is over, and gives it with everything that came of it.
pub async fn over(host: &Host, id: &str) -> Value {
    let began = Instant::now();
    loop {
        let (_, answer) = host.admin("GET", &format!("/admin/knowledge/jobs/{id}"), None).await;
        if !matches!(answer["job"]["state"].as_str(), Some("queued" | "running")) {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{answer}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_job_survives_kill_9_and_nothing_is_doubled() {
    let installation = Installation::new().await;
    let rows = 4_000_usize;
    let first = installation.start().await;
    let (status, answer) = queue(&format!("http://{}", first.address), "parts.csv", catalogue(rows).as_bytes()).await;
    assert_eq!(status, 202, "{answer}");
    let id = answer["job_id"].as_str().unwrap().to_owned();
    let began = Instant::now();
    let seen = loop {
        let job = job(&first, &id).await;
        assert_ne!(job["state"], "done", "the catalogue is too small to be interrupted: {job}");
        if job["state"] == "running" && job["done"].as_u64() > Some(0) {
            break job;
        }
        assert!(began.elapsed() < crate::process::PATIENCE, "{job}");
    };
    assert_eq!((seen["stage"].as_str(), seen["total"].as_u64()), (Some("embedding"), Some(rows as u64)), "{seen}");
    first.kill_9().await;
    assert_eq!(installation.count("select count(*) from documents").await, 0);
    let cached = installation.count("select count(*) from embedding_cache").await;
    assert!(cached > 0, "what was embedded is not lost");

    let second = installation.start().await;
    let began = Instant::now();
    let done = loop {
        let job = job(&second, &id).await;
        if job["state"] == "done" {
            break job;
        }
        assert!(matches!(job["state"].as_str(), Some("queued" | "running")), "{job}");
        assert!(began.elapsed() < crate::process::PATIENCE * 2, "{job}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(done["result"]["passages"], rows, "{done}");
    assert!(done["attempts"].as_i64() >= Some(2) && done["done"] == done["total"], "{done}");
    for (query, expected) in [
        ("select count(*) from documents", 1),
        ("select count(*) from document_versions", 1),
        ("select count(*) from passages", rows as i64),
        ("select count(distinct question) from passages", rows as i64),
        ("select count(*) from object_garbage", 0),
        ("select count(*) from audit_log where action = 'knowledge.add'", 1),
    ] {
        assert_eq!(installation.count(query).await, expected, "{query}");
    }
    let (status, _) =
        second.admin(Method::POST, &format!("/admin/knowledge/jobs/{id}/cancel"), json!({})).await.unwrap();
    assert_eq!(status, 409, "it is over");
}

#[tokio::test]
async fn files_become_documents_and_bad_ones_say_why() {
    let host = Host::start().await;
    let (status, answer) = queue(&host.address, "faq.md", b"# Shop\n\nWe open at nine.").await;
    assert_eq!(status, 202, "{answer}");
    let done = over(&host, answer["job_id"].as_str().unwrap()).await;
    assert_eq!(
        (done["job"]["state"].as_str(), done["job"]["result"]["outcome"].as_str()),
        (Some("done"), Some("created"))
    );
    let (_, answer) = queue(&host.address, "faq.md", b"# Shop\n\nWe open at nine.").await;
    let done = over(&host, answer["job_id"].as_str().unwrap()).await;
    assert_eq!(done["job"]["result"]["outcome"], "unchanged", "{done}");

    // What can be said at once is said at once, and nothing is queued.
    for (name, bytes, status) in
        [("x.zip", b"PK".as_slice(), 400), ("x.txt", b"\xff".as_slice(), 400), ("x.md", b"", 400)]
    {
        let (found, answer) = queue(&host.address, name, bytes).await;
        assert_eq!(found, status, "{name}: {answer}");
    }
    let (_, answer) = queue(&host.address, "broken.pdf", b"%PDF-1.7 and nothing").await;
    let failed = over(&host, answer["job_id"].as_str().unwrap()).await;
    let error = failed["job"]["error"].as_str().unwrap();
    assert_eq!(failed["job"]["state"], "failed");
    assert!(error.contains("broken.pdf") && error.contains("damaged"), "{error}");
    let (_, list) = host.admin("GET", "/admin/knowledge/jobs?limit=2", None).await;
    assert_eq!(list["jobs"].as_array().unwrap().len(), 2, "{list}");

    // The files of a failed and of a needless job are given up.
    while host.app.objects.sweep_once().await.unwrap() > 0 {}
    assert_eq!(host.count("select count(*) from object_garbage").await, 0);
    assert_eq!(host.count("select count(*) from document_versions").await, 1);
}

#[tokio::test]
async fn a_job_that_waits_and_one_that_runs_can_be_stopped() {
    let host = Host::start_with(|plan| plan.settings.knowledge.jobs_at_once = 1).await;
    let mut ids = Vec::new();
    for name in ["one.csv", "two.csv"] {
        let (status, answer) = queue(&host.address, name, catalogue(15_000).as_bytes()).await;
        assert_eq!(status, 202, "{answer}");
        ids.push(answer["job_id"].as_str().unwrap().to_owned());
    }
    host.until("the first runs", async || {
        let (_, answer) = host.admin("GET", &format!("/admin/knowledge/jobs/{}", ids[0]), None).await;
        assert_ne!(answer["job"]["state"], "done");
        answer["job"]["state"] == "running"
    })
    .await;
    for id in [&ids[1], &ids[0]] {
        let (status, answer) = host.admin("POST", &format!("/admin/knowledge/jobs/{id}/cancel"), None).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(over(&host, id).await["job"]["state"], "cancelled");
    }
    assert_eq!(host.count("select count(*) from documents").await, 0);
    while host.app.objects.sweep_once().await.unwrap() > 0 {}
    assert_eq!(host.count("select count(*) from object_garbage").await, 0);
}

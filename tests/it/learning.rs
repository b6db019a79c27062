//! What people's answers and customers' thumbs teach.

use frontdesk_testkit::wire;
use serde_json::{Value, json};

use crate::host::{Host, PAGE};

const ASKED: &str = "Do you engrave names on bicycle bells? I am anna.berg@mail.example, +43 660 1234567.";
const REPLIED: &str =
    "Yes, we engrave bells for 12 euros; please bring the bell to the shop, Ada, tel. 0512 555014299.";

async fn proposals(host: &Host) -> Vec<Value> {
    let (status, answer) = host.admin("GET", "/admin/learning", None).await;
    assert_eq!(status, 200, "{answer}");
    answer["proposals"].as_array().cloned().unwrap_or_default()
}

/// A customer asks, the machine hands over, an agent replies.
async fn answered_by_a_person(host: &Host, psid: &str) {
    host.ask(psid, ASKED).await;
    host.drained().await;
    let id = host.conversation(psid).await;
    let reply = json!({ "text": REPLIED });
    let (status, answer) = host.admin("POST", &format!("/admin/conversations/{id}/reply"), Some(reply)).await;
    assert_eq!(status, 202, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_answer_is_proposed_without_personal_data_and_known_once_a_person_approves() {
    let host = Host::start().await;
    host.teach_answer().await;
    answered_by_a_person(&host, "501").await;
    host.until("a proposal", async || proposals(&host).await.len() == 1).await;
    let proposal = proposals(&host).await.remove(0);
    let text = format!("{} {}", proposal["question"], proposal["answer"]);
    assert!(text.contains("engrave names") && text.contains("12 euros"), "{text}");
    for personal in ["anna.berg", "1234567", "555014299"] {
        assert!(!text.contains(personal), "{text}");
    }
    // Asked and answered again, it is still one proposal.
    answered_by_a_person(&host, "502").await;
    host.drained().await;
    assert_eq!(proposals(&host).await.iter().filter(|one| one["state"] == "proposed").count(), 1);
    // Nothing is known before a person says so.
    let (_, found) = host.admin("GET", "/admin/knowledge/search?q=engrave%20bells", None).await;
    assert!(!found.to_string().contains("12 euros"), "{found}");

    let id = proposal["id"].as_str().unwrap();
    let body = json!({ "question": "Do you engrave bicycle bells?", "answer": "We engrave bicycle bells for 12 euros in our shop." });
    let (status, answer) = host.admin("POST", &format!("/admin/learning/{id}/approve"), Some(body.clone())).await;
    assert_eq!((status, answer["proposal"]["edited"].as_bool()), (200, Some(true)), "{answer}");
    let (_, found) = host.admin("GET", "/admin/knowledge/search?q=Do%20you%20engrave%20bicycle%20bells", None).await;
    assert_eq!(found["hits"][0]["source"], format!("learned/{id}.csv"), "{found}");
    assert_eq!(found["hits"][0]["labels"], json!(["learned"]));
    let (status, _) = host.admin("POST", &format!("/admin/learning/{id}/approve"), Some(body)).await;
    assert_eq!(status, 409, "it is decided already");
    // The next customer is answered by the machine.
    host.ask("503", "Do you engrave bicycle bells?").await;
    host.drained().await;
    assert!(host.got("503").concat().contains("12 euros"), "{:?}", host.got("503"));
}

#[tokio::test(flavor = "multi_thread")]
async fn thumbs_and_corrections_suggest_golden_questions() {
    let host = Host::start().await;
    host.teach_answer().await;
    host.ask("511", crate::host::QUESTION).await;
    host.drained().await;
    let mid: String = sqlx::query_scalar("select mid from messages where author = 'bot' order by id limit 1")
        .fetch_one(host.pool())
        .await
        .unwrap();
    let status = host.meta.from_person("511", wire::response_feedback(&mid, true)).await.unwrap();
    assert_eq!(status, 200);
    host.until("noted feedback", async || host.count("select count(*) from answer_feedback").await == 1).await;
    let (status, answer) = host.admin("GET", &format!("/admin/golden/suggestions?page_id={PAGE}"), None).await;
    let goldens = answer["goldens"].as_str().unwrap_or_default();
    assert_eq!(status, 200, "{answer}");
    let file = frontdesk_server::golden::GoldenFile::parse(goldens).unwrap();
    assert_eq!(file.golden[0].question, crate::host::QUESTION);
    // What it suggests holds of the host as it is.
    let (_, run) = host.admin("POST", "/admin/golden/runs", Some(json!({ "goldens": goldens, "page_id": PAGE }))).await;
    assert_eq!(run["failed"], 0, "{run:#}");
}

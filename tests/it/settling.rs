//! Sends that a person settles, and the order of what a person wrote.

use frontdesk_testkit::{EchoPlan, Outcome, wire};
use serde_json::json;
use uuid::Uuid;

use crate::host::{Host, PAGE, QUESTION};

/// A host that nobody helps out of a doubt: no echoes, no Conversations API.
async fn doubtful() -> Host {
    let host = Host::start_with(|plan| {
        plan.settings.graph.timeout_ms = 400;
        plan.settings.outbox.in_doubt_after_ms = 600;
        plan.settings.outbox.echo_grace_ms = 150;
        plan.settings.outbox.unknown_ticket_after_ms = 600;
    })
    .await;
    host.teach_answer().await;
    host.graph.set_echoes(EchoPlan::OFF);
    for _ in 0..400 {
        host.graph.script_on("conversations", Outcome::error(10, 0));
    }
    host
}

async fn rows(host: &Host, psid: &str) -> Vec<(Uuid, String, String)> {
    sqlx::query_as("select id, author, state from outbox where psid = $1 order by seq")
        .bind(psid)
        .fetch_all(host.pool())
        .await
        .unwrap()
}

async fn settle(host: &Host, row: Uuid, outcome: &str) {
    let path = format!("/admin/outbox/{row}/settle");
    let (status, answer) = host.admin("POST", &path, Some(json!({ "outcome": outcome }))).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn what_a_person_settles_as_sent_stands_in_the_transcript_and_later_gets_metas_id() {
    let host = doubtful().await;
    host.graph.script(Outcome::LostResponse);
    host.ask("3301", QUESTION).await;
    host.until_outbox("3301", &["unknown"]).await;
    assert_eq!(host.transcript("3301").await.len(), 1, "as long as nobody knows, it is not said");
    let (row, _, _) = rows(&host, "3301").await[0].clone();
    settle(&host, row, "sent").await;
    let story = host.transcript("3301").await;
    assert_eq!(story.len(), 2, "{story:?}");
    assert_eq!((story[1].0.as_str(), story[1].2.as_str()), ("bot", host.got("3301")[0].as_str()));

    // The echo comes after all: the same message, not a second one.
    let sent = host.graph.sends_to("3301")[0].clone();
    let echo = wire::echo(&sent.message_id, &sent.text, 777_000_111_222_333, sent.metadata.as_deref());
    let piece = wire::from_page(PAGE, "3301", sent.at_ms, echo);
    assert_eq!(host.meta.post(&wire::body(PAGE, sent.at_ms, vec![piece])).await.unwrap(), 200);
    host.drained().await;
    let story = host.transcript("3301").await;
    assert_eq!(story.len(), 2, "{story:?}");
    assert_eq!(story[1].1, sent.message_id);
    let (known, _, _, _): (Option<String>, String, i32, Option<String>) =
        sqlx::query_as("select message_id, state, attempts, error from outbox where id = $1")
            .bind(row)
            .fetch_one(host.pool())
            .await
            .unwrap();
    assert_eq!(known.as_deref(), Some(sent.message_id.as_str()));
}

#[tokio::test]
async fn the_parts_of_a_persons_reply_stay_in_order_and_end_with_one_that_failed() {
    let host = doubtful().await;
    let long = |word: &str| (0..300).map(|at| format!("{word}{at:03} and so on.")).collect::<Vec<_>>().join(" ");
    for (psid, outcome, expected) in [("3401", "sent", "sent"), ("3402", "not-sent", "failed")] {
        host.ask(psid, QUESTION).await;
        host.drained().await;
        let before = rows(&host, psid).await.len();
        let id = host.conversation(psid).await;
        // The first part is lost on the way.
        host.graph.script(Outcome::CutConnection);
        let path = format!("/admin/conversations/{id}/reply");
        let (status, answer) = host.admin("POST", &path, Some(json!({ "text": long("first") }))).await;
        assert_eq!(status, 202, "{answer}");
        let parts = answer["outbox_ids"].as_array().unwrap().len();
        assert!(parts >= 2, "{answer}");
        host.until("the first part in doubt", async || rows(&host, psid).await[before].2 == "unknown").await;
        let waiting = rows(&host, psid).await;
        assert!(waiting[before + 1..].iter().all(|row| row.2 == "queued"), "later parts wait: {waiting:?}");

        settle(&host, waiting[before].0, outcome).await;
        host.until("the parts to be settled", async || {
            rows(&host, psid).await[before..].iter().all(|row| row.2 == expected)
        })
        .await;
        let texts = host.got(psid);
        let later = texts.iter().filter(|text| text.contains("and so on")).count();
        assert_eq!(later, if outcome == "sent" { parts - 1 } else { 0 }, "{texts:?}");

        // Another reply goes its own way.
        let (status, answer) = host.admin("POST", &path, Some(json!({ "text": "Once more, in short." }))).await;
        assert_eq!(status, 202, "{answer}");
        host.until("the short reply", async || host.got(psid).iter().any(|text| text == "Once more, in short.")).await;
    }
}

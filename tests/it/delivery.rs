//! From a customer's question to what the customer gets: one answer, whatever the Send API does.

use std::time::Duration;

use chrono::{DateTime, Utc};
use frontdesk_messenger::proof;
use frontdesk_server::outbox::metadata_of_row;
use frontdesk_testkit::{EchoPlan, Outcome, wire};
use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use crate::host::{ANSWER, APP_ID, APP_SECRET, Host, OTHER_PAGE, PAGE, PAGE_TOKEN, QUESTION};
use crate::model::HeldModel;

/// A host that looks a send in doubt up soon.
async fn host() -> Host {
    host_that_asks_after_ms(600).await
}

/// As [`host`], and a person is asked about a doubt that lasts so long.
async fn host_that_asks_after_ms(ms: u64) -> Host {
    let host = Host::start_with(move |plan| {
        plan.settings.graph.timeout_ms = 400;
        plan.settings.outbox.in_doubt_after_ms = 600;
        plan.settings.outbox.echo_grace_ms = 150;
        plan.settings.outbox.unknown_ticket_after_ms = ms;
    })
    .await;
    host.teach_answer().await;
    host
}

/// Lets the Page send again, whatever stopped it.
async fn reactivate(host: &Host, page_id: &str) {
    sqlx::query("update pages set state = 'active', state_reason = null, paused_until = null where page_id = $1")
        .bind(page_id)
        .execute(host.pool())
        .await
        .unwrap();
}

async fn paused_for_s(host: &Host, page_id: &str) -> i64 {
    let until: Option<DateTime<Utc>> = sqlx::query_scalar("select paused_until from pages where page_id = $1")
        .bind(page_id)
        .fetch_one(host.pool())
        .await
        .unwrap();
    until.map_or(0, |until| (until - Utc::now()).num_seconds())
}

async fn row_of(host: &Host, psid: &str) -> Uuid {
    sqlx::query_scalar("select id from outbox where psid = $1").bind(psid).fetch_one(host.pool()).await.unwrap()
}

fn error(status: u16, code: i64, subcode: i64, is_transient: bool) -> Outcome {
    Outcome::Error { status, code, subcode: (subcode != 0).then_some(subcode), is_transient }
}

#[tokio::test]
async fn a_question_gets_one_answer_as_the_send_api_wants_it() {
    let host = host().await;
    host.graph.set_echoes(EchoPlan { copies: 2, delay: Duration::ZERO });
    let mid = host.ask("101", QUESTION).await;
    host.graph.wait_for_echoes(2, crate::host::PATIENCE).await.unwrap();
    host.drained().await;

    let sent = host.graph.sends_to("101");
    assert_eq!(sent.len(), 1, "{sent:?}");
    let sent = &sent[0];
    assert!(sent.text.ends_with(ANSWER), "{}", sent.text);
    assert!(sent.text.contains("automated assistant"), "the first answer says who speaks: {}", sent.text);
    assert_eq!((sent.messaging_type.as_deref(), sent.tag.as_deref()), (Some("RESPONSE"), None));
    assert_eq!(sent.metadata, Some(metadata_of_row(row_of(&host, "101").await)));
    assert_eq!(sent.body["recipient"], json!({ "id": "101" }));
    let calls = host.graph.wait_for_calls("messages", 1, crate::host::PATIENCE).await.unwrap();
    let call = calls.iter().find(|call| call.body["message"].is_object()).unwrap();
    let expected = proof::appsecret_proof(&SecretString::from(APP_SECRET), &SecretString::from(PAGE_TOKEN));
    assert_eq!(call.query, [("appsecret_proof".to_owned(), expected)], "and no token in the address");

    // The echo is part of the story, not a question.
    let turns = host.turns("101").await;
    assert_eq!(turns.len(), 1, "{turns:?}");
    assert_eq!(turns[0]["outcome"], "sent");
    let story: Vec<(String, String)> =
        sqlx::query_as("select author, mid from messages order by sent_at, id").fetch_all(host.pool()).await.unwrap();
    assert_eq!(story, [("customer".to_owned(), mid), ("bot".to_owned(), sent.message_id.clone())]);
    assert_eq!(host.outbox("101").await, [("sent".to_owned(), 1, None, None)]);
    assert_eq!(host.tickets("101").await, [""; 0]);
}

#[tokio::test]
async fn a_long_answer_arrives_in_parts_and_in_order() {
    let host = host().await;
    host.ask("111", QUESTION).await;
    host.drained().await;
    let id = host.conversation("111").await;
    let text: String = (1..=320).map(|n| format!("Sentence {n} is here. ")).collect();
    // The first part meets a failure, the others must wait for it.
    host.graph.script(error(500, 2, 0, true));
    host.graph.script(error(400, 1200, 0, false));
    let (status, answer) =
        host.admin("POST", &format!("/admin/conversations/{id}/reply"), Some(json!({ "text": text }))).await;
    assert_eq!(status, 202, "{answer}");
    host.drained().await;
    let parts: Vec<String> = host.got("111").split_off(1);
    assert!(parts.len() >= 4, "{} parts", parts.len());
    assert!(parts.iter().all(|part| part.encode_utf16().count() < 2_000));
    assert_eq!(parts.join(" "), text.trim());
    let attempts: Vec<i32> = host.outbox("111").await[1..].iter().map(|row| row.1).collect();
    assert_eq!((attempts[0], &attempts[1..]), (3, &vec![1; parts.len() - 1][..]));
}

#[tokio::test]
async fn a_part_that_fails_for_good_takes_the_rest_of_its_reply_with_it() {
    let host = host().await;
    host.ask("112", QUESTION).await;
    host.drained().await;
    let (id, turn) = (host.conversation("112").await, Uuid::now_v7());
    host.graph.script(error(400, 551, 0, false));
    let mut tx = host.pool().begin().await.unwrap();
    for text in ["one", "two", "three"] {
        let row = frontdesk_server::db::outbox::NewRow {
            id: Uuid::now_v7(),
            conversation_id: id,
            page_id: PAGE,
            psid: "112",
            turn_id: Some(turn),
            reply_id: turn,
            epoch: 0,
            agent: None,
            text,
        };
        frontdesk_server::db::outbox::insert(&mut *tx, &[row]).await.unwrap();
    }
    tx.commit().await.unwrap();
    host.drained().await;
    let states: Vec<String> = host.outbox("112").await.into_iter().map(|row| row.0).collect();
    assert_eq!(states, ["sent", "failed", "failed", "failed"]);
    assert_eq!(host.got("112").len(), 1);
    assert_eq!(host.tickets("112").await, ["delivery-failed"]);
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_sent_and_becomes_a_ticket() {
    let host = host().await;
    // What Meta says, and what becomes of the conversation's owner.
    let cases = [
        (error(400, 551, 0, false), "bot"),
        (error(400, 551, 1_545_041, false), "bot"),
        (error(400, 200, 1_545_041, false), "bot"),
        (error(400, 100, 2_018_001, false), "bot"),
        (error(400, 100, 33, false), "bot"),
        (error(400, 10, 2_018_108, false), "bot"),
        (error(400, 10, 2_018_278, false), "bot"),
        (error(400, 10, 2_534_022, false), "bot"),
        (error(400, 10, 2_018_065, false), "bot"),
        (error(400, 613, 2_018_338, false), "bot"),
        (error(403, 10, 2_018_300, false), "not_ours"),
        (error(400, 100, 2_534_037, false), "not_ours"),
        (error(400, 100, 0, false), "bot"),
        (error(400, 100, 1_893_061, false), "bot"),
        (error(400, 2022, 0, false), "bot"),
        (error(400, 9_000_001, 0, false), "bot"),
        (error(400, 77_777, 0, false), "bot"),
        (Outcome::Html { status: 403 }, "bot"),
    ];
    for (index, (outcome, owner)) in cases.into_iter().enumerate() {
        let psid = format!("12{index:02}");
        host.graph.script(outcome.clone());
        host.ask(&psid, QUESTION).await;
        host.until_outbox(&psid, &["failed"]).await;
        host.drained().await;
        assert_eq!(host.got(&psid), [""; 0], "{outcome:?}");
        assert_eq!(host.tickets(&psid).await, ["delivery-failed"], "{outcome:?}");
        assert_eq!(host.owner(&psid).await, owner, "{outcome:?}");
        assert_eq!(host.page_state(PAGE).await, "active", "{outcome:?}");
        let row = &host.outbox(&psid).await[0];
        if let Outcome::Error { code, subcode, .. } = outcome {
            let numbers = (Some(i32::try_from(code).unwrap()), subcode.map(|s| i32::try_from(s).unwrap()));
            assert_eq!((row.2, row.3), numbers);
        }
        assert_eq!(row.1, 1, "{outcome:?} is not tried again");
    }
    // A closed window is remembered: nothing more is tried until the customer writes again.
    let closed: bool = sqlx::query_scalar("select window_closes_at <= now() from conversations where psid = '1206'")
        .fetch_one(host.pool())
        .await
        .unwrap();
    assert!(closed);
}

#[tokio::test]
async fn a_passing_failure_is_repeated_within_bounds() {
    let host = host().await;
    let again = |outcome: Outcome, times: usize| vec![outcome; times];
    // What Meta says, the attempts, and whether it is sent in the end.
    let cases = [
        (again(error(500, 2, 0, true), 2), 3, true),
        (again(error(400, 1200, 0, false), 3), 4, true),
        (again(error(500, 1, 0, false), 2), 3, true),
        (again(error(500, 1, 0, false), 3), 3, false),
        (again(error(500, 2, 0, true), 6), 6, false),
        (again(Outcome::Empty { status: 408 }, 1), 2, true),
        (again(error(400, 77_777, 0, true), 1), 2, true),
        (again(Outcome::Delay(Duration::from_millis(200)), 1), 1, true),
    ];
    for (index, (outcomes, attempts, is_sent)) in cases.into_iter().enumerate() {
        let psid = format!("13{index:02}");
        let name = format!("{outcomes:?}");
        outcomes.into_iter().for_each(|outcome| host.graph.script(outcome));
        host.ask(&psid, QUESTION).await;
        host.until_outbox(&psid, &[if is_sent { "sent" } else { "failed" }]).await;
        host.drained().await;
        assert_eq!(host.outbox(&psid).await[0].1, attempts, "{name}");
        assert_eq!(host.got(&psid).len(), usize::from(is_sent), "{name}");
        assert_eq!(host.tickets(&psid).await.len(), usize::from(!is_sent), "{name}");
        assert_eq!(host.graph.scripted(), 0, "{name}");
    }
}

#[tokio::test]
async fn a_limit_pauses_its_page_for_as_long_as_meta_says_and_no_other() {
    let host = host().await;
    // What Meta says, for how long the Page pauses (in seconds), and whether the message was taken.
    let cases = [
        (Outcome::RateLimited { code: 613, regain_after_minutes: 5 }, 290..=300, false),
        (Outcome::RateLimited { code: 4, regain_after_minutes: 20 }, 1_190..=1_200, false),
        (Outcome::RateLimited { code: 80_006, regain_after_minutes: 7 }, 410..=420, false),
        (error(400, 613, 2_534_040, false), 50..=60, false),
        (error(403, 32, 0, false), 50..=60, false),
        (error(400, 341, 0, false), 50..=60, false),
        (Outcome::Empty { status: 429 }, 50..=60, false),
        (Outcome::Usage { percent: 97 }, 50..=60, true),
        (Outcome::Usage { percent: 80 }, 0..=0, true),
    ];
    for (index, (outcome, pause_s, is_taken)) in cases.into_iter().enumerate() {
        let (psid, neighbour) = (format!("14{index:02}"), format!("15{index:02}"));
        host.graph.script(outcome.clone());
        host.ask(&psid, QUESTION).await;
        host.until(&format!("{outcome:?}"), async || host.graph.scripted() == 0).await;
        host.until_outbox(&psid, &[if is_taken { "sent" } else { "queued" }]).await;
        let paused_s = paused_for_s(&host, PAGE).await;
        assert!(pause_s.contains(&paused_s), "{outcome:?} pauses for {paused_s} s");
        // The other Page's customers do not notice.
        host.meta_of(OTHER_PAGE).text(&neighbour, QUESTION).await.unwrap();
        host.until_outbox(&neighbour, &["sent"]).await;
        assert_eq!(host.got(&psid).len(), usize::from(is_taken), "{outcome:?}");
        reactivate(&host, PAGE).await;
        host.drained().await;
        assert_eq!(host.got(&psid).len(), 1, "{outcome:?}");
        assert_eq!(host.outbox(&psid).await[0].1, 1, "{outcome:?}: a limit uses up no attempt");
    }
}

#[tokio::test]
async fn a_page_that_may_not_send_stops_alone_and_goes_on_when_it_is_resumed() {
    let host = host().await;
    let cases = [
        (error(401, 190, 463, false), "parked"),
        (error(401, 190, 460, false), "parked"),
        (error(401, 190, 458, false), "parked"),
        (error(400, 102, 0, false), "parked"),
        (error(400, 368, 0, false), "stopped"),
        (error(403, 10, 0, false), "stopped"),
        (error(403, 10, 1_893_063, false), "stopped"),
        (error(403, 200, 2_018_028, false), "stopped"),
        (error(403, 230, 0, false), "stopped"),
    ];
    for (index, (outcome, state)) in cases.into_iter().enumerate() {
        let (psid, waiting, neighbour) = (format!("16{index:02}"), format!("17{index:02}"), format!("18{index:02}"));
        host.graph.script(outcome.clone());
        host.ask(&psid, QUESTION).await;
        host.until(&format!("{outcome:?}"), async || host.page_state(PAGE).await == state).await;
        host.until_outbox(&psid, &["queued"]).await;
        // Questions are still taken and decided; their answers wait.
        host.ask(&waiting, QUESTION).await;
        host.until_outbox(&waiting, &["queued"]).await;
        host.meta_of(OTHER_PAGE).text(&neighbour, QUESTION).await.unwrap();
        host.until_outbox(&neighbour, &["sent"]).await;
        assert_eq!(host.graph.sends_to(&psid).len() + host.graph.sends_to(&waiting).len(), 0);

        let (status, answer) = host.admin("POST", &format!("/admin/pages/{PAGE}/resume"), None).await;
        assert_eq!((status, &answer["changed"]), (200, &json!(true)), "{answer}");
        host.drained().await;
        for psid in [&psid, &waiting] {
            assert_eq!(host.got(psid).len(), 1, "{outcome:?}");
            assert_eq!(host.outbox(psid).await[0].1, 1);
            assert_eq!(host.tickets(psid).await, [""; 0]);
        }
    }
    // A dead token stays dead when somebody resumes too early.
    host.graph.kill_token(PAGE, 463);
    host.ask("1900", QUESTION).await;
    host.until("parked", async || host.page_state(PAGE).await == "parked").await;
    host.admin("POST", &format!("/admin/pages/{PAGE}/resume"), None).await;
    host.until("parked again", async || host.page_state(PAGE).await == "parked").await;
    host.graph.revive_token(PAGE);
    host.admin("POST", &format!("/admin/pages/{PAGE}/resume"), None).await;
    host.drained().await;
    assert_eq!(host.got("1900").len(), 1);
}

#[tokio::test]
async fn a_send_without_a_clear_answer_is_settled_by_metas_own_record() {
    // However long a busy machine takes, nobody needs to be asked.
    let host = host_that_asks_after_ms(300_000).await;
    // What happens, whether echoes come, and whether Meta took the first attempt.
    let cases = [
        (Outcome::LostResponse, true, true),
        (Outcome::LostResponse, false, true),
        (Outcome::UnreadableSuccess, true, true),
        (Outcome::UnreadableSuccess, false, true),
        (Outcome::Hang { is_taken: true }, true, true),
        (Outcome::Hang { is_taken: true }, false, true),
        (Outcome::Hang { is_taken: false }, true, false),
        (Outcome::CutConnection, true, false),
        (Outcome::Html { status: 500 }, true, false),
        (Outcome::Html { status: 502 }, false, false),
        (Outcome::Empty { status: 504 }, true, false),
        (Outcome::Empty { status: 503 }, false, false),
        (error(500, 1, 1_357_046, false), true, false),
    ];
    for (index, (outcome, has_echoes, is_taken)) in cases.into_iter().enumerate() {
        let psid = format!("20{index:02}");
        host.graph.set_echoes(if has_echoes { EchoPlan::default() } else { EchoPlan::OFF });
        host.graph.script(outcome.clone());
        host.ask(&psid, QUESTION).await;
        host.until_outbox(&psid, &["sent"]).await;
        host.drained().await;
        assert_eq!(host.got(&psid).len(), 1, "{outcome:?}, echoes: {has_echoes}");
        // What Meta took is never sent again; what it did not take goes with the second attempt, or on a busy machine with a later one.
        let attempts = host.outbox(&psid).await[0].1;
        assert!(if is_taken { attempts == 1 } else { attempts >= 2 }, "{outcome:?}: {attempts} attempts");
        assert_eq!(host.tickets(&psid).await, [""; 0], "{outcome:?}");
        let story: i64 = sqlx::query_scalar(
            "select count(*) from messages m join conversations c on c.id = m.conversation_id
             where c.psid = $1 and m.author = 'bot'",
        )
        .bind(&psid)
        .fetch_one(host.pool())
        .await
        .unwrap();
        assert_eq!(story, 1, "{outcome:?}, echoes: {has_echoes}: the transcript shows the answer once");
    }
}

#[tokio::test]
async fn an_echo_proves_a_send_that_meta_reported_as_an_error() {
    let host = host().await;
    host.graph.script(error(500, 1, 1_357_046, false));
    // Nobody can look it up, so only the echo can tell.
    for _ in 0..50 {
        host.graph.script_on("conversations", Outcome::error(2, 0));
    }
    host.ask("2101", QUESTION).await;
    host.until_outbox("2101", &["unknown"]).await;
    let now_ms = wire::now_ms();
    let metadata = metadata_of_row(row_of(&host, "2101").await);
    let echo = wire::echo("m_proof", ANSWER, APP_ID.parse().unwrap(), Some(&metadata));
    let body = wire::body(PAGE, now_ms, vec![wire::from_page(PAGE, "2101", now_ms, echo)]);
    assert_eq!(host.meta.post(&body).await.unwrap(), 200);
    host.until_outbox("2101", &["sent"]).await;
    host.drained().await;
    let message_id: String =
        sqlx::query_scalar("select message_id from outbox where psid = '2101'").fetch_one(host.pool()).await.unwrap();
    assert_eq!(message_id, "m_proof");
    assert_eq!(host.graph.sends().len(), 0, "it is not sent again");
    assert_eq!(host.owner("2101").await, "bot");
}

#[tokio::test]
async fn a_send_that_nobody_can_look_up_waits_for_a_person() {
    let host = host().await;
    for _ in 0..400 {
        host.graph.script_on("conversations", Outcome::error(10, 0));
    }
    for (psid, outcome, state) in [("2201", "sent", "sent"), ("2202", "not-sent", "failed")] {
        host.graph.script(Outcome::CutConnection);
        host.ask(psid, QUESTION).await;
        host.until_outbox(psid, &["unknown"]).await;
        host.until("a ticket", async || host.tickets(psid).await == ["delivery-unknown"]).await;
        // A later question of the same customer must not overtake the answer in doubt.
        host.ask(psid, "When are you open on Saturdays?").await;
        host.until("the later answer", async || host.outbox(psid).await.len() == 2).await;
        assert_eq!(host.outbox(psid).await[1].0, "queued");
        let (_, found) = host.admin("GET", "/admin/outbox/unknown", None).await;
        let rows = found["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 1, "{found}");
        assert_eq!(host.got(psid), [""; 0]);
        let id = rows[0]["id"].as_str().unwrap().to_owned();
        let path = format!("/admin/outbox/{id}/settle");
        let (status, answer) = host.admin("POST", &path, Some(json!({ "outcome": outcome }))).await;
        assert_eq!((status, &answer["row"]["state"]), (200, &json!(state)), "{answer}");
        let (status, _) = host.admin("POST", &path, Some(json!({ "outcome": outcome }))).await;
        assert_eq!(status, 409, "a row is settled once");
        host.drained().await;
        let texts = host.got(psid);
        assert!(texts.iter().all(|text| !text.contains(ANSWER)), "{texts:?}: it is never sent by itself");
    }
}

#[tokio::test]
async fn a_burst_while_an_answer_is_drafted_is_one_turn_and_loses_nothing() {
    const MESSAGES: usize = 24;
    let model = HeldModel::start(&format!("{ANSWER} [1]")).await;
    let settings = model.settings();
    let host = Host::start_with(move |plan| plan.settings.model = settings.clone()).await;
    host.teach_answer().await;
    let mut asked = vec![host.ask("2301", QUESTION).await];
    host.until("the first draft", async || model.asked() == 1).await;
    for at in 1..MESSAGES {
        asked.push(host.ask("2301", &format!("Do you ship to Austria, part {at} of my question?")).await);
    }
    model.release(MESSAGES);
    host.drained().await;
    let turns = host.turns("2301").await;
    assert_eq!(turns.len(), 1, "{turns:?}");
    assert_eq!(host.got("2301").len(), 1, "one answer to all of it");
    let mut read: Vec<String> = turns
        .iter()
        .flat_map(|turn| turn["mids"].as_array().unwrap().clone())
        .map(|mid| mid.as_str().unwrap().to_owned())
        .collect();
    read.sort();
    asked.sort();
    assert_eq!(read, asked, "each message is read in exactly one turn");
}

#[tokio::test]
async fn a_window_that_closes_before_the_send_gives_a_ticket_and_no_tag() {
    let host = host().await;
    sqlx::query("update pages set paused_until = now() + interval '1 hour'").execute(host.pool()).await.unwrap();
    host.ask("2401", QUESTION).await;
    host.until_outbox("2401", &["queued"]).await;
    sqlx::query("update conversations set window_closes_at = now()").execute(host.pool()).await.unwrap();
    reactivate(&host, PAGE).await;
    host.until_outbox("2401", &["failed"]).await;
    assert_eq!(host.tickets("2401").await, ["window-closed"]);
    assert_eq!(host.graph.sends().len(), 0);
}

/// The echo of a send whose answer is stored needs no turn: it is marked as read with others, and keeps no copy of the words. One
/// that is faster than the answer goes the long way, with the same end.
#[tokio::test]
async fn an_echo_of_a_settled_send_is_marked_as_read_without_a_turn() {
    let host = Host::start().await;
    host.teach_answer().await;
    let plainly = "select count(*) from inbox i join outbox o on o.message_id = i.mid and o.psid = i.psid
                   where i.kind = 'echo' and i.state = 'done' and i.note = 'our own send' and i.sealed is null and i.payload = '{}'
                     and o.state = 'sent'";
    let mut asked = 0;
    while host.count(plainly).await == 0 {
        assert!(asked < 20, "no echo was marked without a turn");
        let psid = format!("131{asked:02}");
        host.ask(&psid, QUESTION).await;
        host.drained().await;
        assert_eq!(host.got(&psid).len(), 1);
        asked += 1;
    }
    let echoes = "select count(*) from inbox where kind = 'echo' and state = 'done' and note = 'our own send'";
    assert_eq!(host.count(echoes).await, asked);
    // The transcript has each answer once, at Meta's time where that is known.
    let said = "select count(*) from messages m join outbox o on o.id = m.outbox_id and o.message_id = m.mid where m.author = 'bot'";
    assert_eq!(host.count(said).await, asked);
    let later = "select count(*) from messages m join inbox i on i.mid = m.mid and i.kind = 'echo' where m.sent_at > i.event_at";
    assert_eq!(host.count(later).await, 0);
}

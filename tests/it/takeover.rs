//! A person takes a conversation over, answers, and gives it back: from then on, and until then, the machine is silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use frontdesk_server::db;
use frontdesk_testkit::wire;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::PgPool;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::database::fresh_database;
use crate::host::{ANSWER, Host, PAGE, QUESTION, TICKET_SECRET};
use crate::model::HeldModel;

/// What the shipped tone says when a machine's answer must be disclosed.
const DISCLOSURE: &str = "automated assistant";

async fn host() -> Host {
    let host = Host::start().await;
    host.teach_answer().await;
    host
}

/// Queued answers stay queued while the Page pauses.
async fn pause(host: &Host, is_paused: bool) {
    sqlx::query("update pages set paused_until = case when $1 then now() + interval '1 hour' end")
        .bind(is_paused)
        .execute(host.pool())
        .await
        .unwrap();
    host.app.outbox.wake();
}

async fn post_to(host: &Host, id: Uuid, action: &str, body: Value) -> (u16, Value) {
    host.admin("POST", &format!("/admin/conversations/{id}/{action}"), Some(body)).await
}

#[tokio::test]
async fn a_word_from_the_page_inbox_silences_the_machine_at_once() {
    let host = host().await;
    pause(&host, true).await;
    host.ask("801", QUESTION).await;
    host.until_outbox("801", &["queued"]).await;
    host.meta.inbox_echo("801", "Hello, this is Ada.").await.unwrap();
    host.read_all().await;
    assert_eq!(host.owner("801").await, "human");
    host.until_outbox("801", &["void"]).await;
    pause(&host, false).await;
    host.ask("801", "And how long does it take to Vienna?").await;
    host.drained().await;
    assert_eq!(host.got("801"), [""; 0]);
    assert_eq!(host.turns("801").await.len(), 1, "the later question is not even judged");

    let id = host.conversation("801").await;
    let (status, answer) = post_to(&host, id, "handback", json!({})).await;
    assert_eq!((status, &answer["changed"]), (200, &json!(true)), "{answer}");
    host.ask("801", "How long does a parcel to Austria take?").await;
    host.drained().await;
    let got = host.got("801");
    assert!(
        got.len() == 1 && got[0].contains(DISCLOSURE),
        "after a person, the machine says again who speaks: {got:?}"
    );
}

#[tokio::test]
async fn a_stored_echo_of_a_person_holds_the_machine_before_any_turn_has_read_it() {
    let db = fresh_database().await;
    seed_page(&db.pool).await;
    let (id, row) = seed_conversation(&db.pool, "811").await;
    sqlx::query(
        "insert into inbox (page_id, psid, channel, kind, dedupe_key, mid, is_takeover)
         values ($1, '811', 'messaging', 'echo', 'echo', 'm_echo', true)",
    )
    .bind(PAGE)
    .execute(&db.pool)
    .await
    .unwrap();
    assert!(db::outbox::claim(&db.pool, "test", 10, &[]).await.unwrap().is_empty());
    // Another conversation is not held.
    let (_, other) = seed_conversation(&db.pool, "812").await;
    let claimed: Vec<Uuid> =
        db::outbox::claim(&db.pool, "test", 10, &[]).await.unwrap().into_iter().map(|c| c.id).collect();
    assert_eq!(claimed, [other]);
    let mut tx = db.pool.begin().await.unwrap();
    assert_eq!(db::conversations::set_owner(&mut tx, id, "human", "test", None, None).await.unwrap(), 1);
    tx.commit().await.unwrap();
    assert_eq!(db::outbox::get(&db.pool, row).await.unwrap().unwrap().state, "void");
}

#[tokio::test]
async fn a_takeover_while_the_answer_is_drafted_supersedes_it() {
    let model = HeldModel::start(&format!("{ANSWER} [1]")).await;
    let settings = model.settings();
    let host = Host::start_with(move |plan| plan.settings.model = settings.clone()).await;
    host.teach_answer().await;
    host.ask("821", QUESTION).await;
    host.until("the draft", async || model.asked() == 1).await;
    let id = host.conversation("821").await;
    let (status, answer) = post_to(&host, id, "takeover", json!({ "reason": "I know her" })).await;
    assert_eq!((status, &answer["changed"]), (200, &json!(true)), "{answer}");
    let (_, again) = post_to(&host, id, "takeover", json!({})).await;
    assert_eq!(again["changed"], json!(false), "{again}");
    model.release(1);
    host.drained().await;
    assert_eq!(host.got("821"), [""; 0]);
    let turns = host.turns("821").await;
    assert_eq!(turns[0]["outcome"], "superseded", "{turns:?}");
}

#[tokio::test]
async fn a_person_answers_in_their_own_name_and_within_metas_windows() {
    let host = host().await;
    host.ask("831", QUESTION).await;
    host.drained().await;
    let id = host.conversation("831").await;
    let (status, answer) = post_to(&host, id, "reply", json!({ "text": "Ada here." })).await;
    assert_eq!(
        (status, &answer["sends_as"], &answer["took_over"]),
        (202, &json!("response"), &json!(true)),
        "{answer}"
    );
    host.drained().await;
    assert_eq!(host.owner("831").await, "human");

    // The window has closed, but a person may write for seven days with the tag that only a person gets.
    let age = async |days: i32| {
        sqlx::query(
            "update conversations set window_closes_at = now() - interval '1 hour',
               last_customer_at = now() - make_interval(days => $1)",
        )
        .bind(days)
        .execute(host.pool())
        .await
        .unwrap();
    };
    age(2).await;
    let (status, answer) = post_to(&host, id, "reply", json!({ "text": "Still there?" })).await;
    assert_eq!((status, &answer["sends_as"]), (202, &json!("human_agent")), "{answer}");
    host.drained().await;
    age(8).await;
    let (status, answer) = post_to(&host, id, "reply", json!({ "text": "Too late." })).await;
    assert_eq!(status, 409, "{answer}");

    let sent: Vec<(String, Option<String>, Option<String>)> =
        host.graph.sends_to("831").into_iter().skip(1).map(|sent| (sent.text, sent.messaging_type, sent.tag)).collect();
    let expected = [("Ada here.", "RESPONSE", None), ("Still there?", "MESSAGE_TAG", Some("HUMAN_AGENT"))];
    assert_eq!(sent, expected.map(|(text, kind, tag)| (text.into(), Some(kind.into()), tag.map(str::to_owned))));
    let authors: Vec<String> =
        sqlx::query_scalar("select author from messages order by sent_at, id").fetch_all(host.pool()).await.unwrap();
    assert_eq!(authors, ["customer", "bot", "agent", "agent"]);
}

#[tokio::test]
async fn the_same_request_of_a_person_is_sent_once_and_nobody_nameless_may_ask() {
    let host = host().await;
    host.ask("841", QUESTION).await;
    host.drained().await;
    let url = format!("{}/admin/conversations/{}/reply", host.address, host.conversation("841").await);
    let request = || host.http.post(&url).json(&json!({ "text": "Once." })).header("Idempotency-Key", "k1");
    let token = crate::host::ADMIN_TOKEN;
    for expected in [202, 200, 200] {
        let answer = request().bearer_auth(token).header("X-Frontdesk-Agent", "ada").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), expected);
    }
    let nameless = request().bearer_auth(token).send().await.unwrap();
    assert_eq!(nameless.status(), 400);
    let stranger = request().header("X-Frontdesk-Agent", "ada").bearer_auth("no token").send().await.unwrap();
    assert_eq!(stranger.status(), 401);
    host.drained().await;
    assert_eq!(host.got("841")[1..], ["Once."]);
}

#[tokio::test]
async fn thread_control_moves_the_conversation_between_us_and_others() {
    let host = host().await;
    let ours = crate::host::APP_ID;
    let inbox = wire::PAGE_INBOX_APP_ID.to_string();
    host.ask("851", QUESTION).await;
    host.drained().await;
    let steps = [
        (wire::take_thread_control(Some(ours), &inbox), "human"),
        (wire::pass_thread_control(Some(&inbox), Some(ours)), "bot"),
        (wire::pass_thread_control(Some(ours), Some("5550001")), "not_ours"),
        (wire::take_thread_control(Some("5550001"), ours), "bot"),
    ];
    for (fields, owner) in steps {
        assert_eq!(host.meta.from_person("851", fields.clone()).await.unwrap(), 200);
        host.until(&format!("{fields} gives the conversation to {owner}"), async || host.owner("851").await == owner)
            .await;
    }
}

// ---- the race ----

async fn seed_page(pool: &PgPool) {
    sqlx::query(
        "insert into pages (page_id, name, chain, time_zone, language) values ($1, 'x', 'default', 'UTC', 'en')",
    )
    .bind(PAGE)
    .execute(pool)
    .await
    .unwrap();
}

/// A conversation of the machine's with an open window and one queued answer.
async fn seed_conversation(pool: &PgPool, psid: &str) -> (Uuid, Uuid) {
    let id: Uuid = sqlx::query_scalar(
        "insert into conversations (page_id, psid, window_closes_at, last_customer_at)
         values ($1, $2, now() + interval '1 day', now()) returning id",
    )
    .bind(PAGE)
    .bind(psid)
    .fetch_one(pool)
    .await
    .unwrap();
    let row = seed_answer(pool, id, psid).await;
    (id, row)
}

/// A row of the machine's, written under the conversation's first epoch.
async fn seed_answer(pool: &PgPool, id: Uuid, psid: &str) -> Uuid {
    let row = Uuid::now_v7();
    let new = db::outbox::NewRow {
        id: row,
        conversation_id: id,
        page_id: PAGE,
        psid,
        turn_id: None,
        reply_id: row,
        epoch: 0,
        agent: None,
        text: "answer",
    };
    db::outbox::insert(pool, &[new]).await.unwrap();
    row
}

/// Takes a conversation over as the host does, and looks at its answer in a transaction that began after the commit. Then
/// come the two that are late: an answer that was on its way is to be sent again, and another is written under the old epoch.
async fn take_over(pool: &PgPool, id: Uuid, row: Uuid, psid: &str) -> (u64, String) {
    let mut tx = pool.begin().await.unwrap();
    db::conversations::lock(&mut tx, id).await.unwrap();
    let voided = db::conversations::set_owner(&mut tx, id, "human", "test", Some("ada"), None).await.unwrap();
    tx.commit().await.unwrap();
    let state = db::outbox::get(pool, row).await.unwrap().unwrap().state;
    let claimed_at: Option<chrono::DateTime<chrono::Utc>> =
        sqlx::query_scalar("select claimed_at from outbox where id = $1").bind(row).fetch_one(pool).await.unwrap();
    if let Some(claimed_at) = claimed_at {
        db::outbox::requeue(pool, row, claimed_at, 0, true, "test").await.unwrap();
    }
    seed_answer(pool, id, psid).await;
    (voided, state)
}

/// `FRONTDESK_RACE_ROUNDS` takeovers against claims that never pause. In each round exactly one of the two gets the answer;
/// whatever becomes due after a takeover's commit is claimed by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_of_the_machine_is_claimed_after_a_takeover_has_committed() {
    const BATCH: usize = 40;
    let rounds: usize =
        std::env::var("FRONTDESK_RACE_ROUNDS").map_or(2_000, |rounds| rounds.parse().expect("a number of rounds"));
    let db = fresh_database().await;
    seed_page(&db.pool).await;
    let (mut claimed_rounds, mut voided_rounds) = (0, 0);
    for batch in 0..rounds.div_ceil(BATCH) {
        let mut seeded = Vec::new();
        for at in 0..BATCH {
            seeded.push(seed_conversation(&db.pool, &format!("{batch}-{at}")).await);
        }
        let done = Arc::new(AtomicBool::new(false));
        let claimers: Vec<_> = (0..3)
            .map(|_| {
                let (pool, done) = (db.pool.clone(), Arc::clone(&done));
                tokio::spawn(async move {
                    let mut claimed = Vec::new();
                    while !done.load(Ordering::SeqCst) {
                        // Few at a time, so that claims and takeovers meet all through the batch.
                        claimed
                            .extend(db::outbox::claim(&pool, "race", 2, &[]).await.unwrap().into_iter().map(|c| c.id));
                    }
                    claimed
                })
            })
            .collect();
        // The claims go in the order of the rows; the takeovers come from both ends.
        let half = BATCH / 2;
        let order = (0..half).flat_map(|at| [at, BATCH - 1 - at]);
        let mut takeovers = Vec::new();
        for at in order {
            let ((id, row), pool) = (seeded[at], db.pool.clone());
            let psid = format!("{batch}-{at}");
            takeovers.push(tokio::spawn(async move { (row, take_over(&pool, id, row, &psid).await) }));
        }
        let mut voided = Vec::new();
        for takeover in takeovers {
            let (row, (count, state)) = takeover.await.unwrap();
            match (count, state.as_str()) {
                (1, "void") => voided.push(row),
                (0, "sending") => {}
                other => panic!("batch {batch}: after the takeover the row is {other:?}"),
            }
        }
        done.store(true, Ordering::SeqCst);
        let mut claimed = Vec::new();
        for claimer in claimers {
            claimed.extend(claimer.await.unwrap());
        }
        assert!(claimed.iter().all(|row| !voided.contains(row)), "batch {batch}: a void answer was claimed");
        let due: Vec<Uuid> = seeded.iter().map(|(_, row)| *row).collect();
        assert!(claimed.iter().all(|row| due.contains(row)), "batch {batch}: an answer of the old epoch was claimed");
        assert_eq!(claimed.len() + voided.len(), BATCH, "batch {batch}: each answer is claimed or void, and once");
        assert!(db::outbox::claim(&db.pool, "late", 100, &[]).await.unwrap().is_empty());
        // What came late is found and settled as void.
        let late = db::outbox::unsendable(&db.pool, 1_000).await.unwrap();
        assert_eq!(late.len(), BATCH + claimed.len());
        let (_, state, _) = db::outbox::settle_unsendable(&db.pool, late[0].0).await.unwrap().unwrap();
        assert_eq!(state, "void");
        claimed_rounds += claimed.len();
        voided_rounds += voided.len();
        // Rows of finished rounds would only slow the next ones down.
        sqlx::query("truncate conversations cascade").execute(&db.pool).await.unwrap();
    }
    println!("{claimed_rounds} answers were claimed before their takeover, {voided_rounds} were void");
    assert!(claimed_rounds > 0 && voided_rounds > 0, "no race: {claimed_rounds} claimed, {voided_rounds} void");
}

#[tokio::test]
async fn an_agent_passes_takes_releases_and_requests_the_thread_at_meta() {
    const OTHER_APP: &str = "555000111222333";
    let host = Host::start().await;
    host.teach_answer().await;
    host.ask("871", QUESTION).await;
    host.drained().await;
    assert_eq!(host.got("871").len(), 1);
    let id = host.conversation("871").await;
    let path = format!("/admin/conversations/{id}/thread");
    let act = async |body: Value| host.admin("POST", &path, Some(body)).await;
    for (body, problem) in [
        (json!({ "action": "pass", "app_id": "an app" }), "app_id"),
        (json!({ "action": "extend", "duration_s": 604_801 }), "duration_s"),
        (json!({ "action": "request", "metadata": "x".repeat(1_000) }), "metadata"),
        (json!({ "action": "steal" }), "body"),
    ] {
        let (status, answer) = act(body).await;
        assert!(status == 400 && answer.to_string().contains(problem), "{status} {answer}");
    }

    // Passed on: the machine falls silent, and Meta's record says whose it is.
    let (status, passed) = act(json!({ "action": "pass", "app_id": OTHER_APP, "metadata": "an order" })).await;
    assert_eq!((status, &passed["conversation"]["state"]), (200, &json!("not_ours")), "{passed}");
    let (_, owner) = host.admin("GET", &path, None).await;
    assert_eq!((&owner["owner"]["app_id"], &owner["is_ours"]), (&json!(OTHER_APP), &json!(false)), "{owner}");
    // Not ours to pass or release; what Meta refuses changes nothing here.
    for action in ["pass", "release"] {
        let (status, answer) = act(json!({ "action": action })).await;
        assert!(status == 502 && answer.to_string().contains("not_ours"), "{status} {answer}");
    }
    assert_eq!(host.owner("871").await, "not_ours");
    assert_eq!(act(json!({ "action": "request", "metadata": "please" })).await.0, 200);

    // Taken: the agent's, until they hand it back; then the machine answers again.
    let (status, taken) = act(json!({ "action": "take" })).await;
    assert_eq!((status, &taken["conversation"]["state"]), (200, &json!("human")), "{taken}");
    assert_eq!(taken["conversation"]["agent"], "ada");
    assert_eq!(host.admin("GET", &path, None).await.1["is_ours"], true);
    assert_eq!(act(json!({ "action": "extend", "duration_s": 3_600 })).await.0, 200);
    let (status, _) = host.admin("POST", &format!("/admin/conversations/{id}/handback"), Some(json!({}))).await;
    assert_eq!(status, 200);
    host.read_all().await;
    host.ask("871", "When does the parcel to Austria arrive?").await;
    host.drained().await;
    assert_eq!(host.got("871").len(), 2, "{:?}", host.got("871"));

    // To the Page Inbox, which is a person; released, the thread is nobody's.
    assert_eq!(act(json!({ "action": "release" })).await.0, 200);
    assert_eq!(host.admin("GET", &path, None).await.1["owner"], Value::Null);
    let (status, passed) = act(json!({ "action": "pass" })).await;
    assert_eq!((status, &passed["conversation"]["state"]), (200, &json!("human")), "{passed}");
    let noted = "select count(*) from audit_log where action like 'conversation.thread_%' and actor like '%ada'";
    assert_eq!(host.count(noted).await, 6);
}

// ---- telling a CRM ----

/// A receiver that fails at first.
#[derive(Default)]
struct Receiver {
    calls: AtomicUsize,
    taken: Mutex<Vec<(String, Value)>>,
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let mut mac = Hmac::<Sha256>::new_from_slice(TICKET_SECRET.as_bytes()).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(&body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    if header("webhook-signature") != expected {
        return StatusCode::UNAUTHORIZED;
    }
    let sent_s: i64 = timestamp.parse().unwrap();
    assert!((chrono::Utc::now().timestamp() - sent_s).abs() < 60);
    if receiver.calls.fetch_add(1, Ordering::SeqCst) == 0 {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    receiver.taken.lock().await.push((id, serde_json::from_slice(&body).unwrap()));
    StatusCode::NO_CONTENT
}

#[tokio::test]
async fn a_ticket_reaches_the_crm_signed_and_again_after_a_failure() {
    let receiver = Arc::new(Receiver::default());
    let router = Router::new().route("/tickets", post(receive)).with_state(Arc::clone(&receiver));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/tickets", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let host = Host::start_with(move |plan| plan.settings.tickets.webhook_url = url.clone()).await;
    host.teach_answer().await;
    host.ask("861", "I want to talk to a real person please").await;
    host.drained().await;
    assert_eq!(host.owner("861").await, "human");
    assert_eq!(host.got("861").len(), 1, "the customer is told that a person comes");
    host.until("the first attempt", async || {
        host.count("select count(*) from ticket_deliveries where attempts = 1 and last_error = 'HTTP 500'").await == 1
    })
    .await;
    let wait_s: f64 =
        sqlx::query_scalar("select extract(epoch from not_before - now())::float8 from ticket_deliveries")
            .fetch_one(host.pool())
            .await
            .unwrap();
    assert!((3.0..=6.5).contains(&wait_s), "the next attempt comes in {wait_s} s");
    sqlx::query("update ticket_deliveries set not_before = now()").execute(host.pool()).await.unwrap();
    host.until("the second attempt", async || !receiver.taken.lock().await.is_empty()).await;
    host.until("noted", async || {
        host.count("select count(*) from ticket_deliveries where state = 'delivered' and attempts = 2").await == 1
    })
    .await;
    let id = host.conversation("861").await;
    let (_, answer) = post_to(&host, id, "handback", json!({})).await;
    assert!(answer["resolved_ticket"].is_string(), "{answer}");
    host.until("the resolution", async || receiver.taken.lock().await.len() == 2).await;

    let taken = receiver.taken.lock().await;
    assert_ne!(taken[0].0, taken[1].0, "each event has its own id");
    let (opened, resolved) = (&taken[0].1, &taken[1].1);
    assert_eq!((&opened["event"], &resolved["event"]), (&json!("ticket.opened"), &json!("ticket.resolved")));
    assert_eq!(opened["ticket"]["state"], "open");
    assert_eq!(opened["ticket"]["transcript"][0]["text"], "I want to talk to a real person please");
    assert_eq!(opened["conversation"]["psid"], "861");
    assert_eq!(resolved["ticket"]["state"], "resolved");
    let ticket_id = opened["ticket"]["id"].clone();
    drop(taken);

    // What the receiver keeps of a person is its own to delete: it is told when.
    let (status, _) = host.admin("POST", &format!("/admin/people/{PAGE}/861/erase"), None).await;
    assert_eq!(status, 200);
    host.until("the erasure is told", async || receiver.taken.lock().await.len() == 3).await;
    let told = receiver.taken.lock().await[2].1.clone();
    assert_eq!((&told["event"], &told["person"]["psid"]), (&json!("person.erased"), &json!("861")), "{told}");
    assert_eq!(told["person"]["ticket_ids"], json!([ticket_id]), "{told}");
    host.until("the notice is forgotten", async || {
        host.count("select count(*) from ticket_deliveries where event = 'person.erased' and state = 'delivered' and notice is null")
            .await
            == 1
    })
    .await;
    // Of somebody whose tickets nobody was told of, nothing is said.
    host.ask("862", QUESTION).await;
    host.drained().await;
    let (_, asked) = host.admin("POST", &format!("/admin/people/{PAGE}/862/erase"), None).await;
    let path = format!("/admin/erasures/{}", asked["code"].as_str().unwrap());
    host.until("erased", async || host.admin("GET", &path, None).await.1["erasure"]["state"] == "done").await;
    assert_eq!(host.count("select count(*) from ticket_deliveries").await, 1);
    server.abort();
}

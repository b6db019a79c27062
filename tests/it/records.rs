//! Decision records at rest: sealed under the person's key, masked beside it, kept for a time, and never in a reply's way.

use std::time::Duration;

use frontdesk_policy_engine::{RecordedTurn, replay};
use frontdesk_server::app::{Roles, Server};
use frontdesk_server::keys::{KeyRing, Keys};
use frontdesk_server::pipeline::DecisionRecord;
use frontdesk_server::records::{self, Form};
use secrecy::SecretString;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::host::{ANSWER, Ground, Host, KEYS, QUESTION, settings, simulated_meta};

const OTHER_KEYS: &str = "test-2:YW5vdGhlciB0aGlydHktdHdvIGJ5dGVzLCBrZXB0ISE=";

/// A host that has answered a person's question; the id of the turn.
async fn answered(host: &Host, psid: &str) -> Uuid {
    host.ask(psid, QUESTION).await;
    host.drained().await;
    sqlx::query_scalar(
        "select d.turn_id from decisions d join conversations c on c.id = d.conversation_id where c.psid = $1
         order by d.created_at desc limit 1",
    )
    .bind(psid)
    .fetch_one(host.pool())
    .await
    .unwrap()
}

async fn state(host: &Host, turn: Uuid) -> String {
    sqlx::query_scalar("select record_state from decisions where turn_id = $1")
        .bind(turn)
        .fetch_one(host.pool())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_sealed_masked_and_every_clear_reading_is_noted() {
    let host = Host::start().await;
    host.teach_answer().await;
    let turn = answered(&host, "8001").await;
    assert_eq!(state(&host, turn).await, "sealed");
    let stored: (String, String, Option<Value>) = sqlx::query_as(
        "select encode(r.sealed, 'escape'), r.masked::text, d.record
         from decision_records r join decisions d using (turn_id) where turn_id = $1",
    )
    .bind(turn)
    .fetch_one(host.pool())
    .await
    .unwrap();
    // The title of a passage is the Page's own, and stays.
    for word in ["Do you", "we ship", "parcel"] {
        assert!(!stored.0.contains(word) && !stored.1.contains(word), "{word} is readable: {}", stored.1);
    }
    assert_eq!(stored.2, None);
    let reads = "select count(*) from audit_log where action = 'record.read' and actor = 'ada'";
    assert_eq!(host.count(reads).await, 0);

    let (status, masked) = host.admin("GET", &format!("/admin/turns/{turn}?form=masked"), None).await;
    assert_eq!(
        (status, &masked["record"]["turn"]["messages"][0]["text"]),
        (200, &json!({ "masked": "text", "characters": 23 }))
    );
    assert_eq!(masked["record"]["classify"]["result"]["Ok"]["route"], "answer");
    assert_eq!(host.count(reads).await, 0, "a masked reading is no reading");

    for _ in 0..2 {
        let (status, clear) = host.admin("GET", &format!("/admin/turns/{turn}"), None).await;
        assert_eq!(status, 200, "{clear}");
        assert_eq!(clear["record"]["turn"]["messages"][0]["text"], QUESTION);
        assert_eq!(clear["turn"]["reply"].as_str().map(|reply| reply.contains(ANSWER)), Some(true));
        assert_eq!(clear["record"]["wit_digest"].as_str().map(str::len), Some(64));
    }
    assert_eq!(host.count(reads).await, 1);
    let subject: String = sqlx::query_scalar("select subject from audit_log where action = 'record.read'")
        .fetch_one(host.pool())
        .await
        .unwrap();
    assert_eq!(subject, turn.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_opens_in_its_own_row_and_with_its_persons_key_only() {
    let host = Host::start().await;
    host.teach_answer().await;
    let (one, two) = (answered(&host, "8002").await, answered(&host, "8003").await);
    let three = answered(&host, "8002").await;
    let unreadable = async |turn: Uuid| {
        let decision = host.app.records.load(turn, Form::Clear).await.unwrap().unwrap();
        (decision.record_state, decision.record.is_null())
    };
    // Another person's, then the same person's of another turn.
    for from in [two, three] {
        sqlx::query(
            "update decision_records r set sealed = o.sealed from decision_records o where r.turn_id = $1 and o.turn_id = $2",
        )
        .bind(one)
        .bind(from)
        .execute(host.pool())
        .await
        .unwrap();
        assert_eq!(unreadable(one).await, ("unreadable".to_owned(), true));
    }
    let listed = host.app.records.all_after(None, None, 10, Form::Clear).await.unwrap();
    assert_eq!(listed.iter().filter(|decision| decision.has_record()).count(), 2, "one bad record costs only itself");
    let all = host.app.records.latest("default", 10).await.unwrap();
    assert_eq!(all.len(), 2);
    // Page by page they are the same: the one that does not open leaves its page empty, and the one after it is the last.
    let (mut paged, mut place, mut pages) = (Vec::new(), None, 0);
    loop {
        let (page, next) = host.app.records.latest_before("default", place, 1).await.unwrap();
        paged.extend(page.into_iter().map(|decision| decision.turn_id));
        pages += 1;
        place = next;
        if place.is_none() {
            break;
        }
    }
    assert_eq!((paged, pages), (vec![all[0].turn_id, all[1].turn_id], 4));
    let counted = async |most| host.app.records.count("default", most).await.unwrap();
    assert_eq!([counted(2).await, counted(9).await], [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_written_are_dropped_and_counted_and_no_reply_waits_for_them() {
    let host = Host::start_with(|plan| plan.settings.records.pending_max = 1).await;
    host.teach_answer().await;
    let mut tx = host.pool().begin().await.unwrap();
    sqlx::query("lock table decision_records in access exclusive mode").execute(&mut *tx).await.unwrap();
    let psids: Vec<String> = (0..8).map(|n| format!("81{n:02}")).collect();
    for psid in &psids {
        host.ask(psid, QUESTION).await;
    }
    host.graph.wait_for_sends(psids.len(), Duration::from_secs(20)).await.unwrap();
    let waiting: i64 = sqlx::query_scalar("select count(*) from decisions where record_state <> 'sealed'")
        .fetch_one(host.pool())
        .await
        .unwrap();
    assert_eq!(waiting, 8, "a record was written through a locked table");
    tx.rollback().await.unwrap();
    host.until("every record settled", async || {
        host.count("select count(*) from decisions where record_state = 'pending'").await == 0
    })
    .await;
    let dropped = host.count("select count(*) from decisions where record_state = 'dropped'").await;
    let sealed = host.count("select count(*) from decisions where record_state = 'sealed'").await;
    assert!(dropped >= 1 && sealed >= 1 && dropped + sealed == 8, "{dropped} dropped, {sealed} sealed");
    let metrics = host.http.get(format!("{}/metrics", host.address)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"frontdesk_records_total{result="dropped",why="queue-full"}"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_before_stay_readable_and_are_sealed_in_the_background() {
    let host = Host::start().await;
    host.teach_answer().await;
    let turn = answered(&host, "8201").await;
    let clear = host.app.records.load(turn, Form::Clear).await.unwrap().unwrap().record;
    // As an earlier version wrote it.
    sqlx::query("update decisions set record = $2, record_state = 'inline', chain = null where turn_id = $1")
        .bind(turn)
        .bind(&clear)
        .execute(host.pool())
        .await
        .unwrap();
    sqlx::query("delete from decision_records").execute(host.pool()).await.unwrap();
    let inline = host.app.records.load(turn, Form::Clear).await.unwrap().unwrap();
    assert_eq!((inline.record_state.as_str(), inline.chain.as_deref()), ("inline", Some("default")));
    assert_eq!(inline.record, clear);
    assert_eq!(host.app.records.latest("default", 5).await.unwrap().len(), 1);
    let masked = host.app.records.load(turn, Form::Masked).await.unwrap().unwrap().record;
    assert!(masked["turn"]["messages"][0]["text"]["masked"] == "text" && !masked.to_string().contains("parcel"));

    let host = host.restart().await;
    host.until("the record is sealed", async || state(&host, turn).await == "sealed").await;
    let sealed = host.app.records.load(turn, Form::Clear).await.unwrap().unwrap();
    assert_eq!((sealed.record, sealed.chain.as_deref()), (clear, Some("default")));
    assert_eq!(host.count("select count(*) from decisions where record is not null").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_expire_and_those_that_never_came_are_named() {
    let host = Host::start().await;
    host.teach_answer().await;
    let (old, young) = (answered(&host, "8301").await, answered(&host, "8302").await);
    let age = async |turn: Uuid, age: &'static str, state: &'static str| {
        sqlx::query("update decisions set created_at = now() - $2::interval, record_state = $3 where turn_id = $1")
            .bind(turn)
            .bind(age)
            .bind(state)
            .execute(host.pool())
            .await
            .unwrap();
    };
    age(old, "31 days", "sealed").await;
    age(young, "29 days", "sealed").await;
    assert_eq!(records::prune(host.pool(), 30).await.unwrap(), 1);
    assert_eq!((state(&host, old).await, state(&host, young).await), ("expired".to_owned(), "sealed".to_owned()));
    assert_eq!(host.count("select count(*) from decision_records").await, 1);
    let (status, shown) = host.admin("GET", &format!("/admin/turns/{old}"), None).await;
    assert_eq!((status, &shown["record_state"], &shown["record"]), (200, &json!("expired"), &Value::Null));
    assert_eq!(shown["turn"]["outcome"], "sent", "that there was a turn stays");
    age(young, "14 minutes", "pending").await;
    assert_eq!(records::prune(host.pool(), 30).await.unwrap(), 0);
    age(young, "16 minutes", "pending").await;
    assert_eq!(records::prune(host.pool(), 30).await.unwrap(), 1);
    assert_eq!(state(&host, young).await, "lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_while_records_stay_readable_and_a_stranger_does_not_start() {
    let host = Host::start().await;
    host.teach_answer().await;
    let turn = answered(&host, "8401").await;
    answered(&host, "8402").await;
    let start = async |keys: &str| {
        let ground = Ground::new().await;
        let mut settings = settings(&ground, &*simulated_meta().await);
        settings.pages.clear();
        let mut secrets = host.app.secrets.clone();
        secrets.keys = Some(SecretString::from(keys.to_owned()));
        Server::build(settings, secrets, Roles { serve: false, work: false }).await.map(|_| ())
    };
    let refused = start(OTHER_KEYS).await.unwrap_err().to_string();
    assert!(refused.contains("encrypted under the key(s) test-1") && refused.contains("only test-2"), "{refused}");
    let same_id = OTHER_KEYS.replace("test-2", "test-1");
    assert!(start(&same_id).await.unwrap_err().to_string().contains("the key test-1 is not the one"));

    let ring = KeyRing::parse(&SecretString::from(format!("{OTHER_KEYS}\n{KEYS}"))).unwrap();
    let both = Keys::open(ring, host.pool()).await.unwrap();
    let mut heard = Vec::new();
    // Two people's keys, that of the document that was taught, and the inbox's: each of its writers may have made one.
    let there = u64::try_from(3 + host.count("select count(*) from inbox_keys").await).unwrap();
    assert_eq!(frontdesk_server::keys::rotate(&both, host.pool(), |done| heard.push(done)).await.unwrap(), there);
    assert_eq!(heard, [there]);
    assert_eq!(frontdesk_server::keys::rotate(&both, host.pool(), |_| ()).await.unwrap(), 0);
    assert_eq!(host.count("select count(*) from person_keys where key_id = 'test-2'").await, 2);
    assert_eq!(host.count("select count(*) from inbox_keys where key_id <> 'test-2'").await, 0);
    assert_eq!(host.count("select count(*) from document_versions where key_id = 'test-2'").await, 1);
    // The host that has not been given the new key says so, and only about the record.
    assert_eq!(host.app.records.load(turn, Form::Clear).await.unwrap().unwrap().record_state, "unreadable");
    assert!(start(KEYS).await.unwrap_err().to_string().contains("test-2"));
    start(OTHER_KEYS).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_message_takes_its_record_along_also_one_on_its_way() {
    let host = Host::start().await;
    host.teach_answer().await;
    let mid = host.ask("8501", QUESTION).await;
    host.drained().await;
    let turn = host.app.records.latest("default", 1).await.unwrap()[0].turn_id;
    let mut tx = host.pool().begin().await.unwrap();
    let conversation = host.conversation("8501").await;
    frontdesk_server::db::decisions::erase(&mut *tx, conversation, &mid).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(state(&host, turn).await, "erased");
    assert_eq!(host.count("select count(*) from decision_records").await, 0);
    host.app.records.write(records::Job {
        turn_id: turn,
        page_id: crate::host::PAGE.into(),
        psid: "8501".into(),
        version: 1,
        record: json!({ "turn": {} }),
        unknown_since: None,
    });
    host.app.records.load(turn, Form::Clear).await.unwrap();
    assert_eq!(host.count("select count(*) from decision_records").await, 0, "a late record came back");
    assert_eq!(state(&host, turn).await, "erased");
}

/// What each released version wrote is read from its row, sealed, opened the same, and replayed by today's policies.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_each_released_version_are_sealed_read_and_replayed() {
    let host = Host::start().await;
    let conversation: Uuid =
        sqlx::query_scalar("insert into conversations (page_id, psid) values ($1, '8601') returning id")
            .bind(crate::host::PAGE)
            .fetch_one(host.pool())
            .await
            .unwrap();
    let fixtures = include_str!("../../sdk/policyctl/tests/fixtures/records-v1.jsonl");
    let rows: Vec<Value> = fixtures.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for row in &rows {
        sqlx::query(
            "insert into decisions (turn_id, conversation_id, page_id, revision, route, outcome, confidence, reason, mids,
                                    record_version, record, duration_us)
             values ($1, $2, $3, $4, $5, $6, 1, '', '{}', $7, $8, 1)",
        )
        .bind(row["turn_id"].as_str().unwrap().parse::<Uuid>().unwrap())
        .bind(conversation)
        .bind(crate::host::PAGE)
        .bind(row["revision"].as_str().unwrap())
        .bind(row["route"].as_str().unwrap())
        .bind(row["outcome"].as_str().unwrap())
        .bind(i32::try_from(row["record_version"].as_i64().unwrap()).unwrap())
        .bind(&row["record"])
        .execute(host.pool())
        .await
        .unwrap();
    }
    let host = host.restart().await;
    host.until("all are sealed", async || {
        host.count("select count(*) from decisions where record_state = 'sealed'").await as usize == rows.len()
    })
    .await;
    let serving = host.app.policies.current("default").unwrap();
    for row in &rows {
        let turn: Uuid = row["turn_id"].as_str().unwrap().parse().unwrap();
        let decision = host.app.records.load(turn, Form::Clear).await.unwrap().unwrap();
        assert_eq!((decision.record_version, &decision.record), (1, &row["record"]));
        let _: DecisionRecord = serde_json::from_value(decision.record.clone()).unwrap();
        let recorded: RecordedTurn = serde_json::from_value(decision.record).unwrap();
        let replayed = replay(&serving.revision, &recorded).await;
        assert!(replayed.classify.result.is_ok(), "{turn}: {:?}", replayed.classify.result);
    }
}

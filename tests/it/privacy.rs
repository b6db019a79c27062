//! Forgetting a person, and Meta's two privacy callbacks.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use frontdesk_server::db;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::host::{APP_SECRET, Host, OTHER_PAGE, PAGE, QUESTION};

/// Words that stand nowhere else.
const WORDS: &str = "Kaleidoskop Zwetschkenknoedel";

fn signed(secret: &str, user_id: &str) -> String {
    let payload = json!({ "algorithm": "HMAC-SHA256", "issued_at": 1_800_000_000, "user_id": user_id }).to_string();
    let payload = URL_SAFE_NO_PAD.encode(payload);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(payload.as_bytes());
    format!("{}.{payload}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

async fn post(host: &Host, path: &str, signed_request: &str) -> (u16, Value) {
    let body = format!("signed_request={signed_request}");
    let request = host.http.post(format!("{}{path}", host.address)).body(body);
    let answer = request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or(Value::Null))
}

/// Every table whose text holds a needle, with how many rows.
async fn found(host: &Host, needle: &str) -> Vec<(String, i64)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'",
    )
    .fetch_all(host.pool())
    .await
    .unwrap();
    let mut found = Vec::new();
    for table in tables {
        let query = format!("select count(*) from {table} t where t::text like '%' || $1 || '%'");
        let count: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(query)).bind(needle).fetch_one(host.pool()).await.unwrap();
        if count > 0 {
            found.push((table, count));
        }
    }
    found
}

/// What a backup of the whole database holds, table by table, as text; binary columns are in hexadecimal.
async fn backup(host: &Host) -> Vec<(String, String)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'",
    )
    .fetch_all(host.pool())
    .await
    .unwrap();
    let mut dump = Vec::new();
    for table in tables {
        let query = format!("select coalesce(string_agg(t::text, E'\\n'), '') from {table} t");
        dump.push((table, sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(host.pool()).await.unwrap()));
    }
    dump
}

/// The tables of a backup in which a text can be read: as it is, or in a binary column.
fn readable(dump: &[(String, String)], needle: &str) -> Vec<String> {
    let hex = hex::encode(needle);
    let holds = |text: &str| text.contains(needle) || text.contains(&hex);
    dump.iter().filter(|(_, text)| holds(text)).map(|(table, _)| table.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_from_before_an_erasure_holds_no_readable_word_once_the_keys_are_gone() {
    let host = Host::start().await;
    host.teach_answer().await;
    let psid = "88120888";
    let (asked, wanted) =
        ("Do you ship violins to Austria? Xylophonkoffer", "I want to speak to a human about Bratschenharz");
    host.ask(psid, asked).await;
    let early = backup(&host).await;
    host.drained().await;
    host.ask(psid, wanted).await;
    host.drained().await;
    let id = host.conversation(psid).await;
    let reply = json!({ "text": "Your Geigenkasten is ready, said Ada." });
    assert_eq!(host.admin("POST", &format!("/admin/conversations/{id}/reply"), Some(reply)).await.0, 202);
    host.drained().await;
    let dump = backup(&host).await;
    for needle in ["Xylophonkoffer", "Bratschenharz", "Geigenkasten"] {
        for dump in [&early, &dump] {
            assert_eq!(readable(dump, needle), [""; 0], "{needle}");
        }
    }
    // Nothing of it is lost: the host reads all of it.
    let said: String = host.transcript(psid).await.into_iter().map(|(.., text)| text).collect();
    for needle in ["Xylophonkoffer", "Bratschenharz", "Geigenkasten"] {
        assert!(said.contains(needle), "{needle}: {said}");
    }
    for table in ["messages", "conversations", "inbox", "outbox", "tickets"] {
        let copy = format!("create table backup_{table} as select * from {table}");
        sqlx::query(sqlx::AssertSqlSafe(copy)).execute(host.pool()).await.unwrap();
    }

    let (_, erasure) = host.admin("POST", &format!("/admin/people/{PAGE}/{psid}/erase"), None).await;
    done(&host, erasure["code"].as_str().unwrap()).await;
    // The backup comes back, as `pg_dump --exclude-table-data` of the two tables of keys would bring it.
    for table in ["conversations", "messages"] {
        let copy = format!("insert into {table} overriding system value select * from backup_{table}");
        sqlx::query(sqlx::AssertSqlSafe(copy)).execute(host.pool()).await.unwrap();
    }
    let restored = host.transcript(psid).await;
    assert!(restored.len() >= 4, "{restored:?}");
    assert!(restored.iter().all(|(.., text)| text.is_empty()), "{restored:?}");
    // The keys of the inbox go by themselves after half an hour.
    assert!(host.count("select count(*) from inbox_keys").await >= 1);
    assert_eq!(db::keys::delete_dead_inbox_keys(host.pool()).await.unwrap(), 0, "not while it may be used");
    sqlx::query("update inbox_keys set used_until = now() - interval '11 minutes'").execute(host.pool()).await.unwrap();
    assert!(db::keys::delete_dead_inbox_keys(host.pool()).await.unwrap() >= 1);
    // The next delivery finds that its key is gone, and is stored under another.
    host.ask("88120999", QUESTION).await;
    host.drained().await;
    assert_eq!(host.said("88120999").await, [QUESTION]);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_an_earlier_version_are_read_and_sealed_in_the_background() {
    let host = Host::start().await;
    host.teach_answer().await;
    let psid = "88121001";
    host.ask(psid, QUESTION).await;
    host.drained().await;
    host.ask(psid, "I want to speak to a human please").await;
    host.drained().await;
    // As the version before stored them.
    let event = json!({ "sender": { "id": psid }, "message": { "mid": "m", "text": WORDS } });
    let statements = [
        "update messages set text = $1 || ' said' where author = 'customer'",
        "update outbox set text = $1 || ' told'",
        "update tickets set summary = $1, matters = jsonb_build_array(matters -> 0 || jsonb_build_object('summary', $1::text))",
    ];
    for statement in statements {
        sqlx::query(statement).bind(WORDS).execute(host.pool()).await.unwrap();
    }
    sqlx::query("update inbox set sealed = null, payload = $1").bind(&event).execute(host.pool()).await.unwrap();
    assert_eq!(found(&host, WORDS).await.len(), 4);
    let said = format!("{WORDS} said");
    assert_eq!(host.said(psid).await, [said.clone(), said.clone()]);

    let host = host.restart().await;
    host.until("all is sealed", async || found(&host, WORDS).await.is_empty()).await;
    assert_eq!(host.said(psid).await, [said.clone(), said]);
    let (_, tickets) = host.admin("GET", "/admin/tickets", None).await;
    assert_eq!(tickets["tickets"][0]["summary"], WORDS, "{tickets}");
    assert_eq!(host.count("select count(*) from inbox where sealed is null or payload <> '{}'").await, 0);
}

/// A person who asked, got an answer, asked for a person, was taken over and answered by hand.
async fn a_history(host: &Host, psid: &str) {
    host.ask(psid, QUESTION).await;
    host.drained().await;
    host.ask(psid, &format!("I want to speak to a human about {WORDS}, please call +43 660 7654321")).await;
    host.drained().await;
    let id = host.conversation(psid).await;
    let (status, answer) =
        host.admin("POST", &format!("/admin/conversations/{id}/takeover"), Some(json!({ "reason": WORDS }))).await;
    assert_eq!(status, 200, "{answer}");
    let reply = json!({ "text": format!("About your {WORDS}: done.") });
    let (status, answer) = host.admin("POST", &format!("/admin/conversations/{id}/reply"), Some(reply)).await;
    assert_eq!(status, 202, "{answer}");
    host.drained().await;
    host.ask(psid, &format!("Thank you for the {WORDS}!")).await;
    host.drained().await;
    host.admin("GET", &format!("/admin/conversations/{id}/turns"), None).await;
}

async fn done(host: &Host, code: &str) -> Value {
    let path = format!("/admin/erasures/{code}");
    host.until("the erasure is done", async || host.admin("GET", &path, None).await.1["erasure"]["state"] == "done")
        .await;
    host.admin("GET", &path, None).await.1["erasure"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_erasure_leaves_nothing_of_the_person_anywhere() {
    let host = Host::start().await;
    host.teach_answer().await;
    let (psid, other) = ("88120111", "88120222");
    a_history(&host, psid).await;
    host.ask(other, QUESTION).await;
    host.drained().await;
    host.until("echoes are read", async || host.count("select count(*) from inbox where state = 'pending'").await == 0)
        .await;
    assert!(host.said(psid).await.iter().any(|text| text.contains(WORDS)), "the words are read where they may be");
    for table in ["conversations", "inbox", "outbox", "person_keys"] {
        assert!(found(&host, psid).await.iter().any(|(name, _)| name == table), "the person was to stand in {table}");
    }
    let conversation = host.conversation(psid).await.to_string();
    let others = host.count("select count(*) from messages m join conversations c on c.id = m.conversation_id where c.psid = '88120222'").await;

    let (status, asked) = host.admin("POST", &format!("/admin/people/{PAGE}/{psid}/erase"), None).await;
    assert_eq!(status, 200, "{asked}");
    let erasure = done(&host, asked["code"].as_str().unwrap()).await;
    assert_eq!(erasure["people"], 1);
    assert!(erasure["rows_erased"].as_i64().unwrap() > 10, "{erasure}");
    for needle in [WORDS, psid, "7654321", &conversation] {
        assert_eq!(found(&host, needle).await, Vec::new(), "{needle} is still there");
    }
    assert_eq!(
        host.count("select count(*) from audit_log where subject like 'erased:%' and action = 'conversation.takeover'")
            .await,
        1
    );
    assert_eq!(
        host.count(
            "select count(*) from messages m join conversations c on c.id = m.conversation_id where c.psid = '88120222'"
        )
        .await,
        others
    );
    assert_eq!(host.count("select count(*) from person_keys").await, 1, "the other person's key stays");

    // A repeated delivery brings nothing back; a new message starts anew.
    host.ask(psid, QUESTION).await;
    host.drained().await;
    assert_eq!(host.turns(psid).await.len(), 1);
    assert_eq!(host.count("select count(*) from messages m join conversations c on c.id = m.conversation_id where c.psid = '88120111' and m.author = 'customer'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_meta_repeats_after_the_erasure_brings_nothing_back() {
    let host = Host::start().await;
    host.teach_answer().await;
    let piece = frontdesk_testkit::wire::text("m_repeated", WORDS);
    let now = frontdesk_testkit::wire::now_ms();
    let body = frontdesk_testkit::wire::body(
        PAGE,
        now,
        vec![frontdesk_testkit::wire::from_person(PAGE, "88120333", now, piece)],
    );
    assert_eq!(host.meta.post(&body).await.unwrap(), 200);
    host.drained().await;
    let (_, asked) = host.admin("POST", &format!("/admin/people/{PAGE}/88120333/erase"), None).await;
    done(&host, asked["code"].as_str().unwrap()).await;
    assert_eq!(host.meta.post(&body).await.unwrap(), 200);
    host.read_all().await;
    assert_eq!(found(&host, WORDS).await, Vec::new());
    assert_eq!(host.count("select count(*) from conversations where psid = '88120333'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn metas_callback_finds_the_person_on_every_page_and_answers_a_status_page() {
    let host = Host::start_with(|plan| plan.settings.server.public_url = "https://desk.example.org/".into()).await;
    host.teach_answer().await;
    for (page, psid) in [(PAGE, "88120444"), (OTHER_PAGE, "88120555")] {
        host.graph.map_user("app-scoped-1", page, psid);
        let (_, status) = host.meta_of(page).text(psid, &format!("{WORDS}?")).await.unwrap();
        assert_eq!(status, 200);
    }
    host.drained().await;
    assert_eq!(post(&host, "/meta/data-deletion", &signed("another secret", "app-scoped-1")).await.0, 403);
    assert_eq!(post(&host, "/meta/data-deletion", "nonsense").await.0, 400);
    assert_eq!(host.count("select count(*) from erasures").await, 0);
    // Meta is away first: the request is kept.
    host.graph.script_on("ids_for_pages", frontdesk_testkit::Outcome::error(2, 0));
    let (status, answer) = post(&host, "/meta/data-deletion", &signed(APP_SECRET, "app-scoped-1")).await;
    assert_eq!(status, 200, "{answer}");
    let code = answer["confirmation_code"].as_str().unwrap().to_owned();
    assert_eq!(answer["url"], format!("https://desk.example.org/meta/data-deletion/{code}"));
    let page = async || {
        let url = format!("{}/meta/data-deletion/{code}", host.address);
        host.http.get(url).send().await.unwrap().text().await.unwrap()
    };
    assert!(page().await.contains("is being carried out"));
    host.until("the first try failed", async || {
        host.admin("GET", &format!("/admin/erasures/{code}"), None).await.1["erasure"]["attempts"] == 1
            && host.graph.scripted() == 0
    })
    .await;
    assert!(!found(&host, "88120444").await.is_empty());
    sqlx::query("update erasures set not_before = now()").execute(host.pool()).await.unwrap();
    let erasure = done(&host, &code).await;
    assert_eq!(erasure["people"], 2);
    for needle in [WORDS, "88120444", "88120555", "app-scoped-1"] {
        assert_eq!(found(&host, needle).await, Vec::new(), "{needle}");
    }
    let shown = page().await;
    assert!(shown.contains("is deleted") && !shown.contains("8812"), "{shown}");
    let missing =
        host.http.get(format!("{}/meta/data-deletion/{}", host.address, "a".repeat(24))).send().await.unwrap();
    assert_eq!(missing.status().as_u16(), 404);

    // Somebody who never wrote: completed, and said so.
    let (_, answer) = post(&host, "/meta/data-deletion", &signed(APP_SECRET, "a-stranger")).await;
    assert_eq!(done(&host, answer["confirmation_code"].as_str().unwrap()).await["people"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_survives_a_restart_and_a_send_on_its_way_is_awaited() {
    let host = Host::start().await;
    host.teach_answer().await;
    host.ask("88120666", QUESTION).await;
    host.drained().await;
    // An echo that comes later would settle the send that is to be on its way.
    host.until("the echo is read", async || {
        host.count("select count(*) from inbox where kind = 'echo' and state = 'done'").await == 1
    })
    .await;
    let id = host.conversation("88120666").await;
    sqlx::query(
        "update outbox set state = 'sending', claimed_at = now() + interval '1 hour' where conversation_id = $1",
    )
    .bind(id)
    .execute(host.pool())
    .await
    .unwrap();
    let (_, asked) = host.admin("POST", &format!("/admin/people/{PAGE}/88120666/erase"), None).await;
    let code = asked["code"].as_str().unwrap().to_owned();
    let path = format!("/admin/erasures/{code}");
    host.until("the erasure waits for the send", async || {
        host.admin("GET", &path, None).await.1["erasure"]["note"]
            .as_str()
            .is_some_and(|note| note.contains("being sent"))
    })
    .await;
    let host = host.restart().await;
    sqlx::query("update outbox set state = 'sent' where conversation_id = $1")
        .bind(id)
        .execute(host.pool())
        .await
        .unwrap();
    done(&host, &code).await;
    assert_eq!(host.count("select count(*) from conversations where psid = '88120666'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deauthorisation_parks_the_pages_of_that_person_and_keeps_the_customers() {
    let host = Host::start().await;
    host.teach_answer().await;
    host.ask("88120777", QUESTION).await;
    host.drained().await;
    let body = json!({ "user_token": "sim-user-4711", "page_id": PAGE });
    assert_eq!(host.admin("POST", "/admin/pages", Some(body)).await.0, 200);
    assert_eq!(post(&host, "/meta/deauthorize", &signed("another secret", "4711")).await.0, 403);
    assert_eq!(post(&host, "/meta/deauthorize", &signed(APP_SECRET, "somebody")).await.0, 200);
    assert_eq!(host.page_state(PAGE).await, "active");
    assert_eq!(post(&host, "/meta/deauthorize", &signed(APP_SECRET, "4711")).await.0, 200);
    assert_eq!(
        (host.page_state(PAGE).await.as_str(), host.page_state(OTHER_PAGE).await.as_str()),
        ("parked", "active")
    );
    assert_eq!(host.count("select count(*) from messages where author = 'customer'").await, 1);
}

//! Personal data in documents: out of the text before it is stored, back only for those who may.

use serde_json::{Value, json};

use crate::host::{ADMIN_TOKEN, Host, PAGE, REVEAL_TOKEN};

const TEXT: &str = "# Customers\n\nMrs Huber paid with 5105 1051 0510 5100 and IBAN AT61 1904 3002 3457 3201.\n\
    Her number is +43 664 1234567, her address eva.huber@mail.example, her social insurance number 1237 010180.\n\n\
    # Contact\n\nCall us: +43 512 555 0142, or write to service@shop.example.\n";
const SECRETS: [&str; 5] =
    ["5105 1051 0510 5100", "AT61 1904 3002 3457 3201", "+43 664 1234567", "eva.huber@mail.example", "1237 010180"];

async fn upload(host: &Host, source: &str, text: &str) -> String {
    let body = json!({ "title": "Notes", "text": text, "source": source, "format": "markdown", "page_id": PAGE });
    let (status, answer) = host.admin("POST", "/admin/knowledge/text", Some(body)).await;
    assert!((200..300).contains(&status), "{status}: {answer}");
    answer["document_id"].as_str().unwrap().to_owned()
}

async fn reveal(host: &Host, id: &str, path: &str, token: Option<&str>, body: &Value) -> (u16, Vec<u8>) {
    let mut request = host
        .http
        .post(format!("{}/admin/knowledge/{id}/{path}", host.address))
        .bearer_auth(ADMIN_TOKEN)
        .header("X-Frontdesk-Agent", "ada")
        .json(body);
    if let Some(token) = token {
        request = request.header("X-Frontdesk-Reveal-Token", token);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
}

/// Everything that is in the database, as text.
async fn whole_database(host: &Host) -> String {
    let tables: Vec<String> =
        sqlx::query_scalar("select tablename::text from pg_tables where schemaname = 'public' order by 1")
            .fetch_all(host.pool())
            .await
            .unwrap();
    let mut all = String::new();
    for table in tables {
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select t::text from \"{table}\" t")))
            .fetch_all(host.pool())
            .await
            .unwrap();
        all.push_str(&rows.join("\n"));
    }
    all
}

fn objects(host: &Host) -> Vec<Vec<u8>> {
    fn walk(dir: &std::path::Path, files: &mut Vec<Vec<u8>>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => walk(&entry.path(), files),
                false => files.push(std::fs::read(entry.path()).unwrap()),
            }
        }
    }
    let mut files = Vec::new();
    walk(&host.app.settings.objects.dir, &mut files);
    files
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn personal_data_is_nowhere_in_the_clear_and_comes_back_for_those_who_may() {
    let host = Host::start().await;
    let id = upload(&host, "notes.md", TEXT).await;
    let database = whole_database(&host).await;
    assert!(database.contains("[card #1]") && database.contains("+43 512 555 0142"), "the rest is there");
    for secret in SECRETS {
        assert!(!database.contains(secret), "{secret} stands in the database");
        assert!(objects(&host).iter().all(|object| !holds(object, secret)), "{secret} stands in an object");
    }
    let (_, found) =
        host.admin("GET", &format!("/admin/knowledge/search?q=how+did+Mrs+Huber+pay&page_id={PAGE}"), None).await;
    let text = found["hits"][0]["text"].as_str().unwrap();
    assert!(text.contains("[account #1]") && text.contains("[id number #1]"), "{text}");

    let why = json!({ "reason": "She asks what we have of her" });
    for (token, body, status) in [
        (None, &why, 403),
        (Some("not the token of the tests"), &why, 403),
        (Some(ADMIN_TOKEN), &why, 403),
        (Some(REVEAL_TOKEN), &json!({ "reason": "  " }), 400),
    ] {
        assert_eq!(reveal(&host, &id, "reveal", token, body).await.0, status);
    }
    let (status, body) = reveal(&host, &id, "reveal", Some(REVEAL_TOKEN), &why).await;
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let originals: Vec<&str> =
        answer["originals"].as_object().unwrap().values().map(|original| original["text"].as_str().unwrap()).collect();
    for secret in SECRETS {
        assert!(originals.contains(&secret), "{secret}: {answer}");
    }
    let (status, raw) = reveal(&host, &id, "raw", Some(REVEAL_TOKEN), &why).await;
    assert_eq!((status, raw.as_slice()), (200, TEXT.as_bytes()));
    let (_, audit) = host.admin("GET", "/admin/audit", None).await;
    let seen: Vec<&str> =
        audit["entries"].as_array().unwrap().iter().filter_map(|entry| entry["action"].as_str()).collect();
    assert_eq!(seen.iter().filter(|action| **action == "knowledge.reveal").count(), 1, "refusals reveal nothing");
    assert!(seen.contains(&"knowledge.raw"));
}

#[tokio::test]
async fn without_a_second_token_nobody_may() {
    let host = Host::start_with(|plan| plan.secrets.reveal_token = None).await;
    let id = upload(&host, "notes.md", TEXT).await;
    let (status, body) = reveal(&host, &id, "reveal", Some(REVEAL_TOKEN), &json!({ "reason": "curious" })).await;
    assert_eq!(status, 403);
    assert!(String::from_utf8(body).unwrap().contains("FRONTDESK_REVEAL_TOKEN"));
}

#[tokio::test]
async fn versions_are_kept_to_a_number_and_deleting_deletes() {
    let host = Host::start_with(|plan| plan.settings.knowledge.versions_kept = 2).await;
    let id = upload(&host, "notes.md", TEXT).await;
    assert_eq!(upload(&host, "notes.md", TEXT).await, id, "the same file is the same document");
    let (_, shown) = host.admin("GET", &format!("/admin/knowledge/{id}"), None).await;
    assert_eq!(shown["document"]["version"], 1, "and no new version: {shown}");
    for price in [12, 13, 14] {
        upload(&host, "notes.md", &format!("{TEXT}\n# Prices\n\nTea costs {price} euros.\n")).await;
    }
    let (_, shown) = host.admin("GET", &format!("/admin/knowledge/{id}"), None).await;
    let versions: Vec<i64> =
        shown["versions"].as_array().unwrap().iter().map(|version| version["version"].as_i64().unwrap()).collect();
    assert_eq!(versions, [4, 3], "{shown}");
    assert_eq!(shown["document"]["redacted"], 5);
    while host.app.objects.sweep_once().await.unwrap() > 0 {}
    assert_eq!(objects(&host).len(), 2);
    // Another number in the same words is another version, whose original is the new one.
    let changed = TEXT.replace("+43 664 1234567", "+43 664 7654321");
    upload(&host, "notes.md", &changed).await;
    let (_, body) = reveal(&host, &id, "reveal", Some(REVEAL_TOKEN), &json!({ "reason": "test" })).await;
    assert!(holds(&body, "+43 664 7654321") && !holds(&body, "+43 664 1234567"));

    let (status, _) = host.admin("DELETE", &format!("/admin/knowledge/{id}"), None).await;
    assert_eq!(status, 200);
    while host.app.objects.sweep_once().await.unwrap() > 0 {}
    assert_eq!(objects(&host).len(), 0, "the files are gone");
    for table in ["documents", "document_versions", "passages", "object_garbage", "passage_lexemes"] {
        let query: &'static str = Box::leak(format!("select count(*) from {table}").into_boxed_str());
        assert_eq!(host.count(query).await, 0, "{table}");
    }
}

#[tokio::test]
async fn keys_of_documents_follow_a_rotation() {
    let host = Host::start().await;
    let id = upload(&host, "notes.md", TEXT).await;
    let new = format!("test-2:c2Vjb25kIHRoaXJ0eXR3byBieXRlcyBmb3IgdGVzdCE=\n{}", crate::host::KEYS);
    let ring = frontdesk_server::keys::KeyRing::parse(&secrecy::SecretString::from(new)).unwrap();
    let keys = frontdesk_server::keys::Keys::open(ring, host.pool()).await.unwrap();
    assert!(frontdesk_server::keys::rotate(&keys, host.pool(), |_| {}).await.unwrap() > 0);
    let left = "select count(*) from document_versions where key_id <> 'test-2'";
    assert_eq!(host.count(left).await, 0);
    // This host does not hold the new key: it says so instead of giving noise.
    let (status, _) = reveal(&host, &id, "reveal", Some(REVEAL_TOKEN), &json!({ "reason": "test" })).await;
    assert_eq!(status, 503);
    let archive = frontdesk_server::knowledge::Archive::new(host.app.objects.clone(), keys);
    let sealed =
        frontdesk_server::db::documents::sealed(host.pool(), id.parse().unwrap(), None).await.unwrap().unwrap();
    let wrapped = frontdesk_server::keys::Wrapped { key_id: sealed.key_id, sealed: sealed.wrapped };
    let kept = archive.reopen(&sealed.object_key, &wrapped).unwrap();
    assert_eq!(archive.raw(&kept).await.unwrap().as_slice(), TEXT.as_bytes());
}

#[tokio::test]
async fn what_a_crash_left_in_the_object_store_is_deleted() {
    let host = Host::start().await;
    // As a process that died after the object was put and before its version was stored.
    let key = host.app.objects.put(b"left behind".to_vec()).await.unwrap();
    assert_eq!(host.app.objects.sweep_once().await.unwrap(), 0, "an upload may still be on its way");
    assert_eq!(host.app.objects.get(&key).await.unwrap().as_ref(), b"left behind");
    sqlx::query("update object_garbage set due_at = now()").execute(host.pool()).await.unwrap();
    assert_eq!(host.app.objects.sweep_once().await.unwrap(), 1);
    assert!(host.app.objects.get(&key).await.unwrap_err().to_string().contains("not in the object store"));
}

#[tokio::test]
async fn a_customer_gets_no_placeholder() {
    let host = Host::start().await;
    let text = "# Storage room\n\nThe key to the storage room is with eva.huber@mail.example.\n";
    upload(&host, "rooms.md", text).await;
    upload(&host, "hours.md", "# Opening hours\n\nThe storage room opens at nine in the morning.\n").await;
    host.ask("9101", "Who has the key to the storage room?").await;
    host.drained().await;
    assert!(host.got("9101").iter().all(|text| !text.contains("[e-mail")), "{:?}", host.got("9101"));
    let decided = host.turns("9101").await;
    assert_eq!(host.count("select count(*) from tickets").await, 1, "a person answers: {decided:?}");
    // What stands beside it can be said.
    host.ask("9102", "When does the storage room open?").await;
    host.drained().await;
    assert!(host.got("9102").iter().any(|text| text.contains("opens at nine")), "{:?}", host.got("9102"));
}

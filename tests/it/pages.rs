//! Pages that are connected while the host runs, and what Meta says of them.

use frontdesk_server::pages::FIELDS;
use serde_json::{Value, json};

use crate::host::{ANSWER, Host, OTHER_PAGE, OTHER_PAGE_TOKEN, PAGE, QUESTION};

/// A host whose other Page is neither in its settings nor has a token.
async fn host_of_one_page() -> Host {
    Host::start_with(|plan| {
        plan.settings.pages.retain(|page| page.id == PAGE);
        plan.secrets.page_tokens.remove(OTHER_PAGE);
    })
    .await
}

async fn connect(host: &Host, page: &str) -> (u16, Value) {
    let body = json!({ "user_token": "sim-user-4711", "page_id": page, "time_zone": "Europe/Vienna" });
    host.admin("POST", "/admin/pages", Some(body)).await
}

async fn page(host: &Host, id: &str) -> Value {
    let (_, answer) = host.admin("GET", "/admin/pages", None).await;
    answer["pages"].as_array().unwrap().iter().find(|page| page["page_id"] == id).cloned().unwrap_or_default()
}

async fn ask_on(host: &Host, page: &str, psid: &str) {
    let meta = host.meta_of(page);
    let (mid, status) = meta.text(psid, QUESTION).await.unwrap();
    assert_eq!(status, 200);
    host.graph.record_inbound(page, psid, &mid, QUESTION);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_connected_while_the_host_runs_and_answers_at_once() {
    let host = host_of_one_page().await;
    host.teach_answer().await;
    let (status, connected) = connect(&host, OTHER_PAGE).await;
    assert_eq!(status, 200, "{connected}");
    assert_eq!(connected["page"]["state"], "active");
    let mut fields = FIELDS.map(str::to_owned).to_vec();
    fields.sort();
    assert_eq!(connected["page"]["fields"], json!(fields));
    let mut at_meta = host.graph.subscribed_fields(OTHER_PAGE).unwrap();
    at_meta.sort();
    assert_eq!(at_meta, fields);
    ask_on(&host, OTHER_PAGE, "9001").await;
    host.until("an answer on the new Page", async || host.got("9001").iter().any(|text| text.contains(ANSWER))).await;
    assert_eq!(host.graph.sends_to("9001")[0].page_id, OTHER_PAGE);

    let shown = page(&host, OTHER_PAGE).await;
    assert_eq!((&shown["token"]["source"], &shown["token"]["by"]), (&json!("connected"), &json!("ada")));
    assert_eq!((&shown["health"]["token_valid"], &shown["health"]["problem"]), (&json!(true), &Value::Null));
    assert_eq!(page(&host, PAGE).await["token"]["source"], "settings");
    // Sealed where it lies, and shown nowhere.
    let rows: Vec<String> = sqlx::query_scalar(
        "select encode(sealed, 'escape') from page_tokens union all select detail::text from audit_log",
    )
    .fetch_all(host.pool())
    .await
    .unwrap();
    let everything = rows.join("\n") + &shown.to_string() + &connected.to_string();
    assert!(!everything.contains(OTHER_PAGE_TOKEN) && !everything.contains("sim-user"), "{everything}");
    let calls = host.graph.calls();
    let accounts = calls.iter().filter(|call| call.path == "me/accounts").count();
    assert_eq!(accounts, 2, "the list of Pages is turned over");
    assert!(
        calls.iter().filter(|c| c.path == "me/accounts").all(|c| c.query.iter().any(|(k, _)| k == "appsecret_proof"))
    );

    // The token outlives the process.
    let host = host.restart().await;
    ask_on(&host, OTHER_PAGE, "9002").await;
    host.until("an answer after the restart", async || !host.got("9002").is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_cannot_work_is_refused_and_changes_nothing() {
    let host = host_of_one_page().await;
    let (status, several) = host.admin("POST", "/admin/pages", Some(json!({ "user_token": "sim-user-4711" }))).await;
    assert_eq!(status, 400, "{several}");
    assert!(several["error"]["message"].as_str().unwrap().contains("several Pages"), "{several}");
    let (status, other) = connect(&host, "12345").await;
    assert!(status == 400 && other["error"]["message"].as_str().unwrap().contains("does not reach"), "{other}");
    let (status, wrong) =
        host.admin("POST", "/admin/pages", Some(json!({ "user_token": "nonsense", "page_id": OTHER_PAGE }))).await;
    assert_eq!((status, &wrong["error"]["code"]), (502, &json!("graph")), "{wrong}");
    assert!(!wrong.to_string().contains("nonsense"));
    host.graph.revoke_scope("pages_manage_metadata");
    let (status, missing) = connect(&host, OTHER_PAGE).await;
    assert!(
        status == 400 && missing["error"]["message"].as_str().unwrap().contains("pages_manage_metadata"),
        "{missing}"
    );
    assert_eq!(host.count("select count(*) from page_tokens").await, 0);
    assert_eq!(host.graph.subscribed_fields(OTHER_PAGE), None);
    assert_eq!(page(&host, OTHER_PAGE).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_again_resumes_a_parked_page_and_sends_what_waited_once() {
    let host = Host::start().await;
    host.teach_answer().await;
    host.graph.kill_token(PAGE, 460);
    host.ask("9101", QUESTION).await;
    host.until("the Page is parked", async || host.page_state(PAGE).await == "parked").await;
    assert_eq!(host.got("9101"), Vec::<String>::new());
    host.graph.renew_token(PAGE, "a new token");
    let (status, connected) = connect(&host, PAGE).await;
    assert_eq!((status, &connected["page"]["resumed"]), (200, &json!(true)), "{connected}");
    host.drained().await;
    assert_eq!(host.got("9101").len(), 1);
    assert_eq!(host.page_state(PAGE).await, "active");
    // A stopped Page stays stopped: that is no matter of tokens.
    sqlx::query("update pages set state = 'stopped' where page_id = $1").bind(PAGE).execute(host.pool()).await.unwrap();
    let (_, connected) = connect(&host, PAGE).await;
    assert_eq!((&connected["page"]["resumed"], &connected["page"]["state"]), (&json!(false), &json!("stopped")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnected_page_is_parked_and_its_token_forgotten() {
    let host = host_of_one_page().await;
    connect(&host, OTHER_PAGE).await;
    let (status, answer) = host.admin("POST", &format!("/admin/pages/{OTHER_PAGE}/disconnect"), None).await;
    assert_eq!((status, &answer["unsubscribed"]), (200, &json!(true)), "{answer}");
    assert_eq!(host.page_state(OTHER_PAGE).await, "parked");
    assert_eq!(host.graph.subscribed_fields(OTHER_PAGE), None);
    assert_eq!(host.count("select count(*) from page_tokens").await, 0);
    let (status, _) = host.admin("POST", &format!("/admin/pages/{OTHER_PAGE}/disconnect"), None).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_meta_says_of_a_page_is_an_alert_and_a_dead_token_parks_it() {
    let host = Host::start().await;
    let check =
        async |id: &str| host.admin("POST", &format!("/admin/pages/{id}/check"), None).await.1["health"].clone();
    let health = check(PAGE).await;
    assert_eq!(health["fields_missing"].as_array().map(Vec::len), Some(FIELDS.len()), "{health}");
    assert!(health["problem"].as_str().unwrap().contains("not subscribed to messages"), "{health}");
    host.graph.set_subscribed_fields(PAGE, &FIELDS);
    assert_eq!(check(PAGE).await["problem"], Value::Null);
    host.graph.set_subscribed_fields(PAGE, &FIELDS[1..]);
    assert_eq!(check(PAGE).await["fields_missing"], json!(["messages"]));
    assert_eq!(host.graph.subscribed_fields(PAGE).unwrap().len(), FIELDS.len() - 1, "it is only said unless asked for");
    host.graph.revoke_scope("pages_read_engagement");
    assert!(check(PAGE).await["problem"].as_str().unwrap().contains("lacks pages_read_engagement"));
    // Meta's own trouble says nothing about the token.
    host.graph.script_on("debug_token", frontdesk_testkit::Outcome::error(2, 0));
    let health = check(PAGE).await;
    assert_eq!(health["token_valid"], true);
    assert!(health["problem"].as_str().unwrap().contains("did not explain the token"), "{health}");
    assert_eq!(host.page_state(PAGE).await, "active");

    host.graph.kill_token(PAGE, 463);
    let health = check(PAGE).await;
    assert_eq!((&health["token_valid"], &health["token_error_subcode"]), (&json!(false), &json!(463)));
    assert_eq!(
        (host.page_state(PAGE).await.as_str(), host.page_state(OTHER_PAGE).await.as_str()),
        ("parked", "active")
    );
    let (_, status) = host.admin("GET", "/admin/status", None).await;
    assert!(status["page_health"][0]["problem"].as_str().unwrap().contains("subcode 463"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedule_asks_by_itself_and_subscribes_again_when_allowed() {
    let host = Host::start_with(|plan| {
        plan.settings.page_health.every_s = 1;
        plan.settings.page_health.resubscribe = true;
    })
    .await;
    host.until("both Pages are subscribed", async || {
        [PAGE, OTHER_PAGE]
            .iter()
            .all(|page| host.graph.subscribed_fields(page).is_some_and(|f| f.len() == FIELDS.len()))
    })
    .await;
    host.until("all is well", async || {
        host.count("select count(*) from page_health where problem is null and token_valid").await == 2
    })
    .await;
    host.graph.unsubscribe(PAGE);
    host.until("the lost subscription is back", async || host.graph.subscribed_fields(PAGE).is_some()).await;
    host.until("the gauges say so", async || {
        let metrics = host.http.get(format!("{}/metrics", host.address)).send().await.unwrap().text().await.unwrap();
        metrics.contains("frontdesk_page_resubscriptions_total")
            && metrics.contains(&format!("frontdesk_page_token_valid{{page=\"{PAGE}\"}} 1"))
    })
    .await;
    assert_eq!(host.count("select count(*) from leases where name = 'page-health'").await, 1);
}

//! The simulated Graph and the real client check each other.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use frontdesk_messenger::classify::{AmbiguousReason, Failure, LimitScope, PermanentReason, StopReason};
use frontdesk_messenger::event::{EchoOrigin, Event, EventKind};
use frontdesk_messenger::graph::{GraphClient, GraphConfig, PageCredentials, ProofForm, Reply, Sent};
use frontdesk_messenger::outbound::{AgentReply, OutboundMessage, QuickReply, Recipient, SenderAction};
use frontdesk_messenger::{AgentId, AppId, PageId, Psid, signature};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{EchoPlan, GraphSim, GraphSimConfig, Outcome};
use crate::webhook::WebhookSender;
use crate::wire;

const SOON: Duration = Duration::from_secs(10);
const PAGE: &str = "106000000000001";
const PERSON: &str = "7200000000000001";

fn client(sim: &GraphSim, app_secret: Option<&str>, proof_form: ProofForm) -> GraphClient {
    let config = GraphConfig {
        base_url: sim.base_url(),
        app_secret: app_secret.map(|secret| secret.to_owned().into()),
        proof_form,
        connect_timeout_ms: 2_000,
        request_timeout_ms: 1_500,
        ..GraphConfig::default()
    };
    GraphClient::new(config).unwrap_or_else(|error| unreachable!("{error}"))
}

fn page() -> PageCredentials {
    PageCredentials { page_id: PageId::from(PAGE), token: "sim-page-token".to_owned().into() }
}

fn message(text: &str) -> OutboundMessage {
    let message = OutboundMessage::text(Psid::from(PERSON), text).and_then(|message| message.with_metadata("row-1"));
    message.unwrap_or_else(|error| unreachable!("{error}"))
}

/// A host's webhook that verifies and keeps what comes.
#[derive(Clone, Debug, Default)]
struct Callback {
    events: Arc<Mutex<Vec<Event>>>,
    /// How many deliveries to refuse first.
    refusals: Arc<Mutex<u32>>,
}

impl Callback {
    async fn start(&self) -> String {
        let this = self.clone();
        let handler = move |headers: HeaderMap, body: Bytes| {
            let this = this.clone();
            async move { this.take(&headers, &body) }
        };
        let router = Router::new().route("/webhook", post(handler));
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|error| unreachable!("{error}"));
        let address = listener.local_addr().unwrap_or_else(|error| unreachable!("{error}"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/webhook")
    }

    fn take(&self, headers: &HeaderMap, body: &[u8]) -> StatusCode {
        let mut refusals = self.refusals.lock().unwrap_or_else(|error| error.into_inner());
        if *refusals > 0 {
            *refusals -= 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        let secrets = [SecretString::from("sim-app-secret".to_owned())];
        if signature::verify_headers(headers, &secrets, body).is_err() {
            return StatusCode::UNAUTHORIZED;
        }
        let events = frontdesk_messenger::parse(body).map(|batch| batch.events).unwrap_or_default();
        self.events.lock().unwrap_or_else(|error| error.into_inner()).extend(events);
        StatusCode::OK
    }

    fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(|error| error.into_inner()).clone()
    }
}

async fn platform() -> (GraphSim, GraphClient) {
    let sim = GraphSim::start(GraphSimConfig::default()).await.unwrap_or_else(|error| unreachable!("{error}"));
    let client = client(&sim, None, ProofForm::Plain);
    (sim, client)
}

async fn with_callback() -> (GraphSim, GraphClient, Callback) {
    let (sim, client) = platform().await;
    let callback = Callback::default();
    sim.set_callback(&callback.start().await).unwrap_or_else(|error| unreachable!("{error}"));
    (sim, client, callback)
}

#[tokio::test]
async fn a_message_is_taken_and_its_echo_proves_it() {
    let (sim, client, callback) = with_callback().await;
    *callback.refusals.lock().unwrap() = 2; // Meta tries again at once.
    let reply = client.send(&page(), &message("Ja, wir liefern \u{1F4E6} https://x/y")).await;
    let sent = reply.result.unwrap();
    assert_eq!(sent.recipient_id, Some(Psid::from(PERSON)));
    assert!(sent.message_id.as_str().starts_with("m_"));
    sim.wait_for_echoes(1, SOON).await.unwrap();
    let events = callback.events();
    let EventKind::Echo(echo) = &events[0].kind else { panic!("{events:?}") };
    assert_eq!(echo.message.mid.as_ref(), Some(&sent.message_id), "the echo's id is the Send API's");
    assert_eq!(echo.metadata.as_deref(), Some("row-1"));
    assert_eq!(echo.origin(&AppId::from("1234567890")), EchoOrigin::Ours);
    assert_eq!(echo.message.text.as_deref(), Some("Ja, wir liefern \u{1F4E6} https://x/y"));

    let kept = sim.wait_for_sends(1, SOON).await.unwrap();
    assert_eq!((kept[0].messaging_type.as_deref(), kept[0].tag.as_deref()), (Some("RESPONSE"), None));
    let call = &sim.calls()[0];
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "106000000000001/messages"));
    assert!(!format!("{call:?}").contains("sim-page-token"));
}

#[tokio::test]
async fn echoes_can_be_lost_doubled_and_late() {
    let (sim, client, callback) = with_callback().await;
    sim.drop_next_echoes(1);
    client.send(&page(), &message("one")).await.result.unwrap();
    sim.set_echoes(EchoPlan { copies: 2, delay: Duration::from_millis(50) });
    let second = client.send(&page(), &message("two")).await.result.unwrap();
    sim.wait_for_echoes(2, SOON).await.unwrap();
    let keys: Vec<_> = callback.events().iter().map(Event::dedupe_key).collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1], "a doubled echo is one event");
    assert!(keys[0].contains(second.message_id.as_str()));
    sim.set_echoes(EchoPlan::OFF);
    client.send(&page(), &message("three")).await.result.unwrap();
    assert_eq!(sim.sends().len(), 3);
}

#[tokio::test]
async fn scripted_fates_reach_the_client_as_what_they_are() {
    let (sim, client) = platform().await;
    let ambiguous = |reason| Err(Failure::Ambiguous { reason });
    let retry = Err(Failure::Retry { after_ms: None, attempts_max: None });
    let permanent = |reason| Err(Failure::Permanent { reason });
    // fate, what the client makes of it, how many messages the platform took by it
    type Row = (Outcome, Result<Sent, Failure>, usize);
    let rows: Vec<Row> = vec![
        (Outcome::LostResponse, ambiguous(AmbiguousReason::ConnectionLost), 1),
        (Outcome::CutConnection, ambiguous(AmbiguousReason::ConnectionLost), 0),
        (Outcome::Hang { is_taken: true }, ambiguous(AmbiguousReason::TimedOut), 1),
        (Outcome::Hang { is_taken: false }, ambiguous(AmbiguousReason::TimedOut), 0),
        (Outcome::UnreadableSuccess, ambiguous(AmbiguousReason::UnreadableSuccess), 1),
        (Outcome::Html { status: 502 }, ambiguous(AmbiguousReason::GatewayFailure), 0),
        (Outcome::Empty { status: 500 }, ambiguous(AmbiguousReason::GatewayFailure), 0),
        (Outcome::Empty { status: 503 }, ambiguous(AmbiguousReason::GatewayFailure), 0),
        (Outcome::Empty { status: 408 }, retry.clone(), 0),
        (Outcome::error(1, 1_357_046), ambiguous(AmbiguousReason::Reported), 0),
        (Outcome::Error { status: 500, code: 2, subcode: None, is_transient: true }, retry, 0),
        (Outcome::error(551, 1_545_041), Err(Failure::PersonUnreachable), 0),
        (Outcome::error(10, 2_018_278), Err(Failure::OutsideWindow), 0),
        (Outcome::error(100, 2_534_037), Err(Failure::NotOurs), 0),
        (Outcome::error(190, 460), Err(Failure::TokenDead { subcode: Some(460) }), 0),
        (Outcome::error(368, 0), Err(Failure::StopPage { reason: StopReason::PolicyBlock }), 0),
        (Outcome::error(613, 2_018_338), Err(Failure::HoldPerson), 0),
        (Outcome::error(10_900, 0), permanent(PermanentReason::Refused), 0),
    ];
    for (outcome, expected, taken) in rows {
        let before = sim.sends().len();
        sim.script(outcome.clone());
        let reply = client.send(&page(), &message("hello")).await;
        assert_eq!(reply.result, expected, "{outcome:?}");
        assert_eq!(sim.sends().len() - before, taken, "{outcome:?}");
        assert_eq!(sim.scripted(), 0);
    }
    sim.script(Outcome::Delay(Duration::from_millis(30)));
    assert!(client.send(&page(), &message("late")).await.result.is_ok());
    sim.script(Outcome::error(190, 463));
    assert!(client.sender_action(&page(), &Psid::from(PERSON).into(), &SenderAction::TypingOn).await.result.is_ok());
    assert_eq!(sim.scripted(), 1, "a sender action does not use up a message's fate");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_what_its_status_says() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cases = [
        (200, Failure::Ambiguous { reason: AmbiguousReason::ConnectionLost }),
        (400, Failure::Retry { after_ms: None, attempts_max: Some(2) }),
        (500, Failure::Ambiguous { reason: AmbiguousReason::GatewayFailure }),
    ];
    let statuses = cases.clone().map(|(status, _)| status);
    let server = tokio::spawn(async move {
        for status in statuses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut request, mut chunk) = (Vec::new(), [0; 4_096]);
            while !String::from_utf8_lossy(&request).contains("hello") {
                let count = stream.read(&mut chunk).await.unwrap();
                request.extend_from_slice(&chunk[..count]);
            }
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 400\r\n\r\n{{\"error\":");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let config = GraphConfig { base_url: format!("http://{address}"), ..GraphConfig::default() };
    let client = GraphClient::new(config).unwrap();
    for (status, expected) in cases {
        let reply = client.send(&page(), &message("hello")).await;
        assert_eq!(reply.result, Err(expected), "HTTP {status}");
        assert_eq!(reply.trace.http_status, Some(status));
    }
    server.await.unwrap();
}

#[tokio::test]
async fn nothing_listening_is_a_retry_because_nothing_was_sent() {
    let (sim, client) = platform().await;
    let address = sim.base_url();
    drop(sim);
    // The server task ends when its abort is noticed; from then on the port refuses.
    let listener_is_gone = async {
        let host = address.trim_start_matches("http://");
        while tokio::net::TcpStream::connect(host).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, listener_is_gone).await.unwrap();
    let reply = client.send(&page(), &message("hello")).await;
    assert_eq!(reply.result, Err(Failure::Retry { after_ms: None, attempts_max: None }), "{:?}", reply.trace);
    let told = reply.trace.transport_error.unwrap();
    assert!(told.starts_with("no connection"), "{told}");
}

#[tokio::test]
async fn limits_tell_when_to_resume_and_usage_comes_with_successes() {
    let (sim, client) = platform().await;
    sim.script(Outcome::RateLimited { code: 80_006, regain_after_minutes: 7 });
    let reply = client.send(&page(), &message("hello")).await;
    let limited = Failure::RateLimited { resume_after_ms: Some(420_000), scope: LimitScope::Page };
    assert_eq!(reply.result, Err(limited));
    assert_eq!(reply.usage.max_percent, 100);
    sim.script(Outcome::Usage { percent: 83 });
    let reply = client.send(&page(), &message("hello")).await;
    assert!(reply.result.is_ok());
    assert_eq!((reply.usage.max_percent, reply.usage.regain_after_ms), (83, None));
}

async fn raw(sim: &GraphSim, token: &str, body: Value) -> (u16, Value) {
    let response = reqwest::Client::new()
        .post(format!("{}/v19.0/{PAGE}/messages?access_token={token}", sim.base_url()))
        .json(&body)
        .send()
        .await
        .unwrap_or_else(|error| unreachable!("{error}"));
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

#[tokio::test]
async fn the_platform_refuses_what_meta_refuses() {
    let sim =
        GraphSim::start(GraphSimConfig { is_strict_about_people: true, ..GraphSimConfig::default() }).await.unwrap();
    sim.add_person(PERSON, "Ada");
    let to = json!({ "id": PERSON });
    let text = |text: &str| json!({ "text": text });
    let replies = |count: usize| json!({"text":"x","quick_replies": vec![json!({"title":"a","payload":"b"}); count]});
    #[rustfmt::skip]
    let cases = [
        (json!({"recipient":to,"message":text(&"a".repeat(1999)),"messaging_type":"RESPONSE"}), 200, 0, 0),
        (json!({"recipient":to,"message":text(&"a".repeat(2000)),"messaging_type":"RESPONSE"}), 400, 100, 0),
        (json!({"recipient":to,"message":text("")}), 400, 100, 0),
        (json!({"recipient":to,"message":replies(14)}), 400, 100, 0),
        (json!({"recipient":to,"message":text("x"),"sender_action":"typing_on"}), 400, 100, 2_018_014),
        (json!({"recipient":to,"sender_action":"dance"}), 400, 100, 0),
        (json!({"recipient":{"id":"1"},"message":text("x")}), 400, 100, 2_018_001),
        (json!({"recipient":to,"message":text("x"),"messaging_type":"MESSAGE_TAG","tag":"ACCOUNT_UPDATE"}), 400, 100, 1_893_061),
        (json!({"recipient":to,"message":text("x"),"messaging_type":"MESSAGE_TAG"}), 400, 100, 0),
        (json!({"message":text("x")}), 400, 100, 0),
    ];
    for (body, status, code, subcode) in cases {
        let (found, answer) = raw(&sim, "sim-page-token", body.clone()).await;
        assert_eq!(found, status, "{body}");
        let number = |key: &str| answer["error"][key].as_i64().unwrap_or(0);
        assert_eq!((number("code"), number("error_subcode")), (code, subcode), "{answer}");
    }
    let (status, answer) = raw(&sim, "other", json!({})).await;
    assert_eq!((status, &answer["error"]["code"]), (401, &json!(190)), "the token is looked at first");
}

#[tokio::test]
async fn windows_owners_and_tokens_decide_over_a_send() {
    let (sim, client) = platform().await;
    let send = async |text: &str| -> Reply<Sent> { client.send(&page(), &message(text)).await };
    sim.set_window_open(PERSON, false);
    assert_eq!(send("late").await.result, Err(Failure::OutsideWindow));
    let by_agent = AgentReply::new(AgentId::from("agent-1"), message("late")).as_human_agent();
    assert!(client.send(&page(), &by_agent).await.result.is_ok());
    sim.record_inbound(PAGE, PERSON, "m_in", "hello?");
    assert!(send("in time").await.result.is_ok(), "a message of theirs opens the window");

    sim.set_thread_owner(PERSON, Some("999"));
    assert_eq!(send("not ours").await.result, Err(Failure::NotOurs));
    sim.set_thread_owner(PERSON, None);

    sim.kill_token(PAGE, 463);
    assert_eq!(send("dead").await.result, Err(Failure::TokenDead { subcode: Some(463) }));
    let app = (AppId::from("1234567890"), SecretString::from("sim-app-secret".to_owned()));
    let known = client.debug_token(&app.0, &app.1, &page().token).await.result.unwrap();
    assert_eq!((known.is_valid, known.error_subcode), (false, Some(463)));
    sim.revive_token(PAGE);
    assert!(send("alive").await.result.is_ok());
    let known = client.debug_token(&app.0, &app.1, &page().token).await.result.unwrap();
    assert!(known.is_valid && known.scopes.contains(&"pages_messaging".to_owned()));
    let wrong = client.debug_token(&app.0, &"x".to_owned().into(), &page().token).await;
    assert_eq!(wrong.result, Err(Failure::TokenDead { subcode: None }), "about the app's token, not the Page's");
}

#[tokio::test]
async fn the_proof_is_required_and_right_in_both_forms() {
    let sim = GraphSim::start(GraphSimConfig { requires_proof: true, ..GraphSimConfig::default() }).await.unwrap();
    let cases = [
        (None, ProofForm::Plain, false),
        (Some("wrong"), ProofForm::Plain, false),
        (Some("sim-app-secret"), ProofForm::Plain, true),
        (Some("sim-app-secret"), ProofForm::Timed, true),
    ];
    for (secret, form, is_taken) in cases {
        let reply = client(&sim, secret, form).send(&page(), &message("x")).await;
        assert_eq!(reply.result.is_ok(), is_taken, "{form:?}");
    }
}

#[tokio::test]
async fn threads_pass_between_apps_and_only_pass_and_take_are_announced() {
    let (_sim, client, callback) = with_callback().await;
    let psid = Psid::from(PERSON);
    let owner = async || client.thread_owner(&page(), &psid).await.result.unwrap().map(|owner| owner.app_id);
    assert_eq!(owner().await, None);
    client.take_thread_control(&page(), &psid, Some("mine")).await.result.unwrap();
    assert_eq!(owner().await, Some(AppId::from("1234567890")));
    client.extend_thread_control(&page(), &psid, 604_800).await.result.unwrap();
    client.request_thread_control(&page(), &psid, None).await.result.unwrap();
    let inbox = AppId::from(frontdesk_messenger::ids::PAGE_INBOX_APP_ID);
    client.pass_thread_control(&page(), &psid, &inbox, Some("ticket 7")).await.result.unwrap();
    assert_eq!(owner().await, Some(inbox.clone()));
    assert_eq!(client.pass_thread_control(&page(), &psid, &inbox, None).await.result, Err(Failure::NotOurs));
    assert_eq!(client.release_thread_control(&page(), &psid, None).await.result, Err(Failure::NotOurs));
    client.take_thread_control(&page(), &psid, None).await.result.unwrap();
    client.release_thread_control(&page(), &psid, None).await.result.unwrap();
    assert_eq!(owner().await, None);
    let arrived = async {
        while callback.events().len() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, arrived).await.unwrap();
    let mut kinds: Vec<_> = callback.events().iter().map(Event::kind_name).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["pass_thread_control", "take_thread_control", "take_thread_control"]);
}

#[tokio::test]
async fn an_ambiguous_send_is_found_in_the_conversation() {
    let (sim, client) = platform().await;
    let psid = Psid::from(PERSON);
    assert_eq!(client.conversation(&page(), &psid, 10).await.result, Ok(None));
    sim.record_inbound(PAGE, PERSON, "m_in", "Do you ship?");
    sim.script(Outcome::LostResponse);
    assert!(client.send(&page(), &message("Yes, we ship.")).await.result.is_err());
    let found = client.conversation(&page(), &psid, 10).await.result.unwrap().unwrap();
    let texts: Vec<_> = found.messages.iter().map(|m| (m.from_id.as_deref(), m.text.as_deref())).collect();
    assert_eq!(texts, [(Some(PAGE), Some("Yes, we ship.")), (Some(PERSON), Some("Do you ship?"))], "newest first");
    assert_eq!(found.messages[0].id.as_str(), sim.sends()[0].message_id);
    assert!(found.messages[0].created_ms.is_some());
    let one = client.conversation(&page(), &psid, 1).await.result.unwrap().unwrap();
    assert_eq!(one.messages.len(), 1);
}

#[tokio::test]
async fn subscriptions_are_seen_lost_and_renewed() {
    let (sim, client) = platform().await;
    assert_eq!(client.subscribed_apps(&page()).await.result, Ok(Vec::new()));
    client.subscribe(&page(), &["messages", "message_echoes"]).await.result.unwrap();
    let apps = client.subscribed_apps(&page()).await.result.unwrap();
    assert_eq!(apps[0].app_id, AppId::from("1234567890"));
    assert_eq!(apps[0].subscribed_fields, ["messages", "message_echoes"]);
    sim.unsubscribe(PAGE);
    assert_eq!(client.subscribed_apps(&page()).await.result, Ok(Vec::new()));
}

#[tokio::test]
async fn profiles_are_empty_where_meta_gives_none() {
    let (sim, client) = platform().await;
    sim.add_person(PERSON, "Ada");
    let name = async |psid: &str| client.profile(&page(), &Psid::from(psid)).await.result.unwrap().first_name;
    assert_eq!(name(PERSON).await.as_deref(), Some("Ada"));
    assert_eq!(name("7200000000000002").await, None);
    assert!(client.feature_status(&page()).await.result.unwrap().hop_v2);
}

#[tokio::test]
async fn an_id_from_outside_stays_one_segment_of_the_address() {
    let (sim, client) = platform().await;
    let _ = client.profile(&page(), &Psid::from("../me/accounts?x=1#")).await;
    let calls = sim.calls();
    assert!(calls[0].path.contains("%2F") && !calls[0].query.iter().any(|(name, _)| name == "x"), "{calls:?}");
}

#[tokio::test]
async fn quick_replies_and_reactions_travel_as_meta_takes_them() {
    let (sim, client) = platform().await;
    let with_replies = message("Which?").with_quick_replies(vec![QuickReply::new("Red", "R").unwrap()]).unwrap();
    client.send(&page(), &with_replies).await.result.unwrap();
    assert_eq!(sim.sends()[0].body["message"]["quick_replies"][0]["content_type"], "text");
    let recipient = Recipient::Psid(Psid::from(PERSON));
    let react = SenderAction::React { mid: sim.sends()[0].message_id.as_str().into(), reaction: "love".to_owned() };
    for action in [SenderAction::MarkSeen, SenderAction::TypingOff, react] {
        client.sender_action(&page(), &recipient, &action).await.result.unwrap();
    }
    assert_eq!(sim.wait_for_calls("messages", 4, SOON).await.unwrap().len(), 4);
    assert_eq!(sim.sends().len(), 1, "an action is no message");
}

#[tokio::test]
async fn a_user_token_is_exchanged_and_gives_page_tokens() {
    let (sim, _) = platform().await;
    let http = reqwest::Client::new();
    let get = async |path: &str, query: &[(&str, &str)]| -> Value {
        let request = http.get(format!("{}/v26.0/{path}", sim.base_url())).query(query);
        request.send().await.unwrap().json().await.unwrap()
    };
    let query = [
        ("grant_type", "fb_exchange_token"),
        ("client_id", "1234567890"),
        ("client_secret", "sim-app-secret"),
        ("fb_exchange_token", "sim-user-1"),
    ];
    let long = get("oauth/access_token", &query).await;
    let accounts = get("me/accounts", &[("access_token", long["access_token"].as_str().unwrap())]).await;
    assert_eq!(accounts["data"][0]["access_token"], "sim-page-token");
    assert_eq!(get("me/accounts", &[]).await["error"]["code"], 190);
}

#[tokio::test]
async fn a_form_is_taken_like_json() {
    let (sim, _) = platform().await;
    let form = "recipient=%7B%22id%22%3A%227%22%7D&message=%7B%22text%22%3A%22hi%22%7D&access_token=sim-page-token";
    let request = reqwest::Client::new().post(format!("{}/{PAGE}/messages", sim.base_url()));
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
    assert_eq!(sim.sends_to("7")[0].text, "hi");
}

#[tokio::test]
async fn a_sender_signs_and_reports_the_status() {
    let callback = Callback::default();
    let url = callback.start().await;
    let sender = WebhookSender::new(&url, "sim-app-secret", PAGE).unwrap();
    let (mid, status) = sender.text(PERSON, "Grüße \u{1F600}").await.unwrap();
    assert_eq!(status, 200);
    sender.inbox_echo(PERSON, "I take over").await.unwrap();
    sender.standby(PERSON, wire::text("m_s", "hi")).await.unwrap();
    let events = callback.events();
    let EventKind::Message(message) = &events[0].kind else { panic!("{events:?}") };
    assert_eq!(
        (message.mid.as_ref().unwrap().as_str(), message.text.as_deref()),
        (mid.as_str(), Some("Grüße \u{1F600}"))
    );
    let EventKind::Echo(echo) = &events[1].kind else { panic!("{events:?}") };
    assert_eq!(echo.origin(&AppId::from("1234567890")), EchoOrigin::Inbox);
    assert_eq!(events[2].channel, frontdesk_messenger::Channel::Standby);
    let forger = WebhookSender::new(&url, "wrong", PAGE).unwrap();
    assert_eq!(forger.text(PERSON, "x").await.unwrap().1, 401);
    assert_eq!(sender.post_bytes(b"{}".to_vec(), None).await.unwrap(), 401);
}

#[tokio::test]
async fn a_wait_that_runs_out_says_what_it_found() {
    let (sim, _) = platform().await;
    let error = sim.wait_for_sends(2, Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(error.to_string(), "waited 20 ms for 2 messages; found 0 messages, 0 calls, 0 echoes acknowledged");
    let taken = GraphSimConfig {
        listen: sim.base_url().trim_start_matches("http://").parse().unwrap(),
        ..GraphSimConfig::default()
    };
    let error = GraphSim::start(taken).await.unwrap_err().to_string();
    assert!(error.contains("choose another"), "{error}");
}

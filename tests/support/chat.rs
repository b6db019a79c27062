//! A customer's view of a Page, for people: what one writes goes to the host as a signed webhook, what the host sends
//! through the simulated Graph appears, and beside each answer stands what the host decided.
//!
//! | address | does |
//! |---|---|
//! | `GET /` | the page; one file, nothing from elsewhere |
//! | `POST /api/messages` `{psid, text}` | one message of the customer: `{mid, status}`, the status being the webhook's |
//! | `POST /api/inbox` `{psid, text}` | one message of a person of the Page, as Business Suite would echo it |
//! | `GET /api/conversations/{psid}` | messages and turns; waits up to `wait_ms` |
//!
//! A conversation request waits until something is newer than `after` (a message's `seq`) or the number of turns differs
//! from `turns`; without these, until the customer's last message is answered or decided (`is_settled`).
//!
//! The admin token stays on this server: the page asks here, and this asks the host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post};
use axum::{Json, Router};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::graph_sim::{GraphSim, ThreadMessage};
use crate::webhook::WebhookSender;
use crate::wire;

const PAGE: &str = include_str!("chat/page.html");
const TEXT_CHARS_MAX: usize = 20_000;
const PSID_CHARS_MAX: usize = 64;
const WAIT_MS_MAX: u64 = 60_000;
/// How often the host is asked for new turns: a ticket makes no call of the simulated Graph.
const TURNS_EVERY: Duration = Duration::from_millis(300);
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Meta's immediate retries while the host says 503.
const DELIVERY_ATTEMPTS: u32 = 6;

/// Where the host's decisions are read.
#[derive(Clone, Debug)]
pub struct AdminApi {
    /// Without a trailing slash.
    pub base_url: String,
    pub token: SecretString,
}

/// What the chat stands on.
#[derive(Debug)]
pub struct Chat {
    sim: GraphSim,
    sender: WebhookSender,
    admin: Option<AdminApi>,
    http: reqwest::Client,
    started_ms: i64,
}

impl Chat {
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(sim: GraphSim, sender: WebhookSender, admin: Option<AdminApi>) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder().timeout(ADMIN_TIMEOUT).build()?;
        Ok(Self { sim, sender, admin, http, started_ms: wire::now_ms() })
    }

    /// The platform behind the chat.
    pub fn sim(&self) -> &GraphSim {
        &self.sim
    }

    /// A person's turns as the host tells them, or why it does not.
    async fn turns(&self, psid: &str) -> Result<Vec<Value>, String> {
        let Some(admin) = &self.admin else { return Err("no admin address is set".to_owned()) };
        let page_id = self.sender.page_id();
        let url = format!("{}/admin/conversations/by-psid/{page_id}/{psid}/turns", admin.base_url);
        let request = self.http.get(url).query(&[("after_ms", self.started_ms)]);
        let response = request
            .bearer_auth(admin.token.expose_secret())
            .send()
            .await
            .map_err(|error| format!("the host's admin API does not answer ({})", error.without_url()))?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(Vec::new()),
            status => return Err(format!("the host's admin API answered {status}; check the admin token")),
        }
        let mut body: Value = response.json().await.map_err(|_| "the host's admin API sent no JSON".to_owned())?;
        match body.get_mut("turns").map(Value::take) {
            Some(Value::Array(turns)) => Ok(turns),
            _ => Err("the host's admin API sent no list of turns".to_owned()),
        }
    }

    async fn conversation(&self, psid: &str) -> Conversation {
        let (turns, admin_error) = match self.turns(psid).await {
            Ok(turns) => (turns, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        let thread = self.sim.thread(self.sender.page_id(), psid);
        Conversation {
            psid: psid.to_owned(),
            is_settled: is_settled(&thread, &turns),
            seq: thread.last().map_or(0, |message| message.seq),
            messages: thread.into_iter().map(Message::from).collect(),
            turns,
            admin_error,
        }
    }
}

/// What `GET /api/conversations/{psid}` gives.
#[derive(Debug, Serialize)]
struct Conversation {
    psid: String,
    messages: Vec<Message>,
    /// As the admin API gives them.
    turns: Vec<Value>,
    /// The newest message's number.
    seq: u64,
    /// Whether the customer's last message has an answer or a decision that makes none.
    is_settled: bool,
    admin_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Message {
    seq: u64,
    mid: String,
    /// `customer`, `bot` or `agent`.
    from: &'static str,
    text: String,
    metadata: Option<String>,
    at_ms: i64,
}

impl From<ThreadMessage> for Message {
    fn from(message: ThreadMessage) -> Self {
        let from = match (message.is_from_page, message.is_from_inbox) {
            (false, _) => "customer",
            (true, false) => "bot",
            (true, true) => "agent",
        };
        Self {
            seq: message.seq,
            mid: message.mid,
            from,
            text: message.text,
            metadata: message.metadata,
            at_ms: message.at_ms,
        }
    }
}

fn is_settled(thread: &[ThreadMessage], turns: &[Value]) -> bool {
    let Some(last) = thread.iter().rev().find(|message| !message.is_from_page) else { return false };
    let is_answered = thread.iter().any(|message| message.is_from_page && message.seq > last.seq);
    let turn = turns.iter().find(|turn| {
        turn.get("mids").and_then(Value::as_array).is_some_and(|mids| mids.iter().any(|mid| *mid == *last.mid))
    });
    match turn.and_then(|turn| turn.get("outcome")).and_then(Value::as_str) {
        // Committed, but the message itself is still on its way.
        Some("sent" | "asked_back") => is_answered,
        Some(_) => true,
        None => is_answered,
    }
}

/// The chat's routes.
pub fn router(chat: Arc<Chat>) -> Router {
    Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/healthz", get(async || "ok"))
        .route("/api/messages", post(post_message))
        .route("/api/inbox", post(post_inbox))
        .route("/api/conversations/{psid}", get(get_conversation))
        .layer(DefaultBodyLimit::max(256 * 1024))
        .with_state(chat)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMessage {
    psid: String,
    text: String,
}

impl NewMessage {
    fn check(&self) -> Result<(), Refusal> {
        if self.text.trim().is_empty() || self.text.chars().count() > TEXT_CHARS_MAX {
            return Err(Refusal::bad(format!("text must have 1 to {TEXT_CHARS_MAX} characters")));
        }
        check_psid(&self.psid)
    }
}

fn check_psid(psid: &str) -> Result<(), Refusal> {
    let is_id = (1..=PSID_CHARS_MAX).contains(&psid.len()) && psid.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_id { Ok(()) } else { Err(Refusal::bad(format!("psid must be 1 to {PSID_CHARS_MAX} letters or digits"))) }
}

#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    problem: String,
}

impl Refusal {
    fn bad(problem: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, problem }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> axum::response::Response {
        (self.status, Json(json!({ "error": self.problem }))).into_response()
    }
}

async fn post_message(State(chat): State<Arc<Chat>>, Json(new): Json<NewMessage>) -> Result<Json<Value>, Refusal> {
    new.check()?;
    let mid = wire::new_mid();
    let page_id = chat.sender.page_id();
    chat.sim.record_inbound(page_id, &new.psid, &mid, &new.text);
    let now_ms = wire::now_ms();
    let piece = wire::from_person(page_id, &new.psid, now_ms, wire::text(&mid, &new.text));
    deliver(&chat, mid, wire::body(page_id, now_ms, vec![piece])).await
}

async fn post_inbox(State(chat): State<Arc<Chat>>, Json(new): Json<NewMessage>) -> Result<Json<Value>, Refusal> {
    new.check()?;
    let mid = wire::new_mid();
    let page_id = chat.sender.page_id();
    chat.sim.record_inbox(page_id, &new.psid, &mid, &new.text);
    let now_ms = wire::now_ms();
    let piece = wire::from_page(page_id, &new.psid, now_ms, wire::inbox_echo(&mid, &new.text));
    deliver(&chat, mid, wire::body(page_id, now_ms, vec![piece])).await
}

async fn deliver(chat: &Chat, mid: String, body: Value) -> Result<Json<Value>, Refusal> {
    let problem = match chat.sender.deliver(&body, DELIVERY_ATTEMPTS).await {
        Some(200) => return Ok(Json(json!({ "mid": mid, "status": 200 }))),
        Some(status @ (401 | 403)) => {
            format!("the webhook answered {status}; simulator and host must have the same app secret")
        }
        Some(status) => format!("the webhook answered {status}; see the host's log"),
        None => "the webhook does not answer; is the host running?".to_owned(),
    };
    Err(Refusal { status: StatusCode::BAD_GATEWAY, problem })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wait {
    wait_ms: u64,
    after: Option<u64>,
    turns: Option<usize>,
}

impl Wait {
    fn is_over(&self, conversation: &Conversation) -> bool {
        if self.after.is_none() && self.turns.is_none() {
            return conversation.is_settled;
        }
        self.after.is_some_and(|after| conversation.seq > after)
            || self.turns.is_some_and(|turns| conversation.turns.len() != turns)
    }
}

async fn get_conversation(
    State(chat): State<Arc<Chat>>,
    Path(psid): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<Json<Conversation>, Refusal> {
    check_psid(&psid)?;
    let deadline = Instant::now() + Duration::from_millis(wait.wait_ms.min(WAIT_MS_MAX));
    loop {
        let version = chat.sim.version();
        let conversation = chat.conversation(&psid).await;
        let left = deadline.saturating_duration_since(Instant::now());
        if wait.is_over(&conversation) || left.is_zero() {
            return Ok(Json(conversation));
        }
        chat.sim.changed(version, left.min(TURNS_EVERY)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::http::HeaderMap;

    use super::*;
    use crate::graph_sim::GraphSimConfig;

    const PERSON: &str = "7200000000000001";

    /// A host that acknowledges webhooks and tells scripted turns to whoever has the token.
    #[derive(Clone, Debug, Default)]
    struct Host {
        turns: Arc<Mutex<Vec<Value>>>,
    }

    async fn serve(router: Router) -> String {
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|error| unreachable!("{error}"));
        let address = listener.local_addr().unwrap_or_else(|error| unreachable!("{error}"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    async fn chat() -> (String, Arc<Chat>, Host) {
        let host = Host::default();
        let turns = Arc::clone(&host.turns);
        let told = move |headers: HeaderMap| {
            let turns = turns.lock().map(|turns| turns.clone()).unwrap_or_default();
            async move {
                if headers.get("authorization").is_none_or(|value| value != "Bearer admin-token") {
                    return Err(StatusCode::UNAUTHORIZED);
                }
                Ok(Json(json!({ "turns": turns })))
            }
        };
        let path = "/admin/conversations/by-psid/{page}/{psid}/turns";
        let router = Router::new().route("/webhook", post(async || "ok")).route(path, get(told));
        let base_url = serve(router).await;
        let sim = GraphSim::start(GraphSimConfig::default()).await.unwrap_or_else(|error| unreachable!("{error}"));
        let sender = WebhookSender::new(format!("{base_url}/webhook"), "sim-app-secret", "106000000000001");
        let admin = AdminApi { base_url, token: "admin-token".to_owned().into() };
        let sender = sender.unwrap_or_else(|error| unreachable!("{error}"));
        let chat = Arc::new(Chat::new(sim, sender, Some(admin)).unwrap_or_else(|error| unreachable!("{error}")));
        (serve(router_of(&chat)).await, chat, host)
    }

    fn router_of(chat: &Arc<Chat>) -> Router {
        router(Arc::clone(chat))
    }

    #[tokio::test]
    async fn a_customer_writes_and_sees_answer_and_decision() {
        let (url, chat, host) = chat().await;
        let http = reqwest::Client::new();
        let page = http.get(&url).send().await.unwrap().text().await.unwrap();
        assert!(page.contains("Frontdesk simulator") && !page.contains("src="), "one file, nothing from elsewhere");

        let new = json!({ "psid": PERSON, "text": "Do you ship?" });
        let sent: Value =
            http.post(format!("{url}/api/messages")).json(&new).send().await.unwrap().json().await.unwrap();
        let mid = sent["mid"].as_str().unwrap().to_owned();

        let conversation = format!("{url}/api/conversations/{PERSON}");
        let get = async |query: &str| -> Value {
            http.get(format!("{conversation}{query}")).send().await.unwrap().json().await.unwrap()
        };
        let waiting = get("").await;
        assert_eq!((&waiting["is_settled"], &waiting["messages"][0]["from"]), (&json!(false), &json!("customer")));

        // The host decides, then sends: a waiting request returns with both.
        let answer = async {
            let turn = json!({ "turn_id": "t1", "mids": [mid], "route": "answer", "outcome": "sent" });
            host.turns.lock().unwrap().push(turn);
            let body = json!({ "recipient": { "id": PERSON }, "message": { "text": "Yes.", "metadata": "row-1" } });
            let messages = format!("{}/v26.0/106000000000001/messages", chat.sim().base_url());
            http.post(messages).bearer_auth("sim-page-token").json(&body).send().await.unwrap()
        };
        let (settled, answered) = tokio::join!(get("?wait_ms=20000"), answer);
        assert_eq!(answered.status().as_u16(), 200);
        assert_eq!(settled["is_settled"], true);
        assert_eq!((&settled["messages"][1]["text"], &settled["messages"][1]["from"]), (&json!("Yes."), &json!("bot")));
        assert_eq!(settled["turns"][0]["turn_id"], "t1");
        assert_eq!(settled["admin_error"], Value::Null);
    }

    #[tokio::test]
    async fn a_ticket_settles_without_an_answer_and_an_agent_is_shown_as_one() {
        let (url, _chat, host) = chat().await;
        let http = reqwest::Client::new();
        let new = json!({ "psid": PERSON, "text": "A person, please" });
        let sent: Value =
            http.post(format!("{url}/api/messages")).json(&new).send().await.unwrap().json().await.unwrap();
        host.turns.lock().unwrap().push(json!({ "mids": [sent["mid"]], "outcome": "ticket" }));
        let conversation = format!("{url}/api/conversations/{PERSON}?wait_ms=20000");
        let settled: Value = http.get(conversation).send().await.unwrap().json().await.unwrap();
        assert_eq!(settled["is_settled"], true);
        let reply = json!({ "psid": PERSON, "text": "Hello, Ada here." });
        http.post(format!("{url}/api/inbox")).json(&reply).send().await.unwrap();
        let after = format!("{url}/api/conversations/{PERSON}?wait_ms=20000&after={}", settled["seq"]);
        let after: Value = http.get(after).send().await.unwrap().json().await.unwrap();
        assert_eq!(after["messages"][1]["from"], "agent");
    }

    #[tokio::test]
    async fn bad_input_is_refused_in_words() {
        let (url, _chat, _host) = chat().await;
        let http = reqwest::Client::new();
        for body in
            [json!({"psid":"../x","text":"x"}), json!({"psid":PERSON,"text":" "}), json!({"psid":"","text":"x"})]
        {
            let response = http.post(format!("{url}/api/messages")).json(&body).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 400, "{body}");
            assert!(response.json::<Value>().await.unwrap()["error"].as_str().unwrap().contains("must"));
        }
    }
}

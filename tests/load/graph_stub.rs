//! Meta's side with no latency: every send is taken at once, and its echo comes back into the inbox.
//!
//! Unlike the simulator of the tests it checks nothing and keeps nothing, so that the host is what is measured.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use anyhow::Result;
use axum::extract::State;
use axum::{Json, Router};
use frontdesk_messenger::event;
use frontdesk_server::app::App;
use frontdesk_server::db::inbox::NewEvent;
use frontdesk_server::webhook;
use frontdesk_testkit::wire;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::ground::{APP_ID, PAGE};

/// A running stub; it ends when this is dropped.
#[derive(Debug)]
pub struct GraphStub {
    pub base_url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Who waits for a send to a customer.
    waiting: Mutex<HashMap<String, oneshot::Sender<Instant>>>,
    /// Where echoes go.
    host: OnceLock<Arc<App>>,
    sends: AtomicU64,
    lost_echoes: AtomicU64,
}

impl GraphStub {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { base_url, shared, server })
    }

    /// Echoes go to this host from now on.
    pub fn echo_to(&self, app: &Arc<App>) {
        let _ = self.shared.host.set(Arc::clone(app));
    }

    /// Resolves when the next message to this customer arrives here.
    pub fn expect(&self, psid: &str) -> oneshot::Receiver<Instant> {
        let (sender, receiver) = oneshot::channel();
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(psid.to_owned(), sender);
        receiver
    }

    /// Messages taken so far.
    pub fn sends(&self) -> u64 {
        self.shared.sends.load(Ordering::Relaxed)
    }

    /// Echoes that the host did not take.
    pub fn lost_echoes(&self) -> u64 {
        self.shared.lost_echoes.load(Ordering::Relaxed)
    }
}

impl Drop for GraphStub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, Json(call): Json<Value>) -> Json<Value> {
    let arrived = Instant::now();
    let psid = call.pointer("/recipient/id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(text) = call.pointer("/message/text").and_then(Value::as_str) else {
        return Json(json!({ "recipient_id": psid }));
    };
    if let Some(waiting) = shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&psid) {
        let _ = waiting.send(arrived);
    }
    shared.sends.fetch_add(1, Ordering::Relaxed);
    let mid = wire::new_mid();
    if let Some(app) = shared.host.get() {
        let metadata = call.pointer("/message/metadata").and_then(Value::as_str);
        let fields = wire::echo(&mid, text, APP_ID.parse().unwrap_or_default(), metadata);
        let piece = wire::from_page(PAGE, &psid, wire::now_ms(), fields);
        let (app, shared) = (Arc::clone(app), Arc::clone(&shared));
        tokio::spawn(async move {
            let taken = match events(&app, piece) {
                Ok(events) => app.inbox.store(events).await.is_ok(),
                Err(_) => false,
            };
            if !taken {
                shared.lost_echoes.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    Json(json!({ "recipient_id": psid, "message_id": mid }))
}

/// A piece as the webhook stores it.
pub fn events(app: &App, piece: Value) -> Result<Vec<NewEvent>, event::ParseError> {
    let body = wire::to_wire(&wire::body(PAGE, wire::now_ms(), vec![piece]));
    let mut rows = Vec::new();
    event::parse_each(&body, |event, json| rows.push(webhook::row(app, event, json)))?;
    Ok(rows)
}

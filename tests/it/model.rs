//! A language model that answers when the test lets it: a turn can be held where it drafts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use frontdesk_server::answer::ModelSettings;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Speaks as OpenAI's chat endpoint does, and says what it is told to say.
#[derive(Debug)]
pub struct HeldModel {
    base_url: String,
    held: Arc<Held>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Held {
    answer: String,
    asked: AtomicUsize,
    /// The bodies of all questions.
    prompts: Mutex<Vec<String>>,
    let_through: Semaphore,
}

impl HeldModel {
    /// Starts a model that holds every question until [`HeldModel::release`].
    pub async fn start(answer: &str) -> Self {
        let held = Arc::new(Held {
            answer: answer.to_owned(),
            asked: AtomicUsize::new(0),
            prompts: Mutex::default(),
            let_through: Semaphore::new(0),
        });
        let router = Router::new().route("/chat/completions", post(complete)).with_state(Arc::clone(&held));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base_url, held, server }
    }

    /// The settings of a host that asks this model.
    pub fn settings(&self) -> ModelSettings {
        let settings = json!({ "provider": "openai", "model": "held", "base_url": self.base_url, "retries": 0 });
        serde_json::from_value(settings).unwrap()
    }

    /// How many questions have come so far.
    pub fn asked(&self) -> usize {
        self.held.asked.load(Ordering::SeqCst)
    }

    /// What was asked so far.
    pub fn prompts(&self) -> Vec<String> {
        self.held.prompts.lock().unwrap().clone()
    }

    /// Answers so many questions, waiting ones first.
    pub fn release(&self, count: usize) {
        self.held.let_through.add_permits(count);
    }
}

impl Drop for HeldModel {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn complete(State(held): State<Arc<Held>>, body: String) -> Json<Value> {
    held.prompts.lock().unwrap().push(body);
    held.asked.fetch_add(1, Ordering::SeqCst);
    held.let_through.acquire().await.unwrap().forget();
    Json(json!({
        "model": "held",
        "choices": [{ "message": { "role": "assistant", "content": held.answer }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 10, "completion_tokens": 10 },
    }))
}

//! From a request to its fate.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, State as Extract};
use axum::http::{HeaderMap, Method, Response, Uri};
use serde_json::{Map, Value};

use super::answer::{Answer, respond};
use super::state::Shared;
use super::{Call, Outcome, edges, messages};

/// The longest a call is left hanging: any client has given up by then.
const HANG_MAX: Duration = Duration::from_secs(120);
const BODY_BYTES_MAX: usize = 1024 * 1024;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(handle).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(shared)
}

/// A call, read.
pub(super) struct Request {
    pub method: Method,
    /// The path's parts without the version.
    pub path: Vec<String>,
    pub query: Vec<(String, String)>,
    pub body: Value,
    pub token: Option<String>,
}

impl Request {
    fn read(method: Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Self {
        let parts = uri.path().split('/').filter(|part| !part.is_empty()).map(str::to_owned);
        let mut path: Vec<String> = parts.collect();
        if path.first().is_some_and(|first| is_version(first)) {
            path.remove(0);
        }
        let mut query = pairs(uri);
        let is_form = headers
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        let body = if is_form { form(body) } else { serde_json::from_slice(body).unwrap_or(Value::Null) };
        let bearer = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let token = bearer
            .map(str::to_owned)
            .or_else(|| query.iter().find(|(name, _)| name == "access_token").map(|(_, value)| value.clone()))
            .or_else(|| body.get("access_token").and_then(Value::as_str).map(str::to_owned));
        query.retain(|(name, _)| name != "access_token");
        Self { method, path, query, body, token }
    }

    /// A parameter from query or body, as text.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let from_query = self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        from_query.or_else(|| match self.body.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        })
    }

    /// The part of the path that scripts go by.
    fn edge(&self) -> &str {
        let edge = self.path.last().map(String::as_str).unwrap_or_default();
        match edge {
            "messages" if self.body.get("message").is_none() => "sender_action",
            edge => edge,
        }
    }
}

fn is_version(part: &str) -> bool {
    part.strip_prefix('v').and_then(|rest| rest.split_once('.')).is_some_and(|(major, minor)| {
        [major, minor].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

fn pairs(uri: &Uri) -> Vec<(String, String)> {
    Query::<Vec<(String, String)>>::try_from_uri(uri).map(|query| query.0).unwrap_or_default()
}

/// A form's fields; Meta takes JSON inside them.
fn form(body: &Bytes) -> Value {
    let uri = format!("/?{}", String::from_utf8_lossy(body)).parse::<Uri>().unwrap_or_default();
    let fields = pairs(&uri).into_iter().map(|(name, value)| {
        let parsed = serde_json::from_str::<Value>(&value).ok().filter(|value| value.is_object() || value.is_array());
        (name, parsed.unwrap_or(Value::String(value)))
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

async fn handle(
    Extract(shared): Extract<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let request = Request::read(method, &uri, &headers, &body);
    let outcome = next_outcome(&shared, request.edge());
    let response = meet(&shared, &request, outcome).await;
    let status = response.as_ref().map(|response| response.status().as_u16());
    shared.change(|state| {
        state.record_call(Call {
            method: request.method.to_string(),
            path: request.path.join("/"),
            query: request.query.clone(),
            body: without_token(&request.body),
            status,
        });
    });
    match response {
        Some(response) => response,
        // Unwinding ends the connection's task and with it the connection: the client sees a cut before any answer.
        // No panic hook runs, so nothing is printed.
        None => std::panic::resume_unwind(Box::new("the connection is cut on purpose")),
    }
}

fn next_outcome(shared: &Shared, edge: &str) -> Outcome {
    let mut state = shared.lock();
    let at = state.script.iter().position(|(scripted, _)| scripted == edge);
    at.and_then(|at| state.script.remove(at)).map_or(Outcome::Ok, |(_, outcome)| outcome)
}

fn without_token(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(body) = body.as_object_mut() {
        body.remove("access_token");
    }
    body
}

/// The answer, or `None` for a cut connection.
async fn meet(shared: &Arc<Shared>, request: &Request, outcome: Outcome) -> Option<Response<Body>> {
    let page_id = request.path.first().cloned().unwrap_or_default();
    let answer = match outcome {
        Outcome::Ok => process(shared, request),
        Outcome::Error { status, code, subcode, is_transient } => Answer::error(status, code, subcode, is_transient),
        Outcome::Delay(delay) => {
            tokio::time::sleep(delay).await;
            process(shared, request)
        }
        Outcome::LostResponse => {
            process(shared, request);
            return None;
        }
        Outcome::CutConnection => return None,
        Outcome::Hang { is_taken } => {
            if is_taken {
                process(shared, request);
            }
            tokio::time::sleep(HANG_MAX).await;
            return None;
        }
        Outcome::UnreadableSuccess => {
            process(shared, request);
            return Some(respond(200, "text/html", "<!doctype html><title>ok</title>".to_owned()));
        }
        Outcome::RateLimited { code, regain_after_minutes } => {
            Answer::error(if code == 4 { 403 } else { 400 }, code, None, code == 4).with_usage(
                &page_id,
                100,
                regain_after_minutes,
            )
        }
        Outcome::Usage { percent } => process(shared, request).with_usage(&page_id, percent, 0),
        Outcome::Html { status } => {
            let page = "<!doctype html><title>Bad Gateway</title><h1>Something went wrong</h1>";
            return Some(respond(status, "text/html", page.to_owned()));
        }
        Outcome::Empty { status } => return Some(respond(status, "text/plain", String::new())),
    };
    Some(answer.into_response())
}

/// What Graph does when nothing is scripted.
fn process(shared: &Arc<Shared>, request: &Request) -> Answer {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["oauth", "access_token"] => edges::exchange_token(shared, request),
        ["debug_token"] => edges::debug_token(shared, request),
        ["me", "accounts"] => edges::accounts(shared, request),
        [page_id, "messages"] if request.method == Method::POST => {
            edges::with_page(shared, request, page_id, |page_id| messages::send(shared, request, page_id))
        }
        [user_id, "ids_for_pages"] if request.method == Method::GET => edges::ids_for_pages(shared, request, user_id),
        ["me"] => edges::with_page(shared, request, "me", |page_id| edges::page_node(shared, request, page_id)),
        [page_id, edge] => {
            edges::with_page(shared, request, page_id, |page_id| edges::page_edge(shared, request, page_id, edge))
        }
        [node] if request.method == Method::GET => edges::node(shared, request, node),
        _ => Answer::error(404, 2500, None, false),
    }
}

//! The adapters against a small server that answers as the services do, errors included.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::*;
use crate::answer::{EndpointSettings, ModelSettings, PassageRef, drafter};
use crate::knowledge::{EmbedError, EmbeddingSettings, Purpose, embedder};

/// Answers in order, the last one again and again; keeps what was asked.
#[derive(Default)]
struct Service {
    answers: Mutex<Vec<Answer>>,
    seen: Mutex<Vec<(String, HeaderMap, Value)>>,
}

#[derive(Clone)]
struct Answer {
    status: u16,
    body: String,
    retry_after: Option<&'static str>,
    delay: Duration,
}

fn ok(body: Value) -> Answer {
    Answer { status: 200, body: body.to_string(), retry_after: None, delay: Duration::ZERO }
}

fn failed(status: u16) -> Answer {
    let body = json!({ "error": { "type": "some_type", "message": "you sent: SECRET PROMPT" } });
    Answer { status, ..ok(body) }
}

async fn reply(State(service): State<Arc<Service>>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    service.seen.lock().unwrap().push((uri.path().to_owned(), headers, serde_json::from_str(&body).unwrap()));
    let answer = {
        let mut answers = service.answers.lock().unwrap();
        if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
    };
    tokio::time::sleep(answer.delay).await;
    let mut response = (StatusCode::from_u16(answer.status).unwrap(), answer.body).into_response();
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert("retry-after", seconds.parse().unwrap());
    }
    response
}

async fn serve(answers: Vec<Answer>) -> (String, Arc<Service>) {
    let service = Arc::new(Service { answers: Mutex::new(answers), ..Service::default() });
    let router = Router::new().fallback(reply).with_state(Arc::clone(&service));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, service)
}

fn endpoint(base_url: &str, key: Option<&std::path::Path>) -> EndpointSettings {
    serde_json::from_value(json!({
        "model": "m1", "base_url": base_url, "api_key_file": key, "timeout_ms": 1_000, "retries": 2,
    }))
    .unwrap()
}

fn request() -> DraftRequest {
    let passage = PassageRef {
        id: "p1".to_owned(),
        title: "Shipping".to_owned(),
        text: "We ship to Austria and Germany. Shipping costs 4.90 EUR.".to_owned(),
        score: 0.8,
        language: Some("en".to_owned()),
        ..PassageRef::default()
    };
    DraftRequest { question: "Do you ship to Austria?".to_owned(), passages: vec![passage], ..DraftRequest::default() }
}

fn openai_says(content: &str) -> Answer {
    ok(json!({
        "model": "m1-2026", "usage": { "prompt_tokens": 70, "completion_tokens": 9 },
        "choices": [{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": content } }],
    }))
}

async fn ask_openai(answers: Vec<Answer>) -> (Result<DraftOutcome, DraftError>, Arc<Service>) {
    let (address, service) = serve(answers).await;
    let drafter = drafter(&ModelSettings::Openai(endpoint(&format!("{address}/v1/"), None)), None).unwrap();
    (drafter.draft(&request()).await, service)
}

fn drafted(outcome: Result<DraftOutcome, DraftError>) -> Drafted {
    match outcome.unwrap() {
        DraftOutcome::Drafted(drafted) => drafted,
        DraftOutcome::Declined(declined) => panic!("{}", declined.reason),
    }
}

#[tokio::test]
async fn openai_answers_are_cited_and_gated() {
    let says =
        "Hello! Yes, we ship to Austria [1]. Shipping is free for members of our club [1]. It costs 4.90 EUR. [1]";
    let (outcome, service) = ask_openai(vec![openai_says(says)]).await;
    let drafted = drafted(outcome);
    assert_eq!(drafted.text, "Hello! Yes, we ship to Austria. It costs 4.90 EUR.");
    assert_eq!(drafted.sentences[1].passage_ids, ["p1"]);
    assert_eq!((drafted.evidence.sentences, drafted.evidence.supported), (3, 2));
    assert_eq!(drafted.cut.len(), 1);
    assert_eq!((drafted.model.as_str(), drafted.prompt_tokens, drafted.completion_tokens), ("m1-2026", 70, 9));
    assert!(drafted.prompt.contains("We ship to Austria and Germany."));
    let seen = service.seen.lock().unwrap();
    let (path, headers, body) = &seen[0];
    assert_eq!(path, "/v1/chat/completions");
    assert!(!headers.contains_key("authorization"), "no key is set, none is sent");
    assert_eq!((body["model"].as_str(), body["max_tokens"].as_u64()), (Some("m1"), Some(600)));
    assert_eq!(body["messages"][0]["role"], "system");
}

#[tokio::test]
async fn anthropic_speaks_its_own_way() {
    let folder = tempfile_with("key-123\n");
    let body = json!({
        "type": "message", "model": "claude-x", "stop_reason": "end_turn", "usage": { "input_tokens": 50, "output_tokens": 7 },
        "content": [{ "type": "thinking", "thinking": "hm" }, { "type": "text", "text": "Yes, we ship to Austria [1]." }],
    });
    let (address, service) = serve(vec![ok(body)]).await;
    let drafter = drafter(&ModelSettings::Anthropic(endpoint(&address, Some(&folder))), None).unwrap();
    assert_eq!(drafter.name(), "anthropic/m1");
    let drafted = drafted(drafter.draft(&request()).await);
    assert_eq!((drafted.text.as_str(), drafted.prompt_tokens), ("Yes, we ship to Austria.", 50));
    let seen = service.seen.lock().unwrap();
    let (path, headers, body) = &seen[0];
    assert_eq!(path, "/v1/messages");
    assert_eq!(headers["x-api-key"], "key-123");
    assert_eq!(headers["anthropic-version"], "2023-06-01");
    assert!(body["system"].as_str().unwrap().contains("Rules of the host"));
    assert_eq!(body["messages"][0]["role"], "user");
    std::fs::remove_file(folder).unwrap();
}

fn tempfile_with(text: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("frontdesk-key-{}", uuid::Uuid::new_v4()));
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn inventions_and_refusals_are_declined() {
    for answer in [
        openai_says("NO_ANSWER"),
        openai_says("We were founded in 1850 by three monks [1]. Elephants are welcome [1]."),
        openai_says("Hello there! Thanks for asking."),
        openai_says(""),
        ok(
            json!({ "choices": [{ "finish_reason": "content_filter", "message": { "content": "We ship to Austria [1]." } }] }),
        ),
        ok(json!({ "choices": [{ "finish_reason": "length", "message": { "content": "We ship to Austria and" } }] })),
    ] {
        let (outcome, _) = ask_openai(vec![answer.clone()]).await;
        assert!(matches!(outcome, Ok(DraftOutcome::Declined(_))), "{}", answer.body);
    }
}

#[tokio::test]
async fn without_passages_no_model_is_asked() {
    let (address, service) = serve(vec![openai_says("x")]).await;
    let drafter = drafter(&ModelSettings::Openai(endpoint(&address, None)), None).unwrap();
    let request = DraftRequest { passages: Vec::new(), ..request() };
    assert!(matches!(drafter.draft(&request).await, Ok(DraftOutcome::Declined(_))));
    assert!(service.seen.lock().unwrap().is_empty());
}

/// A German question to English knowledge, with no model that could compare languages.
async fn ask_in_german(says: &[&str], tokens_max: u64) -> (DraftOutcome, Arc<Service>) {
    let (address, service) = serve(says.iter().map(|text| openai_says(text)).collect()).await;
    let drafter = drafter(&ModelSettings::Openai(endpoint(&address, None)), None).unwrap();
    let request = DraftRequest {
        question: "Liefern Sie nach Österreich, und was kostet das?".to_owned(),
        language: Some("de".to_owned()),
        instructions: vec![("Voice".to_owned(), "Be warm.".to_owned())],
        tokens_max,
        ..request()
    };
    (drafter.draft(&request).await.unwrap(), service)
}

const SAYS: &str = "Yes, we ship to Austria [1]. Shipping costs 4.90 EUR [1].";

#[tokio::test]
async fn an_answer_is_judged_in_the_passages_language_and_then_translated() {
    let there = "1. Ja, wir liefern nach Österreich.\n2. Der Versand kostet 4,90 EUR.";
    let back = "1. Yes, we deliver to Austria.\n2. The shipping costs 4.90 EUR.";
    let (outcome, service) = ask_in_german(&[SAYS, there, back], 0).await;
    let drafted = drafted(Ok(outcome));
    assert_eq!(drafted.text, "Ja, wir liefern nach Österreich. Der Versand kostet 4,90 EUR.");
    assert_eq!((drafted.prompt_tokens, drafted.completion_tokens), (210, 27), "three calls are paid for");
    assert_eq!((drafted.evidence.sentences, drafted.evidence.supported), (2, 2));
    assert_eq!(drafted.sentences[1].passage_ids, ["p1"]);
    let seen = service.seen.lock().unwrap();
    let system = |at: usize| seen[at].2["messages"][0]["content"].as_str().unwrap().to_owned();
    assert_eq!(seen.len(), 3);
    assert!(system(0).contains("code \"en\"") && !system(0).contains("Be warm."), "{}", system(0));
    assert!(system(1).contains("code \"de\"") && system(1).contains("Be warm."), "{}", system(1));
    assert!(
        system(2).contains("code \"en\"") && !seen[2].2.to_string().contains("Yes, we ship"),
        "it sees no original"
    );
    assert_eq!(seen[1].2["temperature"], 0.0);
}

#[tokio::test]
async fn a_translation_that_says_something_else_is_not_sent() {
    let one = "We ship to Austria [1].";
    for says in [
        // Another country, in both directions; other numbers; more than was said; the opposite.
        [one, "1. Wir liefern nach Japan.", "1. We ship to Japan."],
        ["Shipping costs 4.90 EUR [1].", "1. Der Versand kostet 3,90 EUR.", "1. Shipping costs 3.90 EUR."],
        ["Shipping costs 4.90 EUR [1].", "1. Der Versand kostet 3,90 EUR.", "1. Shipping costs 4.90 EUR."],
        [
            one,
            "1. Wir liefern nach Österreich, gratis und jeden Tag, auch am Sonntag.",
            "1. We ship to Austria, free of charge and every day, even on Sundays.",
        ],
        [one, "1. Wir liefern nicht nach Österreich.", "1. We do not ship to Austria."],
        // No translation, half of one, one of one's own, or the same whatever is asked.
        [one, "1. We ship to Austria.", "1. We ship to Austria."],
        [SAYS, "1. Wir liefern nach Österreich.", "1. We ship to Austria."],
        [one, "Wir liefern überallhin, kostenlos!", "1. We ship to Austria."],
        [
            "Everything is free on the Moon [1].",
            "1. Auf dem Mond ist alles gratis.",
            "1. Everything is free on the Moon.",
        ],
        [SAYS, SAYS, SAYS],
    ] {
        let (outcome, _) = ask_in_german(&says, 0).await;
        assert!(matches!(outcome, DraftOutcome::Declined(_)), "{says:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_translation_keeps_to_the_turns_budget() {
    let (outcome, service) = ask_in_german(&[SAYS, "1. Ja.\n2. Ja.", "x"], 100).await;
    let DraftOutcome::Declined(declined) = outcome else { panic!("{outcome:?}") };
    assert!(declined.reason.contains("cost more"), "{}", declined.reason);
    assert_eq!((declined.prompt_tokens, service.seen.lock().unwrap().len()), (70, 1));
}

#[tokio::test]
async fn passing_troubles_are_tried_again_and_only_so_often() {
    let good = || openai_says("We ship to Austria [1].");
    for (first, tries) in [(vec![failed(429), failed(503)], 3), (vec![failed(500)], 2), (vec![], 1)] {
        let (outcome, service) = ask_openai(first.into_iter().chain([good()]).collect()).await;
        drafted(outcome);
        assert_eq!(service.seen.lock().unwrap().len(), tries);
    }
    let (outcome, service) = ask_openai(vec![failed(503)]).await;
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, DraftError::Unavailable { status: 503, attempts: 3, .. }) && error.is_retryable(),
        "{error}"
    );
    assert_eq!(service.seen.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn lasting_troubles_are_not_tried_again() {
    let limited = Answer { retry_after: Some("3600"), ..failed(429) };
    let huge = Answer { body: "x".repeat(1024 * 1024 + 1), ..failed(200) };
    let (redirect, nonsense) = (failed(302), Answer { body: "<html>".to_owned(), ..failed(200) });
    for (answer, kind) in [
        (failed(401), "refused"),
        (failed(400), "refused"),
        (redirect, "refused"),
        (limited, "rate_limited"),
        (huge, "too_large"),
        (nonsense, "malformed"),
        (ok(json!({ "choices": [] })), "malformed"),
    ] {
        let (outcome, service) = ask_openai(vec![answer]).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(service.seen.lock().unwrap().len(), 1, "{kind}");
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
    }
}

#[tokio::test]
async fn a_silent_service_times_out_and_an_absent_one_is_unreachable() {
    let (address, _) = serve(vec![Answer { delay: Duration::from_secs(30), ..openai_says("x") }]).await;
    let settings = EndpointSettings { timeout_ms: 100, retries: 0, ..endpoint(&address, None) };
    let silent = drafter(&ModelSettings::Openai(settings.clone()), None).unwrap();
    assert!(matches!(silent.draft(&request()).await, Err(DraftError::Timeout { attempts: 1, .. })));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = EndpointSettings { base_url: format!("http://{free}"), ..settings };
    let absent = drafter(&ModelSettings::Openai(settings), None).unwrap();
    assert!(matches!(absent.draft(&request()).await, Err(DraftError::Unreachable { .. })));
}

#[test]
fn settings_are_checked_and_errors_name_the_field() {
    let base = endpoint("https://m.example", None);
    for (settings, field) in [
        (EndpointSettings { model: " ".to_owned(), ..base.clone() }, "model.model"),
        (EndpointSettings { base_url: "ftp://x".to_owned(), ..base.clone() }, "model.base_url"),
        (EndpointSettings { base_url: "nonsense".to_owned(), ..base.clone() }, "model.base_url"),
        (EndpointSettings { retries: 6, ..base.clone() }, "model.retries"),
        (EndpointSettings { timeout_ms: 99, ..base.clone() }, "model.timeout_ms"),
        (EndpointSettings { api_key_env: Some("FRONTDESK_TEST_UNSET".to_owned()), ..base }, "FRONTDESK_TEST_UNSET"),
    ] {
        let error = drafter(&ModelSettings::Openai(settings), None).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
    let unknown = json!({ "provider": "openai", "model": "m", "modle": 1 });
    assert!(serde_json::from_value::<ModelSettings>(unknown).is_err());
    let extractive = json!({ "provider": "extractive" });
    assert_eq!(serde_json::from_value::<ModelSettings>(extractive).unwrap(), ModelSettings::default());
}

fn remote_embedder(address: &str) -> EmbeddingSettings {
    let settings = json!({
        "provider": "openai", "base_url": address, "model": "e", "dimensions": 2, "batch": 2, "timeout_ms": 1_000, "query_prefix": "query: ",
    });
    serde_json::from_value(settings).unwrap()
}

#[tokio::test]
async fn remote_embeddings_are_batched_ordered_and_scaled() {
    let two = ok(json!({ "data": [{ "index": 1, "embedding": [0.0, 2.0] }, { "index": 0, "embedding": [3.0, 4.0] }] }));
    let one = ok(json!({ "data": [{ "index": 0, "embedding": [1.0, 0.0] }] }));
    let (address, service) = serve(vec![failed(500), two, one]).await;
    let embedder = embedder(&remote_embedder(&address)).unwrap();
    let texts = ["a", "b", "c"].map(str::to_owned);
    let vectors = embedder.embed(&texts, Purpose::Query).await.unwrap();
    assert_eq!(vectors, [[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]]);
    let seen = service.seen.lock().unwrap();
    assert_eq!(seen[1].0, "/embeddings");
    assert_eq!(seen[1].2["input"], json!(["query: a", "query: b"]));
}

#[tokio::test]
async fn remote_embeddings_of_the_wrong_shape_are_refused() {
    let texts = ["a".to_owned()];
    for (answer, message) in [
        (ok(json!({ "data": [{ "index": 0, "embedding": [1.0] }] })), "vectors of 1 dimensions"),
        (ok(json!({ "data": [] })), "0 vectors for 1 texts"),
        (ok(json!({ "data": [{ "index": 7, "embedding": [1.0, 0.0] }] })), "1 vectors for 1 texts"),
        (failed(401), "answered 401"),
    ] {
        let (address, _) = serve(vec![answer]).await;
        let error: EmbedError =
            embedder(&remote_embedder(&address)).unwrap().embed(&texts, Purpose::Passage).await.unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(!error.is_retryable());
    }
}

//! Models that fail, and models that cost: who is asked instead, and when nobody is asked any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use axum::{Json, Router, routing::post};
use frontdesk_server::answer::{DraftError, DraftOutcome, DraftRequest, Drafter, ModelSettings, PassageRef, drafters};
use frontdesk_server::clock::Clock;
use frontdesk_server::spending::{Budgeted, ModelBudget};
use serde_json::json;

use crate::database::fresh_database;

/// A model service that answers every call with this status, truthfully and at 100 tokens a call; counts its calls.
async fn service(status: StatusCode) -> (ModelSettings, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let answer = async move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let body = json!({
            "model": "scripted",
            "choices": [{ "message": { "role": "assistant", "content": "Yes, we ship to Austria [1]." }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 90, "completion_tokens": 10 },
        });
        (status, Json(body))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/chat/completions", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = json!({ "provider": "openai", "model": "m", "base_url": base_url, "retries": 0 });
    (serde_json::from_value(settings).unwrap(), calls)
}

fn request(page_id: &str) -> DraftRequest {
    let passage = PassageRef {
        id: "p".to_owned(),
        title: "Shipping".to_owned(),
        text: "We ship to Austria and Germany.".to_owned(),
        score: 0.9,
        language: Some("en".to_owned()),
        ..PassageRef::default()
    };
    DraftRequest {
        page_id: page_id.to_owned(),
        question: "Do you ship to Austria?".to_owned(),
        passages: vec![passage],
        ..DraftRequest::default()
    }
}

fn written_by(outcome: Result<DraftOutcome, DraftError>) -> String {
    match outcome.unwrap() {
        DraftOutcome::Drafted(drafted) => drafted.model,
        DraftOutcome::Declined(declined) => panic!("{}", declined.reason),
    }
}

#[tokio::test]
async fn the_next_model_answers_when_one_fails_and_quotation_when_all_do() {
    let (down, down_calls) = service(StatusCode::SERVICE_UNAVAILABLE).await;
    let (up, up_calls) = service(StatusCode::OK).await;
    let quoting = ModelSettings::default();
    let calls = |counter: &AtomicUsize| counter.swap(0, Ordering::SeqCst);

    let drafter = drafters(&down, &[up.clone(), quoting.clone()], None).unwrap();
    assert_eq!(written_by(drafter.draft(&request("1")).await), "scripted");
    assert_eq!((calls(&down_calls), calls(&up_calls)), (1, 1));
    let drafter = drafters(&up, std::slice::from_ref(&down), None).unwrap();
    assert_eq!(written_by(drafter.draft(&request("1")).await), "scripted");
    assert_eq!((calls(&down_calls), calls(&up_calls)), (0, 1), "who is not needed is not asked");
    let drafter = drafters(&down, &[down.clone(), quoting], None).unwrap();
    assert_eq!(written_by(drafter.draft(&request("1")).await), "extractive");
    let drafter = drafters(&down, std::slice::from_ref(&down), None).unwrap();
    assert!(matches!(drafter.draft(&request("1")).await, Err(DraftError::Unavailable { status: 503, .. })));
}

#[tokio::test]
async fn a_page_that_has_spent_its_day_asks_no_model_until_the_next() {
    let db = fresh_database().await;
    let (settings, calls) = service(StatusCode::OK).await;
    let model = drafters(&settings, &[], None).unwrap();
    let quoting = drafters(&ModelSettings::default(), &[], None).unwrap();
    let budget = ModelBudget { tokens_per_page_and_day: 150, tokens_per_day: 250, ..ModelBudget::default() };
    let clock = Clock::default();
    let with = |budget| Budgeted::new(Arc::clone(&model), Arc::clone(&quoting), budget, db.pool.clone(), clock.clone());

    let today = with(budget);
    for _ in 0..2 {
        assert_eq!(written_by(today.draft(&request("1")).await), "scripted");
    }
    // 200 tokens of 150 are spent: the call that crossed the line was the last.
    assert!(matches!(today.draft(&request("1")).await, Err(DraftError::DayBudget { of: "page" })));
    assert_eq!(written_by(today.draft(&request("2")).await), "scripted", "another Page has its own");
    assert!(matches!(today.draft(&request("2")).await, Err(DraftError::DayBudget { of: "day" })), "300 of 250 in all");
    assert_eq!(calls.load(Ordering::SeqCst), 3);

    let quoted = with(ModelBudget { quote_when_spent: true, ..budget });
    assert_eq!(written_by(quoted.draft(&request("1")).await), "extractive");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    clock.set_ahead_ms(24 * 3_600_000);
    assert_eq!(written_by(today.draft(&request("1")).await), "scripted", "a new day, a new budget");
}

#[tokio::test]
async fn a_turn_that_would_cost_too_much_is_not_asked_about() {
    let db = fresh_database().await;
    let (settings, calls) = service(StatusCode::OK).await;
    let model = drafters(&settings, &[], None).unwrap();
    let request = DraftRequest { question: "Do you ship? ".repeat(100), ..request("1") };
    let expected = request.tokens_expected();
    for (max, is_asked) in [(expected - 1, false), (expected, true), (0, true)] {
        let budget = ModelBudget { tokens_per_turn: max, ..ModelBudget::default() };
        let drafter = Budgeted::new(Arc::clone(&model), Arc::clone(&model), budget, db.pool.clone(), Clock::default());
        let outcome = drafter.draft(&request).await;
        assert_eq!(outcome.is_ok(), is_asked, "{max}: {outcome:?}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

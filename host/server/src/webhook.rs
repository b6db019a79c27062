//! Meta's webhook: `GET` is the verification handshake, `POST` delivers events.
//!
//! A POST is answered with 200 only when every event in it is durable in the inbox. What cannot be stored in time is
//! answered with 503, and Meta repeats it; everything that is merely strange is stored and answered with 200, because
//! Meta unsubscribes an app whose webhook refuses for an hour.
//!
//! | answer | when |
//! |--------|------|
//! | 200 | every event is stored, or was stored before |
//! | 400 | the signed body is no JSON envelope |
//! | 401 | the signature header is missing or malformed |
//! | 403 | the signature does not match the body, or the handshake's token is another one |
//! | 404 | `object` is not `page` |
//! | 413 | the body is larger than `server.webhook_body_bytes_max` |
//! | 503 | the inbox cannot take it now (full, or the database is slow or away) |

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chrono::{DateTime, Utc};
use frontdesk_messenger::event::{self, Event, EventKind};
use frontdesk_messenger::ids::AppId;
use frontdesk_messenger::{Channel, handshake, signature};
use futures::FutureExt;
use metrics::{Counter, Histogram};

use crate::app::App;
use crate::db::inbox::NewEvent;
use crate::fail_point::{self, Point};
use crate::outbox;
use crate::settings::OtherApps;

/// The webhook's state: nothing here is looked up by name for each delivery.
struct Webhook {
    app: Arc<App>,
    acked: Histogram,
    /// Counts what comes most.
    messages: Counter,
}

pub fn router(app: Arc<App>) -> Router {
    let webhook = Webhook { app, acked: seconds(StatusCode::OK), messages: events("message", Channel::Messaging) };
    // Meta's app dashboard remembers the path of an older installation; both lead here.
    Router::new()
        .route("/meta/webhook", get(verify).post(receive))
        .route("/webhook", get(verify).post(receive))
        .with_state(Arc::new(webhook))
}

fn seconds(status: StatusCode) -> Histogram {
    metrics::histogram!("frontdesk_webhook_seconds", "status" => status.as_str().to_owned())
}

fn events(kind: &'static str, channel: Channel) -> Counter {
    metrics::counter!("frontdesk_events_total", "kind" => kind, "channel" => channel.name())
}

async fn verify(State(webhook): State<Arc<Webhook>>, Query(query): Query<Vec<(String, String)>>) -> Response {
    let expected = std::slice::from_ref(&webhook.app.secrets.verify_token);
    match handshake::verify_handshake_query(query.iter().map(|(k, v)| (k.as_str(), v.as_str())), expected) {
        Ok(challenge) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], challenge).into_response(),
        Err(error) => {
            tracing::warn!(%error, "a webhook handshake was refused");
            let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
            (status, error.to_string()).into_response()
        }
    }
}

async fn receive(State(webhook): State<Arc<Webhook>>, request: Request) -> Response {
    let started = std::time::Instant::now();
    // Taken apart here: the extractor of headers copies them.
    let (parts, body) = request.into_parts();
    // One budget for reading and storing: Meta waits five seconds in all, and a client that dawdles holds memory.
    let budget = crate::settings::ms(webhook.app.settings.server.ack_timeout_ms);
    // A panic is a defect of ours: Meta repeats the delivery, and the connection stays.
    let accepted = AssertUnwindSafe(accept(&webhook, &parts.headers, body)).catch_unwind();
    let response = match tokio::time::timeout(budget, accepted).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => not_acknowledged("the delivery could not be handled"),
        Err(_) => not_acknowledged("the delivery was not read and stored in time"),
    };
    let took_s = started.elapsed().as_secs_f64();
    match response.status() {
        StatusCode::OK => webhook.acked.record(took_s),
        other => seconds(other).record(took_s),
    }
    response
}

async fn accept(webhook: &Webhook, headers: &HeaderMap, body: Body) -> Response {
    let app = &webhook.app;
    let limit = app.settings.server.webhook_body_bytes_max;
    let Ok(body) = axum::body::to_bytes(body, limit).await else {
        return refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("the body is larger than {limit} bytes, or was cut off"),
        );
    };
    if let Err(error) = signature::verify_headers(headers, &app.secrets.app_secrets, &body) {
        let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::UNAUTHORIZED);
        return refuse(status, &error.to_string());
    }
    let events = match read(webhook, &body) {
        Ok(events) => events,
        Err(error) => {
            let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
            return refuse(status, &error.to_string());
        }
    };
    if events.is_empty() {
        return (StatusCode::OK, "EVENT_RECEIVED").into_response();
    }
    fail_point::reach(Point::DeliveryRead);
    match app.inbox.store(events).await {
        Ok(()) => (StatusCode::OK, "EVENT_RECEIVED").into_response(),
        Err(error) => not_acknowledged(&error.to_string()),
    }
}

fn not_acknowledged(reason: &str) -> Response {
    tracing::error!(reason, "a delivery was not acknowledged; Meta will repeat it");
    ([(header::RETRY_AFTER, "1")], (StatusCode::SERVICE_UNAVAILABLE, reason.to_owned())).into_response()
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    tracing::warn!(status = status.as_u16(), reason, "a webhook delivery was refused");
    (status, reason.to_owned()).into_response()
}

fn read(webhook: &Webhook, body: &Bytes) -> Result<Vec<NewEvent>, event::ParseError> {
    let mut rows = Vec::new();
    event::parse_each(body, |event, json| {
        match &event.kind {
            EventKind::Message(_) if event.channel == Channel::Messaging => webhook.messages.increment(1),
            _ => events(event.kind_name(), event.channel).increment(1),
        }
        // Test deliveries of the app dashboard carry nothing to keep.
        if !matches!(event.kind, EventKind::DashboardTest) {
            rows.push(row(&webhook.app, event, json));
        }
    })?;
    Ok(rows)
}

/// What is stored of an event, whose text stands beside it.
pub fn row(app: &App, event: Event, json: &str) -> NewEvent {
    let is_takeover = is_takeover(app, &event);
    let own_row = match &event.kind {
        EventKind::Echo(echo) if event.channel == Channel::Messaging => match echo_author(app, echo) {
            EchoAuthor::Outbox(id) => Some(id),
            _ => None,
        },
        _ => None,
    };
    let person = event.person_key();
    NewEvent {
        dedupe_key: event.dedupe_key(),
        mid: event.kind.mid().map(|mid| mid.as_str().to_owned()),
        is_takeover,
        own_row,
        channel: event.channel.name(),
        kind: event.kind_name(),
        event_at: event.timestamp_ms.and_then(DateTime::<Utc>::from_timestamp_millis),
        page_id: event.page_id.map(frontdesk_messenger::PageId::into_string).unwrap_or_default(),
        psid: person,
        payload: json.to_owned(),
    }
}

/// Whether the event shows that somebody else answers or has the thread, so that unsent rows of the machine must wait until a
/// turn has read it.
fn is_takeover(app: &App, event: &Event) -> bool {
    match &event.kind {
        EventKind::Echo(echo) => echo_author(app, echo) == EchoAuthor::SomebodyElse,
        EventKind::PassThreadControl { new_owner: Some(owner), .. } => !is_us(app, owner, true),
        EventKind::TakeThreadControl { new_owner: Some(owner), .. } => !is_us(app, owner, false),
        EventKind::Message(_) | EventKind::Postback(_) => event.channel == Channel::Standby,
        _ => false,
    }
}

/// Whether a thread that was given to this app is ours. Without an app id of our own, one that was passed (not: taken) by a
/// delivery to us is, unless it went to a person's inbox.
pub fn is_us(app: &App, owner: &AppId, is_pass: bool) -> bool {
    let ours = &app.settings.graph.app_id;
    !owner.is_inbox() && (owner.as_str() == ours || (ours.is_empty() && is_pass))
}

/// Who stands behind an echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EchoAuthor {
    /// A row of our outbox.
    Outbox(uuid::Uuid),
    /// Sent with our app's token, but not through the outbox; or by another app that is to be ignored.
    Harmless,
    /// A person in the Page Inbox, or another app that counts as one.
    SomebodyElse,
}

/// Tells who wrote an echoed message: our metadata first, then the app id.
pub fn echo_author(app: &App, echo: &event::Echo) -> EchoAuthor {
    if let Some(id) = echo.metadata.as_deref().and_then(outbox::row_of_metadata) {
        return EchoAuthor::Outbox(id);
    }
    let ours = AppId::new(app.settings.graph.app_id.clone());
    match echo.origin(&ours) {
        event::EchoOrigin::Ours => EchoAuthor::Harmless,
        event::EchoOrigin::Inbox => EchoAuthor::SomebodyElse,
        event::EchoOrigin::OtherApp(_) => match app.settings.handover.other_apps {
            OtherApps::Takeover => EchoAuthor::SomebodyElse,
            OtherApps::Ignore => EchoAuthor::Harmless,
        },
    }
}

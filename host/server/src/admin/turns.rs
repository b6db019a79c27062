//! Turns: what was decided, from what, and what came of it.
//!
//! A decision's `record` is the story as the pipeline wrote it, under its own version. The view reads it by path and
//! leaves out what an older record does not have, so that decisions of every version can be shown.
//!
//! A record is shown as it was written (`form=clear`, the default) or without anybody's words (`form=masked`). Every answer that
//! holds clear records is in the audit log before it is given, as `record.read` with the turn; the same person's looking again
//! within ten minutes is not noted again.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::Actor;
use super::error::AdminError;
use super::request::{self, Id, Params};
use crate::app::App;
use crate::db;
use crate::db::outbox::Row;
use crate::db::tickets::TicketSummary;
use crate::records::{Decision, Form};

/// Tickets of a conversation looked through for those of its turns.
const TICKETS_MAX: i64 = 200;
/// A page of whole records ends with the one that would go beyond this, in bytes.
const RECORDS_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TurnParams {
    /// Unix time in milliseconds: turns decided after it.
    after_ms: Option<i64>,
    limit: Option<i64>,
    #[serde(default)]
    form: Form,
}

/// A turn as people read it.
#[derive(Debug, PartialEq, Serialize)]
struct TurnView {
    turn_id: Uuid,
    /// The customer's messages that the turn read.
    mids: Vec<String>,
    route: String,
    confidence: f64,
    reason: String,
    labels: Vec<String>,
    /// `sent`, `asked_back`, `ticket`, `ignored`, `spam`, `held` or `superseded`.
    outcome: String,
    /// The policy revision that judged it, in hex.
    revision: String,
    passages: Vec<PassageView>,
    citations: Vec<CitationView>,
    /// What the customer was (or was to be) told; empty when nothing.
    reply: String,
    outbox_ids: Vec<Uuid>,
    ticket: Option<TicketView>,
    created_at: DateTime<Utc>,
}

#[derive(Debug, PartialEq, Serialize)]
struct PassageView {
    id: String,
    title: String,
    source: String,
    score: f64,
    text: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct CitationView {
    sentence: String,
    /// Ids of passages.
    passages: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize)]
struct TicketView {
    id: Uuid,
    priority: String,
    reason: String,
    summary: String,
}

/// A customer who is not known (yet) has no turns: whoever polls after a first message need not know when it is stored.
pub async fn of_psid(
    State(app): State<Arc<App>>,
    actor: Actor,
    Path((page_id, psid)): Path<(String, String)>,
    Params(params): Params<TurnParams>,
) -> Result<Json<Value>, AdminError> {
    match db::conversations::by_psid(&app.pool, &page_id, &psid).await? {
        Some(conversation) => turns(&app, &actor, conversation.id, params).await,
        None => Ok(Json(json!({ "conversation_id": null, "turns": [] }))),
    }
}

pub async fn of_conversation(
    State(app): State<Arc<App>>,
    actor: Actor,
    Id(id): Id,
    Params(params): Params<TurnParams>,
) -> Result<Json<Value>, AdminError> {
    db::conversations::get(&app.pool, id).await?.ok_or_else(|| AdminError::not_found("conversation", id))?;
    turns(&app, &actor, id, params).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordParams {
    /// Unix time in milliseconds: turns decided after it.
    after_ms: Option<i64>,
    /// The `next_after` of the page before; it takes the place of `after_ms`.
    after: Option<String>,
    /// Only turns that this chain judged.
    chain: Option<String>,
    limit: Option<i64>,
    #[serde(default)]
    form: Form,
}

/// Which form of one record is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormParams {
    #[serde(default)]
    form: Form,
}

/// Whole records, oldest first, page by page: what a replay needs. A record is large, so a page is cut when it has
/// [`RECORDS_BYTES_MAX`] bytes. Turns whose record is gone are left out; one whose record is on its way ends the list.
pub async fn list(
    State(app): State<Arc<App>>,
    actor: Actor,
    Params(params): Params<RecordParams>,
) -> Result<Json<Value>, AdminError> {
    let after = match params.after.as_deref() {
        Some(cursor) => Some(request::cursor("after", cursor)?),
        None => since(params.after_ms)?.map(|at| (at, Uuid::max())),
    };
    let limit = request::limit(params.limit)?;
    let mut decisions = app.records.all_after(after, params.chain.as_deref(), limit, params.form).await?;
    let is_full = i64::try_from(decisions.len()).unwrap_or(i64::MAX) >= limit;
    let mut bytes = 0;
    let fitting = decisions.iter().take_while(|decision| {
        let is_first = bytes == 0;
        bytes += decision.record.to_string().len();
        is_first || bytes <= RECORDS_BYTES_MAX
    });
    let fitting = fitting.count();
    let is_cut = fitting < decisions.len();
    decisions.truncate(fitting);
    let last = decisions.last().filter(|_| is_full || is_cut);
    let next_after = last.map(|last| request::cursor_of(last.created_at, last.turn_id));
    decisions.retain(Decision::has_record);
    audit(&app, &actor, params.form, &decisions).await?;
    Ok(Json(json!({ "turns": decisions, "next_after": next_after })))
}

/// The turn that read a customer's message, or that sent a message of the machine.
pub async fn by_mid(
    State(app): State<Arc<App>>,
    actor: Actor,
    Path((page_id, mid)): Path<(String, String)>,
    params: Params<FormParams>,
) -> Result<Json<Value>, AdminError> {
    let read = db::decisions::by_mid(&app.pool, &page_id, &mid).await?;
    let turn_id = match read {
        Some(turn_id) => Some(turn_id),
        None => db::outbox::by_message_id(&app.pool, &page_id, &mid).await?.and_then(|row| row.turn_id),
    };
    let turn_id = turn_id.ok_or_else(|| AdminError::not_found("turn with the message", &mid))?;
    show(State(app), actor, Id(turn_id), params).await
}

/// The view of one turn, with the whole record, its messages and its time.
pub async fn show(
    State(app): State<Arc<App>>,
    actor: Actor,
    Id(id): Id,
    Params(params): Params<FormParams>,
) -> Result<Json<Value>, AdminError> {
    let decision = app.records.load(id, params.form).await?.ok_or_else(|| AdminError::not_found("turn", id))?;
    audit(&app, &actor, params.form, std::slice::from_ref(&decision)).await?;
    let mut rows = db::outbox::of_turn(&app.pool, id).await?;
    let mut tickets = db::tickets::of_conversation(&app.pool, decision.conversation_id, TICKETS_MAX).await?;
    app.words.open(&app.pool, &mut rows).await?;
    app.words.open(&app.pool, &mut tickets).await?;
    Ok(Json(json!({
        "turn": view(&decision, &rows, &tickets),
        "conversation_id": decision.conversation_id,
        "page_id": decision.page_id,
        "duration_us": decision.duration_us,
        "outbox": rows,
        "record_version": decision.record_version,
        "record_state": decision.record_state,
        "record": decision.record,
    })))
}

fn since(after_ms: Option<i64>) -> Result<Option<DateTime<Utc>>, AdminError> {
    let time = |ms| {
        DateTime::<Utc>::from_timestamp_millis(ms)
            .ok_or_else(|| AdminError::field("after_ms", "expected a Unix time in milliseconds"))
    };
    after_ms.map(time).transpose()
}

/// Notes who read which records in the clear.
pub(super) async fn audit(
    app: &App,
    Actor(actor): &Actor,
    form: Form,
    decisions: &[Decision],
) -> Result<(), AdminError> {
    let read: Vec<Uuid> = decisions.iter().filter(|decision| decision.has_record()).map(|d| d.turn_id).collect();
    if form == Form::Clear && !read.is_empty() {
        db::audit::record_reads(&app.pool, actor, &read).await?;
    }
    Ok(())
}

async fn turns(app: &App, actor: &Actor, conversation_id: Uuid, params: TurnParams) -> Result<Json<Value>, AdminError> {
    let after = since(params.after_ms)?;
    let limit = request::limit(params.limit)?;
    let decisions = app.records.of_conversation(conversation_id, after, limit, params.form).await?;
    audit(app, actor, params.form, &decisions).await?;
    let ids: Vec<Uuid> = decisions.iter().map(|decision| decision.turn_id).collect();
    let mut rows: HashMap<Uuid, Vec<Row>> = HashMap::new();
    let mut sent = db::outbox::of_turns(&app.pool, &ids).await?;
    app.words.open(&app.pool, &mut sent).await?;
    for row in sent {
        if let Some(turn_id) = row.turn_id {
            rows.entry(turn_id).or_default().push(row);
        }
    }
    let mut tickets = db::tickets::of_conversation(&app.pool, conversation_id, TICKETS_MAX).await?;
    app.words.open(&app.pool, &mut tickets).await?;
    let turns: Vec<TurnView> = decisions
        .iter()
        .map(|decision| view(decision, rows.get(&decision.turn_id).map_or(&[], Vec::as_slice), &tickets))
        .collect();
    Ok(Json(json!({ "conversation_id": conversation_id, "turns": turns })))
}

fn view(decision: &Decision, rows: &[Row], tickets: &[TicketSummary]) -> TurnView {
    let record = &decision.record;
    TurnView {
        turn_id: decision.turn_id,
        mids: decision.mids.clone(),
        route: decision.route.clone(),
        confidence: rounded(f64::from(decision.confidence)),
        reason: decision.reason.clone(),
        labels: texts(&record["labels"]),
        outcome: decision.outcome.clone(),
        revision: decision.revision.clone(),
        passages: items(&record["passages"]).map(passage).collect(),
        citations: items(&record["citations"]).map(citation).collect(),
        reply: reply(&record["replies"], rows),
        outbox_ids: rows.iter().map(|row| row.id).collect(),
        ticket: ticket(decision, tickets),
        created_at: decision.created_at,
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map_or(&[][..], Vec::as_slice).iter()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    items(value).filter_map(Value::as_str).map(str::to_owned).collect()
}

fn passage(value: &Value) -> PassageView {
    PassageView {
        id: text(&value["id"]),
        title: text(&value["title"]),
        source: text(&value["source"]),
        score: rounded(value["score"].as_f64().unwrap_or_default()),
        text: text(&value["text"]),
    }
}

/// Judged in single precision; as a double, 0.92 would read 0.9200000166893005.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

fn citation(value: &Value) -> CitationView {
    CitationView { sentence: text(&value["sentence"]), passages: texts(&value["passages"]) }
}

/// The replies as decided; a record without them is completed by what was queued.
fn reply(replies: &Value, rows: &[Row]) -> String {
    let decided = texts(replies);
    if decided.is_empty() && !replies.is_array() {
        return rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>().join("\n\n");
    }
    decided.join("\n\n")
}

/// The ticket that the turn opened; or the one that was open already when the turn would have opened another.
fn ticket(decision: &Decision, tickets: &[TicketSummary]) -> Option<TicketView> {
    let own = tickets.iter().find(|ticket| ticket.turn_id == Some(decision.turn_id));
    let joined = || {
        let was_open = |ticket: &&TicketSummary| {
            ticket.created_at <= decision.created_at && ticket.resolved_at.is_none_or(|at| at >= decision.created_at)
        };
        tickets.iter().find(was_open).filter(|_| decision.outcome == "ticket")
    };
    own.or_else(joined).map(|ticket| TicketView {
        id: ticket.id,
        priority: ticket.priority.clone(),
        reason: ticket.reason.clone(),
        summary: ticket.summary.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(outcome: &str, record: Value) -> Decision {
        Decision {
            turn_id: Uuid::from_u128(1),
            conversation_id: Uuid::from_u128(2),
            page_id: "42".into(),
            revision: "ab12".into(),
            slot: "active".into(),
            route: "answer".into(),
            outcome: outcome.into(),
            confidence: 0.92,
            reason: "the passages carry it".into(),
            mids: vec!["m_1".into()],
            chain: Some("default".into()),
            record_version: 1,
            record_state: "sealed".into(),
            record,
            duration_us: 1_000,
            created_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        }
    }

    fn row(text: &str) -> Row {
        Row {
            id: Uuid::from_u128(3),
            conversation_id: Uuid::from_u128(2),
            page_id: "42".into(),
            psid: "7".into(),
            turn_id: Some(Uuid::from_u128(1)),
            author: "bot".into(),
            agent: None,
            text: text.into(),
            state: "sent".into(),
            attempts: 1,
            message_id: Some("m_2".into()),
            error: None,
            created_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            first_sent_at: None,
            settled_at: None,
        }
    }

    fn open_ticket(turn_id: Option<Uuid>, created_at: i64, resolved_at: Option<i64>) -> TicketSummary {
        TicketSummary {
            id: Uuid::from_u128(9),
            conversation_id: Uuid::from_u128(2),
            page_id: "42".into(),
            turn_id,
            state: if resolved_at.is_some() { "resolved" } else { "open" }.into(),
            priority: "high".into(),
            reason: "asked-for-person".into(),
            summary: "wants a person".into(),
            tags: Vec::new(),
            repeats: 0,
            created_at: DateTime::from_timestamp(created_at, 0).unwrap(),
            updated_at: DateTime::from_timestamp(created_at, 0).unwrap(),
            resolved_at: resolved_at.map(|at| DateTime::from_timestamp(at, 0).unwrap()),
        }
    }

    #[test]
    fn a_full_record_is_shown_in_full() {
        let record = json!({
            "labels": ["shipping"],
            "passages": [{ "id": "p1", "title": "Shipping", "source": "faq.csv", "text": "Yes.",
                           "score": f64::from(0.87_f32), "language": "en", "labels": [] }],
            "citations": [{ "sentence": "Yes.", "passages": ["p1"] }],
            "replies": ["You talk to a machine.", "Yes."],
        });
        let found = serde_json::to_value(view(&decision("sent", record), &[row("Yes.")], &[])).unwrap();
        assert_eq!(found["confidence"].to_string(), "0.92");
        assert_eq!(found["passages"][0]["score"].to_string(), "0.87");
        assert_eq!(found["labels"], json!(["shipping"]));
        assert_eq!(found["citations"], json!([{ "sentence": "Yes.", "passages": ["p1"] }]));
        assert_eq!(found["passages"][0]["id"], "p1");
        assert_eq!(found["reply"], "You talk to a machine.\n\nYes.");
        assert_eq!(found["outbox_ids"], json!([Uuid::from_u128(3)]));
        assert_eq!(found["ticket"], Value::Null);
        assert_eq!(found["created_at"], "2027-01-15T08:00:00Z");
    }

    #[test]
    fn records_of_other_versions_are_shown_as_far_as_they_go() {
        for record in [json!({}), json!(null), json!([]), json!({ "labels": "x", "passages": [7], "citations": {} })] {
            let found = view(&decision("sent", record), &[row("Yes.")], &[]);
            assert!(found.labels.is_empty() && found.citations.is_empty());
            assert_eq!(found.reply, "Yes.");
        }
        let silent = view(&decision("ignored", json!({ "replies": [] })), &[], &[]);
        assert_eq!(silent.reply, "");
    }

    #[test]
    fn a_turn_has_its_own_ticket_or_joins_the_open_one() {
        let own = Some(Uuid::from_u128(1));
        let at = 1_800_000_000;
        let cases = [
            ("sent", open_ticket(own, at + 9, None), true),
            ("ticket", open_ticket(None, at - 9, None), true),
            ("ticket", open_ticket(None, at - 9, Some(at + 1)), true),
            ("ticket", open_ticket(None, at - 9, Some(at - 1)), false),
            ("ticket", open_ticket(None, at + 1, None), false),
            ("sent", open_ticket(None, at - 9, None), false),
        ];
        for (outcome, ticket, expected) in cases {
            let found = view(&decision(outcome, json!({})), &[], std::slice::from_ref(&ticket)).ticket;
            assert_eq!(found.is_some(), expected, "{outcome} {ticket:?}");
        }
    }
}

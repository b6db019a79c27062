//! The statement that ends a turn: it compares what the turn was made of with what holds now, and writes what it decided, over
//! `conversations`, `decisions`, `messages`, `inbox` and `outbox`. One statement, because a turn's time is mostly round trips.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgExecutor};

use super::conversations::Conversation;
use super::decisions::NewDecision;
use super::outbox::{self, NewRow};

/// What a turn decided, and what it assumed.
#[derive(Debug)]
pub struct Ending<'a> {
    /// As the turn saw it: its lease and epoch.
    pub conversation: &'a Conversation,
    pub decision: NewDecision<'a>,
    /// The turn's events.
    pub inbox_ids: &'a [i64],
    /// More messages, or a sign that somebody else answers, make the turn begin again.
    pub may_grow: bool,
    /// Whether the turn answers: by `rows`, or by rows that the same transaction writes after it.
    pub answers: bool,
    /// Whether the answer tells that a machine speaks.
    pub disclosed: bool,
    pub answered_at: DateTime<Utc>,
    pub rows: &'a [NewRow<'a>],
}

/// What the statement found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All is written, and the lease given back.
    Written,
    /// The conversation was taken over meanwhile: the decision is written as `superseded`, without its replies, and the lease given back.
    Superseded,
    /// Nothing is written: the lease is another worker's by now, or the person was erased.
    LeaseLost,
    /// Nothing is written: something arrived that the turn must see (an edit or unsend of its messages; where it `may_grow`, more
    /// messages of the same burst or a sign that somebody else answers), or the conversation was taken over and handed back, so
    /// that the customer is owed an answer under the new epoch.
    Redo,
}

/// Ends a turn, unless what it assumed no longer holds.
///
/// What is open of `inbox` and `outbox` has indices of its own; a row that is known by its id is asked for its state in words that
/// do not fit them, because a plan that was made while a table was small would read all that is open for each.
///
/// The lock on the conversation shows what takeovers changed since the lease; whoever changes the owner holds it, too. Events are
/// stored without it, so one may arrive right after this statement has looked: it is found after the lease was given back.
pub async fn end(db: impl PgExecutor<'_>, ending: &Ending<'_>) -> sqlx::Result<Verdict> {
    let (decision, columns) = (&ending.decision, outbox::Columns::of(ending.rows));
    let queued = outbox::insert_sql("exists (select 1 from judged where verdict = 'written')");
    let query = sqlx::query_scalar(AssertSqlSafe(format!(
        "with found as materialized (
           select id, page_id, psid, lease_token, epoch, state from conversations where id = $10 for no key update),
         judged as materialized (
           select id, case when lease_token <> $11 then 'lease-lost'
                           when exists (
                             select 1 from inbox i where i.state = 'pending' and i.page_id = f.page_id and i.psid = f.psid
                               and (i.channel = 'messaging' and i.kind in ('edit', 'unsend') and i.mid = any($13)
                                    or $15 and (i.not_before is null or i.not_before <= now())
                                       and (i.is_takeover or i.channel = 'messaging' and i.kind in ('message', 'postback')
                                                             and not (i.id = any($14)))))
                           then 'redo'
                           when epoch = $12 then 'written'
                           when state = 'bot' then 'redo'
                           else 'superseded' end as verdict
             from found f),
         ending as materialized (select id, verdict from judged where verdict in ('written', 'superseded')),
         decided as (
           insert into decisions (turn_id, conversation_id, page_id, chain, revision, slot, route, outcome, confidence, reason,
                                  mids, history_mids, record_version, record_state, duration_us)
           select $16, e.id, $17, $18, $19, $20, $21, case e.verdict when 'written' then $22 else 'superseded' end, $23, $24,
                  $13, $25, $26, 'pending', $27 from ending e),
         heard as (update messages m set turn_id = $16 from ending e where m.conversation_id = e.id and m.mid = any($13)),
         handled as (
           update inbox i set state = 'done', done_at = now(), turn_id = $16,
                  note = case e.verdict when 'superseded' then 'the conversation was taken over while the answer was drafted' end
             from ending e where i.id = any($14) and i.state not in ('done', 'failed')),
         queued as ({queued}),
         released as (
           update conversations c set lease_until = null,
                  automated_turns = c.automated_turns + a.answers::int,
                  last_reply_at = case when a.answers then $29 else c.last_reply_at end,
                  disclosed_at = case when a.discloses then $29 else c.disclosed_at end,
                  disclosure_due = c.disclosure_due and not a.discloses
             from (select id, verdict = 'written' and $28 as answers, verdict = 'written' and $28 and $30 as discloses
                     from ending) a
            where c.id = a.id)
         select verdict from judged"
    )));
    let verdict: Option<String> = columns
        .bind(query)
        .bind(ending.conversation.id)
        .bind(ending.conversation.lease_token)
        .bind(ending.conversation.epoch)
        .bind(decision.mids)
        .bind(ending.inbox_ids)
        .bind(ending.may_grow)
        .bind(decision.turn_id)
        .bind(decision.page_id)
        .bind(decision.chain)
        .bind(decision.revision)
        .bind(decision.slot)
        .bind(decision.route)
        .bind(decision.outcome)
        .bind(decision.confidence)
        .bind(decision.reason)
        .bind(decision.history_mids)
        .bind(decision.record_version)
        .bind(decision.duration_us)
        .bind(ending.answers)
        .bind(ending.answered_at)
        .bind(ending.disclosed)
        .fetch_optional(db)
        .await?;
    Ok(match verdict.as_deref() {
        Some("written") => Verdict::Written,
        Some("superseded") => Verdict::Superseded,
        Some("redo") => Verdict::Redo,
        _ => Verdict::LeaseLost,
    })
}

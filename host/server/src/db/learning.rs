//! Tables `faq_proposals` and `answer_feedback`: what people's answers and customers' thumbs teach. Questions and answers are sealed,
//! and opened by [`crate::words`] alone; a digest of the question tells whether it waits already.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

/// A proposal about to be stored.
#[derive(Debug)]
pub struct NewProposal<'a> {
    pub id: Uuid,
    pub page_id: &'a str,
    pub conversation_id: Uuid,
    pub agent: &'a str,
    pub question: &'a str,
    pub question_key: &'a str,
    pub answer: &'a str,
    pub language: Option<&'a str>,
    pub nearest_source: Option<&'a str>,
    pub nearest_score: f32,
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow, serde::Serialize)]
pub struct Proposal {
    pub id: Uuid,
    pub created_at: DateTime<Utc>,
    pub page_id: String,
    pub conversation_id: Uuid,
    pub agent: String,
    pub question: String,
    pub answer: String,
    pub language: Option<String>,
    pub nearest_source: Option<String>,
    pub nearest_score: f32,
    pub state: String,
    pub decided_by: Option<String>,
    pub decided_at: Option<DateTime<Utc>>,
    pub document_id: Option<Uuid>,
    pub edited: bool,
}

const COLUMNS: &str = "id, created_at, page_id, conversation_id, agent, question, answer, language, nearest_source, \
    nearest_score, state, decided_by, decided_at, document_id, edited";

/// False: the same question waits already.
pub async fn propose(db: impl PgExecutor<'_>, proposal: &NewProposal<'_>) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "insert into faq_proposals (id, page_id, conversation_id, agent, question, question_key, answer, language,
                                    nearest_source, nearest_score)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict (page_id, question_key) where state = 'proposed' do nothing",
    )
    .bind(proposal.id)
    .bind(proposal.page_id)
    .bind(proposal.conversation_id)
    .bind(proposal.agent)
    .bind(proposal.question)
    .bind(proposal.question_key)
    .bind(proposal.answer)
    .bind(proposal.language)
    .bind(proposal.nearest_source)
    .bind(proposal.nearest_score)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub async fn list(pool: &PgPool, state: Option<&str>, limit: i64) -> sqlx::Result<Vec<Proposal>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from faq_proposals where $1::text is null or state = $1 order by created_at desc, id limit $2"
    )))
    .bind(state)
    .bind(limit)
    .fetch_all(pool)
    .await
}

pub async fn get(pool: &PgPool, id: Uuid) -> sqlx::Result<Option<Proposal>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from faq_proposals where id = $1")))
        .bind(id)
        .fetch_optional(pool)
        .await
}

/// Notes a decision about a proposal that waits. False: it was decided meanwhile.
pub async fn decide(
    db: impl PgExecutor<'_>,
    id: Uuid,
    state: &str,
    by: &str,
    document_id: Option<Uuid>,
    edited: bool,
) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "update faq_proposals set state = $2, decided_by = $3, decided_at = now(), document_id = $4, edited = $5
          where id = $1 and state = 'proposed'",
    )
    .bind(id)
    .bind(state)
    .bind(by)
    .bind(document_id)
    .bind(edited)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Notes a customer's verdict about a message of the Page.
pub async fn note_feedback(
    db: impl PgExecutor<'_>,
    conversation_id: Uuid,
    mid: &str,
    verdict: &str,
    at: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into answer_feedback (conversation_id, mid, verdict, at) values ($1, $2, $3, $4)
         on conflict (conversation_id, mid) do update set verdict = excluded.verdict, at = excluded.at
          where answer_feedback.at <= excluded.at",
    )
    .bind(conversation_id)
    .bind(mid)
    .bind(verdict)
    .bind(at)
    .execute(db)
    .await?;
    Ok(())
}

/// An answer of the machine that a customer judged.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct JudgedAnswer {
    pub verdict: String,
    pub conversation_id: Uuid,
    pub mid: String,
    /// The turn that it answered.
    pub turn_id: Uuid,
}

/// The newest judged answers of a Page.
pub async fn judged_answers(pool: &PgPool, page_id: &str, limit: i64) -> sqlx::Result<Vec<JudgedAnswer>> {
    sqlx::query_as(
        "select f.verdict, f.conversation_id, f.mid, o.turn_id
           from answer_feedback f
           join conversations c on c.id = f.conversation_id and c.page_id = $1
           join messages m on m.conversation_id = f.conversation_id and m.mid = f.mid
                          and m.author = 'bot' and m.deleted_at is null
           join outbox o on o.id = m.outbox_id and o.turn_id is not null
          where f.verdict in ('good', 'bad') order by f.at desc limit $2",
    )
    .bind(page_id)
    .bind(limit)
    .fetch_all(pool)
    .await
}

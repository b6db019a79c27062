//! Tables `documents`, `passages`, `passage_lexemes` and `embedding_cache`.
//!
//! Statements that name the embedding model or its dimensions are built as text, because the planner uses a partial
//! index only when the statement holds the same constants. Both come from the host's settings, never from a request;
//! [`quoted`] escapes the model's name all the same.

mod index;
mod search;
mod vectors;

use chrono::{DateTime, Utc};
use pgvector::Vector;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use uuid::Uuid;

use crate::db::documents::{self, NewVersion};
use crate::db::objects;
use crate::knowledge::{DocumentSummary, Slot};

pub use index::ensure_index;
pub use search::{
    CandidateRow, Candidates, PIECES_BESIDE_MAX, QueryLexeme, TextLexeme, TextQuery, candidates, query_lexemes,
};
pub use vectors::{
    StalePassage, cache_vectors, cached_vectors, count_stale, forget_cached_vectors, has_vectors, set_vectors,
    stale_passages,
};

/// First key of the advisory locks of this file; the second tells what is locked.
const LOCK_INDEX: i32 = 0x6b6e_0001;
const LOCK_SCOPE: i32 = 0x6b6e_0002;

/// Rows per insert statement.
const ROWS_PER_INSERT: usize = 500;

fn quoted(text: &str) -> String {
    // Postgres refuses NUL in any text; quotes are doubled, and standard_conforming_strings leaves backslashes alone.
    format!("'{}'", text.replace('\0', "").replace('\'', "''"))
}

pub async fn list_documents(pool: &PgPool, page_id: Option<&str>) -> sqlx::Result<Vec<DocumentSummary>> {
    documents_where(pool, "$1::text is null or d.page_id is null or d.page_id = $1", page_id).await
}

async fn documents_where(
    pool: &PgPool,
    condition: &'static str,
    value: Option<&str>,
) -> sqlx::Result<Vec<DocumentSummary>> {
    let statement = format!(
        "select d.id as document_id, d.page_id, d.source, d.title, d.format, d.language, d.labels, d.valid_from,
                d.valid_until, d.size_bytes, d.version, d.redacted, d.updated_at,
                (select count(*) from passages p where p.document_id = d.id) as passages
           from documents d
          where {condition}
          order by d.source, d.page_id nulls first"
    );
    sqlx::query_as(AssertSqlSafe(statement)).bind(value).fetch_all(pool).await
}

/// One document as listings show it.
pub async fn document(pool: &PgPool, document_id: Uuid) -> sqlx::Result<Option<DocumentSummary>> {
    Ok(documents_where(pool, "d.id::text = $1", Some(&document_id.to_string())).await?.pop())
}

pub async fn delete_document(pool: &PgPool, document_id: Uuid) -> sqlx::Result<bool> {
    let mut transaction = pool.begin().await?;
    let scope: Option<String> = sqlx::query_scalar("select coalesce(page_id, '') from documents where id = $1")
        .bind(document_id)
        .fetch_optional(&mut *transaction)
        .await?;
    let Some(scope) = scope else { return Ok(false) };
    lock_scope(&mut transaction, &scope).await?;
    let done = sqlx::query("delete from documents where id = $1").bind(document_id).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(done.rows_affected() > 0)
}

/// Changes to one scope's passages take turns, so that two of them never wait for each other's lexeme counts.
async fn lock_scope(connection: &mut PgConnection, scope: &str) -> sqlx::Result<()> {
    sqlx::query("select pg_advisory_xact_lock($1, hashtext($2))")
        .bind(LOCK_SCOPE)
        .bind(scope)
        .execute(connection)
        .await?;
    Ok(())
}

/// A document as it is written.
#[derive(Debug)]
pub struct DocumentRow {
    pub page_id: Option<String>,
    pub source: String,
    pub title: String,
    pub format: &'static str,
    pub language: Option<String>,
    pub labels: Vec<String>,
    pub valid_from: Option<DateTime<Utc>>,
    pub valid_until: Option<DateTime<Utc>>,
    pub content_hash: String,
    pub fingerprint: String,
    pub redacted: i32,
    pub size_bytes: i64,
}

/// A passage as it is written; page, validity and document come from its document.
#[derive(Debug)]
pub struct PassageRow {
    pub position: i32,
    pub heading: String,
    pub text: String,
    pub question: Option<String>,
    pub question_key: Option<String>,
    pub language: Option<String>,
    pub labels: Vec<String>,
    pub content_hash: String,
    pub ts_config: &'static str,
    pub embedding: Vector,
}

/// Writes a document and all its passages in one transaction, replacing what had the same scope and source.
/// `passage_id` makes a passage's id of its document's. `None`: the version's object was deleted meanwhile, and nothing was written.
pub async fn store(
    pool: &PgPool,
    document: &DocumentRow,
    passages: &[PassageRow],
    (slot, model): (Slot, &str),
    version: Option<&NewVersion<'_>>,
    passage_id: impl Fn(Uuid, &PassageRow) -> Uuid + Send,
) -> sqlx::Result<Option<Uuid>> {
    let mut transaction = pool.begin().await?;
    lock_scope(&mut transaction, document.page_id.as_deref().unwrap_or_default()).await?;
    let document_id = upsert_document(&mut transaction, document).await?;
    sqlx::query("delete from passages where document_id = $1").bind(document_id).execute(&mut *transaction).await?;
    for rows in passages.chunks(ROWS_PER_INSERT) {
        let ids: Vec<Uuid> = rows.iter().map(|row| passage_id(document_id, row)).collect();
        insert_passages(&mut transaction, document_id, document, rows, &ids, (slot, model)).await?;
    }
    if let Some(version) = version {
        if !version.is_held && !objects::claim(&mut *transaction, version.object_key).await? {
            return Ok(None);
        }
        documents::insert_version(&mut transaction, document_id, version).await?;
    }
    transaction.commit().await?;
    Ok(Some(document_id))
}

async fn upsert_document(connection: &mut PgConnection, document: &DocumentRow) -> sqlx::Result<Uuid> {
    sqlx::query_scalar(
        "insert into documents (page_id, source, title, format, language, labels, valid_from, valid_until,
                                content_hash, size_bytes, fingerprint, redacted)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         on conflict (coalesce(page_id, ''), source) do update
            set title = excluded.title, format = excluded.format, language = excluded.language,
                labels = excluded.labels, valid_from = excluded.valid_from, valid_until = excluded.valid_until,
                content_hash = excluded.content_hash, size_bytes = excluded.size_bytes,
                fingerprint = excluded.fingerprint, redacted = excluded.redacted, version = documents.version + 1,
                updated_at = now()
         returning id",
    )
    .bind(&document.page_id)
    .bind(&document.source)
    .bind(&document.title)
    .bind(document.format)
    .bind(&document.language)
    .bind(&document.labels)
    .bind(document.valid_from)
    .bind(document.valid_until)
    .bind(&document.content_hash)
    .bind(document.size_bytes)
    .bind(&document.fingerprint)
    .bind(document.redacted)
    .fetch_one(connection)
    .await
}

async fn insert_passages(
    connection: &mut PgConnection,
    document_id: Uuid,
    document: &DocumentRow,
    rows: &[PassageRow],
    ids: &[Uuid],
    (slot, model): (Slot, &str),
) -> sqlx::Result<()> {
    let labels: Vec<serde_json::Value> = rows.iter().map(|row| serde_json::json!(row.labels)).collect();
    // Weights: A the curated question, B headings, C the text, D the document's title (the same on all its passages).
    let (vector, of_model) = (slot.vector(), slot.model());
    let statement = format!(
        "insert into passages (id, document_id, page_id, valid_from, valid_until, {of_model}, position, heading,
                               text, question, question_key, language, labels, content_hash, ts_config, tsv, {vector})
         select n.id, $1, $2, $3, $4, $5, n.position, n.heading, n.text, n.question, n.question_key, n.language,
                array(select jsonb_array_elements_text(n.labels)), n.content_hash, n.ts_config::regconfig,
                setweight(to_tsvector(n.ts_config::regconfig, coalesce(n.question, '')), 'A')
                    || setweight(to_tsvector(n.ts_config::regconfig, n.heading), 'B')
                    || setweight(to_tsvector(n.ts_config::regconfig, n.text), 'C')
                    || setweight(to_tsvector(n.ts_config::regconfig, $6), 'D'),
                n.embedding
           from unnest($7::uuid[], $8::int[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[],
                       $14::jsonb[], $15::text[], $16::text[], $17::vector[])
                as n (id, position, heading, text, question, question_key, language, labels, content_hash, ts_config,
                      embedding)"
    );
    sqlx::query(AssertSqlSafe(statement))
        .bind(document_id)
        .bind(&document.page_id)
        .bind(document.valid_from)
        .bind(document.valid_until)
        .bind(model)
        .bind(&document.title)
        .bind(ids)
        .bind(rows.iter().map(|row| row.position).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.heading.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.question.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.question_key.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.language.as_deref()).collect::<Vec<_>>())
        .bind(labels)
        .bind(rows.iter().map(|row| row.content_hash.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.ts_config).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.embedding.clone()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

//! Tables `documents`, `passages`, `passage_lexemes` and `embedding_cache`.
//!
//! Statements that name the embedding model or its dimensions are built as text, because the planner uses a partial
//! index only when the statement holds the same constants. Both come from the host's settings, never from a request;
//! [`quoted`] escapes the model's name all the same.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgvector::Vector;
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, PgPool, Row};
use uuid::Uuid;

use crate::db::documents::{self, NewVersion};
use crate::db::objects;
use crate::knowledge::{DocumentSummary, KnowledgeError, Slot};

/// First key of the advisory locks of this file; the second tells what is locked.
const LOCK_INDEX: i32 = 0x6b6e_0001;
const LOCK_SCOPE: i32 = 0x6b6e_0002;

/// How long a replica waits for another one that builds the vector index.
const INDEX_WAIT: Duration = Duration::from_secs(1_800);
const INDEX_POLL: Duration = Duration::from_millis(250);

/// Rows per insert statement.
const ROWS_PER_INSERT: usize = 500;

/// Passages that full text ranks for one question. The caller's selection aims well below this; words that stand together
/// more often than chance may exceed it, and what is beyond is not ranked.
const RANKED_ROWS_MAX: i64 = 2_000;

fn quoted(text: &str) -> String {
    // Postgres refuses NUL in any text; quotes are doubled, and standard_conforming_strings leaves backslashes alone.
    format!("'{}'", text.replace('\0', "").replace('\'', "''"))
}

/// Name of a model's vector index: made of a hash, because names are short and models are called anything.
fn index_name(slot: Slot, model: &str, dimensions: usize) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(format!("{model}\n{dimensions}").as_bytes());
    let name = hex::encode(digest.get(..8).unwrap_or_default());
    match slot {
        Slot::A => format!("passages_hnsw_{name}"),
        Slot::B => format!("passages_hnsw_b_{name}"),
    }
}

/// Makes the vector index of a model unless it is there. True: it was built by this call.
///
/// The advisory lock is only ever tried, never waited for: a session that waits for a lock holds a snapshot, and
/// `create index concurrently` in the session that has the lock would wait for that snapshot, a deadlock.
pub async fn ensure_index(pool: &PgPool, slot: Slot, model: &str, dimensions: usize) -> Result<bool, KnowledgeError> {
    let name = index_name(slot, model, dimensions);
    let mut waited = Duration::ZERO;
    loop {
        if index_is_valid(pool, &name).await? == Some(true) {
            return Ok(false);
        }
        let mut connection = pool.acquire().await?.detach();
        let locked: bool = sqlx::query_scalar("select pg_try_advisory_lock($1, 0)")
            .bind(LOCK_INDEX)
            .fetch_one(&mut connection)
            .await?;
        if locked {
            // The detached connection closes at the end whatever happens, and the session's lock goes with it. Another
            // replica may have finished between the look above and the lock, hence a second look inside.
            let built = build_unless_valid(&mut connection, &name, slot, model, dimensions).await;
            let closed = sqlx::Connection::close(connection).await;
            let built = built?;
            closed?;
            return Ok(built);
        }
        sqlx::Connection::close(connection).await?;
        if waited >= INDEX_WAIT {
            return Err(KnowledgeError::IndexBusy { waited_s: waited.as_secs() });
        }
        tokio::time::sleep(INDEX_POLL).await;
        waited += INDEX_POLL;
    }
}

/// `None`: there is no such index; false: a build was interrupted and left a useless one.
async fn index_is_valid(executor: impl PgExecutor<'_>, name: &str) -> sqlx::Result<Option<bool>> {
    sqlx::query_scalar("select i.indisvalid from pg_index i where i.indexrelid = to_regclass($1)")
        .bind(name)
        .fetch_optional(executor)
        .await
}

async fn build_unless_valid(
    connection: &mut PgConnection,
    name: &str,
    slot: Slot,
    model: &str,
    dimensions: usize,
) -> sqlx::Result<bool> {
    if index_is_valid(&mut *connection, name).await? == Some(true) {
        return Ok(false);
    }
    let drop = format!("drop index concurrently if exists {name}");
    sqlx::query(AssertSqlSafe(drop)).execute(&mut *connection).await?;
    let (vector, of_model, model) = (slot.vector(), slot.model(), quoted(model));
    let create = format!(
        "create index concurrently {name} on passages
         using hnsw (({vector}::halfvec({dimensions})) halfvec_cosine_ops) where {of_model} = {model}"
    );
    sqlx::query(AssertSqlSafe(create)).execute(connection).await?;
    Ok(true)
}

/// Passages without a vector of this model.
pub async fn count_stale(pool: &PgPool, slot: Slot, model: &str) -> sqlx::Result<i64> {
    let statement = format!("select count(*) from passages where {} is distinct from $1", slot.model());
    sqlx::query_scalar(AssertSqlSafe(statement)).bind(model).fetch_one(pool).await
}

/// Whether any passage has a vector of this model.
pub async fn has_vectors(pool: &PgPool, slot: Slot, model: &str) -> sqlx::Result<bool> {
    let statement = format!("select exists (select 1 from passages where {} = $1)", slot.model());
    sqlx::query_scalar(AssertSqlSafe(statement)).bind(model).fetch_one(pool).await
}

/// A passage whose vector is missing or was made by another model.
#[derive(Debug, sqlx::FromRow)]
pub struct StalePassage {
    pub id: Uuid,
    pub title: String,
    pub heading: String,
    pub text: String,
    pub question: Option<String>,
}

pub async fn stale_passages(pool: &PgPool, slot: Slot, model: &str, limit: i64) -> sqlx::Result<Vec<StalePassage>> {
    let statement = format!(
        "select p.id, d.title, p.heading, p.text, p.question
           from passages p join documents d on d.id = p.document_id
          where p.{} is distinct from $1
          order by p.id limit $2",
        slot.model()
    );
    sqlx::query_as(AssertSqlSafe(statement)).bind(model).bind(limit).fetch_all(pool).await
}

pub async fn set_vectors(
    pool: &PgPool,
    slot: Slot,
    model: &str,
    ids: &[Uuid],
    vectors: &[Vector],
) -> sqlx::Result<u64> {
    let (vector, of_model) = (slot.vector(), slot.model());
    let statement = format!(
        "update passages p set {vector} = n.embedding, {of_model} = $1
           from unnest($2::uuid[], $3::vector[]) as n (id, embedding) where p.id = n.id"
    );
    let done = sqlx::query(AssertSqlSafe(statement)).bind(model).bind(ids).bind(vectors).execute(pool).await?;
    Ok(done.rows_affected())
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

/// Vectors of a model that are known already, by content hash. Marks them as used.
pub async fn cached_vectors(pool: &PgPool, model: &str, hashes: &[String]) -> sqlx::Result<Vec<(String, Vector)>> {
    sqlx::query_as(
        "update embedding_cache set used_at = now() where model = $1 and content_hash = any($2)
         returning content_hash, embedding",
    )
    .bind(model)
    .bind(hashes)
    .fetch_all(pool)
    .await
}

pub async fn cache_vectors(pool: &PgPool, model: &str, hashes: &[String], vectors: &[Vector]) -> sqlx::Result<()> {
    sqlx::query(
        "insert into embedding_cache (model, content_hash, embedding)
         select $1, n.content_hash, n.embedding from unnest($2::text[], $3::vector[]) as n (content_hash, embedding)
          order by 2
         on conflict do nothing",
    )
    .bind(model)
    .bind(hashes)
    .bind(vectors)
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets cached vectors that nothing has asked for since `before`. Returns how many.
pub async fn forget_cached_vectors(pool: &PgPool, before: DateTime<Utc>) -> sqlx::Result<u64> {
    let done = sqlx::query("delete from embedding_cache where used_at < $1").bind(before).execute(pool).await?;
    Ok(done.rows_affected())
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

/// A word of the question as one text search configuration sees it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct QueryLexeme {
    pub ts_config: String,
    pub lexeme: String,
    /// Passages of the Page (and of every Page) under this configuration that hold it.
    pub frequency: i64,
    /// Passages under this configuration.
    pub total: i64,
    /// Whether it also stands in the part of the text that asks.
    pub in_focus: bool,
}

/// The lexemes of a question under every configuration that the Page's passages use, with their frequencies.
pub async fn query_lexemes(
    connection: &mut PgConnection,
    page_id: Option<&str>,
    text: &str,
    focus: &str,
) -> sqlx::Result<Vec<QueryLexeme>> {
    sqlx::query_as(
        "with configs as (
             select ts_config, sum(passages)::bigint as total from passage_lexemes
              where lexeme = '' and (scope in ('', coalesce($1, '')) or $1 is null) group by ts_config
         ), words as (
             select c.ts_config, c.total, l.lexeme,
                    l.lexeme = any(tsvector_to_array(to_tsvector(c.ts_config, $3))) as in_focus
               from configs c cross join lateral unnest(tsvector_to_array(to_tsvector(c.ts_config, $2))) as l (lexeme)
         )
         select w.ts_config::text, w.lexeme, w.total, w.in_focus,
                coalesce((select sum(k.passages) from passage_lexemes k
                           where k.ts_config = w.ts_config and k.lexeme = w.lexeme
                             and (k.scope in ('', coalesce($1, '')) or $1 is null)), 0)::bigint as frequency
           from words w order by w.ts_config::text, w.lexeme",
    )
    .bind(page_id)
    .bind(text)
    .bind(focus)
    .fetch_all(connection)
    .await
}

/// Full text of a question under one configuration.
#[derive(Debug, Clone)]
pub struct TextQuery {
    pub ts_config: String,
    /// Lexemes that select candidates, as a tsquery (an OR).
    pub selecting: String,
    /// All lexemes, for `ts_rank`.
    pub ranking: String,
}

/// One lexeme of a question under one configuration, to learn which candidates hold it.
#[derive(Debug, Clone)]
pub struct TextLexeme {
    pub ts_config: String,
    pub lexeme: String,
    /// The lexeme alone, as a tsquery.
    pub query: String,
}

/// What a search asks of the database.
#[derive(Debug)]
pub struct Candidates<'a> {
    pub page_id: Option<&'a str>,
    pub slot: Slot,
    pub model: &'a str,
    pub dimensions: usize,
    pub vector: Option<Vector>,
    pub question_key: &'a str,
    pub texts: &'a [TextQuery],
    pub lexemes: &'a [TextLexeme],
    pub labels: &'a [String],
    pub languages: &'a [String],
    pub now: DateTime<Utc>,
    pub limit: i64,
    pub ef_search: u32,
}

/// A candidate with both signals.
#[derive(Debug, Clone)]
pub struct CandidateRow {
    pub id: Uuid,
    pub document_id: Uuid,
    pub title: String,
    pub source: String,
    pub position: i32,
    pub heading: String,
    pub text: String,
    pub question: Option<String>,
    pub language: Option<String>,
    pub labels: Vec<String>,
    pub ts_config: String,
    pub exact: bool,
    /// Cosine similarity; `None` when the passage has no vector of the current model.
    pub cosine: Option<f64>,
    pub rank: f32,
    pub matched: Vec<String>,
}

/// Curated equals, nearest vectors and full-text hits, joined, each with both signals computed. One statement, so one
/// round trip: what else would be said before it is said inside.
pub async fn candidates(connection: &mut PgConnection, ask: &Candidates<'_>) -> sqlx::Result<Vec<CandidateRow>> {
    let rows = sqlx::query(AssertSqlSafe(candidates_sql(ask.slot, ask.model, ask.dimensions, ask.limit)))
        .bind(ask.page_id)
        .bind(ask.now)
        .bind(ask.labels)
        .bind(ask.languages)
        .bind(ask.ef_search.to_string())
        .bind(&ask.vector)
        .bind(ask.question_key)
        .bind(ask.texts.iter().map(|t| t.ts_config.as_str()).collect::<Vec<_>>())
        .bind(ask.texts.iter().map(|t| t.selecting.as_str()).collect::<Vec<_>>())
        .bind(ask.texts.iter().map(|t| t.ranking.as_str()).collect::<Vec<_>>())
        .bind(ask.lexemes.iter().map(|l| l.ts_config.as_str()).collect::<Vec<_>>())
        .bind(ask.lexemes.iter().map(|l| l.lexeme.as_str()).collect::<Vec<_>>())
        .bind(ask.lexemes.iter().map(|l| l.query.as_str()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    rows.iter().map(candidate).collect()
}

fn candidate(row: &sqlx::postgres::PgRow) -> sqlx::Result<CandidateRow> {
    Ok(CandidateRow {
        id: row.try_get("id")?,
        document_id: row.try_get("document_id")?,
        title: row.try_get("title")?,
        source: row.try_get("source")?,
        position: row.try_get("position")?,
        heading: row.try_get("heading")?,
        text: row.try_get("text")?,
        question: row.try_get("question")?,
        language: row.try_get("language")?,
        labels: row.try_get("labels")?,
        ts_config: row.try_get("ts_config")?,
        exact: row.try_get("exact")?,
        cosine: row.try_get("cosine")?,
        rank: row.try_get("rank")?,
        matched: row.try_get("matched")?,
    })
}

/// Model, dimensions and limit are constants of the statement: the planner must know them to choose the vector index.
fn candidates_sql(slot: Slot, model: &str, dimensions: usize, limit: i64) -> String {
    let (vector, of_model, model) = (slot.vector(), slot.model(), quoted(model));
    // $1 page, $2 now, $3 labels, $4 languages: the same filter in every list.
    let filter = "($1::text is null or p.page_id is null or p.page_id = $1)
                  and (p.valid_from is null or p.valid_from <= $2) and (p.valid_until is null or p.valid_until > $2)
                  and ($3::text[] = '{}' or p.labels && $3) and ($4::text[] = '{}' or p.language = any($4))";
    // `walk` is evaluated before the index is walked, because the lateral part asks for it. Iterative scan: filters are
    // applied while the index is walked, so a Page with few passages among many still gets its nearest ones.
    format!(
        "with walk as materialized (
             select set_config('hnsw.iterative_scan', 'strict_order', true)
                    || set_config('hnsw.ef_search', $5, true) as set
         ), texts as materialized (
             select u.ts_config::regconfig as ts_config, u.selecting::tsquery as selecting, u.ranking::tsquery as ranking
               from unnest($8::text[], $9::text[], $10::text[]) as u (ts_config, selecting, ranking)
         ), words as materialized (
             select u.ts_config::regconfig as ts_config, u.lexeme, u.query::tsquery as query
               from unnest($11::text[], $12::text[], $13::text[]) as u (ts_config, lexeme, query)
         ), nearest as materialized (
             select n.id from walk cross join lateral (
                 select p.id from passages p
                  where walk.set <> '' and p.{of_model} = {model} and $6::vector is not null and {filter}
                  order by p.{vector}::halfvec({dimensions}) <=> $6::vector::halfvec({dimensions}) limit {limit}
             ) n
         ), matching as materialized (
             select m.id from (
                 select p.id, ts_rank('{{0.1, 0.4, 0.6, 1.0}}', p.tsv, t.ranking) as rank
                   from texts t join passages p on p.ts_config = t.ts_config and p.tsv @@ t.selecting
                  where {filter} limit {RANKED_ROWS_MAX}
             ) m order by m.rank desc, m.id limit {limit}
         ), equal as materialized (
             select p.id from passages p where p.question_key = $7 and $7 <> '' and {filter} order by p.id limit 8
         ), chosen as (
             select id from nearest union select id from matching union select id from equal
         )
         select p.id, p.document_id, d.title, d.source, p.position, p.heading, p.text, p.question, p.language, p.labels,
                p.ts_config::text as ts_config, p.id in (select id from equal) as exact,
                case when p.{of_model} = {model}
                     then 1 - (p.{vector}::halfvec({dimensions}) <=> $6::vector::halfvec({dimensions})) end as cosine,
                coalesce(ts_rank('{{0.1, 0.4, 0.6, 1.0}}', p.tsv, t.ranking), 0) as rank,
                array(select l.lexeme from words l where l.ts_config = p.ts_config and p.tsv @@ l.query) as matched
           from chosen c join passages p on p.id = c.id join documents d on d.id = p.document_id
           left join texts t on t.ts_config = p.ts_config"
    )
}

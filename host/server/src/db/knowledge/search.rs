//! What a search reads.

use chrono::{DateTime, Utc};
use pgvector::Vector;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use super::quoted;
use crate::knowledge::Slot;

/// Passages that full text ranks for one question. The caller's selection aims well below this; words that stand together
/// more often than chance may exceed it, and what is beyond is not ranked.
const RANKED_ROWS_MAX: i64 = 1_000;

/// Pieces of a text that count as near one of them, on either side.
pub const PIECES_BESIDE_MAX: u32 = 3;

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
    /// Whether the question says it; if not, it is another name of something that the question says.
    pub is_said: bool,
}

/// The lexemes of a question under every configuration that the Page's passages use, with their frequencies. `other_names` are
/// pairs of a configuration and what else the question's things are called there.
pub async fn query_lexemes(
    connection: &mut PgConnection,
    page_id: Option<&str>,
    text: &str,
    focus: &str,
    other_names: &[(&str, String)],
) -> sqlx::Result<Vec<QueryLexeme>> {
    // Two statements, each with a plan that serves all its questions: what may be left out cannot use the index.
    let in_scope = if page_id.is_some() { "k.scope in ('', $1)" } else { "$1::text is null" };
    sqlx::query_as(AssertSqlSafe(format!(
        "with configs as (
             select k.ts_config, sum(k.passages)::bigint as total from passage_lexemes k
              where k.lexeme = '' and {in_scope} group by k.ts_config
         ), words as (
             select c.ts_config, c.total, l.lexeme,
                    l.lexeme = any(tsvector_to_array(to_tsvector(c.ts_config, $3))) as in_focus,
                    l.lexeme = any(tsvector_to_array(to_tsvector(c.ts_config, $2))) as is_said
               from configs c
               left join unnest($4::text[], $5::text[]) as o (ts_config, names) on o.ts_config::regconfig = c.ts_config
              cross join lateral unnest(tsvector_to_array(
                         to_tsvector(c.ts_config, $2) || to_tsvector(c.ts_config, coalesce(o.names, '')))) as l (lexeme)
         )
         select w.ts_config::text, w.lexeme, w.total, w.in_focus, w.is_said,
                coalesce((select sum(k.passages) from passage_lexemes k
                           where k.ts_config = w.ts_config and k.lexeme = w.lexeme and {in_scope}), 0)::bigint as frequency
           from words w order by w.ts_config::text, w.lexeme"
    )))
    .bind(page_id)
    .bind(text)
    .bind(focus)
    .bind(other_names.iter().map(|(ts_config, _)| *ts_config).collect::<Vec<_>>())
    .bind(other_names.iter().map(|(_, names)| names.as_str()).collect::<Vec<_>>())
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
    /// Whether the pieces beside a candidate are looked at; else each counts as a whole text.
    pub reads_beside: bool,
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
    /// Other pieces of its text, up to [`PIECES_BESIDE_MAX`] on either side; 0 for an entry of a FAQ.
    pub beside: i64,
    /// Mean cosine similarity of these; `None` when there are none, or none has a vector of the current model.
    pub beside_cosine: Option<f64>,
}

/// Curated equals, nearest vectors and full-text hits, joined, each with both signals computed. One statement, so one
/// round trip: what else would be said before it is said inside. Among equals their content decides which are candidates: ids are
/// random, and the same knowledge must find the same in every database.
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
        .bind(ask.reads_beside)
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
        beside: row.try_get("beside")?,
        beside_cosine: row.try_get("beside_cosine")?,
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
    // applied while the index is walked, so a Page with few passages among many still gets its nearest ones. A vector is long, and
    // reading it again costs more than the walk: its distance is taken along, and the question's is cast once. For the same reason
    // only pieces of a text that was cut read those beside them, and only where that is asked for.
    format!(
        "with walk as materialized (
             select set_config('hnsw.iterative_scan', 'strict_order', true)
                    || set_config('hnsw.ef_search', $5, true) as set, $6::vector::halfvec({dimensions}) as asked
         ), texts as materialized (
             select u.ts_config::regconfig as ts_config, u.selecting::tsquery as selecting, u.ranking::tsquery as ranking
               from unnest($8::text[], $9::text[], $10::text[]) as u (ts_config, selecting, ranking)
         ), words as materialized (
             select u.ts_config::regconfig as ts_config, u.lexeme, u.query::tsquery as query
               from unnest($11::text[], $12::text[], $13::text[]) as u (ts_config, lexeme, query)
         ), nearest as materialized (
             select n.id, n.distance from walk cross join lateral (
                 select p.id, p.{vector}::halfvec({dimensions}) <=> walk.asked as distance
                   from passages p
                  where walk.set <> '' and p.{of_model} = {model} and walk.asked is not null and {filter}
                  order by p.{vector}::halfvec({dimensions}) <=> walk.asked limit {limit}
             ) n
         ), matching as materialized (
             select m.id from (
                 select p.id, p.content_hash, p.position,
                        ts_rank('{{0.1, 0.4, 0.6, 1.0}}', p.tsv, t.ranking) as rank
                   from texts t join passages p on p.ts_config = t.ts_config and p.tsv @@ t.selecting
                  where {filter} limit {RANKED_ROWS_MAX}
             ) m order by m.rank desc, m.content_hash, m.position, m.id limit {limit}
         ), equal as materialized (
             select p.id from passages p where p.question_key = $7 and $7 <> '' and {filter}
              order by p.content_hash, p.position, p.id limit 8
         ), chosen as (
             select id, min(distance) as distance from (
                 select id, distance from nearest
                 union all select id, null from matching union all select id, null from equal) found
              group by id
         )
         select p.id, p.document_id, d.title, d.source, p.position, p.heading, p.text, p.question, p.language, p.labels,
                p.ts_config::text as ts_config, p.id in (select id from equal) as exact,
                case when c.distance is not null then 1 - c.distance
                     when p.{of_model} = {model}
                     then 1 - (p.{vector}::halfvec({dimensions}) <=> (select asked from walk)) end as cosine,
                coalesce(ts_rank('{{0.1, 0.4, 0.6, 1.0}}', p.tsv, t.ranking), 0) as rank,
                array(select l.lexeme from words l where l.ts_config = p.ts_config and p.tsv @@ l.query) as matched,
                b.count as beside, b.cosine as beside_cosine
           from chosen c join passages p on p.id = c.id join documents d on d.id = p.document_id
           left join texts t on t.ts_config = p.ts_config
           left join lateral (
                select count(*) as count,
                       avg(1 - (s.{vector}::halfvec({dimensions}) <=> (select asked from walk)))
                           filter (where s.{of_model} = {model}) as cosine
                  from passages s
                 where $14 and p.question is null and s.question is null and s.id <> p.id
                   and s.document_id = p.document_id and s.heading = p.heading
                   and s.position between p.position - {PIECES_BESIDE_MAX} and p.position + {PIECES_BESIDE_MAX}
           ) b on true"
    )
}

//! Tables `ingest_jobs`, `ingest_job_pages` and `web_documents`.
//!
//! A running job belongs to the process that took it last: every statement of a worker names the attempt that it is, and
//! changes nothing when another process has taken the job since.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use crate::keys::Wrapped;

/// A job as listings show it.
#[derive(Debug, Clone, serde::Serialize, sqlx::FromRow)]
pub struct Job {
    pub id: Uuid,
    pub kind: String,
    pub state: String,
    pub page_id: Option<String>,
    pub source: String,
    pub stage: String,
    pub done: i64,
    pub total: i64,
    pub result: Option<Value>,
    pub error: Option<String>,
    pub attempts: i32,
    pub created_by: String,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
}

const SHOWN: &str = "id, kind, state, page_id, source, stage, done, total, result, error, attempts, created_by, created_at, \
                     started_at, finished_at";

/// A job to be done.
#[derive(Debug)]
pub struct NewJob<'a> {
    pub kind: &'static str,
    pub page_id: Option<&'a str>,
    pub source: &'a str,
    pub params: Value,
    /// The file's object and data key.
    pub file: Option<(&'a str, &'a Wrapped)>,
    pub created_by: &'a str,
}

pub async fn insert(db: impl PgExecutor<'_>, job: &NewJob<'_>) -> sqlx::Result<Uuid> {
    sqlx::query_scalar(
        "insert into ingest_jobs (kind, page_id, source, params, object_key, key_id, wrapped, created_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8) returning id",
    )
    .bind(job.kind)
    .bind(job.page_id)
    .bind(job.source)
    .bind(&job.params)
    .bind(job.file.map(|(key, _)| key))
    .bind(job.file.map(|(_, wrapped)| wrapped.key_id.as_str()))
    .bind(job.file.map(|(_, wrapped)| wrapped.sealed.as_slice()))
    .bind(job.created_by)
    .fetch_one(db)
    .await
}

pub async fn get(pool: &PgPool, id: Uuid) -> sqlx::Result<Option<Job>> {
    let statement = format!("select {SHOWN} from ingest_jobs where id = $1");
    sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(id).fetch_optional(pool).await
}

/// The newest jobs, newest first.
pub async fn list(pool: &PgPool, limit: i64) -> sqlx::Result<Vec<Job>> {
    let statement = format!("select {SHOWN} from ingest_jobs order by created_at desc, id limit $1");
    sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(limit).fetch_all(pool).await
}

pub async fn count_open(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from ingest_jobs where state in ('queued', 'running')").fetch_one(pool).await
}

/// A job as its worker has it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Taken {
    pub id: Uuid,
    pub kind: String,
    pub page_id: Option<String>,
    pub source: String,
    pub params: Value,
    pub object_key: Option<String>,
    pub key_id: Option<String>,
    pub wrapped: Option<Vec<u8>>,
    pub attempts: i32,
    pub created_by: String,
    pub started_at: DateTime<Utc>,
}

/// The oldest job that waits, or whose worker has not been heard of.
pub async fn take(pool: &PgPool, worker: &str, lease_ms: i64) -> sqlx::Result<Option<Taken>> {
    sqlx::query_as(
        "update ingest_jobs set state = 'running', worker = $1, attempts = attempts + 1,
                lease_until = now() + $2 * interval '1 millisecond', started_at = coalesce(started_at, now())
          where id = (select id from ingest_jobs
                       where (state = 'queued' and not_before <= now()) or (state = 'running' and lease_until < now())
                       order by created_at, id limit 1 for update skip locked)
         returning id, kind, page_id, source, params, object_key, key_id, wrapped, attempts, created_by, started_at",
    )
    .bind(worker)
    .bind(lease_ms)
    .fetch_optional(pool)
    .await
}

/// Says how far a job is. `None`: it is another's by now; true: somebody wants it to stop.
pub async fn renew(
    pool: &PgPool,
    id: Uuid,
    attempt: i32,
    lease_ms: i64,
    stage: &str,
    (done, total): (u64, u64),
) -> sqlx::Result<Option<bool>> {
    sqlx::query_scalar(
        "update ingest_jobs set lease_until = now() + $3 * interval '1 millisecond', stage = $4, done = $5, total = $6
          where id = $1 and attempts = $2 and state = 'running' returning cancel_asked",
    )
    .bind(id)
    .bind(attempt)
    .bind(lease_ms)
    .bind(stage)
    .bind(i64::try_from(done).unwrap_or(i64::MAX))
    .bind(i64::try_from(total).unwrap_or(i64::MAX))
    .fetch_optional(pool)
    .await
}

/// Ends a job; its file, unless a document's version has it, is given up. False: it is another's by now.
pub async fn finish(
    db: impl PgExecutor<'_>,
    id: Uuid,
    attempt: i32,
    state: &str,
    result: Option<&Value>,
    error: Option<&str>,
) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "update ingest_jobs set state = $3, stage = $3, result = $4, error = $5, finished_at = now(), lease_until = null,
                object_key = null, key_id = null, wrapped = null, done = case when $3 = 'done' then total else done end
          where id = $1 and attempts = $2 and state = 'running'",
    )
    .bind(id)
    .bind(attempt)
    .bind(state)
    .bind(result)
    .bind(error)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Lets a job be tried again later.
pub async fn postpone(pool: &PgPool, id: Uuid, attempt: i32, delay_ms: i64, error: &str) -> sqlx::Result<()> {
    sqlx::query(
        "update ingest_jobs set state = 'queued', stage = 'waiting', lease_until = null, error = $4,
                not_before = now() + $3 * interval '1 millisecond'
          where id = $1 and attempts = $2 and state = 'running'",
    )
    .bind(id)
    .bind(attempt)
    .bind(delay_ms)
    .bind(error)
    .execute(pool)
    .await?;
    Ok(())
}

/// Asks for an end: at once when nobody works on it. `None`: there is no such job; false: it had ended.
pub async fn cancel(pool: &PgPool, id: Uuid) -> sqlx::Result<Option<bool>> {
    sqlx::query_scalar(
        "with before as (select id, state from ingest_jobs where id = $1 for update)
         update ingest_jobs j
            set cancel_asked = j.cancel_asked or b.state in ('queued', 'running'),
                state = case b.state when 'queued' then 'cancelled' else b.state end,
                stage = case b.state when 'queued' then 'cancelled' else j.stage end,
                finished_at = case b.state when 'queued' then now() else j.finished_at end,
                object_key = case b.state when 'queued' then null else j.object_key end
           from before b where j.id = b.id
         returning b.state in ('queued', 'running')",
    )
    .bind(id)
    .fetch_optional(pool)
    .await
}

/// Forgets jobs that ended long ago. Returns how many.
pub async fn forget_finished(pool: &PgPool, keep_days: i32) -> sqlx::Result<u64> {
    let done = sqlx::query("delete from ingest_jobs where finished_at < now() - $1 * interval '1 day'")
        .bind(keep_days)
        .execute(pool)
        .await?;
    Ok(done.rows_affected())
}

/// A wrapped data key of a job's file.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StoredKey {
    pub id: Uuid,
    pub object_key: String,
    pub key_id: String,
    pub wrapped: Vec<u8>,
}

pub async fn keys_not_under(db: impl PgExecutor<'_>, current: &str, limit: i64) -> sqlx::Result<Vec<StoredKey>> {
    sqlx::query_as(
        "select id, object_key, key_id, wrapped from ingest_jobs
          where key_id <> $1 and object_key is not null and wrapped is not null
          order by id limit $2 for update skip locked",
    )
    .bind(current)
    .bind(limit)
    .fetch_all(db)
    .await
}

pub async fn replace_key(db: impl PgExecutor<'_>, id: Uuid, wrapped: &Wrapped) -> sqlx::Result<()> {
    sqlx::query("update ingest_jobs set key_id = $2, wrapped = $3 where id = $1")
        .bind(id)
        .bind(&wrapped.key_id)
        .bind(&wrapped.sealed)
        .execute(db)
        .await?;
    Ok(())
}

/// An address that a website job has to visit.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Open {
    pub url: String,
    pub kind: String,
    pub depth: i32,
}

/// Notes addresses; those that the job knows already stay as they are. Returns how many are new.
pub async fn add_urls(pool: &PgPool, job: Uuid, kind: &str, depth: i32, urls: &[String]) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "insert into ingest_job_pages (job_id, url, kind, depth)
         select $1, u.url, $2, $3 from unnest($4::text[]) with ordinality as u (url, position) order by u.position
         on conflict do nothing",
    )
    .bind(job)
    .bind(kind)
    .bind(depth)
    .bind(urls)
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// The next address but for those that were `fetched` and wait: sitemaps first, in the order in which they were found.
pub async fn next_url(pool: &PgPool, job: Uuid, fetched: &[String]) -> sqlx::Result<Option<Open>> {
    sqlx::query_as(
        "select url, kind, depth from ingest_job_pages where job_id = $1 and state = 'open' and url <> all($2)
         order by kind desc, position limit 1",
    )
    .bind(job)
    .bind(fetched)
    .fetch_optional(pool)
    .await
}

/// What came of an address.
#[derive(Debug, Clone, Default)]
pub struct Visited<'a> {
    pub outcome: &'a str,
    pub note: Option<&'a str>,
    pub document_id: Option<Uuid>,
    pub bytes: u64,
}

pub async fn set_visited(pool: &PgPool, job: Uuid, url: &str, visited: &Visited<'_>) -> sqlx::Result<()> {
    sqlx::query(
        "update ingest_job_pages set state = 'done', outcome = $3, note = $4, document_id = $5, bytes = $6
          where job_id = $1 and url = $2",
    )
    .bind(job)
    .bind(url)
    .bind(visited.outcome)
    .bind(visited.note)
    .bind(visited.document_id)
    .bind(i64::try_from(visited.bytes).unwrap_or(i64::MAX))
    .execute(pool)
    .await?;
    Ok(())
}

/// How far a website job is.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Counts {
    pub pages: i64,
    pub pages_done: i64,
    pub sitemaps: i64,
    pub bytes: i64,
}

pub async fn counts(pool: &PgPool, job: Uuid) -> sqlx::Result<Counts> {
    sqlx::query_as(
        "select count(*) filter (where kind = 'page') as pages,
                count(*) filter (where kind = 'page' and state = 'done') as pages_done,
                count(*) filter (where kind = 'sitemap') as sitemaps, coalesce(sum(bytes), 0)::bigint as bytes
           from ingest_job_pages where job_id = $1",
    )
    .bind(job)
    .fetch_one(pool)
    .await
}

/// How often each outcome came, for a website job's result.
pub async fn outcomes(pool: &PgPool, job: Uuid) -> sqlx::Result<Vec<(String, i64)>> {
    sqlx::query_as(
        "select coalesce(outcome, state), count(*) from ingest_job_pages where job_id = $1 and kind = 'page'
          group by 1 order by 1",
    )
    .bind(job)
    .fetch_all(pool)
    .await
}

/// A line of a website job's report.
#[derive(Debug, Clone, serde::Serialize, sqlx::FromRow)]
pub struct Line {
    pub url: String,
    pub kind: String,
    pub state: String,
    pub outcome: Option<String>,
    pub note: Option<String>,
    pub document_id: Option<Uuid>,
}

pub async fn lines(pool: &PgPool, job: Uuid, limit: i64) -> sqlx::Result<Vec<Line>> {
    sqlx::query_as(
        "select url, kind, state, outcome, note, document_id from ingest_job_pages where job_id = $1
         order by position limit $2",
    )
    .bind(job)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// What is known of a page's document from an earlier visit.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Earlier {
    pub document_id: Uuid,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    pub body_sha256: String,
}

pub async fn earlier(pool: &PgPool, page_id: Option<&str>, url: &str) -> sqlx::Result<Option<Earlier>> {
    sqlx::query_as(
        "select w.document_id, w.etag, w.last_modified, w.body_sha256
           from web_documents w join documents d on d.id = w.document_id
          where d.source = $2 and coalesce(d.page_id, '') = coalesce($1, '')",
    )
    .bind(page_id)
    .bind(url)
    .fetch_optional(pool)
    .await
}

/// What a server said of a page.
#[derive(Debug, Clone)]
pub struct Fetched<'a> {
    pub site: &'a str,
    pub url: &'a str,
    pub etag: Option<&'a str>,
    pub last_modified: Option<&'a str>,
    pub body_sha256: &'a str,
}

pub async fn set_fetched(pool: &PgPool, document_id: Uuid, fetched: &Fetched<'_>) -> sqlx::Result<()> {
    sqlx::query(
        "insert into web_documents (document_id, site, url, etag, last_modified, body_sha256)
         select id, $2, $3, $4, $5, $6 from documents where id = $1
         on conflict (document_id) do update set site = excluded.site, url = excluded.url, etag = excluded.etag,
            last_modified = excluded.last_modified, body_sha256 = excluded.body_sha256, fetched_at = now()",
    )
    .bind(document_id)
    .bind(fetched.site)
    .bind(fetched.url)
    .bind(fetched.etag)
    .bind(fetched.last_modified)
    .bind(fetched.body_sha256)
    .execute(pool)
    .await?;
    Ok(())
}

/// Documents of a site in a Page's scope that a job did not find listed any more.
pub async fn unlisted(pool: &PgPool, job: Uuid, page_id: Option<&str>, site: &str) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar(
        "select w.document_id from web_documents w join documents d on d.id = w.document_id
          where w.site = $3 and coalesce(d.page_id, '') = coalesce($2, '')
            and not exists (select 1 from ingest_job_pages p where p.job_id = $1 and p.url = w.url)",
    )
    .bind(job)
    .bind(page_id)
    .bind(site)
    .fetch_all(pool)
    .await
}

/// In one transaction with the job's row: the file's object stops being garbage to be.
pub async fn insert_with_file(db: &mut PgConnection, job: &NewJob<'_>) -> sqlx::Result<Option<Uuid>> {
    if let Some((object_key, _)) = job.file
        && !super::objects::claim(&mut *db, object_key).await?
    {
        return Ok(None);
    }
    insert(&mut *db, job).await.map(Some)
}

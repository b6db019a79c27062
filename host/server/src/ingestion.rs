//! Long work on knowledge, as durable jobs: a file that takes minutes to embed, or a website of hundreds of pages.
//!
//! # The life of a job
//! `queued → running → done | failed | cancelled`, a row in `ingest_jobs`. A process takes the oldest one and holds a lease,
//! which it renews every second together with how far the job is. When the process dies the lease runs out and another
//! takes the job again.
//!
//! # What holds after a crash, between any two lines
//! - The file is in the object store, sealed, before its job is in the table; both are there or neither is.
//! - A document is stored in one transaction, and replaces the one of the same name: a job that is done again finds the
//!   document as it left it and changes nothing. Vectors that were made are in the cache.
//! - A website job knows each address and what came of it (`ingest_job_pages`): a successor goes on at the first open one.
//! - A worker that stood still and was replaced names an old attempt, and its word changes nothing.
//! - What the uploader can mend ends the job; what the host or its services failed in is tried again, later each time.

pub mod website;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::jobs::{NewJob, Taken};
use crate::golden::{Goldens, KnowledgeChange};
use crate::keys::Wrapped;
use crate::knowledge::{ArchiveError, Format, IngestError, Knowledge, NewDocument, Outcome, Progress, Stage, Upload};
use crate::queue::pause;
use website::{SiteError, WebsiteSettings};

/// A worker that has not been heard of for so long is taken for dead.
const LEASE_MS: i64 = 10_000;
const RENEW: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(500);
/// Attempts at a job whose failures are not the file's.
const ATTEMPTS_MAX: i32 = 8;
const RETRY_MS: i64 = 2_000;
const RETRY_MS_MAX: i64 = 300_000;
/// Jobs that wait or run; one more is refused.
pub const JOBS_OPEN_MAX: i64 = 10_000;
/// How long one can look a job up after its end.
const KEEP_DAYS: i32 = 30;
const UPKEEP: Duration = Duration::from_secs(3_600);

/// What is kept of a file's upload beside the file.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileParams {
    pub title: Option<String>,
    pub format: Option<Format>,
    pub language: Option<String>,
    pub labels: Vec<String>,
    pub valid_from: Option<DateTime<Utc>>,
    pub valid_until: Option<DateTime<Utc>>,
}

/// What is kept of a wish to read a website.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebsiteParams {
    pub language: Option<String>,
    pub labels: Vec<String>,
    /// At most so many pages; never more than the host's own limit.
    pub pages_max: Option<u32>,
    /// Deletes documents of the site that its sitemaps do not list any more.
    pub prune: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Site(#[from] SiteError),
    #[error("the job cannot be read: {reason}; a later version of Frontdesk wrote it")]
    Unreadable { reason: String },
    #[error("golden questions went better before, so it was not taken in: {}", problems.join("; "))]
    Regressed { problems: Vec<String> },
    #[error("there are {open} jobs that wait already; wait until some are done")]
    TooMany { open: i64 },
    #[error("this host keeps no raw files, so it takes no jobs")]
    NoArchive,
    #[error("the database did not keep the job: {source}")]
    Database {
        #[from]
        source: sqlx::Error,
    },
}

impl JobError {
    /// Whether the same may succeed later without anybody's doing.
    fn is_passing(&self) -> bool {
        match self {
            Self::Ingest(error) => !error.is_callers_fault(),
            Self::Archive(_) | Self::Database { .. } => true,
            Self::Site(error) => error.is_passing(),
            Self::Unreadable { .. } | Self::Regressed { .. } | Self::TooMany { .. } | Self::NoArchive => false,
        }
    }
}

/// Keeps a file and queues its reading. What can be said of it without reading it is said now.
///
/// # Errors
/// [`IngestError`] for what the uploader can mend; else when store or database fail, and nothing is queued.
pub async fn queue_file(app: &App, by: &str, document: NewDocument) -> Result<Uuid, JobError> {
    let archive = app.knowledge.archive().ok_or(JobError::NoArchive)?;
    room(&app.pool).await?;
    let document = app.knowledge.checked_document(document).await?;
    let params = FileParams {
        title: document.title,
        format: document.format,
        language: document.language,
        labels: document.labels,
        valid_from: document.valid_from,
        valid_until: document.valid_until,
    };
    let kept = archive.keep(&document.bytes).await?;
    let job = NewJob {
        kind: "file",
        page_id: document.page_id.as_deref(),
        source: &document.source,
        params: serde_json::to_value(params).map_err(|error| JobError::Unreadable { reason: error.to_string() })?,
        file: Some((&kept.object_key, &kept.wrapped)),
        created_by: by,
    };
    let mut tx = app.pool.begin().await?;
    let id = db::jobs::insert_with_file(&mut tx, &job).await?.ok_or(IngestError::TooSlow)?;
    tx.commit().await?;
    Ok(id)
}

/// Queues the reading of a website.
///
/// # Errors
/// [`SiteError`] when the address cannot be one; else when the database fails.
pub async fn queue_website(
    app: &App,
    by: &str,
    page_id: Option<&str>,
    url: &str,
    params: &WebsiteParams,
) -> Result<Uuid, JobError> {
    room(&app.pool).await?;
    let url = website::checked_address(url, &app.settings.website)?;
    let job = NewJob {
        kind: "website",
        page_id,
        source: url.as_str(),
        params: serde_json::to_value(params).map_err(|error| JobError::Unreadable { reason: error.to_string() })?,
        file: None,
        created_by: by,
    };
    Ok(db::jobs::insert(&app.pool, &job).await?)
}

async fn room(pool: &PgPool) -> Result<(), JobError> {
    let open = db::jobs::count_open(pool).await?;
    if open >= JOBS_OPEN_MAX { Err(JobError::TooMany { open }) } else { Ok(()) }
}

/// Starts the tasks that do jobs.
pub fn start(app: &Arc<App>, tasks: &TaskTracker, stop: &CancellationToken) {
    for number in 0..app.settings.knowledge.jobs_at_once {
        let runner = Runner {
            pool: app.pool.clone(),
            knowledge: Arc::clone(&app.knowledge),
            goldens: app.goldens.clone(),
            website: app.settings.website.clone(),
            worker: format!("{}/{number}", app.replica),
        };
        let stop = stop.clone();
        tasks.spawn(async move { runner.run(&stop).await });
    }
    let (pool, stop) = (app.pool.clone(), stop.clone());
    tasks.spawn(async move {
        while pause(UPKEEP, &stop).await {
            if let Err(error) = db::jobs::forget_finished(&pool, KEEP_DAYS).await {
                tracing::error!(%error, "old jobs could not be forgotten");
            }
        }
    });
}

struct Runner {
    pool: PgPool,
    knowledge: Arc<Knowledge>,
    /// Whatever becomes knowledge is tried on the golden questions first.
    goldens: Goldens,
    website: WebsiteSettings,
    worker: String,
}

/// How the work on a job was left.
enum Left {
    Finished(Result<Value, JobError>),
    Cancelled,
    /// Another process has the job.
    Lost,
    /// This process stops.
    Stopped,
}

impl Runner {
    async fn run(&self, stop: &CancellationToken) {
        loop {
            let taken = tokio::select! {
                taken = db::jobs::take(&self.pool, &self.worker, LEASE_MS) => taken,
                () = stop.cancelled() => return,
            };
            match taken {
                Ok(Some(job)) => {
                    if let Err(error) = self.work(&job, stop).await {
                        tracing::error!(job = %job.id, %error, "a job's outcome could not be stored; it will be done again");
                    }
                }
                Ok(None) => {
                    if !pause(POLL, stop).await {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "jobs could not be looked for");
                    if !pause(POLL * 10, stop).await {
                        return;
                    }
                }
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }

    async fn work(&self, job: &Taken, stop: &CancellationToken) -> sqlx::Result<()> {
        // A file that takes the whole process with it would otherwise be taken for ever.
        if job.attempts > ATTEMPTS_MAX * 2 {
            let error = format!("it was begun {} times and never ended; look at the host's log", job.attempts - 1);
            db::jobs::finish(&self.pool, job.id, job.attempts, "failed", None, Some(&error)).await?;
            return Ok(());
        }
        let (progress, seen) = watch::channel(Progress::default());
        let left = tokio::select! {
            outcome = self.perform(job, progress) => Left::Finished(outcome),
            left = self.keep_up(job, seen) => left,
            () = stop.cancelled() => Left::Stopped,
        };
        let (id, attempt) = (job.id, job.attempts);
        match left {
            Left::Finished(Ok(result)) => {
                db::jobs::finish(&self.pool, id, attempt, "done", Some(&result), None).await?;
                tracing::info!(job = %id, kind = job.kind, "a job is done");
                metrics::counter!("frontdesk_ingest_jobs_total", "outcome" => "done").increment(1);
            }
            Left::Finished(Err(error)) if error.is_passing() && attempt < ATTEMPTS_MAX => {
                let delay = (RETRY_MS << (attempt - 1).clamp(0, 16)).min(RETRY_MS_MAX);
                tracing::warn!(job = %id, %error, delay_ms = delay, "a job failed; it is tried again");
                db::jobs::postpone(&self.pool, id, attempt, delay, &error.to_string()).await?;
            }
            Left::Finished(Err(error)) => {
                // Not an alarm: most often the file is damaged, and its uploader reads why.
                tracing::warn!(job = %id, %error, "a job failed");
                metrics::counter!("frontdesk_ingest_jobs_total", "outcome" => "failed").increment(1);
                db::jobs::finish(&self.pool, id, attempt, "failed", None, Some(&error.to_string())).await?;
            }
            Left::Cancelled => {
                db::jobs::finish(&self.pool, id, attempt, "cancelled", None, None).await?;
            }
            Left::Stopped => {
                db::jobs::postpone(&self.pool, id, attempt, 0, "the host that worked on it stopped").await?;
            }
            Left::Lost => tracing::warn!(job = %id, "another process has taken a job that was slow here"),
        }
        Ok(())
    }

    /// Renews the lease and tells how far the job is, until it is to stop.
    async fn keep_up(&self, job: &Taken, progress: watch::Receiver<Progress>) -> Left {
        let mut unheard = Duration::ZERO;
        loop {
            let Progress { stage, done, total } = *progress.borrow();
            let renewed =
                db::jobs::renew(&self.pool, job.id, job.attempts, LEASE_MS, stage.as_str(), (done, total)).await;
            match renewed {
                Ok(Some(false)) => unheard = Duration::ZERO,
                Ok(Some(true)) => return Left::Cancelled,
                Ok(None) => return Left::Lost,
                Err(error) => {
                    unheard += RENEW;
                    if unheard.as_millis() >= u128::from(LEASE_MS.unsigned_abs()) {
                        tracing::error!(job = %job.id, %error, "a job's lease could not be renewed");
                        return Left::Lost;
                    }
                }
            }
            tokio::time::sleep(RENEW).await;
        }
    }

    async fn perform(&self, job: &Taken, progress: watch::Sender<Progress>) -> Result<Value, JobError> {
        match job.kind.as_str() {
            "file" => self.file(job, progress).await,
            "website" => {
                let params = params(job)?;
                let visit = website::Visit::new(&self.pool, &self.goldens, &self.website, job, params, progress)?;
                Ok(visit.run().await?)
            }
            other => Err(JobError::Unreadable { reason: format!("its kind is {other:?}") }),
        }
    }

    async fn file(&self, job: &Taken, progress: watch::Sender<Progress>) -> Result<Value, JobError> {
        let archive = self.knowledge.archive().ok_or(JobError::NoArchive)?;
        let params: FileParams = params(job)?;
        let (Some(object_key), Some(key_id), Some(wrapped)) = (&job.object_key, &job.key_id, &job.wrapped) else {
            return Err(JobError::Unreadable { reason: "it has no file".to_owned() });
        };
        let wrapped = Wrapped { key_id: key_id.clone(), sealed: wrapped.clone() };
        let kept = archive.reopen(object_key, &wrapped)?;
        progress.send_replace(Progress { stage: Stage::Reading, ..Progress::default() });
        let raw = archive.raw(&kept).await?;
        let document = NewDocument {
            page_id: job.page_id.clone(),
            source: job.source.clone(),
            title: params.title,
            format: params.format,
            bytes: raw.to_vec(),
            language: params.language,
            labels: params.labels,
            valid_from: params.valid_from,
            valid_until: params.valid_until,
        };
        let upload = Upload { by: job.created_by.clone(), kept: Some(kept), progress: Some(progress) };
        let change = self
            .goldens
            .admit(job.page_id.as_deref(), &job.source, &job.created_by, |knowledge| {
                async move { knowledge.ingest(document, upload).await }.boxed()
            })
            .await?;
        let (added, warnings) = match change {
            KnowledgeChange::Made { value, warnings } => (value, warnings),
            KnowledgeChange::Refused { problems, .. } => return Err(JobError::Regressed { problems }),
        };
        if added.outcome != Outcome::Unchanged {
            let detail = json!({
                "source": job.source, "page_id": job.page_id, "outcome": added.outcome, "passages": added.passages,
            });
            let subject = added.document_id.to_string();
            db::audit::write(&self.pool, &job.created_by, "knowledge.add", &subject, detail).await?;
        }
        let mut result = json!(added);
        if !warnings.is_empty() {
            result["warnings"] = json!(warnings);
        }
        Ok(result)
    }
}

fn params<T: serde::de::DeserializeOwned>(job: &Taken) -> Result<T, JobError> {
    serde_json::from_value(job.params.clone()).map_err(|error| JobError::Unreadable { reason: error.to_string() })
}

//! A website, read by its sitemaps into one document per page.
//!
//! 1. robots.txt says what may be read, how slowly, and often where the sitemaps are.
//! 2. Sitemaps (also packed, also lists of sitemaps) say which pages there are. Links are not followed.
//! 3. Each page is asked for with what its server said last time (`ETag`, `Last-Modified`); what has not changed costs one
//!    short answer. HTML, PDF, Office files and text are read like uploads; a page that is gone takes its document with it.
//!
//! 4. What was fetched is taken in as uploads are: tried on the golden questions first, several pages at a time ([`basket`]).
//!
//! Every address and what came of it is a row (`ingest_job_pages`), so the visit can be taken up again by another process,
//! and its report says for each page why it is, or is not, knowledge. Limits (pages, bytes, time, depth, and one site only)
//! end a visit early; it is done then, and says so. A page that fails fails alone.

mod basket;
mod fetch;
mod listing;
mod page;
mod reading;
mod robots;
mod sitemap;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::watch;
use url::Url;
use uuid::Uuid;

use super::WebsiteParams;
use crate::db;
use crate::db::jobs::{Taken, Visited};
use crate::golden::Goldens;
use crate::knowledge::{IngestError, Progress, Stage};
use basket::{Basket, Change, Changed, Scope};
use fetch::{FetchError, Fetcher};

/// Our name in robots.txt.
const AGENT: &str = "frontdesk";
/// Sitemaps of one site.
const SITEMAPS_MAX: i64 = 1_000;
/// Documents that are deleted together.
const PRUNED_AT_ONCE: usize = 64;
const URL_BYTES_MAX: usize = 2_048;

/// How websites are read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebsiteSettings {
    pub user_agent: String,
    pub pages_max: u32,
    pub page_bytes_max: usize,
    pub site_bytes_max: u64,
    pub time_max_s: u64,
    pub sitemap_depth_max: u8,
    pub delay_ms: u64,
    pub timeout_ms: u64,
    pub allow_private: bool,
}

impl Default for WebsiteSettings {
    fn default() -> Self {
        Self {
            user_agent: "frontdesk/0.1".to_owned(),
            pages_max: 1_000,
            page_bytes_max: 8 << 20,
            site_bytes_max: 512 << 20,
            time_max_s: 3_600,
            sitemap_depth_max: 3,
            delay_ms: 200,
            timeout_ms: 30_000,
            allow_private: false,
        }
    }
}

/// Why a website could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    #[error("{found:?} is no address of a website: expected for example https://shop.example or its sitemap's address")]
    Address { found: String },
    #[error("the website's first answer: {0}")]
    First(#[from] FetchError),
    #[error("{url} is no sitemap: {reason}; give the sitemap's own address, or add the pages' files one by one")]
    NoSitemap { url: String, reason: String },
    #[error("robots.txt of the site does not let {AGENT} read {url}")]
    Disallowed { url: String },
    #[error("the HTTP client cannot be built: {reason}")]
    Client { reason: String },
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error("the database did not keep what was read: {source}")]
    Database {
        #[from]
        source: sqlx::Error,
    },
}

impl SiteError {
    /// Whether the same may succeed later without anybody's doing.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::First(error) => error.is_the_servers(),
            Self::Ingest(error) => !error.is_callers_fault(),
            Self::Database { .. } => true,
            _ => false,
        }
    }
}

/// An address that a visit may begin at.
///
/// # Errors
/// [`SiteError::Address`], or why it must not be reached.
pub fn checked_address(address: &str, settings: &WebsiteSettings) -> Result<Url, SiteError> {
    let found = || SiteError::Address { found: address.chars().take(200).collect() };
    if address.len() > URL_BYTES_MAX {
        return Err(found());
    }
    let mut url = Url::parse(address).map_err(|_| found())?;
    if !url.has_host() {
        return Err(found());
    }
    url.set_fragment(None);
    Fetcher::new(&url, settings)?.judge(&url)?;
    Ok(url)
}

/// One job's visit to a site.
#[derive(Debug)]
pub struct Visit<'a> {
    pool: &'a PgPool,
    goldens: &'a Goldens,
    settings: &'a WebsiteSettings,
    job: &'a Taken,
    params: WebsiteParams,
    progress: watch::Sender<Progress>,
    start: Url,
    fetcher: Fetcher,
}

/// What came of one address.
#[derive(Default)]
struct Outcome {
    word: &'static str,
    note: Option<String>,
    document_id: Option<Uuid>,
    bytes: u64,
}

impl Outcome {
    fn of(word: &'static str) -> Self {
        Self { word, ..Self::default() }
    }

    fn skipped(note: impl Into<String>) -> Self {
        Self { word: "skipped", note: Some(note.into()), ..Self::default() }
    }
}

/// How far a look at one address led.
enum Step {
    Done(Outcome),
    /// Its page is to be taken in.
    Fetched(Box<basket::Fetched>),
}

impl From<Outcome> for Step {
    fn from(outcome: Outcome) -> Self {
        Self::Done(outcome)
    }
}

impl<'a> Visit<'a> {
    pub fn new(
        pool: &'a PgPool,
        goldens: &'a Goldens,
        settings: &'a WebsiteSettings,
        job: &'a Taken,
        params: WebsiteParams,
        progress: watch::Sender<Progress>,
    ) -> Result<Self, SiteError> {
        let start = checked_address(&job.source, settings)?;
        let fetcher = Fetcher::new(&start, settings)?;
        Ok(Self { pool, goldens, settings, job, params, progress, start, fetcher })
    }

    /// Visits what is left to visit, and gives the job's result.
    pub async fn run(&self) -> Result<Value, SiteError> {
        let robots = self.robots().await?;
        let first = self.seed(&robots).await?;
        let pause = robots.crawl_delay.unwrap_or_default().max(Duration::from_millis(self.settings.delay_ms));
        let (mut limit, mut basket) = (None, Basket::new(self.goldens));
        while let Some(open) = db::jobs::next_url(self.pool, self.job.id, &basket.addresses()).await? {
            if let Some(reached) = self.limit(&basket).await? {
                limit = Some(reached);
                break;
            }
            let step = match open.kind.as_str() {
                "sitemap" => Step::Done(self.sitemap(&open, &robots, open.url == first).await?),
                _ => self.page(&open.url, &robots).await?,
            };
            match step {
                Step::Done(outcome) => self.visited(&open.url, outcome).await?,
                Step::Fetched(fetched) => basket.put(*fetched),
            }
            if basket.is_full() {
                self.empty(&mut basket).await?;
            }
            self.tell().await?;
            tokio::time::sleep(pause).await;
        }
        self.empty(&mut basket).await?;
        self.tell().await?;
        let pruned = match (self.params.prune, limit) {
            (true, None) => self.prune(&mut basket).await?,
            _ => 0,
        };
        let outcomes: BTreeMap<String, i64> = db::jobs::outcomes(self.pool, self.job.id).await?.into_iter().collect();
        let mut result = json!({ "pages": outcomes, "pruned": pruned, "limit": limit });
        if !basket.warnings.is_empty() {
            result["warnings"] = json!(basket.warnings);
        }
        Ok(result)
    }

    async fn visited(&self, address: &str, outcome: Outcome) -> Result<(), SiteError> {
        let visited = Visited {
            outcome: outcome.word,
            note: outcome.note.as_deref(),
            document_id: outcome.document_id,
            bytes: outcome.bytes,
        };
        Ok(db::jobs::set_visited(self.pool, self.job.id, address, &visited).await?)
    }

    /// Takes in what waits.
    async fn empty(&self, basket: &mut Basket) -> Result<(), SiteError> {
        let waiting = basket.take();
        let Some(first) = waiting.first() else { return Ok(()) };
        let subject = match waiting.len() - 1 {
            0 => first.address.clone(),
            more => format!("{} and {more} more", first.address),
        };
        let changes: Vec<Change> = waiting.iter().map(|fetched| fetched.change.clone()).collect();
        let (changed, warnings) = basket::change(self.goldens, self.scope(&subject), &changes).await?;
        basket.warn(warnings);
        for (fetched, changed) in waiting.into_iter().zip(changed) {
            let bytes = fetched.bytes;
            let outcome = match changed {
                Changed::Added(added) => {
                    self.note(&fetched, added.document_id).await?;
                    let word = match added.outcome {
                        crate::knowledge::Outcome::Created => "created",
                        crate::knowledge::Outcome::Replaced => "replaced",
                        crate::knowledge::Outcome::Unchanged => "unchanged",
                    };
                    Outcome { document_id: Some(added.document_id), bytes, ..Outcome::of(word) }
                }
                Changed::Deleted(_) => Outcome::of("deleted"),
                Changed::Unusable(note) => Outcome { word: "failed", note: Some(note), bytes, ..Outcome::default() },
                Changed::Refused(problems) => {
                    let note = format!("golden questions went better before: {problems}");
                    Outcome { word: "refused", note: Some(note), bytes, ..Outcome::default() }
                }
            };
            self.visited(&fetched.address, outcome).await?;
        }
        Ok(())
    }

    fn scope<'s>(&'s self, subject: &'s str) -> Scope<'s> {
        Scope { page_id: self.job.page_id.as_deref(), subject, actor: &self.job.created_by }
    }

    async fn tell(&self) -> Result<(), SiteError> {
        let counts = db::jobs::counts(self.pool, self.job.id).await?;
        let (done, total) = (counts.pages_done.unsigned_abs(), counts.pages.unsigned_abs());
        self.progress.send_replace(Progress { stage: Stage::Reading, done, total });
        Ok(())
    }

    /// The limit that has been reached, in words.
    async fn limit(&self, basket: &Basket) -> Result<Option<&'static str>, SiteError> {
        let mut counts = db::jobs::counts(self.pool, self.job.id).await?;
        counts.pages_done += i64::try_from(basket.pages()).unwrap_or(i64::MAX);
        counts.bytes += i64::try_from(basket.bytes()).unwrap_or(i64::MAX);
        let seconds = (Utc::now() - self.job.started_at).num_seconds();
        Ok(if counts.pages_done >= i64::from(self.pages_max()) {
            Some("pages")
        } else if counts.bytes.unsigned_abs() >= self.settings.site_bytes_max {
            Some("bytes")
        } else if seconds.unsigned_abs() >= self.settings.time_max_s {
            Some("time")
        } else {
            None
        })
    }

    fn pages_max(&self) -> u32 {
        self.params.pages_max.unwrap_or(u32::MAX).min(self.settings.pages_max)
    }

    /// Deletes documents of pages that the sitemaps do not list any more, but for those that golden questions need.
    async fn prune(&self, basket: &mut Basket) -> Result<u64, SiteError> {
        let site = self.start.origin().ascii_serialization();
        let unlisted = db::jobs::unlisted(self.pool, self.job.id, self.job.page_id.as_deref(), &site).await?;
        let changes: Vec<Change> = unlisted.into_iter().map(Change::Delete).collect();
        let mut pruned = 0;
        for part in changes.chunks(PRUNED_AT_ONCE) {
            let subject = format!("pages that {site} lists no more");
            let (changed, warnings) = basket::change(self.goldens, self.scope(&subject), part).await?;
            basket.warn(warnings);
            for changed in changed {
                match changed {
                    Changed::Deleted(true) => pruned += 1,
                    Changed::Refused(problems) => basket.warn(vec![format!("a page is kept: {problems}")]),
                    _ => {}
                }
            }
        }
        Ok(pruned)
    }
}

fn path_of(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

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
mod reading;
mod robots;
mod sitemap;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use tokio::sync::watch;
use url::Url;
use uuid::Uuid;

use super::WebsiteParams;
use crate::db;
use crate::db::jobs::{Open, Taken, Visited};
use crate::golden::Goldens;
use crate::knowledge::{IngestError, NewDocument, Progress, Stage};
use basket::{Basket, Change, Changed, Scope};
use fetch::{Answer, Conditions, FetchError, Fetcher, Page};
use reading::{decoded, format_of, wishes_no_index};
use robots::{ROBOTS_BYTES_MAX, Robots};
use sitemap::SITEMAP_BYTES_MAX;

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

    /// Absent: everything may be read. Not to be had: nothing (RFC 9309, section 2.3.1).
    async fn robots(&self) -> Result<Robots, SiteError> {
        let Ok(url) = self.start.join("/robots.txt") else { return Ok(Robots::default()) };
        match self.fetcher.get(&url, Conditions::default(), ROBOTS_BYTES_MAX).await {
            Ok(Answer::Page(page)) => Ok(Robots::parse(&String::from_utf8_lossy(&page.bytes), AGENT)),
            Ok(Answer::Gone | Answer::NotModified) => Ok(Robots::default()),
            Err(FetchError::Status { status, .. }) if (400..500).contains(&status) && status != 429 => {
                Ok(Robots::default())
            }
            Err(error @ FetchError::Private { .. }) => Err(error.into()),
            Err(error) if error.is_the_servers() => Err(error.into()),
            // Too large, or leading elsewhere: the site does not say what may be read.
            Err(_) => Ok(Robots::nothing()),
        }
    }

    /// Where the visit begins; a successor finds it noted already. Gives the sitemap without which there is nothing to visit.
    async fn seed(&self, robots: &Robots) -> Result<String, SiteError> {
        let path = self.start.path().to_ascii_lowercase();
        let is_sitemap = [".xml", ".xml.gz", ".txt", ".gz"].iter().any(|ending| path.ends_with(ending));
        let named: Vec<Url> = robots.sitemaps.iter().filter_map(|address| self.start.join(address).ok()).collect();
        let mut first: Vec<String> = match (is_sitemap, named.is_empty()) {
            (true, _) => vec![self.start.to_string()],
            (false, false) => {
                named.into_iter().filter(|url| self.fetcher.site().holds(url)).map(String::from).collect()
            }
            (false, true) => Vec::new(),
        };
        if first.is_empty() {
            first.extend(self.start.join("/sitemap.xml").map(String::from));
        }
        db::jobs::add_urls(self.pool, self.job.id, "sitemap", 0, &first).await?;
        Ok(match first.len() {
            1 => first.remove(0),
            _ => String::new(),
        })
    }

    /// Notes what a sitemap lists. One that cannot be read ends the job when nothing else lists pages.
    async fn sitemap(&self, open: &Open, robots: &Robots, is_only: bool) -> Result<Outcome, SiteError> {
        let read = self.read_sitemap(open, robots).await;
        match read {
            Err(error) if is_only => Err(error),
            Err(SiteError::Database { source }) => Err(SiteError::Database { source }),
            Err(error) => Ok(Outcome { word: "failed", note: Some(error.to_string()), ..Outcome::default() }),
            Ok(outcome) => Ok(outcome),
        }
    }

    async fn read_sitemap(&self, open: &Open, robots: &Robots) -> Result<Outcome, SiteError> {
        let no_sitemap = |reason: String| SiteError::NoSitemap { url: open.url.clone(), reason };
        let url = Url::parse(&open.url).map_err(|error| no_sitemap(error.to_string()))?;
        // A sitemap that robots.txt itself names may be read whatever its rules say.
        if !robots.allows(&path_of(&url)) && !robots.sitemaps.contains(&open.url) {
            return Err(SiteError::Disallowed { url: open.url.clone() });
        }
        let page = match self.fetcher.get(&url, Conditions::default(), SITEMAP_BYTES_MAX).await? {
            Answer::Page(page) => page,
            Answer::Gone | Answer::NotModified => return Err(no_sitemap("it is not there".to_owned())),
        };
        let bytes = page.bytes.len() as u64;
        let parsed = tokio::task::spawn_blocking(move || sitemap::read(&page.bytes)).await;
        let listed =
            parsed.map_err(|error| no_sitemap(error.to_string()))?.map_err(|error| no_sitemap(error.to_string()))?;
        let own = |addresses: Vec<String>| -> Vec<String> {
            let urls = addresses.iter().filter_map(|address| Url::parse(address).ok());
            let mut urls: Vec<Url> = urls.filter(|url| self.fetcher.site().holds(url)).collect();
            urls.iter_mut().for_each(|url| url.set_fragment(None));
            urls.into_iter().map(String::from).collect()
        };
        let counts = db::jobs::counts(self.pool, self.job.id).await?;
        let room = |max: i64, has: i64| usize::try_from(max - has).unwrap_or_default();
        let all = listed.pages.len() + listed.sitemaps.len();
        let (mut pages, mut sitemaps) = (own(listed.pages), own(listed.sitemaps));
        let elsewhere = all - pages.len() - sitemaps.len();
        // One more than is read, so that the limit is seen to be reached.
        pages.truncate(room(i64::from(self.pages_max()) + 1, counts.pages));
        sitemaps.truncate(room(SITEMAPS_MAX, counts.sitemaps));
        let depth = open.depth + 1;
        if depth > i32::from(self.settings.sitemap_depth_max) {
            sitemaps.clear();
        }
        let added = db::jobs::add_urls(self.pool, self.job.id, "page", depth, &pages).await?
            + db::jobs::add_urls(self.pool, self.job.id, "sitemap", depth, &sitemaps).await?;
        let note = format!("{all} addresses, {added} new, {elsewhere} of other sites");
        Ok(Outcome { word: "read", note: Some(note), bytes, ..Outcome::default() })
    }

    async fn page(&self, address: &str, robots: &Robots) -> Result<Step, SiteError> {
        let Ok(url) = Url::parse(address) else { return Ok(Outcome::skipped("it is no address").into()) };
        if !robots.allows(&path_of(&url)) {
            return Ok(Outcome::skipped("robots.txt does not allow it").into());
        }
        let page_id = self.job.page_id.as_deref();
        let earlier = db::jobs::earlier(self.pool, page_id, address).await?;
        let conditions = earlier.as_ref().map_or(Conditions::default(), |earlier| Conditions {
            etag: earlier.etag.as_deref(),
            last_modified: earlier.last_modified.as_deref(),
        });
        let page = match self.fetcher.get(&url, conditions, self.settings.page_bytes_max).await {
            Ok(Answer::Page(page)) => page,
            Ok(Answer::NotModified) => {
                let document_id = earlier.map(|earlier| earlier.document_id);
                return Ok(Outcome { document_id, ..Outcome::of("not-modified") }.into());
            }
            Ok(Answer::Gone) => {
                let Some(earlier) = earlier else { return Ok(Outcome::skipped("it is not there").into()) };
                return Ok(Step::Fetched(Box::new(basket::Fetched {
                    address: address.to_owned(),
                    change: Change::Delete(earlier.document_id),
                    bytes: 0,
                    body_sha256: String::new(),
                    etag: None,
                    last_modified: None,
                })));
            }
            Err(error) => {
                return Ok(Outcome { word: "failed", note: Some(error.to_string()), ..Outcome::default() }.into());
            }
        };
        if page.url != url && !robots.allows(&path_of(&page.url)) {
            return Ok(Outcome::skipped("robots.txt does not allow where it leads").into());
        }
        self.take(address, *page, earlier.map(|earlier| (earlier.document_id, earlier.body_sha256))).await
    }

    /// Makes a page a document to be taken in, unless it is the same as before.
    async fn take(&self, address: &str, page: Page, earlier: Option<(Uuid, String)>) -> Result<Step, SiteError> {
        let bytes = page.bytes.len() as u64;
        if page.is_noindex || wishes_no_index(&page) {
            return Ok(Outcome { bytes, ..Outcome::skipped("it asks not to be indexed") }.into());
        }
        let Some(format) = format_of(&page) else {
            let note = format!("nothing is read of {:?}", page.content_type);
            return Ok(Outcome { bytes, ..Outcome::skipped(note) }.into());
        };
        let document = NewDocument {
            page_id: self.job.page_id.clone(),
            source: address.to_owned(),
            format: Some(format),
            bytes: decoded(&page, format),
            language: self.params.language.clone(),
            labels: self.params.labels.clone(),
            ..NewDocument::default()
        };
        let fetched = basket::Fetched {
            address: address.to_owned(),
            change: Change::Take(Box::new(document)),
            bytes,
            body_sha256: hex::encode(Sha256::digest(&page.bytes)),
            etag: page.etag,
            last_modified: page.last_modified,
        };
        if let Some((document_id, _)) = earlier.filter(|(_, before)| *before == fetched.body_sha256) {
            self.note(&fetched, document_id).await?;
            return Ok(Outcome { document_id: Some(document_id), bytes, ..Outcome::of("unchanged") }.into());
        }
        Ok(Step::Fetched(Box::new(fetched)))
    }

    async fn note(&self, page: &basket::Fetched, document_id: Uuid) -> Result<(), SiteError> {
        let site = self.start.origin().ascii_serialization();
        let fetched = db::jobs::Fetched {
            site: &site,
            url: &page.address,
            etag: page.etag.as_deref(),
            last_modified: page.last_modified.as_deref(),
            body_sha256: &page.body_sha256,
        };
        Ok(db::jobs::set_fetched(self.pool, document_id, &fetched).await?)
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

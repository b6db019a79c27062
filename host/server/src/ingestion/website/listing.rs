//! Which pages a site lists: its robots.txt, and its sitemaps.

use url::Url;

use super::fetch::{Answer, Conditions, FetchError};
use super::robots::{ROBOTS_BYTES_MAX, Robots};
use super::sitemap::{self, SITEMAP_BYTES_MAX};
use super::{AGENT, Outcome, SITEMAPS_MAX, SiteError, Visit, path_of};
use crate::db;
use crate::db::jobs::Open;

impl Visit<'_> {
    /// Absent: everything may be read. Not to be had: nothing (RFC 9309, section 2.3.1).
    pub(super) async fn robots(&self) -> Result<Robots, SiteError> {
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
    pub(super) async fn seed(&self, robots: &Robots) -> Result<String, SiteError> {
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
    pub(super) async fn sitemap(&self, open: &Open, robots: &Robots, is_only: bool) -> Result<Outcome, SiteError> {
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
}

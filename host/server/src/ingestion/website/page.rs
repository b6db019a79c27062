//! One page: asked for, and made a document unless it is the same as before.

use sha2::{Digest, Sha256};
use url::Url;
use uuid::Uuid;

use super::basket::{self, Change};
use super::fetch::{Answer, Conditions, Page};
use super::reading::{decoded, format_of, wishes_no_index};
use super::robots::Robots;
use super::{Outcome, SiteError, Step, Visit, path_of};
use crate::db;
use crate::knowledge::NewDocument;

impl Visit<'_> {
    pub(super) async fn page(&self, address: &str, robots: &Robots) -> Result<Step, SiteError> {
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

    pub(super) async fn note(&self, page: &basket::Fetched, document_id: Uuid) -> Result<(), SiteError> {
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
}

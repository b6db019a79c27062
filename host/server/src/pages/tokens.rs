//! The tokens of all Pages, as they stand now.
//!
//! A snapshot is swapped as a whole; whoever holds one goes on with it. The database is asked every two seconds which tokens
//! there are (two columns of a few rows), and at once when a token is missing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use frontdesk_messenger::{PageCredentials, PageId};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::db;
use crate::keys::{Binding, KeyError, Keys, Wrapped};
use crate::queue::pause;

const PURPOSE: &str = "page-token";
const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// The live store. Clones share it.
#[derive(Debug, Clone)]
pub struct PageTokens {
    pool: PgPool,
    keys: Keys,
    /// From settings and environment; they do not change while the process runs.
    given: Arc<HashMap<String, Arc<PageCredentials>>>,
    connected: Arc<ArcSwap<Connected>>,
}

#[derive(Debug, Default)]
struct Connected {
    /// By Page: number of the latest change, and the token unless it cannot be opened.
    tokens: HashMap<String, (i64, Option<Arc<PageCredentials>>)>,
}

impl PageTokens {
    /// The given tokens; those of the database come with the first [`PageTokens::refresh`].
    #[must_use]
    pub fn new(pool: PgPool, keys: Keys, given: &HashMap<String, SecretString>) -> Self {
        let credentials = |(id, token): (&String, &SecretString)| {
            (id.clone(), Arc::new(PageCredentials { page_id: PageId::new(id.clone()), token: token.clone() }))
        };
        Self { pool, keys, given: Arc::new(given.iter().map(credentials).collect()), connected: Arc::default() }
    }

    /// A Page's token: the connected one, else the given one.
    #[must_use]
    pub fn get(&self, page_id: &str) -> Option<Arc<PageCredentials>> {
        let connected = self.connected.load();
        let found = connected.tokens.get(page_id).and_then(|(_, token)| token.clone());
        found.or_else(|| self.given.get(page_id).cloned())
    }

    /// As [`PageTokens::get`], asking the database before saying that there is none.
    pub async fn find(&self, page_id: &str) -> Option<Arc<PageCredentials>> {
        if let Some(found) = self.get(page_id) {
            return Some(found);
        }
        self.refresh_quietly().await;
        self.get(page_id)
    }

    /// Whether this is still the Page's token; the database is asked first.
    pub async fn is_current(&self, used: &PageCredentials) -> bool {
        self.refresh_quietly().await;
        let now = self.get(used.page_id.as_str());
        now.is_some_and(|now| now.token.expose_secret() == used.token.expose_secret())
    }

    /// Whether a Page's token came with the settings.
    #[must_use]
    pub fn is_given(&self, page_id: &str) -> bool {
        self.given.contains_key(page_id)
    }

    /// How many Pages have a token here.
    #[must_use]
    pub fn pages(&self) -> usize {
        let connected = self.connected.load();
        connected.tokens.len() + self.given.keys().filter(|page| !connected.tokens.contains_key(*page)).count()
    }

    /// Takes over what changed in the database.
    ///
    /// # Errors
    /// When the database fails; the tokens stay as they were.
    pub async fn refresh(&self) -> sqlx::Result<()> {
        let versions = db::page_tokens::versions(&self.pool).await?;
        let before = self.connected.load_full();
        let is_new =
            |(page, version): &&(String, i64)| before.tokens.get(page).map(|(known, _)| known) != Some(version);
        let changed: Vec<String> = versions.iter().filter(is_new).map(|(page, _)| page.clone()).collect();
        if changed.is_empty() && versions.len() == before.tokens.len() {
            return Ok(());
        }
        let mut tokens: HashMap<_, _> =
            versions.iter().filter_map(|(page, _)| Some((page.clone(), before.tokens.get(page)?.clone()))).collect();
        for stored in db::page_tokens::of_pages(&self.pool, &changed).await? {
            let wrapped = Wrapped { key_id: stored.key_id, sealed: stored.sealed };
            let token = open(&self.keys, &stored.page_id, &wrapped)
                .inspect_err(|error| {
                    tracing::error!(%error, page = stored.page_id, "a Page's stored token cannot be opened; connect the Page again");
                })
                .ok();
            let credentials =
                token.map(|token| Arc::new(PageCredentials { page_id: PageId::new(stored.page_id.clone()), token }));
            tokens.insert(stored.page_id, (stored.version, credentials));
        }
        self.connected.store(Arc::new(Connected { tokens }));
        tracing::debug!(changed = changed.len(), "Page tokens were read again");
        Ok(())
    }

    async fn refresh_quietly(&self) {
        if let Err(error) = db::in_time(self.refresh()).await {
            tracing::warn!(%error, "Page tokens could not be read again");
        }
    }

    /// Keeps the store fresh until `stop` is cancelled.
    pub fn start(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let (store, stop) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            while pause(REFRESH_EVERY, &stop).await {
                if let Err(error) = db::in_time(store.refresh()).await {
                    tracing::debug!(%error, "Page tokens could not be read again");
                }
            }
        });
    }

    /// Wraps a token for the database.
    ///
    /// # Errors
    /// When the system's random numbers fail.
    pub fn wrap(&self, page_id: &str, token: &SecretString) -> Result<Wrapped, KeyError> {
        self.keys.ring().wrap(&binding(&[page_id]), token.expose_secret().as_bytes())
    }
}

fn binding<'a>(ids: &'a [&'a str]) -> Binding<'a> {
    Binding { purpose: PURPOSE, version: 1, ids }
}

fn open(keys: &Keys, page_id: &str, wrapped: &Wrapped) -> Result<SecretString, KeyError> {
    let bytes = keys.ring().unwrap(&binding(&[page_id]), wrapped)?;
    Ok(SecretString::from(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Wraps tokens again under the current key, at most `limit`. Returns how many.
///
/// # Errors
/// See [`KeyError`].
pub async fn rewrap_tokens(keys: &Keys, pool: &PgPool, limit: i64) -> Result<u64, KeyError> {
    let mut tx = pool.begin().await?;
    let stored = db::page_tokens::not_under(&mut *tx, keys.ring().current(), limit).await?;
    for token in &stored {
        let wrapped = Wrapped { key_id: token.key_id.clone(), sealed: token.sealed.clone() };
        let again = keys.ring().rewrap(&binding(&[&token.page_id]), &wrapped)?;
        db::page_tokens::rewrap(&mut *tx, &token.page_id, &again).await?;
    }
    tx.commit().await?;
    Ok(stored.len() as u64)
}

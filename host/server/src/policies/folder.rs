//! The folder of a chain: read it when it may have changed, and publish what is new in it.
//!
//! What a folder holds now is compared with three things, by the hash of its content:
//!
//! | the folder holds | then |
//! |---|---|
//! | what this process has judged already | nothing: it is no news |
//! | what folders published last | nothing: the row says what serves, perhaps another revision by a person's word |
//! | at the start: what was published before and replaced since | it is stale: the row counts, and the status says so |
//! | anything else | it is published |
//!
//! So a change that this process *sees* counts, also one back to earlier content; a restart alone brings nothing back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use frontdesk_policy_bundle::BundleError;
use frontdesk_policy_engine::Bundle;

use super::moves::{By, FromFolder, Times};
use super::rollout::short;
use super::slots::Slots;
use super::{Policies, PolicyError, Rejection, Serving, bundle};
use crate::db;

/// Longest time for a publication: the gate alone may be allowed ten minutes.
const PUBLISH_MAX: Duration = Duration::from_secs(900);
/// A folder that keeps changing is looked at again after so many readings.
const SETTLE_READINGS_MAX: usize = 50;

/// What is to be done about a folder's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// This process has judged it.
    Judged,
    /// It is what folders published last.
    Current,
    /// It was published before, and replaced since.
    Stale,
    New,
}

fn weigh(seen: Option<&str>, found: &str, last: Option<&str>, was_published: bool, serves: bool) -> Content {
    if seen == Some(found) {
        Content::Judged
    } else if !serves {
        Content::New
    } else if last == Some(found) {
        Content::Current
    } else if seen.is_none() && was_published {
        Content::Stale
    } else {
        Content::New
    }
}

impl Policies {
    /// Publishes what is new in a chain's folder.
    pub(super) async fn reconcile_folder(&self, chain: &str) {
        let started = Instant::now();
        let mut times = Times::default();
        let (bundle, hash) = match self.read_settled(chain, &mut times).await {
            Ok(read) => read,
            Err(error) => return self.refuse_folder(chain, None, &error).await,
        };
        self.folder_is_readable(chain, &hash);
        let content = match db::in_time(self.weigh(chain, &hash)).await {
            Ok(content) => content,
            Err(error) => {
                tracing::warn!(%error, chain, "the folder waits: the database does not say what was published");
                return;
            }
        };
        match content {
            Content::Judged => {}
            Content::Current | Content::Stale if self.current(chain).is_none() => {
                self.stand_in(chain, bundle, hash).await;
            }
            Content::Current => self.folder_is_good(chain, hash, None),
            Content::Stale => {
                let note = "the folder holds what was published before and replaced since; it is not used until its \
                            content changes (`policyctl publish` takes it as it is)";
                tracing::warn!(chain, content_sha256 = hash, "{note}");
                self.folder_is_good(chain, hash, Some(note.to_owned()));
            }
            Content::New => match self.publish_folder(chain, bundle, &hash, &mut times).await {
                Ok(revision) => {
                    let Times { read_ms, settle_ms, stage_ms, store_ms, gate_ms, activate_ms } = times;
                    let total_ms = started.elapsed().as_millis();
                    times.count();
                    // As numbers: a log has no integers of 128 bits.
                    let [read_ms, settle_ms, stage_ms, store_ms, gate_ms, activate_ms, total_ms] =
                        [read_ms, settle_ms, stage_ms, store_ms, gate_ms, activate_ms, total_ms]
                            .map(|taken| u64::try_from(taken).unwrap_or(u64::MAX));
                    tracing::info!(
                        chain,
                        revision = short(&revision),
                        read_ms,
                        settle_ms,
                        stage_ms,
                        store_ms,
                        gate_ms,
                        activate_ms,
                        total_ms,
                        "the folder was published"
                    );
                    self.folder_is_good(chain, hash, None);
                }
                Err(error) => self.refuse_folder(chain, Some(hash), &error).await,
            },
        }
    }

    async fn weigh(&self, chain: &str, found: &str) -> sqlx::Result<Content> {
        let seen = self.seen(chain);
        if seen.as_deref() == Some(found) {
            return Ok(Content::Judged);
        }
        let row = db::rollouts::get(&self.inner.pool, chain).await?;
        let serves = row.is_some_and(|row| row.active.is_some());
        let (last, was_published) = db::revisions::publications(&self.inner.pool, chain, found).await?;
        Ok(weigh(seen.as_deref(), found, last.as_deref(), was_published, serves))
    }

    async fn publish_folder(
        &self,
        chain: &str,
        bundle: Bundle,
        hash: &str,
        times: &mut Times,
    ) -> Result<String, PolicyError> {
        let replica = self.inner.replica.clone();
        let by = By { actor: &replica, reason: "the folder changed", forced: false };
        let folder = Some(FromFolder { content_sha256: hash });
        // Boxed: the compiler gives up on futures that are nested as deep as this one.
        let taken = Box::pin(self.take(chain, bundle, None, by, folder, times));
        let taken = tokio::time::timeout(PUBLISH_MAX, taken).await;
        let moved = taken.map_err(|_| PolicyError::Silent { waited_s: PUBLISH_MAX.as_secs() })??;
        Ok(moved.revision)
    }

    /// The row names a revision that cannot be staged here, nor the one before it: what the folder holds serves this
    /// replica's turns, rather than nothing, until the row can be followed. The row stays as it is.
    async fn stand_in(&self, chain: &str, bundle: Bundle, hash: String) {
        let staged = async {
            self.inner.provenance.check(chain, &bundle)?;
            let staged = self.stage(bundle.clone()).await?;
            // A decision must be able to name what made it.
            let (pool, actor) = (&self.inner.pool, &self.inner.replica);
            bundle::store(pool, chain, &bundle, &staged, actor, "stands in for what cannot be staged").await?;
            Ok::<_, PolicyError>(staged)
        };
        let revision = match Box::pin(staged).await {
            Ok(revision) => revision,
            Err(error) => return self.refuse_folder(chain, Some(hash), &error).await,
        };
        let note = format!("revision {} of the folder stands in for what the row names", short(revision.id().as_str()));
        tracing::error!(chain, revision = revision.id().short(), "{note}");
        {
            let chains = self.lock();
            let slots = self.slots(chain);
            if slots.active.is_none() {
                let active = Some(Arc::new(Serving { revision, since: Utc::now(), origin: "folder" }));
                self.store_slots(chain, Slots { active, ..Slots::clone(&slots) });
            }
            drop(chains);
        }
        self.folder_is_good(chain, hash, Some(note));
    }

    fn seen(&self, chain: &str) -> Option<String> {
        self.lock().get(chain).and_then(|known| known.seen.clone())
    }

    /// Trouble with other content, or with none, is over.
    fn folder_is_readable(&self, chain: &str, hash: &str) {
        if let Some(known) = self.lock().get_mut(chain) {
            known.trouble.take_if(|trouble| trouble.content_sha256.as_deref() != Some(hash));
        }
    }

    fn folder_is_good(&self, chain: &str, hash: String, note: Option<String>) {
        let mut chains = self.lock();
        let known = chains.entry(chain.to_owned()).or_default();
        known.seen = Some(hash);
        (known.rejected, known.trouble) = (None, None);
        known.folder = note;
    }

    async fn refuse_folder(&self, chain: &str, hash: Option<String>, error: &PolicyError) {
        let (reason, code) = (error.describe(), error.code().into_owned());
        let rejection =
            Rejection { at: Utc::now(), content_sha256: hash.clone(), code: code.clone(), reason: reason.clone() };
        {
            let mut chains = self.lock();
            let known = chains.entry(chain.to_owned()).or_default();
            // The same failure again is not news; another one is.
            let is_known = |said: &Option<Rejection>| {
                said.as_ref().is_some_and(|it| it.reason == reason && it.content_sha256 == hash)
            };
            let is_known = is_known(&known.trouble) || is_known(&known.rejected);
            if is_content_to_blame(error) {
                known.seen = Some(hash.clone().unwrap_or_else(|| format!("no chain: {reason}")));
                (known.rejected, known.trouble) = (Some(rejection), None);
            } else {
                // It is tried again. What was said of the content before stays true.
                known.trouble = Some(rejection);
            }
            if is_known {
                return;
            }
        }
        count_rejection(chain, code.clone());
        tracing::error!(
            chain,
            code = code.as_str(),
            reason,
            "a policy candidate was rejected; the old revision serves on"
        );
        // The gate's refusal is noted with its revision.
        if matches!(error, PolicyError::Gate { .. }) {
            return;
        }
        let (pool, actor) = (&self.inner.pool, &self.inner.replica);
        let named = format!("{code}: {reason}");
        if let Err(error) = db::revisions::note_rejected(pool, chain, hash.as_deref(), actor, &named).await {
            tracing::warn!(%error, chain, "the rejection could not be stored");
        }
    }

    /// Reads until two readings agree.
    async fn read_settled(&self, chain: &str, times: &mut Times) -> Result<(Bundle, String), PolicyError> {
        let started = Instant::now();
        let mut last = self.read(chain).await?;
        times.read_ms = started.elapsed().as_millis();
        if self.seen(chain).as_deref() == Some(last.1.as_str()) {
            return Ok(last);
        }
        for _ in 0..SETTLE_READINGS_MAX {
            tokio::time::sleep(self.inner.settle).await;
            let again = self.read(chain).await?;
            times.settle_ms = started.elapsed().as_millis() - times.read_ms;
            if again.1 == last.1 {
                return Ok(again);
            }
            last = again;
        }
        Err(PolicyError::Unsettled { chain: chain.to_owned() })
    }

    async fn read(&self, chain: &str) -> Result<(Bundle, String), PolicyError> {
        bundle::read(&self.inner.pool, &self.inner.provenance, &self.inner.dir, chain).await
    }
}

/// Counts a refusal by its name.
pub(super) fn count_rejection(chain: &str, code: String) {
    metrics::counter!("frontdesk_policy_rejections_total", "chain" => chain.to_owned(), "reason" => code).increment(1);
}

/// Whether the same content will be refused again, so that it counts as judged. A file that cannot be read for the moment
/// (it is being replaced, the disk has a fault) says nothing about the content; else one hiccup would make what the folder
/// held before look like news.
fn is_content_to_blame(error: &PolicyError) -> bool {
    !error.may_heal() && !matches!(error, PolicyError::Bundle { source: BundleError::Read { .. } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hiccup_is_not_held_against_the_content() {
        let io = |kind| BundleError::Read { path: "chain.toml".into(), source: std::io::Error::from(kind) };
        for (error, expected) in [
            (PolicyError::from(io(std::io::ErrorKind::NotFound)), false),
            (PolicyError::from(sqlx::Error::PoolTimedOut), false),
            (PolicyError::UnknownDigest { digest: "ab".to_owned() }, false),
            (PolicyError::from(BundleError::NotText { path: "a.toml".into() }), true),
            (PolicyError::Quarantined { revision: "ab".to_owned() }, true),
        ] {
            assert_eq!(is_content_to_blame(&error), expected, "{error}");
        }
    }

    /// Else a component that makes the host panic would do so with every look at its folder.
    #[tokio::test]
    async fn a_panic_is_held_against_the_content_and_a_shutdown_is_not() {
        let panicked = PolicyError::from(tokio::spawn(async { panic!("a bug") }).await.unwrap_err());
        assert!(is_content_to_blame(&panicked), "{panicked}");
        assert_eq!(panicked.code(), "host-panic");
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        let cancelled = PolicyError::from(task.await.unwrap_err());
        assert!(!is_content_to_blame(&cancelled), "{cancelled}");
        assert!(is_content_to_blame(&PolicyError::StageSlow { waited_s: 300 }));
    }

    #[test]
    fn a_change_that_is_seen_counts_and_a_restart_brings_nothing_back() {
        // What was judged, what is found, what was published last, whether this ever was, whether anything serves.
        let cases = [
            // A first start, and a start with what is published.
            (None, "a", None, false, false, Content::New),
            (None, "a", Some("a"), true, true, Content::Current),
            // A start with something new, and one with something old.
            (None, "b", Some("a"), false, true, Content::New),
            (None, "a", Some("b"), true, true, Content::Stale),
            // While it runs: no news; another replica was faster; a change; a change back.
            (Some("a"), "a", Some("b"), true, true, Content::Judged),
            (Some("a"), "b", Some("b"), true, true, Content::Current),
            (Some("a"), "b", Some("a"), false, true, Content::New),
            (Some("b"), "a", Some("b"), true, true, Content::New),
            // Where nothing serves, anything is better.
            (None, "a", Some("b"), true, false, Content::New),
            (None, "a", Some("a"), true, false, Content::New),
        ];
        for (seen, found, last, was_published, serves, expected) in cases {
            assert_eq!(weigh(seen, found, last, was_published, serves), expected, "{seen:?} {found} {last:?}");
        }
    }
}

//! Judging a candidate before it serves: the chain's golden cases, then the newest recorded decisions. The thresholds and
//! the verdict are `policy_engine::gate`'s; here are the I/O and the clock.
//!
//! The gate runs behind the turns, on a thread of lower priority and one call at a time, so that it takes one instance of the pool at
//! most, and of the processors what the turns leave. A call there may miss a deadline that it would keep in a turn: what does not
//! pass is judged once more at the turns' own priority, and that counts. Decisions are bounded in number and time; the golden cases,
//! which the author can count, in time alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use frontdesk_policy_engine::cases::{self, Subject};
use frontdesk_policy_engine::gate::{Golden, Judged, Replays, SHOWN_MAX, Verdict};
use frontdesk_policy_engine::{RecordedTurn, Revision, replay};
use futures::future::BoxFuture;

use super::PolicyError;
use crate::background::{self, BackgroundError};
use crate::records::{Decision, Records};

/// Golden cases that take longer than this do not hold.
const GOLDEN_MAX: Duration = Duration::from_secs(30);

/// Recorded decisions that are held at once: each may have some hundred KiB.
const PAGE_RECORDS: u32 = 50;
/// Longest wait for so many of them; after that the candidate is tried again later.
const FETCH_MAX: Duration = Duration::from_secs(10);
/// The least number of decisions may take so many times as long as all of them may.
const SLOW_FACTOR: u32 = 10;

/// Asks questions of a candidate on the real knowledge; see `crate::golden`.
pub trait Examiner: Send + Sync {
    fn examine<'a>(
        &'a self,
        chain: &'a str,
        candidate: Arc<Revision>,
        active: Option<Arc<Revision>>,
    ) -> BoxFuture<'a, Examination>;
}

/// What an examination found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examination {
    /// What is worse than before.
    pub problems: Vec<String>,
    /// Whether they count as failures of the candidate, or as warnings.
    pub refused: bool,
}

/// What a candidate is judged by, and beside what.
#[derive(Clone)]
pub struct Trial {
    pub records: Records,
    pub chain: String,
    pub candidate: Arc<Revision>,
    /// The golden cases: files by path.
    pub cases: BTreeMap<String, String>,
    pub active: Option<Arc<Revision>>,
}

/// Where a candidate's calls are made.
#[derive(Debug, Clone, Copy)]
enum Place {
    Behind,
    Beside,
}

impl Place {
    async fn run<T: Send + 'static>(
        self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, BackgroundError> {
        match self {
            Self::Behind => background::run_future("policy-gate", work).await,
            Self::Beside => Ok(work.await),
        }
    }
}

impl Trial {
    /// Judges the candidate against what serves now.
    pub async fn judge(&self, examiner: Option<&Arc<dyn Examiner>>) -> Result<Verdict, PolicyError> {
        let started = Instant::now();
        let spec = &self.candidate.spec().gate;
        let mut golden = self.golden(Place::Behind).await?;
        if golden.failed > 0 || golden.unreadable.is_some() {
            golden = self.golden(Place::Beside).await?;
        }
        let mut warnings = Vec::new();
        if let Some(examiner) = examiner {
            let (candidate, active) = (Arc::clone(&self.candidate), self.active.clone());
            let examined = examiner.examine(&self.chain, candidate, active).await;
            if examined.refused {
                let count = u32::try_from(examined.problems.len()).unwrap_or(u32::MAX);
                golden.cases += count;
                golden.failed += count;
                let room = SHOWN_MAX.saturating_sub(golden.failures.len());
                golden.failures.extend(examined.problems.into_iter().take(room));
            } else {
                warnings = examined.problems;
            }
        }
        let elapsed_ms = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A candidate that fails its own cases is refused whatever the recorded decisions say.
        let mut verdict = if golden.failed > spec.golden_failures_max || golden.unreadable.is_some() {
            Verdict::of(spec, golden, Replays::default(), elapsed_ms())
        } else {
            let replays = self.replays(Place::Behind).await?;
            let verdict = Verdict::of(spec, golden.clone(), replays, elapsed_ms());
            match verdict.passed {
                true => verdict,
                false => Verdict::of(spec, golden, self.replays(Place::Beside).await?, elapsed_ms()),
            }
        };
        verdict.warnings.extend(warnings.into_iter().map(|problem| format!("a golden question: {problem}")));
        let passed = if verdict.passed { "true" } else { "false" };
        metrics::counter!("frontdesk_policy_gate_total", "chain" => self.chain.clone(), "passed" => passed)
            .increment(1);
        for warning in &verdict.warnings {
            tracing::warn!(chain = self.chain, revision = self.candidate.id().short(), warning, "the gate warns");
        }
        Ok(verdict)
    }

    async fn golden(&self, place: Place) -> Result<Golden, BackgroundError> {
        let (candidate, cases) = (Arc::clone(&self.candidate), self.cases.clone());
        place.run(async move { golden(&candidate, &cases).await }).await
    }

    async fn replays(&self, place: Place) -> Result<Replays, PolicyError> {
        let replay_last = self.candidate.spec().gate.replay_last;
        let mut so_far = SoFar::default();
        let mut from = None;
        while so_far.read < replay_last {
            // Fetching has a time of its own: a busy host must not judge less for that.
            let page = (replay_last - so_far.read).min(PAGE_RECORDS);
            let fetched = tokio::time::timeout(FETCH_MAX, self.records.latest_before(&self.chain, from, page)).await;
            let (decisions, next) = fetched.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut))?;
            let (candidate, active) = (Arc::clone(&self.candidate), self.active.clone());
            so_far = place.run(so_far.and(decisions, candidate, active)).await?;
            if so_far.is_over {
                let known = self.records.count(&self.chain, replay_last).await?;
                so_far.replays.skipped = known.saturating_sub(so_far.read);
                break;
            }
            if next.is_none() {
                break;
            }
            from = next;
        }
        Ok(so_far.replays)
    }
}

async fn golden(candidate: &Revision, texts: &BTreeMap<String, String>) -> Golden {
    let deadline = Instant::now() + GOLDEN_MAX;
    let mut golden = Golden::default();
    for (path, text) in texts {
        let file = match cases::parse(path, text) {
            Ok(file) => file,
            Err(problem) => {
                golden.unreadable = Some(problem);
                return golden;
            }
        };
        for index in 0..file.cases.len() {
            if Instant::now() > deadline {
                golden.unreadable = Some(format!("they take longer than {} s", GOLDEN_MAX.as_secs()));
                return golden;
            }
            golden.cases += 1;
            let failure = match file.judge(index, Subject::Chain(candidate)).await {
                Ok(result) if result.problems.is_empty() => None,
                Ok(result) => {
                    let title = file.cases.get(index).map(cases::Case::title).unwrap_or_default();
                    let problems = result.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                    Some(format!("{path}, case {} ({title}): {problems}", index + 1))
                }
                Err(problem) => Some(problem),
            };
            if let Some(failure) = failure {
                golden.failed += 1;
                if golden.failures.len() < SHOWN_MAX {
                    golden.failures.push(failure);
                }
            }
        }
    }
    golden
}

/// Recorded decisions that were judged.
#[derive(Debug, Default)]
struct SoFar {
    replays: Replays,
    /// Decisions that were looked at.
    read: u32,
    judging: Duration,
    /// Their time is over.
    is_over: bool,
}

impl SoFar {
    /// Judges some more.
    async fn and(mut self, decisions: Vec<Decision>, candidate: Arc<Revision>, active: Option<Arc<Revision>>) -> Self {
        let spec = &candidate.spec().gate;
        let allowed = Duration::from_millis(spec.replay_ms_max);
        for Decision { turn_id, record, .. } in decisions {
            self.read += 1;
            // Of a version that is not read any more.
            let Ok(recorded) = serde_json::from_value::<RecordedTurn>(record) else { continue };
            let started = Instant::now();
            let judged = Judged::from(&replay(&candidate, &recorded).await);
            let now = match &active {
                Some(active) if recorded.revision_id().as_deref() != Some(active.id().as_str()) => {
                    Judged::from(&replay(active, &recorded).await)
                }
                _ => Judged::from(&recorded),
            };
            self.replays.add(&turn_id.to_string(), &now, &judged);
            self.judging += started.elapsed();
            // As few as a verdict needs are judged on a slow host, too.
            let patience = if self.replays.records < spec.replay_min { allowed * SLOW_FACTOR } else { allowed };
            if self.judging > patience {
                self.is_over = true;
                break;
            }
            tokio::task::yield_now().await;
        }
        self
    }
}

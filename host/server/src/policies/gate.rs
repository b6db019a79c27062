//! Judging a candidate before it serves: the chain's golden cases, then the newest recorded decisions. The thresholds and
//! the verdict are `policy_engine::gate`'s; here are the I/O and the clock.
//!
//! The gate runs beside the turns, one call at a time, so that it takes one instance of the pool at most. Its decisions are
//! bounded in number and time; the golden cases, which the author can count, in time alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use frontdesk_policy_engine::cases::{self, Subject};
use frontdesk_policy_engine::gate::{Golden, Judged, Replays, SHOWN_MAX, Verdict};
use frontdesk_policy_engine::{RecordedTurn, Revision, replay};
use futures::future::BoxFuture;

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

/// Judges a candidate against what serves now.
pub async fn judge(
    records: &Records,
    chain: &str,
    candidate: &Arc<Revision>,
    cases: &BTreeMap<String, String>,
    active: Option<&Arc<Revision>>,
    examiner: Option<&Arc<dyn Examiner>>,
) -> sqlx::Result<Verdict> {
    let started = Instant::now();
    let spec = &candidate.spec().gate;
    let mut golden = golden(candidate, cases).await;
    let mut warnings = Vec::new();
    if let Some(examiner) = examiner {
        let examined = examiner.examine(chain, Arc::clone(candidate), active.cloned()).await;
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
    // A candidate that fails its own cases is refused whatever the recorded decisions say.
    let replays = if golden.failed > spec.golden_failures_max || golden.unreadable.is_some() {
        Replays::default()
    } else {
        replays(records, chain, candidate, active.map(Arc::as_ref)).await?
    };
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut verdict = Verdict::of(spec, golden, replays, elapsed_ms);
    verdict.warnings.extend(warnings.into_iter().map(|problem| format!("a golden question: {problem}")));
    let passed = if verdict.passed { "true" } else { "false" };
    metrics::counter!("frontdesk_policy_gate_total", "chain" => chain.to_owned(), "passed" => passed).increment(1);
    for warning in &verdict.warnings {
        tracing::warn!(chain, revision = candidate.id().short(), warning, "the gate warns");
    }
    Ok(verdict)
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

async fn replays(
    records: &Records,
    chain: &str,
    candidate: &Revision,
    active: Option<&Revision>,
) -> sqlx::Result<Replays> {
    let spec = &candidate.spec().gate;
    let mut replays = Replays::default();
    let allowed = Duration::from_millis(spec.replay_ms_max);
    let (mut read, mut place, mut judging) = (0_u32, None, Duration::ZERO);
    while read < spec.replay_last {
        // Fetching has a time of its own: a busy host must not judge less for that.
        let page = (spec.replay_last - read).min(PAGE_RECORDS);
        let fetched = tokio::time::timeout(FETCH_MAX, records.latest_before(chain, place, page)).await;
        let (decisions, next) = fetched.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut))?;
        for Decision { turn_id, record, .. } in decisions {
            read += 1;
            // Of a version that is not read any more.
            let Ok(recorded) = serde_json::from_value::<RecordedTurn>(record) else { continue };
            let started = tokio::time::Instant::now();
            let judged = Judged::from(&replay(candidate, &recorded).await);
            let now = match active {
                Some(active) if recorded.revision_id().as_deref() != Some(active.id().as_str()) => {
                    Judged::from(&replay(active, &recorded).await)
                }
                _ => Judged::from(&recorded),
            };
            replays.add(&turn_id.to_string(), &now, &judged);
            judging += started.elapsed();
            // As few as a verdict needs are judged on a slow host, too.
            let patience = if replays.records < spec.replay_min { allowed * SLOW_FACTOR } else { allowed };
            if judging > patience {
                replays.skipped = records.count(chain, spec.replay_last).await?.saturating_sub(read);
                return Ok(replays);
            }
            tokio::task::yield_now().await;
        }
        if next.is_none() {
            break;
        }
        place = next;
    }
    Ok(replays)
}

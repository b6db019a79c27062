//! Golden questions before and after a change that no customer has seen yet.

use std::sync::Arc;

use frontdesk_policy_engine::Revision;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{GoldenError, GoldenFile, GoldenFileError, Goldens, Report, Strictness};
use crate::knowledge::{Knowledge, KnowledgeError, Staged};
use crate::pipeline::Stage;
use crate::policies::{Examination, Examiner};

/// Regressions that are named.
const NAMED_MAX: usize = 10;

/// What the goldens say of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// What went well before and does not after, or why the questions could not be asked.
    pub problems: Vec<String>,
    /// Whether the change must not be made.
    pub refused: bool,
    /// Whether the questions were answered; false: the problem says why not.
    pub were_asked: bool,
}

/// What a change of knowledge came to.
#[derive(Debug)]
pub enum KnowledgeChange<T> {
    /// It is made; `warnings` say what went well before.
    Made { value: T, warnings: Vec<String> },
    /// It was taken back before anybody saw it; `were_asked`: because of answers, and not because none could be had.
    Refused { problems: Vec<String>, were_asked: bool },
}

impl Goldens {
    /// Whether changes of knowledge are tried on golden questions.
    pub fn guard_knowledge(&self) -> bool {
        self.settings.on_knowledge != Strictness::Off && !self.settings.file.as_os_str().is_empty()
    }

    /// Makes a change of knowledge if the goldens allow it. `change` gets the knowledge to make it on.
    pub async fn admit<T, E>(
        &self,
        page_id: Option<&str>,
        subject: &str,
        actor: &str,
        change: impl for<'a> FnOnce(&'a Knowledge) -> BoxFuture<'a, Result<T, E>> + Send,
    ) -> Result<KnowledgeChange<T>, E>
    where
        T: Send,
        E: From<KnowledgeError> + Send,
    {
        if !self.guard_knowledge() {
            return Ok(KnowledgeChange::Made { value: change(&self.knowledge).await?, warnings: Vec::new() });
        }
        let _turn = self.turn.lock().await;
        let staged = Staged::begin(&self.knowledge).await?;
        let value = change(&staged.knowledge).await?;
        let admission = self.judge_knowledge(page_id, subject, actor, &staged).await;
        if admission.refused {
            staged.undo().await?;
            let Admission { problems, were_asked, .. } = admission;
            return Ok(KnowledgeChange::Refused { problems, were_asked });
        }
        staged.commit().await?;
        Ok(KnowledgeChange::Made { value, warnings: admission.problems })
    }

    async fn judge_knowledge(&self, page_id: Option<&str>, subject: &str, actor: &str, staged: &Staged) -> Admission {
        let asked = async {
            let file = self.file().await?;
            let before = self.stage(page_id).await?;
            let after = Stage { knowledge: Arc::clone(&staged.knowledge), ..before.clone() };
            self.regressions(&before, &after, &file, ("knowledge", subject, actor)).await
        };
        verdict(self.settings.on_knowledge, asked.await, "knowledge", subject)
    }

    /// What goes well on `before` and does not on `after`.
    async fn regressions(
        &self,
        before: &Stage,
        after: &Stage,
        file: &GoldenFile,
        (occasion, subject, actor): (&str, &str, &str),
    ) -> Result<Vec<String>, GoldenError> {
        let was = self.ask(before, file).await?;
        let is: Report = self.ask(after, file).await?;
        self.keep(&is, occasion, subject, actor).await?;
        Ok(is.compared(&was).regressed)
    }

    async fn file(&self) -> Result<GoldenFile, GoldenError> {
        let path = &self.settings.file;
        let text = tokio::fs::read_to_string(path).await.map_err(|error| GoldenFileError::Unreadable {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        Ok(GoldenFile::parse(&text)?)
    }

    async fn judge_revision(&self, chain: &str, candidate: Arc<Revision>, active: Option<Arc<Revision>>) -> Admission {
        let _turn = self.turn.lock().await;
        let asked = async {
            let file = self.file().await?;
            let pages = crate::db::pages::list(&self.pool).await?;
            // Without a Page on this chain, or a revision to compare with, there is nothing that could get worse.
            let (Some(page), Some(active)) = (pages.into_iter().find(|page| page.chain == chain), active) else {
                return Ok(Vec::new());
            };
            let before = Stage {
                page,
                knowledge: Arc::clone(&self.knowledge),
                drafter: Arc::clone(&self.drafter),
                revision: active,
                passages_max: self.passages_max,
                now: self.clock.now(),
            };
            let subject = candidate.id().short().to_owned();
            let after = Stage { revision: candidate, ..before.clone() };
            self.regressions(&before, &after, &file, ("policy", &subject, "")).await
        };
        verdict(self.settings.on_policy, asked.await, "policy", chain)
    }
}

/// What was found, in the light of how strict the setting is.
fn verdict(
    strictness: Strictness,
    asked: Result<Vec<String>, GoldenError>,
    occasion: &'static str,
    subject: &str,
) -> Admission {
    let were_asked = asked.is_ok();
    let mut problems = match asked {
        Ok(regressed) => regressed,
        Err(error) => vec![format!("the golden questions could not be asked: {error}")],
    };
    let found = problems.len();
    problems.truncate(NAMED_MAX);
    if found > NAMED_MAX {
        problems.push(format!("and {} more", found - NAMED_MAX));
    }
    let refused = strictness == Strictness::Refuse && found > 0;
    if found > 0 {
        let outcome = if refused { "refused" } else { "warned" };
        metrics::counter!("frontdesk_golden_gate_total", "occasion" => occasion, "outcome" => outcome).increment(1);
        tracing::warn!(occasion, subject, regressions = found, outcome, "golden questions went better before");
    }
    Admission { problems, refused, were_asked }
}

impl Examiner for Goldens {
    fn examine<'a>(
        &'a self,
        chain: &'a str,
        candidate: Arc<Revision>,
        active: Option<Arc<Revision>>,
    ) -> BoxFuture<'a, Examination> {
        async move {
            if self.settings.on_policy == Strictness::Off || self.settings.file.as_os_str().is_empty() {
                return Examination::default();
            }
            let Admission { problems, refused, .. } = self.judge_revision(chain, candidate, active).await;
            Examination { problems, refused }
        }
        .boxed()
    }
}

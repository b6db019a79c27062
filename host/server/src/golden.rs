//! Golden questions: what the Page should answer, asked of the real pipeline, before customers ask it.
//!
//! A file of goldens ([`file`]) says for each question where it should go, what the answer must cite, hold and not hold, and in
//! which language it should be. A run ([`run`]) asks them all, follow-ups with the conversation so far, through the same steps
//! as a customer's turn (`pipeline::rehearse`); nothing is sent or stored but the report.
//!
//! # As a gate
//! With `golden.file` set, every change of knowledge and every policy revision is asked the same questions ([`gate`]): before and
//! after. What went well before and does not after is a regression; `golden.on_knowledge` and `golden.on_policy` say what it
//! means: nothing (`off`), a warning (`warn`), or that the change is refused (`refuse`). Knowledge is changed in a transaction
//! that only the questions see until they are answered, so a refused change was never there for a customer.
//!
//! A run asks the model that customers get, and costs its tokens.

pub mod file;
mod gate;
pub mod html;
mod run;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use crate::answer::Drafter;
use crate::clock::Clock;
use crate::db;
use crate::knowledge::Knowledge;
use crate::pipeline::{PipelineError, Stage};
use crate::policies::Policies;
use crate::settings::{GoldenSettings, Settings};

pub use file::{Golden, GoldenFile, GoldenFileError};
pub use gate::{Admission, KnowledgeChange};
pub use run::{CaseReport, Comparison, Report};

/// Runs that are kept for each Page.
const RUNS_KEPT: i64 = 500;

/// What a regression means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strictness {
    /// The questions are not asked.
    #[default]
    Off,
    /// It is logged, counted and stored.
    Warn,
    /// The change is refused.
    Refuse,
}

#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    #[error(transparent)]
    File(#[from] GoldenFileError),
    #[error("there is no Page {page_id:?}; GET /admin/pages lists them")]
    NoPage { page_id: String },
    #[error("no Page is configured, so there is nobody to ask; add [[pages]] to the settings or connect one")]
    NoPages,
    #[error("chain {chain:?} has no revision in service, so nothing can be asked; GET /admin/policies says why")]
    NoRevision { chain: String },
    #[error("a question could not be judged: {source}")]
    Pipeline {
        #[from]
        source: PipelineError,
    },
    #[error("the runs cannot be read or kept: {source}; check the database")]
    Database {
        #[from]
        source: sqlx::Error,
    },
    #[error("the answers took longer than golden.run_ms_max ({max_ms} ms); ask fewer questions, or allow more")]
    TooSlow { max_ms: u64 },
    #[error("there is no golden run {id}")]
    NoRun { id: Uuid },
    #[error("the stored report of run {id} cannot be read: {reason}")]
    Unreadable { id: Uuid, reason: String },
}

/// Asks golden questions. One per process.
#[derive(Clone)]
pub struct Goldens {
    pool: PgPool,
    knowledge: Arc<Knowledge>,
    drafter: Arc<dyn Drafter>,
    policies: Policies,
    clock: Clock,
    settings: GoldenSettings,
    passages_max: usize,
    /// One run at a time: it takes a model's time from customers.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl std::fmt::Debug for Goldens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Goldens").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Goldens {
    pub fn new(
        pool: PgPool,
        knowledge: Arc<Knowledge>,
        drafter: Arc<dyn Drafter>,
        policies: Policies,
        clock: Clock,
        settings: &Settings,
    ) -> Self {
        let passages_max = settings.knowledge.passages_max;
        let (settings, turn) = (settings.golden.clone(), Arc::default());
        Self { pool, knowledge, drafter, policies, clock, settings, passages_max, turn }
    }

    /// Asks all questions of `file` of what serves now, and keeps the report.
    pub async fn run(&self, page_id: Option<&str>, file: &GoldenFile, actor: &str) -> Result<Report, GoldenError> {
        let _turn = self.turn.lock().await;
        let stage = self.stage(page_id).await?;
        let report = self.ask(&stage, file).await?;
        self.keep(&report, "run", "", actor).await?;
        Ok(report)
    }

    /// The newest runs of a Page (or of all), newest first, without their cases.
    pub async fn runs(&self, page_id: Option<&str>, limit: i64) -> Result<Vec<db::golden::Run>, GoldenError> {
        Ok(db::golden::list(&self.pool, page_id, limit).await?)
    }

    /// A stored report.
    pub async fn report(&self, id: Uuid) -> Result<Report, GoldenError> {
        let stored = db::golden::report(&self.pool, id).await?.ok_or(GoldenError::NoRun { id })?;
        serde_json::from_value(stored).map_err(|error| GoldenError::Unreadable { id, reason: error.to_string() })
    }

    /// What serves now on a Page; the first Page when none is named.
    async fn stage(&self, page_id: Option<&str>) -> Result<Stage, GoldenError> {
        let page = match page_id {
            Some(page_id) => db::pages::get(&self.pool, page_id)
                .await?
                .ok_or_else(|| GoldenError::NoPage { page_id: page_id.to_owned() })?,
            None => db::pages::list(&self.pool).await?.into_iter().next().ok_or(GoldenError::NoPages)?,
        };
        let serving = self.policies.current(&page.chain);
        let serving = serving.ok_or_else(|| GoldenError::NoRevision { chain: page.chain.clone() })?;
        Ok(Stage {
            revision: Arc::clone(&serving.revision),
            knowledge: Arc::clone(&self.knowledge),
            drafter: Arc::clone(&self.drafter),
            passages_max: self.passages_max,
            now: self.clock.now(),
            page,
        })
    }

    async fn ask(&self, stage: &Stage, file: &GoldenFile) -> Result<Report, GoldenError> {
        let max_ms = self.settings.run_ms_max;
        // Boxed: the pipeline's future is large, and callers nest it in theirs.
        match tokio::time::timeout(Duration::from_millis(max_ms), Box::pin(run::ask(stage, file))).await {
            Ok(report) => report,
            Err(_) => Err(GoldenError::TooSlow { max_ms }),
        }
    }

    async fn keep(&self, report: &Report, occasion: &str, subject: &str, actor: &str) -> Result<(), GoldenError> {
        let stored = serde_json::to_value(report).unwrap_or_default();
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let run = db::golden::NewRun {
            id: report.id,
            occasion,
            subject,
            actor,
            page_id: &report.page_id,
            chain: &report.chain,
            revision: &report.revision,
            passed: count(report.passed()),
            failed: count(report.failed()),
            report: &stored,
        };
        db::golden::store(&self.pool, &run, RUNS_KEPT).await?;
        metrics::gauge!("frontdesk_golden_score", "page" => report.page_id.clone()).set(report.score());
        Ok(())
    }
}

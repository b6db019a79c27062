//! What models may cost: tokens of a turn, of a Page's day, and of the host's day.
//!
//! The tokens that a model reports are added up in `model_usage`, a row per day, Page and model, so that all replicas share
//! one budget and a restart forgets nothing. A day ends at midnight UTC. The budget is looked at before a model is asked and
//! charged afterwards: turns that run at the same moment may exceed it together, each by its own tokens, and no further.
//!
//! A turn beyond the budget is not lost: it is answered by quotation or by a person, as it is without any model.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use crate::answer::{DraftError, DraftOutcome, DraftRequest, Drafter};
use crate::clock::Clock;
use crate::db;

/// Tokens, prompt and answer together; 0: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelBudget {
    pub tokens_per_turn: u64,
    pub tokens_per_page_and_day: u64,
    pub tokens_per_day: u64,
    /// What answers when a day's budget is spent: quotations (true), or nobody, which hands over to a person.
    pub quote_when_spent: bool,
}

impl ModelBudget {
    fn limits_days(&self) -> bool {
        self.tokens_per_page_and_day > 0 || self.tokens_per_day > 0
    }

    /// Which of the day's limits is reached, by the tokens of the Page and of all.
    fn reached(&self, page: i64, all: i64) -> Option<&'static str> {
        let over = |limit: u64, used: i64| limit > 0 && used.unsigned_abs() >= limit;
        if over(self.tokens_per_page_and_day, page) {
            return Some("page");
        }
        over(self.tokens_per_day, all).then_some("day")
    }
}

/// A drafter that keeps to a budget.
#[derive(Debug)]
pub struct Budgeted {
    inner: Arc<dyn Drafter>,
    /// Answers when the budget of a day is spent.
    instead: Arc<dyn Drafter>,
    budget: ModelBudget,
    pool: PgPool,
    clock: Clock,
}

impl Budgeted {
    /// The clock tells which day it is.
    pub fn new(
        inner: Arc<dyn Drafter>,
        instead: Arc<dyn Drafter>,
        budget: ModelBudget,
        pool: PgPool,
        clock: Clock,
    ) -> Self {
        Self { inner, instead, budget, pool, clock }
    }

    async fn make(&self, request: &DraftRequest) -> Result<DraftOutcome, DraftError> {
        let max = self.budget.tokens_per_turn;
        let expected = request.tokens_expected();
        if max > 0 && expected > max {
            metrics::counter!("frontdesk_model_budget_refusals_total", "budget" => "turn").increment(1);
            return Err(DraftError::TurnBudget { expected, max });
        }
        let day = self.clock.now().date_naive();
        if self.budget.limits_days() {
            let spent = db::spending::of_day(&self.pool, day, &request.page_id);
            let (page, all) = db::in_time(spent).await.map_err(unknown)?;
            if let Some(budget) = self.budget.reached(page, all) {
                metrics::counter!("frontdesk_model_budget_refusals_total", "budget" => budget).increment(1);
                if self.budget.quote_when_spent {
                    return self.instead.draft(request).await;
                }
                return Err(DraftError::DayBudget { of: budget });
            }
        }
        // Further calls, such as for a translation, keep to the same limit.
        let limited = (max > 0).then(|| DraftRequest { tokens_max: max, ..request.clone() });
        let outcome = self.inner.draft(limited.as_ref().unwrap_or(request)).await?;
        let (model, prompt, completion) = match &outcome {
            DraftOutcome::Drafted(drafted) => (&drafted.model, drafted.prompt_tokens, drafted.completion_tokens),
            DraftOutcome::Declined(declined) => (&declined.model, declined.prompt_tokens, declined.completion_tokens),
        };
        if prompt > 0 || completion > 0 {
            let (prompt, completion) = (i64::from(prompt), i64::from(completion));
            let added = db::spending::add(&self.pool, day, &request.page_id, model, prompt, completion);
            if let Err(error) = db::in_time(added).await {
                // The answer is there and paid for; losing it would not give the tokens back.
                tracing::error!(%error, "the tokens of a model's answer could not be counted");
            }
        }
        Ok(outcome)
    }
}

/// Without knowing what was spent, nothing more is.
fn unknown(error: sqlx::Error) -> DraftError {
    DraftError::BudgetUnknown { reason: error.to_string() }
}

impl Drafter for Budgeted {
    fn draft<'a>(&'a self, request: &'a DraftRequest) -> BoxFuture<'a, Result<DraftOutcome, DraftError>> {
        self.make(request).boxed()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn asks_a_model(&self) -> bool {
        self.inner.asks_a_model()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_zero_is_none_and_a_reached_limit_is_named() {
        let budget =
            |page, day| ModelBudget { tokens_per_page_and_day: page, tokens_per_day: day, ..ModelBudget::default() };
        for (page_max, day_max, page, all, reached) in [
            (0, 0, i64::MAX, i64::MAX, None),
            (100, 0, 99, 500, None),
            (100, 0, 100, 500, Some("page")),
            (0, 500, 100, 500, Some("day")),
            (100, 500, 99, 499, None),
            (100, 500, 100, 500, Some("page")),
        ] {
            assert_eq!(budget(page_max, day_max).reached(page, all), reached, "{page_max} {day_max} {page} {all}");
        }
    }
}

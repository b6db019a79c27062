//! Several drafters in an order: when one cannot answer, the next is asked.
//!
//! Only a failure of the service passes on: a model that found no answer in the passages has answered. A prompt that is too
//! long for one is too long for all. The last one's error is what the turn sees.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{DraftError, DraftOutcome, DraftRequest, Drafter};

#[derive(Debug)]
pub(super) struct Fallback {
    first: Arc<dyn Drafter>,
    others: Vec<Arc<dyn Drafter>>,
}

impl Fallback {
    pub fn new(first: Arc<dyn Drafter>, others: Vec<Arc<dyn Drafter>>) -> Self {
        Self { first, others }
    }

    async fn make(&self, request: &DraftRequest) -> Result<DraftOutcome, DraftError> {
        let mut error = match self.first.draft(request).await {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        let mut failed = self.first.name();
        for next in &self.others {
            if matches!(error, DraftError::PromptTooLong { .. } | DraftError::TurnBudget { .. }) {
                break;
            }
            let names =
                [("from", failed.to_owned()), ("to", next.name().to_owned()), ("kind", error.kind().to_owned())];
            metrics::counter!("frontdesk_model_fallbacks_total", &names).increment(1);
            tracing::warn!(%error, from = failed, to = next.name(), "a model failed; the next one is asked");
            error = match next.draft(request).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            failed = next.name();
        }
        Err(error)
    }
}

impl Drafter for Fallback {
    fn draft<'a>(&'a self, request: &'a DraftRequest) -> BoxFuture<'a, Result<DraftOutcome, DraftError>> {
        self.make(request).boxed()
    }

    fn name(&self) -> &str {
        self.first.name()
    }

    fn asks_a_model(&self) -> bool {
        self.first.asks_a_model() || self.others.iter().any(|other| other.asks_a_model())
    }
}

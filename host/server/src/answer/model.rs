//! What both model adapters share: prompt, call, reading, evidence gate.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::evidence::{EvidenceSettings, gate};
use super::prompt::{self, Prompt};
use super::settings::EndpointSettings;
use super::{CitedSentence, Declined, DraftError, DraftOutcome, DraftRequest, Drafted, Drafter};
use crate::knowledge::Embedder;

/// Sampling and limits of one call.
#[derive(Debug, Clone)]
pub(super) struct Sampling {
    pub model: String,
    pub max_tokens: u32,
    pub temperature: f32,
}

/// What a service answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Completion {
    pub text: String,
    pub model: String,
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    /// Cut off at `max_tokens`: the last sentence may be half a sentence.
    pub truncated: bool,
    /// The service's own filter refused to answer.
    pub refused: bool,
}

/// A service's way of speaking.
pub(super) trait Wire: Send + Sync + fmt::Debug + 'static {
    const PROVIDER: &'static str;

    fn complete<'a>(
        &'a self,
        prompt: &'a Prompt,
        sampling: &'a Sampling,
    ) -> BoxFuture<'a, Result<Completion, DraftError>>;
}

#[derive(Debug)]
pub(super) struct ModelDrafter<W> {
    wire: W,
    name: String,
    sampling: Sampling,
    evidence: EvidenceSettings,
    embedder: Option<Arc<dyn Embedder>>,
    /// Prices of a million tokens, read and written.
    prices: (f64, f64),
}

impl<W: Wire> ModelDrafter<W> {
    pub fn new(wire: W, settings: &EndpointSettings, embedder: Option<Arc<dyn Embedder>>) -> Result<Self, DraftError> {
        let sampling = Sampling {
            model: settings.model.clone(),
            max_tokens: settings.max_tokens,
            temperature: settings.temperature,
        };
        let name = format!("{}/{}", W::PROVIDER, settings.model);
        let evidence = EvidenceSettings { support_min: settings.support_min };
        let prices = (settings.input_price, settings.output_price);
        Ok(Self { wire, name, sampling, evidence, embedder, prices })
    }

    async fn make(&self, request: &DraftRequest) -> Result<DraftOutcome, DraftError> {
        if request.passages.is_empty() {
            return Ok(self.declined("no passage was found", Completion::default(), String::new(), Vec::new()));
        }
        let prompt = prompt::build(request)?;
        let record = prompt.transcript();
        let temperature = request.temperature.unwrap_or(self.sampling.temperature).clamp(0.0, 2.0);
        let sampling = Sampling { temperature, ..self.sampling.clone() };
        let started = Instant::now();
        let completed = self.wire.complete(&prompt, &sampling).await;
        self.count(started, &completed);
        let completion = completed?;
        if completion.refused {
            return Ok(self.declined("the model refused to answer", completion, record, Vec::new()));
        }
        let Some(mut sentences) = prompt::read(&completion.text, &request.passages) else {
            return Ok(self.declined("the model found no answer in the passages", completion, record, Vec::new()));
        };
        if completion.truncated {
            sentences.pop();
        }
        let gated = gate(sentences, &request.passages, self.embedder.as_ref(), self.evidence).await?;
        if !gated.has_facts() {
            let reason = "nothing that the model wrote is carried by the passages";
            return Ok(self.declined(reason, completion, record, gated.cut));
        }
        let text = gated.kept.iter().map(|sentence| sentence.text.as_str()).collect::<Vec<_>>().join(" ");
        Ok(DraftOutcome::Drafted(Drafted {
            text,
            sentences: gated.kept,
            evidence: gated.evidence,
            model: completion.model,
            prompt_tokens: completion.prompt_tokens,
            completion_tokens: completion.completion_tokens,
            prompt: record,
            cut: gated.cut,
        }))
    }

    /// Calls by outcome, their time, and what they used.
    fn count(&self, started: Instant, completed: &Result<Completion, DraftError>) {
        let model = || ("model", self.name.clone());
        let outcome = completed.as_ref().map_or_else(DraftError::kind, |_| "answered");
        metrics::counter!("frontdesk_model_calls_total", &[model(), ("outcome", outcome.to_owned())]).increment(1);
        metrics::histogram!("frontdesk_model_seconds", &[model()]).record(started.elapsed().as_secs_f64());
        let Ok(Completion { prompt_tokens, completion_tokens, .. }) = completed else { return };
        for (kind, tokens) in [("prompt", *prompt_tokens), ("completion", *completion_tokens)] {
            metrics::counter!("frontdesk_model_tokens_total", &[model(), ("kind", kind.to_owned())])
                .increment(tokens.into());
        }
        let (input, output) = self.prices;
        let cost = (f64::from(*prompt_tokens) * input + f64::from(*completion_tokens) * output) / 1e6;
        metrics::gauge!("frontdesk_model_cost_total", &[model()]).increment(cost);
    }

    fn declined(&self, reason: &str, completion: Completion, prompt: String, cut: Vec<CitedSentence>) -> DraftOutcome {
        DraftOutcome::Declined(Declined {
            reason: reason.to_owned(),
            model: if completion.model.is_empty() { self.sampling.model.clone() } else { completion.model },
            prompt_tokens: completion.prompt_tokens,
            completion_tokens: completion.completion_tokens,
            prompt,
            cut,
        })
    }
}

impl<W: Wire> Drafter for ModelDrafter<W> {
    fn draft<'a>(&'a self, request: &'a DraftRequest) -> BoxFuture<'a, Result<DraftOutcome, DraftError>> {
        self.make(request).boxed()
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;

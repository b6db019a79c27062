//! What both model adapters share: prompt, call, reading, evidence gate, translation.
//!
//! A question is answered with one call where a passage is in the customer's language, or the gate can compare languages. Where
//! nothing of such an answer is carried, or it could not be compared, the answer is written in the passages' language, judged
//! there word by word, and then [translated](super::translation).

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::evidence::{EvidenceSettings, Gated, gate};
use super::prompt::{self, Prompt};
use super::settings::EndpointSettings;
use super::translation;
use super::{CitedSentence, Declined, DraftError, DraftOutcome, DraftRequest, Drafted, Drafter, tokens_of};
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
    /// Whether answers may be translated by further calls.
    translates: bool,
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
        Ok(Self { wire, name, sampling, evidence, embedder, translates: settings.translate, prices })
    }

    async fn make(&self, request: &DraftRequest) -> Result<DraftOutcome, DraftError> {
        let mut turn = Turn { model: self.sampling.model.clone(), ..Turn::default() };
        if request.passages.is_empty() {
            return Ok(turn.declined("no passage was found"));
        }
        let source = translation::source(request).filter(|_| self.translates);
        let compares = self.embedder.as_ref().is_some_and(|embedder| embedder.calibration().understands_meaning);
        if source.is_none() || compares {
            match self.gated(&mut turn, request).await? {
                Ok(gated) if gated.has_facts() => return Ok(turn.drafted(gated)),
                Ok(gated) => turn.cut.extend(gated.cut),
                Err(reason) => return Ok(turn.declined(reason)),
            }
        }
        let nothing = "nothing that the model wrote is carried by the passages";
        match (source, request.language.as_deref()) {
            (Some(source), Some(wanted)) => self.translated(turn, request, source, wanted).await,
            _ => Ok(turn.declined(nothing)),
        }
    }

    /// Asks for an answer and judges it; the inner error says why there is none to judge.
    async fn gated(&self, turn: &mut Turn, request: &DraftRequest) -> Result<Result<Gated, &'static str>, DraftError> {
        let prompt = prompt::build(request)?;
        let temperature = request.temperature.unwrap_or(self.sampling.temperature).clamp(0.0, 2.0);
        let completion = self.ask(turn, &prompt, temperature).await?;
        if completion.refused {
            return Ok(Err("the model refused to answer"));
        }
        let Some(mut sentences) = prompt::read(&completion.text, &request.passages) else {
            return Ok(Err("the model found no answer in the passages"));
        };
        if completion.truncated {
            sentences.pop();
        }
        gate(sentences, &request.passages, self.embedder.as_ref(), self.evidence).await.map(Ok)
    }

    /// Answers in the passages' language, and translates what they carry. Whatever goes wrong here leaves it to a person: the
    /// customer's question is understood by nobody else.
    async fn translated(
        &self,
        mut turn: Turn,
        request: &DraftRequest,
        source: &str,
        wanted: &str,
    ) -> Result<DraftOutcome, DraftError> {
        let plain = translation::in_source(request, source);
        if turn.exceeds(request, plain.tokens_expected()) {
            return Ok(turn.declined("a translation would cost more than a turn may"));
        }
        let gated = match self.gated(&mut turn, &plain).await {
            Ok(Ok(gated)) => gated,
            Ok(Err(reason)) => return Ok(turn.declined(reason)),
            // Before anything was paid for, another model may still answer.
            Err(error) if turn.prompt_tokens == 0 => return Err(error),
            Err(error) => return Ok(turn.failed(&error)),
        };
        if !gated.has_facts() {
            turn.cut.extend(gated.cut);
            return Ok(turn.declined("nothing that the model wrote is carried by the passages"));
        }
        let lines: Vec<String> = gated.kept.iter().map(|sentence| sentence.text.clone()).collect();
        let there = match self.lines(&mut turn, request, &request.instructions, &lines, wanted).await {
            Ok(there) => there,
            Err(outcome) => return Ok(*outcome),
        };
        let back = match self.lines(&mut turn, request, &[], &there, source).await {
            Ok(back) => back,
            Err(outcome) => return Ok(*outcome),
        };
        let translated = translation::checked(gated, &there, &back, source, wanted).await?;
        if !translated.has_facts() {
            turn.cut.extend(translated.cut);
            return Ok(turn.declined("the translation says something else than the passages"));
        }
        Ok(turn.drafted(translated))
    }

    /// One translation, a line for each line; else what the turn ends with.
    async fn lines(
        &self,
        turn: &mut Turn,
        request: &DraftRequest,
        instructions: &[(String, String)],
        lines: &[String],
        language: &str,
    ) -> Result<Vec<String>, Box<DraftOutcome>> {
        let prompt = prompt::translation(instructions, lines, language);
        if turn.exceeds(request, tokens_of(&prompt.transcript())) {
            return Err(Box::new(turn.declined("a translation would cost more than a turn may")));
        }
        let completion = match self.ask(turn, &prompt, 0.0).await {
            Ok(completion) => completion,
            Err(error) => return Err(Box::new(turn.failed(&error))),
        };
        let read = prompt::read_lines(&completion.text, lines.len());
        match read.filter(|_| !completion.truncated && !completion.refused) {
            Some(lines) => Ok(lines),
            None => Err(Box::new(turn.declined("the model did not translate line by line"))),
        }
    }

    async fn ask(&self, turn: &mut Turn, prompt: &Prompt, temperature: f32) -> Result<Completion, DraftError> {
        turn.sent(prompt);
        let sampling = Sampling { temperature, ..self.sampling.clone() };
        let started = Instant::now();
        let completed = self.wire.complete(prompt, &sampling).await;
        self.count(started, &completed);
        let completion = completed?;
        turn.paid(&completion);
        Ok(completion)
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
}

/// What the calls of one turn came to so far.
#[derive(Debug, Default)]
struct Turn {
    /// As the service named it last.
    model: String,
    prompt_tokens: u32,
    completion_tokens: u32,
    /// Everything that was sent, for the record.
    prompt: String,
    /// What the gate cut of drafts that were given up.
    cut: Vec<CitedSentence>,
}

impl Turn {
    fn sent(&mut self, prompt: &Prompt) {
        if !self.prompt.is_empty() {
            self.prompt.push('\n');
        }
        self.prompt.push_str(&prompt.transcript());
    }

    fn paid(&mut self, completion: &Completion) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(completion.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(completion.completion_tokens);
        if !completion.model.is_empty() {
            self.model.clone_from(&completion.model);
        }
    }

    /// Whether a further call of so many tokens would go beyond what the turn may cost.
    fn exceeds(&self, request: &DraftRequest, expected: u64) -> bool {
        let spent = u64::from(self.prompt_tokens) + u64::from(self.completion_tokens);
        request.tokens_max > 0 && spent + expected > request.tokens_max
    }

    fn drafted(&mut self, gated: Gated) -> DraftOutcome {
        let text = gated.kept.iter().map(|sentence| sentence.text.as_str()).collect::<Vec<_>>().join(" ");
        let mut cut = std::mem::take(&mut self.cut);
        cut.extend(gated.cut);
        DraftOutcome::Drafted(Drafted {
            text,
            sentences: gated.kept,
            evidence: gated.evidence,
            model: std::mem::take(&mut self.model),
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            prompt: std::mem::take(&mut self.prompt),
            cut,
        })
    }

    fn declined(&mut self, reason: &str) -> DraftOutcome {
        DraftOutcome::Declined(Declined {
            reason: reason.to_owned(),
            model: std::mem::take(&mut self.model),
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            prompt: std::mem::take(&mut self.prompt),
            cut: std::mem::take(&mut self.cut),
        })
    }

    /// A call failed after others were paid for.
    fn failed(&mut self, error: &DraftError) -> DraftOutcome {
        tracing::warn!(%error, "an answer could not be translated; a person takes the turn");
        self.declined(&format!("the model failed while it translated ({})", error.kind()))
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

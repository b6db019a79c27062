//! Makes the judgements of one turn, in order, and changes nothing: what comes out is committed by the worker.
//!
//! ```text
//! context -> classify -> retrieve -> tone -> draft -> filter -> escalate -> result
//!               |spam, ignore: nothing is said
//!               |human: no draft, straight to escalate
//! ```
//!
//! # Invariants that no policy can switch off
//! - One revision for the whole turn, pinned at its start.
//! - What a fault means is the chain's word, and never "send": a classifier or escalation that fails hands over to a
//!   person, a filter that fails holds the text.
//! - A draft goes out only when every filter let it pass, and when the passages carry at least part of what it states.
//! - While the messaging window is closed nothing may be sent: then nobody is asked for a draft, and a person gets a ticket.
//! - The typing indicator is shown only when drafting takes noticeable time.

mod context;
pub(crate) mod drafting;
mod follow_up;
mod record;
mod rehearsal;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use frontdesk_messenger::split::split_text;
use frontdesk_policy_engine::assembly::{self, Ending, EndingTicket, Verdicts};
use frontdesk_policy_engine::types as policy;
use frontdesk_policy_engine::{CallContext, Fault, KnowledgeLookup, LookupFuture, TurnCount};
use serde_json::Value;
use uuid::Uuid;

use crate::answer::Drafter;
use crate::app::App;
use crate::db::conversations::Conversation;
use crate::db::messages::StoredMessage;
use crate::db::pages::Page;
use crate::fail_point::{self, Point};
use crate::knowledge::{Hit, Knowledge, KnowledgeError, SearchRequest};
use crate::policies::Serving;
use crate::policies::slots::Slot;

use drafting::Drafting;
pub use record::{Citation, DecisionRecord, RECORD_VERSION};
pub use rehearsal::{Rehearsed, Stage, rehearse};

/// Characters of the customer's words in a ticket.
const QUESTION_CHARACTERS_MAX: usize = 500;
/// Drafting that takes longer than this shows "is typing".
const TYPING_AFTER: Duration = Duration::from_millis(300);

#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error("the knowledge could not be searched: {source}")]
    Knowledge {
        #[from]
        source: KnowledgeError,
    },
    #[error("the decision cannot be recorded: {source}")]
    Record {
        #[from]
        source: serde_json::Error,
    },
}

/// What a turn is made of.
#[derive(Debug, Clone)]
pub struct TurnInput {
    pub turn_id: Uuid,
    pub now: DateTime<Utc>,
    pub page: Page,
    pub conversation: Conversation,
    /// What the customer sent since the last turn; never empty.
    pub messages: Vec<StoredMessage>,
    pub history: Vec<StoredMessage>,
}

/// A matter for a person.
#[derive(Debug, Clone)]
pub struct TicketDraft {
    pub priority: &'static str,
    pub reason: String,
    pub summary: String,
    pub tags: Vec<String>,
    /// Whether the machine falls silent until a person hands the conversation back.
    pub hands_over: bool,
}

impl From<EndingTicket> for TicketDraft {
    fn from(ticket: EndingTicket) -> Self {
        Self {
            priority: ticket.priority.as_str(),
            reason: ticket.reason,
            summary: ticket.summary,
            tags: ticket.tags,
            hands_over: ticket.hands_over,
        }
    }
}

/// What is to be committed.
#[derive(Debug, Clone)]
pub struct TurnResult {
    pub route: &'static str,
    /// `sent`, `asked_back`, `ticket`, `ignored` or `spam`.
    pub outcome: &'static str,
    pub confidence: f32,
    pub reason: String,
    pub revision: String,
    /// What the customer is sent, in parts.
    pub replies: Vec<String>,
    pub ticket: Option<TicketDraft>,
    /// Whether the replies tell the customer that a machine answers.
    pub disclosed: bool,
    /// What tripwires count of the turn.
    pub count: TurnCount,
    /// Where the revision stood.
    pub slot: Slot,
    pub record: Value,
}

/// Judges the turn.
pub async fn run(app: &App, input: &TurnInput) -> Result<TurnResult, PipelineError> {
    let turn = context::turn(input, app.settings.turn.disclosure_gap_hours);
    if turn.window.is_none() {
        return window_closed(turn, &input.page.chain);
    }
    let (chain, slots) = (&input.page.chain, app.policies.slots(&input.page.chain));
    let serving = slots.pick(chain, &input.page.page_id, &input.conversation.psid).cloned();
    let slot = serving.as_ref().and_then(|serving| slots.slot_of(serving.id())).unwrap_or(Slot::Active);
    let record = DecisionRecord::new(turn, chain, serving.as_deref());
    let means = Means {
        knowledge: &app.knowledge,
        drafter: app.drafter.as_ref(),
        passages_max: app.settings.knowledge.passages_max,
        typing: app.settings.turn.typing_indicator.then_some(app),
    };
    let mut judge = Judge::new(means, input, record);
    if let Some(serving) = &serving {
        judge.judge(serving).await?;
    }
    judge.finish(serving.map(|serving| serving.id().to_owned()).unwrap_or_default(), slot)
}

/// The ending of a turn that begins after the window has closed: its events came late. The machine stays in charge, because the
/// customer's next word opens the window again.
fn window_closed(turn: policy::Turn, chain: &str) -> Result<TurnResult, PipelineError> {
    let question = assembly::question(&turn);
    let words: String = question.chars().take(QUESTION_CHARACTERS_MAX).collect();
    let ticket = TicketDraft {
        priority: "high",
        reason: "window-closed".to_owned(),
        summary: format!("The messaging window had closed before this could be answered. The customer wrote: {words}"),
        tags: vec!["delivery".to_owned()],
        hands_over: false,
    };
    let mut record = DecisionRecord::new(turn, chain, None);
    record.no_draft_reason = Some("window-closed".to_owned());
    Ok(TurnResult {
        route: "human",
        outcome: "ticket",
        confidence: 0.0,
        reason: "the messaging window is closed".to_owned(),
        revision: String::new(),
        replies: Vec::new(),
        ticket: Some(ticket),
        disclosed: false,
        count: record.count("ticket"),
        slot: Slot::Active,
        record: serde_json::to_value(&record)?,
    })
}

/// What a turn is judged with, beside the policies.
struct Means<'a> {
    knowledge: &'a Arc<Knowledge>,
    drafter: &'a dyn Drafter,
    passages_max: usize,
    /// Who shows "is typing"; `None`: nobody.
    typing: Option<&'a App>,
}

/// One turn on its way, with its record.
struct Judge<'a> {
    means: Means<'a>,
    input: &'a TurnInput,
    lookup: CallContext,
    record: DecisionRecord,
    /// The question that this one follows up, when it cannot be understood alone.
    context: Option<String>,
}

impl<'a> Judge<'a> {
    fn new(means: Means<'a>, input: &'a TurnInput, record: DecisionRecord) -> Self {
        let lookup = PageLookup { knowledge: Arc::clone(means.knowledge), page_id: input.page.page_id.clone() };
        let lookup = CallContext::with_lookup(Arc::new(lookup));
        let context = follow_up::context(&record.turn);
        Self { means, input, lookup, record, context }
    }

    /// Calls the hooks in order, as far as the verdicts lead.
    async fn judge(&mut self, serving: &Serving) -> Result<(), PipelineError> {
        let started = Instant::now();
        let called = serving.revision.classify(&self.lookup, &self.record.turn).await;
        self.record.times.classify_us = elapsed_us(started);
        fail_point::reach(Point::Classified);
        let classification = called.result.clone();
        self.record.classify = Some(called);
        let classification = match classification {
            Ok(classification) => classification,
            Err(fault) => {
                self.note_decisive(&fault);
                return Ok(());
            }
        };
        self.record.labels.clone_from(&classification.labels);
        match classification.route {
            policy::Route::Spam | policy::Route::Ignore => return Ok(()),
            policy::Route::Answer => self.prepare_answer(serving, &classification).await?,
            policy::Route::Human => self.record.no_draft_reason = Some("route".into()),
        }
        self.escalate(serving, &classification).await;
        Ok(())
    }

    /// Retrieval, tone, draft and filters.
    async fn prepare_answer(
        &mut self,
        serving: &Serving,
        classification: &policy::Classification,
    ) -> Result<(), PipelineError> {
        let started = Instant::now();
        self.retrieve().await?;
        self.record.times.retrieve_us = elapsed_us(started);
        fail_point::reach(Point::Retrieved);

        let started = Instant::now();
        let called =
            serving.revision.compose(&self.lookup, &self.record.turn, classification, &self.record.passages).await;
        self.record.times.tone_us = elapsed_us(started);
        fail_point::reach(Point::Composed);
        let plan = match &called.result {
            Ok(plan) => plan.clone(),
            Err(fault) => {
                count_fault(fault);
                assembly::default_plan(&self.record.turn)
            }
        };
        self.record.tone = Some(called);

        let started = Instant::now();
        self.draft(&plan).await;
        self.record.times.draft_us = elapsed_us(started);
        fail_point::reach(Point::Drafted);
        self.record.plan = Some(plan.clone());
        if let Some(answer) = self.record.answer.clone() {
            let started = Instant::now();
            self.filter(serving, &plan, &answer).await;
            self.record.times.filter_us = elapsed_us(started);
            fail_point::reach(Point::Filtered);
        }
        Ok(())
    }

    async fn retrieve(&mut self) -> Result<(), PipelineError> {
        let question = assembly::question(&self.record.turn);
        if question.trim().is_empty() {
            return Ok(());
        }
        let query = match &self.context {
            Some(context) => format!("{context}\n{question}"),
            None => question,
        };
        let request = SearchRequest {
            page_id: Some(self.input.page.page_id.clone()),
            query,
            language: context::asked_in(&self.record.turn),
            labels: Vec::new(),
            passage_languages: Vec::new(),
            limit: self.means.passages_max,
            now: self.input.now,
        };
        let found = self.means.knowledge.search(request).await?;
        self.record.passages = found.hits.iter().map(passage).collect();
        self.record.questions = found.hits.into_iter().map(|hit| hit.question).collect();
        Ok(())
    }

    /// Drafts, and shows "is typing" when it takes a while.
    async fn draft(&mut self, plan: &policy::Plan) {
        let (turn, page_id) = (&self.record.turn, &self.input.page.page_id);
        let request = drafting::request(page_id, turn, plan, &self.record.passages, &self.record.questions);
        if request.question.trim().is_empty() {
            self.record.no_draft_reason = Some("declined".into());
            return;
        }
        let typing = async {
            tokio::time::sleep(TYPING_AFTER).await;
            let page = &self.input.page;
            // Calling Graph while it limits the Page prolongs the limit.
            let may_call = page.state == "active" && page.paused_until.is_none_or(|until| until <= self.input.now);
            if let Some(app) = self.means.typing.filter(|_| may_call) {
                app.outbox.show_typing(&self.input.page.page_id, &self.input.conversation.psid).await;
            }
            // Only the draft ends the race below.
            std::future::pending::<()>().await;
        };
        let outcome = tokio::select! {
            outcome = self.means.drafter.draft(&request) => outcome,
            () = typing => return,
        };
        let drafting = match outcome {
            Ok(outcome) => Drafting::of(outcome, &self.record.passages),
            Err(error) => {
                metrics::counter!("frontdesk_draft_errors_total", "kind" => error.kind()).increment(1);
                tracing::error!(%error, turn = %self.input.turn_id, "no draft could be made");
                Drafting::without("model-unavailable", &self.record.passages)
            }
        };
        let Drafting { answer, citations, evidence, no_draft_reason, draft } = drafting;
        let record = &mut self.record;
        (record.answer, record.citations, record.evidence) = (answer, citations, evidence);
        (record.no_draft_reason, record.draft) = (no_draft_reason, draft);
    }

    async fn filter(&mut self, serving: &Serving, plan: &policy::Plan, answer: &str) {
        let cited = self.record.citations.iter().flat_map(|citation| &citation.passages);
        let draft = assembly::draft_for_filters(plan, answer, cited);
        let run = serving.revision.filter(&self.lookup, &self.record.turn, &draft, &self.record.passages).await;
        if let Some(fault) = run.fault() {
            count_fault(fault);
        }
        self.record.filter = Some(run);
    }

    async fn escalate(&mut self, serving: &Serving, classification: &policy::Classification) {
        let record = &self.record;
        let (filter, reason) = (record.filter.as_ref(), record.no_draft_reason.as_deref());
        let dossier = assembly::dossier(classification, &record.passages, filter, reason, &record.evidence);
        let started = Instant::now();
        let called = serving.revision.decide(&self.lookup, &self.record.turn, &dossier).await;
        self.record.times.escalate_us = elapsed_us(started);
        fail_point::reach(Point::Escalated);
        if let Err(fault) = &called.result {
            self.note_decisive(fault);
        }
        self.record.escalate = Some(called);
    }

    /// A fault that ends the turn.
    fn note_decisive(&self, fault: &Fault) {
        count_fault(fault);
        tracing::error!(turn = %self.input.turn_id, %fault, "a policy faulted; a person takes the turn");
    }

    fn finish(mut self, revision: String, slot: Slot) -> Result<TurnResult, PipelineError> {
        let record = &self.record;
        let verdicts = Verdicts {
            classify: record.classify.as_ref(),
            filter: record.filter.as_ref(),
            escalate: record.escalate.as_ref(),
        };
        let Ending { route, outcome, reason, text, split_hints, ticket } =
            assembly::end(&record.turn, verdicts, record.plan.as_ref(), &record.evidence);
        let hints: Vec<usize> = split_hints.into_iter().filter_map(|hint| usize::try_from(hint).ok()).collect();
        let replies = text.map(|text| split_text(&text, &hints)).unwrap_or_default();
        // A filter may have taken it out: only what is really said counts.
        let disclosed = assembly::disclosure(&record.turn, record.plan.as_ref())
            .is_some_and(|disclosure| replies.iter().any(|reply| reply.contains(disclosure.trim())));
        let confidence = self.confidence();
        self.record.replies.clone_from(&replies);
        Ok(TurnResult {
            route,
            outcome,
            confidence,
            reason,
            revision,
            replies,
            ticket: ticket.map(TicketDraft::from),
            disclosed,
            count: self.record.count(outcome),
            slot,
            record: serde_json::to_value(&self.record)?,
        })
    }

    /// The draft's where there is one, else the classifier's; 0 when a fault decided.
    fn confidence(&self) -> f32 {
        let record = &self.record;
        let has_faulted = record.escalate.as_ref().is_some_and(|called| called.result.is_err());
        match record.classify.as_ref().map(|called| &called.result) {
            Some(Ok(_)) if has_faulted => 0.0,
            Some(Ok(_)) if record.answer.is_some() => record.evidence.confidence,
            Some(Ok(classification)) => classification.confidence,
            Some(Err(_)) | None => 0.0,
        }
    }
}

/// Answers the look-ups of a policy that was granted `knowledge`.
struct PageLookup {
    knowledge: Arc<Knowledge>,
    page_id: String,
}

impl KnowledgeLookup for PageLookup {
    fn search<'a>(&'a self, query: &'a str, limit: u32) -> LookupFuture<'a> {
        Box::pin(async move {
            let request = SearchRequest {
                page_id: Some(self.page_id.clone()),
                query: query.to_owned(),
                language: None,
                labels: Vec::new(),
                passage_languages: Vec::new(),
                limit: usize::try_from(limit).unwrap_or(1),
                now: Utc::now(),
            };
            let found = self.knowledge.search(request).await;
            let found = found.map_err(|error| policy::LookupError::Unavailable(error.to_string()))?;
            Ok(found.hits.iter().map(passage).collect())
        })
    }
}

fn passage(hit: &Hit) -> policy::Passage {
    policy::Passage {
        id: hit.passage_id.to_string(),
        title: hit.full_title(),
        source: hit.source.clone(),
        text: hit.text.clone(),
        language: hit.language.clone(),
        score: hit.score,
        labels: hit.labels.clone(),
    }
}

fn count_fault(fault: &Fault) {
    metrics::counter!(
        "frontdesk_policy_faults_total",
        "hook" => fault.hook.as_str(), "policy" => fault.policy.clone(), "kind" => fault.kind.as_str()
    )
    .increment(1);
}

fn elapsed_us(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}

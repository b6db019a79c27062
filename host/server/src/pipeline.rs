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
//! - The typing indicator is shown only when drafting takes noticeable time.

mod context;
mod record;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use frontdesk_messenger::split::split_text;
use frontdesk_policy_engine::types as policy;
use frontdesk_policy_engine::{CallContext, Fault, FilterResult, FilterRun, KnowledgeLookup, LookupFuture};
use serde_json::Value;
use uuid::Uuid;

use crate::answer::{DraftOutcome, DraftRequest, PassageRef};
use crate::app::App;
use crate::db::conversations::Conversation;
use crate::db::messages::StoredMessage;
use crate::db::pages::Page;
use crate::fail_point::{self, Point};
use crate::knowledge::{Hit, Knowledge, KnowledgeError, SearchRequest};
use crate::policies::Serving;

pub use record::{Citation, DecisionRecord, RECORD_VERSION};

/// Drafting that takes longer than this shows "is typing".
const TYPING_AFTER: Duration = Duration::from_millis(300);
/// Longest reply without a plan that says otherwise, in characters.
const DEFAULT_CHARACTERS_MAX: u32 = 1_000;
/// Said when a disclosure is due and the tone policy cannot say it.
const DEFAULT_DISCLOSURE: &str = "You are chatting with an automated assistant.";

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
    pub record: Value,
}

/// Judges the turn.
pub async fn run(app: &App, input: &TurnInput) -> Result<TurnResult, PipelineError> {
    let serving = app.policies.pick(&input.page.chain, &input.page.page_id, &input.conversation.psid);
    let turn = context::turn(input, app.settings.turn.disclosure_gap_hours);
    let record = DecisionRecord::new(turn, &input.page.chain, serving.as_deref());
    let Some(serving) = serving else {
        let ticket = host_ticket("no-policy", "No policy revision is in service for this Page's chain.", &record.turn);
        return Judge { app, input, serving: None, lookup: CallContext::default(), record }.finish(
            "human",
            "no policy revision is in service",
            0.0,
            Said::Ticket(ticket, None),
        );
    };
    let lookup = PageLookup { knowledge: Arc::clone(&app.knowledge), page_id: input.page.page_id.clone() };
    let lookup = CallContext::with_lookup(Arc::new(lookup));
    Judge { app, input, serving: Some(serving), lookup, record }.judge().await
}

/// One turn on its way, with its record.
struct Judge<'a> {
    app: &'a App,
    input: &'a TurnInput,
    serving: Option<Arc<Serving>>,
    lookup: CallContext,
    record: DecisionRecord,
}

/// What is said to the customer in the end.
enum Said {
    Nothing(&'static str),
    /// The draft as the filters left it, with places to cut it; perhaps a ticket beside it.
    Draft {
        text: String,
        hints: Vec<u32>,
        ticket: Option<TicketDraft>,
    },
    Question(String),
    /// A ticket, and perhaps a notice.
    Ticket(TicketDraft, Option<String>),
}

impl Judge<'_> {
    async fn judge(mut self) -> Result<TurnResult, PipelineError> {
        let Some(serving) = self.serving.clone() else {
            return self.finish("human", "no policy revision is in service", 0.0, Said::Nothing("ticket"));
        };
        let revision = &serving.revision;
        let started = Instant::now();
        let called = revision.classify(&self.lookup, &self.record.turn).await;
        self.record.times.classify_us = elapsed_us(started);
        fail_point::reach(Point::Classified);
        let classification = match called.result.clone() {
            Ok(classification) => classification,
            Err(fault) => {
                self.record.classify = Some(called);
                return self.hand_over_for_fault(&fault);
            }
        };
        self.record.labels.clone_from(&classification.labels);
        self.record.classify = Some(called);
        let (route, reason) = (classification.route, classification.reason.clone());
        let confidence = classification.confidence;
        match route {
            policy::Route::Spam => return self.finish("spam", &reason, confidence, Said::Nothing("spam")),
            policy::Route::Ignore => return self.finish("ignore", &reason, confidence, Said::Nothing("ignored")),
            policy::Route::Answer => self.prepare_answer(&serving, &classification).await?,
            policy::Route::Human => self.record.no_draft_reason = Some("route".into()),
        }
        self.escalate(&serving, classification).await
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
                default_plan(self.record.turn.disclosure_due)
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
        let question = context::question(&self.record.turn);
        if question.trim().is_empty() {
            return Ok(());
        }
        let request = SearchRequest {
            page_id: Some(self.input.page.page_id.clone()),
            query: question,
            language: self.record.turn.detected_language.as_ref().map(|(tag, _)| tag.clone()),
            labels: Vec::new(),
            passage_languages: Vec::new(),
            limit: self.app.settings.knowledge.passages_max,
            now: self.input.now,
        };
        let found = self.app.knowledge.search(request).await?;
        self.record.passages = found.hits.iter().map(passage).collect();
        self.record.questions = found.hits.into_iter().map(|hit| hit.question).collect();
        Ok(())
    }

    /// Drafts, and shows "is typing" when it takes a while.
    async fn draft(&mut self, plan: &policy::Plan) {
        let request = self.draft_request(plan);
        if request.question.trim().is_empty() {
            self.record.no_draft_reason = Some("declined".into());
            return;
        }
        let typing = async {
            tokio::time::sleep(TYPING_AFTER).await;
            let page = &self.input.page;
            // Calling Graph while it limits the Page prolongs the limit.
            let may_call = page.state == "active" && page.paused_until.is_none_or(|until| until <= self.input.now);
            if self.app.settings.turn.typing_indicator && may_call {
                self.app.outbox.show_typing(&self.input.page.page_id, &self.input.conversation.psid).await;
            }
            // Only the draft ends the race below.
            std::future::pending::<()>().await;
        };
        let outcome = tokio::select! {
            outcome = self.app.drafter.draft(&request) => outcome,
            () = typing => return,
        };
        match outcome {
            Ok(DraftOutcome::Drafted(drafted)) => {
                self.record.evidence = policy::Evidence {
                    sentences: drafted.evidence.sentences,
                    supported: drafted.evidence.supported,
                    best_score: drafted.evidence.best_score,
                    confidence: drafted.evidence.confidence,
                };
                self.record.citations = drafted.sentences.iter().map(Citation::of).collect();
                self.record.answer = Some(drafted.text.clone());
                self.record.draft = Some(DraftOutcome::Drafted(drafted));
            }
            Ok(declined @ DraftOutcome::Declined(_)) => {
                self.record.no_draft_reason = Some("declined".into());
                self.record.draft = Some(declined);
                self.record.evidence.best_score = self.record.passages.first().map_or(0.0, |p| p.score);
            }
            Err(error) => {
                metrics::counter!("frontdesk_draft_errors_total", "kind" => error.kind()).increment(1);
                tracing::error!(%error, turn = %self.input.turn_id, "no draft could be made");
                self.record.no_draft_reason = Some("model-unavailable".into());
                self.record.evidence.best_score = self.record.passages.first().map_or(0.0, |p| p.score);
            }
        }
    }

    fn draft_request(&self, plan: &policy::Plan) -> DraftRequest {
        let turn = &self.record.turn;
        let author = |author: policy::Author| match author {
            policy::Author::Customer => "customer",
            policy::Author::Bot => "bot",
            policy::Author::Agent => "agent",
        };
        DraftRequest {
            page_id: self.input.page.page_id.clone(),
            question: context::question(turn),
            history: turn.history.iter().map(|m| (author(m.author).to_owned(), m.text.clone())).collect(),
            instructions: plan.instructions.iter().map(|i| (i.title.clone(), i.text.clone())).collect(),
            examples: plan.examples.iter().map(|e| (e.customer.clone(), e.reply.clone())).collect(),
            language: plan.language.clone().or_else(|| turn.detected_language.as_ref().map(|(tag, _)| tag.clone())),
            max_characters: usize::try_from(plan.max_characters).unwrap_or(usize::MAX),
            temperature: plan.temperature,
            passages: self
                .record
                .passages
                .iter()
                .zip(&self.record.questions)
                .map(|(passage, question)| PassageRef {
                    id: passage.id.clone(),
                    title: passage.title.clone(),
                    source: passage.source.clone(),
                    text: passage.text.clone(),
                    question: question.clone(),
                    score: passage.score,
                    language: passage.language.clone(),
                })
                .collect(),
        }
    }

    async fn filter(&mut self, serving: &Serving, plan: &policy::Plan, answer: &str) {
        let mut cited: Vec<String> = Vec::new();
        for id in self.record.citations.iter().flat_map(|citation| &citation.passages) {
            if !cited.contains(id) {
                cited.push(id.clone());
            }
        }
        let draft = policy::Draft {
            text: framed(plan, answer),
            language: plan.language.clone(),
            cited,
            instructions: plan.instructions.iter().map(|i| i.text.clone()).collect(),
        };
        let run = serving.revision.filter(&self.lookup, &self.record.turn, &draft, &self.record.passages).await;
        if let Some(fault) = run.fault() {
            count_fault(fault);
        }
        self.record.filter = Some(run);
    }

    async fn escalate(
        mut self,
        serving: &Serving,
        classification: policy::Classification,
    ) -> Result<TurnResult, PipelineError> {
        let dossier = policy::Dossier {
            classification: classification.clone(),
            passages: self.record.passages.clone(),
            draft: self.record.filter.as_ref().and_then(FilterRun::text).map(str::to_owned),
            no_draft_reason: self.record.no_draft_reason.clone(),
            evidence: self.record.evidence.clone(),
            filters: self.record.filter.as_ref().map(FilterRun::outcomes).unwrap_or_default(),
        };
        let started = Instant::now();
        let called = serving.revision.decide(&self.lookup, &self.record.turn, &dossier).await;
        self.record.times.escalate_us = elapsed_us(started);
        fail_point::reach(Point::Escalated);
        let verdict = called.result.clone();
        self.record.escalate = Some(called);
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(fault) => return self.hand_over_for_fault(&fault),
        };
        let route = classification.route.as_str();
        let confidence = match self.record.answer {
            Some(_) => self.record.evidence.confidence,
            None => classification.confidence,
        };
        let (reason, said) = match verdict {
            policy::EscalationVerdict::Send => (classification.reason, self.sendable(None)),
            policy::EscalationVerdict::SendAndTicket(ticket) => {
                let draft = ticket_draft(ticket.clone(), false);
                (ticket.reason, self.sendable(Some(draft)))
            }
            policy::EscalationVerdict::AskBack(question) => (classification.reason, Said::Question(question)),
            policy::EscalationVerdict::HandOver(ticket) => {
                let notice = ticket.notice.clone();
                (ticket.reason.clone(), Said::Ticket(ticket_draft(ticket, true), notice))
            }
        };
        self.finish(route, &reason, confidence, said)
    }

    /// The draft, if it may go out; a ticket in its place if the escalation asked to send what must not be sent.
    fn sendable(&self, ticket: Option<TicketDraft>) -> Said {
        let evidence = &self.record.evidence;
        let carried = evidence.supported > 0;
        match self.record.filter.as_ref().map(|run| &run.result) {
            Some(FilterResult::Passed { text, split_hints }) if carried => {
                Said::Draft { text: text.clone(), hints: split_hints.clone(), ticket }
            }
            _ => {
                let why = "The escalation policy asked to send a draft that is missing, blocked or not carried by the \
                           passages.";
                Said::Ticket(host_ticket("nothing-to-send", why, &self.record.turn), None)
            }
        }
    }

    fn hand_over_for_fault(self, fault: &Fault) -> Result<TurnResult, PipelineError> {
        count_fault(fault);
        tracing::error!(turn = %self.input.turn_id, %fault, "a policy faulted; a person takes the turn");
        let ticket = host_ticket("policy-fault", &format!("A policy failed: {fault}."), &self.record.turn);
        self.finish("human", "a policy faulted", 0.0, Said::Ticket(ticket, None))
    }

    fn finish(
        mut self,
        route: &'static str,
        reason: &str,
        confidence: f32,
        said: Said,
    ) -> Result<TurnResult, PipelineError> {
        let preamble = self.record.plan.as_ref().and_then(|plan| plan.preamble.clone());
        let disclosure = preamble.filter(|_| self.record.turn.disclosure_due);
        let told = |text: &str| match &disclosure {
            Some(preamble) => format!("{preamble}\n\n{text}"),
            None => text.to_owned(),
        };
        let (outcome, replies, ticket) = match said {
            Said::Nothing(outcome) => (outcome, Vec::new(), None),
            Said::Draft { text, hints, ticket } => {
                let hints: Vec<usize> = hints.into_iter().filter_map(|hint| usize::try_from(hint).ok()).collect();
                ("sent", split_text(&text, &hints), ticket)
            }
            Said::Question(text) => ("asked_back", split_text(&told(&text), &[]), None),
            Said::Ticket(ticket, notice) => {
                let replies = notice.map(|notice| split_text(&told(&notice), &[])).unwrap_or_default();
                ("ticket", replies, Some(ticket))
            }
        };
        self.record.replies.clone_from(&replies);
        // A filter may have taken it out: only what is really said counts.
        let disclosed = disclosure.as_ref().is_some_and(|text| replies.iter().any(|reply| reply.contains(text.trim())));
        Ok(TurnResult {
            route,
            outcome,
            confidence,
            reason: reason.to_owned(),
            revision: self.serving.as_ref().map(|s| s.revision.id().to_string()).unwrap_or_default(),
            replies,
            ticket,
            disclosed,
            record: serde_json::to_value(&self.record)?,
        })
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
    let title = if hit.heading.is_empty() || hit.heading == hit.title {
        hit.title.clone()
    } else {
        format!("{}: {}", hit.title, hit.heading)
    };
    policy::Passage {
        id: hit.passage_id.to_string(),
        title,
        source: hit.source.clone(),
        text: hit.text.clone(),
        language: hit.language.clone(),
        score: hit.score,
        labels: hit.labels.clone(),
    }
}

/// The answer with what the plan wants said before and after it, word for word.
fn framed(plan: &policy::Plan, answer: &str) -> String {
    let parts = [plan.preamble.as_deref(), Some(answer), plan.closing.as_deref()];
    parts.into_iter().flatten().filter(|part| !part.trim().is_empty()).collect::<Vec<_>>().join("\n\n")
}

/// How an answer is drafted when the tone policy fails.
fn default_plan(disclosure_due: bool) -> policy::Plan {
    policy::Plan {
        instructions: vec![policy::Instruction {
            title: "Voice".into(),
            text: "Answer politely and briefly, in the customer's language.".into(),
        }],
        examples: Vec::new(),
        language: None,
        max_characters: DEFAULT_CHARACTERS_MAX,
        temperature: None,
        preamble: disclosure_due.then(|| DEFAULT_DISCLOSURE.to_owned()),
        closing: None,
    }
}

fn ticket_draft(ticket: policy::Ticket, hands_over: bool) -> TicketDraft {
    TicketDraft {
        priority: ticket.priority.as_str(),
        reason: ticket.reason,
        summary: ticket.summary,
        tags: ticket.tags,
        hands_over,
    }
}

/// A ticket that the host itself opens when its policies cannot.
fn host_ticket(reason: &str, why: &str, turn: &policy::Turn) -> TicketDraft {
    let question: String = context::question(turn).chars().take(500).collect();
    TicketDraft {
        priority: "high",
        reason: reason.to_owned(),
        summary: format!("{why} The customer wrote: {question}"),
        tags: vec!["host".to_owned()],
        hands_over: true,
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

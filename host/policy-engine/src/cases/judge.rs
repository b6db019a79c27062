//! Calls the hook of a case, and gathers what came of it.

use serde::Serialize;
use serde_json::Value;

use super::{Call, Case, Subject, input};
use crate::fault::{Called, Fault, LogLine};
use crate::hook::Hook;
use crate::lookup::CallContext;
use crate::policy::Policy;
use crate::replay::{Level, replay};
use crate::revision::{FilterResult, FilterRun};
use crate::types::{EscalationVerdict, FilterVerdict, Outcome, Priority, Route, Ticket, Turn};

/// What one call used.
#[derive(Clone, Debug, Serialize)]
pub struct CallUse {
    pub hook: Hook,
    pub policy: String,
    pub version: String,
    pub fuel_used: u64,
    pub fuel_limit: u64,
    pub elapsed_us: u64,
    pub memory_bytes: u64,
    pub memory_limit_bytes: u64,
    pub logs: Vec<LogLine>,
    pub logs_dropped: u32,
}

/// What came of a case.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Judged {
    /// The verdict as decision records have it; null after a fault.
    pub verdict: Value,
    /// The fault that ended it; for a chain the first of its turn.
    pub fault: Option<Fault>,
    pub calls: Vec<CallUse>,
    #[serde(skip)]
    pub facts: Facts,
}

/// What expectations look at. Absent: the hook does not say it, or it faulted.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub route: Option<Route>,
    pub labels: Vec<String>,
    pub confidence: Option<f32>,
    pub outcome: Option<String>,
    pub reason: Option<String>,
    pub text: String,
    pub findings: Vec<String>,
    pub priority: Option<Priority>,
    pub ticket_reason: Option<String>,
    pub tags: Vec<String>,
    pub summary: String,
    pub instructions: String,
    pub language: Option<String>,
    pub max_characters: Option<u32>,
    pub preamble: String,
    pub closing: String,
}

/// Judges a case.
///
/// # Errors
/// Why the case does not fit the subject at all.
pub async fn judge(subject: Subject<'_>, call: Call, case: &Case) -> Result<Judged, String> {
    let Some(hook) = call.hook() else { return judge_chain(subject, case).await };
    let context = CallContext::default();
    let turn = input::turn(case)?;
    let policies = subject.serving(hook);
    let policy = *policies.first().ok_or_else(|| {
        let served: Vec<&str> = subject.policies().iter().map(|policy| policy.hook().as_str()).collect();
        format!("there is no policy for the hook `{hook}`, only for {}", served.join(", "))
    })?;
    Ok(match hook {
        Hook::Classify => gather(policy, policy.classify(&context, &turn).await, |verdict| Facts {
            route: Some(verdict.route),
            labels: verdict.labels.clone(),
            confidence: Some(verdict.confidence),
            reason: Some(verdict.reason.clone()),
            ..Facts::default()
        }),
        Hook::Tone => {
            let called = policy.compose(&context, &turn, &input::classification(case), &input::passages(case)).await;
            gather(policy, called, |plan| Facts {
                instructions: plan.instructions.iter().map(|it| format!("{}\n{}\n", it.title, it.text)).collect(),
                language: plan.language.clone(),
                max_characters: Some(plan.max_characters),
                preamble: plan.preamble.clone().unwrap_or_default(),
                closing: plan.closing.clone().unwrap_or_default(),
                ..Facts::default()
            })
        }
        Hook::Filter => judge_filters(subject, policy, &policies, case, &turn).await,
        Hook::Escalate => {
            let dossier = input::dossier(case);
            let called = policy.decide(&context, &turn, &dossier).await;
            gather(policy, called, |verdict| escalation_facts(verdict, dossier.draft.as_deref()))
        }
    })
}

/// A chain's filters in order, or the one of a component.
async fn judge_filters(
    subject: Subject<'_>,
    policy: &Policy,
    policies: &[&Policy],
    case: &Case,
    turn: &Turn,
) -> Judged {
    let (context, draft, passages) = (CallContext::default(), input::draft(case), input::passages(case));
    let Subject::Chain(revision) = subject else {
        let called = policy.apply(&context, turn, &draft, &passages).await;
        return gather(policy, called, |verdict| filter_facts(verdict, &draft.text));
    };
    let run = revision.filter(&context, turn, &draft, &passages).await;
    let calls = run.steps.iter().zip(policies).map(|(step, policy)| used(policy, &step.called)).collect();
    Judged {
        verdict: serde_json::to_value(&run.result).unwrap_or_default(),
        fault: run.fault().cloned(),
        calls,
        facts: run_facts(&run),
    }
}

async fn judge_chain(subject: Subject<'_>, case: &Case) -> Result<Judged, String> {
    let Subject::Chain(revision) = subject else {
        return Err("`hook = \"chain\"` needs a chain's folder, and this is a component".to_owned());
    };
    let recorded = input::recorded(case)?;
    let replayed = replay(revision, &recorded).await;
    debug_assert_ne!(replayed.level, Level::NoDraftRecorded, "a case says what came of drafting");
    let mut calls = vec![used(serving(subject, Hook::Classify)?, &replayed.classify)];
    let mut fault = replayed.classify.result.as_ref().err().cloned();
    let mut facts = Facts::default();
    if let Ok(classification) = &replayed.classify.result {
        facts.labels.clone_from(&classification.labels);
        facts.confidence = Some(classification.confidence);
    }
    if let Some(tone) = &replayed.tone {
        calls.push(used(serving(subject, Hook::Tone)?, tone));
        fault = fault.or_else(|| tone.result.as_ref().err().cloned());
    }
    if let Some(run) = &replayed.filter {
        let filters = subject.serving(Hook::Filter);
        calls.extend(run.steps.iter().zip(filters).map(|(step, policy)| used(policy, &step.called)));
        fault = fault.or_else(|| run.fault().cloned());
        facts.findings = run_facts(run).findings;
    }
    if let Some(escalate) = &replayed.escalate {
        calls.push(used(serving(subject, Hook::Escalate)?, escalate));
        fault = fault.or_else(|| escalate.result.as_ref().err().cloned());
    }
    let conclusion = &replayed.conclusion;
    facts.route = Route::ALL_WORDS.iter().find(|(word, _)| *word == conclusion.route).map(|(_, route)| *route);
    facts.outcome = Some(conclusion.outcome.clone());
    facts.reason = Some(conclusion.reason.clone());
    facts.text = conclusion.text.clone().unwrap_or_default();
    facts.priority = conclusion.ticket.as_ref().map(|ticket| ticket.priority);
    facts.ticket_reason = conclusion.ticket.as_ref().map(|ticket| ticket.reason.clone());
    Ok(Judged { verdict: serde_json::to_value(conclusion).unwrap_or_default(), fault, calls, facts })
}

/// The routes by their words.
trait RouteWords {
    const ALL_WORDS: [(&'static str, Route); 4];
}

impl RouteWords for Route {
    const ALL_WORDS: [(&'static str, Route); 4] = [
        (Route::Answer.as_str(), Route::Answer),
        (Route::Human.as_str(), Route::Human),
        (Route::Spam.as_str(), Route::Spam),
        (Route::Ignore.as_str(), Route::Ignore),
    ];
}

fn serving(subject: Subject<'_>, hook: Hook) -> Result<&Policy, String> {
    subject.serving(hook).first().copied().ok_or_else(|| format!("the chain has no policy for the hook `{hook}`"))
}

fn gather<T: Serialize>(policy: &Policy, called: Called<T>, facts: impl FnOnce(&T) -> Facts) -> Judged {
    let calls = vec![used(policy, &called)];
    match called.result {
        Ok(verdict) => Judged {
            verdict: serde_json::to_value(&verdict).unwrap_or_default(),
            fault: None,
            calls,
            facts: facts(&verdict),
        },
        Err(fault) => Judged { verdict: Value::Null, fault: Some(fault), calls, facts: Facts::default() },
    }
}

fn used<T>(policy: &Policy, called: &Called<T>) -> CallUse {
    CallUse {
        hook: policy.hook(),
        policy: policy.description().name.clone(),
        version: policy.description().version.clone(),
        fuel_used: called.fuel_used,
        fuel_limit: policy.limits().fuel,
        elapsed_us: called.elapsed_us,
        memory_bytes: called.memory_bytes,
        memory_limit_bytes: policy.limits().memory_bytes(),
        logs: called.logs.clone(),
        logs_dropped: called.logs_dropped,
    }
}

fn filter_facts(verdict: &FilterVerdict, judged: &str) -> Facts {
    Facts {
        outcome: Some(verdict.outcome.as_str().to_owned()),
        reason: Some(verdict.outcome.reason().to_owned()),
        text: match &verdict.outcome {
            Outcome::Pass => judged.to_owned(),
            Outcome::Rewrite(rewritten) => rewritten.text.clone(),
            Outcome::Block(_) => String::new(),
        },
        findings: verdict.findings.iter().map(|finding| finding.rule.clone()).collect(),
        ..Facts::default()
    }
}

/// Several filters as one: the gravest outcome, the last reason, all findings.
fn run_facts(run: &FilterRun) -> Facts {
    let verdicts: Vec<&FilterVerdict> = run.steps.iter().filter_map(|step| step.called.result.as_ref().ok()).collect();
    let outcome = match &run.result {
        FilterResult::Held { .. } => None,
        FilterResult::Blocked { .. } => Some("block"),
        FilterResult::Passed { .. } => {
            let is_rewritten = verdicts.iter().any(|verdict| matches!(verdict.outcome, Outcome::Rewrite(_)));
            Some(if is_rewritten { "rewrite" } else { "pass" })
        }
    };
    let mut reasons = verdicts.iter().map(|verdict| verdict.outcome.reason());
    Facts {
        outcome: outcome.map(str::to_owned),
        reason: reasons.rfind(|reason| !reason.is_empty()).map(str::to_owned),
        text: run.text().unwrap_or_default().to_owned(),
        findings: verdicts.iter().flat_map(|verdict| &verdict.findings).map(|finding| finding.rule.clone()).collect(),
        ..Facts::default()
    }
}

fn escalation_facts(verdict: &EscalationVerdict, draft: Option<&str>) -> Facts {
    let blank = Facts { outcome: Some(verdict.as_str().to_owned()), ..Facts::default() };
    let with = |ticket: &Ticket, text: &str| Facts {
        reason: Some(ticket.reason.clone()),
        ticket_reason: Some(ticket.reason.clone()),
        priority: Some(ticket.priority),
        tags: ticket.tags.clone(),
        summary: ticket.summary.clone(),
        text: text.to_owned(),
        ..blank.clone()
    };
    let draft = draft.unwrap_or_default();
    match verdict {
        EscalationVerdict::Send => Facts { text: draft.to_owned(), ..blank },
        EscalationVerdict::AskBack(question) => Facts { text: question.clone(), ..blank },
        EscalationVerdict::HandOver(ticket) => with(ticket, ticket.notice.as_deref().unwrap_or_default()),
        EscalationVerdict::SendAndTicket(ticket) => with(ticket, draft),
    }
}

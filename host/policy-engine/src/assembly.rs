//! What a turn makes of its policies' verdicts: the pure steps between the hooks, and after the last one.
//!
//! ```text
//! plan + answer ─> framed text ─> filters ─> dossier ─> escalation ─> conclusion
//! ```
//! A host, a replay and a test of cases must agree on these steps to the byte, so they are written once, here. Nothing
//! in this module calls a policy.

use serde::{Deserialize, Serialize};

use crate::fault::Called;
use crate::revision::{FilterResult, FilterRun};
use crate::types::{
    Classification, Dossier, Draft, EscalationVerdict, Evidence, Instruction, Passage, Plan, Priority, Route, Turn,
};

/// Longest reply without a plan that says otherwise, in characters.
const DEFAULT_CHARACTERS_MAX: u32 = 1_000;

/// How an answer is drafted when the tone policy fails.
#[must_use]
pub fn default_plan() -> Plan {
    Plan {
        instructions: vec![Instruction {
            title: "Voice".to_owned(),
            text: "Answer politely and briefly, in the customer's language.".to_owned(),
        }],
        examples: Vec::new(),
        language: None,
        max_characters: DEFAULT_CHARACTERS_MAX,
        temperature: None,
        preamble: None,
        closing: None,
    }
}

/// Whether a drafting model is told the same by both plans. Preamble and closing are added to the draft afterwards.
#[must_use]
pub fn drafts_alike(one: &Plan, other: &Plan) -> bool {
    let told = |plan: &Plan| Plan { preamble: None, closing: None, ..plan.clone() };
    told(one) == told(other)
}

/// The answer with what the plan wants said before and after it, word for word.
#[must_use]
pub fn framed(plan: &Plan, answer: &str) -> String {
    let parts = [plan.preamble.as_deref(), Some(answer), plan.closing.as_deref()];
    parts.into_iter().flatten().filter(|part| !part.trim().is_empty()).collect::<Vec<_>>().join("\n\n")
}

/// What the filters judge. `cited` are the ids of the passages that the answer's sentences cite, in order; each is
/// named once.
#[must_use]
pub fn draft_for_filters<'a>(plan: &Plan, answer: &str, cited: impl IntoIterator<Item = &'a String>) -> Draft {
    let mut ids: Vec<String> = Vec::new();
    for id in cited {
        if !ids.contains(id) {
            ids.push(id.clone());
        }
    }
    Draft {
        text: framed(plan, answer),
        language: plan.language.clone(),
        cited: ids,
        instructions: plan.instructions.iter().map(|part| part.text.clone()).collect(),
    }
}

/// What the escalation hook judges.
#[must_use]
pub fn dossier(
    classification: &Classification,
    passages: &[Passage],
    filter: Option<&FilterRun>,
    no_draft_reason: Option<&str>,
    evidence: &Evidence,
) -> Dossier {
    Dossier {
        classification: classification.clone(),
        passages: passages.to_vec(),
        draft: filter.and_then(FilterRun::text).map(str::to_owned),
        no_draft_reason: no_draft_reason.map(str::to_owned),
        evidence: evidence.clone(),
        filters: filter.map(FilterRun::outcomes).unwrap_or_default(),
    }
}

/// How a turn ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclusion {
    /// `answer`, `human`, `spam` or `ignore`.
    pub route: String,
    /// `sent`, `asked_back`, `ticket`, `ignored` or `spam`: the words of decision rows.
    pub outcome: String,
    /// Why, in the words of the policy that had the last one.
    pub reason: String,
    /// What the customer is told, before it is cut into messages; absent: nothing.
    pub text: Option<String>,
    /// The ticket that is opened, if any is.
    pub ticket: Option<ConcludedTicket>,
}

/// The part of a ticket that a comparison looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConcludedTicket {
    /// How urgent.
    pub priority: Priority,
    /// Machine-readable reason.
    pub reason: String,
}

/// The verdicts of one turn, as far as its policies were called.
#[derive(Clone, Copy, Debug)]
pub struct Verdicts<'a> {
    /// The classifier's.
    pub classify: Option<&'a Called<Classification>>,
    /// The filters'.
    pub filter: Option<&'a FilterRun>,
    /// The escalation policy's.
    pub escalate: Option<&'a Called<EscalationVerdict>>,
}

/// How a turn with these verdicts ends. `plan` is the plan in force, `evidence` what the host found about the draft.
///
/// What must hold whatever the policies say: a fault hands over to a person; only a text that every filter let pass is
/// sent, and only when the passages carry at least part of what it states.
#[must_use]
pub fn conclude(turn: &Turn, verdicts: Verdicts<'_>, plan: Option<&Plan>, evidence: &Evidence) -> Conclusion {
    let Some(classify) = verdicts.classify else {
        return by_host("human", "no policy revision is in service", "no-policy");
    };
    let Ok(classification) = &classify.result else {
        return by_host("human", "a policy faulted", "policy-fault");
    };
    let route = classification.route.as_str();
    let ended = |outcome: &str, reason: &str, text: Option<String>, ticket: Option<ConcludedTicket>| Conclusion {
        route: route.to_owned(),
        outcome: outcome.to_owned(),
        reason: reason.to_owned(),
        text,
        ticket,
    };
    let reason = classification.reason.as_str();
    match classification.route {
        Route::Spam => return ended("spam", reason, None, None),
        Route::Ignore => return ended("ignored", reason, None, None),
        Route::Answer | Route::Human => {}
    }
    let verdict = match verdicts.escalate.map(|called| &called.result) {
        Some(Ok(verdict)) => verdict,
        Some(Err(_)) => return by_host("human", "a policy faulted", "policy-fault"),
        None => return ended("ticket", reason, None, None),
    };
    let ticket =
        |found: &crate::types::Ticket| ConcludedTicket { priority: found.priority, reason: found.reason.clone() };
    let disclosure = plan.and_then(|plan| plan.preamble.as_deref()).filter(|_| turn.disclosure_due);
    let told = |text: &str| match disclosure {
        Some(preamble) => format!("{preamble}\n\n{text}"),
        None => text.to_owned(),
    };
    let carried = evidence.sentences == 0 || evidence.supported > 0;
    let sendable = || match verdicts.filter.map(|run| &run.result) {
        Some(FilterResult::Passed { text, .. }) if carried => Some(text.clone()),
        _ => None,
    };
    let nothing_to_send = |reason: &str| ended("ticket", reason, None, Some(hosts_ticket("nothing-to-send")));
    match verdict {
        EscalationVerdict::Send => match sendable() {
            Some(text) => ended("sent", reason, Some(text), None),
            None => nothing_to_send(reason),
        },
        EscalationVerdict::SendAndTicket(found) => match sendable() {
            Some(text) => ended("sent", &found.reason, Some(text), Some(ticket(found))),
            None => nothing_to_send(&found.reason),
        },
        EscalationVerdict::AskBack(question) => ended("asked_back", reason, Some(told(question)), None),
        EscalationVerdict::HandOver(found) => {
            ended("ticket", &found.reason, found.notice.as_deref().map(told), Some(ticket(found)))
        }
    }
}

fn by_host(route: &str, reason: &str, ticket: &str) -> Conclusion {
    Conclusion {
        route: route.to_owned(),
        outcome: "ticket".to_owned(),
        reason: reason.to_owned(),
        text: None,
        ticket: Some(hosts_ticket(ticket)),
    }
}

fn hosts_ticket(reason: &str) -> ConcludedTicket {
    ConcludedTicket { priority: Priority::High, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_model_is_told_makes_another_draft() {
        let plan = default_plan();
        let framed_differently = Plan { preamble: Some("Hello.".to_owned()), ..plan.clone() };
        assert!(drafts_alike(&plan, &framed_differently));
        assert_eq!(framed(&framed_differently, "Yes."), "Hello.\n\nYes.");
        let told_differently = Plan { max_characters: 10, ..plan.clone() };
        assert!(!drafts_alike(&plan, &told_differently));
    }

    #[test]
    fn a_passage_is_cited_once() {
        let cited = ["a", "b", "a"].map(str::to_owned);
        assert_eq!(draft_for_filters(&default_plan(), "Yes.", &cited).cited, ["a", "b"]);
    }
}

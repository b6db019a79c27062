//! What a turn makes of its policies' verdicts: the pure steps between the hooks, and after the last one.
//!
//! ```text
//! plan + answer ─> framed text ─> filters ─> dossier ─> escalation ─> conclusion
//! ```
//! A host, a replay and a test of cases must agree on these steps to the byte, so they are written once, here. Nothing
//! in this module calls a policy.

use serde::{Deserialize, Serialize};

use crate::fault::{Called, Fault};
use crate::revision::{FilterResult, FilterRun};
use crate::types::{
    Classification, Dossier, Draft, EscalationVerdict, Evidence, Instruction, Passage, Plan, Priority, Route, Ticket,
    Turn,
};

/// Longest reply without a plan that says otherwise, in characters.
const DEFAULT_CHARACTERS_MAX: u32 = 1_000;
/// Characters of the customer's words in a ticket that the host opens by itself.
const QUESTION_CHARACTERS_MAX: usize = 500;
/// Said by language when a disclosure is due and no tone policy was there to say it; the first where none fits.
const DEFAULT_DISCLOSURES: [(&str, &str); 4] = [
    ("en", "You are chatting with an automated assistant."),
    ("de", "Sie schreiben mit einem automatischen Assistenten."),
    ("es", "Está hablando con un asistente automático."),
    ("fr", "Vous échangez avec un assistant automatique."),
];

/// What the customer wrote in this turn.
#[must_use]
pub fn question(turn: &Turn) -> String {
    let texts = turn.messages.iter().map(|message| message.text.trim()).filter(|text| !text.is_empty());
    texts.collect::<Vec<_>>().join("\n")
}

/// How an answer is drafted when the tone policy fails.
#[must_use]
pub fn default_plan(turn: &Turn) -> Plan {
    Plan {
        instructions: vec![Instruction {
            title: "Voice".to_owned(),
            text: "Answer politely and briefly, in the customer's language.".to_owned(),
        }],
        examples: Vec::new(),
        language: None,
        max_characters: DEFAULT_CHARACTERS_MAX,
        temperature: None,
        preamble: turn.disclosure_due.then(|| default_disclosure(turn).to_owned()),
        closing: None,
    }
}

/// What must be said before anything else, if a disclosure is due. The plan's preamble says it, or says that the Page's
/// owner wants none; on a turn without a plan, such as one that goes to a person at once, the host says it.
#[must_use]
pub fn disclosure<'a>(turn: &Turn, plan: Option<&'a Plan>) -> Option<&'a str> {
    if !turn.disclosure_due {
        return None;
    }
    match plan {
        Some(plan) => plan.preamble.as_deref().filter(|text| !text.trim().is_empty()),
        None => Some(default_disclosure(turn)),
    }
}

fn default_disclosure(turn: &Turn) -> &'static str {
    let detected = turn.detected_language.as_ref().map(|(tag, _)| tag.as_str());
    let wanted = detected.unwrap_or(&turn.page.language);
    let primary = wanted.split(['-', '_']).next().unwrap_or_default();
    let [(_, first), ..] = DEFAULT_DISCLOSURES;
    let found = DEFAULT_DISCLOSURES.iter().find(|(tag, _)| tag.eq_ignore_ascii_case(primary));
    found.map_or(first, |(_, text)| text)
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// `answer`, `human`, `spam` or `ignore`.
    pub route: &'static str,
    /// `sent`, `asked_back`, `ticket`, `ignored` or `spam`: the words of decision rows.
    pub outcome: &'static str,
    /// Why, in the words of the policy that had the last one.
    pub reason: String,
    /// What the customer is told, before it is cut into messages; absent: nothing.
    pub text: Option<String>,
    /// Byte offsets in the text at which it may be cut, ascending; may be empty.
    pub split_hints: Vec<u32>,
    /// The ticket that is opened, if any is.
    pub ticket: Option<EndingTicket>,
}

/// A matter for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndingTicket {
    /// How urgent.
    pub priority: Priority,
    /// Machine-readable reason.
    pub reason: String,
    /// What a person should know first.
    pub summary: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Whether the machine falls silent until a person hands the conversation back.
    pub hands_over: bool,
}

/// The part of an [`Ending`] that comparisons look at and reports show.
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

/// How a turn with these verdicts ends, for a comparison; see [`end`].
#[must_use]
pub fn conclude(turn: &Turn, verdicts: Verdicts<'_>, plan: Option<&Plan>, evidence: &Evidence) -> Conclusion {
    let ending = end(turn, verdicts, plan, evidence);
    Conclusion {
        route: ending.route.to_owned(),
        outcome: ending.outcome.to_owned(),
        reason: ending.reason,
        text: ending.text,
        ticket: ending.ticket.map(|ticket| ConcludedTicket { priority: ticket.priority, reason: ticket.reason }),
    }
}

/// How a turn with these verdicts ends. `plan` is the plan in force, `evidence` what the host found about the draft.
///
/// What must hold whatever the policies say: a fault hands over to a person; only a text that every filter let pass is
/// sent, and only when the passages carry at least part of what it states; a disclosure that is due comes before whatever
/// the customer is told.
#[must_use]
pub fn end(turn: &Turn, verdicts: Verdicts<'_>, plan: Option<&Plan>, evidence: &Evidence) -> Ending {
    let Some(classify) = verdicts.classify else {
        let why = "No policy revision is in service for this Page's chain.";
        return by_host("no policy revision is in service", "no-policy", why, turn);
    };
    let classification = match &classify.result {
        Ok(classification) => classification,
        Err(fault) => return by_fault(fault, turn),
    };
    let ended = |outcome, reason: &str, text: Option<String>, ticket: Option<EndingTicket>| Ending {
        route: classification.route.as_str(),
        outcome,
        reason: reason.to_owned(),
        text,
        split_hints: Vec::new(),
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
        Some(Err(fault)) => return by_fault(fault, turn),
        None => return ended("ticket", reason, None, None),
    };
    let told = |text: &str| match disclosure(turn, plan) {
        Some(preamble) => format!("{preamble}\n\n{text}"),
        None => text.to_owned(),
    };
    let sent = |reason: &str, ticket: Option<EndingTicket>| match verdicts.filter.map(|run| &run.result) {
        Some(FilterResult::Passed { text, split_hints }) if evidence.supported > 0 => {
            Ending { split_hints: split_hints.clone(), ..ended("sent", reason, Some(text.clone()), ticket) }
        }
        _ => {
            let why = "The escalation policy asked to send a draft that is missing, blocked or not carried by the \
                       passages.";
            ended("ticket", reason, None, Some(hosts_ticket("nothing-to-send", why, turn)))
        }
    };
    match verdict {
        EscalationVerdict::Send => sent(reason, None),
        EscalationVerdict::SendAndTicket(wanted) => sent(&wanted.reason, Some(policys_ticket(wanted, false))),
        EscalationVerdict::AskBack(question) => ended("asked_back", reason, Some(told(question)), None),
        EscalationVerdict::HandOver(wanted) => {
            let notice = wanted.notice.as_deref().map(told);
            ended("ticket", &wanted.reason, notice, Some(policys_ticket(wanted, true)))
        }
    }
}

fn by_fault(fault: &Fault, turn: &Turn) -> Ending {
    by_host("a policy faulted", "policy-fault", &format!("A policy failed: {fault}."), turn)
}

/// A person takes the turn, and the customer is told nothing.
fn by_host(reason: &str, ticket: &str, why: &str, turn: &Turn) -> Ending {
    Ending {
        route: Route::Human.as_str(),
        outcome: "ticket",
        reason: reason.to_owned(),
        text: None,
        split_hints: Vec::new(),
        ticket: Some(hosts_ticket(ticket, why, turn)),
    }
}

fn policys_ticket(wanted: &Ticket, hands_over: bool) -> EndingTicket {
    EndingTicket {
        priority: wanted.priority,
        reason: wanted.reason.clone(),
        summary: wanted.summary.clone(),
        tags: wanted.tags.clone(),
        hands_over,
    }
}

/// A ticket that the host itself opens when its policies cannot.
fn hosts_ticket(reason: &str, why: &str, turn: &Turn) -> EndingTicket {
    let words: String = question(turn).chars().take(QUESTION_CHARACTERS_MAX).collect();
    EndingTicket {
        priority: Priority::High,
        reason: reason.to_owned(),
        summary: format!("{why} The customer wrote: {words}"),
        tags: vec!["host".to_owned()],
        hands_over: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn only_what_the_model_is_told_makes_another_draft() {
        let plan = default_plan(&sample::turn());
        let framed_differently = Plan { preamble: Some("Hello.".to_owned()), ..plan.clone() };
        assert!(drafts_alike(&plan, &framed_differently));
        assert_eq!(framed(&framed_differently, "Yes."), "Hello.\n\nYes.");
        let told_differently = Plan { max_characters: 10, ..plan.clone() };
        assert!(!drafts_alike(&plan, &told_differently));
    }

    #[test]
    fn a_passage_is_cited_once() {
        let cited = ["a", "b", "a"].map(str::to_owned);
        assert_eq!(draft_for_filters(&default_plan(&sample::turn()), "Yes.", &cited).cited, ["a", "b"]);
    }

    fn called<T>(result: T) -> Called<T> {
        Called {
            result: Ok(result),
            fuel_used: 1,
            elapsed_us: 1,
            memory_bytes: 0,
            logs: Vec::new(),
            logs_dropped: 0,
            host_answers: Vec::new(),
        }
    }

    fn classified(route: Route) -> Called<Classification> {
        let (confidence, labels, reason) = (1.0, Vec::new(), "because".to_owned());
        called(Classification { route, confidence, labels, reason })
    }

    fn handing_over() -> Called<EscalationVerdict> {
        called(EscalationVerdict::HandOver(Ticket {
            priority: Priority::Normal,
            reason: "asked".to_owned(),
            summary: String::new(),
            tags: Vec::new(),
            notice: Some("A colleague will answer.".to_owned()),
        }))
    }

    #[test]
    fn a_disclosure_that_is_due_is_said_before_whatever_the_customer_is_told() {
        let silent = Plan { preamble: None, ..default_plan(&sample::turn()) };
        let own = Plan { preamble: Some("A robot speaks.".to_owned()), ..silent.clone() };
        let host = Some("You are chatting with an automated assistant.");
        // Whether it is due, the plan in force, and what is said first.
        let cases = [
            (true, None, host),
            (true, Some(&own), Some("A robot speaks.")),
            (true, Some(&silent), None),
            (false, None, None),
            (false, Some(&own), None),
        ];
        let (classify, escalate) = (classified(Route::Human), handing_over());
        for (due, plan, said) in cases {
            let turn = Turn { disclosure_due: due, detected_language: None, ..sample::turn() };
            let verdicts = Verdicts { classify: Some(&classify), filter: None, escalate: Some(&escalate) };
            let ending = end(&turn, verdicts, plan, &Evidence::default());
            let notice = "A colleague will answer.";
            let expected = said.map_or(notice.to_owned(), |said| format!("{said}\n\n{notice}"));
            assert_eq!(ending.text, Some(expected), "{due} {plan:?}");
            assert!(ending.ticket.unwrap().hands_over);
        }
        let turn = Turn { disclosure_due: true, ..sample::turn() };
        for (tag, word) in [("de-AT", "automatischen"), ("fr", "automatique"), ("pt-BR", "automated")] {
            let turn = Turn { detected_language: Some((tag.to_owned(), 1.0)), ..turn.clone() };
            assert!(default_plan(&turn).preamble.unwrap().contains(word), "{tag}");
        }
    }

    #[test]
    fn a_draft_that_no_passage_carries_is_not_sent() {
        let run = FilterRun {
            result: FilterResult::Passed { text: "Yes.".to_owned(), split_hints: vec![2] },
            steps: Vec::new(),
        };
        let (classify, escalate) = (classified(Route::Answer), called(EscalationVerdict::Send));
        for (sentences, supported, outcome) in [(1, 1, "sent"), (2, 1, "sent"), (1, 0, "ticket"), (0, 0, "ticket")] {
            let verdicts = Verdicts { classify: Some(&classify), filter: Some(&run), escalate: Some(&escalate) };
            let evidence = Evidence { sentences, supported, ..Evidence::default() };
            let ending = end(&sample::turn(), verdicts, None, &evidence);
            assert_eq!(ending.outcome, outcome, "{supported} of {sentences}");
            assert_eq!(
                ending.ticket.map(|ticket| ticket.reason),
                (supported == 0).then(|| "nothing-to-send".to_owned())
            );
        }
    }
}

//! Writes the ticket: priority, reason, summary, tags, and what the customer is told meanwhile.

use frontdesk_policy_sdk::escalation::Ticket;
use frontdesk_policy_sdk::text::clip;
use frontdesk_policy_sdk::text::language;
use frontdesk_policy_sdk::types::Priority;

use crate::settings::Settings;
use crate::{Case, hours};

/// The contract's limits.
const REASON_MAX_BYTES: usize = 64;
const SUMMARY_MAX_BYTES: usize = 2_000;
/// The customer's words are quoted up to here; the conversation has the rest.
const QUOTE_MAX_BYTES: usize = 500;
const DRAFT_MAX_BYTES: usize = 400;

/// `takes_over`: a person takes over, and the customer is told; else the ticket only accompanies the answer.
pub(crate) fn write(settings: &Settings, case: &Case, code: &str, why: &str, takes_over: bool) -> Ticket {
    let open = hours::is_open(&settings.hours, &case.turn.local_time);
    let mut tags = case.dossier.classification.labels.clone();
    if case.angry && !tags.iter().any(|tag| tag == "angry") {
        tags.push("angry".to_owned());
    }
    tags.push(if open { "in-hours" } else { "out-of-hours" }.to_owned());
    tags.push(format!("language:{}", language::primary(language::of_turn(case.turn)).to_lowercase()));
    Ticket {
        priority: priority(settings, case, code, open),
        reason: clip(code, REASON_MAX_BYTES).to_owned(),
        summary: summary(case, why),
        tags,
        notice: takes_over.then(|| notice(settings, case, open)).flatten(),
    }
}

fn priority(settings: &Settings, case: &Case, code: &str, open: bool) -> Priority {
    let labels = &case.dossier.classification.labels;
    let listed = settings.labels.iter().filter(|entry| entry.label == code || labels.contains(&entry.label));
    let highest = listed.map(|entry| Priority::from(entry.priority)).max_by_key(|priority| rank(*priority));
    let base = highest.unwrap_or(Priority::Normal);
    let raised = match base {
        Priority::Low | Priority::Normal if case.angry => Priority::High,
        other => other,
    };
    // Nobody works on it before the page opens; what is only normal must not overtake what came in the morning.
    if !open && raised == Priority::Normal { Priority::Low } else { raised }
}

fn rank(priority: Priority) -> u8 {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
        Priority::Urgent => 3,
    }
}

fn summary(case: &Case, why: &str) -> String {
    let dossier = case.dossier;
    let mut text = String::with_capacity(600);
    let question = clip(case.question, QUOTE_MAX_BYTES);
    if question.is_empty() {
        text.push_str("The customer sent no text (attachments only).");
    } else {
        let cut = if question.len() < case.question.len() { "…" } else { "" };
        text.push_str(&format!("The customer wrote: “{question}{cut}”."));
    }
    match dossier.passages.first() {
        Some(best) => {
            let (count, title, score) = (dossier.passages.len(), clip(&best.title, 120), best.score);
            text.push_str(&format!(" Found: {count} passages, the best from “{title}” (score {score:.2})."));
        }
        None => text.push_str(" Found: nothing in the knowledge."),
    }
    if let Some(draft) = &dossier.draft {
        let shown = clip(draft, DRAFT_MAX_BYTES);
        let cut = if shown.len() < draft.len() { "…" } else { "" };
        let evidence = &dossier.evidence;
        let (supported, sentences, confidence) = (evidence.supported, evidence.sentences, evidence.confidence);
        text.push_str(&format!(
            " Draft ({supported} of {sentences} statements carried, confidence {confidence:.2}): “{shown}{cut}”."
        ));
    }
    for filter in dossier.filters.iter().filter(|filter| filter.outcome == "block") {
        text.push_str(&format!(" The filter {} refused: {}", clip(&filter.policy, 64), clip(&filter.reason, 200)));
    }
    text.push_str(&format!(" Why a person: {why}."));
    let turns = case.turn.automated_turns;
    if turns > 0 {
        text.push_str(&format!(" Automated turns before: {turns}."));
    }
    clip(&text, SUMMARY_MAX_BYTES).to_owned()
}

fn notice(settings: &Settings, case: &Case, open: bool) -> Option<String> {
    let labels = &case.dossier.classification.labels;
    let special = labels.iter().find_map(|label| settings.notice.labels.get(label));
    let usual = if open { &settings.notice.open } else { &settings.notice.closed };
    special.unwrap_or(usual).for_turn(case.turn).map(str::to_owned)
}

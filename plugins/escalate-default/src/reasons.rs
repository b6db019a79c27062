//! Why a person must take over.

use frontdesk_policy_sdk::types::Route;

use crate::settings::Settings;
use crate::{Case, repeat};

pub(crate) struct Reason {
    /// Short and machine-readable; the ticket's reason.
    pub code: String,
    /// The end of a sentence for the person who takes over.
    pub why: &'static str,
    /// A vague turn may be asked back instead.
    pub may_ask_back: bool,
}

fn reason(code: &str, why: &'static str, may_ask_back: bool) -> Option<Reason> {
    Some(Reason { code: code.to_owned(), why, may_ask_back })
}

/// The first reason that holds; the module's head in `lib.rs` gives the order.
pub(crate) fn first(settings: &Settings, case: &Case) -> Option<Reason> {
    by_route(case)
        .or_else(|| by_draft(case))
        .or_else(|| by_mood(settings, case))
        .or_else(|| by_evidence(settings, case))
}

fn by_route(case: &Case) -> Option<Reason> {
    let classification = &case.dossier.classification;
    if classification.route == Route::Answer {
        return None;
    }
    let label = classification.labels.first().map_or("route-human", String::as_str);
    reason(label, "the classifier sent the turn to a person", false)
}

fn by_draft(case: &Case) -> Option<Reason> {
    let dossier = case.dossier;
    if dossier.filters.iter().any(|filter| filter.outcome == "block") {
        return reason("filter-blocked", "a filter did not let the answer through", false);
    }
    if dossier.draft.is_some() {
        return None;
    }
    match dossier.no_draft_reason.as_deref() {
        Some("model-unavailable") => reason("model-unavailable", "the model could not be reached", false),
        Some("budget") => reason("budget", "the budget for the model is used up", false),
        _ if dossier.passages.is_empty() => reason("no-knowledge", "nothing in the knowledge fits the question", true),
        _ => reason("no-draft", "the machine found no answer that the knowledge carries", true),
    }
}

fn by_mood(settings: &Settings, case: &Case) -> Option<Reason> {
    if case.angry {
        return reason("angry", "the customer sounds angry", false);
    }
    let limit = settings.max_automated_turns;
    if limit > 0 && case.turn.automated_turns >= limit {
        return reason("too-many-automated-turns", "the machine has answered many times in a row", false);
    }
    repeat::is_repeated(&settings.repeated, case)
        .then(|| reason("repeated-question", "the customer asks the same again", false))
        .flatten()
}

fn by_evidence(settings: &Settings, case: &Case) -> Option<Reason> {
    // A greeting states nothing, so nothing has to carry it.
    let evidence = &case.dossier.evidence;
    if case.dossier.classification.labels.iter().any(|label| label == "greeting") && evidence.sentences == 0 {
        return None;
    }
    let wanted = &settings.evidence;
    if case.dossier.passages.is_empty() {
        return reason("no-knowledge", "nothing in the knowledge fits the question", true);
    }
    if evidence.best_score < wanted.min_best_score {
        return reason("low-score", "no passage of the knowledge fits the question well", true);
    }
    let supported = evidence.supported as f32 / evidence.sentences.max(1) as f32;
    if evidence.sentences > 0 && supported < wanted.min_supported {
        return reason("unsupported", "the knowledge does not carry the answer", true);
    }
    if evidence.confidence < wanted.min_confidence {
        return reason("low-confidence", "the machine is not sure enough of its answer", true);
    }
    None
}

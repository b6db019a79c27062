//! Compares what a case expects with what was found.

use serde::Serialize;

use super::judge::{Facts, Judged};
use super::{Call, Case, Expect};

/// One expectation that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The field of the case.
    pub field: &'static str,
    pub expected: String,
    pub found: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: expected {}, found {}", self.field, self.expected, self.found)
    }
}

const OUTCOMES: [(Call, &[&str]); 3] = [
    (Call::Filter, &["pass", "rewrite", "block"]),
    (Call::Escalate, &["send", "ask-back", "hand-over", "send-and-ticket"]),
    (Call::Chain, &["sent", "asked_back", "ticket", "ignored", "spam"]),
];
const FAULTS: [&str; 5] = ["trap", "out-of-fuel", "deadline", "memory", "bad-output"];

/// Refuses a case that expects nothing, or what its hook does not say: it could not fail, or never hold.
pub fn check(call: Call, case: &Case) -> Result<(), String> {
    use Call::{Chain, Classify, Escalate, Filter, Tone};
    let Expect {
        route,
        labels_include,
        labels_exclude,
        confidence_min,
        confidence_max,
        outcome,
        reason,
        reason_contains,
        text,
        text_contains,
        text_not_contains,
        findings_include,
        findings_exclude,
        priority,
        tags_include,
        summary_contains,
        ticket_reason,
        instructions_contain,
        instructions_not_contain,
        language,
        max_characters,
        preamble_contains,
        closing_contains,
        fault,
        fuel_max,
    } = &case.expect;
    let some = |texts: &super::Texts| !texts.as_slice().is_empty();
    let judged: &[Call] = &[Classify, Chain];
    let said: &[Call] = &[Filter, Escalate, Chain];
    let fields: [(&str, bool, &[Call]); 27] = [
        ("route", case.route.is_some(), judged),
        ("label", case.label.is_some(), judged),
        ("expect.route", route.is_some(), judged),
        ("expect.labels_include", some(labels_include), judged),
        ("expect.labels_exclude", some(labels_exclude), judged),
        ("expect.confidence_min", confidence_min.is_some(), judged),
        ("expect.confidence_max", confidence_max.is_some(), judged),
        ("expect.outcome", outcome.is_some(), said),
        ("expect.reason", reason.is_some(), &[Classify, Filter, Escalate, Chain]),
        ("expect.reason_contains", some(reason_contains), &[Classify, Filter, Escalate, Chain]),
        ("expect.text", text.is_some(), said),
        ("expect.text_contains", some(text_contains), said),
        ("expect.text_not_contains", some(text_not_contains), said),
        ("expect.findings_include", some(findings_include), &[Filter, Chain]),
        ("expect.findings_exclude", some(findings_exclude), &[Filter, Chain]),
        ("expect.priority", priority.is_some(), &[Escalate, Chain]),
        ("expect.tags_include", some(tags_include), &[Escalate]),
        ("expect.summary_contains", some(summary_contains), &[Escalate]),
        ("expect.ticket_reason", ticket_reason.is_some(), &[Chain]),
        ("expect.instructions_contain", some(instructions_contain), &[Tone]),
        ("expect.instructions_not_contain", some(instructions_not_contain), &[Tone]),
        ("expect.language", language.is_some(), &[Tone]),
        ("expect.max_characters", max_characters.is_some(), &[Tone]),
        ("expect.preamble_contains", some(preamble_contains), &[Tone]),
        ("expect.closing_contains", some(closing_contains), &[Tone]),
        ("expect.fault", fault.is_some(), &Call::ALL),
        ("expect.fuel_max", fuel_max.is_some(), &Call::ALL),
    ];
    if let Some((field, _, calls)) = fields.iter().find(|(_, given, calls)| *given && !calls.contains(&call)) {
        let words: Vec<&str> = calls.iter().map(|call| call.as_str()).collect();
        return Err(format!(
            "`{field}` cannot be expected of hook = \"{}\"; it is for {}",
            call.as_str(),
            words.join(", ")
        ));
    }
    if !fields.iter().any(|(_, given, _)| *given) {
        return Err("the case expects nothing; give `route` or a field of [case.expect]".to_owned());
    }
    let known = OUTCOMES.iter().find(|(of, _)| *of == call).map(|(_, words)| *words);
    if let (Some(found), Some(known)) = (outcome, known)
        && !known.contains(&found.as_str())
    {
        return Err(format!("`expect.outcome` is `{found}`, expected one of {}", known.join(", ")));
    }
    match fault {
        Some(found) if !FAULTS.contains(&found.as_str()) => {
            Err(format!("`expect.fault` is `{found}`, expected one of {}", FAULTS.join(", ")))
        }
        _ => Ok(()),
    }
}

/// All expectations that do not hold.
pub fn compare(case: &Case, judged: &Judged) -> Vec<Problem> {
    let mut compared = Compared { problems: Vec::new() };
    let expect = &case.expect;
    let kind = judged.fault.as_ref().map(|fault| fault.kind.as_str());
    if let Some(wanted) = &expect.fault {
        compared.equal("fault", Some(wanted.as_str()), kind);
    } else if let Some(fault) = &judged.fault {
        compared.add("fault", "none".to_owned(), format!("{fault}. {}", fault.detail));
    }
    let fuel = judged.calls.iter().map(|call| call.fuel_used).sum::<u64>();
    if expect.fuel_max.is_some_and(|most| fuel > most) {
        compared.add("fuel_max", format!("at most {}", expect.fuel_max.unwrap_or_default()), fuel.to_string());
    }
    // After a fault there is no verdict to compare; a chain goes on without the policy that faulted.
    if judged.fault.is_none() || judged.facts.outcome.is_some() {
        compared.facts(case, &judged.facts);
    }
    compared.problems
}

struct Compared {
    problems: Vec<Problem>,
}

impl Compared {
    fn add(&mut self, field: &'static str, expected: String, found: String) {
        self.problems.push(Problem { field, expected, found });
    }

    fn equal<T: PartialEq + std::fmt::Display>(&mut self, field: &'static str, wanted: Option<T>, found: Option<T>) {
        if let Some(wanted) = wanted
            && found.as_ref() != Some(&wanted)
        {
            self.add(field, wanted.to_string(), found.map_or("none".to_owned(), |found| found.to_string()));
        }
    }

    fn includes(&mut self, field: &'static str, wanted: &[String], found: &[String], must: bool) {
        for wanted in wanted.iter().filter(|wanted| found.contains(wanted) != must) {
            let expected = if must { wanted.clone() } else { format!("not {wanted}") };
            self.add(field, expected, format!("[{}]", found.join(", ")));
        }
    }

    fn contains(&mut self, field: &'static str, wanted: &[String], found: &str, must: bool) {
        for wanted in wanted.iter().filter(|wanted| found.contains(wanted.as_str()) != must) {
            let expected = if must { format!("…{wanted}…") } else { format!("without “{wanted}”") };
            self.add(field, expected, if found.is_empty() { "nothing".to_owned() } else { found.to_owned() });
        }
    }

    fn facts(&mut self, case: &Case, found: &Facts) {
        let expect = &case.expect;
        let route = expect.route.or(case.route).map(|route| route.as_str());
        self.equal("route", route, found.route.map(|route| route.as_str()));
        self.includes("label", case.label.as_slice(), &found.labels, true);
        self.includes("labels_include", expect.labels_include.as_slice(), &found.labels, true);
        self.includes("labels_exclude", expect.labels_exclude.as_slice(), &found.labels, false);
        let confidence = found.confidence.unwrap_or_default();
        if expect.confidence_min.is_some_and(|least| confidence < least) {
            let least = expect.confidence_min.unwrap_or_default();
            self.add("confidence_min", format!("at least {least}"), confidence.to_string());
        }
        if expect.confidence_max.is_some_and(|most| confidence > most) {
            let most = expect.confidence_max.unwrap_or_default();
            self.add("confidence_max", format!("at most {most}"), confidence.to_string());
        }
        self.equal("outcome", expect.outcome.as_deref(), found.outcome.as_deref());
        self.equal("reason", expect.reason.as_deref(), Some(found.reason.as_deref().unwrap_or_default()));
        let reason = found.reason.as_deref().unwrap_or_default();
        self.contains("reason_contains", expect.reason_contains.as_slice(), reason, true);
        self.equal("text", expect.text.as_deref(), Some(found.text.as_str()));
        self.contains("text_contains", expect.text_contains.as_slice(), &found.text, true);
        self.contains("text_not_contains", expect.text_not_contains.as_slice(), &found.text, false);
        self.includes("findings_include", expect.findings_include.as_slice(), &found.findings, true);
        self.includes("findings_exclude", expect.findings_exclude.as_slice(), &found.findings, false);
        let priority = expect.priority.map(|priority| priority.as_str());
        self.equal("priority", priority, found.priority.map(|priority| priority.as_str()));
        self.equal("ticket_reason", expect.ticket_reason.as_deref(), found.ticket_reason.as_deref());
        self.includes("tags_include", expect.tags_include.as_slice(), &found.tags, true);
        self.contains("summary_contains", expect.summary_contains.as_slice(), &found.summary, true);
        let instructions = found.instructions.as_str();
        self.contains("instructions_contain", expect.instructions_contain.as_slice(), instructions, true);
        self.contains("instructions_not_contain", expect.instructions_not_contain.as_slice(), instructions, false);
        self.equal("language", expect.language.as_deref(), found.language.as_deref());
        self.equal("max_characters", expect.max_characters, found.max_characters);
        self.contains("preamble_contains", expect.preamble_contains.as_slice(), &found.preamble, true);
        self.contains("closing_contains", expect.closing_contains.as_slice(), &found.closing, true);
    }
}

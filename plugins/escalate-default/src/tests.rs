use frontdesk_policy_sdk::escalation::{Evidence, FilterOutcome, Ticket};
use frontdesk_policy_sdk::export::State;
use frontdesk_policy_sdk::testing::{classification, message, passage, turn, turn_in};
use serde_json::{Value, json};

use super::*;

const SHIPPED: &str = include_str!("../../../policies/default/escalate-default.toml");

fn configured(change: impl FnOnce(&mut Value)) -> Result<State<EscalateDefault>, Vec<SettingError>> {
    let mut document: Value = toml::from_str(SHIPPED).unwrap();
    change(&mut document);
    let state = State::new();
    state.configure(&document.to_string()).map(|()| state)
}

fn decide(turn: &Turn, dossier: &Dossier) -> Verdict {
    match configured(|_| ()) {
        Ok(state) => state.get().unwrap().decide(turn, dossier).unwrap(),
        Err(errors) => panic!("{errors:#?}"),
    }
}

/// A dossier with which the answer is sent.
fn good() -> Dossier {
    Dossier {
        classification: classification(Route::Answer, &["question"]),
        passages: vec![passage("p1", "We ship to Austria.", 0.8)],
        draft: Some("Yes, we ship to Austria.".to_owned()),
        no_draft_reason: None,
        evidence: Evidence { sentences: 1, supported: 1, best_score: 0.8, confidence: 0.9 },
        filters: Vec::new(),
    }
}

fn handed_over(verdict: Verdict) -> Ticket {
    match verdict {
        Verdict::HandOver(ticket) => ticket,
        other => panic!("expected a hand-over, found {other:?}"),
    }
}

const QUESTION: &str = "Do you ship bikes to Austria?";

#[test]
fn shipped_settings_fit_the_schema() {
    let schema: Value = serde_json::from_str(&EscalateDefault::describe().settings_schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let document: Value = toml::from_str(SHIPPED).unwrap();
    let mistakes: Vec<String> =
        validator.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert_eq!(mistakes, [] as [String; 0]);
}

#[test]
fn a_well_founded_answer_is_sent() {
    assert_eq!(decide(&turn(QUESTION), &good()), Verdict::Send);
}

#[test]
fn each_reason_hands_over() {
    type Change = fn(&mut Turn, &mut Dossier);
    let table: [(&str, Change); 12] = [
        ("complaint", |_, dossier| dossier.classification = classification(Route::Human, &["complaint", "question"])),
        ("filter-blocked", |_, dossier| {
            let (policy, outcome, reason) = ("filter-safety".into(), "block".into(), "Too long.".into());
            dossier.filters.push(FilterOutcome { policy, outcome, reason, findings: Vec::new() });
        }),
        ("no-draft", |_, dossier| dossier.draft = None),
        ("model-unavailable", |_, dossier| {
            (dossier.draft, dossier.no_draft_reason) = (None, Some("model-unavailable".to_owned()));
        }),
        ("no-knowledge", |_, dossier| (dossier.draft, dossier.passages) = (None, Vec::new())),
        ("angry", |turn, _| turn.messages[0].text = "THIS IS RIDICULOUS!!! do you ship or not".to_owned()),
        ("too-many-automated-turns", |turn, _| turn.automated_turns = 8),
        ("repeated-question", |turn, _| {
            turn.history =
                vec![message(Author::Customer, "do you ship Bikes to AUSTRIA"), message(Author::Bot, "No idea.")];
        }),
        ("low-score", |_, dossier| dossier.evidence.best_score = 0.1),
        ("unsupported", |_, dossier| (dossier.evidence.sentences, dossier.evidence.supported) = (4, 2)),
        ("low-confidence", |_, dossier| dossier.evidence.confidence = 0.2),
        ("no-knowledge", |_, dossier| dossier.passages.clear()),
    ];
    for (expected, change) in table {
        let (mut turn, mut dossier) = (turn(QUESTION), good());
        change(&mut turn, &mut dossier);
        let ticket = handed_over(decide(&turn, &dossier));
        assert_eq!(ticket.reason, expected);
        assert!(ticket.notice.is_some() && !ticket.summary.is_empty(), "{expected}");
    }
}

#[test]
fn thresholds_hold_at_the_limit() {
    let mut dossier = good();
    dossier.evidence = Evidence { sentences: 5, supported: 3, best_score: 0.2, confidence: 0.35 };
    assert_eq!(decide(&turn(QUESTION), &dossier), Verdict::Send);
    let nearly = Turn { automated_turns: 7, ..turn(QUESTION) };
    assert_eq!(decide(&nearly, &good()), Verdict::Send);
}

#[test]
fn a_vague_turn_is_asked_back_once() {
    let mut dossier = good();
    dossier.draft = None;
    let Verdict::AskBack(question) = decide(&turn_in("de", "Fahrrad?"), &dossier) else { panic!("no question back") };
    assert!(question.starts_with("Ich helfe gern"));
    let history = vec![message(Author::Customer, "Fahrrad"), message(Author::Bot, &question)];
    handed_over(decide(&Turn { history, ..turn_in("de", "ja Fahrrad") }, &dossier));
    let clear = "Which of your bikes has a belt drive and eight gears";
    handed_over(decide(&turn(clear), &dossier));
    dossier.no_draft_reason = Some("model-unavailable".to_owned());
    handed_over(decide(&turn("bike?"), &dossier));
}

#[test]
fn anger_needs_more_than_one_weak_sign() {
    for (text, angry) in [
        ("Do you ship to Austria???", false),
        ("DO YOU SHIP TO AUSTRIA", false),
        ("Great shop!!!", false),
        ("That is a ridiculous price difference, why?", false),
        ("THIS IS A JOKE", true),
        ("This is ridiculous!!!", true),
        ("wtf, you are thieves", true),
        ("DAS IST EINE FRECHHEIT", true),
        ("¡¡¡Es una vergüenza!!!", true),
        ("C'est inadmissible, bande de voleurs", true),
        ("ok", false),
    ] {
        let verdict = decide(&turn(text), &good());
        assert_eq!(
            matches!(&verdict, Verdict::HandOver(ticket) if ticket.reason == "angry"),
            angry,
            "{text}: {verdict:?}"
        );
    }
}

#[test]
fn priority_follows_labels_anger_and_hours() {
    let human = |labels: &[&str]| Dossier { classification: classification(Route::Human, labels), ..good() };
    let mut sunday = turn(QUESTION);
    sunday.local_time.weekday = Weekday::Sunday;
    let table = [
        (turn(QUESTION), human(&["safety"]), Priority::Urgent),
        (turn(QUESTION), human(&["asks-for-person", "topic:legal"]), Priority::High),
        (turn(QUESTION), human(&["asks-for-person"]), Priority::Normal),
        (turn("THIS IS A JOKE, get me a human"), human(&["asks-for-person"]), Priority::Normal),
        (turn("THIS IS A BAD JOKE"), human(&["asks-for-person"]), Priority::High),
        (sunday.clone(), human(&["asks-for-person"]), Priority::Low),
        (sunday, human(&["safety"]), Priority::Urgent),
    ];
    for (turn, dossier, expected) in table {
        let ticket = handed_over(decide(&turn, &dossier));
        assert_eq!(ticket.priority, expected, "{}: {ticket:?}", turn.messages[0].text);
    }
}

#[test]
fn the_notice_follows_the_clock_the_holidays_and_the_language() {
    let human = Dossier { classification: classification(Route::Human, &["asks-for-person"]), ..good() };
    let table = [
        (Weekday::Monday, 9 * 60, "2026-03-02", "in Kürze"),
        (Weekday::Monday, 9 * 60 - 1, "2026-03-02", "geschlossen"),
        (Weekday::Monday, 12 * 60 + 29, "2026-03-02", "in Kürze"),
        (Weekday::Monday, 12 * 60 + 30, "2026-03-02", "geschlossen"),
        (Weekday::Saturday, 12 * 60, "2026-03-07", "in Kürze"),
        (Weekday::Sunday, 12 * 60, "2026-03-08", "geschlossen"),
        (Weekday::Monday, 10 * 60, "2026-10-26", "geschlossen"),
    ];
    for (weekday, minute_of_day, date, expected) in table {
        let mut turn = turn_in("de-AT", QUESTION);
        turn.local_time = LocalTime { weekday, minute_of_day, date: date.to_owned(), ..turn.local_time };
        let notice = handed_over(decide(&turn, &human)).notice.unwrap();
        assert!(notice.contains(expected), "{weekday:?} {minute_of_day} {date}: {notice}");
    }
    let safety = Dossier { classification: classification(Route::Human, &["safety"]), ..good() };
    assert!(handed_over(decide(&turn_in("fr", "x"), &safety)).notice.unwrap().contains("112"));
}

#[test]
fn the_summary_says_what_a_person_needs_and_is_bounded() {
    let mut dossier = good();
    dossier.evidence.confidence = 0.2;
    let ticket = handed_over(decide(&turn(QUESTION), &dossier));
    for part in [QUESTION, "Shipping", "0.80", "Yes, we ship", "confidence 0.20", "not sure enough"] {
        assert!(ticket.summary.contains(part), "{part}: {}", ticket.summary);
    }
    dossier.draft = Some("ü".repeat(8_000));
    let long = handed_over(decide(&turn(&"ä ".repeat(4_000)), &dossier));
    assert!(long.summary.len() <= 2_000 && long.reason.len() <= 64);
}

#[test]
fn a_label_may_open_a_ticket_beside_the_answer() {
    let state = configured(|settings| settings["ticket-labels"] = json!(["wholesale"])).unwrap();
    let dossier = Dossier { classification: classification(Route::Answer, &["wholesale"]), ..good() };
    let verdict = state.get().unwrap().decide(&turn(QUESTION), &dossier).unwrap();
    assert!(
        matches!(verdict, Verdict::SendAndTicket(ticket) if ticket.notice.is_none() && ticket.reason == "wholesale")
    );
}

#[test]
fn every_mistake_in_the_settings_is_listed() {
    let errors = configured(|settings| {
        settings["hours"] = json!({
            "week": { "monday": ["09:00-17:00", "17:00-09:00"], "mittwoch": ["9 to five!"] },
            "holidays": ["12-25", "25.12.2026"]
        });
        settings["anger"]["phrases"]["en"] = json!(["(x"]);
        settings["labels"] = json!([{ "label": "a", "priority": "low" }, { "label": "a", "priority": "low" }]);
        settings["ask-back"]["text"] = json!({});
    })
    .unwrap_err();
    let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/hours/week/mittwoch",
            "/hours/week/mittwoch/0",
            "/hours/week/monday/1",
            "/hours/holidays/1",
            "/anger/phrases/en/0",
            "/labels/1/label",
            "/ask-back/text"
        ]
    );
}

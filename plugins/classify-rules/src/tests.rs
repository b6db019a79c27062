//! The shipped settings, judged by what people write.

use std::sync::OnceLock;

use frontdesk_policy_sdk::export::State;
use frontdesk_policy_sdk::testing::{attachments, message, turn, turn_in};

use super::*;

const SHIPPED: &str = include_str!("../../../policies/default/classify-rules.toml");

fn shipped() -> &'static ClassifyRules {
    static STATE: State<ClassifyRules> = State::new();
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let document: serde_json::Value = toml::from_str(SHIPPED).unwrap();
        if let Err(errors) = STATE.configure(&document.to_string()) {
            panic!("{errors:#?}");
        }
    });
    STATE.get().unwrap()
}

#[test]
fn shipped_settings_fit_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(&ClassifyRules::describe().settings_schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let document: serde_json::Value = toml::from_str(SHIPPED).unwrap();
    let mistakes: Vec<String> =
        validator.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert_eq!(mistakes, [] as [String; 0]);
    shipped();
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    text: String,
    #[serde(default)]
    language: Option<String>,
    route: String,
    #[serde(default)]
    label: Option<String>,
}

#[test]
fn golden_cases() {
    let cases: Cases = toml::from_str(include_str!("../../../policies/default/cases/classify.toml")).unwrap();
    assert!(cases.case.len() > 100);
    let mut wrong = Vec::new();
    for case in &cases.case {
        let turn = case.language.as_deref().map_or_else(|| turn(&case.text), |tag| turn_in(tag, &case.text));
        let verdict = shipped().classify(&turn).unwrap();
        let route = format!("{:?}", verdict.route).to_lowercase().replace("route::", "");
        let labelled = case.label.as_ref().is_none_or(|label| verdict.labels.contains(label));
        if route != case.route || !labelled {
            wrong.push(format!("{}\n    expected {} {:?}, found {verdict:?}", case.text, case.route, case.label));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_turn_without_words_is_judged_by_what_it_is_made_of() {
    use AttachmentKind::{Image, Sticker};
    let table: [(&[AttachmentKind], Route, &str); 3] = [
        (&[Sticker, Sticker], Route::Ignore, "sticker"),
        (&[Image], Route::Human, "attachment"),
        (&[Sticker, Image], Route::Human, "attachment"),
    ];
    for (kinds, route, label) in table {
        let verdict = shipped().classify(&Turn { messages: vec![attachments(kinds)], ..turn("") }).unwrap();
        assert_eq!((verdict.route, verdict.labels), (route, vec![label.to_owned()]));
    }
}

#[test]
fn a_button_speaks_for_itself() {
    let mut tapped = turn("Main menu");
    tapped.messages[0].payload = Some("TALK_TO_PERSON".to_owned());
    let verdict = shipped().classify(&tapped).unwrap();
    assert_eq!((verdict.route, verdict.confidence), (Route::Human, 1.0));
}

#[test]
fn okay_after_a_question_is_an_answer() {
    let history = vec![message(Author::Bot, "Shall I tell you about returns?")];
    assert_eq!(shipped().classify(&Turn { history, ..turn("ok 👍") }).unwrap().route, Route::Answer);
    let history = vec![message(Author::Bot, "Have a nice day.")];
    assert_eq!(shipped().classify(&Turn { history, ..turn("ok 👍") }).unwrap().route, Route::Ignore);
}

#[test]
fn several_messages_are_one_turn_of_several_sentences() {
    let messages = vec![message(Author::Customer, "I want to speak"), message(Author::Customer, "to a human")];
    let verdict = shipped().classify(&Turn { messages, ..turn("") }).unwrap();
    assert_eq!(verdict.route, Route::Answer, "words of two messages make no phrase");
    let messages = vec![message(Author::Customer, "hi"), message(Author::Customer, "human please")];
    assert_eq!(shipped().classify(&Turn { messages, ..turn("") }).unwrap().route, Route::Human);
}

#[test]
fn confidence_is_the_score_or_the_remaining_doubt() {
    let person = shipped().classify(&turn("I want to talk to a human")).unwrap();
    assert!(person.confidence >= 0.9, "{person:?}");
    let clear = shipped().classify(&turn("What does shipping to Vienna cost?")).unwrap();
    assert!((clear.confidence - 1.0).abs() < 1e-6, "{clear:?}");
    let doubtful = shipped().classify(&turn("Do you know something about crypto?")).unwrap();
    assert_eq!(doubtful.route, Route::Answer);
    assert!(doubtful.confidence < 0.6, "{doubtful:?}");
}

#[test]
fn every_mistake_in_the_settings_is_listed() {
    let document = r#"{
        "labels": [
            {"name": "a", "route": "human", "threshold": 0.5, "reason": "x"},
            {"name": "a", "route": "human", "threshold": 0.5, "reason": "x"},
            {"name": "B!", "route": "human", "threshold": 0.5, "reason": "x"}
        ],
        "rules": [
            {"label": "c", "weight": 0.5, "phrases": ["ok", "(x"]},
            {"label": "a", "weight": 0.5, "phrases": ["..."], "unless": ["y)"]}
        ],
        "links": {"label": "d"},
        "payloads": [{"payload": "P", "label": "e"}]
    }"#;
    let errors = State::<ClassifyRules>::new().configure(document).unwrap_err();
    let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/labels/1/name",
            "/labels/2/name",
            "/rules/0/label",
            "/rules/0/phrases/1",
            "/rules/1/phrases/0",
            "/rules/1/unless/0",
            "/links/label",
            "/payloads/0/label"
        ]
    );
}

#[test]
fn a_verdict_is_bounded_and_repeatable() {
    let long = "I want a lawyer, refund me, you scammers! ".repeat(500);
    let first = shipped().classify(&turn(&long)).unwrap();
    assert!(first.reason.len() <= REASON_MAX_BYTES && first.labels.len() <= LABELS_MAX);
    assert_eq!(first, shipped().classify(&turn(&long)).unwrap());
}

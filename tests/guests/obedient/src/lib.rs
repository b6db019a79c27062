//! Serves all four hooks and does what its settings say, all of it right: what a chain of well-behaved policies does to
//! a turn can be tested without the first-party components and their rules.

use std::sync::OnceLock;

use serde::Deserialize;

#[expect(unsafe_code, reason = "the generated bindings pass pointers to the host")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit/policy/0.1.0",
        inline: "
            package guests:obedient;
            world all {
                import frontdesk:policy/log@0.1.0;
                export frontdesk:policy/lifecycle@0.1.0;
                export frontdesk:policy/classify-hook@0.1.0;
                export frontdesk:policy/tone-hook@0.1.0;
                export frontdesk:policy/filter-hook@0.1.0;
                export frontdesk:policy/escalation-hook@0.1.0;
            }
        ",
        world: "guests:obedient/all",
        generate_all,
    });
    export!(Obedient);
    use super::Obedient;
}

use bindings::exports::frontdesk::policy::{classify_hook, escalation_hook, filter_hook, lifecycle, tone_hook};
use bindings::frontdesk::policy::log;
use bindings::frontdesk::policy::types::{Classification, Finding, Passage, Priority, Route, Turn};

struct Obedient;

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Name of the route that `classify` chooses; `answer` unless said otherwise.
    route: String,
    /// Filter: appended to the text, with a hint at the old end.
    append: Option<String>,
    /// Filter: what becomes of the text, so many times.
    replace: Option<(String, usize)>,
    /// Tone: the only instruction.
    instruct: Option<String>,
    /// Filter: a text with this word is blocked.
    block: Option<String>,
    /// Filter: hints to return as they are, whatever the text.
    split_hints: Vec<u32>,
    /// Filter: range of a finding, whatever the text.
    finding_at: Option<(u32, u32)>,
    /// Escalation: `send`, `ask-back`, `hand-over`, `send-and-ticket`.
    verdict: String,
    /// Filter: panics at a text with this word.
    panic_at: Option<String>,
    /// Every hook logs it, so that a decision record shows which settings each of its calls had.
    mark: Option<String>,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

fn settings() -> &'static Settings {
    SETTINGS.get_or_init(Settings::default)
}

fn log_mark() {
    if let Some(mark) = &settings().mark {
        log::write(log::Level::Info, &format!("mark:{mark}"));
    }
}

impl lifecycle::Guest for Obedient {
    fn describe() -> lifecycle::Description {
        lifecycle::Description {
            name: "obedient".to_owned(),
            version: "1.2.3-test.1".to_owned(),
            summary: "Does what its settings say; for tests of the host.".to_owned(),
            // Narrower than `configure`, which a check must notice.
            settings_schema: r#"{"type": "object", "maxProperties": 3}"#.to_owned(),
        }
    }

    fn configure(text: String) -> Result<(), Vec<lifecycle::SettingError>> {
        match serde_json::from_str(&text) {
            Ok(settings) => {
                SETTINGS.get_or_init(|| settings);
                Ok(())
            }
            Err(error) => Err(vec![lifecycle::SettingError { path: String::new(), message: error.to_string() }]),
        }
    }
}

impl classify_hook::Guest for Obedient {
    fn classify(turn: Turn) -> Result<Classification, String> {
        log_mark();
        let route = match settings().route.as_str() {
            "" | "answer" => Route::Answer,
            "human" => Route::Human,
            "spam" => Route::Spam,
            "ignore" => Route::Ignore,
            other => return Err(format!("no route is called `{other}`")),
        };
        let labels = vec![format!("messages:{}", turn.messages.len())];
        Ok(Classification { route, confidence: 1.0, labels, reason: "told so".to_owned() })
    }
}

impl tone_hook::Guest for Obedient {
    fn compose(turn: Turn, classification: Classification, passages: Vec<Passage>) -> Result<tone_hook::Plan, String> {
        log_mark();
        let text = format!("{}: {:?}, {} passages", turn.page.name, classification.route, passages.len());
        let text = settings().instruct.clone().unwrap_or(text);
        Ok(tone_hook::Plan {
            instructions: vec![tone_hook::Instruction { title: "Voice".to_owned(), text }],
            examples: Vec::new(),
            language: Some(turn.page.language),
            max_characters: 1_000,
            temperature: Some(0.2),
            preamble: None,
            closing: None,
        })
    }
}

impl filter_hook::Guest for Obedient {
    fn apply(_: Turn, draft: filter_hook::Draft, _: Vec<Passage>) -> Result<filter_hook::Verdict, String> {
        log_mark();
        let settings = settings();
        if let Some(word) = &settings.panic_at {
            assert!(!draft.text.contains(word), "the word was found");
        }
        let mut split_hints = settings.split_hints.clone();
        let outcome = if settings.block.as_ref().is_some_and(|word| draft.text.contains(word)) {
            filter_hook::Outcome::Block(filter_hook::Blocked { reason: "a word that must not go out".to_owned() })
        } else if let Some((text, times)) = &settings.replace {
            let (text, reason) = (text.repeat(*times), "everything was replaced".to_owned());
            filter_hook::Outcome::Rewrite(filter_hook::Rewritten { text, reason })
        } else if let Some(more) = &settings.append {
            split_hints.push(u32::try_from(draft.text.len()).unwrap_or(u32::MAX));
            let text = format!("{}{more}", draft.text);
            filter_hook::Outcome::Rewrite(filter_hook::Rewritten { text, reason: "something was added".to_owned() })
        } else {
            filter_hook::Outcome::Pass
        };
        let finding = |at| Finding { rule: "test:rule".to_owned(), detail: "asked for".to_owned(), at: Some(at) };
        Ok(filter_hook::Verdict {
            outcome,
            findings: settings.finding_at.map(finding).into_iter().collect(),
            split_hints,
        })
    }
}

impl escalation_hook::Guest for Obedient {
    fn decide(_: Turn, dossier: escalation_hook::Dossier) -> Result<escalation_hook::Verdict, String> {
        log_mark();
        let ticket = || escalation_hook::Ticket {
            priority: Priority::High,
            reason: "told-so".to_owned(),
            summary: format!("{} filters were asked", dossier.filters.len()),
            tags: vec!["test".to_owned()],
            notice: None,
        };
        Ok(match settings().verdict.as_str() {
            "" if dossier.draft.is_none() => escalation_hook::Verdict::HandOver(ticket()),
            "" if dossier.filters.iter().any(|filter| filter.outcome == "block") => {
                escalation_hook::Verdict::HandOver(ticket())
            }
            "" | "send" => escalation_hook::Verdict::Send,
            "ask-back" => escalation_hook::Verdict::AskBack("Which order is it about?".to_owned()),
            "hand-over" => escalation_hook::Verdict::HandOver(ticket()),
            "send-and-ticket" => escalation_hook::Verdict::SendAndTicket(ticket()),
            other => return Err(format!("no verdict is called `{other}`")),
        })
    }
}

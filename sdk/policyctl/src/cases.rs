//! Tables of cases: what a policy or a chain is told, and what it must say.
//!
//! A file is TOML (`[[case]]`) or JSON (`{"case": […]}`). A case is one flat table: what is not given has the value of a
//! sample turn, so that a case says only what matters to it.
//!
//! ```toml
//! hook = "classify"                 # optional: for all cases of the file; otherwise the file's name begins with it
//!
//! [[case]]
//! name = "asks for a person"        # optional: the text
//! text = "Get me a human"
//! language = "en"                   # what the host would have detected
//! route = "human"                   # short for expect.route
//! label = "asks-for-person"         # short for expect.labels_include
//! [case.expect]
//! confidence_min = 0.9
//! ```
//!
//! - [`Case`] lists all that can be said about the input ([`input`] makes the hook's arguments of it).
//! - [`Expect`] lists all that can be expected ([`expect`] compares it with what was found).
//! - [`judge`] calls the hook, or the whole chain for `hook = "chain"`: without a host there is no retrieval and no
//!   drafting, so such a case brings its `passages` and its `draft`.

pub mod expect;
pub mod input;
pub mod judge;

use std::path::{Path, PathBuf};

use frontdesk_policy_engine::Hook;
use frontdesk_policy_engine::types::{AttachmentKind, Author, Evidence, MessageSource, Priority, Route, Turn, Weekday};
use serde::{Deserialize, Serialize};

use crate::bundle;
use crate::cli::Failure;

/// Largest file of cases, in bytes.
const FILE_BYTES_MAX: usize = 16 << 20;

/// What a case calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    Classify,
    Tone,
    Filter,
    Escalate,
    /// All hooks, as in a turn.
    Chain,
}

impl Call {
    pub const ALL: [Self; 5] = [Self::Classify, Self::Tone, Self::Filter, Self::Escalate, Self::Chain];

    pub const fn as_str(self) -> &'static str {
        match self.hook() {
            Some(hook) => hook.as_str(),
            None => "chain",
        }
    }

    pub const fn hook(self) -> Option<Hook> {
        match self {
            Self::Classify => Some(Hook::Classify),
            Self::Tone => Some(Hook::Tone),
            Self::Filter => Some(Hook::Filter),
            Self::Escalate => Some(Hook::Escalate),
            Self::Chain => None,
        }
    }
}

impl From<Hook> for Call {
    fn from(hook: Hook) -> Self {
        match hook {
            Hook::Classify => Self::Classify,
            Hook::Tone => Self::Tone,
            Hook::Filter => Self::Filter,
            Hook::Escalate => Self::Escalate,
        }
    }
}

/// A file of cases.
#[derive(Debug)]
pub struct CaseFile {
    pub path: PathBuf,
    /// The hook that the file or its name says.
    pub call: Option<Call>,
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    hook: Option<Call>,
    case: Vec<Case>,
}

/// One case. Absent fields have the value of a sample turn: a customer of an English Page, on Monday, 2 March 2026 at
/// 11:30 in Vienna, without a history.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Case {
    pub name: Option<String>,
    pub hook: Option<Call>,

    /// A whole turn, as decision records have it, in place of the sample; the fields below change it.
    pub turn: Option<Turn>,
    /// What the customer wrote.
    pub text: Option<String>,
    /// Several messages in place of `text`.
    pub messages: Option<Vec<CaseMessage>>,
    /// Payload of the button that was tapped.
    pub payload: Option<String>,
    pub attachments: Vec<AttachmentKind>,
    pub history: Option<Vec<CaseMessage>>,
    /// BCP 47 tag of the language that the host detected.
    pub language: Option<String>,
    pub page: CasePage,
    pub customer: CaseCustomer,
    pub weekday: Option<Weekday>,
    /// Local time, `HH:MM`.
    pub time: Option<String>,
    /// Local date, `YYYY-MM-DD`.
    pub date: Option<String>,
    pub automated_turns: Option<u32>,
    pub disclosure_due: Option<bool>,
    pub attributes: std::collections::BTreeMap<String, String>,

    /// What retrieval found; absent: one passage about shipping.
    pub passages: Option<Vec<CasePassage>>,
    /// The classifier's verdict, for the hooks after it; absent: `answer`.
    pub classification: CaseClassification,
    /// The draft; absent: an answer about shipping, where a draft is possible.
    pub draft: Option<String>,
    pub draft_language: Option<String>,
    /// Ids of the passages that the draft cites.
    pub cited: Vec<String>,
    /// What the drafting model was told, for filters that look for leaks.
    pub instructions: Vec<String>,
    /// `route`, `declined`, `model-unavailable`, `budget`: there is no draft.
    pub no_draft_reason: Option<String>,
    /// Absent: all of the draft is carried by the passages.
    pub evidence: Option<Evidence>,
    /// What filters said before the escalation; absent: nothing.
    pub filters: Vec<CaseFilter>,

    /// Short for `expect.route`.
    pub route: Option<Route>,
    /// Short for `expect.labels_include`.
    pub label: Option<String>,
    pub expect: Expect,
}

/// A message: its text, or a table.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a message is a text, or a table of author, text, payload, attachments, source")]
pub enum CaseMessage {
    Text(String),
    Table(CaseMessageTable),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseMessageTable {
    pub author: Option<Author>,
    #[serde(default)]
    pub text: String,
    pub payload: Option<String>,
    #[serde(default)]
    pub attachments: Vec<AttachmentKind>,
    pub source: Option<MessageSource>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CasePage {
    pub id: Option<String>,
    pub name: Option<String>,
    pub language: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaseCustomer {
    pub name: Option<String>,
    pub locale: Option<String>,
}

/// A passage: its text, or a table.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a passage is a text, or a table of id, title, source, text, language, score, labels")]
pub enum CasePassage {
    Text(String),
    Table(CasePassageTable),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CasePassageTable {
    pub id: Option<String>,
    pub title: Option<String>,
    pub source: Option<String>,
    pub text: String,
    pub language: Option<String>,
    pub score: Option<f32>,
    #[serde(default)]
    pub labels: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaseClassification {
    pub route: Option<Route>,
    pub confidence: Option<f32>,
    pub labels: Vec<String>,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFilter {
    pub policy: Option<String>,
    /// `pass`, `rewrite` or `block`.
    pub outcome: String,
    #[serde(default)]
    pub reason: String,
}

/// One text, or several.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged, expecting = "a text, or a list of texts")]
pub enum Texts {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl Texts {
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// What is expected; everything that is given must hold. Texts are compared to the letter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// classify, chain: where the turn goes.
    pub route: Option<Route>,
    /// classify, chain.
    pub labels_include: Texts,
    /// classify, chain.
    pub labels_exclude: Texts,
    /// classify, chain.
    pub confidence_min: Option<f32>,
    /// classify, chain.
    pub confidence_max: Option<f32>,
    /// filter: `pass`, `rewrite`, `block`. escalate: `send`, `ask-back`, `hand-over`, `send-and-ticket`. chain: `sent`,
    /// `asked_back`, `ticket`, `ignored`, `spam`.
    pub outcome: Option<String>,
    /// classify, filter, chain: the sentence. escalate: the ticket's reason.
    pub reason: Option<String>,
    /// As `reason`, in part.
    pub reason_contains: Texts,
    /// filter: the text that goes out. escalate, chain: what the customer is told; empty for nothing.
    pub text: Option<String>,
    pub text_contains: Texts,
    pub text_not_contains: Texts,
    /// filter, chain: rules that were found.
    pub findings_include: Texts,
    pub findings_exclude: Texts,
    /// escalate, chain: the ticket's.
    pub priority: Option<Priority>,
    /// escalate.
    pub tags_include: Texts,
    /// escalate.
    pub summary_contains: Texts,
    /// chain: the ticket's reason.
    pub ticket_reason: Option<String>,
    /// tone: in the title or text of any instruction.
    pub instructions_contain: Texts,
    pub instructions_not_contain: Texts,
    /// tone: the language to answer in.
    pub language: Option<String>,
    /// tone.
    pub max_characters: Option<u32>,
    /// tone.
    pub preamble_contains: Texts,
    /// tone.
    pub closing_contains: Texts,
    /// The call ends in a fault of this kind: `trap`, `out-of-fuel`, `deadline`, `memory`, `bad-output`.
    pub fault: Option<String>,
    /// The most fuel that the call, or the whole chain, may use.
    pub fuel_max: Option<u64>,
}

/// Reads a file of cases.
pub fn read(path: &Path) -> Result<CaseFile, Failure> {
    let bytes = bundle::read_file(path, FILE_BYTES_MAX).map_err(Failure::input)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| Failure::input(format!("{} is not UTF-8: {error}", path.display())))?;
    let raw = if path.extension().is_some_and(|it| it == "json") {
        parse_json::<RawFile>(text)
    } else {
        toml::from_str::<RawFile>(text).map_err(|error| error.to_string())
    };
    let raw = raw.map_err(|problem| Failure::input(format!("{}: {problem}", path.display())))?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let call = raw.hook.or_else(|| {
        let named =
            |call: &Call| stem.strip_prefix(call.as_str()).is_some_and(|rest| !rest.starts_with(char::is_alphabetic));
        Call::ALL.into_iter().find(named)
    });
    if raw.case.is_empty() {
        return Err(Failure::input(format!("{} holds no case", path.display())));
    }
    let cases = raw.case.into_iter().enumerate().map(|(i, case)| {
        let problem = |problem: String| {
            Failure::input(format!("{}, case {} ({}): {problem}", path.display(), i + 1, case.title()))
        };
        let fits = case.hook.or(call).map_or(Ok(()), |call| expect::check(call, &case));
        fits.map_err(problem)?;
        Ok(case.clone())
    });
    Ok(CaseFile { path: path.to_owned(), call, cases: cases.collect::<Result<_, Failure>>()? })
}

/// JSON whose mistakes are named by their field.
pub fn parse_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!("{path}: ") };
        format!("{place}{}", error.into_inner())
    })?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(value)
}

impl Case {
    /// The name, or the text.
    pub fn title(&self) -> String {
        let text = self.name.as_deref().or(self.text.as_deref()).unwrap_or("without a name or text");
        crate::words::one_line(text, 70)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(name: &str, text: &str) -> Result<CaseFile, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn the_hook_is_the_cases_or_the_files_or_in_its_name() {
        let case = "[[case]]\ntext = \"x\"\nexpect.fuel_max = 1\n";
        assert_eq!(read_text("classify.toml", case).unwrap().call, Some(Call::Classify));
        assert_eq!(read_text("filter-links.toml", case).unwrap().call, Some(Call::Filter));
        assert_eq!(read_text("chainsaw.toml", case).unwrap().call, None);
        assert_eq!(read_text("x.toml", &format!("hook = \"chain\"\n{case}")).unwrap().call, Some(Call::Chain));
        let json = r#"{"hook": "tone", "case": [{"text": "x", "expect": {"language": "de"}}]}"#;
        assert_eq!(read_text("x.json", json).unwrap().call, Some(Call::Tone));
    }

    #[test]
    fn mistakes_name_file_case_and_field() {
        let table = [
            ("classify.toml", "[[case]]\ntext = \"x\"\n", "expects nothing"),
            ("classify.toml", "[[case]]\ntext = \"x\"\nexpect.priority = \"low\"\n", "expect.priority"),
            ("escalate.toml", "[[case]]\nroute = \"human\"\n", "`route`"),
            ("escalate.toml", "[[case]]\nexpect.outcome = \"sent\"\n", "`sent`"),
            ("classify.toml", "[[case]]\ntxt = \"x\"\n", "txt"),
            ("classify.toml", "[[case]]\nroute = \"humans\"\n", "humans"),
            (
                "classify.json",
                r#"{"case": [{"text": "x", "expect": {"confidence_min": "high"}}]}"#,
                "case[0].expect.confidence_min",
            ),
            ("classify.toml", "case = []", "holds no case"),
        ];
        for (name, text, expected) in table {
            let found = read_text(name, text).unwrap_err();
            assert!(found.contains(expected) && found.contains(name), "{text}: {found}");
        }
    }
}

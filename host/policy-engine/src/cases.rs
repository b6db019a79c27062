//! Tables of cases: what a policy or a chain is told, and what it must say.
//!
//! A file is TOML (`[[case]]`), JSON (`{"case": […]}`) or YAML (`case:`), all of one shape ([`mod@format`]). A case is
//! one flat table: what is not given has the value of a sample turn, so that a case says only what matters to it.
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
//!
//! The command line and the host's gate judge cases with this module, so that what passes in one passes in the other.
//! Reading files is the caller's.

pub mod expect;
pub mod format;
pub mod input;
pub mod judge;

use serde::{Deserialize, Serialize};

use crate::hook::Hook;
use crate::policy::Policy;
use crate::revision::Revision;
use crate::types::{AttachmentKind, Author, Evidence, MessageSource, Priority, Route, Turn, Weekday};
use expect::Problem;
use judge::Judged;

pub use format::{is_case_file, parse_json};

/// Largest file of cases, in bytes.
pub const FILE_BYTES_MAX: usize = 16 << 20;
/// Most characters of a case's title.
const TITLE_CHARACTERS_MAX: usize = 70;

/// What a case calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Classify, Self::Tone, Self::Filter, Self::Escalate, Self::Chain];

    /// The word in files and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self.hook() {
            Some(hook) => hook.as_str(),
            None => "chain",
        }
    }

    /// The hook, if it is one.
    #[must_use]
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

impl std::str::FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|call| call.as_str() == text).ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str).join(", ");
            format!("`{}` is none of {words}", text.escape_debug())
        })
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
    /// Its path, for messages.
    pub path: String,
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

/// Parses a file of cases. The path says the format (`.json`, `.yaml`, `.yml`, otherwise TOML), and perhaps the hook;
/// mistakes name it.
///
/// # Errors
/// The first mistake, with its case and field.
pub fn parse(path: &str, text: &str) -> Result<CaseFile, String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let raw: RawFile = format::read(extension, text).map_err(|problem| format!("{path}: {problem}"))?;
    let call = raw.hook.or_else(|| {
        let named =
            |call: &Call| stem.strip_prefix(call.as_str()).is_some_and(|rest| !rest.starts_with(char::is_alphabetic));
        Call::ALL.into_iter().find(named)
    });
    if raw.case.is_empty() {
        return Err(format!("{path} holds no case"));
    }
    let file = CaseFile { path: path.to_owned(), call, cases: raw.case };
    for (i, case) in file.cases.iter().enumerate() {
        let fits = case.hook.or(call).map_or(Ok(()), |call| expect::check(call, case));
        fits.map_err(|problem| file.problem(i, &problem))?;
    }
    Ok(file)
}

/// What cases are judged with.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A whole chain.
    Chain(&'a Revision),
    /// One component, once for each hook it serves.
    Component(&'a [Policy]),
}

impl<'a> Subject<'a> {
    /// All policies, in the order of a turn.
    #[must_use]
    pub fn policies(self) -> Vec<&'a Policy> {
        match self {
            Self::Chain(revision) => revision.policies().map(|staged| &staged.policy).collect(),
            Self::Component(policies) => policies.iter().collect(),
        }
    }

    /// The policies that serve a hook, in order.
    #[must_use]
    pub fn serving(self, hook: Hook) -> Vec<&'a Policy> {
        self.policies().into_iter().filter(|policy| policy.hook() == hook).collect()
    }

    /// What a case calls that does not say it: the whole chain, or the component's only hook.
    ///
    /// # Errors
    /// The component serves several.
    pub fn default_call(self) -> Result<Call, String> {
        match (self, self.policies().as_slice()) {
            (Self::Chain(_), _) => Ok(Call::Chain),
            (Self::Component(_), [one]) => Ok(one.hook().into()),
            (Self::Component(_), many) => {
                let hooks: Vec<&str> = many.iter().map(|policy| policy.hook().as_str()).collect();
                Err(format!(
                    "the component serves several hooks ({}); name one with --hook, or with `hook` in the case",
                    hooks.join(", ")
                ))
            }
        }
    }
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// What was called.
    pub call: Call,
    /// The expectations that do not hold; none when it passes.
    pub problems: Vec<Problem>,
    /// What was found.
    pub judged: Judged,
}

impl CaseFile {
    /// Judges one of the file's cases, by its place from 0.
    ///
    /// # Errors
    /// Why the case does not fit the subject at all.
    pub async fn judge(&self, index: usize, subject: Subject<'_>) -> Result<CaseResult, String> {
        let Some(case) = self.cases.get(index) else { return Err(format!("{} has no case {index}", self.path)) };
        let call = match case.hook.or(self.call) {
            Some(call) => Ok(call),
            None => subject.default_call().and_then(|call| expect::check(call, case).map(|()| call)),
        };
        let call = call.map_err(|problem| self.problem(index, &problem))?;
        let judged = judge::judge(subject, call, case).await.map_err(|problem| self.problem(index, &problem))?;
        Ok(CaseResult { call, problems: expect::compare(case, &judged), judged })
    }

    fn problem(&self, index: usize, problem: &str) -> String {
        let title = self.cases.get(index).map(Case::title).unwrap_or_default();
        format!("{}, case {} ({title}): {problem}", self.path, index + 1)
    }
}

impl Case {
    /// The name, or the text, on one line.
    #[must_use]
    pub fn title(&self) -> String {
        let text = self.name.as_deref().or(self.text.as_deref()).unwrap_or("without a name or text");
        let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        line.retain(|c| !c.is_control());
        if line.chars().count() > TITLE_CHARACTERS_MAX {
            line = line.chars().take(TITLE_CHARACTERS_MAX - 1).collect();
            line.push('…');
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hook_is_the_cases_or_the_files_or_in_its_name() {
        let case = "[[case]]\ntext = \"x\"\nexpect.fuel_max = 1\n";
        assert_eq!(parse("classify.toml", case).unwrap().call, Some(Call::Classify));
        assert_eq!(parse("filter-links.toml", case).unwrap().call, Some(Call::Filter));
        assert_eq!(parse("chainsaw.toml", case).unwrap().call, None);
        assert_eq!(parse("x.toml", &format!("hook = \"chain\"\n{case}")).unwrap().call, Some(Call::Chain));
        let json = r#"{"hook": "tone", "case": [{"text": "x", "expect": {"language": "de"}}]}"#;
        assert_eq!(parse("x.json", json).unwrap().call, Some(Call::Tone));
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
            let found = parse(name, text).unwrap_err();
            assert!(found.contains(expected) && found.contains(name), "{text}: {found}");
        }
    }
}

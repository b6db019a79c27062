//! Why a component was not loaded, in words for people: what was found, what was expected, what to do.

use std::borrow::Cow;

use crate::fault::Fault;
use crate::hook::Hook;
use crate::limits::LimitError;
use crate::types::SettingError;

/// Why a component was not loaded. Each text says what was found, what was expected and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not WebAssembly at all.
    #[error(
        "this is not a WebAssembly component: it has {bytes} bytes and does not begin with the magic number `\\0asm`"
    )]
    NotWasm {
        /// How many bytes there were.
        bytes: usize,
    },
    /// A core module.
    #[error(
        "this is a core WebAssembly module, not a component: build it for the target wasm32-wasip2, or wrap it with \
         `wasm-tools component new`"
    )]
    CoreModule,
    /// Machine code.
    #[error(
        "this is a precompiled artefact (machine code), which is never accepted from outside: give the .wasm file it \
         was made from"
    )]
    Precompiled,
    /// Too large.
    #[error("the {what} has {bytes} bytes; at most {most} are accepted")]
    TooLarge {
        /// `component` or `settings`.
        what: &'static str,
        /// What was found.
        bytes: usize,
        /// What is allowed.
        most: usize,
    },
    /// The compiler refused it.
    #[error("the component does not compile: {reason}")]
    Compile {
        /// What the compiler said.
        reason: String,
    },
    /// An import that no policy gets.
    #[error(
        "the component imports `{import}`, which the host does not offer. A policy may import `frontdesk:policy/log`, \
         `frontdesk:policy/knowledge` (when granted) and WASI 0.2 without HTTP: remove what needs this import, or hand the \
         data over in the settings"
    )]
    ImportNotAllowed {
        /// The import's name.
        import: String,
    },
    /// Built against a contract that this host does not serve.
    #[error(
        "the component was built against `{import}`, and this host serves frontdesk:policy@0.1: rebuild it with the \
         contract in wit/policy/0.1.0"
    )]
    OtherContract {
        /// The import's or export's name.
        import: String,
    },
    /// An import that this chain does not grant.
    #[error(
        "the component imports `frontdesk:policy/{grant}`, which the chain does not grant it. If it may have it, add to \
         its [[policy]] in chain.toml:\n\n[policy.grants]\n{grant} = true\n"
    )]
    GrantMissing {
        /// The grant's name in `chain.toml`.
        grant: &'static str,
    },
    /// A policy for another hook.
    #[error("the component serves {}, and was to serve the hook `{expected}`: {}", found_hooks(found), world_hint(*expected, found))]
    WrongWorld {
        /// The hook it was to serve.
        expected: Hook,
        /// The hooks it does serve.
        found: Vec<Hook>,
    },
    /// Not a policy.
    #[error(
        "the component is no policy: it does not export `frontdesk:policy/lifecycle@0.1.0`. It exports: {}",
        listed(exports)
    )]
    NotAPolicy {
        /// What it exports.
        exports: Vec<String>,
    },
    /// More memories or tables than an instance may have.
    #[error("the component needs {found} {what}, and an instance may have {most}: link its modules into one")]
    TooManyResources {
        /// `memories` or `tables`.
        what: &'static str,
        /// What it needs.
        found: u32,
        /// What there is.
        most: u32,
    },
    /// Types that differ from the contract's.
    #[error("the component does not fit the contract frontdesk:policy@0.1.0: {reason}")]
    Contract {
        /// What differs.
        reason: String,
    },
    /// A limit out of range.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// `describe` faulted, or its instance could not be made.
    #[error("the component cannot describe itself: {0}. {detail}", detail = .0.detail)]
    Describe(Box<Fault>),
    /// `describe` breaks a rule.
    #[error("the component's description is not valid: {field}: {problem}")]
    BadDescription {
        /// Which field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// `configure` faulted.
    #[error("the component failed while it took its settings: {0}. {detail}", detail = .0.detail)]
    Configure(Box<Fault>),
    /// `configure` refused.
    #[error("the component refuses its settings:{}", setting_lines(errors))]
    Refused {
        /// What is wrong, field by field.
        errors: Vec<SettingError>,
    },
    /// The trial call faulted.
    #[error("the component fails on a sample turn: {0}. {detail}", detail = .0.detail)]
    Canary(Box<Fault>),
}

impl LoadError {
    /// The reason's name, the same in metrics, logs and status: one word for each kind of refusal. A fault is named by the
    /// function that was running and its kind, such as `describe-out-of-fuel`; one on the sample turn, `sample-turn-trap`.
    #[must_use]
    pub fn code(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::NotWasm { .. } => "not-wasm",
            Self::CoreModule => "core-module",
            Self::Precompiled => "precompiled",
            Self::TooLarge { .. } => "too-large",
            Self::Compile { .. } => "does-not-compile",
            Self::ImportNotAllowed { .. } => "import-not-allowed",
            Self::OtherContract { .. } => "other-contract",
            Self::GrantMissing { .. } => "grant-missing",
            Self::WrongWorld { .. } => "wrong-world",
            Self::NotAPolicy { .. } => "not-a-policy",
            Self::TooManyResources { .. } => "too-many-resources",
            Self::Contract { .. } => "contract-mismatch",
            Self::Limit(_) => "limit-out-of-range",
            Self::BadDescription { .. } => "bad-description",
            Self::Refused { .. } => "settings-refused",
            Self::Describe(fault) | Self::Configure(fault) => {
                return Cow::Owned(format!("{}-{}", fault.function, fault.kind.as_str()));
            }
            Self::Canary(fault) => return Cow::Owned(format!("sample-turn-{}", fault.kind.as_str())),
        })
    }
}

/// Most wrong settings that a message lists.
const SETTINGS_LISTED_MAX: usize = 20;
/// Longest of a component's own sentences in a message, in bytes.
const SENTENCE_BYTES_MAX: usize = 300;
/// Most exports that a message lists.
const LISTED_MAX: usize = 16;
/// Longest name of an import or export in a message, in bytes: names are the component's own words.
const NAME_BYTES_MAX: usize = 120;

fn listed(names: &[String]) -> String {
    let first = names.iter().take(LISTED_MAX).map(|name| shortened(name)).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "nothing".to_owned(),
        count if count > LISTED_MAX => format!("{first} and {} more", count - LISTED_MAX),
        _ => first,
    }
}

pub(super) fn shortened(name: &str) -> String {
    clipped(name, NAME_BYTES_MAX)
}

/// Of the component's own words, so much as fits into a line.
fn clipped(text: &str, bytes_max: usize) -> String {
    let line = text.replace(char::is_control, " ");
    if line.len() <= bytes_max { line } else { format!("{}…", &line[..line.floor_char_boundary(bytes_max)]) }
}

fn found_hooks(found: &[Hook]) -> String {
    match found {
        [] => "no hook".to_owned(),
        [one] => format!("the hook `{one}` (world `{}`)", one.world()),
        many => format!("the hooks {}", many.iter().map(|hook| format!("`{hook}`")).collect::<Vec<_>>().join(", ")),
    }
}

fn world_hint(expected: Hook, found: &[Hook]) -> String {
    match found.first() {
        Some(found) => {
            format!("write hook = \"{found}\" in chain.toml, or build it for the world `{}`", expected.world())
        }
        None => format!("build it for the world `{}`", expected.world()),
    }
}

fn setting_lines(errors: &[SettingError]) -> String {
    let line = |error: &SettingError| {
        let place = if error.path.is_empty() { "(the whole document)" } else { &error.path };
        format!("\n  {}: {}", shortened(place), clipped(&error.message, SENTENCE_BYTES_MAX))
    };
    let mut lines: String = errors.iter().take(SETTINGS_LISTED_MAX).map(line).collect();
    if let Some(more) = errors.len().checked_sub(SETTINGS_LISTED_MAX + 1) {
        lines.push_str(&format!("\n  and {} more", more + 1));
    }
    lines
}

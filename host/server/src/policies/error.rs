//! Why a revision was not taken, or not moved.

use std::borrow::Cow;

use frontdesk_policy_bundle::BundleError;
use frontdesk_policy_engine::gate::Verdict;

use super::provenance::ProvenanceError;
use super::rollout::{MoveError, short};
use crate::background::BackgroundError;

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy engine cannot start: {source}")]
    Engine {
        #[from]
        source: frontdesk_policy_engine::EngineError,
    },
    #[error("{source}")]
    Bundle {
        #[from]
        source: BundleError,
    },
    #[error("the folder of chain {chain} keeps changing while it is read")]
    Unsettled { chain: String },
    #[error("component sha256:{digest} is not stored here; publish it first, or name a file")]
    UnknownDigest { digest: String },
    #[error("{source}")]
    Provenance {
        #[source]
        source: Box<ProvenanceError>,
    },
    #[error("there is no chain {chain:?} here; this host has {}", known.join(", "))]
    UnknownChain { chain: String, known: Vec<String> },
    #[error("revision {revision} is not stored here; publish it first")]
    UnknownRevision { revision: String },
    #[error("revision {} cannot be staged here: {reason}", short(revision))]
    NotStaged { revision: String, reason: String },
    #[error("{source}")]
    Stage {
        #[from]
        source: frontdesk_policy_engine::StageError,
    },
    #[error(
        "it is not staged within {waited_s} s: its components are too large or too hard to compile, or others before it are"
    )]
    StageSlow { waited_s: u64 },
    #[error("revision {} did not pass the gate: {}", short(revision), verdict.reason())]
    Gate { revision: String, verdict: Box<Verdict> },
    #[error(
        "revision {} is quarantined, because it did harm; change it, or take it out of quarantine with a reason",
        short(revision)
    )]
    Quarantined { revision: String },
    #[error(
        "revision {} never served this chain, so there is no going back to it; `promote` moves it on, through the gate",
        short(revision)
    )]
    NeverServed { revision: String },
    #[error(
        "revision {} was published by another version of Frontdesk, which named the same files so; this one names them {}. \
         Publish the chain again",
        short(revision),
        short(found)
    )]
    OtherVersion { revision: String, found: String },
    #[error("revision {} is not quarantined", short(revision))]
    NotQuarantined { revision: String },
    #[error("no revision waits to be moved on in this chain; name one")]
    NothingWaits,
    #[error(transparent)]
    Move(#[from] MoveError),
    #[error("the database did not do it: {source}")]
    Store {
        #[from]
        source: sqlx::Error,
    },
    #[error("the database gave no answer within {waited_s} s")]
    Silent { waited_s: u64 },
    #[error("staging was interrupted: {source}")]
    Interrupted {
        #[from]
        source: tokio::task::JoinError,
    },
    #[error("it could not be staged: {source}")]
    Background {
        #[from]
        source: BackgroundError,
    },
}

impl From<ProvenanceError> for PolicyError {
    fn from(source: ProvenanceError) -> Self {
        Self::Provenance { source: Box::new(source) }
    }
}

impl PolicyError {
    /// Whether a folder that was refused for this is to be judged again though nothing in it changes: what it lacks may
    /// arrive elsewhere.
    pub fn may_heal(&self) -> bool {
        let is_untrusted = |source: &ProvenanceError| matches!(source, ProvenanceError::Untrusted { .. });
        self.is_passing()
            || matches!(self, Self::UnknownDigest { .. })
            || matches!(self, Self::Provenance { source } if is_untrusted(source))
    }

    /// Whether trying again without a change may succeed.
    pub fn is_passing(&self) -> bool {
        if let Self::Provenance { source } = self {
            return source.is_passing();
        }
        match self {
            Self::Store { .. } | Self::Silent { .. } | Self::Unsettled { .. } => true,
            // What makes the host panic would do so again, with every look at the folder.
            Self::Interrupted { source } => !source.is_panic(),
            Self::Background { source } => matches!(source, BackgroundError::NotStarted { .. }),
            _ => false,
        }
    }

    /// The reason's name, the same in the log, the metrics and the status: one word for each kind of refusal.
    pub fn code(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Stage { source } => return source.code(),
            Self::Engine { .. } => "engine",
            Self::Bundle { source } => match source {
                BundleError::Read { .. } => "file-unreadable",
                BundleError::NotAFile { .. } => "not-a-file",
                BundleError::TooLarge { .. } => "file-too-large",
                BundleError::NotText { .. } => "not-text",
                BundleError::Outside { .. } => "path-outside",
                BundleError::Chain { .. } => "chain-toml",
                BundleError::TooManyCases { .. } => "too-many-cases",
                BundleError::Document { .. } => "document",
            },
            Self::Unsettled { .. } => "unsettled",
            Self::UnknownDigest { .. } => "component-unknown",
            Self::Provenance { source } => match source.as_ref() {
                ProvenanceError::Untrusted { .. } => "untrusted",
                ProvenanceError::NotAllowed { .. } => "registry-not-allowed",
                _ => "registry",
            },
            Self::UnknownChain { .. } => "unknown-chain",
            Self::UnknownRevision { .. } => "unknown-revision",
            Self::NotStaged { .. } => "not-staged",
            Self::StageSlow { .. } => "takes-too-long",
            Self::Gate { .. } => "gate",
            Self::Quarantined { .. } => "quarantined",
            Self::NeverServed { .. } => "never-served",
            Self::OtherVersion { .. } => "other-version",
            Self::NotQuarantined { .. } => "not-quarantined",
            Self::NothingWaits => "nothing-waits",
            Self::Move(_) => "move",
            Self::Store { .. } | Self::Silent { .. } => "database",
            Self::Interrupted { source } if source.is_panic() => "host-panic",
            Self::Background { source: BackgroundError::Panicked } => "host-panic",
            Self::Interrupted { .. } | Self::Background { .. } => "interrupted",
        })
    }

    /// The whole chain of causes in one line.
    pub fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            let said = inner.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = inner.source();
        }
        text
    }
}

//! What the admin API answers when it does not do what was asked.
//!
//! The caller holds the admin token, so messages say plainly what was found and what to do. What only an operator can
//! mend (the database, a model) is logged here, once, and answered with 503.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::access::AGENT_BYTES_MAX;
use crate::answer::DraftError;
use crate::golden::GoldenError;
use crate::handover::HandoverError;
use crate::ingestion::JobError;
use crate::knowledge::{ArchiveError, IngestError, KnowledgeError};
use crate::learning::LearningError;
use crate::pages::connect::ConnectError;
use crate::policies::PolicyError;
use crate::privacy::erasure::ErasureError;

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("give the admin token as `Authorization: Bearer <token>`")]
    Unauthorized,
    #[error("there is no such path in the admin API; host/ARCHITECTURE.md lists them")]
    NoSuchRoute,
    #[error("this path does not take this method")]
    WrongMethod,
    #[error("there is no {what} {id}")]
    NotFound { what: &'static str, id: String },
    #[error("X-Frontdesk-Agent is missing: this is done by a person, so name them (at most {AGENT_BYTES_MAX} bytes)")]
    AgentMissing,
    #[error("X-Frontdesk-Agent must be 1 to {AGENT_BYTES_MAX} bytes of printable UTF-8")]
    AgentName,
    #[error("nobody may see what was taken out of documents: set FRONTDESK_REVEAL_TOKEN, and give it to those who may")]
    RevealDisabled,
    #[error(
        "give the token of those who may see personal data as `X-Frontdesk-Reveal-Token`; the admin token is not enough"
    )]
    RevealRefused,
    #[error("the body does not fit: {problem}")]
    Body { problem: String },
    #[error("the query does not fit: {problem}")]
    Query { problem: String },
    #[error("{field}: {problem}")]
    Field { field: &'static str, problem: String },
    #[error(
        "the body is larger than this path takes: 96 MiB for a bundle of policies, 32 MiB for a file, 8 MiB for a text, 64 KiB for anything else"
    )]
    TooLarge,
    #[error("{what} is {found}, so this cannot be done: expected {expected}")]
    State { what: &'static str, found: String, expected: &'static str },
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(transparent)]
    Knowledge(#[from] KnowledgeError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Job(#[from] JobError),
    #[error("{}", .0.describe())]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Draft(#[from] DraftError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Erasure(#[from] ErasureError),
    #[error(transparent)]
    Golden(#[from] GoldenError),
    #[error(transparent)]
    Learning(#[from] LearningError),
    #[error("golden questions went better before, so nothing was changed: {}", .problems.join("; "))]
    Regressed { problems: Vec<String> },
    #[error("the database did not do it")]
    Database {
        #[from]
        source: sqlx::Error,
    },
}

impl AdminError {
    pub fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field { field, problem: problem.into() }
    }

    pub fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }

    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::NoSuchRoute => (StatusCode::NOT_FOUND, "no_such_route"),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "wrong_method"),
            Self::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
            Self::AgentMissing => (StatusCode::BAD_REQUEST, "agent_missing"),
            Self::AgentName => (StatusCode::BAD_REQUEST, "agent_name"),
            Self::RevealDisabled => (StatusCode::FORBIDDEN, "reveal_disabled"),
            Self::RevealRefused => (StatusCode::FORBIDDEN, "reveal_refused"),
            Self::Job(JobError::Ingest(IngestError::TooLarge { .. })) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::Job(JobError::Ingest(error)) if error.is_callers_fault() => (StatusCode::BAD_REQUEST, "document"),
            Self::Job(JobError::Site(error)) if !error.is_passing() => (StatusCode::BAD_REQUEST, "website"),
            Self::Job(JobError::TooMany { .. }) => (StatusCode::CONFLICT, "too_many_jobs"),
            Self::Job(_) => (StatusCode::SERVICE_UNAVAILABLE, "jobs"),
            Self::Archive(_) => (StatusCode::SERVICE_UNAVAILABLE, "archive"),
            Self::Body { .. } => (StatusCode::BAD_REQUEST, "body"),
            Self::Query { .. } => (StatusCode::BAD_REQUEST, "query"),
            Self::Field { .. } => (StatusCode::BAD_REQUEST, "field"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::State { .. } => (StatusCode::CONFLICT, "state"),
            Self::Handover(error) => match error {
                HandoverError::NoConversation { .. } => (StatusCode::NOT_FOUND, "not_found"),
                HandoverError::Text { .. } => (StatusCode::BAD_REQUEST, "text"),
                HandoverError::NotOurs => (StatusCode::CONFLICT, "not_ours"),
                HandoverError::PageCannotSend { .. } => (StatusCode::CONFLICT, "page_cannot_send"),
                HandoverError::WindowClosed { .. } => (StatusCode::CONFLICT, "window_closed"),
                HandoverError::NeverWrote => (StatusCode::CONFLICT, "window_closed"),
                HandoverError::Graph { .. } => (StatusCode::BAD_GATEWAY, "graph"),
                HandoverError::Database { .. } => (StatusCode::SERVICE_UNAVAILABLE, "database"),
            },
            Self::Learning(error) => match error {
                LearningError::NoProposal { .. } => (StatusCode::NOT_FOUND, "not_found"),
                LearningError::Decided { .. } => (StatusCode::CONFLICT, "state"),
                LearningError::Text { .. } => (StatusCode::BAD_REQUEST, "text"),
                LearningError::Regressed { .. } => (StatusCode::CONFLICT, "golden"),
                LearningError::Ingest(error) if error.is_callers_fault() => (StatusCode::BAD_REQUEST, "document"),
                LearningError::Ingest(_) | LearningError::Knowledge(_) => {
                    (StatusCode::SERVICE_UNAVAILABLE, "knowledge")
                }
                LearningError::Database { .. } => (StatusCode::SERVICE_UNAVAILABLE, "database"),
            },
            Self::Regressed { .. } => (StatusCode::CONFLICT, "golden"),
            Self::Golden(error) => match error {
                GoldenError::File(_) | GoldenError::NoPage { .. } => (StatusCode::BAD_REQUEST, "golden"),
                GoldenError::NoRun { .. } => (StatusCode::NOT_FOUND, "not_found"),
                GoldenError::NoPages | GoldenError::NoRevision { .. } | GoldenError::TooSlow { .. } => {
                    (StatusCode::CONFLICT, "golden")
                }
                GoldenError::Pipeline { .. } | GoldenError::Unreadable { .. } => {
                    (StatusCode::SERVICE_UNAVAILABLE, "golden")
                }
                GoldenError::Database { .. } => (StatusCode::SERVICE_UNAVAILABLE, "database"),
            },
            Self::Draft(DraftError::PromptTooLong { .. } | DraftError::TurnBudget { .. }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "prompt")
            }
            Self::Draft(_) => (StatusCode::SERVICE_UNAVAILABLE, "model"),
            Self::Erasure(_) => (StatusCode::SERVICE_UNAVAILABLE, "erasure"),
            Self::Connect(error) => match error {
                ConnectError::NoApp | ConnectError::NoPages | ConnectError::SeveralPages { .. } => {
                    (StatusCode::BAD_REQUEST, "connect")
                }
                ConnectError::OtherPages { .. } | ConnectError::Task { .. } | ConnectError::Scopes { .. } => {
                    (StatusCode::BAD_REQUEST, "connect")
                }
                ConnectError::Field { .. } => (StatusCode::BAD_REQUEST, "field"),
                ConnectError::NotConnected { .. } => (StatusCode::NOT_FOUND, "not_found"),
                ConnectError::Graph { .. } => (StatusCode::BAD_GATEWAY, "graph"),
                ConnectError::Keys(_) => (StatusCode::SERVICE_UNAVAILABLE, "keys"),
                ConnectError::Database { .. } => (StatusCode::SERVICE_UNAVAILABLE, "database"),
            },
            Self::Ingest(IngestError::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::Ingest(error) if error.is_callers_fault() => (StatusCode::BAD_REQUEST, "document"),
            Self::Ingest(_) | Self::Knowledge(_) => (StatusCode::SERVICE_UNAVAILABLE, "knowledge"),
            Self::Policy(error) => match error {
                PolicyError::UnknownChain { .. } => (StatusCode::NOT_FOUND, "unknown_chain"),
                PolicyError::UnknownRevision { .. } => (StatusCode::NOT_FOUND, "unknown_revision"),
                PolicyError::Gate { .. } => (StatusCode::CONFLICT, "gate"),
                PolicyError::Quarantined { .. } => (StatusCode::CONFLICT, "quarantined"),
                PolicyError::NotQuarantined { .. }
                | PolicyError::NeverServed { .. }
                | PolicyError::NothingWaits
                | PolicyError::Move(_) => (StatusCode::CONFLICT, "state"),
                PolicyError::Provenance { source } if source.is_passing() => {
                    (StatusCode::SERVICE_UNAVAILABLE, "provenance")
                }
                PolicyError::Provenance { .. }
                | PolicyError::Bundle { .. }
                | PolicyError::UnknownDigest { .. }
                | PolicyError::Stage { .. }
                | PolicyError::StageSlow { .. }
                | PolicyError::NotStaged { .. }
                | PolicyError::OtherVersion { .. }
                | PolicyError::Unsettled { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
                PolicyError::Store { .. } | PolicyError::Silent { .. } => (StatusCode::SERVICE_UNAVAILABLE, "database"),
                PolicyError::Engine { .. } | PolicyError::Interrupted { .. } | PolicyError::Background { .. } => {
                    (StatusCode::SERVICE_UNAVAILABLE, "policies")
                }
            },
            Self::Database { .. } => (StatusCode::SERVICE_UNAVAILABLE, "database"),
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        let mut message = self.to_string();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            tracing::error!(error = &self as &dyn std::error::Error, code, "an admin request failed");
            if code == "database" {
                // Details of statements and addresses stay in the log.
                message = "the database did not do it: nothing was changed; the host's log says why".to_owned();
            }
        }
        let mut error = json!({ "code": code, "message": message });
        if let Self::Policy(refusal) = &self {
            // The same name as in the log, the metrics and the status.
            error["reason"] = refusal.code().into();
        }
        let mut response = (status, Json(json!({ "error": error }))).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

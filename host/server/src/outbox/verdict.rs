//! From the answer to a send to what becomes of its row.

use std::time::Duration;

use frontdesk_messenger::classify::StopReason;
use frontdesk_messenger::graph::CallTrace;
use frontdesk_messenger::{Failure, Reply, Sent};
use rand::Rng;

use crate::db::outbox::Claimed;
use crate::db::pages::ENFORCEMENT;
use crate::pages::TOKEN_DEAD;
use crate::settings::{OutboxSettings, ms};

/// What becomes of a row after a send.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Sent(String),
    /// Again after this time. `counted`: it uses up one of the attempts.
    Again {
        after: Duration,
        counted: bool,
        error: String,
    },
    Unknown(String),
    Fail(String),
    /// Failed, and the conversation belongs to another app.
    NotOurs(String),
    /// Failed, and the window is closed.
    WindowClosed(String),
    /// Waits until the Page may send again.
    PageState {
        state: &'static str,
        reason: String,
    },
}

pub(super) fn verdict(settings: &OutboxSettings, row: &Claimed, reply: &Reply<Sent>) -> Verdict {
    let failure = match &reply.result {
        Ok(sent) => return Verdict::Sent(sent.message_id.as_str().to_owned()),
        Err(failure) => failure,
    };
    let numbers = describe(&reply.trace);
    match failure {
        Failure::Retry { after_ms, attempts_max } => {
            let attempts_max = attempts_max
                .and_then(|max| i32::try_from(max).ok())
                .map_or(settings.attempts_max, |max| (max + 1).min(settings.attempts_max));
            if row.attempts >= attempts_max {
                return Verdict::Fail(format!("given up after {} attempts: {numbers}", row.attempts));
            }
            let after = backoff(settings, row.attempts).max(ms(after_ms.unwrap_or(0)));
            Verdict::Again { after, counted: true, error: numbers }
        }
        // The lane pauses by the Page's own clock; the row itself is not to blame, and waits a little should that not be stored.
        Failure::RateLimited { .. } => {
            Verdict::Again { after: backoff(settings, row.attempts), counted: false, error: numbers }
        }
        Failure::HoldPerson => Verdict::Fail(format!("Meta asks not to write to this person unasked: {numbers}")),
        Failure::PersonUnreachable => Verdict::Fail(format!("the person cannot be reached: {numbers}")),
        Failure::OutsideWindow => Verdict::WindowClosed(format!("the messaging window is closed: {numbers}")),
        Failure::NotOurs => Verdict::NotOurs(format!("another app owns the thread: {numbers}")),
        Failure::TokenDead { .. } => Verdict::PageState { state: "parked", reason: format!("{TOKEN_DEAD}: {numbers}") },
        Failure::StopPage { reason } => {
            let why = match reason {
                StopReason::Permission => "a permission is missing",
                StopReason::Restricted => "Meta has restricted the Page",
                // So that Meta's own notice that it is lifted lifts it here.
                StopReason::PolicyBlock => ENFORCEMENT,
            };
            Verdict::PageState { state: "stopped", reason: format!("{why}: {numbers}") }
        }
        Failure::Ambiguous { .. } => Verdict::Unknown(format!("nobody can tell whether it was sent: {numbers}")),
        Failure::Permanent { .. } => Verdict::Fail(format!("refused: {numbers}")),
        other => Verdict::Fail(format!("{}: {numbers}", other.name())),
    }
}

pub(super) fn describe(trace: &CallTrace) -> String {
    let number = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    match (&trace.http_status, &trace.transport_error) {
        (Some(status), _) => {
            format!("HTTP {status}, code {}, subcode {}", number(trace.code), number(trace.subcode))
        }
        (None, Some(error)) => error.clone(),
        (None, None) => "no answer".to_owned(),
    }
}

/// Doubles with each attempt up to the cap, and takes a random half of it, so that rows of one outage spread out.
pub(super) fn backoff(settings: &OutboxSettings, attempts: i32) -> Duration {
    let exponent = u32::try_from(attempts.max(1) - 1).unwrap_or(0).min(20);
    let full = settings.retry_ms.saturating_mul(1 << exponent).min(settings.retry_max_ms).max(2);
    ms(rand::rng().random_range(full / 2..=full))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn backoff_doubles_within_its_cap_and_never_halves_below() {
        let settings = Settings::load(None).unwrap().outbox;
        for attempts in 1..40 {
            let full = settings.retry_ms.saturating_mul(1 << (attempts - 1).min(20)).min(settings.retry_max_ms);
            let pause = u64::try_from(backoff(&settings, attempts).as_millis()).unwrap();
            assert!((full / 2..=full).contains(&pause), "attempt {attempts}: {pause} ms of {full}");
        }
    }
}

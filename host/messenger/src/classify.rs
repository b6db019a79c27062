//! From a refused Graph call to one action, by numbers only.
//!
//! Meta's error texts are translated into the app's or the person's language, so no action hangs on them (but see
//! [`GraphError::names_no_person`]). What counts is
//! `error.code` with `error.error_subcode`, then `is_transient`, then the HTTP status. [`RULES`] is Meta's Messenger error
//! table (updated 2026-06-25) with our action beside each row; it is searched in this order:
//!
//! 1. a row for this code and this subcode,
//! 2. a row for this subcode (or the same number as code) whatever the code: Meta's long subcodes mean one thing each, and
//!    the code beside them has changed before,
//! 3. a row for the code alone, or the range it falls in,
//! 4. HTTP 429 → rate limit, also where the row says only "again" or "invalid",
//! 5. `is_transient: true` → retry,
//! 6. an error body we do not know → permanent: Graph has refused the message, and a person sees the ticket; resending
//!    what is not understood could go on forever,
//! 7. no readable error body → [`without_body`].

use serde_json::Value;

use crate::event::lenient::{flag_at, text_at, whole_at};
use crate::usage::UsageReport;

/// What to do after a call that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// Not done; try again, with back-off and jitter.
    Retry {
        /// At least this long from now.
        after_ms: Option<u64>,
        /// How many more attempts this cause deserves; `None` leaves it to the outbox's own bound.
        attempts_max: Option<u32>,
    },
    /// Not done; the budget is used up. Calling on while limited prolongs it.
    RateLimited {
        /// By the headers; `None` when they say nothing.
        resume_after_ms: Option<u64>,
        scope: LimitScope,
    },
    /// This person has received too much that they did not ask for: only replies from now on.
    HoldPerson,
    /// This person cannot be reached. Permanent for the conversation.
    PersonUnreachable,
    /// The person's window is closed. Permanent for this message: a person of the Page may take it.
    OutsideWindow,
    /// Another app owns the thread: the conversation is not ours now. Never retry.
    NotOurs,
    /// The access token is dead: park the Page's outbox until it is connected again.
    TokenDead { subcode: Option<i64> },
    /// The Page may not send: stop its outbox and alert.
    StopPage { reason: StopReason },
    /// It may have been sent. Wait for the echo or look the conversation up; never resend blind.
    Ambiguous { reason: AmbiguousReason },
    /// This message will never go.
    Permanent { reason: PermanentReason },
}

/// What a rate limit covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitScope {
    /// Every call of the app.
    App,
    /// The Page's calls.
    Page,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// A permission is missing, or the app has not been reviewed for it.
    Permission,
    /// Meta has restricted the Page.
    Restricted,
    /// Blocked for violating a policy.
    PolicyBlock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AmbiguousReason {
    /// No answer in time, after the request had gone out.
    TimedOut,
    /// The connection broke before the answer was complete.
    ConnectionLost,
    /// A success status whose body names no message.
    UnreadableSuccess,
    /// A 5xx from something between us and Graph, which may have passed the request on.
    GatewayFailure,
    /// Graph itself says it does not know (1-1357046).
    Reported,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PermanentReason {
    /// We sent something Graph does not take: a defect of ours or a wrong setting.
    BadRequest,
    /// The attachment cannot be used.
    Attachment,
    /// Refused for what it is a reply to: commerce disabled, already replied, duplicate.
    Refused,
    /// What it refers to is deleted: drop it.
    Gone,
    /// No profile can be read for this person.
    ProfileUnavailable,
    /// An error this version does not know.
    Unknown,
}

impl Failure {
    /// A stable label for metrics and rows.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Retry { .. } => "retry",
            Self::RateLimited { .. } => "rate_limited",
            Self::HoldPerson => "hold_person",
            Self::PersonUnreachable => "person_unreachable",
            Self::OutsideWindow => "outside_window",
            Self::NotOurs => "not_ours",
            Self::TokenDead { .. } => "token_dead",
            Self::StopPage { .. } => "stop_page",
            Self::Ambiguous { .. } => "ambiguous",
            Self::Permanent { .. } => "permanent",
        }
    }
}

/// The numbers of an error body, and what a log may keep of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphError {
    pub code: Option<i64>,
    pub subcode: Option<i64>,
    pub is_transient: bool,
    /// The one row of Meta's table that has no subcode of its own: 100 "No matching user found". Its English text only tells two
    /// permanent refusals apart; in another language it is the row of its code.
    pub names_no_person: bool,
    /// What Meta's support asks for.
    pub fbtrace_id: Option<String>,
}

impl GraphError {
    /// Reads `{"error":{…}}`. `None` when there is no error object with a code, a subcode or Meta's word that it will pass.
    pub fn from_body(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let error = body.get("error")?.as_object()?;
        let code = whole_at(error, "code");
        let subcode = whole_at(error, "error_subcode").filter(|subcode| *subcode != 0);
        let is_transient = flag_at(error, "is_transient");
        if code.is_none() && subcode.is_none() && !is_transient {
            return None;
        }
        Some(Self {
            code,
            subcode,
            is_transient,
            names_no_person: text_at(error, "message").is_some_and(|text| text.contains("No matching user found")),
            fbtrace_id: text_at(error, "fbtrace_id").map(|id| id.chars().take(64).collect()),
        })
    }
}

/// What a row does, before headers are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Retry { after_ms: Option<u64>, attempts_max: Option<u32> },
    RateLimited(LimitScope),
    HoldPerson,
    PersonUnreachable,
    OutsideWindow,
    NotOurs,
    TokenDead,
    StopPage(StopReason),
    Ambiguous(AmbiguousReason),
    Permanent(PermanentReason),
}

/// Which errors a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// This code with this subcode.
    Pair(i64, i64),
    /// This number as subcode of any code, or as the code itself.
    Number(i64),
    /// This code with any other subcode or none.
    Code(i64),
    /// A family of codes, both ends included.
    Codes(i64, i64),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub on: Match,
    pub action: Action,
    pub meaning: &'static str,
}

const fn row(on: Match, action: Action, meaning: &'static str) -> Rule {
    Rule { on, action, meaning }
}

const RETRY: Action = Action::Retry { after_ms: None, attempts_max: None };
const fn retry_at_most(attempts: u32) -> Action {
    Action::Retry { after_ms: None, attempts_max: Some(attempts) }
}
/// Meta's question flow lasts as long as the person takes; ten minutes is our guess at a good moment to look again.
const QUESTION_FLOW_MS: u64 = 600_000;

use Action::{HoldPerson, NotOurs, OutsideWindow, PersonUnreachable, TokenDead};
use AmbiguousReason::{GatewayFailure, Reported, UnreadableSuccess};
use LimitScope::{App, Page};
use Match::{Code, Codes, Number, Pair};
use PermanentReason::{Attachment, BadRequest, Gone, ProfileUnavailable, Refused};
use StopReason::{Permission, PolicyBlock, Restricted};

/// Meta's error table with our action for each row.
pub const RULES: &[Rule] = &[
    row(Number(1357046), Action::Ambiguous(Reported), "invalid JSON reply, although possibly sent"),
    row(Code(1), retry_at_most(2), "unknown error, often a missing permission"),
    row(Code(2), RETRY, "temporary failure, or the person has blocked the Page"),
    row(Code(1200), RETRY, "temporary send failure"),
    // limits
    row(Number(2018338), HoldPerson, "the Page's messages bother this person"),
    row(Code(4), Action::RateLimited(App), "application request limit"),
    row(Code(17), Action::RateLimited(App), "user request limit"),
    row(Code(341), Action::RateLimited(App), "application limit"),
    row(Code(32), Action::RateLimited(Page), "Page request limit with a user token"),
    row(Code(613), Action::RateLimited(Page), "calls within a time span (613-2534040 for Messenger)"),
    row(Codes(80000, 80014), Action::RateLimited(Page), "business use case limits: 80001 Pages, 80006 Messenger"),
    // windows
    row(Number(2018278), OutsideWindow, "outside the allowed window"),
    row(Number(2534022), OutsideWindow, "outside the allowed window"),
    row(Number(2018065), OutsideWindow, "outside the window, needs the news permission"),
    // the person
    row(Number(2018108), PersonUnreachable, "cannot receive messages now"),
    row(Number(2018001), PersonUnreachable, "no such person for this Page"),
    row(Pair(100, 33), PersonUnreachable, "the object does not exist or is another Page's"),
    row(Number(551), PersonUnreachable, "this person is not available"),
    row(
        Number(1545041),
        PersonUnreachable,
        "this person is not available; one page of Meta's reads it as a closed window",
    ),
    // the thread
    row(Number(2534037), NotOurs, "not the thread's owner"),
    row(Number(2018300), NotOurs, "another app controls the thread"),
    row(
        Number(2018321),
        Action::Retry { after_ms: Some(QUESTION_FLOW_MS), attempts_max: None },
        "the person is in Meta's automated questions",
    ),
    // the Page and its token
    row(Number(1893063), Action::StopPage(Restricted), "the Page may not send for a while"),
    row(Code(368), Action::StopPage(PolicyBlock), "blocked for policy violations"),
    row(Code(10), Action::StopPage(Permission), "permission missing or app not reviewed"),
    row(Code(230), Action::StopPage(Permission), "pages_messaging missing"),
    row(Codes(200, 299), Action::StopPage(Permission), "permission missing (200-2018027, 200-2018028)"),
    row(Code(190), TokenDead, "token expired, revoked or invalid: 458, 459, 460, 463, 464, 467"),
    row(Code(102), TokenDead, "session invalid"),
    // the request
    row(Pair(100, 2018014), Action::Permanent(BadRequest), "message and sender_action in one call"),
    row(Pair(100, 1893061), Action::Permanent(BadRequest), "a message tag that was retired on 2026-04-27"),
    row(Pair(100, 2018008), retry_at_most(1), "fetching the attachment failed"),
    row(Pair(100, 2018294), retry_at_most(1), "fetching the attachment timed out"),
    row(Pair(100, 2018047), Action::Permanent(Attachment), "attachment upload failed or wrong type"),
    row(Pair(100, 2018074), Action::Permanent(Attachment), "attachment is another's or expired"),
    row(Pair(100, 2018109), Action::Permanent(Attachment), "attachment too large"),
    row(Code(100), Action::Permanent(BadRequest), "invalid parameter"),
    row(Code(2022), Action::Permanent(Refused), "commerce is disabled"),
    row(Code(10900), Action::Permanent(Refused), "already replied to"),
    row(Code(10903), Action::Permanent(Refused), "cannot be replied to"),
    row(Code(506), Action::Permanent(Refused), "duplicate post"),
    row(Number(9000001), Action::Permanent(Gone), "the message was deleted"),
    row(Number(2018218), Action::Permanent(ProfileUnavailable), "no profile for accounts by phone number"),
    row(Number(2018247), Action::Permanent(ProfileUnavailable), "no permission for this profile"),
];

/// The action for an answer that is not a success.
pub fn classify(http_status: u16, error: Option<&GraphError>, usage: &UsageReport) -> Failure {
    let Some(error) = error else { return without_body(http_status, usage) };
    let action = match find(error) {
        None | Some(Action::Retry { .. } | Action::Permanent(BadRequest)) if http_status == 429 => {
            Action::RateLimited(Page)
        }
        Some(action) => action,
        None if error.is_transient => RETRY,
        None if error.code.is_none() => return without_body(http_status, usage),
        None => Action::Permanent(PermanentReason::Unknown),
    };
    failure(action, error.subcode, usage)
}

/// The table's action for an error, if it has one.
pub fn find(error: &GraphError) -> Option<Action> {
    let (code, subcode) = (error.code, error.subcode);
    if code == Some(100) && subcode.is_none() && error.names_no_person {
        return Some(PersonUnreachable);
    }
    let is_pair = |rule: &&Rule| matches!(rule.on, Pair(c, s) if code == Some(c) && subcode == Some(s));
    let is_number = |rule: &&Rule| matches!(rule.on, Number(n) if code == Some(n) || subcode == Some(n));
    let is_code = |rule: &&Rule| match rule.on {
        Code(c) => code == Some(c),
        Codes(first, last) => code.is_some_and(|code| (first..=last).contains(&code)),
        _ => false,
    };
    let rule =
        RULES.iter().find(is_pair).or_else(|| RULES.iter().find(is_number)).or_else(|| RULES.iter().find(is_code));
    rule.map(|rule| rule.action)
}

/// The action for an answer without a readable Graph error: an empty body, a proxy's HTML page, broken JSON.
///
/// - 429 → rate limit; 408, and a 503 that says when to come back: the server did not take the request → retry.
/// - 500, 502, 504 and every other 5xx: something in between failed, perhaps after passing the request on (proxies say 503
///   too when the connection behind them breaks); there is no idempotency key, so a second send could be a second
///   message → ambiguous.
/// - 2xx: accepted, but we cannot tell which message it became → ambiguous.
/// - the rest never reached Graph's own logic (wrong address, blocked by a proxy) → permanent.
pub fn without_body(http_status: u16, usage: &UsageReport) -> Failure {
    let action = match http_status {
        429 => Action::RateLimited(Page),
        408 => RETRY,
        503 if usage.retry_after_ms.is_some() => RETRY,
        500..=599 => Action::Ambiguous(GatewayFailure),
        200..=299 => Action::Ambiguous(UnreadableSuccess),
        _ => Action::Permanent(PermanentReason::Unknown),
    };
    failure(action, None, usage)
}

fn failure(action: Action, subcode: Option<i64>, usage: &UsageReport) -> Failure {
    match action {
        Action::Retry { after_ms, attempts_max } => {
            Failure::Retry { after_ms: after_ms.max(usage.retry_after_ms), attempts_max }
        }
        Action::RateLimited(scope) => Failure::RateLimited { resume_after_ms: usage.resume_after_ms(), scope },
        HoldPerson => Failure::HoldPerson,
        PersonUnreachable => Failure::PersonUnreachable,
        OutsideWindow => Failure::OutsideWindow,
        NotOurs => Failure::NotOurs,
        TokenDead => Failure::TokenDead { subcode },
        Action::StopPage(reason) => Failure::StopPage { reason },
        Action::Ambiguous(reason) => Failure::Ambiguous { reason },
        Action::Permanent(reason) => Failure::Permanent { reason },
    }
}

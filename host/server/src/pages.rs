//! The Pages that this host answers for: their tokens while it runs, connecting and disconnecting, and what Meta says of them.
//!
//! - [`PageTokens`] is the live store that the outbox takes tokens from: those of the settings and environment, and before
//!   them those that were connected since ([`connect`]). A change reaches every replica within seconds, without a restart.
//! - [`health`] asks Meta on a schedule whether each token is good and each subscription complete: Meta unsubscribes an app
//!   silently, and a token dies when its person changes the password.
//!
//! A dead token parks its Page: nothing is sent, nothing is lost. Connecting the Page again resumes it.

pub mod connect;
pub mod health;
mod tokens;

pub use tokens::{PageTokens, rewrap_tokens};

/// The events that the host needs, as Meta's fields. `messaging_feedback` and the like may be subscribed to beside them.
pub const FIELDS: [&str; 11] = [
    "messages",
    "messaging_postbacks",
    "message_echoes",
    "message_edits",
    "message_reactions",
    "messaging_referrals",
    "messaging_optins",
    "messaging_handovers",
    "standby",
    "messaging_policy_enforcement",
    "response_feedback",
];

/// Without these permissions a Page cannot be answered for.
pub const SCOPES_NEEDED: [&str; 2] = ["pages_messaging", "pages_manage_metadata"];
/// Without these, something is worse: sends in doubt cannot be looked up.
pub const SCOPES_WANTED: [&str; 1] = ["pages_read_engagement"];

/// How the reason begins when a Page is parked for its token.
pub const TOKEN_DEAD: &str = "the Page's access token is dead; connect the Page again";

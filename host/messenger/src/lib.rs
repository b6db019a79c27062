//! Meta's Messenger Platform, as a library: what arrives, how it is proved genuine, and how an answer is sent.
//!
//! The crate knows the protocol and nothing else: no database, no configuration files, no clock of its own. The server and
//! the simulator both stand on it, so that a rule of Meta's is written once.
//!
//! In the order in which a message meets them:
//!
//! 1. [`handshake`]: Meta verifies the callback URL with a GET; we answer with its challenge.
//! 2. [`signature`]: every POST is signed with the app secret over the raw bytes.
//! 3. [`event`]: a body becomes a list of typed [`Event`]s; one bad piece never costs its neighbours.
//! 4. [`window`]: which of these let the Page answer, and for how long.
//! 5. [`outbound`]: what may be sent, with Meta's limits in the types; [`split`] cuts a long text.
//! 6. [`graph`]: the Graph API client; [`classify`] turns each refusal into one action, by numbers only; [`usage`] reads
//!    the rate-limit headers.
//! 7. [`proof`] and [`signed_request`]: proving our own calls, and the two privacy callbacks.
//!
//! [`ids`] holds the id newtypes that all of these share.

pub mod classify;
pub mod event;
pub mod graph;
pub mod handshake;
pub mod ids;
pub mod outbound;
pub mod proof;
pub mod signature;
pub mod signed_request;
pub mod split;
pub mod usage;
pub mod window;

pub use classify::Failure;
pub use event::{Batch, Channel, Event, EventKind, ParseError, parse, parse_each};
pub use graph::{GraphClient, GraphConfig, PageCredentials, Reply, Sent};
pub use ids::{AgentId, AppId, Mid, PageId, Psid, UserRef};
pub use outbound::{AgentReply, OutboundMessage, Recipient};

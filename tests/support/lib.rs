//! What the tests stand on, and what `cargo xtask up` lets one chat with: a Messenger platform without Meta.
//!
//! 1. [`wire`] builds webhook bodies and writes them as Meta does (escaped Unicode, `\/`).
//! 2. [`webhook`] signs and posts them, with Meta's immediate retries if asked.
//! 3. [`graph_sim`] is the other side: a Graph server that takes sends, answers with ids or Meta's errors, echoes what it
//!    took, and keeps all of it for inspection. Each call's fate can be scripted.
//! 4. [`chat`] puts both behind a web page: a customer's view, with what the host decided beside each answer.
//! 5. [`registry`] runs a real OCI registry on loopback.
//!
//! Time-outs and delays are the only clocks here; tests wait for events, never for time to pass.

pub mod chat;
pub mod graph_sim;
pub mod registry;
pub mod webhook;
pub mod wire;

pub use graph_sim::{EchoPlan, GraphSim, GraphSimConfig, Outcome, SentMessage, SimPage};
pub use webhook::WebhookSender;

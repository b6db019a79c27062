//! The Frontdesk host. The modules stand in the order in which a message meets them:
//!
//! 1. [`webhook`] verifies and parses what Meta posts; [`inbox`] makes it durable before the 200.
//! 2. [`queue`] carries wake-ups through Redis Streams, and sweeps the inbox for lost ones.
//! 3. [`worker`] leases a conversation and turns its unread events into one turn.
//! 4. [`intake`] applies what needs no answer: echoes, edits, unsends, owners, windows.
//! 5. [`pipeline`] makes the turn's judgements: [`policies`] (WASM), [`knowledge`] (retrieval), [`answer`] (drafting),
//!    [`spending`] (what models may cost).
//!    What led to the judgement goes to [`records`], sealed, after the commit.
//!    [`golden`] asks the same pipeline questions whose answers are known, before a change is made.
//! 6. [`observe`] learns from committed turns: what a shadow would have said, and whether a revision does harm.
//! 7. [`outbox`] delivers what was committed, exactly as far as Meta lets us know.
//! 8. [`handover`] gives conversations to people and back; [`learning`] proposes their answers for the knowledge; [`tickets`] tells a CRM.
//!
//! Around them: [`settings`] and [`secrets`], [`clock`], [`keys`] (what is sealed, and under what), [`words`] (people's
//! words at rest), [`pages`] (tokens, connecting,
//! health), [`privacy`] (forgetting a person), [`db`] (all SQL), [`objects`] (raw files),
//! [`ingestion`] (long jobs), [`embedded`] (supervised Postgres and Valkey), [`admin`],
//! [`health`], [`fail_point`] for tests of crashes, and [`app`], which wires everything and runs until stopped.

pub mod admin;
pub mod answer;
pub mod app;
pub mod background;
pub mod cli;
pub mod clock;
pub mod db;
pub mod embedded;
pub mod fail_point;
pub mod golden;
pub mod handover;
pub mod health;
pub mod inbox;
pub mod ingestion;
pub mod intake;
pub mod keys;
pub mod knowledge;
pub mod learning;
pub mod objects;
pub mod observe;
pub mod outbox;
pub mod pages;
pub mod pipeline;
pub mod policies;
pub mod privacy;
pub mod queue;
pub mod records;
pub mod secrets;
pub mod settings;
pub mod spending;
pub mod tickets;
pub mod webhook;
pub mod words;
pub mod worker;

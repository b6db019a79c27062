//! One integration binary: a real host, a real Postgres with pgvector, a real Redis or Valkey, real components. Only
//! Meta is simulated (`tests/support`).
//!
//! `cargo xtask test` provides what the tests need. By hand: DATABASE_URL, REDIS_URL, FRONTDESK_ENGINES_DIR (from
//! `cargo xtask fetch`), FRONTDESK_REGISTRY_PROGRAM (a docker-registry), FRONTDESK_MODEL_DIR (the folder of what
//! `cargo xtask fetch --model` prints), FRONTDESK_COMPONENTS_DIR and FRONTDESK_GUESTS_DIR (from
//! `cargo xtask components --guests`), FRONTDESK_S3_SERVER_DIR (a folder into which
//! `pip install --target` has put `tests/peers/s3-requirements.txt`).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says by a panic that it failed"
)]

mod chains;
mod database;
mod host;
mod model;
mod process;

mod answers;
mod commands;
mod connections;
mod crash;
mod delivery;
mod embedded;
mod events;
mod faults;
mod fleet;
mod golden;
mod hang_up;
mod ingestion;
mod inquiries;
mod jobs;
mod knowledge;
mod late;
mod learning;
mod local_model;
mod objects;
mod outage;
mod overload;
mod pages;
mod privacy;
mod provenance;
mod queue;
mod records;
mod redaction;
mod redraft;
mod refusals;
mod registries;
mod rollout;
mod settling;
mod simulation;
mod spending;
mod swap;
mod takeover;
mod websites;

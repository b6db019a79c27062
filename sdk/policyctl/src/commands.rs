//! The commands, each from its arguments to a report.

pub mod bench;
pub mod build;
pub mod check;
pub mod diff;
pub mod explain;
pub mod export;
pub mod inspect;
pub mod keygen;
pub mod moves;
pub mod new;
pub mod push;
mod redraft;
pub mod replay;
pub mod run;
pub mod shadow_report;
pub mod sign;
pub mod status;
pub mod test;

//! `policyctl`: write a policy, check, test and measure it, replay what was decided, and ask a host why.
//!
//! It runs policies on the engine that the host runs (`frontdesk-policy-engine`) and reads a chain's folder by the
//! host's rules, so what works here works there.
//!
//! In the order in which a policy meets them:
//! - [`cli`]: the arguments, the exit codes, and how a report is printed.
//! - [`subject`]: what a command is about: a component file or a chain's folder.
//! - [`files`]: files of cases.
//! - [`records`]: inputs and verdicts, written by a host; [`source`]: revisions and records, from files or a host.
//! - [`oci`]: components in registries.
//! - [`admin`]: a running host's admin API.
//! - [`commands`]: one file for each command.

mod admin;
mod cli;
mod commands;
mod files;
mod oci;
mod records;
mod source;
mod subject;
mod words;

fn main() -> std::process::ExitCode {
    cli::main()
}

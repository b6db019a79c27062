//! The `frontdesk` command; see [`frontdesk_server::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    frontdesk_server::cli::main()
}

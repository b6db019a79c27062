//! The `frontdesk` command as the tests of crashes run it: the same entry point, built beside the tests so that Cargo
//! tells them where it is.

use std::process::ExitCode;

fn main() -> ExitCode {
    frontdesk_server::cli::main()
}

//! `frontdesk person`: forgetting a person.

use std::time::Duration;

use clap::Subcommand;

use super::{AdminClient, Failure, Outcome, Remote, one_line, say};

/// How often, and for how long, the outcome is asked for.
const ASK_EVERY: Duration = Duration::from_millis(500);
const ASKS_MAX: u32 = 120;

#[derive(Debug, Subcommand)]
pub enum PersonCommand {
    /// Delete everything about a person of a Page. This cannot be undone.
    Erase {
        /// Meta's Page id.
        #[arg(long, value_name = "ID")]
        page: String,
        /// The person's id on that Page.
        #[arg(long, value_name = "ID")]
        psid: String,
        #[command(flatten)]
        remote: Remote,
    },
}

pub async fn run(command: PersonCommand) -> Outcome {
    let PersonCommand::Erase { page, psid, remote } = command;
    let client = AdminClient::new(&remote)?;
    let asked = client.post(&["people", &page, &psid, "erase"]).await?;
    let code = asked["code"].as_str().unwrap_or_default().to_owned();
    for _ in 0..ASKS_MAX {
        let answer = client.get(&["erasures", &code], &[]).await?;
        let erasure = &answer["erasure"];
        match erasure["state"].as_str() {
            Some("done") if erasure["people"] == 0 => {
                return say(&format!("{code}  done: nobody with this id was known"));
            }
            Some("done") => return say(&format!("{code}  done: {} rows erased", erasure["rows_erased"])),
            Some("failed") => {
                let note = one_line(erasure["note"].as_str().unwrap_or_default(), 400);
                return Err(Failure::failed(format!("{code}  failed: {note}")));
            }
            _ => tokio::time::sleep(ASK_EVERY).await,
        }
    }
    say(&format!("{code}  queued; GET /admin/erasures/{code} tells when it is done"))
}

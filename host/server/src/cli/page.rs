//! `frontdesk page`: whether the Pages of a running host may send.

use clap::Subcommand;

use super::{AdminClient, Outcome, Remote, one_line, say};

#[derive(Debug, Subcommand)]
pub enum PageCommand {
    /// List the Pages with their state.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Let a parked or stopped Page send again, after what stopped it is mended.
    Resume {
        /// Meta's Page id.
        page: String,
        #[command(flatten)]
        remote: Remote,
    },
}

pub async fn run(command: PageCommand) -> Outcome {
    match command {
        PageCommand::List { remote } => {
            let answer = AdminClient::new(&remote)?.get(&["pages"], &[]).await?;
            for page in answer["pages"].as_array().into_iter().flatten() {
                let field = |key: &str, max| one_line(page[key].as_str().unwrap_or_default(), max);
                let reason = field("state_reason", 200);
                let line =
                    format!("{}  {:<8}  {}  {}", field("page_id", 40), field("state", 8), field("name", 60), reason);
                say(line.trim_end())?;
            }
            Ok(())
        }
        PageCommand::Resume { page, remote } => {
            let answer = AdminClient::new(&remote)?.post(&["pages", &page, "resume"]).await?;
            let changed = answer["changed"].as_bool().unwrap_or_default();
            say(&format!("{page}  {}", if changed { "resumed" } else { "was active already" }))
        }
    }
}

//! `frontdesk page`: the Pages of a running host, connecting them, and whether they may send.

use clap::Subcommand;
use secrecy::ExposeSecret;
use serde_json::json;

use super::{AdminClient, Failure, Outcome, Remote, one_line, say};
use crate::secrets;

#[derive(Debug, Subcommand)]
pub enum PageCommand {
    /// List the Pages with their state.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Connect a Page, or connect it again. The token of a person who manages it comes from FRONTDESK_USER_TOKEN (or
    /// FRONTDESK_USER_TOKEN_FILE); it is used once and not kept.
    Connect {
        /// Meta's Page id, when the token reaches several Pages.
        #[arg(long, value_name = "ID")]
        page: Option<String>,
        /// Policy chain for a Page that is new here.
        #[arg(long, value_name = "NAME")]
        chain: Option<String>,
        /// IANA time zone for a Page that is new here.
        #[arg(long, value_name = "ZONE")]
        time_zone: Option<String>,
        /// BCP 47 tag of the main language of a Page that is new here.
        #[arg(long, value_name = "TAG")]
        language: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Forget a connected Page's token and park the Page.
    Disconnect {
        /// Meta's Page id.
        page: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Ask Meta now about a Page's token and subscription.
    Check {
        /// Meta's Page id.
        page: String,
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
                if let Some(problem) = page["health"]["problem"].as_str() {
                    say(&format!("    {}", one_line(problem, 400)))?;
                }
            }
            Ok(())
        }
        PageCommand::Connect { page, chain, time_zone, language, remote } => {
            let token = secrets::required("FRONTDESK_USER_TOKEN", "a token of a person who manages the Page");
            let token = token.map_err(Failure::usage)?;
            let body = json!({
                "user_token": token.expose_secret(), "page_id": page, "chain": chain, "time_zone": time_zone,
                "language": language,
            });
            let answer = AdminClient::new(&remote)?.post_json(&["pages"], &body).await?;
            let page = &answer["page"];
            let field = |key: &str| one_line(page[key].as_str().unwrap_or_default(), 60);
            say(&format!("{}  {}  {}", field("page_id"), field("state"), field("name")))?;
            let missing = page["scopes_missing"].as_array().into_iter().flatten().filter_map(|scope| scope.as_str());
            let missing: Vec<&str> = missing.collect();
            if missing.is_empty() {
                return Ok(());
            }
            say(&format!("    without {}: sends in doubt cannot be looked up", missing.join(", ")))
        }
        PageCommand::Disconnect { page, remote } => {
            let answer = AdminClient::new(&remote)?.post(&["pages", &page, "disconnect"]).await?;
            let is_told = answer["unsubscribed"].as_bool().unwrap_or_default();
            let rest = if is_told { "" } else { "; Meta did not confirm the end of the subscription" };
            say(&format!("{page}  disconnected{rest}"))
        }
        PageCommand::Check { page, remote } => {
            let answer = AdminClient::new(&remote)?.post(&["pages", &page, "check"]).await?;
            match answer["health"]["problem"].as_str() {
                None => say(&format!("{page}  healthy")),
                Some(problem) => Err(Failure::failed(format!("{page}: {}", one_line(problem, 600)))),
            }
        }
        PageCommand::Resume { page, remote } => {
            let answer = AdminClient::new(&remote)?.post(&["pages", &page, "resume"]).await?;
            let changed = answer["changed"].as_bool().unwrap_or_default();
            say(&format!("{page}  {}", if changed { "resumed" } else { "was active already" }))
        }
    }
}

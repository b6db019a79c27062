//! `frontdesk learn`: what people's answers propose for the knowledge.

use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

use super::{AdminClient, Outcome, Remote, one_line, say};

#[derive(Debug, Subcommand)]
pub enum LearnCommand {
    /// List proposed entries of the FAQ.
    List {
        /// proposed, approved or rejected.
        #[arg(long, default_value = "proposed")]
        state: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Make one part of the knowledge, perhaps in other words.
    Approve {
        id: Uuid,
        #[arg(long)]
        question: Option<String>,
        #[arg(long)]
        answer: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Say no to one.
    Reject {
        id: Uuid,
        #[command(flatten)]
        remote: Remote,
    },
    /// Print golden questions that customers' thumbs and people's corrections suggest.
    Goldens {
        #[arg(long, value_name = "PAGE_ID")]
        page: String,
        #[command(flatten)]
        remote: Remote,
    },
}

pub async fn run(command: LearnCommand) -> Outcome {
    match command {
        LearnCommand::List { state, remote } => {
            let answer = AdminClient::new(&remote)?.get(&["learning"], &[("state", &state)]).await?;
            for proposal in answer["proposals"].as_array().into_iter().flatten() {
                let field = |key: &str, max| one_line(proposal[key].as_str().unwrap_or_default(), max);
                say(&format!("{}  {}  by {}", field("id", 36), field("question", 100), field("agent", 40)))?;
                say(&format!("    {}", field("answer", 200)))?;
                if proposal["nearest_source"].is_string() {
                    let score = proposal["nearest_score"].as_f64().unwrap_or_default();
                    say(&format!("    nearest now: {} (fits {score:.2})", field("nearest_source", 80)))?;
                }
            }
            Ok(())
        }
        LearnCommand::Approve { id, question, answer, remote } => {
            let body = json!({ "question": question, "answer": answer });
            let path = ["learning", &id.to_string(), "approve"].map(str::to_owned);
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let answer = AdminClient::new(&remote)?.post_json(&path, &body).await?;
            let document = answer["proposal"]["document_id"].as_str().unwrap_or_default();
            say(&format!("approved  {id}  document {}", one_line(document, 36)))
        }
        LearnCommand::Reject { id, remote } => {
            AdminClient::new(&remote)?.post(&["learning", &id.to_string(), "reject"]).await?;
            say(&format!("rejected  {id}"))
        }
        LearnCommand::Goldens { page, remote } => {
            let answer = AdminClient::new(&remote)?.get(&["golden", "suggestions"], &[("page_id", &page)]).await?;
            say(answer["goldens"].as_str().unwrap_or_default().trim_end())
        }
    }
}

//! `frontdesk-simulator`: the Messenger platform without Meta, with a page to chat on.
//!
//! Exit codes: 0 after a signal, 2 for wrong settings, 3 when a port is taken.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use frontdesk_testkit::chat::{self, AdminApi, Chat};
use frontdesk_testkit::graph_sim::StartError;
use frontdesk_testkit::{GraphSim, GraphSimConfig, SimPage, WebhookSender};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;

/// A Messenger platform without Meta: a fake Graph API, signed webhooks, and a page to chat on.
///
/// Secrets come from the environment or from files, never from arguments, which other users can see:
/// FRONTDESK_APP_SECRET, FRONTDESK_PAGE_TOKEN, FRONTDESK_ADMIN_TOKEN, or the --…-file options.
#[derive(Debug, Parser)]
#[command(name = "frontdesk-simulator", version)]
struct Options {
    /// Where the chat page is served.
    #[arg(long, env = "SIMULATOR_LISTEN", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Where the fake Graph API is served.
    #[arg(long, env = "SIMULATOR_GRAPH_LISTEN", default_value = "127.0.0.1:8091")]
    graph_listen: SocketAddr,
    /// The host's webhook.
    #[arg(long, env = "SIMULATOR_WEBHOOK_URL", default_value = "http://127.0.0.1:8080/webhook")]
    webhook_url: String,
    /// The host's address for what it decided; without it the page shows messages only.
    #[arg(long, env = "SIMULATOR_ADMIN_URL")]
    admin_url: Option<String>,
    /// The app's id, a number as Meta's.
    #[arg(long, env = "FRONTDESK_APP_ID", default_value = "1234567890")]
    app_id: u64,
    /// The Page's id.
    #[arg(long, env = "FRONTDESK_PAGE_ID", default_value = "106000000000001")]
    page_id: String,
    /// The Page's name, as shown.
    #[arg(long, env = "SIMULATOR_PAGE_NAME", default_value = "Demo Page")]
    page_name: String,
    /// Refuse Graph calls without appsecret_proof.
    #[arg(long)]
    require_proof: bool,
    /// File with the app secret, instead of FRONTDESK_APP_SECRET.
    #[arg(long)]
    app_secret_file: Option<PathBuf>,
    /// File with the Page's token, instead of FRONTDESK_PAGE_TOKEN.
    #[arg(long)]
    page_token_file: Option<PathBuf>,
    /// File with the host's admin token, instead of FRONTDESK_ADMIN_TOKEN.
    #[arg(long)]
    admin_token_file: Option<PathBuf>,
}

const WRONG_SETTINGS: u8 = 2;
const PORT_TAKEN: u8 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let is_port = error.chain().any(|cause| cause.is::<StartError>() || cause.is::<PortTaken>());
            say(&format!("frontdesk-simulator: {}", one_line(&error)));
            ExitCode::from(if is_port { PORT_TAKEN } else { WRONG_SETTINGS })
        }
    }
}

/// The chat's own port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be listened on; stop what uses that port or choose another one with --listen")]
struct PortTaken {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

#[expect(clippy::print_stderr, reason = "the one line a user must see, whatever the log filter says")]
fn say(line: &str) {
    eprintln!("{line}");
}

fn one_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ").replace('\n', " ")
}

async fn run(options: Options) -> anyhow::Result<()> {
    let app_secret = secret("FRONTDESK_APP_SECRET", options.app_secret_file.as_ref())?
        .context("no app secret: set FRONTDESK_APP_SECRET or --app-secret-file to the host's")?;
    let page_token = secret("FRONTDESK_PAGE_TOKEN", options.page_token_file.as_ref())?
        .context("no Page token: set FRONTDESK_PAGE_TOKEN or --page-token-file to the host's")?;
    let admin_token = secret("FRONTDESK_ADMIN_TOKEN", options.admin_token_file.as_ref())?;
    let admin = match (options.admin_url, admin_token) {
        (Some(url), Some(token)) => Some(AdminApi { base_url: url.trim_end_matches('/').to_owned(), token }),
        (Some(_), None) => anyhow::bail!("--admin-url needs FRONTDESK_ADMIN_TOKEN or --admin-token-file"),
        (None, _) => None,
    };
    let sim = GraphSim::start(GraphSimConfig {
        listen: options.graph_listen,
        pages: vec![SimPage {
            page_id: options.page_id.clone(),
            name: options.page_name,
            token: page_token.expose_secret().to_owned(),
        }],
        app_id: options.app_id.to_string(),
        app_secret: app_secret.expose_secret().to_owned(),
        requires_proof: options.require_proof,
        callback_url: Some(options.webhook_url.clone()),
        is_strict_about_people: true,
        ..GraphSimConfig::default()
    })
    .await?;
    let sender = WebhookSender::new(options.webhook_url, app_secret.expose_secret(), options.page_id)?;
    let graph_url = sim.base_url();
    let chat = Arc::new(Chat::new(sim, sender, admin)?);

    let listener =
        TcpListener::bind(options.listen).await.map_err(|source| PortTaken { address: options.listen, source })?;
    let address = listener.local_addr().context("the chat's address is unknown")?;
    tracing::info!(chat = %format!("http://{address}/"), graph = %graph_url, "the simulator is ready");
    // Open long polls must not hold the process: the server is dropped with the signal.
    tokio::select! {
        served = axum::serve(listener, chat::router(chat)) => served.context("the chat's server stopped"),
        signal = stop_signal() => signal.context("signals cannot be received"),
    }
}

async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    tracing::info!("stopping on a signal");
    Ok(())
}

/// A secret from a file, else from the environment; blank counts as missing.
fn secret(variable: &str, file: Option<&PathBuf>) -> anyhow::Result<Option<SecretString>> {
    let text = match file {
        Some(path) => {
            Some(std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?)
        }
        None => std::env::var(variable).ok(),
    };
    Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).map(SecretString::from))
}

//! Running the host, and its log.

use std::io::IsTerminal;
use std::process;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::{Config, Failure, Outcome};
use crate::app::{App, Roles, Server};
use crate::secrets::Secrets;

/// What is logged unless FRONTDESK_LOG or RUST_LOG says otherwise.
const LOG_DEFAULT: &str = "info";

/// Logs to standard error. FRONTDESK_LOG (or RUST_LOG) filters; FRONTDESK_LOG_FORMAT=json writes one object per line.
pub fn start_logging() -> Outcome {
    let (name, filter) = ["FRONTDESK_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()).map(|value| (name, value)))
        .unwrap_or(("FRONTDESK_LOG", LOG_DEFAULT.to_owned()));
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        Failure::usage(format!(
            "{name} is {filter:?}: {error}; expected for example info, or info,frontdesk_server=debug"
        ))
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let format = std::env::var("FRONTDESK_LOG_FORMAT").unwrap_or_default();
    let started = match format.as_str() {
        "" | "text" => builder.try_init(),
        "json" => builder.json().flatten_event(true).try_init(),
        other => {
            return Err(Failure::usage(format!("FRONTDESK_LOG_FORMAT is {other:?}, expected text or json")));
        }
    };
    started.map_err(|error| Failure::failed(format!("logging cannot be started: {error}")))
}

/// Runs the roles until SIGTERM or SIGINT.
pub async fn run(config: &Config, serve: bool, work: bool) -> Outcome {
    let settings = config.load().map_err(Failure::usage)?;
    let secrets = Secrets::load(&settings).map_err(Failure::usage)?;
    // Registered before the start, so that a signal during it is not lost.
    let signals = Signals::register()?;
    let stop = CancellationToken::new();
    tokio::spawn(signals.watch(stop.clone()));
    let server = tokio::select! {
        server = Server::build(settings, secrets, Roles { serve, work }) => server.map_err(|error| Failure::failed(format!("{error:#}")))?,
        () = stop.cancelled() => return Ok(()),
    };
    let (address, replica) = (server.address, server.app.replica.clone());
    tracing::info!(%address, replica, serve, work, version = env!("CARGO_PKG_VERSION"), "Frontdesk runs");
    tokio::spawn(probe_reader(Arc::clone(&server.app)));
    let stopper = server.stopper();
    tokio::spawn(async move {
        stop.cancelled().await;
        stopper.cancel();
    });
    server.run_until_stopped().await.map_err(|error| Failure::failed(format!("{error:#}")))?;
    tracing::info!(replica, "Frontdesk has stopped");
    Ok(())
}

/// Says at once what would else be found with somebody's first PDF.
async fn probe_reader(app: Arc<App>) {
    if let Err(error) = app.knowledge.probe_reader().await {
        tracing::error!(%error, "files other than text cannot be read here: see [extraction] of the settings");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn register() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::failed(format!("signals cannot be received: {error}")));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    async fn watch(mut self, stop: CancellationToken) {
        let signal = self.next().await;
        tracing::info!(signal, "stopping: running turns and sends may end; a second signal ends at once");
        stop.cancel();
        let signal = self.next().await;
        tracing::warn!(signal, "ending at once; what was not finished is taken up again at the next start");
        process::exit(1);
    }
}

//! `cargo xtask up`: Frontdesk on its own engines, with the simulated Messenger in front and a small demo knowledge.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};

use crate::components;
use crate::conversation;
use crate::demo::{self, APP_ID, Choices, Demo, PAGE_ID, PAGE_NAME, Ports};
use crate::fetch::{self, Need};
use crate::http;
use crate::model;
use crate::process::{Background, interrupted};
use crate::progress::{self, Progress};
use crate::workspace::Workspace;

const PORT: u16 = 8080;
const SIMULATOR_PORT: u16 = 8090;
/// The whole workspace, not two packages: a smaller choice would unify the features of shared dependencies in another
/// way, and `cargo xtask test` after it (or before) would compile nearly all of them a second time.
pub const BUILD: &[&str] = &["build", "--locked", "--workspace", "--bins"];
/// The first start makes a database cluster, runs the migrations and compiles the policies.
const READY_DEADLINE: Duration = Duration::from_secs(180);
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Send this message through the webhook, show the reply and the decision, and end; fails when neither a reply nor a ticket came.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Port of Frontdesk itself [default: 8080; with --message any free one].
    #[arg(long)]
    port: Option<u16>,
    /// Port of the simulated Messenger [default: 8090; with --message any free one].
    #[arg(long)]
    simulator_port: Option<u16>,
    /// The engines' private folder [default: one in .frontdesk].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub fn run(workspace: &Workspace, progress: &Progress, options: &Options) -> Result<()> {
    let ports = choose_ports(options)?;
    let need = Need::from_environment();
    let binaries = if need.any() {
        Some(progress.step("fetch Postgres and Valkey", "cargo xtask fetch", || fetch::engines(need))?)
    } else {
        progress.say("using the servers in DATABASE_URL and REDIS_URL");
        None
    };
    progress.step("compile the policies", "cargo xtask components", || components::build(workspace, false))?;
    let alone = format!("cargo {}", BUILD.join(" "));
    progress.step("compile Frontdesk", &alone, || progress::run(workspace.cargo().args(BUILD)))?;

    let embeddings = embeddings(progress);
    let choices = Choices {
        ports,
        binaries: binaries.as_deref(),
        data: options.data.as_deref(),
        embeddings: embeddings.as_deref(),
    };
    let demo = Demo::prepare(workspace, &choices)?;
    let mut running = progress.step("start", "cargo xtask up", || start(workspace, &demo, ports))?;
    progress.step("add the demo knowledge", "cargo xtask up", || add_knowledge(workspace, &demo))?;

    match &options.message {
        Some(text) => {
            let psid = new_psid();
            let (simulator, server) = (&mut running.simulator, &mut running.server);
            let outcome = progress.step("ask", "cargo xtask up --message TEXT", || {
                conversation::ask(ports.simulator, &psid, text, &mut [simulator, server])
            })?;
            println!("message     {text}\n{}", conversation::describe(&outcome));
            ensure!(outcome.is_answered(), "the host decided, but neither a reply nor a ticket came out");
            Ok(())
        }
        None => {
            println!("{}", welcome(&demo, ports));
            let ended = watch(&mut running);
            progress.say("stopping …");
            drop(running);
            progress.say("stopped");
            ended
        }
    }
}

/// The setting of the default model. A demo is worth having without it: questions are then found by their words alone.
fn embeddings(progress: &Progress) -> Option<String> {
    let name = model::default_name();
    match model::fetch(name).and_then(|folder| model::setting(&folder)) {
        Ok(setting) => {
            progress.say(&format!("using the embedding model {name}"));
            Some(setting)
        }
        Err(error) => {
            progress.say(&format!("going on without the embedding model {name}, by words alone: {error:#}"));
            None
        }
    }
}

/// The programs; dropped in this order, so that Frontdesk delivers what it has before the simulator goes.
struct Running {
    server: Background,
    simulator: Background,
}

fn choose_ports(options: &Options) -> Result<Ports> {
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port was found");
    let choose = |wanted: Option<u16>, default, flag: &str| {
        let port = match (wanted, &options.message) {
            (None, Some(_)) => return free(),
            (wanted, _) => wanted.unwrap_or(default),
        };
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|error| anyhow!("port {port} cannot be used ({error}): choose another with {flag}"))
    };
    // All are held until all are chosen, so that they differ. Nobody needs to know the third.
    let host = choose(options.port, PORT, "--port")?;
    let simulator = choose(options.simulator_port, SIMULATOR_PORT, "--simulator-port")?;
    let graph = free()?;
    let number = |listener: TcpListener| -> Result<u16> { Ok(listener.local_addr()?.port()) };
    Ok(Ports { host: number(host)?, simulator: number(simulator)?, graph: number(graph)? })
}

fn start(workspace: &Workspace, demo: &Demo, ports: Ports) -> Result<Running> {
    let local = |port| format!("127.0.0.1:{port}");
    let mut simulator = Command::new(workspace.binary("debug", "frontdesk-simulator"));
    simulator.args(["--listen", &local(ports.simulator), "--graph-listen", &local(ports.graph)]);
    simulator.args(["--webhook-url", &format!("http://{}/webhook", local(ports.host))]);
    simulator.args(["--admin-url", &format!("http://{}", local(ports.host))]);
    simulator.args(["--app-id", APP_ID, "--page-id", PAGE_ID, "--page-name", PAGE_NAME, "--require-proof"]);
    simulator.arg("--app-secret-file").arg(demo.secret("app-secret"));
    simulator.arg("--page-token-file").arg(demo.secret("page-token"));
    simulator.arg("--admin-token-file").arg(demo.secret("admin-token"));
    let mut simulator = Background::start("the simulator", simulator, &demo.log_dir.join("simulator.log"))?;
    let answers = |port, path: &str| http::get(port, path).is_ok_and(|answer| answer.status == 200);
    simulator.wait_until(READY_DEADLINE, "answer", || answers(ports.simulator, "/healthz"))?;

    let mut server = frontdesk(workspace, demo);
    server.args(["serve", "--config"]).arg(&demo.config);
    let mut server = Background::start("frontdesk", server, &demo.log_dir.join("server.log"))?;
    server.wait_until(READY_DEADLINE, "become ready", || answers(ports.host, "/readyz"))?;
    Ok(Running { server, simulator })
}

fn frontdesk(workspace: &Workspace, demo: &Demo) -> Command {
    let mut command = Command::new(workspace.binary("debug", "frontdesk"));
    command.current_dir(&workspace.root);
    demo.give_secrets(&mut command);
    command
}

/// Adding the same documents again changes nothing, so this is done at every start.
fn add_knowledge(workspace: &Workspace, demo: &Demo) -> Result<()> {
    let mut command = frontdesk(workspace, demo);
    command.args(["knowledge", "add", "--config"]).arg(&demo.config).args(["--page", PAGE_ID]);
    // Its report goes with the progress, so that standard output holds the outcome alone.
    command.args(demo::knowledge(workspace)?).stdin(Stdio::null()).stdout(std::io::stderr());
    progress::run(&mut command)
}

/// A customer that no earlier run has talked as, so the conversation starts anew.
fn new_psid() -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("9{:015}", since_1970.as_micros() % 1_000_000_000_000_000)
}

fn welcome(demo: &Demo, ports: Ports) -> String {
    let Ports { host: port, simulator: simulator_port, .. } = ports;
    let show = |path: &Path| path.display().to_string();
    let (admin_token, config, log_dir) = (show(&demo.secret("admin-token")), show(&demo.config), show(&demo.log_dir));
    format!(
        "
Frontdesk is up.

  chat as a customer   http://127.0.0.1:{simulator_port}/
  Frontdesk            http://127.0.0.1:{port}/   (/healthz, /readyz, /metrics, /webhook)
  admin API            http://127.0.0.1:{port}/admin/…   Authorization: Bearer $(cat {admin_token})
  settings             {config}
  logs                 {log_dir}

Try:
  - Ask \"Do you ship to Austria?\" and look at the route, the passages and the revision beside the answer.
  - Ask for a person, and find the ticket.
  - Change a file in policies/default while this runs, and ask again.

Ctrl-C stops everything; the data stays for the next time."
    )
}

/// Until Ctrl-C; fails when a program ends by itself.
fn watch(running: &mut Running) -> Result<()> {
    while !interrupted() {
        running.server.require_alive()?;
        running.simulator.require_alive()?;
        std::thread::sleep(WATCH_INTERVAL);
    }
    Ok(())
}

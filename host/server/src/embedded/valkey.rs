//! Valkey (or Redis 7): what it is told, and how it is asked whether it is there.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::Durability;
use super::error::EnginesError;
use super::folder::{Folder, percent_encode};
use super::os::Signal;
use super::postgres::find_program;
use super::supervisor::Spec;

pub(super) const NAME: &str = "valkey";
/// The queue holds wake-ups of a few dozen bytes and is trimmed; this is a wall, not a budget. Past it writes fail, and the sweeper
/// issues the wake-ups again from the inbox.
const MEMORY_MAX: &str = "512mb";

const STOP: &[(Signal, Duration)] = &[(Signal::Terminate, Duration::from_secs(10))];

/// What the supervisor needs, and the URL to connect with.
pub(super) fn spec(
    binaries: &Path,
    folder: &Arc<Folder>,
    durability: Durability,
) -> Result<(Spec, SecretString), EnginesError> {
    let program = find_program(binaries, "valkey-server")?;
    let home = folder.child_dir("valkey")?;
    // The password guards the socket only, not the data: a lost one is simply replaced.
    let password = folder.password("valkey.password", None)?;
    let socket = folder.run_dir().join("valkey.sock");
    let settings = settings(&home, &socket, &password, durability);
    let settings_path = folder.child_file("valkey.conf", &settings)?;
    let url = format!(
        "redis+unix://{}?pass={}",
        percent_encode(&socket.to_string_lossy(), true),
        percent_encode(password.expose_secret(), false)
    );
    let spec = Spec {
        name: NAME,
        program,
        arguments: vec![settings_path.display().to_string()],
        pid_file: home.join("valkey.pid"),
        home,
        log: folder.log("valkey.log"),
        on_parent_death: Signal::Terminate,
        stop: STOP,
        prepare: Box::new(|| Ok(())),
        before_start: Box::new(|| ()),
        probe: Box::new(move || probe(&socket, password.expose_secret())),
        is_transient: |_| false,
    };
    Ok((spec, SecretString::from(url)))
}

fn settings(home: &Path, socket: &Path, password: &SecretString, durability: Durability) -> String {
    let fsync = match durability {
        Durability::Durable => "everysec",
        Durability::Fast => "no",
    };
    let lines = [
        // Reached through the socket alone.
        "port 0".to_owned(),
        format!("unixsocket {}", quote(socket)),
        "unixsocketperm 700".to_owned(),
        format!("requirepass {}", password.expose_secret()),
        format!("dir {}", quote(home)),
        format!("pidfile {}", quote(&home.join("valkey.pid"))),
        "daemonize no".to_owned(),
        "appendonly yes".to_owned(),
        format!("appendfsync {fsync}"),
        "aof-load-truncated yes".to_owned(),
        "save \"\"".to_owned(),
        format!("maxmemory {MEMORY_MAX}"),
        // A wake-up must never vanish because another one came.
        "maxmemory-policy noeviction".to_owned(),
        "loglevel notice".to_owned(),
    ];
    lines.join("\n") + "\n"
}

/// A quoted argument of a settings file. Control characters were refused when the folder was opened.
fn quote(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}

/// `AUTH` and `PING`; while the append-only file is being read the answer to the second is `-LOADING`.
fn probe(socket: &Path, password: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(format!("AUTH {password}\r\nPING\r\n").as_bytes())?;
    let expected = b"+OK\r\n+PONG\r\n";
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    if answer == *expected { Ok(()) } else { Err(io::Error::other("not yet")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_keep_it_off_the_network_and_on_disk() {
        let password = SecretString::from("ab12".to_owned());
        let text = settings(Path::new("/d/val \"key"), Path::new("/d/run/valkey.sock"), &password, Durability::Durable);
        for line in ["port 0", "requirepass ab12", "appendonly yes", "appendfsync everysec", "dir \"/d/val \\\"key\""] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        let fast = settings(Path::new("/d"), Path::new("/s"), &password, Durability::Fast);
        assert!(fast.contains("appendfsync no\n"));
    }
}

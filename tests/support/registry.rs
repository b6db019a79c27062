//! A real OCI registry on loopback, with its folder in the test's hands: CNCF Distribution, as `cargo xtask fetch` brings it.
//!
//! It listens on a port of its own choice, which it says in its log. Its storage is a folder of plain files, so that a
//! test can damage a blob as a broken disk or a wicked operator would.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Names the program.
pub const VARIABLE: &str = "FRONTDESK_REGISTRY_PROGRAM";

/// Whom the registry lets in.
#[derive(Clone, Debug)]
pub enum Door {
    /// Everybody.
    Open,
    /// Whoever has one of these names and passwords, by an htpasswd file with bcrypt hashes.
    Htpasswd(String),
    /// Whoever brings any token; the address is that of the token service, which the registry names in its challenge.
    Token(String),
}

/// A running registry; it ends when this is dropped.
#[derive(Debug)]
pub struct RegistryServer {
    child: Child,
    folder: PathBuf,
    door: Door,
    /// `127.0.0.1:port`.
    pub address: String,
}

impl RegistryServer {
    /// Starts a registry whose data are in `folder`.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn start(folder: &Path, door: Door) -> Result<Self, String> {
        let (child, address) = launch(folder, &door, "127.0.0.1:0")?;
        Ok(Self { child, folder: folder.to_owned(), door, address })
    }

    /// Ends it; its data stay.
    pub fn stop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, on the same port and data.
    ///
    /// # Errors
    /// As with the first start.
    pub fn start_again(&mut self) -> Result<(), String> {
        self.stop();
        (self.child, self.address) = launch(&self.folder, &self.door, &self.address)?;
        Ok(())
    }

    /// The file that holds a blob.
    #[must_use]
    pub fn blob_path(&self, sha256: &str) -> PathBuf {
        let beginning = sha256.get(..2).unwrap_or_default();
        self.folder.join("data/docker/registry/v2/blobs/sha256").join(beginning).join(sha256).join("data")
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn launch(folder: &Path, door: &Door, listen: &str) -> Result<(Child, String), String> {
    let program = std::env::var_os(VARIABLE).ok_or_else(|| {
        format!(
            "{VARIABLE} names no OCI registry. `cargo xtask test` fetches Debian's docker-registry by itself; by hand: \
             apt-get install docker-registry, and {VARIABLE}=/usr/bin/docker-registry"
        )
    })?;
    let failed = |what: &str, error: &std::io::Error| format!("{what}: {error}");
    let auth = match door {
        Door::Open => String::new(),
        Door::Htpasswd(users) => {
            let path = folder.join("htpasswd");
            std::fs::write(&path, users).map_err(|error| failed("htpasswd cannot be written", &error))?;
            format!("auth: {{htpasswd: {{realm: tests, path: {:?}}}}}\n", path.display().to_string())
        }
        Door::Token(realm) => format!("auth: {{silly: {{realm: {realm:?}, service: registry.test}}}}\n"),
    };
    let data = folder.join("data").display().to_string();
    let config = format!(
        "version: 0.1\nlog: {{level: info, formatter: text}}\nstorage: {{filesystem: {{rootdirectory: {data:?}}}}}\n\
         http: {{addr: {listen:?}, secret: tests}}\n{auth}"
    );
    let path = folder.join("config.yml");
    std::fs::write(&path, config).map_err(|error| failed("config.yml cannot be written", &error))?;
    let mut child = Command::new(&program)
        .arg("serve")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&format!("{} cannot be started", program.display()), &error))?;
    let Some(log) = child.stderr.take() else { return Err("the registry has no log".to_owned()) };
    let mut lines = BufReader::new(log).lines().map_while(Result::ok);
    let mut said = String::new();
    let address = lines.find_map(|line| {
        let address = line.split_once("listening on ").map(|(_, rest)| rest);
        let address = address.and_then(|rest| rest.split(['"', ' ', ',']).next()).map(str::to_owned);
        said = line;
        address
    });
    // A log that nobody reads would stop the registry when the pipe is full.
    std::thread::spawn(move || lines.for_each(drop));
    match address {
        Some(address) => Ok((child, address)),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Err(format!("the registry did not start; its last words: {said}"))
        }
    }
}

//! The demo's settings and secrets.
//!
//! The secrets are random, made once, and lie as 0600 files in the state folder. The programs get the files' paths, so no secret
//! stands in an environment or an argument list.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

const TEMPLATE: &str = include_str!("demo.toml");
/// The demo's Page. Meta's ids are digits; nothing else is special about it.
pub const PAGE_ID: &str = "104200000000001";
/// The demo's Meta app: tells the echoes of the host's own sends from those of other apps.
pub const APP_ID: &str = "1234567890";
/// What the demo knowledge calls the shop.
pub const PAGE_NAME: &str = "Demo Page";
const SECRET_BYTES: usize = 32;

/// The variable that names each secret's file, and the file.
const SECRETS: [(&str, &str); 4] = [
    ("FRONTDESK_APP_SECRET_FILE", "app-secret"),
    ("FRONTDESK_VERIFY_TOKEN_FILE", "verify-token"),
    ("FRONTDESK_ADMIN_TOKEN_FILE", "admin-token"),
    ("FRONTDESK_PAGE_TOKEN_FILE", "page-token"),
];

/// The demo as it lies on disk.
#[derive(Debug)]
pub struct Demo {
    pub config: PathBuf,
    pub log_dir: PathBuf,
    secrets: PathBuf,
}

/// The ports of a run, all on the loopback interface.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// Frontdesk: webhook, admin API, health, metrics.
    pub host: u16,
    /// The simulator's chat page.
    pub simulator: u16,
    /// The simulator's Graph API.
    pub graph: u16,
}

/// What a run of the demo is told.
#[derive(Debug)]
pub struct Choices<'a> {
    pub ports: Ports,
    /// Folder of the engines' programs; without it both engines come from `DATABASE_URL` and `REDIS_URL`.
    pub binaries: Option<&'a Path>,
    /// The engines' private folder; by default one in the state folder.
    pub data: Option<&'a Path>,
    /// The `[embeddings]` that a fetched model brings; without them the hashing that needs no model.
    pub embeddings: Option<&'a str>,
}

impl Demo {
    /// Writes the settings, and the secrets that are not there yet.
    pub fn prepare(workspace: &Workspace, choices: &Choices) -> Result<Demo> {
        let state = workspace.state_dir();
        // Passable for the engines' user, whose data is further down; nothing in it can be listed.
        make_dir(&state, 0o711)?;
        let secrets = state.join("secrets");
        let log_dir = state.join("log");
        make_dir(&secrets, 0o700)?;
        make_dir(&log_dir, 0o700)?;
        for (_, name) in SECRETS {
            make_secret(&secrets.join(name))?;
        }
        let data = choices.data.map_or_else(|| state.join("data"), Path::to_owned);
        let data = std::path::absolute(&data).with_context(|| format!("{} is not a path", data.display()))?;
        let ports = choices.ports;
        let path = |path: &Path| path.display().to_string();
        let values = [
            ("listen", format!("127.0.0.1:{}", ports.host)),
            ("home_url", format!("http://127.0.0.1:{}/", ports.simulator)),
            ("binaries_dir", choices.binaries.map(path).unwrap_or_default()),
            ("data_dir", path(&data)),
            ("graph_url", format!("http://127.0.0.1:{}", ports.graph)),
            ("app_id", APP_ID.to_owned()),
            ("page_name", PAGE_NAME.to_owned()),
            ("policies_dir", path(&workspace.root.join("policies"))),
            ("page_id", PAGE_ID.to_owned()),
            ("page_token_file", path(&secrets.join("page-token"))),
        ];
        let config = state.join("demo.toml");
        let text = fill(TEMPLATE, &values)? + choices.embeddings.unwrap_or_default();
        fs::write(&config, text).with_context(|| format!("{} could not be written", config.display()))?;
        Ok(Demo { config, log_dir, secrets })
    }

    /// The file that holds a secret.
    pub fn secret(&self, name: &str) -> PathBuf {
        self.secrets.join(name)
    }

    /// Gives a program the paths of the secrets.
    pub fn give_secrets(&self, command: &mut Command) {
        for (variable, name) in SECRETS {
            // The value itself would win over the file.
            command.env_remove(variable.trim_end_matches("_FILE")).env(variable, self.secrets.join(name));
        }
    }
}

/// The demo's knowledge, in the order of the names; paths are relative to the repository, because they name the documents.
pub fn knowledge(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let folder = workspace.root.join("policies/default/demo-knowledge");
    let entries =
        fs::read_dir(&folder).with_context(|| format!("the demo knowledge {} is missing", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    ensure!(!files.is_empty(), "the demo knowledge {} is empty", folder.display());
    Ok(files)
}

/// Puts each value, as a TOML string, in the place of its `{{name}}`.
fn fill(template: &str, values: &[(&str, String)]) -> Result<String> {
    let mut text = String::with_capacity(template.len());
    for line in template.lines() {
        let mut line = line.to_owned();
        if !line.trim_start().starts_with('#') {
            for (name, value) in values {
                // A JSON string is a TOML basic string, escapes included.
                line = line.replace(&format!("{{{{{name}}}}}"), &serde_json::to_string(value)?);
            }
            ensure!(!line.contains("{{"), "the demo's template has a place that nothing fills: {line}");
        }
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(if mode & 0o001 == 0 { mode } else { 0o755 })
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .with_context(|| format!("{} could not be made", path.display()))
}

fn make_secret(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut bytes = [0; SECRET_BYTES];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes)).context("no random numbers")?;
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(hex::encode(bytes).as_bytes())?;
    fs::rename(&fresh, path).with_context(|| format!("{} could not be put in place", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_with_toml_strings() {
        let values = [("a", "x\"y\\z".to_owned()), ("b", "1".to_owned())];
        assert_eq!(
            fill("a = {{a}}\n# {{…}}\nb = {{b}}", &values).unwrap(),
            "a = \"x\\\"y\\\\z\"\n# {{…}}\nb = \"1\"\n"
        );
        assert!(fill("c = {{c}}", &values).is_err());
    }
}

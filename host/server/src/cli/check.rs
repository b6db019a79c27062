//! `frontdesk check`: what a start would stumble over, without starting.

use std::path::Path;

use reqwest::Url;

use super::{Config, Failure, Outcome, say};
use crate::keys::{KEYS_FILE, KeyError, KeyRing};
use crate::knowledge::Extractor;
use crate::secrets::{self, Secrets};
use crate::settings::Settings;

pub fn run(config: &Config) -> Outcome {
    let settings = config.load().map_err(Failure::usage)?;
    let problems = problems(&settings);
    if problems.is_empty() {
        let file = config.path().map_or_else(|| "the defaults".to_owned(), |path| path.display().to_string());
        return say(&format!("ok: settings ({file}) and secrets fit; Pages: {}", settings.pages.len()));
    }
    Err(Failure::Usage(problems.join("\nfrontdesk: ")))
}

fn problems(settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = Secrets::load(settings) {
        problems.push(error.to_string());
    }
    keys(settings, &mut problems);
    engines(settings, &mut problems);
    problems.extend(reader(settings));
    let chains: std::collections::BTreeSet<&str> = settings.pages.iter().map(|page| page.chain.as_str()).collect();
    for chain in chains {
        let path = settings.policies.dir.join(chain).join("chain.toml");
        if !path.is_file() {
            problems.push(format!(
                "the policy chain {chain} is not there: {} is missing; check policies.dir and the Page's chain",
                path.display()
            ));
        }
    }
    let mut addresses = vec![("graph.base_url", &settings.graph.base_url)];
    // Empty: nobody is told about tickets.
    if !settings.tickets.webhook_url.is_empty() {
        addresses.push(("tickets.webhook_url", &settings.tickets.webhook_url));
    }
    for (key, url) in addresses {
        if !Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            problems.push(format!("setting {key} is {url:?}, expected an address that begins with https://"));
        }
    }
    problems
}

/// Keys that are given must be readable; without any, the host must be allowed to make one.
fn keys(settings: &Settings, problems: &mut Vec<String>) {
    let found = match secrets::optional(secrets::KEYS, "lines as `frontdesk keys new` prints them") {
        Ok(Some(given)) => KeyRing::parse(&given).err(),
        Ok(None) if settings.keys.generate || settings.engines.data_dir.join(KEYS_FILE).is_file() => None,
        Ok(None) => Some(KeyError::None),
        // Said already, with the other secrets.
        Err(_) => None,
    };
    problems.extend(found.map(|error| error.to_string()));
}

/// Files that need a parser are read by a process of their own, which must be able to start and to work under its limits.
fn reader(settings: &Settings) -> Option<String> {
    let probe = Extractor::new(settings.extraction.clone());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Some(format!("the runtime cannot be started: {error}")),
    };
    let error = runtime.block_on(probe.probe()).err()?;
    Some(format!("files other than text could not be read here: {error}"))
}

/// Without addresses of one's own, the programs of the embedded engines must be there.
fn engines(settings: &Settings, problems: &mut Vec<String>) {
    let needed: [(&str, &[&str]); 2] = [("DATABASE_URL", &["postgres", "initdb"]), ("REDIS_URL", &["valkey-server"])];
    for (name, programs) in needed {
        match secrets::optional(name, "the address of the server") {
            Ok(Some(_)) => {}
            Ok(None) => missing_programs(&settings.engines.binaries_dir, name, programs, problems),
            Err(error) => problems.push(error.to_string()),
        }
    }
}

fn missing_programs(dir: &Path, name: &str, programs: &[&str], problems: &mut Vec<String>) {
    if dir.as_os_str().is_empty() {
        problems.push(format!(
            "{name} is not set and engines.binaries_dir is empty: set one's own address, or the folder that \
             `cargo xtask fetch` unpacked"
        ));
        return;
    }
    for program in programs {
        let path = dir.join("bin").join(program);
        if !path.is_file() {
            problems.push(format!("{name} is not set, and {} is missing; run `cargo xtask fetch`", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_program_and_chain_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::write(dir.path().join("bin/initdb"), "").unwrap();
        let mut problems = Vec::new();
        missing_programs(dir.path(), "DATABASE_URL", &["postgres", "initdb"], &mut problems);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("bin/postgres"), "{problems:?}");
        missing_programs(Path::new(""), "REDIS_URL", &["valkey-server"], &mut problems);
        assert!(problems[1].contains("engines.binaries_dir is empty"), "{problems:?}");
    }
}

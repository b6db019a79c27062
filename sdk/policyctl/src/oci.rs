//! Components in OCI registries: who we are to them, and what a chain names there.
//!
//! Credentials are taken from `--auth-file`, from the variable FRONTDESK_REGISTRY_AUTH (or the file that
//! FRONTDESK_REGISTRY_AUTH_FILE names), or from docker's own file; without any, registries are asked without.

use std::path::{Path, PathBuf};

use frontdesk_policy_bundle::read_file;
use frontdesk_policy_engine::oci::OCI_SCHEME;
use frontdesk_policy_engine::{Bundle, ChainSpec, OciName, OciReference};
use frontdesk_provenance::credentials::DOCUMENT_BYTES_MAX;
use frontdesk_provenance::{Credentials, Registry, RegistryError, RegistryOptions};

use crate::cli::Failure;

const VARIABLE: &str = "FRONTDESK_REGISTRY_AUTH";

/// How registries are reached.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RegistryArguments {
    /// Credentials as `docker login` writes them. Otherwise FRONTDESK_REGISTRY_AUTH, or ~/.docker/config.json.
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// A registry (host:port) that is reached without TLS; those on this machine need not be named.
    #[arg(long, value_name = "REGISTRY")]
    pub plain_http: Vec<String>,
}

impl RegistryArguments {
    pub fn client(&self) -> Result<Registry, Failure> {
        let options = RegistryOptions {
            plain_http: self.plain_http.clone(),
            credentials: credentials(self.auth_file.as_deref())?,
            ..RegistryOptions::default()
        };
        Registry::new(options).map_err(Failure::unreachable)
    }
}

/// Whether an argument names something in a registry.
pub fn is_oci(text: &str) -> bool {
    text.starts_with(OCI_SCHEME)
}

/// Reads the name of something in a registry.
pub fn name(text: &str) -> Result<OciName, Failure> {
    OciName::parse(text).map_err(|problem| Failure::input(format!("{text}: {problem}")))
}

/// The network's failures are not the arguments' or the component's.
pub fn failure(error: &RegistryError) -> Failure {
    match error {
        RegistryError::Unreachable { .. } | RegistryError::TimedOut { .. } | RegistryError::Client { .. } => {
            Failure::unreachable(error)
        }
        RegistryError::NotFound { .. } | RegistryError::Denied { .. } => Failure::input(error),
        _ => Failure::refused(error),
    }
}

/// Pulls the components that a chain names in registries.
pub fn complete(bundle: &mut Bundle) -> Result<(), Failure> {
    let wanted = ChainSpec::parse(&bundle.chain_toml).map(|spec| spec.wanted_files()).unwrap_or_default();
    let mut missing = wanted.into_iter().map(|file| file.path).filter(|path| is_oci(path)).peekable();
    if missing.peek().is_none() {
        return Ok(());
    }
    let registry = RegistryArguments::default().client()?;
    let missing: Vec<String> = missing.collect();
    // A thread of its own, because the caller may be in a runtime already.
    let pulled = std::thread::scope(|scope| scope.spawn(|| pull_all(&registry, missing)).join());
    let pulled = pulled.map_err(|_| Failure::unreachable("the pull was interrupted"))??;
    bundle.files.extend(pulled);
    Ok(())
}

fn pull_all(registry: &Registry, missing: Vec<String>) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::input(format!("the runtime cannot be started: {error}")))?;
    let pull = |path: String| {
        let reference = OciReference::parse(&path).map_err(|problem| Failure::input(format!("{path}: {problem}")))?;
        let pulled = runtime.block_on(registry.pull(&reference)).map_err(|error| failure(&error))?;
        Ok((path, pulled.component))
    };
    missing.into_iter().map(pull).collect()
}

fn credentials(file: Option<&Path>) -> Result<Credentials, Failure> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let of_docker = || {
        let folder = variable("DOCKER_CONFIG").map(PathBuf::from);
        let folder = folder.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".docker")))?;
        Some(folder.join("config.json")).filter(|path| path.is_file())
    };
    let named = file.map(Path::to_owned).or_else(|| variable(&format!("{VARIABLE}_FILE")).map(PathBuf::from));
    let (place, text) = match (named, variable(VARIABLE)) {
        (None, Some(text)) => (VARIABLE.to_owned(), text.to_string_lossy().into_owned()),
        (named, _) => {
            let Some(path) = named.or_else(of_docker) else { return Ok(Credentials::default()) };
            let bytes = read_file(&path, DOCUMENT_BYTES_MAX).map_err(Failure::input)?;
            let not_text = |_| Failure::input(format!("{} is not UTF-8", path.display()));
            (path.display().to_string(), String::from_utf8(bytes).map_err(not_text)?)
        }
    };
    Credentials::parse(&text).map_err(|error| Failure::input(format!("{place}: {error}")))
}

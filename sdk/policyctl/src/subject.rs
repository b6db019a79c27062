//! What a command is about: a component with its settings, or a whole chain, loaded as the host loads it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use frontdesk_policy_bundle::{BundleError, Read, read_file};
use frontdesk_policy_engine::chain::settings_from_file;
use frontdesk_policy_engine::load::{COMPONENT_BYTES_MAX, SETTINGS_BYTES_MAX};
use frontdesk_policy_engine::{
    ArtifactCache, Bundle, ChainSpec, Engine, EngineOptions, Grants, Hook, Inspection, Limits, LoadError, LoadRequest,
    Policy, Revision, SettingsSource, StageError, StageProblem, cases, sha256_hex,
};

use crate::cli::{Failure, SubjectOptions};
use crate::oci;

/// Most files that are looked at for a digest.
const COMPONENTS_MAX: usize = 1_000;
/// Most compiled components that are kept.
#[cfg(unix)]
const ARTIFACTS_MAX: usize = 128;
/// Calls are made one at a time.
const CONCURRENT_CALLS: u32 = 4;

/// What was loaded.
#[derive(Debug)]
pub enum Subject {
    /// A chain's folder.
    Chain {
        /// Where it is.
        folder: PathBuf,
        /// What the host would serve.
        revision: Box<Revision>,
    },
    /// A component, once for each hook it serves.
    Component {
        /// Where it is.
        file: PathBuf,
        /// Never empty.
        policies: Vec<Policy>,
    },
}

/// An engine like the host's, but for few calls at once.
pub fn engine() -> Result<Engine, Failure> {
    let options = EngineOptions {
        max_concurrent_calls: CONCURRENT_CALLS,
        parallel_compilation: true,
        cache: cache(),
        ..EngineOptions::default()
    };
    Engine::new(options).map_err(Failure::refused)
}

/// What was compiled is kept in the folder `frontdesk/policyctl` in XDG_CACHE_HOME or ~/.cache; without a folder that can be
/// trusted, every command compiles.
#[cfg(unix)]
fn cache() -> Option<Arc<dyn ArtifactCache>> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    let cache = frontdesk_policy_bundle::FolderCache::open(&base.join("frontdesk/policyctl"), ARTIFACTS_MAX).ok()?;
    Some(Arc::new(cache))
}

#[cfg(not(unix))]
fn cache() -> Option<Arc<dyn ArtifactCache>> {
    None
}

impl Subject {
    pub fn open(engine: &Engine, options: &SubjectOptions) -> Result<Self, Failure> {
        if options.subject.is_dir() {
            if options.settings.is_some() {
                return Err(Failure::input(
                    "--settings is for a component; a chain names the settings of its policies in chain.toml",
                ));
            }
            let folder = options.subject.clone();
            return Ok(Self::Chain { revision: Box::new(stage(engine, &folder)?), folder });
        }
        Self::component(engine, &options.subject, options.settings.as_deref())
    }

    fn component(engine: &Engine, file: &Path, settings: Option<&Path>) -> Result<Self, Failure> {
        let (wasm, inspection) = inspect(engine, file)?;
        let document = read_settings(settings)?;
        let hooks = if inspection.hooks.is_empty() { vec![Hook::Classify] } else { inspection.hooks.clone() };
        let grants = Grants { knowledge: inspection.imports.iter().any(|import| import.kind == "grant") };
        let load = |hook: Hook| {
            let request = LoadRequest { hook, wasm: &wasm, settings: &document, limits: Limits::default(), grants };
            engine.load(request).map_err(|error| refusal(file, settings, &error))
        };
        let policies = hooks.into_iter().map(load).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::Component { file: file.to_owned(), policies })
    }

    /// The path that was given.
    pub fn path(&self) -> &Path {
        match self {
            Self::Chain { folder, .. } => folder,
            Self::Component { file, .. } => file,
        }
    }

    /// As cases see it.
    pub fn for_cases(&self) -> cases::Subject<'_> {
        match self {
            Self::Chain { revision, .. } => cases::Subject::Chain(revision),
            Self::Component { policies, .. } => cases::Subject::Component(policies),
        }
    }

    /// What is called when nobody says it.
    pub fn default_call(&self) -> Result<cases::Call, Failure> {
        let problem = |problem| Failure::input(format!("{}: {problem}", self.path().display()));
        self.for_cases().default_call().map_err(problem)
    }

    /// The policies that serve a hook, in order.
    pub fn serving(&self, hook: Hook) -> Vec<&Policy> {
        self.for_cases().serving(hook)
    }

    /// The whole chain, if it is one.
    pub fn revision(&self) -> Option<&Revision> {
        match self {
            Self::Chain { revision, .. } => Some(revision),
            Self::Component { .. } => None,
        }
    }
}

/// Reads a chain's folder. A component that the chain names by its digest is looked for in the folder `components` beside
/// the chain, where the host would ask its store.
pub fn bundle(folder: &Path) -> Result<Bundle, Failure> {
    let Read { mut bundle, missing, known: _ } = frontdesk_policy_bundle::read(folder).map_err(Failure::input)?;
    oci::complete(&mut bundle)?;
    for wanted in missing.into_iter().filter(|wanted| !oci::is_oci(wanted)) {
        let bytes = by_digest(folder, &wanted)?;
        bundle.files.insert(wanted, bytes);
    }
    Ok(bundle)
}

fn by_digest(folder: &Path, wanted: &str) -> Result<Vec<u8>, Failure> {
    let components = folder.join("../components");
    let digest = wanted.trim_start_matches("sha256:");
    let entries = std::fs::read_dir(&components).into_iter().flatten().flatten().take(COMPONENTS_MAX);
    for path in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "wasm")) {
        let bytes = read_file(&path, COMPONENT_BYTES_MAX).map_err(Failure::input)?;
        if sha256_hex(&bytes) == digest {
            return Ok(bytes);
        }
    }
    Err(Failure::input(format!(
        "{} names the component {wanted}, and no .wasm file in {} has that digest",
        folder.join("chain.toml").display(),
        components.display()
    )))
}

/// Reads and stages a chain's folder.
pub fn stage(engine: &Engine, folder: &Path) -> Result<Revision, Failure> {
    stage_bundle(engine, folder, &bundle(folder)?)
}

/// Stages what was read from a folder.
pub fn stage_bundle(engine: &Engine, folder: &Path, bundle: &Bundle) -> Result<Revision, Failure> {
    engine.stage(bundle).map_err(|error| stage_failure(folder, &bundle.chain_toml, &error))
}

/// Reads a component and looks at it without settings.
pub fn inspect(engine: &Engine, file: &Path) -> Result<(Vec<u8>, Inspection), Failure> {
    let wasm = read_component(file)?;
    let inspection = inspect_bytes(engine, file, &wasm)?;
    Ok((wasm, inspection))
}

/// Looks at a component that was read from `file`.
pub fn inspect_bytes(engine: &Engine, file: &Path, wasm: &[u8]) -> Result<Inspection, Failure> {
    engine.inspect(wasm).map_err(|error| refusal(file, None, &error))
}

/// Reads a component.
pub fn read_component(file: &Path) -> Result<Vec<u8>, Failure> {
    read_file(file, COMPONENT_BYTES_MAX).map_err(|error| match error {
        BundleError::Read { path, source } if source.kind() == std::io::ErrorKind::NotFound => Failure::input(format!(
            "{} is not there; give a .wasm file (`policyctl build` makes one) or the folder of a chain.toml",
            path.display()
        )),
        other => Failure::input(other),
    })
}

fn read_settings(path: Option<&Path>) -> Result<serde_json::Value, Failure> {
    let Some(path) = path else { return Ok(serde_json::json!({})) };
    let bytes = read_file(path, SETTINGS_BYTES_MAX).map_err(Failure::input)?;
    settings_from_file(&path.to_string_lossy(), &bytes)
        .map_err(|problem| Failure::input(format!("{}: {problem}", path.display())))
}

/// Mistakes of the settings are the input's, everything else the component's.
fn refusal(file: &Path, settings: Option<&Path>, error: &LoadError) -> Failure {
    match (error, settings) {
        (LoadError::Refused { .. }, Some(settings)) => Failure::input(format!("{}: {error}", settings.display())),
        (LoadError::Refused { .. }, None) => Failure::input(format!(
            "{}: {error}\nGive its settings with --settings FILE; `policyctl inspect` shows what it takes.",
            file.display()
        )),
        (LoadError::Limit(_) | LoadError::NotWasm { .. }, _) => Failure::input(format!("{}: {error}", file.display())),
        _ => Failure::refused(format!("{}: {error}", file.display())),
    }
}

fn stage_failure(folder: &Path, chain_toml: &str, error: &StageError) -> Failure {
    let chain = folder.join("chain.toml");
    let StageError::Policy { number, problem, .. } = error else {
        return Failure::input(format!("{}: {error}", chain.display()));
    };
    let message = format!("{}: {error}", chain.display());
    match &**problem {
        StageProblem::Load(LoadError::Refused { .. }) => {
            let settings = ChainSpec::parse(chain_toml).ok().and_then(|spec| {
                let policy = spec.policies.into_iter().find(|policy| policy.number == *number)?;
                match policy.settings {
                    SettingsSource::File(path) => Some(folder.join(path).display().to_string()),
                    SettingsSource::Inline(_) => Some(format!("{}, [policy.settings]", chain.display())),
                    SettingsSource::Empty => None,
                }
            });
            let place = settings.map(|place| format!("\nThe settings are in {place}.")).unwrap_or_default();
            Failure::input(format!("{message}{place}"))
        }
        StageProblem::Load(LoadError::Limit(_))
        | StageProblem::MissingFile { .. }
        | StageProblem::Digest { .. }
        | StageProblem::Settings { .. } => Failure::input(message),
        StageProblem::Load(_) => Failure::refused(message),
    }
}

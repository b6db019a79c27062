//! Components from registries, and the signatures that the host demands.
//!
//! A chain's folder is read first; this module adds what no file holds, and says whether it may be used:
//!
//! ```text
//! folder ─> complete: pull what the chain names in a registry ─> check: trusted signatures ─> stage ─> keep
//! stored revision ─> recall: the signatures that were kept ─────────^
//! ```
//! What was pulled once is stored under its manifest's digest and never asked for again, so a registry that is down stops
//! neither serving nor starting. A registry that failed is asked again only after a while, so that one that hangs does not
//! hold up the other chains at every poll. All of it runs in the reconciler, off the reply path.
//!
//! Signatures are stored with their component and verified each time, with the keys of the moment: a key that is taken
//! out of the settings takes its components with it at the next start.

pub mod settings;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use frontdesk_policy_engine::oci::OCI_SCHEME;
use frontdesk_policy_engine::{Bundle, ChainSpec, FileKind, OciReference, sha256_hex};
use frontdesk_provenance::credentials::CredentialsError;
use frontdesk_provenance::{
    Credentials, Evidence, Registry, RegistryError, RegistryOptions, TrustPolicy, Untrusted, evidence,
};
use secrecy::ExposeSecret;
use sqlx::PgPool;

use crate::db::provenance::{self as db, Artifact};
use crate::secrets::{self, SecretError};
use settings::{RegistrySettings, TrustError, TrustSettings};

/// Most questions to registries that are remembered.
const ASKED_MAX: usize = 256;

/// Why a component cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ProvenanceError {
    #[error("component {component}: {reason}")]
    Reference { component: String, reason: String },
    #[error(
        "component {component} lies in registry {registry}, and policies.registries.allowed has {allowed}: add it there, or \
         push the component elsewhere"
    )]
    NotAllowed { component: String, registry: String, allowed: String },
    #[error("component {component} cannot be pulled: {source}")]
    Pull {
        component: String,
        #[source]
        source: RegistryError,
    },
    #[error("the signatures of component {component} cannot be looked for: {source}")]
    Signatures {
        component: String,
        #[source]
        source: RegistryError,
    },
    /// The registry failed a moment ago, and is left alone for a while.
    #[error("{reason}")]
    Failed { reason: String },
    #[error("{source}")]
    Untrusted {
        #[from]
        source: Untrusted,
    },
    #[error("the database does not give or take components: {source}")]
    Store {
        #[from]
        source: sqlx::Error,
    },
    #[error("the signatures cannot be written: {source}")]
    Evidence {
        #[from]
        source: serde_json::Error,
    },
    #[error("{source}")]
    Trust {
        #[from]
        source: TrustError,
    },
    #[error("{source}")]
    Secret {
        #[from]
        source: SecretError,
    },
    #[error("policies.registries.auth_file or FRONTDESK_REGISTRY_AUTH: {source}")]
    Credentials {
        #[from]
        source: CredentialsError,
    },
    #[error("{source}")]
    Registry {
        #[from]
        source: RegistryError,
    },
}

impl ProvenanceError {
    /// Whether trying again without a change may succeed.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Store { .. } | Self::Pull { .. } | Self::Signatures { .. } | Self::Failed { .. })
    }
}

/// Pulls and vouches. One per process.
pub struct Provenance {
    pool: PgPool,
    registry: Registry,
    allowed: Vec<String>,
    retry: Duration,
    trust: TrustPolicy,
    /// What registries were asked for of late; with the reason when they failed.
    asked: Mutex<BTreeMap<String, (Instant, Option<String>)>>,
}

impl std::fmt::Debug for Provenance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provenance").field("allowed", &self.allowed).field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Provenance {
    /// Nothing is sent yet.
    pub fn build(pool: PgPool, registries: &RegistrySettings, trust: &TrustSettings) -> Result<Self, ProvenanceError> {
        let options = RegistryOptions {
            timeout_ms: registries.timeout_ms,
            plain_http: registries.plain_http.clone(),
            credentials: credentials(registries)?,
        };
        Ok(Self {
            pool,
            registry: Registry::new(options)?,
            allowed: registries.allowed.clone(),
            retry: Duration::from_millis(registries.retry_ms),
            trust: trust.policy()?,
            asked: Mutex::default(),
        })
    }

    /// Adds the components that a chain names in registries, and the signatures that are stored.
    pub async fn complete(&self, chain: &str, bundle: &mut Bundle) -> Result<(), ProvenanceError> {
        for component in components_of(bundle) {
            if !component.starts_with(OCI_SCHEME) {
                continue;
            }
            // Bytes that somebody gave with the chain are none of the registry's: its manifest says which they are.
            let reference = OciReference::parse(&component)
                .map_err(|reason| ProvenanceError::Reference { component: component.clone(), reason })?;
            // Of what was pulled before, too: a registry that is taken out of the settings is out for whatever comes anew.
            self.allow(&component, &reference)?;
            let artifact = self.pulled(&component, &reference).await?;
            self.find_signatures(chain, &component, &reference, &artifact).await?;
            bundle.files.insert(component, artifact.wasm);
        }
        self.recall(bundle).await
    }

    /// Adds the signatures that were stored with the bundle's components, where a file does not bring its own.
    pub async fn recall(&self, bundle: &mut Bundle) -> Result<(), ProvenanceError> {
        for component in components_of(bundle) {
            let key = format!("{component}{}", evidence::SUFFIX);
            let Some(wasm) = bundle.files.get(&component) else { continue };
            if bundle.files.contains_key(&key) {
                continue;
            }
            if let Some(found) = db::signatures(&self.pool, &sha256_hex(wasm)).await? {
                bundle.files.insert(key, found);
            }
        }
        Ok(())
    }

    /// Whether a chain may use the components of a bundle.
    pub fn check(&self, chain: &str, bundle: &Bundle) -> Result<(), ProvenanceError> {
        Ok(self.trust.check_bundle(chain, bundle)?)
    }

    /// Stores the signatures that a bundle brought, for components that are stored.
    pub async fn keep(&self, bundle: &Bundle) -> Result<(), ProvenanceError> {
        for component in components_of(bundle) {
            let brought = bundle.files.get(&format!("{component}{}", evidence::SUFFIX));
            let (Some(wasm), Some(Ok(brought))) = (bundle.files.get(&component), brought.map(|it| Evidence::parse(it)))
            else {
                continue;
            };
            self.merge(&sha256_hex(wasm), wasm, brought).await?;
        }
        Ok(())
    }

    fn allow(&self, component: &str, reference: &OciReference) -> Result<(), ProvenanceError> {
        let registry = reference.registry();
        if self.allowed.is_empty() || self.allowed.iter().any(|name| name == registry) {
            return Ok(());
        }
        Err(ProvenanceError::NotAllowed {
            component: component.to_owned(),
            registry: registry.to_owned(),
            allowed: self.allowed.join(", "),
        })
    }

    /// The component of a reference: from the database, or pulled and put there.
    async fn pulled(&self, component: &str, reference: &OciReference) -> Result<Artifact, ProvenanceError> {
        if let Some(known) = db::artifact(&self.pool, reference.digest()).await? {
            return Ok(known);
        }
        let started = Instant::now();
        self.asked_of_late(component)?;
        let pulled = self.registry.pull(reference).await;
        let pulled = pulled.map_err(|source| ProvenanceError::Pull { component: component.to_owned(), source });
        self.note(component, &pulled);
        let pulled = pulled?;
        let artifact = Artifact {
            component_digest: sha256_hex(&pulled.component),
            manifest: pulled.manifest,
            wasm: pulled.component,
        };
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        db::keep_artifact(&self.pool, reference.digest(), &repository, &artifact).await?;
        let (bytes, pull_ms) = (artifact.wasm.len(), started.elapsed().as_millis());
        tracing::info!(
            component,
            component_sha256 = artifact.component_digest,
            bytes,
            pull_ms,
            "a component was pulled"
        );
        Ok(artifact)
    }

    /// Looks for signatures in the registry when those that are stored do not do.
    async fn find_signatures(
        &self,
        chain: &str,
        component: &str,
        reference: &OciReference,
        artifact: &Artifact,
    ) -> Result<(), ProvenanceError> {
        let known = db::signatures(&self.pool, &artifact.component_digest).await?;
        if self.trust.check(chain, component, &artifact.wasm, known.as_deref()).is_ok() {
            return Ok(());
        }
        let asked = format!("{component}{}", evidence::SUFFIX);
        if self.asked_of_late(&asked)? {
            return Ok(());
        }
        let found = self.registry.signatures(reference, &artifact.manifest).await;
        let found = found.map_err(|source| ProvenanceError::Signatures { component: component.to_owned(), source });
        self.note(&asked, &found);
        let found = found?;
        if found.skipped > 0 {
            tracing::warn!(
                component,
                skipped = found.skipped,
                "layers beside the signatures cannot be read as signatures"
            );
        }
        self.merge(&artifact.component_digest, &artifact.wasm, Evidence::of_registry(found.evidence)).await
    }

    async fn merge(&self, component_digest: &str, wasm: &[u8], newer: Evidence) -> Result<(), ProvenanceError> {
        let mut tx = self.pool.begin().await?;
        let known = db::signatures_locked(&mut tx, component_digest).await?;
        let older = known.and_then(|known| Evidence::parse(&known).ok()).unwrap_or_default();
        let merged = self.trust.merged(wasm, older.clone(), newer);
        if merged != older {
            db::set_signatures(&mut tx, component_digest, &merged.to_bytes()?).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Whether this was asked for a moment ago and answered; a failure is given again, in the same words.
    fn asked_of_late(&self, what: &str) -> Result<bool, ProvenanceError> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match asked.get(what).filter(|(at, _)| at.elapsed() < self.retry) {
            Some((_, Some(reason))) => Err(ProvenanceError::Failed { reason: reason.clone() }),
            Some((_, None)) => Ok(true),
            None => Ok(false),
        }
    }

    fn note<T>(&self, what: &str, answer: &Result<T, ProvenanceError>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= ASKED_MAX {
            asked.clear();
        }
        asked.insert(what.to_owned(), (Instant::now(), answer.as_ref().err().map(ToString::to_string)));
    }
}

/// The keys of a bundle's components; of a chain that cannot be read, none: staging says what is wrong with it.
fn components_of(bundle: &Bundle) -> Vec<String> {
    let wanted = ChainSpec::parse(&bundle.chain_toml).map(|spec| spec.wanted_files()).unwrap_or_default();
    wanted.into_iter().filter(|file| file.kind == FileKind::Component).map(|file| file.path).collect()
}

fn credentials(settings: &RegistrySettings) -> Result<Credentials, ProvenanceError> {
    const PURPOSE: &str = "a docker config with the registries' credentials";
    let text = match &settings.auth_file {
        Some(path) if !path.as_os_str().is_empty() => {
            Some(secrets::read_file("policies.registries.auth", path, PURPOSE)?)
        }
        _ => secrets::optional("FRONTDESK_REGISTRY_AUTH", PURPOSE)?,
    };
    Ok(match text {
        Some(text) => Credentials::parse(text.expose_secret())?,
        None => Credentials::default(),
    })
}

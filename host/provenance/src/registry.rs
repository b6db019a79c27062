//! Requests to OCI registries (distribution specification 1.1): pull by digest, find signatures, push.
//!
//! # Bounds
//! One operation has one deadline for everything it asks, token and redirects included. Every body is read up to a limit:
//! a manifest to [`MANIFEST_BYTES_MAX`], a component to the size its manifest says and never beyond what the engine takes,
//! anything else to a few KiB. What was read counts only when its SHA-256 is the one that was asked for.
//!
//! # Who learns our credentials
//! The registry they are for, and the token service that it names. Both must be reached over TLS, unless the registry is on
//! this machine (a loopback address) or listed as plain HTTP. A redirect to another host (registries send downloads to an
//! object store) takes no credentials with it and never leads from TLS to plain HTTP; what that host asks for, a login or
//! an upload, it does not get. A token service's redirect is not followed.

mod session;

use std::time::Duration;

use frontdesk_policy_engine::load::COMPONENT_BYTES_MAX;
use frontdesk_policy_engine::{OciName, OciReference, sha256_hex};
use reqwest::{Method, StatusCode};

use crate::artifact::{self, Artifact, Descriptor, MANIFEST, MANIFEST_BYTES_MAX, Manifest};
use crate::credentials::Credentials;
use crate::evidence::{ManifestSignature, RegistryEvidence, SIGNATURES_MAX};
use session::{Clients, Session};

/// Media type of a signature's payload.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Media type of the config beside signatures.
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Where the signature of a layer's payload stands.
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Most layers beside a component that are looked at for signatures.
const LAYERS_MAX: usize = 4 * SIGNATURES_MAX;
/// Largest payload of a signature, in bytes.
const PAYLOAD_BYTES_MAX: u64 = 64 << 10;
/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most redirects of one request.
const REDIRECTS_MAX: usize = 5;

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Time of one operation in milliseconds.
    pub timeout_ms: u64,
    /// Registries, beside those on loopback, that are reached without TLS.
    pub plain_http: Vec<String>,
    /// Who we are to them.
    pub credentials: Credentials,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self { timeout_ms: 60_000, plain_http: Vec::new(), credentials: Credentials::default() }
    }
}

/// Why a registry did not give what was asked for. No text holds credentials.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No HTTP client; not expected.
    #[error("the HTTP client cannot be built")]
    Client {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// No answer, or a broken one.
    #[error("registry {registry} cannot be reached for {what}: {reason}")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// What the network said.
        reason: String,
    },
    /// Too slow.
    #[error(
        "registry {registry} did not finish {what} within {timeout_ms} ms (setting policies.registries.timeout_ms)"
    )]
    TimedOut {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// The limit.
        timeout_ms: u64,
    },
    /// Not there.
    #[error("registry {registry} has no {what}")]
    NotFound {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// Not for us.
    #[error("registry {registry} does not give {what} ({status}): {hint}")]
    Denied {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// 401 or 403.
        status: u16,
        /// What to do.
        hint: String,
    },
    /// Another answer than a good one.
    #[error("registry {registry} answered {what} with {status}: {said}")]
    Status {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
        /// The first of its errors.
        said: String,
    },
    /// More bytes than are taken.
    #[error("registry {registry}: {what} has more than {most} bytes, which is the most that is taken")]
    TooLarge {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// The limit.
        most: u64,
    },
    /// Other bytes than were asked for.
    #[error("registry {registry} gave other bytes for {what}: sha256:{found}, and sha256:{expected} was asked for")]
    Digest {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// The digest of what came.
        found: String,
        /// The digest that was asked for.
        expected: String,
    },
    /// Not a component.
    #[error("{name} is no component: {problem}")]
    Layout {
        /// What was asked for.
        name: String,
        /// What is not as the layout wants it.
        problem: String,
    },
    /// An answer that breaks the protocol.
    #[error("registry {registry} answered {what} against the protocol: {problem}")]
    Protocol {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// What is wrong.
        problem: String,
    },
}

/// A component that was pulled, with what it takes to check that it is the one.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The component's bytes.
    pub component: Vec<u8>,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
}

/// The signatures that a registry has of a manifest.
#[derive(Clone, Debug)]
pub struct FoundSignatures {
    /// Those that can be read; whose they are is not asked here.
    pub evidence: RegistryEvidence,
    /// How many layers beside them could not be read, or were too many.
    pub skipped: usize,
}

/// Talks to registries. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    clients: Clients,
    options: RegistryOptions,
}

impl Registry {
    /// Makes a client; nothing is sent.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let client = |redirect| {
            let built = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(redirect).build();
            built.map_err(|source| RegistryError::Client { source })
        };
        let to_blobs = reqwest::redirect::Policy::custom(|attempt| {
            let from_tls = attempt.previous().last().is_some_and(|from| from.scheme() == "https");
            if attempt.previous().len() > REDIRECTS_MAX {
                attempt.error("too many redirects")
            } else if from_tls && attempt.url().scheme() != "https" {
                attempt.error("a redirect from TLS to plain HTTP")
            } else {
                attempt.follow()
            }
        });
        let clients = Clients { registry: client(to_blobs)?, tokens: client(reqwest::redirect::Policy::none())? };
        Ok(Self { clients, options })
    }

    /// Pulls a component.
    ///
    /// # Errors
    /// Not there, not for us, too large, too slow, other bytes, another kind of artefact.
    pub async fn pull(&self, reference: &OciReference) -> Result<Pulled, RegistryError> {
        let session = self.session(&reference.name(), false);
        let what = format!("{}@sha256:{}", reference.repository(), reference.digest());
        self.bounded(&session, &what, async {
            let manifest = session.manifest(&format!("sha256:{}", reference.digest())).await?;
            session.same(&what, &manifest, reference.digest())?;
            let layer = artifact::component_layer(&manifest)
                .map_err(|problem| RegistryError::Layout { name: reference.to_string(), problem })?;
            let component = session.blob(&layer, COMPONENT_BYTES_MAX as u64).await?;
            Ok(Pulled { component, manifest })
        })
        .await
    }

    /// The digest of the manifest that a name means now.
    ///
    /// # Errors
    /// Like [`Registry::pull`].
    pub async fn resolve(&self, name: &OciName) -> Result<OciReference, RegistryError> {
        let session = self.session(name, false);
        let place = match (&name.digest, &name.tag) {
            (Some(digest), _) => format!("sha256:{digest}"),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        };
        let what = format!("{}:{place}", name.repository);
        let manifest = self.bounded(&session, &what, session.manifest(&place)).await?;
        let digest = sha256_hex(&manifest);
        name.pinned(&digest).ok_or_else(|| session.protocol(&what, "its manifest has no digest"))
    }

    /// The signatures over a manifest: those under the tag that cosign uses. None at all is no error, and one that is broken
    /// does not hide the others.
    ///
    /// # Errors
    /// Like [`Registry::pull`].
    pub async fn signatures(
        &self,
        reference: &OciReference,
        manifest: &[u8],
    ) -> Result<FoundSignatures, RegistryError> {
        let session = self.session(&reference.name(), false);
        let what = format!("the signatures of {}@sha256:{}", reference.repository(), reference.digest());
        let found = self.bounded(&session, &what, find_signatures(&session, reference.digest())).await?;
        let evidence = RegistryEvidence {
            repository: format!("{}/{}", reference.registry(), reference.repository()),
            manifest: manifest.to_vec(),
            signatures: found.signatures.into_iter().map(|(signature, _)| signature).collect(),
        };
        Ok(FoundSignatures { evidence, skipped: found.others.len() })
    }

    /// Pushes a component; the tag of `name`, when it has one, is moved to it. Gives the pinned reference.
    ///
    /// # Errors
    /// Not for us, too slow, or what the registry says.
    pub async fn push(
        &self,
        name: &OciName,
        component: &[u8],
        artifact: &Artifact,
    ) -> Result<OciReference, RegistryError> {
        let session = self.session(name, true);
        let what = format!("the push to {}", name.repository);
        let digest = sha256_hex(&artifact.manifest);
        self.bounded(&session, &what, async {
            session.push_blob(component).await?;
            session.push_blob(&artifact.config).await?;
            session.push_manifest(&format!("sha256:{digest}"), &artifact.manifest).await?;
            match &name.tag {
                Some(tag) => session.push_manifest(tag, &artifact.manifest).await,
                None => Ok(()),
            }
        })
        .await?;
        name.pinned(&digest).ok_or_else(|| session.protocol(&what, "the manifest has no digest"))
    }

    /// Adds a signature to those that a manifest has. A signature that is there already is not added again.
    ///
    /// # Errors
    /// Like [`Registry::push`].
    pub async fn push_signature(
        &self,
        reference: &OciReference,
        signature: &ManifestSignature,
    ) -> Result<(), RegistryError> {
        let session = self.session(&reference.name(), true);
        let what = format!("the signature of {}@sha256:{}", reference.repository(), reference.digest());
        self.bounded(&session, &what, async {
            let found = find_signatures(&session, reference.digest()).await?;
            if found.signatures.iter().any(|(known, _)| known == signature) {
                return Ok(());
            }
            if found.signatures.len() >= SIGNATURES_MAX {
                let problem = format!("there are {SIGNATURES_MAX} signatures already, and no more are read");
                return Err(session.protocol(&what, &problem));
            }
            // What is not understood may be somebody's, and stays.
            let known = found.signatures.into_iter().map(|(_, layer)| layer);
            let mut layers: Vec<Descriptor> = known.chain(found.others).collect();
            let mut layer = Descriptor::of(SIMPLE_SIGNING, &signature.payload);
            let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &signature.signature);
            layer.annotations.insert(SIGNATURE_ANNOTATION.to_owned(), text.into());
            layers.push(layer);
            session.push_blob(&signature.payload).await?;
            let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
            let config = serde_json::json!({
                "architecture": "", "os": "", "config": {}, "rootfs": { "type": "layers", "diff_ids": digests }
            })
            .to_string();
            session.push_blob(config.as_bytes()).await?;
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(MANIFEST.to_owned()),
                config: Descriptor::of(IMAGE_CONFIG, config.as_bytes()),
                layers,
                annotations: serde_json::Map::new(),
            };
            let manifest = serde_json::to_vec(&manifest)
                .map_err(|error| session.protocol(&what, &format!("no manifest: {error}")))?;
            session.push_manifest(&signature_tag(reference.digest()), &manifest).await
        })
        .await
    }

    fn session(&self, name: &OciName, push: bool) -> Session<'_> {
        Session::new(&self.clients, &self.options, name, push)
    }

    async fn bounded<T>(
        &self,
        session: &Session<'_>,
        what: &str,
        work: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let timeout_ms = self.options.timeout_ms;
        let timed_out =
            |_| RegistryError::TimedOut { registry: session.registry().to_owned(), what: what.to_owned(), timeout_ms };
        tokio::time::timeout(Duration::from_millis(timeout_ms), work).await.map_err(timed_out)?
    }
}

/// The tag under which the signatures of a manifest lie.
fn signature_tag(digest: &str) -> String {
    format!("sha256-{digest}.sig")
}

/// What lies under the tag of a manifest's signatures.
#[derive(Default)]
struct SignatureLayers {
    /// Signatures, each with the layer that holds its payload.
    signatures: Vec<(ManifestSignature, Descriptor)>,
    /// Layers that hold none, or none that can be read, or that are too many.
    others: Vec<Descriptor>,
}

async fn find_signatures(session: &Session<'_>, digest: &str) -> Result<SignatureLayers, RegistryError> {
    let tag = signature_tag(digest);
    let manifest = match session.manifest(&tag).await {
        Err(RegistryError::NotFound { .. }) => return Ok(SignatureLayers::default()),
        found => found?,
    };
    let manifest: Manifest =
        serde_json::from_slice(&manifest).map_err(|error| session.protocol(&tag, &error.to_string()))?;
    let mut found = SignatureLayers::default();
    for (index, layer) in manifest.layers.into_iter().enumerate() {
        let is_looked_at = index < LAYERS_MAX && found.signatures.len() < SIGNATURES_MAX;
        let signature = if is_looked_at { session.signature(&layer).await? } else { None };
        match signature {
            Some(signature) => found.signatures.push((signature, layer)),
            None => found.others.push(layer),
        }
    }
    Ok(found)
}

impl Session<'_> {
    /// The bytes of a manifest, by tag or `sha256:` digest.
    async fn manifest(&self, place: &str) -> Result<Vec<u8>, RegistryError> {
        let what = format!("manifest {}:{place}", self.repository());
        let request = self.request(Method::GET, &format!("manifests/{place}"))?.header("accept", MANIFEST);
        let response = self.send(&what, request).await?;
        self.body(&what, response, MANIFEST_BYTES_MAX as u64).await
    }

    /// The bytes of a blob, when they are as its descriptor says.
    async fn blob(&self, layer: &Descriptor, most: u64) -> Result<Vec<u8>, RegistryError> {
        let what = format!("blob {}", layer.digest);
        let digest = artifact::digest_of(layer).ok_or_else(|| self.protocol(&what, "its digest is no SHA-256"))?;
        if layer.size > most {
            return Err(RegistryError::TooLarge { registry: self.registry().to_owned(), what, most });
        }
        let request = self.request(Method::GET, &format!("blobs/{}", layer.digest))?;
        let response = self.send(&what, request).await?;
        let bytes = self.body(&what, response, layer.size).await?;
        self.same(&what, &bytes, digest)?;
        Ok(bytes)
    }

    /// The signature in a layer; `None` when the layer holds none that can be read. What is the network's failure is an
    /// error: the signature may be there the next time.
    async fn signature(&self, layer: &Descriptor) -> Result<Option<ManifestSignature>, RegistryError> {
        if layer.media_type != SIMPLE_SIGNING {
            return Ok(None);
        }
        let text = layer.annotations.get(SIGNATURE_ANNOTATION).and_then(serde_json::Value::as_str);
        let decode = |text: &str| base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).ok();
        let Some(signature) = text.and_then(decode) else { return Ok(None) };
        match self.blob(layer, PAYLOAD_BYTES_MAX).await {
            Ok(payload) => Ok(Some(ManifestSignature { payload, signature })),
            Err(
                RegistryError::NotFound { .. }
                | RegistryError::TooLarge { .. }
                | RegistryError::Digest { .. }
                | RegistryError::Protocol { .. },
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn same(&self, what: &str, bytes: &[u8], expected: &str) -> Result<(), RegistryError> {
        let found = sha256_hex(bytes);
        if found == expected {
            return Ok(());
        }
        let (registry, what) = (self.registry().to_owned(), what.to_owned());
        Err(RegistryError::Digest { registry, what, found, expected: expected.to_owned() })
    }

    async fn push_blob(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        let digest = format!("sha256:{}", sha256_hex(bytes));
        let what = format!("blob {digest}");
        let there = self.send(&what, self.request(Method::HEAD, &format!("blobs/{digest}"))?).await;
        match there {
            Ok(_) => return Ok(()),
            Err(RegistryError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let begun = self.send(&what, self.request(Method::POST, "blobs/uploads/")?).await?;
        let place = self.location(&what, &begun)?;
        let request = self
            .request_to(Method::PUT, place)
            .query(&[("digest", digest.as_str())])
            .header("content-type", "application/octet-stream")
            .body(bytes.to_vec());
        let done = self.send(&what, request).await?;
        if done.status() == StatusCode::CREATED {
            return Ok(());
        }
        Err(self.protocol(&what, &format!("the upload ended with {}, 201 is expected", done.status().as_u16())))
    }

    async fn push_manifest(&self, place: &str, manifest: &[u8]) -> Result<(), RegistryError> {
        let what = format!("manifest {}:{place}", self.repository());
        let request = self
            .request(Method::PUT, &format!("manifests/{place}"))?
            .header("content-type", MANIFEST)
            .body(manifest.to_vec());
        self.send(&what, request).await.map(drop)
    }
}

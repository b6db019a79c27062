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
//! object store) takes no credentials with it and never leads from TLS to plain HTTP.

mod session;

use std::time::Duration;

use frontdesk_policy_engine::load::COMPONENT_BYTES_MAX;
use frontdesk_policy_engine::{OciName, OciReference, sha256_hex};
use reqwest::{Method, StatusCode};

use crate::artifact::{self, Artifact, Descriptor, MANIFEST, MANIFEST_BYTES_MAX, Manifest};
use crate::credentials::Credentials;
use crate::evidence::{ManifestSignature, RegistryEvidence, SIGNATURES_MAX};
use session::Session;

/// Media type of a signature's payload.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Media type of the config beside signatures.
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Where the signature of a layer's payload stands.
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
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

/// Talks to registries. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    http: reqwest::Client,
    options: RegistryOptions,
}

impl Registry {
    /// Makes a client; nothing is sent.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::custom(|attempt| {
                let from_tls = attempt.previous().last().is_some_and(|from| from.scheme() == "https");
                if attempt.previous().len() > REDIRECTS_MAX {
                    attempt.error("too many redirects")
                } else if from_tls && attempt.url().scheme() != "https" {
                    attempt.error("a redirect from TLS to plain HTTP")
                } else {
                    attempt.follow()
                }
            }))
            .build()
            .map_err(|source| RegistryError::Client { source })?;
        Ok(Self { http, options })
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

    /// The signatures over a manifest: those under the tag that cosign uses. None at all is no error.
    ///
    /// # Errors
    /// Like [`Registry::pull`].
    pub async fn signatures(
        &self,
        reference: &OciReference,
        manifest: &[u8],
    ) -> Result<RegistryEvidence, RegistryError> {
        let session = self.session(&reference.name(), false);
        let what = format!("the signatures of {}@sha256:{}", reference.repository(), reference.digest());
        let signatures = self.bounded(&session, &what, find_signatures(&session, reference.digest())).await?;
        Ok(RegistryEvidence {
            repository: format!("{}/{}", reference.registry(), reference.repository()),
            manifest: manifest.to_vec(),
            signatures: signatures.into_iter().map(|(found, _)| found).collect(),
        })
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
            let mut layers = Vec::new();
            for (found, layer) in find_signatures(&session, reference.digest()).await? {
                if found == *signature {
                    return Ok(());
                }
                layers.push(layer);
            }
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
        Session::new(&self.http, &self.options, name, push)
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

/// The signatures of a manifest, each with the layer that holds its payload.
async fn find_signatures(
    session: &Session<'_>,
    digest: &str,
) -> Result<Vec<(ManifestSignature, Descriptor)>, RegistryError> {
    let tag = signature_tag(digest);
    let manifest = match session.manifest(&tag).await {
        Err(RegistryError::NotFound { .. }) => return Ok(Vec::new()),
        found => found?,
    };
    let problem = |problem: String| session.protocol(&tag, &problem);
    let manifest: Manifest = serde_json::from_slice(&manifest).map_err(|error| problem(error.to_string()))?;
    let mut signatures = Vec::new();
    for layer in manifest.layers.into_iter().filter(|layer| layer.media_type == SIMPLE_SIGNING) {
        if signatures.len() == SIGNATURES_MAX {
            return Err(problem(format!("more than {SIGNATURES_MAX} signatures")));
        }
        let text = layer.annotations.get(SIGNATURE_ANNOTATION).and_then(serde_json::Value::as_str);
        let signature = text
            .and_then(|text| base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).ok())
            .ok_or_else(|| problem(format!("a layer without the annotation {SIGNATURE_ANNOTATION}")))?;
        let payload = session.blob(&layer, PAYLOAD_BYTES_MAX).await?;
        signatures.push((ManifestSignature { payload, signature }, layer));
    }
    Ok(signatures)
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

//! Keys, signatures, and the payload that is signed.
//!
//! Two kinds of key: ECDSA on P-256 with SHA-256 (what cosign makes) and Ed25519. Public keys are PEM
//! `SubjectPublicKeyInfo` (RFC 5280), private keys PEM PKCS #8 without a password; `openssl` and `cosign
//! import-key-pair` read both. An ECDSA signature is the DER form of X9.62, an Ed25519 one its 64 bytes (RFC 8032).
//!
//! For a component in a registry the *payload* is signed: Red Hat's "simple signing" document, which names the digest of the
//! manifest. For a component in a file its bytes are signed, as `cosign sign-blob` does.

use std::sync::Arc;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    ParsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use frontdesk_policy_engine::sha256_hex;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// Longest PEM text of a key, in bytes.
pub const KEY_BYTES_MAX: usize = 16 << 10;
/// What the payload of a signature says it is.
const PAYLOAD_TYPE: &str = "cosign container image signature";

/// The kinds of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256,
    /// Ed25519.
    Ed25519,
}

impl Algorithm {
    /// The name for people and arguments.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// Why a key cannot be used. No text holds a part of the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a PEM public key.
    #[error("this is no public key: a PEM text that begins with -----BEGIN PUBLIC KEY----- is expected")]
    NotPublic,
    /// Not a PEM private key.
    #[error(
        "this is no private key that can be used: a PEM text that begins with -----BEGIN PRIVATE KEY----- (PKCS #8, \
         without a password) is expected; `policyctl keygen` makes one"
    )]
    NotPrivate,
    /// Another kind of key.
    #[error("this key is neither ECDSA on P-256 nor Ed25519")]
    OtherAlgorithm,
    /// The cryptography failed; not expected.
    #[error("the key could not be {what}")]
    Failed {
        /// What was tried.
        what: &'static str,
    },
}

/// A key that verifies.
#[derive(Clone)]
pub struct PublicKey {
    key: Arc<ParsedPublicKey>,
    algorithm: Algorithm,
    der: Vec<u8>,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({} {})", self.algorithm.as_str(), self.fingerprint())
    }
}

impl PublicKey {
    /// Reads a PEM text.
    ///
    /// # Errors
    /// What it is not.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        if text.len() > KEY_BYTES_MAX {
            return Err(KeyError::NotPublic);
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::NotPublic)?;
        Self::from_der(&der)
    }

    fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let der_key = |key, algorithm| Self { key: Arc::new(key), algorithm, der: der.to_vec() };
        if let Ok(key) = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, der) {
            return Ok(der_key(key, Algorithm::EcdsaP256));
        }
        let key = ParsedPublicKey::new(&ED25519, der).map_err(|_| KeyError::OtherAlgorithm)?;
        Ok(der_key(key, Algorithm::Ed25519))
    }

    /// The PEM text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &self.der)
    }

    /// The kind of key.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The first 16 hexadecimal digits of the SHA-256 of the key's DER form: enough to tell keys apart.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        sha256_hex(&self.der).chars().take(16).collect()
    }

    /// Whether `signature` is this key's over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

/// A key that signs.
pub struct PrivateKey(Pair);

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl PrivateKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// The machine's random numbers failed.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Failed { what: "made" };
        Ok(Self(match algorithm {
            Algorithm::EcdsaP256 => {
                Pair::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?)
            }
            Algorithm::Ed25519 => Pair::Ed25519(Ed25519KeyPair::generate().map_err(failed)?),
        }))
    }

    /// Reads a PEM text.
    ///
    /// # Errors
    /// What it is not.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        if text.len() > KEY_BYTES_MAX {
            return Err(KeyError::NotPrivate);
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::NotPrivate)?;
        let der = der.secret_pkcs8_der();
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der) {
            return Ok(Self(Pair::Ecdsa(pair)));
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::OtherAlgorithm)?;
        Ok(Self(Pair::Ed25519(pair)))
    }

    /// The PEM text, for a file that nobody else may read.
    ///
    /// # Errors
    /// The key cannot be written; not expected.
    pub fn to_pem(&self) -> Result<SecretString, KeyError> {
        let failed = |_| KeyError::Failed { what: "written" };
        let der = match &self.0 {
            Pair::Ecdsa(pair) => pair.to_pkcs8v1().map_err(failed)?,
            Pair::Ed25519(pair) => pair.to_pkcs8v1().map_err(failed)?,
        };
        Ok(SecretString::from(pem("PRIVATE KEY", der.as_ref())))
    }

    /// The key that verifies what this one signs.
    ///
    /// # Errors
    /// The key cannot be written; not expected.
    pub fn public_key(&self) -> Result<PublicKey, KeyError> {
        let failed = |_| KeyError::Failed { what: "written" };
        let der = match &self.0 {
            Pair::Ecdsa(pair) => AsDer::as_der(pair.public_key()).map_err(failed)?,
            Pair::Ed25519(pair) => AsDer::as_der(pair.public_key()).map_err(failed)?,
        };
        PublicKey::from_der(der.as_ref())
    }

    /// Signs bytes.
    ///
    /// # Errors
    /// The machine's random numbers failed.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.0 {
            Pair::Ecdsa(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message);
                signature.map(|it| it.as_ref().to_vec()).map_err(|_| KeyError::Failed { what: "used" })
            }
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // RFC 7468: lines of 64 characters; Base64 is ASCII.
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// What is signed for a component in a registry ("simple signing").
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    critical: Critical,
    optional: Option<serde_json::Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest", alias = "Docker-manifest-digest")]
    docker_manifest_digest: String,
}

/// The payload to sign for the manifest `digest` (hexadecimal) in `repository` (with its registry).
///
/// # Errors
/// Never in practice: it is plain JSON.
pub fn payload(repository: &str, digest: &str) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Payload {
        critical: Critical {
            identity: Identity { docker_reference: repository.to_owned() },
            image: Image { docker_manifest_digest: format!("sha256:{digest}") },
            kind: PAYLOAD_TYPE.to_owned(),
        },
        optional: None,
    })
}

/// What a payload says was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The manifest's SHA-256, in hexadecimal.
    pub digest: String,
    /// `registry/repository`, without a tag.
    pub repository: String,
}

/// Reads a payload; `None` when it is none.
#[must_use]
pub fn claims(payload: &[u8]) -> Option<Claims> {
    let critical = serde_json::from_slice::<Payload>(payload).ok()?.critical;
    let digest = critical.image.docker_manifest_digest.strip_prefix("sha256:")?.to_owned();
    let repository = without_tag(&critical.identity.docker_reference).to_owned();
    (critical.kind == PAYLOAD_TYPE).then_some(Claims { digest, repository })
}

/// `registry:5000/repository:tag@sha256:…` without tag and digest; the colon of a port stays.
fn without_tag(reference: &str) -> &str {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    /// Made by OpenSSL 3.0: `openssl ecparam -name prime256v1 -genkey`, `openssl genpkey -algorithm ed25519`,
    /// `openssl dgst -sha256 -sign`, `openssl pkeyutl -sign -rawin`; over [`MESSAGE`].
    const MESSAGE: &[u8] = b"a component";
    const P256: &str = include_str!("../tests/fixtures/p256.pub");
    const P256_PRIVATE: &str = include_str!("../tests/fixtures/p256.key");
    const P256_SIGNATURE: &str = include_str!("../tests/fixtures/p256.sig");
    const ED25519_PUBLIC: &str = include_str!("../tests/fixtures/ed25519.pub");
    const ED25519_PRIVATE: &str = include_str!("../tests/fixtures/ed25519.key");
    const ED25519_SIGNATURE: &str = include_str!("../tests/fixtures/ed25519.sig");

    #[test]
    fn keys_and_signatures_of_openssl_are_understood() {
        for (public, private, signature, algorithm) in [
            (P256, P256_PRIVATE, P256_SIGNATURE, Algorithm::EcdsaP256),
            (ED25519_PUBLIC, ED25519_PRIVATE, ED25519_SIGNATURE, Algorithm::Ed25519),
        ] {
            let key = PublicKey::from_pem(public).unwrap();
            let mut signature = STANDARD.decode(signature.trim()).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            assert_eq!(key.to_pem(), public);
            assert!(key.verifies(MESSAGE, &signature));
            assert!(!key.verifies(b"another component", &signature));
            let private = PrivateKey::from_pem(private).unwrap();
            assert_eq!(private.public_key().unwrap().to_pem(), public);
            assert!(key.verifies(b"new", &private.sign(b"new").unwrap()));
            *signature.last_mut().unwrap() ^= 1;
            assert!(!key.verifies(MESSAGE, &signature));
            assert!(!key.verifies(MESSAGE, &[]));
        }
    }

    #[test]
    fn a_key_survives_its_text_and_verifies_nothing_of_another() {
        for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let again = PrivateKey::from_pem(key.to_pem().unwrap().expose_secret()).unwrap();
            let public = again.public_key().unwrap();
            assert_eq!(PublicKey::from_pem(&public.to_pem()).unwrap().fingerprint(), public.fingerprint());
            let signature = key.sign(MESSAGE).unwrap();
            assert!(public.verifies(MESSAGE, &signature));
            let other = PrivateKey::generate(algorithm).unwrap().public_key().unwrap();
            assert!(!other.verifies(MESSAGE, &signature));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(matches!(PublicKey::from_pem("ssh-ed25519 AAAA"), Err(KeyError::NotPublic)));
        assert!(matches!(PublicKey::from_pem(P256_PRIVATE), Err(KeyError::NotPublic)));
        assert!(matches!(PrivateKey::from_pem(P256), Err(KeyError::NotPrivate)));
        let garbage = pem("PUBLIC KEY", b"garbage of no meaning at all");
        assert!(matches!(PublicKey::from_pem(&garbage), Err(KeyError::OtherAlgorithm)));
        assert!(matches!(PublicKey::from_pem(&"x".repeat(KEY_BYTES_MAX + 1)), Err(KeyError::NotPublic)));
    }

    #[test]
    fn a_payload_names_its_manifest() {
        let digest = "ab".repeat(32);
        let text = payload("ghcr.io/acme/rules", &digest).unwrap();
        let expected = Claims { digest: digest.clone(), repository: "ghcr.io/acme/rules".to_owned() };
        assert_eq!(claims(&text), Some(expected.clone()));
        let cosign = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"ghcr.io/acme/rules"}},"image":{{"docker-manifest-digest":"sha256:{digest}"}},"type":"cosign container image signature"}},"optional":{{"creator":"somebody"}}}}"#
        );
        assert_eq!(claims(cosign.as_bytes()), Some(expected));
        assert_eq!(claims(cosign.replace("cosign container", "atomic container").as_bytes()), None);
        assert_eq!(claims(b"{}"), None);
        for (reference, expected) in [
            ("127.0.0.1:5000/rules", "127.0.0.1:5000/rules"),
            ("127.0.0.1:5000/rules:1.0", "127.0.0.1:5000/rules"),
            ("ghcr.io/acme/rules:1.0@sha256:ab", "ghcr.io/acme/rules"),
            ("ghcr.io/acme/rules@sha256:ab", "ghcr.io/acme/rules"),
            ("", ""),
        ] {
            assert_eq!(without_tag(reference), expected);
        }
    }
}

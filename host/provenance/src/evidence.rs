//! The signatures that were found for a component, in the form in which they travel beside it.
//!
//! Signatures are a file beside the component's, with `.sig` added to its name; in a
//! [`Bundle`](frontdesk_policy_engine::Bundle) their key is the component's key with [`SUFFIX`] added. Two forms are told
//! apart by their first character:
//!
//! - **Lines**: one Base64 signature over the component's bytes per line, as `policyctl sign` and `cosign sign-blob` write it.
//! - **JSON**: the same, and for each registry the manifest with the signatures over it that were found there. It carries
//!   all that is needed to check them again without the registry.
//!
//! What is kept proves nothing by being kept: it is verified each time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use frontdesk_policy_engine::sha256_hex;
use serde::{Deserialize, Serialize};

use crate::artifact;

pub use frontdesk_policy_engine::chain::{SIGNATURE_BYTES_MAX as EVIDENCE_BYTES_MAX, SIGNATURE_SUFFIX as SUFFIX};
/// Most signatures of one component.
pub const SIGNATURES_MAX: usize = 32;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Signatures over the component's bytes.
    #[serde(default, with = "base64_list")]
    pub detached: Vec<Vec<u8>>,
    /// Signatures over payloads that name a manifest that names the component.
    #[serde(default)]
    pub registries: Vec<RegistryEvidence>,
}

/// What a registry had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryEvidence {
    /// `registry/repository`, without a scheme.
    pub repository: String,
    /// The manifest's bytes.
    #[serde(with = "base64_bytes")]
    pub manifest: Vec<u8>,
    /// The signatures.
    pub signatures: Vec<ManifestSignature>,
}

/// A signature over a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestSignature {
    /// What was signed.
    #[serde(with = "base64_bytes")]
    pub payload: Vec<u8>,
    /// The signature.
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
}

impl RegistryEvidence {
    /// SHA-256 of the manifest, in hexadecimal.
    #[must_use]
    pub fn manifest_digest(&self) -> String {
        sha256_hex(&self.manifest)
    }

    /// SHA-256 of the component that the manifest names; `None` when it names none.
    #[must_use]
    pub fn component_digest(&self) -> Option<String> {
        let layer = artifact::component_layer(&self.manifest).ok()?;
        artifact::digest_of(&layer).map(str::to_owned)
    }
}

impl Evidence {
    /// What a registry had, alone.
    #[must_use]
    pub fn of_registry(found: RegistryEvidence) -> Self {
        Self { detached: Vec::new(), registries: vec![found] }
    }

    /// How many signatures there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.detached.len() + self.registries.iter().map(|it| it.signatures.len()).sum::<usize>()
    }

    /// Reads what lies beside a component.
    ///
    /// # Errors
    /// What it is not, as a sentence.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > EVIDENCE_BYTES_MAX {
            return Err(format!("{} bytes; at most {EVIDENCE_BYTES_MAX} are read", bytes.len()));
        }
        let found = if bytes.first() == Some(&b'{') {
            serde_json::from_slice(bytes).map_err(|error| format!("not a document of signatures: {error}"))?
        } else {
            let text = std::str::from_utf8(bytes).map_err(|_| "neither Base64 nor JSON".to_owned())?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let decode = |line: &str| STANDARD.decode(line).map_err(|_| "a line that is not Base64".to_owned());
            let detached = lines.take(SIGNATURES_MAX + 1).map(decode).collect::<Result<_, _>>()?;
            Self { detached, registries: Vec::new() }
        };
        match found.count() {
            count if count > SIGNATURES_MAX => Err(format!("more than {SIGNATURES_MAX} signatures")),
            _ => Ok(found),
        }
    }

    /// The form that [`Evidence::parse`] reads.
    ///
    /// # Errors
    /// Never in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        if self.registries.is_empty() {
            return Ok(self.detached.iter().flat_map(|it| (STANDARD.encode(it) + "\n").into_bytes()).collect());
        }
        serde_json::to_vec(self)
    }

    /// Both together; what `newer` says about a repository replaces what was known. Beyond the most that is kept, older
    /// signatures go.
    #[must_use]
    pub fn merged(self, newer: Self) -> Self {
        let mut merged = newer;
        for one in self.detached {
            if !merged.detached.contains(&one) && merged.count() < SIGNATURES_MAX {
                merged.detached.push(one);
            }
        }
        for one in self.registries {
            let known =
                merged.registries.iter().any(|it| it.repository == one.repository && it.manifest == one.manifest);
            if !known && merged.count() + one.signatures.len() <= SIGNATURES_MAX {
                merged.registries.push(one);
            }
        }
        merged
    }
}

mod base64_list {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(list: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|bytes| STANDARD.encode(bytes)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let list = Vec::<String>::deserialize(deserializer)?;
        let decode = |text: String| STANDARD.decode(text).map_err(|_| serde::de::Error::custom("Base64 is expected"));
        list.into_iter().map(decode).collect()
    }
}

mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(|_| serde::de::Error::custom("Base64 is expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(repository: &str, signature: &[u8]) -> RegistryEvidence {
        RegistryEvidence {
            repository: repository.to_owned(),
            manifest: b"{}".to_vec(),
            signatures: vec![ManifestSignature { payload: b"p".to_vec(), signature: signature.to_vec() }],
        }
    }

    fn detached(signatures: &[&[u8]]) -> Evidence {
        Evidence { detached: signatures.iter().map(|it| it.to_vec()).collect(), registries: Vec::new() }
    }

    #[test]
    fn every_form_survives_its_bytes() {
        let both = Evidence { registries: vec![registry("ghcr.io/acme/rules", b"s")], ..detached(&[b"one"]) };
        for evidence in [
            detached(&[b"one", b"two"]),
            detached(&[]),
            Evidence::of_registry(registry("ghcr.io/acme/rules", b"s")),
            both,
        ] {
            assert_eq!(Evidence::parse(&evidence.to_bytes().unwrap()), Ok(evidence));
        }
        assert_eq!(Evidence::parse(b"  b25l\r\n\n"), Ok(detached(&[b"one"])));
    }

    #[test]
    fn what_is_neither_is_refused() {
        assert!(Evidence::parse(b"no base64!").unwrap_err().contains("not Base64"));
        assert!(Evidence::parse(&[0xff]).unwrap_err().contains("neither"));
        assert!(Evidence::parse(b"{\"other\": 1}").unwrap_err().contains("unknown field"));
        assert!(Evidence::parse("b25l\n".repeat(SIGNATURES_MAX).as_bytes()).is_ok());
        assert!(Evidence::parse("b25l\n".repeat(SIGNATURES_MAX + 1).as_bytes()).unwrap_err().contains("more than 32"));
        assert!(Evidence::parse(&vec![b'\n'; EVIDENCE_BYTES_MAX + 1]).unwrap_err().contains("at most 1048576"));
    }

    #[test]
    fn what_is_newer_replaces_what_was_known_of_a_repository() {
        let old = Evidence { registries: vec![registry("a", b"old"), registry("b", b"kept")], ..detached(&[b"one"]) };
        let new = Evidence { registries: vec![registry("a", b"new")], ..detached(&[b"two", b"one"]) };
        let merged = old.merged(new);
        assert_eq!(merged.detached, [b"two".to_vec(), b"one".to_vec()]);
        assert_eq!(merged.registries, [registry("a", b"new"), registry("b", b"kept")]);
        let many: Vec<Vec<u8>> = (0..SIGNATURES_MAX).map(|i| vec![i as u8]).collect();
        let full = Evidence { detached: many, registries: Vec::new() };
        assert_eq!(full.clone().merged(detached(&[b"newest"])).count(), SIGNATURES_MAX);
        assert_eq!(detached(&[b"older"]).merged(full.clone()), full);
    }
}

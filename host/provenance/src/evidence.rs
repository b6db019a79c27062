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

use std::collections::BTreeSet;

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
        if found.count() > SIGNATURES_MAX || found.registries.len() > SIGNATURES_MAX {
            return Err(format!("more than {SIGNATURES_MAX} signatures"));
        }
        Ok(found)
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

    /// Both together, signature by signature, as far as [`Evidence::parse`] reads it again.
    ///
    /// `vouchers` names whom a single signature speaks for. One of each is kept before all others, known ones before newer
    /// ones, so that nobody pushes out a signature that counts with many that do not. Of the others, which may count once
    /// the settings change, the newer ones are kept.
    #[must_use]
    pub fn merged<V: Ord>(self, newer: Self, vouchers: impl Fn(&Self) -> BTreeSet<V>) -> Self {
        let mut parts = self.parts();
        let known = parts.len();
        for part in newer.parts() {
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        let mut covered = BTreeSet::new();
        let mut order: Vec<(u8, usize)> = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            let of_part = vouchers(part);
            let rank = match (of_part.is_subset(&covered), part.count()) {
                (false, _) => 0,
                // That a registry had none explains a refusal, and is worth no signature.
                (true, 0) => 3,
                (true, _) if index >= known => 1,
                (true, _) => 2,
            };
            covered.extend(of_part);
            order.push((rank, index));
        }
        order.sort_unstable();
        let mut kept = BTreeSet::new();
        for (_, index) in order {
            kept.insert(index);
            if !Self::of_parts(&parts, &kept).fits() {
                kept.remove(&index);
            }
        }
        Self::of_parts(&parts, &kept)
    }

    /// Each signature alone, and each registry that had none.
    fn parts(self) -> Vec<Self> {
        let mut parts: Vec<Self> = Vec::new();
        parts.extend(self.detached.into_iter().map(|it| Self { detached: vec![it], registries: Vec::new() }));
        // A larger manifest could not be kept, and is not copied for each of its signatures.
        for found in self.registries.into_iter().filter(|it| it.manifest.len() <= EVIDENCE_BYTES_MAX) {
            let RegistryEvidence { repository, manifest, signatures } = found;
            let of_registry = |signatures| {
                let (repository, manifest) = (repository.clone(), manifest.clone());
                Self::of_registry(RegistryEvidence { repository, manifest, signatures })
            };
            if signatures.is_empty() {
                parts.push(of_registry(Vec::new()));
            }
            parts.extend(signatures.into_iter().map(|one| of_registry(vec![one])));
        }
        parts
    }

    /// Those of the parts, in their order.
    fn of_parts(parts: &[Self], kept: &BTreeSet<usize>) -> Self {
        let mut whole = Self::default();
        for (_, part) in parts.iter().enumerate().filter(|(index, _)| kept.contains(index)) {
            whole.detached.extend(part.detached.iter().cloned());
            for one in &part.registries {
                let place = (&one.repository, &one.manifest);
                match whole.registries.iter_mut().find(|it| (&it.repository, &it.manifest) == place) {
                    Some(known) => known.signatures.extend(one.signatures.iter().cloned()),
                    None => whole.registries.push(one.clone()),
                }
            }
        }
        whole
    }

    fn fits(&self) -> bool {
        self.count() <= SIGNATURES_MAX
            && self.registries.len() <= SIGNATURES_MAX
            && self.to_bytes().is_ok_and(|bytes| bytes.len() <= EVIDENCE_BYTES_MAX)
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

    fn nobody(_: &Evidence) -> BTreeSet<u8> {
        BTreeSet::new()
    }

    #[test]
    fn signatures_are_merged_one_by_one() {
        let old = Evidence { registries: vec![registry("a", b"old"), registry("b", b"kept")], ..detached(&[b"one"]) };
        let new = Evidence { registries: vec![registry("a", b"new")], ..detached(&[b"two", b"one"]) };
        let merged = old.merged(new.clone(), nobody);
        assert_eq!(merged.detached, [b"one".to_vec(), b"two".to_vec()]);
        let mut both = registry("a", b"old");
        both.signatures.extend(registry("a", b"new").signatures);
        assert_eq!(merged.registries, [both, registry("b", b"kept")]);
        assert_eq!(merged.clone().merged(new, nobody), merged, "what is known already changes nothing");
        let none = RegistryEvidence { signatures: Vec::new(), ..registry("c", b"") };
        let merged = merged.merged(Evidence::of_registry(none.clone()), nobody);
        assert_eq!(merged.registries.last(), Some(&none), "that there was none is known");
    }

    #[test]
    fn what_counts_is_not_pushed_out() {
        let many = |from: u8| -> Vec<Vec<u8>> { (from..).take(SIGNATURES_MAX).map(|i| vec![i]).collect() };
        let full = |from| Evidence { detached: many(from), registries: Vec::new() };
        // What begins with `key` speaks for the key that follows.
        let by_word = |part: &Evidence| -> BTreeSet<Vec<u8>> {
            let signatures = part.registries.iter().flat_map(|it| it.signatures.iter().map(|one| &one.signature));
            let words = part.detached.iter().chain(signatures).filter_map(|it| it.strip_prefix(b"key"));
            words.map(|word| word.get(..1).unwrap_or_default().to_vec()).collect()
        };
        let good = Evidence { registries: vec![registry("a", b"keyB1")], ..detached(&[b"keyA1"]) };
        let attacked = good.clone().merged(full(0), by_word).merged(full(100), by_word);
        assert_eq!(attacked.count(), SIGNATURES_MAX);
        assert!(attacked.detached.contains(&b"keyA1".to_vec()), "{attacked:?}");
        assert_eq!(attacked.registries, good.registries);
        assert!(attacked.detached.contains(&vec![100]) && !attacked.detached.contains(&vec![1]), "{attacked:?}");
        // It comes in where everything is full, and a second one of the same key does not push out another's.
        let late = full(0).merged(good.clone(), by_word);
        assert!(late.detached.contains(&b"keyA1".to_vec()) && late.registries == good.registries, "{late:?}");
        let again: Vec<Vec<u8>> = (0..40).map(|i| vec![b'k', b'e', b'y', b'A', i]).collect();
        let crowded = good.clone().merged(Evidence { detached: again, registries: Vec::new() }, by_word);
        assert_eq!((crowded.count(), &crowded.registries), (SIGNATURES_MAX, &good.registries));

        // Nothing is made that would not be read again.
        let large = |repository: &str| RegistryEvidence {
            manifest: vec![b' '; EVIDENCE_BYTES_MAX / 2],
            ..registry(repository, b"x")
        };
        let registries =
            vec![large("b"), large("c"), RegistryEvidence { manifest: vec![0; 2 << 20], ..registry("d", b"x") }];
        let merged = good.clone().merged(Evidence { detached: Vec::new(), registries }, by_word);
        assert_eq!(Evidence::parse(&merged.to_bytes().unwrap()), Ok(merged.clone()));
        assert_eq!((&merged.detached, merged.registries.len()), (&good.detached, 2));
    }
}

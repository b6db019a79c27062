//! Which signatures a host demands, and whether they are there.
//!
//! One trusted signature over a component is enough. A key may be trusted for some chains only, and for some registries
//! only; a key with registries does not speak for files. What such a key vouches for must come from the place that was signed:
//! the chain names the component in that repository, and so does the payload. Otherwise a signature that was copied into a
//! file, or into another registry, would carry the key's word there. Where a signature is not demanded, none is looked at.

use std::collections::BTreeSet;
use std::fmt::Write;

use frontdesk_policy_engine::{Bundle, ChainSpec, FileKind, OciReference, sha256_hex};

use crate::evidence::{self, Evidence, ManifestSignature, RegistryEvidence};
use crate::signature::{Claims, PublicKey, claims};

/// What a host demands.
#[derive(Clone, Debug, Default)]
pub struct TrustPolicy {
    /// Whether signatures are demanded.
    pub required: bool,
    /// Of which chains; empty: of all.
    pub chains: Vec<String>,
    /// Whose signatures count.
    pub keys: Vec<TrustedKey>,
}

/// A key that is trusted.
#[derive(Clone, Debug)]
pub struct TrustedKey {
    /// Its name in logs.
    pub name: String,
    /// The key.
    pub key: PublicKey,
    /// For which chains; empty: for all.
    pub chains: Vec<String>,
    /// For components that the chain names in which registries, such as `ghcr.io` or `ghcr.io/acme`; empty: from anywhere,
    /// files too.
    pub registries: Vec<String>,
}

/// A component without a trusted signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "component `{component}` (sha256:{digest}) has no trusted signature: {found}; {keys}. Sign it with `policyctl sign`, or \
     trust its signer's key in [[policies.trust.keys]]"
)]
pub struct Untrusted {
    /// As the chain names it.
    pub component: String,
    /// SHA-256 of its bytes.
    pub digest: String,
    /// What was looked for, and what was found.
    pub found: String,
    /// Which keys are trusted, and for what.
    pub keys: String,
}

impl TrustPolicy {
    /// Whether a chain's components need a signature.
    #[must_use]
    pub fn demands(&self, chain: &str) -> bool {
        self.required && (self.chains.is_empty() || self.chains.iter().any(|name| name == chain))
    }

    /// Checks all components of a chain that was read.
    ///
    /// # Errors
    /// The first component without a trusted signature. A chain that cannot be read is no concern of this check.
    pub fn check_bundle(&self, chain: &str, bundle: &Bundle) -> Result<(), Untrusted> {
        if !self.demands(chain) {
            return Ok(());
        }
        let wanted = ChainSpec::parse(&bundle.chain_toml).map(|spec| spec.wanted_files()).unwrap_or_default();
        for file in wanted.into_iter().filter(|file| file.kind == FileKind::Component) {
            let Some(wasm) = bundle.files.get(&file.path) else { continue };
            let evidence = bundle.files.get(&format!("{}{}", file.path, evidence::SUFFIX));
            self.check(chain, &file.path, wasm, evidence.map(Vec::as_slice))?;
        }
        Ok(())
    }

    /// Checks one component; gives the name of the key that vouches for it, or `None` where none is demanded.
    ///
    /// # Errors
    /// What was looked for, what was found, and which keys were tried.
    pub fn check(
        &self,
        chain: &str,
        component: &str,
        wasm: &[u8],
        evidence: Option<&[u8]>,
    ) -> Result<Option<&str>, Untrusted> {
        if !self.demands(chain) {
            return Ok(None);
        }
        let digest = sha256_hex(wasm);
        let evidence = match evidence.map(Evidence::parse) {
            None => Ok(Evidence::default()),
            Some(found) => found.map_err(|problem| format!("its signatures cannot be read: {problem}")),
        };
        let found = match evidence {
            Err(problem) => problem,
            Ok(evidence) => match self.vouched(chain, component, wasm, &digest, &evidence) {
                Ok(key) => return Ok(Some(key)),
                Err(problem) => problem,
            },
        };
        Err(Untrusted { component: component.to_owned(), digest, found, keys: self.keys_in_words(chain) })
    }

    fn vouched(
        &self,
        chain: &str,
        component: &str,
        wasm: &[u8],
        digest: &str,
        evidence: &Evidence,
    ) -> Result<&str, String> {
        let vouches = |key: &&TrustedKey| evidence.detached.iter().any(|it| key.key.verifies(wasm, it));
        if let Some(key) = self.keys_for(chain, None).find(vouches) {
            return Ok(&key.name);
        }
        let mut problems = Vec::new();
        if !evidence.detached.is_empty() {
            problems.push(format!("{} over its bytes, none by a trusted key", signatures_of(evidence.detached.len())));
        }
        for found in &evidence.registries {
            match self.vouched_in_registry(chain, component, digest, found) {
                Ok(key) => return Ok(key),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            problems.push(format!("no signature was found ({})", looked_for(component)));
        }
        Err(problems.join("; "))
    }

    fn vouched_in_registry(
        &self,
        chain: &str,
        component: &str,
        digest: &str,
        found: &RegistryEvidence,
    ) -> Result<&str, String> {
        let manifest = found.manifest_digest();
        if found.component_digest().as_deref() != Some(digest) {
            return Err(format!("the signed manifest sha256:{manifest} names another component"));
        }
        let tag = format!("{}:sha256-{manifest}.sig", found.repository);
        let is_named_there = OciReference::parse(component)
            .is_ok_and(|it| format!("{}/{}", it.registry(), it.repository()) == found.repository);
        let (mut about_others, mut from_elsewhere) = (0, 0);
        for one in &found.signatures {
            let Some(claims) = claims_about(&manifest, one) else {
                about_others += 1;
                continue;
            };
            let source =
                (is_named_there && claims.repository == found.repository).then_some(claims.repository.as_str());
            let vouches = |key: &&TrustedKey| key.key.verifies(&one.payload, &one.signature);
            if let Some(key) = self.keys_for(chain, source).find(vouches) {
                return Ok(&key.name);
            }
            from_elsewhere += usize::from(source.is_none());
        }
        if found.signatures.is_empty() {
            return Err(format!("no signature was found (looked for {tag})"));
        }
        let mut text = format!("{} in {tag}, none by a trusted key", signatures_of(found.signatures.len()));
        if about_others > 0 {
            let _ = write!(text, "; {about_others} of them speak of another manifest");
        }
        if from_elsewhere > 0 && self.keys.iter().any(|key| !key.registries.is_empty()) {
            let _ = write!(
                text,
                "; {from_elsewhere} of them name another repository than the chain does, and keys for some registries do not \
                 count there"
            );
        }
        Err(text)
    }

    /// Both together, as far as they can be kept with the component; what a key of ours made is not pushed out.
    #[must_use]
    pub fn merged(&self, wasm: &[u8], older: Evidence, newer: Evidence) -> Evidence {
        let digest = sha256_hex(wasm);
        older.merged(newer, |part| self.vouchers(wasm, &digest, part))
    }

    /// The keys that vouch by these signatures: their places in the list, and for a key with registries the repository, which
    /// is a part of what was signed.
    fn vouchers(&self, wasm: &[u8], digest: &str, part: &Evidence) -> BTreeSet<(usize, Option<String>)> {
        let mut found = BTreeSet::new();
        for place in part.registries.iter().filter(|it| it.component_digest().as_deref() == Some(digest)) {
            let manifest = place.manifest_digest();
            for one in &place.signatures {
                let Some(claims) = claims_about(&manifest, one) else { continue };
                for (index, key) in self.keys.iter().enumerate() {
                    let is_from_there = claims.repository == place.repository
                        && key.registries.iter().any(|allowed| is_under(&claims.repository, allowed));
                    let counts = key.registries.is_empty() || is_from_there;
                    if counts && key.key.verifies(&one.payload, &one.signature) {
                        found.insert((index, is_from_there.then(|| claims.repository.clone())));
                    }
                }
            }
        }
        for one in &part.detached {
            let anywhere = self.keys.iter().enumerate().filter(|(_, key)| key.registries.is_empty());
            found.extend(anywhere.filter(|(_, key)| key.key.verifies(wasm, one)).map(|(index, _)| (index, None)));
        }
        found
    }

    fn keys_for(&self, chain: &str, repository: Option<&str>) -> impl Iterator<Item = &TrustedKey> {
        self.keys.iter().filter(move |key| {
            let for_chain = key.chains.is_empty() || key.chains.iter().any(|name| name == chain);
            let for_source = key.registries.is_empty()
                || repository.is_some_and(|found| key.registries.iter().any(|allowed| is_under(found, allowed)));
            for_chain && for_source
        })
    }

    fn keys_in_words(&self, chain: &str) -> String {
        let name = |key: &TrustedKey| {
            let apart = match (key.chains.iter().any(|name| name == chain), key.registries.as_slice()) {
                (false, _) if !key.chains.is_empty() => format!(", for chains {} only", key.chains.join(", ")),
                (_, []) => String::new(),
                (_, registries) => format!(", for {} only", registries.join(", ")),
            };
            format!("{} ({} {}{apart})", key.name, key.key.algorithm().as_str(), key.key.fingerprint())
        };
        let keys: Vec<String> = self.keys.iter().map(name).collect();
        if keys.is_empty() {
            "no key is trusted at all".to_owned()
        } else {
            format!("trusted keys: {}", keys.join(", "))
        }
    }
}

/// What a signature's payload says, when it speaks of this manifest. Whose signature it is, is not asked here.
fn claims_about(manifest: &str, one: &ManifestSignature) -> Option<Claims> {
    claims(&one.payload).filter(|claims| claims.digest == manifest)
}

/// Whether `repository` is `allowed` or lies below it.
fn is_under(repository: &str, allowed: &str) -> bool {
    let rest = repository.strip_prefix(allowed.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn signatures_of(count: usize) -> String {
    if count == 1 { "there is one signature".to_owned() } else { format!("there are {count} signatures") }
}

fn looked_for(component: &str) -> String {
    if component.starts_with("sha256:") {
        "looked for one stored with the component".to_owned()
    } else {
        format!("looked for {component}{}", evidence::SUFFIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{ComponentConfig, lay_out};
    use crate::signature::{Algorithm, PrivateKey, payload};

    const WASM: &[u8] = b"\0asm any component";

    fn trusted(name: &str, key: &PrivateKey) -> TrustedKey {
        let key = key.public_key().unwrap();
        TrustedKey { name: name.to_owned(), key, chains: Vec::new(), registries: Vec::new() }
    }

    fn policy(keys: Vec<TrustedKey>) -> TrustPolicy {
        TrustPolicy { required: true, chains: Vec::new(), keys }
    }

    fn detached(key: &PrivateKey, bytes: &[u8]) -> Vec<u8> {
        Evidence { detached: vec![key.sign(bytes).unwrap()], registries: Vec::new() }.to_bytes().unwrap()
    }

    fn in_registry(key: &PrivateKey, component: &[u8], digest: Option<&str>) -> Vec<u8> {
        let evidence = signed_in("ghcr.io/acme/rules", "ghcr.io/acme/rules", key, component, digest);
        evidence.to_bytes().unwrap()
    }

    /// What lies in `repository` and was signed for `signed_for`.
    fn signed_in(
        repository: &str,
        signed_for: &str,
        key: &PrivateKey,
        component: &[u8],
        digest: Option<&str>,
    ) -> Evidence {
        let about = ComponentConfig { exports: Vec::new(), imports: Vec::new() };
        let manifest = lay_out(component, about, "x.wasm").unwrap().manifest;
        let digest = digest.map_or_else(|| sha256_hex(&manifest), str::to_owned);
        let payload = payload(signed_for, &digest).unwrap();
        let signatures = vec![ManifestSignature { signature: key.sign(&payload).unwrap(), payload }];
        Evidence::of_registry(RegistryEvidence { repository: repository.to_owned(), manifest, signatures })
    }

    fn named_in(repository: &str) -> String {
        format!("oci://{repository}@sha256:{}", "ab".repeat(32))
    }

    #[test]
    fn a_trusted_signature_is_found_among_keys() {
        for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519] {
            let (ours, theirs) = (PrivateKey::generate(algorithm).unwrap(), PrivateKey::generate(algorithm).unwrap());
            let policy = policy(vec![trusted("theirs", &theirs), trusted("ours", &ours)]);
            for evidence in [detached(&ours, WASM), in_registry(&ours, WASM, None)] {
                assert_eq!(policy.check("default", "x.wasm", WASM, Some(&evidence)), Ok(Some("ours")));
            }
        }
    }

    #[test]
    fn what_is_not_vouched_for_is_refused_with_digest_place_and_keys() {
        let (ours, theirs) =
            (PrivateKey::generate(Algorithm::EcdsaP256).unwrap(), PrivateKey::generate(Algorithm::Ed25519).unwrap());
        let policy = policy(vec![trusted("release", &ours)]);
        let cases = [
            (None, "no signature was found (looked for ../components/x.wasm.sig)"),
            (Some(detached(&theirs, WASM)), "there is one signature over its bytes, none by a trusted key"),
            (Some(detached(&ours, b"other bytes")), "none by a trusted key"),
            (Some(b"!".to_vec()), "its signatures cannot be read: a line that is not Base64"),
            (Some(in_registry(&theirs, WASM, None)), "ghcr.io/acme/rules:sha256-"),
            (Some(in_registry(&ours, b"other bytes", None)), "names another component"),
            (Some(in_registry(&ours, WASM, Some(&"ab".repeat(32)))), "1 of them speak of another manifest"),
        ];
        for (evidence, expected) in cases {
            let error =
                policy.check("default", "../components/x.wasm", WASM, evidence.as_deref()).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(error.contains(&format!("sha256:{}", sha256_hex(WASM))), "{error}");
            assert!(error.contains("trusted keys: release (ecdsa-p256 "), "{error}");
        }
    }

    #[test]
    fn keys_and_demands_are_for_chains_and_registries() {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let of_chain = TrustedKey { chains: vec!["shop".to_owned()], ..trusted("shop", &key) };
        let policy_of_chain = policy(vec![of_chain]);
        let evidence = detached(&key, WASM);
        assert_eq!(policy_of_chain.check("shop", "x", WASM, Some(&evidence)), Ok(Some("shop")));
        let error = policy_of_chain.check("default", "x", WASM, Some(&evidence)).unwrap_err();
        assert!(error.keys.contains("for chains shop only"), "{error}");

        let (file, registry) = (detached(&key, WASM), in_registry(&key, WASM, None));
        for (allowed, fits) in
            [("ghcr.io", true), ("ghcr.io/acme", true), ("ghcr.io/acme/rules", true), ("ghcr.io/ac", false)]
        {
            let of_registry = TrustedKey { registries: vec![allowed.to_owned()], ..trusted("registry", &key) };
            let policy = policy(vec![of_registry]);
            let there = named_in("ghcr.io/acme/rules");
            assert_eq!(policy.check("default", &there, WASM, Some(&registry)).is_ok(), fits, "{allowed}");
            assert!(policy.check("default", "x", WASM, Some(&file)).is_err(), "{allowed}: a file is from no registry");
        }

        let some_chains = TrustPolicy { chains: vec!["shop".to_owned()], ..policy(Vec::new()) };
        assert_eq!(some_chains.check("default", "x", WASM, None), Ok(None));
        assert!(some_chains.check("shop", "x", WASM, None).is_err());
        assert_eq!(TrustPolicy::default().check("shop", "x", WASM, None), Ok(None));
    }

    #[test]
    fn a_key_for_a_registry_vouches_only_for_what_was_signed_there() {
        let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
        let ours = TrustedKey { registries: vec!["ghcr.io/acme".to_owned()], ..trusted("ours", &key) };
        let restricted = policy(vec![ours]);
        let open = policy(vec![trusted("open", &key)]);
        let (acme, other) = ("ghcr.io/acme/rules", "evil.example/acme/rules");
        let cases = [
            (acme, acme, named_in(acme), true),
            (acme, "ghcr.io/acme/rules:1.0", named_in(acme), true),
            // The signatures lie beside a file, or are said to be of a repository that nobody signed for.
            (acme, acme, "../components/rules.wasm".to_owned(), false),
            (acme, acme, format!("sha256:{}", sha256_hex(WASM)), false),
            (acme, acme, named_in(other), false),
            (acme, acme, named_in("ghcr.io/acme/rules-of-others"), false),
            (acme, other, named_in(acme), false),
            (other, acme, named_in(acme), false),
            (other, other, named_in(other), false),
        ];
        for (repository, signed_for, component, expected) in cases {
            let evidence = signed_in(repository, signed_for, &key, WASM, None).to_bytes().unwrap();
            let found = restricted.check("default", &component, WASM, Some(&evidence));
            assert_eq!(found.is_ok(), expected, "{repository} {signed_for} {component}: {found:?}");
            assert!(open.check("default", &component, WASM, Some(&evidence)).is_ok(), "a key without registries");
        }
        let evidence = signed_in(acme, other, &key, WASM, None).to_bytes().unwrap();
        let error = restricted.check("default", &named_in(acme), WASM, Some(&evidence)).unwrap_err().to_string();
        assert!(error.contains("1 of them name another repository than the chain does"), "{error}");
    }

    #[test]
    fn trusted_signatures_are_kept_whatever_comes_after_them() {
        let (ours, theirs) =
            (PrivateKey::generate(Algorithm::EcdsaP256).unwrap(), PrivateKey::generate(Algorithm::Ed25519).unwrap());
        let acme = "ghcr.io/acme/rules";
        let of_acme = TrustedKey { registries: vec![acme.to_owned()], ..trusted("acme", &ours) };
        let policy = policy(vec![trusted("open", &ours), of_acme]);
        let good = Evidence { detached: vec![ours.sign(WASM).unwrap()], ..signed_in(acme, acme, &ours, WASM, None) };
        let strangers = || Evidence {
            detached: (0..evidence::SIGNATURES_MAX).map(|i| theirs.sign(&[i as u8]).unwrap()).collect(),
            registries: Vec::new(),
        };
        // The same payload and signature under other names are no more than one word of the key.
        let copies = (0..evidence::SIGNATURES_MAX).map(|i| {
            let mut copy = good.registries[0].clone();
            copy.repository = format!("evil.example/{i}");
            copy
        });
        let copies = Evidence { detached: Vec::new(), registries: copies.collect() };
        let merged = policy.merged(WASM, good.clone(), strangers());
        let merged = policy.merged(WASM, merged, copies);
        let merged = policy.merged(WASM, merged, strangers());
        assert!(merged.count() <= evidence::SIGNATURES_MAX);
        let kept = merged.to_bytes().unwrap();
        assert_eq!(policy.check("default", "../x.wasm", WASM, Some(&kept)), Ok(Some("open")));
        let restricted = TrustPolicy { keys: vec![policy.keys[1].clone()], ..policy.clone() };
        assert_eq!(restricted.check("default", &named_in(acme), WASM, Some(&kept)), Ok(Some("acme")));
    }
}

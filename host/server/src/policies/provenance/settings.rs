//! Settings of registries and trust. Credentials are not in here: a setting names the file that holds them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use frontdesk_provenance::{KeyError, PublicKey, TrustPolicy, TrustedKey};
use serde::{Deserialize, Serialize};

/// `[policies.registries]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySettings {
    pub allowed: Vec<String>,
    pub plain_http: Vec<String>,
    pub timeout_ms: u64,
    pub retry_ms: u64,
    /// A docker config; the variable FRONTDESK_REGISTRY_AUTH may hold one instead.
    pub auth_file: Option<PathBuf>,
}

/// `[policies.trust]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrustSettings {
    pub required: bool,
    pub chains: Vec<String>,
    #[serde(default)]
    pub keys: Vec<KeySettings>,
}

/// `[[policies.trust.keys]]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    pub name: String,
    /// PEM text.
    pub public_key: Option<String>,
    /// File with the PEM text.
    pub public_key_file: Option<PathBuf>,
    #[serde(default)]
    pub chains: Vec<String>,
    #[serde(default)]
    pub registries: Vec<String>,
}

/// Why trust cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("[[policies.trust.keys]] {name:?}: give public_key (a PEM text) or public_key_file, and not both")]
    Source { name: String },
    #[error("[[policies.trust.keys]] {name:?}: {path} cannot be read: {source}")]
    Unreadable {
        name: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("[[policies.trust.keys]] {name:?}: {source}")]
    Key {
        name: String,
        #[source]
        source: KeyError,
    },
    #[error("[[policies.trust.keys]]: two keys are called {name:?}; the name is what the log says")]
    Twice { name: String },
    #[error(
        "policies.trust.required is true, and there is no [[policies.trust.keys]]: no component could ever be used"
    )]
    Nobody,
    #[error(
        "policies.trust.chains names {chain:?}, and there is no such chain: there are {known} (the chains of [[pages]], and the \
         folders with a chain.toml in policies.dir, {dir}). Correct the name; a chain that is not named needs no signatures"
    )]
    UnknownChain { chain: String, known: String, dir: PathBuf },
}

impl TrustSettings {
    /// Reads the keys.
    pub fn policy(&self) -> Result<TrustPolicy, TrustError> {
        if self.required && self.keys.is_empty() {
            return Err(TrustError::Nobody);
        }
        let mut keys: Vec<TrustedKey> = Vec::with_capacity(self.keys.len());
        for settings in &self.keys {
            let name = settings.name.clone();
            if keys.iter().any(|key| key.name == name) {
                return Err(TrustError::Twice { name });
            }
            let key = PublicKey::from_pem(&settings.text()?)
                .map_err(|source| TrustError::Key { name: name.clone(), source })?;
            keys.push(TrustedKey {
                name,
                key,
                chains: settings.chains.clone(),
                registries: settings.registries.clone(),
            });
        }
        Ok(TrustPolicy { required: self.required, chains: self.chains.clone(), keys })
    }
}

impl TrustSettings {
    /// Refuses a chain that is none: a misspelt name would silently demand nothing of the chain that was meant.
    pub fn check_chains(&self, known: &BTreeSet<String>, dir: &Path) -> Result<(), TrustError> {
        match self.chains.iter().find(|chain| !known.contains(*chain)) {
            None => Ok(()),
            Some(chain) => Err(TrustError::UnknownChain {
                chain: chain.clone(),
                known: known.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
                dir: dir.to_owned(),
            }),
        }
    }
}

impl KeySettings {
    fn text(&self) -> Result<String, TrustError> {
        match (&self.public_key, &self.public_key_file) {
            (Some(text), None) => Ok(text.clone()),
            (None, Some(path)) => std::fs::read_to_string(path).map_err(|source| TrustError::Unreadable {
                name: self.name.clone(),
                path: path.clone(),
                source,
            }),
            _ => Err(TrustError::Source { name: self.name.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAIYckUh1ganVld7OD2tc+KCsoGwF5kGW7B67WPYb7mPc=\n-----END PUBLIC KEY-----\n";

    fn key(name: &str) -> KeySettings {
        KeySettings {
            name: name.to_owned(),
            public_key: Some(PEM.to_owned()),
            public_key_file: None,
            chains: Vec::new(),
            registries: Vec::new(),
        }
    }

    #[test]
    fn keys_are_read_or_refused_by_name() {
        let trust = |keys: Vec<KeySettings>| TrustSettings { required: true, chains: Vec::new(), keys }.policy();
        assert_eq!(trust(vec![key("a"), key("b")]).unwrap().keys.len(), 2);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pub");
        std::fs::write(&path, PEM).unwrap();
        let from_file = KeySettings { public_key: None, public_key_file: Some(path), ..key("a") };
        assert_eq!(trust(vec![from_file]).unwrap().keys.len(), 1);
        let cases = [
            (Vec::new(), "no component could ever be used"),
            (vec![key("a"), key("a")], "two keys are called \"a\""),
            (vec![KeySettings { public_key: None, ..key("a") }], "\"a\": give public_key"),
            (vec![KeySettings { public_key: Some("x".to_owned()), ..key("a") }], "\"a\": this is no public key"),
            (
                vec![KeySettings { public_key: None, public_key_file: Some(dir.path().join("none")), ..key("a") }],
                "none cannot be read",
            ),
        ];
        for (keys, expected) in cases {
            let error = trust(keys).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}

//! Who we are to a registry: the document that `docker login` writes (`~/.docker/config.json`).
//!
//! ```json
//! { "auths": { "ghcr.io": { "auth": "<base64 of user:password>" }, "registry.acme.example:5000": { "identitytoken": "…" } } }
//! ```
//! Credential helpers (`credsStore`, `credHelpers`) are programs, and none is run; whoever uses one gets told so when a
//! registry refuses. Credentials go to the registry that they are for and to its token service, over TLS or loopback.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde::Deserialize;

/// Largest document that is read, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// What is known about registries.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    by_registry: BTreeMap<String, Login>,
    /// Registries whose credentials a helper holds; `*` when it holds all.
    in_helpers: Vec<String>,
}

/// What to say to a registry.
#[derive(Clone, Debug)]
pub struct Login {
    /// The name; empty with an identity token.
    pub user: String,
    /// Password, access token or identity token.
    pub secret: SecretString,
    /// Whether the secret is an identity token (an OAuth 2 refresh token).
    pub is_identity_token: bool,
}

/// Why a document of credentials cannot be used. No text holds a part of it.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Too large.
    #[error("the registries' credentials have {found} bytes; at most {DOCUMENT_BYTES_MAX} are read")]
    TooLarge {
        /// What was found.
        found: usize,
    },
    /// Not of this form.
    #[error(
        "the registries' credentials are no docker config: a JSON object with \"auths\" is expected, as `docker login` \
         writes it (line {line}, column {column})"
    )]
    Syntax {
        /// Where the parser stopped.
        line: usize,
        /// Where the parser stopped.
        column: usize,
    },
    /// An entry that cannot be used.
    #[error("the credentials for {registry} hold {problem}")]
    Entry {
        /// Whose.
        registry: String,
        /// What is wrong with them.
        problem: &'static str,
    },
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Credentials {
    /// Reads a document.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(CredentialsError::TooLarge { found: text.len() });
        }
        let document: Document = serde_json::from_str(text)
            .map_err(|error| CredentialsError::Syntax { line: error.line(), column: error.column() })?;
        let mut credentials = Self::default();
        for (registry, entry) in document.auths {
            let registry = host_of(&registry);
            // A helper leaves empty entries behind.
            if let Some(login) = login(&registry, entry)? {
                credentials.by_registry.insert(registry, login);
            }
        }
        credentials.in_helpers = document.cred_helpers.into_keys().map(|registry| host_of(&registry)).collect();
        if document.creds_store.is_some_and(|store| !store.is_empty()) {
            credentials.in_helpers.push("*".to_owned());
        }
        Ok(credentials)
    }

    /// What to say to a registry, if anything is known.
    #[must_use]
    pub fn of(&self, registry: &str) -> Option<&Login> {
        self.by_registry.get(registry)
    }

    /// Whether a credential helper, which is not run, may know more.
    #[must_use]
    pub fn is_in_helper(&self, registry: &str) -> bool {
        self.in_helpers.iter().any(|known| known == "*" || known == registry)
    }
}

fn login(registry: &str, entry: Entry) -> Result<Option<Login>, CredentialsError> {
    let problem = |problem| CredentialsError::Entry { registry: registry.to_owned(), problem };
    if let Some(token) = entry.identitytoken.filter(|token| !token.is_empty()) {
        return Ok(Some(Login { user: String::new(), secret: token.into(), is_identity_token: true }));
    }
    if let (Some(user), Some(password)) = (entry.username, entry.password) {
        return Ok(Some(Login { user, secret: password.into(), is_identity_token: false }));
    }
    let Some(auth) = entry.auth.filter(|auth| !auth.is_empty()) else { return Ok(None) };
    let plain = STANDARD.decode(auth.trim()).map_err(|_| problem("an `auth` that is not Base64"))?;
    let plain = String::from_utf8(plain).map_err(|_| problem("an `auth` that is not UTF-8"))?;
    let (user, password) = plain.split_once(':').ok_or_else(|| problem("an `auth` without a colon"))?;
    // Old versions of docker end the password with zero bytes.
    let password = password.trim_end_matches('\0').to_owned();
    Ok(Some(Login { user: user.to_owned(), secret: password.into(), is_identity_token: false }))
}

/// `https://index.docker.io/v1/` → `index.docker.io`.
fn host_of(registry: &str) -> String {
    let rest = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    rest.split('/').next().unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn what_docker_writes_is_understood() {
        let auth = STANDARD.encode("ada:a pass:word");
        let text = format!(
            r#"{{"auths": {{"https://ghcr.io/v1/": {{"auth": "{auth}"}}, "127.0.0.1:5000": {{"username": "u", "password": "p"}},
                "helped.example": {{}}, "token.example": {{"identitytoken": "t", "auth": ""}}}},
                "credHelpers": {{"helped.example": "ecr-login"}}, "HttpHeaders": {{}}}}"#
        );
        let credentials = Credentials::parse(&text).unwrap();
        let ada = credentials.of("ghcr.io").unwrap();
        assert_eq!(
            (ada.user.as_str(), ada.secret.expose_secret(), ada.is_identity_token),
            ("ada", "a pass:word", false)
        );
        assert_eq!(credentials.of("127.0.0.1:5000").unwrap().user, "u");
        assert!(credentials.of("token.example").unwrap().is_identity_token);
        assert!(credentials.of("helped.example").is_none() && credentials.is_in_helper("helped.example"));
        assert!(!credentials.is_in_helper("ghcr.io"));
        assert!(Credentials::parse(r#"{"credsStore": "desktop"}"#).unwrap().is_in_helper("any.example"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        let cases = [
            ("{", "no docker config"),
            (r#"{"auths": {"a.example": {"auth": "!secret!"}}}"#, "for a.example hold an `auth` that is not Base64"),
            (r#"{"auths": {"a.example": {"auth": "c2VjcmV0"}}}"#, "without a colon"),
            (r#"{"auths": {"a.example": {"auth": 5, "password": "secret"}}}"#, "no docker config"),
        ];
        for (text, expected) in cases {
            let error = Credentials::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
        }
        let debug = format!("{:?}", Credentials::parse(r#"{"auths": {"a": {"username": "u", "password": "hush"}}}"#));
        assert!(!debug.contains("hush"), "{debug}");
    }
}

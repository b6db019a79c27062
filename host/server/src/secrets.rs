//! Secrets come from environment variables, or from files that the same variable with `_FILE` names. They are held as
//! [`SecretString`], which neither `Debug` nor `Display` show.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use crate::objects::S3Credentials;
use crate::settings::{PageSettings, Settings};

/// The variable with the key-encryption keys.
pub const KEYS: &str = "FRONTDESK_KEYS";

/// The variable with the token that opens what was taken out of documents.
pub const REVEAL_TOKEN: &str = "FRONTDESK_REVEAL_TOKEN";

/// Shortest admin token that is accepted, in bytes.
pub const ADMIN_TOKEN_BYTES_MIN: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{name} is not set; set it, or set {name}_FILE to the path of a file that holds it ({purpose})")]
    Missing { name: String, purpose: &'static str },
    #[error("{name}_FILE names {path}, which cannot be read: {source}")]
    Unreadable {
        name: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{name} is empty; expected {purpose}")]
    Empty { name: String, purpose: &'static str },
    #[error(
        "FRONTDESK_ADMIN_TOKEN has {found} bytes, expected at least {ADMIN_TOKEN_BYTES_MIN}: make one with `openssl rand -hex 32`"
    )]
    AdminTokenShort { found: usize },
    #[error(
        "{REVEAL_TOKEN} has {found} bytes, expected at least {ADMIN_TOKEN_BYTES_MIN}: make one with `openssl rand -hex 32`"
    )]
    RevealTokenShort { found: usize },
    #[error(
        "page {page}: token_env names {name}, which is not set; set it, or leave token_env out and connect the Page later"
    )]
    PageToken { page: String, name: String },
}

/// Everything secret that the host needs to run.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// All valid secrets of the Meta app; the first signs (`appsecret_proof`), any may verify.
    pub app_secrets: Vec<SecretString>,
    pub verify_token: SecretString,
    pub admin_token: SecretString,
    /// By Page id.
    pub page_tokens: HashMap<String, SecretString>,
    pub ticket_webhook: Option<SecretString>,
    /// Who also has this may see what was taken out of documents; `None`: nobody may.
    pub reveal_token: Option<SecretString>,
    /// For the bucket of `[objects]`; `None`: the machine's own role.
    pub s3: Option<S3Credentials>,
    /// Key-encryption keys as [`crate::keys::KeyRing::parse`] reads them; `None`: the host keeps one in its private folder.
    pub keys: Option<SecretString>,
    /// One's own Postgres; `None`: the host supervises one.
    pub database_url: Option<SecretString>,
    /// One's own Redis or Valkey; `None`: the host supervises one.
    pub redis_url: Option<SecretString>,
}

impl Secrets {
    /// Reads all secrets that `settings` call for.
    pub fn load(settings: &Settings) -> Result<Self, SecretError> {
        let app = required("FRONTDESK_APP_SECRET", "the app secret from the Meta app's basic settings")?;
        let app_secrets = app
            .expose_secret()
            .split([',', '\n'])
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(SecretString::from)
            .collect();
        let admin_token = required("FRONTDESK_ADMIN_TOKEN", "the bearer token of the admin API")?;
        let found = admin_token.expose_secret().len();
        if found < ADMIN_TOKEN_BYTES_MIN {
            return Err(SecretError::AdminTokenShort { found });
        }
        let mut page_tokens = HashMap::new();
        for page in &settings.pages {
            // A Page without a token may be connected while the host runs.
            if let Some(token) = page_token(page, settings.pages.len())? {
                page_tokens.insert(page.id.clone(), token);
            }
        }
        let ticket_webhook = if settings.tickets.webhook_url.is_empty() {
            None
        } else {
            Some(required("FRONTDESK_TICKET_WEBHOOK_SECRET", "the key that signs the ticket webhook")?)
        };
        Ok(Self {
            app_secrets,
            verify_token: required("FRONTDESK_VERIFY_TOKEN", "the string given to Meta for the webhook handshake")?,
            admin_token,
            page_tokens,
            ticket_webhook,
            reveal_token: reveal_token()?,
            s3: s3(settings)?,
            keys: optional(KEYS, "lines as `frontdesk keys new` prints them")?,
            database_url: optional("DATABASE_URL", "the address of a Postgres database")?,
            redis_url: optional("REDIS_URL", "the address of a Redis server")?,
        })
    }
}

fn reveal_token() -> Result<Option<SecretString>, SecretError> {
    let token = optional(REVEAL_TOKEN, "the token that opens what was taken out of documents")?;
    match token.as_ref().map(|token| token.expose_secret().len()).filter(|found| *found < ADMIN_TOKEN_BYTES_MIN) {
        Some(found) => Err(SecretError::RevealTokenShort { found }),
        None => Ok(token),
    }
}

/// Both or neither, and only when there is a bucket to enter.
fn s3(settings: &Settings) -> Result<Option<S3Credentials>, SecretError> {
    const ID: (&str, &str) = ("FRONTDESK_S3_ACCESS_KEY_ID", "the id of the access key to objects.bucket");
    const SECRET: (&str, &str) = ("FRONTDESK_S3_SECRET_ACCESS_KEY", "the access key to objects.bucket");
    if settings.objects.bucket.is_empty()
        || (optional(ID.0, ID.1)?.is_none() && optional(SECRET.0, SECRET.1)?.is_none())
    {
        return Ok(None);
    }
    Ok(Some(S3Credentials { access_key_id: required(ID.0, ID.1)?, secret_access_key: required(SECRET.0, SECRET.1)? }))
}

/// The token that the settings name; one that is named must be there.
fn page_token(page: &PageSettings, pages: usize) -> Result<Option<SecretString>, SecretError> {
    const PURPOSE: &str = "the Page access token";
    match (&page.token_file, page.token_env.as_deref()) {
        (Some(path), _) => read_file(&format!("token of page {}", page.id), path, PURPOSE).map(Some),
        (None, Some(name)) => {
            let missing = || SecretError::PageToken { page: page.id.clone(), name: name.to_owned() };
            optional(name, PURPOSE)?.ok_or_else(missing).map(Some)
        }
        (None, None) if pages == 1 => optional("FRONTDESK_PAGE_TOKEN", PURPOSE),
        (None, None) => Ok(None),
    }
}

/// Reads a secret that must be there.
pub fn required(name: &str, purpose: &'static str) -> Result<SecretString, SecretError> {
    optional(name, purpose)?.ok_or_else(|| SecretError::Missing { name: name.to_owned(), purpose })
}

/// Reads a secret that may be absent; one that is present but empty is a mistake.
pub fn optional(name: &str, purpose: &'static str) -> Result<Option<SecretString>, SecretError> {
    if let Ok(path) = std::env::var(format!("{name}_FILE")) {
        return read_file(name, Path::new(&path), purpose).map(Some);
    }
    match std::env::var(name) {
        Ok(value) if value.trim().is_empty() => Err(SecretError::Empty { name: name.to_owned(), purpose }),
        Ok(value) => Ok(Some(SecretString::from(value.trim().to_owned()))),
        Err(_) => Ok(None),
    }
}

/// Reads a secret from a file; `name` is what a message calls it.
pub fn read_file(name: &str, path: &Path, purpose: &'static str) -> Result<SecretString, SecretError> {
    let text = std::fs::read_to_string(path).map_err(|source| SecretError::Unreadable {
        name: name.to_owned(),
        path: path.to_owned(),
        source,
    })?;
    if text.trim().is_empty() {
        return Err(SecretError::Empty { name: name.to_owned(), purpose });
    }
    Ok(SecretString::from(text.trim().to_owned()))
}

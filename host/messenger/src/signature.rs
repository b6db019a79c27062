//! `X-Hub-Signature-256`: proof that a webhook body comes from Meta.
//!
//! The header is `sha256=<hex>`, HMAC-SHA256 of the raw request body keyed with the app secret (Meta's webhooks page).
//! Meta signs the escaped form (`\u00e4`, `\/`), which is what travels, so only the exact bytes as received verify. One
//! app secret signs for every Page of the app; several may be given so that a secret can be rotated without a gap.
//!
//! Hex digits may have either case and blanks may surround the value; anything else must be exact. The older SHA-1 header
//! is never accepted. Comparison takes the same time wherever the difference is.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// The header that is verified.
pub const SIGNATURE_HEADER: &str = "x-hub-signature-256";
/// The header of old SDKs: looked at only to say that it is not enough.
pub const LEGACY_SIGNATURE_HEADER: &str = "x-hub-signature";

const PREFIX: &str = "sha256=";

/// Why a body is not accepted. Each maps to 401 or 403; none says more to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    #[error("no X-Hub-Signature-256 header; Meta signs every event, so this request is not from Meta")]
    Missing,
    #[error("only the SHA-1 header X-Hub-Signature is present; X-Hub-Signature-256 is required")]
    LegacyOnly,
    #[error("X-Hub-Signature-256 is not `sha256=` and 64 hexadecimal digits, once")]
    Malformed,
    #[error(
        "X-Hub-Signature-256 does not match the body; check that the app secret is this app's and that no proxy rewrites bodies"
    )]
    Mismatch,
    #[error("no app secret is configured, so no signature can be verified")]
    NoSecret,
}

impl SignatureError {
    /// The status to answer with.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Missing | Self::LegacyOnly | Self::Malformed => 401,
            Self::Mismatch => 403,
            Self::NoSecret => 503,
        }
    }
}

/// Verifies a header's value over the raw body against any of the secrets. Gives the index of the secret that matched, so
/// that one can see when an old one is no longer used. Empty secrets never match.
///
/// # Errors
/// See [`SignatureError`].
pub fn verify(header: Option<&str>, secrets: &[SecretString], body: &[u8]) -> Result<usize, SignatureError> {
    let given = digits(header.ok_or(SignatureError::Missing)?).ok_or(SignatureError::Malformed)?;
    let usable = || secrets.iter().enumerate().filter(|(_, secret)| !secret.expose_secret().is_empty());
    if usable().next().is_none() {
        return Err(SignatureError::NoSecret);
    }
    for (index, secret) in usable() {
        if hmac(secret, body).verify_slice(&given).is_ok() {
            return Ok(index);
        }
    }
    Err(SignatureError::Mismatch)
}

/// As [`verify`], from a request's headers: the header must be there exactly once.
///
/// # Errors
/// See [`SignatureError`].
pub fn verify_headers(
    headers: &http::HeaderMap,
    secrets: &[SecretString],
    body: &[u8],
) -> Result<usize, SignatureError> {
    let mut values = headers.get_all(SIGNATURE_HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) if headers.contains_key(LEGACY_SIGNATURE_HEADER) => Err(SignatureError::LegacyOnly),
        (None, _) => Err(SignatureError::Missing),
        (Some(_), Some(_)) => Err(SignatureError::Malformed),
        (Some(value), None) => verify(Some(value.to_str().map_err(|_| SignatureError::Malformed)?), secrets, body),
    }
}

/// The header's value for a body, as Meta writes it.
pub fn sign(secret: &SecretString, body: &[u8]) -> String {
    format!("{PREFIX}{}", hex::encode(hmac(secret, body).finalize().into_bytes()))
}

fn digits(header: &str) -> Option<[u8; 32]> {
    let hex = header.trim_ascii().strip_prefix(PREFIX)?;
    let mut digest = [0; 32];
    hex::decode_to_slice(hex, &mut digest).ok()?;
    Some(digest)
}

/// HMAC-SHA256 keyed with a secret, over some bytes.
pub(crate) fn hmac(secret: &SecretString, bytes: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length; the error cannot occur")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).expect("any key length");
    mac.update(bytes);
    mac
}

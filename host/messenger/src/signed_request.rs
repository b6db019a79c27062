//! `signed_request`: the body of the data-deletion and deauthorise callbacks.
//!
//! A form field `<base64url signature>.<base64url JSON>`; the signature is HMAC-SHA256(app secret, the *encoded* payload).
//! The payload is `{algorithm, issued_at, expires, user_id}`. `user_id` is app-scoped: it is not a PSID.
//! Source: Meta's data deletion callback page.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::Mac;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::event::lenient;
use crate::signature::hmac;

/// The longest field that is read, in bytes.
pub const SIGNED_REQUEST_BYTES_MAX: usize = 16 * 1024;

const ALGORITHM: &str = "HMAC-SHA256";

const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A verified request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRequest {
    /// App-scoped. Map it with `ids_for_pages`; it matches no PSID.
    pub user_id: String,
    pub issued_at_s: Option<i64>,
    /// `None` when it does not expire (Meta writes 0).
    pub expires_s: Option<i64>,
}

/// Why a signed request is refused; every one maps to 400 but a wrong signature, which is 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedRequestError {
    #[error("signed_request is longer than {SIGNED_REQUEST_BYTES_MAX} bytes")]
    TooLarge,
    #[error("signed_request is not two base64url parts joined by one dot")]
    Malformed,
    #[error("signed_request is not signed with this app's secret")]
    Mismatch,
    #[error("signed_request names another algorithm than {ALGORITHM}")]
    WrongAlgorithm,
    #[error("signed_request has expired")]
    Expired,
    #[error("signed_request has no user_id")]
    NoUser,
    #[error("no app secret is configured, so no signed_request can be verified")]
    NoSecret,
}

impl SignedRequestError {
    /// The status to answer with.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Mismatch => 403,
            Self::NoSecret => 503,
            _ => 400,
        }
    }
}

/// Verifies and reads a `signed_request` at a time (seconds since 1970). Nothing of the payload is looked at before the
/// signature holds.
///
/// # Errors
/// See [`SignedRequestError`].
pub fn parse_signed_request(
    field: &str,
    secrets: &[SecretString],
    now_unix_s: i64,
) -> Result<SignedRequest, SignedRequestError> {
    if field.len() > SIGNED_REQUEST_BYTES_MAX {
        return Err(SignedRequestError::TooLarge);
    }
    let (signature, payload) = field.trim_ascii().split_once('.').ok_or(SignedRequestError::Malformed)?;
    let signature = BASE64URL.decode(signature).map_err(|_| SignedRequestError::Malformed)?;
    let json = BASE64URL.decode(payload).map_err(|_| SignedRequestError::Malformed)?;
    let mut secrets = secrets.iter().filter(|secret| !secret.expose_secret().is_empty()).peekable();
    if secrets.peek().is_none() {
        return Err(SignedRequestError::NoSecret);
    }
    if !secrets.any(|secret| hmac(secret, payload.as_bytes()).verify_slice(&signature).is_ok()) {
        return Err(SignedRequestError::Mismatch);
    }

    let payload: Value = serde_json::from_slice(&json).map_err(|_| SignedRequestError::Malformed)?;
    let payload = payload.as_object().ok_or(SignedRequestError::Malformed)?;
    if !payload.get("algorithm").and_then(Value::as_str).is_some_and(|name| name.eq_ignore_ascii_case(ALGORITHM)) {
        return Err(SignedRequestError::WrongAlgorithm);
    }
    let expires_s = lenient::whole_at(payload, "expires").filter(|expires| *expires > 0);
    if expires_s.is_some_and(|expires| expires <= now_unix_s) {
        return Err(SignedRequestError::Expired);
    }
    Ok(SignedRequest {
        user_id: lenient::id_at(payload, "user_id").ok_or(SignedRequestError::NoUser)?,
        issued_at_s: lenient::whole_at(payload, "issued_at"),
        expires_s,
    })
}

//! `appsecret_proof`: shows with each Graph call that the caller knows the app secret, not just a token.
//!
//! Source: Meta's guide "Secure Graph API calls". The plain form is HMAC-SHA256(app secret, access token) as hex; the
//! timed one covers `token|unix_seconds`, travels with `appsecret_time` and is valid for five minutes. The call that
//! exchanges a user token takes neither.

use hmac::Mac;
use secrecy::{ExposeSecret, SecretString};

use crate::signature::hmac;

/// How long Meta accepts a timed proof, in seconds.
pub const TIMED_PROOF_VALID_S: i64 = 300;

/// The plain proof for a token, 64 lowercase hex digits.
pub fn appsecret_proof(app_secret: &SecretString, access_token: &SecretString) -> String {
    hex::encode(hmac(app_secret, access_token.expose_secret().as_bytes()).finalize().into_bytes())
}

/// The proof for a token at a time; send the same seconds as `appsecret_time`.
pub fn appsecret_proof_at(app_secret: &SecretString, access_token: &SecretString, unix_s: i64) -> String {
    let message = SecretString::from(format!("{}|{unix_s}", access_token.expose_secret()));
    appsecret_proof(app_secret, &message)
}

//! Who may use the admin API, and in whose name.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::AdminError;

/// Carries the token that opens what was taken out of documents.
const REVEAL_HEADER: &str = "x-frontdesk-reveal-token";

/// Whether the request may open what was taken out of documents; the admin token alone may not.
///
/// # Errors
/// [`AdminError::RevealDisabled`] and [`AdminError::RevealRefused`].
pub fn may_reveal(headers: &HeaderMap, token: Option<&SecretString>) -> Result<(), AdminError> {
    let token = TokenDigest::of(token.ok_or(AdminError::RevealDisabled)?);
    let mut given = headers.get_all(REVEAL_HEADER).iter();
    match (given.next(), given.next()) {
        (Some(value), None) if token.is(value.as_bytes().trim_ascii()) => Ok(()),
        _ => {
            metrics::counter!("frontdesk_reveal_refused_total").increment(1);
            Err(AdminError::RevealRefused)
        }
    }
}

/// Names the person who acts.
pub const AGENT_HEADER: &str = "x-frontdesk-agent";
/// Longest name of a person, in bytes of UTF-8.
pub const AGENT_BYTES_MAX: usize = 64;
/// Who acts when nobody is named.
const ANONYMOUS: &str = "admin";

/// SHA-256 of the admin token. Digests have one length, so comparing them says nothing about the token's.
#[derive(Clone, Copy)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub fn of(token: &SecretString) -> Self {
        Self(Sha256::digest(token.expose_secret().as_bytes()).into())
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        // Of two headers a proxy in front may have checked the other one.
        let (Some(value), None) = (given.next(), given.next()) else { return false };
        bearer(value.as_bytes()).is_some_and(|token| self.is(token))
    }

    fn is(&self, token: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(token).into();
        digest.ct_eq(&self.0).into()
    }
}

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") || !rest.starts_with(b" ") {
        return None;
    }
    let token = rest.trim_ascii();
    (!token.is_empty()).then_some(token)
}

/// Refuses every request without the token, before anything else looks at it.
pub async fn require_token(State(token): State<TokenDigest>, request: Request, next: Next) -> Response {
    if token.admits(request.headers()) {
        return next.run(request).await;
    }
    metrics::counter!("frontdesk_admin_refused_total").increment(1);
    AdminError::Unauthorized.into_response()
}

/// Who acts, for the audit log: the named person, or `admin`.
#[derive(Debug)]
pub struct Actor(pub String);

/// The named person; a request without a name is refused.
#[derive(Debug)]
pub struct Agent(pub String);

fn named(headers: &HeaderMap) -> Result<Option<String>, AdminError> {
    let Some(value) = headers.get(AGENT_HEADER) else { return Ok(None) };
    let name = std::str::from_utf8(value.as_bytes()).map(str::trim).unwrap_or_default();
    let is_printable = !name.is_empty() && name.len() <= AGENT_BYTES_MAX && name.chars().all(is_shown);
    if is_printable { Ok(Some(name.to_owned())) } else { Err(AdminError::AgentName) }
}

/// Not a control character, and none that turns or hides what stands beside it.
fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

impl<S: Sync> FromRequestParts<S> for Actor {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, AdminError> {
        Ok(Self(named(&parts.headers)?.unwrap_or_else(|| ANONYMOUS.to_owned())))
    }
}

impl<S: Sync> FromRequestParts<S> for Agent {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, AdminError> {
        named(&parts.headers)?.map(Self).ok_or(AdminError::AgentMissing)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn only_the_exact_token_is_admitted() {
        let token = TokenDigest::of(&SecretString::from("0123456789abcdef"));
        let cases: [(&[&[u8]], bool); 11] = [
            (&[b"Bearer 0123456789abcdef"], true),
            (&[b"bearer 0123456789abcdef"], true),
            (&[b"Bearer   0123456789abcdef"], true),
            (&[], false),
            (&[b"Bearer"], false),
            (&[b"Bearer "], false),
            (&[b"Bearer 0123456789abcde"], false),
            (&[b"Bearer 0123456789abcdef0"], false),
            (&[b"Bearer0123456789abcdef"], false),
            (&[b"Basic 0123456789abcdef"], false),
            (&[b"Bearer 0123456789abcdef", b"Bearer 0123456789abcdef"], false),
        ];
        for (values, expected) in cases {
            assert_eq!(token.admits(&headers("authorization", values)), expected, "{values:?}");
        }
    }

    #[test]
    fn an_agents_name_is_printable_and_short() {
        let longest = "x".repeat(AGENT_BYTES_MAX);
        let too_long = "x".repeat(AGENT_BYTES_MAX + 1);
        let cases = [
            ("Jürgen", Some("Jürgen")),
            (" Ana Pérez ", Some("Ana Pérez")),
            (longest.as_str(), Some(longest.as_str())),
            (too_long.as_str(), None),
            ("", None),
            ("  ", None),
            ("a\u{202e}b", None),
            ("a\tb", None),
        ];
        for (value, expected) in cases {
            let found = named(&headers(AGENT_HEADER, &[value.as_bytes()]));
            match expected {
                Some(name) => assert_eq!(found.unwrap().as_deref(), Some(name)),
                None => assert!(matches!(found, Err(AdminError::AgentName)), "{value:?}"),
            }
        }
        assert!(matches!(named(&headers(AGENT_HEADER, &[b"\xff\xfe"])), Err(AdminError::AgentName)));
        assert_eq!(named(&HeaderMap::new()).unwrap(), None);
    }
}

//! The verification request: `GET <callback>?hub.mode=subscribe&hub.verify_token=…&hub.challenge=1158201444`.
//!
//! Meta sends it when the callback is registered. The answer is 200 with the challenge as the whole body (text/plain), 403
//! to whoever does not show the right mode and token, each once. Only who has shown them is told, by 400, that the
//! challenge is none. It is echoed to whoever asks, so it must be digits and short: anything else would let a stranger place
//! text on our origin.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const MODE: &str = "hub.mode";
const TOKEN: &str = "hub.verify_token";
const CHALLENGE: &str = "hub.challenge";

/// The longest challenge echoed. Meta documents an int; today's have about ten digits.
pub const CHALLENGE_DIGITS_MAX: usize = 64;

/// Why a handshake is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    #[error("the query has no {parameter}; Meta sends hub.mode, hub.verify_token and hub.challenge")]
    Missing { parameter: &'static str },
    #[error("the query has {parameter} more than once")]
    Repeated { parameter: &'static str },
    #[error("hub.mode is not `subscribe`")]
    WrongMode,
    #[error("hub.verify_token is not the configured verify token; use the same string in the app dashboard and here")]
    WrongToken,
    #[error("hub.challenge is not 1 to {CHALLENGE_DIGITS_MAX} digits")]
    BadChallenge,
}

impl HandshakeError {
    /// The status to answer with.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Missing { parameter: CHALLENGE } | Self::Repeated { parameter: CHALLENGE } | Self::BadChallenge => {
                400
            }
            Self::Missing { .. } | Self::Repeated { .. } | Self::WrongMode | Self::WrongToken => 403,
        }
    }
}

/// Checks the three parameters and gives the challenge to answer with. Several tokens may be expected, for rotation; empty
/// ones never match.
///
/// # Errors
/// See [`HandshakeError`].
pub fn verify_handshake(
    mode: Option<&str>,
    verify_token: Option<&str>,
    challenge: Option<&str>,
    expected: &[SecretString],
) -> Result<String, HandshakeError> {
    let mode = mode.ok_or(HandshakeError::Missing { parameter: MODE })?;
    let token = verify_token.ok_or(HandshakeError::Missing { parameter: TOKEN })?;
    if mode != "subscribe" {
        return Err(HandshakeError::WrongMode);
    }
    // Digests have one length, so neither the token's content nor its length shows in the time taken.
    let given = Sha256::digest(token.as_bytes());
    let mut is_known = subtle::Choice::from(0);
    for expected in expected.iter().map(|token| token.expose_secret()).filter(|token| !token.is_empty()) {
        is_known |= given.as_slice().ct_eq(Sha256::digest(expected.as_bytes()).as_slice());
    }
    if !bool::from(is_known) {
        return Err(HandshakeError::WrongToken);
    }
    let challenge = challenge.ok_or(HandshakeError::Missing { parameter: CHALLENGE })?;
    let is_number =
        (1..=CHALLENGE_DIGITS_MAX).contains(&challenge.len()) && challenge.bytes().all(|b| b.is_ascii_digit());
    if is_number { Ok(challenge.to_owned()) } else { Err(HandshakeError::BadChallenge) }
}

/// As [`verify_handshake`], from a decoded query. Other parameters are ignored; one of ours twice is refused, because two
/// readers of the same query must not see different values.
///
/// # Errors
/// See [`HandshakeError`].
pub fn verify_handshake_query<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    expected: &[SecretString],
) -> Result<String, HandshakeError> {
    let (mut mode, mut token, mut challenge) = (None, None, None);
    let mut is_challenge_repeated = false;
    for (name, value) in pairs {
        let (parameter, slot) = match name {
            MODE => (MODE, &mut mode),
            TOKEN => (TOKEN, &mut token),
            CHALLENGE => (CHALLENGE, &mut challenge),
            _ => continue,
        };
        match slot.replace(value) {
            Some(_) if parameter == CHALLENGE => is_challenge_repeated = true,
            Some(_) => return Err(HandshakeError::Repeated { parameter }),
            None => {}
        }
    }
    let verified = verify_handshake(mode, token, challenge, expected)?;
    if is_challenge_repeated { Err(HandshakeError::Repeated { parameter: CHALLENGE }) } else { Ok(verified) }
}

//! The signature of Standard Webhooks (github.com/standard-webhooks/standard-webhooks, version `v1`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::Sha256;

/// Marks a secret that is written in base64.
const ENCODED_PREFIX: &str = "whsec_";

/// Signs bodies with one secret.
pub struct Signer {
    key: SecretBox<[u8]>,
}

impl Signer {
    pub fn new(secret: &SecretString) -> Self {
        let secret = secret.expose_secret();
        let decoded = secret.strip_prefix(ENCODED_PREFIX).and_then(|encoded| STANDARD.decode(encoded).ok());
        let key = decoded.unwrap_or_else(|| secret.as_bytes().to_vec());
        Self { key: SecretBox::new(key.into_boxed_slice()) }
    }

    /// The value of `Webhook-Signature`; `timestamp` is Unix time in seconds.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.expose_secret()) else {
            // HMAC takes keys of every length (RFC 2104, section 2), so this is never reached.
            return String::new();
        };
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of the reference libraries' own test.
    #[test]
    fn it_signs_as_the_standard_does() {
        let signer = Signer::new(&SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        let found = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(found, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_part_is_signed_and_plain_secrets_are_taken_as_they_are() {
        let plain = Signer::new(&SecretString::from("a plain secret"));
        let signed = plain.sign("1", 2, b"3");
        for other in [plain.sign("2", 2, b"3"), plain.sign("1", 3, b"3"), plain.sign("1", 2, b"4")] {
            assert_ne!(other, signed);
        }
        // `whsec_` with something that is no base64 is a plain secret too.
        let odd = Signer::new(&SecretString::from("whsec_***"));
        assert_ne!(odd.sign("1", 2, b"3"), signed);
        assert!(odd.sign("1", 2, b"3").starts_with("v1,"));
    }
}

//! One sealed value: `format (1 byte) | nonce (12) | ciphertext | tag (16)`.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// The only format so far. A later one has another number, and this one stays readable.
const FORMAT: u8 = 1;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// Before every associated data, so that a value of another program with the same key does not open here.
const CONTEXT: &[u8] = b"frontdesk sealed value";

/// What a ciphertext belongs to. Equal bindings only open each other's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding<'a> {
    /// What the value is, such as `decision-record`.
    pub purpose: &'static str,
    /// Version of the value's own form.
    pub version: u32,
    /// The row: Page, person, id; in the purpose's order.
    pub ids: &'a [&'a str],
}

impl Binding<'_> {
    /// Each part with its length before it: no two bindings have the same bytes.
    fn to_bytes(self) -> Vec<u8> {
        let ids: usize = self.ids.iter().map(|id| 8 + id.len()).sum();
        let mut bytes = Vec::with_capacity(CONTEXT.len() + 8 + self.purpose.len() + ids + 4);
        bytes.extend_from_slice(CONTEXT);
        let mut part = |text: &str| {
            bytes.extend_from_slice(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        part(self.purpose);
        self.ids.iter().for_each(|id| part(id));
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes
    }
}

/// Why a value does not open. None says anything of the key or the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("a sealed value has {found} bytes, expected at least {expected}: it was cut")]
    Short { found: usize, expected: usize },
    #[error("a sealed value has the format {found}, expected {FORMAT}: a later version of Frontdesk wrote it")]
    Format { found: u8 },
    #[error("a sealed value ({purpose}) does not open: it was changed, belongs to another row, or another key made it")]
    Refused { purpose: &'static str },
    #[error("a wrapped key has {found} bytes, expected {KEY_BYTES}")]
    KeyLength { found: usize },
    #[error("a value ({purpose}) cannot be sealed: the system's random numbers failed")]
    Sealing { purpose: &'static str },
}

/// 256 secret bits that seal. Wiped when dropped.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; KEY_BYTES]>);

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

impl SealingKey {
    /// A new one, from the system's random numbers.
    pub fn random() -> Result<Self, OpenError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        aws_lc_rs::rand::fill(&mut bytes[..]).map_err(|_| OpenError::Sealing { purpose: "key" })?;
        Ok(Self(bytes))
    }

    /// From exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, OpenError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if bytes.len() != KEY_BYTES {
            return Err(OpenError::KeyLength { found: bytes.len() });
        }
        key.copy_from_slice(bytes);
        Ok(Self(key))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0[..]
    }

    /// The key for one purpose: HKDF-SHA256 with the purpose as info. The key itself is uniform, so there is no salt.
    #[must_use]
    pub fn derived(&self, purpose: &str) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let hkdf = Hkdf::<Sha256>::new(None, self.bytes());
        #[expect(clippy::expect_used, reason = "32 bytes are within HKDF's limit of 255 times 32")]
        hkdf.expand_multi_info(&[b"frontdesk key for ", purpose.as_bytes()], &mut bytes[..]).expect("32 bytes");
        Self(bytes)
    }

    /// The cipher with this key set up, for many values.
    pub fn cipher(&self) -> Result<Cipher, OpenError> {
        RandomizedNonceKey::new(&AES_256_GCM_SIV, self.bytes())
            .map(Cipher)
            .map_err(|_| OpenError::Sealing { purpose: "key" })
    }

    /// Seals a value for its place.
    pub fn seal(&self, binding: &Binding<'_>, plain: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.cipher()?.seal(binding, &[], plain)
    }

    /// Opens a value at its place.
    pub fn open(&self, binding: &Binding<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.cipher()?.open(binding, sealed)
    }
}

/// A key that is set up: the library wipes what it keeps of it. Threads may share it, since each value draws its own nonce.
pub struct Cipher(RandomizedNonceKey);

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(…)")
    }
}

impl Cipher {
    /// Seals a value for its place. The sealed value follows `before`, which is not part of it.
    pub fn seal(&self, binding: &Binding<'_>, before: &[u8], plain: &[u8]) -> Result<Vec<u8>, OpenError> {
        let head = before.len() + 1 + NONCE_LEN;
        // Encrypted where it stays; growing would leave the plain text behind in freed memory.
        let mut sealed = Vec::with_capacity(head + plain.len() + TAG_BYTES);
        sealed.extend_from_slice(before);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&[0; NONCE_LEN]);
        sealed.extend_from_slice(plain);
        let (start, body) = sealed.split_at_mut(head);
        let (nonce, tag) = self
            .0
            .seal_in_place_separate_tag(Aad::from(binding.to_bytes()), body)
            .map_err(|_| OpenError::Sealing { purpose: binding.purpose })?;
        let (_, place) = start.split_at_mut(head - NONCE_LEN);
        place.copy_from_slice(nonce.as_ref());
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens a value at its place.
    pub fn open(&self, binding: &Binding<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let refused = |_| OpenError::Refused { purpose: binding.purpose };
        let expected = 1 + NONCE_LEN + TAG_BYTES;
        let short = || OpenError::Short { found: sealed.len(), expected };
        let (&format, rest) = sealed.split_first().ok_or_else(short)?;
        if format != FORMAT {
            return Err(OpenError::Format { found: format });
        }
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or_else(short)?;
        if body.len() < TAG_BYTES {
            return Err(short());
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(refused)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self.0.open_in_place(nonce, Aad::from(binding.to_bytes()), &mut body).map_err(refused)?.len();
        body.truncate(length);
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Binding<'static> = Binding { purpose: "test", version: 1, ids: &["42", "7"] };

    fn key(byte: u8) -> SealingKey {
        SealingKey::from_slice(&[byte; KEY_BYTES]).unwrap()
    }

    #[test]
    fn a_value_opens_at_its_place_and_under_its_key_only() {
        let sealed = key(1).seal(&PLACE, b"Where is my parcel?").unwrap();
        assert_eq!(&key(1).open(&PLACE, &sealed).unwrap()[..], b"Where is my parcel?");
        assert!(!sealed.windows(6).any(|window| window == b"parcel"));
        let places = [
            Binding { purpose: "other", ..PLACE },
            Binding { version: 2, ..PLACE },
            Binding { ids: &["42", "8"], ..PLACE },
            Binding { ids: &["427"], ..PLACE },
            Binding { ids: &["4", "27"], ..PLACE },
            Binding { ids: &["42", "7", ""], ..PLACE },
            Binding { ids: &["7", "42"], ..PLACE },
        ];
        for place in places {
            assert_eq!(
                key(1).open(&place, &sealed).unwrap_err(),
                OpenError::Refused { purpose: place.purpose },
                "{place:?}"
            );
        }
        assert_eq!(key(2).open(&PLACE, &sealed).unwrap_err(), OpenError::Refused { purpose: "test" });
        assert!(key(1).derived("a").open(&PLACE, &sealed).is_err());
    }

    #[test]
    fn a_changed_or_cut_value_does_not_open() {
        let sealed = key(1).seal(&PLACE, b"x").unwrap();
        for at in 1..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key(1).open(&PLACE, &changed).is_err(), "byte {at}");
        }
        for length in 0..sealed.len() {
            assert!(key(1).open(&PLACE, &sealed[..length]).is_err(), "{length} bytes");
        }
        let mut longer = sealed.clone();
        longer.push(0);
        assert!(key(1).open(&PLACE, &longer).is_err());
        let mut later = sealed;
        later[0] = 2;
        assert_eq!(key(1).open(&PLACE, &later).unwrap_err(), OpenError::Format { found: 2 });
    }

    #[test]
    fn sealing_twice_gives_other_bytes_and_an_empty_value_is_one_too() {
        assert_ne!(key(1).seal(&PLACE, b"x").unwrap(), key(1).seal(&PLACE, b"x").unwrap());
        let after = key(1).cipher().unwrap().seal(&PLACE, b"before", b"x").unwrap();
        assert_eq!(&key(1).open(&PLACE, after.strip_prefix(b"before").unwrap()).unwrap()[..], b"x");
        let empty = key(1).seal(&PLACE, b"").unwrap();
        assert!(key(1).open(&PLACE, &empty).unwrap().is_empty());
        assert_ne!(key(1).derived("a").bytes(), key(1).derived("b").bytes());
        assert_ne!(SealingKey::random().unwrap().bytes(), SealingKey::random().unwrap().bytes());
        assert_eq!(format!("{:?}", key(7)), "SealingKey(…)");
    }

    /// What version 1 wrote must stay readable. Another implementation of AES-GCM-SIV and HKDF (OpenSSL's) made this value.
    #[test]
    fn a_value_that_was_sealed_once_still_opens() {
        let sealed = hex::decode(include_str!("sealed_v1.hex").trim()).unwrap();
        assert_eq!(&key(9).derived("test").open(&PLACE, &sealed).unwrap()[..], b"kept since version 1");
    }
}

//! The key-encryption keys that a process holds: several by id, the first one wraps.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::KeyError;
use super::seal::{Binding, SealingKey};

/// Longest id of a key, in bytes.
const ID_BYTES_MAX: usize = 64;
/// Most keys in one ring: two while rotating, some more for those who never tidy up.
const KEYS_MAX: usize = 32;
const CHECK_BYTES: usize = 16;

/// The id of a key-encryption key: letters, digits, `-` and `_`.
pub type KeyId = String;

/// A value wrapped under the key of this id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    pub key_id: KeyId,
    pub sealed: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Held {
    id: KeyId,
    key: SealingKey,
}

/// The keys of one process. `Debug` shows the ids only.
#[derive(Debug, Clone)]
pub struct KeyRing {
    /// Never empty; the first one wraps.
    keys: Vec<Held>,
}

impl KeyRing {
    /// Reads `id:key` pairs, one a line (or separated by commas); the key is base64 of 32 bytes. Blank lines and lines that
    /// begin with `#` are passed over.
    ///
    /// # Errors
    /// [`KeyError::Unreadable`], [`KeyError::Twice`] or [`KeyError::Empty`].
    pub fn parse(text: &SecretString) -> Result<Self, KeyError> {
        let mut keys: Vec<Held> = Vec::new();
        let lines = text.expose_secret().split(['\n', ',']).enumerate();
        for (index, line) in lines.map(|(index, line)| (index + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let unreadable = |problem: &str| KeyError::Unreadable { line: index, problem: problem.to_owned() };
            let (id, key) = line.split_once(':').ok_or_else(|| unreadable("there is no colon"))?;
            let (id, key) = (id.trim(), key.trim());
            if !is_id(id) {
                return Err(unreadable("the id is not made of at most 64 letters, digits, - and _"));
            }
            let bytes = Zeroizing::new(BASE64.decode(key).map_err(|_| unreadable("the key is not base64"))?);
            let key = SealingKey::from_slice(&bytes)
                .map_err(|_| unreadable(&format!("the key has {} bytes, expected 32", bytes.len())))?;
            if keys.iter().any(|held| held.id == id) {
                return Err(KeyError::Twice { id: id.to_owned() });
            }
            if keys.len() == KEYS_MAX {
                return Err(unreadable("there are more than 32 keys"));
            }
            keys.push(Held { id: id.to_owned(), key });
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self { keys }) }
    }

    /// A line with a new key, as [`KeyRing::parse`] reads it. The id tells the day, and is random beyond it.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn new_line(day: chrono::NaiveDate) -> Result<SecretString, KeyError> {
        let key = SealingKey::random().map_err(|_| KeyError::Random)?;
        let mut suffix = [0; 4];
        aws_lc_rs::rand::fill(&mut suffix).map_err(|_| KeyError::Random)?;
        let encoded = Zeroizing::new(BASE64.encode(key.bytes()));
        Ok(SecretString::from(format!("k{}-{}:{}", day.format("%Y%m%d"), hex::encode(suffix), encoded.as_str())))
    }

    /// The id of the key that wraps.
    #[must_use]
    pub fn current(&self) -> &str {
        self.keys.first().map_or("", |held| held.id.as_str())
    }

    /// The ids of all keys, the current one first.
    #[must_use]
    pub fn ids(&self) -> Vec<KeyId> {
        self.keys.iter().map(|held| held.id.clone()).collect()
    }

    /// What tells two keys of one id apart without telling anything of either.
    #[must_use]
    pub fn check_value(&self, id: &str) -> Option<[u8; CHECK_BYTES]> {
        let key = self.find(id)?.derived("check value");
        key.bytes().first_chunk().copied()
    }

    /// A key for keyed digests, such as of the ids of erased people; it follows the current key.
    #[must_use]
    pub fn digest_key(&self) -> Zeroizing<Vec<u8>> {
        let key = self.keys.first().map(|held| held.key.derived("digests"));
        Zeroizing::new(key.map(|key| key.bytes().to_vec()).unwrap_or_default())
    }

    /// Wraps under the current key.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the system's random numbers fail.
    pub fn wrap(&self, binding: &Binding<'_>, secret: &[u8]) -> Result<Wrapped, KeyError> {
        let held = self.keys.first().ok_or(KeyError::Empty)?;
        let sealed = held.key.derived(binding.purpose).seal(binding, secret).map_err(|_| KeyError::Random)?;
        Ok(Wrapped { key_id: held.id.clone(), sealed })
    }

    /// Opens a wrapped value.
    ///
    /// # Errors
    /// [`KeyError::Missing`] when its key is not held; [`KeyError::Open`] when it is not this binding's.
    pub fn unwrap(&self, binding: &Binding<'_>, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let key = self.find(&wrapped.key_id).ok_or_else(|| KeyError::Missing { id: wrapped.key_id.clone() })?;
        Ok(key.derived(binding.purpose).open(binding, &wrapped.sealed)?)
    }

    /// The same value under the current key.
    ///
    /// # Errors
    /// As [`KeyRing::unwrap`] and [`KeyRing::wrap`].
    pub fn rewrap(&self, binding: &Binding<'_>, wrapped: &Wrapped) -> Result<Wrapped, KeyError> {
        self.wrap(binding, &self.unwrap(binding, wrapped)?)
    }

    fn find(&self, id: &str) -> Option<&SealingKey> {
        self.keys.iter().find(|held| held.id == id).map(|held| &held.key)
    }
}

fn is_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Binding<'static> = Binding { purpose: "test", version: 1, ids: &["42"] };

    fn line(id: &str, byte: u8) -> String {
        format!("{id}:{}", BASE64.encode([byte; 32]))
    }

    fn ring(text: &str) -> Result<KeyRing, KeyError> {
        KeyRing::parse(&SecretString::from(text.to_owned()))
    }

    #[test]
    fn the_first_key_wraps_and_every_key_unwraps() {
        let old = ring(&line("old", 1)).unwrap();
        let wrapped = old.wrap(&PLACE, b"secret").unwrap();
        assert_eq!(wrapped.key_id, "old");
        let both = ring(&format!("# rotating\n\n{}\n{}\n", line("new", 2), line("old", 1))).unwrap();
        assert_eq!((both.current(), both.ids()), ("new", vec!["new".to_owned(), "old".to_owned()]));
        assert_eq!(&both.unwrap(&PLACE, &wrapped).unwrap()[..], b"secret");
        let again = both.rewrap(&PLACE, &wrapped).unwrap();
        assert_eq!(again.key_id, "new");
        let new = ring(&line("new", 2)).unwrap();
        assert_eq!(&new.unwrap(&PLACE, &again).unwrap()[..], b"secret");
        assert!(matches!(new.unwrap(&PLACE, &wrapped), Err(KeyError::Missing { id }) if id == "old"));
        let elsewhere = Binding { ids: &["43"], ..PLACE };
        assert!(matches!(both.unwrap(&elsewhere, &wrapped), Err(KeyError::Open { .. })));
    }

    #[test]
    fn mistakes_are_named_and_never_show_a_key() {
        let cases = [
            ("", "holds no key"),
            ("# only a comment", "holds no key"),
            ("abc", "line 1: there is no colon"),
            ("a b:AAAA", "line 1: the id"),
            ("a:not base64!", "line 1: the key is not base64"),
            ("a:AAAA", "line 1: the key has 3 bytes, expected 32"),
        ];
        for (text, expected) in cases {
            let message = ring(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?} gave {message:?}");
        }
        let twice = ring(&format!("{},{}", line("a", 1), line("a", 2))).unwrap_err();
        assert!(twice.to_string().contains("key id a twice"));
        let shown = format!("{:?}", ring(&line("a", 1)).unwrap());
        assert!(!shown.contains(&BASE64.encode([1; 32])), "{shown}");
    }

    #[test]
    fn a_new_line_is_read_back_and_never_the_same() {
        let day = chrono::NaiveDate::from_ymd_opt(2027, 1, 15).unwrap();
        let (one, two) = (KeyRing::new_line(day).unwrap(), KeyRing::new_line(day).unwrap());
        assert_ne!(one.expose_secret(), two.expose_secret());
        let ring = KeyRing::parse(&one).unwrap();
        assert!(ring.current().starts_with("k20270115-"));
        assert_ne!(ring.check_value(ring.current()), KeyRing::parse(&two).unwrap().check_value(ring.current()));
    }
}

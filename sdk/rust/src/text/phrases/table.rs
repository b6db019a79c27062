//! A small open-addressing table from hashes to word numbers. The tags are 32 bits, so the caller compares the letters.
//!
//! Two flat vectors, no pointers: a fresh instance faults in only the pages it probes.

/// FNV-1a, finished so that the low bits are mixed. It can be read after every byte, which gives the hashes of all
/// beginnings of a word on the way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hash(u32);

impl Hash {
    pub(super) fn new() -> Self {
        Self(0x811c_9dc5)
    }

    pub(super) fn push(&mut self, byte: u8) {
        self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }

    /// Never 0, which marks an empty place.
    pub(super) fn value(self) -> u32 {
        let mixed = (self.0 ^ self.0 >> 15).wrapping_mul(0x2c1b_3c6d);
        (mixed ^ mixed >> 13) | 1 << 31
    }
}

pub(super) fn hash(bytes: &[u8]) -> u32 {
    let mut hash = Hash::new();
    bytes.iter().for_each(|byte| hash.push(*byte));
    hash.value()
}

/// The hash of the word without the byte at `left_out`.
pub(super) fn hash_without(bytes: &[u8], left_out: usize) -> u32 {
    let mut hash = Hash::new();
    for (index, byte) in bytes.iter().enumerate() {
        if index != left_out {
            hash.push(*byte);
        }
    }
    hash.value()
}

#[derive(Debug, Default)]
pub(super) struct Table {
    tags: Vec<u32>,
    ids: Vec<u16>,
}

impl Table {
    /// Room for `count` entries, half empty so that probes stay short.
    pub(super) fn with_room(count: usize) -> Self {
        let size = (count * 2 + 1).next_power_of_two();
        Self { tags: vec![0; size], ids: vec![0; size] }
    }

    pub(super) fn insert(&mut self, hash: u32, id: u16) {
        let mask = self.tags.len() - 1;
        let mut at = hash as usize & mask;
        while self.tags[at] != 0 {
            if self.tags[at] == hash && self.ids[at] == id {
                return;
            }
            at = (at + 1) & mask;
        }
        self.tags[at] = hash;
        self.ids[at] = id;
    }

    /// The first entry of that hash which `fits`.
    pub(super) fn get(&self, hash: u32, fits: impl Fn(u16) -> bool) -> Option<u16> {
        if self.tags.is_empty() {
            return None;
        }
        let mask = self.tags.len() - 1;
        let mut at = hash as usize & mask;
        while self.tags[at] != 0 {
            if self.tags[at] == hash && fits(self.ids[at]) {
                return Some(self.ids[at]);
            }
            at = (at + 1) & mask;
        }
        None
    }
}

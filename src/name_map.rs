//! Maps by name of topics, groups and addresses, used once or more for each message.
//!
//! Names come from the program itself and from its own name servers, not from the senders of messages. So colliding
//! names are no attack, and a hash that mixes eight bytes with one multiplication is enough.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Map by name.
pub(crate) type NameMap<V> = HashMap<Arc<str>, V, BuildHasherDefault<NameHasher>>;

/// Odd number without a pattern, so that each bit of the input changes many bits of the product.
const MIXER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Hasher of one name.
#[derive(Debug, Default)]
pub(crate) struct NameHasher(u64);

impl NameHasher {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word).wrapping_mul(u128::from(MIXER));
        let [low, high] = [product & u128::from(u64::MAX), product >> 64].map(|half| u64::try_from(half).unwrap_or(0));
        self.0 = low ^ high;
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let last = rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        // The length distinguishes a name with a trailing zero byte from the name without it.
        self.mix(last ^ (bytes.len() as u64) << 56);
    }

    fn write_u8(&mut self, _end: u8) {
        // `str` appends this byte to separate itself from a following field, and there is none.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasher, Hash};

    use super::*;

    fn hash(name: &str) -> u64 {
        BuildHasherDefault::<NameHasher>::default().hash_one(name)
    }

    #[test]
    fn names_that_differ_little_spread_over_a_table() {
        let names = (0..1000).flat_map(|i| [format!("10.0.0.{i}:10911"), format!("Topic{i}"), "a".repeat(i + 1)]);
        let names: Vec<_> = names.collect();
        let hashes: HashSet<_> = names.iter().map(|name| hash(name)).collect();
        assert_eq!(hashes.len(), names.len());
        // The table takes the bucket from the low bits and the tag from the high ones.
        for part in [|hash: u64| hash & 1023, |hash: u64| hash >> 54] {
            let places: HashSet<_> = hashes.iter().map(|&hash| part(hash)).collect();
            assert!(places.len() > 900, "{}", places.len());
        }
    }

    #[test]
    fn a_name_is_found_by_its_text() {
        let mut map = NameMap::default();
        map.insert(Arc::from("TopicTest"), 1);
        assert_eq!(map.get("TopicTest"), Some(&1));
        assert_eq!(map.get("TopicTest\0"), None);
        let mut hasher = NameHasher::default();
        "TopicTest".hash(&mut hasher);
        assert_eq!(hasher.finish(), hash("TopicTest"));
    }
}

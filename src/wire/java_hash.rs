//! Hash functions that the Java client and the broker apply to texts. Pure functions.

/// Computes Java's `String.hashCode`: over the text's UTF-16 code units, wrapping at 32 bits.
///
/// ```
/// assert_eq!(rocketmq_sync::unversioned::wire::java_hash::java_string_hash("TagA"), 2598919);
/// ```
#[must_use]
pub fn java_string_hash(text: &str) -> i32 {
    if text.is_ascii() {
        text.bytes().fold(0, |hash, byte| step(hash, u16::from(byte)))
    } else {
        text.encode_utf16().fold(0, step)
    }
}

/// Returns the hash code by which a broker filters a message's tag; 0 without a tag.
///
/// Different tags can share a hash code, so the receiver compares the tag itself too.
#[must_use]
pub fn tags_code(tag: Option<&str>) -> i64 {
    tag.map_or(0, |tag| i64::from(java_string_hash(tag)))
}

fn step(hash: i32, unit: u16) -> i32 {
    hash.wrapping_mul(31).wrapping_add(i32::from(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_goes_by_utf16_code_units() {
        assert_eq!(java_string_hash("\u{1F600}"), 1_772_899);
        assert_eq!(java_string_hash("Aa"), java_string_hash("BB"));
    }

    #[test]
    fn no_tag_and_an_empty_tag_have_the_same_code() {
        assert_eq!((tags_code(None), tags_code(Some(""))), (0, 0));
    }
}

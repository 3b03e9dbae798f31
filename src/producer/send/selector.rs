//! Choice of a queue by the hash of a key.

/// Index of the queue for a hash, as the Java client computes it; out of range when there is no queue.
pub(crate) fn index_of_hash(hash: i32, count: usize) -> usize {
    let magnitude = usize::try_from(hash.unsigned_abs()).unwrap_or(usize::MAX);
    magnitude.checked_rem(count).unwrap_or(usize::MAX)
}

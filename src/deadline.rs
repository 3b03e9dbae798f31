//! Deadlines from user-given timeouts.

use std::time::{Duration, Instant};

/// Longer than the life of any process, and short enough that an `Instant` can hold sums with it.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Returns the deadline of a `timeout` that begins now. A timeout of decades, such as [`Duration::MAX`], means no
/// limit.
pub(crate) fn deadline_after(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(FOR_EVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_without_an_end_is_a_deadline_that_never_comes() {
        let now = Instant::now();
        let deadline = deadline_after(Duration::MAX);
        assert!(deadline > now + FOR_EVER / 2);
        // Lower layers add tolerances and shares of their own.
        assert!(deadline.checked_add(FOR_EVER).is_some());
        assert!(deadline_after(Duration::ZERO) <= Instant::now());
    }
}

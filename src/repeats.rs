//! Limits repeated log lines: a repeated cause is logged at its 1st, 2nd, 4th, 8th ... time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time after which a cause that does not repeat is counted from 1 again; longer than any interval between two retries.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);
/// Number of repetitions from which a lasting outage is logged again, after its first line; reached after one or two
/// minutes.
const LASTING: u32 = 64;

/// Number of repetitions by cause.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    by_cause: Mutex<HashMap<String, Repeated>>,
}

#[derive(Debug)]
struct Repeated {
    times: u32,
    last: Instant,
}

impl Repeats {
    /// Counts a repetition. Returns the count if this repetition is to be logged.
    pub(crate) fn note(&self, cause: &str, now: Instant) -> Option<u32> {
        let times = self.count(cause, now);
        times.is_power_of_two().then_some(times)
    }

    /// Counts a repetition of a failure that many callers retry all the time while a server is down: see
    /// [`is_news_of_outage`].
    pub(crate) fn note_outage(&self, cause: &str, now: Instant) -> Option<u32> {
        let times = self.count(cause, now);
        is_news_of_outage(times).then_some(times)
    }

    fn count(&self, cause: &str, now: Instant) -> u32 {
        let mut by_cause = self.by_cause.lock();
        by_cause.retain(|_, repeated| now.saturating_duration_since(repeated.last) < FORGOTTEN_AFTER);
        let repeated = by_cause.entry(cause.to_owned()).or_insert(Repeated { times: 0, last: now });
        repeated.times = repeated.times.saturating_add(1);
        repeated.last = now;
        repeated.times
    }
}

/// True if this number of consecutive failures is logged: the first one, and some after minutes.
pub(crate) fn is_news_of_outage(failures: u32) -> bool {
    failures == 1 || (failures >= LASTING && failures.is_power_of_two())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_hundred_failures_of_one_cause_are_nine_lines_and_another_cause_is_told_at_once() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        let told: Vec<_> = (0..500).filter_map(|_| repeats.note("a", now)).collect();
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64, 128, 256]);
        assert_eq!(repeats.note("b", now), Some(1));
    }

    #[test]
    fn an_outage_is_told_when_it_begins_and_then_rarely() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        let told: Vec<_> = (0..500).filter_map(|_| repeats.note_outage("a", now)).collect();
        assert_eq!(told, [1, 64, 128, 256]);
    }

    #[test]
    fn what_has_not_happened_for_long_is_news_and_leaves_nothing_behind() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        let told = |times: Duration| repeats.note("a", now + times);
        assert_eq!([told(Duration::ZERO), told(Duration::ZERO), told(Duration::ZERO)], [Some(1), Some(2), None]);
        repeats.note("b", now + FORGOTTEN_AFTER);
        assert_eq!(repeats.by_cause.lock().len(), 1);
        assert_eq!(told(FORGOTTEN_AFTER), Some(1));
    }
}

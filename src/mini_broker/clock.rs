//! Clock of the mini broker: the system's, or one that a test moves.
//!
//! Every store timestamp, delay and long poll uses this clock, so hours can pass in a test within milliseconds. All
//! times are milliseconds since 1970, as on the wire. Only the broker's thread reads it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Clock of a mini broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clock {
    /// Time passes as in the system, and [`MiniBroker::advance`](super::MiniBroker::advance) adds jumps.
    #[default]
    Running,
    /// Time changes only by [`MiniBroker::advance`](super::MiniBroker::advance): until then no long poll ends and no
    /// delayed message is delivered.
    Manual,
}

/// Running clock.
#[derive(Debug)]
pub(super) struct Timekeeper {
    kind: Clock,
    started: Instant,
    /// Time at `started`, plus all jumps since.
    base: i64,
}

impl Timekeeper {
    pub(super) fn new(kind: Clock) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { kind, started: Instant::now(), base: millis(since_1970) }
    }

    /// Returns the time in milliseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        match self.kind {
            Clock::Running => self.base.saturating_add(millis(self.started.elapsed())),
            Clock::Manual => self.base,
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.base = self.base.saturating_add(millis(by));
    }

    /// Returns the duration until `due` for which the thread may sleep; `None` if time does not pass by itself.
    pub(super) fn wait_until(&self, due: i64) -> Option<Duration> {
        match self.kind {
            Clock::Running => {
                Some(Duration::from_millis(u64::try_from(due.saturating_sub(self.now())).unwrap_or_default()))
            }
            Clock::Manual => None,
        }
    }
}

/// Converts a duration to the wire's unit.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let mut clock = Timekeeper::new(Clock::Manual);
        let start = clock.now();
        assert_eq!(clock.wait_until(start + 1), None);
        clock.advance(Duration::from_secs(7200));
        assert_eq!(clock.now(), start + 7_200_000);
    }

    #[test]
    fn a_running_clock_jumps_ahead_and_runs_on() {
        let mut clock = Timekeeper::new(Clock::Running);
        let start = clock.now();
        clock.advance(Duration::from_secs(60));
        assert!(clock.now() >= start + 60_000);
        assert_eq!(clock.wait_until(start), Some(Duration::ZERO));
    }
}

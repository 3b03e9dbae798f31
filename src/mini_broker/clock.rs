//! The mini broker's time: the system's, or one that only moves when it is told to.
//!
//! Every stored message, delay and long poll goes by this clock, so that hours pass in a test within milliseconds. All
//! times are milliseconds since 1970, as on the wire. Read by the broker's own thread only.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How a mini broker's time passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clock {
    /// Time passes as it does for everybody, and jumps ahead by what is given to
    /// [`MiniBroker::advance`](super::MiniBroker::advance).
    #[default]
    Running,
    /// Time stands still, and moves only by [`MiniBroker::advance`](super::MiniBroker::advance): no long poll ends and
    /// no delayed message appears before the test says so.
    Manual,
}

/// A clock at work.
#[derive(Debug)]
pub(super) struct Timekeeper {
    kind: Clock,
    started: Instant,
    /// The time at `started`, and all jumps since.
    base: i64,
}

impl Timekeeper {
    pub(super) fn new(kind: Clock) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { kind, started: Instant::now(), base: millis(since_1970) }
    }

    /// Milliseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        match self.kind {
            Clock::Running => self.base.saturating_add(millis(self.started.elapsed())),
            Clock::Manual => self.base,
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.base = self.base.saturating_add(millis(by));
    }

    /// How long the thread may sleep until `due`: without limit when time does not pass by itself.
    pub(super) fn wait_until(&self, due: i64) -> Option<Duration> {
        match self.kind {
            Clock::Running => {
                Some(Duration::from_millis(u64::try_from(due.saturating_sub(self.now())).unwrap_or_default()))
            }
            Clock::Manual => None,
        }
    }
}

/// A length of time in the wire's unit.
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

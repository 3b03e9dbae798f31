//! The one end of a member: the first shutdown carries it out and leaves its report, later ones return that report.
//!
//! Runs on callers' threads. The lock is never held while the end is carried out.

use std::fmt;
use std::thread::{self, ThreadId};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// The end of one producer or consumer, with a report of type `R`.
pub(crate) struct Ending<R> {
    state: Mutex<EndingState<R>>,
    ended: Condvar,
}

enum EndingState<R> {
    Alive,
    /// Carried out by this thread, which cannot wait for itself: a logger may call back.
    Underway(ThreadId),
    Ended(R),
}

impl<R: Clone> Ending<R> {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(EndingState::Alive), ended: Condvar::new() }
    }

    /// Carries out `end` for the first caller. Others get its report, waiting for it until `deadline`; `None` if the
    /// first caller has not finished by then.
    pub(crate) fn run(&self, deadline: Instant, end: impl FnOnce() -> R) -> Option<R> {
        let own = thread::current().id();
        {
            let mut state = self.state.lock();
            loop {
                match &*state {
                    EndingState::Alive => break,
                    EndingState::Ended(report) => return Some(report.clone()),
                    EndingState::Underway(by) if *by == own => return None,
                    EndingState::Underway(_) => {
                        if self.ended.wait_until(&mut state, deadline).timed_out() {
                            return self.finished(&state);
                        }
                    }
                }
            }
            *state = EndingState::Underway(own);
        }
        let report = end();
        *self.state.lock() = EndingState::Ended(report.clone());
        self.ended.notify_all();
        Some(report)
    }

    /// The report of an end that is over.
    pub(crate) fn report(&self) -> Option<R> {
        self.finished(&self.state.lock())
    }

    fn finished(&self, state: &EndingState<R>) -> Option<R> {
        match state {
            EndingState::Ended(report) => Some(report.clone()),
            EndingState::Alive | EndingState::Underway(_) => None,
        }
    }
}

impl<R> fmt::Debug for Ending<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ending")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn the_first_report_is_everyones_and_the_end_is_carried_out_once() {
        let ending = Ending::new();
        assert_eq!(ending.report(), None);
        assert_eq!(ending.run(soon(), || 1), Some(1));
        assert_eq!(ending.run(soon(), || panic!("a second end")), Some(1));
        assert_eq!(ending.report(), Some(1));
    }

    #[test]
    fn an_end_that_is_asked_for_within_itself_does_not_wait_for_itself() {
        let ending = Ending::new();
        assert_eq!(ending.run(soon(), || ending.run(soon(), || Some(1)).unwrap_or(None)), Some(None));
    }

    #[test]
    fn a_second_caller_waits_for_the_first_until_its_own_deadline() {
        let ending = Ending::new();
        let (begun, has_begun) = bounded(0);
        let (release, wait) = bounded::<()>(0);
        thread::scope(|scope| {
            let end = || {
                ending.run(soon(), || {
                    begun.send(()).unwrap();
                    assert!(wait.recv().is_err());
                    7
                })
            };
            let first = thread::Builder::new().spawn_scoped(scope, end).unwrap();
            has_begun.recv().unwrap();
            assert_eq!(ending.run(Instant::now() + Duration::from_millis(10), || 8), None);
            drop(release);
            assert_eq!(ending.run(soon(), || 8), Some(7));
            assert_eq!(first.join().unwrap(), Some(7));
        });
    }
}

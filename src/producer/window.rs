//! The in-flight window: how many messages and bytes may be accepted and not resolved yet.
//!
//! Callers wait here, on their own threads, when the window is full; permits come back when they are dropped.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::worker::patience;

/// Counts what is in flight.
#[derive(Debug)]
pub(super) struct Window {
    max_messages: usize,
    max_bytes: usize,
    used: Mutex<Used>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Used {
    messages: usize,
    bytes: usize,
    /// Of the messages, those that have an outcome and keep their room until it is taken.
    settled: usize,
    waiting: usize,
    closed: bool,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPermit {
    /// The window is full, and the deadline has passed.
    Full,
    /// No message is accepted any more.
    Closed,
}

impl Window {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { max_messages, max_bytes, used: Mutex::default(), changed: Condvar::new() })
    }

    /// Takes room for one message of `bytes`, waiting for it until `deadline`. A message larger than the whole window
    /// is let in alone.
    pub(super) fn enter(self: &Arc<Self>, bytes: usize, deadline: Option<Instant>) -> Result<Permit, NoPermit> {
        let mut used = self.used.lock();
        loop {
            if used.closed {
                return Err(NoPermit::Closed);
            }
            let fits = used.messages < self.max_messages && used.bytes.saturating_add(bytes) <= self.max_bytes;
            if fits || used.messages == 0 {
                used.messages += 1;
                used.bytes += bytes;
                return Ok(Permit { window: Arc::clone(self), bytes, settled: false });
            }
            let Some(deadline) = deadline else { return Err(NoPermit::Full) };
            used.waiting += 1;
            let late = self.changed.wait_until(&mut used, deadline).timed_out();
            used.waiting -= 1;
            if late {
                return Err(NoPermit::Full);
            }
        }
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.used.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits until every message has an outcome. Returns how many have none at `deadline`.
    pub(super) fn drain(&self, deadline: Instant) -> usize {
        let deadline = patience(deadline);
        let mut used = self.used.lock();
        while used.unsettled() > 0 {
            used.waiting += 1;
            let late = self.changed.wait_until(&mut used, deadline).timed_out();
            used.waiting -= 1;
            if late {
                break;
            }
        }
        used.unsettled()
    }

    /// Messages without an outcome.
    pub(super) fn unsettled(&self) -> usize {
        self.used.lock().unsettled()
    }

    /// Messages with an outcome that was not taken.
    pub(super) fn settled(&self) -> usize {
        self.used.lock().settled
    }
}

impl Used {
    fn unsettled(&self) -> usize {
        self.messages - self.settled
    }
}

/// Room in the window, until dropped.
#[derive(Debug)]
pub(super) struct Permit {
    window: Arc<Window>,
    bytes: usize,
    settled: bool,
}

impl Permit {
    /// The message has its outcome; the room is kept until the permit is dropped.
    pub(super) fn settle(&mut self) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let is_awaited = {
            let mut used = self.window.used.lock();
            used.settled += 1;
            used.closed && used.waiting > 0
        };
        if is_awaited {
            self.window.changed.notify_all();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let somebody_waits = {
            let mut used = self.window.used.lock();
            used.messages -= 1;
            used.bytes -= self.bytes;
            used.settled -= usize::from(self.settled);
            used.waiting > 0
        };
        if somebody_waits {
            self.window.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn both_limits_hold_and_a_permit_comes_back_when_dropped() {
        let window = Window::new(2, 100);
        let first = window.enter(60, None).unwrap();
        assert_eq!(window.enter(60, None).unwrap_err(), NoPermit::Full);
        let second = window.enter(40, None).unwrap();
        assert_eq!(window.enter(0, None).unwrap_err(), NoPermit::Full);
        drop(first);
        assert!(window.enter(60, None).is_ok());
        drop(second);
        assert_eq!(window.unsettled(), 0);
    }

    #[test]
    fn a_message_larger_than_the_window_goes_alone() {
        let window = Window::new(10, 100);
        let large = window.enter(500, None).unwrap();
        assert_eq!(window.enter(1, None).unwrap_err(), NoPermit::Full);
        drop(large);
        let _small = window.enter(1, None).unwrap();
        assert_eq!(window.enter(500, None).unwrap_err(), NoPermit::Full);
    }

    #[test]
    fn an_outcome_that_is_not_taken_keeps_its_room_and_costs_no_waiting() {
        let window = Window::new(1, 100);
        let mut permit = window.enter(1, None).unwrap();
        assert_eq!((window.unsettled(), window.settled()), (1, 0));
        permit.settle();
        assert_eq!((window.unsettled(), window.settled()), (0, 1));
        assert_eq!(window.enter(1, None).unwrap_err(), NoPermit::Full);
        assert_eq!(window.drain(Instant::now() + Duration::from_secs(20)), 0);
        drop(permit);
        assert_eq!((window.unsettled(), window.settled()), (0, 0));
    }

    #[test]
    fn waiting_ends_with_room_with_the_deadline_or_with_the_end() {
        let window = Window::new(1, 100);
        let permit = window.enter(1, None).unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(window.enter(1, Some(soon)).unwrap_err(), NoPermit::Full);
        assert_eq!(window.drain(Instant::now() + Duration::from_millis(5)), 1);
        let late = Instant::now() + Duration::from_secs(20);
        std::thread::scope(|scope| {
            let waiting = std::thread::Builder::new().spawn_scoped(scope, || window.enter(1, Some(late))).unwrap();
            drop(permit);
            drop(waiting.join().unwrap().unwrap());
        });
        window.close();
        assert_eq!(window.enter(1, Some(late)).unwrap_err(), NoPermit::Closed);
        assert_eq!(window.drain(late), 0);
    }
}

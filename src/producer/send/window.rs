//! The in-flight window: how many messages and bytes may be accepted and not resolved yet.
//!
//! Callers wait here, on their own threads, when the window is full; permits come back when they are dropped. Room goes
//! to those who wait in the order in which they came: a large message is not overtaken by small ones for ever, and one
//! place that becomes free wakes one caller.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::worker::patience;

/// Counts what is in flight.
#[derive(Debug)]
pub(crate) struct SendWindow {
    max_messages: usize,
    max_bytes: usize,
    used: Mutex<Used>,
    /// Signalled when every message has its outcome.
    settled: Condvar,
    outcomes: Outcomes,
}

/// Counts outcomes that wait to be taken, apart from the lock: the selector adds to them while senders have the lock's
/// cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Outcomes {
    /// Messages that have an outcome and keep their room until it is taken.
    untaken: AtomicUsize,
    /// Callers wait in [`SendWindow::drain`].
    ///
    /// Partner of `untaken`, both sequentially consistent: a caller sets this and then counts, the selector counts up and
    /// then looks here. So the caller sees the last outcome, or the selector sees the caller and wakes it.
    is_awaited: AtomicBool,
}

#[derive(Debug, Default)]
struct Used {
    messages: usize,
    bytes: usize,
    /// Callers without room, first come first.
    queue: VecDeque<Ticket>,
    next_ticket: u64,
    closed: bool,
}

/// A waiting caller. The thread that frees room removes the ticket, counts the message, and wakes the caller.
#[derive(Debug)]
struct Ticket {
    number: u64,
    bytes: usize,
    caller: Thread,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPermit {
    /// The window is full, and the deadline has passed.
    Full,
    /// No message is accepted any more.
    Closed,
}

impl SendWindow {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Arc<Self> {
        let (used, settled, outcomes) = (Mutex::default(), Condvar::new(), Outcomes::default());
        Arc::new(Self { max_messages, max_bytes, used, settled, outcomes })
    }

    /// Takes room for one message of `bytes`, waiting for it until `deadline`. A message larger than the whole window
    /// is let in alone.
    pub(crate) fn enter(self: &Arc<Self>, bytes: usize, deadline: Option<Instant>) -> Result<Permit, NoPermit> {
        let number = {
            let mut used = self.used.lock();
            if used.closed {
                return Err(NoPermit::Closed);
            }
            if used.queue.is_empty() && self.has_room(&used, bytes) {
                used.messages += 1;
                used.bytes += bytes;
                return Ok(self.permit(bytes));
            }
            if deadline.is_none_or(|deadline| deadline <= Instant::now()) {
                return Err(NoPermit::Full);
            }
            let number = used.next_ticket;
            used.next_ticket += 1;
            used.queue.push_back(Ticket { number, bytes, caller: thread::current() });
            number
        };
        self.wait(number, bytes, deadline)
    }

    /// Waits until the ticket is taken out of the queue.
    fn wait(self: &Arc<Self>, number: u64, bytes: usize, deadline: Option<Instant>) -> Result<Permit, NoPermit> {
        loop {
            let left = deadline.map_or(Duration::ZERO, |deadline| deadline.saturating_duration_since(Instant::now()));
            thread::park_timeout(left);
            let mut used = self.used.lock();
            let Some(at) = used.queue.iter().position(|ticket| ticket.number == number) else {
                return Ok(self.permit(bytes));
            };
            if !used.closed && !left.is_zero() {
                continue;
            }
            used.queue.remove(at);
            let verdict = if used.closed { NoPermit::Closed } else { NoPermit::Full };
            // The departed waiter may have held back smaller ones behind it.
            let admitted = self.admit(&mut used);
            drop(used);
            wake(admitted);
            return Err(verdict);
        }
    }

    fn permit(self: &Arc<Self>, bytes: usize) -> Permit {
        Permit { window: Arc::clone(self), bytes, settled: false }
    }

    fn has_room(&self, used: &Used, bytes: usize) -> bool {
        let fits = used.messages < self.max_messages && used.bytes.saturating_add(bytes) <= self.max_bytes;
        fits || used.messages == 0
    }

    /// Counts in those at the head of the queue for whom there is room. They are to be woken without the lock.
    fn admit(&self, used: &mut Used) -> Vec<Thread> {
        let mut admitted = Vec::new();
        while !used.closed
            && let Some(ticket) = used.queue.front()
            && self.has_room(used, ticket.bytes)
            && let Some(ticket) = used.queue.pop_front()
        {
            used.messages += 1;
            used.bytes += ticket.bytes;
            admitted.push(ticket.caller);
        }
        admitted
    }

    /// Admits no more messages.
    pub(crate) fn close(&self) {
        let waiting: Vec<_> = {
            let mut used = self.used.lock();
            used.closed = true;
            used.queue.iter().map(|ticket| ticket.caller.clone()).collect()
        };
        wake(waiting);
        self.settled.notify_all();
    }

    /// Waits until every message has an outcome, after [`Self::close`]. Returns how many have none at `deadline`, or now on a service thread.
    pub(crate) fn drain(&self, deadline: Instant) -> usize {
        let deadline = patience(deadline);
        self.outcomes.is_awaited.store(true, SeqCst);
        let mut used = self.used.lock();
        while self.without_outcome(&used) > 0 {
            if self.settled.wait_until(&mut used, deadline).timed_out() {
                break;
            }
        }
        self.without_outcome(&used)
    }

    /// Messages without an outcome.
    pub(crate) fn unsettled(&self) -> usize {
        self.without_outcome(&self.used.lock())
    }

    fn without_outcome(&self, used: &Used) -> usize {
        // A permit that is dropped leaves this count before the other.
        used.messages.saturating_sub(self.outcomes.untaken.load(SeqCst))
    }

    /// Messages with an outcome that was not taken.
    pub(crate) fn settled(&self) -> usize {
        self.outcomes.untaken.load(SeqCst)
    }

    /// Wakes those in [`SendWindow::drain`]. Under the lock none of them is between its look and its wait.
    fn tell_drainers(&self) {
        drop(self.used.lock());
        self.settled.notify_all();
    }
}

fn wake(callers: Vec<Thread>) {
    for caller in callers {
        caller.unpark();
    }
}

/// Room in the window, until dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    window: Arc<SendWindow>,
    bytes: usize,
    settled: bool,
}

impl Permit {
    /// The message has its outcome; the room is kept until the permit is dropped.
    pub(crate) fn settle(&mut self) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        self.window.outcomes.untaken.fetch_add(1, SeqCst);
        if self.window.outcomes.is_awaited.load(SeqCst) {
            self.window.tell_drainers();
        }
    }

    /// Frees the room. Returns the callers to be woken, and true if the last outcome is awaited.
    fn give_back(&self) -> (Vec<Thread>, bool) {
        if self.settled {
            self.window.outcomes.untaken.fetch_sub(1, SeqCst);
        }
        let mut used = self.window.used.lock();
        used.messages -= 1;
        used.bytes -= self.bytes;
        // Only a closed window has a waiter for its last outcome.
        (self.window.admit(&mut used), used.closed && self.window.without_outcome(&used) == 0)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let (admitted, is_last) = self.give_back();
        wake(admitted);
        if is_last {
            self.window.settled.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(window: &SendWindow) -> usize {
        window.used.lock().queue.len()
    }

    fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "never: {what}");
            thread::yield_now();
        }
    }

    /// Small messages that come one after the other would always find room before a large one does.
    #[test]
    fn a_large_message_is_not_starved_by_small_ones() {
        let window = SendWindow::new(100, 100);
        let late = Some(Instant::now() + Duration::from_secs(60));
        let mut small: VecDeque<_> = (0..10).map(|_| window.enter(10, None).unwrap()).collect();
        thread::scope(|scope| {
            let large = thread::Builder::new().spawn_scoped(scope, || window.enter(80, late).unwrap()).unwrap();
            until("the large one waits", || waiting(&window) == 1);
            let next = thread::Builder::new().spawn_scoped(scope, || window.enter(10, late).unwrap()).unwrap();
            until("a small one waits behind it", || waiting(&window) == 2);
            for _ in 0..7 {
                small.pop_front();
                assert_eq!((waiting(&window), window.enter(10, None).err()), (2, Some(NoPermit::Full)));
            }
            small.pop_front();
            let large = large.join().unwrap();
            assert_eq!(window.used.lock().bytes, 100);
            drop(large);
            drop(next.join().unwrap());
        });
    }

    #[test]
    fn one_that_waits_in_vain_lets_those_behind_it_pass() {
        let window = SendWindow::new(100, 100);
        let first = window.enter(50, None).unwrap();
        let now = Instant::now();
        let (brief, late) = (Some(now + Duration::from_millis(300)), Some(now + Duration::from_secs(60)));
        thread::scope(|scope| {
            let large = thread::Builder::new().spawn_scoped(scope, || window.enter(80, brief).err()).unwrap();
            until("the large one waits", || waiting(&window) == 1);
            let small = thread::Builder::new().spawn_scoped(scope, || window.enter(10, late).unwrap()).unwrap();
            assert_eq!(large.join().unwrap(), Some(NoPermit::Full));
            drop(small.join().unwrap());
        });
        drop(first);
    }

    /// With 64 callers, waking all of them for each place would cost 64 wake-ups a message.
    #[test]
    fn one_free_place_wakes_only_the_caller_that_gets_it() {
        let window = SendWindow::new(2, 100);
        let late = Some(Instant::now() + Duration::from_secs(60));
        let mut held: Vec<_> = (0..2).map(|_| window.enter(1, None).unwrap()).collect();
        thread::scope(|scope| {
            let callers: Vec<_> = (0..8)
                .map(|number| {
                    let caller = thread::Builder::new().spawn_scoped(scope, || window.enter(1, late).unwrap()).unwrap();
                    until("it waits", || waiting(&window) == number + 1);
                    caller
                })
                .collect();
            for caller in callers {
                let permit = held.remove(0);
                let (admitted, _) = permit.give_back();
                // Its room was given back just now.
                std::mem::forget(permit);
                assert_eq!(admitted.iter().map(Thread::id).collect::<Vec<_>>(), [caller.thread().id()]);
                wake(admitted);
                held.push(caller.join().unwrap());
            }
        });
    }

    #[test]
    fn one_free_place_wakes_one_caller_in_the_order_of_their_coming() {
        let window = SendWindow::new(1, 100);
        let mut held = window.enter(1, None).unwrap();
        let order = Mutex::new(Vec::new());
        let turns = AtomicUsize::new(0);
        let late = Some(Instant::now() + Duration::from_secs(60));
        thread::scope(|scope| {
            let (window, order, turns) = (&window, &order, &turns);
            for number in 0..8 {
                let enter = move || {
                    let permit = window.enter(1, late).unwrap();
                    order.lock().push(number);
                    turns.fetch_add(1, SeqCst);
                    permit
                };
                thread::Builder::new().spawn_scoped(scope, move || drop(enter())).unwrap();
                until("it waits", || waiting(window) == number + 1);
            }
            assert_eq!(turns.load(SeqCst), 0);
            held.settle();
            drop(held);
        });
        assert_eq!(*order.lock(), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn both_limits_hold_and_a_permit_comes_back_when_dropped() {
        let window = SendWindow::new(2, 100);
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
        let window = SendWindow::new(10, 100);
        let large = window.enter(500, None).unwrap();
        assert_eq!(window.enter(1, None).unwrap_err(), NoPermit::Full);
        drop(large);
        let _small = window.enter(1, None).unwrap();
        assert_eq!(window.enter(500, None).unwrap_err(), NoPermit::Full);
    }

    #[test]
    fn an_outcome_that_is_not_taken_keeps_its_room_and_costs_no_waiting() {
        let window = SendWindow::new(1, 100);
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
        let window = SendWindow::new(1, 100);
        let permit = window.enter(1, None).unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(window.enter(1, Some(soon)).unwrap_err(), NoPermit::Full);
        assert_eq!(window.drain(Instant::now() + Duration::from_millis(5)), 1);
        let late = Instant::now() + Duration::from_secs(20);
        thread::scope(|scope| {
            let waiting = thread::Builder::new().spawn_scoped(scope, || window.enter(1, Some(late))).unwrap();
            drop(permit);
            drop(waiting.join().unwrap().unwrap());
        });
        window.close();
        assert_eq!(window.enter(1, Some(late)).unwrap_err(), NoPermit::Closed);
        assert_eq!(window.drain(late), 0);
    }
}

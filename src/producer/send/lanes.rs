//! Lanes: the asynchronous sends to one queue, one after the other.
//!
//! A broker handles requests of one connection on several threads, and refuses some while it stores others. So messages
//! of a queue keep their order only if each is begun when the one before it is over, with all its attempts. A pure table:
//! the sender drives it, and moves what waits here.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::message::MessageQueue;

/// The lanes of one sender. `S` is a send that waits.
#[derive(Debug)]
pub(crate) struct Lanes<S> {
    by_queue: HashMap<MessageQueue, Lane<S>>,
}

/// A lane exists while a send of it is under way.
#[derive(Debug)]
struct Lane<S> {
    waiting: VecDeque<Waiting<S>>,
    /// No send of the lane has a later deadline.
    latest: Instant,
    /// A thread is beginning a send, which may end before that call returns. The beginning thread then begins the next
    /// one; the ending thread must not, or each send would begin within the end of the one before, on an ever deeper
    /// stack.
    is_beginning: bool,
    /// The send that is being begun is over.
    is_over: bool,
}

#[derive(Debug)]
struct Waiting<S> {
    send: S,
    /// When it gives up, if that may be before those ahead of it do.
    gives_up: Option<Instant>,
}

/// Result of entering a lane.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entered<S> {
    /// The send begins now; [`Lanes::begun`] follows.
    Begins(S),
    /// The send waits until those ahead of it have ended.
    Waits,
    /// The send waits behind sends with later deadlines: [`Lanes::give_up`] is due at its own.
    WaitsUntil(Instant),
}

impl<S> Default for Lanes<S> {
    fn default() -> Self {
        Self { by_queue: HashMap::new() }
    }
}

impl<S> Lanes<S> {
    pub(crate) fn enter(&mut self, queue: &MessageQueue, deadline: Instant, send: S) -> Entered<S> {
        let Some(lane) = self.by_queue.get_mut(queue) else {
            let lane = Lane { waiting: VecDeque::new(), latest: deadline, is_beginning: true, is_over: false };
            self.by_queue.insert(queue.clone(), lane);
            return Entered::Begins(send);
        };
        let gives_up = (deadline < lane.latest).then_some(deadline);
        lane.latest = lane.latest.max(deadline);
        lane.waiting.push_back(Waiting { send, gives_up });
        gives_up.map_or(Entered::Waits, Entered::WaitsUntil)
    }

    /// A send has been begun. Returns the next one to begin, when it is over already.
    pub(crate) fn begun(&mut self, queue: &MessageQueue) -> Option<S> {
        let lane = self.by_queue.get_mut(queue)?;
        lane.is_beginning = false;
        if std::mem::take(&mut lane.is_over) { self.next(queue) } else { None }
    }

    /// The send under way is over. Returns the next one to begin.
    pub(crate) fn over(&mut self, queue: &MessageQueue) -> Option<S> {
        let lane = self.by_queue.get_mut(queue)?;
        if lane.is_beginning {
            lane.is_over = true;
            return None;
        }
        self.next(queue)
    }

    /// The sends that give up now, in their order.
    pub(crate) fn give_up(&mut self, queue: &MessageQueue, now: Instant) -> Vec<S> {
        let Some(lane) = self.by_queue.get_mut(queue) else { return Vec::new() };
        let is_late = |waiting: &Waiting<S>| waiting.gives_up.is_some_and(|deadline| deadline <= now);
        let (late, waiting) = std::mem::take(&mut lane.waiting).into_iter().partition::<VecDeque<_>, _>(is_late);
        lane.waiting = waiting;
        late.into_iter().map(|waiting| waiting.send).collect()
    }

    fn next(&mut self, queue: &MessageQueue) -> Option<S> {
        let lane = self.by_queue.get_mut(queue)?;
        match lane.waiting.pop_front() {
            Some(next) => {
                lane.is_beginning = true;
                Some(next.send)
            }
            None => {
                self.by_queue.remove(queue);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn queue(id: i32) -> MessageQueue {
        MessageQueue::new("T", "b", id)
    }

    #[test]
    fn a_send_that_is_over_while_it_begins_lets_whoever_began_it_go_on() {
        let (mut lanes, later) = (Lanes::default(), Instant::now() + MILLISECOND);
        assert_eq!(lanes.enter(&queue(0), later, 1), Entered::Begins(1));
        assert_eq!(lanes.enter(&queue(0), later, 2), Entered::Waits);
        assert_eq!(lanes.enter(&queue(1), later, 3), Entered::Begins(3), "another queue is another lane");
        assert_eq!(lanes.over(&queue(0)), None);
        assert_eq!(lanes.begun(&queue(0)), Some(2));
        assert_eq!(lanes.begun(&queue(0)), None);
        assert_eq!(lanes.over(&queue(0)), None);
        assert_eq!(lanes.enter(&queue(0), later, 4), Entered::Begins(4));
    }

    #[test]
    fn a_send_behind_one_that_has_more_time_gives_up_at_its_own_deadline() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        assert_eq!(lanes.enter(&queue(0), now + MILLISECOND * 9, 1), Entered::Begins(1));
        assert_eq!(lanes.enter(&queue(0), now + MILLISECOND * 3, 2), Entered::WaitsUntil(now + MILLISECOND * 3));
        assert_eq!(lanes.enter(&queue(0), now + MILLISECOND * 9, 3), Entered::Waits);
        assert_eq!(lanes.give_up(&queue(0), now + MILLISECOND * 3), [2]);
        assert_eq!(lanes.give_up(&queue(0), now + MILLISECOND * 9), [0; 0], "who waits for one with as much time");
        assert_eq!((lanes.begun(&queue(0)), lanes.over(&queue(0))), (None, Some(3)));
    }

    /// One send of a simulation: what has happened to it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fate {
        Waiting,
        Beginning,
        UnderWay,
        Over,
        GivenUp,
    }

    struct World {
        lanes: Lanes<usize>,
        now: Instant,
        dice: u64,
        sends: Vec<(MessageQueue, Instant, Fate)>,
    }

    impl World {
        fn roll(&mut self, sides: usize) -> usize {
            self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.dice >> 33).unwrap() % sides
        }

        fn choose(&mut self, fate: Fate) -> Option<usize> {
            let fitting: Vec<_> = (0..self.sends.len()).filter(|send| self.sends[*send].2 == fate).collect();
            if fitting.is_empty() { None } else { Some(fitting[self.roll(fitting.len())]) }
        }

        fn enter(&mut self) {
            let (queue, send) = (queue(i32::try_from(self.roll(3)).unwrap()), self.sends.len());
            let deadline = self.now + MILLISECOND * (1 + u32::try_from(self.roll(50)).unwrap());
            self.sends.push((queue.clone(), deadline, Fate::Waiting));
            match self.lanes.enter(&queue, deadline, send) {
                Entered::Begins(begins) => self.begin(begins),
                Entered::WaitsUntil(until) => assert_eq!(until, deadline),
                Entered::Waits => {}
            }
        }

        fn begin(&mut self, send: usize) {
            let queue = self.sends[send].0.clone();
            assert_eq!(self.sends[send].2, Fate::Waiting);
            let of_queue = self.sends.iter().filter(|(other, ..)| *other == queue);
            assert!(!of_queue.clone().any(|(.., fate)| matches!(fate, Fate::UnderWay)), "two at once");
            let ahead = self.sends[..send].iter().filter(|(other, ..)| *other == queue);
            assert!(!ahead.clone().any(|(.., fate)| *fate == Fate::Waiting), "overtaken");
            self.sends[send].2 = Fate::Beginning;
        }

        /// One event: a send enters, begins, ends (perhaps while it begins), or time passes.
        fn step(&mut self) {
            match self.roll(5) {
                0 if self.sends.len() < 40 => self.enter(),
                1 => {
                    if let Some(send) = self.choose(Fate::Beginning) {
                        self.sends[send].2 = Fate::UnderWay;
                        let queue = self.sends[send].0.clone();
                        if let Some(next) = self.lanes.begun(&queue) {
                            panic!("{next} begins while {send} is under way");
                        }
                    }
                }
                2 => {
                    if let Some(send) = self.choose(Fate::UnderWay) {
                        self.sends[send].2 = Fate::Over;
                        let queue = self.sends[send].0.clone();
                        if let Some(next) = self.lanes.over(&queue) {
                            self.begin(next);
                        }
                    }
                }
                3 => {
                    if let Some(send) = self.choose(Fate::Beginning) {
                        self.sends[send].2 = Fate::Over;
                        let queue = self.sends[send].0.clone();
                        assert_eq!(self.lanes.over(&queue), None, "whoever began it goes on");
                        if let Some(next) = self.lanes.begun(&queue) {
                            self.begin(next);
                        }
                    }
                }
                _ => {
                    self.now += MILLISECOND;
                    for queue in (0..3).map(queue) {
                        for late in self.lanes.give_up(&queue, self.now) {
                            assert_eq!(self.sends[late].2, Fate::Waiting);
                            assert!(self.sends[late].1 <= self.now, "given up too early");
                            self.sends[late].2 = Fate::GivenUp;
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn sends_of_a_queue_are_begun_in_order_one_at_a_time_and_each_ends_once_whatever_happens_when() {
        for seed in 0..2000 {
            let mut world =
                World { lanes: Lanes::default(), now: Instant::now(), dice: seed * 2 + 1, sends: Vec::new() };
            for _ in 0..10_000 {
                world.step();
                let is_open = |fate: &Fate| !matches!(fate, Fate::Over | Fate::GivenUp);
                if world.sends.len() == 40 && !world.sends.iter().any(|(.., fate)| is_open(fate)) {
                    break;
                }
            }
            let mut fates = BTreeMap::new();
            for (.., fate) in &world.sends {
                *fates.entry(format!("{fate:?}")).or_insert(0) += 1;
            }
            let ended: usize = ["Over", "GivenUp"].iter().filter_map(|fate| fates.get(*fate)).sum();
            assert_eq!(ended, 40, "seed {seed}: {fates:?}");
            assert!(world.lanes.by_queue.is_empty(), "seed {seed}: a lane is left");
        }
    }
}

//! The attempts of one send: which queue next, for how long, and what the failures add up to.
//!
//! A pure core: no I/O, no clock, no lock. A synchronous send drives it on its caller's thread, an asynchronous one from
//! completions; both decide alike.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::route::PublishQueue;
use crate::error::{Attempt, Certainty, Error, ErrorKind, Phase};
use crate::wire::ResponseCode;

/// The pause before the only broker is asked again grows from here.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Broker codes after which a send is tried on another broker (Java: `retryResponseCodes`).
///
/// Every other code ends the send at once: another broker cures neither a message that is too large nor a missing
/// permission.
///
/// ```
/// use rocketmq_sync::{ResponseCode, RetryCodes};
///
/// let codes = RetryCodes::default().with(ResponseCode::FLUSH_DISK_TIMEOUT).without(ResponseCode::SYSTEM_ERROR);
/// assert!(codes.contains(ResponseCode::FLUSH_DISK_TIMEOUT) && !codes.contains(ResponseCode::SYSTEM_ERROR));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryCodes(BTreeSet<ResponseCode>);

impl Default for RetryCodes {
    /// `SYSTEM_ERROR`, `SYSTEM_BUSY`, `SERVICE_NOT_AVAILABLE`, `TOPIC_NOT_EXIST`, `NO_BUYER_ID` and `NOT_IN_CURRENT_UNIT`.
    ///
    /// Those of the Java client 5.x without `NO_PERMISSION`, and without `GO_AWAY`, after which a send continues in any
    /// case.
    fn default() -> Self {
        Self(BTreeSet::from([
            ResponseCode::SYSTEM_ERROR,
            ResponseCode::SYSTEM_BUSY,
            ResponseCode::SERVICE_NOT_AVAILABLE,
            ResponseCode::TOPIC_NOT_EXIST,
            ResponseCode::NO_BUYER_ID,
            ResponseCode::NOT_IN_CURRENT_UNIT,
        ]))
    }
}

impl RetryCodes {
    /// No codes.
    #[must_use]
    pub fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// Adds a code.
    #[must_use]
    pub fn with(mut self, code: ResponseCode) -> Self {
        self.0.insert(code);
        self
    }

    /// Removes a code.
    #[must_use]
    pub fn without(mut self, code: ResponseCode) -> Self {
        self.0.remove(&code);
        self
    }

    /// True if a send is tried again after this code.
    #[must_use]
    pub fn contains(&self, code: ResponseCode) -> bool {
        self.0.contains(&code)
    }
}

/// Failure of an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) broker: Arc<str>,
    pub(crate) begun: Instant,
    pub(crate) phase: Phase,
    pub(crate) error: Error,
}

/// Next step of a send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send to this queue, and wait for the answer until the limit.
    Try { index: usize, limit: Instant },
    /// Do nothing until then, then ask again.
    Pause { until: Instant },
    /// End of the send: see [`Attempts::take_error`].
    GiveUp,
}

/// The attempts of one send.
#[derive(Debug)]
pub(crate) struct Attempts {
    deadline: Instant,
    /// Number of attempts that may still begin.
    left: u32,
    /// Turn of the topic when the send began. Each further attempt starts one queue later: with a new turn from the
    /// topic's counter, senders in step would all start at the broker that refuses.
    start: Option<usize>,
    /// The queue is given: another broker is no choice, and only what was surely not sent may be repeated there, or
    /// messages would change their order.
    pinned: bool,
    /// A broker that failed the caller before: the other ones come first.
    avoided: Option<Arc<str>>,
    failed: Vec<Attempt>,
    certainty: Certainty,
    last_error: Option<Error>,
    pause_until: Option<Instant>,
    over: bool,
}

impl Attempts {
    pub(crate) fn new(retries: u32, pinned: bool, deadline: Instant) -> Self {
        Self {
            deadline,
            left: retries.saturating_add(1),
            start: None,
            pinned,
            avoided: None,
            failed: Vec::new(),
            certainty: Certainty::NotSent,
            last_error: None,
            pause_until: None,
            over: false,
        }
    }

    /// Tries this broker only when no other one is untried.
    pub(crate) fn avoid(&mut self, broker: &Arc<str>) {
        self.avoided = Some(Arc::clone(broker));
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The next step, with the queues of the topic's present route; `turn` is asked once a send for the one whose turn it
    /// is.
    ///
    /// Prefers, in this order: brokers that have not failed this send, nor are to be avoided, those that can be reached
    /// before others; the one to be avoided; one that can be reached, but not the last one; whatever there is.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        queues: &[PublishQueue],
        turn: impl FnOnce() -> usize,
        is_reachable: impl Fn(&PublishQueue) -> bool,
    ) -> Next {
        if self.over || self.left == 0 || now >= self.deadline {
            return Next::GiveUp;
        }
        let first = self.start.get_or_insert_with(turn).wrapping_add(self.failed.len());
        let choose = |wanted: &dyn Fn(&PublishQueue) -> bool| choose(queues, first, wanted);
        let not_failed =
            |queue: &PublishQueue| !self.failed.iter().any(|attempt| *attempt.broker == *queue.queue.broker_name);
        let untried =
            |queue: &PublishQueue| self.avoided.as_ref() != Some(&queue.queue.broker_name) && not_failed(queue);
        let not_last =
            |queue: &PublishQueue| self.failed.last().is_none_or(|attempt| *attempt.broker != *queue.queue.broker_name);
        let fresh = choose(&|queue| untried(queue) && is_reachable(queue)).or_else(|| choose(&untried));
        let chosen = fresh
            .or_else(|| choose(&not_failed))
            .or_else(|| choose(&|queue| not_last(queue) && is_reachable(queue)))
            .or_else(|| choose(&not_last))
            .or_else(|| choose(&|_| true));
        let Some(index) = chosen else { return Next::GiveUp };
        if let Some(until) = self.pause_until.take().filter(|&until| until > now && fresh.is_none()) {
            self.pause_until = Some(until);
            return Next::Pause { until: until.min(self.deadline) };
        }
        self.left -= 1;
        Next::Try { index, limit: self.limit(now, index, queues) }
    }

    /// While another broker could be tried after this one, an attempt gets only its share of the time that is left.
    fn limit(&self, now: Instant, index: usize, queues: &[PublishQueue]) -> Instant {
        let this = queues.get(index).map(|queue| &queue.queue.broker_name);
        // A route contains each broker's name once: most names compare by address, without their text.
        let is_this = |name: &Arc<str>| this.is_some_and(|this| Arc::ptr_eq(this, name) || this == name);
        let others = self.left > 0 && !queues.iter().all(|queue| is_this(&queue.queue.broker_name));
        if others { now + (self.deadline - now) / (self.left + 1) } else { self.deadline }
    }

    /// An attempt has failed. Afterwards [`Attempts::next`] says whether there is another.
    pub(crate) fn failed(&mut self, now: Instant, failure: Failure, codes: &RetryCodes) {
        let Failure { broker, begun, phase, error } = failure;
        let certainty = error.certainty();
        self.certainty = self.certainty.max(certainty);
        let code = error.broker_code();
        let is_departing = |attempt: &Attempt| attempt.broker_code == code && *attempt.broker == *broker;
        if code == Some(ResponseCode::GO_AWAY) && !self.failed.iter().any(is_departing) {
            // A broker that departs refuses nothing of this message: once for each, that is no attempt used up.
            self.left += 1;
        }
        self.failed.push(Attempt {
            broker: broker.to_string(),
            phase,
            elapsed: now.saturating_duration_since(begun),
            kind: error.kind(),
            broker_code: code,
            certainty,
            detail: error.to_string(),
        });
        self.over = !is_retryable(&error, codes) || (self.pinned && certainty != Certainty::NotSent);
        self.last_error = Some(error);
        let shift = u32::try_from(self.failed.len()).unwrap_or(u32::MAX).saturating_sub(1).min(6);
        self.pause_until = now.checked_add(FIRST_PAUSE * (1 << shift));
    }

    /// An error that ends the send and is none of an attempt's: as uncertain as what was tried before.
    pub(crate) fn qualified(&self, error: Error) -> Error {
        let certainty = self.certainty.max(error.certainty());
        error.with_certainty(certainty)
    }

    /// One error for all attempts, with the kind of the last failure; `no_queue` is the reason when there was none.
    pub(crate) fn take_error(&mut self, now: Instant, topic: &str, no_queue: &str) -> Error {
        let is_late = now >= self.deadline;
        let Some(last) = self.last_error.take() else {
            return match is_late {
                true => Error::new(
                    ErrorKind::Timeout,
                    format!("send to {topic} failed: the deadline passed before an attempt began; not stored"),
                ),
                false => Error::new(ErrorKind::NoBroker, no_queue),
            };
        };
        if self.failed.is_empty() {
            return last;
        }
        let attempts = std::mem::take(&mut self.failed);
        let cause = attempts.last().map_or_else(String::new, |last| format!("{}: {}", last.broker, last.detail));
        let count = if attempts.len() == 1 { "1 attempt".to_owned() } else { format!("{} attempts", attempts.len()) };
        let late = if is_late { ", the deadline passed" } else { "" };
        let certainty = match self.certainty {
            Certainty::NotSent => "not stored",
            Certainty::Unknown => "may be stored",
            Certainty::Stored => "stored",
        };
        let detail = format!("send to {topic} failed: {cause}; {count}{late}, {certainty}");
        last.in_context(detail).with_certainty(self.certainty).with_attempts(attempts)
    }
}

/// The queue whose turn it is, if it is `wanted`; else one of those that are, each as often as any other.
fn choose(queues: &[PublishQueue], first: usize, wanted: impl Fn(&PublishQueue) -> bool) -> Option<usize> {
    let index = first.checked_rem(queues.len())?;
    if queues.get(index).is_some_and(&wanted) {
        return Some(index);
    }
    let all_wanted: Vec<_> = (0..queues.len()).filter(|&index| queues.get(index).is_some_and(&wanted)).collect();
    all_wanted.get(first.checked_rem(all_wanted.len())?).copied()
}

fn is_retryable(error: &Error, codes: &RetryCodes) -> bool {
    match (error.kind(), error.broker_code()) {
        (_, Some(ResponseCode::GO_AWAY)) => true,
        (ErrorKind::Permission, Some(code)) => code != ResponseCode::SYSTEM_ERROR && codes.contains(code),
        (_, Some(code)) => codes.contains(code),
        (ErrorKind::Connect | ErrorKind::Resolve | ErrorKind::ConnectionLost | ErrorKind::Timeout, None) => true,
        (ErrorKind::WindowFull | ErrorKind::Protocol, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageQueue;

    fn queues(brokers: &[&str], queues_each: i32) -> Vec<PublishQueue> {
        let of_broker = |name: &&str| {
            let name: Arc<str> = Arc::from(*name);
            (0..queues_each).map(move |id| PublishQueue {
                queue: MessageQueue::new("T", Arc::clone(&name), id),
                address: Arc::clone(&name),
            })
        };
        brokers.iter().flat_map(of_broker).collect()
    }

    fn failure(broker: &str, now: Instant, error: Error) -> Failure {
        Failure { broker: broker.into(), begun: now, phase: Phase::Reply, error }
    }

    fn timeout() -> Error {
        Error::new(ErrorKind::Timeout, "late").with_certainty(Certainty::Unknown)
    }

    fn refused() -> Error {
        Error::new(ErrorKind::Connect, "refused")
    }

    fn code(code: ResponseCode) -> Error {
        Error::refused(code, Some("no"), "b:1")
    }

    struct Send {
        attempts: Attempts,
        queues: Vec<PublishQueue>,
        now: Instant,
    }

    impl Send {
        fn new(brokers: &[&str]) -> Self {
            let now = Instant::now();
            let attempts = Attempts::new(2, false, now + Duration::from_secs(3));
            Self { attempts, queues: queues(brokers, 2), now }
        }

        /// The broker that is tried next, waiting out a pause.
        fn try_next(&mut self) -> Option<(String, Duration)> {
            loop {
                match self.attempts.next(self.now, &self.queues, || 0, |_| true) {
                    Next::Try { index, limit } => {
                        return Some((self.queues[index].queue.broker_name.to_string(), limit - self.now));
                    }
                    Next::Pause { until } => {
                        assert!(until > self.now);
                        self.now = until;
                    }
                    Next::GiveUp => return None,
                }
            }
        }

        fn fail(&mut self, broker: &str, error: Error) {
            self.attempts.failed(self.now, failure(broker, self.now, error), &RetryCodes::default());
        }
    }

    #[test]
    fn send_25_three_attempts_visit_three_brokers() {
        let mut send = Send::new(&["a", "b", "c"]);
        let mut visited = Vec::new();
        while let Some((broker, _)) = send.try_next() {
            send.fail(&broker, timeout());
            visited.push(broker);
        }
        assert_eq!(visited, ["a", "b", "c"]);
    }

    #[test]
    fn send_25_with_two_brokers_the_last_one_is_never_tried_again_at_once() {
        let mut send = Send::new(&["a", "b"]);
        let mut visited = Vec::new();
        while let Some((broker, _)) = send.try_next() {
            send.fail(&broker, refused());
            visited.push(broker);
        }
        assert_eq!(visited, ["a", "b", "a"]);
    }

    #[test]
    fn a_broker_to_be_avoided_is_tried_when_the_others_have_failed() {
        for (brokers, expected) in [(&["a", "b", "c"][..], ["b", "c", "a"]), (&["a", "b"], ["b", "a", "b"])] {
            let mut send = Send::new(brokers);
            send.attempts.avoid(&"a".into());
            let mut visited = Vec::new();
            while let Some((broker, _)) = send.try_next() {
                send.fail(&broker, refused());
                visited.push(broker);
            }
            assert_eq!(visited, expected);
        }
        let mut send = Send::new(&["a"]);
        send.attempts.avoid(&"a".into());
        assert_eq!(send.try_next().unwrap().0, "a");
    }

    #[test]
    fn an_attempt_leaves_time_for_the_brokers_that_are_left() {
        let mut send = Send::new(&["a", "b", "c"]);
        let (broker, limit) = send.try_next().unwrap();
        assert_eq!(limit, Duration::from_secs(1));
        send.now += limit;
        send.fail(&broker, timeout());
        let (broker, limit) = send.try_next().unwrap();
        assert_eq!(limit, Duration::from_secs(1));
        send.now += limit;
        send.fail(&broker, timeout());
        assert_eq!(send.try_next().unwrap().1, Duration::from_secs(1));
    }

    #[test]
    fn the_only_broker_gets_all_the_time_and_a_growing_pause_after_each_failure() {
        let mut send = Send::new(&["a"]);
        let begun = send.now;
        assert_eq!(send.try_next().unwrap().1, Duration::from_secs(3));
        send.fail("a", code(ResponseCode::SYSTEM_BUSY));
        send.try_next().unwrap();
        assert_eq!(send.now - begun, FIRST_PAUSE);
        send.fail("a", code(ResponseCode::SYSTEM_BUSY));
        send.try_next().unwrap();
        assert_eq!(send.now - begun, FIRST_PAUSE * 3);
    }

    #[test]
    fn what_another_broker_cannot_cure_is_told_at_once() {
        for fatal in [ResponseCode::MESSAGE_ILLEGAL, ResponseCode::NO_PERMISSION, ResponseCode(4711)] {
            let mut send = Send::new(&["a", "b"]);
            send.try_next().unwrap();
            send.fail("a", code(fatal));
            assert_eq!(send.try_next(), None);
            let error = send.attempts.take_error(send.now, "T", "no queue");
            assert_eq!((error.broker_code(), error.certainty()), (Some(fatal), Certainty::NotSent));
        }
    }

    #[test]
    fn the_certainty_is_that_of_the_least_certain_attempt() {
        let mut send = Send::new(&["a", "b"]);
        send.try_next().unwrap();
        send.fail("a", timeout());
        send.try_next().unwrap();
        send.fail("b", refused());
        let error = send.attempts.take_error(send.now, "T", "no queue");
        assert_eq!((error.kind(), error.certainty()), (ErrorKind::Connect, Certainty::Unknown));
        assert_eq!(error.attempts().len(), 2);
    }

    #[test]
    fn an_end_between_attempts_is_as_uncertain_as_they_were() {
        let end = || Error::new(ErrorKind::NotRunning, "the client has been shut down");
        let mut send = Send::new(&["a", "b"]);
        assert_eq!(send.attempts.qualified(end()).certainty(), Certainty::NotSent);
        send.try_next().unwrap();
        send.fail("a", timeout());
        let error = send.attempts.qualified(end());
        assert_eq!((error.kind(), error.certainty()), (ErrorKind::NotRunning, Certainty::Unknown));
    }

    #[test]
    fn a_pinned_send_is_repeated_only_when_nothing_can_be_stored() {
        let now = Instant::now();
        let queues = queues(&["a"], 1);
        let mut attempts = Attempts::new(2, true, now + Duration::from_secs(3));
        assert!(matches!(attempts.next(now, &queues, || 0, |_| true), Next::Try { .. }));
        attempts.failed(now, failure("a", now, refused()), &RetryCodes::default());
        let later = now + FIRST_PAUSE;
        assert!(matches!(attempts.next(later, &queues, || 0, |_| true), Next::Try { .. }));
        attempts.failed(later, failure("a", later, timeout()), &RetryCodes::default());
        assert_eq!(attempts.next(later + FIRST_PAUSE * 4, &queues, || 0, |_| true), Next::GiveUp);
    }

    #[test]
    fn a_broker_that_cannot_be_reached_is_passed_over_while_there_are_others() {
        let now = Instant::now();
        let queues = queues(&["a", "b"], 2);
        let mut attempts = Attempts::new(2, false, now + Duration::from_secs(3));
        let next = attempts.next(now, &queues, || 0, |queue| &*queue.queue.broker_name == "b");
        assert!(matches!(next, Next::Try { index: 2, .. }), "{next:?}");
        // And those that are left share what would have been its.
        let mut times = [0; 4];
        for turn in 0..40 {
            let mut attempts = Attempts::new(2, false, now + Duration::from_secs(3));
            let next = attempts.next(now, &queues, || turn, |queue| &*queue.queue.broker_name == "b");
            let Next::Try { index, .. } = next else { panic!("{next:?}") };
            times[index] += 1;
        }
        assert_eq!(times, [0, 0, 20, 20]);
    }

    #[test]
    fn life_14_go_away_is_followed_and_does_not_count() {
        let mut send = Send::new(&["a", "b", "c"]);
        let mut visited = Vec::new();
        while let Some((broker, _)) = send.try_next() {
            send.fail(&broker, code(ResponseCode::GO_AWAY));
            visited.push(broker);
        }
        assert_eq!(visited.len(), 6, "each broker once for nothing, and three attempts: {visited:?}");
        assert!(["a", "b", "c"].iter().all(|broker| visited[..3].contains(&(*broker).to_owned())), "{visited:?}");
        assert!(visited.windows(2).all(|pair| pair[0] != pair[1]), "{visited:?}");
        let error = send.attempts.take_error(send.now, "T", "no queue");
        assert_eq!((error.broker_code(), error.attempts().len()), (Some(ResponseCode::GO_AWAY), 6));
    }

    #[test]
    fn a_broker_that_departs_fails_no_send_that_its_neighbour_would_take() {
        let now = Instant::now();
        let codes = RetryCodes::none();
        let queues = queues(&["a", "b"], 4);
        for turn in 0..8 {
            // Without any retry left to it.
            let mut attempts = Attempts::new(0, false, now + Duration::from_secs(3));
            let mut visited = Vec::new();
            while visited.last().is_none_or(|last| last == "a") {
                let next = attempts.next(now, &queues, || turn, |_| true);
                let Next::Try { index, .. } = next else { panic!("{turn}: {next:?} after {visited:?}") };
                let broker = queues[index].queue.broker_name.to_string();
                if broker == "a" {
                    attempts.failed(now, failure("a", now, code(ResponseCode::GO_AWAY)), &codes);
                }
                visited.push(broker);
            }
            assert!(visited.len() <= 2, "{turn}: {visited:?}");
        }
    }

    #[test]
    fn the_only_broker_that_departs_is_asked_again_after_a_pause() {
        let mut send = Send::new(&["a"]);
        let begun = send.now;
        let mut times = Vec::new();
        while send.try_next().is_some() {
            send.fail("a", code(ResponseCode::GO_AWAY));
            times.push((send.now - begun).as_millis());
        }
        assert_eq!(times, [0, 50, 150, 350]);
    }

    /// Senders that take their steps in any order, each attempt a step, while broker a refuses everything.
    #[test]
    fn senders_in_step_begin_at_a_broker_that_refuses_no_more_often_than_at_another() {
        let queues = queues(&["a", "b"], 4);
        let now = Instant::now();
        for (senders, seed) in (1..=9).flat_map(|senders| (0..20).map(move |seed| (senders, seed))) {
            let mut dice: u64 = seed * 2 + 1;
            let mut counter = 0;
            let mut under_way: Vec<Option<Attempts>> = (0..senders).map(|_| None).collect();
            let (mut begun, mut begun_at_a) = (0_u32, 0_u32);
            while begun < 4000 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Every second seed lets them take their steps one after the other.
                let whose = if seed % 2 == 0 { begun as usize } else { (dice >> 33) as usize } % under_way.len();
                for step in 0..under_way.len() {
                    let send = &mut under_way[(whose + step) % senders];
                    let is_first = send.is_none();
                    let attempts = send.get_or_insert_with(|| Attempts::new(2, false, now + Duration::from_secs(3)));
                    let turn = || {
                        counter += 1;
                        counter
                    };
                    let Next::Try { index, .. } = attempts.next(now, &queues, turn, |_| true) else { panic!("a try") };
                    let is_at_a = index < 4;
                    begun += u32::from(is_first);
                    begun_at_a += u32::from(is_first && is_at_a);
                    match is_at_a {
                        true => attempts.failed(
                            now,
                            failure("a", now, code(ResponseCode::SYSTEM_BUSY)),
                            &RetryCodes::default(),
                        ),
                        false => *send = None,
                    }
                }
            }
            let share = begun_at_a * 100 / begun;
            assert!((45..=55).contains(&share), "{senders} senders, seed {seed}: {share} % begin at the sick broker");
        }
    }

    #[test]
    fn a_call_that_slept_through_its_deadline_says_that_its_message_may_be_stored() {
        let mut send = Send::new(&["a", "b"]);
        send.try_next().unwrap();
        send.now += Duration::from_secs(300);
        send.fail("a", timeout());
        assert_eq!(send.try_next(), None);
        let error = send.attempts.take_error(send.now, "T", "no queue");
        assert_eq!((error.kind(), error.certainty()), (ErrorKind::Timeout, Certainty::Unknown));
    }

    #[test]
    fn nothing_is_tried_after_the_deadline() {
        let mut send = Send::new(&["a"]);
        send.now += Duration::from_secs(3);
        assert_eq!(send.try_next(), None);
        assert_eq!(send.attempts.take_error(send.now, "T", "no queue").kind(), ErrorKind::Timeout);
    }
}

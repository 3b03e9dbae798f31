//! Time, the network, what goes wrong, and the rules.
//!
//! Checked whenever something reaches the broker or a member has made a step:
//! * the store of offsets is never ahead of the current window of a queue;
//! * no offset that is stored, or that a window would store, is beyond a message the group still needs;
//! * no row of a queue table is without a deadline, or past it; no queue has two pulls at once;
//! * no message is run by two workers of a window, or sent back while it runs; each failure has one outcome;
//! * row and window agree on where the next pull begins.
//!
//! When the faults have ended: every message is consumed, or a dead letter, or excused (lost by the broker, or before the
//! start that the policy chose), and every queue's stored offset is at its end.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use crate::consumer::assign::rebalance::{MemberList, TopicView};
use crate::consumer::pull::event::PullStatus;
use crate::consumer::start::{Bound, ConsumeFromWhere};
use crate::message::MessageQueue;
use crate::wire::ResponseCode;

use super::broker::{Broker, BrokerQueue, GivenBack, Parked, PullResult, Stored};
use super::member::{Asked, Call, Effects, Member, Reply, Request};
use super::random::Random;

pub(super) const TOPIC: &str = "T";
pub(super) const RETRY_TOPIC: &str = "%RETRY%G";
pub(super) const TOPICS: [&str; 2] = [TOPIC, RETRY_TOPIC];

const MEMBERS: usize = 2;
/// Time for which a broker holds a pull.
const HOLD: Duration = Duration::from_secs(15);
/// The faults end; everything must be done before the next.
const CALM_UNTIL: Duration = Duration::from_secs(400);

macro_rules! seen {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Count of an event.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(super) struct Seen {
            $($(#[$doc])* pub(super) $name: usize,)+
        }

        impl Seen {
            pub(super) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }

            /// A fault that never occurs tests nothing.
            pub(super) fn assert_everything_happened(&self) {
                $(assert!(self.$name > 0, "{} never happened", stringify!($name));)+
            }
        }
    };
}

seen! {
    steps, messages, lost_requests, lost_replies, swallowed, echoes, refusals, lies,
    crashes, stops, starts, expelled, resets, retentions, truncations, dead_letters, excused,
    assigned, revoked, listed_twice, not_a_member, undecided,
    failed, sent_back, published, given_back_in_vain, consumed_again, expired, slow,
    /// Values that the driver read from a window which was replaced or closed before it stored them.
    stored_late,
    window_full, hints, lost_hints, overdue, failing, recovered, stale, moved_forward, replaced,
    /// Messages that were consumed more than once.
    repeated,
}

/// A member's life; a crashed member comes back as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Life {
    slot: usize,
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallId {
    life: Life,
    number: u64,
}

enum Event {
    Wake(Life),
    Arrive(CallId, Request),
    Reply(CallId, Reply),
    /// A reply to the table comes once more.
    Echo(Life, Asked, Reply),
    Deadline(CallId),
    HoldEnds(CallId),
    ListenerEnds(Life, usize),
    /// The driver of offsets makes its next step.
    Drive(Life),
    Produce,
    Redeliver(Stored),
    Mischief,
    Start(usize),
    Expel(String),
    Calm,
}

struct Scheduled {
    at: Instant,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct Slot {
    life: Life,
    member: Option<Member>,
    wake_at: Option<Instant>,
}

/// Fate of a message, in whichever queue it is.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    consumed: usize,
    ended: bool,
}

pub(super) struct World {
    random: Random,
    start: Instant,
    now: Instant,
    last_number: u64,
    events: BinaryHeap<Reverse<Scheduled>>,
    broker: Broker<CallId>,
    slots: Vec<Slot>,
    calls: BTreeMap<CallId, Call>,
    fates: Vec<Fate>,
    policy: ConsumeFromWhere,
    calm: bool,
    seen: Seen,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let start = Instant::now();
        let queue_count = i32::try_from(random.between(1, 4)).unwrap();
        let mut queues: BTreeMap<_, _> =
            (0..queue_count).map(|id| (MessageQueue::new(TOPIC, "b", id), BrokerQueue::default())).collect();
        queues.insert(retry_queue(), BrokerQueue::default());
        let broker = Broker { queues, parked: Vec::new(), members: Vec::new(), says_zero: random.chance(200) };
        let policy = if random.chance(500) { ConsumeFromWhere::First } else { ConsumeFromWhere::Last };
        let life = |slot| Life { slot, number: 0 };
        let slots = (0..MEMBERS).map(|slot| Slot { life: life(slot), member: None, wake_at: None }).collect();
        let mut world = Self {
            random,
            start,
            now: start,
            last_number: 0,
            events: BinaryHeap::new(),
            broker,
            slots,
            calls: BTreeMap::new(),
            fates: Vec::new(),
            policy,
            calm: false,
            seen: Seen::default(),
        };
        world.plan();
        world
    }

    /// Runs until everything is consumed and stored; panics when a rule is broken or that never happens.
    pub(super) fn run(mut self) -> Seen {
        while let Some(Reverse(Scheduled { at, event, .. })) = self.events.pop() {
            self.now = at;
            self.seen.steps += 1;
            self.step(event);
            if self.calm && self.is_done() {
                return self.end();
            }
            assert!(self.now < self.start + CALM_UNTIL, "not done:\n{}", self.state());
        }
        panic!("nothing left to do:\n{}", self.state());
    }

    fn plan(&mut self) {
        for _ in 0..self.random.below(6) {
            self.produce();
        }
        let trouble = self.random.between(5, 60) * 1000;
        for slot in 0..MEMBERS {
            let delay = self.random.millis(0, 3_000);
            self.schedule(delay, Event::Start(slot));
        }
        for _ in 0..self.random.between(3, 24) {
            let delay = self.random.millis(0, trouble);
            self.schedule(delay, Event::Produce);
        }
        for _ in 0..self.random.below(6) {
            let delay = self.random.millis(500, trouble);
            self.schedule(delay, Event::Mischief);
        }
        self.schedule(Duration::from_millis(trouble), Event::Calm);
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Wake(life) => self.wake(life),
            Event::Arrive(id, request) => self.arrive(id, request),
            Event::Reply(id, reply) => self.reply(id, reply),
            Event::Echo(life, asked, reply) => {
                self.seen.echoes += 1;
                self.with_member(life, |member, now, effects| member.asked(asked, reply, now, effects));
            }
            Event::Deadline(id) => self.reply(id, Reply::Lost),
            Event::HoldEnds(id) => self.hold_ends(id),
            Event::ListenerEnds(life, worker) => self.listener_ends(life, worker),
            Event::Drive(life) => self.with_member(life, Member::drive_offsets),
            Event::Produce => self.produce(),
            Event::Redeliver(stored) => self.append(&retry_queue(), stored),
            Event::Mischief => self.mischief(),
            Event::Start(slot) => self.start(slot),
            Event::Expel(client_id) => self.expel(&client_id),
            Event::Calm => self.calm(),
        }
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.last_number += 1;
        self.events.push(Reverse(Scheduled { at: self.now + delay, number: self.last_number, event }));
    }

    // MemberList.

    fn start(&mut self, slot: usize) {
        if self.slots[slot].member.is_some() {
            return;
        }
        self.seen.starts += 1;
        self.last_number += 1;
        let life = Life { slot, number: self.last_number };
        let client_id = format!("client-{slot}-{}", life.number);
        self.broker.members.push(client_id.clone());
        let member = Member::new(client_id, self.policy, self.now, &mut self.random);
        self.slots[slot] = Slot { life, member: Some(member), wake_at: None };
        self.notify_all();
        self.with_member(life, |_, _, _| ());
    }

    fn wake(&mut self, life: Life) {
        self.slots[life.slot].wake_at = None;
        self.with_member(life, Member::wake);
    }

    fn listener_ends(&mut self, life: Life, worker: usize) {
        let slot = &self.slots[life.slot];
        let Some(member) = slot.member.as_ref().filter(|_| slot.life == life) else { return };
        for (queue, offset, id) in member.consumed_by(worker) {
            self.fates[id].consumed += 1;
            if let Some(stored) = self.queue(&queue).at(offset).filter(|stored| stored.id == id) {
                stored.resolved = true;
            }
        }
        let hint_gets_lost = self.fault(100);
        self.with_member(life, |member, now, effects| member.listener_ended(worker, hint_gets_lost, now, effects));
    }

    /// One step of a member, unless it is dead: then what it leads to, then the rules.
    fn with_member(&mut self, life: Life, step: impl FnOnce(&mut Member, Instant, &mut Effects)) {
        let slot = &mut self.slots[life.slot];
        let Some(member) = slot.member.as_mut().filter(|_| slot.life == life) else { return };
        let mut effects = Effects::default();
        step(member, self.now, &mut effects);
        member.start_workers(self.now, self.calm, &mut self.random, &mut effects);
        member.check(self.now);
        for (queue, offset) in member.committable() {
            let needed = self.broker.queues[queue].first_unresolved();
            assert!(offset <= needed, "{queue}: the window would commit {offset}, the group needs {needed}");
        }
        let wake = member.next_wake();
        let is_news = slot.wake_at.is_none_or(|planned| wake < planned);
        if is_news {
            slot.wake_at = Some(wake);
            self.schedule(wake.saturating_duration_since(self.now), Event::Wake(life));
        }
        for begun in effects.begun {
            self.schedule(begun.lasts, Event::ListenerEnds(life, begun.worker));
        }
        if effects.driver_goes_on {
            // A thread that is not given the processor stands still between any two steps.
            let delay = if self.fault(50) { self.random.millis(0, 2_000) } else { self.random.millis(0, 2) };
            self.schedule(delay, Event::Drive(life));
        }
        for (call, request) in effects.calls {
            self.call(life, call, request);
        }
    }

    fn notify_all(&mut self) {
        for slot in 0..self.slots.len() {
            if !self.fault(100) {
                let life = self.slots[slot].life;
                self.with_member(life, |member, now, _| member.notified(now));
            }
        }
    }

    /// The member is gone; what it had sent may still arrive.
    fn remove(&mut self, slot: usize) {
        if let Some(member) = self.slots[slot].member.take() {
            self.seen.add(&member.seen);
            self.calls.retain(|id, _| id.life.slot != slot);
            // A half-open connection keeps a dead member in the list for a while.
            let delay = if self.fault(500) { self.random.millis(0, 20_000) } else { Duration::ZERO };
            self.schedule(delay, Event::Expel(member.client_id));
        }
    }

    fn expel(&mut self, client_id: &str) {
        self.seen.expelled += 1;
        self.broker.members.retain(|member| member != client_id);
        self.notify_all();
    }

    // The network.

    fn fault(&mut self, per_mille: u64) -> bool {
        !self.calm && self.random.chance(per_mille)
    }

    fn call(&mut self, life: Life, call: Call, request: Request) {
        self.last_number += 1;
        let id = CallId { life, number: self.last_number };
        self.calls.insert(id, call);
        self.schedule(request.deadline(), Event::Deadline(id));
        if self.fault(60) {
            self.seen.lost_requests += 1;
        } else {
            let delay = self.delay();
            self.schedule(delay, Event::Arrive(id, request));
        }
    }

    fn answer(&mut self, id: CallId, reply: Reply) {
        if self.fault(60) {
            self.seen.lost_replies += 1;
            return;
        }
        let delay = self.delay();
        self.schedule(delay, Event::Reply(id, reply));
    }

    /// Also for deadlines: the taker of a call completes it, exactly once.
    fn reply(&mut self, id: CallId, reply: Reply) {
        let Some(call) = self.calls.remove(&id) else { return };
        if let Call::Ask(asked) = &call {
            if self.fault(15) {
                self.seen.swallowed += 1;
                return;
            }
            if self.fault(40) {
                let delay = self.random.millis(0, 40_000);
                self.schedule(delay, Event::Echo(id.life, asked.clone(), reply.clone()));
            }
        }
        self.with_member(id.life, |member, now, effects| member.replied(call, reply, now, effects));
    }

    fn delay(&mut self) -> Duration {
        match self.random.below(20) {
            0 if !self.calm => self.random.millis(100, 8_000),
            _ => self.random.millis(0, 5),
        }
    }

    // The broker.

    fn arrive(&mut self, id: CallId, request: Request) {
        if self.fault(60) {
            self.seen.refusals += 1;
            let codes = [ResponseCode::SYSTEM_ERROR, ResponseCode::SYSTEM_BUSY, ResponseCode::FLOW_CONTROL];
            let code = codes[usize::try_from(self.random.below(3)).unwrap()];
            self.answer(id, Reply::Refused(code));
            return;
        }
        match request {
            Request::StoredOffset(queue) => {
                let offset = self.broker.stored_offset(&queue);
                self.answer(id, offset.map_or(Reply::Refused(ResponseCode::QUERY_NOT_FOUND), Reply::Offset));
            }
            Request::Bound(queue, bound) => self.bound(id, &queue, bound),
            Request::Pull { queue, offset, ride } => self.pull(id, queue, offset, ride),
            Request::Commit { queue, offset } => {
                self.commit(&queue, offset);
                self.answer(id, Reply::Done);
            }
            Request::SendBack { queue, offset, id: message, times }
            | Request::Publish { queue, offset, id: message, times } => {
                self.give_back(&queue, offset, message, times);
                self.answer(id, Reply::Done);
            }
            Request::LookUp => self.look_up(id),
        }
    }

    fn bound(&mut self, id: CallId, queue: &MessageQueue, bound: Bound) {
        if bound == Bound::Greatest && self.broker.stored_offset(queue).is_none() {
            // The group begins here: it does not want what is older.
            let greatest = self.queue(queue).greatest();
            self.excuse(queue, greatest);
        }
        let offset = self.broker.bound(queue, bound);
        self.answer(id, Reply::Offset(offset));
    }

    fn pull(&mut self, id: CallId, queue: MessageQueue, offset: i64, ride: Option<i64>) {
        if let Some(ride) = ride {
            self.commit(&queue, ride);
        }
        if self.fault(20) {
            self.seen.lies += 1;
            let status = PullStatus::OffsetIllegal { reset: false };
            let next = i64::try_from(self.random.below(30)).unwrap();
            let from_master = self.random.chance(500);
            self.answer(id, Reply::Pulled { status, next, from_master, messages: Vec::new() });
            return;
        }
        match self.broker.pull(&queue, offset) {
            PullResult::RequestAnswer { status, next, messages } => {
                self.answer(id, Reply::Pulled { status, next, from_master: true, messages });
            }
            PullResult::Hold => {
                let held = if self.fault(50) { Duration::ZERO } else { HOLD };
                self.broker.parked.push(Parked { call: id, queue, offset });
                self.schedule(held, Event::HoldEnds(id));
            }
        }
    }

    fn hold_ends(&mut self, id: CallId) {
        let Some(at) = self.broker.parked.iter().position(|pull| pull.call == id) else { return };
        let offset = self.broker.parked.remove(at).offset;
        let status = PullStatus::NoNewMessage;
        self.answer(id, Reply::Pulled { status, next: offset, from_master: true, messages: Vec::new() });
    }

    fn append(&mut self, queue: &MessageQueue, stored: Stored) {
        for pull in self.broker.append(queue, stored) {
            match self.broker.pull(&pull.queue, pull.offset) {
                PullResult::RequestAnswer { status, next, messages } => {
                    self.answer(pull.call, Reply::Pulled { status, next, from_master: true, messages });
                }
                PullResult::Hold => self.broker.parked.push(pull),
            }
        }
    }

    fn produce(&mut self) {
        let queues: Vec<MessageQueue> = self
            .broker
            .queues
            .iter()
            .filter(|(queue, state)| &*queue.topic == TOPIC && !state.truncated)
            .map(|(queue, _)| queue.clone())
            .collect();
        if queues.is_empty() {
            return;
        }
        let queue = &queues[usize::try_from(self.random.below(queues.len() as u64)).unwrap()];
        for _ in 0..self.random.between(1, 4) {
            self.seen.messages += 1;
            let wanted = !self.random.chance(200);
            let id = self.fates.len();
            self.fates.push(Fate { consumed: 0, ended: !wanted });
            self.append(queue, Stored { id, reconsume_times: 0, wanted, resolved: false });
        }
    }

    fn give_back(&mut self, queue: &MessageQueue, offset: i64, message: usize, times: i32) {
        match self.broker.give_back(queue, offset, message, times) {
            GivenBack::DeadLetter(id) => {
                self.seen.dead_letters += 1;
                self.fates[id].ended = true;
            }
            GivenBack::Retry(stored) => {
                let delay = self.random.millis(1_000, 10_000);
                self.schedule(delay, Event::Redeliver(stored));
            }
        }
    }

    fn commit(&mut self, queue: &MessageQueue, offset: i64) {
        let needed = self.queue(queue).first_unresolved();
        assert!(offset <= needed, "{queue}: {offset} is stored, the group needs {needed}\n{}", self.state());
        self.broker.commit(queue, offset);
    }

    fn look_up(&mut self, id: CallId) {
        let own_id = &self.slots[id.life.slot].member.as_ref().map(|member| member.client_id.clone());
        let views = TOPICS.map(|topic| {
            let mut members = self.broker.members.clone();
            let own_id = own_id.clone().unwrap_or_default();
            match self.random.below(12) {
                _ if self.calm => {}
                0 => members.clear(),
                1 => members.retain(|member| *member != own_id),
                2 => members.push(own_id),
                3 => return TopicView { members: MemberList::Failed("refused".into()), ..self.view(topic, vec![]) },
                _ => {}
            }
            self.view(topic, members)
        });
        self.answer(id, Reply::Views(views.into()));
    }

    fn view(&self, topic: &str, members: Vec<String>) -> TopicView {
        let queues = self.broker.queues.keys().filter(|queue| &*queue.topic == topic).cloned().collect();
        TopicView { topic: topic.into(), queues: Some(queues), members: MemberList::Listed(members) }
    }

    fn queue(&mut self, queue: &MessageQueue) -> &mut BrokerQueue {
        self.broker.queues.get_mut(queue).unwrap()
    }

    /// The group will not get what stands before `end`, and needs it no more.
    fn excuse(&mut self, queue: &MessageQueue, end: i64) {
        let state = self.broker.queues.get_mut(queue).unwrap();
        for stored in state.log.iter_mut().take(usize::try_from(end).unwrap()) {
            if !stored.resolved {
                self.seen.excused += 1;
                stored.resolved = true;
                self.fates[stored.id].ended = true;
            }
        }
    }

    // What goes wrong besides.

    fn mischief(&mut self) {
        if self.calm {
            return;
        }
        let slot = usize::try_from(self.random.below(2)).unwrap();
        let queues: Vec<MessageQueue> = self.broker.queues.keys().cloned().collect();
        let queue = queues[usize::try_from(self.random.below(queues.len() as u64)).unwrap()].clone();
        match self.random.below(10) {
            0..=3 => self.crash(slot),
            4 | 5 => self.stop(slot),
            6 | 7 => self.reset(&queue),
            8 => self.retain(&queue),
            _ => self.truncate(&queue),
        }
    }

    fn crash(&mut self, slot: usize) {
        self.seen.crashes += 1;
        self.remove(slot);
        let delay = self.random.millis(10, 8_000);
        self.schedule(delay, Event::Start(slot));
    }

    fn stop(&mut self, slot: usize) {
        self.seen.stops += 1;
        let life = self.slots[slot].life;
        self.with_member(life, Member::stop);
        self.remove(slot);
        let delay = self.random.millis(10, 8_000);
        self.schedule(delay, Event::Start(slot));
    }

    /// An administrator sets the group back (5.x).
    fn reset(&mut self, queue: &MessageQueue) {
        self.seen.resets += 1;
        let state = self.broker.queues.get_mut(queue).unwrap();
        let end = state.committed.unwrap_or(0).min(state.greatest());
        if end > state.least {
            let to = state.least + i64::try_from(self.random.below(u64::try_from(end - state.least).unwrap())).unwrap();
            state.reset = Some(to);
            state.committed = Some(to);
        }
    }

    /// The oldest messages go.
    fn retain(&mut self, queue: &MessageQueue) {
        self.seen.retentions += 1;
        let greatest = self.queue(queue).greatest();
        let least = i64::try_from(self.random.below(u64::try_from(greatest).unwrap() + 1)).unwrap();
        let least = least.max(self.queue(queue).least);
        self.excuse(queue, least);
        self.queue(queue).least = least;
    }

    /// The broker restarts without its last messages. Nothing is sent to the queue later: the protocol could not
    /// distinguish new messages from lost ones.
    fn truncate(&mut self, queue: &MessageQueue) {
        if &*queue.topic == RETRY_TOPIC {
            return;
        }
        self.seen.truncations += 1;
        let (least, greatest) = (self.queue(queue).least, self.queue(queue).greatest());
        let end = least + i64::try_from(self.random.below(u64::try_from(greatest - least).unwrap() + 1)).unwrap();
        self.excuse(queue, greatest);
        let state = self.queue(queue);
        state.truncated = true;
        state.log.truncate(usize::try_from(end).unwrap());
        // Parked beyond the end: their connections died with the broker, so their deadlines end them.
        self.broker.parked.retain(|pull| pull.queue != *queue);
    }

    fn calm(&mut self) {
        self.calm = true;
        for slot in 0..self.slots.len() {
            self.start(slot);
        }
        self.notify_all();
    }

    // The end.

    fn is_done(&self) -> bool {
        self.fates.iter().all(|fate| fate.ended || fate.consumed > 0)
            && self.broker.queues.iter().all(|(queue, state)| {
                let stored = self.broker.stored_offset(queue);
                state.reset.is_none() && state.first_unresolved() == i64::MAX && stored == Some(state.greatest())
            })
    }

    fn end(mut self) -> Seen {
        for slot in 0..self.slots.len() {
            if let Some(member) = &self.slots[slot].member {
                self.seen.add(&member.seen);
            }
        }
        self.seen.repeated = self.fates.iter().filter(|fate| fate.consumed > 1).count();
        self.seen
    }

    fn state(&self) -> String {
        let mut lines = vec![format!("{:.3?} after the start, calm: {}", self.now - self.start, self.calm)];
        for (queue, state) in &self.broker.queues {
            let unresolved = state.first_unresolved();
            lines.push(format!(
                "{queue}: {}..{} committed {:?} reset {:?} unresolved {unresolved}",
                state.least,
                state.greatest(),
                state.committed,
                state.reset
            ));
        }
        for slot in &self.slots {
            if let Some(member) = &slot.member {
                lines.push(format!("{}:", member.client_id));
                lines.extend(member.explain(self.now));
            }
        }
        lines.join("\n")
    }
}

fn retry_queue() -> MessageQueue {
    MessageQueue::new(RETRY_TOPIC, "b", 0)
}

//! A member of the group: the cores as a consumer's threads drive them, with workers whose listeners take a while.
//!
//! Two threads share windows and offsets: the pull service, which opens, replaces and closes windows, and the driver of
//! offsets on the timer's thread, which reads one window after the other and stores what it has read. They are two actors
//! here too: anything may happen between two steps of the driver.
//!
//! The order of the other steps is the one that the real threads must keep: an answer's messages go into the window only when
//! the table awaits the answer, and before the table gets it; a window is asked for its offset before it is closed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::consumer::assign::allocate::AllocateStrategy;
use crate::consumer::assign::rebalance::{MemberList, Notice, Rebalance, TopicView, Trouble};
use crate::consumer::deliver::retry::{self, Publishing, Resolved, RetryDelay, RetryLimit, SendingBack};
use crate::consumer::fixtures::received;
use crate::consumer::offset::store::{Commit, CommitTicket, OffsetStore};
use crate::consumer::pull::event::{
    Action, Epoch, Event, PullStatus, Pulled, Report, RequestAnswer, RequestFailure, RequestTicket,
};
use crate::consumer::pull::flow::FlowLimits;
use crate::consumer::pull::process_queue::ProcessQueue;
use crate::consumer::pull::puller::PULL_TIMEOUT;
use crate::consumer::pull::request::{Claim, ConsumeRequest};
use crate::consumer::pull::slot::{FailedMessage, Position};
use crate::consumer::pull::table::{Patience, QueueTable};
use crate::consumer::start::{Bound, ConsumeFromWhere, StartDecision, StartPolicy};
use crate::message::{MessageExt, MessageQueue};
use crate::wire::ResponseCode;

use super::broker::Stored;
use super::random::Random;
use super::world::{RETRY_TOPIC, Seen};

/// Small, so that windows become full.
const LIMITS: FlowLimits = FlowLimits { messages: 6, bytes: 1 << 20, span: 10 };

/// Small, so that messages wait too long.
const CONSUME_TIMEOUT: Duration = Duration::from_secs(12);

const SWEEP: Duration = Duration::from_secs(4);

const OFFSET_INTERVAL: Duration = Duration::from_secs(5);

/// Progress is sent after this long.
const PACE: Duration = Duration::from_millis(100);

/// Request of a member to a broker.
#[derive(Clone, Debug)]
pub(super) enum Request {
    StoredOffset(MessageQueue),
    Bound(MessageQueue, Bound),
    Pull { queue: MessageQueue, offset: i64, ride: Option<i64> },
    Commit { queue: MessageQueue, offset: i64 },
    SendBack { queue: MessageQueue, offset: i64, id: usize, times: i32 },
    Publish { queue: MessageQueue, offset: i64, id: usize, times: i32 },
    LookUp,
}

impl Request {
    /// Time that the caller waits.
    pub(super) fn deadline(&self) -> Duration {
        match self {
            Self::Pull { .. } => PULL_TIMEOUT,
            Self::SendBack { .. } => Duration::from_secs(5),
            _ => Duration::from_secs(3),
        }
    }
}

/// Reply to a request.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Offset(i64),
    Pulled {
        status: PullStatus,
        next: i64,
        from_master: bool,
        messages: Vec<(i64, Stored)>,
    },
    Done,
    Refused(ResponseCode),
    /// Known topics' queues and members.
    Views(Vec<TopicView>),
    /// No answer in time, or the connection was lost.
    Lost,
}

/// A request that waits for its reply.
#[derive(Debug)]
pub(super) enum Call {
    Ask(Asked),
    Commit(MessageQueue, CommitTicket),
    SendBack(Failing, SendingBack),
    Publish(Failing, Publishing),
    LookUp,
}

/// A question of the queue table.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) queue: MessageQueue,
    pub(super) ticket: RequestTicket,
    is_stored_offset: bool,
    ride: Option<i64>,
    epoch: Option<Epoch>,
}

/// A failed message on its way back.
#[derive(Debug)]
pub(super) struct Failing {
    queue: MessageQueue,
    epoch: Epoch,
    failed: FailedMessage,
}

type Window = Rc<RefCell<ProcessQueue>>;

#[derive(Clone)]
struct Job {
    queue: MessageQueue,
    epoch: Epoch,
    window: Window,
    request: Arc<ConsumeRequest>,
}

struct Running {
    job: Job,
    claim: Claim,
    consumed: usize,
}

/// A listener has begun.
pub(super) struct Begun {
    pub(super) worker: usize,
    pub(super) lasts: Duration,
}

/// A listener has ended: the messages it consumed, with queue and offset.
pub(super) type Consumed = Vec<(MessageQueue, i64, usize)>;

/// Effects of a member on the world.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) calls: Vec<(Call, Request)>,
    pub(super) begun: Vec<Begun>,
    /// The driver of offsets has another step to make.
    pub(super) driver_goes_on: bool,
}

/// The driver of offsets in the midst of a round.
enum Driver {
    Idle,
    /// These windows are still to be read.
    Reading(Round, Vec<(MessageQueue, Epoch, Window)>),
    /// The first value has been read and is still to be stored.
    Storing(Round, (MessageQueue, Epoch, i64), Vec<(MessageQueue, Epoch, Window)>),
}

/// The commits that a round ends with.
#[derive(Clone, Copy)]
enum Round {
    All,
    Progress,
}

pub(super) struct Member {
    pub(super) client_id: String,
    rebalance: Rebalance,
    looking_up: bool,
    table: QueueTable,
    windows: BTreeMap<MessageQueue, (Epoch, Window)>,
    offsets: OffsetStore,
    next_round_of_offsets: Instant,
    progress_due: Option<Instant>,
    driver: Driver,
    jobs: VecDeque<Job>,
    workers: Vec<Option<Running>>,
    batch: usize,
    next_sweep: Instant,
    /// Pulls without an outcome, and since when.
    pulls: BTreeMap<(MessageQueue, Epoch), (RequestTicket, Instant)>,
    /// Messages that have failed and have no outcome.
    failing: BTreeSet<(Epoch, Position)>,
    /// Messages that a listener has now.
    running: BTreeSet<(Epoch, i64)>,
    actions: Vec<Action>,
    pub(super) seen: Seen,
}

impl Member {
    pub(super) fn new(client_id: String, policy: ConsumeFromWhere, now: Instant, random: &mut Random) -> Self {
        Self {
            rebalance: Rebalance::new(client_id.as_str().into(), AllocateStrategy::Averagely, now),
            client_id,
            looking_up: false,
            table: QueueTable::new(StartPolicy::new(RETRY_TOPIC.into(), policy), Patience::default()),
            windows: BTreeMap::new(),
            offsets: OffsetStore::new(),
            next_round_of_offsets: now + OFFSET_INTERVAL,
            progress_due: None,
            driver: Driver::Idle,
            jobs: VecDeque::new(),
            workers: (0..random.between(1, 3)).map(|_| None).collect(),
            batch: usize::try_from(random.between(1, 3)).unwrap(),
            next_sweep: now + SWEEP,
            pulls: BTreeMap::new(),
            failing: BTreeSet::new(),
            running: BTreeSet::new(),
            actions: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// When it has to do something by itself.
    pub(super) fn next_wake(&self) -> Instant {
        let repetitions = self.windows.values().filter_map(|(_, window)| window.borrow().next_repetition());
        let round = (!self.looking_up).then(|| self.rebalance.next_round());
        let offsets = self.progress_due.map_or(self.next_round_of_offsets, |due| due.min(self.next_round_of_offsets));
        let offsets = matches!(self.driver, Driver::Idle).then_some(offsets);
        [self.table.next_deadline(), offsets, round, Some(self.next_sweep)]
            .into_iter()
            .flatten()
            .chain(repetitions)
            .min()
            .unwrap_or(self.next_sweep)
    }

    pub(super) fn notified(&mut self, now: Instant) {
        self.rebalance.notified(now);
    }

    pub(super) fn wake(&mut self, now: Instant, effects: &mut Effects) {
        self.tell_table(Event::Tick, now, effects);
        if !self.looking_up && self.rebalance.next_round() <= now {
            self.looking_up = true;
            self.rebalance.begin_round(now);
            effects.calls.push((Call::LookUp, Request::LookUp));
        }
        let windows: Vec<_> =
            self.windows.iter().map(|(queue, (epoch, window))| (queue.clone(), *epoch, Rc::clone(window))).collect();
        let sweep = self.next_sweep <= now;
        if sweep {
            self.next_sweep = now + SWEEP;
        }
        for (queue, epoch, window) in windows {
            for request in window.borrow_mut().consume_again(now) {
                self.seen.consumed_again += 1;
                let (queue, window) = (queue.clone(), Rc::clone(&window));
                self.jobs.push_back(Job { queue, epoch, window, request });
            }
            if sweep {
                let expired = window.borrow_mut().expire(CONSUME_TIMEOUT, now);
                self.seen.expired += expired.len();
                self.send_back(&queue, epoch, expired, effects);
                self.seen.slow += window.borrow_mut().slow(CONSUME_TIMEOUT, now).len();
            }
        }
        self.wake_driver(now, effects);
        self.hurry(now, effects);
    }

    /// Begins a round of the driver that is due.
    fn wake_driver(&mut self, now: Instant, effects: &mut Effects) {
        if !matches!(self.driver, Driver::Idle) {
            return;
        }
        let round = if self.next_round_of_offsets <= now {
            self.next_round_of_offsets = now + OFFSET_INTERVAL;
            Round::All
        } else if self.progress_due.take_if(|due| *due <= now).is_some() {
            Round::Progress
        } else {
            return;
        };
        let windows = self.windows.iter().map(|(queue, (epoch, window))| (queue.clone(), *epoch, Rc::clone(window)));
        self.driver = Driver::Reading(round, windows.collect());
        effects.driver_goes_on = true;
    }

    /// One step of the driver: it reads a window, or stores what it has read.
    pub(super) fn drive_offsets(&mut self, now: Instant, effects: &mut Effects) {
        self.driver = match std::mem::replace(&mut self.driver, Driver::Idle) {
            Driver::Idle => return,
            Driver::Storing(round, (queue, epoch, offset), left) => {
                self.seen.stored_late += usize::from(self.windows.get(&queue).is_none_or(|(now, _)| *now != epoch));
                self.offsets.update(&queue, epoch, offset);
                Driver::Reading(round, left)
            }
            Driver::Reading(round, mut left) => match left.pop() {
                Some((queue, epoch, window)) => {
                    let offset = window.borrow().committable();
                    Driver::Storing(round, (queue, epoch, offset), left)
                }
                None => {
                    let commits = match round {
                        Round::All => self.offsets.flush(now),
                        Round::Progress => self.offsets.progress(now),
                    };
                    commit(commits, effects);
                    return;
                }
            },
        };
        effects.driver_goes_on = true;
    }

    fn progressed(&mut self, now: Instant) {
        self.progress_due.get_or_insert(now + PACE);
    }

    /// Begins what the workers have hands for.
    pub(super) fn start_workers(&mut self, now: Instant, calm: bool, random: &mut Random, effects: &mut Effects) {
        for worker in 0..self.workers.len() {
            while self.workers[worker].is_none() {
                let Some(job) = self.jobs.front().cloned() else { return };
                let Some(claim) = job.request.claim(self.batch, now) else {
                    self.jobs.pop_front();
                    continue;
                };
                let messages = job.request.messages(&claim);
                let (consumed, lasts) = listener(messages.len(), calm, random);
                for message in messages {
                    let fresh = self.running.insert((job.epoch, message.queue_offset));
                    assert!(fresh, "{}: two workers run offset {}", job.queue, message.queue_offset);
                }
                self.workers[worker] = Some(Running { job, claim, consumed });
                effects.begun.push(Begun { worker, lasts });
            }
        }
    }

    /// Messages that a listener has consumed; to be noted before [`Self::listener_ended`].
    pub(super) fn consumed_by(&self, worker: usize) -> Consumed {
        let Some(Running { job, claim, consumed }) = &self.workers[worker] else { return Vec::new() };
        let messages = job.request.messages(claim).iter().take(*consumed);
        messages.map(|message| (job.queue.clone(), message.queue_offset, id_of(message))).collect()
    }

    pub(super) fn listener_ended(&mut self, worker: usize, hint_gets_lost: bool, now: Instant, effects: &mut Effects) {
        let Some(Running { job, claim, consumed }) = self.workers[worker].take() else { return };
        for message in job.request.messages(&claim) {
            assert!(self.running.remove(&(job.epoch, message.queue_offset)));
        }
        let finished = job.window.borrow_mut().finish(claim, consumed);
        self.progressed(now);
        self.seen.failed += finished.failed.len();
        self.send_back(&job.queue, job.epoch, finished.failed, effects);
        if finished.drained {
            self.hint(job.queue, job.epoch, hint_gets_lost, now, effects);
        }
    }

    pub(super) fn replied(&mut self, call: Call, reply: Reply, now: Instant, effects: &mut Effects) {
        match call {
            Call::Ask(asked) => self.asked(asked, reply, now, effects),
            Call::Commit(queue, ticket) => {
                let failures = self.offsets.answered(&queue, ticket, matches!(reply, Reply::Done));
                if failures == 0 && self.offsets.is_dirty(&queue) {
                    self.progressed(now);
                }
            }
            Call::SendBack(failing, way) => self.sent_back(failing, way, &reply, now, effects),
            Call::Publish(failing, way) => self.published(&failing, way, &reply, now, effects),
            Call::LookUp => self.looked_up(reply, now, effects),
        }
        self.hurry(now, effects);
    }

    /// The answer to a question of the table, delivered twice if it is an echo.
    pub(super) fn asked(&mut self, asked: Asked, reply: Reply, now: Instant, effects: &mut Effects) {
        let Asked { queue, ticket, is_stored_offset, ride, epoch } = asked;
        if let Some(pull) = epoch.map(|epoch| (queue.clone(), epoch))
            && self.pulls.get(&pull).is_some_and(|(waits, _)| *waits == ticket)
        {
            self.pulls.remove(&pull);
        }
        if !self.table.awaits(&queue, ticket) {
            self.seen.stale += 1;
            return;
        }
        let answer = match reply {
            Reply::Offset(offset) if is_stored_offset => {
                RequestAnswer::to_offset_query(Ok(self.offsets.resumed(&queue, Some(offset), now).unwrap_or(offset)))
            }
            Reply::Offset(offset) => RequestAnswer::to_bound_query(Ok(offset)),
            Reply::Pulled { status, next, from_master, messages } => {
                self.put(&queue, status, next, messages, now);
                if let Some((ride, epoch)) =
                    ride.zip(epoch).filter(|_| from_master && !matches!(status, PullStatus::OffsetIllegal { .. }))
                {
                    self.offsets.rode(&queue, epoch, ride);
                }
                RequestAnswer::Pulled(Pulled { status, next_begin_offset: next, suggested_broker_id: 0, from_master })
            }
            Reply::Refused(code) if is_stored_offset => {
                RequestAnswer::to_offset_query(Err(RequestFailure::new(Some(code), "refused")))
            }
            Reply::Refused(code) => RequestAnswer::Failed(RequestFailure::new(Some(code), "refused")),
            Reply::Done | Reply::Views(_) | Reply::Lost => {
                RequestAnswer::Failed(RequestFailure::new(None, "no answer"))
            }
        };
        self.tell_table(Event::Answered { queue, ticket, answer }, now, effects);
    }

    /// Leaves the group in an orderly way.
    pub(super) fn stop(&mut self, now: Instant, effects: &mut Effects) {
        let queues = self.table.queues().cloned().collect();
        self.tell_table(Event::Revoked(queues), now, effects);
        self.hurry(now, effects);
        self.check(now);
        assert_eq!(self.table.queues().count(), 0);
    }

    /// The rules that hold between any two steps.
    pub(super) fn check(&self, now: Instant) {
        self.table.check(now);
        for (queue, epoch, offset) in self.offsets.consumed() {
            let Some((current, window)) = self.windows.get(queue) else { continue };
            let committable = window.borrow().committable();
            assert_eq!(epoch, *current, "{queue}: the store follows another window");
            assert!(offset <= committable, "{queue}: {offset} would be stored, the window is at {committable}");
        }
        for queue in self.table.queues() {
            assert!(self.rebalance.owns(queue), "{queue} is pulled but not owned");
        }
    }

    /// The offsets its windows would commit now.
    pub(super) fn committable(&self) -> impl Iterator<Item = (&MessageQueue, i64)> {
        self.windows.iter().map(|(queue, (_, window))| (queue, window.borrow().committable()))
    }

    /// Queues whose offset no broker is known to have.
    pub(super) fn unconfirmed(&self) -> usize {
        self.offsets.unconfirmed().len()
    }

    pub(super) fn explain(&self, now: Instant) -> Vec<String> {
        let rows =
            self.table.queues().filter_map(|queue| self.table.status(queue, now)).map(|status| status.to_string());
        let windows =
            self.windows.iter().map(|(queue, (_, window))| format!("{queue}: {:?}", window.borrow().summary()));
        let offsets = self.offsets.unconfirmed().into_iter().map(|offset| format!("{offset:?}"));
        rows.chain(windows).chain(offsets).collect()
    }

    fn put(&mut self, queue: &MessageQueue, status: PullStatus, next: i64, messages: Vec<(i64, Stored)>, now: Instant) {
        let Some((epoch, window)) = self.windows.get(queue) else { return };
        match status {
            PullStatus::Found => {
                let messages =
                    messages.into_iter().map(|(offset, stored)| message_of(queue, offset, &stored)).collect();
                let request = window.borrow_mut().put(messages, next, now);
                let job = |request| Job { queue: queue.clone(), epoch: *epoch, window: Rc::clone(window), request };
                self.jobs.extend(request.map(job));
            }
            PullStatus::NoNewMessage | PullStatus::NoMatchedMessage => window.borrow_mut().advance(next),
            PullStatus::OffsetIllegal { .. } => {}
        }
    }

    fn tell_table(&mut self, event: Event, now: Instant, effects: &mut Effects) {
        let mut actions = std::mem::take(&mut self.actions);
        self.table.handle(event, now, &mut actions);
        for action in actions.drain(..) {
            self.carry_out(action, now, effects);
        }
        if self.actions.capacity() == 0 {
            self.actions = actions;
        }
    }

    fn carry_out(&mut self, action: Action, now: Instant, effects: &mut Effects) {
        match action {
            Action::QueryStoredOffset { queue, ticket } => {
                let asked = Asked { queue: queue.clone(), ticket, is_stored_offset: true, ride: None, epoch: None };
                effects.calls.push((Call::Ask(asked), Request::StoredOffset(queue)));
            }
            Action::QueryBound { queue, ticket, bound } => {
                let asked = Asked { queue: queue.clone(), ticket, is_stored_offset: false, ride: None, epoch: None };
                effects.calls.push((Call::Ask(asked), Request::Bound(queue, bound)));
            }
            Action::Pull { queue, ticket, epoch, offset, .. } => {
                let asked = Asked { queue, ticket, is_stored_offset: false, ride: None, epoch: Some(epoch) };
                self.pull(asked, epoch, offset, now, effects);
            }
            Action::OpenWindow { queue, epoch, offset, decision } => {
                self.offsets.begin(&queue, epoch, offset, decision == StartDecision::Stored);
                self.windows.insert(queue, (epoch, Rc::new(RefCell::new(ProcessQueue::new(offset)))));
            }
            Action::MoveWindow { queue, epoch, offset } => {
                self.seen.moved_forward += 1;
                let (known, window) = &self.windows[&queue];
                assert_eq!(*known, epoch);
                window.borrow_mut().advance(offset);
                let committable = window.borrow().committable();
                self.offsets.update(&queue, epoch, committable);
                self.offsets.hurry(&queue);
            }
            Action::ReplaceWindow { queue, epoch, offset } => {
                self.seen.replaced += 1;
                let (_, old) = &self.windows[&queue];
                old.borrow_mut().close();
                self.offsets.overrule(&queue, epoch, offset);
                self.windows.insert(queue, (epoch, Rc::new(RefCell::new(ProcessQueue::new(offset)))));
            }
            Action::CloseWindow { queue, epoch } => {
                let (known, window) = self.windows.remove(&queue).expect("a row with a window");
                assert_eq!(known, epoch);
                self.seen.revoked += 1;
                self.offsets.leave(&queue, epoch, window.borrow_mut().close());
            }
            Action::Report(report) => match report {
                Report::Overdue { .. } => self.seen.overdue += 1,
                Report::Failing { .. } => self.seen.failing += 1,
                Report::Recovered { .. } => self.seen.recovered += 1,
                Report::Started { .. } | Report::OffsetCorrected { .. } => {}
            },
        }
    }

    fn pull(&mut self, asked: Asked, epoch: Epoch, offset: i64, now: Instant, effects: &mut Effects) {
        let (queue, ticket) = (asked.queue.clone(), asked.ticket);
        let window = match &self.windows[&queue] {
            (known, window) if *known == epoch => Rc::clone(window),
            other => panic!("{queue}: a pull of {epoch:?} with the window of {:?}", other.0),
        };
        assert_eq!(window.borrow().summary().next_offset, offset, "{queue}: row and window disagree");
        if let Some(reason) = window.borrow_mut().flow_control(&LIMITS) {
            self.seen.window_full += 1;
            self.tell_table(Event::WindowFull { queue, ticket, reason }, now, effects);
            return;
        }
        let committable = window.borrow().committable();
        self.offsets.update(&queue, epoch, committable);
        let ride = Some(committable).filter(|committable| *committable == offset);
        let request = Request::Pull { queue: queue.clone(), offset, ride };
        if let Some((_, since)) = self.pulls.insert((queue.clone(), epoch), (ticket, now)) {
            assert!(now - since > request.deadline(), "{queue}: two pulls at once");
        }
        effects.calls.push((Call::Ask(Asked { ride, ..asked }), request));
    }

    fn hint(&mut self, queue: MessageQueue, epoch: Epoch, gets_lost: bool, now: Instant, effects: &mut Effects) {
        if gets_lost {
            self.seen.lost_hints += 1;
        } else {
            self.seen.hints += 1;
            self.tell_table(Event::Hint { queue, epoch }, now, effects);
        }
    }

    fn hurry(&mut self, now: Instant, effects: &mut Effects) {
        commit(self.offsets.hurried(now), effects);
    }

    fn send_back(&mut self, queue: &MessageQueue, epoch: Epoch, messages: Vec<FailedMessage>, effects: &mut Effects) {
        for failed in messages {
            assert!(self.failing.insert((epoch, failed.position)), "{queue}: failed twice without an outcome between");
            let offset = failed.message.queue_offset;
            assert!(!self.running.contains(&(epoch, offset)), "{queue}: offset {offset} is sent back while it runs");
            let (way, _) = retry::send_back(RetryDelay::Growing, RetryLimit::new(None));
            let request = Request::SendBack {
                queue: queue.clone(),
                offset,
                id: id_of(&failed.message),
                times: failed.message.reconsume_times,
            };
            effects.calls.push((Call::SendBack(Failing { queue: queue.clone(), epoch, failed }, way), request));
        }
    }

    fn sent_back(&mut self, failing: Failing, way: SendingBack, reply: &Reply, now: Instant, effects: &mut Effects) {
        if matches!(reply, Reply::Done) {
            self.resolved(&failing, way.acknowledged(), now, effects);
            return;
        }
        let (way, _) = way.failed(&failing.failed.message);
        let message = &failing.failed.message;
        let request = Request::Publish {
            queue: failing.queue.clone(),
            offset: message.queue_offset,
            id: id_of(message),
            times: message.reconsume_times,
        };
        effects.calls.push((Call::Publish(failing, way), request));
    }

    fn published(&mut self, failing: &Failing, way: Publishing, reply: &Reply, now: Instant, effects: &mut Effects) {
        if matches!(reply, Reply::Done) {
            self.resolved(failing, way.stored(), now, effects);
            return;
        }
        let retry::Unresolved = way.failed();
        self.seen.given_back_in_vain += 1;
        assert!(self.failing.remove(&(failing.epoch, failing.failed.position)), "a second outcome");
        if let Some((_, window)) = self.windows.get(&failing.queue).filter(|(epoch, _)| *epoch == failing.epoch) {
            let due = window.borrow_mut().send_back_failed(failing.failed.position, now);
            assert!(due.is_some(), "a message that is being sent back can be consumed again");
        }
    }

    fn resolved(&mut self, failing: &Failing, how: Resolved, now: Instant, effects: &mut Effects) {
        match how {
            Resolved::SentBack => self.seen.sent_back += 1,
            Resolved::Published => self.seen.published += 1,
        }
        assert!(self.failing.remove(&(failing.epoch, failing.failed.position)), "a second outcome");
        let window = self.windows.get(&failing.queue).filter(|(epoch, _)| *epoch == failing.epoch);
        let drained = window.is_some_and(|(_, window)| window.borrow_mut().resolve(failing.failed.position));
        if drained {
            self.hint(failing.queue.clone(), failing.epoch, false, now, effects);
        }
    }

    fn looked_up(&mut self, reply: Reply, now: Instant, effects: &mut Effects) {
        self.looking_up = false;
        let views = match reply {
            Reply::Views(views) => views,
            _ => super::world::TOPICS.map(failed_view).into(),
        };
        let changes = self.rebalance.end_round(views, now);
        for notice in changes.notices {
            match notice {
                Notice::ListedTwice { .. } => self.seen.listed_twice += 1,
                Notice::Undecided { trouble: Trouble::NotAMember, .. } => self.seen.not_a_member += 1,
                Notice::Undecided { .. } => self.seen.undecided += 1,
                Notice::Decided { .. } => {}
            }
        }
        self.seen.assigned += changes.assigned.len();
        self.tell_table(Event::Revoked(changes.revoked), now, effects);
        self.tell_table(Event::Assigned(changes.assigned), now, effects);
    }
}

fn commit(commits: Vec<Commit>, effects: &mut Effects) {
    for commit in commits {
        let request = Request::Commit { queue: commit.queue.clone(), offset: commit.offset };
        effects.calls.push((Call::Commit(commit.queue, commit.ticket), request));
    }
}

fn failed_view(topic: &str) -> TopicView {
    TopicView { topic: topic.into(), queues: None, members: MemberList::Failed("no answer".into()) }
}

/// Number of `messages` that a listener consumes before it fails or panics, and its duration.
fn listener(messages: usize, calm: bool, random: &mut Random) -> (usize, Duration) {
    if calm {
        return (messages, random.millis(0, 20));
    }
    let consumed = match random.below(10) {
        0 | 1 => 0,
        2 => usize::try_from(random.below(3)).unwrap().min(messages),
        _ => messages,
    };
    let lasts = match random.below(20) {
        0 => random.millis(1_000, 30_000),
        1..=4 => random.millis(100, 3_000),
        _ => random.millis(0, 50),
    };
    (consumed, lasts)
}

fn message_of(queue: &MessageQueue, offset: i64, stored: &Stored) -> MessageExt {
    let mut message = received(queue, offset, b"body");
    message.commit_log_offset = i64::try_from(stored.id).unwrap();
    message.reconsume_times = stored.reconsume_times;
    message
}

fn id_of(message: &MessageExt) -> usize {
    usize::try_from(message.commit_log_offset).unwrap()
}

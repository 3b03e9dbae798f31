//! The rows of the owned queues: for each, what is being done for it now, since when, until when, and why.
//!
//! `rmq-pull` owns the table, feeds it with what happened and carries out what it answers. What is sent out for a row
//! bears a [`Ticket`]; an answer counts only while its row waits for just this one, so that a late or repeated answer
//! changes nothing, and a queue never has two pulls at work. Every row has a deadline that the table itself watches: a
//! lost answer or hint costs time, never the queue. Pure: no I/O, clock, lock, thread or log.
//!
//! A window of pulled messages ([`crate::consumer::pull::process_queue`]) lives for one [`Epoch`] of its row.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::message::MessageQueue;
use crate::wire::ResponseCode;

use crate::consumer::pull::process_queue::FlowControl;

/// Where a group begins in a queue for which the broker has no offset of it.
///
/// A group that has an offset continues there, whatever is said here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumeFromWhere {
    /// At the end: what was sent before the group's first start is not consumed. Queues that the topic gets later are
    /// read from what was stored since the start, by the clocks of this machine and of the broker. A broker may have
    /// another view: for a queue that is young, many say the group's offset is 0 where there is none.
    #[default]
    Last,
    /// At the oldest message that is left.
    First,
    /// At the first message stored at or after this time.
    Timestamp(SystemTime),
}

/// Questions asked within this time after a consumer's beginning belong to it.
const FIRST_MOMENTS: Duration = Duration::from_secs(1);

/// How long the table lets each state last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Until a pull is given up that has neither an answer nor a failure: longer than its own deadline.
    pub(crate) pull: Duration,
    /// The same for questions about offsets.
    pub(crate) question: Duration,
    /// Until the window is looked at again without a hint that it has room.
    pub(crate) flow_control: Duration,
    /// Until a paused row is looked at again.
    pub(crate) pause: Duration,
    /// The first wait after a failure; doubled by each further one.
    pub(crate) failure: Duration,
    /// The longest wait after failures.
    pub(crate) failure_longest: Duration,
    /// The first wait after the broker was too busy; doubled by each further time, 32-fold at most.
    pub(crate) busy: Duration,
    /// An answer without news that came sooner was not held by the broker.
    pub(crate) held: Duration,
    /// The longest wait for a broker that does not hold pulls.
    pub(crate) idle_longest: Duration,
}

impl Default for Patience {
    /// The Java client's waits of 1000 ms after a failure and 20 ms after a busy broker, and nets behind the deadlines
    /// of requests: 21 s for a pull, mostly 3 s for a question.
    fn default() -> Self {
        Self {
            pull: Duration::from_secs(24),
            question: Duration::from_secs(10),
            flow_control: Duration::from_secs(1),
            pause: Duration::from_secs(1),
            failure: Duration::from_secs(1),
            failure_longest: Duration::from_secs(5),
            busy: Duration::from_millis(20),
            held: Duration::from_millis(300),
            idle_longest: Duration::from_secs(1),
        }
    }
}

/// Names the life of one window of a queue; no two windows of a table share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Epoch(pub(crate) u64);

/// Names one request sent for a row; no two requests of a table share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(u64);

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The rebalance gave us these queues.
    Assigned(Vec<MessageQueue>),
    /// The rebalance took these queues from us.
    Revoked(Vec<MessageQueue>),
    /// A request that an action asked for has its answer, or has none for sure.
    Answered { queue: MessageQueue, ticket: Ticket, answer: Answer },
    /// A pull was not sent, because the window is full.
    WindowFull { queue: MessageQueue, ticket: Ticket, reason: FlowControl },
    /// The window has room again, or somebody else thinks that the row should be looked at.
    Hint { queue: MessageQueue, epoch: Epoch },
    /// Pull nothing until further notice.
    Paused,
    /// Pull again.
    Resumed,
    /// A deadline has passed, or nothing in particular.
    Tick,
}

/// The answer to a request for a row.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The broker has this offset for the group.
    Stored(i64),
    /// The broker says that it has no offset for the group.
    NotStored,
    /// The least or the greatest offset of the queue, or the one for a time, as it was asked.
    Offset(i64),
    /// A pull came back.
    Pulled(Pulled),
    /// No answer that tells anything.
    Failed(Failure),
}

impl Answer {
    /// The answer to QUERY_CONSUMER_OFFSET. Only QUERY_NOT_FOUND means that there is no offset; anything else that is not
    /// an offset must not look like a group that has never been here, or a restarted broker would send it to the
    /// beginning or the end of its queues.
    pub(crate) fn to_offset_query(result: Result<i64, Failure>) -> Self {
        match result {
            Ok(offset) if offset >= 0 => Self::Stored(offset),
            Ok(offset) => Self::Failed(Failure::new(None, format!("the broker says the group's offset is {offset}"))),
            Err(failure) if failure.code == Some(ResponseCode::QUERY_NOT_FOUND) => Self::NotStored,
            Err(failure) => Self::Failed(failure),
        }
    }

    /// The answer to a question about the bounds of a queue, or about an offset by time.
    pub(crate) fn to_bound_query(result: Result<i64, Failure>) -> Self {
        match result {
            Ok(offset) if offset >= 0 => Self::Offset(offset),
            Ok(offset) => Self::Failed(Failure::new(None, format!("the broker says an offset is {offset}"))),
            Err(failure) => Self::Failed(failure),
        }
    }
}

/// How a pull came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pulled {
    /// What the broker says.
    pub(crate) status: PullStatus,
    /// Where it says the next pull begins.
    pub(crate) next_begin_offset: i64,
    /// The broker id to pull from next: 0 for the master.
    pub(crate) suggested_broker_id: i64,
    /// Whether a master answered.
    pub(crate) from_master: bool,
}

/// What a pull found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PullStatus {
    /// Messages; they were put into the window before the table is told, or all of them were filtered out.
    Found,
    /// Nothing after the offset, for as long as the broker held the pull.
    NoNewMessage,
    /// Messages, but none that the subscription wants.
    NoMatchedMessage,
    /// The offset lies outside of the queue.
    OffsetIllegal {
        /// Whether the remark is OFFSET_RESET: an administrator has set the group's offset (5.x).
        reset: bool,
    },
}

/// Why a request told nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What the broker answered, if it did.
    pub(crate) code: Option<ResponseCode>,
    /// The words for people.
    pub(crate) text: Arc<str>,
    /// The broker cannot be reached or does not answer, which is the same for all its queues.
    pub(crate) is_outage: bool,
}

impl Failure {
    pub(crate) fn new(code: Option<ResponseCode>, text: impl Into<Arc<str>>) -> Self {
        Self { code, text: text.into(), is_outage: false }
    }

    pub(crate) fn outage(text: impl Into<Arc<str>>) -> Self {
        Self { code: None, text: text.into(), is_outage: true }
    }

    fn is_busy(&self) -> bool {
        self.code == Some(ResponseCode::FLOW_CONTROL)
    }
}

/// What to do. Each of the first four ends in an [`Event::Answered`] with its ticket, if nothing gets lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask the queue's broker for the group's offset.
    QueryStoredOffset { queue: MessageQueue, ticket: Ticket },
    /// Ask the queue's *master* for a bound of the queue; never a slave, which may be behind.
    QueryBound { queue: MessageQueue, ticket: Ticket, bound: Bound },
    /// If the window is full, answer with [`Event::WindowFull`]; else pull, with the window's offset to commit riding on
    /// the request when a master is asked.
    Pull { queue: MessageQueue, ticket: Ticket, epoch: Epoch, offset: i64, broker_id: i64 },
    /// Make a window for the queue that begins at `offset`, and let the offset store begin there.
    OpenWindow { queue: MessageQueue, epoch: Epoch, offset: i64, decision: StartDecision },
    /// The broker has no messages before `offset` any more: let the window pass over them, and store its offset soon.
    MoveWindow { queue: MessageQueue, epoch: Epoch, offset: i64 },
    /// Close the window without storing its offset, make one that begins at `offset`, and store this offset although the
    /// group may have been further already.
    ReplaceWindow { queue: MessageQueue, epoch: Epoch, offset: i64 },
    /// Close the window, and store its last offset.
    CloseWindow { queue: MessageQueue, epoch: Epoch },
    /// Tell the user.
    Report(Report),
}

/// An offset of a queue that only its broker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Of the oldest message.
    Least,
    /// After the newest message.
    Greatest,
    /// Of the first message stored at or after this time, in milliseconds since 1970.
    AtTime(i64),
}

/// Why a queue begins where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartDecision {
    /// The broker had this offset for the group.
    Stored,
    /// There was none; the policy, or the nature of a retry topic, asked for this bound.
    Chosen(Bound),
    /// It was corrected, or set by an administrator.
    Corrected,
}

impl fmt::Display for StartDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "the broker has this offset for the group",
            Self::Chosen(Bound::Least) => "the group has no offset: begins with the oldest message",
            Self::Chosen(Bound::Greatest) => "the group has no offset: begins after the newest message",
            Self::Chosen(Bound::AtTime(_)) => "the group has no offset: begins with what was stored since a time",
            Self::Corrected => "the offset before was outside of the queue, or was reset",
        })
    }
}

/// What a user should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// A queue begins to be pulled.
    Started { queue: MessageQueue, offset: i64, decision: StartDecision },
    /// Requests for a queue fail; told for the 1st, 2nd, 4th, 8th ... time in a row, so that logs stay short.
    Failing { queue: MessageQueue, doing: &'static str, failures: u32, failure: Failure },
    /// They succeed again.
    Recovered { queue: MessageQueue, failures: u32 },
    /// The broker refused the offset `from`; the queue holds `least` to `greatest`, and pulling goes on at `to`.
    OffsetCorrected { queue: MessageQueue, from: i64, to: i64, least: i64, greatest: i64 },
    /// A request for a queue got neither an answer nor a failure in time and was sent again.
    Overdue { queue: MessageQueue, doing: &'static str },
}

/// All rows of one consumer.
#[derive(Debug)]
pub(crate) struct QueueTable {
    rows: BTreeMap<MessageQueue, Row>,
    settings: Settings,
    last_number: u64,
    /// No row's deadline is earlier; it may be earlier than all of them.
    next_deadline: Option<Instant>,
    paused: bool,
}

impl QueueTable {
    /// A table without rows. `retry_topic` is the group's own, which always begins with its oldest message.
    pub(crate) fn new(retry_topic: Arc<str>, consume_from: ConsumeFromWhere, patience: Patience) -> Self {
        Self {
            rows: BTreeMap::new(),
            settings: Settings { retry_topic, consume_from, patience, began: None },
            last_number: 0,
            next_deadline: None,
            paused: false,
        }
    }

    /// The same for a consumer that begins `now`, which other machines call `millis_since_1970`.
    pub(crate) fn beginning(mut self, now: Instant, millis_since_1970: i64) -> Self {
        self.settings.began = Some(Beginning { at: now, millis_since_1970 });
        self
    }

    /// Takes in what happened and appends what to do now. Whatever the event is, rows whose deadline has passed go on too.
    pub(crate) fn handle(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::Assigned(queues) => queues.iter().for_each(|queue| self.assign(queue, now, actions)),
            Event::Revoked(queues) => queues.iter().for_each(|queue| self.revoke(queue, actions)),
            Event::Answered { queue, ticket, answer } => {
                self.with_row(&queue, now, actions, |row, turn| row.answered(ticket, answer, turn));
            }
            Event::WindowFull { queue, ticket, reason } => {
                self.with_row(&queue, now, actions, |row, turn| row.window_full(ticket, reason, turn));
            }
            Event::Hint { queue, epoch } => {
                self.with_row(&queue, now, actions, |row, turn| row.hinted(epoch, turn));
            }
            Event::Paused => self.paused = true,
            Event::Resumed => {
                self.paused = false;
                self.for_each_row(now, actions, |row, turn| row.resumed(turn));
            }
            Event::Tick => {}
        }
        if self.next_deadline.is_some_and(|deadline| deadline <= now) {
            self.next_deadline = None;
            self.for_each_row(now, actions, |row, turn| row.deadline_passed(turn));
        }
    }

    /// Whether an answer with this ticket would count: a pull's messages belong into the window only then.
    pub(crate) fn awaits(&self, queue: &MessageQueue, ticket: Ticket) -> bool {
        self.rows.get(queue).is_some_and(|row| row.state.ticket() == Some(ticket))
    }

    /// When a [`Event::Tick`] is due at the latest; `None` without rows.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    /// The queues that have a row.
    #[cfg(test)]
    pub(crate) fn queues(&self) -> impl Iterator<Item = &MessageQueue> {
        self.rows.keys()
    }

    /// Why a queue is, or is not, consumed now: a sentence for people. `None` for a queue that is not ours.
    pub(crate) fn explain(&self, queue: &MessageQueue, now: Instant) -> Option<String> {
        self.rows.get(queue).map(|row| row.explain(queue, now))
    }

    /// What must hold after every event handled at `now`.
    #[cfg(test)]
    pub(crate) fn check(&self, now: Instant) {
        for (queue, row) in &self.rows {
            assert!(row.deadline >= now, "{queue} is past its deadline: {row:?}");
            let watched = self.next_deadline.is_some_and(|bound| bound <= row.deadline);
            assert!(watched, "nobody watches the deadline of {queue}: {row:?}");
        }
    }

    fn assign(&mut self, queue: &MessageQueue, now: Instant, actions: &mut Vec<Action>) {
        if self.rows.contains_key(queue) {
            return;
        }
        self.last_number += 1;
        self.rows.insert(queue.clone(), Row::new(Epoch(self.last_number), now));
        self.with_row(queue, now, actions, |row, turn| row.ask_for_stored_offset(turn));
    }

    fn revoke(&mut self, queue: &MessageQueue, actions: &mut Vec<Action>) {
        if let Some(row) = self.rows.remove(queue).filter(|row| row.decision.is_some()) {
            actions.push(Action::CloseWindow { queue: queue.clone(), epoch: row.epoch });
        }
        if self.rows.is_empty() {
            self.next_deadline = None;
        }
    }

    fn with_row(
        &mut self,
        queue: &MessageQueue,
        now: Instant,
        actions: &mut Vec<Action>,
        step: impl FnOnce(&mut Row, &mut Turn<'_>),
    ) {
        let Some(row) = self.rows.get_mut(queue) else { return };
        let mut turn = Turn {
            queue,
            now,
            actions,
            settings: &self.settings,
            paused: self.paused,
            last_number: &mut self.last_number,
        };
        step(row, &mut turn);
        self.next_deadline = earlier(self.next_deadline, row.deadline);
    }

    fn for_each_row(&mut self, now: Instant, actions: &mut Vec<Action>, mut step: impl FnMut(&mut Row, &mut Turn<'_>)) {
        for (queue, row) in &mut self.rows {
            let mut turn = Turn {
                queue,
                now,
                actions,
                settings: &self.settings,
                paused: self.paused,
                last_number: &mut self.last_number,
            };
            step(row, &mut turn);
            self.next_deadline = earlier(self.next_deadline, row.deadline);
        }
    }
}

fn earlier(bound: Option<Instant>, deadline: Instant) -> Option<Instant> {
    Some(bound.map_or(deadline, |bound| bound.min(deadline)))
}

#[derive(Debug)]
struct Settings {
    retry_topic: Arc<str>,
    consume_from: ConsumeFromWhere,
    patience: Patience,
    began: Option<Beginning>,
}

/// When a consumer began, by both clocks.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    at: Instant,
    millis_since_1970: i64,
}

impl Settings {
    /// Where to begin without an offset of the group. A retry topic holds nothing but the group's own messages, so none of
    /// them may be skipped, whatever the policy says.
    ///
    /// "The last offset" is that of the consumer's beginning. In a queue that comes later (the topic has got more of them,
    /// or was created) messages wait that were sent since, and nobody else will read them.
    fn start(&self, queue: &MessageQueue, now: Instant) -> Bound {
        if queue.topic == self.retry_topic {
            return Bound::Least;
        }
        match self.consume_from {
            ConsumeFromWhere::First => Bound::Least,
            ConsumeFromWhere::Last => match self.began.filter(|began| now > began.at + FIRST_MOMENTS) {
                Some(began) => Bound::AtTime(began.millis_since_1970),
                None => Bound::Greatest,
            },
            ConsumeFromWhere::Timestamp(time) => {
                let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                Bound::AtTime(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
        }
    }
}

/// What a row needs of its table during one event.
struct Turn<'a> {
    queue: &'a MessageQueue,
    now: Instant,
    actions: &'a mut Vec<Action>,
    settings: &'a Settings,
    paused: bool,
    last_number: &'a mut u64,
}

impl Turn<'_> {
    fn next_number(&mut self) -> u64 {
        *self.last_number += 1;
        *self.last_number
    }

    fn push(&mut self, action: impl FnOnce(MessageQueue) -> Action) {
        self.actions.push(action(self.queue.clone()));
    }

    fn report(&mut self, report: impl FnOnce(MessageQueue) -> Report) {
        self.actions.push(Action::Report(report(self.queue.clone())));
    }
}

/// One owned queue.
#[derive(Debug)]
struct Row {
    state: State,
    since: Instant,
    deadline: Instant,
    epoch: Epoch,
    /// Where the next pull begins; nothing before `decision` is there.
    next_offset: i64,
    broker_id: i64,
    /// Why the queue began where it did; from then on it has a window.
    decision: Option<StartDecision>,
    /// In a row, of any request; a busy broker is none.
    failures: u32,
    /// Times in a row that the broker was too busy.
    busy: u32,
    /// Answers in a row without news or progress that the broker had not held.
    idle_answers: u32,
    /// Times in a row that the broker refused an offset which its bounds allow.
    contradictions: u32,
    overdue: u32,
}

#[derive(Clone, Debug)]
enum State {
    /// The group's offset was asked for. If it has none, `start` is where to begin, once it is known.
    WaitingForOffset { ticket: Ticket, start: Option<Start> },
    /// The group has none; a bound was asked for.
    WaitingForStart { ticket: Ticket, bound: Bound },
    /// A pull is at the broker.
    Pulling { ticket: Ticket },
    /// The window is full.
    FlowControlled { reason: FlowControl },
    /// The user has paused the consumer.
    Paused,
    /// Something failed, or the broker needs a rest.
    BackingOff { cause: Cause, resume: Resume },
    /// The broker refused the offset; its bounds were asked for, `least` is known already or not.
    CorrectingOffset { ticket: Ticket, refusal: Pulled, least: Option<i64> },
}

impl State {
    fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::WaitingForOffset { ticket, .. }
            | Self::WaitingForStart { ticket, .. }
            | Self::Pulling { ticket }
            | Self::CorrectingOffset { ticket, .. } => Some(*ticket),
            Self::FlowControlled { .. } | Self::Paused | Self::BackingOff { .. } => None,
        }
    }

    fn doing(&self) -> &'static str {
        match self {
            Self::WaitingForOffset { .. } => "asking for the group's offset",
            Self::WaitingForStart { .. } => "asking where the queue begins",
            Self::Pulling { .. } => "pulling",
            Self::CorrectingOffset { .. } => "asking for the bounds of the queue",
            Self::FlowControlled { .. } | Self::Paused | Self::BackingOff { .. } => "waiting",
        }
    }

    /// What to begin again when the request of this state got no answer.
    fn resume(&self) -> Resume {
        match self {
            Self::WaitingForOffset { .. } => Resume::StoredOffset,
            Self::WaitingForStart { .. } => Resume::Start,
            Self::CorrectingOffset { refusal, .. } => Resume::Correction(*refusal),
            Self::BackingOff { resume, .. } => *resume,
            Self::Pulling { .. } | Self::FlowControlled { .. } | Self::Paused => Resume::Pull,
        }
    }
}

/// The offset of a bound, as its broker told it.
#[derive(Clone, Copy, Debug)]
struct Start {
    bound: Bound,
    offset: i64,
}

#[derive(Clone, Debug)]
enum Cause {
    Failed(Failure),
    Busy,
    /// The broker answers at once that there is nothing, instead of holding the pull.
    NotHeld,
    /// The broker refused an offset that its bounds allow.
    Contradiction,
}

#[derive(Clone, Copy, Debug)]
enum Resume {
    StoredOffset,
    Start,
    Pull,
    Correction(Pulled),
}

impl Row {
    fn new(epoch: Epoch, now: Instant) -> Self {
        Self {
            state: State::Paused,
            since: now,
            deadline: now,
            epoch,
            next_offset: 0,
            broker_id: 0,
            decision: None,
            failures: 0,
            busy: 0,
            idle_answers: 0,
            contradictions: 0,
            overdue: 0,
        }
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer, turn: &mut Turn<'_>) {
        if self.state.ticket() != Some(ticket) {
            return;
        }
        match (self.state.clone(), answer) {
            (_, Answer::Failed(failure)) => self.failed(failure, turn),
            (State::WaitingForOffset { .. }, Answer::Stored(offset)) => {
                self.start(offset, StartDecision::Stored, turn);
            }
            (State::WaitingForOffset { start: None, .. }, Answer::NotStored) => self.ask_for_start(turn),
            (State::WaitingForStart { bound, .. }, Answer::Offset(offset)) => {
                self.ask_for_stored_offset_again(Start { bound, offset }, turn);
            }
            (State::WaitingForOffset { start: Some(Start { bound, offset }), .. }, Answer::NotStored) => {
                self.start(offset, StartDecision::Chosen(bound), turn);
            }
            (State::Pulling { .. }, Answer::Pulled(pulled)) => self.pulled(pulled, turn),
            (State::CorrectingOffset { refusal, least: None, .. }, Answer::Offset(least)) => {
                self.ask_for_greatest(refusal, least, turn);
            }
            (State::CorrectingOffset { refusal, least: Some(least), .. }, Answer::Offset(greatest)) => {
                self.correct(refusal, least, greatest, turn);
            }
            (state, _) => {
                let text = format!("the answer does not fit to {}", state.doing());
                self.failed(Failure::new(None, text), turn);
            }
        }
    }

    fn window_full(&mut self, ticket: Ticket, reason: FlowControl, turn: &Turn<'_>) {
        if self.state.ticket() == Some(ticket) {
            self.enter(State::FlowControlled { reason }, turn.settings.patience.flow_control, turn);
        }
    }

    fn hinted(&mut self, epoch: Epoch, turn: &mut Turn<'_>) {
        if self.epoch == epoch && matches!(self.state, State::FlowControlled { .. }) {
            self.pull(turn);
        }
    }

    fn resumed(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.state, State::Paused) {
            self.pull(turn);
        }
    }

    fn deadline_passed(&mut self, turn: &mut Turn<'_>) {
        if self.deadline > turn.now {
            return;
        }
        if self.state.ticket().is_some() {
            self.overdue = self.overdue.saturating_add(1);
            let doing = self.state.doing();
            turn.report(|queue| Report::Overdue { queue, doing });
        }
        match self.state.resume() {
            Resume::StoredOffset => self.ask_for_stored_offset(turn),
            Resume::Start => self.ask_for_start(turn),
            Resume::Pull => self.pull(turn),
            Resume::Correction(refusal) => self.ask_for_least(refusal, turn),
        }
    }

    fn ask_for_stored_offset(&mut self, turn: &mut Turn<'_>) {
        self.ask_for_offset(None, turn);
    }

    /// Another member may have begun in this queue between our two questions, and stored where: what came since would
    /// be skipped if this member began at the end as it is now.
    fn ask_for_stored_offset_again(&mut self, start: Start, turn: &mut Turn<'_>) {
        self.ask_for_offset(Some(start), turn);
    }

    fn ask_for_offset(&mut self, start: Option<Start>, turn: &mut Turn<'_>) {
        let ticket = Ticket(turn.next_number());
        self.enter(State::WaitingForOffset { ticket, start }, turn.settings.patience.question, turn);
        turn.push(|queue| Action::QueryStoredOffset { queue, ticket });
    }

    fn ask_for_start(&mut self, turn: &mut Turn<'_>) {
        let ticket = Ticket(turn.next_number());
        let bound = turn.settings.start(turn.queue, turn.now);
        self.enter(State::WaitingForStart { ticket, bound }, turn.settings.patience.question, turn);
        turn.push(|queue| Action::QueryBound { queue, ticket, bound });
    }

    fn start(&mut self, offset: i64, decision: StartDecision, turn: &mut Turn<'_>) {
        self.succeeded(turn);
        let epoch = self.epoch;
        self.next_offset = offset;
        self.decision = Some(decision);
        turn.report(|queue| Report::Started { queue, offset, decision });
        turn.push(|queue| Action::OpenWindow { queue, epoch, offset, decision });
        self.pull(turn);
    }

    fn pull(&mut self, turn: &mut Turn<'_>) {
        if turn.paused {
            self.enter(State::Paused, turn.settings.patience.pause, turn);
            return;
        }
        let ticket = Ticket(turn.next_number());
        self.enter(State::Pulling { ticket }, turn.settings.patience.pull, turn);
        let Self { epoch, next_offset: offset, broker_id, .. } = *self;
        turn.push(|queue| Action::Pull { queue, ticket, epoch, offset, broker_id });
    }

    fn pulled(&mut self, pulled: Pulled, turn: &mut Turn<'_>) {
        self.succeeded(turn);
        self.broker_id = pulled.suggested_broker_id;
        if let PullStatus::OffsetIllegal { .. } = pulled.status {
            self.ask_for_least(pulled, turn);
            return;
        }
        self.contradictions = 0;
        let progress = pulled.next_begin_offset > self.next_offset;
        let held = turn.now.saturating_duration_since(self.since) >= turn.settings.patience.held;
        self.next_offset = self.next_offset.max(pulled.next_begin_offset);
        if progress || held {
            self.idle_answers = 0;
            self.pull(turn);
            return;
        }
        self.idle_answers = self.idle_answers.saturating_add(1);
        match self.idle_answers {
            0..=2 => self.pull(turn),
            answers => {
                let longest = turn.settings.patience.idle_longest;
                let wait = doubled(Duration::from_millis(10), answers - 3).min(longest);
                self.back_off(Cause::NotHeld, Resume::Pull, wait, turn);
            }
        }
    }

    fn ask_for_least(&mut self, refusal: Pulled, turn: &mut Turn<'_>) {
        self.ask_for_bound(refusal, None, Bound::Least, turn);
    }

    fn ask_for_greatest(&mut self, refusal: Pulled, least: i64, turn: &mut Turn<'_>) {
        self.ask_for_bound(refusal, Some(least), Bound::Greatest, turn);
    }

    fn ask_for_bound(&mut self, refusal: Pulled, least: Option<i64>, bound: Bound, turn: &mut Turn<'_>) {
        let ticket = Ticket(turn.next_number());
        let state = State::CorrectingOffset { ticket, refusal, least };
        self.enter(state, turn.settings.patience.question, turn);
        turn.push(|queue| Action::QueryBound { queue, ticket, bound });
    }

    /// Goes to the offset nearest to the refused one that the queue has, by its master's word; from beyond the end of a queue
    /// that still has its first message to the start, as brokers advise and the Java client follows: the topic may have been
    /// made anew, and everything in it is new. Else the broker's advice counts only after an administrator's reset, or when
    /// it keeps on refusing what its bounds allow and going back, which repeats messages but loses none, ends that.
    fn correct(&mut self, refusal: Pulled, least: i64, greatest: i64, turn: &mut Turn<'_>) {
        if least > greatest {
            let text = format!("the broker says the queue holds the offsets {least} to {greatest}");
            self.failed(Failure::new(None, text), turn);
            return;
        }
        self.succeeded(turn);
        let told = refusal.next_begin_offset.clamp(least, greatest);
        if refusal.status == (PullStatus::OffsetIllegal { reset: true }) {
            self.go_on_in_new_window(told, least, greatest, turn);
            return;
        }
        let is_made_anew = self.next_offset > greatest && least == 0;
        let nearest = if is_made_anew { least } else { self.next_offset.clamp(least, greatest) };
        if nearest > self.next_offset {
            self.skip_to(nearest, least, greatest, turn);
        } else if nearest < self.next_offset {
            self.go_on_in_new_window(nearest, least, greatest, turn);
        } else {
            self.contradicted(refusal, told, least, greatest, turn);
        }
    }

    /// The refused offset is a legal one: a slave was behind, or the queue has grown since, or the broker errs.
    fn contradicted(&mut self, refusal: Pulled, told: i64, least: i64, greatest: i64, turn: &mut Turn<'_>) {
        self.broker_id = 0;
        self.contradictions = self.contradictions.saturating_add(1);
        if self.contradictions > 3 && refusal.from_master && told < self.next_offset {
            self.go_on_in_new_window(told, least, greatest, turn);
        } else if self.contradictions == 1 {
            self.pull(turn);
        } else {
            let wait = failure_wait(self.contradictions - 1, &turn.settings.patience);
            self.back_off(Cause::Contradiction, Resume::Pull, wait, turn);
        }
    }

    /// What was pulled before stays in its window.
    fn skip_to(&mut self, offset: i64, least: i64, greatest: i64, turn: &mut Turn<'_>) {
        let (from, epoch) = (self.next_offset, self.epoch);
        self.next_offset = offset;
        turn.report(|queue| Report::OffsetCorrected { queue, from, to: offset, least, greatest });
        turn.push(|queue| Action::MoveWindow { queue, epoch, offset });
        self.pull(turn);
    }

    /// What was pulled before no longer counts: its offsets are, or will be, those of other messages.
    fn go_on_in_new_window(&mut self, offset: i64, least: i64, greatest: i64, turn: &mut Turn<'_>) {
        let (from, epoch) = (self.next_offset, Epoch(turn.next_number()));
        self.epoch = epoch;
        self.next_offset = offset;
        self.decision = Some(StartDecision::Corrected);
        self.contradictions = 0;
        turn.report(|queue| Report::OffsetCorrected { queue, from, to: offset, least, greatest });
        turn.push(|queue| Action::ReplaceWindow { queue, epoch, offset });
        self.pull(turn);
    }

    fn failed(&mut self, failure: Failure, turn: &mut Turn<'_>) {
        let (resume, doing) = (self.state.resume(), self.state.doing());
        // A slave that was suggested may be gone; the master knows.
        self.broker_id = 0;
        if failure.is_busy() {
            let wait = doubled(turn.settings.patience.busy, self.busy.min(5));
            self.busy = self.busy.saturating_add(1);
            self.back_off(Cause::Busy, resume, wait, turn);
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let failures = self.failures;
        if failures.is_power_of_two() {
            let failure = failure.clone();
            turn.report(|queue| Report::Failing { queue, doing, failures, failure });
        }
        let wait = failure_wait(failures, &turn.settings.patience);
        self.back_off(Cause::Failed(failure), resume, wait, turn);
    }

    fn succeeded(&mut self, turn: &mut Turn<'_>) {
        self.busy = 0;
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            turn.report(|queue| Report::Recovered { queue, failures });
        }
    }

    fn back_off(&mut self, cause: Cause, resume: Resume, wait: Duration, turn: &Turn<'_>) {
        self.enter(State::BackingOff { cause, resume }, wait, turn);
    }

    /// The one place where a state begins, and none begins without a deadline.
    fn enter(&mut self, state: State, patience: Duration, turn: &Turn<'_>) {
        self.state = state;
        self.since = turn.now;
        self.deadline = turn.now + patience;
    }

    fn explain(&self, queue: &MessageQueue, now: Instant) -> String {
        let lasting = now.saturating_duration_since(self.since);
        let left = self.deadline.saturating_duration_since(now);
        let mut text = match &self.state {
            State::WaitingForOffset { .. } | State::WaitingForStart { .. } | State::CorrectingOffset { .. } => {
                format!("{queue} is not pulled yet: {} for {lasting:.1?}", self.state.doing())
            }
            State::Pulling { .. } => {
                format!("{queue} is being pulled from offset {} for {lasting:.1?}", self.next_offset)
            }
            State::FlowControlled { reason } => {
                format!("{queue} is not pulled for {lasting:.1?}, because its listeners are behind: {reason}")
            }
            State::Paused => format!("{queue} is not pulled, because the consumer is paused"),
            State::BackingOff { cause, resume } => {
                format!("{queue} is not pulled: {}; {} again in {left:.1?}", cause.explain(), resume.doing())
            }
        };
        if self.failures > 1 {
            text.push_str(&format!("; {} failures in a row", self.failures));
        }
        if self.overdue > 0 {
            text.push_str(&format!("; {} requests got no answer in time", self.overdue));
        }
        if let Some(decision) = self.decision {
            text.push_str(&format!("; where it began: {decision}"));
        }
        text
    }
}

impl Cause {
    fn explain(&self) -> String {
        match self {
            Self::Failed(failure) => failure.text.to_string(),
            Self::Busy => "the broker is too busy".to_owned(),
            Self::NotHeld => "the broker answers at once that there is nothing, instead of holding the pull".to_owned(),
            Self::Contradiction => "the broker refuses an offset that lies within the queue".to_owned(),
        }
    }
}

impl Resume {
    fn doing(&self) -> &'static str {
        match self {
            Self::StoredOffset => "asks for the group's offset",
            Self::Start => "asks where the queue begins",
            Self::Pull => "pulls",
            Self::Correction(_) => "asks for the bounds of the queue",
        }
    }
}

fn failure_wait(failures: u32, patience: &Patience) -> Duration {
    doubled(patience.failure, failures.saturating_sub(1)).min(patience.failure_longest)
}

fn doubled(wait: Duration, times: u32) -> Duration {
    wait.saturating_mul(1 << times.min(20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::vectors::vectors;

    const SECOND: Duration = Duration::from_secs(1);

    /// A table, a clock, and what the table asked for and was not looked at yet.
    struct Bench {
        table: QueueTable,
        now: Instant,
        actions: Vec<Action>,
    }

    impl Bench {
        fn new(consume_from: ConsumeFromWhere) -> Self {
            let table = QueueTable::new("%RETRY%G".into(), consume_from, Patience::default());
            Self { table, now: Instant::now(), actions: Vec::new() }
        }

        /// A table that pulls its one queue from offset 10, and the ticket of the pull.
        fn pulling() -> (Self, Ticket) {
            let mut bench = Self::new(ConsumeFromWhere::Last);
            bench.assign(queue());
            let ticket = bench.ticket();
            bench.answer(ticket, Answer::Stored(10));
            let ticket = bench.ticket();
            (bench, ticket)
        }

        fn handle(&mut self, event: Event) {
            self.actions.clear();
            self.table.handle(event, self.now, &mut self.actions);
            for queue in self.table.queues() {
                assert!(self.table.explain(queue, self.now).is_some());
            }
        }

        fn assign(&mut self, queue: MessageQueue) {
            self.handle(Event::Assigned(vec![queue]));
        }

        fn answer(&mut self, ticket: Ticket, answer: Answer) {
            self.handle(Event::Answered { queue: queue(), ticket, answer });
        }

        fn pulled(&mut self, ticket: Ticket, status: PullStatus, next_begin_offset: i64) {
            let pulled = Pulled { status, next_begin_offset, suggested_broker_id: 0, from_master: true };
            self.answer(ticket, Answer::Pulled(pulled));
        }

        fn refused(&mut self, ticket: Ticket, next_begin_offset: i64) {
            self.pulled(ticket, PullStatus::OffsetIllegal { reset: false }, next_begin_offset);
        }

        /// Answers both questions about the bounds of the queue.
        fn bounds(&mut self, least: i64, greatest: i64) {
            let ticket = self.asked(Bound::Least);
            self.answer(ticket, Answer::Offset(least));
            let ticket = self.asked(Bound::Greatest);
            self.answer(ticket, Answer::Offset(greatest));
        }

        fn asked(&self, expected: Bound) -> Ticket {
            match self.requests()[..] {
                [Action::QueryBound { ticket, bound, .. }] if *bound == expected => *ticket,
                ref other => panic!("{other:?}"),
            }
        }

        /// Lets time pass until the table does something, for three of its deadlines at most: the first may be that of an
        /// earlier state. Answers how long it was.
        fn sleep(&mut self) -> Duration {
            let before = self.now;
            self.actions.clear();
            for _ in 0..3 {
                if self.actions.is_empty() {
                    self.now = self.table.next_deadline().unwrap();
                    self.handle(Event::Tick);
                }
            }
            self.now - before
        }

        fn requests(&self) -> Vec<&Action> {
            self.actions.iter().filter(|action| ticket_of(action).is_some()).collect()
        }

        /// The ticket of the one request that is asked for now.
        fn ticket(&self) -> Ticket {
            match self.requests()[..] {
                [request] => ticket_of(request).unwrap(),
                ref other => panic!("{other:?}"),
            }
        }

        fn pull_offset(&self) -> Option<i64> {
            self.actions.iter().find_map(|action| match action {
                Action::Pull { offset, .. } => Some(*offset),
                _ => None,
            })
        }

        fn reports(&self) -> Vec<&Report> {
            self.actions
                .iter()
                .filter_map(|action| match action {
                    Action::Report(report) => Some(report),
                    _ => None,
                })
                .collect()
        }

        fn asked_for(&self, wanted: Bound) -> bool {
            self.actions.iter().any(|action| matches!(action, Action::QueryBound { bound, .. } if *bound == wanted))
        }

        fn explain(&self) -> String {
            self.table.explain(&queue(), self.now).unwrap()
        }
    }

    fn queue() -> MessageQueue {
        MessageQueue::new("T", "b", 0)
    }

    fn ticket_of(action: &Action) -> Option<Ticket> {
        match action {
            Action::QueryStoredOffset { ticket, .. }
            | Action::QueryBound { ticket, .. }
            | Action::Pull { ticket, .. } => Some(*ticket),
            _ => None,
        }
    }

    fn failure(code: ResponseCode) -> Answer {
        Answer::Failed(Failure::new(Some(code), "no"))
    }

    fn timed_out() -> Answer {
        Answer::Failed(Failure::new(None, "no answer"))
    }

    #[test]
    fn off_03_a_stored_offset_is_where_pulling_begins() {
        for vector in [vectors("OFFSET-008").remove(0), vectors("OFFSET-021").remove(0)] {
            let input = &vector["input"];
            let stored = [&input["storedOffset"], &input["computePullFromWhere"]["stored"]];
            let stored = stored.iter().find_map(|value| value.as_i64()).unwrap();
            for policy in
                [ConsumeFromWhere::First, ConsumeFromWhere::Last, ConsumeFromWhere::Timestamp(SystemTime::now())]
            {
                let mut bench = Bench::new(policy);
                bench.assign(queue());
                let ticket = bench.ticket();
                bench.answer(ticket, Answer::to_offset_query(Ok(stored)));
                assert_eq!(bench.pull_offset(), vector["expected"].as_i64());
                assert!(matches!(
                    bench.reports()[..],
                    [Report::Started { decision: StartDecision::Stored, offset, .. }] if *offset == stored
                ));
            }
        }
    }

    #[test]
    fn off_03_without_an_offset_the_policy_asks_the_master_where_to_begin() {
        let at = UNIX_EPOCH + Duration::from_millis(1234);
        let cases = [
            (ConsumeFromWhere::First, "T", Bound::Least),
            (ConsumeFromWhere::Last, "T", Bound::Greatest),
            (ConsumeFromWhere::Timestamp(at), "T", Bound::AtTime(1234)),
            (ConsumeFromWhere::Last, "%RETRY%G", Bound::Least),
            (ConsumeFromWhere::Timestamp(at), "%RETRY%G", Bound::Least),
        ];
        for (policy, topic, bound) in cases {
            let mut bench = Bench::new(policy);
            let queue = MessageQueue::new(topic, "b", 0);
            bench.assign(queue.clone());
            let ticket = bench.ticket();
            let answer = Answer::to_offset_query(Err(Failure::new(Some(ResponseCode::QUERY_NOT_FOUND), "none")));
            bench.handle(Event::Answered { queue: queue.clone(), ticket, answer });
            let ticket = bench.asked(bound);
            bench.handle(Event::Answered { queue: queue.clone(), ticket, answer: Answer::to_bound_query(Ok(77)) });
            let ticket = bench.ticket();
            bench.handle(Event::Answered { queue, ticket, answer: Answer::NotStored });
            assert_eq!(bench.pull_offset(), Some(77));
        }
    }

    #[test]
    fn from_the_last_offset_a_queue_that_comes_later_begins_with_what_was_stored_since_the_start() {
        let cases = [
            (Duration::ZERO, Bound::Greatest),
            (FIRST_MOMENTS, Bound::Greatest),
            (2 * FIRST_MOMENTS, Bound::AtTime(1234)),
        ];
        for (later, bound) in cases {
            let mut bench = Bench::new(ConsumeFromWhere::Last);
            bench.table = bench.table.beginning(bench.now, 1234);
            bench.now += later;
            bench.assign(queue());
            let ticket = bench.ticket();
            bench.answer(ticket, Answer::NotStored);
            assert!(bench.asked_for(bound), "{later:?}");
        }
    }

    #[test]
    fn off_03_a_group_without_an_offset_begins_where_the_vectors_say() {
        for id in ["OFFSET-006", "OFFSET-007"] {
            let vector = vectors(id).remove(0);
            let policy = match vector["input"]["consumeFromWhere"].as_str().unwrap() {
                "LAST" => ConsumeFromWhere::Last,
                _ => ConsumeFromWhere::First,
            };
            let mut bench = Bench::new(policy);
            let queue = MessageQueue::new(vector["input"]["topic"].as_str().unwrap(), "b", 0);
            bench.assign(queue.clone());
            let ticket = bench.ticket();
            bench.handle(Event::Answered { queue: queue.clone(), ticket, answer: Answer::NotStored });
            // The queue holds 0 to 50.
            let offset = if bench.asked_for(Bound::Least) { 0 } else { 50 };
            let ticket = bench.ticket();
            bench.handle(Event::Answered { queue: queue.clone(), ticket, answer: Answer::Offset(offset) });
            let ticket = bench.ticket();
            bench.handle(Event::Answered { queue, ticket, answer: Answer::NotStored });
            assert_eq!(bench.pull_offset(), vector["expected"].as_i64(), "{id}");
        }
    }

    /// OFFSET-003 and -011: any failure but "not found" must not look like a group without an offset.
    #[test]
    fn off_03_a_failed_offset_query_starts_nothing_and_is_repeated() {
        assert_eq!(vectors("OFFSET-003")[0]["expected"], -2);
        assert_eq!(vectors("OFFSET-011")[0]["expected"], "error -> not pulled this round");
        let mut bench = Bench::new(ConsumeFromWhere::Last);
        bench.assign(queue());
        let codes = [ResponseCode::SYSTEM_ERROR, ResponseCode::SYSTEM_BUSY, ResponseCode::SERVICE_NOT_AVAILABLE];
        let mut waits = Vec::new();
        for code in codes {
            let ticket = bench.ticket();
            bench.answer(ticket, Answer::to_offset_query(Err(Failure::new(Some(code), "no"))));
            assert!(bench.requests().is_empty());
            waits.push(bench.sleep());
            assert!(matches!(bench.requests()[..], [Action::QueryStoredOffset { .. }]));
        }
        assert_eq!(waits, [SECOND, SECOND * 2, SECOND * 4]);
        let ticket = bench.ticket();
        bench.answer(ticket, Answer::to_offset_query(Ok(-1)));
        assert!(bench.requests().is_empty(), "an offset of -1 tells nothing");
        bench.sleep();
        let ticket = bench.ticket();
        bench.answer(ticket, Answer::Stored(3));
        assert_eq!(bench.pull_offset(), Some(3));
        assert!(matches!(bench.reports()[0], Report::Recovered { failures: 4, .. }));
    }

    /// OFFSET-002.
    #[test]
    fn off_03_only_query_not_found_means_that_there_is_no_offset() {
        assert_eq!(vectors("OFFSET-002")[0]["expected"], -1);
        let answer = |code: i32| Answer::to_offset_query(Err(Failure::new(Some(ResponseCode(code)), "")));
        for code in 0..300 {
            assert_eq!(matches!(answer(code), Answer::NotStored), code == 22, "{code}");
        }
        assert!(matches!(Answer::to_offset_query(Err(Failure::new(None, "lost"))), Answer::Failed(_)));
    }

    #[test]
    fn an_offset_stored_by_another_member_meanwhile_is_not_skipped() {
        let mut bench = Bench::new(ConsumeFromWhere::Last);
        bench.assign(queue());
        let ticket = bench.ticket();
        bench.answer(ticket, Answer::NotStored);
        let ticket = bench.asked(Bound::Greatest);
        bench.answer(ticket, Answer::Offset(2));
        assert!(matches!(bench.requests()[..], [Action::QueryStoredOffset { .. }]));
        let ticket = bench.ticket();
        bench.answer(ticket, Answer::Stored(0));
        assert_eq!(bench.pull_offset(), Some(0));
    }

    #[test]
    fn a_start_that_cannot_be_asked_for_is_asked_for_again() {
        let mut bench = Bench::new(ConsumeFromWhere::Last);
        bench.assign(queue());
        let ticket = bench.ticket();
        bench.answer(ticket, Answer::NotStored);
        let ticket = bench.ticket();
        bench.answer(ticket, timed_out());
        assert_eq!(bench.pull_offset(), None);
        bench.sleep();
        bench.asked(Bound::Greatest);
    }

    #[test]
    fn a_bound_that_is_no_offset_begins_nothing_and_is_asked_for_again() {
        let mut bench = Bench::new(ConsumeFromWhere::Last);
        bench.assign(queue());
        let ticket = bench.ticket();
        bench.answer(ticket, Answer::NotStored);
        let ticket = bench.asked(Bound::Greatest);
        bench.answer(ticket, Answer::to_bound_query(Ok(-1)));
        assert!(bench.requests().is_empty());
        assert!(matches!(bench.reports()[..], [Report::Failing { .. }]));
        bench.sleep();
        let ticket = bench.asked(Bound::Greatest);
        bench.answer(ticket, Answer::to_bound_query(Ok(0)));
        assert!(matches!(bench.requests()[..], [Action::QueryStoredOffset { .. }]));
    }

    #[test]
    fn cc_12_pulls_follow_each_other_from_where_the_broker_says() {
        let (mut bench, ticket) = Bench::pulling();
        bench.pulled(ticket, PullStatus::Found, 42);
        assert_eq!(bench.pull_offset(), Some(42));
        let ticket = bench.ticket();
        bench.pulled(ticket, PullStatus::NoMatchedMessage, 900);
        assert_eq!(bench.pull_offset(), Some(900));
        let ticket = bench.ticket();
        bench.now += SECOND * 15;
        bench.pulled(ticket, PullStatus::NoNewMessage, 900);
        assert_eq!(bench.pull_offset(), Some(900));
    }

    #[test]
    fn an_answer_counts_once_and_only_for_the_pull_that_waits() {
        let (mut bench, first) = Bench::pulling();
        bench.pulled(first, PullStatus::Found, 42);
        let second = bench.ticket();
        assert!(!bench.table.awaits(&queue(), first) && bench.table.awaits(&queue(), second));
        bench.pulled(first, PullStatus::Found, 99);
        assert!(bench.actions.is_empty());
        bench.handle(Event::Revoked(vec![queue()]));
        bench.pulled(second, PullStatus::Found, 99);
        assert!(bench.actions.is_empty());
        bench.assign(queue());
        bench.pulled(second, PullStatus::Found, 99);
        assert!(bench.actions.is_empty(), "the queue was ours in an earlier life");
    }

    #[test]
    fn a_lost_answer_is_noticed_at_the_deadline_of_the_row() {
        let (mut bench, lost) = Bench::pulling();
        assert_eq!(bench.sleep(), Patience::default().pull);
        assert!(matches!(bench.reports()[..], [Report::Overdue { doing: "pulling", .. }]));
        assert_eq!(bench.pull_offset(), Some(10));
        let ticket = bench.ticket();
        bench.pulled(lost, PullStatus::Found, 42);
        assert!(bench.actions.is_empty(), "the late answer changes nothing");
        bench.pulled(ticket, PullStatus::Found, 42);
        assert_eq!(bench.pull_offset(), Some(42));
        assert!(bench.explain().contains("1 requests got no answer in time"), "{}", bench.explain());
    }

    #[test]
    fn failures_wait_longer_each_time_and_are_told_ever_less() {
        let (mut bench, mut ticket) = Bench::pulling();
        let (mut waits, mut told) = (Vec::new(), Vec::new());
        for failures in 1..=9 {
            bench.answer(ticket, timed_out());
            if !bench.reports().is_empty() {
                told.push(failures);
            }
            assert!(bench.explain().contains("no answer"));
            waits.push(bench.sleep().as_secs());
            ticket = bench.ticket();
        }
        assert_eq!(waits, [1, 2, 4, 5, 5, 5, 5, 5, 5]);
        assert_eq!(told, [1, 2, 4, 8]);
        bench.pulled(ticket, PullStatus::Found, 11);
        assert!(matches!(bench.reports()[..], [Report::Recovered { failures: 9, .. }]));
    }

    #[test]
    fn a_busy_broker_is_asked_again_soon() {
        let (mut bench, mut ticket) = Bench::pulling();
        let mut waits = Vec::new();
        for _ in 0..8 {
            bench.answer(ticket, failure(ResponseCode::FLOW_CONTROL));
            assert!(bench.reports().is_empty());
            waits.push(bench.sleep().as_millis());
            ticket = bench.ticket();
        }
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 640, 640]);
    }

    #[test]
    fn a_broker_that_does_not_hold_pulls_is_not_asked_in_a_tight_loop() {
        let (mut bench, mut ticket) = Bench::pulling();
        let mut waits = Vec::new();
        for _ in 0..12 {
            bench.pulled(ticket, PullStatus::NoNewMessage, 10);
            waits.push(if bench.requests().is_empty() { bench.sleep().as_millis() } else { 0 });
            ticket = bench.ticket();
        }
        assert_eq!(waits, [0, 0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
        bench.pulled(ticket, PullStatus::Found, 11);
        assert_eq!(bench.pull_offset(), Some(11), "news ends it");
    }

    #[test]
    fn messages_without_progress_do_not_become_a_tight_loop() {
        let (mut bench, mut ticket) = Bench::pulling();
        for _ in 0..3 {
            bench.pulled(ticket, PullStatus::Found, 9);
            if bench.requests().is_empty() {
                return;
            }
            assert_eq!(bench.pull_offset(), Some(10), "pulling never goes back by itself");
            ticket = bench.ticket();
        }
        panic!("still pulling");
    }

    #[test]
    fn cc_11_a_full_window_is_pulled_into_again_when_it_has_room() {
        let (mut bench, ticket) = Bench::pulling();
        let Some(Action::Pull { epoch, .. }) = bench.actions.last().cloned() else { panic!() };
        let reason = FlowControl::Messages { cached: 1001, limit: 1000 };
        bench.handle(Event::WindowFull { queue: queue(), ticket, reason });
        assert!(bench.actions.is_empty());
        assert!(bench.explain().contains("1001 messages"), "{}", bench.explain());
        bench.handle(Event::Hint { queue: queue(), epoch: Epoch(u64::MAX) });
        assert!(bench.actions.is_empty(), "a hint of another life");
        bench.handle(Event::Hint { queue: queue(), epoch });
        assert_eq!(bench.pull_offset(), Some(10));
        bench.handle(Event::Hint { queue: queue(), epoch });
        assert!(bench.actions.is_empty(), "one pull at a time");
    }

    #[test]
    fn cc_11_a_full_window_is_looked_at_again_after_a_second_when_its_hint_is_lost() {
        let (mut bench, ticket) = Bench::pulling();
        let reason = FlowControl::Span { span: 2001, limit: 2000 };
        bench.handle(Event::WindowFull { queue: queue(), ticket, reason });
        assert_eq!(bench.sleep(), SECOND);
        assert_eq!(bench.pull_offset(), Some(10));
        assert!(bench.reports().is_empty(), "no request got lost");
    }

    #[test]
    fn cc_11_a_paused_consumer_pulls_nothing_until_it_is_resumed() {
        let (mut bench, ticket) = Bench::pulling();
        bench.handle(Event::Paused);
        bench.pulled(ticket, PullStatus::Found, 42);
        assert!(bench.requests().is_empty());
        bench.sleep();
        assert!(bench.requests().is_empty());
        assert!(bench.explain().contains("paused"));
        bench.handle(Event::Resumed);
        assert_eq!(bench.pull_offset(), Some(42));
    }

    #[test]
    fn cc_12_an_offset_before_the_queue_goes_on_with_the_oldest_message() {
        let (mut bench, ticket) = Bench::pulling();
        bench.refused(ticket, 0);
        bench.bounds(30, 90);
        assert!(bench.actions.iter().any(|action| matches!(action, Action::MoveWindow { offset: 30, .. })));
        assert!(matches!(
            bench.reports()[..],
            [Report::OffsetCorrected { from: 10, to: 30, least: 30, greatest: 90, .. }]
        ));
        assert_eq!(bench.pull_offset(), Some(30));
    }

    /// With its first message at hand the queue may be that of a topic that was made anew: nothing in it was consumed.
    #[test]
    fn cc_12_an_offset_beyond_the_queue_goes_back_in_a_new_window() {
        for (least, expected) in [(1, 7), (0, 0)] {
            let (mut bench, ticket) = Bench::pulling();
            bench.refused(ticket, 0);
            bench.bounds(least, 7);
            let replaced = bench.actions.iter().find_map(|action| match action {
                Action::ReplaceWindow { epoch, offset, .. } => Some((*epoch, *offset)),
                _ => None,
            });
            let (epoch, offset) = replaced.unwrap();
            assert_eq!((offset, bench.pull_offset()), (expected, Some(expected)));
            assert!(matches!(bench.requests()[..], [Action::Pull { epoch: pulled, .. }] if *pulled == epoch));
        }
    }

    #[test]
    fn a_correction_that_cannot_be_asked_for_moves_nothing() {
        let (mut bench, ticket) = Bench::pulling();
        bench.refused(ticket, 0);
        let ticket = bench.asked(Bound::Least);
        bench.answer(ticket, timed_out());
        assert!(bench.requests().is_empty());
        bench.sleep();
        let ticket = bench.asked(Bound::Least);
        bench.answer(ticket, Answer::Offset(5));
        let ticket = bench.asked(Bound::Greatest);
        bench.answer(ticket, Answer::Offset(4));
        assert!(matches!(bench.reports()[..], [Report::Failing { .. }]), "5 to 4 is nonsense");
        bench.sleep();
        bench.bounds(5, 20);
        assert_eq!(bench.pull_offset(), Some(10));
    }

    #[test]
    fn a_reset_by_an_administrator_is_followed_within_the_queue() {
        for (told, expected) in [(3, 3), (15, 15), (99, 20)] {
            let (mut bench, ticket) = Bench::pulling();
            bench.pulled(ticket, PullStatus::OffsetIllegal { reset: true }, told);
            bench.bounds(0, 20);
            assert!(bench.actions.iter().any(|action| matches!(action, Action::ReplaceWindow { .. })));
            assert_eq!(bench.pull_offset(), Some(expected));
        }
    }

    #[test]
    fn a_broker_that_keeps_refusing_a_legal_offset_is_followed_only_back() {
        let (mut bench, mut ticket) = Bench::pulling();
        for (attempt, wait) in [(1, 0), (2, 1), (3, 2)] {
            bench.refused(ticket, 4);
            bench.bounds(0, 20);
            let waited = if bench.requests().is_empty() { bench.sleep().as_secs() } else { 0 };
            assert_eq!((waited, bench.pull_offset()), (wait, Some(10)), "attempt {attempt}");
            ticket = bench.ticket();
        }
        bench.refused(ticket, 4);
        bench.bounds(0, 20);
        assert_eq!(bench.pull_offset(), Some(4));

        for told in [10, 20] {
            let (mut bench, mut ticket) = Bench::pulling();
            for _ in 0..6 {
                bench.refused(ticket, told);
                bench.bounds(0, 20);
                assert!(bench.reports().is_empty(), "nothing is corrected");
                if bench.requests().is_empty() {
                    bench.sleep();
                }
                assert_eq!(bench.pull_offset(), Some(10), "going on would skip messages");
                ticket = bench.ticket();
            }
        }
    }

    #[test]
    fn the_broker_that_is_suggested_is_asked_until_it_fails() {
        let (mut bench, ticket) = Bench::pulling();
        let suggestion =
            Pulled { status: PullStatus::Found, next_begin_offset: 11, suggested_broker_id: 1, from_master: true };
        bench.answer(ticket, Answer::Pulled(suggestion));
        assert!(matches!(bench.requests()[..], [Action::Pull { broker_id: 1, .. }]));
        let ticket = bench.ticket();
        bench.answer(ticket, timed_out());
        bench.sleep();
        assert!(matches!(bench.requests()[..], [Action::Pull { broker_id: 0, .. }]));
    }

    #[test]
    fn an_explanation_tells_what_is_done_since_when_and_what_went_wrong() {
        let (mut bench, ticket) = Bench::pulling();
        bench.now += SECOND;
        let began = "where it began: the broker has this offset for the group";
        let queue = queue();
        assert_eq!(bench.explain(), format!("{queue} is being pulled from offset 10 for 1.0s; {began}"));
        bench.answer(ticket, timed_out());
        assert_eq!(bench.explain(), format!("{queue} is not pulled: no answer; pulls again in 1.0s; {began}"));
        bench.sleep();
        let ticket = bench.ticket();
        bench.answer(ticket, timed_out());
        assert!(bench.explain().ends_with(&format!("again in 2.0s; 2 failures in a row; {began}")));
    }

    #[test]
    fn a_revoked_queue_closes_its_window_if_it_has_one() {
        let (mut bench, _) = Bench::pulling();
        bench.handle(Event::Revoked(vec![queue()]));
        assert!(matches!(bench.actions[..], [Action::CloseWindow { .. }]));
        assert_eq!(bench.table.next_deadline(), None);
        bench.assign(queue());
        bench.handle(Event::Revoked(vec![queue()]));
        assert!(bench.actions.is_empty());
    }

    #[test]
    fn an_assignment_that_is_known_already_changes_nothing() {
        let (mut bench, ticket) = Bench::pulling();
        bench.assign(queue());
        assert!(bench.actions.is_empty());
        assert!(bench.table.awaits(&queue(), ticket));
    }

    #[test]
    fn an_answer_of_the_wrong_kind_counts_as_a_failure() {
        let (mut bench, ticket) = Bench::pulling();
        bench.answer(ticket, Answer::Stored(5));
        assert!(matches!(bench.reports()[..], [Report::Failing { doing: "pulling", .. }]));
        bench.sleep();
        assert_eq!(bench.pull_offset(), Some(10));
    }
}

//! One row of the queue table: the state of one owned queue, and the steps from state to state. Pure.

use std::fmt;
use std::time::{Duration, Instant};

use crate::message::MessageQueue;

use crate::consumer::pull::event::{
    Action, Epoch, PullStatus, Pulled, Report, RequestAnswer, RequestFailure, RequestTicket,
};
use crate::consumer::pull::flow::FlowControl;
use crate::consumer::pull::status::{QueueState, QueueStatus};
use crate::consumer::pull::table::Patience;
use crate::consumer::start::{Bound, StartDecision, StartPolicy};

/// Context of one step of a row: its queue, the time, and what the table lends.
pub(super) struct RowTurn<'a> {
    pub(super) queue: &'a MessageQueue,
    pub(super) now: Instant,
    pub(super) actions: &'a mut Vec<Action>,
    pub(super) start: &'a StartPolicy,
    pub(super) patience: &'a Patience,
    pub(super) paused: bool,
    pub(super) last_number: &'a mut u64,
}

impl RowTurn<'_> {
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
pub(super) struct QueueRow {
    state: RowState,
    since: Instant,
    pub(super) deadline: Instant,
    pub(super) epoch: Epoch,
    /// Offset of the next pull; without a meaning before there is a `decision`.
    next_offset: i64,
    broker_id: i64,
    /// Why the queue began where it did; from then on it has a window.
    pub(super) decision: Option<StartDecision>,
    /// In a row, of any request; a busy broker is none.
    failures: u32,
    /// Times in a row that the broker was too busy.
    busy: u32,
    /// Answers in a row without news or progress that the broker had not held.
    idle_answers: u32,
    /// Times in a row that the broker refused an offset which its bounds allow.
    contradictions: u32,
    overdue: u32,
    /// The row has let go of its queue, and the table removes it.
    pub(super) is_over: bool,
}

#[derive(Clone, Debug)]
enum RowState {
    /// The group's offset was asked for. If it has none, `start` is where to begin, once it is known.
    WaitingForOffset { ticket: RequestTicket, start: Option<Start> },
    /// The group has none; a bound was asked for.
    WaitingForStart { ticket: RequestTicket, bound: Bound },
    /// A pull is at the broker.
    Pulling { ticket: RequestTicket },
    /// The window is full.
    FlowControlled { reason: FlowControl },
    /// The user has paused the consumer.
    Paused,
    /// Something failed, or the broker needs a rest.
    BackingOff { cause: Cause, resume: Resume },
    /// The broker refused the offset; its bounds were asked for, `least` is known already or not.
    CorrectingOffset { ticket: RequestTicket, refusal: Pulled, least: Option<i64> },
}

impl RowState {
    fn ticket(&self) -> Option<RequestTicket> {
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

    /// Step to begin again when the request of this state got no answer.
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

/// Offset of a bound, by the broker.
#[derive(Clone, Copy, Debug)]
struct Start {
    bound: Bound,
    offset: i64,
}

#[derive(Clone, Debug)]
enum Cause {
    Failed(RequestFailure),
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

impl QueueRow {
    pub(super) fn new(epoch: Epoch, now: Instant) -> Self {
        Self {
            state: RowState::Paused,
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
            is_over: false,
        }
    }

    /// True if an answer with this ticket would count.
    pub(super) fn awaits(&self, ticket: RequestTicket) -> bool {
        self.state.ticket() == Some(ticket)
    }

    pub(super) fn answered(&mut self, ticket: RequestTicket, answer: RequestAnswer, turn: &mut RowTurn<'_>) {
        if !self.awaits(ticket) {
            return;
        }
        match (self.state.clone(), answer) {
            (_, RequestAnswer::Failed(failure)) => self.failed(failure, turn),
            (RowState::WaitingForOffset { .. }, RequestAnswer::Stored(offset)) => {
                self.start(offset, StartDecision::Stored, turn);
            }
            (RowState::WaitingForOffset { start: None, .. }, RequestAnswer::NotStored) => self.ask_for_start(turn),
            (RowState::WaitingForStart { bound, .. }, RequestAnswer::Offset(offset)) => {
                // Another member may have begun in this queue between our two questions, and stored where: what came since
                // would be skipped if this member began at the end as it is now. So the first question is asked again.
                self.ask_for_offset(Some(Start { bound, offset }), turn);
            }
            (RowState::WaitingForOffset { start: Some(Start { bound, offset }), .. }, RequestAnswer::NotStored) => {
                self.start(offset, StartDecision::Chosen(bound), turn);
            }
            (RowState::Pulling { .. }, RequestAnswer::Pulled(pulled)) => self.pulled(pulled, turn),
            (RowState::CorrectingOffset { refusal, least: None, .. }, RequestAnswer::Offset(least)) => {
                self.ask_for_bound(refusal, Some(least), turn);
            }
            (RowState::CorrectingOffset { refusal, least: Some(least), .. }, RequestAnswer::Offset(greatest)) => {
                self.correct(refusal, least, greatest, turn);
            }
            (state, _) => {
                let text = format!("the answer does not fit to {}", state.doing());
                self.failed(RequestFailure::new(None, text), turn);
            }
        }
    }

    /// Gives the queue up: at once, since messages that are under way may be consumed by two members for a while.
    pub(super) fn leave(&mut self, turn: &mut RowTurn<'_>) {
        let epoch = self.epoch;
        if self.decision.is_some() {
            turn.push(|queue| Action::CloseWindow { queue, epoch });
        }
        self.is_over = true;
    }

    pub(super) fn window_full(&mut self, ticket: RequestTicket, reason: FlowControl, turn: &RowTurn<'_>) {
        if self.awaits(ticket) {
            self.enter(RowState::FlowControlled { reason }, turn.patience.flow_control, turn);
        }
    }

    pub(super) fn hinted(&mut self, epoch: Epoch, turn: &mut RowTurn<'_>) {
        if self.epoch == epoch && matches!(self.state, RowState::FlowControlled { .. }) {
            self.pull(turn);
        }
    }

    pub(super) fn resumed(&mut self, turn: &mut RowTurn<'_>) {
        if matches!(self.state, RowState::Paused) {
            self.pull(turn);
        }
    }

    pub(super) fn deadline_passed(&mut self, turn: &mut RowTurn<'_>) {
        if self.deadline > turn.now {
            return;
        }
        if self.state.ticket().is_some() {
            self.overdue = self.overdue.saturating_add(1);
            let doing = self.state.doing();
            turn.report(|queue| Report::Overdue { queue, doing });
        }
        match self.state.resume() {
            Resume::StoredOffset => self.ask_for_offset(None, turn),
            Resume::Start => self.ask_for_start(turn),
            Resume::Pull => self.pull(turn),
            Resume::Correction(refusal) => self.ask_for_bound(refusal, None, turn),
        }
    }

    /// Begins with the question for the group's offset.
    pub(super) fn begin(&mut self, turn: &mut RowTurn<'_>) {
        self.ask_for_offset(None, turn);
    }

    fn ask_for_offset(&mut self, start: Option<Start>, turn: &mut RowTurn<'_>) {
        let ticket = RequestTicket(turn.next_number());
        self.enter(RowState::WaitingForOffset { ticket, start }, turn.patience.question, turn);
        turn.push(|queue| Action::QueryStoredOffset { queue, ticket });
    }

    fn ask_for_start(&mut self, turn: &mut RowTurn<'_>) {
        let ticket = RequestTicket(turn.next_number());
        let bound = turn.start.bound(turn.queue, turn.now);
        self.enter(RowState::WaitingForStart { ticket, bound }, turn.patience.question, turn);
        turn.push(|queue| Action::QueryBound { queue, ticket, bound });
    }

    fn start(&mut self, offset: i64, decision: StartDecision, turn: &mut RowTurn<'_>) {
        self.succeeded(turn);
        let epoch = self.epoch;
        self.next_offset = offset;
        self.decision = Some(decision);
        turn.report(|queue| Report::Started { queue, offset, decision });
        turn.push(|queue| Action::OpenWindow { queue, epoch, offset, decision });
        self.pull(turn);
    }

    fn pull(&mut self, turn: &mut RowTurn<'_>) {
        if turn.paused {
            self.enter(RowState::Paused, turn.patience.pause, turn);
            return;
        }
        let ticket = RequestTicket(turn.next_number());
        self.enter(RowState::Pulling { ticket }, turn.patience.pull, turn);
        let Self { epoch, next_offset: offset, broker_id, .. } = *self;
        turn.push(|queue| Action::Pull { queue, ticket, epoch, offset, broker_id });
    }

    fn pulled(&mut self, pulled: Pulled, turn: &mut RowTurn<'_>) {
        self.succeeded(turn);
        self.broker_id = pulled.suggested_broker_id;
        if let PullStatus::OffsetIllegal { .. } = pulled.status {
            self.ask_for_bound(pulled, None, turn);
            return;
        }
        self.contradictions = 0;
        let progress = pulled.next_begin_offset > self.next_offset;
        let held = turn.now.saturating_duration_since(self.since) >= turn.patience.held;
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
                let longest = turn.patience.idle_longest;
                let wait = doubled(Duration::from_millis(10), answers - 3).min(longest);
                self.back_off(Cause::NotHeld, Resume::Pull, wait, turn);
            }
        }
    }

    /// Asks for the least offset of a queue that refused ours, and then, with `least` known, for the greatest.
    fn ask_for_bound(&mut self, refusal: Pulled, least: Option<i64>, turn: &mut RowTurn<'_>) {
        let bound = if least.is_none() { Bound::Least } else { Bound::Greatest };
        let ticket = RequestTicket(turn.next_number());
        let state = RowState::CorrectingOffset { ticket, refusal, least };
        self.enter(state, turn.patience.question, turn);
        turn.push(|queue| Action::QueryBound { queue, ticket, bound });
    }

    /// Goes to the offset nearest to the refused one that the queue has, by its master's word; from beyond the end of a queue
    /// that still has its first message to the start, as brokers advise and the Java client follows: the topic may have been
    /// made anew, and everything in it is new. Else the broker's advice counts only after an administrator's reset, or when
    /// it keeps on refusing what its bounds allow and going back, which repeats messages but loses none, ends that.
    fn correct(&mut self, refusal: Pulled, least: i64, greatest: i64, turn: &mut RowTurn<'_>) {
        if least > greatest {
            let text = format!("the broker says the queue holds the offsets {least} to {greatest}");
            self.failed(RequestFailure::new(None, text), turn);
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
    fn contradicted(&mut self, refusal: Pulled, told: i64, least: i64, greatest: i64, turn: &mut RowTurn<'_>) {
        self.broker_id = 0;
        self.contradictions = self.contradictions.saturating_add(1);
        if self.contradictions > 3 && refusal.from_master && told < self.next_offset {
            self.go_on_in_new_window(told, least, greatest, turn);
        } else if self.contradictions == 1 {
            self.pull(turn);
        } else {
            let wait = failure_wait(self.contradictions - 1, turn.patience);
            self.back_off(Cause::Contradiction, Resume::Pull, wait, turn);
        }
    }

    /// Goes on at a greater offset; messages that were pulled before stay in the window.
    fn skip_to(&mut self, offset: i64, least: i64, greatest: i64, turn: &mut RowTurn<'_>) {
        let (from, epoch) = (self.next_offset, self.epoch);
        self.next_offset = offset;
        turn.report(|queue| Report::OffsetCorrected { queue, from, to: offset, least, greatest });
        turn.push(|queue| Action::MoveWindow { queue, epoch, offset });
        self.pull(turn);
    }

    /// Goes on at another offset in a new window: the offsets of the messages that were pulled before are, or will be, those of
    /// other messages.
    fn go_on_in_new_window(&mut self, offset: i64, least: i64, greatest: i64, turn: &mut RowTurn<'_>) {
        let (from, epoch) = (self.next_offset, Epoch(turn.next_number()));
        self.epoch = epoch;
        self.next_offset = offset;
        self.decision = Some(StartDecision::Corrected);
        self.contradictions = 0;
        turn.report(|queue| Report::OffsetCorrected { queue, from, to: offset, least, greatest });
        turn.push(|queue| Action::ReplaceWindow { queue, epoch, offset });
        self.pull(turn);
    }

    fn failed(&mut self, failure: RequestFailure, turn: &mut RowTurn<'_>) {
        let (resume, doing) = (self.state.resume(), self.state.doing());
        // A slave that was suggested may be gone; the master suggests another.
        self.broker_id = 0;
        if failure.is_busy() {
            let wait = doubled(turn.patience.busy, self.busy.min(5));
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
        let wait = failure_wait(failures, turn.patience);
        self.back_off(Cause::Failed(failure), resume, wait, turn);
    }

    fn succeeded(&mut self, turn: &mut RowTurn<'_>) {
        self.busy = 0;
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            turn.report(|queue| Report::Recovered { queue, failures });
        }
    }

    fn back_off(&mut self, cause: Cause, resume: Resume, wait: Duration, turn: &RowTurn<'_>) {
        self.enter(RowState::BackingOff { cause, resume }, wait, turn);
    }

    /// The one place where a state begins, and none begins without a deadline.
    fn enter(&mut self, state: RowState, patience: Duration, turn: &RowTurn<'_>) {
        self.state = state;
        self.since = turn.now;
        self.deadline = turn.now + patience;
    }

    pub(super) fn status(&self, queue: &MessageQueue, now: Instant) -> QueueStatus {
        let (state, reason, next_step) = match &self.state {
            RowState::WaitingForOffset { .. }
            | RowState::WaitingForStart { .. }
            | RowState::CorrectingOffset { .. } => {
                (QueueState::QueryingOffset, Some(self.state.doing().to_owned()), None)
            }
            RowState::Pulling { .. } => (QueueState::Pulling, None, None),
            RowState::FlowControlled { reason } => (QueueState::FlowControlled, Some(reason.to_string()), None),
            RowState::Paused => (QueueState::Paused, None, None),
            RowState::BackingOff { cause, resume } => {
                (QueueState::BackingOff, Some(cause.to_string()), Some(resume.doing()))
            }
        };
        QueueStatus {
            queue: queue.clone(),
            state,
            since: self.since,
            asked_at: now,
            reason,
            next_step,
            deadline: self.deadline,
            next_offset: self.decision.map(|_| self.next_offset),
            failures: self.failures,
            unanswered: self.overdue,
            start: self.decision,
            broker_release: None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed(failure) => &failure.text,
            Self::Busy => "the broker is too busy",
            Self::NotHeld => "the broker answers at once that there is nothing, instead of holding the pull",
            Self::Contradiction => "the broker refuses an offset that lies within the queue",
        })
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

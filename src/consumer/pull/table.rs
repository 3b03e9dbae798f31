//! The queue table: a row for each owned queue, with its state, since when, until when, and why.
//!
//! `rmq-pull` owns the table, feeds it with what happened and carries out the actions that it returns. A request for a row
//! bears a [`RequestTicket`]; an answer counts only while its row waits for just this one, so that a late or repeated answer
//! changes nothing, and a queue never has two pulls at work. Every row has a deadline that the table itself watches: a
//! lost answer or hint costs time, never the queue. Pure: no I/O, clock, lock, thread or log.
//!
//! A window of pulled messages ([`crate::consumer::pull::process_queue`]) lives for one [`Epoch`] of its row.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::message::MessageQueue;

use crate::consumer::pull::event::{Action, Epoch, Event, RequestTicket};
use crate::consumer::pull::row::{QueueRow, RowTurn};
use crate::consumer::pull::status::QueueStatus;
use crate::consumer::start::StartPolicy;

/// Longest durations of the states.
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

/// All rows of one consumer.
#[derive(Debug)]
pub(crate) struct QueueTable {
    rows: BTreeMap<MessageQueue, QueueRow>,
    start: StartPolicy,
    patience: Patience,
    last_number: u64,
    /// No row's deadline is earlier; it may be earlier than all of them.
    next_deadline: Option<Instant>,
    paused: bool,
}

impl QueueTable {
    /// A table without rows.
    pub(crate) fn new(start: StartPolicy, patience: Patience) -> Self {
        Self { rows: BTreeMap::new(), start, patience, last_number: 0, next_deadline: None, paused: false }
    }

    /// Takes in what happened and appends what to do now. Whatever the event is, rows whose deadline has passed go on too.
    pub(crate) fn handle(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::Assigned(queues) => queues.iter().for_each(|queue| self.assign(queue, now, actions)),
            Event::Revoked(queues) => {
                for queue in &queues {
                    self.with_row(queue, now, actions, QueueRow::leave);
                }
            }
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

    /// True if an answer with this ticket would count: a pull's messages belong into the window only then.
    pub(crate) fn awaits(&self, queue: &MessageQueue, ticket: RequestTicket) -> bool {
        self.rows.get(queue).is_some_and(|row| row.awaits(ticket))
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

    /// Status of an owned queue; `None` for a queue that is not ours.
    pub(crate) fn status(&self, queue: &MessageQueue, now: Instant) -> Option<QueueStatus> {
        self.rows.get(queue).map(|row| row.status(queue, now))
    }

    /// Invariants that hold after every event handled at `now`.
    #[cfg(test)]
    pub(crate) fn check(&self, now: Instant) {
        for (queue, row) in &self.rows {
            assert!(row.deadline >= now, "{queue} is past its deadline: {row:?}");
            let watched = self.next_deadline.is_some_and(|bound| bound <= row.deadline);
            assert!(watched, "no watch for the deadline of {queue}: {row:?}");
        }
    }

    fn assign(&mut self, queue: &MessageQueue, now: Instant, actions: &mut Vec<Action>) {
        if self.rows.contains_key(queue) {
            return;
        }
        self.last_number += 1;
        self.rows.insert(queue.clone(), QueueRow::new(Epoch(self.last_number), now));
        self.with_row(queue, now, actions, QueueRow::begin);
    }

    /// Takes one step of a row. A row that has let go of its queue in this step ends with it.
    fn with_row(
        &mut self,
        queue: &MessageQueue,
        now: Instant,
        actions: &mut Vec<Action>,
        step: impl FnOnce(&mut QueueRow, &mut RowTurn<'_>),
    ) {
        let Some(row) = self.rows.get_mut(queue) else { return };
        let mut turn = RowTurn {
            queue,
            now,
            actions,
            start: &self.start,
            patience: &self.patience,
            paused: self.paused,
            last_number: &mut self.last_number,
        };
        step(row, &mut turn);
        if !row.is_over {
            self.next_deadline = earlier(self.next_deadline, row.deadline);
            return;
        }
        self.rows.remove(queue);
        if self.rows.is_empty() {
            self.next_deadline = None;
        }
    }

    fn for_each_row(
        &mut self,
        now: Instant,
        actions: &mut Vec<Action>,
        mut step: impl FnMut(&mut QueueRow, &mut RowTurn<'_>),
    ) {
        for (queue, row) in &mut self.rows {
            let mut turn = RowTurn {
                queue,
                now,
                actions,
                start: &self.start,
                patience: &self.patience,
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

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::checks::vectors::vectors;
    use crate::consumer::pull::event::{PullStatus, Pulled, Report, RequestAnswer, RequestFailure};
    use crate::consumer::pull::flow::FlowControl;
    use crate::consumer::start::{Bound, ConsumeFromWhere, FIRST_MOMENTS, StartDecision};
    use crate::wire::ResponseCode;

    const SECOND: Duration = Duration::from_secs(1);

    /// A table, a clock, and what the table asked for and was not looked at yet.
    struct Bench {
        table: QueueTable,
        now: Instant,
        actions: Vec<Action>,
    }

    impl Bench {
        fn new(consume_from: ConsumeFromWhere) -> Self {
            Self::with(StartPolicy::new("%RETRY%G".into(), consume_from), Instant::now())
        }

        fn with(start: StartPolicy, now: Instant) -> Self {
            Self { table: QueueTable::new(start, Patience::default()), now, actions: Vec::new() }
        }

        /// A table that pulls its one queue from offset 10, and the ticket of the pull.
        fn pulling() -> (Self, RequestTicket) {
            let mut bench = Self::new(ConsumeFromWhere::Last);
            bench.assign(queue());
            let ticket = bench.ticket();
            bench.answer(ticket, RequestAnswer::Stored(10));
            let ticket = bench.ticket();
            (bench, ticket)
        }

        fn handle(&mut self, event: Event) {
            self.actions.clear();
            self.table.handle(event, self.now, &mut self.actions);
            for queue in self.table.queues() {
                assert!(self.table.status(queue, self.now).is_some());
            }
        }

        fn assign(&mut self, queue: MessageQueue) {
            self.handle(Event::Assigned(vec![queue]));
        }

        fn answer(&mut self, ticket: RequestTicket, answer: RequestAnswer) {
            self.handle(Event::Answered { queue: queue(), ticket, answer });
        }

        fn pulled(&mut self, ticket: RequestTicket, status: PullStatus, next_begin_offset: i64) {
            let pulled = Pulled { status, next_begin_offset, suggested_broker_id: 0, from_master: true };
            self.answer(ticket, RequestAnswer::Pulled(pulled));
        }

        fn refused(&mut self, ticket: RequestTicket, next_begin_offset: i64) {
            self.pulled(ticket, PullStatus::OffsetIllegal { reset: false }, next_begin_offset);
        }

        /// Answers both questions about the bounds of the queue.
        fn bounds(&mut self, least: i64, greatest: i64) {
            let ticket = self.asked(Bound::Least);
            self.answer(ticket, RequestAnswer::Offset(least));
            let ticket = self.asked(Bound::Greatest);
            self.answer(ticket, RequestAnswer::Offset(greatest));
        }

        fn asked(&self, expected: Bound) -> RequestTicket {
            match self.requests()[..] {
                [Action::QueryBound { ticket, bound, .. }] if *bound == expected => *ticket,
                ref other => panic!("{other:?}"),
            }
        }

        /// Lets time pass until the table does something, for three of its deadlines at most: the first may be that of an
        /// earlier state. Returns how long it was.
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
        fn ticket(&self) -> RequestTicket {
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
            self.table.status(&queue(), self.now).unwrap().to_string()
        }
    }

    fn queue() -> MessageQueue {
        MessageQueue::new("T", "b", 0)
    }

    fn ticket_of(action: &Action) -> Option<RequestTicket> {
        match action {
            Action::QueryStoredOffset { ticket, .. }
            | Action::QueryBound { ticket, .. }
            | Action::Pull { ticket, .. } => Some(*ticket),
            _ => None,
        }
    }

    fn failure(code: ResponseCode) -> RequestAnswer {
        RequestAnswer::Failed(RequestFailure::new(Some(code), "no"))
    }

    fn timed_out() -> RequestAnswer {
        RequestAnswer::Failed(RequestFailure::new(None, "no answer"))
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
                bench.answer(ticket, RequestAnswer::to_offset_query(Ok(stored)));
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
            let answer =
                RequestAnswer::to_offset_query(Err(RequestFailure::new(Some(ResponseCode::QUERY_NOT_FOUND), "none")));
            bench.handle(Event::Answered { queue: queue.clone(), ticket, answer });
            let ticket = bench.asked(bound);
            bench.handle(Event::Answered {
                queue: queue.clone(),
                ticket,
                answer: RequestAnswer::to_bound_query(Ok(77)),
            });
            let ticket = bench.ticket();
            bench.handle(Event::Answered { queue, ticket, answer: RequestAnswer::NotStored });
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
            let now = Instant::now();
            let policy = StartPolicy::new("%RETRY%G".into(), ConsumeFromWhere::Last).beginning(now, 1234);
            let mut bench = Bench::with(policy, now);
            bench.now += later;
            bench.assign(queue());
            let ticket = bench.ticket();
            bench.answer(ticket, RequestAnswer::NotStored);
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
            bench.handle(Event::Answered { queue: queue.clone(), ticket, answer: RequestAnswer::NotStored });
            // The queue holds 0 to 50.
            let offset = if bench.asked_for(Bound::Least) { 0 } else { 50 };
            let ticket = bench.ticket();
            bench.handle(Event::Answered { queue: queue.clone(), ticket, answer: RequestAnswer::Offset(offset) });
            let ticket = bench.ticket();
            bench.handle(Event::Answered { queue, ticket, answer: RequestAnswer::NotStored });
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
            bench.answer(ticket, RequestAnswer::to_offset_query(Err(RequestFailure::new(Some(code), "no"))));
            assert!(bench.requests().is_empty());
            waits.push(bench.sleep());
            assert!(matches!(bench.requests()[..], [Action::QueryStoredOffset { .. }]));
        }
        assert_eq!(waits, [SECOND, SECOND * 2, SECOND * 4]);
        let ticket = bench.ticket();
        bench.answer(ticket, RequestAnswer::to_offset_query(Ok(-1)));
        assert!(bench.requests().is_empty(), "an offset of -1 tells nothing");
        bench.sleep();
        let ticket = bench.ticket();
        bench.answer(ticket, RequestAnswer::Stored(3));
        assert_eq!(bench.pull_offset(), Some(3));
        assert!(matches!(bench.reports()[0], Report::Recovered { failures: 4, .. }));
    }

    #[test]
    fn an_offset_stored_by_another_member_meanwhile_is_not_skipped() {
        let mut bench = Bench::new(ConsumeFromWhere::Last);
        bench.assign(queue());
        let ticket = bench.ticket();
        bench.answer(ticket, RequestAnswer::NotStored);
        let ticket = bench.asked(Bound::Greatest);
        bench.answer(ticket, RequestAnswer::Offset(2));
        assert!(matches!(bench.requests()[..], [Action::QueryStoredOffset { .. }]));
        let ticket = bench.ticket();
        bench.answer(ticket, RequestAnswer::Stored(0));
        assert_eq!(bench.pull_offset(), Some(0));
    }

    #[test]
    fn a_start_that_cannot_be_asked_for_is_asked_for_again() {
        let mut bench = Bench::new(ConsumeFromWhere::Last);
        bench.assign(queue());
        let ticket = bench.ticket();
        bench.answer(ticket, RequestAnswer::NotStored);
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
        bench.answer(ticket, RequestAnswer::NotStored);
        let ticket = bench.asked(Bound::Greatest);
        bench.answer(ticket, RequestAnswer::to_bound_query(Ok(-1)));
        assert!(bench.requests().is_empty());
        assert!(matches!(bench.reports()[..], [Report::Failing { .. }]));
        bench.sleep();
        let ticket = bench.asked(Bound::Greatest);
        bench.answer(ticket, RequestAnswer::to_bound_query(Ok(0)));
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
        bench.answer(ticket, RequestAnswer::Offset(5));
        let ticket = bench.asked(Bound::Greatest);
        bench.answer(ticket, RequestAnswer::Offset(4));
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
        bench.answer(ticket, RequestAnswer::Pulled(suggestion));
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
        bench.answer(ticket, RequestAnswer::Stored(5));
        assert!(matches!(bench.reports()[..], [Report::Failing { doing: "pulling", .. }]));
        bench.sleep();
        assert_eq!(bench.pull_offset(), Some(10));
    }
}

//! The thread `rmq-pull`: owns the queue tables of all consumers of a client and carries out what they decide.
//!
//! It waits on one channel, for hints, answers and changes of the assignment, and for the deadlines of the tables. It
//! sends asynchronously and never blocks: a broker that is dead costs only its own queues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select, unbounded};

use crate::client::identity::wall_clock_millis;
use crate::client::member::MemberId;
use crate::error::{Error, ErrorKind, Result};
use crate::logging::{debug, info, warn};
use crate::message::MessageQueue;
use crate::remoting::{Completion, Outcome, Request};
use crate::wire::header::PullMessageRequest;
use crate::wire::sys_flag::pull as pull_flag;
use crate::wire::{RequestCode, ResponseCode};
use crate::worker::{Health, Threads, Worker};

use crate::consumer::member::Consumer;
use crate::consumer::pull::event::{Action, Answer, Epoch, Event, Failure, Report, Ticket};
use crate::consumer::pull::reply::{SentPull, pull_batch, read_reply};
use crate::consumer::pull::table::{Patience, QueueTable};
use crate::consumer::start::{Bound, StartDecision, StartPolicy};
use crate::consumer::subscription::Subscription;

/// How long a broker may hold a pull that finds nothing. (Java: `brokerSuspendMaxTimeMillis` of the push consumer)
const BROKER_HOLDS: Duration = Duration::from_secs(15);
/// How long a pull may take: a broker looks every 5 s for held pulls whose time is up, and an answer takes its way. What
/// has not come by then is lost, and its queue would not be read until it is noticed. (Java:
/// `consumerTimeoutMillisWhenSuspend`, 30 s)
pub(crate) const PULL_TIMEOUT: Duration = Duration::from_secs(15 + 5 + 1);
/// Answers handled before the deadlines of the tables are looked at again.
const EVENTS_PER_TURN: usize = 64;

/// Event for the thread. Consumers are named by their ids: one that is late for a consumer that has ended finds no table,
/// whatever the next consumer of the group is.
pub(crate) enum PullEvent {
    /// The consumer begins, with an empty table.
    Begin(Arc<Consumer>),
    /// The rebalance gave or took queues.
    Assigned {
        consumer: MemberId,
        queues: Vec<MessageQueue>,
    },
    Revoked {
        consumer: MemberId,
        queues: Vec<MessageQueue>,
    },
    /// A window has room, or something else makes a look worth while.
    Hint {
        consumer: MemberId,
        queue: MessageQueue,
        epoch: Epoch,
    },
    /// A question of a table has its answer.
    Answered {
        consumer: MemberId,
        queue: MessageQueue,
        ticket: Ticket,
        answer: Answer,
    },
    /// A pull came back.
    PullReply {
        consumer: MemberId,
        pull: SentPull,
        outcome: Outcome,
    },
    /// Pull nothing for the consumer, or pull again.
    Pause(MemberId),
    Resume(MemberId),
    /// Say why a queue is, or is not, consumed.
    Explain {
        consumer: MemberId,
        queue: MessageQueue,
        words: Sender<Option<String>>,
    },
    /// The consumer pulls no more; `done` is dropped when that is so.
    End {
        consumer: MemberId,
        done: Sender<()>,
    },
}

/// The owner of `rmq-pull`.
#[derive(Debug)]
pub(crate) struct PullThread {
    // Above the worker: what is dropped first ends the thread that the other waits for.
    _stop: Sender<()>,
    events: Sender<PullEvent>,
    _worker: Worker,
}

impl PullThread {
    pub(crate) fn start(threads: &Threads) -> Result<Self> {
        let (events, inbox) = unbounded();
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (answers, health) = (events.clone(), Arc::clone(threads.health()));
        let worker = threads.start_service("rmq-pull", move || {
            PullService { health, tables: BTreeMap::new(), answers, actions: Vec::new() }.run(&inbox, &stopped);
        })?;
        Ok(Self { _stop: stop, events, _worker: worker })
    }

    pub(crate) fn events(&self) -> &Sender<PullEvent> {
        &self.events
    }
}

struct PullService {
    /// Nothing is to be done any more once the client is broken.
    health: Arc<Health>,
    tables: BTreeMap<MemberId, Row>,
    /// Where answers come back.
    answers: Sender<PullEvent>,
    actions: Vec<Action>,
}

/// One consumer and its table.
struct Row {
    consumer: Arc<Consumer>,
    table: QueueTable,
}

impl PullService {
    fn run(mut self, inbox: &Receiver<PullEvent>, stopped: &Receiver<()>) {
        while self.health.cause().is_none() {
            let next = self.tables.values().filter_map(|row| row.table.next_deadline()).min();
            let patience = next.map_or(Duration::from_secs(60), |next| next.saturating_duration_since(Instant::now()));
            select! {
                recv(stopped) -> _ => return,
                recv(inbox) -> event => match event {
                    Ok(event) => self.take(event, inbox),
                    Err(_) => return,
                },
                default(patience) => {}
            }
            self.tick();
        }
    }

    /// Handles what has come, up to a number, before the deadlines get their turn.
    fn take(&mut self, event: PullEvent, inbox: &Receiver<PullEvent>) {
        self.handle(event);
        for event in inbox.try_iter().take(EVENTS_PER_TURN) {
            self.handle(event);
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let is_due = |row: &Row| row.table.next_deadline().is_some_and(|deadline| deadline <= now);
        let due: Vec<_> = self.tables.iter().filter(|(_, row)| is_due(row)).map(|(id, _)| *id).collect();
        for consumer in due {
            self.tell(consumer, Event::Tick);
        }
    }

    fn handle(&mut self, event: PullEvent) {
        match event {
            PullEvent::Begin(consumer) => {
                let retry_topic = Arc::clone(&consumer.retry_topic);
                let start = StartPolicy::new(retry_topic, consumer.options.consume_from);
                let start = start.beginning(Instant::now(), wall_clock_millis());
                let table = QueueTable::new(start, Patience::default());
                self.tables.insert(consumer.id, Row { consumer, table });
            }
            PullEvent::Assigned { consumer, queues } => self.tell(consumer, Event::Assigned(queues)),
            PullEvent::Revoked { consumer, queues } => self.tell(consumer, Event::Revoked(queues)),
            PullEvent::Hint { consumer, queue, epoch } => self.tell(consumer, Event::Hint { queue, epoch }),
            PullEvent::Answered { consumer, queue, ticket, answer } => {
                self.tell(consumer, Event::Answered { queue, ticket, answer });
            }
            PullEvent::PullReply { consumer, pull, outcome } => self.pulled(consumer, pull, outcome),
            PullEvent::Pause(consumer) => self.tell(consumer, Event::Paused),
            PullEvent::Resume(consumer) => self.tell(consumer, Event::Resumed),
            PullEvent::Explain { consumer, queue, words } => {
                let explain = |row: &Row| row.table.explain(&queue, Instant::now());
                let _ = words.send(self.tables.get(&consumer).and_then(explain));
            }
            PullEvent::End { consumer, done } => {
                self.tables.remove(&consumer);
                drop(done);
            }
        }
    }

    /// Tells a consumer's table what happened and does what it says, and what that leads to at once: one tick may bring
    /// several pulls that their windows refuse. A consumer that has ended has no table.
    fn tell(&mut self, consumer: MemberId, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        let mut event = Some(event);
        let mut next = Vec::new();
        while let Some(happened) = event {
            let Some(Row { consumer, table }) = self.tables.get_mut(&consumer) else { break };
            table.handle(happened, Instant::now(), &mut actions);
            next.extend(actions.drain(..).filter_map(|action| carry_out(consumer, action, &self.answers)));
            event = next.pop();
        }
        self.actions = actions;
    }

    fn pulled(&mut self, id: MemberId, pull: SentPull, outcome: Outcome) {
        let awaiting = self.tables.get(&id).filter(|row| row.table.awaits(&pull.queue, pull.ticket));
        let Some(Row { consumer, .. }) = awaiting else {
            return debug!("a pull of {} came back when nobody waited for it", pull.queue);
        };
        let answer = match outcome {
            Ok(response) => read_reply(consumer, &pull, &response),
            Err(error) => Answer::Failed(pull_failure(consumer, &pull, &error.into())),
        };
        if let Answer::Failed(Failure { code: Some(code), .. }) = &answer
            && matches!(*code, ResponseCode::TOPIC_NOT_EXIST | ResponseCode::NO_PERMISSION)
        {
            consumer.core.refresh_suspected_route(&pull.queue.topic);
        }
        self.tell(id, Event::Answered { queue: pull.queue, ticket: pull.ticket, answer });
    }
}

/// Does one thing that a table asks for. Returns what that led to at once.
fn carry_out(consumer: &Arc<Consumer>, action: Action, answers: &Sender<PullEvent>) -> Option<Event> {
    match action {
        Action::QueryStoredOffset { queue, ticket } => {
            let answer = answer_to(consumer, &queue, ticket, answers);
            match consumer.core.routes.master_of(&queue) {
                Some(address) => {
                    let (offsets, asked) = (Arc::clone(&consumer.offsets), queue.clone());
                    let group = Arc::clone(&consumer.group);
                    consumer.core.query_consumer_offset(&address, &consumer.group, &queue, move |result| {
                        answer(match result.map(|stored| offsets.resumed(&asked, stored)) {
                            Ok(Some(offset)) => Answer::to_offset_query(Ok(offset)),
                            Ok(None) => Answer::NotStored,
                            Err(error) => Answer::Failed(failure(&group, &asked, &error, error.to_string())),
                        });
                    })
                }
                None => answer(no_master(consumer, &queue)),
            }
        }
        Action::QueryBound { queue, ticket, bound } => ask_for_bound(consumer, &queue, ticket, bound, answers),
        Action::Pull { queue, ticket, epoch, offset, broker_id } => {
            return pull(consumer, queue, ticket, epoch, offset, broker_id, answers);
        }
        Action::OpenWindow { queue, epoch, offset, decision } => {
            consumer.offsets.open(queue, epoch, offset, decision == StartDecision::Stored);
        }
        Action::MoveWindow { queue, epoch, offset } => consumer.offsets.skip_to(&queue, epoch, offset),
        Action::ReplaceWindow { queue, epoch, offset } => consumer.offsets.replace(queue, epoch, offset),
        Action::CloseWindow { queue, .. } => consumer.offsets.close(&queue),
        Action::Report(report) => tell_user(consumer, &report),
    }
    None
}

/// What hands an answer to the table that asked.
fn answer_to(
    consumer: &Arc<Consumer>,
    queue: &MessageQueue,
    ticket: Ticket,
    answers: &Sender<PullEvent>,
) -> impl FnOnce(Answer) + Send + 'static {
    let (consumer, queue, answers) = (consumer.id, queue.clone(), answers.clone());
    move |answer| {
        let _ = answers.send(PullEvent::Answered { consumer, queue, ticket, answer });
    }
}

fn ask_for_bound(
    consumer: &Arc<Consumer>,
    queue: &MessageQueue,
    ticket: Ticket,
    bound: Bound,
    answers: &Sender<PullEvent>,
) {
    let answer = answer_to(consumer, queue, ticket, answers);
    let core = &consumer.core;
    let Some(address) = core.routes.master_of(queue) else {
        return answer(no_master(consumer, queue));
    };
    let (group, asked) = (Arc::clone(&consumer.group), queue.clone());
    let then = move |result: Result<i64>| {
        answer(Answer::to_bound_query(result.map_err(|error| failure(&group, &asked, &error, error.to_string()))));
    };
    match bound {
        Bound::Least => core.min_offset(&address, queue, then),
        Bound::Greatest => core.max_offset(&address, queue, then),
        Bound::AtTime(timestamp) => core.search_offset(&address, queue, timestamp, then),
    }
}

fn pull(
    consumer: &Arc<Consumer>,
    queue: MessageQueue,
    ticket: Ticket,
    epoch: Epoch,
    offset: i64,
    broker_id: i64,
    answers: &Sender<PullEvent>,
) -> Option<Event> {
    let failed = |queue: MessageQueue, words: String| {
        Some(Event::Answered { queue, ticket, answer: Answer::Failed(Failure::new(None, words)) })
    };
    let (Some(window), Some(subscription)) = (consumer.offsets.window(&queue), consumer.subscription(&queue.topic))
    else {
        let words = format!("{queue} has no window");
        return failed(queue, words);
    };
    let refused = window.messages.lock().flow_control(&consumer.options.flow);
    if let Some(reason) = refused {
        return Some(Event::WindowFull { queue, ticket, reason });
    }
    let route = consumer.core.routes.known(&queue.topic);
    let broker = route.as_ref().and_then(|route| route.broker(&queue.broker_name));
    let Some(address) = broker.and_then(|broker| broker.copy(broker_id)) else {
        consumer.core.refresh_suspected_route(&queue.topic);
        let words = format!("no address of broker {} is known", queue.broker_name);
        return failed(queue, words);
    };
    let from_master = broker.and_then(|broker| broker.master()) == Some(address);
    let committed = if from_master { consumer.offsets.ride(&window, offset) } else { None };
    let batch = pull_batch(consumer, &window);
    let sent = SentPull { queue, ticket, epoch, offset, from_master, committed };
    send_pull(consumer, address, subscription, sent, batch, answers);
    None
}

fn send_pull(
    consumer: &Arc<Consumer>,
    address: &Arc<str>,
    subscription: &Subscription,
    pull: SentPull,
    batch: usize,
    answers: &Sender<PullEvent>,
) {
    let commit_flag = if pull.committed.is_some() { pull_flag::COMMIT_OFFSET } else { 0 };
    let queue = pull.queue.clone();
    let header = PullMessageRequest {
        consumer_group: &consumer.group,
        topic: &queue.topic,
        queue_id: queue.queue_id,
        queue_offset: pull.offset,
        max_msg_nums: i32::try_from(batch).unwrap_or(i32::MAX),
        // The subscription travels along: what this member wants does not depend on which member's heartbeat the
        // broker has heard last.
        sys_flag: commit_flag | pull_flag::SUSPEND | pull_flag::SUBSCRIPTION,
        commit_offset: pull.committed.unwrap_or(0),
        suspend_timeout_millis: i64::try_from(BROKER_HOLDS.as_millis()).unwrap_or(i64::MAX),
        subscription: Some(&subscription.data.sub_string),
        sub_version: subscription.data.sub_version,
        expression_type: subscription.data.expression_type.as_deref(),
        broker_name: Some(&queue.broker_name),
        ..PullMessageRequest::default()
    };
    let request = Request::new(RequestCode::PULL_MESSAGE, &header);
    let (id, answers) = (consumer.id, answers.clone());
    let completion = Completion::new(move |outcome| {
        let _ = answers.send(PullEvent::PullReply { consumer: id, pull, outcome });
    });
    consumer.core.remoting.invoke_async(address, request, Instant::now() + PULL_TIMEOUT, completion);
}

fn no_master(consumer: &Consumer, queue: &MessageQueue) -> Answer {
    consumer.core.refresh_suspected_route(&queue.topic);
    Answer::Failed(Failure::outage(format!("no master of broker {} is known", queue.broker_name)))
}

fn pull_failure(consumer: &Consumer, pull: &SentPull, error: &Error) -> Failure {
    if error.kind() == ErrorKind::FrameTooLong
        && let Some(window) = consumer.offsets.window(&pull.queue)
    {
        let fewer = pull_batch(consumer, &window) / 8;
        window.batch_limit.store(fewer.max(1), Ordering::Relaxed);
    }
    failure(&consumer.group, &pull.queue, error, format!("from offset {}: {error}", pull.offset))
}

fn failure(group: &str, queue: &MessageQueue, error: &Error, words: String) -> Failure {
    match error.kind() {
        ErrorKind::Connect | ErrorKind::Resolve | ErrorKind::ConnectionLost | ErrorKind::Timeout => {
            Failure::outage(words)
        }
        _ if error.broker_code() == Some(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST) => {
            Failure::new(error.broker_code(), no_such_group(group, queue))
        }
        _ => Failure::new(error.broker_code(), words),
    }
}

/// A broker's refusal of a group that it does not know, in words that say what to do.
pub(crate) fn no_such_group(group: &str, queue: &MessageQueue) -> String {
    format!(
        "group {group} does not exist on broker {} and is not created: create it there, or set \
         autoCreateSubscriptionGroup of the broker",
        queue.broker_name
    )
}

/// Counts a failure with those of the broker's other queues that have the same cause. Returns whether it is to be logged.
fn is_news(consumer: &Consumer, queue: &MessageQueue, failure: &Failure) -> bool {
    let (now, broker) = (Instant::now(), &queue.broker_name);
    let told = match failure.code {
        _ if failure.is_outage => consumer.repeats.note_outage(&format!("pull {broker}"), now),
        Some(code) => consumer.repeats.note(&format!("pull {broker} {code}"), now),
        None => consumer.repeats.note(&format!("pull {queue}"), now),
    };
    told.is_some()
}

fn tell_user(consumer: &Consumer, report: &Report) {
    let group = &consumer.group;
    match report {
        Report::Started { queue, offset, decision } => {
            info!("{group} consumes {queue} from {offset}: {decision}");
            consumer.core.changed();
        }
        Report::Failing { queue, doing, failures, failure } => {
            if is_news(consumer, queue, failure) {
                warn!("{group}: {doing} {queue} failed ({failures} in a row): {}", failure.text);
            }
        }
        Report::Recovered { queue, failures } => info!("{group}: {queue} is consumed again after {failures} failures"),
        Report::OffsetCorrected { queue, from, to, least, greatest } => {
            warn!("{group}: offset {from} of {queue} is outside of {least}..={greatest}; it continues at {to}");
        }
        Report::Overdue { queue, doing } => {
            let cause = format!("overdue {}", queue.broker_name);
            if let Some(times) = consumer.repeats.note(&cause, Instant::now()) {
                warn!("{group}: {doing} {queue} got no answer and is repeated ({times} times at this broker)");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_pull_reply_is_noticed_soon_after_the_time_that_a_broker_holds_pulls() {
        let broker_looks_every = Duration::from_secs(5);
        assert!(
            BROKER_HOLDS + broker_looks_every < PULL_TIMEOUT,
            "an answer that is held as long as may be is no failure"
        );
        assert!(PULL_TIMEOUT <= BROKER_HOLDS * 3 / 2);
        assert!(PULL_TIMEOUT < Patience::default().pull, "the net is below the deadline");
    }
}

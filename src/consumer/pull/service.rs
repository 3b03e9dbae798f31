//! The thread `rmq-pull`: owns the queue tables of all consumers of a client and carries out what they decide.
//!
//! It waits on one channel, for hints, answers and changes of the assignment, and for the deadlines of the tables. It
//! sends asynchronously and never blocks: a broker that is dead costs only its own queues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select, unbounded};

use crate::client::identity::wall_clock_millis;
use crate::client::member::MemberId;
use crate::error::Result;
use crate::logging::debug;
use crate::remoting::Outcome;
use crate::wire::ResponseCode;
use crate::worker::{Health, Threads, Worker};

use crate::consumer::pull::event::{Action, Event, RequestAnswer, RequestFailure};
use crate::consumer::pull::pull_event::{PullEvent, SentPull};
use crate::consumer::pull::puller::Puller;
use crate::consumer::pull::table::{Patience, QueueTable};
use crate::consumer::start::StartPolicy;

/// Answers handled before the deadlines of the tables are looked at again.
const EVENTS_PER_TURN: usize = 64;

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
            PullService { health, groups: BTreeMap::new(), answers, actions: Vec::new() }.run(&inbox, &stopped);
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
    groups: BTreeMap<MemberId, PulledGroup>,
    /// The thread's own channel, for answers.
    answers: Sender<PullEvent>,
    actions: Vec<Action>,
}

/// One consumer: its table, and what carries out the actions of the table.
struct PulledGroup {
    puller: Puller,
    table: QueueTable,
}

impl PullService {
    fn run(mut self, inbox: &Receiver<PullEvent>, stopped: &Receiver<()>) {
        while self.health.cause().is_none() {
            let next = self.groups.values().filter_map(|row| row.table.next_deadline()).min();
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

    /// Handles the events that have come, up to a number, before the deadlines get their turn.
    fn take(&mut self, event: PullEvent, inbox: &Receiver<PullEvent>) {
        self.handle(event);
        for event in inbox.try_iter().take(EVENTS_PER_TURN) {
            self.handle(event);
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let is_due = |row: &PulledGroup| row.table.next_deadline().is_some_and(|deadline| deadline <= now);
        let due: Vec<_> = self.groups.iter().filter(|(_, row)| is_due(row)).map(|(id, _)| *id).collect();
        for consumer in due {
            self.tell(consumer, Event::Tick);
        }
    }

    fn handle(&mut self, event: PullEvent) {
        match event {
            PullEvent::Begin { group, delivery } => {
                let start = StartPolicy::new(Arc::clone(&group.retry_topic), group.options.consume_from);
                let start = start.beginning(Instant::now(), wall_clock_millis());
                let table = QueueTable::new(start, Patience::default());
                let id = group.id;
                let puller = Puller { group, delivery, answers: self.answers.clone() };
                self.groups.insert(id, PulledGroup { puller, table });
            }
            PullEvent::Assigned { consumer, queues } => self.tell(consumer, Event::Assigned(queues)),
            PullEvent::Revoked { consumer, queues } => self.tell(consumer, Event::Revoked(queues)),
            PullEvent::Hint { consumer, queue, epoch } => self.tell(consumer, Event::Hint { queue, epoch }),
            PullEvent::Answered { consumer, queue, ticket, answer } => {
                self.tell(consumer, Event::Answered { queue, ticket, answer });
            }
            PullEvent::PullReply { consumer, pull, outcome } => self.pulled(consumer, &pull, outcome),
            PullEvent::Pause(consumer) => self.tell(consumer, Event::Paused),
            PullEvent::Resume(consumer) => self.tell(consumer, Event::Resumed),
            PullEvent::Status { consumer, queue, answer } => {
                let status = |row: &PulledGroup| row.table.status(&queue, Instant::now());
                let _ = answer.send(self.groups.get(&consumer).and_then(status));
            }
            PullEvent::End { consumer, done } => {
                self.groups.remove(&consumer);
                drop(done);
            }
            #[cfg(test)]
            PullEvent::Fault => panic!("a fault"),
        }
    }

    /// Hands an event to a consumer's table and carries out its actions, with the events to which they lead at once: one
    /// tick may bring several pulls that their windows refuse. A consumer that has ended has no table.
    fn tell(&mut self, consumer: MemberId, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        let mut event = Some(event);
        let mut next = Vec::new();
        while let Some(happened) = event {
            let Some(PulledGroup { puller, table }) = self.groups.get_mut(&consumer) else { break };
            table.handle(happened, Instant::now(), &mut actions);
            next.extend(actions.drain(..).filter_map(|action| puller.carry_out(action)));
            event = next.pop();
        }
        self.actions = actions;
    }

    fn pulled(&mut self, id: MemberId, pull: &SentPull, outcome: Outcome) {
        let queue = pull.window.queue.clone();
        let awaiting = self.groups.get(&id).filter(|row| row.table.awaits(&queue, pull.ticket));
        let Some(PulledGroup { puller, .. }) = awaiting else {
            return debug!("pull of {queue}: ignored a reply that is no longer awaited");
        };
        let answer = match outcome {
            Ok(response) => puller.read_reply(pull, &response),
            Err(error) => RequestAnswer::Failed(puller.pull_failure(pull, &error.into())),
        };
        if let RequestAnswer::Failed(RequestFailure { code: Some(code), .. }) = &answer
            && matches!(*code, ResponseCode::TOPIC_NOT_EXIST | ResponseCode::NO_PERMISSION)
        {
            puller.group.core.refresh_suspected_route(&queue.topic);
        }
        self.tell(id, Event::Answered { queue, ticket: pull.ticket, answer });
    }
}

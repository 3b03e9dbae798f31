//! The thread `rmq-rebalance`: decides which queues each consumer of a client owns.
//!
//! A round asks for the member lists of all topics at once and ends when every answer is there or late; it never waits
//! for one broker while others are to be asked. Runs every 20 s, at once when brokers or routes tell of a change, and
//! sooner when something could not be decided.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select, unbounded};

use crate::client::member::MemberId;
use crate::client::route::TopicRoute;
use crate::error::Result;
use crate::logging::{info, warn};
use crate::message::MessageQueue;
use crate::worker::{Health, Threads, Worker};

use crate::consumer::assign::rebalance::{Members, Notice, Rebalance, TopicView};
use crate::consumer::member::Consumer;
use crate::consumer::pull::service::{PullEvent, no_such_group};

/// Event for the thread. Consumers are named by their ids: one that is late for a consumer that has ended finds no row,
/// whatever the next consumer of the group is.
pub(crate) enum RebalanceEvent {
    /// The consumer begins.
    Begin(Arc<Consumer>),
    /// Members or routes have changed.
    Notified(MemberId),
    /// A broker has listed the members, for a topic of a round.
    Listed { consumer: MemberId, round: u64, topic: Arc<str>, members: Members },
    /// The consumer shares no more; `done` is dropped when that is so.
    End { consumer: MemberId, done: Sender<()> },
}

/// The owner of `rmq-rebalance`.
#[derive(Debug)]
pub(crate) struct RebalanceThread {
    // Above the worker: what is dropped first ends the thread that the other waits for.
    _stop: Sender<()>,
    events: Sender<RebalanceEvent>,
    _worker: Worker,
}

impl RebalanceThread {
    pub(crate) fn start(threads: &Threads) -> Result<Self> {
        let (events, inbox) = unbounded();
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (answers, health) = (events.clone(), Arc::clone(threads.health()));
        let worker = threads.start_service("rmq-rebalance", move || {
            RebalanceService { health, rows: BTreeMap::new(), answers, rounds: 0 }.run(&inbox, &stopped);
        })?;
        Ok(Self { _stop: stop, events, _worker: worker })
    }

    pub(crate) fn events(&self) -> &Sender<RebalanceEvent> {
        &self.events
    }
}

struct RebalanceService {
    /// Nothing is to be done any more once the client is broken.
    health: Arc<Health>,
    rows: BTreeMap<MemberId, Row>,
    answers: Sender<RebalanceEvent>,
    rounds: u64,
}

struct Row {
    consumer: Arc<Consumer>,
    rebalance: Rebalance,
    round: Option<Round>,
}

/// Look-ups under way.
struct Round {
    number: u64,
    missing: usize,
    views: Vec<TopicView>,
    /// The requests end by themselves before this; it is the net below them.
    deadline: Instant,
}

impl RebalanceService {
    fn run(mut self, inbox: &Receiver<RebalanceEvent>, stopped: &Receiver<()>) {
        while self.health.cause().is_none() {
            let next = self.rows.values().map(Row::next_step).min();
            let patience = next.map_or(Duration::from_secs(60), |next| next.saturating_duration_since(Instant::now()));
            select! {
                recv(stopped) -> _ => return,
                recv(inbox) -> event => match event {
                    Ok(event) => self.handle(event),
                    Err(_) => return,
                },
                default(patience) => {}
            }
            self.go_on(Instant::now());
        }
    }

    fn handle(&mut self, event: RebalanceEvent) {
        let now = Instant::now();
        match event {
            RebalanceEvent::Begin(consumer) => {
                let own_id = Arc::from(consumer.core.identity.client_id.as_str());
                let interval = consumer.core.config.rebalance_interval;
                let rebalance = Rebalance::new(own_id, consumer.options.strategy, now).with_interval(interval);
                self.rows.insert(consumer.id, Row { consumer, rebalance, round: None });
            }
            RebalanceEvent::Notified(consumer) => {
                if let Some(row) = self.rows.get_mut(&consumer) {
                    row.rebalance.notified(now);
                }
            }
            RebalanceEvent::Listed { consumer, round, topic, members } => {
                if let Some(current) = self.rows.get_mut(&consumer).and_then(|row| row.round.as_mut())
                    && current.number == round
                {
                    current.listed(&topic, members);
                }
            }
            RebalanceEvent::End { consumer, done } => {
                self.rows.remove(&consumer);
                drop(done);
            }
        }
    }

    /// Ends rounds that are complete or late, and begins those that are due.
    fn go_on(&mut self, now: Instant) {
        for row in self.rows.values_mut() {
            if let Some(round) = row.round.take_if(|round| round.missing == 0 || round.deadline <= now) {
                row.end(round, now);
            }
            if row.round.is_none() && row.rebalance.next_round() <= now {
                self.rounds += 1;
                row.begin(self.rounds, now, &self.answers);
            }
        }
    }
}

/// A queue of the broker whose master is at `address`.
fn queue_at(route: &TopicRoute, address: &Arc<str>) -> Option<MessageQueue> {
    let is_there =
        |queue: &&MessageQueue| route.broker(&queue.broker_name).is_some_and(|broker| broker.master() == Some(address));
    route.subscribe.iter().find(is_there).cloned()
}

impl Round {
    fn listed(&mut self, topic: &str, members: Members) {
        if let Some(view) = self.views.iter_mut().find(|view| *view.topic == *topic) {
            view.members = members;
            self.missing = self.missing.saturating_sub(1);
        }
    }
}

impl Row {
    fn next_step(&self) -> Instant {
        self.round.as_ref().map_or_else(|| self.rebalance.next_round(), |round| round.deadline)
    }

    fn begin(&mut self, number: u64, now: Instant, answers: &Sender<RebalanceEvent>) {
        self.rebalance.begin_round(now);
        let core = &self.consumer.core;
        let mut round =
            Round { number, missing: 0, views: Vec::new(), deadline: now + core.config.request_timeout * 2 };
        for topic in self.consumer.subscriptions.iter().map(|subscription| &subscription.topic) {
            let route = core.routes.known(topic).filter(|route| !route.to_be_created);
            let queues = route.as_ref().map(|route| route.subscribe.clone());
            let members = match &route {
                Some(route) => {
                    round.missing += usize::from(self.ask(route, number, answers));
                    Members::Failed("no broker answered in time".to_owned())
                }
                None => {
                    core.refresh_suspected_route(topic);
                    Members::Failed("the topic's route is not known".to_owned())
                }
            };
            round.views.push(TopicView { topic: Arc::clone(topic), queues, members });
        }
        self.round = Some(round);
        if self.round.as_ref().is_some_and(|round| round.missing == 0)
            && let Some(round) = self.round.take()
        {
            self.end(round, now);
        }
    }

    /// Asks one broker of the topic, preferably one that knows us and can be reached, another one each time.
    fn ask(&self, route: &Arc<TopicRoute>, number: u64, answers: &Sender<RebalanceEvent>) -> bool {
        let core = &self.consumer.core;
        let addresses: Vec<_> =
            route.brokers.iter().filter_map(|broker| broker.master().or_else(|| broker.copy(1))).collect();
        let turn = usize::try_from(number).unwrap_or(0);
        let mut candidates: Vec<_> =
            addresses.iter().cycle().skip(turn % addresses.len().max(1)).take(addresses.len()).collect();
        candidates.sort_by_key(|address| (!core.is_heard(address), !core.remoting.is_reachable(address)));
        let Some(address) = candidates.first() else { return false };
        let (consumer, topic, answers) = (self.consumer.id, Arc::clone(&route.topic), answers.clone());
        let listed = move |members| {
            let _ = answers.send(RebalanceEvent::Listed { consumer, round: number, topic, members });
        };
        let (asker, asked, queue) = (Arc::clone(&self.consumer), Arc::clone(address), queue_at(route, address));
        core.consumer_list(address, &self.consumer.group, move |result| match (result, queue) {
            (Ok(members), _) => listed(Members::Listed(members)),
            // The broker took the heartbeat, and knows no member: does it know the group?
            (Err(error), Some(queue)) if error.broker_code().is_some() && asker.core.is_heard(&asked) => {
                let unknown = no_such_group(&asker.group, &queue);
                asker.core.does_group_exist(&asked, &asker.group, &queue, move |exists| {
                    listed(Members::Failed(if exists { error.to_string() } else { unknown }));
                });
            }
            (Err(error), _) => listed(Members::Failed(error.to_string())),
        });
        true
    }

    fn end(&mut self, round: Round, now: Instant) {
        let topics: Vec<_> = round.views.iter().map(|view| Arc::clone(&view.topic)).collect();
        let changes = self.rebalance.end_round(round.views, now);
        let consumer = &self.consumer;
        for notice in &changes.notices {
            self.tell_user(notice);
        }
        if !changes.revoked.is_empty() {
            info!("{} gives up {:?}", consumer.group, changes.revoked);
            let queues = changes.revoked;
            let _ = consumer.pull.send(PullEvent::Revoked { consumer: consumer.id, queues });
        }
        if !changes.assigned.is_empty() {
            info!("{} takes over {:?}", consumer.group, changes.assigned);
            let queues = changes.assigned;
            let _ = consumer.pull.send(PullEvent::Assigned { consumer: consumer.id, queues });
        }
        self.note_decisions(&topics);
    }

    fn note_decisions(&self, topics: &[Arc<str>]) {
        {
            let mut decided = self.consumer.decided.lock();
            for topic in topics {
                let owned = self.rebalance.share_of(topic);
                decided.insert(Arc::clone(topic), owned);
            }
        }
        self.consumer.core.changed();
    }

    fn tell_user(&self, notice: &Notice) {
        let group = &self.consumer.group;
        match notice {
            Notice::Undecided { topic, trouble } => {
                // A new group's retry topic is born with its first heartbeat: that it is not there yet is no news.
                if *topic == self.consumer.retry_topic {
                    crate::logging::debug!("{group}: the queues of {topic} stay as they are: {trouble}");
                } else if self.consumer.repeats.note("undecided", Instant::now()).is_some() {
                    warn!("{group}: the queues of {topic} stay as they are: {trouble}");
                }
            }
            Notice::Decided { topic } => info!("{group}: the queues of {topic} are shared out"),
            Notice::ListedTwice { topic } => {
                warn!("{group}: the broker of {topic} lists this client twice; it will forget the dead connection");
            }
        }
    }
}

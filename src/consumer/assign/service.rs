//! The thread `rmq-rebalance`: decides which queues each consumer of a client owns.
//!
//! A round asks for the member lists of all topics at once and ends when every answer is there or late; it never waits
//! for one broker while others are to be asked. Runs every 20 s, at once when brokers or routes announce a change, and
//! sooner when something could not be decided.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select, unbounded};

use crate::client::member::MemberId;
use crate::client::route::TopicRoute;
use crate::error::Result;
use crate::logging::{debug, info, warn};
use crate::message::MessageQueue;
use crate::worker::{Health, Threads, Worker};

use crate::consumer::assign::rebalance::{MemberList, Notice, Rebalance, TopicView};
use crate::consumer::group::ConsumerGroup;
use crate::consumer::pull::pull_event::PullEvent;

/// Event for the thread. Consumers are named by their ids: one that is late for a consumer that has ended finds no row,
/// whatever the next consumer of the group is.
pub(crate) enum RebalanceEvent {
    /// The consumer begins.
    Begin(Arc<ConsumerGroup>),
    /// MemberList or routes have changed.
    Notified(MemberId),
    /// A broker has listed the members, for a topic of a round.
    Listed { consumer: MemberId, round: u64, topic: Arc<str>, members: MemberList },
    /// The consumer shares no more; `done` is dropped when that is so.
    End { consumer: MemberId, done: Sender<()> },
    /// The thread panics.
    #[cfg(test)]
    Fault,
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
    /// Starts the thread, which sends what it decides to `pull`.
    pub(crate) fn start(threads: &Threads, pull: Sender<PullEvent>) -> Result<Self> {
        let (events, inbox) = unbounded();
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (answers, health) = (events.clone(), Arc::clone(threads.health()));
        let worker = threads.start_service("rmq-rebalance", move || {
            RebalanceService { health, groups: BTreeMap::new(), answers, pull, rounds: 0 }.run(&inbox, &stopped);
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
    groups: BTreeMap<MemberId, SharingGroup>,
    answers: Sender<RebalanceEvent>,
    pull: Sender<PullEvent>,
    rounds: u64,
}

/// One consumer, its share, and its round under way.
struct SharingGroup {
    group: Arc<ConsumerGroup>,
    rebalance: Rebalance,
    round: Option<LookUpRound>,
}

/// Look-ups under way.
struct LookUpRound {
    number: u64,
    missing: usize,
    views: Vec<TopicView>,
    /// The requests end by themselves before this; it is the net below them.
    deadline: Instant,
}

impl RebalanceService {
    fn run(mut self, inbox: &Receiver<RebalanceEvent>, stopped: &Receiver<()>) {
        while self.health.cause().is_none() {
            let next = self.groups.values().map(SharingGroup::next_step).min();
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
            RebalanceEvent::Begin(group) => {
                let own_id = Arc::from(group.core.identity.client_id.as_str());
                let interval = group.core.config.rebalance_interval;
                let rebalance = Rebalance::new(own_id, group.options.strategy.clone(), now).with_interval(interval);
                self.groups.insert(group.id, SharingGroup { group, rebalance, round: None });
            }
            RebalanceEvent::Notified(consumer) => {
                if let Some(row) = self.groups.get_mut(&consumer) {
                    row.rebalance.notified(now);
                }
            }
            RebalanceEvent::Listed { consumer, round, topic, members } => {
                if let Some(current) = self.groups.get_mut(&consumer).and_then(|row| row.round.as_mut())
                    && current.number == round
                {
                    current.listed(&topic, members);
                }
            }
            RebalanceEvent::End { consumer, done } => {
                self.groups.remove(&consumer);
                drop(done);
            }
            #[cfg(test)]
            RebalanceEvent::Fault => panic!("a fault"),
        }
    }

    /// Ends rounds that are complete or late, and begins those that are due.
    fn go_on(&mut self, now: Instant) {
        for row in self.groups.values_mut() {
            row.end_if_over(now, &self.pull);
            if row.round.is_none() && row.rebalance.next_round() <= now {
                self.rounds += 1;
                row.begin(self.rounds, now, &self.answers);
                // A round in which no broker could be asked.
                row.end_if_over(now, &self.pull);
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

impl LookUpRound {
    fn listed(&mut self, topic: &str, members: MemberList) {
        if let Some(view) = self.views.iter_mut().find(|view| *view.topic == *topic) {
            view.members = members;
            self.missing = self.missing.saturating_sub(1);
        }
    }
}

impl SharingGroup {
    fn next_step(&self) -> Instant {
        self.round.as_ref().map_or_else(|| self.rebalance.next_round(), |round| round.deadline)
    }

    fn begin(&mut self, number: u64, now: Instant, answers: &Sender<RebalanceEvent>) {
        self.rebalance.begin_round(now);
        let core = &self.group.core;
        let mut round =
            LookUpRound { number, missing: 0, views: Vec::new(), deadline: now + core.config.request_timeout * 2 };
        for topic in self.group.topics() {
            let route = core.routes.known(&topic).filter(|route| !route.to_be_created);
            let queues = route.as_ref().map(|route| route.subscribe.clone());
            let members = match &route {
                Some(route) => {
                    round.missing += usize::from(self.ask(route, number, answers));
                    MemberList::Failed("no broker answered in time".to_owned())
                }
                None => {
                    core.refresh_suspected_route(&topic);
                    MemberList::Failed("the topic's route is not known".to_owned())
                }
            };
            round.views.push(TopicView { topic, queues, members });
        }
        self.round = Some(round);
    }

    /// Asks one broker of the topic, preferably one that has our heartbeat and can be reached, another one each time.
    fn ask(&self, route: &Arc<TopicRoute>, number: u64, answers: &Sender<RebalanceEvent>) -> bool {
        let core = &self.group.core;
        let addresses: Vec<_> =
            route.brokers.iter().filter_map(|broker| broker.master().or_else(|| broker.copy(1))).collect();
        let turn = usize::try_from(number).unwrap_or(0);
        let mut candidates: Vec<_> =
            addresses.iter().cycle().skip(turn % addresses.len().max(1)).take(addresses.len()).collect();
        candidates.sort_by_key(|address| (!core.is_heard(address), !core.remoting.is_reachable(address)));
        let Some(address) = candidates.first() else { return false };
        let (consumer, topic, answers) = (self.group.id, Arc::clone(&route.topic), answers.clone());
        let listed = move |members| {
            let _ = answers.send(RebalanceEvent::Listed { consumer, round: number, topic, members });
        };
        let (asker, asked, queue) = (Arc::clone(&self.group), Arc::clone(address), queue_at(route, address));
        core.consumer_list(address, &self.group.name, move |result| match (result, queue) {
            (Ok(members), _) => listed(MemberList::Listed(members)),
            // The broker took the heartbeat and lists no member: is the group missing there?
            (Err(error), Some(queue)) if error.broker_code().is_some() && asker.core.is_heard(&asked) => {
                let unknown = asker.missing_at(&queue);
                asker.core.does_group_exist(&asked, &asker.name, &queue, move |exists| {
                    listed(MemberList::Failed(if exists { error.to_string() } else { unknown }));
                });
            }
            (Err(error), _) => listed(MemberList::Failed(error.to_string())),
        });
        true
    }

    fn end_if_over(&mut self, now: Instant, pull: &Sender<PullEvent>) {
        if let Some(round) = self.round.take_if(|round| round.missing == 0 || round.deadline <= now) {
            self.end(round, now, pull);
        }
    }

    fn end(&mut self, round: LookUpRound, now: Instant, pull: &Sender<PullEvent>) {
        let topics: Vec<_> = round.views.iter().map(|view| Arc::clone(&view.topic)).collect();
        let changes = self.rebalance.end_round(round.views, now);
        for notice in &changes.notices {
            self.log(notice);
        }
        let (consumer, name) = (self.group.id, &self.group.name);
        if !changes.revoked.is_empty() {
            info!("rebalance {name}: revoked {:?}", changes.revoked);
            let _ = pull.send(PullEvent::Revoked { consumer, queues: changes.revoked });
        }
        if !changes.assigned.is_empty() {
            info!("rebalance {name}: assigned {:?}", changes.assigned);
            let _ = pull.send(PullEvent::Assigned { consumer, queues: changes.assigned });
        }
        for topic in &topics {
            self.group.note_share(topic, self.rebalance.share_of(topic));
        }
        self.group.core.changed();
    }

    fn log(&self, notice: &Notice) {
        let name = &self.group.name;
        match notice {
            Notice::Undecided { topic, trouble } => {
                // A new group's retry topic is born with its first heartbeat: that it is not there yet is no news.
                if *topic == self.group.retry_topic {
                    debug!("rebalance {name}: skipped for {topic}, keeping current queues: {trouble}");
                } else if self.group.repeats.note("undecided", Instant::now()).is_some() {
                    warn!("rebalance {name}: skipped for {topic}, keeping current queues: {trouble}");
                }
            }
            Notice::Decided { topic } => info!("rebalance {name}: resumed for {topic}"),
            Notice::ListedTwice { topic } => {
                warn!(
                    "rebalance {name}: the broker of {topic} lists this client id twice: a lost connection, forgotten within \
                     two minutes, or another client with the same id"
                );
            }
        }
    }
}

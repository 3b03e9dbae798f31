//! Random lives of members: starts, ends, drops, restarts by assignment, forks, brokers that leave and return, with two
//! groups and two clients in one process. After each step every live member is served, and ended members have left
//! nothing: no thread, no descriptor, no registration.
//!
//! A seed determines the steps; a failing one is printed with the shortest sequence of steps that still fails.
//! `LIVES_SEEDS=17..18 cargo test --test lives` runs the seed 17 alone, `LIVES_SEEDS=500` the first 500. It is the only
//! test in its process, whose threads and forks it counts.

#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a failing seed is printed")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use parking_lot::Mutex;
use rocketmq_sync::mini_broker::{Fault, FaultId, MiniBroker};
use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use rocketmq_sync::{
    Client, Completions, ConsumeFromWhere, ErrorKind, FilterExpression, Message, MessageExt, MessageQueue, Producer,
    PushConsumer,
};

const TOPIC: &str = "Lives";
const QUEUES: u16 = 2;
const BROKERS: [&str; 2] = ["broker-a", "broker-b"];
const GROUPS: [&str; 2] = ["one", "two"];
/// Prefix of the body of a message that listeners fail at its first delivery.
const FAILS: &str = "fails";
const POOL: usize = 2;
const STEPS: usize = 20;
const SEEDS: u64 = 40;

/// Maximum duration of a step on a crowded machine, and while a failing case is shortened.
const PATIENCE: Duration = Duration::from_secs(40);
const SHORT_PATIENCE: Duration = Duration::from_secs(5);
const SHORTER_CASES: usize = 40;
const SHUTDOWN: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    StartOrDropClient,
    StartConsumer,
    EndConsumer,
    DropConsumer,
    ReplaceConsumer,
    PauseOrResume,
    StartProducer,
    EndProducer,
    DropProducer,
    ReplaceProducer,
    Send,
    /// A message is sent that listeners fail.
    Fail,
    /// Brokers refuse send-backs, or accept them again.
    RefuseOrTakeBack,
    BrokerAwayOrBack,
    Fork,
}

const WHATS: [What; 19] = [
    What::StartOrDropClient,
    What::StartConsumer,
    What::StartConsumer,
    What::EndConsumer,
    What::DropConsumer,
    What::ReplaceConsumer,
    What::ReplaceConsumer,
    What::PauseOrResume,
    What::StartProducer,
    What::EndProducer,
    What::DropProducer,
    What::ReplaceProducer,
    What::Send,
    What::Send,
    What::Fail,
    What::Fail,
    What::RefuseOrTakeBack,
    What::BrokerAwayOrBack,
    What::Fork,
];

/// Step; its subject is chosen among the existing ones.
#[derive(Clone, Copy, Debug)]
struct Step {
    what: What,
    pick: usize,
}

#[test]
fn who_lives_is_served_and_who_has_ended_has_left_nothing() {
    let (first, end) = seeds();
    for seed in first..end {
        let steps = steps(seed);
        if let Err(complaint) = outcome(&steps, PATIENCE) {
            let shortest = shortest(steps);
            eprintln!("again with LIVES_SEEDS={seed}..{}; the shortest sequence that fails:", seed + 1);
            for step in &shortest {
                eprintln!("    {step:?}");
            }
            panic!("seed {seed}: {complaint}");
        }
    }
}

/// `LIVES_SEEDS` as a count or as `first..end`.
fn seeds() -> (u64, u64) {
    let Ok(text) = std::env::var("LIVES_SEEDS") else { return (0, SEEDS) };
    let number = |text: &str| text.trim().parse().expect("LIVES_SEEDS is a count or a range first..end");
    match text.split_once("..") {
        Some((first, end)) => (number(first), number(end)),
        None => (0, number(&text)),
    }
}

fn steps(seed: u64) -> Vec<Step> {
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap()
    };
    (0..STEPS).map(|_| Step { what: WHATS[random() % WHATS.len()], pick: random() }).collect()
}

/// Returns the message of the first broken rule.
fn outcome(steps: &[Step], patience: Duration) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| World::new(patience).run(steps))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// Removes steps, half of them first, single ones last, while the rest still fails.
fn shortest(mut steps: Vec<Step>) -> Vec<Step> {
    let (mut size, mut tries) = (steps.len() / 2, 0);
    while size > 0 && tries < SHORTER_CASES {
        let mut at = 0;
        while at < steps.len() && tries < SHORTER_CASES {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            tries += 1;
            match outcome(&fewer, SHORT_PATIENCE) {
                Err(_) => steps = fewer,
                Ok(()) => at += size,
            }
        }
        size /= 2;
    }
    steps
}

/// Handle of a member, which may have been ended already.
struct Life<M> {
    number: usize,
    /// Number of its client.
    client: usize,
    group: &'static str,
    member: M,
    is_alive: bool,
    is_paused: bool,
}

/// Bodies of messages by the number of a life.
type Marks = Arc<Mutex<BTreeMap<usize, BTreeSet<String>>>>;

struct World {
    patience: Duration,
    mini: MiniBroker,
    descriptors: usize,
    last_number: usize,
    /// Handles of clients, with the clients' numbers.
    clients: [Option<(usize, Client)>; 2],
    consumers: Vec<Life<PushConsumer>>,
    producers: Vec<Life<Producer>>,
    away: Option<&'static str>,
    /// Marks consumed, and marks failed, by the listener of each life.
    consumed: Marks,
    failed: Marks,
    /// Faults that refuse send-backs.
    refusals: Vec<FaultId>,
    /// Messages that failed while brokers refuse send-backs, and since their queues changed owners.
    stuck: BTreeSet<String>,
    completions: Completions,
    accepted: usize,
    called_back: Arc<AtomicUsize>,
    taken: usize,
    mark: usize,
}

impl World {
    fn new(patience: Duration) -> Self {
        let mini = MiniBroker::builder().brokers(2).start().unwrap();
        mini.create_topic(TOPIC, QUEUES);
        Self {
            patience,
            descriptors: descriptors(),
            mini,
            last_number: 0,
            clients: [None, None],
            consumers: Vec::new(),
            producers: Vec::new(),
            away: None,
            consumed: Arc::default(),
            failed: Arc::default(),
            refusals: Vec::new(),
            stuck: BTreeSet::new(),
            completions: Completions::new(),
            accepted: 0,
            called_back: Arc::default(),
            taken: 0,
            mark: 0,
        }
    }

    fn run(mut self, steps: &[Step]) {
        for step in steps {
            self.step(*step);
            self.check(*step);
        }
        self.end();
    }

    fn step(&mut self, Step { what, pick }: Step) {
        if may_move_queues(what) {
            self.stuck.clear();
        }
        match what {
            What::StartOrDropClient => self.start_or_drop_client(pick),
            What::StartConsumer => self.start_consumer(pick),
            What::EndConsumer => self.end_consumer(pick),
            What::DropConsumer => drop(taken(&mut self.consumers, pick)),
            What::ReplaceConsumer => self.replace_consumer(pick),
            What::PauseOrResume => {
                if let Some(life) = chosen(&mut self.consumers, pick, |life| life.is_alive) {
                    life.is_paused = !life.is_paused;
                    if life.is_paused { life.member.pause() } else { life.member.resume() }
                }
            }
            What::StartProducer => self.start_producer(pick),
            What::EndProducer => {
                if let Some(life) = chosen(&mut self.producers, pick, |_| true) {
                    let report = life.member.shutdown(SHUTDOWN);
                    assert_eq!(life.member.shutdown(SHUTDOWN), report, "a second report");
                    life.is_alive = false;
                }
            }
            What::DropProducer => drop(taken(&mut self.producers, pick)),
            What::ReplaceProducer => self.replace_producer(pick),
            What::Send => self.send(pick),
            What::BrokerAwayOrBack => match self.away.take() {
                Some(broker) => self.mini.start_broker(broker).unwrap(),
                None => {
                    self.away = Some(BROKERS[pick % 2]);
                    self.mini.stop_broker(BROKERS[pick % 2]);
                }
            },
            What::Fail => self.fail(),
            What::RefuseOrTakeBack => self.refuse_or_take_back(),
            What::Fork => self.fork(),
        }
    }

    fn end_consumer(&mut self, pick: usize) {
        let Some(life) = chosen(&mut self.consumers, pick, |_| true) else { return };
        let report = life.member.shutdown(SHUTDOWN);
        assert_eq!(life.member.shutdown(SHUTDOWN), report, "a second report");
        life.is_alive = false;
        let failed = self.failed.lock().get(&life.number).cloned().unwrap_or_default();
        let is_true = !report.is_clean() || failed.is_disjoint(&self.stuck);
        assert!(is_true, "{report:?} is clean, {failed:?} failed and no broker took back {:?}", self.stuck);
        self.stuck.clear();
    }

    /// Each group that can fails the message once.
    fn fail(&mut self) {
        self.mark += 1;
        let mark = format!("{FAILS} {}", self.mark);
        let queue = self.a_queue();
        self.mini.store(&queue, &Message::new(TOPIC, mark.clone()));
        for group in GROUPS {
            let Some(living) = self.unpaused(group) else { continue };
            let has_failed = || {
                let failed = self.failed.lock();
                living.iter().any(|life| failed.get(&life.number).is_some_and(|marks| marks.contains(&mark)))
            };
            eventually(self.patience, has_failed, || format!("{mark:?} in {queue} does not reach {group}"));
        }
        if !self.refusals.is_empty() {
            self.stuck.insert(mark);
        }
    }

    fn refuse_or_take_back(&mut self) {
        if !self.refusals.is_empty() {
            return std::mem::take(&mut self.refusals).into_iter().for_each(|fault| self.mini.clear_fault(fault));
        }
        let refused = || Fault::error(ResponseCode::SYSTEM_ERROR, "nothing is taken back");
        self.refusals.push(self.mini.fail(RequestCode::CONSUMER_SEND_MSG_BACK, refused()));
        for group in GROUPS {
            let retries = refused().topic(format!("%RETRY%{group}"));
            self.refusals.push(self.mini.fail(RequestCode::SEND_MESSAGE_V2, retries));
        }
    }

    /// Returns a queue of a running broker.
    fn a_queue(&self) -> MessageQueue {
        let there = BROKERS.into_iter().filter(|broker| self.away != Some(*broker)).cycle().nth(self.mark % 2);
        MessageQueue::new(TOPIC, there.unwrap(), i32::try_from(self.mark % usize::from(QUEUES)).unwrap())
    }

    /// Returns the live consumers of a group, if there are any and none is paused: every queue has one that pulls.
    fn unpaused(&self, group: &str) -> Option<Vec<&Life<PushConsumer>>> {
        let living: Vec<_> = self.consumers.iter().filter(|life| life.is_alive && life.group == group).collect();
        (!living.is_empty() && living.iter().all(|life| !life.is_paused)).then_some(living)
    }

    fn next_number(&mut self) -> usize {
        self.last_number += 1;
        self.last_number
    }

    fn start_or_drop_client(&mut self, pick: usize) {
        let number = self.next_number();
        let slot = &mut self.clients[pick % 2];
        if let Some((_, client)) = slot.take() {
            // A clone is equivalent to the first handle; members keep the client alive without any.
            let clone = client.clone();
            drop(client);
            assert_eq!(clone.broker_versions().keys().filter(|broker| !BROKERS.contains(&&***broker)).count(), 0);
            return;
        }
        let client = Client::builder()
            .name_servers(self.mini.name_servers())
            .heartbeat_interval(Duration::from_millis(100))
            .route_interval(Duration::from_millis(100))
            .rebalance_interval(Duration::from_millis(100))
            .offset_interval(Duration::from_millis(100))
            .start()
            .unwrap();
        *slot = Some((number, client));
    }

    fn a_client(&mut self, pick: usize) -> (usize, Client) {
        if self.clients[pick % 2].is_none() {
            self.start_or_drop_client(pick);
        }
        self.clients[pick % 2].clone().unwrap()
    }

    fn start_consumer(&mut self, pick: usize) {
        let (client, handle) = self.a_client(pick);
        let group = GROUPS[pick / 2 % 2];
        let is_taken = self.consumers.iter().any(|life| life.is_alive && (life.client, life.group) == (client, group));
        match self.consumer(&handle, client, group) {
            Ok(life) => {
                assert!(!is_taken, "a second consumer of {group}");
                self.consumers.push(life);
            }
            Err(error) => assert!(is_taken && error.kind() == ErrorKind::DuplicateGroup, "{error}"),
        }
    }

    fn consumer(
        &mut self,
        handle: &Client,
        client: usize,
        group: &'static str,
    ) -> rocketmq_sync::Result<Life<PushConsumer>> {
        let number = self.next_number();
        let (consumed, failed) = (Arc::clone(&self.consumed), Arc::clone(&self.failed));
        let listener = move |message: &MessageExt| -> Result<(), Box<dyn Error + Send + Sync>> {
            let mark = String::from_utf8_lossy(message.body()).into_owned();
            if mark.starts_with(FAILS) && message.reconsume_times() == 0 {
                failed.lock().entry(number).or_default().insert(mark);
                return Err("as the body says".into());
            }
            consumed.lock().entry(number).or_default().insert(mark);
            Ok(())
        };
        let builder = PushConsumer::builder(group).client(handle).subscribe(TOPIC, FilterExpression::all());
        let builder = builder.consume_from(ConsumeFromWhere::First).consume_threads(POOL).each(listener);
        Ok(Life { number, client, group, member: builder.start()?, is_alive: true, is_paused: false })
    }

    /// Restarts in the usual way: the old value is dropped after the new one has started.
    fn replace_consumer(&mut self, pick: usize) {
        let Some(at) = index(&self.consumers, pick, |life| life.is_alive) else { return };
        let life = &self.consumers[at];
        life.member.shutdown(SHUTDOWN);
        let (handle, client, group) = (life.member.client().clone(), life.client, life.group);
        let successor = self.consumer(&handle, client, group).unwrap();
        self.consumers[at] = successor;
    }

    fn start_producer(&mut self, pick: usize) {
        let (client, handle) = self.a_client(pick);
        let group = GROUPS[pick / 2 % 2];
        let is_taken = self.producers.iter().any(|life| life.is_alive && (life.client, life.group) == (client, group));
        match self.producer(&handle, client, group) {
            Ok(life) => {
                assert!(!is_taken, "a second producer of {group}");
                self.producers.push(life);
            }
            Err(error) => assert!(is_taken && error.kind() == ErrorKind::DuplicateGroup, "{error}"),
        }
    }

    fn producer(
        &mut self,
        handle: &Client,
        client: usize,
        group: &'static str,
    ) -> rocketmq_sync::Result<Life<Producer>> {
        let number = self.next_number();
        let member = Producer::builder(group).client(handle).send_timeout(self.patience).start()?;
        Ok(Life { number, client, group, member, is_alive: true, is_paused: false })
    }

    fn replace_producer(&mut self, pick: usize) {
        let Some(at) = index(&self.producers, pick, |life| life.is_alive) else { return };
        let life = &self.producers[at];
        life.member.shutdown(SHUTDOWN);
        let (handle, client, group) = (life.member.client().clone(), life.client, life.group);
        let successor = self.producer(&handle, client, group).unwrap();
        self.producers[at] = successor;
    }

    /// Sends asynchronously, regardless of the state of the producer.
    fn send(&mut self, pick: usize) {
        let Some(life) = chosen(&mut self.producers, pick, |_| true) else { return };
        let message = Message::new(TOPIC, "asynchronous");
        let accepted = if pick.is_multiple_of(3) {
            life.member.send_tracked(message, 0, &self.completions)
        } else {
            let called_back = Arc::clone(&self.called_back);
            life.member.send_async(message, move |_| {
                let _ = called_back.fetch_add(1, Ordering::SeqCst);
            })
        };
        match accepted {
            Ok(()) => self.accepted += 1,
            Err(rejected) => assert!(!life.is_alive, "{}", rejected.error),
        }
        let mut results = Vec::new();
        self.taken += self.completions.take(&mut results, Duration::ZERO).unwrap();
    }

    fn fork(&self) {
        // SAFETY: the child calls the library, which refuses everything before it locks, and ends with `_exit`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let is_right = self.are_refused();
                // SAFETY: ends the process.
                unsafe { nix::libc::_exit(i32::from(!is_right)) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(
                    ended(child, self.patience),
                    WaitStatus::Exited(child, 0),
                    "a child uses its parent's client"
                );
            }
        }
    }

    fn are_refused(&self) -> bool {
        let message = || Message::new(TOPIC, "never");
        let producers = self.producers.iter().all(|life| {
            let refused = life.member.send(&message()).is_err_and(|error| error.kind() == ErrorKind::Forked);
            refused && life.member.shutdown(SHUTDOWN).forked && life.member.in_flight() == 0
        });
        let consumers = self.consumers.iter().all(|life| {
            let refused = life.member.wait_ready(SHUTDOWN).is_err_and(|error| error.kind() == ErrorKind::Forked);
            refused && life.member.shutdown(SHUTDOWN).forked() && life.member.queues().is_empty()
        });
        let completions = self.completions.take(&mut Vec::new(), SHUTDOWN);
        producers && consumers && completions.is_err_and(|error| error.kind() == ErrorKind::Forked)
    }

    // The rules.

    fn check(&mut self, step: Step) {
        self.check_members(step);
        self.check_threads(step);
        for life in self.producers.iter().filter(|life| life.is_alive) {
            life.member.send(&Message::new(TOPIC, "synchronous")).expect("a producer that lives sends");
        }
        self.check_consumption(step);
    }

    fn check_members(&self, step: Step) {
        for broker in BROKERS.into_iter().filter(|broker| self.away != Some(*broker)) {
            for group in GROUPS {
                let living = self.consumers.iter().filter(|life| life.is_alive && life.group == group);
                let expected: BTreeSet<String> =
                    living.map(|life| life.member.client().client_id().to_owned()).collect();
                let listed = || self.mini.members(broker, group);
                eventually(
                    self.patience,
                    || listed().into_iter().collect::<BTreeSet<_>>() == expected,
                    || format!("after {step:?} {broker} lists {:?} in {group}, and {expected:?} live", listed()),
                );
            }
        }
    }

    fn check_threads(&self, step: Step) {
        let clients = |lives: &mut dyn Iterator<Item = usize>| lives.collect::<BTreeSet<_>>();
        let with_consumers = clients(&mut self.consumers.iter().map(|life| life.client));
        let mut all = clients(&mut self.producers.iter().map(|life| life.client));
        all.extend(&with_consumers);
        all.extend(self.clients.iter().flatten().map(|(number, _)| *number));
        let pools = self.consumers.iter().filter(|life| life.is_alive).count() * POOL;
        let expected = BTreeMap::from([
            ("rmq-remoting", all.len()),
            ("rmq-timer", all.len()),
            ("rmq-pull", with_consumers.len()),
            ("rmq-rebalance", with_consumers.len()),
            ("rmq-consume-", pools),
        ]);
        let is_right = || expected.iter().all(|(name, count)| threads(name) == *count);
        eventually(self.patience, is_right, || {
            let there: Vec<_> = expected.keys().map(|name| (name, threads(name))).collect();
            format!("after {step:?} there are {there:?}, and there should be {expected:?}")
        });
    }

    /// Checks that a new message reaches a live listener in each group, unless a member of it is paused.
    fn check_consumption(&mut self, step: Step) {
        self.mark += 1;
        let mark = format!("mark {}", self.mark);
        let queue = self.a_queue();
        self.mini.store(&queue, &Message::new(TOPIC, mark.clone()));
        for group in GROUPS {
            let Some(living) = self.unpaused(group) else { continue };
            let has_come = || {
                let consumed = self.consumed.lock();
                living.iter().any(|life| consumed.get(&life.number).is_some_and(|marks| marks.contains(&mark)))
            };
            eventually(self.patience, has_come, || {
                let explained: Vec<_> = living
                    .iter()
                    .map(|life| life.member.status(&queue).map(|status| status.map(|status| status.to_string())))
                    .collect();
                format!("after {step:?} a message in {queue} does not reach {group}: {explained:?}")
            });
        }
    }

    fn end(mut self) {
        self.producers.clear();
        self.consumers.clear();
        self.clients = [None, None];
        let (mini, patience) = (&self.mini, self.patience);
        eventually(patience, || threads("rmq-") == 0, || format!("{} threads are left", threads("rmq-")));
        let connections = || BROKERS.iter().map(|broker| mini.connection_count(broker)).sum::<usize>();
        eventually(patience, || connections() == 0, || format!("{} connections are left", connections()));
        // A stopped broker has closed its own descriptor.
        let most = self.descriptors;
        eventually(patience, || descriptors() <= most, || format!("{} descriptors, {most} before", descriptors()));
        let mut results = Vec::new();
        self.taken += self.completions.take(&mut results, Duration::ZERO).unwrap();
        let outcomes = self.called_back.load(Ordering::SeqCst) + self.taken;
        assert_eq!(outcomes, self.accepted, "sends and their outcomes");
    }
}

/// True for steps after which a failed message may belong to another member.
fn may_move_queues(what: What) -> bool {
    use What::{
        BrokerAwayOrBack, DropConsumer, PauseOrResume, RefuseOrTakeBack, ReplaceConsumer, StartConsumer,
        StartOrDropClient,
    };
    matches!(
        what,
        StartOrDropClient
            | StartConsumer
            | DropConsumer
            | ReplaceConsumer
            | PauseOrResume
            | RefuseOrTakeBack
            | BrokerAwayOrBack
    )
}

fn index<M>(lives: &[Life<M>], pick: usize, fits: impl Fn(&Life<M>) -> bool) -> Option<usize> {
    let fitting: Vec<_> = (0..lives.len()).filter(|at| fits(&lives[*at])).collect();
    (!fitting.is_empty()).then(|| fitting[pick % fitting.len()])
}

fn chosen<M>(lives: &mut [Life<M>], pick: usize, fits: impl Fn(&Life<M>) -> bool) -> Option<&mut Life<M>> {
    let at = index(lives, pick, fits)?;
    lives.get_mut(at)
}

fn taken<M>(lives: &mut Vec<Life<M>>, pick: usize) -> Option<Life<M>> {
    index(lives, pick, |_| true).map(|at| lives.remove(at))
}

fn eventually(patience: Duration, condition: impl Fn() -> bool, complaint: impl Fn() -> String) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "{}", complaint());
        thread::park_timeout(Duration::from_millis(2));
    }
}

fn threads(prefix: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Exit status of the child; a hanging child is killed.
fn ended(child: Pid, patience: Duration) -> WaitStatus {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive => thread::park_timeout(Duration::from_millis(2)),
            status => return status,
        }
    }
    kill(child, Signal::SIGKILL).unwrap();
    waitpid(child, None).unwrap()
}

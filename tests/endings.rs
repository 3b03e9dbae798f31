//! Leftovers of an ended client: no thread, no descriptor; and the threads of a live client.
//!
//! Counted for the whole process, through /proc: the tests run one at a time, and only on Linux. The mini broker is
//! started before the first count and has its own thread and descriptors throughout.

#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, unbounded};
use parking_lot::{Mutex, MutexGuard};
use rocketmq_sync::mini_broker::MiniBroker;
use rocketmq_sync::{
    Client, ConsumeFromWhere, Error, ErrorKind, FilterExpression, Message, MessageExt, Producer, PushConsumer,
    PushConsumerBuilder, StdThreads, ThreadBody, ThreadJoin, ThreadSpec, ThreadStarter,
};

const PATIENCE: Duration = Duration::from_secs(60);
const CYCLES: usize = 200;

#[test]
fn two_hundred_producers_leave_nothing() {
    let _turn = my_turn();
    let mini = MiniBroker::start().unwrap();
    mini.create_topic("T", 4);
    let baseline = Left::before();
    for cycle in 0..CYCLES {
        let producer = Producer::builder("P").name_servers(mini.name_servers()).start().unwrap();
        producer.send(&Message::new("T", "synchronous")).unwrap();
        let (told, tell) = bounded(1);
        producer.send_async(Message::new("T", "asynchronous"), move |result| told.send(result).unwrap()).unwrap();
        tell.recv_timeout(PATIENCE).unwrap().unwrap();
        end_in_turn(cycle, &producer, |producer| assert!(producer.shutdown(PATIENCE).is_clean()));
        drop(producer);
        assert_none_of_ours_is_left();
    }
    baseline.assert_is_all_that_is_left(&mini);
    assert_eq!(mini.messages("T").len(), 2 * CYCLES);
}

#[test]
fn two_hundred_consumers_leave_nothing() {
    let _turn = my_turn();
    let mini = MiniBroker::start().unwrap();
    mini.create_topic("T", 2);
    let baseline = Left::before();
    let feeder = Producer::builder("P").name_servers(mini.name_servers()).start().unwrap();
    for cycle in 0..CYCLES {
        feeder.send(&Message::new("T", format!("message {cycle}"))).unwrap();
        let (builder, arrivals) = consumer("G");
        let consumer = builder.name_servers(mini.name_servers()).start().unwrap();
        let message = arrivals.recv_timeout(PATIENCE).expect("the message of this cycle");
        assert_eq!(message, format!("message {cycle}"));
        end_in_turn(cycle, &consumer, |consumer| assert!(consumer.shutdown(PATIENCE).is_clean()));
        drop(consumer);
    }
    drop(feeder);
    assert_none_of_ours_is_left();
    baseline.assert_is_all_that_is_left(&mini);
}

#[test]
fn two_hundred_shared_clients_leave_nothing() {
    let _turn = my_turn();
    let mini = MiniBroker::start().unwrap();
    mini.create_topic("T", 2);
    let baseline = Left::before();
    for cycle in 0..CYCLES {
        let client = Client::builder().name_servers(mini.name_servers()).start().unwrap();
        let producers = ["P1", "P2"].map(|group| Producer::builder(group).client(&client).start().unwrap());
        let consumers = ["G1", "G2"].map(|group| {
            let (builder, arrivals) = consumer(&format!("{group}-{cycle}"));
            (builder.client(&client).start().unwrap(), arrivals)
        });
        for producer in &producers {
            producer.send(&Message::new("T", format!("message {cycle}"))).unwrap();
        }
        for (_, arrivals) in &consumers {
            arrivals.recv_timeout(PATIENCE).expect("a message");
        }
        // The last handle ends the threads, whichever it is.
        match cycle % 3 {
            0 => drop((client, producers, consumers)),
            1 => drop((consumers, client, producers)),
            _ => drop((producers, consumers, client)),
        }
        assert_none_of_ours_is_left();
    }
    baseline.assert_is_all_that_is_left(&mini);
}

#[test]
fn clients_that_reach_nobody_leave_nothing() {
    let _turn = my_turn();
    let baseline = Left::now();
    for cycle in 0..CYCLES / 4 {
        let nobody = unused_address();
        let producer = Producer::builder("P").name_servers([&nobody]).start().unwrap();
        let consumer = consumer("G").0.client(producer.client()).start().unwrap();
        let error = producer.timeout(Duration::from_millis(50)).send(&Message::new("T", "x")).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NameServer | ErrorKind::Timeout), "{error}");
        end_in_turn(cycle, &consumer, |consumer| assert!(consumer.shutdown(PATIENCE).is_clean()));
        drop((producer, consumer));
        assert_none_of_ours_is_left();
    }
    assert_eq!(Left::now(), baseline);
}

#[test]
fn clients_of_a_peer_that_never_answers_leave_nothing() {
    let _turn = my_turn();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let baseline = Left::now();
    for cycle in 0..10 {
        let producer = Producer::builder("P").name_servers([&address]).start().unwrap();
        let consumer = consumer("G").0.client(producer.client()).start().unwrap();
        let (connection, _) = silent.accept().unwrap();
        end_in_turn(cycle, &consumer, |consumer| assert!(consumer.shutdown(PATIENCE).is_clean()));
        drop((producer, consumer, connection));
        assert_none_of_ours_is_left();
    }
    assert_eq!(Left::now(), baseline);
}

#[test]
fn a_client_of_a_broker_that_died_leaves_nothing() {
    let _turn = my_turn();
    let mini = MiniBroker::start().unwrap();
    mini.create_topic("T", 2);
    let baseline = Left::before();
    let producer = Producer::builder("P").name_servers(mini.name_servers()).start().unwrap();
    let (builder, arrivals) = consumer("G");
    let consumer = builder.client(producer.client()).start().unwrap();
    producer.send(&Message::new("T", "x")).unwrap();
    arrivals.recv_timeout(PATIENCE).unwrap();
    mini.stop_broker("broker-a");
    let report = consumer.shutdown(Duration::from_millis(200));
    assert!(!report.offsets_not_stored().is_empty(), "{report:?}");
    drop((producer, consumer));
    assert_none_of_ours_is_left();
    assert_eq!(Left::now().threads, baseline.threads);
}

#[test]
fn builders_that_fail_leave_nothing() {
    let _turn = my_turn();
    let mini = MiniBroker::start().unwrap();
    let baseline = Left::before();
    let name_servers = mini.name_servers();
    let failures: [(&str, Result<(), Error>); 7] = [
        ("no name server", Producer::builder("P").start().map(drop)),
        ("a wrong group", Producer::builder("P P").name_servers(&name_servers).start().map(drop)),
        ("a window of 0", Producer::builder("P").name_servers(&name_servers).max_in_flight(0).start().map(drop)),
        ("no listener", PushConsumer::builder("G").name_servers(&name_servers).subscribe("T", "*").start().map(drop)),
        ("no subscription", PushConsumer::builder("G").name_servers(&name_servers).each(ignore).start().map(drop)),
        ("the default group", consumer("DEFAULT_CONSUMER").0.name_servers(&name_servers).start().map(drop)),
        ("no threads", consumer("G").0.name_servers(&name_servers).consume_threads(0).start().map(drop)),
    ];
    for (what, outcome) in failures {
        assert_eq!(outcome.expect_err(what).kind(), ErrorKind::InvalidConfig, "{what}");
    }
    assert_none_of_ours_is_left();
    baseline.assert_is_all_that_is_left(&mini);
}

#[test]
fn a_start_that_gets_too_few_threads_fails_and_leaves_nothing() {
    let _turn = my_turn();
    let mini = MiniBroker::start().unwrap();
    let baseline = Left::before();
    let start_with = |limit: usize| {
        let starter = FewThreads { left: Arc::new(AtomicUsize::new(limit)) };
        consumer("G").0.name_servers(mini.name_servers()).consume_threads(3).thread_starter(starter).start()
    };
    // One of them calls the starter for threads that resolve names.
    for limit in 0..8 {
        assert_eq!(start_with(limit).expect_err("too few threads").kind(), ErrorKind::Resource, "{limit} threads");
        assert_none_of_ours_is_left();
    }
    assert!(start_with(8).expect("enough threads").shutdown(PATIENCE).is_clean());
    baseline.assert_is_all_that_is_left(&mini);
}

#[test]
fn a_producer_runs_on_two_threads() {
    let _turn = my_turn();
    let mini = MiniBroker::start().unwrap();
    let producer = Producer::builder("P").name_servers(mini.name_servers()).start().unwrap();
    producer.send(&Message::new("T", "x")).unwrap();
    assert_eq!(ours(), counts([("rmq-remoting", 1), ("rmq-timer", 1)]));
    let (told, tell) = bounded(1);
    producer.send_async(Message::new("T", "x"), move |result| told.send(result).unwrap()).unwrap();
    tell.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(ours(), counts([("rmq-remoting", 1), ("rmq-timer", 1), ("rmq-callback", 1)]));
}

#[test]
fn a_push_consumer_runs_on_four_threads_and_its_pool() {
    let _turn = my_turn();
    let mini = MiniBroker::start().unwrap();
    mini.create_topic("T", 4);
    let (builder, _arrivals) = consumer("G");
    let consumer = builder.name_servers(mini.name_servers()).consume_threads(5).start().unwrap();
    consumer.wait_ready(PATIENCE).unwrap();
    let four = [("rmq-remoting", 1), ("rmq-timer", 1), ("rmq-pull", 1), ("rmq-rebalance", 1)];
    assert_eq!(without("rmq-callback", ours()), counts(four.into_iter().chain([("rmq-consume", 5)])));
}

#[test]
fn the_members_of_one_client_share_its_threads() {
    let _turn = my_turn();
    let mini = MiniBroker::start().unwrap();
    mini.create_topic("T", 4);
    let client = Client::builder().name_servers(mini.name_servers()).start().unwrap();
    let producers: Vec<_> =
        (0..10).map(|number| Producer::builder(format!("P{number}")).client(&client).start().unwrap()).collect();
    let start = |number| consumer(&format!("G{number}")).0.client(&client).consume_threads(2).start().unwrap();
    let consumers: Vec<_> = (0..10).map(start).collect();
    for consumer in &consumers {
        consumer.wait_ready(PATIENCE).unwrap();
    }
    let four = [("rmq-remoting", 1), ("rmq-timer", 1), ("rmq-pull", 1), ("rmq-rebalance", 1)];
    assert_eq!(without("rmq-callback", ours()), counts(four.into_iter().chain([("rmq-consume", 20)])));
    drop(consumers);
    assert_eq!(without("rmq-callback", ours()), counts([("rmq-remoting", 1), ("rmq-timer", 1)]));
    drop(client);
    producers[9].send(&Message::new("T", "x")).expect("a member keeps its client alive");
    drop(producers);
    assert_none_of_ours_is_left();
}

#[test]
fn a_host_that_brings_its_own_threads_is_asked_for_each_and_gets_each_back() {
    let _turn = my_turn();
    let mini = MiniBroker::start().unwrap();
    mini.create_topic("T", 4);
    let counted = CountedThreads::default();
    let (builder, arrivals) = consumer("G");
    let builder = builder.name_servers(mini.name_servers()).consume_threads(3);
    let consumer = builder.thread_starter(counted.clone()).start().unwrap();
    let producer = Producer::builder("P").client(consumer.client()).start().unwrap();
    producer.send(&Message::new("T", "x")).unwrap();
    arrivals.recv_timeout(PATIENCE).unwrap();
    assert_eq!(counted.running(), ours().values().sum::<usize>());
    drop((producer, consumer));
    assert_eq!((counted.running(), counted.joined()), (0, counted.started()));
}

#[test]
fn a_listener_that_hangs_is_named_and_its_thread_ends_with_it() {
    let _turn = my_turn();
    let mini = MiniBroker::start().unwrap();
    mini.create_topic("T", 1);
    let (entered, enter) = unbounded();
    let (release, released) = bounded::<()>(0);
    let consumer = PushConsumer::builder("G")
        .name_servers(mini.name_servers())
        .subscribe("T", FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .each(move |_: &MessageExt| {
            entered.send(()).unwrap();
            released.recv().map_err(|_| "released".into())
        })
        .start()
        .unwrap();
    let producer = Producer::builder("P").client(consumer.client()).start().unwrap();
    producer.send(&Message::new("T", "x")).unwrap();
    enter.recv_timeout(PATIENCE).unwrap();
    let report = consumer.shutdown(Duration::from_millis(50));
    assert_eq!((report.listeners_running(), report.messages_left()), (1, 1), "{report:?}");
    drop((consumer, producer));
    assert_eq!(ours(), counts([("rmq-consume", 1)]));
    drop(release);
    eventually("the listener's thread ends", || ours().is_empty());
}

#[test]
fn shutdown_may_be_called_from_many_threads_and_from_a_listener() {
    let _turn = my_turn();
    let mini = MiniBroker::start().unwrap();
    mini.create_topic("T", 2);
    let slot: Arc<Mutex<Option<Arc<PushConsumer>>>> = Arc::default();
    let own = Arc::clone(&slot);
    let (reported, report) = unbounded();
    let consumer = PushConsumer::builder("G")
        .name_servers(mini.name_servers())
        .subscribe("T", FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .each(move |_: &MessageExt| {
            let consumer = own.lock().clone();
            Ok(reported.send(consumer.map(|consumer| consumer.shutdown(PATIENCE)))?)
        })
        .start()
        .unwrap();
    let consumer = Arc::new(consumer);
    *slot.lock() = Some(Arc::clone(&consumer));
    let producer = Producer::builder("P").client(consumer.client()).start().unwrap();
    producer.send(&Message::new("T", "x")).unwrap();
    let begun = report.recv_timeout(PATIENCE).unwrap().expect("the consumer");
    assert!(begun.only_begun(), "{begun:?}");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let report = consumer.shutdown(PATIENCE);
                assert!(report.is_clean(), "{report:?}");
            });
        }
    });
    *slot.lock() = None;
    drop((consumer, producer));
    assert_none_of_ours_is_left();
}

/// Waits for this test's turn: threads and descriptors are counted for the whole process.
fn my_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock();
    assert_none_of_ours_is_left();
    turn
}

/// Builds a consumer of topic `T` from its beginning, and the channel of its bodies.
fn consumer(group: &str) -> (PushConsumerBuilder, Receiver<String>) {
    let (consumed, arrivals) = unbounded();
    let builder = PushConsumer::builder(group)
        .subscribe("T", FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .consume_threads(2)
        .each(move |message: &MessageExt| {
            // The test may have ended already.
            let _ = consumed.send(String::from_utf8_lossy(message.body()).into_owned());
            Ok(())
        });
    (builder, arrivals)
}

fn ignore(_: &MessageExt) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Ok(())
}

/// Shuts every second member down; the others are only dropped.
fn end_in_turn<T>(cycle: usize, member: &T, shut_down: impl FnOnce(&T)) {
    if cycle.is_multiple_of(2) {
        shut_down(member);
    }
}

/// Returns an address without a listener.
fn unused_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// A joined thread may be listed for a moment longer: the kernel wakes its waiter first.
fn assert_none_of_ours_is_left() {
    let deadline = Instant::now() + PATIENCE;
    while !ours().is_empty() {
        assert!(Instant::now() < deadline, "left: {:?}", ours());
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// Threads of the library, counted by name without their numbers.
fn ours() -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in thread_names().into_iter().filter(|name| name.starts_with("rmq-")) {
        let kind = name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '-');
        *counts.entry(kind.to_owned()).or_default() += 1;
    }
    counts
}

fn counts<'a>(expected: impl IntoIterator<Item = (&'a str, usize)>) -> BTreeMap<String, usize> {
    expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

fn without(name: &str, mut counts: BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    counts.remove(name);
    counts
}

/// A thread that ends in the meantime has no name any more.
fn thread_names() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}

/// Threads and descriptors of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    threads: Vec<String>,
    /// Descriptors by their target: `socket`, `anon_inode:[eventpoll]`, a path.
    descriptors: BTreeMap<String, usize>,
}

impl Left {
    fn now() -> Self {
        // Threads of the test runner that wait for their turn have the names of tests.
        let mut threads: Vec<_> =
            thread_names().into_iter().filter(|name| name.starts_with("rmq-") || name.starts_with("mini-")).collect();
        threads.sort();
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir("/proc/self/fd").unwrap() {
            if let Ok(target) = fs::read_link(entry.unwrap().path()) {
                let target = target.to_string_lossy();
                let kind = target.split_once(":[").map_or(&*target, |(kind, _)| kind).to_owned();
                *descriptors.entry(kind).or_default() += 1;
            }
        }
        Self { threads, descriptors }
    }

    /// Counts of a process with only its mini broker, whose thread sets its own name.
    fn before() -> Self {
        eventually("the mini broker's thread has its name", || thread_names().iter().any(|name| name == "mini-broker"));
        Self::now()
    }

    /// The broker closes its ends of connections after its thread has read their ends.
    fn assert_is_all_that_is_left(&self, mini: &MiniBroker) {
        eventually("the broker has let go of its connections", || mini.connection_count("broker-a") == 0);
        let deadline = Instant::now() + PATIENCE;
        while Self::now() != *self && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(5));
        }
        assert_eq!(Self::now(), *self);
    }
}

/// Starts a number of threads and refuses all others.
struct FewThreads {
    left: Arc<AtomicUsize>,
}

impl ThreadStarter for FewThreads {
    fn start(&self, spec: &ThreadSpec, body: ThreadBody) -> io::Result<ThreadJoin> {
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        taken.map_err(|_| io::Error::other("no more threads"))?;
        StdThreads.start(spec, body)
    }
}

/// Counts its threads that were started, are running, and were joined.
#[derive(Clone, Default)]
struct CountedThreads {
    started: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    joined: Arc<AtomicUsize>,
}

impl CountedThreads {
    fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    fn running(&self) -> usize {
        self.started() - self.ended.load(Ordering::SeqCst)
    }

    fn joined(&self) -> usize {
        self.joined.load(Ordering::SeqCst)
    }
}

impl ThreadStarter for CountedThreads {
    fn start(&self, spec: &ThreadSpec, body: ThreadBody) -> io::Result<ThreadJoin> {
        self.started.fetch_add(1, Ordering::SeqCst);
        let ended = Arc::clone(&self.ended);
        let counted = Box::new(move || {
            body();
            ended.fetch_add(1, Ordering::SeqCst);
        });
        let join = StdThreads.start(spec, counted)?;
        let joined = Arc::clone(&self.joined);
        Ok(Box::new(move || {
            join();
            joined.fetch_add(1, Ordering::SeqCst);
        }))
    }
}

//! User code: every function that a user can pass in, and its possible behaviour without harm to others.
//!
//! [`HANDED_IN`] lists each trait and each function with a closure of the public interface; a test reads the sources
//! and fails for a missing one. Each cell, a place where user code runs and its behaviour there, is a test in its own
//! process. In each cell no other call fails or waits beyond its deadline, everything ends, and nothing aborts.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use log::LevelFilter;
use parking_lot::Mutex;
use rocketmq_sync::mini_broker::MiniBroker;
use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode};
use rocketmq_sync::{
    Client, Completions, ConsumeFromWhere, ErrorKind, FilterExpression, MessageExt, Producer, PushConsumer, Resolve,
    Result, StdThreads, ThreadBody, ThreadJoin, ThreadSpec, ThreadStarter,
};

use crate::alone::{alone, hear_log};
use crate::{PATIENCE, TOPIC, eventually, message, mini};

/// Place where user code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On `rmq-consume-N`.
    Listener,
    /// On `rmq-consume-N`, while the log line of a failed message is written.
    ErrorText,
    /// On `rmq-callback-N`.
    Callback,
    /// On the thread of the caller that sends.
    Selector,
    /// On `rmq-resolve-N`.
    AddressMap,
    /// On `rmq-resolve-N`.
    Resolver,
    /// On the thread of the caller that needs the new thread.
    Starter,
    /// On every thread; here on `rmq-remoting`.
    Logger,
    /// Within a call, on its caller's thread and for that call alone, like any called function.
    WithinTheCall,
    /// On a thread that ends a client and waits only for this: it must not block.
    Join,
    /// In the mini broker, which is a tool for tests.
    MiniBroker,
}

/// User code by the trait, type or function that accepts it.
const HANDED_IN: &[(&str, Place)] = &[
    ("ConcurrentListener", Place::Listener),
    ("FieldSink", Place::WithinTheCall),
    ("HeaderFields", Place::WithinTheCall),
    ("Resolve", Place::Resolver),
    ("ThreadBody", Place::Starter),
    ("ThreadJoin", Place::Join),
    ("ThreadStarter", Place::Starter),
    ("address_map", Place::AddressMap),
    ("alter", Place::MiniBroker),
    ("answer", Place::MiniBroker),
    ("by", Place::Selector),
    ("each", Place::ErrorText),
    ("send_async", Place::Callback),
];

/// Behaviour of user code at its first run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Panics,
    Blocks,
    CallsBack,
    EndsItsClient,
    SendsWhenItsThreadEnds,
}

macro_rules! cells {
    ($($name:ident: $place:ident),+ $(,)?) => {
        /// Places that have a test for each behaviour.
        const WITH_CELLS: &[Place] = &[$(Place::$place),+];

        $(mod $name {
            use super::{Deed, Place, cell};

            #[test]
            fn panics() {
                cell(concat!("user_code::", stringify!($name), "::panics"), Place::$place, Deed::Panics);
            }

            #[test]
            fn blocks() {
                cell(concat!("user_code::", stringify!($name), "::blocks"), Place::$place, Deed::Blocks);
            }

            #[test]
            fn calls_back() {
                cell(concat!("user_code::", stringify!($name), "::calls_back"), Place::$place, Deed::CallsBack);
            }

            #[test]
            fn ends_its_client() {
                cell(concat!("user_code::", stringify!($name), "::ends_its_client"), Place::$place, Deed::EndsItsClient);
            }

            #[test]
            fn sends_when_its_thread_ends() {
                let test = concat!("user_code::", stringify!($name), "::sends_when_its_thread_ends");
                cell(test, Place::$place, Deed::SendsWhenItsThreadEnds);
            }
        })+
    };
}

cells! {
    a_listener: Listener,
    an_errors_text: ErrorText,
    a_callback: Callback,
    a_selector: Selector,
    an_address_map: AddressMap,
    a_resolver: Resolver,
    a_starter: Starter,
    a_logger: Logger,
}

/// Send timeout of this client: the deadline that blocking user code exceeds.
const SEND_TIMEOUT: Duration = Duration::from_secs(3);

fn cell(test: &str, place: Place, deed: Deed) {
    alone(test, || {
        let mini = mini(2);
        let (release, hold) = bounded(0);
        let (tell, told) = unbounded();
        let other =
            Producer::builder("other").name_servers(mini.name_servers()).send_timeout(PATIENCE).start().unwrap();
        let user = Arc::new(User {
            deed,
            calls: AtomicUsize::new(0),
            is_done: AtomicBool::new(false),
            hold,
            tell,
            other: Arc::new(other),
            producer: Mutex::default(),
            consumer: Mutex::default(),
        });
        let scene = Scene::new(&mini, place, &user);
        scene.trigger();
        eventually("the user's code runs", || user.calls.load(Ordering::SeqCst) > 0);
        if deed != Deed::Blocks {
            eventually("it comes to its end", || user.is_done.load(Ordering::SeqCst));
        }
        scene.assert_that_others_are_served(deed);
        if deed == Deed::CallsBack {
            assert_answers(place, &told);
        }
        scene.end();
        drop(release);
        if deed == Deed::SendsWhenItsThreadEnds {
            let sent = told.recv_timeout(PATIENCE).expect("the thread has ended");
            assert!(sent.is_ok(), "{sent:?}");
        }
    });
}

/// User code in any form.
struct User {
    deed: Deed,
    calls: AtomicUsize,
    is_done: AtomicBool,
    /// Disconnected when blocked code is released.
    hold: Receiver<()>,
    tell: Sender<Result<()>>,
    /// Producer of another client.
    other: Arc<Producer>,
    /// Producer of its own client.
    producer: Mutex<Option<Arc<Producer>>>,
    consumer: Mutex<Option<Arc<PushConsumer>>>,
}

impl User {
    fn run(&self) {
        if self.calls.fetch_add(1, Ordering::SeqCst) > 0 {
            return;
        }
        // Runs also on a panic.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let _done = Done(&self.is_done);
        match self.deed {
            Deed::Panics => panic!("a user's mistake"),
            Deed::Blocks => drop(self.hold.recv()),
            Deed::CallsBack => self.call_back(),
            Deed::EndsItsClient => self.end_client(),
            Deed::SendsWhenItsThreadEnds => self.send_at_the_end_of_the_thread(),
        }
    }

    fn producer(&self) -> Arc<Producer> {
        self.producer.lock().clone().expect("a producer")
    }

    /// `None` for code that runs while the consumer starts.
    fn consumer(&self) -> Option<Arc<PushConsumer>> {
        self.consumer.lock().clone()
    }

    fn call_back(&self) {
        let producer = self.producer();
        let begun = Instant::now();
        let sent = producer.send(&message()).map(drop);
        self.tell.send(sent).unwrap();
        // Of these calls only the return matters.
        let brief = Duration::from_millis(100);
        let _ = producer.wait_ready(&[TOPIC], brief);
        let _ = producer.send_oneway(&message());
        let _ = producer.send_async(message(), |_| {});
        let _ = Completions::new().take(&mut Vec::new(), brief);
        let question = RemotingCommand::request(RequestCode::GET_BROKER_RUNTIME_INFO, &());
        let _ = producer.client().request("127.0.0.1:1", &question, brief);
        let _ = (producer.in_flight(), producer.client().broker_versions(), format!("{producer:?}"));
        if let Some(consumer) = self.consumer() {
            let _ = (consumer.wait_ready(brief), consumer.queues(), format!("{consumer:?}"));
            for queue in consumer.queues() {
                let _ = consumer.status(&queue);
            }
            consumer.pause();
            consumer.resume();
        }
        assert!(begun.elapsed() < SEND_TIMEOUT * 3, "a call back took {:?}", begun.elapsed());
    }

    fn end_client(&self) {
        let brief = Duration::from_millis(500);
        let begun = Instant::now();
        let _ = self.producer().shutdown(brief);
        let _ = self.consumer().map(|consumer| consumer.shutdown(brief));
        assert!(begun.elapsed() < brief * 10, "the ends took {:?}", begun.elapsed());
    }

    fn send_at_the_end_of_the_thread(&self) {
        struct Last(Arc<Producer>, Sender<Result<()>>);
        impl Drop for Last {
            fn drop(&mut self) {
                let _ = self.1.send(self.0.send(&message()).map(drop));
            }
        }
        thread_local! {
            static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
        }
        LAST.set(Some(Last(Arc::clone(&self.other), self.tell.clone())));
        // The library's thread-local data is created after that, and dropped before it.
        let _ = self.other.send(&message());
    }
}

/// Threads without waiters may get the answer; the library's threads may not.
fn assert_answers(place: Place, told: &Receiver<Result<()>>) {
    let sent = told.try_recv().expect("an answer").map_err(|error| error.kind());
    match place {
        Place::AddressMap | Place::Resolver | Place::Logger => assert_eq!(sent, Err(ErrorKind::WrongThread)),
        _ => assert_eq!(sent, Ok(())),
    }
}

/// Client with the user's code in its place, and its members.
struct Scene {
    place: Place,
    user: Arc<User>,
    client: Client,
    producer: Arc<Producer>,
    consumer: Arc<PushConsumer>,
}

impl Scene {
    fn new(mini: &MiniBroker, place: Place, user: &Arc<User>) -> Self {
        if matches!(place, Place::Logger | Place::ErrorText) {
            listen_to_the_log(place, user);
        }
        let builder = Client::builder().name_servers(mini.name_servers()).connect_timeout(Duration::from_millis(500));
        let code = Arc::clone(user);
        let builder = match place {
            Place::AddressMap => builder.address_map(move |address| {
                code.run();
                address.to_owned()
            }),
            Place::Resolver => {
                let to_name = |address: &str| address.replace("127.0.0.1", "broker.invalid");
                builder.address_map(to_name).resolver(UsersResolver(code))
            }
            Place::Starter => builder.thread_starter(UsersStarter(code)),
            _ => builder,
        };
        let client = builder.start().unwrap();
        let producer = Producer::builder("P").client(&client).send_timeout(SEND_TIMEOUT).start().unwrap();
        let producer = Arc::new(producer);
        *user.producer.lock() = Some(Arc::clone(&producer));
        let consumer = Arc::new(consumer(&client, place, user));
        *user.consumer.lock() = Some(Arc::clone(&consumer));
        Self { place, user: Arc::clone(user), client, producer, consumer }
    }

    /// Lets the user's code run.
    fn trigger(&self) {
        let (user, producer) = (Arc::clone(&self.user), Arc::clone(&self.producer));
        match self.place {
            Place::Listener | Place::ErrorText => drop(self.user.other.send(&message()).unwrap()),
            Place::Callback => producer.send_async(message(), move |_| user.run()).unwrap(),
            Place::Selector => spawn(move || {
                let select = |_: &[_], _: &_| {
                    user.run();
                    0
                };
                let _ = producer.by(select).send(&message());
            }),
            Place::Starter => spawn(move || drop(producer.send_async(message(), |_| {}))),
            Place::Logger => {
                // An unreachable address causes a log line of the selector.
                let client = self.client.clone();
                spawn(move || {
                    let question = RemotingCommand::request(RequestCode::GET_BROKER_RUNTIME_INFO, &());
                    let _ = client.request("127.0.0.1:1", &question, SEND_TIMEOUT);
                });
            }
            // The consumer connects to the brokers by itself.
            _ => {}
        }
    }

    /// Sends on another thread in the meantime, over the same client.
    fn assert_that_others_are_served(&self, deed: Deed) {
        let begun = Instant::now();
        let sent = self.producer.send(&message());
        assert!(begun.elapsed() < SEND_TIMEOUT * 3, "{sent:?} after {:?}", begun.elapsed());
        match (self.place, deed) {
            // Its own client has ended; or its own selector is blocked, and deadlines are kept nevertheless.
            (_, Deed::EndsItsClient) | (Place::Logger, Deed::Blocks) => {}
            _ => eventually("a send succeeds", || self.producer.send(&message()).is_ok()),
        }
    }

    /// Ends everything, while blocked code is still blocked.
    fn end(self) {
        let (done, is_done) = bounded(1);
        spawn(move || {
            let brief = Duration::from_secs(1);
            self.consumer.shutdown(brief);
            self.producer.shutdown(brief);
            // Last handles, except those still held by blocked code.
            let handles = (self.user.producer.lock().take(), self.user.consumer.lock().take());
            drop((handles, self));
            done.send(()).unwrap();
        });
        is_done.recv_timeout(PATIENCE).expect("an end");
    }
}

fn consumer(client: &Client, place: Place, user: &Arc<User>) -> PushConsumer {
    let code = Arc::clone(user);
    let listener = move |_: &MessageExt| -> std::result::Result<(), Box<dyn Error + Send + Sync>> {
        match place {
            Place::Listener => {
                code.run();
                Ok(())
            }
            Place::ErrorText => Err(Box::new(ErrorText(Arc::clone(&code)))),
            _ => Ok(()),
        }
    };
    let builder = PushConsumer::builder("G").client(client).subscribe(TOPIC, FilterExpression::all());
    builder.consume_from(ConsumeFromWhere::First).consume_threads(2).each(listener).start().unwrap()
}

struct ErrorText(Arc<User>);

impl Error for ErrorText {}

impl fmt::Debug for ErrorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ErrorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.run();
        f.write_str("it failed")
    }
}

struct UsersResolver(Arc<User>);

impl Resolve for UsersResolver {
    fn resolve(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        self.0.run();
        Ok(host_and_port.replace("broker.invalid", "127.0.0.1").to_socket_addrs()?.collect())
    }
}

struct UsersStarter(Arc<User>);

impl ThreadStarter for UsersStarter {
    fn start(&self, spec: &ThreadSpec, body: ThreadBody) -> io::Result<ThreadJoin> {
        if spec.name.starts_with("rmq-callback") {
            self.0.run();
        }
        StdThreads.start(spec, body)
    }
}

fn listen_to_the_log(place: Place, user: &Arc<User>) {
    let user = Arc::clone(user);
    hear_log(LevelFilter::Warn, move |record| match place {
        Place::Logger if thread::current().name() == Some("rmq-remoting") => user.run(),
        _ => drop(record.args().to_string()),
    });
}

fn spawn(body: impl FnOnce() + Send + 'static) {
    thread::Builder::new().spawn(body).unwrap();
}

/// The first log line of each thread of the library panics.
#[test]
fn a_logger_that_panics_once_on_each_thread_costs_lines_and_nothing_else() {
    alone("user_code::a_logger_that_panics_once_on_each_thread_costs_lines_and_nothing_else", || {
        let panicked = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&panicked);
        hear_log(LevelFilter::Debug, move |_| {
            let name = thread::current().name().unwrap_or_default().to_owned();
            let is_first = name.starts_with("rmq-") && seen.lock().insert(name);
            assert!(!is_first, "a bad logger");
        });
        let mini = mini(1);
        let (told, consumed) = unbounded();
        let failed_once = Mutex::new(BTreeSet::new());
        let listener = move |message: &MessageExt| -> std::result::Result<(), Box<dyn Error + Send + Sync>> {
            if failed_once.lock().insert(message.msg_id().into_owned()) {
                return Err("once".into());
            }
            Ok(told.send(message.msg_id().into_owned())?)
        };
        let builder = PushConsumer::builder("G").name_servers(mini.name_servers()).consume_threads(1);
        let builder =
            builder.heartbeat_interval(Duration::from_millis(50)).rebalance_interval(Duration::from_millis(50));
        let builder = builder.subscribe(TOPIC, FilterExpression::all()).consume_from(ConsumeFromWhere::First);
        let consumer = builder.each(listener).start().unwrap();
        let producer = Producer::builder("P").client(consumer.client()).send_timeout(PATIENCE).start().unwrap();
        let sent = producer.send(&message()).unwrap().msg_id;
        eventually("it comes again and is consumed", || {
            mini.advance(Duration::from_secs(60));
            consumed.try_recv().is_ok_and(|again| again == sent)
        });
        let expected = ["rmq-consume-0", "rmq-pull", "rmq-rebalance", "rmq-remoting"];
        assert!(expected.iter().all(|name| panicked.lock().contains(*name)), "{panicked:?}");
        assert!(consumer.shutdown(PATIENCE).is_clean());
        assert!(producer.shutdown(PATIENCE).is_clean());
    });
}

/// If a line was written while a lock is held, the calls that need the lock would wait for this thread without end.
#[test]
fn a_logger_that_calls_back_at_every_line_meets_no_lock() {
    alone("user_code::a_logger_that_calls_back_at_every_line_meets_no_lock", || {
        thread_local! {
            static IS_WITHIN: RefCell<bool> = const { RefCell::new(false) };
        }
        type Members = (Arc<Producer>, Arc<PushConsumer>);
        let members: Arc<OnceLock<Members>> = Arc::default();
        let lines = Arc::new(AtomicUsize::new(0));
        let (own, counted) = (Arc::clone(&members), Arc::clone(&lines));
        hear_log(LevelFilter::Debug, move |record| {
            let is_ours = record.target().starts_with("rocketmq_sync") && !record.target().contains("mini_broker");
            // The calls made here write lines too.
            if !is_ours || IS_WITHIN.replace(true) {
                return;
            }
            if let Some((producer, consumer)) = own.get() {
                let client = producer.client();
                let _ = (producer.in_flight(), consumer.queues(), client.broker_versions());
                let _ = (format!("{client:?}"), format!("{producer:?}"), format!("{consumer:?}"));
                let _ = producer.send_async(message(), |_| {});
                let _ = (producer.send(&message()), consumer.wait_ready(Duration::ZERO));
                counted.fetch_add(1, Ordering::SeqCst);
            }
            IS_WITHIN.set(false);
        });
        let mini = mini(1);
        let builder = Client::builder().name_servers(mini.name_servers()).route_interval(Duration::from_millis(50));
        let client = builder.heartbeat_interval(Duration::from_millis(50)).start().unwrap();
        let producer = Producer::builder("P").client(&client).send_timeout(Duration::from_millis(500)).start().unwrap();
        let consumer = PushConsumer::builder("G").client(&client).subscribe(TOPIC, FilterExpression::all());
        let consumer = consumer.consume_from(ConsumeFromWhere::First).consume_threads(2);
        let consumer = consumer.each(|_| Err("always".into())).start().unwrap();
        let (producer, consumer) = (Arc::new(producer), Arc::new(consumer));
        assert!(members.set((Arc::clone(&producer), Arc::clone(&consumer))).is_ok());
        for _ in 0..3 {
            let _ = producer.send(&message());
            mini.stop_broker("broker-a");
            let _ = producer.send(&message());
            mini.start_broker("broker-a").unwrap();
            eventually("a send succeeds", || producer.send(&message()).is_ok());
        }
        assert!(lines.load(Ordering::SeqCst) > 10, "hardly a line was written");
        let (done, is_done) = bounded(1);
        spawn(move || {
            consumer.shutdown(Duration::from_secs(2));
            producer.shutdown(Duration::from_secs(2));
            done.send(()).unwrap();
        });
        is_done.recv_timeout(PATIENCE).expect("an end");
    });
}

#[test]
fn every_trait_and_closure_that_a_user_can_hand_in_is_in_the_table() {
    let listed: BTreeSet<_> = HANDED_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed.len(), HANDED_IN.len(), "one is listed twice");
    let found: BTreeSet<_> = sources().iter().flat_map(|source| handed_in(source)).collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    assert!(missing.is_empty(), "without a place in HANDED_IN, and so without tests: {missing:?}");
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(gone.is_empty(), "in HANDED_IN and not in the sources: {gone:?}");
    let without_cells = [Place::WithinTheCall, Place::Join, Place::MiniBroker];
    for (name, place) in HANDED_IN {
        assert!(WITH_CELLS.contains(place) || without_cells.contains(place), "{name} has no tests");
    }
}

/// Public traits of a source, and its public functions and types with a closure.
fn handed_in(source: &str) -> Vec<String> {
    let name_of = |rest: &str| rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    let mut found: Vec<String> = source.split("pub trait ").skip(1).map(name_of).collect();
    for (kind, end) in [("pub fn ", '{'), ("pub type ", ';')] {
        for rest in source.split(kind).skip(1) {
            let signature = rest.split(end).next().unwrap_or_default();
            if ["Fn(", "FnOnce(", "FnMut("].iter().any(|closure| signature.contains(closure)) {
                found.push(name_of(rest));
            }
        }
    }
    found
}

/// Sources of the library without comments and unit tests.
fn sources() -> Vec<String> {
    let mut sources = Vec::new();
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(code_of(&path));
            }
        }
    }
    sources
}

fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]" || path.ends_with("mod.rs"));
    let lines = lines.map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

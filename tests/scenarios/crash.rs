//! Process of a consumer that is killed repeatedly: this executable, restarted for one of its tests.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rocketmq_sync::{ConsumeFromWhere, FilterExpression, MessageExt, PushConsumer};

use super::deliveries::{self, send_all, text};
use super::proxy::Proxy;
use super::scene::{Dice, is_soak};
use super::{Cluster, eventually, unique};

/// Name of the test in which the other process consumes.
const TEST: &str = "the_process_that_is_killed";
const TASK: &str = "ROCKETMQ_SYNC_CONSUME";
/// Prefix of a line that reports a handled message.
const HANDLED: &str = "handled ";
const QUEUES: i32 = 2;

/// One in ten messages fails. The processes together handle every message, and messages committed before a kill are not
/// redelivered.
pub(crate) fn a_consumer_process_that_is_killed_again_and_again_loses_nothing(cluster: &dyn Cluster) {
    let (kills, messages) = if is_soak() { (40, 20_000) } else { (5, 1_500) };
    let (topic, group) = (unique("T"), unique("G"));
    cluster.create_topic(&topic, QUEUES.cast_unsigned());
    cluster.create_group(&group);
    let sent = send_all(&deliveries::producer(cluster), &topic, (0..messages).map(|number| format!("body {number}")));
    let mut dice = Dice::cast();
    let mut handled: Vec<Handled> = Vec::new();
    let mut committed = BTreeMap::new();
    for kill in 0..=kills {
        let process = Process::start(cluster, &topic, &group, Style::Storm);
        if kill < kills {
            let some = usize::try_from(1 + dice.below(150)).expect("few");
            eventually("the process consumes", || process.handled() >= some || covers(&handled, &process, &sent));
        } else {
            eventually("everything is handled", || covers(&handled, &process, &sent));
        }
        let new = process.kill();
        let again = new.iter().filter(|new| !new.is_retried && new.offset < *committed.get(&new.place()).unwrap_or(&0));
        assert_eq!(again.count(), 0, "messages came again that were committed");
        handled.extend(new);
        for broker in cluster.brokers() {
            for queue in 0..QUEUES {
                let offset = cluster.committed_offset(&broker.name, &group, &topic, queue).unwrap_or(0);
                let before = committed.insert((broker.name.clone(), queue), offset).unwrap_or(0);
                assert!(offset >= before, "the offset of {}/{queue} went from {before} to {offset}", broker.name);
            }
        }
    }
    let bodies: BTreeSet<_> = handled.iter().map(|handled| handled.body.clone()).collect();
    assert_eq!(bodies, sent);
    println!("{kills} kills, {} messages, {} deliveries", sent.len(), handled.len());
}

/// With the periodic commit an hour away, every handled message is committed soon, and a kill repeats none of them.
/// Kills during a flow repeat the messages in progress and those handled since the last commit.
pub(crate) fn a_killed_consumer_repeats_only_what_was_handled_in_its_last_moment(cluster: &dyn Cluster) {
    let (kills, messages) = if is_soak() { (10, 1_000) } else { (3, 150) };
    let (topic, group) = (unique("T"), unique("G"));
    cluster.create_topic(&topic, QUEUES.cast_unsigned());
    cluster.create_group(&group);
    let producer = deliveries::producer(cluster);
    let (mut sent, mut handled) = (BTreeSet::new(), Vec::new());
    let mut repeated_in_the_flow = 0;
    for kill in 0..kills * 2 {
        let in_the_flow = kill % 2 == 1;
        let process = Process::start(cluster, &topic, &group, Style::Paced);
        let paced = (0..messages).map(|number| {
            thread::park_timeout(Duration::from_millis(4));
            format!("{kill} body {number}.")
        });
        sent.append(&mut send_all(&producer, &topic, paced));
        if !in_the_flow {
            eventually("everything is handled", || covers(&handled, &process, &sent));
            eventually("everything is committed", || {
                let ends = |broker: &str, queue| {
                    cluster.committed_offset(broker, &group, &topic, queue)
                        == Some(cluster.max_offset(broker, &topic, queue))
                };
                cluster.brokers().iter().all(|broker| (0..QUEUES).all(|queue| ends(&broker.name, queue)))
            });
        }
        let new = process.kill();
        let known: BTreeSet<_> = handled.iter().map(|handled: &Handled| handled.body.clone()).collect();
        let repeated = new.iter().filter(|new| known.contains(&new.body)).count();
        if in_the_flow || kill == 0 {
            assert_eq!(repeated, 0, "the kill before came after the commit");
        } else {
            repeated_in_the_flow += repeated;
        }
        handled.extend(new);
    }
    let last = Process::start(cluster, &topic, &group, Style::Paced);
    eventually("everything is handled", || covers(&handled, &last, &sent));
    println!("{kills} kills in the flow repeated {repeated_in_the_flow} messages");
}

fn covers(handled: &[Handled], process: &Process, sent: &BTreeSet<String>) -> bool {
    let now = process.lines.lock();
    let bodies: BTreeSet<_> = handled.iter().chain(now.iter()).map(|handled| &handled.body).collect();
    bodies.len() >= sent.len()
}

/// Runs the body of the test [`TEST`]: consumes until it is killed, if requested.
pub(crate) fn consume_if_asked() {
    let Ok(task) = env::var(TASK) else { return };
    let [name_servers, map, topic, group, style] = task.split(' ').collect::<Vec<_>>()[..] else {
        panic!("no task: {task}")
    };
    let is_paced = style == format!("{:?}", Style::Paced);
    let (round, threads, busy) = if is_paced { (3_600_000, 20, 2) } else { (100, 4, 1) };
    let map: BTreeMap<String, String> = map.split(';').filter_map(|pair| pair.split_once('=')).map(owned).collect();
    let _consumer = PushConsumer::builder(group)
        .name_servers([name_servers])
        .address_map(move |address| map.get(address).cloned().unwrap_or_else(|| address.to_owned()))
        .offset_interval(Duration::from_millis(round))
        .consume_from(ConsumeFromWhere::First)
        .consume_threads(threads)
        .subscribe(topic, FilterExpression::all())
        .each(move |message: &MessageExt| {
            thread::park_timeout(Duration::from_millis(busy));
            let body = text(message);
            if body.ends_with('7') && message.reconsume_times() == 0 {
                return Err("as the scenario wants it".into());
            }
            let queue = message.message_queue();
            println!(
                "{HANDLED}{} {} {} {} {body}",
                queue.broker_name(),
                queue.queue_id(),
                message.queue_offset(),
                message.reconsume_times()
            );
            Ok(())
        })
        .start()
        .expect("a consumer");
    // Limit in case it is not killed.
    thread::park_timeout(Duration::from_secs(30 * 60));
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// Message that a process has handled.
struct Handled {
    broker: String,
    queue: i32,
    offset: i64,
    is_retried: bool,
    body: String,
}

impl Handled {
    /// Parses a line of the other process.
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_once(HANDLED)?.1.splitn(5, ' ');
        let mut next = || words.next();
        let (broker, queue, offset, times, body) = (next()?, next()?, next()?, next()?, next()?);
        let (queue, offset) = (queue.parse().ok()?, offset.parse().ok()?);
        Some(Self { broker: broker.to_owned(), queue, offset, is_retried: times != "0", body: body.to_owned() })
    }

    fn place(&self) -> (String, i32) {
        (self.broker.clone(), self.queue)
    }
}

/// Consumer in its own process.
pub(crate) struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<Handled>>>,
    reader: Option<thread::JoinHandle<()>>,
}

/// Settings of the process's consumer.
#[derive(Clone, Copy, Debug)]
enum Style {
    /// Few threads, frequent periodic commits.
    Storm,
    /// The defaults, with a listener of 2 ms and no periodic commit.
    Paced,
}

impl Process {
    fn start(cluster: &dyn Cluster, topic: &str, group: &str, style: Style) -> Self {
        Self::begin(&format!("{} - {topic} {group} {style:?}", cluster.name_server_list()))
    }

    /// Starts a process that reaches the servers through a proxy.
    pub(crate) fn start_behind(proxy: &Proxy, topic: &str, group: &str) -> Self {
        let map: Vec<_> = proxy.brokers().iter().map(|link| format!("{}={}", link.server(), link.address())).collect();
        let style = Style::Storm;
        Self::begin(&format!("{} {} {topic} {group} {style:?}", proxy.addresses().join(";"), map.join(";")))
    }

    fn begin(task: &str) -> Self {
        let mut child = Command::new(env::current_exe().expect("this executable"))
            .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
            .env(TASK, task)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&lines);
        #[allow(clippy::disallowed_methods, reason = "a thread of the tests' own")]
        let reader = thread::spawn(move || {
            // The last line may be truncated.
            let lines = output.lines().map_while(Result::ok);
            lines.filter_map(|line| Handled::read(&line)).for_each(|handled| read.lock().push(handled));
        });
        Self { child, lines, reader: Some(reader) }
    }

    /// Number of handled messages.
    pub(crate) fn handled(&self) -> usize {
        self.lines.lock().len()
    }

    /// Bodies of the handled messages.
    pub(crate) fn bodies(&self) -> BTreeSet<String> {
        self.lines.lock().iter().map(|handled| handled.body.clone()).collect()
    }

    /// Resident memory in bytes; only on Linux.
    pub(crate) fn memory(&self) -> usize {
        let told = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = told.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok())
            .map_or(0, |kilobytes| kilobytes * 1024)
    }

    /// Suspends the process until [`Self::go_on`].
    pub(crate) fn stand_still(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal}");
    }

    /// Kills the process; returns its handled messages.
    fn kill(mut self) -> Vec<Handled> {
        self.end();
        std::mem::take(&mut *self.lines.lock())
    }

    fn end(&mut self) {
        // SIGKILL on Unix.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

//! Starting and ending producers and consumers.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use rocketmq_sync::{
    Client, ConsumeFromWhere, ErrorKind, FilterExpression, Message, MessageExt, MessageQueue, Producer, PushConsumer,
    StdThreads, ThreadBody, ThreadJoin, ThreadSpec, ThreadStarter,
};

use super::deliveries::{Deliveries, end, send_all, taking_member};
use super::inbox::{Inbox, PATIENCE, bodies, numbered, producer};
use super::{Cluster, eventually, unique};

/// LIFE-01: 10 messages to each of 24 queues; the received messages are those sent, and every queue is acknowledged.
pub(crate) fn life_01_ten_messages_to_each_of_24_queues_are_consumed(cluster: &dyn Cluster) {
    let topic = unique("Smoke");
    let queues_each = 24 / cluster.brokers().len();
    cluster.create_topic(&topic, queues_each.try_into().expect("few"));
    let producer = producer(cluster).start().expect("a producer");
    let inbox = Inbox::open(producer.client(), &topic);
    let group = inbox.group.clone();
    let queues = producer.queues(&topic).expect("queues");
    assert_eq!(queues.len(), 24);
    let messages = numbered(&topic, 240);
    for (index, message) in messages.iter().enumerate() {
        producer.to_queue(&queues[index % 24]).send(message).expect("stored");
    }
    let received = inbox.await_all(&bodies(&messages));
    assert!(received.values().all(|message| message.property("POP_CK").is_none()));
    for queue in &queues {
        let (broker_name, queue_id) = (queue.broker_name(), queue.queue_id());
        assert_eq!(cluster.max_offset(broker_name, &topic, queue_id), 10);
        assert_eq!(cluster.committed_offset(broker_name, &group, &topic, queue_id), Some(10));
    }
    assert!(producer.shutdown(PATIENCE).is_clean());
}

/// LIFE-02: one client has a group once; another client may have it too.
pub(crate) fn life_02_a_client_has_one_producer_of_a_group(cluster: &dyn Cluster) {
    let (topic, group) = (unique("Twice"), unique("P"));
    cluster.create_topic(&topic, 2);
    let client = || Client::builder().name_servers([cluster.name_server_list()]).start().expect("a client");
    let start = |client: &Client| Producer::builder(group.as_str()).client(client).send_timeout(PATIENCE).start();
    let (client, other) = (client(), client());
    let first = start(&client).expect("the first of its group");
    let error = start(&client).expect_err("the second of its group");
    assert_eq!(error.kind(), ErrorKind::DuplicateGroup);
    assert!(error.to_string().contains(&group), "{error}");
    let second = start(&other).expect("the first of another client");
    for producer in [&first, &second] {
        producer.send(&Message::new(topic.as_str(), "body")).expect("stored");
    }
    assert!(first.shutdown(PATIENCE).is_clean());
    start(&client).expect("the group is free again").send(&Message::new(topic.as_str(), "body")).expect("stored");
}

/// LIFE-03: errors of a producer's configuration are reported at its start, or at its first send without a hang.
pub(crate) fn life_03_a_wrong_producer_is_told_at_start_or_at_its_first_send(cluster: &dyn Cluster) {
    let topic = unique("First");
    cluster.create_topic(&topic, 2);
    let servers = || [cluster.name_server_list()];
    let wrong_at_start = [
        ("name_servers", Producer::builder("P").start()),
        ("group", Producer::builder("").name_servers(servers()).start()),
        ("group", Producer::builder("a group").name_servers(servers()).start()),
        ("group", Producer::builder("DEFAULT_PRODUCER").name_servers(servers()).start()),
        ("localhost", Producer::builder("P").name_servers(["localhost"]).start()),
    ];
    for (word, started) in wrong_at_start {
        let error = started.expect_err(word);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(word), "{error}");
    }
    // Port 1 has no listener.
    let lost = Producer::builder("P").name_servers(["127.0.0.1:1"]).start().expect("a start dials nothing");
    let error = lost.send(&Message::new(topic.as_str(), "body")).expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::NameServer);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    let single = producer(cluster).retries(0).start().expect("a producer");
    single.send(&Message::new(topic.as_str(), "body")).expect("stored by the only attempt");
}

/// LIFE-04: a missing part of a consumer is named at its start, and no thread is left running.
pub(crate) fn life_04_what_a_consumer_lacks_is_named_and_no_thread_is_left(cluster: &dyn Cluster) {
    let threads = CountedThreads::default();
    let builder = |group: &str| PushConsumer::builder(group).thread_starter(threads.clone());
    let named = |group| builder(group).name_servers([cluster.name_server_list()]);
    let ignore = |_: &MessageExt| -> Result<(), Box<dyn Error + Send + Sync>> { Ok(()) };
    let all = FilterExpression::all;
    for (word, started) in [
        ("listener", named("G").subscribe("T", all()).start()),
        ("subscri", named("G").each(ignore).start()),
        ("DEFAULT_CONSUMER", named("DEFAULT_CONSUMER").subscribe("T", all()).each(ignore).start()),
        ("group", named("").subscribe("T", all()).each(ignore).start()),
        ("name_servers", builder("G").subscribe("T", all()).each(ignore).start()),
        ("consume_threads", named("G").subscribe("T", all()).each(ignore).consume_threads(0).start()),
    ] {
        let error = started.expect_err(word);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(threads.running(), 0, "after {error}");
    }
}

/// LIFE-06: an invalid consumer group is refused at the start; the longest name that every broker accepts works.
pub(crate) fn life_06_wrong_consumer_groups_are_refused_and_a_long_one_works(cluster: &dyn Cluster) {
    let threads = CountedThreads::default();
    for wrong in ["a group", "group#1", "group/1", "消费组", "\t", "CID_RMQ_SYS_tools", &"g".repeat(121)] {
        let builder = PushConsumer::builder(wrong).thread_starter(threads.clone());
        let builder = builder.name_servers([cluster.name_server_list()]).subscribe("T", FilterExpression::all());
        let error = builder.each(|_| Ok(())).start().expect_err(wrong);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("group"), "{error}");
        assert_eq!(threads.running(), 0, "after {error}");
    }
    let (topic, group) = (unique("Groups"), format!("{:g<120}", unique("G|%_")));
    cluster.create_topic(&topic, 2);
    let (sender, deliveries) = (producer(cluster).start().expect("a producer"), Deliveries::default());
    let consumer = taking_member(cluster, &group, &topic, &deliveries, "member");
    let sent = send_all(&sender, &topic, (0..10).map(|number| format!("body {number}")));
    deliveries.await_bodies(&sent);
    end([consumer]);
    assert_eq!(deliveries.bodies(), sent);
}

/// LIFE-08: shutdown waits for a running listener, and its message is acknowledged.
pub(crate) fn life_08_shutdown_waits_for_the_running_listener(cluster: &dyn Cluster) {
    let (topic, group) = (unique("Graceful"), unique("G"));
    cluster.create_topic(&topic, 1);
    let producer = producer(cluster).start().expect("a producer");
    let broker = cluster.brokers()[0].name.as_str();
    let queue = MessageQueue::new(topic.as_str(), broker, 0);
    producer.to_queue(&queue).send(&Message::new(topic.as_str(), "slow")).expect("stored");
    let (begun, has_begun) = bounded(1);
    let (release, released) = bounded::<()>(0);
    let finished = Arc::new(AtomicUsize::new(0));
    let consumer = PushConsumer::builder(group.as_str())
        .client(producer.client())
        .subscribe(topic.as_str(), FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .each({
            let finished = Arc::clone(&finished);
            move |_: &MessageExt| {
                let _ = begun.send(());
                let _ = released.recv();
                finished.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        })
        .start()
        .expect("a consumer");
    has_begun.recv_timeout(PATIENCE).expect("the listener runs");
    thread::scope(|scope| {
        let shutdown = scope.spawn(|| {
            let report = consumer.shutdown(PATIENCE);
            (report, finished.load(Ordering::SeqCst))
        });
        assert_eq!(finished.load(Ordering::SeqCst), 0);
        drop(release);
        let (report, finished) = shutdown.join().expect("no panic");
        assert!(report.is_clean() && report.messages_left() == 0, "{report:?}");
        assert_eq!(finished, 1, "shutdown returned before the listener");
    });
    assert_eq!(cluster.committed_offset(broker, &group, &topic, 0), Some(1));
}

/// LIFE-17: a topic that is created while a broker is down has the queues of the others; created again, it has all.
pub(crate) fn life_17_a_topic_created_while_a_broker_is_down_has_its_queues_later(cluster: &dyn Cluster) {
    let topic = unique("Partly");
    let [live, down] = cluster.brokers() else { panic!("two brokers") };
    cluster.kill_broker(&down.name);
    cluster.create_topic_on(&live.name, &topic, (3, 3), 6);
    let producer = producer(cluster).route_interval(Duration::from_millis(200)).start().expect("a producer");
    let queues = |broker: &str| {
        let queues = producer.queues(&topic).unwrap_or_default();
        queues.into_iter().filter(|queue| *queue.broker_name() == *broker).count()
    };
    eventually("the live broker's queues", || queues(&live.name) == 3);
    assert_eq!(queues(&down.name), 0);
    let receipt = producer.send(&Message::new(topic.as_str(), "to the live one")).expect("stored");
    assert_eq!(*receipt.queue.broker_name(), *live.name);

    cluster.restart_broker(&down.name);
    cluster.create_topic(&topic, 4);
    eventually("all queues of both", || queues(&live.name) == 4 && queues(&down.name) == 4);
    for queue in producer.queues(&topic).expect("a route") {
        producer.to_queue(&queue).send(&Message::new(topic.as_str(), "to each")).expect("stored");
    }
}

/// Counts the live threads of a client.
#[derive(Clone, Default)]
pub(crate) struct CountedThreads {
    living: Arc<AtomicUsize>,
    /// Folders of the threads in the system's process file system.
    places: Arc<Mutex<Vec<PathBuf>>>,
}

impl CountedThreads {
    pub(crate) fn running(&self) -> usize {
        self.living.load(Ordering::SeqCst)
    }

    /// Processor time of the live threads; only on Linux.
    pub(crate) fn processor_time(&self) -> Duration {
        let places = self.places.lock();
        let told = places.iter().filter_map(|place| fs::read_to_string(place.join("schedstat")).ok());
        let nanos = told.filter_map(|told| told.split(' ').next()?.parse::<u64>().ok());
        Duration::from_nanos(nanos.sum())
    }
}

impl ThreadStarter for CountedThreads {
    fn start(&self, spec: &ThreadSpec, body: ThreadBody) -> std::io::Result<ThreadJoin> {
        struct Alive(Arc<AtomicUsize>);
        impl Drop for Alive {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.living.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(Arc::clone(&self.living));
        let places = Arc::clone(&self.places);
        StdThreads.start(
            spec,
            Box::new(move || {
                let _alive = alive;
                places.lock().extend(fs::read_link("/proc/thread-self").map(|place| Path::new("/proc").join(place)));
                body();
            }),
        )
    }
}

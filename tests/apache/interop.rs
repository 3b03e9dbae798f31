//! Interoperability with the Java client of each server's version: each consumes the other's messages, and a group has
//! members of both.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rocketmq_sync::unversioned::wire::sys_flag::message as sys_flag;
use rocketmq_sync::unversioned::wire::{HeaderEncoding, RequestCode};
use rocketmq_sync::{Codec, Message, MessageExt, MessageQueue, PushConsumer};

use crate::cluster::shared;
use crate::java_client::JavaClient;
use crate::scenarios::deliveries::{Deliveries, end, producer, queues_of, send, send_all, taking_member, text};
use crate::scenarios::doctor::examine;
use crate::scenarios::{Cluster, Profile, Server, eventually, inbox, unique};

const CODECS: [Option<Codec>; 4] = [None, Some(Codec::Zlib), Some(Codec::Lz4), Some(Codec::Zstd)];
const QUEUES_PER_BROKER: u32 = 6;

pub(crate) fn what_is_sent_here_is_consumed_by_the_java_client(server: Server) {
    let cluster = shared(server, &Profile::STANDARD);
    let topic = unique("ToJava");
    cluster.create_topic(&topic, 2);
    let mut java = JavaClient::start(cluster);
    java.consume("java", &unique("G"), &topic, "*");
    let mut sent = Vec::new();
    for encoding in [HeaderEncoding::Json, HeaderEncoding::RocketMq] {
        for codec in CODECS {
            let producer = inbox::producer(cluster).header_encoding(encoding).compression(codec);
            let producer = producer.start().expect("a producer");
            for message in messages(&topic, &format!("{encoding:?} {codec:?}")) {
                let receipt = producer.send(&message).expect("stored");
                sent.push((message, receipt));
            }
        }
    }
    eventually("everything is with the Java client", || java.arrivals().len() >= sent.len());
    for (message, receipt) in sent {
        let body = String::from_utf8_lossy(message.body());
        let arrived: Vec<_> = java.arrivals().into_iter().filter(|arrival| arrival.body == body).collect();
        let [arrived] = arrived.as_slice() else { panic!("{} times: {message:?}", arrived.len()) };
        assert_eq!((arrived.tag.as_deref(), arrived.keys.as_deref()), (message.tag(), message.keys()));
        assert_eq!((arrived.flag, &arrived.id), (message.flag(), &receipt.msg_id));
        let queue = MessageQueue::new(topic.as_str(), arrived.broker.as_str(), arrived.queue);
        assert_eq!((queue, arrived.offset), (receipt.queue, receipt.queue_offset));
        for (name, value) in message.properties().iter() {
            assert_eq!(arrived.properties.get(name).map(String::as_str), Some(value), "{name}");
        }
    }
}

pub(crate) fn what_the_java_client_sends_is_consumed_here(server: Server) {
    let cluster = shared(server, &Profile::STANDARD);
    let (topic, deliveries) = (unique("FromJava"), Deliveries::default());
    cluster.create_topic(&topic, 2);
    let consumer = taking_member(cluster, &unique("G"), &topic, &deliveries, "ours");
    let mut java = JavaClient::start(cluster);
    for codec in CODECS {
        for message in messages(&topic, &format!("{codec:?}")) {
            let sent = java.send(&message, codec);
            let body = String::from_utf8_lossy(message.body());
            let arrived = deliveries.await_times(&body, 1).remove(0);
            assert_eq!((arrived.tag(), arrived.keys()), (message.tag(), message.keys()));
            assert_eq!((arrived.message().flag(), &*arrived.msg_id()), (message.flag(), sent.id.as_str()));
            assert_eq!((arrived.message_queue(), arrived.queue_offset()), (sent.queue, sent.offset));
            for (name, value) in message.properties().iter() {
                assert_eq!(arrived.property(name), Some(value), "{name}");
            }
            // Java compresses from 4096 bytes on.
            let (expected, flag) = (codec.filter(|_| body.len() >= 4096), stored_flag(cluster, &arrived));
            assert!(is_compressed_by(expected, flag), "{expected:?}: {flag:x}");
        }
    }
    end([consumer]);
    assert_eq!(deliveries.repeated(), [""; 0]);
}

/// Members of both clients join and leave in turn while messages flow. After each change every queue has one owner. In
/// the end every message is consumed, and messages sent while nothing changed are consumed once.
pub(crate) fn a_group_of_both_clients_shares_its_queues_while_members_come_and_go(server: Server) {
    let cluster = shared(server, &Profile::STANDARD);
    let (topic, group, deliveries) = (unique("Mixed"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, QUEUES_PER_BROKER);
    let mut java = JavaClient::start(cluster);
    let ours = |name| taking_member(cluster, &group, &topic, &deliveries, name);
    let mut mixed =
        Mixed { cluster, java: &mut java, topic: &topic, ours: vec![ours("first of ours")], theirs: Vec::new() };
    let changed = AtomicBool::new(false);
    let mut sent = thread::scope(|scope| {
        let flow = scope.spawn(|| {
            let more = (0..).take_while(|_| {
                thread::park_timeout(Duration::from_millis(10));
                !changed.load(Ordering::Relaxed)
            });
            send_all(&producer(cluster), &topic, more.map(|number: u32| format!("body {number}")))
        });
        mixed.java_joins("first of theirs", &group);
        mixed.ours.push(ours("second of ours"));
        mixed.await_shares();
        mixed.java_joins("second of theirs", &group);
        end([mixed.ours.remove(0)]);
        mixed.await_shares();
        mixed.java_leaves();
        mixed.ours.push(ours("third of ours"));
        mixed.await_shares();
        changed.store(true, Ordering::Relaxed);
        flow.join().expect("the flow")
    });
    mixed.await_all(&deliveries, &sent);
    let mut quiet = send_all(&producer(cluster), &topic, (0..120).map(|number| format!("quiet {number}")));
    mixed.await_all(&deliveries, &quiet);
    let (ours, theirs) = mixed.bodies(&deliveries);
    let quiet_here = deliveries.all().iter().filter(|delivery| quiet.contains(&text(&delivery.message))).count();
    let quiet_there = mixed.java.arrivals().iter().filter(|arrival| quiet.contains(&arrival.body)).count();
    assert_eq!(quiet_here + quiet_there, quiet.len(), "{quiet_here} ours, {quiet_there} theirs");
    assert!(quiet_here > 0 && quiet_there > 0, "{quiet_here} ours, {quiet_there} theirs");

    sent.append(&mut quiet);
    assert!(ours.is_subset(&sent) && theirs.is_subset(&sent));
    mixed.java_leaves();
    end(mixed.ours);
}

pub(crate) fn the_doctor_asks_java_members_what_they_subscribe_to(server: Server) {
    let cluster = shared(server, &Profile::STANDARD);
    let (topic, group) = (unique("Asked"), unique("G"));
    cluster.create_topic(&topic, 1);
    send(&producer(cluster), &Message::new(topic.as_str(), "body").with_tag("A"));
    let mut java = JavaClient::start(cluster);
    let arguments = ["--topic", &topic, "--group", &group, "--timeout", "30"];
    java.consume("one", &group, &topic, "A || B");
    eventually("the member works", || !java.arrivals().is_empty());
    examine(&cluster.name_server_list(), &arguments).tells(&format!("1 asked, all with {topic}: A || B"));
    java.consume("two", &group, &topic, "C");
    eventually("both are members", || !java.queues("two", &topic).is_empty());
    let diagnosis = examine(&cluster.name_server_list(), &arguments);
    diagnosis
        .fails_first_at(&format!("consumer group {group}"), "agreement: members of the group subscribe differently");
}

/// One small and one large message with every kind of content; `name` makes them unique.
fn messages(topic: &str, name: &str) -> [Message; 2] {
    [format!("small {name} 消息 😀"), format!("large {name} 消息 😀 ").repeat(2000)].map(|body| {
        Message::new(topic, body)
            .with_tag("标签")
            .with_keys(["first", "第二"])
            .with_flag(-7)
            .with_property("colour", "blue and  green")
            .with_property("颜色", "蓝色 😀")
    })
}

/// Returns the sysFlag of a message as stored by the broker; the listener's copy is already decompressed.
fn stored_flag(cluster: &dyn Cluster, message: &MessageExt) -> i32 {
    const BEFORE_FLAG: usize = 36;
    let header = [("offset", &*message.commit_log_offset().to_string())];
    let stored = cluster.ask_broker(message.broker_name(), RequestCode::VIEW_MESSAGE_BY_ID, &header);
    let flag = stored.body.get(BEFORE_FLAG..BEFORE_FLAG + 4).expect("a stored message");
    i32::from_be_bytes(flag.try_into().expect("four bytes"))
}

/// Old senders do not set the codec bits: zlib.
fn is_compressed_by(codec: Option<Codec>, flag: i32) -> bool {
    let named = flag & sys_flag::COMPRESSION_MASK;
    match codec {
        None => flag & sys_flag::COMPRESSED == 0,
        Some(Codec::Lz4) => named == sys_flag::COMPRESSION_LZ4,
        Some(Codec::Zstd) => named == sys_flag::COMPRESSION_ZSTD,
        Some(_) => flag & sys_flag::COMPRESSED != 0 && [0, sys_flag::COMPRESSION_ZLIB].contains(&named),
    }
}

/// A group with members of both clients.
struct Mixed<'a> {
    cluster: &'a dyn Cluster,
    java: &'a mut JavaClient,
    topic: &'a str,
    ours: Vec<PushConsumer>,
    /// Names of the Java members.
    theirs: Vec<&'static str>,
}

impl Mixed<'_> {
    fn java_joins(&mut self, name: &'static str, group: &str) {
        self.java.consume(name, group, self.topic, "*");
        self.theirs.push(name);
        self.await_shares();
    }

    fn java_leaves(&mut self) {
        let name = self.theirs.remove(0);
        self.java.end(name);
        self.await_shares();
    }

    /// Returns the bodies consumed by members of this client, and those consumed by Java members.
    fn bodies(&self, deliveries: &Deliveries) -> (BTreeSet<String>, BTreeSet<String>) {
        (deliveries.bodies(), self.java.arrivals().into_iter().map(|arrival| arrival.body).collect())
    }

    fn await_all(&self, deliveries: &Deliveries, sent: &BTreeSet<String>) {
        eventually("every message is consumed by one or the other", || {
            let (ours, theirs) = self.bodies(deliveries);
            sent.iter().all(|body| ours.contains(body) || theirs.contains(body))
        });
    }

    /// Waits until every queue has one owner, and the members' shares differ by at most one.
    fn await_shares(&mut self) {
        let queues = self.cluster.brokers().len() * QUEUES_PER_BROKER as usize;
        let (ours, theirs) = (&self.ours, &self.theirs);
        eventually(&format!("{} of ours and {theirs:?} share the queues", ours.len()), || {
            let mut shares: Vec<_> = ours.iter().map(|consumer| queues_of(consumer, self.topic)).collect();
            shares.extend(theirs.iter().map(|name| self.java.queues(name, self.topic)));
            let (least, most) = (shares.iter().map(Vec::len).min(), shares.iter().map(Vec::len).max());
            let distinct: BTreeSet<_> = shares.iter().flatten().collect();
            let is_even = most.zip(least).is_some_and(|(most, least)| most - least <= 1);
            is_even && distinct.len() == queues && shares.iter().map(Vec::len).sum::<usize>() == queues
        });
    }
}

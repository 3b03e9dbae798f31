//! Consumers whose pulls, send-backs, offset queries and commits fail, and listeners that do not return.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use rocketmq_sync::{
    ConsumeFromWhere, FilterExpression, Message, MessageExt, MessageQueue, PushConsumer, PushConsumerBuilder,
};

use super::deliveries::{self, Deliveries, end, member, send_all, set, text};
use super::logs;
use super::proxy::{Effect, Proxy};
use super::scene::{Scene, VICTIM, is_soak};
use super::{Cluster, eventually, unique};

const PULL: RequestCode = RequestCode::PULL_MESSAGE;
const SEND_BACK: RequestCode = RequestCode::CONSUMER_SEND_MSG_BACK;
const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;
const QUERY: RequestCode = RequestCode::QUERY_CONSUMER_OFFSET;
const COMMIT: RequestCode = RequestCode::UPDATE_CONSUMER_OFFSET;

/// One in a hundred replies to pulls is lost, and one in ten is late.
pub(crate) fn lost_and_late_pull_replies_leave_no_queue_unread(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster, |client| client);
    let pulls = || scene.proxy.on(&[PULL]).with("topic", &scene.topic);
    let lost = pulls().every(100).meet(Effect::SwallowReply);
    let late = pulls().every(10).meet(Effect::DelayReply(Duration::from_millis(500)));
    // Each lost reply costs its queue 20 s.
    let outcomes = scene.storm_until(vec![lost, late], if is_soak() { 6 } else { 2 });
    scene.end(&outcomes);
}

/// A lost reply delays its queue by little more than the time for which a broker holds a pull: 15 s, and up to 5 s
/// more.
pub(crate) fn a_queue_whose_pull_reply_is_lost_is_read_again_soon_after_the_hold_time(cluster: &dyn Cluster) {
    let (topic, group) = (unique("T"), unique("G"));
    cluster.create_topic_on(&cluster.brokers()[0].name, &topic, (1, 1), 6);
    let proxy = Proxy::before(cluster);
    let consumed = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&consumed);
    let consumer = behind(&proxy, cluster, &group)
        .subscribe(&topic, FilterExpression::all())
        .each(move |message: &MessageExt| {
            seen.lock().insert(text(message));
            Ok(())
        })
        .start()
        .expect("a consumer");
    consumer.wait_ready(Duration::from_secs(60)).expect("a queue");
    let producer = deliveries::producer(cluster);
    let lost = proxy.on(&[PULL]).with("topic", &topic).meet(Effect::SwallowReply);
    // The first may come with a pull that was in flight before the fault.
    let mut last = 0;
    while lost.hits() == 0 {
        last += 1;
        producer.send(&Message::new(&*topic, last.to_string())).expect("a stored message");
        eventually("it comes or is lost", || lost.hits() > 0 || consumed.lock().contains(&last.to_string()));
    }
    let begun = Instant::now();
    drop(lost);
    eventually("the lost message comes", || consumed.lock().contains(&last.to_string()));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(27), "{took:?}");
    println!("a lost pull reply held its queue up for {took:?}");
    end([consumer]);
}

/// For some seconds failed messages can neither be sent back nor published: refused, and without a response. They stay,
/// no offset passes them, and all are consumed in the end.
pub(crate) fn failed_messages_that_no_broker_takes_for_a_while_are_not_lost(cluster: &dyn Cluster) {
    let refused: fn() -> Effect = || Effect::Refuse(ResponseCode::SYSTEM_ERROR, "failed by the scenario");
    thread::scope(|scope| {
        for effect in [refused, || Effect::Swallow] {
            scope.spawn(move || failed_messages_stay_while(cluster, effect));
        }
    });
}

fn failed_messages_stay_while(cluster: &dyn Cluster, effect: fn() -> Effect) {
    let (topic, group) = (unique("T"), unique("G"));
    cluster.create_topic(&topic, 2);
    let proxy = Proxy::before(cluster);
    let retry_topic = format!("%RETRY%{group}");
    let faults = [proxy.on(&[SEND_BACK]).meet(effect()), proxy.on(&[SEND]).with("b", &retry_topic).meet(effect())];
    let seen = Arc::new(Mutex::new(Seen::default()));
    let consumer = behind(&proxy, cluster, &group)
        .subscribe(&topic, FilterExpression::all())
        .each({
            let seen = Arc::clone(&seen);
            move |message: &MessageExt| Ok(seen.lock().take(message)?)
        })
        .start()
        .expect("a consumer");
    let sent = send_all(&deliveries::producer(cluster), &topic, (0..100).map(|number| format!("body {number}")));
    eventually("nothing takes the failed ones", || faults.iter().all(|fault| fault.hits() >= 4));
    // All other messages are consumed and committed in the meantime, up to the first failed one.
    eventually("the others are consumed", || seen.lock().consumed.len() >= 90);
    for (queue, offset) in seen.lock().first_failed.clone() {
        let committed = cluster.committed_offset(queue.broker_name(), &group, &topic, queue.queue_id()).unwrap_or(0);
        assert!(committed <= offset, "{committed} passes the failed message at {offset} of {queue}");
    }
    drop(faults);
    eventually("every message is consumed", || seen.lock().consumed == sent);
    end([consumer]);
    for broker in cluster.brokers() {
        for queue in 0..2 {
            let offset = cluster.committed_offset(&broker.name, &group, &topic, queue).unwrap_or(0);
            assert_eq!(offset, cluster.max_offset(&broker.name, &topic, queue), "{}/{queue}", broker.name);
        }
    }
}

/// Records of a listener that fails each tenth message until its third delivery.
#[derive(Default)]
struct Seen {
    times: BTreeMap<String, usize>,
    consumed: BTreeSet<String>,
    first_failed: BTreeMap<MessageQueue, i64>,
}

impl Seen {
    fn take(&mut self, message: &MessageExt) -> Result<(), &'static str> {
        let body = text(message);
        let times = self.times.entry(body.clone()).or_default();
        *times += 1;
        if body.ends_with('0') && *times < 3 {
            // A retried message comes from the retry topic's queue, and contains its own topic.
            if message.reconsume_times() == 0 {
                let first = self.first_failed.entry(message.message_queue()).or_insert_with(|| message.queue_offset());
                *first = message.queue_offset().min(*first);
            }
            return Err("failed by the scenario");
        }
        self.consumed.insert(body);
        Ok(())
    }
}

/// OFF-04: while the group's offset queries fail, nothing is pulled from a guessed offset. Then the group continues at
/// its offset, regardless of its start policy. A new group then gets everything.
pub(crate) fn off_04_while_offset_queries_fail_nothing_is_consumed_and_then_nothing_is_missed(cluster: &dyn Cluster) {
    let failures: [fn() -> Effect; 4] = [
        || Effect::Refuse(ResponseCode::SYSTEM_ERROR, "failed by the scenario"),
        || Effect::Refuse(ResponseCode::SYSTEM_BUSY, "[PCBUSY_CLEAN_QUEUE]broker busy"),
        || Effect::Swallow,
        || Effect::ResetForReply,
    ];
    thread::scope(|scope| {
        for effect in failures {
            for (policy, is_new) in
                [(ConsumeFromWhere::First, false), (ConsumeFromWhere::Last, false), (ConsumeFromWhere::First, true)]
            {
                scope.spawn(move || offsets_cannot_be_asked_for(cluster, effect, policy, is_new));
            }
        }
    });
}

fn offsets_cannot_be_asked_for(cluster: &dyn Cluster, effect: fn() -> Effect, policy: ConsumeFromWhere, is_new: bool) {
    let (topic, group) = (unique("T"), unique("G"));
    cluster.create_topic(&topic, 2);
    let producer = deliveries::producer(cluster);
    let start = |proxy: &Proxy| {
        let deliveries = Deliveries::default();
        let builder = behind(proxy, cluster, &group).consume_from(policy).subscribe(&topic, FilterExpression::all());
        let consumer = builder.each(deliveries.taker("consumer")).start().expect("a consumer");
        (consumer, deliveries)
    };
    let proxy = Proxy::before(cluster);
    let mut first = send_all(&producer, &topic, (0..20).map(|number| format!("first {number}")));
    if !is_new {
        let consumed = Deliveries::default();
        let builder = member(cluster, &group).subscribe(&topic, FilterExpression::all());
        let consumer = builder.each(consumed.taker("before")).start().expect("a consumer");
        consumed.await_bodies(&first);
        end([consumer]);
        first.clear();
    }
    let second = send_all(&producer, &topic, (0..20).map(|number| format!("second {number}")));
    let committed = || committed(cluster, &group, &topic);
    let before = committed();

    let fault = proxy.on(&[QUERY]).with("consumerGroup", &group).with("topic", &topic).meet(effect());
    let pulls = proxy.on(&[PULL]).with("consumerGroup", &group).with("topic", &topic);
    let pulls = pulls.meet(Effect::DelayReply(Duration::ZERO));
    let (consumer, deliveries) = start(&proxy);
    eventually("the query fails", || fault.hits() >= 8);
    eventually("it is explained", || {
        let explained = explained(&consumer, cluster, &topic);
        !explained.is_empty() && explained.iter().all(|words| words.contains("not pulled"))
    });
    assert_eq!(deliveries::queues_of(&consumer, &topic), [], "{policy:?}");
    assert_eq!((deliveries.bodies(), pulls.hits(), committed()), (BTreeSet::new(), 0, before), "{policy:?}");
    drop(fault);
    let expected: BTreeSet<_> = first.union(&second).cloned().collect();
    deliveries.await_bodies(&expected);
    end([consumer]);
    assert_eq!(deliveries.bodies(), expected, "{policy:?}");
}

/// OFF-05: a new group begins at the first message, and its query requests a clear "not found".
pub(crate) fn off_05_a_new_group_asks_for_the_truth_and_gets_everything(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let sent = send_all(&deliveries::producer(cluster), &topic, (0..10).map(|number| format!("body {number}")));
    let proxy = Proxy::before(cluster);
    let truth = proxy.on(&[QUERY]).with("consumerGroup", &group).with("setZeroIfNotFound", "false");
    let truth = truth.meet(Effect::DelayReply(Duration::ZERO));
    let builder = behind(&proxy, cluster, &group).subscribe(&topic, FilterExpression::all());
    let consumer = builder.each(deliveries.taker("consumer")).start().expect("a consumer");
    deliveries.await_bodies(&sent);
    end([consumer]);
    assert_eq!((deliveries.bodies(), deliveries.count()), (sent, 10));
    assert!(truth.hits() >= cluster.brokers().len());
}

/// Refused commits are repeated. A shutdown that could not commit names the queues, and the next member continues at
/// the committed offset.
pub(crate) fn refused_commits_are_repeated_and_told_of(cluster: &dyn Cluster) {
    let (topic, group) = (unique("T"), unique("G"));
    cluster.create_topic(&topic, 1);
    let proxy = Proxy::before(cluster);
    let start = || {
        let deliveries = Deliveries::default();
        let builder = behind(&proxy, cluster, &group).subscribe(&topic, FilterExpression::all());
        (builder.each(deliveries.taker("consumer")).start().expect("a consumer"), deliveries)
    };
    let refuse = || {
        let commits = proxy.on(&[COMMIT]).with("consumerGroup", &group).with("topic", &topic);
        commits.meet(Effect::Refuse(ResponseCode::SYSTEM_ERROR, "failed by the scenario"))
    };
    let producer = deliveries::producer(cluster);
    let (consumer, deliveries) = start();
    let refused = refuse();
    let first = send_all(&producer, &topic, (0..10).map(|number| format!("first {number}")));
    deliveries.await_bodies(&first);
    eventually("commits are refused", || refused.hits() >= 4);
    drop(refused);
    eventually("they are stored in the end", || committed(cluster, &group, &topic) == 10);

    let refused = refuse();
    let second = send_all(&producer, &topic, (0..10).map(|number| format!("second {number}")));
    deliveries.await_bodies(&second);
    let report = consumer.shutdown(Duration::from_secs(2));
    assert!(refused.hits() > 0);
    drop(refused);
    assert!(!report.is_clean() && report.listeners_running() == 0, "{report:?}");
    assert!(report.offsets_not_stored().iter().all(|queue| *queue.topic() == *topic), "{report:?}");
    assert!(!report.offsets_not_stored().is_empty(), "{report:?}");
    // An offset on a pull may be stored nevertheless; the client cannot see it while the pull is held.
    let left = second.len() - (committed(cluster, &group, &topic) - first.len());

    let (consumer, deliveries) = start();
    eventually(&format!("the {left} that are left come again"), || deliveries.count() >= left);
    eventually("they are committed", || committed(cluster, &group, &topic) == 20);
    end([consumer]);
    assert!(deliveries.bodies().is_subset(&second), "{:?}", deliveries.bodies());
}

/// A hanging, a panicking and a slow listener: the others continue, and the hanging one is named in the log and in the
/// report of a shutdown that did not wait for it.
pub(crate) fn listeners_that_panic_hang_or_dawdle_hold_up_no_other(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let log = logs::about(&group);
    let dawdle = Duration::from_secs(if is_soak() { 10 } else { 2 });
    let (release, released) = bounded::<()>(0);
    let consumer = member(cluster, &group)
        .consume_timeout(Duration::from_secs(1))
        .subscribe(&topic, FilterExpression::all())
        .each({
            let deliveries = deliveries.clone();
            move |message: &MessageExt| {
                match text(message).as_str() {
                    "hangs" => drop(released.recv()),
                    "dawdles" => thread::park_timeout(dawdle),
                    "panics" if message.reconsume_times() == 0 => {
                        panic!("panic of the scenario's listener")
                    }
                    _ => {}
                }
                deliveries.add("consumer", message);
                Ok(())
            }
        })
        .start()
        .expect("a consumer");
    let producer = deliveries::producer(cluster);
    let queue = MessageQueue::new(topic.as_str(), VICTIM, 0);
    let hung = producer.to_queue(&queue).send(&Message::new(topic.as_str(), "hangs")).expect("stored");
    let mut sent = set(&["panics", "dawdles"]);
    for body in &sent {
        producer.to_queue(&queue).send(&Message::new(topic.as_str(), body.clone())).expect("stored");
    }
    sent.extend(send_all(&producer, &topic, (0..100).map(|number| format!("body {number}"))));
    deliveries.await_bodies(&sent);
    let named = format!("busy with offset {} of {}", hung.queue_offset, hung.queue);
    eventually("the one that hangs is named", || log.has(&named));
    assert!(log.has("panicked"));
    let report = consumer.shutdown(Duration::from_millis(500));
    assert_eq!((report.listeners_running(), report.messages_left() >= 1), (1, true), "{report:?}");
    assert!(committed_in(cluster, &group, &queue) <= hung.queue_offset, "the commit passes what hangs");
    drop(release);
    assert_eq!(deliveries.of("dawdles").len(), 1, "a listener that runs is not overtaken");
}

/// Builds a member of the group behind a proxy.
fn behind(proxy: &Proxy, cluster: &dyn Cluster, group: &str) -> PushConsumerBuilder {
    cluster.create_group(group);
    PushConsumer::builder(group)
        .name_servers(proxy.addresses())
        .address_map(proxy.address_map())
        .offset_interval(Duration::from_millis(200))
        .request_timeout(Duration::from_secs(1))
        .consume_from(ConsumeFromWhere::First)
        .consume_threads(4)
}

/// Explanations of all queues of the topic, pulled or not.
fn explained(consumer: &PushConsumer, cluster: &dyn Cluster, topic: &str) -> Vec<String> {
    let brokers = cluster.brokers().iter();
    let status = |queue: MessageQueue| consumer.status(&queue).unwrap();
    brokers
        .filter_map(|broker| status(MessageQueue::new(topic, broker.name.as_str(), 0)))
        .map(|status| status.to_string())
        .collect()
}

/// Number of messages of a new topic that the group has consumed, by the brokers' offsets.
fn committed(cluster: &dyn Cluster, group: &str, topic: &str) -> usize {
    let route = cluster.route(topic).expect("a route");
    let queues = route["queueDatas"].as_array().expect("queues").iter().flat_map(|data| {
        let broker = data["brokerName"].as_str().expect("a name").to_owned();
        (0..data["readQueueNums"].as_i64().expect("a number"))
            .map(move |queue| MessageQueue::new(topic, broker.as_str(), i32::try_from(queue).expect("few")))
    });
    usize::try_from(queues.map(|queue| committed_in(cluster, group, &queue)).sum::<i64>()).expect("offsets")
}

fn committed_in(cluster: &dyn Cluster, group: &str, queue: &MessageQueue) -> i64 {
    cluster.committed_offset(queue.broker_name(), group, queue.topic(), queue.queue_id()).unwrap_or(0)
}

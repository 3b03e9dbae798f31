//! Groups whose members join, leave and get wrong member lists, and topics whose queues change in the meantime.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode, ResponseCode};
use rocketmq_sync::{Client, ConsumeFromWhere, FilterExpression, Producer, PushConsumer};
use serde_json::{Value, json};

use super::deliveries::{self, Deliveries, PATIENCE, await_balance, end, member, send_all, taking_member};
use super::logs;
use super::proxy::{Effect, Proxy};
use super::scene::{Dice, Scene, VICTIM, is_soak, members};
use super::storm::storm_while;
use super::{Cluster, eventually, unique};

const LIST: RequestCode = RequestCode::GET_CONSUMER_LIST_BY_GROUP;

/// Members end shortly after their start, often before a broker has answered their first heartbeat. Their client
/// continues, so that no broken connection makes the brokers remove them. No broker lists one, and the next receives
/// every message.
pub(crate) fn members_that_end_in_their_first_moments_are_listed_by_no_broker(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 2);
    cluster.create_group(&group);
    let client = Client::builder().name_servers([cluster.name_server_list()]).start().expect("a client");
    let builder = || PushConsumer::builder(&*group).client(&client).subscribe(&topic, FilterExpression::all());
    let other = Producer::builder(unique("P")).client(&client).start().expect("a producer");
    let mut dice = Dice::cast();
    for life in 0..if is_soak() { 200 } else { 30 } {
        let consumer = builder().each(deliveries.taker("short")).start().expect("a consumer");
        // Between none and the first heartbeats.
        thread::park_timeout(Duration::from_micros(dice.below(if life % 3 == 0 { 1 } else { 8_000 })));
        let report = consumer.shutdown(PATIENCE);
        assert!(report.is_clean(), "{report:?}");
    }
    for broker in cluster.brokers() {
        assert_eq!(members(cluster, &broker.name, &group), [""; 0], "{}", broker.name);
    }
    let last = builder().consume_from(ConsumeFromWhere::First).each(deliveries.taker("last")).start();
    let last = last.expect("a consumer");
    await_balance(&[&last], &topic, 2 * cluster.brokers().len());
    let sent = send_all(&deliveries::producer(cluster), &topic, (0..40).map(|number| format!("body {number}")));
    deliveries.await_bodies(&sent);
    end([last]);
    assert!(other.shutdown(PATIENCE).is_clean());
}

/// A consumer's connection to a broker is half open: the broker lists the client twice, by the dead connection and by
/// the new one. Every queue has one reader nevertheless.
pub(crate) fn a_member_that_is_listed_twice_leaves_no_queue_unread(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 4);
    let queues = 4 * cluster.brokers().len();
    let log = logs::about(&group);
    let proxy = Proxy::before(cluster);
    let broken = member(cluster, &group)
        .client_id(unique("broken"))
        .name_servers(proxy.addresses())
        .address_map(proxy.address_map())
        .silence_limit(Duration::from_secs(1))
        .rebalance_interval(Duration::from_millis(500))
        .subscribe(&topic, FilterExpression::all())
        .each(deliveries.taker("broken"))
        .start()
        .expect("a consumer");
    let other = taking_member(cluster, &group, &topic, &deliveries, "other");
    await_balance(&[&broken, &other], &topic, queues);
    for link in proxy.brokers() {
        assert!(link.abandon() > 0);
    }
    let listed = |broker: &str| {
        let ids = members(cluster, broker, &group);
        ids.iter().filter(|id| *id == broken.client().client_id()).count()
    };
    for broker in cluster.brokers() {
        eventually("the broker lists the member twice", || listed(&broker.name) == 2);
    }
    eventually("it says so", || log.has("twice"));
    await_balance(&[&broken, &other], &topic, queues);
    let sent = send_all(&deliveries::producer(cluster), &topic, (0..200).map(|number| format!("body {number}")));
    deliveries.await_bodies(&sent);
    for name in ["broken", "other"] {
        let share = deliveries.bodies_at(name).len();
        assert!((80..=120).contains(&share), "{name} got {share} of 200");
    }
    for broker in cluster.brokers() {
        assert_eq!(listed(&broker.name), 2, "the half-open connection did not last");
    }
    end([broken, other]);
}

/// Member lists lack the client, are empty, contain it twice, cannot be decoded, are refused or missing: owners keep
/// their queues, and new members get theirs afterwards.
pub(crate) fn member_lists_that_lie_take_no_queue_away(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 2);
    let proxy = Proxy::before(cluster);
    let start = |name| {
        let builder = member(cluster, &group)
            .name_servers(proxy.addresses())
            .address_map(proxy.address_map())
            .request_timeout(Duration::from_millis(500))
            .rebalance_interval(Duration::from_millis(100));
        let builder = builder.subscribe(&topic, FilterExpression::all());
        builder.each(deliveries.taker(name)).start().expect("a consumer")
    };
    let consumer = start("first");
    await_balance(&[&consumer], &topic, 2 * cluster.brokers().len());
    let queues = deliveries::queues_of(&consumer, &topic);
    let own_id = consumer.client().client_id().to_owned();
    let producer = deliveries::producer(cluster);
    let lies: [(&str, Effect); 7] = [
        ("lacks us", list_of(json!({"consumerIdList": ["somebody"]}))),
        ("empty", list_of(json!({"consumerIdList": []}))),
        ("nothing", list_of(json!({}))),
        ("twice", list_of(json!({"consumerIdList": [own_id, own_id]}))),
        ("no list", list_of(json!("consumerIdList"))),
        ("refused", Effect::Refuse(ResponseCode::SYSTEM_ERROR, "as the scenario wants it")),
        ("silent", Effect::Swallow),
    ];
    for (lie, effect) in lies {
        let told = proxy.on(&[LIST]).with("consumerGroup", &group).meet(effect);
        eventually(lie, || told.hits() >= 4);
        let sent = send_all(&producer, &topic, (0..8).map(|number| format!("{lie} {number}")));
        deliveries.await_bodies(&sent);
        assert_eq!(deliveries::queues_of(&consumer, &topic), queues, "{lie}");
    }
    let told = proxy.on(&[LIST]).with("consumerGroup", &group).meet(list_of(json!({})));
    let second = start("second");
    eventually("the second asks too", || told.hits() >= 8);
    assert_eq!(deliveries::queues_of(&second, &topic), []);
    drop(told);
    await_balance(&[&consumer, &second], &topic, queues.len());
    end([consumer, second]);
}

/// Members join and leave at random while messages flow. In the end the remaining ones share all queues, and no message
/// is lost.
pub(crate) fn a_storm_of_members_that_come_and_go_loses_nothing(cluster: &dyn Cluster) {
    let (slots, queues_each, seconds) = if is_soak() { (8, 32, 60) } else { (4, 8, 6) };
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, queues_each);
    cluster.create_group(&group);
    let producer = deliveries::producer(cluster);
    let mut dice = Dice::cast();
    let over = AtomicBool::new(false);
    let (sent, present) = thread::scope(|scope| {
        let flow = scope.spawn(|| {
            let paced = (0..).take_while(|_| {
                thread::park_timeout(Duration::from_millis(5));
                !over.load(Ordering::Relaxed)
            });
            send_all(&producer, &topic, paced.map(|number| format!("body {number}")))
        });
        let stop = AtEnd(&over);
        let mut present: Vec<Option<PushConsumer>> = (0..slots).map(|_| None).collect();
        let mut changes = 0;
        let end_of_storm = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end_of_storm || changes < 10 {
            let count = present.len() as u64;
            let slot = &mut present[usize::try_from(dice.below(count)).expect("few")];
            match slot.take() {
                None => {
                    let builder = member(cluster, &group).subscribe(&topic, FilterExpression::all());
                    *slot = Some(builder.each(deliveries.taker("member")).start().expect("a consumer"));
                }
                Some(leaver) if dice.below(2) == 0 => drop(leaver.shutdown(PATIENCE)),
                Some(leaver) => drop(leaver.shutdown(Duration::ZERO)),
            }
            changes += 1;
            thread::park_timeout(Duration::from_millis(dice.below(400)));
        }
        println!("{changes} changes");
        drop(stop);
        (flow.join().expect("the flow"), present)
    });
    let mut present: Vec<_> = present.into_iter().flatten().collect();
    if present.is_empty() {
        present.push(taking_member(cluster, &group, &topic, &deliveries, "last"));
    }
    let queues = cluster.brokers().len() * queues_each as usize;
    await_balance(&present.iter().collect::<Vec<_>>(), &topic, queues);
    deliveries.await_bodies(&sent);
    end(present);
    assert_eq!(deliveries.bodies(), sent);
    println!("{} messages, {} deliveries", sent.len(), deliveries.count());
}

/// Under load a topic gets more queues, fewer, and is read-only on one broker for a while.
pub(crate) fn queues_that_come_and_go_cost_no_message(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster, |client| client);
    let topic = &scene.topic;
    let change = |broker: &str, read: u32, write: u32, permission: u32| {
        cluster.create_topic_on(broker, topic, (read, write), permission);
    };
    let change_all = |read, write| {
        cluster.brokers().iter().for_each(|broker| change(&broker.name, read, write, 6));
        eventually("the consumer has the queues", || {
            deliveries::queues_of(&scene.consumer, topic).len() == cluster.brokers().len() * read as usize
        });
        eventually("the producer knows them", || {
            scene.producer.queues(topic).is_ok_and(|queues| queues.len() == cluster.brokers().len() * write as usize)
        });
    };
    let outcomes = storm_while(&scene.producer, topic, None, |outcomes| {
        for (read, write) in [(8, 8), (16, 16), (16, 4)] {
            change_all(read, write);
            scene.goes_on(outcomes);
        }
        // Messages in the queues to be removed must be read before.
        eventually("nothing is left in them", || {
            let ends = cluster.brokers().iter().flat_map(|broker| (4..16).map(move |queue| (broker, queue)));
            let mut ends =
                ends.map(|(broker, queue)| (&broker.name, queue, cluster.max_offset(&broker.name, topic, queue)));
            ends.all(|(broker, queue, end)| {
                scene.consumed.count(|place| place.broker == **broker && place.queue == queue)
                    >= usize::try_from(end).expect("an offset")
            })
        });
        change_all(4, 4);
        // The broker continues to store messages sent to it; producers use others once they have the new route.
        change(VICTIM, 4, 4, 4);
        eventually("the producer knows", || {
            scene.producer.queues(topic).is_ok_and(|queues| queues.iter().all(|queue| *queue.broker_name() != *VICTIM))
        });
        let before = outcomes.stored();
        eventually("the storm goes on elsewhere", || outcomes.stored() >= before + 50);
        change(VICTIM, 4, 4, 6);
        scene.goes_on(outcomes);
    });
    scene.end(&outcomes);
}

fn list_of(body: Value) -> Effect {
    Effect::Rewrite(Box::new(move |_: &RemotingCommand, reply: &mut RemotingCommand| {
        reply.code = ResponseCode::SUCCESS.0;
        reply.body = body.to_string().into();
    }))
}

/// Ends a flow even if the test fails during it.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Messages are sent to a new queue before its consumer has the new route.
pub(crate) fn a_new_queue_is_read_from_its_first_message(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let proxy = Proxy::before(cluster);
    let consumer = member(cluster, &group)
        .name_servers(proxy.addresses())
        .address_map(proxy.address_map())
        .consume_from(ConsumeFromWhere::Last)
        .route_interval(Duration::from_millis(500))
        .subscribe(&topic, FilterExpression::all())
        .each(deliveries.taker("consumer"))
        .start()
        .expect("a consumer");
    await_balance(&[&consumer], &topic, cluster.brokers().len());
    let before = send_all(&deliveries::producer(cluster), &topic, (0..10).map(|number| format!("before {number}")));
    deliveries.await_bodies(&before);
    // Later than its first moments, in which the end of a queue is taken as its start.
    thread::park_timeout(Duration::from_secs(2));
    let late = proxy.on(&[RequestCode::GET_ROUTEINFO_BY_TOPIC]).with("topic", &topic).meet(Effect::Swallow);
    cluster.create_topic(&topic, 4);
    let after = send_all(&deliveries::producer(cluster), &topic, (0..40).map(|number| format!("after {number}")));
    drop(late);
    await_balance(&[&consumer], &topic, 4 * cluster.brokers().len());
    deliveries.await_bodies(&after);
    end([consumer]);
}

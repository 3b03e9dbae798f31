//! Changed clocks, and a suspended process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode, ResponseCode};
use rocketmq_sync::{FilterExpression, Message};
use serde_json::json;

use super::crash::Process;
use super::deliveries::{self, Deliveries, await_balance, end, member, send, send_all, taking_member};
use super::proxy::{Effect, Link, Proxy};
use super::raw::{self, fields};
use super::scene::{is_soak, members};
use super::{Cluster, eventually, unique};

const HOUR_MILLIS: u128 = 60 * 60 * 1000;

/// Another member's clock was an hour ahead when it sent the group's subscription to the brokers, and was then
/// corrected. The subscriptions of the others appear older, and each receives its messages nevertheless.
pub(crate) fn a_clock_an_hour_behind_costs_no_subscription(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("Clock"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    cluster.create_group(&group);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis();
    let ahead: Vec<_> =
        cluster.brokers().iter().map(|broker| heartbeat(broker.address, &group, &topic, now + HOUR_MILLIS)).collect();
    let consumer = member(cluster, &group)
        .subscribe(&topic, FilterExpression::tags(["Wanted"]))
        .each(deliveries.taker("consumer"))
        .start()
        .expect("a consumer");
    for broker in cluster.brokers() {
        eventually("both are members", || members(cluster, &broker.name, &group).len() == 2);
        // Its version is the greater one.
        assert_eq!(subscribed(cluster, &broker.name, &group, &topic), "Other");
    }
    drop(ahead);
    await_balance(&[&consumer], &topic, cluster.brokers().len());
    let producer = deliveries::producer(cluster);
    for number in 0..10 {
        send(&producer, &Message::new(topic.as_str(), format!("other {number}")).with_tag("Other"));
        send(&producer, &Message::new(topic.as_str(), format!("wanted {number}")).with_tag("Wanted"));
    }
    let wanted = (0..10).map(|number| format!("wanted {number}")).collect();
    deliveries.await_bodies(&wanted);
    for broker in cluster.brokers() {
        assert_eq!(subscribed(cluster, &broker.name, &group, &topic), "Other", "the fault has ended");
    }
    end([consumer]);
    assert_eq!(deliveries.bodies(), wanted);
}

/// The process of a member is suspended until it is no longer a member and another one has its queues. Afterwards it
/// continues normally: it is a member again at once, has its share, and does not repeat missed requests.
pub(crate) fn a_member_that_stood_still_is_replaced_and_comes_back(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 2);
    cluster.create_group(&group);
    let queues = 2 * cluster.brokers().len();
    let proxy = Proxy::before(cluster);
    let producer = deliveries::producer(cluster);
    let send_some = |what: &str| send_all(&producer, &topic, (0..100).map(|number| format!("{what} {number}")));
    let process = Process::start_behind(&proxy, &topic, &group);
    let mut sent = send_some("alone");
    eventually("the process consumes", || sent.is_subset(&process.bodies()));
    let other = taking_member(cluster, &group, &topic, &deliveries, "other");
    await_balance(&[&other], &topic, queues / 2);
    let is_alone = || cluster.brokers().iter().all(|broker| members(cluster, &broker.name, &group).len() == 1);

    process.stand_still();
    let before = process.handled();
    if is_soak() {
        // A real broker detects it by itself, after two minutes.
        std::thread::park_timeout(Duration::from_secs(300));
    }
    let lost: usize = proxy.links().iter().map(Link::reset).sum();
    assert!(lost > 0 || is_alone(), "its connections are there no longer");
    eventually("it is a member no longer", is_alone);
    await_balance(&[&other], &topic, queues);
    let meanwhile = send_some("meanwhile");
    deliveries.await_bodies(&meanwhile);
    assert_eq!(process.handled(), before, "it is not suspended");
    sent.extend(meanwhile);

    let heartbeats = proxy.on(&[RequestCode::HEART_BEAT]).meet(Effect::Rewrite(Box::new(|_, _| ())));
    let lists = proxy.on(&[RequestCode::GET_CONSUMER_LIST_BY_GROUP]).meet(Effect::Rewrite(Box::new(|_, _| ())));
    process.go_on();
    await_balance(&[&other], &topic, queues / 2);
    println!("back with {} heartbeats and {} member lists", heartbeats.hits(), lists.hits());
    // One for each new connection, and the one of its interval.
    assert!((1..=3 * cluster.brokers().len()).contains(&heartbeats.hits()), "{} heartbeats", heartbeats.hits());
    let again = send_some("again");
    sent.extend(again.iter().cloned());
    eventually("everything is handled", || {
        let handled = process.bodies();
        let delivered = deliveries.bodies();
        sent.iter().all(|body| handled.contains(body) || delivered.contains(body))
    });
    assert!(again.iter().any(|body| process.bodies().contains(body)), "it has its share again");
    end([other]);
}

/// Adds a member of the group that subscribes to other messages, for as long as the returned connection is open.
fn heartbeat(broker: std::net::SocketAddr, group: &str, topic: &str, version: u128) -> raw::Connection {
    let subscription = json!({
        "topic": topic, "subString": "Other", "tagsSet": ["Other"], "codeSet": [76_517_104], "subVersion": version,
        "expressionType": "TAG", "classFilterMode": false,
    });
    let consumer = json!({
        "groupName": group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "subscriptionDataSet": [subscription], "unitMode": false,
    });
    let body = json!({"clientID": "ahead", "producerDataSet": [], "consumerDataSet": [consumer]});
    let mut connection = raw::Connection::open(broker).expect("a connection");
    let request = RemotingCommand::request(RequestCode::HEART_BEAT, &fields(&[])).with_body(body.to_string());
    let answer = connection.request(request, Duration::from_secs(30)).expect("an answer");
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
    connection
}

/// Returns the group's subscription as registered at a broker.
fn subscribed(cluster: &dyn Cluster, broker: &str, group: &str, topic: &str) -> String {
    let answer = cluster.ask_broker(broker, RequestCode::GET_CONSUMER_CONNECTION_LIST, &[("consumerGroup", group)]);
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
    let list: serde_json::Value = serde_json::from_slice(&answer.body).expect("a list of connections");
    list["subscriptionTable"][topic]["subString"].as_str().expect("an expression").to_owned()
}

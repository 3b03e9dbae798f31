//! A broker is killed under load and started again: nothing that was acknowledged is lost, nothing that was reported as
//! not sent is there.
//!
//! That a kill hit something is asserted: attempts failed, or messages were still to be consumed.

use std::collections::BTreeSet;
use std::sync::Arc;

use rocketmq_sync::{Certainty, Message, MessageQueue, Producer};

use super::scene::{Dice, is_soak};
use super::storm::{
    Consumed, PATIENCE, QUEUES, client, end_at_the_end, settle, sixteen_threads_while, start_consumer, storm_while,
    unread, unread_of,
};
use super::{Cluster, eventually, unique};

const VICTIM: &str = "broker-a";

/// A storm of sends of all kinds goes on while a broker is killed and started again; a consumer reads along.
pub(crate) fn a_broker_killed_in_a_send_storm_costs_no_acknowledged_message(cluster: &dyn Cluster) {
    let topic = unique("Storm");
    cluster.create_topic(&topic, QUEUES);
    let client = client(cluster.name_servers().iter().map(ToString::to_string)).start().expect("a client");
    let consumed = Arc::new(Consumed::default());
    let group = unique("G");
    cluster.create_group(&group);
    let consumer = start_consumer(&client, &group, &topic, Arc::clone(&consumed));
    let producer = Producer::builder(unique("P")).client(&client).start().expect("a producer");
    let victims_queue = MessageQueue::new(topic.as_str(), VICTIM, 0);
    let outcomes = storm_while(&producer, &topic, Some(victims_queue), |outcomes| {
        eventually("the storm reaches both brokers", || {
            cluster.brokers().iter().all(|broker| outcomes.stored_on(&broker.name) >= 100)
        });
        cluster.kill_broker(VICTIM);
        eventually("sends to the victim fail for certain", || outcomes.failed(Certainty::NotSent) >= 3);
        let before = outcomes.stored();
        eventually("the storm goes on at the other broker", || outcomes.stored() >= before + 200);
        let before = outcomes.stored_on(VICTIM);
        cluster.restart_broker(VICTIM);
        eventually("the storm is back at the victim", || outcomes.stored_on(VICTIM) >= before + 100);
    });
    let report = producer.shutdown(PATIENCE);
    assert!(report.is_clean(), "{report:?}");
    settle(cluster, &topic, &outcomes, &consumed);
    end_at_the_end(cluster, &consumer, &group, &topic);
    println!("{}; {}", outcomes.summary(), consumed.summary());
}

/// One of three masters after the other is killed at a random moment, and is back after a while.
pub(crate) fn three_masters_killed_in_turn_cost_sixteen_threads_hardly_a_send(cluster: &dyn Cluster) {
    let (kills, sends) = if is_soak() { (6, 100_000) } else { (2, 2_000) };
    let topic = unique("Kills");
    cluster.create_topic(&topic, QUEUES);
    let client = client(cluster.name_servers().iter().map(ToString::to_string)).start().expect("a client");
    let consumed = Arc::new(Consumed::default());
    let group = unique("G");
    cluster.create_group(&group);
    let consumer = start_consumer(&client, &group, &topic, Arc::clone(&consumed));
    let producer = Producer::builder(unique("P")).client(&client).send_timeout(PATIENCE).start().expect("a producer");
    let mut dice = Dice::cast();
    let outcomes = sixteen_threads_while(&producer, &topic, |outcomes| {
        for kill in 0..kills {
            let victim = &cluster.brokers()[kill % cluster.brokers().len()].name;
            let before = outcomes.stored_on(victim);
            let more = 100 + usize::try_from(dice.below(200)).expect("few");
            eventually("the storm is at the victim", || outcomes.stored_on(victim) >= before + more);
            cluster.kill_broker(victim);
            let before = outcomes.stored();
            eventually("the storm goes on at the others", || outcomes.stored() >= before + sends / kills / 2);
            let before = outcomes.stored_on(victim);
            cluster.restart_broker(victim);
            eventually("the storm is back at the victim", || outcomes.stored_on(victim) >= before + 100);
        }
        eventually("there were enough sends", || outcomes.stored() >= sends);
    });
    assert!(producer.shutdown(PATIENCE).is_clean());
    let failed = outcomes.failed(Certainty::NotSent) + outcomes.failed(Certainty::Unknown);
    assert!(failed * 10_000 <= outcomes.stored(), "{}", outcomes.summary());
    settle(cluster, &topic, &outcomes, &consumed);
    end_at_the_end(cluster, &consumer, &group, &topic);
    println!("{kills} kills; {}; {}", outcomes.summary(), consumed.summary());
}

/// A broker is killed while most of its messages are still to be pulled and a listener is at work.
pub(crate) fn a_broker_killed_in_the_midst_of_consumption_costs_no_message(cluster: &dyn Cluster) {
    let topic = unique("Backlog");
    cluster.create_topic(&topic, QUEUES);
    let client = client(cluster.name_servers().iter().map(ToString::to_string)).start().expect("a client");
    let producer = Producer::builder(unique("P")).client(&client).start().expect("a producer");
    let sent: BTreeSet<String> = (0..2000).map(|number| format!("message {number}")).collect();
    for body in &sent {
        producer.send(&Message::new(topic.as_str(), body.clone())).expect("stored");
    }

    let consumed = Arc::new(Consumed::gated_after(200));
    let group = unique("G");
    cluster.create_group(&group);
    let consumer = start_consumer(&client, &group, &topic, Arc::clone(&consumed));
    eventually("200 messages are consumed", || consumed.handled() >= 200);
    cluster.kill_broker(VICTIM);
    assert!(!consumed.covers(&sent), "the kill came too late");
    consumed.open_gate();
    eventually("the other broker's messages are consumed", || {
        unread_of(cluster, "broker-b", &topic, &consumed).is_empty()
    });
    assert!(consumed.count(|place| place.broker == VICTIM) < sent.len() / 2, "nothing was left at the victim");
    cluster.restart_broker(VICTIM);
    eventually("every message is consumed", || consumed.covers(&sent));
    eventually("everything stored is consumed", || unread(cluster, &topic, &consumed).is_empty());
    assert_eq!(consumed.bodies(), sent);
    end_at_the_end(cluster, &consumer, &group, &topic);
    println!("{}", consumed.summary());
}

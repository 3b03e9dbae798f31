//! Finding servers: dead or silent name servers, mapped addresses, and separate clusters.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rocketmq_sync::mini_broker::MiniBroker;
use rocketmq_sync::{Message, MessageQueue, Producer, Resolve};

use super::deliveries::{Deliveries, end, taking_member};
use super::inbox::{Inbox, PATIENCE, bodies, numbered, producer};
use super::{Broker, Cluster, Server, eventually, unique};

/// Address without a listener.
const DEAD_ADDRESS: &str = "127.0.0.1:1";

/// A dead and a silent name server cost a send at most a part of its time, in either order, for existing topics and for
/// topics to be created.
pub(crate) fn dead_and_silent_name_servers_cost_a_send_only_a_part_of_its_time(cluster: &dyn Cluster) {
    // Less than the silence limit of a connection, which would help too.
    let (send_timeout, silence_limit) = (Duration::from_secs(18), Duration::from_secs(60));
    // The system accepts its connections, and no program reads them.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_address = silent.local_addr().expect("an address").to_string();
    let (alive, dead, silent) = (&*cluster.name_servers()[0].to_string(), DEAD_ADDRESS, &*silent_address);
    let topic = unique("Found");
    cluster.create_topic(&topic, 2);
    let orders = [
        [alive, dead, silent],
        [alive, silent, dead],
        [dead, alive, silent],
        [dead, silent, alive],
        [silent, alive, dead],
        [silent, dead, alive],
    ];
    thread::scope(|scope| {
        for (number, order) in orders.into_iter().enumerate() {
            let topic = &topic;
            scope.spawn(move || {
                let producer = Producer::builder(unique("P")).name_servers(order).send_timeout(send_timeout);
                let producer = producer.silence_limit(silence_limit).start().expect("a producer");
                for topic in [topic, &unique("Fresh")] {
                    let sent = producer.send(&Message::new(topic.as_str(), number.to_string()));
                    sent.unwrap_or_else(|error| panic!("{order:?}, {topic}: {error}"));
                }
            });
        }
    });
    let expected: Vec<_> = (0..orders.len()).map(|number| number.to_string().into_bytes()).collect();
    let reader = Producer::builder(unique("P")).name_servers([silent, dead, alive]).start().expect("a producer");
    Inbox::open(reader.client(), &topic).await_all(&expected);
}

/// The address map determines the connected address, for every broker.
pub(crate) fn mapped_addresses_are_the_ones_dialled(cluster: &dyn Cluster) {
    let topic = unique("Mapped");
    cluster.create_topic(&topic, 2);
    let resolved = Resolved::default();
    let producer = producer(cluster)
        .address_map(|address| address.replace("127.0.0.1", "broker.invalid"))
        .resolver(resolved.clone())
        .start()
        .expect("a producer");
    let messages = numbered(&topic, 8);
    for message in &messages {
        producer.send(message).expect("stored");
    }
    Inbox::open(producer.client(), &topic).await_all(&bodies(&messages));
    let expected: BTreeSet<_> =
        cluster.brokers().iter().map(|broker| format!("broker.invalid:{}", broker.address.port())).collect();
    assert_eq!(*resolved.names.lock().expect("no panic"), expected);
}

/// Two clients of one process with equal groups and topics stay with their own clusters.
pub(crate) fn two_clients_for_two_clusters_never_meet(cluster: &dyn Cluster) {
    let (topic, group) = (unique("Apart"), unique("P"));
    let other_cluster = MiniBroker::start().expect("a second cluster");
    cluster.create_topic(&topic, 2);
    other_cluster.create_topic(&topic, 2);
    let start = |servers: Vec<String>| {
        Producer::builder(group.as_str()).name_servers(servers).send_timeout(PATIENCE).start().expect("a producer")
    };
    let here = start(vec![cluster.name_server_list()]);
    let there = start(other_cluster.name_servers());
    assert_ne!(here.client().client_id(), there.client().client_id());
    let (inbox_here, inbox_there) = (Inbox::open(here.client(), &topic), Inbox::open(there.client(), &topic));
    let messages = numbered(&topic, 40);
    let (for_here, for_there) = messages.split_at(20);
    for (left, right) in for_here.iter().zip(for_there) {
        here.send(left).expect("stored");
        there.send(right).expect("stored");
    }
    inbox_here.await_all(&bodies(for_here));
    inbox_there.await_all(&bodies(for_there));
    assert_eq!(other_cluster.messages(&topic).len(), 20);
    assert!(there.shutdown(PATIENCE).is_clean());
    drop(other_cluster);
    here.send(&messages[0]).expect("the end of the other cluster is no concern here");
}

/// Resolves one name to this machine, and records the requested names.
#[derive(Clone, Default)]
struct Resolved {
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl Resolve for Resolved {
    fn resolve(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        self.names.lock().expect("no panic").insert(host_and_port.to_owned());
        Ok(host_and_port.replace("broker.invalid", "127.0.0.1").to_socket_addrs()?.collect())
    }
}

/// Releases come from the responses to heartbeats, and appear in the explanation of a queue.
pub(crate) fn brokers_tell_which_release_they_run(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("Release"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let consumer = taking_member(cluster, &group, &topic, &deliveries, "consumer");
    let (release, version) = match cluster.server() {
        Server::Apache4 => ("4.9.7", 407),
        Server::Apache5 | Server::Mini => ("5.5.0", 513),
    };
    let told = |broker: &Broker| (broker.name.clone(), [(broker.address.to_string(), version)].into());
    let expected = cluster.brokers().iter().map(told).collect();
    eventually("all have told it", || consumer.client().broker_versions() == expected);
    for broker in cluster.brokers() {
        let queue = MessageQueue::new(topic.as_str(), broker.name.as_str(), 0);
        let words = consumer.status(&queue).unwrap().expect("a queue of its own").to_string();
        assert!(words.ends_with(&format!("{} runs {release}", broker.name)), "{words}");
    }
    end([consumer]);
}

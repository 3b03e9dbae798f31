//! Name servers that go dark, die or return wrong data, and host names that hang or move.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use rocketmq_sync::{Certainty, ErrorKind, Message, MessageQueue, Producer, ProducerBuilder, Resolve};

use super::proxy::{Effect, Fault, Link, Mode, Proxy};
use super::scene::VICTIM;
use super::storm::PATIENCE;
use super::{Cluster, eventually, unique};

const ROUTE: RequestCode = RequestCode::GET_ROUTEINFO_BY_TOPIC;

/// Longer than any test: timers with this interval do not fire in one.
const NEVER: Duration = Duration::from_secs(60 * 60);

/// Less than the silence limit of a connection, which would help too.
const SEND_TIMEOUT: Duration = Duration::from_secs(9);

/// The name server in use goes dark, in every way: the next look-up succeeds at the other one.
pub(crate) fn a_name_server_that_goes_dark_is_left_for_one_that_answers(cluster: &dyn Cluster) {
    let topics: Vec<_> = (0..6).map(|_| unique("Dark")).collect();
    topics.iter().for_each(|topic| cluster.create_topic(topic, 1));
    let proxy = Proxy::before(cluster);
    let producer = producer(&proxy).route_interval(NEVER).start().expect("a producer");
    let mut topics = topics.iter();
    for mode in [Mode::BlackHole, Mode::Refuse, Mode::Mute] {
        for dark in proxy.name_servers() {
            dark.set(mode);
            let topic = topics.next().expect("a topic for each turn");
            send(&producer, topic).unwrap_or_else(|error| panic!("{mode:?}: {error}"));
            dark.set(Mode::Pass);
        }
    }
}

/// With all name servers down, known topics continue to work. Others fail unsent with the name servers' addresses, and
/// work after their return.
pub(crate) fn without_name_servers_known_topics_go_on(cluster: &dyn Cluster) {
    let (known, unknown) = (unique("Known"), unique("Unknown"));
    [&known, &unknown].into_iter().for_each(|topic| cluster.create_topic(topic, 1));
    let proxy = Proxy::before(cluster);
    let producer = producer(&proxy).route_interval(Duration::from_millis(50)).send_timeout(Duration::from_secs(3));
    let producer = producer.start().expect("a producer");
    send(&producer, &known).expect("stored");
    for mode in [Mode::Refuse, Mode::BlackHole] {
        proxy.name_servers().iter().for_each(|link| link.set(mode));
        let error = send(&producer, &unknown).expect_err("nobody can tell its route");
        assert_eq!((error.kind(), error.certainty()), (ErrorKind::NameServer, Certainty::NotSent), "{error}");
        assert!(proxy.addresses().iter().all(|address| error.to_string().contains(address)), "{error}");
        for _ in 0..10 {
            send(&producer, &known).expect("stored");
        }
        proxy.name_servers().iter().for_each(|link| link.set(Mode::Pass));
        eventually("the name servers are found again", || send(&producer, &unique("Fresh")).is_ok());
    }
    send(&producer, &unknown).expect("stored");
}

/// A name server whose route has no reachable queue counts as one without the topic: another one is queried, and a
/// known route stays.
pub(crate) fn routes_that_lead_nowhere_are_not_believed(cluster: &dyn Cluster) {
    let known = unique("Known");
    cluster.create_topic(&known, 1);
    let proxy = Proxy::before(cluster);
    let producer = producer(&proxy).route_interval(Duration::from_millis(50)).start().expect("a producer");
    send(&producer, &known).expect("stored");
    for lie in LIES {
        let asked_first = told(&proxy, &proxy.name_servers()[0], lie);
        let other = self::producer(&proxy).start().expect("a producer");
        send(&other, &known).unwrap_or_else(|error| panic!("{lie}: {error}"));
        assert!(asked_first.hits() > 0);
        drop(asked_first);
        let faults: Vec<_> = proxy.name_servers().iter().map(|liar| told(&proxy, liar, lie)).collect();
        eventually("all are asked", || faults.iter().all(|fault| fault.hits() > 1));
        send(&producer, &known).unwrap_or_else(|error| panic!("{lie}: {error}"));
        let error = send(&producer, &unique("Unknown")).expect_err("nobody tells its route");
        assert_eq!((error.kind(), error.certainty()), (ErrorKind::NoRoute, Certainty::NotSent), "{lie}: {error}");
    }
}

/// While the resolver hangs at one broker's name, the others are connected, with or without a name.
pub(crate) fn a_name_that_hangs_holds_up_no_other_server(cluster: &dyn Cluster) {
    let topic = unique("Hang");
    cluster.create_topic(&topic, 1);
    let names = Names::default();
    let [hanging, named] = [0, 1].map(|at| cluster.brokers()[at].address.to_string());
    let book = names.clone();
    names.set("fine.test:1", cluster.brokers()[1].address);
    let producer = Producer::builder(unique("P"))
        .name_servers([cluster.name_server_list()])
        .send_timeout(SEND_TIMEOUT)
        .connect_timeout(Duration::from_secs(6))
        .resolver(book)
        .address_map(move |address| match address {
            address if address == hanging => "hangs.test:1".to_owned(),
            address if address == named => "fine.test:1".to_owned(),
            address => address.to_owned(),
        });
    let producer = producer.start().expect("a producer");
    let (first, second) = (&cluster.brokers()[0].name, &cluster.brokers()[1].name);
    let stuck = MessageQueue::new(topic.as_str(), first.as_str(), 0);
    let (told, outcome) = crossbeam_channel::bounded(1);
    let callback = move |result| drop(told.send(result));
    producer.to_queue(&stuck).send_async(Message::new(topic.as_str(), "stuck"), callback).expect("accepted");
    eventually("the resolver hangs", || names.hanging() > 0);
    let queue = MessageQueue::new(topic.as_str(), second.as_str(), 0);
    producer.to_queue(&queue).send(&Message::new(topic.as_str(), "fine")).expect("stored");
    let error = outcome.recv_timeout(PATIENCE).expect("an outcome").expect_err("nobody knows its address");
    assert_eq!(error.certainty(), Certainty::NotSent, "{error}");
    names.release();
    producer.shutdown(PATIENCE);
}

/// A name is resolved again at each connect: a broker that returns at another address is found.
pub(crate) fn a_server_that_moves_to_another_address_is_found(cluster: &dyn Cluster) {
    let topic = unique("Moves");
    cluster.create_topic(&topic, 1);
    let (before, after) = (Proxy::before(cluster), Proxy::before(cluster));
    let names = Names::default();
    let broker = &cluster.brokers()[0];
    let real = broker.address.to_string();
    names.set("moves.test:1", before.broker(&broker.name).address());
    let producer = Producer::builder(unique("P"))
        .name_servers([cluster.name_server_list()])
        .send_timeout(PATIENCE)
        .resolver(names.clone())
        .address_map(move |address| if address == real { "moves.test:1".to_owned() } else { address.to_owned() })
        .start()
        .expect("a producer");
    let queue = MessageQueue::new(topic.as_str(), broker.name.as_str(), 0);
    producer.to_queue(&queue).send(&Message::new(topic.as_str(), "here")).expect("stored");
    before.broker(&broker.name).set(Mode::Refuse);
    names.set("moves.test:1", after.broker(&broker.name).address());
    eventually("it is found", || producer.to_queue(&queue).send(&Message::new(topic.as_str(), "there")).is_ok());
    assert!(after.broker(&broker.name).accepted() > 0);
}

/// Wrong routes for every topic: without brokers, with brokers without an address, without queues, and with queues on
/// unlisted brokers.
const LIES: [&str; 4] = [
    "{}",
    r#"{"brokerDatas":[{"brokerAddrs":{},"brokerName":"broker-a","cluster":"C"}],
        "queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"writeQueueNums":4,"topicSysFlag":0}]}"#,
    r#"{"brokerDatas":[{"brokerAddrs":{"0":"127.0.0.1:1"},"brokerName":"broker-a","cluster":"C"}],"queueDatas":[]}"#,
    r#"{"brokerDatas":[{"brokerAddrs":{"0":"127.0.0.1:1"},"brokerName":"broker-a","cluster":"C"}],
        "queueDatas":[{"brokerName":"nowhere","perm":6,"readQueueNums":4,"writeQueueNums":4,"topicSysFlag":0}]}"#,
];

fn told(proxy: &Proxy, liar: &Link, lie: &'static str) -> Fault {
    proxy.on(&[ROUTE]).at(liar).meet(Effect::Rewrite(Box::new(move |_, reply| {
        reply.code = 0;
        reply.body = lie.into();
    })))
}

/// All senders to a topic that does not exist yet wait for the same two queries, and their messages create it.
pub(crate) fn a_crowd_of_first_messages_asks_once_for_its_topic(cluster: &dyn Cluster) {
    let proxy = Proxy::before(cluster);
    let topic = unique("Crowd");
    let about =
        |name: &str| proxy.on(&[ROUTE]).with("topic", name).meet(Effect::DelayReply(Duration::from_millis(500)));
    let (of_the_topic, of_the_template) = (about(&topic), about("TBW102"));
    let producer = producer(&proxy).route_interval(NEVER).send_timeout(PATIENCE).start().expect("a producer");
    let (told, outcomes) = crossbeam_channel::unbounded();
    for number in 0..2_000 {
        let told = told.clone();
        let message = Message::new(topic.as_str(), format!("body {number}"));
        producer.send_async(message, move |result| drop(told.send(result))).expect("accepted");
    }
    for _ in 0..2_000 {
        outcomes.recv_timeout(PATIENCE).expect("an outcome").expect("stored");
    }
    assert!(of_the_template.hits() >= 1, "the topic was there");
    // One before, and a few after messages have created the topic on one broker and the next.
    let asked = (of_the_topic.hits(), of_the_template.hits());
    assert!(asked.0 + asked.1 <= 20, "{asked:?} look-ups for 2,000 sends");
}

/// Each request to one of two brokers is answered by GO_AWAY, as of a broker that shuts down. Every send goes to the
/// other one, and no more than its share of the sends begins at the departing one.
pub(crate) fn a_departing_broker_fails_no_send_and_gets_its_share_of_first_attempts(cluster: &dyn Cluster) {
    let proxy = Proxy::before(cluster);
    let topic = unique("Departs");
    cluster.create_topic(&topic, 4);
    let producer = producer(&proxy).send_timeout(PATIENCE).start().expect("a producer");
    producer.wait_ready(&[&topic], PATIENCE).expect("both brokers");
    let departing = proxy.broker(VICTIM);
    let sends = || proxy.on(&[RequestCode::SEND_MESSAGE_V2]).at(departing);
    let gone = sends().meet(Effect::Refuse(ResponseCode::GO_AWAY, "the broker is shutting down"));
    for _ in 0..100 {
        let receipt = send(&producer, &topic).expect("the other broker takes it");
        assert_ne!(receipt.queue.broker_name(), VICTIM);
    }
    let hits = gone.hits();
    assert!((1..=60).contains(&hits), "{hits} of 100 sends began at the broker that departs");
    producer.send_oneway(&Message::new(topic.as_str(), "body")).expect("one of them takes it");
}

fn producer(proxy: &Proxy) -> ProducerBuilder {
    let builder = Producer::builder(unique("P")).name_servers(proxy.addresses()).address_map(proxy.address_map());
    builder.send_timeout(SEND_TIMEOUT)
}

fn send(producer: &Producer, topic: &str) -> rocketmq_sync::Result<rocketmq_sync::SendResult> {
    producer.send(&Message::new(topic, "body"))
}

/// Resolver with a table of names, and one name at which it hangs.
#[derive(Clone, Default)]
struct Names(Arc<Book>);

#[derive(Default)]
struct Book {
    addresses: Mutex<Vec<(String, SocketAddr)>>,
    is_released: Mutex<bool>,
    released: Condvar,
    hanging: AtomicUsize,
}

impl Names {
    fn set(&self, name: &str, address: SocketAddr) {
        let mut addresses = self.0.addresses.lock();
        addresses.retain(|(known, _)| known != name);
        addresses.push((name.to_owned(), address));
    }

    fn hanging(&self) -> usize {
        self.0.hanging.load(Ordering::SeqCst)
    }

    fn release(&self) {
        *self.0.is_released.lock() = true;
        self.0.released.notify_all();
    }
}

impl Resolve for Names {
    fn resolve(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        if host_and_port.starts_with("hangs") {
            self.0.hanging.fetch_add(1, Ordering::SeqCst);
            let mut is_released = self.0.is_released.lock();
            while !*is_released {
                self.0.released.wait_for(&mut is_released, PATIENCE);
            }
            return Err(io::ErrorKind::NotFound.into());
        }
        let addresses = self.0.addresses.lock();
        let found = addresses.iter().find(|(name, _)| name == host_and_port).map(|(_, address)| *address);
        found.map(|address| vec![address]).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

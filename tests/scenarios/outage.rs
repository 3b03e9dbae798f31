//! All servers are down for long: the client's activity stays low, and its traffic resumes soon.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rocketmq_sync::{Certainty, Message, MessageQueue, Resolve};

use super::crash::Process;
use super::life::CountedThreads;
use super::logs::{self, Lines};
use super::proxy::{Mode, Proxy};
use super::scene::{Scene, is_soak};
use super::storm::{self, PATIENCE, end_at_the_end};
use super::{Broker, Cluster, eventually, unique};

/// Body of a message sent while all servers are down.
const IN_VAIN: &str = "in vain";

/// Name servers and brokers refuse every connect for a while, and a program tries to send now and then. A consumer in
/// its own process shows the use of memory.
pub(crate) fn an_outage_of_all_servers_costs_little_and_traffic_is_back_within_seconds(cluster: &dyn Cluster) {
    let time = Duration::from_secs(if is_soak() { 600 } else { 10 });
    let (threads, dials) = (CountedThreads::default(), Dials::default());
    let proxy = Proxy::before(cluster);
    let map = proxy.address_map();
    // Names are resolved at each connect, which is counted there.
    let client = storm::client(proxy.addresses().iter().map(|address| Dials::named(address)))
        .address_map(move |address| Dials::named(&map(address)))
        .resolver(dials.clone())
        .thread_starter(threads.clone());
    let scene = Scene::with(cluster, proxy, client);
    let group = unique("G");
    cluster.create_group(&group);
    let process = Process::start_behind(&scene.proxy, &scene.topic, &group);
    send_to_each_broker(&scene, &process, "before");
    scene.await_membership();
    let said: Vec<_> =
        scene.proxy.links().iter().map(|link| logs::about(&Dials::named(&link.address().to_string()))).collect();

    scene.proxy.links().iter().for_each(|link| link.set(Mode::Refuse));
    let halves = [(); 2].map(|()| {
        let before = Effort::so_far(&dials, &threads, &said, &process);
        let end = Instant::now() + time / 2;
        while Instant::now() < end {
            let error = scene.producer.send(&Message::new(scene.topic.as_str(), IN_VAIN)).expect_err("all are away");
            assert_eq!(error.certainty(), Certainty::NotSent, "{error}");
            thread::park_timeout(Duration::from_millis(500));
        }
        Effort::so_far(&dials, &threads, &said, &process) - before
    });
    println!("{time:?} without servers: {halves:?}");
    let [first, second] = halves;
    let seconds = usize::try_from(time.as_secs() / 2).expect("few");
    assert!(first.dials > 0 && first.lines > 0, "nothing has happened: {first:?}");
    // At most one per second for each server, after the first ones have failed.
    assert!(second.dials <= scene.proxy.links().len() * (seconds + 2), "{second:?}");
    assert!(second.lines <= first.lines, "{first:?}, then {second:?}");
    assert!(second.processor <= time / 2 / 10, "{second:?}");
    assert!(second.memory <= 1024 * 1024, "{second:?}");

    scene.proxy.links().iter().for_each(|link| link.set(Mode::Pass));
    let back = Instant::now();
    send_to_each_broker(&scene, &process, "after");
    scene.await_membership();
    println!("back after {:?}", back.elapsed());
    // The longest pause is 5 s; a machine under heavy load is slow.
    assert!(back.elapsed() < Duration::from_secs(30));
    assert!(!scene.consumed.has(IN_VAIN), "told as not sent, and there");
    assert!(scene.producer.shutdown(PATIENCE).is_clean());
    end_at_the_end(cluster, &scene.consumer, &scene.group, &scene.topic);
}

/// Sends until each broker has stored a message, and all messages are consumed.
fn send_to_each_broker(scene: &Scene<'_>, process: &Process, what: &str) {
    for broker in scene.cluster.brokers() {
        let queue = MessageQueue::new(scene.topic.as_str(), broker.name.as_str(), 0);
        let message = Message::new(scene.topic.as_str(), format!("{what} to {}", broker.name));
        eventually("the broker stores it", || scene.producer.to_queue(&queue).send(&message).is_ok());
    }
    let is_consumed = |broker: &Broker| {
        let body = format!("{what} to {}", broker.name);
        scene.consumed.has(&body) && process.bodies().contains(&body)
    };
    eventually("it is consumed", || scene.cluster.brokers().iter().all(is_consumed));
}

/// Activity of a client, as visible from outside.
#[derive(Clone, Copy, Debug)]
struct Effort {
    dials: usize,
    /// Number of warnings about servers.
    lines: usize,
    /// Processor time of its threads, if the system provides it.
    processor: Duration,
    /// Memory of the other process, in bytes.
    memory: usize,
}

impl Effort {
    fn so_far(dials: &Dials, threads: &CountedThreads, said: &[Lines], process: &Process) -> Self {
        let lines = said.iter().map(Lines::count).sum();
        Self { dials: dials.count(), lines, processor: threads.processor_time(), memory: process.memory() }
    }
}

impl std::ops::Sub for Effort {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            dials: self.dials - before.dials,
            lines: self.lines - before.lines,
            processor: self.processor.saturating_sub(before.processor),
            memory: self.memory.saturating_sub(before.memory),
        }
    }
}

/// Resolver that gives each address a name, and counts its calls.
#[derive(Clone, Default)]
struct Dials(Arc<AtomicUsize>);

impl Dials {
    fn named(address: &str) -> String {
        address.replace("127.0.0.1", "server.test")
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Resolve for Dials {
    fn resolve(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let address = host_and_port.replace("server.test", "127.0.0.1");
        address.parse().map(|address| vec![address]).map_err(|_| io::ErrorKind::NotFound.into())
    }
}

//! Log of a client: silent while everything works, and a few lines when everything fails at once.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use rocketmq_sync::{Client, ConsumeFromWhere, FilterExpression, Message, MessageExt, Producer, PushConsumer};

use super::inbox::PATIENCE;
use super::logs::{self, Lines};
use super::proxy::{Mode, Proxy};
use super::scene::is_soak;
use super::{Cluster, unique};

/// Producer and consumer behind a proxy, and the warnings about them and their servers.
struct Watched {
    /// Name of the topic, and prefix of the groups.
    name: String,
    said: Vec<Lines>,
    proxy: Proxy,
    producer: Producer,
    consumer: PushConsumer,
    consumed: Receiver<String>,
}

impl Watched {
    /// Starts them; the listener fails at the first delivery of each message that begins with `!`.
    fn start(cluster: &dyn Cluster) -> Self {
        let name = unique("Quiet");
        cluster.create_topic(&name, 4);
        let proxy = Proxy::before(cluster);
        let addresses = proxy.links().iter().map(|link| link.address().to_string());
        let said = addresses.chain([name.clone()]).map(|name| logs::about(&name)).collect();
        let client = Client::builder().name_servers(proxy.addresses()).address_map(proxy.address_map());
        let client = client.start().expect("a client");
        let producer = Producer::builder(format!("{name}-P")).client(&client).send_timeout(PATIENCE);
        let (told, consumed) = unbounded();
        let consumer = PushConsumer::builder(format!("{name}-G"))
            .client(&client)
            .subscribe(name.as_str(), FilterExpression::all())
            .consume_from(ConsumeFromWhere::First)
            .each(move |message: &MessageExt| {
                let body = String::from_utf8_lossy(message.body()).into_owned();
                if body.starts_with('!') && message.reconsume_times() == 0 {
                    return Err("failed by the scenario".into());
                }
                Ok(told.send(body)?)
            })
            .start()
            .expect("a consumer");
        consumer.wait_ready(PATIENCE).expect("all queues");
        Self { said, proxy, producer: producer.start().expect("a producer"), consumer, consumed, name }
    }

    fn send(&self, body: &str) {
        self.producer.send(&Message::new(self.name.as_str(), body.to_owned())).expect("stored");
    }

    fn await_consumed(&self, messages: usize) {
        for _ in 0..messages {
            self.consumed.recv_timeout(PATIENCE).expect("a message");
        }
    }

    fn lines(&self) -> Vec<String> {
        self.said.iter().flat_map(Lines::all).collect()
    }
}

pub(crate) fn a_normal_life_logs_no_warning(cluster: &dyn Cluster) {
    let watched = Watched::start(cluster);
    (0..20).for_each(|number| watched.send(&number.to_string()));
    watched.await_consumed(20);
    assert!(watched.consumer.shutdown(PATIENCE).is_clean());
    assert!(watched.producer.shutdown(PATIENCE).is_clean());
    assert_eq!(watched.lines(), Vec::<String>::new());
}

/// A minute causes at most ten lines, and ten minutes at most twenty, for any number of queues.
pub(crate) fn brokers_that_are_away_are_a_few_lines(cluster: &dyn Cluster) {
    let watched = Watched::start(cluster);
    watched.send("before");
    watched.await_consumed(1);
    let begun = Instant::now();
    watched.proxy.brokers().iter().for_each(|link| link.set(Mode::Refuse));
    let wait_until = |seconds| {
        while begun.elapsed() < Duration::from_secs(seconds) {
            let message = Message::new(watched.name.as_str(), "in vain");
            watched.producer.timeout(Duration::from_millis(200)).send(&message).expect_err("all are away");
            thread::park_timeout(Duration::from_millis(300));
        }
    };
    wait_until(if is_soak() { 60 } else { 15 });
    let lines = watched.lines();
    assert!((1..=10).contains(&lines.len()), "{lines:#?}");
    if is_soak() {
        wait_until(600);
        let lines = watched.lines();
        assert!(lines.len() <= 20, "{lines:#?}");
    }
    println!("{:?} without brokers were {} lines", begun.elapsed(), watched.lines().len());
    watched.proxy.brokers().iter().for_each(|link| link.set(Mode::Pass));
    watched.send("after");
    watched.await_consumed(1);
    watched.consumer.shutdown(PATIENCE);
}

pub(crate) fn a_listener_that_fails_a_hundred_times_is_a_few_lines(cluster: &dyn Cluster) {
    let watched = Watched::start(cluster);
    (0..100).for_each(|number| watched.send(&format!("!{number}")));
    watched.await_consumed(100);
    let lines = watched.lines();
    assert!((1..=10).contains(&lines.len()), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("64 failures so far")), "{lines:#?}");
    assert!(watched.consumer.shutdown(PATIENCE).is_clean());
}

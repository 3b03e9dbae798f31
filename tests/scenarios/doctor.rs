//! Output of the example `rmq-doctor` for healthy and broken clusters: the program is built and run as users do.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rocketmq_sync::FilterExpression;

use super::deliveries::{Deliveries, await_balance, end, member, taking_member};
use super::{Cluster, unique};

pub(crate) fn the_doctor_finds_nothing_wrong_where_nothing_is_wrong(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("Sound"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 2);
    let consumer = taking_member(cluster, &group, &topic, &deliveries, "member");
    let arguments = ["--topic", &topic, "--group", &group, "--send", "--timeout", "60"];
    let diagnosis = examine(&cluster.name_server_list(), &arguments);
    assert_eq!(diagnosis.code, 0, "{}", diagnosis.text);
    for name_server in cluster.name_servers() {
        diagnosis.tells(&format!("name server {name_server}\n"));
    }
    for broker in cluster.brokers() {
        diagnosis.tells(&format!("broker {}, master, {}\n", broker.name, broker.address));
        diagnosis.tells(&format!("{} has {topic}: *", broker.name));
    }
    diagnosis.tells("the topic may be written and read");
    diagnosis.tells(consumer.client().client_id());
    diagnosis.tells("No hop fails.");
    super::eventually("the probes are consumed", || deliveries.count() == cluster.brokers().len());
    end([consumer]);
}

pub(crate) fn the_doctor_names_name_servers_that_fail_and_goes_on_with_the_others(cluster: &dyn Cluster) {
    let (black_hole, silent, hangs_up) = (BlackHole::open(), silent_address(), hanging_up_address());
    let broker = cluster.brokers()[0].address.to_string();
    for (name_server, hop) in [
        ("127.0.0.1:1".to_owned(), "port: 127.0.0.1:1: connection refused"),
        ("no-such-host.invalid:9876".to_owned(), "name: no-such-host.invalid:9876 has no address"),
        (black_hole.address.to_string(), "no answer to a connect within 3s"),
        (silent.local_addr().expect("an address").to_string(), "answer: the deadline passed"),
        (hangs_up.to_string(), "answer: "),
        (broker, "answer: it answers, but is not a name server"),
    ] {
        let diagnosis = examine(&format!("{name_server};{}", cluster.name_server_list()), &[]);
        diagnosis.fails_first_at(&format!("name server {name_server}"), hop);
        // Servers that are reached after it are checked nevertheless.
        for broker in cluster.brokers() {
            diagnosis.tells(&format!("broker {}, master, {}\n", broker.name, broker.address));
        }
        assert!(!diagnosis.text.contains("After it"), "{}", diagnosis.text);
    }
}

pub(crate) fn the_doctor_names_broker_addresses_that_fail(cluster: &dyn Cluster) {
    let (black_hole, silent, hangs_up) = (BlackHole::open(), silent_address(), hanging_up_address());
    let refused = SocketAddr::from(([127, 0, 0, 1], 1));
    for (address, hop, remedy) in [
        (refused, "port: 127.0.0.1:1: connection refused", "brokerIP1"),
        (black_hole.address, "no answer to a connect within 3s", "brokerIP1"),
        (silent.local_addr().expect("an address"), "answer: the deadline passed", "hangs"),
        (hangs_up, "answer: ", "closes the connection"),
    ] {
        let (topic, broker) = (unique("Phantom"), unique("phantom"));
        let _told = cluster.tell_of_broker(&broker, address, &topic);
        let diagnosis = examine(&cluster.name_server_list(), &["--topic", &topic, "--send"]);
        diagnosis.fails_first_at(&format!("broker {broker}, master, {address}"), hop);
        diagnosis.tells(remedy);
    }
}

/// Runs on a cluster that creates no topics.
pub(crate) fn the_doctor_names_what_is_wrong_with_a_topic(cluster: &dyn Cluster) {
    let topic = unique("Nowhere");
    let diagnosis = examine(&cluster.name_server_list(), &["--topic", &topic]);
    diagnosis.fails_first_at(
        &format!("topic {topic}"),
        "route: no name server has a route for it, and no broker creates topics",
    );
    diagnosis.tells(&format!("mqadmin updateTopic -n '{}' -c DefaultCluster -t {topic}", cluster.name_server_list()));

    let broker = &cluster.brokers()[0];
    let place = format!("broker {}, master, {}", broker.name, broker.address);
    for (permission, hop) in [(4, "may not be written there (perm 4)"), (2, "may not be read there (perm 2)")] {
        let topic = unique("Closed");
        cluster.create_topic_with(&topic, 1, permission);
        let diagnosis = examine(&cluster.name_server_list(), &["--topic", &topic]);
        diagnosis.fails_first_at(&place, &format!("permission: the topic {hop}"));
    }
}

pub(crate) fn the_doctor_names_what_is_wrong_with_a_group(cluster: &dyn Cluster) {
    let (topic, other, group) = (unique("T"), unique("Other"), unique("G"));
    cluster.create_topic(&topic, 1);
    cluster.create_topic(&other, 1);
    let place = format!("consumer group {group}");
    let examine = || examine(&cluster.name_server_list(), &["--topic", &topic, "--group", &group]);
    examine().fails_first_at(&place, "members: no consumer of the group is connected");

    let deliveries = Deliveries::default();
    let consumer = taking_member(cluster, &group, &other, &deliveries, "member");
    examine().fails_first_at(&place, "subscription: broker-a has no subscription to");
    end([consumer]);

    let twins = ["one", "two"].map(|name| {
        let builder = member(cluster, &group).client_id("twin").subscribe(&topic, FilterExpression::all());
        builder.each(deliveries.taker(name)).start().expect("a consumer")
    });
    // The two are not aware of each other: each takes all queues.
    twins.iter().for_each(|twin| await_balance(&[twin], &topic, cluster.brokers().len()));
    examine().fails_first_at(&place, "member: broker-a has more than one connection of twin");
    end(twins);
}

/// Output of the program, and its exit code.
pub(crate) struct Diagnosis {
    code: i32,
    text: String,
}

impl Diagnosis {
    pub(crate) fn tells(&self, words: &str) {
        assert!(self.text.contains(words), "{words:?} is not in:\n{}", self.text);
    }

    pub(crate) fn fails_first_at(&self, place: &str, hop: &str) {
        assert_eq!(self.code, 1, "{}", self.text);
        let first = self.text.split("First hop that fails: ").nth(1).unwrap_or_default();
        assert!(first.starts_with(&format!("{place}, ")), "not {place}, {hop}:\n{}", self.text);
        assert!(first.lines().next().is_some_and(|line| line.contains(hop)), "not {place}, {hop}:\n{}", self.text);
        assert!(first.lines().nth(1).is_some_and(|line| line.contains("What to do: ")), "{}", self.text);
    }
}

pub(crate) fn examine(name_servers: &str, arguments: &[&str]) -> Diagnosis {
    let mut command = Command::new(doctor());
    let output = command.args(["--name-server", name_servers]).args(arguments).output();
    let output = output.expect("the program runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Diagnosis { code: output.status.code().expect("it ends by itself"), text }
}

/// Path of the program, built like this test. Cargo builds examples with all tests, but not with one target of them.
fn doctor() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", "rmq-doctor", "--profile", profile]);
        let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(status.success(), "rmq-doctor does not compile");
        let test = std::env::current_exe().expect("the path of this program");
        let folder = test.ancestors().nth(2).expect("the folder above deps");
        folder.join("examples").join("rmq-doctor")
    })
}

/// Address at which connects hang: its queue of connections to be accepted is full.
struct BlackHole {
    address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let dial = || TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
        let queued = std::iter::from_fn(dial).collect();
        Self { address, _listener: listener, _queued: queued }
    }
}

/// Address at which the system accepts connections, and nothing answers.
fn silent_address() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a port")
}

/// Address at which connections are accepted and closed.
fn hanging_up_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let accept = move || listener.incoming().for_each(drop);
    std::thread::Builder::new().spawn(accept).expect("a thread");
    address
}

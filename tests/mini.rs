//! The scenarios on the mini broker, and the mini broker held against what real brokers answered.
//!
//! Each test has a mini broker of its own: it starts faster than it could be shared.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod scenarios;

use std::net::SocketAddr;
use std::time::Duration;

use rocketmq_sync::mini_broker::{MiniBroker, Release};

use scenarios::{Broker, Cluster, Profile, Server, transcript};

macro_rules! on_mini_broker {
    ($module:ident :: $scenario:ident on $profile:ident) => {
        #[test]
        fn $scenario() {
            let cluster = MiniCluster::start(&Profile::$profile, Release::default());
            scenarios::$module::$scenario(&cluster);
        }
    };
}

scenarios::for_each_scenario!(on_mini_broker);

#[test]
fn a_release_4_broker_answers_the_script_as_the_real_one_did() {
    // The real one says that the topic is blank, where the mini broker names the missing field.
    compare_with_transcript(Server::Apache4, Release::V4_9_7, &["send without a topic"]);
}

#[test]
fn a_release_5_broker_answers_the_script_as_the_real_one_did() {
    compare_with_transcript(Server::Apache5, Release::V5_5_0, &[]);
}

/// Exactly the steps named as `different` may be answered otherwise, and they are.
fn compare_with_transcript(real: Server, release: Release, different: &[&str]) {
    let strict = transcript::record_strict(&MiniCluster::start(&Profile::STRICT, release));
    let auto_create = transcript::record_auto_create(&MiniCluster::start(&Profile::STANDARD, release));
    let mut found = transcript::differences(&transcript::stored(real, "strict"), &strict);
    found.extend(transcript::differences(&transcript::stored(real, "auto-create"), &auto_create));
    let steps: Vec<_> = found.iter().filter_map(|difference| difference.split(":\n").next()).collect();
    assert_eq!(steps, different, "{}", found.join("\n"));
}

/// A mini broker as the scenarios see it.
struct MiniCluster {
    mini: MiniBroker,
    name_servers: Vec<SocketAddr>,
    brokers: Vec<Broker>,
}

impl MiniCluster {
    fn start(profile: &Profile, release: Release) -> Self {
        let mini = MiniBroker::builder()
            .name_servers(profile.name_servers)
            .brokers(profile.brokers)
            .auto_create_topics(profile.auto_create_topics)
            .max_message_size(profile.max_message_size)
            .delay_levels(profile.delay_levels.split(' ').map(seconds))
            .release(release)
            .start()
            .expect("a mini broker");
        let name_servers = mini.name_servers().iter().map(|address| address.parse().expect("an address")).collect();
        let broker = |name: &&str| Broker { name: (*name).to_owned(), address: mini.broker_address(name) };
        let brokers = mini.broker_names().iter().map(broker).collect();
        Self { mini, name_servers, brokers }
    }
}

impl Cluster for MiniCluster {
    fn server(&self) -> Server {
        Server::Mini
    }

    fn name_servers(&self) -> &[SocketAddr] {
        &self.name_servers
    }

    fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    fn kill_broker(&self, name: &str) {
        self.mini.stop_broker(name);
    }

    fn restart_broker(&self, name: &str) {
        self.mini.start_broker(name).expect("the broker's old address");
    }
}

/// A delay level as the scenarios' profiles write it: `3s`.
fn seconds(level: &str) -> Duration {
    Duration::from_secs(level.trim_end_matches('s').parse().expect("a number of seconds"))
}

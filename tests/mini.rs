//! The scenarios on the crate's own mini broker, and its answers beside those of the real ones.
//!
//! The same scenarios run on Apache RocketMQ (`tests/apache/`): what passes here alone proves nothing. Each has a mini
//! broker of its own.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod scenarios;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use rocketmq_sync::mini_broker::{MiniBroker, Release};

use scenarios::{Broker, Cluster, Profile, Server, transcript};

macro_rules! on_mini {
    ($module:ident :: $scenario:ident on $profile:ident) => {
        #[test]
        fn $scenario() {
            scenarios::$module::$scenario(&MiniCluster::start(&Profile::$profile, Release::default()));
        }
    };
}

scenarios::for_each_scenario!(on_mini);

#[test]
fn the_script_is_answered_as_by_4_9_7() {
    // The real one calls the missing topic a blank one; the mini broker names the missing field.
    compare_with_transcript(Release::V4_9_7, Server::Apache4, &["send without a topic"]);
}

#[test]
fn the_script_is_answered_as_by_5_5_0() {
    compare_with_transcript(Release::V5_5_0, Server::Apache5, &[]);
}

/// The steps named as `different` are answered otherwise on purpose, and no others.
fn compare_with_transcript(release: Release, real: Server, different: &[&str]) {
    let strict = transcript::record_strict(&MiniCluster::start(&Profile::STRICT, release));
    let auto_create = transcript::record_auto_create(&MiniCluster::start(&Profile::STANDARD, release));
    let mut found = transcript::differences(&transcript::stored(real, "strict"), &strict);
    found.extend(transcript::differences(&transcript::stored(real, "auto-create"), &auto_create));
    let steps: BTreeSet<_> = found.iter().filter_map(|difference| difference.split(" / ").next()).collect();
    assert_eq!(steps, different.iter().copied().collect(), "{}", found.join("\n"));
}

/// A mini broker set up as a profile asks.
struct MiniCluster {
    mini: MiniBroker,
    name_servers: Vec<SocketAddr>,
    brokers: Vec<Broker>,
}

impl MiniCluster {
    fn start(profile: &Profile, release: Release) -> Self {
        let mini = MiniBroker::builder()
            .release(release)
            .name_servers(profile.name_servers)
            .brokers(profile.brokers)
            .auto_create_topics(profile.auto_create_topics)
            .max_message_size(profile.max_message_size)
            .delay_levels(profile.delay_levels.split(' ').map(delay))
            .start()
            .expect("a mini broker");
        let name_servers = mini.name_servers().iter().map(|address| address.parse().expect("an address")).collect();
        let brokers = mini
            .broker_names()
            .into_iter()
            .map(|name| Broker { name: name.to_owned(), address: mini.broker_address(name) });
        let brokers = brokers.collect();
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
        self.mini.start_broker(name).expect("the broker's port is still free");
    }
}

/// A level as a broker's configuration writes it; profiles use whole seconds.
fn delay(level: &str) -> Duration {
    let seconds = level.strip_suffix('s').expect("seconds");
    Duration::from_secs(seconds.parse().expect("a number of seconds"))
}

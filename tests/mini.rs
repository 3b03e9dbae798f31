//! The scenarios on the crate's own mini broker, and a comparison of its responses with those of the real ones.
//!
//! The same scenarios run on Apache RocketMQ (`tests/apache/`): passing here alone proves nothing. Each has its own
//! mini broker.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod scenarios;

use std::any::Any;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use rocketmq_sync::mini_broker::{Fault, MiniBroker, Release};
use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode, ResponseCode};
use rocketmq_sync::{FilterExpression, PushConsumer};

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

/// Does nothing except in a process that a scenario has started for it.
#[test]
fn the_process_that_is_killed() {
    scenarios::crash::consume_if_asked();
}

#[test]
fn the_script_is_answered_as_by_4_9_7() {
    // The real one reports the missing topic as blank; the mini broker names the missing field.
    compare_with_transcript(Release::V4_9_7, Server::Apache4, &["send without a topic"]);
}

#[test]
fn the_script_is_answered_as_by_5_5_0() {
    compare_with_transcript(Release::V5_5_0, Server::Apache5, &[]);
}

/// The members' own responses are scripted: the brokers' list of subscriptions has only the newest.
#[test]
fn the_doctor_names_members_that_subscribe_differently() {
    let cluster = MiniCluster::start(&Profile::STRICT, Release::default());
    let servers: &dyn Cluster = &cluster;
    servers.create_topic("Orders", 2);
    let members = ["one", "two"].map(|id| {
        let builder = PushConsumer::builder("G").name_servers([servers.name_server_list()]).client_id(id);
        let builder = builder.subscribe("Orders", FilterExpression::all());
        builder.each(|_| Ok(())).start().expect("a consumer")
    });
    assert!(cluster.mini.wait_for_members("G", 2, Duration::from_secs(60)));
    let answer_with = |of_two: &'static str| {
        cluster.mini.clear_faults();
        let answer = move |request: &RemotingCommand| {
            let expression = if request.ext_fields.get("clientId") == Some("two") { of_two } else { "A || B" };
            let subscription = serde_json::json!({"topic": "Orders", "subString": expression});
            // As Java writes it: queue keys are objects.
            let info = format!(
                r#"{{"mqTable":{{{{"brokerName":"broker-a","queueId":0,"topic":"Orders"}}:{{"cachedMsgCount":0}}}},"subscriptionSet":[{subscription}]}}"#
            );
            RemotingCommand::response_to(request, ResponseCode::SUCCESS, None).with_body(info)
        };
        cluster.mini.fail(RequestCode::GET_CONSUMER_RUNNING_INFO, Fault::answer(answer));
    };
    let examine = || scenarios::doctor::examine(&servers.name_server_list(), &["--topic", "Orders", "--group", "G"]);
    answer_with("B||A");
    examine().tells("2 asked, all with Orders: A || B");
    answer_with("A");
    examine().fails_first_at("consumer group G", "agreement: members of the group subscribe differently");
    for camp in ["one has Orders: A || B", "two has Orders: A"] {
        examine().tells(camp);
    }
    drop(members);
}

/// Checks that the steps in `different` have other responses on purpose, and no others do.
fn compare_with_transcript(release: Release, real: Server, different: &[&str]) {
    let strict = transcript::record_strict(&MiniCluster::start(&Profile::STRICT, release));
    let auto_create = transcript::record_auto_create(&MiniCluster::start(&Profile::STANDARD, release));
    let mut found = transcript::differences(&transcript::stored(real, "strict"), &strict);
    found.extend(transcript::differences(&transcript::stored(real, "auto-create"), &auto_create));
    let steps: BTreeSet<_> = found.iter().filter_map(|difference| difference.split(" / ").next()).collect();
    assert_eq!(steps, different.iter().copied().collect(), "{}", found.join("\n"));
}

/// Mini broker configured for a profile.
struct MiniCluster {
    mini: MiniBroker,
    name_servers: Vec<SocketAddr>,
    brokers: Vec<Broker>,
}

impl MiniCluster {
    fn start(profile: &Profile, release: Release) -> Self {
        let builder = MiniBroker::builder()
            .release(release)
            .name_servers(profile.name_servers)
            .brokers(profile.brokers)
            .auto_create_topics(profile.auto_create_topics)
            .max_message_size(profile.max_message_size)
            .delay_levels(profile.delay_levels.split(' ').map(delay));
        // Killed brokers lose offsets as the real ones do.
        let builder =
            if profile.isolated { builder.offset_write_interval(Duration::from_millis(500)) } else { builder };
        let mini = builder.start().expect("a mini broker");
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

    fn tell_of_broker(&self, name: &str, address: SocketAddr, topic: &str) -> Box<dyn Any> {
        let route = serde_json::json!({
            "brokerDatas": [{"brokerName": name, "brokerAddrs": {"0": address.to_string()}, "cluster": "DefaultCluster"}],
            "queueDatas": [{"brokerName": name, "perm": 6, "readQueueNums": 1, "writeQueueNums": 1, "topicSysFlag": 0}],
        });
        let answer = move |request: &RemotingCommand| {
            RemotingCommand::response_to(request, ResponseCode::SUCCESS, None).with_body(route.to_string())
        };
        Box::new(self.mini.fail(RequestCode::GET_ROUTEINFO_BY_TOPIC, Fault::answer(answer).topic(topic)))
    }

    fn restart_broker(&self, name: &str) {
        self.mini.start_broker(name).expect("the broker's port is still free");
    }
}

/// Parses a level in the form of a broker's configuration; profiles use whole seconds.
fn delay(level: &str) -> Duration {
    let seconds = level.strip_suffix('s').expect("seconds");
    Duration::from_secs(seconds.parse().expect("a number of seconds"))
}

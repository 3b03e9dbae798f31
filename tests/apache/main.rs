//! The scenarios on real Apache RocketMQ 4.9.7 and 5.5.0.
//!
//! `tests/run` fetches the servers and runs this target; afterwards `cargo test --test apache -- v5_5_0::send` runs a
//! part of it again. Without the servers every test here fails: none is skipped. Scenarios without side effects on
//! others share one cluster per version and profile; see README.md in this folder.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod interop;
mod java_client;
mod jvm;
mod ports;
#[path = "../scenarios/mod.rs"]
mod scenarios;

use scenarios::{Cluster, Profile, Server, transcript};

macro_rules! on_apache {
    ($module:ident :: $scenario:ident on $profile:ident) => {
        #[test]
        fn $scenario() {
            super::on_cluster(SERVER, &super::Profile::$profile, super::scenarios::$module::$scenario);
        }
    };
}

/// The tests of one version.
macro_rules! all_tests_on {
    ($server:ident) => {
        const SERVER: super::Server = super::Server::$server;

        super::scenarios::for_each_scenario!(on_apache);

        #[test]
        fn what_is_sent_here_is_consumed_by_the_java_client() {
            super::interop::what_is_sent_here_is_consumed_by_the_java_client(SERVER);
        }

        #[test]
        fn what_the_java_client_sends_is_consumed_here() {
            super::interop::what_the_java_client_sends_is_consumed_here(SERVER);
        }

        #[test]
        fn a_group_of_both_clients_shares_its_queues_while_members_come_and_go() {
            super::interop::a_group_of_both_clients_shares_its_queues_while_members_come_and_go(SERVER);
        }

        #[test]
        fn the_doctor_asks_java_members_what_they_subscribe_to() {
            super::interop::the_doctor_asks_java_members_what_they_subscribe_to(SERVER);
        }

        #[test]
        fn the_script_is_answered_as_in_the_transcript() {
            super::compare_with_transcript(SERVER);
        }
    };
}

mod v4_9_7 {
    all_tests_on!(Apache4);
}

mod v5_5_0 {
    all_tests_on!(Apache5);
}

/// Does nothing except in a process that a scenario has started for it.
#[test]
fn the_process_that_is_killed() {
    scenarios::crash::consume_if_asked();
}

fn on_cluster(server: Server, profile: &'static Profile, scenario: fn(&dyn Cluster)) {
    if profile.isolated {
        scenario(&cluster::own(server, profile));
    } else {
        scenario(cluster::shared(server, profile));
    }
}

/// Compares the live servers with their stored transcript, or stores it if `RECORD_TRANSCRIPT` is set.
fn compare_with_transcript(server: Server) {
    let strict = transcript::record_strict(cluster::shared(server, &Profile::STRICT));
    let auto_create = transcript::record_auto_create(cluster::shared(server, &Profile::STANDARD));
    for (part, live) in [("strict", strict), ("auto-create", auto_create)] {
        if std::env::var_os("RECORD_TRANSCRIPT").is_some() {
            let text = serde_json::to_string_pretty(&live).expect("JSON");
            std::fs::write(transcript::file(server, part), text + "\n").expect("a writable tests/data");
        }
        let differences = transcript::differences(&transcript::stored(server, part), &live);
        assert!(differences.is_empty(), "{part}:\n{}", differences.join("\n"));
    }
}

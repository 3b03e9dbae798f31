//! The scenarios on real Apache RocketMQ 4.9.7 and 5.5.0.
//!
//! `tests/run` fetches the servers and runs this target; `cargo test --test apache -- v5_5_0::send` then runs a part of
//! it again. Without the servers every test here fails: none is skipped. Scenarios that disturb nobody share one cluster
//! per version and profile; see README.md beside this file.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod jvm;
mod ports;
#[path = "../scenarios/mod.rs"]
mod scenarios;

use scenarios::{Cluster, Profile, Server};

macro_rules! on_apache {
    ($module:ident :: $scenario:ident on $profile:ident) => {
        #[test]
        fn $scenario() {
            super::on_cluster(SERVER, &super::Profile::$profile, super::scenarios::$module::$scenario);
        }
    };
}

mod v4_9_7 {
    const SERVER: super::Server = super::Server::Apache4;
    super::scenarios::for_each_scenario!(on_apache);
}

mod v5_5_0 {
    const SERVER: super::Server = super::Server::Apache5;
    super::scenarios::for_each_scenario!(on_apache);
}

fn on_cluster(server: Server, profile: &'static Profile, scenario: fn(&dyn Cluster)) {
    if profile.isolated {
        scenario(&cluster::own(server, profile));
    } else {
        scenario(cluster::shared(server, profile));
    }
}

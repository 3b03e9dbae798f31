//! What the mini broker and real Apache RocketMQ are both asked: scenarios written once against [`Cluster`].
//!
//! Each binary (`tests/mini.rs`, `tests/apache/main.rs`) brings its own `Cluster` and turns every line of
//! [`for_each_scenario`] into a test. A scenario knows no server: it speaks to addresses, names its topics and groups by
//! [`unique`], waits by [`eventually`] and fails by panicking. Names begin with the row of the conformance list.

mod cluster;
pub(crate) mod kills;
pub(crate) mod raw;
pub(crate) mod server;
pub(crate) mod smoke;
pub(crate) mod transcript;

pub(crate) use cluster::{Broker, Cluster, Profile, Server, eventually, unique};

/// Calls `$test! { module::scenario on PROFILE }` for every scenario.
macro_rules! for_each_scenario {
    ($test:ident) => {
        $test! { smoke::send_13_ten_messages_are_sent_and_consumed on STANDARD }
        $test! { kills::a_broker_killed_in_a_send_storm_costs_no_acknowledged_message on ISOLATED }
        $test! { kills::a_broker_killed_in_the_midst_of_consumption_costs_no_message on ISOLATED }
        $test! { server::a_created_topic_has_a_route_on_every_name_server on STANDARD }
        $test! { server::a_stored_message_is_counted_in_its_queue on STANDARD }
        $test! { server::a_committed_offset_is_told_again on STANDARD }
        $test! { server::a_killed_broker_comes_back_with_its_messages on ISOLATED }
    };
}
pub(crate) use for_each_scenario;

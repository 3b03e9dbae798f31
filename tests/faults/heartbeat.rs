//! Times of heartbeats: a broker identifies a member by its connection.

use std::time::Duration;

use rocketmq_sync::mini_broker::Fault;
use rocketmq_sync::unversioned::wire::RequestCode;

use crate::{PATIENCE, message, mini, producer};

/// Longer than any test: timers with this interval do not fire in one.
const NEVER: Duration = Duration::from_secs(60 * 60);

#[test]
fn a_connection_that_breaks_right_after_a_heartbeat_is_followed_by_another_heartbeat() {
    let mini = mini(1);
    let broken = mini.fail(RequestCode::SEND_MESSAGE_V2, Fault::close().times(1));
    let producer = producer(&mini).heartbeat_interval(NEVER).start().unwrap();
    // The first attempt breaks the connection of the heartbeat, the second one makes another.
    producer.send(&message()).unwrap();
    assert_eq!(mini.fault_hits(broken), 1);
    assert!(mini.wait_for_requests(RequestCode::HEART_BEAT, 2, PATIENCE));
}

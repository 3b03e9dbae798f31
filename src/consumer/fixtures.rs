//! Received messages for the unit tests and the simulation of the cores. Test code only.

use std::net::{Ipv4Addr, SocketAddr};

use crate::message::{Message, MessageExt, MessageQueue};

/// A message as it is pulled from `queue` at `offset`.
pub(crate) fn received(queue: &MessageQueue, offset: i64, body: &'static [u8]) -> MessageExt {
    let host = SocketAddr::from((Ipv4Addr::LOCALHOST, 10911));
    MessageExt {
        message: Message::new(queue.topic.clone(), body),
        broker_name: queue.broker_name.clone(),
        queue_id: queue.queue_id,
        queue_offset: offset,
        commit_log_offset: offset * 100,
        born_timestamp: 0,
        born_host: host,
        store_timestamp: 0,
        store_host: host,
        reconsume_times: 0,
        sys_flag: 0,
        body_crc: 0,
        store_size: 100,
        prepared_transaction_offset: 0,
        defect: None,
    }
}

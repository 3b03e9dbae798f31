//! Builds received messages for the unit tests of listeners (feature `mini-broker`).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use crate::message::{Message, MessageExt};

/// Builder of a received message, for the unit tests of a listener.
///
/// ```
/// use rocketmq_sync::{Message, MessageExt};
///
/// let message = MessageExt::builder(Message::new("TopicTest", "hello")).queue("broker-a", 3).queue_offset(42).build();
/// assert_eq!(message.message_queue().to_string(), "TopicTest/broker-a/3");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct MessageExtBuilder {
    built: MessageExt,
}

impl MessageExt {
    /// Returns a builder of a received message with `message` as the sender's part.
    pub fn builder(message: Message) -> MessageExtBuilder {
        let broker = SocketAddr::from((Ipv4Addr::LOCALHOST, 10911));
        MessageExtBuilder {
            built: Self {
                message,
                broker_name: Arc::from("broker-a"),
                queue_id: 0,
                queue_offset: 0,
                commit_log_offset: 0,
                born_timestamp: 0,
                born_host: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                store_timestamp: 0,
                store_host: broker,
                reconsume_times: 0,
                sys_flag: 0,
                body_crc: 0,
                store_size: 0,
                prepared_transaction_offset: 0,
                defect: None,
            },
        }
    }
}

impl MessageExtBuilder {
    /// Broker name and queue number. Default: `broker-a`, 0.
    pub fn queue(mut self, broker_name: impl Into<Arc<str>>, queue_id: i32) -> Self {
        self.built.broker_name = broker_name.into();
        self.built.queue_id = queue_id;
        self
    }

    /// Position in the queue. Default: 0.
    pub fn queue_offset(mut self, offset: i64) -> Self {
        self.built.queue_offset = offset;
        self
    }

    /// Position in the broker's commit log. Default: 0.
    pub fn commit_log_offset(mut self, offset: i64) -> Self {
        self.built.commit_log_offset = offset;
        self
    }

    /// Number of earlier deliveries that failed. Default: 0.
    pub fn reconsume_times(mut self, times: i32) -> Self {
        self.built.reconsume_times = times;
        self
    }

    /// Time of the message's creation, with a resolution of milliseconds. Default: 1970.
    pub fn born_at(mut self, time: SystemTime) -> Self {
        self.built.born_timestamp = millis_of(time);
        self
    }

    /// Time at which the broker stored the message, with a resolution of milliseconds. Default: 1970.
    pub fn stored_at(mut self, time: SystemTime) -> Self {
        self.built.store_timestamp = millis_of(time);
        self
    }

    /// Address of the sender. Default: 127.0.0.1:0.
    pub fn born_host(mut self, address: SocketAddr) -> Self {
        self.built.born_host = address;
        self
    }

    /// Address of the broker that stored the message. Default: 127.0.0.1:10911.
    pub fn store_host(mut self, address: SocketAddr) -> Self {
        self.built.store_host = address;
        self
    }

    /// Flag bits of the wire (`sysFlag`). Default: 0.
    pub fn sys_flag(mut self, bits: i32) -> Self {
        self.built.sys_flag = bits;
        self
    }

    /// Returns the message.
    #[must_use]
    pub fn build(self) -> MessageExt {
        self.built
    }
}

fn millis_of(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

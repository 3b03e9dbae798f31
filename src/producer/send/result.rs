//! Result of a send that was stored, made from the broker's response.

use std::borrow::Cow;
use std::sync::Arc;

use crate::message::MessageQueue;
use crate::wire::header::SendMessageResponse;
use crate::wire::{self, RemotingCommand, ResponseCode};

/// Storage status of a message. In every case the message *is* stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendStatus {
    /// As safely as the broker is configured to store.
    Ok,
    /// The broker flushes synchronously, and the flush did not end in time.
    FlushDiskTimeout,
    /// The broker replicates synchronously, and the slave did not confirm in time.
    FlushSlaveTimeout,
    /// The broker replicates synchronously, and there is no slave.
    SlaveNotAvailable,
}

impl SendStatus {
    /// The status that a response code stands for; `None` when the code says that nothing was stored.
    pub(crate) fn of(code: ResponseCode) -> Option<Self> {
        match code {
            ResponseCode::SUCCESS => Some(Self::Ok),
            ResponseCode::FLUSH_DISK_TIMEOUT => Some(Self::FlushDiskTimeout),
            ResponseCode::FLUSH_SLAVE_TIMEOUT => Some(Self::FlushSlaveTimeout),
            ResponseCode::SLAVE_NOT_AVAILABLE => Some(Self::SlaveNotAvailable),
            _ => None,
        }
    }
}

/// A message was stored: where, and under which ids.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendResult {
    /// Storage status.
    pub status: SendStatus,
    /// The id that the message carries with it; the consumer sees the same.
    pub msg_id: String,
    /// The broker's id of it, made of the broker's address and the position in its commit log.
    pub offset_msg_id: String,
    /// The queue it was stored in.
    pub queue: MessageQueue,
    /// Its position in the queue.
    pub queue_offset: i64,
    /// Region configured at the broker; `DefaultRegion` where the broker sends none.
    pub region_id: Cow<'static, str>,
    /// True if the broker asks for message trace.
    pub trace_on: bool,
}

/// Region that brokers send when none is configured.
const DEFAULT_REGION: &str = "DefaultRegion";

/// A broker's response about a message that it has stored.
#[derive(Debug)]
pub(crate) struct SendReceipt {
    pub(crate) status: SendStatus,
    pub(crate) offset_msg_id: String,
    pub(crate) queue_id: i32,
    pub(crate) queue_offset: i64,
    pub(crate) region_id: Cow<'static, str>,
    pub(crate) trace_on: bool,
}

impl SendReceipt {
    /// Reads the answer to a send that was stored so.
    pub(crate) fn read(status: SendStatus, response: &RemotingCommand) -> Result<Self, wire::Error> {
        let header = SendMessageResponse::from_fields(&response.ext_fields)?;
        Ok(Self {
            status,
            offset_msg_id: header.msg_id.to_owned(),
            queue_id: header.queue_id,
            queue_offset: header.queue_offset,
            region_id: match header.region_id {
                None | Some("" | DEFAULT_REGION) => Cow::Borrowed(DEFAULT_REGION),
                Some(other) => Cow::Owned(other.to_owned()),
            },
            trace_on: header.trace_on != Some(false),
        })
    }

    /// The result of a message with this id that was sent to this broker.
    pub(crate) fn into_result(self, msg_id: String, topic: Arc<str>, broker_name: Arc<str>) -> SendResult {
        let Self { status, offset_msg_id, queue_id, queue_offset, region_id, trace_on } = self;
        let queue = MessageQueue { topic, broker_name, queue_id };
        SendResult { status, msg_id, offset_msg_id, queue, queue_offset, region_id, trace_on }
    }
}

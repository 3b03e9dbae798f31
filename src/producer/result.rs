//! What a send that was stored returns, and how a broker's answer becomes it.

use std::sync::Arc;

use crate::client::rpc::unreadable;
use crate::error::{Certainty, Error, Result};
use crate::message::MessageQueue;
use crate::wire::header::SendMessageResponse;
use crate::wire::{RemotingCommand, ResponseCode};

/// How safely a message is stored. In every case it *is* stored.
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
    pub(super) fn of(code: ResponseCode) -> Option<Self> {
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
    /// How safely.
    pub status: SendStatus,
    /// The id that the message carries with it; the consumer sees the same.
    pub msg_id: String,
    /// The broker's id of it, made of the broker's address and the position in its commit log.
    pub offset_msg_id: String,
    /// The queue it was stored in.
    pub queue: MessageQueue,
    /// Its position in the queue.
    pub queue_offset: i64,
}

/// Reads the answer to a send to `queue`.
pub(super) fn read_answer(
    message_id: &str,
    queue: &MessageQueue,
    response: &RemotingCommand,
    address: &str,
) -> Result<SendResult> {
    let code = response.response_code();
    let Some(status) = SendStatus::of(code) else {
        return Err(Error::refused(code, response.remark.as_deref(), address));
    };
    let header = SendMessageResponse::from_fields(&response.ext_fields)
        .map_err(|error| unreadable(address, &error).with_certainty(Certainty::Stored))?;
    let queue = MessageQueue {
        queue_id: header.queue_id,
        topic: Arc::clone(&queue.topic),
        broker_name: Arc::clone(&queue.broker_name),
    };
    Ok(SendResult {
        status,
        msg_id: message_id.to_owned(),
        offset_msg_id: header.msg_id.to_owned(),
        queue,
        queue_offset: header.queue_offset,
    })
}

//! Offsets of queues: stored ones of a group, first, last and by time.

use std::sync::Arc;

use super::unreadable;
use crate::client::Core;
use crate::error::Result;
use crate::message::MessageQueue;
use crate::remoting::Request;
use crate::wire::header::{
    OffsetResponse, QueryConsumerOffsetRequest, QueueRequest, SearchOffsetRequest, UpdateConsumerOffsetRequest,
};
use crate::wire::{RemotingCommand, RequestCode, ResponseCode};

impl Core {
    /// The offset that a group has stored for a queue; `None` when the broker has none. Any other failure is an error
    /// and says nothing about the offset.
    pub(crate) fn query_consumer_offset(
        &self,
        address: &Arc<str>,
        group: &str,
        queue: &MessageQueue,
        then: impl FnOnce(Result<Option<i64>>) + Send + 'static,
    ) {
        let header = QueryConsumerOffsetRequest {
            consumer_group: group,
            topic: &queue.topic,
            queue_id: queue.queue_id,
            set_zero_if_not_found: Some(false),
            broker_name: Some(&queue.broker_name),
        };
        let request = Request::new(RequestCode::QUERY_CONSUMER_OFFSET, &header);
        let asked = Arc::clone(address);
        self.call(address, request, self.request_deadline(), move |answer| {
            then(match answer {
                Ok(response) => read_offset(&asked, &response).map(Some),
                Err(error) if error.broker_code() == Some(ResponseCode::QUERY_NOT_FOUND) => Ok(None),
                Err(error) => Err(error),
            });
        });
    }

    /// Stores a group's offset of a queue, and waits for the broker's confirmation.
    pub(crate) fn update_consumer_offset(
        &self,
        address: &Arc<str>,
        group: &str,
        queue: &MessageQueue,
        offset: i64,
        then: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        let header = UpdateConsumerOffsetRequest {
            consumer_group: group,
            topic: &queue.topic,
            queue_id: queue.queue_id,
            commit_offset: offset,
            broker_name: Some(&queue.broker_name),
        };
        let request = Request::new(RequestCode::UPDATE_CONSUMER_OFFSET, &header);
        self.call(address, request, self.request_deadline(), move |answer| then(answer.map(drop)));
    }

    /// The offset behind the last message of a queue.
    pub(crate) fn max_offset(
        &self,
        address: &Arc<str>,
        queue: &MessageQueue,
        then: impl FnOnce(Result<i64>) + Send + 'static,
    ) {
        self.ask_for_offset(RequestCode::GET_MAX_OFFSET, address, queue, then);
    }

    /// The offset of the first message that a queue still has.
    pub(crate) fn min_offset(
        &self,
        address: &Arc<str>,
        queue: &MessageQueue,
        then: impl FnOnce(Result<i64>) + Send + 'static,
    ) {
        self.ask_for_offset(RequestCode::GET_MIN_OFFSET, address, queue, then);
    }

    fn ask_for_offset(
        &self,
        code: RequestCode,
        address: &Arc<str>,
        queue: &MessageQueue,
        then: impl FnOnce(Result<i64>) + Send + 'static,
    ) {
        let header =
            QueueRequest { topic: &queue.topic, queue_id: queue.queue_id, broker_name: Some(&queue.broker_name) };
        let asked = Arc::clone(address);
        self.call(address, Request::new(code, &header), self.request_deadline(), move |answer| {
            then(answer.and_then(|response| read_offset(&asked, &response)));
        });
    }

    /// The offset of the first message stored at `timestamp`, in milliseconds since 1970, or later.
    pub(crate) fn search_offset(
        &self,
        address: &Arc<str>,
        queue: &MessageQueue,
        timestamp: i64,
        then: impl FnOnce(Result<i64>) + Send + 'static,
    ) {
        let header = SearchOffsetRequest {
            topic: &queue.topic,
            queue_id: queue.queue_id,
            timestamp,
            boundary_type: None,
            broker_name: Some(&queue.broker_name),
        };
        let request = Request::new(RequestCode::SEARCH_OFFSET_BY_TIMESTAMP, &header);
        let asked = Arc::clone(address);
        self.call(address, request, self.request_deadline(), move |answer| {
            then(answer.and_then(|response| read_offset(&asked, &response)));
        });
    }
}

fn read_offset(address: &Arc<str>, response: &RemotingCommand) -> Result<i64> {
    let header = OffsetResponse::from_fields(&response.ext_fields).map_err(|error| unreadable(address, &error))?;
    Ok(header.offset)
}

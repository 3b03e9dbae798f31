//! One function for each request that a client makes on its own behalf: typed values in, a typed result out.
//!
//! All are asynchronous: `then` runs exactly once, on `rmq-remoting` or, when the request is refused, on the caller's
//! thread, and must not block. A response whose code is not success is an error.

use std::sync::Arc;
use std::time::Instant;

use super::Core;
use super::member::MemberKey;
use crate::error::{Certainty, Error, ErrorKind, Result};
use crate::message::MessageQueue;
use crate::remoting::{Completion, Request};
use crate::wire::body::{ConsumerList, SUBSCRIBE_ALL};
use crate::wire::header::{
    ConsumerSendMsgBackRequest, GetConsumerListByGroupRequest, OffsetResponse, PullMessageRequest,
    QueryConsumerOffsetRequest, QueueRequest, SearchOffsetRequest, UnregisterClientRequest,
    UpdateConsumerOffsetRequest,
};
use crate::wire::sys_flag::pull as pull_flag;
use crate::wire::{self, RemotingCommand, RequestCode, ResponseCode, body};

impl Core {
    /// Sends a request; a refusal is an error.
    pub(crate) fn call(
        &self,
        address: &Arc<str>,
        request: Request<'_>,
        deadline: Instant,
        then: impl FnOnce(Result<RemotingCommand>) + Send + 'static,
    ) {
        let asked = Arc::clone(address);
        let completion = Completion::new(move |outcome| {
            then(outcome.map_err(Error::from).and_then(|response| accepted(&asked, response)));
        });
        self.remoting.invoke_async(address, request, deadline, completion);
    }

    /// The offset that a group has stored for a queue; `None` when the broker says that there is none. Any other
    /// failure is an error: it tells nothing about the offset.
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

    /// The client ids of a group's members, as the broker lists them.
    pub(crate) fn consumer_list(
        &self,
        address: &Arc<str>,
        group: &str,
        then: impl FnOnce(Result<Vec<String>>) + Send + 'static,
    ) {
        let header = GetConsumerListByGroupRequest { consumer_group: group, broker_name: None };
        let request = Request::new(RequestCode::GET_CONSUMER_LIST_BY_GROUP, &header);
        let asked = Arc::clone(address);
        self.call(address, request, self.request_deadline(), move |answer| {
            then(answer.and_then(|response| {
                let list: ConsumerList =
                    body::decode("consumer list", &response.body).map_err(|error| unreadable(&asked, &error))?;
                Ok(list.consumer_id_list)
            }));
        });
    }

    /// Whether a group exists at a broker, or is made when it is first used. A pull tells: a broker looks for the group
    /// before anything else, while it passes over one that does not exist in heartbeats.
    pub(crate) fn does_group_exist(
        &self,
        address: &Arc<str>,
        group: &str,
        queue: &MessageQueue,
        then: impl FnOnce(bool) + Send + 'static,
    ) {
        let header = PullMessageRequest {
            consumer_group: group,
            topic: &queue.topic,
            queue_id: queue.queue_id,
            max_msg_nums: 1,
            sys_flag: pull_flag::SUBSCRIPTION,
            subscription: Some(SUBSCRIBE_ALL),
            broker_name: Some(&queue.broker_name),
            ..PullMessageRequest::default()
        };
        let request = Request::new(RequestCode::PULL_MESSAGE, &header);
        self.call(address, request, self.request_deadline(), move |answer| {
            then(!answer.is_err_and(|error| error.broker_code() == Some(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST)));
        });
    }

    /// Hands a message back to the broker for a later delivery.
    pub(crate) fn send_message_back(
        &self,
        address: &Arc<str>,
        header: &ConsumerSendMsgBackRequest<'_>,
        deadline: Instant,
        then: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        let request = Request::new(RequestCode::CONSUMER_SEND_MSG_BACK, header);
        self.call(address, request, deadline, move |answer| then(answer.map(drop)));
    }

    /// Tells a broker that a member of this client is gone.
    pub(crate) fn unregister(
        &self,
        address: &Arc<str>,
        member: &MemberKey,
        deadline: Instant,
        then: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        let (producer_group, consumer_group) = match member {
            MemberKey::Producer(group) => (Some(&**group), None),
            MemberKey::Consumer(group) => (None, Some(&**group)),
        };
        let header = UnregisterClientRequest {
            client_id: &self.identity.client_id,
            producer_group,
            consumer_group,
            broker_name: None,
        };
        let request = Request::new(RequestCode::UNREGISTER_CLIENT, &header);
        self.call(address, request, deadline, move |answer| then(answer.map(drop)));
    }
}

fn accepted(address: &Arc<str>, response: RemotingCommand) -> Result<RemotingCommand> {
    match response.response_code() {
        ResponseCode::SUCCESS => Ok(response),
        code => Err(Error::refused(code, response.remark.as_deref(), address)),
    }
}

fn read_offset(address: &Arc<str>, response: &RemotingCommand) -> Result<i64> {
    let header = OffsetResponse::from_fields(&response.ext_fields).map_err(|error| unreadable(address, &error))?;
    Ok(header.offset)
}

/// A peer's answer that does not follow the protocol.
pub(crate) fn unreadable(address: &str, error: &wire::Error) -> Error {
    Error::new(ErrorKind::Protocol, format!("reading the response failed: {error}"))
        .with_source(error.clone())
        .with_certainty(Certainty::Unknown)
        .with_address(address)
}

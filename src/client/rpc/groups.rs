//! Groups at a broker: members, existence, the end of a member.

use std::sync::Arc;
use std::time::Instant;

use super::unreadable;
use crate::client::Core;
use crate::client::member::MemberKey;
use crate::error::Result;
use crate::message::MessageQueue;
use crate::remoting::Request;
use crate::wire::body::{ConsumerList, SUBSCRIBE_ALL};
use crate::wire::header::{GetConsumerListByGroupRequest, PullMessageRequest, UnregisterClientRequest};
use crate::wire::sys_flag::pull as pull_flag;
use crate::wire::{RequestCode, ResponseCode, body};

impl Core {
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

    /// Asks a broker for the existence of a group; groups created at first use exist. The request is a pull: a broker
    /// checks the group of a pull first, and ignores an unknown group in a heartbeat.
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

    /// Unregisters a member of this client at a broker.
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

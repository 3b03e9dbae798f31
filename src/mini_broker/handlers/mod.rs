//! Request handlers of the servers: one function per request code, selected here.
//!
//! Handlers run on the broker's thread and only change values. An `Err` is a refusal: a response like any other,
//! returned early. A header that cannot be decoded is refused with the text of the Java exception of a real broker.

mod membership;
mod name_server;
mod offsets;
mod pull;
mod send;

pub(super) use name_server::Registry;
pub(super) use pull::answer_ended_pulls;

use super::broker::Broker;
use super::exchange::{Answer, BrokerRequest, Reply};
use crate::wire::{self, RequestCode, ResponseCode};

type Handled = Result<Reply, Answer>;

/// Handles a request to a broker.
pub(super) fn broker(broker: &mut Broker, request: &BrokerRequest) -> Reply {
    let handler: fn(&mut Broker, &BrokerRequest) -> Handled = match request.command.request_code() {
        RequestCode::SEND_MESSAGE | RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE => send::send,
        RequestCode::CONSUMER_SEND_MSG_BACK => send::send_back,
        RequestCode::UPDATE_AND_CREATE_TOPIC => send::create_topic,
        RequestCode::PULL_MESSAGE => pull::pull,
        RequestCode::VIEW_MESSAGE_BY_ID => pull::view_message,
        RequestCode::QUERY_CONSUMER_OFFSET => offsets::query,
        RequestCode::UPDATE_CONSUMER_OFFSET => offsets::update,
        RequestCode::GET_MAX_OFFSET => offsets::max,
        RequestCode::GET_MIN_OFFSET => offsets::min,
        RequestCode::SEARCH_OFFSET_BY_TIMESTAMP => offsets::search,
        RequestCode::GET_EARLIEST_MSG_STORETIME => offsets::earliest_store_time,
        RequestCode::HEART_BEAT => membership::heartbeat,
        RequestCode::UNREGISTER_CLIENT => membership::unregister,
        RequestCode::GET_CONSUMER_LIST_BY_GROUP => membership::list,
        RequestCode::GET_CONSUMER_CONNECTION_LIST => membership::connections,
        RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => membership::create_group,
        _ => |_, request| Err(not_supported(request)),
    };
    handler(broker, request).unwrap_or_else(Reply::Now)
}

/// Handles a request to a name server.
pub(super) fn name_server(registry: &Registry<'_>, request: &BrokerRequest) -> Reply {
    let handled = match request.command.request_code() {
        RequestCode::GET_ROUTEINFO_BY_TOPIC => name_server::route(registry, request),
        RequestCode::GET_BROKER_CLUSTER_INFO => name_server::cluster_info(registry),
        // A name server of 4.x does not answer unknown requests.
        _ if !registry.settings.release.is_v5() => Ok(Reply::Never),
        _ => Err(not_supported(request)),
    };
    handled.unwrap_or_else(Reply::Now)
}

impl From<wire::Error> for Answer {
    fn from(error: wire::Error) -> Self {
        Self::refusal(ResponseCode::SYSTEM_ERROR, format!("java.lang.NullPointerException: {error}"))
    }
}

fn not_supported(request: &BrokerRequest) -> Answer {
    let remark = format!(" request type {} not supported", request.command.code);
    Answer::refusal(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, remark)
}

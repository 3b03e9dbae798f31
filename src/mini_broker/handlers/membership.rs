//! Membership of consumer groups: heartbeats, member lists, and the notification of changes.
//!
//! Members are identified by connection: a member whose connection is replaced unnoticed by the broker is listed twice.
//! Not modelled: the second heartbeat version; the expiry after 120 s of silence (with injected time all members would
//! expire at once); producer groups, which matter to transactions only.

use serde::Deserialize;

use super::Handled;
use crate::mini_broker::broker::{Broker, Group, GroupMember};
use crate::mini_broker::exchange::{Answer, BrokerRequest};
use crate::wire::ResponseCode;
use crate::wire::body::{
    self, Connection, ConsumeFromWhere, ConsumeType, ConsumerConnection, ConsumerData, ConsumerList, HeartbeatData,
    MessageModel, SubscriptionData,
};
use crate::wire::header::{GetConsumerListByGroupRequest, UnregisterClientRequest};
use crate::wire::name::retry_topic;

pub(super) fn heartbeat(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let heartbeat: HeartbeatData = body::decode("heartbeat", &request.command.body)?;
    let connection = request.return_to.connection;
    for consumer in &heartbeat.consumer_data_set {
        broker.ensure_group_topic(&retry_topic(&consumer.group_name));
        // A broker without automatic creation of groups ignores an unknown one silently.
        let Ok(group) = broker.group(&consumer.group_name) else { continue };
        let is_new = register(group, connection, request, &heartbeat.client_id);
        let is_changed = subscribe(group, consumer);
        if is_new || is_changed {
            broker.notify_members(&consumer.group_name);
        }
    }
    let answer = Answer::success();
    Ok(if broker.settings.release.is_v5() {
        answer.with_field("IS_SUPPORT_HEART_BEAT_V2", "true").with_field("IS_SUB_CHANGE", "true").into()
    } else {
        answer.into()
    })
}

pub(super) fn unregister(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let header = UnregisterClientRequest::from_fields(&request.command.ext_fields)?;
    let connection = request.return_to.connection;
    if let Some(name) = header.consumer_group
        && let Some(group) = broker.groups.get_mut(name)
    {
        let before = group.members.len();
        group.members.retain(|member| member.connection != connection);
        if group.members.len() < before {
            broker.notify_members(name);
        }
    }
    Ok(Answer::success().into())
}

pub(super) fn list(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let header = GetConsumerListByGroupRequest::from_fields(&request.command.ext_fields)?;
    let consumer_id_list = broker.groups.get(header.consumer_group).map(told_members).unwrap_or_default();
    let lies = broker.groups.get(header.consumer_group).is_some_and(|group| group.told_members.is_some());
    if consumer_id_list.is_empty() && !lies {
        let remark = format!("no consumer for this group, {}", header.consumer_group);
        return Err(Answer::refusal(ResponseCode::SYSTEM_ERROR, remark));
    }
    Ok(Answer::success().with_body(body::encode("consumer list", &ConsumerList { consumer_id_list })?).into())
}

/// Returns the members with their connections, and the subscriptions of the newest heartbeats.
pub(super) fn connections(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let name = request.command.ext_fields.get("consumerGroup").unwrap_or_default();
    let Some(group) = broker.groups.get(name).filter(|group| !group.members.is_empty()) else {
        let remark = format!("the consumer group[{name}] not online");
        return Err(Answer::refusal(ResponseCode::CONSUMER_NOT_ONLINE, remark));
    };
    let of_member = |member: &GroupMember| Connection {
        client_id: member.client_id.clone(),
        client_addr: member.address.to_string(),
        language: Some(member.language.name().unwrap_or("OTHER").to_owned()),
        version: member.version,
    };
    let list = ConsumerConnection {
        connection_set: group.members.iter().map(of_member).collect(),
        subscription_table: group.subscriptions.clone(),
        consume_type: Some(ConsumeType::Passively),
        message_model: Some(if group.broadcasting { MessageModel::Broadcasting } else { MessageModel::Clustering }),
        consume_from_where: Some(ConsumeFromWhere::LastOffset),
    };
    Ok(Answer::success().with_body(body::encode("consumer connections", &list)?).into())
}

/// Creates the group; its settings have no effect.
pub(super) fn create_group(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let config: GroupConfig = body::decode("group", &request.command.body)?;
    broker.groups.entry(config.group_name).or_default();
    Ok(Answer::success().into())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupConfig {
    group_name: String,
}

fn told_members(group: &Group) -> Vec<String> {
    let members = || group.members.iter().map(|member| member.client_id.clone()).collect();
    group.told_members.clone().unwrap_or_else(members)
}

/// Registers the connection. Returns true if it is a new member.
fn register(group: &mut Group, connection: u64, request: &BrokerRequest, client_id: &str) -> bool {
    if let Some(member) = group.members.iter_mut().find(|member| member.connection == connection) {
        client_id.clone_into(&mut member.client_id);
        return false;
    }
    if group.members.is_empty() {
        // A real broker drops a group's subscriptions with its last member.
        group.subscriptions.clear();
    }
    group.members.push(GroupMember {
        connection,
        client_id: client_id.to_owned(),
        address: request.peer,
        language: request.command.language,
        version: request.command.version,
    });
    true
}

/// Takes newer subscriptions, and drops those missing in the newest heartbeat. Returns true if the topics have changed.
fn subscribe(group: &mut Group, consumer: &ConsumerData) -> bool {
    group.broadcasting = consumer.message_model == MessageModel::Broadcasting;
    let wanted = |topic: &String| consumer.subscription_data_set.iter().any(|wanted| wanted.topic == *topic);
    let before = group.subscriptions.len();
    group.subscriptions.retain(|topic, _| wanted(topic));
    let mut is_changed = group.subscriptions.len() < before;
    for told in &consumer.subscription_data_set {
        is_changed |= subscribe_to(group, told);
    }
    is_changed
}

fn subscribe_to(group: &mut Group, told: &SubscriptionData) -> bool {
    match group.subscriptions.get_mut(&told.topic) {
        Some(known) => {
            if told.sub_version > known.sub_version {
                known.clone_from(told);
            }
            false
        }
        None => group.subscriptions.insert(told.topic.clone(), told.clone()).is_none(),
    }
}

//! Checks of a consumer group: its members, and the agreement of their subscriptions.

use std::collections::{BTreeMap, BTreeSet};

use rocketmq_sync::unversioned::wire::body::{self, Connection, ConsumerConnection, SubscriptionData};
use rocketmq_sync::unversioned::wire::header::{GetConsumerConnectionListRequest, GetConsumerRunningInfoRequest};
use rocketmq_sync::unversioned::wire::name::RETRY_PREFIX;
use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use serde::Deserialize;

use crate::cluster::{Reached, listed, refusal};
use crate::network::Network;
use crate::report::Report;

/// Part of a member's running info that is needed here; clients of other languages format the rest differently.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RunningInfo {
    subscription_set: Vec<SubscriptionData>,
}

/// Topics with their expressions, as texts.
type Subscriptions = BTreeMap<String, String>;

pub(crate) fn check(report: &mut Report, network: &Network, group: &str, topic: Option<&str>, brokers: &[Reached]) {
    report.at(format!("consumer group {group}"));
    if brokers.is_empty() {
        return report.unknown("members", "no broker can be queried");
    }
    let mut online = Vec::new();
    for broker in brokers {
        match connections(network, broker, group) {
            Ok(Some(connections)) => online.push((broker, connections)),
            Ok(None) => {}
            Err(words) => {
                report.fail("members", format!("{}: {words}", broker.name), "Look into the broker's log.");
            }
        }
    }
    if online.is_empty() {
        return report.fail(
            "members",
            format!("no consumer of the group is connected to {}", listed(brokers.iter().map(|broker| &broker.name))),
            "Is the consumer running, with exactly this group, on this cluster, and can its machine reach these brokers? A \
             broker forgets a consumer that it has not heard of for two minutes.",
        );
    }
    check_members(report, brokers, &online);
    check_topic(report, topic, &online);
    check_agreement(report, network, group, &online);
}

/// Queries the members; `None` if the broker has none.
fn connections(network: &Network, broker: &Reached, group: &str) -> Result<Option<ConsumerConnection>, String> {
    let header = GetConsumerConnectionListRequest { consumer_group: group, broker_name: None };
    let answer = network.ask(&broker.address, RequestCode::GET_CONSUMER_CONNECTION_LIST, &header);
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.response_code() {
        ResponseCode::SUCCESS => {
            let connections: ConsumerConnection =
                body::decode("consumer connections", &answer.body).map_err(|error| error.to_string())?;
            Ok(Some(connections).filter(|connections| !connections.connection_set.is_empty()))
        }
        ResponseCode::CONSUMER_NOT_ONLINE => Ok(None),
        code => Err(refusal(code, &answer)),
    }
}

fn check_members(report: &mut Report, brokers: &[Reached], online: &[(&Reached, ConsumerConnection)]) {
    let members = members(online);
    for (id, (connection, known_to)) in &members {
        let language = connection.language.as_deref().unwrap_or_default();
        report.ok("member", format!("{id} ({language}) from {}", connection.client_addr));
        let missing: Vec<_> = brokers.iter().filter(|broker| !known_to.contains(broker.name.as_str())).collect();
        if !missing.is_empty() {
            report.warn(
                "member",
                format!("{id} is not registered at {}", listed(missing.iter().map(|broker| &broker.name))),
                "A consumer tells the brokers of its topics every 30 seconds that it is there. If this stays so: does it \
                 subscribe to a topic there, and does its machine reach that broker?",
            );
        }
    }
    for (broker, connections) in online {
        let ids = connections.connection_set.iter().map(|connection| connection.client_id.as_str());
        let mut seen = BTreeSet::new();
        let twice: BTreeSet<_> = ids.filter(|id| !seen.insert(*id)).collect();
        if !twice.is_empty() {
            report.fail(
                "member",
                format!("{} has more than one connection of {}", broker.name, listed(twice)),
                "Members with the same client id take the same queues and leave others unread: give each process an id or \
                 instance name of its own. After a network failure this is normal for two minutes.",
            );
        }
    }
}

/// Returns each member with the names of the brokers that list it.
fn members<'a>(online: &'a [(&Reached, ConsumerConnection)]) -> BTreeMap<&'a str, (&'a Connection, BTreeSet<&'a str>)> {
    let mut members = BTreeMap::new();
    for (broker, connections) in online {
        for connection in &connections.connection_set {
            let (_, known_to) =
                members.entry(connection.client_id.as_str()).or_insert_with(|| (connection, BTreeSet::new()));
            known_to.insert(broker.name.as_str());
        }
    }
    members
}

/// Checks that the brokers have the group's subscription to the topic.
fn check_topic(report: &mut Report, topic: Option<&str>, online: &[(&Reached, ConsumerConnection)]) {
    let Some(topic) = topic else { return };
    for (broker, connections) in online {
        match connections.subscription_table.get(topic) {
            Some(subscription) => {
                report.ok("subscription", format!("{} has {topic}: {}", broker.name, expression(subscription)));
            }
            None => {
                let known = subscriptions(connections.subscription_table.values());
                report.fail(
                    "subscription",
                    format!("{} has no subscription to {topic}, only {}", broker.name, in_words(&known)),
                    "Subscribe to the topic in this group, and check the spelling of both.",
                );
            }
        }
    }
}

/// Queries every member through a broker; brokers themselves only store the subscription of the latest heartbeat.
fn check_agreement(report: &mut Report, network: &Network, group: &str, online: &[(&Reached, ConsumerConnection)]) {
    let mut told: BTreeMap<Subscriptions, Vec<&str>> = BTreeMap::new();
    let mut silent = Vec::new();
    for (id, (_, known_to)) in members(online) {
        let broker = online.iter().find(|(broker, _)| known_to.contains(broker.name.as_str()));
        match broker.and_then(|(broker, _)| subscriptions_of(network, broker, group, id)) {
            Some(own) => told.entry(own).or_default().push(id),
            None => silent.push(id),
        }
    }
    if told.len() > 1 {
        let camps = told.iter().map(|(subscriptions, ids)| format!("{} has {}", listed(ids), in_words(subscriptions)));
        report.fail(
            "agreement",
            format!("members of the group subscribe differently: {}", camps.collect::<Vec<_>>().join("; ")),
            "Let all members of a group subscribe to the same topics with the same expressions: each overwrites what the \
             others told the brokers, and messages are passed over. Finish the roll-out, or use a group for each kind.",
        );
    } else if let Some((subscriptions, ids)) = told.first_key_value() {
        report.ok("agreement", format!("{} asked, all with {}", ids.len(), in_words(subscriptions)));
    }
    if !silent.is_empty() {
        report.unknown("agreement", format!("not reported by {}", listed(silent)));
    }
}

/// Queries a member's subscriptions; `None` if the member or the broker does not return them.
fn subscriptions_of(network: &Network, broker: &Reached, group: &str, id: &str) -> Option<Subscriptions> {
    let header = GetConsumerRunningInfoRequest { consumer_group: group, client_id: id, jstack_enable: Some(false) };
    let answer = network.ask(&broker.address, RequestCode::GET_CONSUMER_RUNNING_INFO, &header).ok()?;
    if answer.response_code() != ResponseCode::SUCCESS {
        return None;
    }
    let info: RunningInfo = body::decode("running info", &answer.body).ok()?;
    Some(subscriptions(info.subscription_set.iter()))
}

/// Collects subscriptions without the retry topic, to which every consumer subscribes automatically.
fn subscriptions<'a>(all: impl Iterator<Item = &'a SubscriptionData>) -> Subscriptions {
    let own = all.filter(|subscription| !subscription.topic.starts_with(RETRY_PREFIX));
    own.map(|subscription| (subscription.topic.clone(), expression(subscription))).collect()
}

/// Normalises an expression: the order of tags does not matter.
fn expression(subscription: &SubscriptionData) -> String {
    let mut parts: Vec<_> = subscription.sub_string.split("||").map(str::trim).collect();
    match subscription.expression_type.as_deref() {
        None | Some("TAG") => {
            parts.sort_unstable();
            parts.join(" || ")
        }
        Some(kind) => format!("{kind} {}", subscription.sub_string),
    }
}

fn in_words(subscriptions: &Subscriptions) -> String {
    let each = subscriptions.iter().map(|(topic, expression)| format!("{topic}: {expression}"));
    if subscriptions.is_empty() { "nothing".to_owned() } else { each.collect::<Vec<_>>().join(", ") }
}

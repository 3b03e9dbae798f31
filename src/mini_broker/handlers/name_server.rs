//! Route and cluster requests of a name server.
//!
//! Not modelled: registrations. All name servers of a mini broker have the same direct view of its brokers. A stopped
//! broker disappears at once, as it does when its connection to a real name server breaks.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::Handled;
use crate::mini_broker::broker::Broker;
use crate::mini_broker::exchange::{Answer, BrokerRequest, Condition};
use crate::mini_broker::settings::Settings;
use crate::wire::ResponseCode;
use crate::wire::body::{self, BrokerData, ClusterInfo, MASTER_ID, QueueData, TopicRouteData};
use crate::wire::header::GetRouteInfoRequest;

/// Protocol version from which clients get standard JSON without requesting it: `V4_9_4`.
const STANDARD_JSON_SINCE: i32 = 401;

/// The part of the mini broker that its name servers answer from.
#[derive(Debug)]
pub(in crate::mini_broker) struct Registry<'a> {
    pub(in crate::mini_broker) settings: &'a Settings,
    pub(in crate::mini_broker) brokers: &'a [Broker],
}

pub(super) fn route(registry: &Registry<'_>, request: &BrokerRequest) -> Handled {
    let Ok(header) = GetRouteInfoRequest::from_fields(&request.command.ext_fields) else {
        return Err(no_route(registry, "null"));
    };
    let mut route = TopicRouteData::default();
    for broker in brokers(registry) {
        let Some(topic) = broker.store.topic(header.topic) else { continue };
        route.broker_datas.push(broker_data(registry, broker));
        route.queue_datas.push(QueueData {
            broker_name: broker.name.to_string(),
            read_queue_nums: topic.config.read_queues,
            write_queue_nums: topic.config.write_queues,
            perm: topic.config.perm,
            topic_sys_flag: 0,
        });
    }
    if route.broker_datas.is_empty() {
        return Err(no_route(registry, header.topic));
    }
    let json = java_json(registry, &route)?;
    let is_standard =
        request.command.version >= STANDARD_JSON_SINCE || header.accept_standard_json_only.unwrap_or_default();
    let json = if is_standard && !registry.settings.raw_route_json { json } else { with_bare_integer_keys(&json) };
    Ok(Answer::success().with_body(json).into())
}

pub(super) fn cluster_info(registry: &Registry<'_>) -> Handled {
    let mut info = ClusterInfo::default();
    for broker in brokers(registry) {
        info.broker_addr_table.insert(broker.name.to_string(), broker_data(registry, broker));
        info.cluster_addr_table.entry(registry.settings.cluster.clone()).or_default().push(broker.name.to_string());
    }
    let json = java_json(registry, &info)?;
    Ok(Answer::success().with_body(with_bare_integer_keys(&json)).into())
}

fn brokers<'a>(registry: &Registry<'a>) -> impl Iterator<Item = &'a Broker> {
    registry.brokers.iter().filter(|broker| broker.condition != Condition::Down)
}

fn broker_data(registry: &Registry<'_>, broker: &Broker) -> BrokerData {
    BrokerData {
        cluster: registry.settings.cluster.clone(),
        broker_name: broker.name.to_string(),
        broker_addrs: BTreeMap::from([(MASTER_ID, broker.address.to_string())]),
        ..BrokerData::default()
    }
}

fn no_route(registry: &Registry<'_>, topic: &str) -> Answer {
    let see_also = registry.settings.release.see_also();
    let remark = format!("No topic route info in name server for the topic: {topic}{see_also}");
    Answer::refusal(ResponseCode::TOPIC_NOT_EXIST, remark)
}

/// Encodes a body with members in alphabetical order, as fastjson writes them, and with the members that 5.x adds to
/// each broker.
fn java_json<T: Serialize>(registry: &Registry<'_>, body: &T) -> Result<Vec<u8>, Answer> {
    let mut json: Value = body::decode("body", &body::encode("body", body)?)?;
    if registry.settings.release.is_v5() {
        deny_acting_masters(&mut json);
    }
    Ok(body::encode("body", &json)?)
}

fn deny_acting_masters(json: &mut Value) {
    match json {
        Value::Object(members) => {
            if members.contains_key("brokerAddrs") {
                members.insert("enableActingMaster".to_owned(), Value::Bool(false));
            }
            members.values_mut().for_each(deny_acting_masters);
        }
        Value::Array(values) => values.iter_mut().for_each(deny_acting_masters),
        _ => {}
    }
}

/// Converts to the dialect in which fastjson writes maps with numbers as keys: without quotes around them.
fn with_bare_integer_keys(json: &[u8]) -> Vec<u8> {
    let mut bare = Vec::with_capacity(json.len());
    let mut rest = json;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'"' {
            bare.push(byte);
            rest = tail;
            continue;
        }
        let (text, behind) = rest.split_at(string_length(rest));
        let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
        let is_integer_key = behind.first() == Some(&b':') && !inner.is_empty() && inner.iter().all(u8::is_ascii_digit);
        bare.extend_from_slice(if is_integer_key { inner } else { text });
        rest = behind;
    }
    bare
}

/// Returns the length of the JSON string at the begin of `json`, including its quotes.
fn string_length(json: &[u8]) -> usize {
    let mut escaped = true;
    let end = json.iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        // The opening quote counts as escaped, so that it does not end the string.
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(json.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::body::fastjson;

    #[test]
    fn only_keys_that_are_integers_lose_their_quotes() {
        let json = br#"{"a":{"0":"10911","12":"1:2"},"b\"0":["7"],"":"x\\"}"#;
        let bare = with_bare_integer_keys(json);
        assert_eq!(bare, br#"{"a":{0:"10911",12:"1:2"},"b\"0":["7"],"":"x\\"}"#);
        assert_eq!(fastjson::normalise(&bare).unwrap().as_ref(), json);
    }
}

//! JSON bodies of requests and responses <-> structs.
//!
//! Bodies are written as standard JSON, except tables by queue: their keys are objects, as in Java. Brokers write
//! fastjson's dialect, so bodies are read through the [normaliser](fastjson) first and then as Java reads them
//! (`java_json.rs`). Unknown members are ignored; absent members have the default of the Java class.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Error;
use crate::foreign_text::lossy;
use crate::message::MessageQueue;

mod admin;
mod by_queue;
pub mod fastjson;
mod heartbeat;
pub(crate) mod java_json;
mod offset;
mod pop;
mod route;
mod running;

pub use admin::*;
pub use by_queue::ByQueue;
pub use heartbeat::*;
pub use offset::*;
pub use pop::*;
pub use route::*;
pub use running::*;

/// Reads a body in standard JSON or in fastjson's dialect.
///
/// # Errors
///
/// Returns an error if the body is neither, or does not fit the type.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    let json = fastjson::normalise(bytes)?;
    java_json::from_json(&lossy(&json)).map_err(|error| Error::BadJson { what, detail: error.to_string() })
}

/// Writes a body as standard JSON, except that the keys of a [`ByQueue`] are objects, as Java requires.
///
/// # Errors
///
/// Returns an error if JSON cannot represent the type; it can represent every type of this module.
pub fn encode<T: Serialize>(what: &'static str, body: &T) -> Result<Vec<u8>, Error> {
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut json, by_queue::ObjectKeys::default());
    body.serialize(&mut serializer).map_err(|error| Error::BadJson { what, detail: error.to_string() })?;
    Ok(json)
}

/// Reads a null member as an absent one.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
pub(super) mod tests {

    use serde_json::{Map, Value};

    use super::*;

    const ROUTE: &str = r#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"b",
        "cluster":"c","enableActingMaster":false},{"brokerAddrs":{1:"10.0.0.3:10911"},"brokerName":"a","cluster":"c"}],
        "filterServerTable":{},"orderTopicConf":null,"queueDatas":[
        {"brokerName":"b","perm":6,"readQueueNums":3,"topicSynFlag":1,"writeQueueNums":2},
        {"brokerName":"a","perm":6,"readQueueNums":1,"writeQueueNums":1}]}"#;

    fn queues(queues: &[MessageQueue]) -> Vec<String> {
        queues.iter().map(ToString::to_string).collect()
    }

    macro_rules! bodies {
        ($($body:ident)+) => {
            /// All bodies by name, each with a function that reads and rewrites it.
            pub(crate) const BODIES: &[(&str, fn(&[u8]) -> Result<Vec<u8>, Error>)] =
                &[$((stringify!($body), |json| encode("body", &decode::<$body>("body", json)?))),+];
        };
    }

    bodies! {
        BatchAckRequest CheckClientRequest ClusterInfo ConsumeMessageDirectlyResult ConsumeStats ConsumerConnection
        ConsumerList ConsumerOffsets ConsumerRunningInfo ConsumerStatusBody DataVersion GroupList HeartbeatData KvTable
        LockRequest LockResponse ProducerConnection QueryAssignmentRequest QueryAssignmentResponse ResetOffsetBody
        SetMessageRequestMode SubscriptionGroupConfig SubscriptionGroupTable TopicConfig TopicConfigTable TopicList
        TopicRouteData TopicStatsTable
    }

    /// JSON written by the classes of 4.9.7 and 5.5.0 when each of their fields has a value.
    #[derive(Deserialize)]
    pub(crate) struct Sample {
        java: String,
        version: String,
        body: String,
        pub(crate) json: String,
    }

    pub(crate) fn samples() -> Vec<Sample> {
        serde_json::from_str(include_str!("../../../tests/data/bodies.json")).unwrap()
    }

    /// JSON of a body, with queue keys as texts whose members are sorted.
    fn comparable(json: &[u8]) -> Value {
        fn sorted(value: Value) -> Value {
            match value {
                Value::Object(members) => {
                    members.into_iter().map(|(key, value)| (sorted_key(key), sorted(value))).collect()
                }
                Value::Array(values) => values.into_iter().map(sorted).collect(),
                other => other,
            }
        }

        fn sorted_key(key: String) -> String {
            serde_json::from_str::<Map<String, Value>>(&key).map_or(key, |members| Value::from(members).to_string())
        }

        sorted(serde_json::from_slice(&fastjson::normalise(json).unwrap()).unwrap())
    }

    #[test]
    fn wire_03_every_body_of_java_is_read_and_written_without_a_loss() {
        for Sample { java, version, body, json } in samples() {
            let (_, rewritten) = BODIES.iter().find(|(name, _)| *name == body).expect(&body);
            let written = rewritten(json.as_bytes()).unwrap_or_else(|error| panic!("{java} {version}: {error}"));
            let mut expected = comparable(json.as_bytes());
            let mut found = comparable(&written);
            if java == "HeartbeatData" {
                // The second version of heartbeats is not supported.
                for left_out in ["heartbeatFingerprint", "withoutSub"] {
                    expected.as_object_mut().unwrap().remove(left_out);
                }
            }
            if java == "ResetOffsetBodyForC" {
                // Written as a table, regardless of the form that was read.
                let of_java = samples().into_iter().find(|other| other.java == "ResetOffsetBody").unwrap();
                expected = comparable(of_java.json.as_bytes());
            }
            if let Some(null) = found.as_object_mut() {
                null.retain(|_, value| !value.is_null());
            }
            assert_eq!(found, expected, "{java} {version}");
        }
    }

    #[test]
    fn every_body_has_a_sample_of_java() {
        let samples = samples();
        for (name, _) in BODIES {
            assert!(samples.iter().any(|sample| sample.body == *name), "{name}");
        }
    }

    #[test]
    fn wire_03_unknown_members_are_passed_over_wherever_they_stand() {
        let unknown = serde_json::json!({"unknown": [1, {"2": null}], "$ref": "$.a"});
        for Sample { java, body, json, .. } in samples() {
            let (_, rewritten) = BODIES.iter().find(|(name, _)| *name == body).expect(&body);
            let members = comparable(json.as_bytes()).as_object().unwrap().clone();
            for name in members.keys() {
                let mut without = members.clone();
                without.remove(name);
                let absent = rewritten(Value::from(without.clone()).to_string().as_bytes()).ok();
                without.insert("another".to_owned(), unknown.clone());
                assert_eq!(rewritten(Value::from(without).to_string().as_bytes()).ok(), absent, "{java} {name}");
            }
        }
    }

    /// Returns the other forms that fastjson accepts for the same value.
    fn other_forms(json: &Value) -> Vec<Value> {
        let text = |value: &Value| Value::from(value.to_string());
        match json {
            Value::Number(_) | Value::Bool(_) => vec![text(json)],
            Value::String(value) => value.parse::<i64>().map(Value::from).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the JSON of an object with its members in this order, duplicates included.
    fn object(members: &[(String, Value)]) -> String {
        let members: Vec<_> = members.iter().map(|(name, value)| format!("{}:{value}", Value::from(&**name))).collect();
        format!("{{{}}}", members.join(","))
    }

    /// True if the members of the object under this name are entries of a table and not fields.
    fn is_table(name: &str, parent: &str) -> bool {
        const TABLES: [&str; 7] = [
            "attachments",
            "attributes",
            "brokerAddrs",
            "currIdMap",
            "properties",
            "topicQueueMappingByBroker",
            "userConsumerInfo",
        ];
        let of_tables = ["consumerTable", "forbiddenTable", "offsetTable"].contains(&parent);
        name.ends_with("Table") || name == "table" || TABLES.contains(&name) || of_tables
    }

    /// Returns every change to one member of an object, or of one within it, that has no effect for Java.
    fn variations(json: &Value, name: &str, parent: &str) -> Vec<String> {
        match json {
            // Kept unchanged.
            _ if name == "groupRetryPolicy" => Vec::new(),
            Value::Object(members) => {
                let members: Vec<_> = members.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                let mut all = Vec::new();
                for (at, (member, value)) in members.iter().enumerate() {
                    all.extend(variations(value, member, name).iter().map(|other| with(&members, at, other)));
                    if !is_table(name, parent) {
                        let twice = |first: Value| object(&[&[(member.clone(), first)], &members[..]].concat());
                        let mut spelled = members.clone();
                        spelled[at].0 = format!("_{}", member.to_ascii_uppercase());
                        all.extend([twice(Value::Null), twice(Value::from(vec![Value::Null])), object(&spelled)]);
                    }
                }
                all
            }
            Value::Array(elements) => {
                let with = |at: usize, other: String| {
                    let texts = elements.iter().map(ToString::to_string).enumerate();
                    let texts = texts.map(|(place, text)| if place == at { other.clone() } else { text });
                    format!("[{}]", texts.collect::<Vec<_>>().join(","))
                };
                let changed = |(at, element): (usize, &Value)| -> Vec<String> {
                    variations(element, "", "").into_iter().map(|other| with(at, other)).collect()
                };
                elements.iter().enumerate().flat_map(changed).collect()
            }
            _ => other_forms(json).iter().map(ToString::to_string).collect(),
        }
    }

    /// Returns the object with other JSON in place of one member's value.
    fn with(members: &[(String, Value)], at: usize, other: &str) -> String {
        let member = |(place, (name, value)): (usize, &(String, Value))| {
            let value = if place == at { other.to_owned() } else { value.to_string() };
            format!("{}:{value}", Value::from(&**name))
        };
        format!("{{{}}}", members.iter().enumerate().map(member).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn every_body_is_read_in_every_form_that_java_reads_alike() {
        let mut tried = 0;
        for Sample { java, version, body, json } in samples() {
            let (_, rewritten) = BODIES.iter().find(|(name, _)| *name == body).expect(&body);
            let expected = comparable(&rewritten(json.as_bytes()).unwrap());
            let standard: Value = serde_json::from_slice(&fastjson::normalise(json.as_bytes()).unwrap()).unwrap();
            for varied in variations(&standard, "", "") {
                let read = rewritten(varied.as_bytes());
                let read = read.unwrap_or_else(|error| panic!("{java} {version}: {error}: {varied}"));
                assert_eq!(comparable(&read), expected, "{java} {version}: {varied}");
                tried += 1;
            }
        }
        assert!(tried > 1_000, "{tried}");
    }

    #[test]
    fn bytes_that_are_no_text_are_read_as_java_reads_them() {
        let list: TopicList = decode("topics", b"{\"topicList\":[\"a\xFFb\"]}").unwrap();
        assert_eq!(list.topic_list, ["a\u{FFFD}b"]);
    }

    #[test]
    fn nsp_07_only_brokers_with_a_master_are_written_and_all_are_read() {
        let route = TopicRouteData::decode(ROUTE.as_bytes()).unwrap();
        assert_eq!(route.queue_datas[0].topic_sys_flag, 1);
        assert_eq!(queues(&route.write_queues(&"T".into())), ["T/b/0", "T/b/1"]);
        assert_eq!(queues(&route.read_queues(&"T".into())), ["T/a/0", "T/b/0", "T/b/1", "T/b/2"]);
    }

    #[test]
    fn a_route_is_written_as_standard_json_and_read_back() {
        let route = TopicRouteData::decode(ROUTE.as_bytes()).unwrap();
        let written = encode("route", &route).unwrap();
        assert!(serde_json::from_slice::<Value>(&written).is_ok());
        assert_eq!(TopicRouteData::decode(&written), Ok(route));
    }

    #[test]
    fn a_route_with_more_queues_than_can_be_is_refused() {
        for number in ["-1", "65537", "2147483647"] {
            let route = ROUTE.replace("\"readQueueNums\":3", &format!("\"readQueueNums\":{number}"));
            assert!(matches!(TopicRouteData::decode(route.as_bytes()), Err(Error::UnknownValue { .. })), "{number}");
        }
    }

    #[test]
    fn an_expression_without_a_tag_is_an_error() {
        for expression in ["||", " || ", "  "] {
            assert!(SubscriptionData::of_tags("T", expression, 1).is_err(), "{expression:?}");
        }
    }

    #[test]
    fn tags_given_twice_count_once_and_share_a_code_when_their_hashes_do() {
        let subscription = SubscriptionData::of_tags("T", "Aa || BB||Aa", 1).unwrap();
        assert_eq!(subscription.tags_set, ["Aa", "BB"]);
        assert_eq!(subscription.code_set, [2112]);
        assert_eq!(subscription.sub_string, "Aa || BB||Aa");
    }

    #[test]
    fn a_tag_is_wanted_by_its_text_and_not_by_its_hash() {
        let subscription = SubscriptionData::of_tags("T", "Aa", 1).unwrap();
        assert!(subscription.wants(Some("Aa")));
        assert!(!subscription.wants(Some("BB")));
        assert!(!subscription.wants(None));
        assert!(SubscriptionData::of_tags("T", " * ", 1).unwrap().wants(None));
    }

    #[test]
    fn a_heartbeat_has_the_names_that_brokers_read() {
        let heartbeat = HeartbeatData {
            client_id: "id".to_owned(),
            producer_data_set: vec![ProducerData { group_name: "PG".to_owned() }],
            consumer_data_set: vec![ConsumerData {
                group_name: "CG".to_owned(),
                consume_type: ConsumeType::Passively,
                message_model: MessageModel::Clustering,
                consume_from_where: ConsumeFromWhere::LastOffset,
                subscription_data_set: vec![SubscriptionData::of_tags("T", "TagA", 1).unwrap()],
                unit_mode: false,
            }],
        };
        let written = encode("heartbeat", &heartbeat).unwrap();
        let json: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(json["clientID"], "id");
        assert_eq!(json["consumerDataSet"][0]["consumeType"], "CONSUME_PASSIVELY");
        assert_eq!(json["consumerDataSet"][0]["subscriptionDataSet"][0]["codeSet"][0], 2_598_919);
        assert_eq!(decode::<HeartbeatData>("heartbeat", &written), Ok(heartbeat));
    }
}

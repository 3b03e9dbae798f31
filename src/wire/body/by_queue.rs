//! Queues in JSON, and tables by queue: Java writes whole objects in the place of keys. Here a key is written as a string
//! that holds the object's JSON, which Java reads as well.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::{self, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::message::MessageQueue;

/// A value for each queue.
///
/// Read in every form that servers and other clients write: keys that are objects or strings with an object's JSON, a
/// list of pairs of queue and value, and a list of queues that hold their value under the name `offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByQueue<V>(pub BTreeMap<MessageQueue, V>);

impl<V> Default for ByQueue<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> FromIterator<(MessageQueue, V)> for ByQueue<V> {
    fn from_iter<I: IntoIterator<Item = (MessageQueue, V)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<V: Serialize> Serialize for ByQueue<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (queue, value) in &self.0 {
            let key = serde_json::to_string(&QueueJson::from(queue)).map_err(ser::Error::custom)?;
            map.serialize_entry(&key, value)?;
        }
        map.end()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for ByQueue<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TableVisitor(PhantomData))
    }
}

struct TableVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for TableVisitor<V> {
    type Value = ByQueue<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table by queue")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(ByQueue::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut table = ByQueue::default();
        while let Some(key) = map.next_key::<String>()? {
            let queue: QueueJson = serde_json::from_str(&key).map_err(de::Error::custom)?;
            table.0.insert(queue.into(), map.next_value()?);
        }
        Ok(table)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut table = ByQueue::default();
        while let Some(entry) = list.next_element()? {
            let (queue, value) = match entry {
                Entry::Pair(queue, value) => (queue, value),
                Entry::Flat { broker_name, queue_id, topic, offset } => {
                    (QueueJson { broker_name, queue_id, topic }, offset)
                }
            };
            table.0.insert(queue.into(), value);
        }
        Ok(table)
    }
}

/// An entry of a table that is written as a list.
#[derive(Deserialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Entry<V> {
    Pair(QueueJson, V),
    Flat { broker_name: String, queue_id: i32, topic: String, offset: V },
}

/// A queue as Java writes it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueueJson {
    broker_name: String,
    queue_id: i32,
    topic: String,
}

impl From<&MessageQueue> for QueueJson {
    fn from(queue: &MessageQueue) -> Self {
        Self {
            broker_name: queue.broker_name.as_ref().to_owned(),
            queue_id: queue.queue_id,
            topic: queue.topic.as_ref().to_owned(),
        }
    }
}

impl From<QueueJson> for MessageQueue {
    fn from(queue: QueueJson) -> Self {
        Self::new(queue.topic, queue.broker_name, queue.queue_id)
    }
}

/// For a field that is one queue.
pub(super) mod one {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(queue: &MessageQueue, serializer: S) -> Result<S::Ok, S::Error> {
        QueueJson::from(queue).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MessageQueue, D::Error> {
        QueueJson::deserialize(deserializer).map(MessageQueue::from)
    }
}

/// For a field that is a list of queues.
pub(super) mod list {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        queues: &[MessageQueue],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(queues.iter().map(QueueJson::from))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<MessageQueue>, D::Error> {
        let queues: Option<Vec<QueueJson>> = Option::deserialize(deserializer)?;
        Ok(queues.unwrap_or_default().into_iter().map(MessageQueue::from).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::body::{decode, encode};

    use super::*;

    fn read(json: &str) -> Result<ByQueue<i64>, crate::wire::Error> {
        decode("table", json.as_bytes())
    }

    #[test]
    fn wire_03_a_table_is_read_in_each_of_its_forms() {
        let table: ByQueue<i64> = [(MessageQueue::new("T", "b", 1), 5)].into_iter().collect();
        let key = r#"{"brokerName":"b","queueId":1,"topic":"T"}"#;
        for json in [
            format!("{{{key}:5}}"),
            format!("{{{}:5}}", serde_json::to_string(key).unwrap()),
            format!("[[{key},5]]"),
            r#"[{"brokerName":"b","offset":5,"queueId":1,"topic":"T"}]"#.to_owned(),
        ] {
            assert_eq!(read(&json).as_ref(), Ok(&table), "{json}");
        }
        assert_eq!(read("null"), Ok(ByQueue::default()));
        assert_eq!(read(&String::from_utf8(encode("table", &table).unwrap()).unwrap()), Ok(table));
    }

    #[test]
    fn a_key_that_is_no_queue_is_an_error() {
        for json in [
            r#"{"b":5}"#,
            "{1:5}",
            r#"{{"brokerName":"b","topic":"T"}:5}"#,
            r#"{{"brokerName":"b","queueId":1,"topic":"T"}:"x"}"#,
            r#"[{"brokerName":"b","queueId":1,"topic":"T"}]"#,
            "[5]",
            "5",
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}

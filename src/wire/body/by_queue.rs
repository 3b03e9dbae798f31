//! Queues in JSON, and tables by queue. Java writes whole objects as keys, and 5.5 reads no other form, so keys are
//! written as objects here too.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::de;
use serde::ser::{self, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::ser::{CharEscape, Formatter};
use serde_json::value::RawValue;

use crate::message::MessageQueue;
use crate::wire::body::java_json::from_json;

/// Value for each queue.
///
/// Read in every form that servers and other clients write: keys that are objects, or strings with an object's JSON; a
/// list of pairs of queue and value; a list of queues that hold their value under the name `offset`.
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
            map.serialize_entry(&format!("{OBJECT_KEY}{key}"), value)?;
        }
        map.end()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for ByQueue<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        let entries = if json.starts_with('[') { entries_of_list(json) } else { entries_of_table(json) };
        entries.map(Self).map_err(de::Error::custom)
    }
}

fn entries_of_table<'de, V: Deserialize<'de>>(json: &'de str) -> serde_json::Result<BTreeMap<MessageQueue, V>> {
    let entries: Option<BTreeMap<String, &RawValue>> = serde_json::from_str(json)?;
    let entries = entries.unwrap_or_default().into_iter().filter(|(_, value)| value.get() != "null");
    let read = |(key, value): (String, &'de RawValue)| {
        let queue: QueueJson = from_json(&key)?;
        Ok((queue.into(), from_json(value.get())?))
    };
    entries.map(read).collect()
}

fn entries_of_list<'de, V: Deserialize<'de>>(json: &'de str) -> serde_json::Result<BTreeMap<MessageQueue, V>> {
    let entries: Vec<&RawValue> = serde_json::from_str(json)?;
    let read = |entry: &'de RawValue| {
        let entry = entry.get();
        if entry.starts_with('[') {
            let (queue, value): (QueueJson, V) = from_json(entry)?;
            return Ok((queue.into(), value));
        }
        let queue: QueueJson = from_json(entry)?;
        let Flat { offset } = from_json(entry)?;
        Ok((queue.into(), offset))
    };
    entries.into_iter().map(read).collect()
}

/// First character of a key that is an object's JSON; no other key begins with it.
const OBJECT_KEY: char = '\0';

/// Writes keys that are marked with [`OBJECT_KEY`] as the objects they hold.
#[derive(Default)]
pub(super) struct ObjectKeys {
    key: QueueKey,
}

/// State of writing a key.
#[derive(Default, PartialEq, Eq)]
enum QueueKey {
    #[default]
    None,
    /// Key of which nothing is written yet; the first character decides the form.
    Begun,
    Text,
    Object,
}

impl ObjectKeys {
    /// Treats a key as text unless its first character is the mark.
    fn settle<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.key == QueueKey::Begun {
            self.key = QueueKey::Text;
            writer.write_all(b"\"")?;
        }
        Ok(())
    }
}

/// Writes numbers and booleans in the place of keys as text too.
macro_rules! settled {
    ($($write:ident($type:ty);)+) => {
        $(
            fn $write<W: ?Sized + Write>(&mut self, writer: &mut W, value: $type) -> io::Result<()> {
                self.settle(writer)?;
                PlainQueue.$write(writer, value)
            }
        )+
    };
}

impl Formatter for ObjectKeys {
    settled! {
        write_bool(bool);
        write_i8(i8);
        write_i16(i16);
        write_i32(i32);
        write_i64(i64);
        write_i128(i128);
        write_u8(u8);
        write_u16(u16);
        write_u32(u32);
        write_u64(u64);
        write_u128(u128);
        write_f32(f32);
        write_f64(f64);
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.key = QueueKey::Begun;
        if first { Ok(()) } else { writer.write_all(b",") }
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, _writer: &mut W) -> io::Result<()> {
        self.key = QueueKey::None;
        Ok(())
    }

    fn begin_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.key == QueueKey::Begun { Ok(()) } else { writer.write_all(b"\"") }
    }

    fn end_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.settle(writer)?;
        if self.key == QueueKey::Object { Ok(()) } else { writer.write_all(b"\"") }
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        self.settle(writer)?;
        writer.write_all(fragment.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, writer: &mut W, letter: CharEscape) -> io::Result<()> {
        match (&self.key, letter) {
            (QueueKey::Begun, CharEscape::AsciiControl(0)) => {
                self.key = QueueKey::Object;
                Ok(())
            }
            (QueueKey::Object, CharEscape::Quote) => writer.write_all(b"\""),
            (QueueKey::Object, CharEscape::ReverseSolidus) => writer.write_all(b"\\"),
            (_, letter) => {
                self.settle(writer)?;
                PlainQueue.write_char_escape(writer, letter)
            }
        }
    }
}

/// Default formatting of everything but keys.
struct PlainQueue;

impl Formatter for PlainQueue {}

/// Other members of an entry in a list of queues.
#[derive(Deserialize)]
struct Flat<V> {
    offset: V,
}

/// Queue in the JSON form of Java.
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
    }

    #[test]
    fn wire_03_a_key_is_written_as_the_object_it_is_and_texts_as_they_were() {
        let table = |topic: &str| -> ByQueue<i64> {
            [(MessageQueue::new("T", "b", 1), 5), (MessageQueue::new(topic, "b", 2), 6)].into_iter().collect()
        };
        let written = String::from_utf8(encode("table", &table("U")).unwrap()).unwrap();
        let queue = r#"{"brokerName":"b","queueId":1,"topic":"T"}"#;
        assert_eq!(written, format!("{{{queue}:5,{}:6}}", queue.replace('1', "2").replace('T', "U")));
        for topic in ["\"quoted\" \\", "\n\u{1}", "标签", ""] {
            let written = encode("table", &table(topic)).unwrap();
            assert_eq!(read(std::str::from_utf8(&written).unwrap()), Ok(table(topic)), "{topic:?}");
        }
        let texts: BTreeMap<String, String> =
            ["", "\"", "\n", "{\"a\":1}", "\\"].iter().map(|text| ((*text).to_owned(), (*text).to_owned())).collect();
        let written = encode("texts", &texts).unwrap();
        assert_eq!(written, serde_json::to_vec(&texts).unwrap());
        let numbers = BTreeMap::from([(-1_i64, BTreeMap::from([(true, [1.5_f64])]))]);
        assert_eq!(encode("numbers", &numbers).unwrap(), br#"{"-1":{"true":[1.5]}}"#);
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

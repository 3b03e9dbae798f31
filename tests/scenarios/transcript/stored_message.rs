//! Decodes stored messages in responses by a few lines of code that share nothing with the client.

use rocketmq_sync::unversioned::wire::RequestCode;
use serde_json::{Value, json};

use super::{OWN_IDS, short_text};

/// Readable parts of a message.
pub(super) struct StoredMessage {
    magic: u32,
    body_crc: u32,
    queue_id: i32,
    flag: i32,
    queue_offset: i64,
    sys_flag: i32,
    born_timestamp: i64,
    reconsume_times: i32,
    prepared_transaction_offset: i64,
    body: String,
    topic: String,
    properties: String,
}

/// Decodes the messages in the body of a response to `request`, if such responses contain messages.
pub(super) fn decode_all(request: RequestCode, body: &[u8]) -> Option<Vec<StoredMessage>> {
    let carries_messages = matches!(request, RequestCode::PULL_MESSAGE | RequestCode::VIEW_MESSAGE_BY_ID);
    if !carries_messages || body.is_empty() {
        return None;
    }
    let mut rest = body;
    let mut messages = Vec::new();
    while let Some(size) = rest.first_chunk::<4>() {
        let size = usize::try_from(u32::from_be_bytes(*size)).expect("a size");
        let (message, tail) = rest.split_at(size);
        messages.push(StoredMessage::decode(message));
        rest = tail;
    }
    Some(messages)
}

impl StoredMessage {
    fn decode(message: &[u8]) -> Self {
        let mut reader = Reader(message);
        reader.take(4);
        let magic = reader.u32();
        let body_crc = reader.u32();
        let queue_id = reader.i32();
        let flag = reader.i32();
        let queue_offset = reader.i64();
        reader.take(8);
        let sys_flag = reader.i32();
        let born_timestamp = reader.i64();
        reader.take(8 + 8 + 8);
        let reconsume_times = reader.i32();
        let prepared_transaction_offset = reader.i64();
        let body_length = reader.u32();
        let body = short_text(reader.take(usize::try_from(body_length).expect("a length")));
        let topic_length = u32::from(reader.take(1)[0]);
        let topic = reader.text(topic_length);
        let properties_length = u32::from(u16::from_be_bytes(reader.take(2).try_into().expect("two bytes")));
        let properties = reader.text(properties_length);
        assert!(reader.0.is_empty(), "{} bytes behind a message", reader.0.len());
        Self {
            magic,
            body_crc,
            queue_id,
            flag,
            queue_offset,
            sys_flag,
            born_timestamp,
            reconsume_times,
            prepared_transaction_offset,
            body,
            topic,
            properties,
        }
    }

    /// Describes the message without positions in the commit log, hosts and the broker's clock.
    pub(super) fn describe(&self) -> Value {
        json!({
            "magic": format!("{:08X}", self.magic),
            "bodyCrc": self.body_crc,
            "queueId": self.queue_id,
            "flag": self.flag,
            "queueOffset": self.queue_offset,
            "sysFlag": self.sys_flag,
            "bornTimestamp": self.born_timestamp,
            "reconsumeTimes": self.reconsume_times,
            "preparedTransactionOffset": self.prepared_transaction_offset,
            "body": self.body,
            "topic": self.topic,
            "properties": describe_properties(&self.properties),
        })
    }
}

/// Describes properties as sorted `name=value;`, since servers keep them in hash maps; the last separator is noted
/// separately.
fn describe_properties(properties: &str) -> Value {
    let mut pairs: Vec<_> = properties.split_terminator('\u{2}').map(describe_property).collect();
    pairs.sort_unstable();
    json!({ "pairs": pairs, "ends with a separator": properties.ends_with('\u{2}') })
}

fn describe_property(pair: &str) -> String {
    match pair.split_once('\u{1}') {
        Some(("ORIGIN_MESSAGE_ID", id)) if !id.starts_with(OWN_IDS) => {
            format!("ORIGIN_MESSAGE_ID=<offset id of {} digits>", id.len())
        }
        Some(("UNIQ_KEY", id)) if !id.starts_with(OWN_IDS) => "UNIQ_KEY=<unique id>".to_owned(),
        Some((name, value)) => format!("{name}={value}"),
        None => pair.to_owned(),
    }
}

/// Reads fields from the front; a message that is too short is a failed test.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(length);
        self.0 = tail;
        head
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    fn text(&mut self, length: u32) -> String {
        let bytes = self.take(usize::try_from(length).expect("a length"));
        String::from_utf8(bytes.to_vec()).expect("text")
    }
}

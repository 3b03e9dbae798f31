//! Replies of the peer on the hot path: prepared bytes, in which opaque, queue and offsets are patched.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BufMut;
use rocketmq_sync::unversioned::wire::frame::command::FrameHead;
use rocketmq_sync::unversioned::wire::{FieldSink, HeaderEncoding, HeaderFields, LanguageCode};

use super::frames::Head;
use super::{BODY_SIZE, MESSAGES_PER_PULL, QUEUES, Result, TOPIC};

/// Version number of Apache RocketMQ 4.9.7.
const BROKER_VERSION: i32 = 407;
const RESPONSE_FLAG: i32 = 1;
const MAGIC: u32 = 0xDAA3_20A7;
const QUEUE_OFFSET_AT: usize = 20;
const COMMIT_LOG_OFFSET_AT: usize = 28;

/// Prepared replies.
pub(crate) struct Answers {
    json_send: SplitReply,
    binary_send: Vec<u8>,
    /// Bodies of the replies to pulls, one for each queue.
    pulls: Vec<Vec<u8>>,
    message_size: usize,
}

impl Answers {
    pub(crate) fn new() -> Result<Self> {
        let messages: Vec<Vec<u8>> = (0..QUEUES).map(stored_message).collect::<Result<_>>()?;
        Ok(Self {
            json_send: SplitReply::new(&head(HeaderEncoding::Json, 0), &SendFields)?,
            binary_send: encode(&head(HeaderEncoding::RocketMq, 0), &SendFields, 0)?.to_vec(),
            message_size: messages[0].len(),
            pulls: messages.iter().map(|message| message.repeat(MESSAGES_PER_PULL)).collect(),
        })
    }

    /// Reply to a send: stored.
    pub(crate) fn send_stored(&self, request: Head, out: &mut Vec<u8>) {
        match request.encoding {
            HeaderEncoding::Json => self.json_send.append(request.opaque, out),
            HeaderEncoding::RocketMq => {
                let at = out.len() + 8 + 5;
                out.extend_from_slice(&self.binary_send);
                out[at..at + 4].copy_from_slice(&request.opaque.to_be_bytes());
            }
        }
    }

    /// Reply to a pull: messages from `offset` on.
    pub(crate) fn messages(&self, request: Head, queue: usize, offset: i64, out: &mut Vec<u8>) -> Result<()> {
        let body = self.pulls.get(queue).ok_or("no such queue")?;
        let fields = PullFields { next_offset: offset + MESSAGES_PER_PULL as i64 };
        let mut head = head(request.encoding, request.opaque);
        head.remark = Some("FOUND");
        out.extend_from_slice(&encode(&head, &fields, body.len())?);
        let start = out.len();
        out.extend_from_slice(body);
        for (message, queue_offset) in out[start..].chunks_exact_mut(self.message_size).zip(offset..) {
            let commit_log_offset = (queue_offset * QUEUES as i64 + queue as i64) * self.message_size as i64;
            message[QUEUE_OFFSET_AT..QUEUE_OFFSET_AT + 8].copy_from_slice(&queue_offset.to_be_bytes());
            message[COMMIT_LOG_OFFSET_AT..COMMIT_LOG_OFFSET_AT + 8].copy_from_slice(&commit_log_offset.to_be_bytes());
        }
        Ok(())
    }
}

/// Reply with a JSON header, split at its opaque.
struct SplitReply {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl SplitReply {
    fn new(head: &FrameHead<'_>, fields: &dyn HeaderFields) -> Result<Self> {
        let bytes = encode(head, fields, 0)?;
        let key = b"\"opaque\":";
        let at = bytes.windows(key.len()).rposition(|window| window == key).ok_or("no opaque")? + key.len();
        Ok(Self { before: bytes[..at].to_vec(), after: bytes[at + 1..].to_vec() })
    }

    fn append(&self, opaque: i32, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(opaque).as_bytes();
        let start = out.len();
        out.extend_from_slice(&self.before);
        out.extend_from_slice(digits);
        out.extend_from_slice(&self.after);
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        out[start + 4..start + 8].copy_from_slice(&(length - 4).to_be_bytes());
    }
}

fn head(encoding: HeaderEncoding, opaque: i32) -> FrameHead<'static> {
    FrameHead {
        encoding,
        code: 0,
        language: LanguageCode::JAVA,
        version: BROKER_VERSION,
        opaque,
        flag: RESPONSE_FLAG,
        remark: None,
    }
}

fn encode(head: &FrameHead<'_>, fields: &dyn HeaderFields, body_length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    head.encode(fields, body_length, &mut bytes)?;
    Ok(bytes)
}

struct SendFields;

impl HeaderFields for SendFields {
    fn write_to(&self, sink: &mut dyn FieldSink) {
        sink.text("MSG_REGION", "DefaultRegion");
        sink.text("TRACE_ON", "true");
        sink.text("msgId", "7F00000100002A9F0000000000A0B1C2");
        sink.number("queueId", 0);
        sink.number("queueOffset", 4711);
    }
}

struct PullFields {
    next_offset: i64,
}

impl HeaderFields for PullFields {
    fn write_to(&self, sink: &mut dyn FieldSink) {
        sink.number("maxOffset", self.next_offset + 1_000_000);
        sink.number("minOffset", 0);
        sink.number("nextBeginOffset", self.next_offset);
        sink.number("suggestWhichBrokerId", 0);
    }
}

/// Encodes one message as a broker stores and sends it, with offsets 0.
fn stored_message(queue: usize) -> Result<Vec<u8>> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let body: Vec<u8> = (b'a'..=b'z').cycle().take(BODY_SIZE).collect();
    let properties = "UNIQ_KEY\u{1}7F0000010F3A18B4AAC20A1B2C3D0001\u{2}CLUSTER\u{1}DefaultCluster\u{2}\
        WAIT\u{1}true\u{2}TAGS\u{1}TagA\u{2}";
    let mut out = Vec::with_capacity(BODY_SIZE + 256);
    out.put_u32(0);
    out.put_u32(MAGIC);
    out.put_u32(crc32fast::hash(&body) & 0x7FFF_FFFF);
    out.put_i32(queue.try_into()?);
    out.put_i32(0);
    out.put_i64(0);
    out.put_i64(0);
    out.put_i32(0);
    out.put_i64(now);
    put_host(&mut out, 54_321);
    out.put_i64(now);
    put_host(&mut out, 10_911);
    out.put_i32(0);
    out.put_i64(0);
    out.put_i32(body.len().try_into()?);
    out.put_slice(&body);
    out.put_u8(TOPIC.len().try_into()?);
    out.put_slice(TOPIC.as_bytes());
    out.put_i16(properties.len().try_into()?);
    out.put_slice(properties.as_bytes());
    let size = u32::try_from(out.len())?;
    out[..4].copy_from_slice(&size.to_be_bytes());
    Ok(out)
}

fn put_host(out: &mut Vec<u8>, port: i32) {
    out.put_slice(&[127, 0, 0, 1]);
    out.put_i32(port);
}

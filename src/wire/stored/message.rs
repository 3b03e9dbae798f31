//! Layout in which brokers store messages and deliver them: a pull reply's body is a sequence of them.
//!
//! Reading copies nothing: bodies and properties are slices of the reply. Pure functions over bytes. The consumer
//! decompresses bodies (`compression.rs`), not this module.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::foreign_text::lossy;
use crate::message::properties::Properties;
use crate::message::{Message, MessageExt};
use crate::wire::limits::MAX_PROPERTIES_LENGTH;
use crate::wire::stored::batch::{InnerBatch, is_inner_batch};
use crate::wire::sys_flag::message::{BORN_HOST_V6, STORE_HOST_V6};
use crate::wire::{Error, bad_length};

/// Magic of the usual layout: one byte for the topic's length.
const MAGIC_V1: i32 = 0xDAA3_20A7_u32.cast_signed();
/// Magic of the layout for long topics, since 5.1.0: two bytes for the topic's length.
const MAGIC_V2: i32 = 0xDAA3_20AB_u32.cast_signed();
/// Maximum topic length of the first layout; brokers store longer topics, those of retries, in the second.
const MAX_TOPIC_LENGTH_V1: usize = 127;

/// Size of a message with two IPv4 addresses and nothing of variable length, in the first layout.
const SHORTEST: usize = 91;
const V6_SURPLUS: usize = 12;

/// Reads a sequence of stored messages, such as the body of a pull reply.
///
/// Topic and broker name are those of the queue that was read: all messages share them instead of having copies.
///
/// An inner batch, which 5.x brokers store as one message, is returned as its messages.
///
/// A message of valid size is always returned, since its size gives the begin of the next one. A message that cannot be
/// decoded (an unknown magic, a length that contradicts its size, a port beyond 16 bits, a batch that cannot be split)
/// holds the fields that could be read, its offsets among them, and its defect. The messages after it are not affected.
/// If its body could not be read, all its bytes replace the body.
///
/// Text that is not UTF-8 and a negative length of properties are not defects. They are read as in the Java client: as
/// U+FFFD, and as no properties.
///
/// The iterator ends after an error: the begin of the next message is unknown if a size is wrong.
#[must_use]
pub fn stored_messages<'a>(bytes: &'a Bytes, topic: &'a Arc<str>, broker_name: &'a Arc<str>) -> StoredMessages<'a> {
    StoredMessages { bytes, at: 0, topic, broker_name, unwrapped: None }
}

/// Iterator of [`stored_messages`].
#[derive(Debug)]
pub struct StoredMessages<'a> {
    bytes: &'a Bytes,
    at: usize,
    topic: &'a Arc<str>,
    broker_name: &'a Arc<str>,
    /// Rest of an inner batch.
    unwrapped: Option<InnerBatch>,
}

impl Iterator for StoredMessages<'_> {
    type Item = Result<MessageExt, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(message) = self.unwrapped.as_mut().and_then(InnerBatch::next) {
                return Some(Ok(message));
            }
            let mut message = match self.next_stored()? {
                Ok(message) if message.defect.is_none() && is_inner_batch(&message) => message,
                other => return Some(other),
            };
            match InnerBatch::open(&message) {
                Ok(messages) => self.unwrapped = Some(messages),
                Err(error) => {
                    message.defect = Some(error.to_string().into());
                    return Some(Ok(message));
                }
            }
        }
    }
}

impl StoredMessages<'_> {
    fn next_stored(&mut self) -> Option<Result<MessageExt, Error>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let end = self.end_of_next();
        let message = end.as_ref().map(|end| self.read_message(*end)).map_err(Clone::clone);
        self.at = end.unwrap_or(self.bytes.len());
        Some(message)
    }

    /// Returns the begin of the next message. It follows from the total size of this one, since later versions may add
    /// data after the properties.
    fn end_of_next(&self) -> Result<usize, Error> {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        let total_size = Reader { bytes: left, at: 0, defect: None }.i32("message size")?;
        match usize::try_from(total_size) {
            Ok(size) if (SHORTEST..=left.len()).contains(&size) => Ok(self.at + size),
            _ => Err(Error::BadLength { what: "message", claimed: total_size.into(), limit: left.len() as u64 }),
        }
    }

    fn read_message(&self, end: usize) -> MessageExt {
        const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let mut message = MessageExt {
            message: Message::from_parts(Arc::clone(self.topic), Bytes::new(), 0, Properties::new()),
            broker_name: Arc::clone(self.broker_name),
            queue_id: 0,
            queue_offset: 0,
            commit_log_offset: 0,
            born_timestamp: 0,
            born_host: NOWHERE,
            store_timestamp: 0,
            store_host: NOWHERE,
            reconsume_times: 0,
            sys_flag: 0,
            body_crc: 0,
            store_size: 0,
            prepared_transaction_offset: 0,
            defect: None,
        };
        let mut reader = Reader { bytes: self.bytes.get(..end).unwrap_or_default(), at: self.at, defect: None };
        let defect = self.read_fields(&mut reader, &mut message).err().or(reader.defect);
        if let Some(error) = defect {
            message.defect = Some(error.to_string().into());
            // Brokers accept no message without a body, so an empty body is free to hold the raw bytes for inspection.
            if message.body().is_empty() {
                message.message.body = self.bytes.slice(self.at..end);
            }
        }
        message
    }

    /// Fills in the fields one after the other, so that a message with a defect has those before it.
    fn read_fields(&self, reader: &mut Reader<'_>, message: &mut MessageExt) -> Result<(), Error> {
        message.store_size = u32::from_be_bytes(reader.array("message size")?);
        let magic = reader.i32("magic")?;
        message.body_crc = u32::from_be_bytes(reader.array("body CRC")?);
        message.queue_id = reader.i32("queue id")?;
        message.message.flag = reader.i32("flag")?;
        message.queue_offset = reader.i64("queue offset")?;
        message.commit_log_offset = reader.i64("commit log offset")?;
        message.sys_flag = reader.i32("sysFlag")?;
        message.born_timestamp = reader.i64("born timestamp")?;
        message.born_host = reader.host("born host", message.sys_flag & BORN_HOST_V6 != 0)?;
        message.store_timestamp = reader.i64("store timestamp")?;
        message.store_host = reader.host("store host", message.sys_flag & STORE_HOST_V6 != 0)?;
        message.reconsume_times = reader.i32("reconsume times")?;
        message.prepared_transaction_offset = reader.i64("prepared transaction offset")?;
        let body_length = reader.i32("body")?;
        message.message.body = self.slice(reader, "body", body_length)?;
        let topic_length = match magic {
            MAGIC_V1 => reader.array("topic").map(|[length]| i32::from(length))?,
            MAGIC_V2 => reader.i16("topic")?.into(),
            other => return Err(Error::UnknownValue { what: "message magic", value: other.into() }),
        };
        let topic = reader.take("topic", topic_length)?;
        if topic != self.topic.as_bytes() {
            message.message.topic = lossy(topic).into();
        }
        let properties_length = i32::from(reader.i16("properties")?);
        let properties = self.slice(reader, "properties", properties_length.max(0))?;
        message.message.properties = Properties::from_encoded(properties);
        Ok(())
    }

    fn slice(&self, reader: &mut Reader<'_>, what: &'static str, length: i32) -> Result<Bytes, Error> {
        let start = reader.at;
        let taken = reader.take(what, length)?.len();
        Ok(self.bytes.slice(start..start + taken))
    }
}

/// Reason why a message from [`stored_messages`] could not be decoded; `None` for a sound one.
#[must_use]
pub fn defect_of(message: &MessageExt) -> Option<&str> {
    message.defect.as_deref()
}

/// Returns the number of bytes that [`encode_stored`] writes: the distance from one commit log offset to the next.
#[must_use]
pub fn stored_size(message: &MessageExt) -> usize {
    let topic = message.message.topic.len();
    let surplus = |condition: bool, bytes: usize| if condition { bytes } else { 0 };
    SHORTEST
        + surplus(topic > MAX_TOPIC_LENGTH_V1, 1)
        + surplus(message.born_host.is_ipv6(), V6_SURPLUS)
        + surplus(message.store_host.is_ipv6(), V6_SURPLUS)
        + message.body().len()
        + topic
        + message.message.properties.encoded().len()
}

/// Appends `message` to `out` as a broker stores it.
///
/// Its size, the layout and the address bits of its sysFlag follow from the message; all other values are written
/// unchanged.
///
/// # Errors
///
/// Returns an error if body, topic or properties are too long for their length fields; `out` is then unchanged.
pub fn encode_stored(message: &MessageExt, out: &mut BytesMut) -> Result<(), Error> {
    let (body, topic) = (message.body(), message.topic());
    let properties = message.message.properties.encoded();
    let size = stored_size(message);
    let total_size = i32::try_from(size).map_err(|_| bad_length("message", size, i32::MAX.unsigned_abs() as usize))?;
    let body_length = i32::try_from(body.len()).map_err(|_| bad_length("body", body.len(), size))?;
    let topic_length = i16::try_from(topic.len()).map_err(|_| bad_length("topic", topic.len(), i16::MAX as usize))?;
    let properties_length = i16::try_from(properties.len())
        .map_err(|_| bad_length("properties", properties.len(), MAX_PROPERTIES_LENGTH))?;
    let short_topic = u8::try_from(topic_length).ok().filter(|_| topic.len() <= MAX_TOPIC_LENGTH_V1);

    out.reserve(size);
    out.put_i32(total_size);
    out.put_i32(if short_topic.is_some() { MAGIC_V1 } else { MAGIC_V2 });
    out.put_u32(message.body_crc);
    out.put_i32(message.queue_id);
    out.put_i32(message.message.flag);
    out.put_i64(message.queue_offset);
    out.put_i64(message.commit_log_offset);
    out.put_i32(sys_flag_with_hosts(message));
    out.put_i64(message.born_timestamp);
    put_host(out, message.born_host);
    out.put_i64(message.store_timestamp);
    put_host(out, message.store_host);
    out.put_i32(message.reconsume_times);
    out.put_i64(message.prepared_transaction_offset);
    out.put_i32(body_length);
    out.put_slice(body);
    match short_topic {
        Some(length) => out.put_u8(length),
        None => out.put_i16(topic_length),
    }
    out.put_slice(topic.as_bytes());
    out.put_i16(properties_length);
    out.put_slice(properties);
    Ok(())
}

/// Returns the checksum field of a stored message: CRC-32 of the body as stored, without its top bit.
#[must_use]
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

fn sys_flag_with_hosts(message: &MessageExt) -> i32 {
    let bit = |host: SocketAddr, bit: i32| if host.is_ipv6() { bit } else { 0 };
    message.sys_flag & !(BORN_HOST_V6 | STORE_HOST_V6)
        | bit(message.born_host, BORN_HOST_V6)
        | bit(message.store_host, STORE_HOST_V6)
}

fn put_host(out: &mut BytesMut, host: SocketAddr) {
    match host.ip() {
        IpAddr::V4(ip) => out.put_slice(&ip.octets()),
        IpAddr::V6(ip) => out.put_slice(&ip.octets()),
    }
    out.put_i32(host.port().into());
}

/// Reads checked parts of one message.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// First wrong value that does not hide the values after it.
    defect: Option<Error>,
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let array = rest.first_chunk::<N>().ok_or(Error::UnexpectedEnd { what })?;
        self.at += N;
        Ok(*array)
    }

    fn i16(&mut self, what: &'static str) -> Result<i16, Error> {
        self.array(what).map(i16::from_be_bytes)
    }

    fn i32(&mut self, what: &'static str) -> Result<i32, Error> {
        self.array(what).map(i32::from_be_bytes)
    }

    fn i64(&mut self, what: &'static str) -> Result<i64, Error> {
        self.array(what).map(i64::from_be_bytes)
    }

    fn host(&mut self, what: &'static str, v6: bool) -> Result<SocketAddr, Error> {
        let ip = if v6 {
            IpAddr::V6(Ipv6Addr::from(self.array::<16>(what)?))
        } else {
            IpAddr::V4(Ipv4Addr::from(self.array::<4>(what)?))
        };
        let port = self.i32(what)?;
        let checked = u16::try_from(port);
        if checked.is_err() {
            self.defect.get_or_insert_with(|| Error::UnknownValue { what, value: port.into() });
        }
        Ok(SocketAddr::new(ip, checked.unwrap_or_default()))
    }

    fn take(&mut self, what: &'static str, length: i32) -> Result<&'a [u8], Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let wrong = || Error::BadLength { what, claimed: length.into(), limit: rest.len() as u64 };
        let taken = taken.ok_or_else(wrong)?;
        self.at += taken.len();
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::stored::batch::BatchMessage;
    use crate::wire::sys_flag::message::{COMPRESSED, INNER_BATCH, MULTI_TAGS, NEED_UNWRAP};

    fn sample(topic: &str, host: &str) -> MessageExt {
        let message = Message::new(topic, "Hello").with_tag("TagA").with_property("a", "1").with_flag(9);
        let mut message = MessageExt {
            body_crc: body_crc(message.body()),
            message,
            broker_name: "broker-a".into(),
            queue_id: 3,
            queue_offset: 5,
            commit_log_offset: 0x0010_0000,
            born_timestamp: 1_757_930_400_000,
            born_host: "192.168.1.20:51234".parse().unwrap(),
            store_timestamp: 1_757_930_400_005,
            store_host: host.parse().unwrap(),
            reconsume_times: 2,
            sys_flag: if host.starts_with('[') { STORE_HOST_V6 } else { 0 },
            store_size: 0,
            prepared_transaction_offset: 7,
            defect: None,
        };
        message.store_size = u32::try_from(stored_size(&message)).unwrap();
        message
    }

    fn encoded(messages: &[&MessageExt]) -> Bytes {
        let mut out = BytesMut::new();
        for message in messages {
            encode_stored(message, &mut out).unwrap();
        }
        out.freeze()
    }

    /// Position of the body's length in a message with IPv4 addresses.
    const BODY: usize = 4 + 4 + 4 + 4 + 4 + 8 + 8 + 4 + 8 + 8 + 8 + 8 + 4 + 8;

    fn assert_undecodable(message: &mut MessageExt, detail: &str) {
        assert!(!message.is_restored());
        let error = message.decompress_body(1000).unwrap_err();
        assert!(matches!(error, Error::Undecodable { .. }) && error.to_string().contains(detail), "{error}");
    }

    /// Reads three messages, with the bytes from `place` of the second replaced.
    fn second_of_three(place: usize, replaced: &[u8]) -> (MessageExt, Vec<MessageExt>) {
        let message = sample("T", "192.168.1.10:10911");
        let mut bytes = BytesMut::from(&encoded(&[&message, &message, &message])[..]);
        let place = stored_size(&message) + place;
        bytes[place..place + replaced.len()].copy_from_slice(replaced);
        let read: Vec<MessageExt> = read(&bytes.freeze()).into_iter().map(Result::unwrap).collect();
        assert_eq!(read.len(), 3);
        assert_eq!((&read[0], &read[2]), (&message, &message));
        (message, read)
    }

    fn read(bytes: &Bytes) -> Vec<Result<MessageExt, Error>> {
        stored_messages(bytes, &"T".into(), &"broker-a".into()).collect()
    }

    #[test]
    fn messages_of_both_layouts_and_address_kinds_are_read_as_they_were_written() {
        let short = sample("T", "192.168.1.10:10911");
        let long = sample(&format!("%RETRY%{}", "g".repeat(200)), "[2001:db8::1]:10911");
        let bytes = encoded(&[&short, &long, &short]);
        assert_eq!(bytes.len(), stored_size(&short) * 2 + stored_size(&long));
        assert_eq!(read(&bytes), [Ok(short.clone()), Ok(long), Ok(short)]);
    }

    #[test]
    fn topics_change_the_layout_behind_127_bytes() {
        for (length, magic) in [(126, MAGIC_V1), (127, MAGIC_V1), (128, MAGIC_V2)] {
            let message = sample(&"t".repeat(length), "192.168.1.10:10911");
            let bytes = encoded(&[&message]);
            assert_eq!(bytes.len(), stored_size(&message));
            assert_eq!(bytes[4..8], magic.to_be_bytes());
            assert_eq!(read(&bytes), [Ok(message)]);
        }
    }

    #[test]
    fn the_address_bits_follow_from_the_addresses_and_the_others_stay() {
        let v4 = sample("T", "192.168.1.10:10911");
        let both = BORN_HOST_V6 | STORE_HOST_V6;
        for (born, store, bits) in [
            ("1.2.3.4:1", "1.2.3.4:2", 0),
            ("1.2.3.4:1", "[::1]:2", STORE_HOST_V6),
            ("[::1]:1", "1.2.3.4:2", BORN_HOST_V6),
            ("[::1]:1", "[::1]:2", both),
        ] {
            let (born_host, store_host) = (born.parse().unwrap(), store.parse().unwrap());
            let message = MessageExt { born_host, store_host, sys_flag: MULTI_TAGS | both, ..v4.clone() };
            let read = read(&encoded(&[&message])).remove(0).unwrap();
            assert_eq!((read.born_host, read.store_host, read.sys_flag), (born_host, store_host, MULTI_TAGS | bits));
        }
    }

    #[test]
    fn the_topic_of_the_queue_is_shared() {
        let topic: Arc<str> = "T".into();
        let bytes = encoded(&[&sample("T", "192.168.1.10:10911")]);
        let message = stored_messages(&bytes, &topic, &"broker-a".into()).next().unwrap().unwrap();
        assert!(Arc::ptr_eq(&message.message.topic, &topic));
    }

    #[test]
    fn bytes_behind_the_properties_belong_to_a_later_version_and_are_passed_over() {
        let message = sample("T", "192.168.1.10:10911");
        let plain = encoded(&[&message]);
        let mut longer = BytesMut::from(&plain[..]);
        longer.put_slice(b"more");
        let size = i32::try_from(longer.len()).unwrap();
        longer[..4].copy_from_slice(&size.to_be_bytes());
        longer.put_slice(&plain);
        let read = read(&longer.freeze());
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].as_ref(), Ok(&message));
    }

    /// Returns an inner batch of these bodies at offset 5, and the bytes of it and a message after it.
    fn with_inner_batch(bodies: &[&'static str], more_bits: i32) -> (MessageExt, Bytes) {
        let mut batch = BytesMut::new();
        for body in bodies {
            let mut properties = Properties::new();
            properties.append("UNIQ_KEY", body);
            BatchMessage { flag: 4, body: Bytes::from_static(body.as_bytes()), properties }.encode(&mut batch).unwrap();
        }
        let mut outer = sample("T", "192.168.1.10:10911");
        outer.sys_flag = NEED_UNWRAP | INNER_BATCH | MULTI_TAGS | more_bits;
        outer.message = Message::new("T", batch.freeze()).with_property("INNER_NUM", "2");
        let next = sample("T", "192.168.1.10:10911");
        let bytes = encoded(&[&outer, &next]);
        (next, bytes)
    }

    #[test]
    fn what_a_broker_stored_as_one_message_comes_as_those_it_holds() {
        let (next, bytes) = with_inner_batch(&["a", "bc"], 0);
        let read: Vec<MessageExt> = read(&bytes).into_iter().map(Result::unwrap).collect();
        let [first, second, last] = &read[..] else { panic!("{read:?}") };
        for (message, body, offset) in [(first, "a", 5), (second, "bc", 6)] {
            assert_eq!((message.body(), message.queue_offset), (&Bytes::from(body), offset));
            assert_eq!((message.property("UNIQ_KEY"), message.message.flag()), (Some(body), 4));
            assert_eq!((message.sys_flag, message.commit_log_offset), (MULTI_TAGS, next.commit_log_offset));
            assert_eq!((message.queue_id, message.store_host), (next.queue_id, next.store_host));
            assert_eq!(message.property("INNER_NUM"), None);
            assert_eq!(message.store_size as usize, 22 + 10 + 2 * body.len());
        }
        assert_eq!(last, &next);
    }

    #[test]
    fn a_compressed_batch_is_one_bad_message() {
        let (next, bytes) = with_inner_batch(&["a", "bc"], COMPRESSED);
        let mut read: Vec<MessageExt> = read(&bytes).into_iter().map(Result::unwrap).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1], next);
        assert_undecodable(&mut read[0], "sysFlag of a batch has the unknown value");
    }

    #[test]
    fn a_batch_without_messages_is_passed_over() {
        let (next, bytes) = with_inner_batch(&[], 0);
        assert_eq!(read(&bytes), [Ok(next)]);
    }

    #[test]
    fn a_batch_that_cannot_be_taken_apart_is_one_bad_message() {
        let (next, bytes) = with_inner_batch(&["a", "bc"], 0);
        let mut broken = BytesMut::from(&bytes[..]);
        broken[BODY + 4..BODY + 8].copy_from_slice(&i32::MAX.to_be_bytes());
        let mut read: Vec<MessageExt> = read(&broken.freeze()).into_iter().map(Result::unwrap).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1], next);
        assert_undecodable(&mut read[0], "batched message claims 2147483647 bytes");
    }

    #[test]
    fn a_message_of_a_batch_that_cannot_be_decoded_leaves_the_others_alone() {
        let (next, bytes) = with_inner_batch(&["a", "bc", "d"], 0);
        let mut broken = BytesMut::from(&bytes[..]);
        let second = BODY + 4 + 22 + "a".len() + "UNIQ_KEY_a_".len();
        broken[second + 16..second + 20].copy_from_slice(&100_i32.to_be_bytes());
        let mut read: Vec<MessageExt> = read(&broken.freeze()).into_iter().map(Result::unwrap).collect();
        assert_eq!(read.len(), 4);
        assert_eq!((read[0].body(), read[2].body(), &read[3]), (&Bytes::from("a"), &Bytes::from("d"), &next));
        assert_eq!((read[0].defect.as_ref(), read[2].defect.as_ref()), (None, None));
        assert_eq!((read[1].queue_offset, read[1].commit_log_offset), (6, next.commit_log_offset));
        assert_undecodable(&mut read[1], "body claims 100 bytes");
    }

    #[test]
    fn a_batch_whose_offsets_pass_the_last_one_is_one_bad_message() {
        let (_, bytes) = with_inner_batch(&["a", "bc"], 0);
        let mut last = BytesMut::from(&bytes[..]);
        last[20..28].copy_from_slice(&i64::MAX.to_be_bytes());
        let mut read = read(&last.freeze());
        assert_undecodable(read[0].as_mut().unwrap(), "queue offset has the unknown value");
    }

    #[test]
    fn a_message_that_cannot_be_decoded_holds_what_could_be_read_and_leaves_its_neighbours_alone() {
        let born_port = 4 + 4 + 4 + 4 + 4 + 8 + 8 + 4 + 8 + 4;
        let topic = BODY + 4 + "Hello".len();
        let properties = topic + 1 + "T".len();
        let cases: [(usize, &[u8], &str); 6] = [
            (4, &[0; 4], "message magic has the unknown value 0"),
            (born_port, &70_000_i32.to_be_bytes(), "born host has the unknown value 70000"),
            (BODY, &100_000_i32.to_be_bytes(), "body claims 100000 bytes"),
            (topic, &[255], "topic claims 255 bytes"),
            (properties, &9_999_i16.to_be_bytes(), "properties claims 9999 bytes"),
            (36, &BORN_HOST_V6.to_be_bytes(), "claims"),
        ];
        for (place, replaced, detail) in cases {
            let (sent, mut read) = second_of_three(place, replaced);
            let bad = &mut read[1];
            assert_undecodable(bad, detail);
            assert_eq!(
                (bad.queue_offset, bad.commit_log_offset, bad.store_size),
                (sent.queue_offset, sent.commit_log_offset, sent.store_size)
            );
        }
        let (sent, read) = second_of_three(born_port, &70_000_i32.to_be_bytes());
        assert_eq!(read[1].message, sent.message, "a wrong port does not hide the fields after it");
        let (sent, read) = second_of_three(4, &[0; 4]);
        assert_eq!((read[1].body(), read[1].topic()), (sent.body(), "T"));
    }

    #[test]
    fn text_that_is_not_utf_8_and_negative_lengths_are_read_as_java_reads_them() {
        let properties = BODY + 4 + "Hello".len() + 1 + "T".len();
        let (sent, mut read) = second_of_three(properties + 2 + "TAGS_".len(), &[0xFF]);
        assert!(read[1].is_restored());
        assert_eq!((read[1].tag(), read[1].property("a")), (Some("\u{FFFD}agA"), Some("1")));
        assert_eq!(read[1].body(), sent.body());
        read = second_of_three(properties - 1, &[0xFF]).1;
        assert_eq!((read[1].is_restored(), read[1].topic(), read[1].tag()), (true, "\u{FFFD}", Some("TagA")));
        read = second_of_three(properties, &(-32_000_i16).to_be_bytes()).1;
        assert_eq!((read[1].is_restored(), read[1].properties().len(), read[1].body()), (true, 0, sent.body()));
    }

    #[test]
    fn what_follows_a_message_of_a_wrong_size_is_not_read() {
        let message = sample("T", "192.168.1.10:10911");
        let mut bytes = BytesMut::from(&encoded(&[&message, &message, &message])[..]);
        bytes[stored_size(&message)] = 0x7F;
        let read = read(&bytes.freeze());
        assert_eq!(read.len(), 2);
        assert!(matches!(read[1], Err(Error::BadLength { what: "message", .. })));
    }

    #[test]
    fn a_size_that_contradicts_the_bytes_is_an_error() {
        for size in [i32::MIN, -1, 0, 90, 10_000, i32::MAX] {
            let mut bytes = BytesMut::from(&encoded(&[&sample("T", "192.168.1.10:10911")])[..]);
            bytes[..4].copy_from_slice(&size.to_be_bytes());
            assert!(matches!(read(&bytes.freeze())[..], [Err(Error::BadLength { what: "message", .. })]));
        }
    }
}

//! Property tests of all decoders. Written values are read back unchanged. Random, truncated or damaged bytes give a
//! value or an error, never a panic and never more output than the limit. Tests only; the environment variable
//! `PROPTEST_CASES` (256) makes them longer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use super::body::{self, ResetOffsetBody, SubscriptionData, TopicRouteData};
use super::header::{self, OffsetResponse};
use super::pop::{PopTopic, Receipt, message_offsets, order_counts, start_offsets};
use super::*;
use crate::message::properties::Properties;
use crate::message::{Message, MessageExt, MessageQueue};
use crate::wire::body::fastjson::normalise;
use crate::wire::frame::json_header;
use crate::wire::pop::recall::RecallHandle;
use crate::wire::stored::batch::{BatchMessage, messages_of_batch};
use crate::wire::stored::compression::{Codec, compress, decompress};
use crate::wire::stored::message::{body_crc, encode_stored, stored_messages, stored_size};
use crate::wire::stored::message_id::{OffsetMessageId, UniqueId};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_command_that_was_written_is_read_back_however_its_bytes_arrive(
        commands in vec(any_command(), 1..4), cuts in vec(any::<Index>(), 0..6),
    ) {
        let bytes = frames(&commands);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut decoder = FrameDecoder::new();
        let mut read = Vec::new();
        for part in cuts.windows(2) {
            decoder.push(&bytes[part[0]..part[1]]);
            while let Some(command) = decoder.next_command().unwrap() {
                read.push(command);
            }
        }
        prop_assert_eq!(read, commands);
        prop_assert_eq!(decoder.buffered(), 0);
    }

    #[test]
    fn a_json_header_says_the_same_to_a_general_parser(command in any_command()) {
        let command = RemotingCommand { encoding: HeaderEncoding::Json, ..command };
        let json: Value = serde_json::from_slice(header_of(&frames(std::slice::from_ref(&command)))).unwrap();
        prop_assert_eq!(json["code"].as_i64(), Some(command.code.into()));
        prop_assert_eq!(json["remark"].as_str(), command.remark.as_deref());
        let fields: BTreeMap<&str, &str> = command.ext_fields.iter().collect();
        prop_assert_eq!(&json["extFields"], &serde_json::json!(fields));
    }

    #[test]
    fn a_header_that_is_read_is_one_to_a_general_parser_too(command in any_command(), damage in any_damage()) {
        let command = RemotingCommand { encoding: HeaderEncoding::Json, ..command };
        let header = damage.done_to(header_of(&frames(&[command])));
        if json_header::read(&header).is_ok() {
            prop_assert!(serde_json::from_str::<Value>(&String::from_utf8_lossy(&header)).is_ok());
        }
    }

    #[test]
    fn a_damaged_frame_gives_commands_or_an_error(commands in vec(any_command(), 1..4), damage in any_damage()) {
        read_frames(&damage.done_to(&frames(&commands)));
    }

    #[test]
    fn random_bytes_give_commands_or_an_error(length in 0..64_u32, encoding in 0..3_u8, bytes in vec(any::<u8>(), 0..64)) {
        read_frames(&bytes);
        let header_length = u32::try_from(bytes.len()).unwrap().min(length);
        let word = u32::from(encoding) << 24 | header_length;
        read_frames(&[&length.to_be_bytes()[..], &word.to_be_bytes(), &bytes].concat());
    }

    #[test]
    fn headers_of_any_fields_give_a_value_or_an_error(entries in btree_map(field_name(), ".{0,12}|[0-9]{1,20}|true", 0..40)) {
        let mut fields = ExtFields::new();
        for (name, value) in &entries {
            fields.text(name, value);
        }
        for header in header::tests::TABLES.into_iter().flatten() {
            if let Ok(written) = (header.rewritten)(&fields) {
                prop_assert_eq!((header.rewritten)(&written), Ok(written), "{}", header.name);
            }
        }
        if let Ok(header) = OffsetResponse::from_fields(&fields) {
            prop_assert_eq!(Some(header.offset), entries.get("offset").and_then(|text| text.parse().ok()));
        }
    }

    #[test]
    fn stored_messages_that_were_written_are_read_back(messages in vec(any_message(), 0..4)) {
        let bytes = stored(&messages);
        prop_assert_eq!(bytes.len(), messages.iter().map(stored_size).sum::<usize>());
        let read: Result<Vec<_>, _> = read_stored(&bytes).into_iter().collect();
        prop_assert_eq!(read, Ok(messages));
    }

    #[test]
    fn a_row_that_was_cut_off_gives_whole_messages_and_then_an_error(
        messages in vec(any_message(), 1..4), cut in any::<Index>(),
    ) {
        let bytes = stored(&messages);
        let mut ends = Vec::new();
        for message in &messages {
            ends.push(ends.last().unwrap_or(&0) + stored_size(message));
        }
        let cut = cut.index(bytes.len());
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let at_an_end = cut == 0 || ends.contains(&cut);
        let read = read_stored(&bytes.slice(..cut));
        prop_assert_eq!(read.iter().filter(|message| message.is_ok()).count(), whole);
        prop_assert_eq!(read.len(), whole + usize::from(!at_an_end));
    }

    #[test]
    fn a_damaged_row_gives_messages_or_an_error(messages in vec(any_message(), 1..4), damage in any_damage()) {
        let bytes = damage.done_to(&stored(&messages));
        let read = read_stored(&Bytes::from(bytes.clone()));
        prop_assert!(read.iter().flatten().map(|message| message.store_size as usize).sum::<usize>() <= bytes.len());
        for message in read.into_iter().flatten() {
            let _ = message.properties().iter().count();
            let _ = (message.tag(), message.msg_id(), message.offset_msg_id());
        }
    }

    #[test]
    fn random_bytes_give_messages_or_an_error(bytes in vec(any::<u8>(), 0..256)) {
        for message in read_stored(&Bytes::from(bytes)).into_iter().flatten() {
            prop_assert!(message.store_size > 0);
        }
    }

    #[test]
    fn batches_are_read_as_they_were_written(messages in vec(any_batch_message(), 0..6)) {
        prop_assert_eq!(messages_of_batch(&batch(&messages)), Ok(messages));
    }

    #[test]
    fn random_and_damaged_batches_give_messages_or_an_error(
        messages in vec(any_batch_message(), 1..4), damage in any_damage(), bytes in vec(any::<u8>(), 0..64),
    ) {
        for bytes in [damage.done_to(&batch(&messages)), bytes] {
            let messages = messages_of_batch(&Bytes::from(bytes.clone())).unwrap_or_default();
            prop_assert!(messages.iter().map(|message| 22 + message.body.len()).sum::<usize>() <= bytes.len());
        }
    }

    #[test]
    fn a_stored_batch_gives_its_messages_or_is_one_bad_message(
        outer in any_message(), messages in vec(any_batch_message(), 0..4), damage in any_damage(), offset in 0..i64::MAX / 2,
    ) {
        let wrapped = |body: Bytes| {
            let mut outer = MessageExt { queue_offset: offset, ..outer.clone() };
            outer.sys_flag |= sys_flag::message::NEED_UNWRAP | sys_flag::message::INNER_BATCH;
            outer.message.body = body;
            stored(&[outer])
        };
        let read: Vec<MessageExt> = read_stored(&wrapped(batch(&messages))).into_iter().map(Result::unwrap).collect();
        prop_assert_eq!(read.len(), messages.len());
        for ((message, inner), expected) in read.iter().zip(&messages).zip(offset..) {
            prop_assert_eq!((message.body(), message.queue_offset), (&inner.body, expected));
            prop_assert_eq!(&message.message.properties, &inner.properties);
        }
        let damaged = damage.done_to(&batch(&messages));
        let is_batch = messages_of_batch(&Bytes::from(damaged.clone()));
        let read: Vec<MessageExt> = read_stored(&wrapped(damaged.into())).into_iter().map(Result::unwrap).collect();
        match is_batch {
            Ok(messages) => prop_assert_eq!(read.len(), messages.len()),
            Err(error) => prop_assert!(read.iter().any(|message| message.defect.as_deref() == Some(&*error.to_string()))),
        }
    }

    #[test]
    fn a_property_is_found_as_the_entries_say(text in "[a-c\u{1}\u{2}é]{0,40}") {
        let properties = Properties::from_encoded(Bytes::from(text));
        for name in ["a", "b", "ab", "é", "", "c\u{1}"] {
            let last = properties.iter().filter(|(other, _)| *other == name).last();
            prop_assert_eq!(properties.get(name), last.map(|(_, value)| value));
        }
    }

    #[test]
    fn properties_are_read_as_they_were_set(entries in vec(("[a-d]{1,2}", "[^\u{1}\u{2}]{1,8}"), 0..8)) {
        let mut properties = Properties::new();
        let mut expected = BTreeMap::new();
        for (name, value) in entries.iter().filter(|(_, value)| !value.trim().is_empty()) {
            properties.set(name, value);
            expected.insert(name.as_str(), value.as_str());
        }
        prop_assert_eq!(properties.len(), expected.len());
        prop_assert_eq!(properties.iter().collect::<BTreeMap<_, _>>(), expected);
    }

    #[test]
    fn random_bytes_are_properties_as_far_as_they_are_text(bytes in vec(any::<u8>(), 0..64)) {
        let properties = Properties::from_encoded(Bytes::from(bytes.clone()));
        prop_assert_eq!(properties.as_text(), String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn ids_are_read_as_they_were_written(
        host in any_host(), commit_log_offset: i64, process_id: u16, discriminator: u32, millis_of_month: u32, counter: u16,
    ) {
        let id = OffsetMessageId { store_host: host, commit_log_offset };
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        let id = UniqueId { ip: host.ip(), process_id, discriminator, millis_of_month, counter };
        prop_assert_eq!(id.to_string().to_lowercase().parse(), Ok(id));
        let mut text = String::new();
        id.write_to(&mut text);
        prop_assert_eq!(text, id.to_string());
    }

    #[test]
    fn any_text_is_an_id_or_an_error(text in "([0-9A-Fa-f]{32})|([0-9A-F]{56})|(.{0,60})") {
        if let Ok(id) = text.parse::<OffsetMessageId>() {
            prop_assert_eq!(id.to_string(), text.to_uppercase());
        }
        if let Ok(id) = text.parse::<UniqueId>() {
            prop_assert_eq!(id.to_string(), text.to_uppercase());
        }
    }

    #[test]
    fn texts_of_pop_and_recall_are_read_as_they_were_written(
        numbers: (i64, i64, i64, i32, i32, i64), words in ("[!-~]{1,12}", "[!-~]{0,12}", "[!-~]{0,12}"), place: Option<i64>,
        kind in 0..3_usize,
    ) {
        let (start_offset, pop_time, invisible_time, revive_queue_id, queue_id, queue_offset) = numbers;
        let receipt = Receipt {
            start_offset, pop_time, invisible_time, revive_queue_id, queue_id, queue_offset,
            topic: [PopTopic::Normal, PopTopic::RetryV1, PopTopic::RetryV2][kind],
            broker_name: words.0.clone(),
            commit_log_offset: place,
        };
        prop_assert_eq!(receipt.to_string().parse(), Ok(receipt));
        let handle = RecallHandle {
            topic: words.0, broker_name: words.1, deliver_timestamp: pop_time, message_id: words.2,
        };
        prop_assert_eq!(handle.to_string().parse(), Ok(handle));
    }

    #[test]
    fn any_text_is_one_of_pop_or_an_error(text in "[-0-9 ;,%qo]{0,40}|.{0,60}|[A-Za-z0-9_=-]{0,60}") {
        if let Ok(receipt) = text.parse::<Receipt>() {
            prop_assert_eq!(receipt.to_string().parse(), Ok(receipt));
        }
        if let Ok(handle) = text.parse::<RecallHandle>() {
            prop_assert_eq!(handle.to_string().parse(), Ok(handle));
        }
        let _ = (start_offsets(&text), message_offsets(&text), order_counts(&text));
    }

    #[test]
    fn a_signature_covers_every_value_and_the_body(
        entries in btree_map("[A-Za-z]{1,4}", ".{0,6}", 1..6), body in vec(any::<u8>(), 0..16), changed in any::<Index>(),
    ) {
        let fields = |change: Option<usize>| {
            let mut fields = ExtFields::new();
            for (at, (name, value)) in entries.iter().enumerate() {
                // An absent value cannot be mistaken for a part of its neighbour.
                fields.text(name, if change == Some(at) { "\u{10FFFF}" } else { value });
            }
            fields
        };
        let plain = signature_of(&fields(None), &body);
        prop_assert_eq!(&plain, &signature_of(&fields(None), &body));
        if plain.is_some() && entries.values().all(|value| !value.contains('\u{10FFFF}')) {
            prop_assert_ne!(&plain, &signature_of(&fields(Some(changed.index(entries.len()))), &body));
            prop_assert_ne!(&plain, &signature_of(&fields(None), &[&body[..], b"x"].concat()));
        }
    }

    #[test]
    fn a_table_by_queue_is_read_as_it_was_written(table in vec((".{0,8}", "[^\u{0}]{0,8}", any::<i32>(), any::<i64>()), 0..6)) {
        let queue = |(topic, broker, id, offset): (String, String, i32, i64)| (MessageQueue::new(topic, broker, id), offset);
        let body = ResetOffsetBody { offset_table: table.into_iter().map(queue).collect() };
        let written = body::encode("offsets", &body).unwrap();
        prop_assert_eq!(body::decode("offsets", &written), Ok(body));
    }

    #[test]
    fn standard_json_is_left_as_it_is(value in any_json()) {
        for json in [serde_json::to_vec(&value).unwrap(), serde_json::to_vec_pretty(&value).unwrap()] {
            let same = normalise(&json).unwrap();
            prop_assert!(matches!(same, std::borrow::Cow::Borrowed(_)));
            prop_assert_eq!(&same[..], &json[..]);
        }
    }

    #[test]
    fn keys_without_quotes_are_read_like_those_with(table in btree_map(any::<i64>(), any_json(), 0..6), spaced: bool) {
        let blank = if spaced { " \n" } else { "" };
        let entries: Vec<String> = table.iter().map(|(key, value)| format!("{blank}{key}{blank}:{value}")).collect();
        let json = format!("{{{}}}", entries.join(","));
        let read: BTreeMap<i64, Value> = body::decode("table", json.as_bytes()).unwrap();
        prop_assert_eq!(read, table);
    }

    #[test]
    fn an_object_in_the_place_of_a_key_becomes_its_text(key in any_json(), value in any_json()) {
        let key = serde_json::json!({ "key": key });
        for written in [serde_json::to_string(&key).unwrap(), serde_json::to_string_pretty(&key).unwrap()] {
            let json = format!("{{\"a\":[{{{written}:{value}}}],\"b\":{{{written}:{value}}}}}");
            let read: Value = body::decode("table", json.as_bytes()).unwrap();
            let (name, read_value) = read["b"].as_object().unwrap().iter().next().unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(name).unwrap(), key.clone());
            prop_assert_eq!(read_value, &value);
            prop_assert_eq!(&read["a"][0], &read["b"]);
        }
    }

    #[test]
    fn what_looks_like_json_gives_a_body_or_an_error(text in r#"[{}\[\]",:\\0-9a\-\n ]{0,48}"#) {
        if let Ok(json) = normalise(text.as_bytes()) {
            prop_assert!(json.len() <= 4 * text.len());
        }
        read_bodies(text.as_bytes());
    }

    #[test]
    fn a_damaged_body_gives_a_value_or_an_error(sample in any::<Index>(), damage in any_damage()) {
        let samples = body::tests::samples();
        read_bodies(&damage.done_to(sample.get(&samples).json.as_bytes()));
    }

    #[test]
    fn a_tag_expression_wants_its_own_tags_and_no_others(tags in vec("[A-Ca-c]{1,2}", 1..4), other in "[A-Ca-c]{1,2}") {
        let subscription = SubscriptionData::of_tags("T", &tags.join(" || "), 1).unwrap();
        prop_assert!(tags.iter().all(|tag| subscription.wants(Some(tag))));
        prop_assert_eq!(subscription.wants(Some(&other)), tags.contains(&other));
        let codes: Vec<i32> = tags.iter().map(|tag| java_hash::java_string_hash(tag)).collect();
        prop_assert!(subscription.code_set.iter().all(|code| codes.contains(code)));
        prop_assert!(codes.iter().all(|code| subscription.code_set.contains(code)));
    }

    #[test]
    fn a_body_survives_its_codec(codec in any_codec(), body in any_body(), level in 0..12_u32) {
        let restored = compress(codec, level, &body).and_then(|compressed| decompress(codec, &compressed, body.len()));
        let expected = if codec.is_built() { Ok(body.into()) } else { Err(Error::CodecNotBuilt { codec: codec.name() }) };
        prop_assert_eq!(restored, expected);
    }

    #[test]
    fn a_damaged_compressed_body_gives_no_more_than_its_limit(
        codec in any_codec(), body in any_body(), damage in any_damage(), limit in 0..2048_usize,
    ) {
        let damaged = damage.done_to(&compress(codec, 5, &body).unwrap_or_default());
        if let Ok(restored) = decompress(codec, &damaged, limit) {
            prop_assert!(restored.len() <= limit);
        }
    }

    #[test]
    fn random_bytes_restore_to_no_more_than_the_limit(codec in any_codec(), mut bytes in vec(any::<u8>(), 0..64), magic: bool) {
        const MAGICS: [&[u8]; 3] = [&[0x78, 0x5E], &[0x04, 0x22, 0x4D, 0x18, 0x60, 0x70], &[0x28, 0xB5, 0x2F, 0xFD]];
        if magic {
            bytes = [MAGICS[codec as usize], &bytes].concat();
        }
        if let Ok(restored) = decompress(codec, &bytes, 100) {
            prop_assert!(restored.len() <= 100);
        }
    }
}

/// Reads until the end or the first error.
fn read_frames(bytes: &[u8]) {
    let mut decoder = FrameDecoder::with_limit(4096);
    decoder.push(bytes);
    while let Ok(Some(command)) = decoder.next_command() {
        let _ = format!("{command:?}");
    }
}

fn frames(commands: &[RemotingCommand]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands {
        command.encode(&mut bytes).unwrap();
    }
    bytes
}

/// Returns the header of the only frame.
fn header_of(frame: &[u8]) -> &[u8] {
    let length = u32::from_be_bytes(frame[4..8].try_into().unwrap());
    &frame[8..8 + usize::try_from(length).unwrap()]
}

fn stored(messages: &[MessageExt]) -> Bytes {
    let mut bytes = BytesMut::new();
    for message in messages {
        encode_stored(message, &mut bytes).unwrap();
    }
    bytes.freeze()
}

fn read_stored(bytes: &Bytes) -> Vec<Result<MessageExt, Error>> {
    stored_messages(bytes, &"T".into(), &"broker-a".into()).collect()
}

/// Reads as each kind of body; every value read can be written and read again.
fn read_bodies(bytes: &[u8]) {
    let _ = TopicRouteData::decode(bytes).map(|route| route.read_queues(&Arc::from("T")).len());
    for (name, rewritten) in body::tests::BODIES {
        if let Ok(written) = rewritten(bytes) {
            assert!(rewritten(&written).is_ok(), "{name}");
        }
    }
}

fn batch(messages: &[BatchMessage]) -> Bytes {
    let mut bytes = BytesMut::new();
    for message in messages {
        message.encode(&mut bytes).unwrap();
    }
    bytes.freeze()
}

#[cfg(feature = "acl")]
fn signature_of(fields: &ExtFields, body: &[u8]) -> Option<String> {
    Some(acl::signature("secret", fields, body).unwrap())
}

#[cfg(not(feature = "acl"))]
fn signature_of(_fields: &ExtFields, _body: &[u8]) -> Option<String> {
    None
}

/// Damage to bytes: changes in places, then truncation.
#[derive(Debug)]
struct Damage {
    changes: Vec<(Index, u8)>,
    cut: Option<Index>,
}

impl Damage {
    fn done_to(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (at, mask) in &self.changes {
            let at = at.index(bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
        if let Some(cut) = self.cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        bytes
    }
}

fn any_damage() -> impl Strategy<Value = Damage> {
    // Changes single bits as well as whole bytes.
    let mask = prop_oneof![(0..8_u32).prop_map(|bit| 1 << bit), any::<u8>()];
    let changes = vec((any::<Index>(), mask), 0..4);
    (changes, any::<Option<Index>>()).prop_map(|(changes, cut)| Damage { changes, cut })
}

fn any_command() -> impl Strategy<Value = RemotingCommand> {
    let head = (any::<i16>(), 0..14_u8, any::<i16>(), any::<i32>(), any::<i32>(), any::<bool>());
    let remark = proptest::option::of(".{1,20}");
    (head, remark, vec(("[^\u{0}]{1,8}", ".{1,20}"), 0..5), vec(any::<u8>(), 0..64)).prop_map(
        |((code, language, version, opaque, flag, binary), remark, entries, body)| {
            let mut ext_fields = ExtFields::new();
            for (name, value) in &entries {
                ext_fields.text(name, value);
            }
            RemotingCommand {
                code: code.into(),
                language: LanguageCode(language),
                version: version.into(),
                opaque,
                flag,
                remark,
                ext_fields,
                body: body.into(),
                encoding: if binary { HeaderEncoding::RocketMq } else { HeaderEncoding::Json },
            }
        },
    )
}

/// Returns the names of all headers.
fn field_name() -> impl Strategy<Value = String> {
    let known: Value = serde_json::from_str(include_str!("../../tests/data/header-fields.json")).unwrap();
    let headers = known.as_object().unwrap().values();
    let names = headers.flat_map(|header| header["fields"].as_object().unwrap().keys().cloned());
    let names: std::collections::BTreeSet<String> = names.collect();
    proptest::sample::select(names.into_iter().collect::<Vec<_>>())
}

fn any_batch_message() -> impl Strategy<Value = BatchMessage> {
    let entries = btree_map("[a-z]{1,4}", "[^\u{1}\u{2}]{1,8}", 0..4);
    (any::<i32>(), any_body(), entries).prop_map(|(flag, body, entries)| {
        let mut properties = Properties::new();
        for (name, value) in entries.iter().filter(|(_, value)| !value.trim().is_empty()) {
            properties.append(name, value);
        }
        BatchMessage { flag, body: body.into(), properties }
    })
}

fn any_message() -> impl Strategy<Value = MessageExt> {
    let topic = prop_oneof![Just("T".to_owned()), "[a-z]{1,140}", Just("%RETRY%g".repeat(30))];
    let numbers = (any::<i32>(), any::<i32>(), any::<i64>(), any::<i64>(), any::<i64>(), any::<i64>());
    let more = (any::<i32>(), any::<i64>(), any_host(), any_host());
    let entries = vec(("[a-z]{1,4}", "[^\u{1}\u{2}]{1,8}"), 0..4);
    (topic, any_body(), entries, numbers, more).prop_map(
        |(topic, body, entries, (flag, queue_id, queue_offset, commit_log_offset, born, stored), more)| {
            let (reconsume_times, prepared_transaction_offset, born_host, store_host) = more;
            let message = entries.iter().fold(Message::new(topic, body).with_flag(flag), |message, (name, value)| {
                message.with_property(name, value)
            });
            let mut message = MessageExt {
                body_crc: body_crc(message.body()),
                message,
                broker_name: "broker-a".into(),
                queue_id,
                queue_offset,
                commit_log_offset,
                born_timestamp: born,
                born_host,
                store_timestamp: stored,
                store_host,
                reconsume_times,
                sys_flag: i32::from(born_host.is_ipv6()) * sys_flag::message::BORN_HOST_V6
                    + i32::from(store_host.is_ipv6()) * sys_flag::message::STORE_HOST_V6,
                store_size: 0,
                prepared_transaction_offset,
                defect: None,
            };
            // The message keeps a refused property, and the wire does not carry it.
            let properties = message.message.properties.clone();
            message.message = Message::from_parts(message.message.topic, message.message.body, flag, properties);
            message.store_size = u32::try_from(stored_size(&message)).unwrap();
            message
        },
    )
}

fn any_host() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::Zlib), Just(Codec::Lz4), Just(Codec::Zstd)]
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..64), (any::<u8>(), 0..3000_usize).prop_map(|(byte, length)| vec![byte; length])]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        r#"[a-z0-9"\\{}\[\],:é\u{1}\n]{0,8}"#.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(r#"[a-z0-9"\\{}:]{0,4}"#, inner, 0..4).prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}

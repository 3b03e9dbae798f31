//! Layout of several messages as the body of one send (`SEND_BATCH_MESSAGE`, or a send whose header has `batch`). A 5.x
//! broker may store and deliver several messages as one in this layout (*inner batch*). Pure functions over bytes;
//! bodies and properties are slices of the input.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::message::properties::Properties;
use crate::message::{Message, MessageExt};
use crate::wire::limits::MAX_PROPERTIES_LENGTH;
use crate::wire::sys_flag::message as bits;
use crate::wire::{Error, MAX_FRAME_LENGTH, bad_length};

/// Size of an empty message: sizes, magic, CRC, flag and the lengths of body and properties.
const SHORTEST: usize = 22;

/// Message of a batch; topic and queue are the batch's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchMessage {
    /// Flag set by the application.
    pub flag: i32,
    /// Body of the message.
    pub body: Bytes,
    /// Properties of the message itself.
    pub properties: Properties,
}

impl BatchMessage {
    /// Appends the message to `out`.
    ///
    /// # Errors
    ///
    /// Returns an error if body or properties are too long for their length fields; `out` is then unchanged.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), Error> {
        let (body, properties) = (&self.body, self.properties.encoded());
        let size = self.size();
        let total_size = i32::try_from(size).map_err(|_| bad_length("batched message", size, MAX_FRAME_LENGTH))?;
        let body_length = i32::try_from(body.len()).map_err(|_| bad_length("body", body.len(), size))?;
        let properties_length = i16::try_from(properties.len())
            .map_err(|_| bad_length("properties", properties.len(), MAX_PROPERTIES_LENGTH))?;
        out.reserve(size);
        out.put_i32(total_size);
        // Brokers ignore magic and CRC.
        out.put_i64(0);
        out.put_i32(self.flag);
        out.put_i32(body_length);
        out.put_slice(body);
        out.put_i16(properties_length);
        out.put_slice(properties);
        Ok(())
    }

    fn size(&self) -> usize {
        SHORTEST + self.body.len() + self.properties.encoded().len()
    }
}

/// Splits a batch into its messages. Each message's size gives the begin of the next one; its magic and CRC are
/// ignored.
///
/// # Errors
///
/// Returns an error if a length contradicts the bytes.
pub fn messages_of_batch(body: &Bytes) -> Result<Vec<BatchMessage>, Error> {
    parts_of_batch(body)?.into_iter().map(read_one).collect()
}

/// Splits a batch by the sizes of its messages.
fn parts_of_batch(body: &Bytes) -> Result<Vec<Bytes>, Error> {
    let mut rest = body.clone();
    let mut parts = Vec::new();
    while rest.has_remaining() {
        let size = rest.clone().try_get_i32().map_err(|_| Error::UnexpectedEnd { what: "batch" })?;
        let part = split(&mut rest, "batched message", size)?;
        if part.len() < SHORTEST {
            return Err(Error::UnexpectedEnd { what: "batched message" });
        }
        parts.push(part);
    }
    Ok(parts)
}

/// True if the message is an inner batch: several messages that were stored as one.
pub(crate) fn is_inner_batch(message: &MessageExt) -> bool {
    const BOTH: i32 = bits::NEED_UNWRAP | bits::INNER_BATCH;
    message.sys_flag & BOTH == BOTH
}

/// Iterates over the messages of an inner batch. Flag, body and properties are their own, their offsets count up from
/// the batch's offset, and all else is the batch's. A message that cannot be decoded has a defect of its own.
#[derive(Debug)]
pub(crate) struct InnerBatch {
    /// Template of the next message, with the values of the batch.
    outer: MessageExt,
    parts: std::vec::IntoIter<Bytes>,
}

impl InnerBatch {
    /// # Errors
    ///
    /// Returns an error if the batch's body is not a batch, or is compressed. No client compresses batches, and
    /// decompressing one into the smallest messages would take hundreds of megabytes.
    pub(crate) fn open(outer: &MessageExt) -> Result<Self, Error> {
        if outer.sys_flag & bits::COMPRESSED != 0 {
            return Err(Error::UnknownValue { what: "sysFlag of a batch", value: outer.sys_flag.into() });
        }
        let parts = parts_of_batch(outer.body())?;
        let past_the_end = Error::UnknownValue { what: "queue offset", value: outer.queue_offset };
        i64::try_from(parts.len()).ok().and_then(|count| outer.queue_offset.checked_add(count)).ok_or(past_the_end)?;
        let sys_flag = outer.sys_flag & !(bits::NEED_UNWRAP | bits::INNER_BATCH);
        Ok(Self { outer: MessageExt { sys_flag, ..outer.clone() }, parts: parts.into_iter() })
    }
}

impl Iterator for InnerBatch {
    type Item = MessageExt;

    fn next(&mut self) -> Option<MessageExt> {
        let part = self.parts.next()?;
        let queue_offset = self.outer.queue_offset;
        self.outer.queue_offset = queue_offset.saturating_add(1);
        let store_size = u32::try_from(part.len()).unwrap_or(u32::MAX);
        let (inner, defect) = match read_one(part.clone()) {
            Ok(inner) => (inner, None),
            Err(error) => (BatchMessage { body: part, ..BatchMessage::default() }, Some(error.to_string().into())),
        };
        Some(MessageExt {
            store_size,
            queue_offset,
            message: Message::from_parts(self.outer.message.topic.clone(), inner.body, inner.flag, inner.properties),
            defect,
            ..self.outer.clone()
        })
    }
}

fn read_one(mut message: Bytes) -> Result<BatchMessage, Error> {
    message.advance(12.min(message.len()));
    let flag = message.try_get_i32().map_err(|_| Error::UnexpectedEnd { what: "flag" })?;
    let body_length = message.try_get_i32().map_err(|_| Error::UnexpectedEnd { what: "body" })?;
    let body = split(&mut message, "body", body_length)?;
    let length = message.try_get_i16().map_err(|_| Error::UnexpectedEnd { what: "properties" })?;
    let properties = split(&mut message, "properties", length.into())?;
    Ok(BatchMessage { flag, body, properties: Properties::from_encoded(properties) })
}

fn split(bytes: &mut Bytes, what: &'static str, length: i32) -> Result<Bytes, Error> {
    match usize::try_from(length) {
        Ok(length) if length <= bytes.len() => Ok(bytes.split_to(length)),
        _ => Err(Error::BadLength { what, claimed: length.into(), limit: bytes.len() as u64 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two messages: `A` with `WAIT=true`, and `BC` with `TAGS=t`.
    const TWO: &str = "00000021000000000000000000000000000000014100\
                       0a574149540174727565020000001f000000000000000000000000000000024243000754414753017402";

    fn bytes(hex: &str) -> Bytes {
        let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
    }

    #[test]
    fn each_message_of_a_batch_has_its_own_body_and_properties() {
        let messages = messages_of_batch(&bytes(TWO)).unwrap();
        let [first, second] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!((first.body.as_ref(), first.properties.get("WAIT")), (&b"A"[..], Some("true")));
        assert_eq!((second.body.as_ref(), second.properties.get("TAGS")), (&b"BC"[..], Some("t")));
        let mut written = BytesMut::new();
        messages.iter().for_each(|message| message.encode(&mut written).unwrap());
        assert_eq!(written, bytes(TWO));
    }

    #[test]
    fn properties_that_their_length_cannot_tell_are_refused_and_nothing_is_written() {
        let mut message = messages_of_batch(&bytes(TWO)).unwrap().remove(0);
        message.properties.append("long", &"v".repeat(MAX_PROPERTIES_LENGTH));
        let mut written = BytesMut::from(&b"before"[..]);
        assert!(matches!(message.encode(&mut written), Err(Error::BadLength { what: "properties", .. })));
        assert_eq!(&written[..], b"before");
    }

    #[test]
    fn a_batch_that_ends_anywhere_else_or_lies_about_a_length_is_an_error() {
        let whole = bytes(TWO);
        for end in (1..whole.len()).filter(|end| *end != 33) {
            assert!(messages_of_batch(&whole.slice(..end)).is_err(), "{end}");
        }
        for size in [i32::MIN, -1, 0, 21, 32, 34, i32::MAX] {
            let mut wrong = whole.to_vec();
            wrong[..4].copy_from_slice(&size.to_be_bytes());
            assert!(messages_of_batch(&wrong.into()).is_err(), "{size}");
        }
    }
}

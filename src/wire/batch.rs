//! The layout in which several messages travel as the body of one send (`SEND_BATCH_MESSAGE`, or a send whose header
//! says `batch`). Pure functions over bytes; bodies and properties are slices of the given ones.

use bytes::{Buf, Bytes};

use super::Error;
use crate::properties::Properties;

/// Sizes, magic, CRC, flag and the lengths of body and properties.
const SHORTEST: usize = 22;

/// One message of a batch; topic and queue are the batch's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchMessage {
    /// The application's own number.
    pub flag: i32,
    /// The body.
    pub body: Bytes,
    /// The message's own properties.
    pub properties: Properties,
}

/// Takes a batch apart. Each message's size tells where the next one begins; its magic and CRC say nothing.
///
/// # Errors
///
/// When a length contradicts the bytes, or properties are not UTF-8.
pub fn messages_of_batch(body: &Bytes) -> Result<Vec<BatchMessage>, Error> {
    let mut rest = body.clone();
    let mut messages = Vec::new();
    while rest.has_remaining() {
        let size = rest.clone().try_get_i32().map_err(|_| Error::UnexpectedEnd { what: "batch" })?;
        let message = split(&mut rest, "batched message", size)?;
        messages.push(read_one(message)?);
    }
    Ok(messages)
}

fn read_one(mut message: Bytes) -> Result<BatchMessage, Error> {
    if message.len() < SHORTEST {
        return Err(Error::UnexpectedEnd { what: "batched message" });
    }
    message.advance(12);
    let flag = message.get_i32();
    let body_length = message.get_i32();
    let body = split(&mut message, "body", body_length)?;
    let length = message.try_get_i16().map_err(|_| Error::UnexpectedEnd { what: "properties" })?;
    let properties = split(&mut message, "properties", length.into())?;
    let properties = Properties::from_encoded(properties).ok_or(Error::BadText { what: "properties" })?;
    Ok(BatchMessage { flag, body, properties })
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

    /// `A` with `WAIT=true`, and `BC` with `TAGS=t`.
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

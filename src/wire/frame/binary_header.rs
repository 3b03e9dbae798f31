//! Header of a frame in RocketMQ's binary layout: code, language, version, opaque, flag, remark, fields. Pure
//! functions; `command.rs` writes the frame around it.

use std::borrow::Cow;

use byteorder::{BigEndian, ByteOrder};
use bytes::{BufMut, Bytes};

use crate::foreign_text::lossy;
use crate::wire::code::LanguageCode;
use crate::wire::frame::command::{FrameHead, HeaderEncoding, RemotingCommand};
use crate::wire::frame::ext_fields::{ExtFields, FieldSink, HeaderFields};
use crate::wire::{Error, bad_length};

/// Appends the header to `out`. Codes above 32767 do not fit into this layout.
pub(crate) fn write(head: &FrameHead<'_>, fields: &dyn HeaderFields, out: &mut Vec<u8>) -> Result<(), Error> {
    out.put_i16(fit("code for a binary header", head.code)?);
    out.put_u8(head.language.0);
    out.put_i16(fit("version for a binary header", head.version)?);
    out.put_i32(head.opaque);
    out.put_i32(head.flag);
    let remark = head.remark.unwrap_or_default();
    out.put_i32(fit("remark", remark.len())?);
    out.put_slice(remark.as_bytes());
    let length_at = out.len();
    out.put_i32(0);
    let mut sink = BinarySink { out, error: None };
    fields.write_to(&mut sink);
    if let Some(error) = sink.error {
        return Err(error);
    }
    // The length is known only now.
    if let Some((length, fields)) = out.get_mut(length_at..).and_then(|bytes| bytes.split_at_mut_checked(4)) {
        BigEndian::write_i32(length, fit("ext fields", fields.len())?);
    }
    Ok(())
}

/// Reads a whole header; the caller adds the body.
pub(crate) fn read(header: &[u8]) -> Result<RemotingCommand, Error> {
    let mut reader = HeaderReader(header);
    let code = i32::from(reader.i16("code")?);
    let language = LanguageCode(reader.u8("language")?);
    let version = i32::from(reader.i16("version")?);
    let opaque = reader.i32("opaque")?;
    let flag = reader.i32("flag")?;
    let remark_length = reader.i32("remark")?;
    let remark = reader.text("remark", remark_length.into())?;
    let fields_length = reader.i32("ext fields")?;
    let fields = reader.take("ext fields", fields_length.into())?;
    Ok(RemotingCommand {
        code,
        language,
        version,
        opaque,
        flag,
        remark: (!remark.is_empty()).then(|| remark.into_owned()),
        ext_fields: read_fields(HeaderReader(fields))?,
        body: Bytes::new(),
        encoding: HeaderEncoding::RocketMq,
    })
}

/// Omits keys and values of length zero: in this layout they cannot be distinguished from absent ones.
struct BinarySink<'a> {
    out: &'a mut Vec<u8>,
    error: Option<Error>,
}

impl FieldSink for BinarySink<'_> {
    fn text(&mut self, key: &str, value: &str) {
        if key.is_empty() || value.is_empty() {
            return;
        }
        match (i16::try_from(key.len()), i32::try_from(value.len())) {
            (Ok(key_length), Ok(value_length)) => {
                self.out.put_i16(key_length);
                self.out.put_slice(key.as_bytes());
                self.out.put_i32(value_length);
                self.out.put_slice(value.as_bytes());
            }
            _ => self.error = Some(bad_length("ext field", key.len().max(value.len()), i16::MAX as usize)),
        }
    }
}

fn read_fields(mut reader: HeaderReader<'_>) -> Result<ExtFields, Error> {
    let mut fields = ExtFields::with_room_for(reader.0.len());
    while !reader.0.is_empty() {
        let key_length = reader.i16("ext field key")?;
        let key = reader.text("ext field key", key_length.into())?;
        let value_length = reader.i32("ext field value")?;
        let value = reader.text("ext field value", value_length.into())?;
        if !key.is_empty() && !value.is_empty() {
            fields.text(&key, &value);
        }
    }
    Ok(fields)
}

/// Reads checked parts of a header.
struct HeaderReader<'a>(&'a [u8]);

impl<'a> HeaderReader<'a> {
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Error::UnexpectedEnd { what })?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, Error> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    fn i16(&mut self, what: &'static str) -> Result<i16, Error> {
        self.array(what).map(i16::from_be_bytes)
    }

    fn i32(&mut self, what: &'static str) -> Result<i32, Error> {
        self.array(what).map(i32::from_be_bytes)
    }

    fn take(&mut self, what: &'static str, length: i64) -> Result<&'a [u8], Error> {
        let split = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
        let wrong = || Error::BadLength { what, claimed: length, limit: self.0.len() as u64 };
        let (head, tail) = split.ok_or_else(wrong)?;
        self.0 = tail;
        Ok(head)
    }

    /// Replaces bytes that are not UTF-8 by U+FFFD, as the Java client does.
    fn text(&mut self, what: &'static str, length: i64) -> Result<Cow<'a, str>, Error> {
        self.take(what, length).map(lossy)
    }
}

fn fit<T, N>(what: &'static str, value: N) -> Result<T, Error>
where
    N: Copy + TryInto<T> + TryInto<i64>,
{
    value.try_into().map_err(|_| Error::UnknownValue { what, value: value.try_into().unwrap_or(i64::MAX) })
}

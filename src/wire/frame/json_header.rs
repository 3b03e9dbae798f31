//! Header of a frame as a JSON object, used by nearly every request and response.
//!
//! One is written and read for each message, so both are coded by hand: writing always, reading for the plain form in
//! which servers write. Everything else that JSON allows (white space, escapes, values that are not strings) goes to
//! `serde_json`. Pure functions; `command.rs` writes the frame around it.

use std::fmt;

use bytes::Bytes;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::from_str;
use serde_json::value::RawValue;

use crate::foreign_text::lossy;
use crate::wire::Error;
use crate::wire::code::LanguageCode;
use crate::wire::frame::command::{FrameHead, HeaderEncoding, RemotingCommand};
use crate::wire::frame::ext_fields::{ExtFields, FieldSink, FieldSpan, HeaderFields, USUAL_FIELDS};

/// Appends the header to `out`.
pub(crate) fn write(head: &FrameHead<'_>, fields: &dyn HeaderFields, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"code\":");
    put_decimal(out, head.code);
    // Written even when empty: several handlers of the brokers require it.
    out.extend_from_slice(b",\"extFields\":{");
    fields.write_to(&mut JsonSink { out, first: true });
    out.extend_from_slice(b"},\"flag\":");
    put_decimal(out, head.flag);
    out.extend_from_slice(b",\"language\":\"");
    out.extend_from_slice(head.language.name().unwrap_or("OTHER").as_bytes());
    out.extend_from_slice(b"\",\"opaque\":");
    put_decimal(out, head.opaque);
    if let Some(remark) = head.remark {
        out.extend_from_slice(b",\"remark\":\"");
        put_text(out, remark);
        out.push(b'"');
    }
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    put_decimal(out, head.version);
    out.push(b'}');
}

/// Reads a whole header; the caller adds the body.
///
/// Unknown members are ignored, `serializeTypeCurrentRPC` among them, since the frame's encoding byte decides. Of
/// duplicates the last one counts. Bytes that are not UTF-8 become U+FFFD, as in the Java client.
pub(crate) fn read(header: &[u8]) -> Result<RemotingCommand, Error> {
    let text = lossy(header);
    read_plain(&text).map_or_else(|| read_any(&text), Ok)
}

const WHAT: &str = "command header";

struct JsonSink<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl JsonSink<'_> {
    /// Writes the key, and the opening quote of its value.
    #[inline]
    fn key(&mut self, key: &str) {
        let first = std::mem::take(&mut self.first);
        match key.as_bytes() {
            // Most requests are sends, whose keys are single letters.
            [letter @ b'a'..=b'z'] if !first => self.out.extend_from_slice(&[b',', b'"', *letter, b'"', b':', b'"']),
            _ => {
                self.out.extend_from_slice(if first { b"\"" } else { b",\"" });
                put_text(self.out, key);
                self.out.extend_from_slice(b"\":\"");
            }
        }
    }
}

/// Writes every value as a string, numbers included.
impl FieldSink for JsonSink<'_> {
    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        put_text(self.out, value);
        self.out.push(b'"');
    }

    fn number(&mut self, key: &str, value: i64) {
        self.key(key);
        match u8::try_from(value) {
            Ok(digit @ ..10) => self.out.extend_from_slice(&[b'0' + digit, b'"']),
            _ => {
                self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
                self.out.push(b'"');
            }
        }
    }

    fn boolean(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true\"" } else { b"false\"" });
    }
}

fn put_decimal(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes the content of a string, escaped. Eight bytes are copied and checked together; the most frequent special
/// characters are the separators of the properties.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some((word, behind)) = rest.split_first_chunk() {
        out.extend_from_slice(word);
        let place = first_special(*word);
        let Some(&special) = word.get(place) else {
            rest = behind;
            continue;
        };
        out.truncate(out.len() - (word.len() - place));
        put_escaped(out, special);
        rest = rest.get(place + 1..).unwrap_or_default();
    }
    for &byte in rest {
        if is_special(byte) { put_escaped(out, byte) } else { out.push(byte) }
    }
}

fn put_escaped(out: &mut Vec<u8>, special: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if special >= b' ' {
        return out.extend_from_slice(&[b'\\', special]);
    }
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(special >> 4), digit(special & 15)]);
}

/// Returns the position of the first byte that needs an escape in a JSON string: a quote, a backslash or a control
/// character. Returns the length if there is none.
#[inline]
fn end_of_plain(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((word, behind)) = rest.split_first_chunk() {
        match first_special(*word) {
            8 => rest = behind,
            place => return bytes.len() - rest.len() + place,
        }
    }
    bytes.len() - rest.len() + rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len())
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | ..b' ')
}

/// Returns the index of the first special byte among eight; 8 if there is none.
///
/// In the differences, the top bit of a byte marks it as special. Flipping the second bit puts the quote right after
/// the control characters and leaves these where they are. A subtraction can borrow from the byte above a special one,
/// so only the lowest mark is valid. Characters that are not ASCII have a top bit of their own, and no mark.
#[inline]
fn first_special(word: [u8; 8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let word = u64::from_le_bytes(word);
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit));
    let control_or_quote = below(word ^ (ONES * 2), (b'"' ^ 2) + 1);
    let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
    let marks = (control_or_quote | backslash) & !word & TOPS;
    marks.trailing_zeros() as usize / 8
}

/// Reads a header without white space, escapes, unknown members or unusual types of values; `None` for any other text.
fn read_plain(text: &str) -> Option<RemotingCommand> {
    let (mut code, mut flag, mut opaque, mut version) = (None, None, None, None);
    let (mut language, mut remark, mut fields) = (LanguageCode::OTHER, None, Vec::new());
    let mut rest = text.as_bytes().strip_prefix(b"{")?;
    loop {
        let (key, behind) = plain_string(rest)?;
        let value = behind.strip_prefix(b":")?;
        match key {
            b"code" => (code, rest) = plain_number(value)?,
            b"extFields" => (fields, rest) = plain_fields(value, text.len())?,
            b"flag" => (flag, rest) = plain_number(value)?,
            b"language" => {
                let (name, behind) = plain_string(value)?;
                (language, rest) = (LanguageCode::from_name(std::str::from_utf8(name).ok()?)?, behind);
            }
            b"opaque" => (opaque, rest) = plain_number(value)?,
            b"remark" => {
                let (text, behind) = plain_string(value)?;
                (remark, rest) = (Some(std::str::from_utf8(text).ok()?.to_owned()), behind);
            }
            b"serializeTypeCurrentRPC" => (_, rest) = plain_string(value)?,
            b"version" => (version, rest) = plain_number(value)?,
            _ => return None,
        }
        match rest {
            [b',', behind @ ..] => rest = behind,
            [b'}'] => break,
            _ => return None,
        }
    }
    Some(RemotingCommand {
        code: code?,
        language,
        version: version.unwrap_or(0),
        opaque: opaque?,
        flag: flag.unwrap_or(0),
        remark,
        ext_fields: ExtFields::found(text, fields),
        body: Bytes::new(),
        encoding: HeaderEncoding::Json,
    })
}

/// Returns the positions of the header's own fields in the text, which is `length` bytes long, and the rest of the
/// text.
fn plain_fields(object: &[u8], length: usize) -> Option<(Vec<FieldSpan>, &[u8])> {
    let mut rest = object.strip_prefix(b"{")?;
    let mut fields = Vec::with_capacity(USUAL_FIELDS);
    if let [b'}', behind @ ..] = rest {
        return Some((fields, behind));
    }
    // Spans up to the quote after a string.
    let span = |string: &[u8], behind: &[u8]| {
        let end = length - behind.len() - 1;
        end - string.len()..end
    };
    loop {
        let (key, behind_key) = plain_string(rest)?;
        let (value, behind) = plain_string(behind_key.strip_prefix(b":")?)?;
        fields.push(FieldSpan { key: span(key, behind_key), value: span(value, behind) });
        match behind {
            [b',', behind @ ..] => rest = behind,
            [b'}', behind @ ..] => return Some((fields, behind)),
            _ => return None,
        }
    }
}

/// Splits off the string between two quotes, and returns it with the rest.
#[inline(always)]
fn plain_string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let (string, behind) = text.split_at_checked(end_of_plain(text))?;
    Some((string, behind.strip_prefix(b"\"")?))
}

/// Splits off a number, and returns it with the rest. The number is an option because members can be absent.
fn plain_number(text: &[u8]) -> Option<(Option<i32>, &[u8])> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let (mut value, mut behind) = (0_i64, digits);
    while let [digit @ b'0'..=b'9', further @ ..] = behind {
        (value, behind) = (value * 10 + i64::from(digit - b'0'), further);
        if value > i64::from(u32::MAX) {
            return None;
        }
    }
    let starts_well = matches!(digits, [b'1'..=b'9', ..]) || digits.len() - behind.len() == 1;
    let value = if is_negative { -value } else { value };
    Some((Some(i32::try_from(value).ok().filter(|_| starts_well)?), behind))
}

/// Reads a header in any form that JSON allows.
fn read_any(text: &str) -> Result<RemotingCommand, Error> {
    let mut command = RemotingCommand {
        code: 0,
        language: LanguageCode::OTHER,
        version: 0,
        opaque: 0,
        flag: 0,
        remark: None,
        ext_fields: ExtFields::new(),
        body: Bytes::new(),
        encoding: HeaderEncoding::Json,
    };
    let (mut has_code, mut has_opaque) = (false, false);
    let read = each_member(text, |key, value| {
        match key {
            "code" => has_code |= read_number(value, &mut command.code)?,
            "opaque" => has_opaque |= read_number(value, &mut command.opaque)?,
            "flag" => drop(read_number(value, &mut command.flag)?),
            "version" => drop(read_number(value, &mut command.version)?),
            "language" => command.language = language(&text_of(value)?.unwrap_or_default()),
            "remark" => command.remark = text_of(value)?,
            "extFields" => command.ext_fields = any_fields(value)?,
            _ => {}
        }
        Ok(())
    });
    read.map_err(|error| Error::BadJson { what: WHAT, detail: error.to_string() })?;
    match (has_code, has_opaque) {
        (false, _) => Err(Error::MissingField { field: "code" }),
        (_, false) => Err(Error::MissingField { field: "opaque" }),
        _ => Ok(command),
    }
}

/// Reads a number, which may be inside a string. Returns false and changes nothing for null.
fn read_number(value: &RawValue, number: &mut i32) -> serde_json::Result<bool> {
    let json = value.get();
    let is_there = json != "null";
    if is_there {
        let text: String = if json.starts_with('"') { from_str(json)? } else { json.to_owned() };
        *number = text.parse().map_err(|_| de::Error::custom("expected a number"))?;
    }
    Ok(is_there)
}

/// Reads the header's own fields; null means none.
fn any_fields(object: &RawValue) -> serde_json::Result<ExtFields> {
    let mut fields = ExtFields::new();
    if object.get() != "null" {
        each_member(object.get(), |key, value| {
            if let Some(value) = text_of(value)? {
                fields.text(key, &value);
            }
            Ok(())
        })?;
    }
    Ok(fields)
}

/// Returns a string, or a number or boolean as text, converted as fastjson does; `None` for null.
fn text_of(value: &RawValue) -> serde_json::Result<Option<String>> {
    let json = value.get();
    match json.as_bytes() {
        [b'{' | b'[', ..] => Err(de::Error::custom("expected a string")),
        [b'"', ..] => from_str(json).map(Some),
        b"null" => Ok(None),
        _ => Ok(Some(json.to_owned())),
    }
}

/// Returns a language by its name, or by its number as fastjson allows; an unknown one is `OTHER`.
fn language(name: &str) -> LanguageCode {
    let by_number = || name.parse().ok().map(LanguageCode);
    LanguageCode::from_name(name).or_else(by_number).unwrap_or(LanguageCode::OTHER)
}

/// Passes each member of an object to `take`, in order, duplicates included. A hostile header has millions of them.
fn each_member<T>(json: &str, take: T) -> serde_json::Result<()>
where
    T: FnMut(&str, &RawValue) -> serde_json::Result<()>,
{
    let mut reader = serde_json::Deserializer::from_str(json);
    reader.deserialize_map(EachMember(take))?;
    reader.end()
}

struct EachMember<T>(T);

impl<'de, T> Visitor<'de> for EachMember<T>
where
    T: FnMut(&str, &RawValue) -> serde_json::Result<()>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
            (self.0)(&key, value).map_err(de::Error::custom)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::code::RequestCode;

    /// Reads the header by both methods and checks that they agree.
    fn read_text(header: &str) -> Result<RemotingCommand, Error> {
        let any = read_any(header);
        if let Some(plain) = read_plain(header) {
            assert_eq!(any.as_ref(), Ok(&plain), "{header}");
        }
        assert_eq!(read(header.as_bytes()), any);
        any
    }

    #[test]
    fn what_servers_write_is_plain() {
        for header in [
            r#"{"code":0,"extFields":{"queueId":"3","msgId":"7F00"},"flag":1,"language":"JAVA","opaque":-12,"#
                .to_owned()
                + r#""remark":"标 FOUND","serializeTypeCurrentRPC":"JSON","version":407}"#,
            r#"{"code":17,"extFields":{},"flag":1,"language":"JAVA","opaque":0,"version":513}"#.to_owned(),
            r#"{"opaque":2147483647,"code":-2147483648}"#.to_owned(),
        ] {
            assert!(read_plain(&header).is_some(), "{header}");
            assert!(read_text(&header).is_ok());
        }
    }

    struct EveryKind;

    impl HeaderFields for EveryKind {
        fn write_to(&self, sink: &mut dyn FieldSink) {
            sink.text("a", "T");
            sink.text("b", "\"\u{1}\\ü");
            for (key, number) in [("c", 0), ("d", 9), ("e", 10), ("f", -1), ("largest", i64::MAX)] {
                sink.number(key, number);
            }
            sink.boolean("g", true);
            sink.boolean("h", false);
        }
    }

    #[test]
    fn all_fields_are_written_as_texts_whatever_they_are() {
        let mut out = b"before".to_vec();
        let head = FrameHead::request(HeaderEncoding::Json, RequestCode::SEND_MESSAGE_V2, -7, true);
        write(&FrameHead { remark: Some("why\n"), version: 1, ..head }, &EveryKind, &mut out);
        let expected = r#"before{"code":310,"extFields":{"a":"T","b":"\"\u0001\\ü","c":"0","d":"9","e":"10","f":"-1","#
            .to_owned()
            + r#""largest":"9223372036854775807","g":"true","h":"false"},"flag":2,"language":"RUST","opaque":-7,"#
            + r#""remark":"why\u000a","serializeTypeCurrentRPC":"JSON","version":1}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn white_space_unknown_members_and_their_nesting_are_passed_over() {
        let header =
            " {\"a\" : {\"b\":[1,{}]} ,\n\"code\":1, \"c\":[ ],\"d\":1.5e3,\"opaque\": 2 , \"e\":null,\"f\":true } ";
        let command = read_text(header).unwrap();
        assert_eq!((command.code, command.opaque), (1, 2));
        assert_eq!(command.language, LanguageCode::OTHER);
    }

    #[test]
    fn values_that_are_no_texts_are_fields_as_they_stand_and_null_is_none() {
        let header =
            r#"{"code":1,"opaque":2,"extFields":{"n":-7,"t":true,"f":1.50,"no":null,"e":"","\u0061":"\"\u6807\/"}}"#;
        let fields = read_text(header).unwrap().ext_fields;
        let read: Vec<_> = fields.iter().collect();
        assert_eq!(read, [("n", "-7"), ("t", "true"), ("f", "1.50"), ("e", ""), ("a", "\"标/")]);
    }

    #[test]
    fn numbers_may_be_texts_and_null_is_absent() {
        let command = read_text(r#"{"code":"1","opaque":"-2","flag":"3","version":"4"}"#).unwrap();
        assert_eq!((command.code, command.opaque, command.flag, command.version), (1, -2, 3, 4));
        let command = read_text(r#"{"code":1,"opaque":2,"flag":null,"version":null,"code":null}"#).unwrap();
        assert_eq!((command.code, command.opaque, command.flag, command.version), (1, 2, 0, 0));
        assert_eq!(read_text(r#"{"code":null,"opaque":2}"#), Err(Error::MissingField { field: "code" }));
        assert!(read_text(r#"{"code":"one","opaque":2}"#).is_err());
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_java_shows_them() {
        let command = read(b"{\"code\":1,\"opaque\":2,\"remark\":\"a\xFFb\"}").unwrap();
        assert_eq!(command.remark.as_deref(), Some("a\u{FFFD}b"));
    }

    #[test]
    fn absent_fields_and_a_null_in_their_place_are_no_fields() {
        assert!(read_text(r#"{"code":1,"opaque":2}"#).unwrap().ext_fields.is_empty());
        assert!(read_text(r#"{"code":1,"opaque":2,"extFields":null,"remark":null}"#).unwrap().ext_fields.is_empty());
    }

    #[test]
    fn a_language_may_be_a_number_or_unknown() {
        let language =
            |value: &str| read_text(&format!("{{\"code\":1,\"opaque\":2,\"language\":{value}}}")).unwrap().language;
        assert_eq!(language("\"GO\""), LanguageCode::GO);
        assert_eq!(language("9"), LanguageCode::GO);
        assert_eq!(language("\"COBOL\""), LanguageCode::OTHER);
        assert_eq!(language("null"), LanguageCode::OTHER);
    }

    #[test]
    fn what_is_no_header_is_an_error() {
        for header in [
            "",
            "{",
            "{}",
            "[]",
            "null",
            "{\"code\":1}",
            "{\"code\":1,\"opaque\":2",
            "{\"code\":1,\"opaque\":2}}",
            "{\"code\":1,\"opaque\":2,}",
            "{\"code\":1 \"opaque\":2}",
            "{\"code\":01,\"opaque\":2}",
            "{\"code\":1.0,\"opaque\":2}",
            "{\"code\":1:,\"opaque\":2}",
            "{\"code\":2147483648,\"opaque\":2}",
            "{\"code\":99999999999999999999,\"opaque\":2}",
            "{code:1,\"opaque\":2}",
            "{\"code\":1,\"opaque\":2,\"extFields\":{\"a\":{}}}",
            "{\"code\":1,\"opaque\":2,\"extFields\":[]}",
            "{\"code\":1,\"opaque\":2,\"remark\":\"\n\"}",
            "{\"code\":1,\"opaque\":2,\"remark\":\"\\x\"}",
            "{\"code\":1,\"opaque\":2,\"x\":[}",
            "{\"code\":1,\"opaque\":2,\"x\":tru}",
            "{\"code\":,\"opaque\":2}",
        ] {
            assert!(read_text(header).is_err(), "{header}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |field| Err(Error::MissingField { field });
        assert_eq!(read_text("{}"), missing("code"));
        assert_eq!(read_text("{\"opaque\":1}"), missing("code"));
        assert_eq!(read_text("{\"code\":1}"), missing("opaque"));
    }

    #[test]
    fn every_special_byte_is_found_at_every_place() {
        for length in 0..20 {
            for place in 0..length {
                for special in (0..b' ').chain([b'"', b'\\']) {
                    let mut bytes = vec![b'\xC3'; length];
                    bytes[place] = special;
                    assert_eq!(end_of_plain(&bytes), place);
                    assert_eq!(end_of_plain(&bytes[place..]), 0);
                }
            }
            assert_eq!(end_of_plain(&vec![b' '; length]), length);
            assert_eq!(end_of_plain(&vec![b'\x7F'; length]), length);
        }
    }
}

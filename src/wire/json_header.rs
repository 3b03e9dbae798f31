//! The header of a frame as a JSON object, the way of nearly every request and response.
//!
//! Headers are flat and small, and one is read and written for each message: they are walked here by hand, at a fraction
//! of what a general deserializer takes. Whatever is not a plain text (escapes, numbers, unknown values) goes to
//! `serde_json`. Pure functions; `command.rs` puts the frame around it.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Error;
use super::code::LanguageCode;
use super::command::{ExtFields, FieldSink, FrameHead, HeaderEncoding, HeaderFields, RemotingCommand};

/// Writes the header behind what is in `out`.
pub(super) fn write(head: &FrameHead<'_>, fields: &dyn HeaderFields, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"code\":");
    put_decimal(out, head.code);
    // Written even when empty: several of the brokers' handlers take it for granted.
    out.extend_from_slice(b",\"extFields\":{");
    fields.write_to(&mut JsonSink { out, first: true });
    out.extend_from_slice(b"},\"flag\":");
    put_decimal(out, head.flag);
    out.extend_from_slice(b",\"language\":\"");
    out.extend_from_slice(head.language.name().unwrap_or("OTHER").as_bytes());
    out.extend_from_slice(b"\",\"opaque\":");
    put_decimal(out, head.opaque);
    if let Some(remark) = head.remark {
        out.extend_from_slice(b",\"remark\":");
        put_string(out, remark);
    }
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    put_decimal(out, head.version);
    out.push(b'}');
}

/// Reads a whole header; the body is the caller's.
///
/// Unknown members are passed over, `serializeTypeCurrentRPC` among them, since the frame's encoding byte decides. Of
/// doubles the last one counts.
pub(super) fn read(header: &[u8]) -> Result<RemotingCommand, Error> {
    let text = std::str::from_utf8(header).map_err(|_| Error::BadText { what: WHAT })?;
    let mut reader = Reader { text, at: 0, error: None };
    let (mut code, mut opaque) = (None, None);
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
    let read = reader.object(|reader, key| {
        match key {
            "code" => code = Some(reader.number()?),
            "opaque" => opaque = Some(reader.number()?),
            "flag" => command.flag = reader.number()?,
            "version" => command.version = reader.number()?,
            "language" => command.language = reader.language()?,
            "remark" => command.remark = reader.scalar()?.map(Cow::into_owned),
            "extFields" => command.ext_fields = reader.fields()?,
            _ => reader.skip()?,
        }
        Ok(())
    });
    if read.and_then(|()| reader.end()).is_err() {
        return Err(reader.error.unwrap_or(Error::BadText { what: WHAT }));
    }
    command.code = code.ok_or(Error::MissingField { field: "code" })?;
    command.opaque = opaque.ok_or(Error::MissingField { field: "opaque" })?;
    Ok(command)
}

const WHAT: &str = "command header";

struct JsonSink<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl JsonSink<'_> {
    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        match key.as_bytes() {
            // Most requests are sends, whose keys are single letters.
            [letter @ b'a'..=b'z'] => self.out.extend_from_slice(&[b'"', *letter, b'"', b':']),
            _ => {
                put_string(self.out, key);
                self.out.push(b':');
            }
        }
    }
}

impl FieldSink for JsonSink<'_> {
    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        put_string(self.out, value);
    }

    fn number(&mut self, key: &str, value: i64) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        self.out.push(b'"');
    }

    fn boolean(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"\"true\"" } else { b"\"false\"" });
    }
}

fn put_decimal(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Runs of plain bytes are copied at once; the separators of the properties string are the usual exception.
fn put_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut start = 0;
    loop {
        let end = end_of_plain(bytes, start);
        out.extend_from_slice(bytes.get(start..end).unwrap_or_default());
        match bytes.get(end) {
            None => break,
            Some(special) => put_escaped(out, *special),
        }
        start = end + 1;
    }
    out.push(b'"');
}

fn put_escaped(out: &mut Vec<u8>, special: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if special >= b' ' {
        return out.extend_from_slice(&[b'\\', special]);
    }
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(special >> 4), digit(special & 15)]);
}

/// Where, from `start` on, the first byte is that cannot stand in a JSON string as it is: a quote, a backslash or a
/// control character. The length when there is none.
fn end_of_plain(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let marks = special_marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        at += 1;
    }
    at
}

/// Eight bytes at once: the lowest top bit that is set marks the first special byte. (A subtraction can borrow from the
/// byte above a special one, so that only the lowest mark means something.)
fn special_marks(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, b' ') | equal(b'"') | equal(b'\\')) & TOPS
}

/// Walks over JSON text. Positions are always those of ASCII bytes, so that slices end at characters.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Of the last [`Bad`].
    error: Option<Error>,
}

/// The text cannot be read on; why stands in the reader. (An error of some size would be moved at every step.)
struct Bad;

impl<'a> Reader<'a> {
    /// An object, with `member` called at the value of each key to take it.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &str) -> Result<(), Bad>) -> Result<(), Bad> {
        self.expect(b'{')?;
        if self.peek() == Some(b'}') {
            return self.expect(b'}');
        }
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            member(self, &key)?;
            match self.peek() {
                Some(b',') => self.expect(b',')?,
                _ => return self.expect(b'}'),
            }
        }
    }

    /// The header's own fields; null is as good as none.
    fn fields(&mut self) -> Result<ExtFields, Bad> {
        if self.peek() == Some(b'n') {
            self.skip()?;
            return Ok(ExtFields::new());
        }
        let mut fields = ExtFields::for_header(self.text.len() - self.at);
        self.object(|reader, key| {
            if let Some(value) = reader.scalar()? {
                fields.text(key, &value);
            }
            Ok(())
        })?;
        Ok(fields)
    }

    /// A text, or a number or truth value as its text, the way fastjson coerces them; `None` for null.
    fn scalar(&mut self) -> Result<Option<Cow<'a, str>>, Bad> {
        match self.peek() {
            Some(b'"') => self.string().map(Some),
            Some(b'{' | b'[') => Err(self.bad("a text is expected")),
            _ => {
                let token = self.token();
                self.parse::<IgnoredAny>(token)?;
                Ok((token != "null").then_some(Cow::Borrowed(token)))
            }
        }
    }

    fn number(&mut self) -> Result<i32, Bad> {
        self.peek();
        let start = self.at;
        let digit = |at: usize| self.text.as_bytes().get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|d| *d < 10);
        let negative = self.text.as_bytes().get(start) == Some(&b'-');
        let first = start + usize::from(negative);
        let (mut at, mut value) = (first, 0_i64);
        // Enough for every number that fits.
        while let Some(next) = digit(at).filter(|_| at - first < 12) {
            value = value * 10 + i64::from(next);
            at += 1;
        }
        let is_json = at > first && (at - first == 1 || digit(first) != Some(0)) && digit(at).is_none();
        self.at = at;
        let value = if negative { -value } else { value };
        i32::try_from(value).ok().filter(|_| is_json).ok_or_else(|| self.bad("a number is expected"))
    }

    /// A language by its name, or by its number as fastjson allows; an unknown one is `OTHER`.
    fn language(&mut self) -> Result<LanguageCode, Bad> {
        let value = self.scalar()?.unwrap_or_default();
        let by_number = || value.parse().ok().map(LanguageCode);
        Ok(LanguageCode::from_name(&value).or_else(by_number).unwrap_or(LanguageCode::OTHER))
    }

    /// Any value.
    fn skip(&mut self) -> Result<(), Bad> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{' | b'[') => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
                values.next().transpose().map_err(|error| self.bad(error))?;
                self.at += values.byte_offset();
                Ok(())
            }
            _ => {
                let token = self.token();
                self.parse::<IgnoredAny>(token).map(drop)
            }
        }
    }

    fn end(&mut self) -> Result<(), Bad> {
        if self.peek().is_some() { Err(self.bad("something follows the object")) } else { Ok(()) }
    }

    /// A string; borrowed unless something in it is escaped.
    #[inline]
    fn string(&mut self) -> Result<Cow<'a, str>, Bad> {
        self.expect(b'"')?;
        let start = self.at;
        let end = self.end_of_string()?;
        if self.text.as_bytes().get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(Cow::Borrowed(self.text.get(start..end).unwrap_or_default()));
        }
        self.at = end;
        while self.text.as_bytes().get(self.at) == Some(&b'\\') {
            // Whatever is escaped does not end the string.
            self.at += 2;
            self.at = self.end_of_string()?;
        }
        self.at += 1;
        self.parse(self.text.get(start - 1..self.at).unwrap_or_default()).map(Cow::Owned)
    }

    /// Where the quote is that ends the string, or the next backslash in it.
    fn end_of_string(&mut self) -> Result<usize, Bad> {
        let end = end_of_plain(self.text.as_bytes(), self.at);
        match self.text.as_bytes().get(end) {
            Some(b'"' | b'\\') => Ok(end),
            Some(_) => Err(self.bad("a control character is in a string")),
            None => Err(self.bad("a string has no end")),
        }
    }

    /// What stands here up to a separator.
    fn token(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_end =
            |byte: u8| matches!(byte, b',' | b'}' | b']' | b':' | b'"' | b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n');
        let length = rest.bytes().position(is_end).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn parse<T: Deserialize<'a>>(&mut self, json: &'a str) -> Result<T, Bad> {
        serde_json::from_str(json).map_err(|error| self.bad(error))
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Bad> {
        if self.peek() == Some(wanted) {
            self.at += 1;
            return Ok(());
        }
        Err(self.bad(format_args!("{:?} is expected", char::from(wanted))))
    }

    /// The next byte that is no white space.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    #[cold]
    fn bad(&mut self, detail: impl std::fmt::Display) -> Bad {
        self.error = Some(Error::BadJson { what: WHAT, detail: format!("{detail}, at byte {}", self.at) });
        Bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(header: &str) -> Result<RemotingCommand, Error> {
        read(header.as_bytes())
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
            "{\"code\":2147483648,\"opaque\":2}",
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
    fn every_special_byte_is_found_at_every_place() {
        for length in 0..20 {
            for place in 0..length {
                for special in (0..b' ').chain([b'"', b'\\']) {
                    let mut bytes = vec![b'\xC3'; length];
                    bytes[place] = special;
                    assert_eq!(end_of_plain(&bytes, 0), place);
                    assert_eq!(end_of_plain(&bytes, place), place);
                }
            }
            assert_eq!(end_of_plain(&vec![b' '; length], 0), length);
            assert_eq!(end_of_plain(&vec![b'\x7F'; length], 0), length);
        }
    }
}

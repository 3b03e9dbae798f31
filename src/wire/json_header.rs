//! The header of a frame as a JSON object, the way of nearly every request and response.
//!
//! Headers are flat and small, and one is read and written for each message: they are walked here by hand, at a fraction
//! of what a general deserializer takes. Whatever is not a plain text (escapes, numbers, unknown values) goes to
//! `serde_json`. Pure functions; `command.rs` puts the frame around it.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Error;
use super::code::LanguageCode;
use super::command::{FrameHead, HeaderEncoding, RemotingCommand};
use super::ext_fields::{ExtFields, FieldSink, FieldSpan, HeaderFields, USUAL_FIELDS};

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
        out.extend_from_slice(b",\"remark\":\"");
        put_text(out, remark);
        out.push(b'"');
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
    let mut reader = Reader { text, at: 0, unescaped: String::new(), error: None };
    reader.header().map_err(|Bad| reader.error.unwrap_or(Error::BadText { what: WHAT }))
}

const WHAT: &str = "command header";

struct JsonSink<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl JsonSink<'_> {
    /// The key, and the quote that begins its value.
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

/// Every value is a text, numbers included.
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

/// What stands between the quotes of a string. Eight bytes are copied and looked at together; the separators of the
/// properties are what is usually special among them.
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
        if matches!(byte, b'"' | b'\\' | ..b' ') { put_escaped(out, byte) } else { out.push(byte) }
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

/// Where, from `start` on, the first byte is that cannot stand in a JSON string as it is: a quote, a backslash or a
/// control character. The length when there is none.
#[inline]
fn end_of_plain(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let word = rest.first_chunk().copied().unwrap_or_else(|| padded(rest));
        match first_special(word) {
            8 => at += 8,
            place => return at + place,
        }
    }
}

/// The last bytes, fewer than a word, with zeros behind them, which are as special as what ends a string.
fn padded(rest: &[u8]) -> [u8; 8] {
    let mut word = [0; 8];
    word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    word
}

/// Which of eight bytes is the first special one; 8 when none is.
///
/// In the differences a byte's top bit tells that it is special: flipping the second bit puts the quote right behind the
/// control characters and leaves these where they are. (A subtraction can borrow from the byte above a special one, so
/// that only the lowest mark means something. Characters that are not ASCII have a top bit of their own, and no mark.)
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

/// Walks over JSON text. Positions are always those of ASCII bytes, so that slices end at characters.
///
/// What is found is told by where it lies, and copied at the end, all at once.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The strings that had something escaped; they lie behind `text`.
    unescaped: String,
    /// Of the last [`Bad`].
    error: Option<Error>,
}

/// The text cannot be read on; why stands in the reader. (An error of some size would be moved at every step.)
#[derive(Debug)]
struct Bad;

impl Reader<'_> {
    fn header(&mut self) -> Result<RemotingCommand, Bad> {
        let (mut code, mut opaque, mut flag, mut version) = (None, None, 0, 0);
        let (mut language, mut remark, mut fields) = (LanguageCode::OTHER, None, Vec::new());
        self.object(|reader, key| {
            match reader.bytes(&key) {
                b"code" => code = Some(reader.number()?),
                b"opaque" => opaque = Some(reader.number()?),
                b"flag" => flag = reader.number()?,
                b"version" => version = reader.number()?,
                b"language" => language = reader.language()?,
                b"remark" => remark = reader.scalar()?,
                b"extFields" => fields = reader.fields()?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        self.end()?;
        let missing = |field| Error::MissingField { field };
        Ok(RemotingCommand {
            code: code.ok_or_else(|| self.fail(missing("code")))?,
            language,
            version,
            opaque: opaque.ok_or_else(|| self.fail(missing("opaque")))?,
            flag,
            remark: remark.map(|remark| self.get(&remark).to_owned()),
            ext_fields: ExtFields::found(self.text, &self.unescaped, fields),
            body: Bytes::new(),
            encoding: HeaderEncoding::Json,
        })
    }

    /// An object, with `member` called at the value of each key to take it.
    #[inline]
    fn object(&mut self, mut member: impl FnMut(&mut Self, Range<usize>) -> Result<(), Bad>) -> Result<(), Bad> {
        self.expect(b'{')?;
        if self.peek() == Some(b'}') {
            return self.expect(b'}');
        }
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            member(self, key)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => return self.expect(b'}'),
            }
        }
    }

    /// The header's own fields; null is as good as none.
    fn fields(&mut self) -> Result<Vec<FieldSpan>, Bad> {
        if self.peek() == Some(b'n') {
            self.skip()?;
            return Ok(Vec::new());
        }
        let mut fields = Vec::with_capacity(USUAL_FIELDS);
        self.object(|reader, key| {
            if let Some(value) = reader.scalar()? {
                fields.push(FieldSpan { key, value });
            }
            Ok(())
        })?;
        Ok(fields)
    }

    /// A text, or a number or truth value as its text, the way fastjson coerces them; `None` for null.
    #[inline(always)]
    fn scalar(&mut self) -> Result<Option<Range<usize>>, Bad> {
        if self.peek() == Some(b'"') { self.string().map(Some) } else { self.bare_scalar() }
    }

    #[cold]
    fn bare_scalar(&mut self) -> Result<Option<Range<usize>>, Bad> {
        if let Some(b'{' | b'[') = self.peek() {
            return Err(self.bad("a text is expected"));
        }
        let token = self.token()?;
        Ok((self.get(&token) != "null").then_some(token))
    }

    fn number(&mut self) -> Result<i32, Bad> {
        self.peek();
        let bytes = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let (negative, digits) = match bytes {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        let (mut count, mut value) = (0, 0_i64);
        // Enough for every number that fits.
        for digit in digits.iter().take(12).map(|byte| byte.wrapping_sub(b'0')).take_while(|digit| *digit < 10) {
            value = value * 10 + i64::from(digit);
            count += 1;
        }
        self.at += count + usize::from(negative);
        let is_json = count == 1 || (count > 1 && digits.first() != Some(&b'0'));
        let ends = !digits.get(count).is_some_and(u8::is_ascii_digit);
        let value = if negative { -value } else { value };
        let number = i32::try_from(value).ok().filter(|_| is_json && ends);
        number.ok_or_else(|| self.bad("a number is expected"))
    }

    /// A language by its name, or by its number as fastjson allows; an unknown one is `OTHER`.
    fn language(&mut self) -> Result<LanguageCode, Bad> {
        let value = self.scalar()?.map_or("", |value| self.get(&value));
        let by_number = || value.parse().ok().map(LanguageCode);
        Ok(LanguageCode::from_name(value).or_else(by_number).unwrap_or(LanguageCode::OTHER))
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
            _ => self.token().map(drop),
        }
    }

    fn end(&mut self) -> Result<(), Bad> {
        if self.peek().is_some() { Err(self.bad("something follows the object")) } else { Ok(()) }
    }

    #[inline(always)]
    fn string(&mut self) -> Result<Range<usize>, Bad> {
        self.expect(b'"')?;
        let start = self.at;
        let end = end_of_plain(self.text.as_bytes(), start);
        if self.text.as_bytes().get(end) != Some(&b'"') {
            return self.escaped_string(start);
        }
        self.at = end + 1;
        Ok(start..end)
    }

    /// A string from `start` on in which something is escaped.
    #[cold]
    fn escaped_string(&mut self, start: usize) -> Result<Range<usize>, Bad> {
        self.at = self.end_of_string(start)?;
        while self.text.as_bytes().get(self.at) == Some(&b'\\') {
            // Whatever is escaped does not end the string.
            self.at = self.end_of_string(self.at + 2)?;
        }
        self.at += 1;
        let string: String = self.parse(self.text.get(start - 1..self.at).unwrap_or_default())?;
        let start = self.text.len() + self.unescaped.len();
        self.unescaped.push_str(&string);
        Ok(start..start + string.len())
    }

    /// Where, from `start` on, the quote is that ends the string, or the next backslash in it.
    fn end_of_string(&mut self, start: usize) -> Result<usize, Bad> {
        let end = end_of_plain(self.text.as_bytes(), start);
        match self.text.as_bytes().get(end) {
            Some(b'"' | b'\\') => Ok(end),
            Some(_) => Err(self.bad("a control character is in a string")),
            None => Err(self.bad("a string has no end")),
        }
    }

    /// What stands here up to a separator: a number, a truth value or null.
    fn token(&mut self) -> Result<Range<usize>, Bad> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_end =
            |byte: u8| matches!(byte, b',' | b'}' | b']' | b':' | b'"' | b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n');
        let length = rest.bytes().position(is_end).unwrap_or(rest.len());
        let start = self.at;
        self.at += length;
        self.parse::<IgnoredAny>(rest.get(..length).unwrap_or_default())?;
        Ok(start..self.at)
    }

    /// What was found, as text.
    fn get(&self, span: &Range<usize>) -> &str {
        std::str::from_utf8(self.bytes(span)).unwrap_or_default()
    }

    /// The same as bytes, which is less work.
    #[inline]
    fn bytes(&self, span: &Range<usize>) -> &[u8] {
        let end = self.text.len();
        let unescaped = || self.unescaped.as_bytes().get(span.start.checked_sub(end)?..span.end.checked_sub(end)?);
        self.text.as_bytes().get(span.clone()).or_else(unescaped).unwrap_or_default()
    }

    fn parse<'t, T: Deserialize<'t>>(&mut self, json: &'t str) -> Result<T, Bad> {
        serde_json::from_str(json).map_err(|error| self.bad(error))
    }

    #[inline]
    fn expect(&mut self, wanted: u8) -> Result<(), Bad> {
        if self.peek() == Some(wanted) {
            self.at += 1;
            return Ok(());
        }
        Err(self.bad(format_args!("{:?} is expected", char::from(wanted))))
    }

    /// The next byte that is no white space, which hardly anybody writes.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        match self.text.as_bytes().get(self.at) {
            Some(b'\0'..=b' ') => self.peek_behind_spaces(),
            other => other.copied(),
        }
    }

    #[cold]
    fn peek_behind_spaces(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.as_bytes().get(self.at) {
            self.at += 1;
        }
        self.text.as_bytes().get(self.at).copied()
    }

    #[cold]
    fn bad(&mut self, detail: impl std::fmt::Display) -> Bad {
        self.fail(Error::BadJson { what: WHAT, detail: format!("{detail}, at byte {}", self.at) })
    }

    #[cold]
    fn fail(&mut self, error: Error) -> Bad {
        self.error = Some(error);
        Bad
    }
}

#[cfg(test)]
mod tests {
    use super::super::code::RequestCode;
    use super::*;

    fn read_text(header: &str) -> Result<RemotingCommand, Error> {
        read(header.as_bytes())
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

//! Normaliser of fastjson's dialect. Java servers write map keys that are not strings without conversion: integers
//! without quotes, and whole objects as keys. The normaliser turns such keys into strings, so that the result is
//! standard JSON.
//!
//! One pass over the bytes, without recursion. It finds keys and leaves the rest to the JSON parser that runs after it.

use std::borrow::Cow;

use crate::wire::Error;

/// Maximum nesting depth, equal to the limit of `serde_json`.
const MAX_DEPTH: usize = 128;

/// Maximum number of members and elements in a body: 131,000 topics with their settings, or a route of 40,000 brokers.
/// A value takes much more memory than its text may take.
pub const MAX_VALUES: usize = 1024 * 1024;

/// Converts JSON in fastjson's dialect to standard JSON; standard JSON is returned unchanged and uncopied.
///
/// An integer key becomes its digits in quotes. An object key becomes a string that contains the object's JSON.
///
/// # Errors
///
/// Returns an error if brackets do not match, a string is not terminated, nesting is deeper than 128 levels, there are
/// more than [`MAX_VALUES`] values, or an object key contains another object key. Other syntax errors are left to the
/// parser.
pub fn normalise(json: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    let mut normaliser = Normaliser {
        json,
        at: 0,
        copied: 0,
        out: Vec::new(),
        open: Vec::new(),
        key_next: false,
        key_depth: None,
        values: 0,
    };
    while let Some(&byte) = json.get(normaliser.at) {
        normaliser.step(byte)?;
    }
    normaliser.finish()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

struct Normaliser<'a> {
    json: &'a [u8],
    at: usize,
    /// End of the input that has been written to `out`; 0 while nothing had to be changed.
    copied: usize,
    out: Vec<u8>,
    open: Vec<Container>,
    /// True if a key may come next.
    key_next: bool,
    /// Number of containers around the current object key, while inside it; everything written there becomes part of a
    /// string.
    key_depth: Option<usize>,
    /// Approximate number of values begun: each follows a comma or an opening bracket.
    values: usize,
}

impl<'a> Normaliser<'a> {
    fn step(&mut self, byte: u8) -> Result<(), Error> {
        match byte {
            b'"' => {
                self.at = self.end_of_string()?;
                self.key_next = false;
            }
            b'{' if self.key_next => self.open_key()?,
            b'{' => self.open(Container::Object)?,
            b'[' => self.open(Container::Array)?,
            b'}' => self.close(Container::Object)?,
            b']' => self.close(Container::Array)?,
            b',' => {
                self.count_value()?;
                self.key_next = self.open.last() == Some(&Container::Object);
                self.at += 1;
            }
            b'-' | b'0'..=b'9' if self.key_next => self.quote_integer(),
            _ => self.at += 1,
        }
        Ok(())
    }

    fn open(&mut self, container: Container) -> Result<(), Error> {
        if self.open.len() >= MAX_DEPTH {
            return Err(bad("nested too deep"));
        }
        self.count_value()?;
        self.open.push(container);
        self.key_next = container == Container::Object;
        self.at += 1;
        Ok(())
    }

    fn count_value(&mut self) -> Result<(), Error> {
        self.values += 1;
        if self.values > MAX_VALUES { Err(bad("too many values")) } else { Ok(()) }
    }

    fn open_key(&mut self) -> Result<(), Error> {
        if self.key_depth.is_some() {
            return Err(bad("an object key contains another object key"));
        }
        self.copy_up_to_here();
        self.out.push(b'"');
        self.key_depth = Some(self.open.len());
        self.open(Container::Object)
    }

    fn close(&mut self, container: Container) -> Result<(), Error> {
        if self.open.pop() != Some(container) {
            return Err(bad("brackets do not match"));
        }
        self.at += 1;
        self.key_next = false;
        if self.key_depth == Some(self.open.len()) {
            self.copy_up_to_here();
            self.out.push(b'"');
            self.key_depth = None;
        }
        Ok(())
    }

    fn quote_integer(&mut self) {
        self.copy_up_to_here();
        let rest = self.json.get(self.at..).unwrap_or_default();
        let length = rest.iter().take_while(|byte| matches!(byte, b'-' | b'0'..=b'9')).count();
        self.put(b"\"");
        self.at += length;
        self.copy_up_to_here();
        self.put(b"\"");
        self.key_next = false;
    }

    /// Returns the position after the string that begins here.
    fn end_of_string(&self) -> Result<usize, Error> {
        let mut at = self.at + 1;
        loop {
            let rest = self.json.get(at..).unwrap_or_default();
            let special = rest.iter().position(|&byte| byte == b'"' || byte == b'\\');
            match special.and_then(|special| Some((at + special, *rest.get(special)?))) {
                Some((quote, b'"')) => return Ok(quote + 1),
                Some((backslash, _)) => at = backslash + 2,
                None => return Err(bad("a string is not terminated")),
            }
        }
    }

    fn copy_up_to_here(&mut self) {
        let json = self.json;
        let part = json.get(self.copied..self.at).unwrap_or_default();
        self.put(part);
        self.copied = self.at;
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.key_depth.is_none() {
            self.out.extend_from_slice(bytes);
            return;
        }
        for &byte in bytes {
            match byte {
                b'"' | b'\\' => self.out.extend_from_slice(&[b'\\', byte]),
                // Line breaks are allowed between tokens, but not in a string.
                0..b' ' => self.out.push(b' '),
                _ => self.out.push(byte),
            }
        }
    }

    fn finish(mut self) -> Result<Cow<'a, [u8]>, Error> {
        if !self.open.is_empty() {
            return Err(bad("brackets do not match"));
        }
        if self.out.is_empty() {
            return Ok(Cow::Borrowed(self.json));
        }
        self.copy_up_to_here();
        Ok(Cow::Owned(self.out))
    }
}

fn bad(detail: &str) -> Error {
    Error::BadJson { what: "body", detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(json: &str) -> Result<String, Error> {
        normalise(json.as_bytes()).map(|bytes| String::from_utf8(bytes.into_owned()).unwrap())
    }

    #[test]
    fn standard_json_is_not_copied() {
        let json = br#" {"a": [1, -2, {"0": "x\"{1:"}], "b": {}, "c": "\\"} "#;
        assert!(matches!(normalise(json), Ok(Cow::Borrowed(same)) if same == json));
    }

    #[test]
    fn integer_keys_are_quoted() {
        assert_eq!(normalised(r#"{0:"a", -1 : {2:[3,4]}}"#).unwrap(), r#"{"0":"a", "-1" : {"2":[3,4]}}"#);
    }

    #[test]
    fn an_object_key_becomes_a_string_with_its_json() {
        let json = normalised("{\"t\":{{\"b\":\"x\\\"y\",\n\"q\":{0:1}}:5,{\"b\":\"z\"}:6}}").unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let mut keys: Vec<serde_json::Value> =
            value["t"].as_object().unwrap().keys().map(|key| serde_json::from_str(key).unwrap()).collect();
        keys.sort_by_key(|key| key["b"].to_string());
        assert_eq!(keys[0], serde_json::json!({"b": "x\"y", "q": {"0": 1}}));
        assert_eq!(keys[1], serde_json::json!({"b": "z"}));
    }

    #[test]
    fn what_has_no_end_is_an_error() {
        for json in ["{", "[1", "\"a", "\"a\\", "{]", "}", "{\"a\":1}}", "{{{\"a\":1}:2}:3}"] {
            assert!(normalised(json).is_err(), "{json}");
        }
    }

    #[test]
    fn nesting_ends_at_its_limit() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(normalised(&deep(MAX_DEPTH)).is_ok());
        assert!(normalised(&deep(MAX_DEPTH + 1)).is_err());
    }

    #[test]
    fn a_body_of_more_values_than_can_be_is_refused() {
        let list = |values: usize| format!("[{}]", vec!["0"; values].join(","));
        assert!(normalised(&list(MAX_VALUES)).is_ok());
        assert!(normalised(&list(MAX_VALUES + 1)).is_err());
    }
}

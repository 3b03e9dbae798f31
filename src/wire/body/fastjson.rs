//! The normaliser of fastjson's dialect: the Java servers write map keys that are no strings as they stand, integers
//! without quotes and whole objects in the place of a key. Here such keys become strings, and JSON is JSON again.
//!
//! One pass over the bytes, without recursion. It finds keys and leaves the rest to the JSON parser behind it.

use std::borrow::Cow;

use crate::wire::Error;

/// As deep as `serde_json` follows.
const MAX_DEPTH: usize = 128;

/// So many members and elements a body has at most: 131,000 topics with their settings, or a route of 40,000 brokers. In
/// memory a value is much larger than its text may be.
pub const MAX_VALUES: usize = 1024 * 1024;

/// Gives JSON in fastjson's dialect as standard JSON; what is standard already comes back unchanged and uncopied.
///
/// An integer key becomes its digits in quotes, an object key a string that contains the object's JSON.
///
/// # Errors
///
/// When brackets do not match, a string has no end, nesting is deeper than 128 levels, there are more than [`MAX_VALUES`]
/// values, or a key's object has an object as a key itself. Other mistakes are left for the parser to find.
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
    /// What is before this has been written to `out`. As long as it is 0, nothing had to be changed.
    copied: usize,
    out: Vec<u8>,
    open: Vec<Container>,
    /// Whether a key may come next.
    key_next: bool,
    /// How many containers are around the object that stands in the place of a key, while inside it: all that is
    /// written there becomes part of a string.
    key_depth: Option<usize>,
    /// How many values have begun, more or less: each has a comma or a bracket before it.
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
            return Err(bad("it is nested too deep"));
        }
        self.count_value()?;
        self.open.push(container);
        self.key_next = container == Container::Object;
        self.at += 1;
        Ok(())
    }

    fn count_value(&mut self) -> Result<(), Error> {
        self.values += 1;
        if self.values > MAX_VALUES { Err(bad("it has too many values")) } else { Ok(()) }
    }

    fn open_key(&mut self) -> Result<(), Error> {
        if self.key_depth.is_some() {
            return Err(bad("an object is a key inside of a key"));
        }
        self.copy_up_to_here();
        self.out.push(b'"');
        self.key_depth = Some(self.open.len());
        self.open(Container::Object)
    }

    fn close(&mut self, container: Container) -> Result<(), Error> {
        if self.open.pop() != Some(container) {
            return Err(bad("its brackets do not match"));
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

    /// The position behind the string that begins here.
    fn end_of_string(&self) -> Result<usize, Error> {
        let mut at = self.at + 1;
        loop {
            let rest = self.json.get(at..).unwrap_or_default();
            let special = rest.iter().position(|&byte| byte == b'"' || byte == b'\\');
            match special.and_then(|special| Some((at + special, *rest.get(special)?))) {
                Some((quote, b'"')) => return Ok(quote + 1),
                Some((backslash, _)) => at = backslash + 2,
                None => return Err(bad("a string has no end")),
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
                // A line break between two tokens would not be allowed in a string.
                0..b' ' => self.out.push(b' '),
                _ => self.out.push(byte),
            }
        }
    }

    fn finish(mut self) -> Result<Cow<'a, [u8]>, Error> {
        if !self.open.is_empty() {
            return Err(bad("its brackets do not match"));
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

//! Reads values from JSON as fastjson does for Java's classes; servers and clients of all versions write for that
//! reader.
//!
//! A wrapper around the parser of `serde_json`, for every type that can be deserialized. Of duplicate members the last
//! one counts. A null member is treated as absent. Names are compared ignoring case, `_` and `-`, and a renamed field
//! is found under both names. Numbers, booleans and strings are converted to each other where possible. Pure functions.
//! Parsed values stay text until their type is known, so that nothing is stored twice.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::StringDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Error;
use serde_json::value::RawValue;

/// Fields that had another name in some version, each with the name used here.
const RENAMED: [(&str, &str); 2] = [("topicSynFlag", "topicSysFlag"), ("dropped", "droped")];

/// Name under which the parser hands out a value's text.
const RAW: &str = "$serde_json::private::RawValue";

/// Reads a value from syntactically valid JSON, as the [normaliser](crate::wire::body::fastjson) returns it.
pub(crate) fn from_json<'de, T: Deserialize<'de>>(json: &'de str) -> Result<T, Error> {
    T::deserialize(Java(serde_json::from_str::<&RawValue>(json)?.get()))
}

/// JSON text of one value, without surrounding blanks.
#[derive(Clone, Copy)]
struct Java<'de>(&'de str);

impl<'de> Java<'de> {
    fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// Returns the content of a string, an empty text for null, and the JSON of any other value.
    fn text(self) -> Result<String, Error> {
        match self.0.as_bytes() {
            [b'"', ..] => serde_json::from_str(self.0),
            _ if self.is_null() => Ok(String::new()),
            _ => Ok(self.0.to_owned()),
        }
    }

    /// Returns the same value, or an empty object or list for null.
    fn or_empty(self, empty: &'static str) -> Self {
        if self.is_null() { Self(empty) } else { self }
    }

    /// Reads a number of any form; its fraction is cut off.
    fn integer(self) -> Result<i64, Error> {
        integer_of(&self.text()?)
    }

    fn float(self) -> Result<f64, Error> {
        let text = self.text()?;
        if is_none(&text) { Ok(0.0) } else { finite(&text).ok_or_else(|| wrong("a number", &text)) }
    }

    fn boolean(self) -> Result<bool, Error> {
        boolean_of(&self.text()?)
    }

    fn parser(self) -> serde_json::Deserializer<serde_json::de::StrRead<'de>> {
        serde_json::Deserializer::from_str(self.0)
    }
}

fn is_none(text: &str) -> bool {
    text.is_empty() || text.eq_ignore_ascii_case("null")
}

fn integer_of(text: &str) -> Result<i64, Error> {
    match text {
        _ if is_none(text) => Ok(0),
        "true" => Ok(1),
        "false" => Ok(0),
        _ => text.parse().ok().or_else(|| whole(finite(text)?)).ok_or_else(|| wrong("an integer", text)),
    }
}

fn boolean_of(text: &str) -> Result<bool, Error> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match () {
        () if is(&["true", "1", "y", "yes", "t", "on"]) => Ok(true),
        () if is(&["false", "0", "n", "no", "f", "off", "", "null"]) => Ok(false),
        () => Err(wrong("a boolean", text)),
    }
}

/// Parses a number from JSON text.
fn finite(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse().ok().filter(|number: &f64| is_plain && number.is_finite())
}

#[expect(clippy::cast_possible_truncation, reason = "the fraction is cut off, and the bounds are checked")]
fn whole(number: f64) -> Option<i64> {
    const BOUND: f64 = 9_007_199_254_740_992.0;
    (number.abs() <= BOUND).then_some(number as i64)
}

fn wrong(expected: &str, found: &str) -> Error {
    const SHOWN: usize = 40;
    let shown: String = found.chars().take(SHOWN).collect();
    Error::custom(format_args!("expected {expected}, found {shown:?}"))
}

macro_rules! integers {
    ($($deserialize:ident)+) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.visit_i64(self.integer()?)
        }
    )+};
}

impl<'de> Deserializer<'de> for Java<'de> {
    type Error = Error;

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    /// For types that accept any value.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.parser().deserialize_any(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f64(self.float()?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f64(self.float()?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.boolean()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        if name == RAW {
            return self.parser().deserialize_newtype_struct(name, visitor);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.or_empty("[]").parser().deserialize_seq(Elements { visitor, keep_null: false })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Error> {
        self.parser().deserialize_seq(Elements { visitor, keep_null: true })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.or_empty("{}").parser().deserialize_map(Entries(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let members = self.parser().deserialize_map(Members { fields, lifetime: PhantomData })?;
        visitor.visit_map(KnownMembers { rest: members.into_iter(), value: None })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.text()?.into_deserializer())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { i128 u128 char bytes byte_buf unit unit_struct tuple_struct identifier }
}

/// Passes each element of a list on as [`Java`]. Null elements are skipped, except where positions count.
struct Elements<V> {
    visitor: V,
    keep_null: bool,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Elements<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(JavaList { list, keep_null: self.keep_null })
    }
}

struct JavaList<A> {
    list: A,
    keep_null: bool,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for JavaList<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        while let Some(element) = self.list.next_element::<&'de RawValue>()? {
            let element = Java(element.get());
            if self.keep_null || !element.is_null() {
                return seed.deserialize(element).map(Some).map_err(A::Error::custom);
            }
        }
        Ok(None)
    }
}

/// Passes each entry of a map on as [`Java`].
struct Entries<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Entries<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(JavaMap { map, value: None })
    }
}

struct JavaMap<'de, A> {
    map: A,
    value: Option<Java<'de>>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for JavaMap<'de, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let Some((key, value)) = self.map.next_entry::<String, &'de RawValue>()? else { return Ok(None) };
        self.value = Some(Java(value.get()));
        seed.deserialize(Key(key)).map(Some).map_err(A::Error::custom)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let value = self.value.take().ok_or_else(|| A::Error::custom("a value without a key"))?;
        seed.deserialize(value).map_err(A::Error::custom)
    }
}

/// Key of a map: a string, or a number in a string.
struct Key(String);

macro_rules! integer_keys {
    ($($deserialize:ident)+) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.visit_i64(integer_of(&self.0)?)
        }
    )+};
}

impl<'de> Deserializer<'de> for Key {
    type Error = Error;

    integer_keys! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.0)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let key: StringDeserializer<Error> = self.0.into_deserializer();
        key.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 bool char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// Collects the members of an object that are fields, each once.
struct Members<'de> {
    fields: &'static [&'static str],
    lifetime: PhantomData<&'de str>,
}

impl<'de> Visitor<'de> for Members<'de> {
    type Value = Vec<(&'static str, Java<'de>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Self::Value = Vec::with_capacity(self.fields.len());
        while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
            let Some(field) = field_of(&key, self.fields) else { continue };
            let value = Java(value.get());
            match members.iter_mut().find(|(known, _)| *known == field) {
                Some(member) => member.1 = value,
                None => members.push((field, value)),
            }
        }
        members.retain(|(_, value)| !value.is_null());
        Ok(members)
    }
}

/// Returns the field that a member's name refers to.
fn field_of(name: &str, fields: &'static [&'static str]) -> Option<&'static str> {
    let known = |name: &str| fields.iter().copied().find(|field| *field == name);
    let renamed = RENAMED.iter().find(|(other, _)| *other == name).and_then(|(_, field)| known(field));
    let alike = || fields.iter().copied().find(|field| letters(field).eq(letters(name)));
    renamed.or_else(|| known(name)).or_else(alike)
}

fn letters(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(|letter| !matches!(letter, '_' | '-')).map(|letter| letter.to_ascii_lowercase())
}

struct KnownMembers<'de> {
    rest: std::vec::IntoIter<(&'static str, Java<'de>)>,
    value: Option<Java<'de>>,
}

impl<'de> MapAccess<'de> for KnownMembers<'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some((field, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        let field: de::value::StrDeserializer<'_, Error> = field.into_deserializer();
        seed.deserialize(field).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.value.take().ok_or_else(|| Error::custom("a value without a key"))?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Sample {
        queue_id: i32,
        offset: i64,
        rate: f64,
        order: bool,
        broker_name: String,
        remark: Option<String>,
        #[serde(alias = "topicSynFlag")]
        topic_sys_flag: i32,
        by_id: BTreeMap<i64, String>,
        list: Vec<Inner>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Inner {
        version: i32,
    }

    fn read(json: &str) -> Sample {
        from_json(json).unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    fn sample() -> Sample {
        Sample {
            queue_id: 3,
            offset: -7,
            rate: 1.5,
            order: true,
            broker_name: "7".to_owned(),
            remark: Some("true".to_owned()),
            topic_sys_flag: 1,
            by_id: BTreeMap::from([(0, "5".to_owned())]),
            list: vec![Inner { version: 9 }, Inner { version: 0 }],
        }
    }

    #[test]
    fn texts_numbers_and_truth_values_stand_for_each_other() {
        for json in [
            r#"{"queueId":3,"offset":-7,"rate":1.5,"order":true,"brokerName":"7","remark":"true","topicSysFlag":1,
                "byId":{"0":"5"},"list":[{"version":9},{}]}"#,
            r#"{"queueId":"3","offset":"-7","rate":"1.5","order":"TRUE","brokerName":7,"remark":true,"topicSysFlag":"1.0",
                "byId":{"0":5},"list":[{"version":"9"},{"version":""}]}"#,
            r#"{"queueId":3.9,"offset":-7.0,"rate":15e-1,"order":1,"brokerName":7,"remark":true,"topicSysFlag":true,
                "byId":{"0":5},"list":[{"version":"9.5"},{"version":"null"}]}"#,
        ] {
            assert_eq!(read(json), sample());
        }
    }

    #[test]
    fn of_doubles_the_last_counts_and_null_is_absent() {
        assert_eq!(read(r#"{"queueId":1,"offset":1,"queueId":"x","queueId":2}"#).queue_id, 2);
        assert_eq!(
            read(r#"{"queueId":1,"queueId":null,"brokerName":null,"remark":null,"list":null}"#),
            Sample::default()
        );
        assert_eq!(read(r#"{"list":[null,{"version":null}],"byId":{"1":null}}"#).list, [Inner::default()]);
    }

    #[test]
    fn names_are_found_in_every_spelling() {
        for name in ["queueId", "QueueId", "queue_id", "QUEUE-ID", "queueid"] {
            assert_eq!(read(&format!("{{\"{name}\":3,\"{name}s\":4}}")).queue_id, 3);
        }
        for (json, flag) in [
            (r#"{"topicSynFlag":1}"#, 1),
            (r#"{"topicSysFlag":1,"topicSynFlag":2}"#, 2),
            (r#"{"topicSynFlag":1,"topicSysFlag":2}"#, 2),
        ] {
            assert_eq!(read(json).topic_sys_flag, flag, "{json}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for json in [
            r#"{"queueId":"three"}"#,
            r#"{"queueId":2147483648}"#,
            r#"{"queueId":[3]}"#,
            r#"{"offset":1e300}"#,
            r#"{"offset":"inf"}"#,
            r#"{"order":"maybe"}"#,
            r#"{"list":{}}"#,
            r#"{"byId":{"one":"x"}}"#,
            "[]",
            "3",
            r#"{"queueId":3"#,
        ] {
            assert!(from_json::<Sample>(json).is_err(), "{json}");
        }
    }
}

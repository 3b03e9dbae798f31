//! One struct for each request and response header <-> the flat fields of a command.
//!
//! A header is declared as a table of its fields: Rust name, type, name on the wire. Each file of this folder covers a
//! subject. Texts are borrowed in both directions, so a header is written without an allocation. `Option` marks fields
//! that may be absent. A number that does not parse is an error, never a default.

use super::Error;
use crate::wire::frame::ext_fields::{ExtFields, FieldSink, HeaderFields};

macro_rules! headers {
    ($table:ident; $(
        $(#[$doc:meta])*
        $name:ident $(<$life:lifetime>)? {
            $( $(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal, )+
        }
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name $(<$life>)? {
            $( $(#[$field_doc])* #[doc = concat!("`", $key, "` on the wire.")] pub $field: $type, )+
        }

        impl $(<$life>)? HeaderFields for $name $(<$life>)? {
            fn write_to(&self, sink: &mut dyn FieldSink) {
                $( Field::write(&self.$field, $key, sink); )+
            }
        }

        impl $(<$life>)? $name $(<$life>)? {
            /// Reads the header from a command's fields.
            ///
            /// # Errors
            ///
            /// Returns an error if a required field is missing, or a number or boolean does not parse.
            pub fn from_fields(fields: &$($life)? ExtFields) -> Result<Self, Error> {
                $( let mut $field: Option<$type> = None; )+
                for (key, text) in fields.iter() {
                    match key {
                        $( $key => $field = Some(Field::read($key, text)?), )+
                        _ => {}
                    }
                }
                Ok(Self { $( $field: $field.map_or_else(|| Field::absent($key), Ok)?, )+ })
            }
        }
    )+

        /// All headers of this file, by name.
        #[cfg(test)]
        pub(super) const $table: &[tests::Entry] = &[$( tests::Entry {
            name: stringify!($name),
            rewritten: |fields| {
                let mut written = ExtFields::new();
                $name::from_fields(fields)?.write_to(&mut written);
                Ok(written)
            },
        }, )+];
    };
}

mod admin;
mod group;
mod inherited;
mod pop;
mod pull;
mod send;

pub use admin::*;
pub use group::*;
pub use inherited::*;
pub use pop::*;
pub use pull::*;
pub use send::*;

/// Field of a header, required or optional.
trait Field<'a>: Sized {
    fn write(&self, key: &str, sink: &mut dyn FieldSink);
    fn read(key: &'static str, text: &'a str) -> Result<Self, Error>;
    fn absent(key: &'static str) -> Result<Self, Error>;
}

impl<'a, T: Value<'a>> Field<'a> for T {
    fn write(&self, key: &str, sink: &mut dyn FieldSink) {
        self.put(key, sink);
    }

    fn read(key: &'static str, text: &'a str) -> Result<Self, Error> {
        T::parse(key, text)
    }

    fn absent(key: &'static str) -> Result<Self, Error> {
        Err(Error::MissingField { field: key })
    }
}

impl<'a, T: Value<'a>> Field<'a> for Option<T> {
    fn write(&self, key: &str, sink: &mut dyn FieldSink) {
        if let Some(value) = self {
            value.put(key, sink);
        }
    }

    fn read(key: &'static str, text: &'a str) -> Result<Self, Error> {
        T::parse(key, text).map(Some)
    }

    fn absent(_key: &'static str) -> Result<Self, Error> {
        Ok(None)
    }
}

/// Value of a field <-> its text.
trait Value<'a>: Sized {
    fn put(&self, key: &str, sink: &mut dyn FieldSink);
    fn parse(key: &'static str, text: &'a str) -> Result<Self, Error>;
}

impl<'a> Value<'a> for &'a str {
    fn put(&self, key: &str, sink: &mut dyn FieldSink) {
        sink.text(key, self);
    }

    fn parse(_key: &'static str, text: &'a str) -> Result<Self, Error> {
        Ok(text)
    }
}

impl Value<'_> for i32 {
    fn put(&self, key: &str, sink: &mut dyn FieldSink) {
        sink.number(key, (*self).into());
    }

    fn parse(key: &'static str, text: &str) -> Result<Self, Error> {
        text.parse().map_err(|_| Error::BadText { what: key })
    }
}

impl Value<'_> for i64 {
    fn put(&self, key: &str, sink: &mut dyn FieldSink) {
        sink.number(key, *self);
    }

    fn parse(key: &'static str, text: &str) -> Result<Self, Error> {
        text.parse().map_err(|_| Error::BadText { what: key })
    }
}

impl Value<'_> for bool {
    fn put(&self, key: &str, sink: &mut dyn FieldSink) {
        sink.boolean(key, *self);
    }

    /// Ignores the case of letters, as Java does.
    fn parse(key: &'static str, text: &str) -> Result<Self, Error> {
        if text.eq_ignore_ascii_case("true") {
            Ok(true)
        } else if text.eq_ignore_ascii_case("false") {
            Ok(false)
        } else {
            Err(Error::BadText { what: key })
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::Deserialize;

    use super::*;

    /// Header in a form that one test covers for all headers.
    pub(crate) struct Entry {
        pub(crate) name: &'static str,
        /// Reads the header and writes it again.
        pub(crate) rewritten: fn(&ExtFields) -> Result<ExtFields, Error>,
    }

    pub(crate) const TABLES: [&[Entry]; 6] = [ADMIN, GROUP, INHERITED, POP, PULL, SEND];

    /// Header as the classes of the Java client, 4.9.7 and 5.5.0, declare it.
    #[derive(Deserialize)]
    struct Known {
        /// Kind of value by field name; `!` marks fields that both versions require.
        fields: BTreeMap<String, String>,
        /// Fields of capabilities that this crate does not have, each with the reason.
        #[serde(default)]
        not_ours: BTreeMap<String, String>,
        /// Required fields whose absence is accepted here.
        #[serde(default)]
        lenient: BTreeSet<String>,
    }

    impl Known {
        fn value(&self, name: &str) -> &'static str {
            match self.fields[name].trim_end_matches('!') {
                "text" => "a text",
                "int" => "-2147483648",
                "long" => "9223372036854775807",
                "truth" => "true",
                other => panic!("{other}"),
            }
        }

        fn without(&self, left_out: Option<&str>) -> ExtFields {
            let mut fields = ExtFields::new();
            for name in self.fields.keys().filter(|name| Some(name.as_str()) != left_out) {
                fields.text(name, self.value(name));
            }
            fields
        }
    }

    /// Returns every header with its declaration in Java.
    fn headers() -> Vec<(&'static Entry, Known)> {
        let mut known: BTreeMap<String, Known> =
            serde_json::from_str(include_str!("../../../tests/data/header-fields.json")).unwrap();
        let entry = |entry: &'static Entry| (entry, known.remove(entry.name).expect(entry.name));
        let headers = TABLES.into_iter().flatten().map(entry).collect();
        assert!(known.is_empty(), "no header {:?}", known.keys());
        headers
    }

    fn names(fields: &ExtFields) -> BTreeSet<&str> {
        fields.iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn wire_04_every_header_has_the_names_of_the_java_client() {
        for (header, known) in headers() {
            let mut given = known.without(None);
            for other in known.not_ours.keys().map(String::as_str).chain(["an unknown field"]) {
                given.text(other, "ignored");
            }
            let written = (header.rewritten)(&given).expect(header.name);
            let mut expected: BTreeSet<&str> = known.fields.keys().map(String::as_str).collect();
            let mut found = names(&written);
            // Java's headers inherit or lack the broker's name regardless of its reader.
            expected.remove("bname");
            found.remove("bname");
            assert_eq!(found, expected, "{}", header.name);
            for (name, value) in written.iter().filter(|(name, _)| *name != "bname") {
                assert_eq!(value, known.value(name), "{} {name}", header.name);
            }
        }
    }

    #[test]
    fn wire_04_every_header_misses_what_it_needs_and_nothing_else() {
        for (header, known) in headers() {
            for (name, kind) in known.fields.iter().filter(|(name, _)| *name != "bname") {
                let is_missed = match (header.rewritten)(&known.without(Some(name))) {
                    Err(Error::MissingField { field }) if field == name => true,
                    Err(error) => panic!("{} {name}: {error}", header.name),
                    Ok(_) => false,
                };
                let is_wanted = kind.ends_with('!') && !known.lenient.contains(name);
                assert_eq!(is_missed, is_wanted, "{} {name}", header.name);
            }
        }
    }

    #[test]
    fn wire_04_every_header_refuses_a_number_that_its_field_cannot_have() {
        let mut refused = 0;
        for (header, known) in headers() {
            for (name, kind) in known.fields.iter().filter(|(name, _)| *name != "bname") {
                let wrong = match kind.trim_end_matches('!') {
                    "int" => "2147483648",
                    "long" => "9223372036854775808",
                    "truth" => "1",
                    _ => continue,
                };
                let mut fields = known.without(Some(name));
                fields.text(name, wrong);
                assert!(matches!((header.rewritten)(&fields), Err(Error::BadText { what }) if what == name), "{name}");
                refused += 1;
            }
        }
        assert!(refused > 100, "{refused}");
    }

    fn fields(header: &dyn HeaderFields) -> ExtFields {
        let mut fields = ExtFields::new();
        header.write_to(&mut fields);
        fields
    }

    #[test]
    fn an_absent_optional_field_is_not_written() {
        let written = fields(&QueueRequest { topic: "T", queue_id: -1, broker_name: None });
        assert_eq!(written.iter().collect::<Vec<_>>(), [("topic", "T"), ("queueId", "-1")]);
    }

    #[test]
    fn a_missing_required_field_is_told_by_its_name() {
        let written = fields(&OffsetResponse { offset: 1 });
        assert_eq!(QueueRequest::from_fields(&written), Err(Error::MissingField { field: "topic" }));
    }

    #[test]
    fn a_number_that_does_not_parse_is_an_error_also_where_it_is_optional() {
        for wrong in ["", "one", "1.0", " 1", "9223372036854775808"] {
            let mut written = ExtFields::new();
            written.text("offset", wrong);
            assert_eq!(OffsetResponse::from_fields(&written), Err(Error::BadText { what: "offset" }));
        }
        let mut written = fields(&PullMessageResponse::default());
        written.text("offsetDelta", "x");
        assert_eq!(PullMessageResponse::from_fields(&written), Err(Error::BadText { what: "offsetDelta" }));
    }

    #[test]
    fn a_truth_value_is_read_in_any_case_of_letters_and_nothing_else_is() {
        let read = |text: &str| {
            let mut written = fields(&GetRouteInfoRequest { topic: "T", accept_standard_json_only: None });
            written.text("acceptStandardJsonOnly", text);
            GetRouteInfoRequest::from_fields(&written).map(|header| header.accept_standard_json_only)
        };
        assert_eq!(read("TRUE"), Ok(Some(true)));
        assert_eq!(read("False"), Ok(Some(false)));
        assert!(read("yes").is_err());
    }

    #[test]
    fn a_send_header_says_the_same_in_both_forms() {
        let long = SendMessageRequest {
            producer_group: "PG",
            topic: "T",
            default_topic: "TBW102",
            default_topic_queue_nums: 4,
            queue_id: 1,
            sys_flag: 2,
            born_timestamp: 3,
            flag: 5,
            properties: Some("a\u{1}1\u{2}"),
            reconsume_times: Some(6),
            unit_mode: Some(true),
            batch: Some(false),
            max_reconsume_times: Some(7),
            broker_name: Some("broker-a"),
        };
        let short = SendMessageRequestV2::from(long);
        assert_eq!(SendMessageRequest::from_fields(&fields(&long)), Ok(long));
        assert_eq!(SendMessageRequestV2::from_fields(&fields(&short)), Ok(short));
        let names: String = fields(&short).iter().map(|(name, _)| name).collect();
        assert_eq!(names, "abcdefghijklmn");
    }
}

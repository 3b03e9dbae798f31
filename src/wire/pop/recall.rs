//! Handle to recall a delayed message (5.3.2): text <-> its parts. Pure functions.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::wire::Error;

const VERSION: &str = "v1";
/// Padding is written, as in Java, and optional when read.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Message to recall and its broker; as text, Base64 of five words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecallHandle {
    /// Topic of the message.
    pub topic: String,
    /// Name of the broker that stores the message.
    pub broker_name: String,
    /// Scheduled delivery time, in milliseconds since 1970.
    pub deliver_timestamp: i64,
    /// Unique id of the message.
    pub message_id: String,
}

impl fmt::Display for RecallHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, broker_name, deliver_timestamp, message_id } = self;
        f.write_str(&BASE64.encode(format!("{VERSION} {topic} {broker_name} {deliver_timestamp} {message_id}")))
    }
}

impl FromStr for RecallHandle {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = Error::BadText { what: "recall handle" };
        let Ok(words) = BASE64.decode(text).map(String::from_utf8) else { return Err(wrong) };
        let words = words.map_err(|_| wrong.clone())?;
        let words: Vec<&str> = words.split(' ').collect();
        let [VERSION, topic, broker_name, deliver_timestamp, message_id] = words[..] else { return Err(wrong) };
        Ok(Self {
            topic: topic.to_owned(),
            broker_name: broker_name.to_owned(),
            deliver_timestamp: deliver_timestamp.parse().map_err(|_| wrong)?,
            message_id: message_id.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_read_as_it_was_written_with_or_without_padding() {
        let text = "djEgVG9waWNUZXN0IGJyb2tlci1hIDE3NTc5MzQwMDAwMDAgQzBBODAxMEExMjM0MkExMzlBNTU0QTNFNTkwMDAwMkE=";
        let handle: RecallHandle = text.parse().unwrap();
        assert_eq!((&*handle.topic, &*handle.broker_name), ("TopicTest", "broker-a"));
        assert_eq!(handle.deliver_timestamp, 1_757_934_000_000);
        assert_eq!(handle.message_id, "C0A8010A12342A139A554A3E5900002A");
        assert_eq!(handle.to_string(), text);
        assert_eq!(text.trim_end_matches('=').parse(), Ok(handle));
    }

    #[test]
    fn text_of_another_kind_is_no_handle() {
        for words in ["v2 t b 1 id", "v1 t b 1", "v1 t b 1 id more", "v1 t b soon id", ""] {
            assert!(BASE64.encode(words).parse::<RecallHandle>().is_err(), "{words}");
        }
        assert!(BASE64.encode(b"v1 t b 1 \xFF").parse::<RecallHandle>().is_err());
    }
}

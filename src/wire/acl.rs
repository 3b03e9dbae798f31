//! Signature of a request for brokers with access control, the same for all versions from 4.4 to 5.x.
//!
//! Signed are the values of all fields, in the order of their names and without separators, followed by the body. Code,
//! opaque, flags and remark are not signed. A request is signed after everything else of it is final, and again when a
//! field changes. Pure functions; they keep no secret.

use std::cmp::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac_sha1_compact::HMAC;

use super::Error;
use crate::wire::frame::ext_fields::{ExtFields, HeaderFields};

/// Fields left out of the signed content: the signature itself, and the one that brokers leave out for clients of this
/// [version](super::command::PROTOCOL_VERSION).
const NOT_SIGNED: [&str; 2] = ["Signature", "_UNIQUE_KEY_QUERY"];

/// Returns the signature of a request with these fields (access key and security token among them) and this body: the
/// value of its field `Signature`.
///
/// # Errors
///
/// Returns an error if the secret key is empty.
pub fn signature(secret_key: &str, fields: &dyn HeaderFields, body: &[u8]) -> Result<String, Error> {
    if secret_key.is_empty() {
        return Err(Error::MissingField { field: "secret key" });
    }
    Ok(STANDARD.encode(HMAC::mac(&signed_content(fields, body), secret_key.as_bytes())))
}

/// Orders values by the names of their fields; of duplicate fields the last one counts.
fn signed_content(fields: &dyn HeaderFields, body: &[u8]) -> Vec<u8> {
    let mut collected = ExtFields::new();
    fields.write_to(&mut collected);
    let mut signed: Vec<(&str, &str)> = collected.iter().filter(|(name, _)| !NOT_SIGNED.contains(name)).collect();
    signed.reverse();
    signed.sort_by(|(a, _), (b, _)| java_order(a, b));
    signed.dedup_by(|(earlier, _), (kept, _)| earlier == kept);
    let values = signed.into_iter().map(|(_, value)| value.as_bytes());
    values.chain([body]).collect::<Vec<&[u8]>>().concat()
}

/// Compares as Java's `String.compareTo`.
fn java_order(a: &str, b: &str) -> Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::FieldSink;

    fn fields(entries: &[(&str, &str)]) -> ExtFields {
        let mut fields = ExtFields::new();
        for (name, value) in entries {
            fields.text(name, value);
        }
        fields
    }

    #[test]
    fn a_request_is_signed_by_its_values_in_the_order_of_names_and_then_its_body() {
        let offset = fields(&[
            ("topic", "TopicTest"),
            ("consumerGroup", "CG"),
            ("queueId", "0"),
            ("commitOffset", "42"),
            ("AccessKey", "RocketMQ"),
        ]);
        assert_eq!(signature("12345678", &offset, b"").as_deref(), Ok("+ScJQS5Ln+Fvb8SlZd8/af+1gfc="));
        let send = fields(&[
            ("a", "PG"),
            ("b", "TopicTest"),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", "0"),
            ("f", "0"),
            ("g", "1757930400000"),
            ("h", "0"),
            ("i", "TAGS\u{1}TagA\u{2}"),
            ("j", "0"),
            ("k", "false"),
            ("m", "false"),
            ("n", "broker-a"),
            ("AccessKey", "RocketMQ"),
            ("SecurityToken", "tok"),
        ]);
        assert_eq!(signature("12345678", &send, b"Hello").as_deref(), Ok("ZSkcgCqUABpo5ns5Rn/wsDP0eYc="));
    }

    #[test]
    fn an_old_signature_and_what_brokers_leave_out_do_not_count() {
        let plain = fields(&[("AccessKey", "ak"), ("topic", "T")]);
        let more = fields(&[
            ("Signature", "old"),
            ("topic", "other"),
            ("_UNIQUE_KEY_QUERY", "true"),
            ("AccessKey", "ak"),
            ("topic", "T"),
        ]);
        assert_eq!(signature("secret", &more, b"x"), signature("secret", &plain, b"x"));
    }

    #[test]
    fn names_are_sorted_by_utf16_code_units() {
        // UTF-8 order is the opposite.
        assert_eq!(java_order("\u{1F600}", "\u{FF01}"), Ordering::Less);
        let names = [("a", "4"), ("\u{FF01}", "6"), ("_", "3"), ("\u{1F600}", "5"), ("Z", "2"), ("A", "1")];
        assert_eq!(signed_content(&fields(&names), b"7"), b"1234567");
    }
}

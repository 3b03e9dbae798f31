//! The header fields of a command beside its own: how a header hands them out, and how they are kept.
//!
//! Names and values are texts; what they mean is told by the headers in `header.rs`. Plain values, without I/O, clock
//! or lock.

use std::fmt;
use std::ops::Range;

/// What replies to sends and pulls have, at most.
pub(crate) const USUAL_FIELDS: usize = 8;

/// Takes a header's fields one after the other, as text. Absent fields are not mentioned.
pub trait FieldSink {
    /// A field with a text value.
    fn text(&mut self, key: &str, value: &str);

    /// A field with a number, written in decimal.
    fn number(&mut self, key: &str, value: i64) {
        self.text(key, itoa::Buffer::new().format(value));
    }

    /// A field that is `true` or `false`.
    fn boolean(&mut self, key: &str, value: bool) {
        self.text(key, if value { "true" } else { "false" });
    }
}

/// A header: named fields beside the command's own.
pub trait HeaderFields {
    /// Hands every present field to `sink`.
    fn write_to(&self, sink: &mut dyn FieldSink);
}

/// For commands without fields.
impl HeaderFields for () {
    fn write_to(&self, _sink: &mut dyn FieldSink) {}
}

/// The flat header fields of one command, in the order in which they were written; of doubles the last one counts.
///
/// All text lies in one string, in which names and values are marked: reading a command costs two allocations for its
/// fields, however many there are.
#[derive(Clone, Default)]
pub struct ExtFields {
    text: String,
    spans: Vec<FieldSpan>,
}

/// Where a field lies.
#[derive(Clone, Debug)]
pub(crate) struct FieldSpan {
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

impl ExtFields {
    /// No field yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No field yet, and room for usual ones that take as many bytes.
    pub(crate) fn with_room_for(length: usize) -> Self {
        Self { text: String::with_capacity(length), spans: Vec::with_capacity(USUAL_FIELDS) }
    }

    /// Fields that were found in `text`.
    pub(crate) fn found(text: &str, spans: Vec<FieldSpan>) -> Self {
        let text = if spans.is_empty() { String::new() } else { text.to_owned() };
        Self { text, spans }
    }

    /// The last value written under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let field = self.spans.iter().rev().find(|field| self.slice(&field.key) == key)?;
        Some(self.slice(&field.value))
    }

    /// All fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spans.iter().map(|field| (self.slice(&field.key), self.slice(&field.value)))
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    fn slice(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    fn append(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }
}

/// By what they say, wherever it lies.
impl PartialEq for ExtFields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ExtFields {}

impl FieldSink for ExtFields {
    fn text(&mut self, key: &str, value: &str) {
        let field = FieldSpan { key: self.append(key), value: self.append(value) };
        self.spans.push(field);
    }
}

impl HeaderFields for ExtFields {
    fn write_to(&self, sink: &mut dyn FieldSink) {
        for (key, value) in self.iter() {
            sink.text(key, value);
        }
    }
}

impl fmt::Debug for ExtFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(key, value)| (key, if is_secret(key) { "***" } else { value })))
            .finish()
    }
}

/// Credentials never reach a log.
fn is_secret(key: &str) -> bool {
    matches!(key, "Signature" | "SecurityToken" | "AccessKey")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(entries: &[(&str, &str)]) -> ExtFields {
        let mut fields = ExtFields::new();
        entries.iter().for_each(|(key, value)| fields.text(key, value));
        fields
    }

    #[test]
    fn fields_are_equal_when_they_say_the_same_in_the_same_order() {
        let ours = fields(&[("a", "1"), ("b", "22")]);
        let spans = vec![FieldSpan { key: 6..7, value: 2..3 }, FieldSpan { key: 8..9, value: 4..6 }];
        assert_eq!(ExtFields::found("x 1 22a b", spans), ours);
        let others: [&[(&str, &str)]; 5] =
            [&[], &[("a", "1")], &[("b", "22"), ("a", "1")], &[("a", "12"), ("b", "2")], &[("a", "1"), ("c", "22")]];
        for other in others {
            assert_ne!(fields(other), ours);
        }
    }

    #[test]
    fn all_fields_are_counted_and_of_doubles_the_last_is_found() {
        let fields = fields(&[("a", "1"), ("b", "2"), ("a", "3")]);
        assert_eq!((fields.len(), fields.is_empty()), (3, false));
        assert_eq!((fields.get("a"), fields.get("b"), fields.get("c")), (Some("3"), Some("2"), None));
        assert_eq!((ExtFields::new().len(), ExtFields::new().is_empty()), (0, true));
    }
}

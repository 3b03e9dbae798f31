//! Ext fields of a command: the interface by which a header writes them, and their storage.
//!
//! Names and values are texts; the headers in `header/` define their meaning. Plain values, without I/O, clock or lock.

use std::fmt;
use std::ops::Range;

/// Maximum number of fields in the responses to sends and pulls.
pub(crate) const USUAL_FIELDS: usize = 8;

/// Receives the fields of a header one after the other, as text. Absent fields are skipped.
pub trait FieldSink {
    /// Adds a field with a text value.
    fn text(&mut self, key: &str, value: &str);

    /// Adds a field with a number, written in decimal.
    fn number(&mut self, key: &str, value: i64) {
        self.text(key, itoa::Buffer::new().format(value));
    }

    /// Adds a field that is `true` or `false`.
    fn boolean(&mut self, key: &str, value: bool) {
        self.text(key, if value { "true" } else { "false" });
    }
}

/// Header: named fields besides the command's own.
pub trait HeaderFields {
    /// Passes every present field to `sink`.
    fn write_to(&self, sink: &mut dyn FieldSink);
}

/// For commands without fields.
impl HeaderFields for () {
    fn write_to(&self, _sink: &mut dyn FieldSink) {}
}

/// Flat header fields of one command, in the order in which they were written; of duplicate names the last one counts.
///
/// All text is stored in one string, and spans mark the names and values: reading a command costs two allocations for
/// its fields, for any number of fields.
#[derive(Clone, Default)]
pub struct ExtFields {
    text: String,
    spans: Vec<FieldSpan>,
}

/// Position of a field in the text.
#[derive(Clone, Debug)]
pub(crate) struct FieldSpan {
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

impl ExtFields {
    /// Creates an empty set of fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty set of fields with room for `length` bytes of text.
    pub(crate) fn with_room_for(length: usize) -> Self {
        Self { text: String::with_capacity(length), spans: Vec::with_capacity(USUAL_FIELDS) }
    }

    /// Creates the fields that were found in `text`.
    pub(crate) fn found(text: &str, spans: Vec<FieldSpan>) -> Self {
        let text = if spans.is_empty() { String::new() } else { text.to_owned() };
        Self { text, spans }
    }

    /// Returns the last value written under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let field = self.spans.iter().rev().find(|field| self.slice(&field.key) == key)?;
        Some(self.slice(&field.value))
    }

    /// Iterates over all fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spans.iter().map(|field| (self.slice(&field.key), self.slice(&field.value)))
    }

    /// Number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// True if there is no field.
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

/// Compares the fields by content, independent of their position in the text.
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

/// Keeps credentials out of logs.
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

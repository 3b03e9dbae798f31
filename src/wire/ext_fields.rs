//! The header fields of a command beside its own: how a header hands them out, and how they are kept.
//!
//! Names and values are texts; what they mean is told by the headers in `header.rs`. Plain values, without I/O, clock
//! or lock.

use std::fmt;
use std::ops::Range;

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
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldSpan {
    pub(super) key: Span,
    pub(super) value: Span,
}

/// Where a text lies in a longer one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Headers have three bytes for their length: positions in them, and behind them, are far below the largest here.
    pub(super) fn new(start: usize, end: usize) -> Self {
        let narrow = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end) }
    }

    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The same in a text that begins at `start`.
    pub(super) fn behind(self, start: usize) -> Option<Range<usize>> {
        let Range { start: first, end } = self.range();
        Some(first.checked_sub(start)?..end.checked_sub(start)?)
    }
}

impl ExtFields {
    /// No field yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Fields that were found in these texts, one behind the other.
    pub(super) fn found(texts: &[&str], spans: Vec<FieldSpan>) -> Self {
        let text = if spans.is_empty() { String::new() } else { texts.concat() };
        Self { text, spans }
    }

    /// The last value written under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let field = self.spans.iter().rev().find(|field| self.slice(field.key) == key)?;
        Some(self.slice(field.value))
    }

    /// All fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spans.iter().map(|field| (self.slice(field.key), self.slice(field.value)))
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

    fn slice(&self, span: Span) -> &str {
        self.text.get(span.range()).unwrap_or_default()
    }

    fn append(&mut self, text: &str) -> Span {
        let start = self.text.len();
        self.text.push_str(text);
        Span::new(start, self.text.len())
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

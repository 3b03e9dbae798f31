//! Text sent by peers, which may not be UTF-8.

use std::borrow::Cow;

/// Converts `bytes` to text. Bytes that are not UTF-8 become U+FFFD, as in the Java client.
///
/// Valid text, which is nearly all of it, is checked at full speed: `String::from_utf8_lossy` alone costs several times
/// as much.
#[inline]
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

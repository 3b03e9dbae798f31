//! Text that peers sent, which need not be UTF-8.

use std::borrow::Cow;

/// `bytes` as text. Bytes that are not UTF-8 become U+FFFD, as for the Java client.
///
/// Sound text, which is nearly all of it, is checked at full speed: `String::from_utf8_lossy` alone costs several times
/// as much.
#[inline]
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

//! The bytes that wait for one socket, by their position in the connection's stream of bytes.
//!
//! Positions never shift: a withdrawn frame leaves a gap. So "was any byte of this frame given away?" is one comparison
//! for the whole life of the connection. No lock, no I/O and no clock of its own.

use std::collections::VecDeque;
use std::io::{self, ErrorKind as IoErrorKind};
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use mio::net::TcpStream;

use super::transport::Transport;

/// Least size of a body that is queued as it is. A smaller one is copied behind its header, which costs less than
/// another write.
pub(super) const LARGE_BODY: usize = 32 * 1024;
/// Largest spare buffer that is kept.
const KEPT_BUFFER: usize = 512 * 1024;

/// Frame ready to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutgoingFrame<'a> {
    /// Everything before the body.
    pub(super) head: &'a [u8],
    pub(super) body: &'a Bytes,
}

impl<'a> OutgoingFrame<'a> {
    /// Creates a frame whose body, if any, has been encoded behind its head.
    pub(super) fn encoded(head: &'a [u8]) -> Self {
        static NO_BODY: Bytes = Bytes::new();
        Self { head, body: &NO_BODY }
    }

    pub(super) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Returns both parts without the first `written` bytes of the frame.
    pub(super) fn rest(&self, written: usize) -> (&'a [u8], &'a [u8]) {
        let (head, body): (&[u8], &[u8]) = (self.head, self.body);
        let rest = |part: &'a [u8], written| part.get(written..).unwrap_or_default();
        (rest(head, written), rest(body, written.saturating_sub(head.len())))
    }
}

/// Bytes in the order of the stream.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    segments: VecDeque<Segment>,
    length: usize,
    /// Position of the next byte to be appended.
    end: u64,
    spare: Option<BytesMut>,
}

impl Outbox {
    /// Number of bytes that wait, including those being written.
    pub(super) fn unsent(&self) -> usize {
        self.length
    }

    /// True if there is nothing to take.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Position of the next frame.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Appends a frame whose first `written` bytes have been written.
    pub(super) fn append(&mut self, frame: &OutgoingFrame<'_>, written: usize) {
        self.end += written as u64;
        let (head, body) = frame.rest(written);
        self.gather(head);
        if frame.body.len() < LARGE_BODY {
            self.gather(body);
        } else if !body.is_empty() {
            let position = self.end;
            self.grow(body.len());
            self.segments.push_back(Segment { position, content: Content::Shared(frame.body.slice_ref(body)) });
        }
    }

    fn gather(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let position = self.end;
        self.grow(bytes.len());
        // Never behind a gap, and never into a buffer that is partly written: it would grow for as long as a slow peer
        // leaves something in it.
        if let Some(last) = self.segments.back_mut().filter(|last| last.end() == position)
            && let Content::Gathered { buffer, written: 0 } = &mut last.content
        {
            return buffer.extend_from_slice(bytes);
        }
        let mut buffer = self.spare.take().unwrap_or_default();
        buffer.extend_from_slice(bytes);
        self.segments.push_back(Segment { position, content: Content::Gathered { buffer, written: 0 } });
    }

    fn grow(&mut self, count: usize) {
        self.length += count;
        self.end += count as u64;
    }

    /// Takes everything to write it. The rest comes back through [`Outbox::put_back`].
    pub(super) fn take(&mut self) -> Batch {
        Batch { segments: std::mem::take(&mut self.segments), taken: self.length, emptied: None }
    }

    /// Puts the unwritten rest of a batch before what was appended since. Returns the position of its first byte.
    pub(super) fn put_back(&mut self, mut batch: Batch) -> Option<u64> {
        if let Some(buffer) = batch.emptied.take() {
            self.reuse(buffer);
        }
        self.length -= batch.taken;
        let first = batch.segments.front()?.position;
        self.length += batch.segments.iter().map(Segment::len).sum::<usize>();
        batch.segments.append(&mut self.segments);
        self.segments = batch.segments;
        Some(first)
    }

    fn reuse(&mut self, mut buffer: BytesMut) {
        if self.spare.is_none() && buffer.capacity() <= KEPT_BUFFER {
            buffer.clear();
            self.spare = Some(buffer);
        }
    }

    /// Removes a frame of which no byte was given away.
    pub(super) fn withdraw(&mut self, frame: &Range<u64>) {
        let mut at = self.segments.partition_point(|segment| segment.end() <= frame.start);
        while self.segments.get(at).is_some_and(|segment| segment.position < frame.end) {
            let Some(segment) = self.segments.remove(at) else { return };
            self.length -= segment.len();
            for part in segment.without(frame) {
                self.length += part.len();
                self.segments.insert(at, part);
                at += 1;
            }
        }
    }
}

/// Bytes taken from an outbox to be written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    segments: VecDeque<Segment>,
    /// Number of bytes at first.
    taken: usize,
    /// A buffer that was written to its end, for the next frames.
    emptied: Option<BytesMut>,
}

impl Batch {
    /// Writes until the transport takes no more, which is the error `WouldBlock`.
    pub(super) fn write(&mut self, transport: &mut dyn Transport, socket: &TcpStream) -> io::Result<()> {
        while let Some(segment) = self.segments.front_mut() {
            match transport.write(socket, segment.unwritten()) {
                Ok(0) => return Err(IoErrorKind::WriteZero.into()),
                Ok(count) => segment.advance(count),
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if segment.len() == 0
                && let Some(Segment { content: Content::Gathered { buffer, .. }, .. }) = self.segments.pop_front()
            {
                self.emptied = Some(buffer);
            }
        }
        Ok(())
    }
}

/// A run of bytes, never an empty one.
#[derive(Debug)]
struct Segment {
    /// Position of its first unwritten byte.
    position: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Frames one behind the other. Written bytes are counted and not cut off: a cut buffer hides its size, and one of
    /// many megabytes would be kept.
    Gathered { buffer: BytesMut, written: usize },
    /// A large body as it came from its message, or a part of gathered frames.
    Shared(Bytes),
}

impl Segment {
    fn unwritten(&self) -> &[u8] {
        match &self.content {
            Content::Gathered { buffer, written } => buffer.get(*written..).unwrap_or_default(),
            Content::Shared(bytes) => bytes,
        }
    }

    fn len(&self) -> usize {
        self.unwritten().len()
    }

    fn end(&self) -> u64 {
        self.position + self.len() as u64
    }

    fn advance(&mut self, count: usize) {
        self.position += count as u64;
        match &mut self.content {
            Content::Gathered { written, .. } => *written += count,
            Content::Shared(bytes) => bytes.advance(count),
        }
    }

    /// Returns the parts before and behind the range.
    fn without(self, range: &Range<u64>) -> impl Iterator<Item = Self> {
        let (position, length) = (self.position, self.len());
        let bytes = match self.content {
            Content::Gathered { mut buffer, written } => buffer.split_off(written).freeze(),
            Content::Shared(bytes) => bytes,
        };
        let offset_of = |at: u64| usize::try_from(at.saturating_sub(position)).map_or(length, |at| at.min(length));
        let (before, behind) = (bytes.slice(..offset_of(range.start)), bytes.slice(offset_of(range.end)..));
        [(position, before), (range.end, behind)]
            .into_iter()
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(position, bytes)| Self { position, content: Content::Shared(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(outbox: &mut Outbox, text: &'static str) -> Range<u64> {
        let start = outbox.end();
        outbox.append(&OutgoingFrame::encoded(text.as_bytes()), 0);
        start..outbox.end()
    }

    fn content(outbox: &Outbox) -> String {
        let bytes: Vec<u8> = outbox.segments.iter().flat_map(|segment| segment.unwritten().to_vec()).collect();
        assert_eq!(bytes.len(), outbox.unsent());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn withdrawn_frames_leave_the_others_as_they_were() {
        for withdrawn in 0_u32..16 {
            let mut outbox = Outbox::default();
            let large = Bytes::from(vec![b'L'; LARGE_BODY]);
            let mut frames = vec![(append(&mut outbox, "first"), "first".to_owned())];
            let start = outbox.end();
            outbox.append(&OutgoingFrame { head: b"head", body: &large }, 0);
            frames.push((start..outbox.end(), format!("head{}", "L".repeat(LARGE_BODY))));
            frames.push((append(&mut outbox, "third"), "third".to_owned()));
            frames.push((append(&mut outbox, "fourth"), "fourth".to_owned()));
            let mut expected = String::new();
            for (index, (range, text)) in frames.iter().enumerate() {
                if withdrawn & (1 << index) == 0 {
                    expected.push_str(text);
                } else {
                    outbox.withdraw(range);
                }
            }
            assert_eq!(content(&outbox), expected, "{withdrawn:04b}");
            // Positions are as if nothing had been withdrawn.
            let next = append(&mut outbox, "next");
            assert_eq!(next.start, frames.last().unwrap().0.end);
            assert_eq!(content(&outbox), expected + "next");
        }
    }

    #[test]
    fn what_could_not_be_written_goes_before_what_came_later() {
        let mut outbox = Outbox::default();
        append(&mut outbox, "abcdef");
        let mut batch = outbox.take();
        batch.segments.front_mut().unwrap().advance(4);
        let later = append(&mut outbox, "gh");
        assert_eq!(outbox.put_back(batch), Some(4));
        assert_eq!(content(&outbox), "efgh");
        outbox.withdraw(&later);
        assert_eq!(content(&outbox), "ef");
    }

    /// Else a slow peer's outbox would grow by its limit each time the selector tries to write.
    #[test]
    fn what_is_being_written_counts_until_it_is_gone() {
        let mut outbox = Outbox::default();
        append(&mut outbox, "abcdef");
        let mut batch = outbox.take();
        assert_eq!((outbox.unsent(), outbox.is_empty()), (6, true));
        append(&mut outbox, "gh");
        assert_eq!((outbox.unsent(), outbox.is_empty()), (8, false));
        batch.segments.front_mut().unwrap().advance(4);
        outbox.put_back(batch);
        assert_eq!(outbox.unsent(), 4);
        let mut batch = outbox.take();
        batch.segments.clear();
        assert_eq!(outbox.put_back(batch), None);
        assert_eq!(outbox.unsent(), 0);
    }

    #[test]
    fn nothing_is_gathered_behind_a_gap() {
        let mut outbox = Outbox::default();
        append(&mut outbox, "ab");
        let batch = outbox.take();
        let gap = append(&mut outbox, "cd");
        outbox.put_back(batch);
        outbox.withdraw(&gap);
        let last = append(&mut outbox, "ef");
        assert_eq!(content(&outbox), "abef");
        outbox.withdraw(&last);
        assert_eq!(content(&outbox), "ab");
    }

    #[test]
    fn the_rest_of_a_frame_follows_what_was_written_of_it() {
        let large = Bytes::from(vec![b'L'; LARGE_BODY]);
        for written in [0, 2, 4, 5, LARGE_BODY + 3] {
            let mut outbox = Outbox::default();
            outbox.append(&OutgoingFrame { head: b"head", body: &large }, written);
            let whole = format!("head{}", "L".repeat(LARGE_BODY));
            assert_eq!(content(&outbox), whole[written..]);
            assert_eq!(outbox.end(), whole.len() as u64);
            assert_eq!(outbox.segments.front().unwrap().position, written as u64);
        }
    }

    #[test]
    fn a_large_body_is_queued_as_it_is_and_smaller_ones_are_gathered() {
        for (size, is_large) in [(LARGE_BODY - 1, false), (LARGE_BODY, true)] {
            let mut outbox = Outbox::default();
            let body = Bytes::from(vec![b'b'; size]);
            outbox.append(&OutgoingFrame { head: b"head", body: &body }, 0);
            append(&mut outbox, "next");
            assert_eq!(outbox.segments.len(), if is_large { 3 } else { 1 }, "{size}");
            let shares = outbox.segments.iter().any(|segment| segment.unwritten().as_ptr() == body.as_ptr());
            assert_eq!(shares, is_large, "{size}");
        }
    }

    #[test]
    fn a_buffer_that_grew_large_is_not_kept() {
        let mut outbox = Outbox::default();
        for (size, kept) in [(1000, true), (2 * KEPT_BUFFER, false)] {
            outbox.append(&OutgoingFrame::encoded(&vec![b'x'; size]), 0);
            let mut batch = outbox.take();
            batch.segments.front_mut().unwrap().advance(size);
            let segment = batch.segments.pop_front().unwrap();
            let Content::Gathered { buffer, .. } = segment.content else { panic!("{segment:?}") };
            batch.emptied = Some(buffer);
            assert_eq!(outbox.put_back(batch), None);
            assert_eq!(outbox.spare.take().is_some(), kept, "{size}");
        }
    }
}

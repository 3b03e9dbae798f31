//! Encoder and decoder of frames: length, encoding and header length, header, body.

use byteorder::{BigEndian, ByteOrder};
use bytes::{Buf, BytesMut};

use crate::wire::frame::command::{FrameHead, HeaderEncoding, RemotingCommand};
use crate::wire::frame::ext_fields::HeaderFields;
use crate::wire::frame::{binary_header, json_header};
use crate::wire::{Error, MAX_FRAME_LENGTH, bad_length};

/// Number of bytes before the header: length, encoding and header length.
const PREFIX_LENGTH: usize = 8;
const LENGTH_OF_LENGTH: usize = 4;
/// Size of a frame after which a decoder begins with a new buffer.
const KEPT_BUFFER: usize = 1024 * 1024;
/// Largest frame beyond the limit that is skipped; a longer length is treated as invalid.
const LONGEST_PASSED_OVER: usize = 256 * 1024 * 1024;
/// Largest header length; the field has three bytes.
const MAX_HEADER_LENGTH: usize = 0x00FF_FFFF;

const USUAL_HEADER_LENGTH: usize = 1024;

impl RemotingCommand {
    /// Appends the whole frame to `out`.
    ///
    /// # Errors
    ///
    /// Returns an error if the frame is longer than [`MAX_FRAME_LENGTH`] or a value does not fit its field; `out` is
    /// then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        let head = FrameHead {
            encoding: self.encoding,
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: self.opaque,
            flag: self.flag,
            remark: self.remark.as_deref(),
        };
        head.encode(&self.ext_fields, self.body.len(), out)?;
        out.extend_from_slice(&self.body);
        Ok(())
    }
}

impl FrameHead<'_> {
    /// Appends everything of the frame except its body, of which only the length is needed, to `out`.
    ///
    /// # Errors
    ///
    /// Returns an error if the frame is longer than [`MAX_FRAME_LENGTH`] or a value does not fit its field; `out` is
    /// then unchanged.
    pub fn encode(&self, fields: &dyn HeaderFields, body_length: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = out.len();
        let written = self.write(fields, body_length, out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn write(&self, fields: &dyn HeaderFields, body_length: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = out.len();
        out.reserve(PREFIX_LENGTH + USUAL_HEADER_LENGTH);
        out.extend_from_slice(&[0; PREFIX_LENGTH]);
        match self.encoding {
            HeaderEncoding::Json => json_header::write(self, fields, out),
            HeaderEncoding::RocketMq => binary_header::write(self, fields, out)?,
        }
        let prefix = self.prefix(out.len() - start - PREFIX_LENGTH, body_length)?;
        // The header's length is known only now.
        if let Some(place) = out.get_mut(start..start + PREFIX_LENGTH) {
            BigEndian::write_u32_into(&prefix, place);
        }
        Ok(())
    }

    /// Returns the two words before the header: the frame's length, and the encoding with the header's length.
    fn prefix(&self, header_length: usize, body_length: usize) -> Result<[u32; 2], Error> {
        let frame_length = PREFIX_LENGTH.saturating_add(header_length).saturating_add(body_length);
        let words = u32::try_from(frame_length - LENGTH_OF_LENGTH).ok().zip(u32::try_from(header_length).ok());
        match words {
            Some((length, header)) if frame_length <= MAX_FRAME_LENGTH && header_length <= MAX_HEADER_LENGTH => {
                Ok([length, u32::from(self.encoding.to_byte()) << 24 | header])
            }
            _ => Err(bad_length("frame", frame_length, MAX_FRAME_LENGTH)),
        }
    }
}

/// Frame of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Frame within the limit.
    Whole(RemotingCommand),
    /// Frame beyond the limit. Its header was read; the rest is skipped as it arrives.
    TooLong {
        /// Command without its body.
        head: RemotingCommand,
        /// Length of the frame, including its four bytes of length.
        length: usize,
    },
}

/// Decodes a stream of bytes into commands. It does no I/O: the caller pushes bytes in and takes commands out.
///
/// After an error the position in the stream is unknown, and the connection must be closed.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    limit: usize,
    /// Number of bytes still to skip of a frame beyond the limit.
    passed_over: usize,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameDecoder {
    /// Creates a decoder that accepts frames of up to [`MAX_FRAME_LENGTH`] bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(MAX_FRAME_LENGTH)
    }

    /// Creates a decoder that accepts frames of up to `limit` bytes, including their length field.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit, passed_over: 0 }
    }

    /// Appends bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        let passed_over = self.passed_over.min(bytes.len());
        self.passed_over -= passed_over;
        self.buffer.extend_from_slice(bytes.get(passed_over..).unwrap_or_default());
    }

    /// Number of bytes that belong to an incomplete frame.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the next whole command, or `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are not a frame, or the frame is beyond the limit; the stream cannot be read
    /// further.
    pub fn next_command(&mut self) -> Result<Option<RemotingCommand>, Error> {
        let Some(frame_length) = self.frame_length(self.limit)? else { return Ok(None) };
        self.read_whole(frame_length)
    }

    /// Returns the next frame, or `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are not a frame; the stream cannot be read further.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Error> {
        match self.frame_length(self.limit.max(LONGEST_PASSED_OVER))? {
            Some(length) if length > self.limit => self.pass_over(length),
            Some(length) => Ok(self.read_whole(length)?.map(Frame::Whole)),
            None => Ok(None),
        }
    }

    fn pass_over(&mut self, length: usize) -> Result<Option<Frame>, Error> {
        if self.buffer.len() < PREFIX_LENGTH {
            return Ok(None);
        }
        let (encoding, header_length) = self.checked_header_length(length.min(self.limit))?;
        if self.buffer.len() < PREFIX_LENGTH + header_length {
            return Ok(None);
        }
        let head = self.read_header(encoding, header_length)?;
        let here = self.buffer.len().min(length);
        self.passed_over = length - here;
        self.buffer.advance(here);
        Ok(Some(Frame::TooLong { head, length }))
    }

    fn read_header(&self, encoding: HeaderEncoding, length: usize) -> Result<RemotingCommand, Error> {
        let header = self.buffer.get(PREFIX_LENGTH..PREFIX_LENGTH + length);
        let header = header.ok_or(Error::UnexpectedEnd { what: "header" })?;
        match encoding {
            HeaderEncoding::Json => json_header::read(header),
            HeaderEncoding::RocketMq => binary_header::read(header),
        }
    }

    fn read_whole(&mut self, frame_length: usize) -> Result<Option<RemotingCommand>, Error> {
        if self.buffer.len() < frame_length {
            return Ok(None);
        }
        let (encoding, header_length) = self.checked_header_length(frame_length)?;
        let header_end = PREFIX_LENGTH + header_length;
        let mut command = self.read_header(encoding, header_length)?;
        if frame_length > header_end {
            command.body = self.buffer.split_to(frame_length).freeze().slice(header_end..);
        } else {
            self.buffer.advance(frame_length);
        }
        if frame_length > KEPT_BUFFER {
            // Memory of a huge frame is not kept for the small ones that follow.
            self.buffer = BytesMut::from(&*self.buffer);
        }
        Ok(Some(command))
    }

    /// Returns the length claimed by the next frame, including its four bytes of length; `None` if they have not
    /// arrived.
    fn frame_length(&self, limit: usize) -> Result<Option<usize>, Error> {
        let Some(length) = self.buffer.get(..LENGTH_OF_LENGTH).map(BigEndian::read_u32) else { return Ok(None) };
        let claimed = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(LENGTH_OF_LENGTH);
        if claimed < PREFIX_LENGTH || claimed > limit {
            let claimed = i64::from(length.cast_signed());
            return Err(Error::BadLength { what: "frame", claimed, limit: limit as u64 });
        }
        Ok(Some(claimed))
    }

    fn checked_header_length(&self, frame_length: usize) -> Result<(HeaderEncoding, usize), Error> {
        let Some([encoding, length @ ..]) = self.buffer.get(LENGTH_OF_LENGTH..PREFIX_LENGTH) else {
            return Err(Error::UnexpectedEnd { what: "frame" });
        };
        let header_length = usize::try_from(BigEndian::read_u24(length)).unwrap_or(usize::MAX);
        let room = frame_length - PREFIX_LENGTH;
        if header_length > room {
            return Err(bad_length("header", header_length, room));
        }
        Ok((HeaderEncoding::from_byte(*encoding)?, header_length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    use crate::wire::{ExtFields, FieldSink, RequestCode, ResponseCode};

    fn sample(encoding: HeaderEncoding) -> RemotingCommand {
        let mut fields = ExtFields::new();
        fields.text("topic", "TopicTest");
        fields.text("i", "TAGS\u{1}TagA\u{2}\"quoted\"\\ 标签");
        let mut command = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, &fields).with_body("hello");
        command.opaque = 7;
        command.remark = Some("why".into());
        command.encoding = encoding;
        command
    }

    #[test]
    fn a_command_survives_both_encodings() {
        for encoding in [HeaderEncoding::Json, HeaderEncoding::RocketMq] {
            let command = sample(encoding);
            let mut bytes = Vec::new();
            command.encode(&mut bytes).unwrap();
            let mut decoder = FrameDecoder::new();
            for (index, byte) in bytes.iter().enumerate() {
                assert_eq!(decoder.next_command().unwrap(), None);
                assert_eq!(decoder.buffered(), index);
                decoder.push(&[*byte]);
            }
            assert_eq!(decoder.next_command().unwrap().as_ref(), Some(&command));
            assert_eq!(decoder.buffered(), 0);
        }
    }

    #[test]
    fn a_frame_beyond_the_limit_is_passed_over_and_what_surrounds_it_is_read() {
        for encoding in [HeaderEncoding::Json, HeaderEncoding::RocketMq] {
            let (small, large) = (sample(encoding), sample(encoding).with_body(vec![7; 5_000]));
            let mut bytes = Vec::new();
            small.encode(&mut bytes).unwrap();
            let length = bytes.len();
            large.encode(&mut bytes).unwrap();
            small.encode(&mut bytes).unwrap();
            for step in [1, 7, 100, 4_000, bytes.len()] {
                let mut decoder = FrameDecoder::with_limit(1_000);
                let mut frames = Vec::new();
                for part in bytes.chunks(step) {
                    decoder.push(part);
                    while let Some(frame) = decoder.next_frame().unwrap() {
                        frames.push(frame);
                    }
                    assert!(decoder.buffered() <= 1_000 + step);
                }
                let head = RemotingCommand { body: Bytes::new(), ..large.clone() };
                let too_long = Frame::TooLong { head, length: bytes.len() - 2 * length };
                assert_eq!(frames, [Frame::Whole(small.clone()), too_long, Frame::Whole(small.clone())], "{step}");
            }
        }
    }

    #[test]
    fn a_frame_beyond_all_bounds_or_with_a_header_beyond_the_limit_is_an_error() {
        for (length, header) in [(u32::MAX, 10_u32), (256 * 1024 * 1024, 10), (2_000_000, 1_000_000)] {
            let mut decoder = FrameDecoder::with_limit(1_000);
            decoder.push(&[length.to_be_bytes(), header.to_be_bytes()].concat());
            assert!(matches!(decoder.next_frame(), Err(Error::BadLength { .. })), "{length}");
        }
        let mut decoder = FrameDecoder::with_limit(1_000);
        decoder.push(&2_000_u32.to_be_bytes());
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(matches!(decoder.next_command(), Err(Error::BadLength { what: "frame", .. })));
    }

    #[test]
    fn a_response_answers_its_request_in_the_same_encoding() {
        let request = sample(HeaderEncoding::RocketMq);
        let response = RemotingCommand::response_to(&request, ResponseCode::SYSTEM_BUSY, Some("later".into()));
        assert_eq!((response.response_code(), response.remark.as_deref()), (ResponseCode::SYSTEM_BUSY, Some("later")));
        assert_eq!((response.opaque, response.encoding), (7, HeaderEncoding::RocketMq));
        assert!(response.ext_fields.is_empty() && response.body.is_empty());
        let kinds = |command: &RemotingCommand| (command.is_response(), command.is_oneway());
        assert_eq!(
            (kinds(&response), kinds(&request), kinds(&request.clone().oneway())),
            ((true, false), (false, false), (false, true))
        );
    }

    #[test]
    fn frames_of_different_encodings_follow_each_other() {
        let mut bytes = Vec::new();
        sample(HeaderEncoding::Json).encode(&mut bytes).unwrap();
        sample(HeaderEncoding::RocketMq).encode(&mut bytes).unwrap();
        let mut decoder = FrameDecoder::new();
        decoder.push(&bytes);
        assert_eq!(decoder.next_command().unwrap().unwrap().encoding, HeaderEncoding::Json);
        assert_eq!(decoder.next_command().unwrap().unwrap().encoding, HeaderEncoding::RocketMq);
        assert_eq!(decoder.next_command().unwrap(), None);
    }

    #[test]
    fn a_code_that_a_binary_header_cannot_carry_is_refused() {
        let mut command = sample(HeaderEncoding::RocketMq);
        command.code = RequestCode::POP_MESSAGE.0;
        let mut bytes = b"before".to_vec();
        assert!(command.encode(&mut bytes).is_err());
        assert_eq!(&bytes[..], b"before");
    }

    #[test]
    fn a_frame_as_long_as_the_limit_is_taken_and_a_longer_one_refused() {
        let mut bytes = Vec::new();
        sample(HeaderEncoding::Json).encode(&mut bytes).unwrap();
        for (limit, is_taken) in [(bytes.len(), true), (bytes.len() - 1, false)] {
            let mut decoder = FrameDecoder::with_limit(limit);
            decoder.push(&bytes);
            assert_eq!(decoder.next_command().is_ok(), is_taken);
        }
    }

    #[test]
    fn the_room_that_a_huge_frame_needed_is_not_kept() {
        // The buffer grows to four of these, so that two are free behind it.
        let huge = 2 * KEPT_BUFFER + 65_536;
        let mut bytes = Vec::new();
        sample(HeaderEncoding::Json).with_body(vec![b'b'; huge]).encode(&mut bytes).unwrap();
        sample(HeaderEncoding::Json).encode(&mut bytes).unwrap();
        let mut decoder = FrameDecoder::new();
        bytes.chunks(65_536).for_each(|part| decoder.push(part));
        assert_eq!(decoder.next_command().unwrap().unwrap().body.len(), huge);
        assert!(decoder.buffer.capacity() < KEPT_BUFFER, "{}", decoder.buffer.capacity());
        assert_eq!(decoder.next_command().unwrap().as_ref(), Some(&sample(HeaderEncoding::Json)));
    }

    /// A length of 0 means "absent" to other implementations.
    #[test]
    fn a_binary_header_leaves_out_what_is_empty() {
        let bytes = |entries: &[(&str, &str)]| {
            let mut fields = ExtFields::new();
            entries.iter().for_each(|(key, value)| fields.text(key, value));
            let mut command = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, &fields);
            command.encoding = HeaderEncoding::RocketMq;
            let mut bytes = Vec::new();
            command.encode(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(bytes(&[("a", ""), ("b", "1"), ("", "2")]), bytes(&[("b", "1")]));
    }

    #[test]
    fn debug_shows_what_is_asked_but_no_credentials_and_no_body() {
        let mut fields = ExtFields::new();
        fields.text("Signature", "c2VjcmV0");
        let command = sample(HeaderEncoding::Json).with_fields(&fields);
        let text = format!("{command:?}");
        assert!(text.contains("opaque: 7") && text.contains("TopicTest") && text.contains("body_length: 5"), "{text}");
        assert!(!text.contains("c2VjcmV0") && !text.contains("hello"), "{text}");
    }
}

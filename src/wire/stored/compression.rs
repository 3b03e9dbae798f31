//! Codecs of message bodies: zlib, LZ4 (frame format) and Zstandard, each a feature of the crate.
//!
//! Decompression stops at an output limit *while* it runs, so a small body cannot fill the memory. Pure functions; they
//! take long for large bodies and belong on the thread that sends or consumes, never on the selector.

#[cfg(any(feature = "zlib", feature = "lz4", feature = "zstd"))]
use std::io::Read;

use bytes::Bytes;

use crate::message::MessageExt;
use crate::wire::Error;
use crate::wire::sys_flag::message as bits;

/// Default compression level of the Java client.
pub const DEFAULT_LEVEL: u32 = 5;

/// Codec of a compressed body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// zlib; supported by every consumer.
    #[default]
    Zlib,
    /// LZ4 in its frame format; supported by consumers since 4.9.4.
    Lz4,
    /// Zstandard; supported by consumers since 4.9.4.
    Zstd,
}

impl Codec {
    /// Returns the codec from a message's sysFlag; `None` if the body is not compressed.
    ///
    /// # Errors
    ///
    /// Returns an error if the codec bits are unknown to every version.
    pub fn of_sys_flag(sys_flag: i32) -> Result<Option<Self>, Error> {
        if sys_flag & bits::COMPRESSED == 0 {
            return Ok(None);
        }
        match sys_flag & bits::COMPRESSION_MASK {
            0 | bits::COMPRESSION_ZLIB => Ok(Some(Self::Zlib)),
            bits::COMPRESSION_LZ4 => Ok(Some(Self::Lz4)),
            bits::COMPRESSION_ZSTD => Ok(Some(Self::Zstd)),
            other => Err(Error::UnknownValue { what: "compression type", value: (other >> 8).into() }),
        }
    }

    /// Returns the sysFlag bits of a message compressed with this codec.
    #[must_use]
    pub const fn sys_flag(self) -> i32 {
        bits::COMPRESSED
            | match self {
                Self::Zlib => bits::COMPRESSION_ZLIB,
                Self::Lz4 => bits::COMPRESSION_LZ4,
                Self::Zstd => bits::COMPRESSION_ZSTD,
            }
    }

    /// True if this build has the codec.
    #[must_use]
    pub const fn is_built(self) -> bool {
        match self {
            Self::Zlib => cfg!(feature = "zlib"),
            Self::Lz4 => cfg!(feature = "lz4"),
            Self::Zstd => cfg!(feature = "zstd"),
        }
    }

    /// Returns the codec's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Lz4 => "LZ4",
            Self::Zstd => "Zstandard",
        }
    }
}

/// Compresses a body. The level, 0 to 9, applies to zlib only: the other two codecs have one level here.
///
/// # Errors
///
/// Returns an error if this build does not have the codec.
pub fn compress(codec: Codec, level: u32, body: &[u8]) -> Result<Vec<u8>, Error> {
    match codec {
        Codec::Zlib => zlib::compress(body, level),
        Codec::Lz4 => lz4::compress(body),
        Codec::Zstd => zstd::compress(body),
    }
}

/// Decompresses a body to at most `limit` bytes.
///
/// # Errors
///
/// Returns an error if the bytes are not of this codec or are truncated, if the output exceeds `limit` bytes, or if
/// this build does not have the codec.
pub fn decompress(codec: Codec, body: &[u8], limit: usize) -> Result<Bytes, Error> {
    match codec {
        Codec::Zlib => zlib::decompress(body, limit),
        Codec::Lz4 => lz4::decompress(body, limit),
        Codec::Zstd => zstd::decompress(body, limit),
    }
}

impl MessageExt {
    /// True if a listener can have the message unchanged: it was decoded, and its body is not compressed.
    pub(crate) fn is_restored(&self) -> bool {
        self.sys_flag & bits::COMPRESSED == 0 && self.defect.is_none()
    }

    /// Decompresses the body if it is compressed, and clears the compression bit. After an error the message is
    /// unchanged; a message that could not be decoded is such an error.
    pub(crate) fn decompress_body(&mut self, limit: usize) -> Result<(), Error> {
        if let Some(defect) = &self.defect {
            return Err(Error::Undecodable { detail: defect.as_ref().to_owned() });
        }
        if let Some(codec) = Codec::of_sys_flag(self.sys_flag)? {
            self.message.body = decompress(codec, &self.message.body, limit)?;
            self.sys_flag &= !(bits::COMPRESSED | bits::COMPRESSION_MASK);
        }
        Ok(())
    }
}

/// Reads until the end or one byte beyond the limit, whichever comes first.
#[cfg(any(feature = "zlib", feature = "lz4", feature = "zstd"))]
fn read_limited(codec: Codec, compressed: &[u8], limit: usize, restored: impl Read) -> Result<Bytes, Error> {
    const USUAL_RATIO: usize = 4;
    let one_too_many = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut body = Vec::with_capacity(compressed.len().saturating_mul(USUAL_RATIO).min(limit));
    restored.take(one_too_many).read_to_end(&mut body).map_err(|error| bad(codec, error))?;
    if body.len() > limit {
        return Err(crate::wire::bad_length("decompressed body", body.len(), limit));
    }
    Ok(Bytes::from(body))
}

#[cfg(any(feature = "zlib", feature = "lz4", feature = "zstd"))]
fn bad(codec: Codec, error: impl std::fmt::Display) -> Error {
    Error::BadCompression { codec: codec.name(), detail: error.to_string() }
}

#[cfg(feature = "zlib")]
mod zlib {
    use flate2::Compression;
    use flate2::read::{DeflateDecoder, GzDecoder, ZlibDecoder, ZlibEncoder};

    use super::*;

    const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];
    const BEST_LEVEL: u32 = 9;

    pub(crate) fn compress(body: &[u8], level: u32) -> Result<Vec<u8>, Error> {
        let mut compressed = Vec::with_capacity(body.len() / 2);
        let mut encoder = ZlibEncoder::new(body, Compression::new(level.min(BEST_LEVEL)));
        encoder.read_to_end(&mut compressed).map_err(|error| bad(Codec::Zlib, error))?;
        Ok(compressed)
    }

    /// Some senders write gzip, or DEFLATE without a header, under the flag of zlib.
    pub(crate) fn decompress(body: &[u8], limit: usize) -> Result<Bytes, Error> {
        if body.starts_with(&GZIP_MAGIC) {
            read_limited(Codec::Zlib, body, limit, GzDecoder::new(body))
        } else if has_zlib_header(body) {
            read_limited(Codec::Zlib, body, limit, ZlibDecoder::new(body))
        } else {
            read_limited(Codec::Zlib, body, limit, DeflateDecoder::new(body))
        }
    }

    /// Checks RFC 1950: the method in the low half of the first byte is 8, and both bytes together are a multiple of
    /// 31.
    fn has_zlib_header(body: &[u8]) -> bool {
        let [method, flags, ..] = body else { return false };
        method & 0x0F == 8 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0
    }
}

#[cfg(feature = "lz4")]
mod lz4 {
    use std::io::{Write, repeat};

    use lz4_flex::frame::{FrameDecoder, FrameEncoder};

    use super::*;

    /// Byte that is not a block: as a block length, four of these exceed the largest block.
    const NO_LENGTH: u8 = 0xFF;

    pub(crate) fn compress(body: &[u8]) -> Result<Vec<u8>, Error> {
        let mut encoder = FrameEncoder::new(Vec::with_capacity(body.len() / 2));
        encoder.write_all(body).map_err(|error| bad(Codec::Lz4, error))?;
        encoder.finish().map_err(|error| bad(Codec::Lz4, error))
    }

    /// Appends bytes that cannot be a block, so that a truncated body is an error. The decoder would accept the end of
    /// its input between two blocks as the end of the frame. With the appended bytes, only the frame's own end mark
    /// ends it.
    pub(crate) fn decompress(body: &[u8], limit: usize) -> Result<Bytes, Error> {
        read_limited(Codec::Lz4, body, limit, FrameDecoder::new(body.chain(repeat(NO_LENGTH))))
    }
}

#[cfg(feature = "zstd")]
mod zstd {
    use ruzstd::decoding::StreamingDecoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    /// Minimum window limit. Senders write the window size of their level, not of their body; every decoder is expected
    /// to support 8 MiB.
    const LEAST_WINDOW_LIMIT: usize = 8 * 1024 * 1024;

    pub(crate) fn compress(body: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(compress_to_vec(body, CompressionLevel::Fastest))
    }

    pub(crate) fn decompress(body: &[u8], limit: usize) -> Result<Bytes, Error> {
        let window = u64::try_from(limit.max(LEAST_WINDOW_LIMIT)).unwrap_or(u64::MAX);
        let decoder = StreamingDecoder::new_with_max_window_size(body, window);
        let mut decoder = decoder.map_err(|error| bad(Codec::Zstd, error))?;
        let restored = read_limited(Codec::Zstd, body, limit, &mut decoder)?;
        let decoder = decoder.into_frame_decoder();
        match decoder.get_checksum_from_data() {
            Some(checksum) if decoder.get_calculated_checksum() != Some(checksum) => {
                Err(bad(Codec::Zstd, "checksum mismatch"))
            }
            _ => Ok(restored),
        }
    }
}

/// Replaces a codec that is not part of this build.
macro_rules! not_built {
    ($($feature:literal $codec:ident $name:ident($($level:ty)?);)+) => {$(
        #[cfg(not(feature = $feature))]
        mod $name {
            use super::*;

            pub(crate) fn compress(_body: &[u8] $(, _level: $level)?) -> Result<Vec<u8>, Error> {
                Err(Error::CodecNotBuilt { codec: Codec::$codec.name() })
            }

            pub(crate) fn decompress(_body: &[u8], _limit: usize) -> Result<Bytes, Error> {
                Err(Error::CodecNotBuilt { codec: Codec::$codec.name() })
            }
        }
    )+};
}

not_built! {
    "zlib" Zlib zlib(u32);
    "lz4" Lz4 lz4();
    "zstd" Zstd zstd();
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 4 * 1024 * 1024;

    fn built() -> impl Iterator<Item = Codec> {
        [Codec::Zlib, Codec::Lz4, Codec::Zstd].into_iter().filter(|codec| codec.is_built())
    }

    fn text() -> Vec<u8> {
        (0..2_000_u32).flat_map(|i| format!("line {} of {}\n", i, i * 7919).into_bytes()).collect()
    }

    #[test]
    fn every_codec_gives_back_what_it_took() {
        for codec in built() {
            for body in [Vec::new(), b"x".to_vec(), text(), vec![0; 200_000]] {
                let compressed = compress(codec, DEFAULT_LEVEL, &body).unwrap();
                assert_eq!(decompress(codec, &compressed, LIMIT).unwrap(), body, "{codec:?}");
            }
        }
    }

    #[test]
    fn a_body_may_be_exactly_as_long_as_the_limit_and_no_longer() {
        for codec in built() {
            let body = text();
            let compressed = compress(codec, DEFAULT_LEVEL, &body).unwrap();
            assert_eq!(decompress(codec, &compressed, body.len()).unwrap(), body);
            let error = decompress(codec, &compressed, body.len() - 1).unwrap_err();
            assert!(matches!(error, Error::BadLength { what: "decompressed body", .. }), "{codec:?}: {error}");
        }
    }

    #[test]
    fn a_body_that_ends_early_is_an_error() {
        for codec in built() {
            let compressed = compress(codec, DEFAULT_LEVEL, &text()).unwrap();
            for length in (0..compressed.len()).step_by(97).chain(compressed.len() - 16..compressed.len()) {
                let cut = decompress(codec, compressed.get(..length).unwrap(), LIMIT);
                assert!(matches!(cut, Err(Error::BadCompression { .. })), "{codec:?} {length}");
            }
        }
    }

    #[test]
    fn bytes_of_another_kind_are_an_error() {
        for codec in built() {
            assert!(matches!(decompress(codec, b"plain text", LIMIT), Err(Error::BadCompression { .. })), "{codec:?}");
        }
    }

    #[test]
    fn a_codec_that_is_not_built_says_so() {
        for codec in [Codec::Zlib, Codec::Lz4, Codec::Zstd] {
            let refused = Error::CodecNotBuilt { codec: codec.name() };
            assert_eq!(compress(codec, DEFAULT_LEVEL, b"x").err() == Some(refused.clone()), !codec.is_built());
            assert_eq!(decompress(codec, b"x", LIMIT).err() == Some(refused), !codec.is_built());
        }
    }

    #[cfg(feature = "zlib")]
    #[test]
    fn gzip_is_taken_for_zlib() {
        let mut gzip = Vec::new();
        flate2::read::GzEncoder::new(&b"hello"[..], flate2::Compression::new(5)).read_to_end(&mut gzip).unwrap();
        assert_eq!(decompress(Codec::Zlib, &gzip, LIMIT).unwrap(), "hello");
    }

    #[cfg(feature = "zlib")]
    #[test]
    fn deflate_without_a_header_is_taken_for_zlib() {
        for body in [Vec::new(), b"hello".to_vec(), text(), vec![0; 200_000]] {
            for level in 0..=9 {
                let mut raw = Vec::new();
                let level = flate2::Compression::new(level);
                flate2::read::DeflateEncoder::new(&body[..], level).read_to_end(&mut raw).unwrap();
                assert_eq!(decompress(Codec::Zlib, &raw, LIMIT).unwrap(), body);
                assert!(body.is_empty() || decompress(Codec::Zlib, &raw, body.len() - 1).is_err());
                for length in (0..raw.len()).step_by(97) {
                    let cut = decompress(Codec::Zlib, &raw[..length], LIMIT);
                    assert!(matches!(cut, Err(Error::BadCompression { .. })), "{} of {}", length, raw.len());
                }
            }
        }
    }

    #[test]
    fn the_flag_of_each_codec_leads_back_to_it() {
        for codec in [Codec::Zlib, Codec::Lz4, Codec::Zstd] {
            assert_eq!(Codec::of_sys_flag(codec.sys_flag()), Ok(Some(codec)));
            assert_eq!(Codec::of_sys_flag(codec.sys_flag() & !bits::COMPRESSED), Ok(None));
        }
        assert_eq!(Codec::of_sys_flag(bits::COMPRESSED), Ok(Some(Codec::Zlib)));
        assert!(Codec::of_sys_flag(bits::COMPRESSED | 0x400).is_err());
    }
}

//! Limits of the protocol that several decoders and encoders share.

/// Size of the largest frame that is sent, and that is accepted unless another limit is set, including its four bytes
/// of length: 16 MiB, as in the Java client (`com.rocketmq.remoting.frameMaxLength`).
pub const MAX_FRAME_LENGTH: usize = 16 * 1024 * 1024;

/// Maximum length of the properties; their length field has 16 bits and a sign.
pub const MAX_PROPERTIES_LENGTH: usize = 32_767;

//! Bits of a message's sysFlag and of a pull request's sysFlag: two different numbers with the same name on the wire.
//! Constants only.

/// Bits of a message.
pub mod message {
    /// The body is compressed, by the codec of [`COMPRESSION_MASK`].
    pub const COMPRESSED: i32 = 0x1;
    /// The topic's filter type is `MULTI_TAG`; set by the broker.
    pub const MULTI_TAGS: i32 = 0x2;
    /// The two bits of a transaction's state.
    pub const TRANSACTION_MASK: i32 = 0xC;
    /// Not part of a transaction.
    pub const TRANSACTION_NOT: i32 = 0x0;
    /// The half message of a transaction.
    pub const TRANSACTION_PREPARED: i32 = 0x4;
    /// The message of a committed transaction.
    pub const TRANSACTION_COMMIT: i32 = 0x8;
    /// The end of a transaction that was rolled back.
    pub const TRANSACTION_ROLLBACK: i32 = 0xC;
    /// The sender's address has 16 bytes.
    pub const BORN_HOST_V6: i32 = 0x10;
    /// The broker's address has 16 bytes.
    pub const STORE_HOST_V6: i32 = 0x20;
    /// The body is a batch that the receiver splits (5.x).
    pub const NEED_UNWRAP: i32 = 0x40;
    /// The message is stored as one inner batch (5.x).
    pub const INNER_BATCH: i32 = 0x80;
    /// The three bits of the codec; none of them set means zlib.
    pub const COMPRESSION_MASK: i32 = 0x700;
    /// LZ4, frame format.
    pub const COMPRESSION_LZ4: i32 = 0x100;
    /// Zstandard.
    pub const COMPRESSION_ZSTD: i32 = 0x200;
    /// zlib.
    pub const COMPRESSION_ZLIB: i32 = 0x300;
}

/// Bits of a pull request.
pub mod pull {
    /// The broker stores the request's `commitOffset`; only a master does.
    pub const COMMIT_OFFSET: i32 = 0x1;
    /// The broker may hold the request until a message arrives: long polling.
    pub const SUSPEND: i32 = 0x2;
    /// The request's own subscription applies instead of the heartbeat's.
    pub const SUBSCRIPTION: i32 = 0x4;
    /// A filter class is used; legacy.
    pub const CLASS_FILTER: i32 = 0x8;
    /// Sent by a lite pull consumer.
    pub const LITE_PULL: i32 = 0x10;
}

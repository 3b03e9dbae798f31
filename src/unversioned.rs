//! Items that follow the protocol instead of semantic versioning: they may change in a minor release.
//!
//! For tools, benches and test peers that read or write the protocol themselves, and for
//! [`Client::request`](crate::Client::request).

#[path = "wire/mod.rs"]
pub mod wire;

//! Offsets of a group: the store of what is known, the one driver that moves and commits it, and the brokers behind it.

mod broker;
pub(crate) mod driver;
pub(crate) mod store;

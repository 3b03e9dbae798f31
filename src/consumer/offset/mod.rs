//! How far the group is in each queue: the store of what is known, and the one driver that moves and commits it.

pub(crate) mod driver;
pub(crate) mod store;

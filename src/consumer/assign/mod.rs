//! Assignment of queues: the rebalance thread, its pure core, and the allocation strategies.

pub(crate) mod allocate;
pub(crate) mod rebalance;
pub(crate) mod service;

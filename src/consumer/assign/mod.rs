//! Which queues are ours: the rebalance thread, its pure core, and the strategies of allocation.

pub(crate) mod allocate;
pub(crate) mod rebalance;
pub(crate) mod service;

//! Layer 4: consumers.
//!
//! [`group`] holds what every consumer has; [`deliver::Delivery`] is the seam at which consumers differ. Threads drive pure
//! cores, plain values that take an event and the time and return what to do: `assign::rebalance`, `pull::table`,
//! `pull::process_queue`, `offset::store`, `deliver::retry` and their parts. `simulation` runs these through loss, delay,
//! duplication and crashes.

pub(crate) mod assign;
pub(crate) mod deliver;
#[cfg(test)]
mod fixtures;
pub(crate) mod group;
mod member;
pub(crate) mod offset;
pub(crate) mod pull;
mod push;
#[cfg(test)]
mod simulation;
pub(crate) mod start;
pub(crate) mod subscription;

pub use assign::allocate::AllocateStrategy;
pub use deliver::listener::{ConcurrentListener, ConsumeContext, ConsumeStatus};
pub use deliver::retry::RetryDelay;
pub use pull::status::{QueueState, QueueStatus};
pub use push::{ConsumerReport, PushConsumer, PushConsumerBuilder};
pub use start::ConsumeFromWhere;
pub use subscription::FilterExpression;

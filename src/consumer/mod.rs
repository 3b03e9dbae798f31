//! Layer 4: consumers.
//!
//! Pure cores (`allocate`, `rebalance`, `queue_table`, `process_queue`, `offset_store`, `retry`, `stray`): plain values that take
//! an event and the time and answer with what to do, without I/O, clock, lock, thread or log; `simulation` drives them
//! through loss, delay, duplication and crashes. The threads that drive them for real: `rebalance_service`,
//! `pull_service`, `consume_service`; what they share is in `member`, windows and offsets in `offset_driver`.

pub(crate) mod assign;
pub(crate) mod deliver;
#[cfg(test)]
mod fixtures;
pub(crate) mod member;
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
pub use push::{ConsumerReport, PushConsumer, PushConsumerBuilder};
pub use start::ConsumeFromWhere;
pub use subscription::FilterExpression;

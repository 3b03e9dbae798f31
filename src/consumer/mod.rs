//! Layer 4: consumers.
//!
//! Pure cores (`allocate`, `rebalance`, `queue_table`, `process_queue`, `offset_store`, `retry`, `stray`): plain values that take
//! an event and the time and answer with what to do, without I/O, clock, lock, thread or log; `simulation` drives them
//! through loss, delay, duplication and crashes. The threads that drive them for real: `rebalance_service`,
//! `pull_service`, `consume_service`; what they share is in `member`, windows and offsets in `offset_driver`.

mod allocate;
mod consume_service;
#[cfg(test)]
mod fixtures;
mod listener;
mod member;
mod offset_driver;
mod offset_store;
mod process_queue;
mod pull_service;
mod push;
mod queue_table;
mod rebalance;
mod rebalance_service;
mod retry;
mod send_back;
#[cfg(test)]
mod simulation;
mod stray;

pub use allocate::AllocateStrategy;
pub use listener::{ConcurrentListener, ConsumeContext, ConsumeStatus};
pub use push::{ConsumerReport, FilterExpression, PushConsumer, PushConsumerBuilder};
pub use queue_table::ConsumeFromWhere;
pub use retry::RetryDelay;

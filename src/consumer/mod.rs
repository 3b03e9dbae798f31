//! Layer 4: consumers.
//!
//! The modules below are pure cores: plain values that take an event and the time and answer with what to do. They do
//! no I/O, read no clock, take no lock, start no thread and write no log; the threads of a consumer drive them, and
//! `simulation` drives the same code through loss, delay, duplication and crashes.

mod allocate;
#[cfg(test)]
mod fixtures;
mod offset_store;
mod process_queue;
mod queue_table;
mod rebalance;
mod retry;
#[cfg(test)]
mod simulation;

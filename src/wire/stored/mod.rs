//! Messages as brokers store and deliver them: layout, batches, ids, compressed bodies.

pub mod batch;
pub mod compression;
pub mod message;
pub mod message_id;

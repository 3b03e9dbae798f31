//! From a queue that is ours to messages in its window: the pull thread, the table of queues, the process queue.

pub(crate) mod event;
pub(crate) mod flow;
pub(crate) mod process_queue;
pub(crate) mod pull_event;
pub(crate) mod puller;
mod reply;
pub(crate) mod request;
mod row;
pub(crate) mod service;
pub(crate) mod slot;
pub(crate) mod status;
pub(crate) mod stray;
pub(crate) mod table;
pub(crate) mod window;

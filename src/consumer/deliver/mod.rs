//! From a window to the listener and back: the pool of workers, listeners, retries, send-back.

pub(crate) mod listener;
pub(crate) mod pool;
pub(crate) mod retry;
pub(crate) mod send_back;

//! Log lines behind a panic boundary: the logger is code of the host and runs on every thread of the library.
//!
//! A line costs a comparison if its level is off. Never log while a lock is held: a logger may call back.

use std::panic::{AssertUnwindSafe, catch_unwind};

use log::Level;

macro_rules! error {
    ($($line:tt)+) => { $crate::logging::write(log::Level::Error, || log::error!($($line)+)) };
}

macro_rules! warn_ {
    ($($line:tt)+) => { $crate::logging::write(log::Level::Warn, || log::warn!($($line)+)) };
}

macro_rules! info {
    ($($line:tt)+) => { $crate::logging::write(log::Level::Info, || log::info!($($line)+)) };
}

macro_rules! debug {
    ($($line:tt)+) => { $crate::logging::write(log::Level::Debug, || log::debug!($($line)+)) };
}

pub(crate) use {debug, error, info, warn_ as warn};

/// Writes a line if its level is on. A logger that panics loses the line, without any other effect.
pub(crate) fn write(level: Level, line: impl FnOnce()) {
    if level <= log::max_level() {
        let _ = catch_unwind(AssertUnwindSafe(line));
    }
}

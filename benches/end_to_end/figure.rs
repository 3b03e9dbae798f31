//! Figures to be measured, and the mark of each.

use std::time::Duration;

/// Work on messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Sends that wait for their result, from this many threads.
    Sync { callers: usize },
    /// Sends with a later result, with a window of [`IN_FLIGHT`](super::IN_FLIGHT).
    Async(Results),
    /// Sends without a result.
    Oneway,
    /// Push consumer whose listener gets up to `batch` messages and takes this long for them.
    Consume { batch: usize, listener: Option<Duration> },
}

/// Delivery of the result of an asynchronous send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Results {
    Callback,
    Completions,
}

/// Limit for a median.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mark {
    /// Minimum share of the floor's rate.
    RatioToFloor(f64),
    /// Maximum number of microseconds of CPU per message.
    CpuMicros(f64),
}

/// Line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    pub(crate) mark: Option<Mark>,
    /// Peak memory in MB that the candidate must stay below.
    pub(crate) memory_mark: f64,
    /// Maximum number of threads of the library, except those that run user code or resolve names.
    pub(crate) thread_mark: usize,
}

pub(crate) const FIGURES: [Figure; 9] = [
    producing("sync-1", Work::Sync { callers: 1 }, Some(Mark::RatioToFloor(0.5))),
    producing("sync-8", Work::Sync { callers: 8 }, None),
    producing("sync-64", Work::Sync { callers: 64 }, Some(Mark::CpuMicros(9.0))),
    producing("async-callback", Work::Async(Results::Callback), Some(Mark::CpuMicros(4.5))),
    producing("async-completions", Work::Async(Results::Completions), Some(Mark::CpuMicros(3.0))),
    producing("oneway", Work::Oneway, None),
    consuming("consume-1", Work::Consume { batch: 1, listener: None }, Some(Mark::CpuMicros(2.2))),
    consuming("consume-32", Work::Consume { batch: 32, listener: None }, Some(Mark::CpuMicros(2.2))),
    consuming("consume-10ms", Work::Consume { batch: 1, listener: Some(Duration::from_millis(10)) }, None),
];

const fn producing(name: &'static str, work: Work, mark: Option<Mark>) -> Figure {
    Figure { name, work, mark, memory_mark: 12.0, thread_mark: 2 }
}

const fn consuming(name: &'static str, work: Work, mark: Option<Mark>) -> Figure {
    Figure { name, work, mark, memory_mark: 48.0, thread_mark: 4 }
}

impl Figure {
    pub(crate) fn named(name: &str) -> Option<Self> {
        FIGURES.into_iter().find(|figure| figure.name == name)
    }

    pub(crate) fn consumes(&self) -> bool {
        matches!(self.work, Work::Consume { .. })
    }
}

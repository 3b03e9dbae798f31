//! Latencies in a fixed memory of a few kilobytes, so that the record does not affect the peak memory.

use std::time::Duration;

/// Number of buckets per doubling of the time: an error of at most 3 %.
const STEPS: usize = 32;
const DOUBLINGS: usize = 32;

/// Counts of latencies from 32 ns to a minute and above.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Vec<u32>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; STEPS * DOUBLINGS], total: 0 }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.counts[bucket(latency)] += 1;
        self.total += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// Returns the latency in microseconds that this share of all stayed below; `None` if no latency was recorded.
    pub(crate) fn quantile_micros(&self, share: f64) -> Option<f64> {
        let mut left = share * self.total as f64;
        let at = self.counts.iter().position(|&count| {
            left -= f64::from(count);
            left <= 0.0 && count > 0
        })?;
        Some(nanos_of(at) / 1000.0)
    }
}

fn bucket(latency: Duration) -> usize {
    let nanos = usize::try_from(latency.as_nanos()).unwrap_or(usize::MAX).max(STEPS);
    let doubling = (nanos.ilog2() - STEPS.ilog2()) as usize;
    (doubling * STEPS + (nanos >> doubling) - STEPS).min(STEPS * DOUBLINGS - 1)
}

/// Middle of a bucket.
fn nanos_of(bucket: usize) -> f64 {
    let (doubling, step) = (bucket / STEPS, bucket % STEPS);
    ((STEPS + step) as f64 + 0.5) * (1_u64 << doubling) as f64
}

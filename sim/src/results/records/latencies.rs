//! Latencies by interval of simulated time.

use hdrhistogram::Histogram;

use crate::time::{Ps, empty_latencies};

/// What latencies are kept of, in the order of [`LatencyLog::kinds`].
pub const LATENCY_KINDS: [LatencyKind; 6] = [
    LatencyKind { name: "dma", meaning: "requests of devices" },
    LatencyKind { name: "walk", meaning: "page-table walks, from their start" },
    LatencyKind { name: "invalidation", meaning: "invalidations after unmaps (tlb_sync)" },
    LatencyKind { name: "map-invalidation", meaning: "invalidations after maps (caching mode)" },
    LatencyKind { name: "map", meaning: "map calls" },
    LatencyKind { name: "unmap", meaning: "unmap calls" },
];

/// A kind of latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyKind {
    /// Its name in files.
    pub name: &'static str,
    /// What it is, in words.
    pub meaning: &'static str,
}

/// Histograms of latencies in ns (three significant digits), by interval of
/// simulated time in which they ended. Warm-up is left out.
#[derive(Clone, Debug)]
pub struct LatencyLog {
    /// Start of the first interval.
    pub start: Ps,
    /// Length of every interval.
    pub interval: Ps,
    /// By [`LATENCY_KINDS`], then by interval; `None` = nothing ended in it.
    pub kinds: [Vec<Option<Histogram<u64>>>; 6],
}

impl LatencyLog {
    /// All intervals of a kind together.
    pub fn total(&self, kind: usize) -> Histogram<u64> {
        let mut sum = empty_latencies();
        for part in self.kinds[kind].iter().flatten() {
            // Parts have the bounds of the sum.
            sum.add(part).expect("the parts hold values within the sum's bounds");
        }
        sum
    }
}

//! Latencies as HdrHistograms.

use hdrhistogram::Histogram;

use super::Ps;

/// Largest latency that is told apart: one hour, in ns.
pub const LONGEST_NS: u64 = 3_600_000_000_000;

/// An empty histogram of latencies: 1 ns to one hour, three significant digits.
pub fn empty_latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3)
        .expect("the bounds and digits are constants within the crate's limits")
}

/// A histogram of latencies in ns with three significant digits (values are
/// off by at most 0.1 %), and their exact sum.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
    /// Equal latencies in a row are recorded at once: most are hits that cost
    /// the same.
    last: Ps,
    repeats: u64,
    /// Of what is in the histogram.
    sum_ps: u128,
    max: Ps,
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies {
            histogram: empty_latencies(),
            last: Ps::ZERO,
            repeats: 0,
            sum_ps: 0,
            max: Ps::ZERO,
        }
    }
}

impl Latencies {
    /// Adds one latency.
    #[inline]
    pub fn record(&mut self, latency: Ps) {
        self.record_n(latency, 1);
    }

    /// Adds `n` equal latencies.
    #[inline]
    pub fn record_n(&mut self, latency: Ps, n: u64) {
        if latency != self.last {
            self.flush();
            self.last = latency;
        }
        self.repeats += n;
    }

    fn flush(&mut self) {
        if self.repeats > 0 {
            self.histogram.saturating_record_n(self.last.ns(), self.repeats);
            self.sum_ps = self.sum_ps();
            self.max = self.max();
            self.repeats = 0;
        }
    }

    /// The histogram of everything recorded, in ns.
    pub fn histogram(&mut self) -> &Histogram<u64> {
        self.flush();
        &self.histogram
    }

    /// Number of latencies.
    pub fn count(&self) -> u64 {
        self.histogram.len() + self.repeats
    }

    /// Their sum in picoseconds, exact.
    pub fn sum_ps(&self) -> u128 {
        self.sum_ps + self.last.0 as u128 * self.repeats as u128
    }

    /// Their mean in ns; `None` without any.
    pub fn mean_ns(&self) -> Option<f64> {
        let n = self.count();
        (n > 0).then(|| self.sum_ps() as f64 / n as f64 / 1000.0)
    }

    /// The longest.
    pub fn max(&self) -> Ps {
        if self.repeats > 0 { self.max.max(self.last) } else { self.max }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Latencies::default();
    }
}

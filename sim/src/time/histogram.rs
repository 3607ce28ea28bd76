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

/// log2 of the buckets that a power of two is divided into, so that a bucket is
/// at most 0.1 % wide: what three digits mean to an HdrHistogram.
const PER_POWER: u32 = 10;
/// log2 of the first value that has no bucket.
const END: u32 = (LONGEST_NS + 1).next_power_of_two().trailing_zeros();
/// Buckets; those of values below 2^([`PER_POWER`] + 1) have one value each.
const BUCKETS: usize = (END as usize - PER_POWER as usize + 1) << PER_POWER;

/// Latencies in the buckets of [`empty_latencies`], and their exact sum.
///
/// Recording takes a dozen instructions; [`Latencies::histogram`] makes the
/// HdrHistogram that recording every latency there would have made.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// By [`bucket`].
    counts: Vec<u64>,
    count: u64,
    sum_ps: u128,
    max: Ps,
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies { counts: vec![0; BUCKETS], count: 0, sum_ps: 0, max: Ps::ZERO }
    }
}

/// The bucket of a value below 2^[`END`].
#[inline]
fn bucket(ns: u64) -> usize {
    let exact = (2 << PER_POWER) - 1;
    let shift = u64::BITS - (PER_POWER + 1) - (ns | exact).leading_zeros();
    ((shift as usize) << PER_POWER) + (ns >> shift) as usize
}

/// The least value of a bucket.
fn value(bucket: usize) -> u64 {
    let shift = (bucket >> PER_POWER).saturating_sub(1);
    ((bucket - (shift << PER_POWER)) as u64) << shift
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
        if n == 0 {
            return;
        }
        let ns = latency.ns();
        let counted = if ns >> END == 0 { ns } else { LONGEST_NS };
        self.counts[bucket(counted)] += n;
        self.count += n;
        self.sum_ps += latency.0 as u128 * n as u128;
        self.max = self.max.max(latency);
    }

    /// The histogram of everything recorded, in ns.
    pub fn histogram(&self) -> Histogram<u64> {
        let mut histogram = empty_latencies();
        for (at, n) in self.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            histogram.saturating_record_n(value(at), *n);
        }
        histogram
    }

    /// Number of latencies.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum in picoseconds, exact.
    pub fn sum_ps(&self) -> u128 {
        self.sum_ps
    }

    /// Their mean in ns; `None` without any.
    pub fn mean_ns(&self) -> Option<f64> {
        let n = self.count();
        (n > 0).then(|| self.sum_ps() as f64 / n as f64 / 1000.0)
    }

    /// The longest.
    pub fn max(&self) -> Ps {
        self.max
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Latencies::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// As if every latency had been recorded there.
        #[test]
        fn the_histogram_is_that_of_every_latency(
            latencies in prop::collection::vec((0u32..64, any::<u64>(), 0u64..4), 0..40),
        ) {
            let (mut all, mut expected) = (Latencies::default(), empty_latencies());
            let (mut sum, mut max) = (0, Ps::ZERO);
            for (magnitude, bits, n) in latencies {
                let latency = Ps(bits >> magnitude);
                all.record_n(latency, n);
                if n > 0 {
                    expected.saturating_record_n(latency.ns(), n);
                    max = max.max(latency);
                }
                sum += u128::from(latency.0) * u128::from(n);
            }
            let histogram = all.histogram();
            prop_assert_eq!(histogram.max(), expected.max());
            prop_assert_eq!(histogram.min_nz(), expected.min_nz());
            prop_assert_eq!(&histogram, &expected);
            prop_assert_eq!((all.count(), all.sum_ps(), all.max()), (expected.len(), sum, max));
        }
    }

    #[test]
    fn the_last_bucket_ends_where_the_histograms_does() {
        assert_eq!(BUCKETS, empty_latencies().distinct_values());
        assert!((0..BUCKETS).all(|at| bucket(value(at)) == at));
        assert_eq!(bucket((1 << END) - 1), BUCKETS - 1);
    }
}

//! Values per interval of simulated time.

use crate::results::timing::TimingSeries;
use crate::time::Ps;

/// Intervals of a series.
const INTERVALS: usize = 128;
/// The shortest interval is 2^20 picoseconds, 1.05 us.
const SHORTEST: u32 = 20;

/// Counts per interval. The length of the run is not known before its end:
/// when it passes the last interval, pairs are merged and intervals double.
#[derive(Clone, Debug)]
pub struct Series {
    start: Ps,
    /// An interval is 2^shift picoseconds.
    shift: u32,
    counts: [u64; INTERVALS],
    sums: [u128; INTERVALS],
    bytes: [u64; INTERVALS],
}

impl Default for Series {
    fn default() -> Self {
        Series::starting(Ps::ZERO)
    }
}

impl Series {
    /// Nothing recorded yet; the first interval begins at `start`.
    pub fn starting(start: Ps) -> Series {
        let (counts, sums, bytes) = ([0; INTERVALS], [0; INTERVALS], [0; INTERVALS]);
        Series { start, shift: SHORTEST, counts, sums, bytes }
    }

    /// Index of the interval in which `at` is.
    #[inline]
    fn index(&mut self, at: Ps) -> usize {
        let mut index = (at.since(self.start).0 >> self.shift) as usize;
        while index >= INTERVALS {
            self.merge();
            index >>= 1;
        }
        index
    }

    /// The interval in which `at` is. When intervals are merged, it stays
    /// inside one.
    pub fn interval(&mut self, at: Ps) -> (Ps, Ps) {
        let index = self.index(at) as u64;
        let start = |index: u64| self.start + Ps(index << self.shift);
        (start(index), start(index + 1))
    }

    /// `n` latencies of requests that were done in the interval of `at`.
    #[inline]
    pub fn record(&mut self, at: Ps, latency: Ps, bytes: u32, n: u64) {
        let index = self.index(at);
        self.counts[index] += n;
        self.sums[index] += latency.0 as u128 * n as u128;
        self.bytes[index] = self.bytes[index].saturating_add(u64::from(bytes).saturating_mul(n));
    }

    #[cold]
    fn merge(&mut self) {
        self.shift += 1;
        for i in 0..INTERVALS {
            let pair = 2 * i;
            let inside = pair < INTERVALS;
            self.counts[i] = if inside { self.counts[pair] + self.counts[pair + 1] } else { 0 };
            self.sums[i] = if inside { self.sums[pair] + self.sums[pair + 1] } else { 0 };
            self.bytes[i] = match inside {
                true => self.bytes[pair].saturating_add(self.bytes[pair + 1]),
                false => 0,
            };
        }
    }

    /// All columns, of equal length.
    pub fn result(&mut self, queues: &QueueSeries, last: &Areas, end: Ps) -> TimingSeries {
        while self.shift < queues.shift {
            self.merge();
        }
        let used = self.counts.iter().rposition(|n| *n > 0).map_or(0, |i| i + 1);
        let means = queues.means(self.shift, last, end);
        let n = used.max(means.len()).min(INTERVALS);
        let mean = |(n, sum): (&u64, &u128)| match n {
            0 => 0.0,
            n => *sum as f64 / *n as f64 / 1000.0,
        };
        let length_ps = (1u64 << self.shift) as f64;
        let of = |queue: usize| {
            (0..n).map(|i| means.get(i).map_or(0.0, |m| m[queue])).collect::<Vec<f64>>()
        };
        TimingSeries {
            interval_ns: (1 << self.shift) / 1000,
            requests: self.counts[..n].to_vec(),
            latency_mean_ns: self.counts[..n].iter().zip(&self.sums).map(mean).collect(),
            gbps: self.bytes[..n].iter().map(|b| *b as f64 * 8e3 / length_ps).collect(),
            walker_queue_mean: of(0),
            invalidation_queue_mean: of(1),
            vmm_queue_mean: of(2),
        }
    }
}

/// Areas under the lengths of the queues, since the measurement began: of
/// walkers, the invalidation queue's lock and the VMM.
pub type Areas = [u128; 3];

/// Lengths of queues per interval of simulated time: the areas under them, at
/// the ends of intervals.
#[derive(Clone, Debug)]
pub struct QueueSeries {
    start: Ps,
    /// An interval is 2^shift picoseconds.
    shift: u32,
    /// End of the present interval.
    until: Ps,
    areas: Vec<Areas>,
}

impl QueueSeries {
    /// The first interval begins at `start`.
    pub fn starting(start: Ps) -> QueueSeries {
        let areas = Vec::with_capacity(INTERVALS);
        QueueSeries { start, shift: SHORTEST, until: start + Ps(1 << SHORTEST), areas }
    }

    /// End of the present interval: to be closed before anything happens after
    /// it.
    #[inline]
    pub fn until(&self) -> Ps {
        self.until
    }

    /// Closes the present interval; `areas` are those at its end.
    pub fn close(&mut self, areas: Areas) {
        self.areas.push(areas);
        if self.areas.len() == INTERVALS {
            // The ends of pairs stay.
            let mut number = 0;
            self.areas.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            self.shift += 1;
        }
        self.until = self.start + Ps((self.areas.len() as u64 + 1) << self.shift);
    }

    /// Mean lengths by interval of 2^`shift` ps, not shorter than the series'
    /// own; `last` are the areas at `end`, when the run ended.
    fn means(&self, shift: u32, last: &Areas, end: Ps) -> Vec<[f64; 3]> {
        let whole = 1usize << (shift - self.shift).min(31);
        let length = 1u64 << shift;
        let mut means = Vec::new();
        let (mut from, mut before) = (self.start, [0; 3]);
        while from < end {
            let (until, now) = match self.areas.get((means.len() + 1) * whole - 1) {
                Some(areas) => (from + Ps(length), areas),
                None => (end, last),
            };
            let time = until.since(from).0.max(1) as f64;
            let mean = |i: usize| now[i].saturating_sub(before[i]) as f64 / time;
            means.push([mean(0), mean(1), mean(2)]);
            (from, before) = (until, *now);
        }
        means
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue that is as long as the number of milliseconds passed, at any
    /// resolution that the run's length leads to.
    #[test]
    fn queues_are_averaged_over_intervals() {
        let ms = 1_000_000_000u64;
        for run in [3 * ms, 700 * ms, 12_345 * ms] {
            // Area under it: level n during millisecond n.
            let area = |at: Ps| {
                let (n, rest) = ((at.0 / ms) as u128, (at.0 % ms) as u128);
                n * n.saturating_sub(1) / 2 * ms as u128 + n * rest
            };
            let mut queues = QueueSeries::starting(Ps::ZERO);
            while queues.until() <= Ps(run) {
                queues.close([area(queues.until()), 0, 7]);
            }
            let end = [area(Ps(run)), 0, 7];
            let mut series = Series::starting(Ps::ZERO);
            series.record(Ps(run - 1), Ps(5), 100, 3);
            let result = series.result(&queues, &end, Ps(run));
            let n = result.requests.len();
            assert!((INTERVALS / 4..=INTERVALS).contains(&n), "{n}");
            assert_eq!(result.requests[n - 1], 3);
            let length = 1u64 << series.shift;
            for (i, mean) in result.walker_queue_mean.iter().enumerate() {
                let (from, until) = (length * i as u64, (length * (i as u64 + 1)).min(run));
                let exact = (area(Ps(until)) - area(Ps(from))) as f64 / (until - from) as f64;
                assert!((mean - exact).abs() <= 1e-9 * exact.max(1.0), "{i}: {mean} {exact}");
            }
            let columns = [&result.gbps, &result.latency_mean_ns, &result.invalidation_queue_mean];
            assert!(columns.iter().all(|c| c.len() == n));
            assert!(result.vmm_queue_mean[0] > 0.0 && result.vmm_queue_mean[1] == 0.0);
        }
    }
}

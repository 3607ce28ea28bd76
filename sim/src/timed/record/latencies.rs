//! Histograms by interval, for a run whose length is not known before its end.

use hdrhistogram::Histogram;

use crate::results::records::{LATENCY_KINDS, LatencyLog};
use crate::time::{LONGEST_NS, Ps};

/// Most intervals kept. When a run passes the last, pairs are merged and
/// intervals double, so that 16 to 32 remain in use.
const INTERVALS: usize = 32;
/// Length of the first interval: 1 us.
const FIRST: Ps = Ps::from_ns(1000);

type Histograms = Vec<Option<Histogram<u64>>>;

/// Latencies by interval; at most a few hundred KiB per interval and kind, of
/// which most runs use little (histograms grow with their largest value).
#[derive(Debug)]
pub struct IntervalLatencies {
    start: Ps,
    interval: Ps,
    kinds: [Histograms; LATENCY_KINDS.len()],
}

impl Default for IntervalLatencies {
    fn default() -> Self {
        let kinds = std::array::from_fn(|_| (0..INTERVALS).map(|_| None).collect());
        IntervalLatencies { start: Ps::ZERO, interval: FIRST, kinds }
    }
}

impl IntervalLatencies {
    /// Forgets everything; the first interval starts at `start`.
    pub fn restart(&mut self, start: Ps) {
        *self = IntervalLatencies { start, ..IntervalLatencies::default() };
    }

    /// A latency of a kind that ended at `at`.
    pub fn record(&mut self, kind: usize, at: Ps, latency: Ps) {
        let mut index = at.since(self.start).0 / self.interval.0;
        while index >= INTERVALS as u64 {
            self.merge();
            index = at.since(self.start).0 / self.interval.0;
        }
        let histogram = self.kinds[kind][index as usize].get_or_insert_with(empty);
        // Capped as in `Latencies`.
        histogram.record(latency.ns().min(LONGEST_NS)).expect("the histogram grows as needed");
    }

    #[cold]
    fn merge(&mut self) {
        self.interval = self.interval.times(2);
        for histograms in &mut self.kinds {
            for i in 0..INTERVALS {
                let second = histograms.get_mut(2 * i + 1).and_then(Option::take);
                let first = histograms.get_mut(2 * i).and_then(Option::take);
                histograms[i] = match (first, second) {
                    (Some(mut sum), Some(part)) => {
                        sum.add(part).expect("the sum grows as its parts did");
                        Some(sum)
                    }
                    (first, second) => first.or(second),
                };
            }
        }
    }

    /// What was recorded.
    pub fn log(self) -> LatencyLog {
        let cut = |mut histograms: Histograms| {
            let used = histograms.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
            histograms.truncate(used);
            histograms
        };
        let kinds = self.kinds.map(cut);
        LatencyLog { start: self.start, interval: self.interval, kinds }
    }
}

/// A histogram with the buckets of `Latencies` that grows as needed.
fn empty() -> Histogram<u64> {
    Histogram::new(3).expect("three significant digits are within the crate's limits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Latencies;
    use proptest::prelude::*;

    proptest! {
        /// Against a list of everything: the total is the distribution that
        /// `Latencies` has, and every interval holds what ended in it.
        #[test]
        fn intervals_hold_what_ended_in_them(
            steps in prop::collection::vec((0u64..300_000_000, 0u64..1 << 45), 1..200),
            start in 0u64..1_000_000,
        ) {
            let (mut log, mut all) = (IntervalLatencies::default(), Latencies::default());
            log.record(0, Ps(5), Ps(7));
            log.restart(Ps(start));
            let steps: Vec<(Ps, Ps)> =
                steps.iter().map(|(at, l)| (Ps(start + at), Ps(*l))).collect();
            for (at, latency) in &steps {
                log.record(1, *at, *latency);
                all.record(*latency);
            }
            let log = log.log();
            prop_assert_eq!(log.kinds[0].len(), 0);
            prop_assert_eq!(log.total(1), all.histogram());
            prop_assert!(log.kinds[1].len() <= INTERVALS);
            for (i, histogram) in log.kinds[1].iter().enumerate() {
                let from = log.start + log.interval.times(i as u64);
                let inside = |at: Ps| at >= from && at < from + log.interval;
                let n = steps.iter().filter(|(at, _)| inside(*at)).count() as u64;
                prop_assert_eq!(histogram.as_ref().map_or(0, |h| h.len()), n);
            }
        }
    }
}

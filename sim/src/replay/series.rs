//! Counts per interval of trace time.

use crate::results::{Counters, Series};

/// Collects a [`Series`] from running totals.
pub(super) struct SeriesBuilder {
    interval_ns: u64,
    next_ns: u64,
    /// Most intervals; the last takes what is later than the trace's end.
    intervals: u64,
    last: [u64; 6],
    series: Series,
}

impl SeriesBuilder {
    /// `intervals` equal parts of `[0, end_ns]`.
    pub fn new(end_ns: u64, intervals: u64) -> SeriesBuilder {
        let interval_ns = (end_ns / intervals + 1).max(1);
        SeriesBuilder {
            interval_ns,
            next_ns: if intervals > 1 { interval_ns } else { u64::MAX },
            intervals,
            last: [0; 6],
            series: Series { interval_ns, ..Series::default() },
        }
    }

    /// Start of the next interval.
    #[inline]
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Closes intervals up to `time_ns`.
    pub fn roll(&mut self, time_ns: u64, totals: &Counters) {
        while time_ns >= self.next_ns && self.next_ns != u64::MAX {
            self.push(totals);
            let last = self.series.requests.len() as u64 + 1 == self.intervals;
            self.next_ns = if last { u64::MAX } else { self.next_ns + self.interval_ns };
        }
    }

    fn push(&mut self, c: &Counters) {
        let now = [
            c.dma.requests,
            c.iotlb.hits,
            c.walk.memory_reads,
            c.shadow.mapped + c.shadow.unmapped,
            c.shadow.pte_reads,
            c.guest.traps,
        ];
        let s = &mut self.series;
        let columns = [
            &mut s.requests,
            &mut s.hits,
            &mut s.memory_reads,
            &mut s.shadow_changes,
            &mut s.shadow_pte_reads,
            &mut s.traps,
        ];
        for ((column, now), last) in columns.into_iter().zip(now).zip(&mut self.last) {
            column.push(now - std::mem::replace(last, now));
        }
    }

    /// Closes the last interval.
    pub fn finish(mut self, totals: &Counters) -> Series {
        self.push(totals);
        self.series
    }
}

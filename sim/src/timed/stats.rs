//! Books kept while a run goes on.

use super::devices::DmaTimes;
use super::series::{Areas, QueueSeries, Series};
use crate::results::timing::{ClassTime, LatencySummary, TimingSeries};
use crate::time::{Latencies, Ps};

/// Classes of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// IOTLB hit that waited for no walk.
    Hit,
    /// Found in the device TLB.
    DeviceTlbHit,
    /// Served by another request's walk.
    Coalesced,
    /// Walked.
    Miss,
    /// Walked, asked for the page, walked again.
    PageRequest,
    /// Found no translation.
    Fault,
}

impl Class {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

const NAMES: [&str; 6] = ["hit", "device-tlb-hit", "coalesced", "miss", "page-request", "fault"];

/// Parts of one request's latency.
#[derive(Clone, Copy, Debug, Default)]
pub struct Split {
    /// Slot and link.
    pub queueing: Ps,
    /// Look-ups.
    pub lookup: Ps,
    /// Walker's queue.
    pub walk_queueing: Ps,
    /// Walk.
    pub walk: Ps,
    /// Page request.
    pub page_request: Ps,
    /// PCIe and memory.
    pub pcie: Ps,
}

impl Split {
    /// The latency.
    #[inline]
    pub fn total(&self) -> Ps {
        self.queueing + self.lookup + self.walk_queueing + self.walk + self.page_request + self.pcie
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: u64,
    parts: [u128; 6],
}

/// A hit that waited for no walk. All that are equal take the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// Device.
    pub device: u32,
    /// Payload.
    pub bytes: u32,
    /// Posted.
    pub write: bool,
    /// Found in the device TLB.
    pub device_hit: bool,
    /// Waited for a slot or the link, and was on it.
    pub queueing: Ps,
}

/// Equal hits in a row that were done in one interval of the series: they are
/// booked together.
#[derive(Clone, Copy, Debug, Default)]
pub struct HitRun {
    hit: Hit,
    /// Latency of each.
    pub total: Ps,
    /// The interval.
    from: Ps,
    until: Ps,
    /// How many.
    pub count: u64,
}

impl HitRun {
    /// Counts a hit that was done at `done`, if it is like the others.
    #[inline]
    pub fn takes(&mut self, hit: &Hit, done: Ps) -> bool {
        let alike = self.hit == *hit && self.from <= done && done < self.until;
        self.count += u64::from(alike);
        alike
    }

    /// What the hits have in common.
    pub fn hit(&self) -> &Hit {
        &self.hit
    }
}

/// Sums over hits that waited for no walk: all of one kind take the same time,
/// but for the wait for the link.
#[derive(Clone, Copy, Debug, Default)]
struct Hits {
    count: u64,
    queueing: u128,
}

/// Latencies of requests, by class.
#[derive(Clone, Debug, Default)]
pub struct DmaStats {
    /// All requests.
    pub all: Latencies,
    /// Payload of requests done.
    pub bytes: u64,
    classes: [Sums; 6],
    /// Hits that waited for no walk, by write and by device-TLB hit.
    hits: [[Hits; 2]; 2],
    series: Series,
}

impl DmaStats {
    /// A run of hits that begins with one that was done at `done`.
    pub fn run_of(&mut self, hit: Hit, total: Ps, done: Ps) -> HitRun {
        let (from, until) = self.series.interval(done);
        HitRun { hit, total, from, until, count: 1 }
    }

    /// Books a run of hits.
    pub fn record_hits(&mut self, run: &HitRun) {
        let HitRun { hit, total, from, count, .. } = run;
        self.all.record_n(*total, *count);
        self.bytes = self.bytes.saturating_add(u64::from(hit.bytes).saturating_mul(*count));
        let hits = &mut self.hits[usize::from(hit.write)][usize::from(hit.device_hit)];
        hits.count += count;
        hits.queueing += hit.queueing.0 as u128 * *count as u128;
        self.series.record(*from, *total, hit.bytes, *count);
    }

    /// A request was done at `done`.
    pub fn record(&mut self, class: Class, split: &Split, bytes: u32, done: Ps) {
        let total = split.total();
        self.all.record(total);
        self.bytes = self.bytes.saturating_add(u64::from(bytes));
        let sums = &mut self.classes[class as usize];
        sums.count += 1;
        let parts = [
            split.queueing,
            split.lookup,
            split.walk_queueing,
            split.walk,
            split.page_request,
            split.pcie,
        ];
        for (sum, part) in sums.parts.iter_mut().zip(parts) {
            *sum += part.0 as u128;
        }
        self.series.record(done, total, bytes, 1);
    }

    /// Sums by class, hits included.
    fn sums(&self, times: &DmaTimes) -> [Sums; 6] {
        let mut classes = self.classes;
        for (write, hits) in self.hits.iter().enumerate() {
            for (device_hit, hits) in hits.iter().enumerate() {
                let (write, device_hit) = (write == 1, device_hit == 1);
                let class = if device_hit { Class::DeviceTlbHit } else { Class::Hit };
                let sums = &mut classes[class as usize];
                sums.count += hits.count;
                let [queueing, lookup, .., pcie] = &mut sums.parts;
                *queueing += hits.queueing;
                *lookup += hits.count as u128 * times.lookups(device_hit).0 as u128;
                *pcie += hits.count as u128 * times.pcie(write, device_hit).0 as u128;
            }
        }
        classes
    }

    /// The classes that occurred.
    pub fn classes(&self, times: &DmaTimes) -> Vec<ClassTime> {
        let sums = self.sums(times);
        let occurred = NAMES.iter().zip(&sums).filter(|(_, s)| s.count > 0);
        occurred
            .map(|(name, s)| {
                let mean = |ps: u128| ps as f64 / s.count as f64 / 1000.0;
                let [queueing, lookup, walk_queueing, walk, page_request, pcie] = s.parts.map(mean);
                ClassTime {
                    class: (*name).into(),
                    count: s.count,
                    mean_ns: mean(s.parts.iter().sum()),
                    queueing_ns: queueing,
                    lookup_ns: lookup,
                    walk_queueing_ns: walk_queueing,
                    walk_ns: walk,
                    page_request_ns: page_request,
                    pcie_ns: pcie,
                }
            })
            .collect()
    }

    /// Requests per interval, in intervals at least as long as those of
    /// `queues`; the run ended at `end`.
    pub fn series(&mut self, queues: &QueueSeries, last: &Areas, end: Ps) -> TimingSeries {
        self.series.result(queues, last, end)
    }

    /// Forgets everything; the series starts at `start`.
    pub fn restart(&mut self, start: Ps) {
        *self = DmaStats::default();
        self.series = Series::starting(start);
    }
}

/// The summary of a distribution.
pub fn summary(latencies: &Latencies) -> LatencySummary {
    let (count, mean, max) =
        (latencies.count(), latencies.mean_ns().unwrap_or(0.0), latencies.max().ns());
    let h = latencies.histogram();
    // A percentile is the end of a bucket, at most 0.1 % beyond the maximum.
    let at = |percent: f64| h.value_at_quantile(percent / 100.0).min(max);
    LatencySummary {
        count,
        mean_ns: mean,
        p50_ns: at(50.0),
        p90_ns: at(90.0),
        p99_ns: at(99.0),
        p99_9_ns: at(99.9),
        p99_99_ns: at(99.99),
        max_ns: max,
    }
}

//! What the page about a trace shows.

use crate::document::{TraceSection, Version};

/// A trace and how its accesses and maps lie together.
#[derive(Clone, Debug, Default)]
pub struct TraceInfo {
    /// The program.
    pub version: Version,
    /// The trace and where it comes from.
    pub trace: TraceSection,
    /// What made it up, or changed it after it was recorded: a sentence each.
    pub made_up: Vec<String>,
    /// Nothing of it was recorded.
    pub all_made_up: bool,
    /// Accesses.
    pub accesses: u64,
    /// Devices that access.
    pub devices: u64,
    /// Domains.
    pub domains: u64,
    /// The trace in parts of equally many events.
    pub working_set: Vec<Part>,
    /// Reuse distances at two granularities.
    pub reuse: [Reuse; 2],
    /// From a map to the unmap that ends it, in ns of the recorded clock.
    pub lifetime_ns: Distribution,
    /// Accesses of one device without one of another between them.
    pub bursts: Distribution,
}

/// A part of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Time of its first event in ns.
    pub time_ns: u64,
    /// Accesses.
    pub accesses: u64,
    /// Distinct 4 KiB pages accessed.
    pub pages: u64,
}

/// Distinct units from one access of a unit to the next, itself included.
#[derive(Clone, Debug, Default)]
pub struct Reuse {
    /// What the unit is: `4 KiB pages`.
    pub unit: String,
    /// Accesses that are the first of their unit; not among the distances.
    pub firsts: u64,
    /// The others.
    pub distances: Distribution,
}

/// A distribution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Number of values.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Largest value.
    pub max: u64,
    /// Values by class: the largest of the class, a power of two (2^64 - 1 for
    /// the last), and their number; ascending, without empty classes. A class
    /// begins above the half of its largest value.
    pub classes: Vec<(u64, u64)>,
}

/// Index of a class: log2 of its largest value.
fn index(up_to: u64) -> u32 {
    if up_to == u64::MAX { 64 } else { up_to.ilog2() }
}

/// Largest value of a class.
pub(super) fn up_to(index: u32) -> u64 {
    1u64.checked_shl(index).unwrap_or(u64::MAX)
}

impl Distribution {
    /// Every class from the first to the last, empty ones too: index, values.
    pub(super) fn filled(&self) -> Vec<(u32, u64)> {
        let (Some(first), Some(last)) = (self.classes.first(), self.classes.last()) else {
            return Vec::new();
        };
        let count = |i| self.classes.iter().find(|c| index(c.0) == i).map_or(0, |c| c.1);
        (index(first.0)..=index(last.0)).map(|i| (i, count(i))).collect()
    }

    /// Index of the last class, if there is one.
    pub(super) fn last(&self) -> Option<u32> {
        self.classes.last().map(|c| index(c.0))
    }
}

impl Reuse {
    /// Shares in % of all accesses whose distance is at most 1, 2, 4, ...,
    /// 2^last.
    pub(super) fn shares(&self, last: u32) -> Vec<f64> {
        let all = (self.distances.count + self.firsts).max(1) as f64;
        let upto = |i| -> u64 {
            self.distances.classes.iter().filter(|c| index(c.0) <= i).map(|c| c.1).sum()
        };
        (0..=last).map(|i| 100.0 * upto(i) as f64 / all).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_filled_and_shares_count_first_accesses() {
        let classes = vec![(2, 3), (16, 1)];
        let distances = Distribution { count: 4, classes, ..Distribution::default() };
        assert_eq!(distances.filled(), [(1, 3), (2, 0), (3, 0), (4, 1)]);
        let reuse = Reuse { unit: String::new(), firsts: 4, distances };
        assert_eq!(reuse.shares(4), [0.0, 37.5, 37.5, 37.5, 50.0]);
        assert_eq!((index(u64::MAX), up_to(64), up_to(3)), (64, u64::MAX, 8));
    }
}

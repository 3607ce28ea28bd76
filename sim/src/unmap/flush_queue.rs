//! The flush queue of lazy unmapping: IOVAs that were unmapped and wait for an
//! invalidation.

use std::collections::BTreeMap;
use std::ops::Range;

/// The flush queue of one domain, as Linux's (`drivers/iommu/dma-iommu.c`,
/// `queue_iova`): a ring per CPU, or one for all. An unmap puts its range in.
/// If its ring is full, or when the timer that the first entry starts runs
/// out, one domain-selective invalidation releases what waits in all rings.
///
/// Linux's other rings notice a flush at their next use; here they are
/// released at once, which makes an IOVA free a little earlier.
#[derive(Clone, Debug)]
pub(super) struct FlushQueue {
    /// Most ranges that wait in a ring, at least 1.
    entries: usize,
    timeout_ns: u64,
    /// Ranges that wait, by ring.
    rings: Vec<usize>,
    /// The ranges by their start, in bytes; disjoint.
    waiting: BTreeMap<u64, u64>,
    /// When the timer fires, and the CPU that started it.
    timer: Option<(u64, i32)>,
}

impl FlushQueue {
    /// Empty. `entries` is at least 1, `timeout_ns` counts from the first range
    /// that waits.
    pub fn new(entries: usize, timeout_ns: u64) -> FlushQueue {
        FlushQueue { entries, timeout_ns, rings: Vec::new(), waiting: BTreeMap::new(), timer: None }
    }

    /// True if no range fits into a ring before the queue is drained.
    pub fn is_full(&self, ring: usize) -> bool {
        self.rings.get(ring).is_some_and(|waiting| *waiting >= self.entries)
    }

    /// An unmap of a range (bytes) by `cpu` at `now_ns`. The caller has drained
    /// a queue that [`is_full`](FlushQueue::is_full).
    pub fn push(&mut self, ring: usize, range: Range<u64>, now_ns: u64, cpu: i32) {
        if self.rings.len() <= ring {
            self.rings.resize(ring + 1, 0);
        }
        self.rings[ring] += 1;
        self.wait(range);
        self.timer.get_or_insert((now_ns.saturating_add(self.timeout_ns), cpu));
    }

    /// Adds a range to those that wait. It may overlap one only if a page was
    /// unmapped twice; then both wait as one.
    fn wait(&mut self, mut range: Range<u64>) {
        while let Some((&start, &end)) = self.waiting.range(..range.end).next_back()
            && end > range.start
        {
            self.waiting.remove(&start);
            range = start.min(range.start)..end.max(range.end);
        }
        if !range.is_empty() {
            self.waiting.insert(range.start, range.end);
        }
    }

    /// When the timer fires (ns) and on which CPU, if it runs.
    pub fn timer(&self) -> Option<(u64, i32)> {
        self.timer
    }

    /// True if some byte of the range waits.
    pub fn waits(&self, range: Range<u64>) -> bool {
        let before = self.waiting.range(..range.end).next_back();
        before.is_some_and(|(_, end)| *end > range.start)
    }

    /// Everything was invalidated: releases all ranges.
    pub fn drain(&mut self) -> impl Iterator<Item = Range<u64>> + use<> {
        self.rings.fill(0);
        self.timer = None;
        std::mem::take(&mut self.waiting).into_iter().map(|(start, end)| start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT_NS: u64 = 10_000_000;

    fn page(n: u64) -> Range<u64> {
        n << 12..(n + 1) << 12
    }

    #[test]
    fn it_drains_when_a_ring_is_full() {
        let mut q = FlushQueue::new(255, TIMEOUT_NS);
        let mut drains = Vec::new();
        for n in 0..1000u64 {
            if q.is_full(0) {
                assert_eq!(q.drain().count(), 255);
                drains.push(n);
            }
            q.push(0, page(n), n, 0);
        }
        assert_eq!(drains, [255, 510, 765]);
        assert!(!q.is_full(1), "another CPU's ring");
    }

    #[test]
    fn its_timer_is_that_of_the_first_entry() {
        let mut q = FlushQueue::new(255, TIMEOUT_NS);
        assert_eq!(q.timer(), None);
        q.push(0, page(1), 100, 3);
        q.push(1, page(2), 5_000_000, 4);
        assert_eq!(q.timer(), Some((TIMEOUT_NS + 100, 3)));
        assert_eq!(q.drain().collect::<Vec<_>>(), [page(1), page(2)]);
        assert_eq!((q.timer(), q.waits(0..u64::MAX)), (None, false));
        q.push(0, page(1), 6_000_000, 5);
        assert_eq!(q.timer(), Some((TIMEOUT_NS + 6_000_000, 5)), "a drain stops the timer");
    }

    #[test]
    fn it_knows_what_waits() {
        let mut q = FlushQueue::new(255, TIMEOUT_NS);
        q.push(0, page(4).start..page(7).end, 0, 0);
        q.push(0, page(9), 0, 0);
        let waits: Vec<u64> = (0..12).filter(|n| q.waits(page(*n))).collect();
        assert_eq!(waits, [4, 5, 6, 7, 9]);
        assert!(q.waits(page(0).start..page(4).start + 1));
        assert!(!q.waits(page(0).start..page(4).start));
        // Unmapped twice.
        q.push(1, page(5), 0, 0);
        q.push(1, page(6).start..page(9).end, 0, 0);
        assert!((4..10).all(|n| q.waits(page(n))));
        let drained: Vec<_> = q.drain().collect();
        assert_eq!(drained, vec![page(4).start..page(9).end]);
        assert!(!q.waits(0..u64::MAX));
    }
}

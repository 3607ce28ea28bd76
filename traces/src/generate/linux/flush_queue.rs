//! The flush queue of lazy unmapping.
//!
//! After drivers/iommu/dma-iommu.c (R): a ring of entries per CPU; when it is
//! full, or a timer after the first entry, one flush makes all entries of all
//! rings free. Rings other than the one that flushed notice at their next use.

use std::collections::VecDeque;

/// One CPU's ring.
#[derive(Clone, Debug, Default)]
struct Ring {
    /// First page, pages, flushes begun when it was queued.
    entries: VecDeque<(u64, u64, u64)>,
}

/// Ranges unmapped whose IOVAs must not be used again yet.
#[derive(Clone, Debug)]
pub(super) struct FlushQueue {
    rings: Vec<Ring>,
    /// A ring takes one entry less than its size.
    most: usize,
    timeout_ns: u64,
    /// Flushes done.
    flushes: u64,
    /// When the timer fires, if it runs.
    due_ns: Option<u64>,
}

impl FlushQueue {
    /// Rings of `entries` for `cpus` CPUs (1: one for all of them).
    pub fn new(cpus: usize, entries: usize, timeout_ns: u64) -> FlushQueue {
        let rings = vec![Ring::default(); cpus];
        FlushQueue { rings, most: entries - 1, timeout_ns, flushes: 0, due_ns: None }
    }

    /// Queues a range on `cpu`. True if a flush was needed first. Ranges that
    /// became free go to `free`.
    pub fn push(
        &mut self,
        now_ns: u64,
        cpu: usize,
        page: u64,
        pages: u64,
        free: &mut impl FnMut(u64, u64),
    ) -> bool {
        let cpu = cpu % self.rings.len();
        self.reap(cpu, free);
        let full = self.rings[cpu].entries.len() >= self.most;
        if full {
            self.flushes += 1;
            self.reap(cpu, free);
        }
        self.rings[cpu].entries.push_back((page, pages, self.flushes));
        self.due_ns.get_or_insert(now_ns + self.timeout_ns);
        full
    }

    /// When the timer fires next.
    pub fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    /// The timer: everything that is queued becomes free.
    pub fn expire(&mut self, free: &mut impl FnMut(u64, u64)) {
        self.due_ns = None;
        self.flushes += 1;
        for cpu in 0..self.rings.len() {
            self.reap(cpu, free);
        }
    }

    fn reap(&mut self, cpu: usize, free: &mut impl FnMut(u64, u64)) {
        let entries = &mut self.rings[cpu].entries;
        while let Some(&(page, pages, _)) = entries.front().filter(|e| e.2 < self.flushes) {
            free(page, pages);
            entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_flushes_all_of_them() {
        let mut queue = FlushQueue::new(2, 4, 10);
        let mut freed = Vec::new();
        let mut push = |cpu, page| queue.push(0, cpu, page, 1, &mut |p, _| freed.push(p));
        // Three of four entries fit.
        assert!(!push(0, 1) && !push(0, 2) && !push(0, 3) && !push(1, 9));
        assert!(push(0, 4));
        // The other ring gives its range back at its next use only.
        assert!(!push(1, 10));
        assert_eq!(freed, [1, 2, 3, 9]);
    }

    #[test]
    fn the_timer_frees_everything_and_starts_anew() {
        let mut queue = FlushQueue::new(2, 256, 10);
        let mut freed = Vec::new();
        queue.push(5, 0, 1, 1, &mut |_, _| panic!("nothing was flushed"));
        queue.push(7, 1, 2, 1, &mut |_, _| panic!("nothing was flushed"));
        assert_eq!(queue.due_ns(), Some(15));
        queue.expire(&mut |p, n| freed.push((p, n)));
        assert_eq!((freed, queue.due_ns()), (vec![(1, 1), (2, 1)], None));
    }
}

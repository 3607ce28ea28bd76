//! IOVA ranges in use, and the search for a free one.
//!
//! Linux keeps each range as a node of a red-black tree and searches downwards
//! from a cached node. What it finds depends only on the gaps and on where the
//! search begins, so this keeps runs of ranges that touch each other instead:
//! a search crosses a full ring of 4 KiB ranges in one step. A cached node is
//! known by its first page. `model.rs` has the search node by node.

use std::collections::BTreeMap;

/// Pages below 4 GiB.
pub(super) const PAGES_32: u64 = 1 << 20;
/// First page of the anchor, the node that stands above all others.
const ANCHOR: u64 = u64::MAX;

/// Ranges in use; page numbers are those of 4 KiB pages.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// First page to last page; runs neither overlap nor touch.
    runs: BTreeMap<u64, u64>,
    /// First page that may be handed out.
    start: u64,
    /// First pages of the nodes at which searches begin: below 4 GiB, above.
    cached_32: u64,
    cached: u64,
    /// A search of this many pages below 4 GiB has failed since the last free.
    failed_32: u64,
}

impl Tree {
    /// An empty space that begins at page `start`, at least 1.
    pub fn new(start: u64) -> Tree {
        let runs = BTreeMap::new();
        Tree { runs, start, cached_32: ANCHOR, cached: ANCHOR, failed_32: PAGES_32 }
    }

    /// Takes `[first, first + pages)` out for ever.
    pub fn reserve(&mut self, first: u64, pages: u64) {
        for page in first..first + pages {
            if !self.contains(page) {
                self.insert(page, 1);
            }
        }
    }

    /// Hands out `pages` pages below `limit` (exclusive), aligned to their
    /// number rounded up to a power of two.
    pub fn alloc(&mut self, pages: u64, limit: u64) -> Option<u64> {
        let low = limit <= PAGES_32;
        if low && pages >= self.failed_32 {
            return None;
        }
        let from = if low { self.cached_32 } else { self.cached };
        // The second search covers what the first has skipped.
        let found = self.search(pages, limit.min(from), self.start).or_else(|| {
            let above = self.last_of(from).wrapping_add(1);
            (above < limit).then(|| self.search(pages, limit, above.max(self.start)))?
        });
        let Some(first) = found else {
            self.failed_32 = pages;
            return None;
        };
        self.insert(first, pages);
        *(if first + pages <= PAGES_32 { &mut self.cached_32 } else { &mut self.cached }) = first;
        Some(first)
    }

    /// Gives `[first, first + pages)` back.
    pub fn free(&mut self, first: u64, pages: u64) {
        let last = first + pages - 1;
        let next = self.next_node(last);
        if first == self.cached_32 || (last < PAGES_32 && first >= self.cached_32) {
            self.cached_32 = next;
        }
        if first < PAGES_32 {
            self.failed_32 = PAGES_32;
        }
        if first >= self.cached {
            self.cached = next;
        }
        let Some((&run, &end)) = self.runs.range(..=first).next_back().filter(|r| *r.1 >= last)
        else {
            debug_assert!(false, "page {first:#x} is not in use");
            return;
        };
        if run == first {
            self.runs.remove(&run);
        } else {
            self.runs.insert(run, first - 1);
        }
        if last < end {
            self.runs.insert(last + 1, end);
        }
    }

    /// The highest fit in `[low, high)`.
    fn search(&self, pages: u64, high: u64, low: u64) -> Option<u64> {
        let align = !(pages.next_power_of_two() - 1);
        let mut high = high;
        // A run that begins below `high` may reach beyond it.
        for (&run, &end) in self.runs.range(..high).rev() {
            let fit = high.checked_sub(pages)? & align;
            if fit < low {
                return None;
            }
            if fit > end {
                return Some(fit);
            }
            high = high.min(run);
        }
        let fit = high.checked_sub(pages)? & align;
        (fit >= low).then_some(fit)
    }

    fn contains(&self, page: u64) -> bool {
        self.runs.range(..=page).next_back().is_some_and(|r| *r.1 >= page)
    }

    /// First page of the first node behind page `last`.
    fn next_node(&self, last: u64) -> u64 {
        if self.contains(last + 1) {
            return last + 1;
        }
        self.runs.range(last + 1..).next().map_or(ANCHOR, |r| *r.0)
    }

    /// Last page of the node that begins at `first`, for the decision where a
    /// second search ends. The run's end is as good: what lies between is full.
    fn last_of(&self, first: u64) -> u64 {
        self.runs.range(..=first).next_back().filter(|r| *r.1 >= first).map_or(ANCHOR, |r| *r.1)
    }

    fn insert(&mut self, first: u64, pages: u64) {
        let mut last = first + pages - 1;
        if let Some(end) = self.runs.remove(&(last + 1)) {
            last = end;
        }
        match self.runs.range_mut(..first).next_back() {
            Some((_, end)) if *end + 1 == first => *end = last,
            _ => {
                self.runs.insert(first, last);
            }
        }
    }
}

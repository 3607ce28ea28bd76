//! The pages that were mapped after the one that missed.

use std::collections::{BTreeMap, VecDeque};

use super::Policy;
use crate::events::PageSize;

/// Maps remembered, over all spaces.
const REMEMBERED: usize = 1 << 14;
const PAGE: u64 = PageSize::Size4K.bytes();

/// Prefetching along a ring: a driver maps buffers in the order in which it
/// puts them into the device's ring, and the device uses them in this order.
/// After a miss on a page, those mapped behind it: first the rest of its own
/// buffer, then the buffers mapped next in the same space.
///
/// Hardware would read the descriptors ahead instead, as rIOMMU (ASPLOS'15)
/// does with its flat tables; traces have no descriptors, but the order of maps
/// is theirs. Buffers that stay mapped and are used again in another order are
/// not met.
#[derive(Debug, Default)]
pub struct RingAware {
    /// By space: buffers by their start.
    spaces: Vec<BTreeMap<u64, Buffer>>,
    /// Buffers in the order in which they were mapped, by number.
    order: VecDeque<(u32, u64)>,
    /// Number of the first of these.
    first: u64,
}

#[derive(Clone, Copy, Debug)]
struct Buffer {
    end: u64,
    number: u64,
}

impl RingAware {
    /// The buffer that holds `addr`.
    fn find(&self, space: u32, addr: u64) -> Option<(u64, Buffer)> {
        let (start, buffer) = self.spaces.get(space as usize)?.range(..=addr).next_back()?;
        (addr < buffer.end).then_some((*start, *buffer))
    }

    fn forget_oldest(&mut self) {
        if let Some((space, start)) = self.order.pop_front() {
            let buffers = &mut self.spaces[space as usize];
            if buffers.get(&start).is_some_and(|b| b.number == self.first) {
                buffers.remove(&start);
            }
            self.first += 1;
        }
    }
}

impl Policy for RingAware {
    fn missed(&mut self, space: u32, addr: u64, _: PageSize, pages: usize, wanted: &mut Vec<u64>) {
        let Some((_, own)) = self.find(space, addr) else { return };
        let most = wanted.len() + pages;
        let mut add = |from: u64, end: u64| {
            let mut page = from;
            while page < end && wanted.len() < most {
                wanted.push(page);
                page += PAGE;
            }
            wanted.len() < most
        };
        if !add((addr & !(PAGE - 1)).saturating_add(PAGE), own.end) {
            return;
        }
        // Buffers of other spaces and those unmapped since lie in between.
        let from = (own.number + 1 - self.first) as usize;
        for (number, (s, start)) in (own.number + 1..).zip(self.order.range(from..)) {
            let buffer = self.spaces[space as usize].get(start);
            let alive = buffer.filter(|b| *s == space && b.number == number);
            if alive.is_some_and(|b| !add(*start, b.end)) || number > own.number + 4 * most as u64 {
                return;
            }
        }
    }

    fn mapped(&mut self, space: u32, start: u64, end: u64) {
        if self.order.len() == REMEMBERED {
            self.forget_oldest();
        }
        if self.spaces.len() <= space as usize {
            self.spaces.resize_with(space as usize + 1, BTreeMap::new);
        }
        let number = self.first + self.order.len() as u64;
        self.order.push_back((space, start));
        self.spaces[space as usize].insert(start, Buffer { end, number });
    }

    fn unmapped(&mut self, space: u32, start: u64, end: u64) {
        let Some(buffers) = self.spaces.get_mut(space as usize) else { return };
        if start >= end {
            return;
        }
        // What begins before the range keeps its part before it.
        if let Some((_, before)) = buffers.range_mut(..start).next_back()
            && before.end > start
        {
            before.end = start;
        }
        while let Some((&at, _)) = buffers.range(start..end).next() {
            buffers.remove(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: u64 = 0x10_0000;

    fn wanted(ring: &mut RingAware, space: u32, page: u64, pages: usize) -> Vec<u64> {
        let mut wanted = Vec::new();
        let addr = BASE + page * PAGE + 5;
        ring.missed(space, addr, PageSize::Size4K, pages, &mut wanted);
        wanted.into_iter().map(|addr| (addr - BASE) / PAGE).collect()
    }

    fn map(ring: &mut RingAware, space: u32, first: u64, end: u64) {
        ring.mapped(space, BASE + first * PAGE, BASE + end * PAGE);
    }

    #[test]
    fn buffers_follow_in_the_order_of_their_maps() {
        let mut ring = RingAware::default();
        map(&mut ring, 0, 9, 12);
        map(&mut ring, 1, 9, 10);
        map(&mut ring, 0, 7, 9);
        map(&mut ring, 0, 2, 3);
        assert_eq!(wanted(&mut ring, 0, 10, 8), [11, 7, 8, 2]);
        assert_eq!(wanted(&mut ring, 0, 10, 2), [11, 7]);
        ring.unmapped(0, BASE + 7 * PAGE, BASE + 8 * PAGE);
        assert_eq!(wanted(&mut ring, 0, 10, 8), [11, 2], "a buffer goes with its first page");
        assert_eq!(wanted(&mut ring, 1, 9, 8), [0; 0]);
        assert_eq!(wanted(&mut ring, 0, 40, 8), [0; 0], "never mapped");
    }

    #[test]
    fn what_is_remembered_is_limited() {
        let mut ring = RingAware::default();
        (0..3 * REMEMBERED as u64).for_each(|page| map(&mut ring, 0, page, page + 1));
        assert_eq!(ring.order.len(), REMEMBERED);
        assert_eq!(ring.spaces[0].len(), REMEMBERED);
        assert_eq!(wanted(&mut ring, 0, 5, 1), [0; 0]);
        let last = 3 * REMEMBERED as u64 - 2;
        assert_eq!(wanted(&mut ring, 0, last, 3), [last + 1]);
    }

    proptest! {
        /// Only pages that are mapped, each once, never the one that missed.
        #[test]
        fn it_names_mapped_pages_only(
            steps in prop::collection::vec((0u32..2, 0u64..40, 1u64..6, any::<bool>()), 1..60),
            asked in 0u64..40,
        ) {
            let mut ring = RingAware::default();
            let mut pages = std::collections::BTreeSet::new();
            for (space, first, n, unmap) in steps {
                let range = first..first + n;
                if unmap {
                    ring.unmapped(space, BASE + first * PAGE, BASE + (first + n) * PAGE);
                    range.for_each(|p| { pages.remove(&(space, p)); });
                } else if range.clone().all(|p| !pages.contains(&(space, p))) {
                    map(&mut ring, space, first, first + n);
                    pages.extend(range.map(|p| (space, p)));
                }
            }
            let mut found = wanted(&mut ring, 0, asked, 64);
            prop_assert!(found.iter().all(|p| pages.contains(&(0, *p)) && *p != asked));
            let n = found.len();
            found.sort_unstable();
            found.dedup();
            prop_assert_eq!(found.len(), n);
        }
    }
}

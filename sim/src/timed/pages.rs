//! What pages wait for: the last map before an access, the last access before
//! an unmap.

use rustc_hash::FxHashMap;

use crate::time::Ps;

/// When something is done: a time, or an operation that is not done yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Dep(u64);

impl Dep {
    /// Since the start.
    pub const DONE: Dep = Dep(0);
    const OP: u64 = 1 << 63;

    /// Done at a time.
    #[inline]
    pub fn at(time: Ps) -> Dep {
        Dep(time.0.min(!Self::OP))
    }

    /// Done with operation number `seq`.
    #[inline]
    pub fn op(seq: u64) -> Dep {
        Dep(seq | Self::OP)
    }

    /// The time, or the operation.
    #[inline]
    pub fn get(self) -> Result<Ps, u64> {
        if self.0 & Self::OP == 0 { Ok(Ps(self.0)) } else { Err(self.0 & !Self::OP) }
    }
}

const SHIFT: u32 = 12;
/// 256 KiB: 1 KiB of state, so that the few pages of each of many tenants lie
/// close together.
const REGION_SHIFT: u32 = 18;
const PAGES: usize = 1 << (REGION_SHIFT - SHIFT);
/// Bits of a region's number inside its space.
const REGION_BITS: u32 = 57 - REGION_SHIFT;
/// One region of each of many tenants.
const MEMO: usize = 2048;

#[derive(Clone, Copy)]
pub struct Page {
    /// The latest map (or the invalidation that completes it).
    pub ready: Dep,
    /// The latest access.
    pub access: Dep,
}

/// 256 KiB of a space: one entry for all, or one per page.
struct Region {
    all: Dep,
    pages: Option<Box<[Page; PAGES]>>,
}

impl Region {
    #[inline]
    fn pages(&mut self) -> &mut [Page; PAGES] {
        let page = Page { ready: self.all, access: Dep::DONE };
        self.pages.get_or_insert_with(|| Box::new([page; PAGES]))
    }
}

/// Where a page's state is kept.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    region: u32,
    page: u32,
}

/// The state of every page that was mapped or accessed.
///
/// 1 KiB per 256 KiB of address space in which single pages are used.
pub struct Pages {
    index: FxHashMap<u64, u32>,
    regions: Vec<Region>,
    /// Recently used regions, so that most accesses need no hashing.
    memo: Box<[(u64, u32); MEMO]>,
}

impl Default for Pages {
    fn default() -> Self {
        Pages {
            index: FxHashMap::default(),
            regions: Vec::new(),
            memo: Box::new([(u64::MAX, 0); MEMO]),
        }
    }
}

/// Most regions that one map or unmap marks (64 GiB).
const MOST_REGIONS: u64 = 1 << 18;

impl Pages {
    #[inline]
    fn number(space: u32, addr: u64) -> u64 {
        // 57-bit addresses: 39 bits of region, 25 bits of space.
        (addr >> REGION_SHIFT) & ((1 << REGION_BITS) - 1) | (u64::from(space) << REGION_BITS)
    }

    #[inline]
    fn find(&mut self, number: u64) -> Option<u32> {
        let at = (number ^ (number >> REGION_BITS).wrapping_mul(0x9e37)) as usize % MEMO;
        if self.memo[at].0 == number {
            return Some(self.memo[at].1);
        }
        let region = *self.index.get(&number)?;
        self.memo[at] = (number, region);
        Some(region)
    }

    #[cold]
    fn insert(&mut self, number: u64) -> u32 {
        self.regions.push(Region { all: Dep::DONE, pages: None });
        let at = self.regions.len() as u32 - 1;
        self.index.insert(number, at);
        at
    }

    /// The place of the page of `addr`, made if it is new.
    #[inline]
    pub fn locate(&mut self, space: u32, addr: u64) -> Place {
        let number = Self::number(space, addr);
        let region = match self.find(number) {
            Some(at) => at,
            None => self.insert(number),
        };
        Place { region, page: (addr >> SHIFT) as u32 % PAGES as u32 }
    }

    /// The page at a place.
    #[inline]
    pub fn page(&mut self, at: Place) -> &mut Page {
        &mut self.regions[at.region as usize].pages()[at.page as usize % PAGES]
    }

    /// `[start, end)` is ready with `ready`.
    pub fn mapped(&mut self, space: u32, start: u64, end: u64, ready: Dep) {
        self.each_region(start, end, |pages, region_start, from, to| {
            let at = pages.locate(space, region_start).region;
            let region = &mut pages.regions[at as usize];
            if from == 0 && to == PAGES && region.pages.is_none() {
                region.all = ready;
            } else {
                for page in &mut region.pages()[from..to] {
                    page.ready = ready;
                }
            }
        });
    }

    /// Calls `f` with the latest access of every page of `[start, end)` that
    /// was accessed.
    pub fn accesses(&mut self, space: u32, start: u64, end: u64, mut f: impl FnMut(Dep)) {
        self.each_region(start, end, |pages, region_start, from, to| {
            let Some(at) = pages.find(Self::number(space, region_start)) else { return };
            if let Some(region) = &pages.regions[at as usize].pages {
                region[from..to]
                    .iter()
                    .map(|p| p.access)
                    .filter(|a| *a != Dep::DONE)
                    .for_each(&mut f);
            }
        });
    }

    fn each_region(
        &mut self,
        start: u64,
        end: u64,
        mut f: impl FnMut(&mut Pages, u64, usize, usize),
    ) {
        if start >= end {
            return;
        }
        let (first, last) = (start >> REGION_SHIFT, (end - 1) >> REGION_SHIFT);
        for region in first..=last.min(first + MOST_REGIONS - 1) {
            let base = region << REGION_SHIFT;
            let from = (start.max(base) - base) >> SHIFT;
            let to = (end - base).min(1 << REGION_SHIFT).div_ceil(1 << SHIFT);
            f(self, base, from as usize, to as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    use proptest::prelude::*;

    proptest! {
        /// Against a map from page to state.
        #[test]
        fn pages_are_remembered_as_a_map_would(
            steps in prop::collection::vec((0u32..2, 0u64..1500, 1u64..1200, 0u8..3, 1u64..99), 0..60),
        ) {
            let mut pages = Pages::default();
            let mut ready: HashMap<(u32, u64), Dep> = HashMap::new();
            let mut access: HashMap<(u32, u64), Dep> = HashMap::new();
            for (space, page, n, what, time) in steps {
                let (start, end) = (page << 12, (page + n) << 12);
                let dep = Dep::at(Ps(time));
                match what {
                    0 => {
                        pages.mapped(space, start, end, dep);
                        ready.extend((page..page + n).map(|p| ((space, p), dep)));
                    }
                    1 => {
                        let at = pages.locate(space, start + 5);
                        pages.page(at).access = dep;
                        access.insert((space, page), dep);
                    }
                    _ => {
                        let mut found = Vec::new();
                        pages.accesses(space, start, end, |d| found.push(d));
                        let known = (page..page + n).filter_map(|p| access.get(&(space, p)));
                        prop_assert_eq!(found, known.copied().collect::<Vec<_>>());
                    }
                }
                for p in [page, page + n, page + n - 1] {
                    let expected = ready.get(&(space, p)).copied().unwrap_or(Dep::DONE);
                    let at = pages.locate(space, p << 12);
                    prop_assert_eq!(pages.page(at).ready, expected);
                }
            }
        }
    }
}

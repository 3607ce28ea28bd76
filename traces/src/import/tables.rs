//! The guest's tables as the events written so far imply them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Ranges kept at most, about 150 MB: a guest with 8 GiB mapped page by page.
const MAX_RANGES: usize = 1 << 21;
/// Recently used domains that are candidates for an event without one.
const MAX_CANDIDATES: usize = 64;

/// A run of pages mapped by one event, or what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Number of 4 KiB pages.
    pub(crate) pages: u64,
    /// Output page of the first one.
    pub(crate) out: u64,
    /// READ and WRITE bits.
    pub(crate) perm: u8,
    /// Not covered by an invalidation since it was mapped.
    pub(crate) fresh: bool,
    /// A device was seen to use it.
    pub(crate) used: bool,
}

/// A part of a range that an unmap removed, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) page: u64,
    pub(crate) pages: u64,
    pub(crate) out: u64,
}

/// Mapped pages of all domains.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    ranges: BTreeMap<(u32, u64), Range>,
    /// Domains, the one used last in front.
    recent: Vec<u32>,
    /// Ranges dropped because there were too many.
    pub(crate) forgotten: u64,
}

impl Tables {
    /// The mapping of `page`: first page of its range, and the range.
    pub(crate) fn range_of(&self, domain: u32, page: u64) -> Option<(u64, Range)> {
        let ((d, start), range) = self.ranges.range(..=(domain, page)).next_back()?;
        (*d == domain && page - start < range.pages).then_some((*start, *range))
    }

    /// Output page of `page`.
    pub(crate) fn lookup(&self, domain: u32, page: u64) -> Option<u64> {
        self.range_of(domain, page).map(|(start, r)| r.out + (page - start))
    }

    /// True if `page` is mapped to `out`; notes that a device used it.
    pub(crate) fn access(&mut self, domain: u32, page: u64, out: u64) -> bool {
        let Some((&(d, start), range)) = self.ranges.range_mut(..=(domain, page)).next_back()
        else {
            return false;
        };
        let right = d == domain && page - start < range.pages && range.out + (page - start) == out;
        range.used |= right;
        right
    }

    /// Ranges that touch `[page, page+pages)`, ascending, cut to it.
    pub(crate) fn within(
        &self,
        domain: u32,
        page: u64,
        pages: u64,
    ) -> impl Iterator<Item = (u64, Range)> {
        let end = page.saturating_add(pages);
        let first = self.range_of(domain, page).map_or(page, |(start, _)| start);
        self.ranges.range((domain, first)..(domain, end)).map(move |((_, start), r)| {
            let (from, to) = ((*start).max(page), (start + r.pages).min(end));
            (from, Range { pages: to - from, out: r.out + (from - start), ..*r })
        })
    }

    /// True if nothing is mapped in `[page, page+pages)`.
    pub(crate) fn is_free(&self, domain: u32, page: u64, pages: u64) -> bool {
        let last = page.saturating_add(pages.saturating_sub(1));
        self.ranges
            .range(..=(domain, last))
            .next_back()
            .is_none_or(|((d, start), r)| *d != domain || start + r.pages <= page)
    }

    /// Mapped pages of `[page, page+pages)`.
    pub(crate) fn live_pages(&self, domain: u32, page: u64, pages: u64) -> u64 {
        self.within(domain, page, pages).map(|(_, r)| r.pages).sum()
    }

    /// Removes what is mapped in `[page, page+pages)` and appends it to `out`.
    pub(crate) fn unmap(&mut self, domain: u32, page: u64, pages: u64, out: &mut Vec<Removed>) {
        self.used(domain);
        if let Entry::Occupied(e) = self.ranges.entry((domain, page))
            && e.get().pages == pages
        {
            out.push(Removed { page, pages, out: e.remove().out });
            return;
        }
        if self.is_free(domain, page, pages) {
            return;
        }
        let end = page.saturating_add(pages);
        // What is left of the last one.
        let mut rest = None;
        let mut remove = |start: u64, range: Range| {
            let stop = start + range.pages;
            let (a, b) = (start.max(page), stop.min(end));
            if b < stop {
                rest = Some((b, Range { pages: stop - b, out: range.out + (b - start), ..range }));
            }
            out.push(Removed { page: a, pages: b - a, out: range.out + (a - start) });
        };
        if let Some((&(d, start), range)) = self.ranges.range_mut(..(domain, page)).next_back()
            && d == domain
            && page - start < range.pages
        {
            remove(start, *range);
            range.pages = page - start;
        }
        let inside = (domain, page)..(domain, end);
        for ((_, start), range) in self.ranges.extract_if(inside, |_, _| true) {
            remove(start, range);
        }
        if let Some((page, range)) = rest {
            self.ranges.insert((domain, page), range);
        }
    }

    /// Maps `[page, page+pages)`, which must be free.
    pub(crate) fn map(&mut self, domain: u32, page: u64, range: Range) {
        if self.ranges.len() >= MAX_RANGES {
            self.ranges.pop_first();
            self.forgotten += 1;
        }
        self.ranges.insert((domain, page), range);
        self.used(domain);
    }

    /// Marks what is mapped in the pages as announced by an invalidation;
    /// tells whether all of it, and any, was new.
    pub(crate) fn announce(&mut self, domain: u32, page: u64, pages: u64) -> bool {
        if let Some(range) = self.ranges.get_mut(&(domain, page)).filter(|r| r.pages >= pages) {
            return std::mem::replace(&mut range.fresh, false);
        }
        if self.is_free(domain, page, pages) {
            return false;
        }
        let end = page.saturating_add(pages);
        let first = self.range_of(domain, page).map_or(page, |(start, _)| start);
        let mut any = false;
        let mut all = true;
        for (_, range) in self.ranges.range_mut((domain, first)..(domain, end)) {
            any = true;
            all &= range.fresh;
            range.fresh = false;
        }
        any && all
    }

    /// Everything mapped, for emptying; the tables are empty afterwards.
    pub(crate) fn take(&mut self) -> BTreeMap<(u32, u64), Range> {
        std::mem::take(&mut self.ranges)
    }

    /// Notes the use of a domain.
    pub(crate) fn used(&mut self, domain: u32) {
        if self.recent.first() == Some(&domain) {
            return;
        }
        if let Some(at) = self.recent.iter().position(|d| *d == domain) {
            self.recent[..=at].rotate_right(1);
        } else {
            self.recent.truncate(MAX_CANDIDATES - 1);
            self.recent.insert(0, domain);
        }
    }

    /// Domains used of late, the last one first.
    pub(crate) fn recent(&self) -> &[u32] {
        &self.recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(pages: u64, out: u64) -> Range {
        Range { pages, out, perm: 3, fresh: true, used: false }
    }

    proptest::proptest! {
        /// Against a map of single pages.
        #[test]
        fn pages_are_those_of_a_map(
            steps in proptest::collection::vec((0..2u32, 0..40u64, 1..12u64, 0..3u8), 1..60),
        ) {
            let mut t = Tables::default();
            let mut pages: BTreeMap<(u32, u64), (u64, bool)> = BTreeMap::new();
            for (i, (domain, page, n, what)) in steps.into_iter().enumerate() {
                let inside = (domain, page)..(domain, page + n);
                if what == 2 {
                    let fresh: Vec<bool> = pages.range(inside.clone()).map(|p| p.1.1).collect();
                    // All that it touches is announced, not only what it covers.
                    let touched: Vec<_> = t.within(domain, page, n).map(|(at, _)| {
                        let (start, r) = t.range_of(domain, at).unwrap();
                        start..start + r.pages
                    }).collect();
                    let all = !fresh.is_empty() && fresh.iter().all(|f| *f);
                    proptest::prop_assert_eq!(t.announce(domain, page, n), all);
                    for at in touched.into_iter().flatten() {
                        pages.get_mut(&(domain, at)).unwrap().1 = false;
                    }
                    continue;
                }
                let mut out = Vec::new();
                t.unmap(domain, page, n, &mut out);
                let removed: Vec<_> =
                    out.iter().flat_map(|r| (0..r.pages).map(move |i| (r.page + i, r.out + i))).collect();
                let wanted: Vec<_> = pages.range(inside.clone()).map(|(k, v)| (k.1, v.0)).collect();
                proptest::prop_assert_eq!(removed, wanted);
                pages.retain(|k, _| !inside.contains(k));
                if what == 1 {
                    let first = 1000 * i as u64;
                    t.map(domain, page, range(n, first));
                    pages.extend((0..n).map(|i| ((domain, page + i), (first + i, true))));
                }
                for d in 0..2 {
                    for p in 0..52 {
                        proptest::prop_assert_eq!(t.lookup(d, p), pages.get(&(d, p)).map(|v| v.0));
                    }
                }
            }
        }
    }

    #[test]
    fn split_and_rejoin() {
        let mut t = Tables::default();
        t.map(1, 10, range(10, 100));
        t.map(2, 12, range(1, 500));
        assert_eq!(t.lookup(1, 19), Some(109));
        assert_eq!(t.lookup(1, 20), None);
        assert_eq!(t.lookup(2, 10), None);
        let mut out = Vec::new();
        t.unmap(1, 12, 3, &mut out);
        assert_eq!(out, [Removed { page: 12, pages: 3, out: 102 }]);
        assert_eq!(
            (t.lookup(1, 11), t.lookup(1, 12), t.lookup(1, 15)),
            (Some(101), None, Some(105))
        );
        assert_eq!(t.live_pages(1, 0, 100), 7);
        assert_eq!(
            t.within(1, 11, 6).map(|(p, r)| (p, r.pages, r.out)).collect::<Vec<_>>(),
            [(11, 1, 101), (15, 2, 105)]
        );
        out.clear();
        t.unmap(1, 0, u64::MAX, &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(t.lookup(2, 12), Some(500));
        assert_eq!(t.recent(), [1, 2]);
    }
}

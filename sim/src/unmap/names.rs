//! Where mappings are if their recorded IOVA still waits in the flush queue.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::events::{PAGE_MASK, PAGE_SIZE};

/// Where a recorded range is now.
#[derive(Clone, Copy, Debug)]
struct Given {
    /// Its end, in bytes.
    end: u64,
    /// Its present start.
    to: u64,
    /// Not unmapped yet.
    live: bool,
}

/// The mappings of one domain, and where they are.
///
/// A strict recording uses an IOVA again at once, because its allocator had it
/// back; under lazy unmapping it would have handed out another one. Such a
/// mapping is moved to an arena behind the recording's addresses: to the lowest
/// place that is free, aligned to the power of two of pages around it as
/// Linux's IOVAs are. A map that goes on where the one before ended, as those
/// of a scatter list do, goes on there, too.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// By the start of the recorded range; disjoint.
    given: BTreeMap<u64, Given>,
    /// Those that are not at their recorded IOVAs.
    moved: usize,
    /// What is free of the arena, in bytes: the end by the start; apart.
    free: BTreeMap<u64, u64>,
}

impl Names {
    /// All IOVAs are as recorded; others will come from `arena` (bytes).
    pub fn new(arena: Range<u64>) -> Names {
        let free = BTreeMap::from([(arena.start, arena.end)]);
        Names { given: BTreeMap::new(), moved: 0, free }
    }

    /// The recorded range is mapped: at other IOVAs if it is to be `moved`,
    /// which begin at the returned one. `None`: the arena is full. IOVAs of
    /// mappings that it replaces and does not itself lie over go to
    /// `replaced`.
    pub fn map(
        &mut self,
        range: Range<u64>,
        moved: bool,
        mut replaced: impl FnMut(Range<u64>),
    ) -> Option<u64> {
        if range.is_empty() {
            return Some(range.start);
        }
        let to = if moved { self.allocate(&range)? } else { range.start };
        self.take(range.clone(), |start, given| {
            if given.live && (moved || given.to != start) {
                replaced(given.to..given.to + (given.end - start));
            }
        });
        self.put(range.start, Given { end: range.end, to, live: true });
        Some(to)
    }

    /// A free place for a recorded range.
    fn allocate(&mut self, range: &Range<u64>) -> Option<u64> {
        let offset = range.start & PAGE_MASK;
        let size = (offset + (range.end - range.start)).checked_next_multiple_of(PAGE_SIZE)?;
        let alignment = (size / PAGE_SIZE).checked_next_power_of_two()?.checked_mul(PAGE_SIZE)?;
        // Where the mapping right before it ends, if that was moved.
        let before = self.given.range(..range.start).next_back();
        let next = before.and_then(|(start, given)| {
            let goes_on = given.live && given.to != *start && given.end == range.start;
            goes_on.then(|| given.to + (given.end - start))
        });
        let fits = |place: u64, end: u64| place.checked_add(size).is_some_and(|e| e <= end);
        let next = next.filter(|_| offset == 0).and_then(|place| {
            let (start, end) = self.free.range(..=place).next_back()?;
            fits(place, *end).then_some((*start, place))
        });
        let (start, place) = next.or_else(|| {
            self.free.iter().find_map(|(start, end)| {
                let place = start.checked_next_multiple_of(alignment)?;
                fits(place, *end).then_some((*start, place))
            })
        })?;
        let end = self.free.remove(&start)?;
        for (start, end) in [(start, place), (place + size, end)] {
            if start < end {
                self.free.insert(start, end);
            }
        }
        Some(place + offset)
    }

    /// Makes a range of the arena free, as one with its neighbours.
    fn free(&mut self, mut range: Range<u64>) {
        if let Some((&start, &end)) = self.free.range(..=range.start).next_back()
            && end >= range.start
        {
            self.free.remove(&start);
            range = start..end.max(range.end);
        }
        if let Some(end) = self.free.remove(&range.end) {
            range.end = end;
        }
        self.free.insert(range.start, range.end);
    }

    /// The recorded range was unmapped. Until that is invalidated a late access
    /// goes where its mapping was.
    pub fn unmap(&mut self, range: Range<u64>) {
        let mut dead = Vec::new();
        self.take(range, |start, given| {
            if given.to != start {
                dead.push((start, Given { live: false, ..given }));
            }
        });
        dead.into_iter().for_each(|(start, given)| self.put(start, given));
    }

    /// What was unmapped is invalidated, and was at these IOVAs: they are free.
    /// The arena begins at `arena_start`.
    pub fn release(&mut self, arena_start: u64, unmapped: impl Iterator<Item = Range<u64>>) {
        if self.moved > 0 {
            let moved = &mut self.moved;
            self.given.retain(|_, given| {
                *moved -= !given.live as usize;
                given.live
            });
        }
        for range in unmapped.filter(|range| range.start >= arena_start) {
            self.free(range.start & !PAGE_MASK..range.end.next_multiple_of(PAGE_SIZE));
        }
    }

    /// The present IOVA of a recorded one.
    pub fn of(&self, addr: u64) -> u64 {
        match self.given.range(..=addr).next_back() {
            Some((start, given)) if addr < given.end => given.to + (addr - start),
            _ => addr,
        }
    }

    /// Calls `f` for each part of a recorded range that is in one piece at its
    /// present IOVAs, with these; false: it has been unmapped there.
    pub fn pieces(&self, range: Range<u64>, mut f: impl FnMut(Range<u64>, bool)) {
        // The piece so far, which others may continue.
        let mut piece = (range.start..range.start, true);
        let mut add = |part: Range<u64>, live: bool| {
            if piece.0.end == part.start && piece.1 == live {
                piece.0.end = part.end;
            } else {
                let (done, live) = std::mem::replace(&mut piece, (part, live));
                if !done.is_empty() {
                    f(done, live);
                }
            }
        };
        let mut at = range.start;
        let first = self.given.range(..=at).next_back().filter(|(_, given)| given.end > at);
        let others = self.given.range(at.saturating_add(1)..range.end.max(at.saturating_add(1)));
        for (start, given) in first.into_iter().chain(others) {
            if at < *start {
                add(at..*start, true);
                at = *start;
            }
            let last = given.end.min(range.end);
            add(given.to + (at - start)..given.to + (last - start), given.live);
            at = last;
        }
        if at < range.end {
            add(at..range.end, true);
        }
        if !piece.0.is_empty() || range.is_empty() {
            f(piece.0, piece.1);
        }
    }

    /// True if all mappings are at their recorded IOVAs.
    pub fn are_recorded(&self) -> bool {
        self.moved == 0
    }

    fn put(&mut self, start: u64, given: Given) {
        self.moved += (given.to != start) as usize;
        self.given.insert(start, given);
    }

    /// Takes what lies in a recorded range, and gives it to `f`.
    fn take(&mut self, range: Range<u64>, mut f: impl FnMut(u64, Given)) {
        if self.given.is_empty() || range.is_empty() {
            return;
        }
        let before = self.given.range(..range.start).next_back();
        let before = before.filter(|(_, given)| given.end > range.start).map(|(start, _)| *start);
        let inside = self.given.range(range.clone()).map(|(start, _)| *start);
        let touched: Vec<u64> = before.into_iter().chain(inside).collect();
        for start in touched {
            let Some(given) = self.given.remove(&start) else { continue };
            self.moved -= (given.to != start) as usize;
            let at = |place: u64| given.to + (place - start);
            if start < range.start {
                self.put(start, Given { end: range.start, ..given });
            }
            if range.end < given.end {
                self.put(range.end, Given { to: at(range.end), ..given });
            }
            let (first, end) = (start.max(range.start), given.end.min(range.end));
            f(first, Given { end, to: at(first), ..given });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const ARENA: Range<u64> = 1 << 40..1 << 41;

    fn pages(first: u64, n: u64) -> Range<u64> {
        first << 12..(first + n) << 12
    }

    #[test]
    fn the_lowest_place_is_used_first() {
        let mut names = Names::new(ARENA);
        let map = |names: &mut Names, first, n| names.map(pages(first, n), true, |_| {}).unwrap();
        let one = map(&mut names, 7, 1);
        let two = map(&mut names, 9, 1);
        let three = map(&mut names, 20, 3);
        assert_eq!((one, two), (1 << 40, (1 << 40) + 4096));
        assert_eq!(three, (1 << 40) + (4 << 12), "aligned to four pages");
        assert_eq!(map(&mut names, 10, 2), two + 4096, "goes on behind page 9");
        names.unmap(pages(7, 3));
        assert_eq!((names.of(7 << 12), names.of(9 << 12)), (one, two), "a late access");
        names.release(ARENA.start, [one..one + 4096, two..two + 4096].into_iter());
        assert_eq!((names.of(7 << 12), names.of(20 << 12)), (7 << 12, three));
        assert_eq!(map(&mut names, 9, 2), one, "both pages as one");
        assert_eq!(names.map(pages(30, 1), false, |_| {}), Some(30 << 12), "as recorded");
        // Three maps of one range; page 11 lies right behind page 10.
        let mut seen = Vec::new();
        names.pieces(pages(8, 4), |piece, live| seen.push((piece, live)));
        assert_eq!(
            seen,
            [
                (8 << 12..9 << 12, true),
                (one..one + (2 << 12), true),
                (two + 8192..two + 12288, true)
            ]
        );
    }

    #[test]
    fn an_arena_can_be_full() {
        let mut names = Names::new(1 << 40..(1 << 40) + (2 << 12));
        assert!(names.map(pages(0, 1), true, |_| {}).is_some());
        assert_eq!(names.map(pages(3, 2), true, |_| {}), None);
        assert!(names.map(pages(5, 1), true, |_| {}).is_some());
        assert_eq!(names.map(pages(2, 1), true, |_| {}), None);
        assert_eq!(names.map(0..u64::MAX, true, |_| {}), None, "larger than the arena");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a table of pages.
        #[test]
        fn names_are_those_of_the_latest_maps(
            maps in prop::collection::vec((0..40u64, 1..9u64, any::<bool>()), 1..40),
            asked in (0..44u64, 0..12u64),
        ) {
            let mut names = Names::new(ARENA);
            let mut model: HashMap<u64, u64> = HashMap::new();
            for (first, n, moved) in maps {
                let to = names.map(pages(first, n), moved, |_| {}).unwrap();
                prop_assert!(!moved || ARENA.contains(&to));
                for page in 0..n {
                    model.insert(first + page, (to >> 12) + page);
                }
            }
            let page_of = |page: u64| model.get(&page).copied().unwrap_or(page);
            for page in 0..60u64 {
                prop_assert_eq!(names.of((page << 12) + 5), (page_of(page) << 12) + 5);
            }
            let mut seen = Vec::new();
            names.pieces(pages(asked.0, asked.1), |piece, _| {
                seen.extend((piece.start >> 12)..(piece.end >> 12));
            });
            let expected: Vec<u64> = (asked.0..asked.0 + asked.1).map(page_of).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}

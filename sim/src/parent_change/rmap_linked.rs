//! A reverse map whose lists run through arrays parallel to the shadow.

use super::lists::{Lists, grow_to};
use super::reverse_map::ReverseMap;
use super::{Change, ChildId, ParentChange, Shadows, Work};

/// One link: 8 bytes.
#[derive(Clone, Copy, Debug)]
struct Link {
    next: u32,
    /// Slot before this one, or the head with [`HEAD`] set, or [`NONE`] if
    /// the slot is in no list.
    prev: u32,
}

/// Child changes that wait for the worker at most: 24 KiB, which stay in the
/// cache of the CPU that writes them.
const LOG: usize = 1024;
const NONE: u32 = u32::MAX;
const HEAD: u32 = 1 << 31;

/// Doubly linked lists of slots. The first link of a list names its head, so
/// that an entry is removed without knowing its GPA.
#[derive(Clone, Debug, Default)]
struct Linked {
    links: Vec<Link>,
    heads: Vec<u32>,
}

impl Lists for Linked {
    const LOG: usize = LOG;

    #[inline]
    fn grow(&mut self, slots: usize, heads: usize) {
        debug_assert!(slots < HEAD as usize && heads < HEAD as usize);
        grow_to(&mut self.links, slots, Link { next: NONE, prev: NONE });
        grow_to(&mut self.heads, heads, NONE);
    }

    #[inline]
    fn holds(&self, slot: u32) -> bool {
        self.links[slot as usize].prev != NONE
    }

    #[inline]
    fn add(&mut self, slot: u32, head: u32) -> bool {
        let next = std::mem::replace(&mut self.heads[head as usize], slot);
        self.links[slot as usize] = Link { next, prev: head | HEAD };
        if next != NONE {
            self.links[next as usize].prev = slot;
        }
        next == NONE
    }

    #[inline]
    fn remove(&mut self, slot: u32) -> Option<u32> {
        let none = Link { next: NONE, prev: NONE };
        let Link { next, prev } = std::mem::replace(&mut self.links[slot as usize], none);
        if next != NONE {
            self.links[next as usize].prev = prev;
        }
        if prev & HEAD == 0 {
            self.links[prev as usize].next = next;
            return None;
        }
        let head = prev & !HEAD;
        self.heads[head as usize] = next;
        (next == NONE).then_some(head)
    }

    #[inline]
    fn touch(&self, slot: u32, head: Option<u32>) -> u32 {
        self.links[slot as usize].prev ^ head.map_or(0, |h| self.heads[h as usize])
    }

    #[inline]
    fn touch_behind(&self, slot: u32, head: Option<u32>) -> u32 {
        let Link { next, prev } = self.links[slot as usize];
        let first = head.map_or(NONE, |h| self.heads[h as usize]);
        let old = if prev & HEAD == 0 {
            self.links[prev as usize].next
        } else if prev != NONE {
            self.heads[(prev & !HEAD) as usize]
        } else {
            0
        };
        let of = |slot: u32| if slot == NONE { 0 } else { self.links[slot as usize].prev };
        old ^ of(next) ^ of(first)
    }

    #[inline]
    fn visit(&self, head: u32, lines: &mut u64, mut f: impl FnMut(u32)) {
        *lines += 1;
        let mut slot = self.heads[head as usize];
        while slot != NONE {
            *lines += 1;
            let next = self.links[slot as usize].next;
            f(slot);
            slot = next;
        }
    }

    fn memory_bytes(&self) -> u64 {
        (self.links.capacity() * size_of::<Link>() + self.heads.capacity() * 4) as u64
    }
}

/// Reverse map with intrusive lists: 8 bytes per shadow slot and 4 per page
/// of the level below, adding and removing in constant time without an
/// allocation per entry, and work proportional to the entries found.
///
/// What the child does is first written to a log of at most 1,024 records:
/// all that its map path pays. A worker links the records
/// ([`ParentChange::step`]), several at a time, so that their cache misses
/// overlap. Should it not keep up, the child links a full log itself. A change
/// of the level below links what is left before it looks for entries: there is
/// no window in which a stale entry is missed.
///
/// KVM's `rmap` ([`super::Rmap`]) searches the page's entries on each removal,
/// which is slow for pages that many entries share, and allocates descriptors.
#[derive(Clone, Debug, Default)]
pub struct RmapLinked {
    map: ReverseMap<Linked>,
}

impl ParentChange for RmapLinked {
    type Config = ();

    fn new(_: &()) -> Self {
        RmapLinked::default()
    }

    #[inline]
    fn mapped(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64) {
        self.map.mapped(child, iova, gpa, len);
    }

    #[inline]
    fn unmapped(&mut self, child: ChildId, iova: u64, len: u64) {
        self.map.unmapped(child, iova, len);
    }

    fn cleared(&mut self, child: ChildId) {
        self.map.cleared(child);
    }

    fn changed(&mut self, change: Change, shadows: &mut dyn Shadows, work: &mut Work) {
        self.map.changed(change, shadows, work);
    }

    fn step(&mut self, budget: u64, _: &mut dyn Shadows, work: &mut Work) -> bool {
        self.map.step(budget, work)
    }

    fn memory_bytes(&self) -> u64 {
        self.map.memory_bytes()
    }
}

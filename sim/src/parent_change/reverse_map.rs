//! A reverse map: from the pages of the level below to the entries of all
//! children that lead to them. Entries of 2 MiB and 1 GiB stay one entry,
//! found through the head of their own size.

use rustc_hash::FxHashMap;

use super::heads::Heads;
use super::lists::Lists;
use super::slots::Slots;
use super::{Change, ChildId, Shadows, Work};
use crate::events::{PAGE_MASK, PageSize};
use crate::table::FANOUT;

/// Bytes in the span of one block of 4 KiB entries.
const BLOCK: u64 = PageSize::Size2M.bytes();
const PAGE: u64 = PageSize::Size4K.bytes();

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct ReverseMap<L> {
    slots: Slots,
    heads: Heads,
    lists: L,
    /// GPAs of entries larger than 4 KiB, needed when one is split.
    large: FxHashMap<u32, u64>,
}

impl<L: Lists> ReverseMap<L> {
    /// `[iova, iova + len)` leads to `gpa`.
    pub fn mapped(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64) {
        let (mut at, mut to) = (iova & !PAGE_MASK, gpa & !PAGE_MASK);
        let end = (iova + len).next_multiple_of(PAGE);
        if self.slots.large > 0 {
            self.unmap_large(child, at, end);
        }
        while at < end {
            let fits = |s: &PageSize| (at | to) & (s.bytes() - 1) == 0 && end - at >= s.bytes();
            let size = PageSize::ALL.into_iter().rev().find(fits).unwrap_or(PageSize::Size4K);
            if size == PageSize::Size4K {
                let in_blocks = (BLOCK - at % BLOCK).min(BLOCK - to % BLOCK);
                let run = (end - at).min(in_blocks);
                self.map_run(child, at, to, run / PAGE);
                (at, to) = (at + run, to + run);
                continue;
            }
            self.unmap_small(child, at, at + size.bytes());
            let slot = self.slots.slot(child, size, at);
            let head = self.heads.head(size, to);
            self.grow();
            self.link(slot, head);
            self.large.insert(slot, to);
            (at, to) = (at + size.bytes(), to + size.bytes());
        }
    }

    /// Entries of 4 KiB, inside one block on either side.
    fn map_run(&mut self, child: ChildId, iova: u64, gpa: u64, pages: u64) {
        let slot = self.slots.slot(child, PageSize::Size4K, iova);
        let head = self.heads.head(PageSize::Size4K, gpa);
        self.grow();
        for i in 0..pages as u32 {
            self.link(slot + i, head + i);
        }
    }

    fn grow(&mut self) {
        self.lists.grow(self.slots.len(), self.heads.len());
    }

    #[inline]
    fn link(&mut self, slot: u32, head: u32) {
        // Heads first: the old list may own the block that `head` is in.
        let first = if self.lists.holds(slot) {
            let emptied = self.lists.remove(slot);
            let first = self.lists.add(slot, head);
            match emptied {
                Some(old) if old == head => return,
                Some(old) => {
                    if first {
                        self.heads.used(head);
                    }
                    return self.heads.unused(old);
                }
                None => first,
            }
        } else {
            self.slots.used(slot);
            self.lists.add(slot, head)
        };
        if first {
            self.heads.used(head);
        }
    }

    #[inline]
    fn unlink(&mut self, slot: u32) {
        if let Some(head) = self.lists.remove(slot) {
            self.heads.unused(head);
        }
        self.slots.unused(slot);
    }

    /// `[iova, iova + len)` leads nowhere.
    pub fn unmapped(&mut self, child: ChildId, iova: u64, len: u64) {
        let start = iova & !PAGE_MASK;
        let end = iova.saturating_add(len).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        if self.slots.large > 0 {
            self.unmap_large(child, start, end);
        }
        self.unmap_small(child, start, end);
    }

    /// Removes entries of 4 KiB, and larger ones that lie inside.
    fn unmap_small(&mut self, child: ChildId, start: u64, end: u64) {
        if (end - start) / BLOCK > self.slots.live_blocks() as u64 {
            let mut blocks = Vec::new();
            self.slots.blocks_of(child, |first| blocks.push(first));
            for slot in blocks.into_iter().flat_map(|b| b..b + FANOUT as u32) {
                let (_, iova, size) = self.slots.place(slot);
                if start <= iova && iova + size.bytes() <= end && self.lists.holds(slot) {
                    self.large.remove(&slot);
                    self.unlink(slot);
                }
            }
            return;
        }
        let mut at = start;
        while at < end {
            let run = (BLOCK - at % BLOCK).min(end - at);
            if let Some(first) = self.slots.find(child, PageSize::Size4K, at) {
                for slot in first..first + (run / PAGE) as u32 {
                    if self.lists.holds(slot) {
                        self.unlink(slot);
                    }
                }
            }
            at += run;
        }
    }

    /// Removes entries of 2 MiB and 1 GiB that overlap the range; what they
    /// cover outside of it stays, in smaller entries.
    fn unmap_large(&mut self, child: ChildId, start: u64, end: u64) {
        for size in [PageSize::Size1G, PageSize::Size2M] {
            let mut found = Vec::new();
            let (first, last) = (start >> size.shift(), (end - 1) >> size.shift());
            if last - first > self.slots.large {
                self.large.keys().for_each(|slot| {
                    let (owner, iova, s) = self.slots.place(*slot);
                    if owner == child && s == size && iova < end && start < iova + s.bytes() {
                        found.push(*slot);
                    }
                });
                found.sort_unstable();
            } else {
                for at in first..=last {
                    let slot = self.slots.find(child, size, at << size.shift());
                    found.extend(slot.filter(|s| self.lists.holds(*s)));
                }
            }
            for slot in found {
                let (_, iova, _) = self.slots.place(slot);
                let gpa = self.large.remove(&slot).expect("kept for every large entry");
                self.unlink(slot);
                let over = iova + size.bytes();
                if iova < start {
                    self.mapped(child, iova, gpa, start - iova);
                }
                if end < over {
                    self.mapped(child, end, gpa + (end - iova), over - end);
                }
            }
        }
    }

    /// A child has no entries any more.
    pub fn cleared(&mut self, child: ChildId) {
        let mut blocks = Vec::new();
        self.slots.blocks_of(child, |first| blocks.push(first));
        for slot in blocks.into_iter().flat_map(|b| b..b + FANOUT as u32) {
            if self.lists.holds(slot) {
                self.large.remove(&slot);
                self.unlink(slot);
            }
        }
    }

    /// Mends every entry that leads into the range.
    pub fn changed(&self, change: Change, shadows: &mut dyn Shadows, work: &mut Work) {
        let mut lines = 0;
        self.heads.visit(change.start, change.end, &mut lines, |head, gpa, size, lines| {
            work.entries_examined += 1; // the head
            let (from, to) = (gpa.max(change.start), (gpa + size.bytes()).min(change.end));
            self.lists.visit(head, lines, |slot| {
                work.entries_examined += 1;
                work.lines += 1; // the slot's block
                let (child, iova, _) = self.slots.place(slot);
                shadows.mend(child, iova + (from - gpa), from, to - from, work);
            });
        });
        work.lines += lines;
    }

    /// Bytes of everything.
    pub fn memory_bytes(&self) -> u64 {
        let large = self.large.capacity() * (size_of::<(u32, u64)>() + 1);
        self.slots.memory_bytes()
            + self.heads.memory_bytes()
            + self.lists.memory_bytes()
            + large as u64
    }
}

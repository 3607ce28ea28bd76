//! A reverse map: from the pages of the level below to the entries of all
//! children that lead to them. Entries of 2 MiB and 1 GiB stay one entry,
//! found through the head of their own size.

use rustc_hash::FxHashMap;

use super::heads::Heads;
use super::lists::Lists;
use super::log::{Log, Record};
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
    log: Log,
    /// Slot and head of each record while some are carried out.
    places: Vec<(Option<u32>, Option<u32>)>,
    found: Vec<Found>,
}

/// An entry that leads into a range.
#[derive(Clone, Copy, Debug)]
struct Found {
    child: ChildId,
    iova: u64,
    gpa: u64,
    len: u64,
}

/// Entries that are mended together: in the order of their children's tables,
/// and runs of them at once.
const TOGETHER: usize = 4096;

/// Records of the log that are carried out together: enough that the memory
/// accesses of one hide behind those of the others (x86 cores have 10 to 24
/// line fill buffers).
const AT_ONCE: usize = 32;

impl<L: Lists> ReverseMap<L> {
    /// `[iova, iova + len)` leads to `gpa`.
    #[inline]
    pub fn mapped(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64) {
        if len == 0 {
            return;
        }
        let inside = (iova ^ (iova + len - 1)) | (gpa ^ (gpa + len - 1));
        if L::LOG > 0 && inside < BLOCK && len < BLOCK {
            let pages = pages(iova, len);
            let record = Record::map(child, iova & !PAGE_MASK, gpa & !PAGE_MASK, pages);
            return self.put_off(record);
        }
        self.catch_up();
        self.map_now(child, iova, gpa, len);
        self.sweep();
    }

    /// `[iova, iova + len)` leads nowhere.
    #[inline]
    pub fn unmapped(&mut self, child: ChildId, iova: u64, len: u64) {
        if L::LOG > 0 && len > 0 && iova ^ iova.saturating_add(len - 1) < BLOCK {
            let pages = pages(iova, len);
            return self.put_off(Record::unmap(child, iova & !PAGE_MASK, pages));
        }
        self.catch_up();
        self.unmap_now(child, iova, len);
        self.sweep();
    }

    /// Adds a record to the log; the child itself carries out a full one.
    #[inline]
    fn put_off(&mut self, record: Record) {
        self.log.push(record);
        if self.log.len() >= L::LOG {
            self.catch_up();
        }
    }

    /// Carries out all that the log holds; returns how many records.
    fn catch_up(&mut self) -> u64 {
        match self.log.len() {
            0 => 0,
            late => self.carry_out(late),
        }
    }

    /// Carries out the oldest records of the log, at most `most`; returns how
    /// many.
    fn carry_out(&mut self, most: usize) -> u64 {
        let mut log = std::mem::take(&mut self.log);
        let mut left = most.min(log.len());
        let count = left as u64;
        while left > 0 {
            let records = log.first(left.min(AT_ONCE));
            // A large entry that one record splits gives the next one its
            // slots: numbers taken beforehand would miss them.
            match self.slots.large {
                0 => self.link_together(records),
                _ => records.iter().for_each(|r| self.link_alone(r)),
            }
            let done = records.len();
            left -= done;
            log.done(done);
            // Not before: a freed block's number would go to another.
            self.sweep();
        }
        self.log = log;
        count
    }

    fn link_alone(&mut self, r: &Record) {
        let len = u64::from(r.pages) * PAGE;
        match r.gpa() {
            Some(gpa) => self.map_now(r.child, r.iova, gpa, len),
            None => self.unmap_now(r.child, r.iova, len),
        }
    }

    /// Numbers of all slots and heads, then a read of each, and only then the
    /// changes, which find their lines in the cache.
    fn link_together(&mut self, records: &[Record]) {
        for r in records {
            let slot = match r.gpa() {
                Some(_) => Some(self.slots.slot(r.child, PageSize::Size4K, r.iova)),
                None => self.slots.find(r.child, PageSize::Size4K, r.iova),
            };
            let head = r.gpa().map(|gpa| self.heads.head(PageSize::Size4K, gpa));
            self.places.push((slot, head));
        }
        self.grow();
        let near = self.places.iter().flat_map(|(s, h)| s.map(|s| self.lists.touch(s, *h)));
        std::hint::black_box(near.fold(0, |a, b| a ^ b));
        let heads = self.places.iter().flat_map(|(_, h)| h.map(|h| self.heads.touch(h)));
        std::hint::black_box(heads.fold(0, |a, b| a ^ b));
        let far = self.places.iter().flat_map(|(s, h)| s.map(|s| self.lists.touch_behind(s, *h)));
        std::hint::black_box(far.fold(0, |a, b| a ^ b));
        for (i, r) in records.iter().enumerate() {
            match self.places[i] {
                (Some(slot), Some(head)) => {
                    (0..r.pages).for_each(|i| self.link(slot + i, head + i));
                }
                (Some(slot), None) => self.unlink_held(slot, r.pages),
                (None, _) => {}
            }
        }
        self.places.clear();
    }

    /// Carries out up to `budget` records of the log; true if some are left.
    pub fn step(&mut self, budget: u64, work: &mut Work) -> bool {
        let done = self.carry_out(usize::try_from(budget).unwrap_or(usize::MAX));
        count_records(done, work);
        self.log.len() > 0
    }

    fn map_now(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64) {
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

    fn sweep(&mut self) {
        self.slots.sweep();
        self.heads.sweep();
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

    /// Unlinks those of some slots that are in a list.
    #[inline]
    fn unlink_held(&mut self, first: u32, slots: u32) {
        for slot in first..first + slots {
            if self.lists.holds(slot) {
                self.unlink(slot);
            }
        }
    }

    fn unmap_now(&mut self, child: ChildId, iova: u64, len: u64) {
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
                self.unlink_held(first, (run / PAGE) as u32);
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
                    self.map_now(child, iova, gpa, start - iova);
                }
                if end < over {
                    self.map_now(child, end, gpa + (end - iova), over - end);
                }
            }
        }
    }

    /// A child has no entries any more.
    pub fn cleared(&mut self, child: ChildId) {
        self.catch_up();
        let mut blocks = Vec::new();
        self.slots.blocks_of(child, |first| blocks.push(first));
        for slot in blocks.into_iter().flat_map(|b| b..b + FANOUT as u32) {
            if self.lists.holds(slot) {
                self.large.remove(&slot);
                self.unlink(slot);
            }
        }
        self.sweep();
    }

    /// Mends every entry that leads into the range.
    pub fn changed(&mut self, change: Change, shadows: &mut dyn Shadows, work: &mut Work) {
        count_records(self.catch_up(), work);
        let mut lines = 0;
        let mut found = std::mem::take(&mut self.found);
        self.heads.visit(change.start, change.end, &mut lines, |head, gpa, size, lines| {
            work.entries_examined += 1; // the head
            let (from, to) = (gpa.max(change.start), (gpa + size.bytes()).min(change.end));
            self.lists.visit(head, lines, |slot| {
                work.entries_examined += 1;
                work.lines += 1; // the slot's block
                let (child, iova, _) = self.slots.place(slot);
                found.push(Found { child, iova: iova + (from - gpa), gpa: from, len: to - from });
                if found.len() == TOGETHER {
                    mend(&mut found, shadows, work);
                }
            });
        });
        mend(&mut found, shadows, work);
        self.found = found;
        work.lines += lines;
    }

    /// Bytes of everything.
    pub fn memory_bytes(&self) -> u64 {
        let large = self.large.capacity() * (size_of::<(u32, u64)>() + 1);
        self.slots.memory_bytes()
            + self.heads.memory_bytes()
            + self.lists.memory_bytes()
            + self.log.memory_bytes()
            + large as u64
    }
}

/// 4 KiB pages that a range touches.
#[inline]
fn pages(start: u64, len: u64) -> u64 {
    (start + len - 1) / PAGE - start / PAGE + 1
}

fn count_records(records: u64, work: &mut Work) {
    work.entries_examined += records;
    work.lines += (records * size_of::<Record>() as u64).div_ceil(64);
}

/// Mends entries and forgets them.
fn mend(found: &mut Vec<Found>, shadows: &mut dyn Shadows, work: &mut Work) {
    if found.len() > 1 {
        if found.iter().any(|f| f.gpa != found[0].gpa) {
            found.sort_unstable_by_key(|f| (f.child, f.iova));
            found.dedup_by(|next, run| {
                let follows = run.child == next.child
                    && run.iova + run.len == next.iova
                    && run.gpa + run.len == next.gpa;
                run.len += if follows { next.len } else { 0 };
                follows
            });
        }
        found.iter().for_each(|f| shadows.touch(f.child, f.iova, f.gpa));
    }
    for f in found.drain(..) {
        shadows.mend(f.child, f.iova, f.gpa, f.len, work);
    }
}

//! The records that importers look ahead on: a bounded part of a log, and the
//! part of the guest's ftrace that belongs to it.

use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::desc::{Descriptor, mix};

/// "No record" in links and matches.
pub(crate) const NONE: u64 = u64::MAX;
/// "No record" in a chain.
const END: u32 = u32::MAX;
/// Page of IOVAs that large mappings are searched by: 2 MiB.
const REGION_SHIFT: u32 = 9;

/// What a [`LogRec`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogKind {
    /// Nothing (moved elsewhere).
    Void,
    /// A device's access: `a` = IOVA, `b` = output of the access's page or
    /// larger page with the offset, `c` = page mask.
    Dma,
    /// An invalidation of IOTLB or context cache: `a` = qw1, `b` = qw0.
    Inv,
    /// A descriptor that is only good for joining: as `Inv`.
    Token,
    /// Caches emptied by the IOMMU; `c` = 1 if translation is on afterwards,
    /// 0 if off, 2 if the line does not tell.
    Reset,
    /// A context entry: `domain`, `a` = high, `b` = low.
    Context,
    /// `vtd_switch_address_space`: `c` = enabled.
    Switch,
    /// `vtd_page_walk_one`: `a` = IOVA, `b` = GPA, `c` = mask, flags = perm.
    Walk,
    /// RAM added to the device's container: `a` = start, `b` = end.
    RegionRam,
    /// The guest's IOMMU region added: `a` = start, `b` = end.
    RegionIommu,
    /// A region removed: `a` = start, `b` = end.
    RegionDel,
}

/// Bits of [`LogRec::flags`].
pub(crate) mod log_flags {
    /// The mapping allows reads (bits 0 and 1 are those of a VT-d PTE).
    pub(crate) const READ: u8 = 1;
    /// The mapping allows writes.
    pub(crate) const WRITE: u8 = 2;
    /// Recorded as an IOTLB hit.
    pub(crate) const HIT: u8 = 4;
    /// Hit or miss is recorded.
    pub(crate) const LABEL: u8 = 8;
    /// The output is recorded.
    pub(crate) const OUT: u8 = 16;
    /// Ended in a fault; WRITE tells the direction.
    pub(crate) const FAULT: u8 = 32;
    /// Passed through untranslated.
    pub(crate) const PASS: u8 = 64;
}

/// One record of a log. What `a`, `b` and `c` are depends on `kind`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogRec {
    /// ns since the log's first line, never decreasing.
    pub(crate) time: i64,
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) c: u64,
    /// Record of the joined stream that is the same descriptor, or [`NONE`].
    pub(crate) peer: u64,
    pub(crate) domain: u32,
    pub(crate) sid: u32,
    pub(crate) tid: u32,
    /// Next access with the same page and output, relative to the base of
    /// all indexes; [`END`] if none.
    next: u32,
    next_region: u32,
    pub(crate) kind: LogKind,
    pub(crate) flags: u8,
}

impl LogRec {
    pub(crate) fn new(kind: LogKind, time: i64, tid: u32) -> LogRec {
        LogRec {
            time,
            a: 0,
            b: 0,
            c: 0,
            peer: NONE,
            domain: u32::MAX,
            sid: u32::MAX,
            tid,
            next: END,
            next_region: END,
            kind,
            flags: 0,
        }
    }

    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor { qw0: self.b, qw1: self.a }
    }
}

/// Chains of records with the same key, first and last by key. Positions are
/// the low 32 bits of indexes; a window is far smaller than 2^31 records.
#[derive(Debug, Default)]
struct Chains<K> {
    ends: FxHashMap<K, (u32, u32)>,
}

impl<K: Hash + Eq> Chains<K> {
    /// Appends record `at`; gives the record whose link must be set to it.
    /// A record older than the chain's last is left out: it can only be one
    /// whose output became known late, and a newer one proves the same.
    fn push(&mut self, key: K, at: u32) -> Option<u32> {
        match self.ends.entry(key) {
            std::collections::hash_map::Entry::Occupied(mut e) => {
                let last = e.get().1;
                if at.wrapping_sub(last) as i32 <= 0 {
                    return None;
                }
                e.get_mut().1 = at;
                Some(last)
            }
            std::collections::hash_map::Entry::Vacant(e) => {
                e.insert((at, at));
                None
            }
        }
    }

    /// Removes record `at`, the oldest of all, whose link is `next`.
    fn pop(&mut self, key: K, at: u32, next: u32) {
        if let std::collections::hash_map::Entry::Occupied(mut e) = self.ends.entry(key)
            && e.get().0 == at
        {
            if next == END {
                e.remove();
            } else {
                e.get_mut().0 = next;
            }
        }
    }

    fn first(&self, key: &K) -> u32 {
        self.ends.get(key).map_or(END, |e| e.0)
    }
}

/// The records of a log from the next to be written to the last one read.
#[derive(Debug, Default)]
pub(crate) struct LogWindow {
    recs: VecDeque<LogRec>,
    /// Index of the first record.
    base: u64,
    pages: Chains<u64>,
    regions: Chains<u64>,
}

fn page_key(page: u64, out_page: u64) -> u64 {
    mix(page, out_page)
}

fn region_key(page: u64, out_page: u64) -> u64 {
    mix(page >> REGION_SHIFT, out_page.wrapping_sub(page))
}

impl LogWindow {
    pub(crate) fn len(&self) -> usize {
        self.recs.len()
    }

    /// Index of the next record to be written.
    pub(crate) fn head(&self) -> u64 {
        self.base
    }

    /// Index that the next record read will get.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.recs.len() as u64
    }

    pub(crate) fn push(&mut self, rec: LogRec) -> u64 {
        self.recs.push_back(rec);
        self.end() - 1
    }

    pub(crate) fn get(&self, index: u64) -> Option<&LogRec> {
        self.recs.get(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    pub(crate) fn get_mut(&mut self, index: u64) -> Option<&mut LogRec> {
        self.recs.get_mut(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    pub(crate) fn front(&self) -> Option<&LogRec> {
        self.recs.front()
    }

    pub(crate) fn back(&self) -> Option<&LogRec> {
        self.recs.back()
    }

    /// True if record `rec` proves a mapping: it is no hit and has an output.
    fn proves(rec: &LogRec) -> bool {
        rec.kind == LogKind::Dma
            && rec.flags & (log_flags::HIT | log_flags::FAULT | log_flags::PASS | log_flags::OUT)
                == log_flags::OUT
    }

    /// Makes a complete access known to [`Self::proofs`].
    pub(crate) fn index_dma(&mut self, index: u64) {
        let Some(rec) = self.get(index).filter(|r| Self::proves(r)) else { return };
        let (page, out) = (rec.a >> 12, rec.b >> 12);
        let at = index as u32;
        if let Some(previous) = self.pages.push(page_key(page, out), at) {
            self.at_mut(previous).next = at;
        }
        if let Some(previous) = self.regions.push(region_key(page, out), at) {
            self.at_mut(previous).next_region = at;
        }
    }

    /// Takes the oldest record out.
    pub(crate) fn pop(&mut self) -> Option<LogRec> {
        let rec = self.recs.pop_front()?;
        if Self::proves(&rec) {
            let (page, out) = (rec.a >> 12, rec.b >> 12);
            self.pages.pop(page_key(page, out), self.base as u32, rec.next);
            self.regions.pop(region_key(page, out), self.base as u32, rec.next_region);
        }
        self.base += 1;
        Some(rec)
    }

    /// The shadow operations that the invalidation at the head causes.
    pub(crate) fn walks_behind_head(&self) -> impl Iterator<Item = &LogRec> {
        self.recs
            .iter()
            .skip(1)
            .take_while(|r| matches!(r.kind, LogKind::Walk | LogKind::Void | LogKind::Context))
            .filter(|r| r.kind == LogKind::Walk)
    }

    /// Index of the record at a 32-bit position.
    fn full(&self, at: u32) -> u64 {
        self.base + u64::from(at.wrapping_sub(self.base as u32))
    }

    fn at_mut(&mut self, at: u32) -> &mut LogRec {
        let index = (self.full(at) - self.base) as usize;
        &mut self.recs[index]
    }

    /// Accesses in the window that prove a mapping of `page` to `out_page`
    /// (page numbers), oldest first, with their indexes.
    pub(crate) fn proofs(&self, page: u64, out_page: u64) -> impl Iterator<Item = (u64, &LogRec)> {
        let mut at = self.pages.first(&page_key(page, out_page));
        std::iter::from_fn(move || {
            if at == END {
                return None;
            }
            let index = self.full(at);
            let rec = &self.recs[(index - self.base) as usize];
            at = rec.next;
            Some((index, rec))
        })
        .filter(move |(_, r)| r.a >> 12 == page && r.b >> 12 == out_page)
    }

    /// The same for any page of the 2 MiB region of `page` that has the same
    /// distance between input and output.
    pub(crate) fn region_proofs(
        &self,
        page: u64,
        out_page: u64,
    ) -> impl Iterator<Item = (u64, &LogRec)> {
        let delta = out_page.wrapping_sub(page);
        let mut at = self.regions.first(&region_key(page, out_page));
        std::iter::from_fn(move || {
            if at == END {
                return None;
            }
            let index = self.full(at);
            let rec = &self.recs[(index - self.base) as usize];
            at = rec.next_region;
            Some((index, rec))
        })
        .filter(move |(_, r)| {
            r.a >> 12 >> REGION_SHIFT == page >> REGION_SHIFT
                && (r.b >> 12).wrapping_sub(r.a >> 12) == delta
        })
    }
}

/// What an [`FtRec`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FtKind {
    /// `[a, a+size)` mapped to `b`.
    Map,
    /// `[a, a+size)` unmapped.
    Unmap,
    /// A descriptor: `a` = qw1, `b` = qw0.
    Submit,
    /// A marker; the text is kept by the window.
    Marker,
}

/// One record of an ftrace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FtRec {
    /// ns on the guest's clock, since the file's first line, never decreasing.
    pub(crate) time: i64,
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) size: u64,
    /// Of a descriptor: record of the log that is the same one. Of a map or
    /// unmap: the descriptor in this window that covers it. Else [`NONE`].
    pub(crate) peer: u64,
    /// In a bundle: the VMM's record of the same operation, or [`NONE`].
    pub(crate) vmm: u64,
    /// Domain of a map or unmap, and how it was found (`attribute.rs`).
    pub(crate) domain: u32,
    pub(crate) quality: u8,
    /// Rights of a map, READ and WRITE bits.
    pub(crate) perm: u8,
    /// Had to wait for accesses that came before it.
    pub(crate) held: bool,
    pub(crate) cpu: u32,
    pub(crate) pid: u32,
    pub(super) next: u32,
    pub(crate) kind: FtKind,
    /// Written already.
    pub(crate) done: bool,
}

impl FtRec {
    pub(crate) fn new(kind: FtKind, time: i64, cpu: u32, pid: u32) -> FtRec {
        FtRec {
            time,
            a: 0,
            b: 0,
            size: 0,
            peer: NONE,
            vmm: NONE,
            domain: u32::MAX,
            quality: 0,
            perm: 3,
            held: false,
            cpu,
            pid,
            next: END,
            kind,
            done: false,
        }
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor { qw0: self.b, qw1: self.a }
    }

    /// True if it changes the guest's table.
    pub(crate) fn changes_table(&self) -> bool {
        matches!(self.kind, FtKind::Map | FtKind::Unmap)
    }
}

/// The records of an ftrace from the next to be written to the last one read.
#[derive(Debug, Default)]
pub(crate) struct FtWindow {
    recs: VecDeque<FtRec>,
    base: u64,
    starts: Chains<u64>,
    /// Texts of markers, by index.
    texts: VecDeque<(u64, String)>,
}

impl FtWindow {
    pub(crate) fn len(&self) -> usize {
        self.recs.len()
    }

    pub(crate) fn head(&self) -> u64 {
        self.base
    }

    pub(crate) fn end(&self) -> u64 {
        self.base + self.recs.len() as u64
    }

    pub(crate) fn push(&mut self, rec: FtRec) -> u64 {
        let index = self.end();
        self.recs.push_back(rec);
        if rec.changes_table()
            && let Some(previous) = self.starts.push(rec.a >> 12, index as u32)
        {
            let previous = (self.full(previous) - self.base) as usize;
            self.recs[previous].next = index as u32;
        }
        index
    }

    pub(crate) fn push_marker(&mut self, rec: FtRec, text: String) -> u64 {
        let index = self.push(rec);
        self.texts.push_back((index, text));
        index
    }

    pub(crate) fn get(&self, index: u64) -> Option<&FtRec> {
        self.recs.get(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    pub(crate) fn get_mut(&mut self, index: u64) -> Option<&mut FtRec> {
        self.recs.get_mut(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    pub(crate) fn front(&self) -> Option<&FtRec> {
        self.recs.front()
    }

    /// The text of marker `index`.
    pub(crate) fn text(&self, index: u64) -> &str {
        let at = self.texts.partition_point(|(i, _)| *i < index);
        self.texts.get(at).filter(|(i, _)| *i == index).map_or("", |(_, text)| text)
    }

    pub(crate) fn pop(&mut self) -> Option<FtRec> {
        let rec = self.recs.pop_front()?;
        if rec.changes_table() {
            self.starts.pop(rec.a >> 12, self.base as u32, rec.next);
        }
        if self.texts.front().is_some_and(|(i, _)| *i == self.base) {
            self.texts.pop_front();
        }
        self.base += 1;
        Some(rec)
    }

    fn full(&self, at: u32) -> u64 {
        self.base + u64::from(at.wrapping_sub(self.base as u32))
    }

    /// Maps and unmaps behind record `index` that begin at the same page.
    pub(crate) fn same_start(&self, index: u64) -> impl Iterator<Item = (u64, &FtRec)> {
        let mut at = self.get(index).map_or(END, |r| r.next);
        std::iter::from_fn(move || {
            if at == END {
                return None;
            }
            let index = self.full(at);
            let rec = &self.recs[(index - self.base) as usize];
            at = rec.next;
            Some((index, rec))
        })
    }

    /// Records from `index` on.
    pub(crate) fn from(&self, index: u64) -> impl DoubleEndedIterator<Item = (u64, &FtRec)> {
        let skip = index.saturating_sub(self.base) as usize;
        let base = self.base;
        self.recs
            .range(skip.min(self.recs.len())..)
            .enumerate()
            .map(move |(i, r)| (base + (skip + i) as u64, r))
    }

    /// Records before `index`, nearest first.
    pub(crate) fn before(&self, index: u64) -> impl Iterator<Item = (u64, &FtRec)> {
        let n = (index.saturating_sub(self.base) as usize).min(self.recs.len());
        let base = self.base;
        self.recs.range(..n).enumerate().rev().map(move |(i, r)| (base + i as u64, r))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miss(iova: u64, out: u64) -> LogRec {
        let mut r = LogRec::new(LogKind::Dma, 0, 0);
        (r.a, r.b, r.c, r.flags) = (iova, out, 0xfff, log_flags::OUT | log_flags::LABEL);
        r
    }

    #[test]
    fn proofs_follow_the_window() {
        let mut w = LogWindow::default();
        for (iova, out) in [(0x1000, 0xa000), (0x2000, 0xb000), (0x1040, 0xa040), (0x1000, 0xc000)]
        {
            let i = w.push(miss(iova, out));
            w.index_dma(i);
        }
        let at = |w: &LogWindow, p, o| w.proofs(p, o).map(|(i, _)| i).collect::<Vec<_>>();
        assert_eq!(at(&w, 1, 0xa), [0, 2]);
        assert_eq!(w.region_proofs(3, 0xc).map(|(i, _)| i).collect::<Vec<_>>(), [0, 1, 2]);
        w.pop();
        assert_eq!(at(&w, 1, 0xa), [2]);
        assert_eq!(at(&w, 1, 0xc), [3]);
        w.pop();
        w.pop();
        assert_eq!(at(&w, 1, 0xa), [] as [u64; 0]);
        assert!(w.pages.ends.len() == 1 && w.regions.ends.len() == 1, "no leftovers");
        let i = w.push(miss(0x1000, 0xa000));
        w.index_dma(i);
        assert_eq!(at(&w, 1, 0xa), [4]);
    }
}

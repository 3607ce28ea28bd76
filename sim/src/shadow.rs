//! The shadow table of one child, and the walk that brings it in line.
//!
//! The walk and its filter follow QEMU 7.2's `vtd_page_walk` and
//! `vtd_page_walk_one` (`hw/i386/intel_iommu.c`): each guest entry in range,
//! leaf or not present, is one event for the entry's whole span, and the
//! record of what was shadowed decides whether the host must do anything.

use crate::events::{PageSize, Perm};
use crate::parent::Below;
use crate::results::ShadowCounters;
use crate::table::{FANOUT, Leaf, Lowest, NodeId, Prune, RadixTable, entry_span, index};

/// A change of the shadow, as the VMM asks the host for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowOp {
    /// Map a guest entry's span.
    Map {
        /// First IOVA.
        iova: u64,
        /// Bytes.
        size: u64,
        /// GPA that the guest's entry names.
        gpa: u64,
        /// HPA of the first byte; 0 if the parent has none (nothing mapped).
        hpa: u64,
        /// Rights of the guest's entry.
        perm: Perm,
    },
    /// Unmap a span.
    Unmap {
        /// First IOVA.
        iova: u64,
        /// Bytes.
        size: u64,
    },
}

/// A child's shadow.
#[derive(Clone, Debug)]
pub struct Shadow {
    /// IOVA to HPA: what the hardware walks.
    table: RadixTable,
    /// IOVA to GPA in the guest's own leaf sizes: what was last seen of the
    /// child (QEMU's `iova_tree`).
    synced: RadixTable,
    /// The child's dirty flags say nothing: the shadow lost entries.
    lost: bool,
    pages: PagePool,
    /// 4 KiB pages that leaves of the shadow have come to map, in total.
    pages_in: u64,
    /// 4 KiB pages that leaves of the shadow have ceased to map, in total.
    pages_out: u64,
}

/// Where the shadow's own table pages lie: consecutive pages from `base`,
/// around again after `pages` (addresses only; contents are kept per node).
#[derive(Clone, Copy, Debug)]
struct PagePool {
    base: u64,
    pages: u64,
    next: u64,
}

impl PagePool {
    fn take(&mut self) -> u64 {
        let page = self.base + self.next % self.pages * 4096;
        self.next += 1;
        page
    }
}

/// What a synchronisation reads and writes beside the shadow.
pub struct SyncContext<'a> {
    /// The child's table; its dirty flags are cleared where all was seen.
    pub child: &'a mut RadixTable,
    /// The level below the child.
    pub parent: &'a dyn Below,
    /// Receives the operations, in order.
    pub ops: &'a mut Vec<ShadowOp>,
    /// Counts the work.
    pub counters: &'a mut ShadowCounters,
}

impl Shadow {
    /// An empty shadow for a child of `levels`.
    pub fn new(levels: u32) -> Shadow {
        Shadow::with_pages(levels, 1 << 44, 1 << 40)
    }

    /// An empty shadow whose table pages lie at `base`, `pages` of 4 KiB. If
    /// the hardware walks the shadow over another stage, they are addresses
    /// of that stage's input.
    pub fn with_pages(levels: u32, base: u64, pages: u64) -> Shadow {
        let mut pool = PagePool { base, pages, next: 0 };
        Shadow {
            table: RadixTable::new(levels, Prune::Empty, &mut |_: u32, _: u64| pool.take()),
            synced: RadixTable::new(levels, Prune::Empty, &mut |_: u32, _: u64| 0),
            lost: false,
            pages: pool,
            pages_in: 0,
            pages_out: 0,
        }
    }

    /// 4 KiB pages that leaves have come to map and ceased to map, in total:
    /// what `pin-per-entry` pins and unpins.
    pub fn page_traffic(&self) -> (u64, u64) {
        (self.pages_in, self.pages_out)
    }

    /// What the hardware walks.
    pub fn table(&self) -> &RadixTable {
        &self.table
    }

    /// What was last seen of the child.
    pub fn synced(&self) -> &RadixTable {
        &self.synced
    }

    /// Compares the child with the shadow over `[start, end)`, rounded to
    /// entry spans, and mends the differences.
    pub fn sync(&mut self, cx: &mut SyncContext<'_>, start: u64, end: u64) {
        let limit = 1 << cx.child.width();
        let end = end.min(limit);
        if start >= end {
            return;
        }
        let whole = start == 0 && end == limit;
        self.sync_node(cx, RadixTable::ROOT, cx.child.levels() - 1, 0, start, end);
        if whole {
            self.lost = false;
        }
    }

    /// Looks at `entries` consecutive entries of the child's node at `level`,
    /// from the one that translates `iova`. Nothing above them is read. If the
    /// node is gone, whatever removed it says so in a store of its own.
    pub fn sync_entries(&mut self, cx: &mut SyncContext<'_>, level: u32, iova: u64, entries: u64) {
        let Some(node) = cx.child.node_at(level, iova) else { return };
        let span = entry_span(level);
        let base = iova & !(span * FANOUT as u64 - 1);
        self.sync_node(cx, node, level, base, iova, iova + entries * span);
    }

    /// Walks the child for `iova`, as an answer to a device's fault, and
    /// shadows the entry that it finds.
    pub fn fill(&mut self, cx: &mut SyncContext<'_>, iova: u64) {
        if !cx.child.covers(iova) {
            return;
        }
        let mut node = RadixTable::ROOT;
        for level in (0..cx.child.levels()).rev() {
            let e = cx.child.read(node, level, iova);
            cx.counters.pte_reads += 1;
            match e.node() {
                Some(below) => node = below,
                None => {
                    cx.counters.entries_examined += 1;
                    if e.is_leaf() {
                        self.seen_leaf(cx, iova & !(entry_span(level) - 1), Leaf::new(e, level));
                    } else {
                        cx.counters.skipped += 1;
                    }
                    return;
                }
            }
        }
    }

    /// Drops every shadowed guest entry that overlaps `[start, end)`, whole
    /// entries always, without a look at the child: one host unmap, or none.
    pub fn forget(&mut self, cx: &mut SyncContext<'_>, start: u64, end: u64) {
        let mut hull: Option<(u64, u64)> = None;
        self.synced.visit(start, end, &mut |at, leaf| {
            let first = hull.map_or(at, |(first, _)| first);
            hull = Some((first, at + leaf.size.bytes()));
            true
        });
        match hull {
            Some((start, end)) => self.drop_overlapping(cx, start, end - start),
            None => cx.counters.skipped += 1,
        }
    }

    fn sync_node(
        &mut self,
        cx: &mut SyncContext<'_>,
        node: NodeId,
        level: u32,
        base: u64,
        start: u64,
        end: u64,
    ) {
        let span = entry_span(level);
        let node_end = base + span * FANOUT as u64;
        let covered = start <= base && node_end <= end;
        if covered && !self.lost && !cx.child.is_dirty(node) {
            return self.sync_clean_node(cx, node, level, base, start, end);
        }
        let first = index(level, start.max(base));
        let last = index(level, (end - 1).min(node_end - 1));
        let mut i = first;
        while i <= last {
            if level == 0 {
                // Most entries are as they were: pass over them in a block.
                let same = self.unchanged(cx.child, node, base, i, last);
                cx.counters.pte_reads += same;
                cx.counters.entries_examined += same;
                cx.counters.skipped += same;
                i += same as usize;
                if i > last {
                    break;
                }
            }
            let at = base + i as u64 * span;
            i += 1;
            let e = cx.child.read(node, level, at);
            cx.counters.pte_reads += 1;
            if let Some(below) = e.node() {
                self.sync_node(cx, below, level - 1, at, start, end);
                continue;
            }
            cx.counters.entries_examined += 1;
            if e.is_leaf() {
                self.seen_leaf(cx, at, Leaf::new(e, level));
            } else {
                self.seen_absent(cx, at, span);
            }
        }
        if covered {
            cx.child.clear_dirty(node);
        }
    }

    /// How many entries of a lowest-level node, from `first` to `last`, are
    /// what was last seen of them, up to the first that is not.
    fn unchanged(
        &self,
        child: &RadixTable,
        node: NodeId,
        base: u64,
        first: usize,
        last: usize,
    ) -> u64 {
        let now = &child.node_entries(node)[first..=last];
        let same = match self.synced.lowest(base) {
            Lowest::Node(seen) => {
                let seen = &self.synced.node_entries(seen)[first..=last];
                now.iter().zip(seen).take_while(|(a, b)| a == b).count()
            }
            Lowest::Absent => now.iter().take_while(|e| !e.is_present()).count(),
            Lowest::LargerLeaf => 0,
        };
        same as u64
    }

    /// A node whose entries the last full look at it found in line: the VMM
    /// reads them all again and changes nothing, so only counts are needed.
    fn sync_clean_node(
        &mut self,
        cx: &mut SyncContext<'_>,
        node: NodeId,
        level: u32,
        base: u64,
        start: u64,
        end: u64,
    ) {
        let pointers = cx.child.pointers(node);
        let others = FANOUT as u64 - pointers as u64;
        cx.counters.pte_reads += FANOUT as u64;
        cx.counters.entries_examined += others;
        cx.counters.skipped += others;
        let mut left = pointers;
        let mut i = 0;
        while left > 0 {
            let entries = &cx.child.node_entries(node)[i..];
            let Some(next) = entries.iter().position(|e| e.node().is_some()) else { break };
            i += next + 1;
            left -= 1;
            let at = base + (i - 1) as u64 * entry_span(level);
            if let Some(below) = cx.child.read(node, level, at).node() {
                self.sync_node(cx, below, level - 1, at, start, end);
            }
        }
    }

    fn seen_leaf(&mut self, cx: &mut SyncContext<'_>, iova: u64, leaf: Leaf) {
        let size = leaf.size.bytes();
        match self.synced.lookup(iova) {
            Some(old) if old == leaf => {
                cx.counters.skipped += 1;
                return;
            }
            None if leaf.size == PageSize::Size4K => {}
            _ => {
                if self.synced.any_in(iova, iova + size) {
                    self.drop_overlapping(cx, iova, size);
                }
            }
        }
        self.map(cx, iova, leaf.out, size, leaf.perm);
        let mapped = self.synced.map(iova, leaf.out, size, leaf.perm, leaf.size, &mut |_, _| 0);
        debug_assert!(mapped.is_ok(), "as wide as the child");
    }

    fn seen_absent(&mut self, cx: &mut SyncContext<'_>, iova: u64, span: u64) {
        if self.synced.any_in(iova, iova + span) {
            self.drop_overlapping(cx, iova, span);
        } else {
            cx.counters.skipped += 1;
        }
    }

    /// Removes what was seen inside the span; the host sees one unmap of it.
    ///
    /// Of a larger entry that reaches outside (split by the guest without an
    /// unmap) the rest stays, in smaller entries, because it is still valid.
    /// QEMU's `iova_tree_remove` forgets all of it while the host unmaps the
    /// span only, and from then on its record and the shadow differ.
    fn drop_overlapping(&mut self, cx: &mut SyncContext<'_>, iova: u64, span: u64) {
        self.synced.unmap(iova, span, &mut |_: u32, _: u64| 0);
        self.unmap_call(cx, iova, span);
    }

    /// A captured map call: no look at the child's table.
    pub fn map_call(
        &mut self,
        cx: &mut SyncContext<'_>,
        iova: u64,
        gpa: u64,
        len: u64,
        perm: Perm,
    ) {
        if self.table.any_in(iova, iova + len) {
            self.unmap_call(cx, iova, len);
        }
        self.map(cx, iova, gpa, len, perm);
    }

    /// A captured unmap call.
    pub fn unmap_call(&mut self, cx: &mut SyncContext<'_>, iova: u64, len: u64) {
        self.remove(cx, iova, len);
        cx.counters.unmap_calls += 1;
        cx.ops.push(ShadowOp::Unmap { iova, size: len });
    }

    /// One host map call: the span is composed with the parent piece by
    /// piece, in the largest leaves that both levels allow.
    fn map(&mut self, cx: &mut SyncContext<'_>, iova: u64, gpa: u64, len: u64, perm: Perm) {
        let had = self.table.leaves();
        let first = self.compose(cx.parent, iova, gpa, len, perm);
        let c = &mut *cx.counters;
        c.map_calls += 1;
        c.mapped += self.table.leaves().saturating_sub(had);
        c.resident_entries_peak = c.resident_entries_peak.max(self.table.leaves());
        cx.ops.push(ShadowOp::Map { iova, size: len, gpa, hpa: first, perm });
    }

    /// Writes the composition of a span with the level below; returns the
    /// HPA of its first byte, 0 if there is none.
    fn compose(&mut self, below: &dyn Below, iova: u64, gpa: u64, len: u64, perm: Perm) -> u64 {
        let mut done = 0;
        let mut first = 0;
        while done < len {
            let Some(leaf) = below.lookup(gpa + done) else {
                // Not memory (a hole, a device): the host has nothing to map.
                done += 4096 - ((gpa + done) & 0xfff);
                continue;
            };
            let hpa = leaf.translate(gpa + done);
            let piece = (leaf.size.bytes() - (hpa & (leaf.size.bytes() - 1))).min(len - done);
            let rights = perm.and(leaf.perm);
            let pages = &mut self.pages;
            let mut place = |_: u32, _: u64| pages.take();
            let mapped = self.table.map(iova + done, hpa, piece, rights, leaf.size, &mut place);
            debug_assert!(mapped.is_ok(), "as wide as the child");
            if rights != Perm::NONE {
                self.pages_in += piece.div_ceil(4096);
            }
            if done == 0 {
                first = hpa;
            }
            done += piece;
        }
        first
    }

    /// Removes what the shadow maps in a span; returns the bytes.
    fn erase(&mut self, iova: u64, len: u64) -> u64 {
        let pages = &mut self.pages;
        let bytes = self.table.unmap(iova, len, &mut |_: u32, _: u64| pages.take());
        self.pages_out += bytes / 4096;
        bytes
    }

    /// The level below changed under a span that this shadow translates to
    /// `gpa` with `perm`: composes the span anew. What was seen of the child
    /// stays. Returns the leaves removed and written.
    ///
    /// The caller drops `[iova, iova + len)` from the hardware's caches.
    pub fn mend(&mut self, below: &dyn Below, iova: u64, gpa: u64, len: u64, perm: Perm) -> u64 {
        let removed = self.mend_gone(iova, len);
        let before = self.table.leaves();
        self.compose(below, iova, gpa, len, perm);
        removed + self.table.leaves().abs_diff(before)
    }

    /// [`Shadow::mend`] where the level below has nothing left that the span
    /// could lead to: no record is needed, since nothing is composed.
    pub fn mend_gone(&mut self, iova: u64, len: u64) -> u64 {
        let before = self.table.leaves();
        self.erase(iova, len);
        before.abs_diff(self.table.leaves())
    }

    /// Makes every entry unreachable at once by giving the hardware an empty
    /// root; what was seen of the child stays. Returns the old table, to be
    /// taken apart when there is time.
    pub fn retire(&mut self) -> RadixTable {
        let pages = &mut self.pages;
        let mut place = |_: u32, _: u64| pages.take();
        let empty = RadixTable::new(self.table.levels(), Prune::Empty, &mut place);
        // Every page that came and has not gone goes now.
        self.pages_out = self.pages_in;
        std::mem::replace(&mut self.table, empty)
    }

    /// Composes a span of the child into a shadow that was retired; what is
    /// there already stays. Returns the leaves written.
    pub fn restore(&mut self, below: &dyn Below, iova: u64, gpa: u64, len: u64, perm: Perm) -> u64 {
        let before = self.table.leaves();
        if self.table.any_in(iova, iova + len) {
            // Written by a synchronisation since: equal, and pages count once.
            self.erase(iova, len);
        }
        self.compose(below, iova, gpa, len, perm);
        self.table.leaves().abs_diff(before)
    }

    fn remove(&mut self, cx: &mut SyncContext<'_>, iova: u64, len: u64) {
        let had = self.table.leaves();
        self.erase(iova, len);
        let left = self.table.leaves();
        let c = &mut *cx.counters;
        c.unmapped += had.saturating_sub(left);
        // A larger leaf was split: its rest is written anew.
        c.mapped += left.saturating_sub(had);
        c.resident_entries_peak = c.resident_entries_peak.max(left);
    }

    /// Drops everything (the device left the address space, or the parent
    /// changed under `flush-all`); returns the number of entries dropped.
    pub fn clear(&mut self) -> u64 {
        let all = 1u64 << self.table.width();
        let had = self.table.leaves();
        self.erase(0, all);
        self.synced.unmap(0, all, &mut |_: u32, _: u64| 0);
        self.lost = true;
        had
    }
}

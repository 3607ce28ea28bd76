//! Changing a radix table.

use super::{
    Entry, FANOUT, Lowest, NodeId, Placement, Prune, PteWriteKind, RadixTable, entry_span, index,
};
use crate::events::{PAGE_MASK, PAGE_SIZE, PageSize, Perm};

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The range ends beyond the table's width.
    #[error("address {addr:#x} is beyond the {width} bits that the table translates")]
    BeyondWidth {
        /// First address that is too large.
        addr: u64,
        /// The table's width in bits.
        width: u32,
    },
}

/// What a map found where it wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapOutcome {
    /// Leaves written.
    pub written: u64,
    /// Leaves that were already there with the same output and rights.
    pub same: u64,
    /// Leaves that replaced something else that was mapped.
    pub replaced: u64,
}

impl RadixTable {
    /// Maps `[addr, addr + len)` to `out`, with the largest leaves (up to
    /// `largest`) that alignment and length allow. What was mapped there goes.
    ///
    /// # Errors
    /// [`TableError::BeyondWidth`]; nothing is changed then.
    pub fn map(
        &mut self,
        addr: u64,
        out: u64,
        len: u64,
        perm: Perm,
        largest: PageSize,
        place: &mut impl Placement,
    ) -> Result<MapOutcome, TableError> {
        let mut outcome = MapOutcome::default();
        if len == 0 || perm == Perm::NONE {
            return Ok(outcome);
        }
        self.check(addr, len)?;
        let mut at = addr & !0xfff;
        let mut to = out & !0xfff;
        let end = (addr + len + 0xfff) & !0xfff;
        while at < end {
            let size = PageSize::ALL
                .into_iter()
                .rev()
                .find(|s| {
                    *s <= largest
                        && (s.shift() - 12) / 9 < self.levels
                        && (at | to) & (s.bytes() - 1) == 0
                        && end - at >= s.bytes()
                })
                .unwrap_or(PageSize::Size4K);
            self.map_leaf(at, to, size, perm, place, &mut outcome);
            at += size.bytes();
            to += size.bytes();
        }
        Ok(outcome)
    }

    fn check(&self, addr: u64, len: u64) -> Result<(), TableError> {
        let width = self.width();
        match addr.checked_add(len - 1) {
            Some(last) if last >> width == 0 => Ok(()),
            Some(_) | None => Err(TableError::BeyondWidth { addr: addr.max(1 << width), width }),
        }
    }

    fn map_leaf(
        &mut self,
        at: u64,
        out: u64,
        size: PageSize,
        perm: Perm,
        place: &mut impl Placement,
        outcome: &mut MapOutcome,
    ) {
        let target = size as u32;
        let mut node = Self::ROOT;
        for level in (target + 1..self.levels).rev() {
            let slot = node.0 as usize * FANOUT + index(level, at);
            let e = self.entries[slot];
            node = match e.node() {
                Some(next) => next,
                None => {
                    // A leaf above the new one gives way; the rest of what it
                    // covered stays mapped in smaller leaves.
                    let base = at & !(entry_span(level) - 1);
                    self.add_node(node, slot, level, base, place)
                }
            };
        }
        let slot = node.0 as usize * FANOUT + index(target, at);
        let (old, new) = (self.entries[slot], Entry::leaf(out, perm));
        place.wrote(target, at, PteWriteKind::Value);
        if old == new {
            outcome.same += 1;
            return;
        }
        if let Some(below) = old.node() {
            let had = self.leaves;
            self.drop_subtree(below, target - 1);
            outcome.replaced += (self.leaves < had) as u64;
            self.meta[node.0 as usize].pointers -= 1;
            self.leaves += 1;
        } else if old.is_leaf() {
            outcome.replaced += 1;
        } else {
            self.meta[node.0 as usize].live += 1;
            self.leaves += 1;
        }
        outcome.written += 1;
        self.entries[slot] = new;
        self.meta[node.0 as usize].dirty = true;
    }

    /// Puts a node below `slot` of `parent`; a leaf there is split into it.
    fn add_node(
        &mut self,
        parent: NodeId,
        slot: usize,
        level: u32,
        base: u64,
        place: &mut impl Placement,
    ) -> NodeId {
        let old = self.entries[slot];
        let node = self.new_node(level - 1, place.place(level - 1, base));
        self.meta[parent.0 as usize].dirty = true;
        if old.is_leaf() {
            let step = entry_span(level - 1);
            for i in 0..FANOUT {
                self.entries[node.0 as usize * FANOUT + i] =
                    Entry::leaf(old.out() + i as u64 * step, old.perm());
            }
            self.meta[node.0 as usize].live = FANOUT as u16;
            self.leaves += FANOUT as u64 - 1;
        } else {
            self.meta[parent.0 as usize].live += 1;
        }
        self.meta[parent.0 as usize].pointers += 1;
        self.entries[slot] = Entry::pointer(node);
        let split = if old.is_leaf() { PteWriteKind::LinkSplit } else { PteWriteKind::LinkEmpty };
        place.wrote(level, base, split);
        node
    }

    /// Removes every leaf in `[addr, addr + len)`, rounded outwards to 4 KiB
    /// pages; a larger leaf that reaches outside is split first. Returns the
    /// bytes that were mapped.
    pub fn unmap(&mut self, addr: u64, len: u64, place: &mut impl Placement) -> u64 {
        let end = addr.saturating_add(len).min(1 << self.width());
        if addr >= end {
            return 0;
        }
        let (addr, end) = (addr & !PAGE_MASK, end.next_multiple_of(PAGE_SIZE));
        if end - addr == PAGE_SIZE
            && let Lowest::Node(node) = self.lowest(addr)
            && self.meta[node.0 as usize].live > 1
        {
            // One page, and no node goes with it.
            let slot = node.0 as usize * FANOUT + index(0, addr);
            if !self.entries[slot].is_present() {
                return 0;
            }
            self.clear(node, slot);
            place.wrote(0, addr, PteWriteKind::Value);
            self.leaves -= 1;
            return PAGE_SIZE;
        }
        self.unmap_node(Self::ROOT, self.levels - 1, 0, addr, end, place)
    }

    fn unmap_node(
        &mut self,
        node: NodeId,
        level: u32,
        base: u64,
        start: u64,
        end: u64,
        place: &mut impl Placement,
    ) -> u64 {
        let span = entry_span(level);
        let first = index(level, start.max(base));
        let last = index(level, (end - 1).min(base + span * FANOUT as u64 - 1));
        let mut bytes = 0;
        for i in first..=last {
            let slot = node.0 as usize * FANOUT + i;
            let e = self.entries[slot];
            if !e.is_present() {
                continue;
            }
            let at = base + i as u64 * span;
            let covered = start <= at && at + span <= end;
            let below = match e.node() {
                Some(below) => below,
                None if covered => {
                    self.clear(node, slot);
                    place.wrote(level, at, PteWriteKind::Value);
                    self.leaves -= 1;
                    bytes += span;
                    continue;
                }
                None => self.add_node(node, slot, level, at, place),
            };
            bytes += self.unmap_node(below, level - 1, at, start, end, place);
            let gone = match self.prune {
                Prune::Never => false,
                Prune::Covered => covered,
                Prune::Empty => self.meta[below.0 as usize].live == 0,
            };
            if gone {
                self.drop_subtree(below, level - 1);
                self.meta[node.0 as usize].pointers -= 1;
                self.clear(node, slot);
                place.wrote(level, at, PteWriteKind::Unlink);
            }
        }
        bytes
    }

    fn clear(&mut self, node: NodeId, slot: usize) {
        self.entries[slot] = Entry::EMPTY;
        self.meta[node.0 as usize].live -= 1;
        self.meta[node.0 as usize].dirty = true;
    }

    /// Frees `node` and all below it.
    fn drop_subtree(&mut self, node: NodeId, level: u32) {
        let at = node.0 as usize * FANOUT;
        for i in at..at + FANOUT {
            let e = std::mem::take(&mut self.entries[i]);
            if e.is_leaf() {
                self.leaves -= 1;
            } else if let Some(below) = e.node() {
                self.drop_subtree(below, level - 1);
            }
        }
        let meta = &mut self.meta[node.0 as usize];
        debug_assert_eq!(meta.level as u32, level);
        meta.generation = meta.generation.wrapping_add(1);
        self.free.push(node.0);
    }
}

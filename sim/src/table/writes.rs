//! The stores that change a table, as whoever traps them sees them.

use super::{FANOUT, entry_span, index};

/// What a store to an entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PteWriteKind {
    /// A leaf was written (or written again), or an entry cleared.
    Value,
    /// A pointer to an empty table page was written.
    LinkEmpty,
    /// A pointer to a page that holds the pieces of the leaf that was there.
    LinkSplit,
    /// A pointer was cleared, with all that lay below it. Linux's VT-d driver
    /// does not clear the entries of a page that it frees
    /// (`dma_pte_clear_level`), so those count no stores of their own.
    Unlink,
}

/// Stores to consecutive entries of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PteWrite {
    /// First address that the first entry translates.
    pub iova: u64,
    /// Level of the entries; 0 translates 4 KiB.
    pub level: u32,
    /// Entries; 1 unless they hold values.
    pub entries: u64,
    /// What was written.
    pub kind: PteWriteKind,
}

/// The stores of one map or unmap, in order. Runs of entries of one node take
/// one element, so the size is bounded by the nodes touched.
#[derive(Clone, Debug, Default)]
pub struct PteWrites(Vec<PteWrite>);

impl PteWrites {
    /// Adds a store to the entry at `level` that translates `iova`.
    pub fn push(&mut self, level: u32, iova: u64, kind: PteWriteKind) {
        let span = entry_span(level);
        match kind {
            PteWriteKind::Value => {
                if let Some(last) = self.0.last_mut()
                    && (last.kind, last.level) == (kind, level)
                    && last.iova + last.entries * span == iova
                    && index(level, iova) != 0
                {
                    last.entries += 1;
                    return;
                }
            }
            PteWriteKind::Unlink => {
                let inside =
                    |w: &PteWrite| w.level < level && iova <= w.iova && w.iova - iova < span;
                while self.0.last().is_some_and(inside) {
                    self.0.pop();
                }
            }
            PteWriteKind::LinkEmpty | PteWriteKind::LinkSplit => {}
        }
        debug_assert!(self.0.last().is_none_or(|w| w.entries <= FANOUT as u64));
        self.0.push(PteWrite { iova, level, entries: 1, kind });
    }

    /// The stores, in order.
    pub fn iter(&self) -> impl Iterator<Item = PteWrite> + '_ {
        self.0.iter().copied()
    }

    /// Entries written.
    pub fn entries(&self) -> u64 {
        self.0.iter().map(|w| w.entries).sum()
    }

    /// Forgets all and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

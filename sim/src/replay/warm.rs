//! Memory traffic in advance.
//!
//! A miss reads an entry of a table that is seldom in the processor's caches
//! when the trace touches many pages, and the replay would wait for each, one
//! request after the other. Requests are therefore looked at in groups: first
//! the entries are read for the whole group, which the processor does at the
//! same time, then the requests are replayed. Nothing of the model changes.

use std::hint::black_box;
use std::ops::Range;

use super::engine::Engine;
use super::spaces::SpaceId;
use crate::cache::Store;
use crate::config::Nesting;
use crate::events::Chunk;
use crate::table::RadixTable;

/// Requests per group.
pub(super) const GROUP: usize = 32;
/// Tables of fewer nodes (of 4 KiB) stay in the processor's caches.
const LARGE_TABLE: usize = 128;

impl<S: Store> Engine<S> {
    /// True if some table is too large for the processor's caches.
    pub(super) fn has_large_tables(&self) -> bool {
        self.spaces.ids().any(|id| self.walked_table(id).is_some_and(|t| t.nodes() >= LARGE_TABLE))
    }

    /// Reads ahead for requests to one address space.
    #[inline(always)]
    pub(super) fn read_ahead(&self, chunk: &Chunk, group: Range<usize>, space: SpaceId) {
        let Some(table) = self.walked_table(space) else { return };
        let entries = chunk.addr[group].iter().map(|addr| table.last_entry(*addr as u64));
        black_box(entries.fold(0, |all, entry| all ^ entry.out()));
    }

    /// What the walker reads for requests of a space.
    #[inline(always)]
    fn walked_table(&self, space: SpaceId) -> Option<&RadixTable> {
        let space = self.spaces.get(space);
        match self.config.nesting {
            Nesting::Software => space.shadow.as_ref().map(|s| s.table()),
            Nesting::Hardware | Nesting::None => space.child.as_ref(),
        }
    }
}

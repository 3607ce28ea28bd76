//! Memory traffic in advance.
//!
//! A miss reads an entry of a table that is seldom in the processor's caches
//! when the trace touches many pages, and the replay would wait for each, one
//! request after the other. Requests are therefore looked at in groups: first
//! the entries are read for the whole group, which the processor does at the
//! same time, then the requests are replayed. A group may have many sources: the
//! tables of a thousand tenants are small each and large together. Nothing of
//! the model changes.

use std::hint::black_box;
use std::ops::Range;

use super::engine::Engine;
use super::spaces::{PARENT_SPACE, SpaceId};
use crate::cache::Store;
use crate::config::Nesting;
use crate::events::{Chunk, DomainId, Flags, Kind, Pasid, Requester};
use crate::table::RadixTable;

/// Requests per group.
pub(super) const GROUP: usize = 32;
/// Entries of 4 KiB pages in one line of the processor's caches, 64 bytes.
const LINE_SHIFT: u32 = 15;
/// Fewer nodes (of 4 KiB) in all stay in the processor's caches.
const LARGE_TABLES: usize = 128;

impl<S: Store> Engine<S> {
    /// True if the tables are too large for the processor's caches.
    pub(super) fn has_large_tables(&self) -> bool {
        let tables = self.spaces.ids().filter_map(|id| self.walked_table(id));
        tables.map(RadixTable::nodes).sum::<usize>() >= LARGE_TABLES
    }

    /// Reads ahead for a group of events; not for requests whose sources are
    /// new, and those that a recording shows the GPA of.
    pub(super) fn read_ahead(&self, chunk: &Chunk, group: Range<usize>) {
        let kinds = chunk.kind[group.clone()].iter().zip(&chunk.addr[group.clone()]);
        let sources = chunk.requester[group.clone()].iter().zip(&chunk.pasid[group.clone()]);
        let sources = sources.zip(&chunk.domain[group.clone()]).zip(&chunk.flags[group]);
        let (mut latest, mut table, mut line) = (None, None, u64::MAX);
        let mut all = 0;
        for ((kind, addr), (source, flags)) in kinds.zip(sources) {
            if *kind != Kind::Dma as i32 {
                continue;
            }
            if latest != Some(source) {
                (latest, line) = (Some(source), u64::MAX);
                let ((requester, pasid), domain) = source;
                let route = self.spaces.known(
                    Requester(*requester as u32),
                    Pasid(*pasid as u32),
                    DomainId(*domain as u32),
                );
                let walked = route.filter(|r| !self.is_passed(r.space, Flags(*flags as u32)));
                table = walked.and_then(|r| self.walked_table(r.space));
            }
            let addr = *addr as u64;
            if let Some(table) = table
                && addr >> LINE_SHIFT != line
            {
                line = addr >> LINE_SHIFT;
                all ^= table.read_ahead(addr);
            }
        }
        black_box(all);
    }

    /// Such a request needs no table: the recording shows its GPA.
    #[inline(always)]
    fn is_passed(&self, space: SpaceId, flags: Flags) -> bool {
        self.config.nesting == Nesting::None && space != PARENT_SPACE && self.gpa_known(flags)
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

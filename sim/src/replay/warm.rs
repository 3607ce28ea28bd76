//! Memory traffic in advance.
//!
//! A miss reads one entry of a table and one byte of history that are seldom
//! in the processor's caches when the trace touches many pages, and the replay
//! would wait for both, one request after the other. Requests are therefore
//! looked at in groups: first the places are computed and read for the whole
//! group, which the processor does at the same time, then the requests are
//! replayed. Nothing of the model changes.

use std::hint::black_box;
use std::ops::Range;

use super::engine::Engine;
use super::spaces::SpaceId;
use crate::cache::{Key, Store};
use crate::config::Nesting;
use crate::events::{Chunk, DomainId, PageSize, Pasid, Requester};
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

    /// Reads ahead for a group of requests. Those from another source than
    /// the first are left out.
    pub(super) fn warm_up(&self, chunk: &Chunk, group: Range<usize>) {
        let source = |i: usize| (chunk.requester[i], chunk.pasid[i], chunk.domain[i]);
        let first = source(group.start);
        let (requester, pasid, domain) = first;
        let route = self.spaces.known_route(
            Requester(requester as u32),
            Pasid(pasid as u32),
            DomainId(domain as u32),
        );
        let Some(route) = route else { return };
        let Some(table) = self.walked_table(route.space) else { return };
        let (mut slots, mut bytes) = ([0; GROUP], [0; GROUP]);
        let mut found = 0;
        for i in group {
            let addr = chunk.addr[i] as u64;
            if source(i) != first || !table.covers(addr) {
                continue;
            }
            let key = Key::new(route.tag, PageSize::Size4K, addr);
            if self.config.nesting != Nesting::None && self.iotlb.holds(key) {
                continue;
            }
            slots[found] = table.last_slot(addr);
            bytes[found] = self.iotlb.history_place(key).unwrap_or(0);
            found += 1;
        }
        let mut all = 0;
        for (slot, byte) in slots[..found].iter().zip(&bytes[..found]) {
            all ^= table.slot(*slot).out() ^ self.iotlb.history_at(*byte) as u64;
        }
        black_box(all);
    }

    /// What the walker reads for requests of a space.
    fn walked_table(&self, space: SpaceId) -> Option<&RadixTable> {
        let space = self.spaces.get(space);
        match self.config.nesting {
            Nesting::Software => space.shadow.as_ref().map(|s| s.table()),
            Nesting::Hardware | Nesting::None => space.child.as_ref(),
        }
    }
}

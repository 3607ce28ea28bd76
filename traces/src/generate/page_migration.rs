//! Page migration: compaction, NUMA balancing, memory failure.
//!
//! A page's content moves to another host page under the same GPA. Linux
//! migrates in batches of 32 (`COMPACT_CLUSTER_MAX` in `include/linux/swap.h`).
//! Pages that VFIO pinned cannot move (commit 119d6d59dcc0, "mm, compaction:
//! avoid isolating pinned pages"): this workload is what a host does whose
//! parent is not pinned - I/O page faults, or a VMM that moves pages itself.
//! It unmaps and maps, the only way that VFIO and iommufd have; nothing is
//! accessed between the two, because device or guest are held meanwhile.

use super::workload::{Guest, Work};

/// Moves pages, in use or not.
#[derive(Debug)]
pub(super) struct PageMigration {
    /// Pages per operation.
    pub batch: u64,
}

impl Work for PageMigration {
    fn step(&mut self, guest: &mut Guest) {
        for _ in 0..self.batch {
            let Some(at) = guest.choose(true) else { return };
            guest.host.relocate(at, at + guest.host.unit);
        }
    }
}

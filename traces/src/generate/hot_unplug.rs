//! Memory hot-unplug of whole DIMMs.
//!
//! The guest takes every memory block of the DIMM offline (128 MiB each on
//! x86-64, `MIN_MEMORY_BLOCK_SIZE`), which fails while a page of it cannot be
//! moved, for example because it is mapped for DMA; then it ejects the DIMM
//! and the VMM removes the whole memory region, so that VFIO's memory listener
//! gets one unmap of the DIMM's range (QEMU `vfio_listener_region_del`).
//! Plugging is one map of the range. Linux:
//! `Documentation/admin-guide/mm/memory-hotplug.rst`.

use super::workload::{Guest, Removal, Work};

/// Unplugs and plugs DIMMs.
#[derive(Debug)]
pub(super) struct HotUnplug(pub Removal);

impl Work for HotUnplug {
    fn step(&mut self, guest: &mut Guest) {
        self.0.step(guest);
    }
}

//! virtio-mem.
//!
//! Memory comes and goes in blocks of the device, 2 MiB by default on x86-64
//! (QEMU, `virtio_mem_default_block_size`); Linux's driver unplugs from the
//! highest memory block down and plugs again from the lowest that is missing,
//! so the last block to go comes back first
//! (`drivers/virtio/virtio_mem.c`, `virtio_mem_unplug_request`). VFIO is told:
//! QEMU's `RamDiscardManager` unmaps each block that is unplugged and maps
//! each that is plugged (commit 53d1b5fcfb40, "vfio: Disable only
//! uncoordinated discards for VFIO_TYPE1 iommus").
//!
//! With a vIOMMU the guest must not have mapped a discarded block: "sane
//! guests will never map discarded memory ... or keep it mapped into an IOMMU
//! while memory is getting discarded" (commit 0fd7616e0f11, "vfio: Support for
//! RamDiscardManager in the vIOMMU case"). That is this workload's rule too;
//! `--in-use` is the malicious guest that the same commit names.

use super::workload::{Guest, Removal, Work};

/// Unplugs and plugs blocks.
#[derive(Debug)]
pub(super) struct VirtioMem(pub Removal);

impl Work for VirtioMem {
    fn step(&mut self, guest: &mut Guest) {
        self.0.step(guest);
    }
}

//! virtio-balloon.
//!
//! The guest's driver hands pages to the device in arrays of 256 page numbers
//! of 4 KiB and takes the last ones back first (Linux
//! `drivers/virtio/virtio_balloon.c`: `VIRTIO_BALLOON_ARRAY_PFNS_MAX`,
//! `fill_balloon`, `leak_balloon`). Its pages are free pages of the guest, so
//! none is mapped for DMA; before the guest uses one again it deflates.
//!
//! Today's QEMU discards each page with `madvise` and does not tell VFIO,
//! which keeps the page pinned; QEMU therefore inhibits ballooning while a
//! VFIO device is attached (commit c65ee433153b, "vfio: Inhibit ballooning
//! based on group attachment to a container"). This workload is what a VMM
//! does that unmaps the page from the parent instead, the coordinated discard
//! that virtio-mem already has. `--size 2M` is the same for huge pages, as
//! free page reporting hands them over.

use super::workload::{Guest, Removal, Work};

/// Inflates and deflates.
#[derive(Debug)]
pub(super) struct Balloon(pub Removal);

impl Work for Balloon {
    fn step(&mut self, guest: &mut Guest) {
        self.0.step(guest);
    }
}

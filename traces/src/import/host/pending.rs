//! What VFIO announces in a line of its own before iommufd's line says that
//! it was carried out. Without iommufd (VFIO's own containers) only the
//! announcement is logged.

/// Threads with an announcement at once; QEMU's have some dozens.
pub(super) const MAX_THREADS: usize = 1 << 12;

/// What was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// RAM added to a container.
    Ram,
    /// RAM removed from a container.
    RamGone,
    /// A mapping of the emulated IOMMU.
    Map,
    /// An unmapping of the emulated IOMMU.
    Unmap,
}

/// An announcement; the range is inclusive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) what: Announced,
    pub(super) start: u64,
    pub(super) last: u64,
    pub(super) time: i64,
}

impl Pending {
    /// True if it is about this range. QEMU unmaps the whole space in one or
    /// two steps, the last of which is what counts.
    pub(super) fn is(&self, (start, last): (u64, u64)) -> bool {
        self.start == start && self.last == last
    }
}

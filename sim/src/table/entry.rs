//! One page-table entry.

use super::NodeId;
use crate::events::{PageSize, Perm};

/// A page-table entry: bits 1:0 rights of a leaf, bit 2 set if it points to a
/// node, bits 63:12 output address or node index. 0 = not present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Entry(u64);

impl Entry {
    /// Not present.
    pub const EMPTY: Entry = Entry(0);
    const POINTER: u64 = 4;

    /// A leaf to `out` (4 KiB aligned at least) with non-empty rights.
    #[inline]
    pub fn leaf(out: u64, perm: Perm) -> Entry {
        debug_assert!(out & 0xfff == 0 && perm != Perm::NONE);
        Entry(out | perm.0 as u64)
    }

    /// A pointer to a node of the same table.
    #[inline]
    pub(super) fn pointer(node: NodeId) -> Entry {
        Entry((node.0 as u64) << 12 | Self::POINTER)
    }

    /// True if the entry is a leaf or a pointer.
    #[inline]
    pub fn is_present(self) -> bool {
        self.0 != 0
    }

    /// True if the entry is a leaf.
    #[inline]
    pub fn is_leaf(self) -> bool {
        self.0 & 3 != 0
    }

    /// The node that a pointer names.
    #[inline]
    pub fn node(self) -> Option<NodeId> {
        (self.0 & Self::POINTER != 0).then_some(NodeId((self.0 >> 12) as u32))
    }

    /// Output address of a leaf.
    #[inline]
    pub fn out(self) -> u64 {
        self.0 & !0xfff
    }

    /// Rights of a leaf.
    #[inline]
    pub fn perm(self) -> Perm {
        Perm((self.0 & 3) as u8)
    }
}

/// A leaf as a lookup returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Output address of the leaf's first byte.
    pub out: u64,
    /// Size of the leaf.
    pub size: PageSize,
    /// Rights.
    pub perm: Perm,
}

impl Leaf {
    #[inline]
    pub(crate) fn new(e: Entry, level: u32) -> Leaf {
        let size = PageSize::from_level(level).expect("leaves exist at levels 0 to 2 only");
        Leaf { out: e.out(), size, perm: e.perm() }
    }

    /// Output address for `addr`, which the leaf translates.
    #[inline]
    pub fn translate(&self, addr: u64) -> u64 {
        self.out | (addr & (self.size.bytes() - 1))
    }
}

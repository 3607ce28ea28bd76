//! Caches of translations: a set-associative cache with exchangeable
//! replacement, the emptied-when-full cache of QEMU, and the bookkeeping that
//! tells why a request missed.

mod history;
mod index;
mod iotlb;
mod low8;
mod lru_sets;
mod set_assoc;
mod sizes;

pub mod replacement;

pub use history::{History, Seen};
pub use iotlb::{
    Cached, Filled, FlushWhenFullStore, Iotlb, MissCause, PageMatch, PageRange, SetAssocStore,
    Store,
};
pub use low8::FlushWhenFull;
pub use lru_sets::LruSets;
pub use set_assoc::{Fill, SetAssoc};
pub use sizes::Sizes;

use crate::events::PageSize;

/// Names a cached translation: page number, page size and tag in one word.
///
/// Bits 44:0 page number at the page's own size, bits 46:45 [`PageSize`],
/// bits 63:47 tag. 57-bit addresses need 45 bits of page number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Key(u64);

/// Dense number of what entries are tagged with (domain, and requester and
/// PASID where configured).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u32);

impl Tag {
    /// Number of tags that a key can hold.
    pub const LIMIT: u32 = (1 << 17) - 1;
}

impl Key {
    /// A key that no translation has; marks free slots.
    pub const FREE: Key = Key(u64::MAX);
    const SIZE_SHIFT: u32 = 45;
    const TAG_SHIFT: u32 = 47;

    /// The key of the page of `size` that holds `addr`.
    #[inline]
    pub fn new(tag: Tag, size: PageSize, addr: u64) -> Key {
        let number = (addr >> size.shift()) & ((1 << Self::SIZE_SHIFT) - 1);
        Key(number | (size as u64) << Self::SIZE_SHIFT | (tag.0 as u64) << Self::TAG_SHIFT)
    }

    /// Page number at the page's own size.
    #[inline]
    pub fn number(self) -> u64 {
        self.0 & ((1 << Self::SIZE_SHIFT) - 1)
    }

    /// Page size.
    #[inline]
    pub fn size(self) -> PageSize {
        match (self.0 >> Self::SIZE_SHIFT) & 3 {
            0 => PageSize::Size4K,
            1 => PageSize::Size2M,
            _ => PageSize::Size1G,
        }
    }

    /// Index of the page size: `size() as usize`, without the checks.
    #[inline(always)]
    pub(crate) fn size_index(self) -> usize {
        (self.0 >> Self::SIZE_SHIFT) as usize & 3
    }

    /// Tag.
    #[inline]
    pub fn tag(self) -> Tag {
        Tag((self.0 >> Self::TAG_SHIFT) as u32)
    }

    /// First address of the page.
    #[inline]
    pub fn base(self) -> u64 {
        self.number() << self.size().shift()
    }

    /// True if the page overlaps `[start, end)`.
    #[inline]
    pub fn overlaps(self, start: u64, end: u64) -> bool {
        self.base() < end && start < self.base() + self.size().bytes()
    }

    /// The key as a number, for hashing.
    #[inline]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

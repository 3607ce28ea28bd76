//! Caches of translations: a set-associative cache with exchangeable
//! replacement, the emptied-when-full cache of QEMU, and the bookkeeping that
//! tells why a request missed.

mod full_lru;
mod history;
mod index;
mod iotlb;
mod low8;
mod lru_sets;
mod prefetched;
mod set_assoc;
mod sizes;

pub mod replacement;

pub use full_lru::FullLru;
pub use history::{History, Seen};
pub use iotlb::{
    CacheStore, Cached, Filled, FlushWhenFullStore, Iotlb, MissCause, PageMatch, PageRange,
    SetAssocStore, Store,
};
pub use low8::FlushWhenFull;
pub use lru_sets::LruSets;
pub use set_assoc::SetAssoc;
pub use sizes::{SizeCounts, Sizes};

use crate::events::PageSize;

/// What a cache keeps by key: a small value.
pub trait Value: Copy + Default + std::fmt::Debug + Send {}

impl<V: Copy + Default + std::fmt::Debug + Send> Value for V {}

/// A cache from [`Key`] to a small value that evicts one entry at a time.
pub trait Cache<V>: Clone + std::fmt::Debug + Send {
    /// [`replacement::Replacement::COUNTS_HITS`] of the policy.
    const COUNTS_HITS: bool = false;

    /// Entries present by page size.
    fn by_size(&self) -> &SizeCounts;
    /// Capacity in entries.
    fn capacity(&self) -> usize;
    /// Looks `key` up and notes the reference.
    fn get(&mut self, key: Key) -> Option<V>;
    /// Looks `key` up without a trace.
    fn peek(&self, key: Key) -> Option<V>;
    /// Inserts `key`, a present entry is overwritten in place; returns the
    /// entry that had to make room.
    fn insert(&mut self, key: Key, value: V) -> Option<Key>;
    /// Inserts `key`, which is not present: saves the search.
    fn insert_absent(&mut self, key: Key, value: V) -> Option<Key>;
    /// Removes `key`; true if it was present.
    fn remove(&mut self, key: Key) -> bool;
    /// Removes every entry for which `f` holds; returns how many.
    fn remove_if(&mut self, f: impl FnMut(Key) -> bool) -> usize;
    /// Calls `f` for every entry present.
    fn for_each(&self, f: impl FnMut(Key, V));

    /// Entries present.
    fn len(&self) -> usize {
        self.by_size().total()
    }

    /// True if no entry is present.
    fn is_empty(&self) -> bool {
        self.sizes().is_none()
    }

    /// Page sizes of the entries present.
    #[inline(always)]
    fn sizes(&self) -> Sizes {
        self.by_size().present()
    }

    /// True if an entry of this page size is present.
    #[inline(always)]
    fn holds(&self, size: PageSize) -> bool {
        self.by_size().has(size)
    }

    /// Removes the entries of `tag` that overlap `[start, end)`; returns how many.
    ///
    /// Small ranges are probed page by page and size by size; ranges with more
    /// pages than the cache has entries are found by going through the entries.
    fn remove_range(&mut self, tag: Tag, start: u64, end: u64) -> usize {
        if self.is_empty() || start >= end {
            return 0;
        }
        let mut removed = 0;
        for size in self.sizes() {
            let (first, last) = (start >> size.shift(), (end - 1) >> size.shift());
            if last - first >= self.capacity() as u64 {
                removed += self
                    .remove_if(|k| k.tag() == tag && k.size() == size && k.overlaps(start, end));
                continue;
            }
            for number in first..=last {
                removed += self.remove(Key::new(tag, size, number << size.shift())) as usize;
            }
        }
        removed
    }
}

/// A [`Cache`] whose fully associative counterpart is known.
pub trait Associative<V>: Cache<V> {
    /// The counterpart's type.
    type Full: Associative<V>;

    /// An empty fully associative cache of the same size and policy, or
    /// `None` if this one is fully associative.
    fn full(&self) -> Option<Self::Full>;
}

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
        let number = Self::number_of(size, addr);
        Key(number | (size as u64) << Self::SIZE_SHIFT | (tag.0 as u64) << Self::TAG_SHIFT)
    }

    /// The page number of `addr`, as keys have it.
    #[inline]
    pub(crate) fn number_of(size: PageSize, addr: u64) -> u64 {
        (addr >> size.shift()) & ((1 << Self::SIZE_SHIFT) - 1)
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

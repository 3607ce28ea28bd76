//! Which page sizes a cache holds, so that look-ups skip the others.

use super::Key;
use crate::events::PageSize;

const BY_BIT: [PageSize; 4] =
    [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G, PageSize::Size1G];

/// A set of page sizes; iterates smallest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes(u8);

impl Sizes {
    /// These and one more.
    #[inline]
    #[must_use]
    pub fn with(self, size: PageSize) -> Sizes {
        Sizes(self.0 | 1 << size as u8)
    }

    /// True if there is none.
    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// True if 4 KiB is the only size.
    #[inline(always)]
    pub fn is_4k_only(self) -> bool {
        self.0 == 1 << PageSize::Size4K as u8
    }
}

impl Iterator for Sizes {
    type Item = PageSize;

    #[inline(always)]
    fn next(&mut self) -> Option<PageSize> {
        if self.0 == 0 {
            return None;
        }
        // Masked: no bounds to check. There is no fourth size.
        let size = BY_BIT[self.0.trailing_zeros() as usize & 3];
        self.0 &= self.0 - 1;
        Some(size)
    }
}

/// Number of entries by page size.
#[derive(Clone, Copy, Debug, Default)]
pub struct SizeCounts {
    counts: [u32; 4],
    present: Sizes,
}

impl SizeCounts {
    /// An entry came.
    #[inline(always)]
    pub(super) fn add(&mut self, key: Key) {
        self.counts[key.size_index()] += 1;
        self.present.0 |= 1 << key.size_index();
    }

    /// An entry went.
    #[inline(always)]
    pub(super) fn remove(&mut self, key: Key) {
        let count = &mut self.counts[key.size_index()];
        *count -= 1;
        if *count == 0 {
            self.present.0 &= !(1 << key.size_index());
        }
    }

    /// An entry took the place of another: mostly of one of its own size.
    #[inline(always)]
    pub(super) fn replace(&mut self, old: Key, new: Key) {
        if old.size_index() != new.size_index() {
            self.remove(old);
            self.add(new);
        }
    }

    /// Sizes of which there is an entry.
    #[inline(always)]
    pub fn present(&self) -> Sizes {
        self.present
    }

    /// True if there is an entry of this size.
    #[inline(always)]
    pub fn has(&self, size: PageSize) -> bool {
        self.present.0 >> size as u8 & 1 != 0
    }

    /// Entries of all sizes.
    pub fn total(&self) -> usize {
        self.counts.iter().sum::<u32>() as usize
    }
}

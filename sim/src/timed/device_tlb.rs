//! ATS: translations that a device keeps.

use crate::cache::replacement::Lru;
use crate::cache::{Cache, Key, SetAssoc, Tag};
use crate::config::AtsTime;
use crate::events::PageSize;

/// A device TLB: 4 KiB entries, LRU.
///
/// A translation request asks for one 4 KiB page (the smallest translation
/// unit, ATS 3.2), so an entry is known before the answer comes; what faults is
/// not kept.
pub struct DeviceTlb {
    cache: SetAssoc<Lru, u32>,
    /// Requests that found their page.
    pub hits: u64,
    /// Requests that asked the IOMMU.
    pub misses: u64,
    /// Entries removed by invalidations.
    pub invalidated: u64,
}

impl DeviceTlb {
    /// `None` without ATS.
    pub fn new(config: &AtsTime, seed: u64) -> Option<DeviceTlb> {
        (config.entries > 0).then(|| DeviceTlb {
            cache: SetAssoc::new(
                config.entries as usize,
                config.ways as usize,
                &Default::default(),
                seed,
            ),
            hits: 0,
            misses: 0,
            invalidated: 0,
        })
    }

    /// True if the page is there; otherwise it is from now on.
    #[inline]
    pub fn access(&mut self, space: Tag, addr: u64) -> bool {
        let key = Key::new(space, PageSize::Size4K, addr);
        if self.cache.get(key).is_some() {
            self.hits += 1;
            return true;
        }
        self.misses += 1;
        self.cache.insert_absent(key, 0);
        false
    }

    /// Forgets what was counted.
    pub fn restart(&mut self) {
        (self.hits, self.misses, self.invalidated) = (0, 0, 0);
    }

    /// The answer to a translation request was that there is none.
    pub fn forget(&mut self, space: Tag, addr: u64) {
        self.cache.remove(Key::new(space, PageSize::Size4K, addr));
    }

    /// Removes `[start, end)` of a space; `None` = all of it.
    pub fn invalidate(&mut self, space: Tag, range: Option<(u64, u64)>) {
        let (start, end) = range.unwrap_or((0, u64::MAX));
        let gone = self.cache.remove_range(space, start, end);
        self.invalidated += gone as u64;
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.invalidated += self.cache.remove_if(|_| true) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_kept_until_they_are_displaced_or_invalidated() {
        let config = AtsTime {
            entries: 2,
            ways: 2,
            lookup_ns: 1.0,
            round_trip_ns: 1.0,
            invalidation_ns: 1.0,
            page_request_ns: 1.0,
        };
        let mut tlb = DeviceTlb::new(&config, 1).expect("two entries");
        let (a, b) = (Tag(0), Tag(1));
        assert!(!tlb.access(a, 0x1000));
        assert!(tlb.access(a, 0x1fff));
        assert!(!tlb.access(b, 0x1000), "another space");
        assert!(!tlb.access(a, 0x2000), "displaces the page used longest ago");
        assert!(!tlb.access(a, 0x1000));
        tlb.invalidate(a, Some((0x1000, 0x2000)));
        assert!(!tlb.access(a, 0x1000));
        tlb.forget(a, 0x1000);
        assert!(!tlb.access(a, 0x1000));
        tlb.clear();
        assert!(!tlb.access(a, 0x1000));
        assert_eq!((tlb.hits, tlb.invalidated), (1, 3));
        assert!(DeviceTlb::new(&AtsTime { entries: 0, ..config }, 1).is_none());
    }
}

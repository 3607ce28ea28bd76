//! ATS: translations that a device keeps.

use crate::cache::replacement::Lru;
use crate::cache::{Cache, FullLru, Key, SetAssoc, Tag};
use crate::config::AtsTime;
use crate::events::PageSize;

/// What is there; both kinds behave alike, the first is faster for one set.
enum Entries {
    One(FullLru<()>),
    Sets(Box<SetAssoc<Lru, ()>>),
}

/// Does the same with either kind.
macro_rules! each {
    ($entries:expr, $c:ident => $e:expr) => {
        match $entries {
            Entries::One($c) => $e,
            Entries::Sets($c) => $e,
        }
    };
}

/// A device TLB: 4 KiB entries, LRU.
///
/// A translation request asks for one 4 KiB page (the smallest translation
/// unit, ATS 3.2), so an entry is known before the answer comes; what faults is
/// not kept.
pub struct DeviceTlb {
    entries: Entries,
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
        let (entries, ways) = (config.entries as usize, config.ways as usize);
        (entries > 0).then(|| DeviceTlb {
            entries: match entries == ways {
                true => Entries::One(FullLru::new(entries)),
                false => Entries::Sets(Box::new(SetAssoc::new(entries, ways, &(), seed))),
            },
            hits: 0,
            misses: 0,
            invalidated: 0,
        })
    }

    /// True if the page is there; otherwise it is from now on.
    #[inline]
    pub fn access(&mut self, space: Tag, addr: u64) -> bool {
        let key = Key::new(space, PageSize::Size4K, addr);
        let hit = each!(&mut self.entries, c => {
            let hit = c.get(key).is_some();
            if !hit {
                c.insert_absent(key, ());
            }
            hit
        });
        self.hits += u64::from(hit);
        self.misses += u64::from(!hit);
        hit
    }

    /// Forgets what was counted.
    pub fn restart(&mut self) {
        (self.hits, self.misses, self.invalidated) = (0, 0, 0);
    }

    /// The answer to a translation request was that there is none.
    pub fn forget(&mut self, space: Tag, addr: u64) {
        let key = Key::new(space, PageSize::Size4K, addr);
        each!(&mut self.entries, c => c.remove(key));
    }

    /// Removes `[start, end)` of a space; `None` = all of it.
    pub fn invalidate(&mut self, space: Tag, range: Option<(u64, u64)>) {
        let (start, end) = range.unwrap_or((0, u64::MAX));
        let gone = each!(&mut self.entries, c => c.remove_range(space, start, end));
        self.invalidated += gone as u64;
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.invalidated += each!(&mut self.entries, c => c.remove_if(|_| true)) as u64;
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

//! The IOTLB of QEMU's VT-d emulation: emptied when full, and with an
//! invalidation mask of eight bits.

use super::sizes::{SizeCounts, Sizes};
use super::{Key, Tag};
use crate::events::{PAGE_SHIFT, PageSize};

/// Entries are spread by the low 8 bits of their 4 KiB page number, because
/// that is all that QEMU's page-selective invalidation compares.
const BUCKETS: usize = 256;

/// A cache that is emptied when an insertion finds it full
/// (`vtd_update_iotlb`, QEMU 7.2 `hw/i386/intel_iommu.c`: 1024 entries).
#[derive(Clone, Debug)]
pub struct FlushWhenFull<V> {
    entries: usize,
    len: usize,
    buckets: Vec<Vec<(Key, V)>>,
    by_size: SizeCounts,
}

#[inline]
fn bucket(key: Key) -> usize {
    (key.base() >> PAGE_SHIFT) as usize % BUCKETS
}

impl<V: Copy> FlushWhenFull<V> {
    /// A cache of `entries`.
    pub fn new(entries: usize) -> Self {
        FlushWhenFull {
            entries,
            len: 0,
            buckets: vec![Vec::new(); BUCKETS],
            by_size: SizeCounts::default(),
        }
    }

    /// Entries present.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if no entry is present.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Page sizes of the entries present.
    #[inline(always)]
    pub fn sizes(&self) -> Sizes {
        self.by_size.present()
    }

    /// True if an entry of this page size is present.
    #[inline]
    pub fn holds(&self, size: PageSize) -> bool {
        self.by_size.has(size)
    }

    /// Looks `key` up.
    #[inline]
    pub fn get(&self, key: Key) -> Option<V> {
        self.buckets[bucket(key)].iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    /// Inserts `key`, emptying the cache first if it is full; returns the
    /// number of entries lost to that.
    #[inline]
    pub fn insert(&mut self, key: Key, value: V) -> usize {
        if let Some(slot) = self.buckets[bucket(key)].iter_mut().find(|(k, _)| *k == key) {
            slot.1 = value;
            return 0;
        }
        let lost = if self.len >= self.entries { self.clear() } else { 0 };
        self.buckets[bucket(key)].push((key, value));
        self.by_size.add(key);
        self.len += 1;
        lost
    }

    /// Empties the cache; returns the number of entries removed.
    pub fn clear(&mut self) -> usize {
        for b in &mut self.buckets {
            b.clear();
        }
        self.by_size = SizeCounts::default();
        std::mem::take(&mut self.len)
    }

    /// Removes every entry for which `f` holds, telling `removed` of each.
    pub fn remove_if(&mut self, f: impl Fn(Key) -> bool, mut removed: impl FnMut(Key)) {
        for at in 0..BUCKETS {
            self.remove_in(at, &f, &mut removed);
        }
    }

    fn remove_in(&mut self, at: usize, f: &impl Fn(Key) -> bool, removed: &mut impl FnMut(Key)) {
        let before = self.buckets[at].len();
        let by_size = &mut self.by_size;
        self.buckets[at].retain(|(key, _)| {
            let gone = f(*key);
            if gone {
                by_size.remove(*key);
                removed(*key);
            }
            !gone
        });
        self.len -= before - self.buckets[at].len();
    }

    /// Page-selective invalidation as QEMU 7.2 does it
    /// (`vtd_hash_remove_by_page`): of the entries for which `of_domain`
    /// holds, those with `(gfn & m) == ((addr >> 12) & m)`, where the mask
    /// `m = 0xff & !((1 << am) - 1)` is kept in **eight bits**, and the one
    /// that holds `addr` itself.
    ///
    /// `addr` is the descriptor's address, `am` its address mask.
    pub fn remove_low8(
        &mut self,
        addr: u64,
        am: u32,
        of_domain: impl Fn(Tag) -> bool,
        mut removed: impl FnMut(Key),
    ) {
        let mask = if am >= 8 { 0 } else { 0xff & !((1u64 << am) - 1) };
        let want = (addr >> PAGE_SHIFT) & mask;
        let hit = |k: Key| {
            let gfn = k.base() >> PAGE_SHIFT;
            of_domain(k.tag()) && (gfn & mask == want || k.base() == addr & !(k.size().bytes() - 1))
        };
        for at in 0..BUCKETS {
            if at as u64 & mask == want {
                self.remove_in(at, &hit, &mut removed);
            }
        }
        // Larger pages sit in the bucket of their first 4 KiB page.
        for size in PageSize::ALL {
            if self.holds(size) {
                let at = ((addr & !(size.bytes() - 1)) >> PAGE_SHIFT) as usize % BUCKETS;
                self.remove_in(at, &hit, &mut removed);
            }
        }
    }

    /// Calls `f` for every entry.
    pub fn for_each(&self, mut f: impl FnMut(Key, V)) {
        for (key, value) in self.buckets.iter().flatten() {
            f(*key, *value);
        }
    }
}

//! QEMU's emulated IOTLB (7.2, `hw/i386/intel_iommu.c`), to know which hits
//! are explained by an entry that is still cached.

/// Entries that the IOTLB holds before it is emptied.
const MAX_ENTRIES: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// 4 KiB page number of the (large) page.
    gfn: u64,
    out: u64,
    /// Pages minus one.
    mask: u64,
    sid: u32,
    domain: u32,
}

impl Entry {
    /// Bucket of large pages: those of one size are spread by their number.
    fn large_bucket(gfn: u64, mask: u64) -> usize {
        (gfn >> (mask + 1).trailing_zeros() & 0xff) as usize
    }
}

/// The entries. Those of 4 KiB are in buckets by the low 8 bits of their page
/// number, which are what QEMU's page-selective invalidation compares.
#[derive(Debug)]
pub(crate) struct Iotlb {
    small: Vec<Vec<Entry>>,
    /// Large pages, and the masks (pages minus one) that occur.
    large: Vec<Vec<Entry>>,
    masks: Vec<u64>,
    entries: usize,
}

impl Default for Iotlb {
    fn default() -> Self {
        let buckets = || vec![Vec::new(); 256];
        Iotlb { small: buckets(), large: buckets(), masks: Vec::new(), entries: 0 }
    }
}

impl Iotlb {
    /// Output page cached for a device's page, if there is an entry.
    pub(crate) fn lookup(&self, sid: u32, page: u64) -> Option<u64> {
        let find = |bucket: &[Entry], mask: u64| {
            let gfn = page & !mask;
            let e = bucket.iter().find(|e| e.gfn == gfn && e.sid == sid && e.mask == mask)?;
            Some(e.out + (page & mask))
        };
        find(&self.small[(page & 0xff) as usize], 0).or_else(|| {
            self.masks
                .iter()
                .find_map(|m| find(&self.large[Entry::large_bucket(page & !m, *m)], *m))
        })
    }

    /// A miss fills the cache (`vtd_update_iotlb`). `mask` is pages minus one.
    pub(crate) fn insert(&mut self, sid: u32, domain: u32, page: u64, out: u64, mask: u64) {
        let gfn = page & !mask;
        if self.entries >= MAX_ENTRIES {
            self.clear();
        }
        let bucket = if mask == 0 {
            &mut self.small[(gfn & 0xff) as usize]
        } else {
            if !self.masks.contains(&mask) {
                self.masks.push(mask);
            }
            &mut self.large[Entry::large_bucket(gfn, mask)]
        };
        let entry = Entry { gfn, out: out & !mask, mask, sid, domain };
        if let Some(old) =
            bucket.iter_mut().find(|e| e.sid == sid && e.gfn == gfn && e.mask == mask)
        {
            *old = entry;
            return;
        }
        bucket.push(entry);
        self.entries += 1;
    }

    /// Drops everything (`vtd_reset_iotlb`).
    pub(crate) fn clear(&mut self) {
        for b in self.small.iter_mut().chain(&mut self.large) {
            b.clear();
        }
        self.masks.clear();
        self.entries = 0;
    }

    /// Domain-selective invalidation.
    pub(crate) fn drop_domain(&mut self, domain: u32) {
        for b in self.small.iter_mut().chain(&mut self.large) {
            retain(b, &mut self.entries, |e| e.domain != domain);
        }
    }

    /// Page-selective invalidation (`vtd_hash_remove_by_page`): the mask is
    /// kept in 8 bits, so pages with the same low bits go as well.
    pub(crate) fn drop_pages(&mut self, domain: u32, page: u64, am: u64) {
        let (low, n) = if am >= 8 { (0, 256) } else { (page & 0xff & !((1 << am) - 1), 1 << am) };
        for b in &mut self.small[low as usize..(low + n) as usize] {
            // All entries of these buckets agree in the bits compared.
            retain(b, &mut self.entries, |e| e.domain != domain);
        }
        if self.masks.is_empty() {
            return;
        }
        // Large pages have zeros there; and the one at the address itself.
        for b in &mut self.large {
            retain(b, &mut self.entries, |e| {
                e.domain != domain || low != 0 && page & !e.mask != e.gfn
            });
        }
    }
}

/// Removes what is not to be kept.
fn retain(bucket: &mut Vec<Entry>, entries: &mut usize, keep: impl Fn(&Entry) -> bool) {
    let mut i = 0;
    while i < bucket.len() {
        if keep(&bucket[i]) {
            i += 1;
        } else {
            bucket.swap_remove(i);
            *entries -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quirk_and_large_pages() {
        let mut t = Iotlb::default();
        t.insert(8, 3, 0x1234, 0x9000, 0);
        t.insert(8, 3, 0x5634, 0x9100, 0);
        t.insert(8, 3, 0x5635, 0x9200, 0);
        t.insert(8, 3, 0x600, 0xa00, 0x1ff);
        assert_eq!(t.lookup(8, 0x1234), Some(0x9000));
        assert_eq!(t.lookup(8, 0x7ab), Some(0xbab));
        assert_eq!(t.lookup(16, 0x1234), None);
        t.drop_pages(3, 0x1234, 0);
        assert_eq!((t.lookup(8, 0x5634), t.lookup(8, 0x5635)), (None, Some(0x9200)));
        t.drop_pages(3, 0x7ab, 0);
        assert_eq!(t.lookup(8, 0x7ab), None);
        t.drop_pages(3, 0, 8);
        assert_eq!(t.entries, 0);
    }

    #[test]
    fn overflow_empties() {
        let mut t = Iotlb::default();
        for i in 0..1025 {
            t.insert(8, 3, i, i, 0);
        }
        assert_eq!(t.entries, 1);
        t.drop_domain(3);
        assert_eq!(t.entries, 0);
    }
}

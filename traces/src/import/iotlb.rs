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

/// The entries, in buckets by the low 8 bits of their page number: those are
/// what QEMU's page-selective invalidation compares.
#[derive(Debug)]
pub(crate) struct Iotlb {
    buckets: Vec<Vec<Entry>>,
    entries: usize,
    /// Entries larger than a page; all are in bucket 0.
    large: usize,
}

impl Default for Iotlb {
    fn default() -> Self {
        Iotlb { buckets: vec![Vec::new(); 256], entries: 0, large: 0 }
    }
}

impl Iotlb {
    /// Output page cached for a device's page, if there is an entry.
    pub(crate) fn lookup(&self, sid: u32, page: u64) -> Option<u64> {
        let find = |bucket: u64| {
            self.buckets[bucket as usize]
                .iter()
                .find(|e| e.sid == sid && page & !e.mask == e.gfn)
                .map(|e| e.out + (page & e.mask))
        };
        let own = page & 0xff;
        find(own).or_else(|| (self.large > 0 && own != 0).then(|| find(0)).flatten())
    }

    /// A miss fills the cache (`vtd_update_iotlb`). `mask` is pages minus one.
    pub(crate) fn insert(&mut self, sid: u32, domain: u32, page: u64, out: u64, mask: u64) {
        let gfn = page & !mask;
        if self.entries >= MAX_ENTRIES {
            self.clear();
        }
        let entry = Entry { gfn, out: out & !mask, mask, sid, domain };
        let bucket = &mut self.buckets[(gfn & 0xff) as usize];
        if let Some(old) =
            bucket.iter_mut().find(|e| e.sid == sid && e.gfn == gfn && e.mask == mask)
        {
            *old = entry;
            return;
        }
        bucket.push(entry);
        self.entries += 1;
        self.large += usize::from(mask != 0);
    }

    /// Drops everything (`vtd_reset_iotlb`).
    pub(crate) fn clear(&mut self) {
        for b in &mut self.buckets {
            b.clear();
        }
        self.entries = 0;
        self.large = 0;
    }

    /// Domain-selective invalidation.
    pub(crate) fn drop_domain(&mut self, domain: u32) {
        for b in 0..256 {
            self.retain(b, |e| e.domain != domain);
        }
    }

    /// Page-selective invalidation (`vtd_hash_remove_by_page`): the mask is
    /// kept in 8 bits, so pages with the same low bits go as well.
    pub(crate) fn drop_pages(&mut self, domain: u32, page: u64, am: u64) {
        let (low, n) = if am >= 8 { (0, 256) } else { (page & 0xff & !((1 << am) - 1), 1 << am) };
        for bucket in low..low + n {
            // All entries of these buckets agree in the bits compared.
            self.retain(bucket as usize, |e| e.domain != domain);
        }
        // The page at the address itself, which can only matter if large.
        if self.large > 0 && low != 0 {
            self.retain(0, |e| e.domain != domain || page & !e.mask != e.gfn);
        }
    }

    fn retain(&mut self, bucket: usize, keep: impl Fn(&Entry) -> bool) {
        let b = &mut self.buckets[bucket];
        let mut i = 0;
        while i < b.len() {
            if keep(&b[i]) {
                i += 1;
            } else {
                let e = b.swap_remove(i);
                self.entries -= 1;
                self.large -= usize::from(e.mask != 0);
            }
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

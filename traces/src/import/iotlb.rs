//! QEMU's emulated IOTLB (7.2), to know which hits are explained by an entry
//! that is still cached. What the models differ in is in `model.rs`.

use super::model::{IotlbRules, Model, PageRule};

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// 4 KiB page number of the (large) page.
    gfn: u64,
    out: u64,
    /// Pages minus one.
    mask: u64,
    /// The device, or 0 where devices of a domain share entries.
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
    rules: IotlbRules,
    small: Vec<Vec<Entry>>,
    /// Large pages, and the masks (pages minus one) that occur.
    large: Vec<Vec<Entry>>,
    masks: Vec<u64>,
    entries: usize,
}

impl Iotlb {
    pub(crate) fn new(model: Model) -> Self {
        let buckets = || vec![Vec::new(); 256];
        Iotlb {
            rules: model.iotlb(),
            small: buckets(),
            large: buckets(),
            masks: Vec::new(),
            entries: 0,
        }
    }

    /// Which entries a request may use: its device's, or those of its domain.
    #[inline]
    fn owner(&self, sid: u32, domain: u32) -> (u32, Option<u32>) {
        if self.rules.shared { (0, Some(domain)) } else { (sid, None) }
    }

    /// Output page cached for a device's page, if there is an entry.
    pub(crate) fn lookup(&self, sid: u32, domain: u32, page: u64) -> Option<u64> {
        let (sid, shared) = self.owner(sid, domain);
        let find = |bucket: &[Entry], mask: u64| {
            let gfn = page & !mask;
            let e = bucket.iter().find(|e| {
                e.gfn == gfn
                    && e.sid == sid
                    && e.mask == mask
                    && shared.is_none_or(|d| e.domain == d)
            })?;
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
        let (sid, shared) = self.owner(sid, domain);
        let gfn = page & !mask;
        if self.entries >= self.rules.entries {
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
        if let Some(old) = bucket.iter_mut().find(|e| {
            e.sid == sid && e.gfn == gfn && e.mask == mask && shared.is_none_or(|d| e.domain == d)
        }) {
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
        if self.entries == 0 {
            return;
        }
        for b in self.small.iter_mut().chain(&mut self.large) {
            retain(b, &mut self.entries, |e| e.domain != domain);
        }
    }

    /// Page-selective invalidation of 2^`am` pages.
    pub(crate) fn drop_pages(&mut self, domain: u32, page: u64, am: u64) {
        if self.entries == 0 {
            return;
        }
        match self.rules.pages {
            PageRule::Low8 => self.drop_low8(domain, page, am),
            PageRule::Exact => self.drop_range(domain, page, am),
        }
    }

    /// Entries of the domain that overlap the range.
    fn drop_range(&mut self, domain: u32, page: u64, am: u64) {
        let (first, last) = (page & !((1 << am) - 1), page | ((1 << am) - 1));
        let keep =
            |e: &Entry| e.domain != domain || e.gfn > last || e.gfn.saturating_add(e.mask) < first;
        // Fewer pages than buckets: only theirs.
        for i in 0..(1u64 << am.min(8)) {
            retain(&mut self.small[((first + i) & 0xff) as usize], &mut self.entries, keep);
        }
        if !self.masks.is_empty() {
            for b in &mut self.large {
                retain(b, &mut self.entries, keep);
            }
        }
    }

    /// The same with the mask kept in 8 bits, so that pages with the same low
    /// bits go as well (`vtd_hash_remove_by_page`).
    fn drop_low8(&mut self, domain: u32, page: u64, am: u64) {
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
        let mut t = Iotlb::new(Model::VtD);
        t.insert(8, 3, 0x1234, 0x9000, 0);
        t.insert(8, 3, 0x5634, 0x9100, 0);
        t.insert(8, 3, 0x5635, 0x9200, 0);
        t.insert(8, 3, 0x600, 0xa00, 0x1ff);
        assert_eq!(t.lookup(8, 3, 0x1234), Some(0x9000));
        assert_eq!(t.lookup(8, 3, 0x7ab), Some(0xbab));
        assert_eq!(t.lookup(16, 3, 0x1234), None);
        t.drop_pages(3, 0x1234, 0);
        assert_eq!((t.lookup(8, 3, 0x5634), t.lookup(8, 3, 0x5635)), (None, Some(0x9200)));
        t.drop_pages(3, 0x7ab, 0);
        assert_eq!(t.lookup(8, 3, 0x7ab), None);
        t.drop_pages(3, 0, 8);
        assert_eq!(t.entries, 0);
    }

    #[test]
    fn overflow_empties() {
        let mut t = Iotlb::new(Model::VtD);
        for i in 0..1025 {
            t.insert(8, 3, i, i, 0);
        }
        assert_eq!(t.entries, 1);
        t.drop_domain(3);
        assert_eq!(t.entries, 0);
    }

    #[test]
    fn shared_entries_and_exact_ranges() {
        let mut t = Iotlb::new(Model::SmmuV3);
        t.insert(8, 1, 0x1234, 0x9000, 0);
        t.insert(8, 1, 0x5634, 0x9100, 0);
        t.insert(8, 2, 0x1234, 0x9200, 0);
        t.insert(8, 1, 0x600, 0xa00, 0x1ff);
        assert_eq!(t.lookup(16, 1, 0x1234), Some(0x9000));
        assert_eq!(t.lookup(16, 2, 0x1234), Some(0x9200));
        t.drop_pages(1, 0x1234, 0);
        assert_eq!((t.lookup(8, 1, 0x1234), t.lookup(8, 1, 0x5634)), (None, Some(0x9100)));
        assert_eq!(t.lookup(8, 2, 0x1234), Some(0x9200));
        t.drop_pages(1, 0x7ab, 0);
        assert_eq!(t.lookup(8, 1, 0x600), None);
        t.drop_pages(1, 0x5000, 12);
        assert_eq!(t.entries, 1);
        for i in 0..256 {
            t.insert(8, 1, i, i, 0);
        }
        assert_eq!(t.entries, 1, "the 257th insertion found it full");
    }
}

//! Scatter lists that are mapped: `dma_unmap_sg` tells the physical addresses
//! of a list's entries and nothing of where they were mapped.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::super::desc::mix;
use super::dma_line::{List, MAX_PIECES};

/// Pieces of lists kept at most, with what each list takes beside: 69,905 lists of one piece, more than
/// all queues of an NVMe controller have commands.
const MAX_KEPT: usize = 1 << 20;
/// What a list takes beside its pieces, in pieces.
const OVERHEAD: usize = 14;

/// Pieces of a list: address and size.
type Pieces = Vec<(u64, u64)>;

/// Pieces of mapped lists, by device and entries. A list may be mapped
/// several times; the first mapping ends first.
#[derive(Debug, Default)]
pub(super) struct Lists {
    by_entries: FxHashMap<(u32, u64), VecDeque<Pieces>>,
    kept: usize,
}

impl Lists {
    /// A list was mapped.
    pub(super) fn mapped(&mut self, list: &List) {
        if !list.by_phys || list.phys.is_empty() {
            return;
        }
        let weight = list.pieces.len() + OVERHEAD;
        if self.kept + weight > MAX_KEPT {
            // Unmaps were not recorded.
            (self.by_entries, self.kept) = (FxHashMap::default(), 0);
        }
        self.kept += weight;
        let key = (list.device, entries(&list.phys));
        self.by_entries.entry(key).or_default().push_back(list.pieces.clone());
    }

    /// A list with these entries was unmapped; its pieces.
    pub(super) fn unmapped(&mut self, device: u32, phys: &[u64]) -> Option<Pieces> {
        let key = (device, entries(phys));
        let lists = self.by_entries.get_mut(&key)?;
        let pieces = lists.pop_front()?;
        if lists.is_empty() {
            self.by_entries.remove(&key);
        }
        self.kept -= pieces.len() + OVERHEAD;
        Some(pieces)
    }
}

/// A number that is equal for equal lists. Maps print [`MAX_PIECES`] entries
/// at most, unmaps all.
fn entries(phys: &[u64]) -> u64 {
    phys.iter().take(MAX_PIECES).fold(0, |h, p| mix(h, *p))
}

/// Address, size and output of the parts of a list, if they can be told. The IOMMU joins entries:
/// a piece may hold several, whose own lengths are not traced.
pub(super) fn outputs(list: &List) -> Option<Vec<(u64, u64, u64)>> {
    let pairs = list.pieces.len() == list.phys.len();
    if pairs {
        let both = list.pieces.iter().zip(&list.phys);
        return Some(both.map(|((addr, size), phys)| (*addr, *size, *phys)).collect());
    }
    // Entries of a page each.
    let pages = |(addr, size): (u64, u64)| ((addr + (size - 1)) >> 12) - (addr >> 12) + 1;
    let total = list.pieces.iter().try_fold(0u64, |n, p| n.checked_add(pages(*p)))?;
    if list.cut || total != list.phys.len() as u64 {
        return None;
    }
    let mut parts: Vec<(u64, u64, u64)> = Vec::new();
    let mut phys = list.phys.iter().map(|p| p & !0xfff);
    for piece in &list.pieces {
        let first = piece.0 & !0xfff;
        for page in 0..pages(*piece) {
            let (addr, out) = (first + (page << 12), phys.next()?);
            match parts.last_mut() {
                Some((a, size, o)) if *a + *size == addr && *o + *size == out => *size += 0x1000,
                _ => parts.push((addr, 0x1000, out)),
            }
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(pieces: &[(u64, u64)], phys: &[u64]) -> List {
        List {
            device: 8,
            rights: 1,
            pieces: pieces.to_vec(),
            phys: phys.to_vec(),
            cut: false,
            by_phys: true,
        }
    }

    #[test]
    fn matched_by_all_entries() {
        let mut lists = Lists::default();
        lists.mapped(&list(&[(0x1000, 0x2000)], &[0x5000, 0x7000]));
        lists.mapped(&list(&[(0x9000, 0x1000)], &[0x5000]));
        lists.mapped(&list(&[(0xa000, 0x2000)], &[0x5000, 0x7000]));
        assert_eq!(lists.unmapped(8, &[0x5000]), Some(vec![(0x9000, 0x1000)]));
        assert_eq!(lists.unmapped(8, &[0x5000, 0x7000]), Some(vec![(0x1000, 0x2000)]));
        assert_eq!(lists.unmapped(8, &[0x5000, 0x7000]), Some(vec![(0xa000, 0x2000)]));
        assert_eq!(lists.unmapped(8, &[0x5000, 0x7000]), None);
        assert_eq!((lists.kept, lists.by_entries.len()), (0, 0));
        // A map prints 128 entries, its unmap all of them.
        let all: Vec<u64> = (0..200).map(|i| i << 12).collect();
        lists.mapped(&list(&[(0, 200 << 12)], &all[..MAX_PIECES]));
        assert!(lists.unmapped(9, &all).is_none() && lists.unmapped(8, &all).is_some());
    }

    #[test]
    fn bounded() {
        let mut lists = Lists::default();
        for i in 0..3 * MAX_KEPT as u64 / 100 {
            lists.mapped(&list(&[(i << 12, 0x1000); 100], &[i << 12]));
            assert!(lists.kept <= MAX_KEPT);
        }
    }

    #[test]
    fn outputs_of_joined_entries() {
        let l = list(&[(0x1000, 0x3000), (0x8000, 0x1000)], &[0x5000, 0x6000, 0x9000, 0xa000]);
        let parts = [(0x1000, 0x2000, 0x5000), (0x3000, 0x1000, 0x9000), (0x8000, 0x1000, 0xa000)];
        assert_eq!(outputs(&l), Some(parts.to_vec()));
        assert_eq!(outputs(&list(&[(0x1000, 512)], &[0x5200])), Some(vec![(0x1000, 512, 0x5200)]));
        assert_eq!(outputs(&list(&[(0x1000, 0x5000)], &[0x5000, 0x9000])), None);
    }
}

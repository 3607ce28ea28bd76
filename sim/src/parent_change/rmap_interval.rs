//! A reverse map of extents.

use std::collections::BTreeMap;

use super::{Change, ChildId, ParentChange, Shadows, Work};

/// A run of IOVAs of one child that leads to a run of GPAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    gpa: u64,
    len: u64,
}

/// Extents by child and IOVA, and by GPA in classes of length: class `c` has
/// the lengths in `(2^(c-1), 2^c]`, so that what overlaps an address starts
/// less than `2^c` below it. iommufd keeps areas in interval trees in the
/// same way (`iopt_area::node`, `iopt_pages::domains_itree`).
#[derive(Clone, Debug)]
pub struct RmapInterval {
    by_iova: BTreeMap<(ChildId, u64), Extent>,
    by_gpa: BTreeMap<(u8, u64, ChildId, u64), u64>,
    /// Extents by class.
    counts: Vec<u64>,
    found: Vec<(ChildId, u64, u64, u64)>,
}

fn class(len: u64) -> u8 {
    (u64::BITS - (len - 1).leading_zeros()) as u8
}

impl RmapInterval {
    fn insert(&mut self, child: ChildId, iova: u64, e: Extent) {
        self.by_iova.insert((child, iova), e);
        let class = class(e.len);
        self.counts[class as usize] += 1;
        self.by_gpa.insert((class, e.gpa, child, iova), e.len);
    }

    fn remove(&mut self, child: ChildId, iova: u64) -> Extent {
        let e = self.by_iova.remove(&(child, iova)).expect("the caller found it");
        let class = class(e.len);
        self.counts[class as usize] -= 1;
        self.by_gpa.remove(&(class, e.gpa, child, iova));
        e
    }

    /// Makes an extent longer.
    fn extend(&mut self, child: ChildId, iova: u64, len: u64) {
        let e = self.by_iova.get_mut(&(child, iova)).expect("the caller found it");
        let (old, gpa) = (e.len, e.gpa);
        e.len = len;
        if class(old) == class(len) {
            self.by_gpa.insert((class(len), gpa, child, iova), len);
        } else {
            self.counts[class(old) as usize] -= 1;
            self.by_gpa.remove(&(class(old), gpa, child, iova));
            self.counts[class(len) as usize] += 1;
            self.by_gpa.insert((class(len), gpa, child, iova), len);
        }
    }

    /// The last extent of a child that starts below `end`.
    fn before(&self, child: ChildId, end: u64) -> Option<(u64, Extent)> {
        let range = (child, 0)..(child, end);
        self.by_iova.range(range).next_back().map(|((_, iova), e)| (*iova, *e))
    }

    fn cut(&mut self, child: ChildId, start: u64, end: u64) {
        while let Some((iova, e)) = self.before(child, end).filter(|(i, e)| i + e.len > start) {
            self.remove(child, iova);
            if iova + e.len > end {
                let rest = Extent { gpa: e.gpa + (end - iova), len: iova + e.len - end };
                self.insert(child, end, rest);
            }
            if iova < start {
                self.insert(child, iova, Extent { gpa: e.gpa, len: start - iova });
                return;
            }
        }
    }

    /// Number of extents.
    pub fn extents(&self) -> usize {
        self.by_iova.len()
    }
}

impl ParentChange for RmapInterval {
    type Config = ();

    fn new(_: &()) -> Self {
        RmapInterval {
            by_iova: BTreeMap::new(),
            by_gpa: BTreeMap::new(),
            counts: vec![0; 65],
            found: Vec::new(),
        }
    }

    fn mapped(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64) {
        if len == 0 {
            return;
        }
        self.cut(child, iova, iova + len);
        let after = self.by_iova.get(&(child, iova + len)).copied();
        let after = after.filter(|e| e.gpa == gpa + len);
        if after.is_some() {
            self.remove(child, iova + len);
        }
        let len = len + after.map_or(0, |e| e.len);
        match self.before(child, iova) {
            Some((at, e)) if at + e.len == iova && e.gpa + e.len == gpa => {
                self.extend(child, at, e.len + len);
            }
            _ => self.insert(child, iova, Extent { gpa, len }),
        }
    }

    fn unmapped(&mut self, child: ChildId, iova: u64, len: u64) {
        self.cut(child, iova, iova.saturating_add(len));
    }

    fn cleared(&mut self, child: ChildId) {
        self.cut(child, 0, u64::MAX);
    }

    fn changed(&mut self, change: Change, shadows: &mut dyn Shadows, work: &mut Work) {
        let Change { start, end, .. } = change;
        for class in 0..=64u8 {
            if self.counts[class as usize] == 0 {
                continue;
            }
            let reach = 1u64.checked_shl(class as u32).map_or(u64::MAX, |r| r - 1);
            let from = (class, start.saturating_sub(reach), ChildId(0), 0);
            let to = (class, end, ChildId(0), 0);
            // A descent reads one node per level: keys of up to four lines.
            let nodes = self.by_gpa.len().max(2).ilog(6) as u64 + 1;
            work.lines += 2 * nodes;
            for ((_, gpa, child, iova), len) in self.by_gpa.range(from..to) {
                work.entries_examined += 1;
                work.lines += 1;
                let (a, b) = ((*gpa).max(start), (gpa + len).min(end));
                if a < b {
                    self.found.push((*child, iova + (a - gpa), a, b - a));
                }
            }
        }
        for (child, iova, gpa, len) in self.found.drain(..) {
            shadows.mend(child, iova, gpa, len, work);
        }
    }

    /// An estimate: nodes of the standard library's B-trees hold 11 pairs and
    /// are about two thirds full.
    fn memory_bytes(&self) -> u64 {
        let pair =
            size_of::<((ChildId, u64), Extent)>() + size_of::<((u8, u64, ChildId, u64), u64)>();
        (self.extents() * pair * 3 / 2) as u64
    }
}

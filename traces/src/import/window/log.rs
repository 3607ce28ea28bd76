//! The part of a log that is looked ahead on.

use std::collections::VecDeque;

use super::chains::Chains;
use super::{END, LogKind, LogRec};
use crate::import::desc::mix;

/// Page of IOVAs that large mappings are searched by: 2 MiB.
const REGION_SHIFT: u32 = 9;

/// The records of a log from the next to be written to the last one read.
#[derive(Debug, Default)]
pub(crate) struct LogWindow {
    recs: VecDeque<LogRec>,
    /// Index of the first record.
    base: u64,
    pages: Chains<u64>,
    regions: Chains<u64>,
    /// Without a joined ftrace the second kind of chain is not by region but
    /// by domain and page, and holds page-selective invalidations as well.
    by_domain: bool,
    /// Some access was known to [`Self::proofs`].
    proves: bool,
}

fn page_key(page: u64, out_page: u64) -> u64 {
    mix(page, out_page)
}

fn region_key(page: u64, out_page: u64) -> u64 {
    mix(page >> REGION_SHIFT, out_page.wrapping_sub(page))
}

impl LogWindow {
    /// A window for [`Self::next_uses`] in place of [`Self::region_proofs`].
    pub(crate) fn by_domain() -> LogWindow {
        LogWindow { by_domain: true, ..LogWindow::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.recs.len()
    }

    /// Index of the next record to be written.
    pub(crate) fn head(&self) -> u64 {
        self.base
    }

    /// Index that the next record read will get.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.recs.len() as u64
    }

    pub(crate) fn push(&mut self, rec: LogRec) -> u64 {
        self.recs.push_back(rec);
        self.end() - 1
    }

    pub(crate) fn get(&self, index: u64) -> Option<&LogRec> {
        self.recs.get(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    pub(crate) fn get_mut(&mut self, index: u64) -> Option<&mut LogRec> {
        self.recs.get_mut(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    pub(crate) fn front(&self) -> Option<&LogRec> {
        self.recs.front()
    }

    pub(crate) fn back(&self) -> Option<&LogRec> {
        self.recs.back()
    }

    /// Makes a complete access known to [`Self::proofs`].
    pub(crate) fn index_dma(&mut self, index: u64) {
        let Some(rec) = self.get(index).filter(|r| r.proves()) else { return };
        let (page, out) = (rec.a >> 12, rec.b >> 12);
        self.proves = true;
        let at = index as u32;
        if let Some(previous) = self.pages.push(page_key(page, out), at) {
            self.at_mut(previous).next = at;
        }
        self.index_region(index);
    }

    /// False while no access has proved anything: a kernel's trace has none.
    pub(crate) fn proves(&self) -> bool {
        self.proves
    }

    /// Makes a page-selective invalidation known to [`Self::next_uses`].
    pub(crate) fn index_invalidation(&mut self, index: u64) {
        if self.by_domain {
            self.index_region(index);
        }
    }

    fn index_region(&mut self, index: u64) {
        let at = index as u32;
        if let Some(key) = self.get(index).and_then(|r| self.region_chain(r))
            && let Some(previous) = self.regions.push(key, at)
        {
            self.at_mut(previous).next_region = at;
        }
    }

    /// Key of a record's chain of the second kind.
    fn region_chain(&self, rec: &LogRec) -> Option<u64> {
        match rec.kind {
            LogKind::Dma => rec.proves().then(|| {
                let page = rec.a >> 12;
                if self.by_domain {
                    mix(page, u64::from(rec.domain))
                } else {
                    region_key(page, rec.b >> 12)
                }
            }),
            LogKind::Inv | LogKind::Void if self.by_domain => rec
                .descriptor()
                .pages()
                .map(|(domain, addr, am)| mix(addr >> 12 & !((1 << am) - 1), u64::from(domain))),
            _ => None,
        }
    }

    /// Takes the oldest record out.
    pub(crate) fn pop(&mut self) -> Option<LogRec> {
        let rec = self.recs.pop_front()?;
        if rec.proves() {
            let (page, out) = (rec.a >> 12, rec.b >> 12);
            self.pages.pop(page_key(page, out), self.base as u32, rec.next);
        }
        if let Some(key) = self.region_chain(&rec) {
            self.regions.pop(key, self.base as u32, rec.next_region);
        }
        self.base += 1;
        Some(rec)
    }

    /// Records before `index`, oldest first.
    pub(crate) fn first(&self, index: u64) -> impl Iterator<Item = &LogRec> {
        self.recs.iter().take(index.saturating_sub(self.base) as usize)
    }

    /// The shadow operations that the invalidation at the head causes.
    pub(crate) fn walks_behind_head(&self) -> impl Iterator<Item = &LogRec> {
        self.recs
            .iter()
            .skip(1)
            .take_while(|r| matches!(r.kind, LogKind::Walk | LogKind::Void))
            .filter(|r| r.kind == LogKind::Walk)
    }

    /// Index of the record at a 32-bit position.
    fn full(&self, at: u32) -> u64 {
        self.base + u64::from(at.wrapping_sub(self.base as u32))
    }

    fn at_mut(&mut self, at: u32) -> &mut LogRec {
        let index = (self.full(at) - self.base) as usize;
        &mut self.recs[index]
    }

    /// Accesses in the window that prove a mapping of `page` to `out_page`
    /// (page numbers), oldest first, with their indexes.
    pub(crate) fn proofs(&self, page: u64, out_page: u64) -> impl Iterator<Item = (u64, &LogRec)> {
        let mut at = self.pages.first(&page_key(page, out_page));
        std::iter::from_fn(move || {
            if at == END {
                return None;
            }
            let index = self.full(at);
            let rec = &self.recs[(index - self.base) as usize];
            at = rec.next;
            Some((index, rec))
        })
        .filter(move |(_, r)| r.a >> 12 == page && r.b >> 12 == out_page)
    }

    /// The same for any page of the 2 MiB region of `page` that has the same
    /// distance between input and output.
    pub(crate) fn region_proofs(
        &self,
        page: u64,
        out_page: u64,
    ) -> impl Iterator<Item = (u64, &LogRec)> {
        let delta = out_page.wrapping_sub(page);
        let mut at = self.regions.first(&region_key(page, out_page));
        std::iter::from_fn(move || {
            if at == END {
                return None;
            }
            let index = self.full(at);
            let rec = &self.recs[(index - self.base) as usize];
            at = rec.next_region;
            Some((index, rec))
        })
        .filter(move |(_, r)| {
            r.a >> 12 >> REGION_SHIFT == page >> REGION_SHIFT
                && (r.b >> 12).wrapping_sub(r.a >> 12) == delta
        })
    }
}

impl LogWindow {
    /// Accesses that missed `page` of `domain`, and page-selective
    /// invalidations that begin with it, oldest first.
    pub(crate) fn next_uses(&self, domain: u32, page: u64) -> impl Iterator<Item = (u64, &LogRec)> {
        let mut at =
            if self.by_domain { self.regions.first(&mix(page, u64::from(domain))) } else { END };
        std::iter::from_fn(move || {
            if at == END {
                return None;
            }
            let index = self.full(at);
            let rec = &self.recs[(index - self.base) as usize];
            at = rec.next_region;
            Some((index, rec))
        })
        .filter(move |(_, r)| match r.kind {
            LogKind::Dma => r.domain == domain && r.a >> 12 == page,
            LogKind::Inv => r.descriptor().pages().is_some_and(|(d, ..)| d == domain),
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::log_flags;
    use super::*;

    fn miss(iova: u64, out: u64) -> LogRec {
        let mut r = LogRec::new(LogKind::Dma, 0, 0);
        (r.a, r.b, r.c, r.flags) = (iova, out, 0xfff, log_flags::OUT | log_flags::LABEL);
        r
    }

    #[test]
    fn proofs_follow_the_window() {
        let mut w = LogWindow::default();
        for (iova, out) in [(0x1000, 0xa000), (0x2000, 0xb000), (0x1040, 0xa040), (0x1000, 0xc000)]
        {
            let i = w.push(miss(iova, out));
            w.index_dma(i);
        }
        let at = |w: &LogWindow, p, o| w.proofs(p, o).map(|(i, _)| i).collect::<Vec<_>>();
        assert_eq!(at(&w, 1, 0xa), [0, 2]);
        assert_eq!(w.region_proofs(3, 0xc).map(|(i, _)| i).collect::<Vec<_>>(), [0, 1, 2]);
        w.pop();
        assert_eq!(at(&w, 1, 0xa), [2]);
        assert_eq!(at(&w, 1, 0xc), [3]);
        w.pop();
        w.pop();
        assert_eq!(at(&w, 1, 0xa), [] as [u64; 0]);
        assert!(w.pages.ends.len() == 1 && w.regions.ends.len() == 1, "no leftovers");
        let i = w.push(miss(0x1000, 0xa000));
        w.index_dma(i);
        assert_eq!(at(&w, 1, 0xa), [4]);
    }
}

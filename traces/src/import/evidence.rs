//! What was seen of late and tells the domain of a map or unmap: the
//! invalidation that follows it, its neighbours, the accesses to its pages.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::attribute::Found;
use super::desc::mix;
use super::window::{FtKind, FtRec, FtWindow, LogRec};

/// Maps and unmaps of late, by CPU, that wait for the invalidation that the
/// same task submits for them.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    cpus: Vec<(u32, Waiting)>,
    /// The last map or unmap that an invalidation was found for.
    last_linked: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    index: u64,
    pid: u32,
    map: bool,
    iova: u64,
    last: u64,
    /// The CPU's invalidations before it.
    after: u64,
    /// It waits no more.
    gone: bool,
    /// Number of the one before it that begins in a page of the same bucket, or
    /// a lower one than any that waits.
    before: u64,
}

/// What waits on one CPU, oldest first.
#[derive(Debug, Default)]
struct Waiting {
    all: VecDeque<Pending>,
    /// Number of the oldest; they are counted from 1.
    base: u64,
    /// Number of the newest by the page that it begins with.
    newest: Vec<u64>,
    /// First page of each, in 32 bits: all are searched far more often than one is found.
    keys: VecDeque<u32>,
    /// At least the number of pages of each.
    most_pages: u64,
    /// How many wait: those that are gone are taken out with what is older.
    alive: usize,
    /// Invalidations of the CPU so far.
    submits: u64,
}

impl Waiting {
    /// Buckets of pages: twice as many as wait.
    const BUCKETS: usize = 1024;
    /// Most pages that are looked up one by one.
    const FEW_PAGES: u64 = 64;

    fn bucket(page: u64) -> usize {
        // Fibonacci hashing.
        (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % Self::BUCKETS
    }

    /// Ends the wait of those that touch `[iova, last]` and that `ends` says to, given each.
    fn end_touching(&mut self, iova: u64, last: u64, mut ends: impl FnMut(&Pending) -> bool) {
        const STEP: usize = 16;
        let mut found = false;
        let alive = &mut self.alive;
        let mut end = |p: &mut Pending| {
            if !p.gone && p.iova <= last && iova <= p.last && ends(p) {
                p.gone = true;
                *alive -= 1;
                found = true;
            }
        };
        if self.all.len() <= STEP {
            self.all.iter_mut().for_each(end);
            if found {
                self.drop_gone();
            }
            return;
        }
        // Pages from the first that one of them may begin with to the last, which is enough in
        // 32 bits: what is taken for near by mistake is looked at in full.
        let first = (iova >> 12).saturating_sub(self.most_pages);
        let span = (last >> 12) - first;
        if span <= Self::FEW_PAGES {
            for page in first..=last >> 12 {
                let mut number = self.newest[Self::bucket(page)];
                while number >= self.base {
                    let p = &mut self.all[(number - self.base) as usize];
                    if p.iova >> 12 == page {
                        end(p);
                    }
                    number = p.before;
                }
            }
            if found {
                self.drop_gone();
            }
            return;
        }
        let (first, span) = (first as u32, u32::try_from(span).unwrap_or(u32::MAX));
        let mut from = 0;
        for keys in [self.keys.as_slices().0, self.keys.as_slices().1] {
            for keys in keys.chunks(STEP) {
                // All of a step at once: no early exit, several to an instruction.
                let near = |k: &u32| k.wrapping_sub(first) <= span;
                if keys.iter().fold(false, |any, k| any | near(k)) {
                    self.all.range_mut(from..from + keys.len()).for_each(&mut end);
                }
                from += keys.len();
            }
        }
        if found {
            self.drop_gone();
        }
    }

    /// Takes out what is gone: the oldest, or all if that is most of it.
    fn drop_gone(&mut self) {
        while self.all.front().is_some_and(|p| p.gone) {
            self.drop_front();
        }
        while let Some(p) = self.all.back().filter(|p| p.gone) {
            // Its number goes to the next that comes.
            self.newest[Self::bucket(p.iova >> 12)] = p.before;
            self.all.pop_back();
            self.keys.pop_back();
        }
        if self.all.len() > 2 * self.alive + 32 {
            let all = std::mem::take(&mut self.all);
            self.keys.clear();
            self.most_pages = 0;
            // No number is given twice: those in buckets are of none that waits.
            self.base += all.len() as u64;
            all.into_iter().filter(|p| !p.gone).for_each(|p| self.add(p));
        }
        if self.all.is_empty() {
            self.most_pages = 0;
        }
    }

    fn drop_front(&mut self) -> Option<Pending> {
        let oldest = self.all.pop_front()?;
        self.keys.pop_front();
        self.base += 1;
        Some(oldest)
    }

    /// Puts one at the end.
    fn add(&mut self, mut p: Pending) {
        let page = p.iova >> 12;
        self.most_pages = self.most_pages.max((p.last >> 12) - page + 1);
        if self.newest.is_empty() {
            (self.newest, self.base) = (vec![0; Self::BUCKETS], 1);
        }
        let number = self.base + self.all.len() as u64;
        p.before = std::mem::replace(&mut self.newest[Self::bucket(page)], number);
        self.keys.push_back(page as u32);
        self.all.push_back(p);
    }

    /// Takes the oldest one out.
    fn pop(&mut self) -> Option<Pending> {
        let oldest = self.drop_front()?;
        self.alive -= 1;
        self.drop_gone();
        Some(oldest)
    }

    fn push(&mut self, p: Pending) {
        self.add(p);
        self.alive += 1;
    }
}

impl Recent {
    /// CPUs told apart.
    const MAX_CPUS: usize = 1024;
    /// Events waiting per CPU: a scatter list of 2 MiB.
    const MAX_PENDING: usize = 512;
    /// Interrupts nest a few levels deep at most.
    const MAX_PASSED: u64 = 8;

    /// True if an invalidation was found for no record behind `index`.
    pub(super) fn none_linked_behind(&self, index: u64) -> bool {
        self.last_linked.is_none_or(|last| last <= index)
    }

    /// An invalidation was found for record `index` elsewhere.
    pub(crate) fn linked(&mut self, index: u64) {
        self.last_linked = self.last_linked.max(Some(index));
    }

    /// Takes a new record of the window; links it or what waits for it.
    pub(crate) fn note(
        &mut self,
        window: &mut FtWindow,
        index: u64,
        caching: &mut CachingModeGuess,
    ) {
        let Some(&rec) = window.get(index) else { return };
        let at = match self.cpus.iter().position(|(cpu, _)| *cpu == rec.cpu) {
            Some(at) => at,
            None if self.cpus.len() < Self::MAX_CPUS => {
                self.cpus.push((rec.cpu, Waiting::default()));
                self.cpus.len() - 1
            }
            None => return,
        };
        let waiting = &mut self.cpus[at].1;
        match rec.kind {
            FtKind::Map | FtKind::Unmap => {
                let last = rec.a.saturating_add(rec.size.max(1) - 1);
                let map = rec.kind == FtKind::Map;
                // The opposite of what waits: nobody announced it.
                waiting.end_touching(rec.a, last, |p| {
                    caching.no += u64::from(p.map != map && p.map);
                    p.map != map
                });
                if waiting.alive == Self::MAX_PENDING
                    && let Some(p) = waiting.pop()
                {
                    caching.no += u64::from(p.map);
                }
                let (iova, after) = (rec.a, waiting.submits);
                let pid = rec.pid;
                waiting.push(Pending {
                    index,
                    pid,
                    map,
                    iova,
                    last,
                    after,
                    gone: false,
                    before: 0,
                });
            }
            FtKind::Submit => {
                let Some((_, addr, am)) = rec.descriptor().pages() else { return };
                let size = 1u64 << (am + 12);
                let (first, last) = (addr & !(size - 1), addr | (size - 1));
                let last_linked = &mut self.last_linked;
                waiting.end_touching(first, last, |p| {
                    let covered = p.pid == rec.pid && first <= p.iova && p.last <= last;
                    if covered {
                        caching.yes += u64::from(p.map);
                        *last_linked = (*last_linked).max(Some(p.index));
                        if let Some(r) = window.get_mut(p.index) {
                            r.peer = index;
                        }
                    }
                    covered
                });
                waiting.submits += 1;
                // The oldest have seen the most of them pass.
                while let Some(p) = waiting.all.front()
                    && waiting.submits - p.after > Self::MAX_PASSED
                {
                    caching.no += u64::from(p.map);
                    waiting.pop();
                }
            }
            FtKind::Marker => {}
        }
    }
}

/// When devices last used a page, of late.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    last: FxHashMap<u64, i64>,
    /// There are unmaps without an invalidation of their own.
    pub(crate) wanted: bool,
}

impl Uses {
    const MAX: usize = 1 << 16;

    /// Notes an access.
    pub(crate) fn note(&mut self, rec: &LogRec) {
        if self.last.len() >= Self::MAX {
            self.last.clear();
        }
        self.last.insert(mix(rec.a >> 12, u64::from(rec.domain)), rec.time);
    }

    /// Log time of the last access.
    pub(super) fn last(&self, domain: u32, page: u64) -> Option<i64> {
        self.last.get(&mix(page, u64::from(domain))).copied()
    }
}

/// Whether the guest runs under caching mode, judged by how many of its maps
/// are followed by an invalidation that covers them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CachingModeGuess {
    pub(crate) yes: u64,
    pub(crate) no: u64,
}

impl CachingModeGuess {
    /// True if nearly all are.
    pub(crate) fn on(&self) -> bool {
        self.yes >= 4 && self.yes >= self.no.saturating_mul(9)
    }

    /// True if there is enough to judge by.
    pub(crate) fn known(&self) -> bool {
        self.yes + self.no >= 4
    }
}

/// Evidenced events of late.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The last [`History::MAX`] count; those before them wait to be dropped.
    entries: Vec<Entry>,
    /// Task and CPU of each, in few bits: they are searched far more often
    /// than found.
    keys: Vec<u32>,
    /// Where each begins and ends, in few bits.
    sides: Vec<(u32, u32)>,
}

/// An entry of [`History`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(super) pid: u32,
    pub(super) cpu: u32,
    pub(super) kind: FtKind,
    pub(super) domain: u32,
    pub(super) index: u64,
    pub(super) iova: u64,
    pub(super) size: u64,
}

impl Entry {
    /// True if the pages lie side by side.
    pub(super) fn touches(&self, rec: &FtRec) -> bool {
        self.iova.wrapping_add(self.size) == rec.a || rec.a.wrapping_add(rec.size) == self.iova
    }
}

impl History {
    const MAX: usize = 512;

    fn key(pid: u32, cpu: u32) -> u32 {
        pid.wrapping_mul(0x9e37_79b1) ^ cpu
    }

    pub(crate) fn push(&mut self, rec: &FtRec, index: u64, found: Found) {
        let Some(domain) = found.domain.filter(|_| found.quality >= Found::LIVENESS) else {
            return;
        };
        if self.entries.len() == 2 * Self::MAX {
            self.entries.drain(..=Self::MAX);
            self.keys.drain(..=Self::MAX);
            self.sides.drain(..=Self::MAX);
        }
        self.sides.push((Self::side(rec.a), Self::side(rec.a.wrapping_add(rec.size))));
        self.keys.push(Self::key(rec.pid, rec.cpu));
        self.entries.push(Entry {
            pid: rec.pid,
            cpu: rec.cpu,
            kind: rec.kind,
            domain,
            index,
            iova: rec.a,
            size: rec.size,
        });
    }

    fn side(iova: u64) -> u32 {
        (iova >> 12) as u32 ^ (iova << 20) as u32
    }

    /// Those among the last `most` whose pages lie beside those of a record, the newest first.
    pub(super) fn beside(&self, rec: &FtRec, most: usize) -> impl Iterator<Item = &Entry> {
        let (start, end) = (Self::side(rec.a), Self::side(rec.a.wrapping_add(rec.size)));
        let found =
            newest_first(&self.sides, self.last(most), move |s| (s.0 == end) | (s.1 == start));
        found.map(|at| &self.entries[at])
    }

    /// The last `most` entries.
    fn last(&self, most: usize) -> usize {
        self.entries.len().saturating_sub(most.min(Self::MAX))
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Entry> {
        self.entries[self.last(Self::MAX)..].iter().rev()
    }

    /// Those of a task on a CPU among the last `most`, the newest first.
    pub(super) fn of_task(&self, pid: u32, cpu: u32, most: usize) -> impl Iterator<Item = &Entry> {
        let key = Self::key(pid, cpu);
        let found = newest_first(&self.keys, self.last(most), move |k| *k == key);
        found.map(|at| &self.entries[at]).filter(move |e| e.pid == pid && e.cpu == cpu)
    }
}

/// Places from `first` on that hold what is searched for, the last first.
fn newest_first<K>(
    all: &[K],
    first: usize,
    is: impl Fn(&K) -> bool,
) -> impl Iterator<Item = usize> {
    const STEP: usize = 16;
    let mut at = all.len();
    std::iter::from_fn(move || {
        while at > first {
            if at - first >= STEP {
                // All of a step at once: no early exit, several to an instruction.
                let step = &all[at - STEP..at];
                if !step.iter().fold(false, |any, k| any | is(k)) {
                    at -= STEP;
                    continue;
                }
            }
            at -= 1;
            if is(&all[at]) {
                return Some(at);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::super::desc::Descriptor;
    use super::super::window::NONE;
    use super::*;

    /// What [`Recent`] says, by looking at all that waits each time.
    fn links(recs: &[FtRec]) -> (Vec<u64>, u64, u64) {
        let mut peers = vec![NONE; recs.len()];
        let (mut yes, mut no) = (0, 0);
        // Record, and invalidations that passed it.
        let mut waits: Vec<(usize, u64)> = Vec::new();
        for (i, rec) in recs.iter().enumerate() {
            let Some((_, addr, am)) = rec.descriptor().pages().filter(|_| !rec.changes_table())
            else {
                let over = |p: &FtRec| {
                    p.cpu == rec.cpu
                        && p.kind != rec.kind
                        && p.a < rec.a + rec.size
                        && rec.a < p.a + p.size
                };
                no += waits
                    .iter()
                    .filter(|w| over(&recs[w.0]) && recs[w.0].kind == FtKind::Map)
                    .count();
                waits.retain(|w| !over(&recs[w.0]));
                let of_cpu: Vec<usize> =
                    waits.iter().map(|w| w.0).filter(|w| recs[*w].cpu == rec.cpu).collect();
                if of_cpu.len() == Recent::MAX_PENDING {
                    no += usize::from(recs[of_cpu[0]].kind == FtKind::Map);
                    waits.retain(|w| w.0 != of_cpu[0]);
                }
                waits.push((i, 0));
                continue;
            };
            let (first, end) = (addr & !((4096 << am) - 1), (addr | ((4096 << am) - 1)) + 1);
            waits.retain_mut(|(at, passed)| {
                let p = &recs[*at];
                if p.cpu != rec.cpu {
                    return true;
                }
                let map = usize::from(p.kind == FtKind::Map);
                if p.pid == rec.pid && first <= p.a && p.a + p.size <= end {
                    peers[*at] = i as u64;
                    yes += map;
                    return false;
                }
                *passed += 1;
                let old = *passed > Recent::MAX_PASSED;
                no += if old { map } else { 0 };
                !old
            });
        }
        (peers, yes as u64, no as u64)
    }

    proptest::proptest! {
        /// `rare`: how rare invalidations are; many events wait where they are.
        #[test]
        fn links_are_those_of_a_full_search(
            steps in proptest::collection::vec(
                (0..256u32, 0..2u32, 0..2u32, 0..600u64, proptest::prop_oneof![40 => 1..6u64, 1 => 1..200u64], proptest::bool::ANY), 0..1500),
            rare in proptest::sample::select(vec![1u32, 20, 255]),
        ) {
            let recs: Vec<FtRec> = steps.into_iter().map(|(what, pid, cpu, page, pages, map)| {
                let (a, size) = (page << 12, pages << 12);
                if what >= rare {
                    let kind = if map { FtKind::Map } else { FtKind::Unmap };
                    FtRec { a, size, ..FtRec::new(kind, 0, cpu, pid) }
                } else {
                    let d = Descriptor::iotlb_pages(1, a, pages as u32);
                    FtRec { a: d.qw1, b: d.qw0, ..FtRec::new(FtKind::Submit, 0, cpu, pid) }
                }
            }).collect();
            let (mut window, mut recent) = (FtWindow::default(), Recent::default());
            let mut caching = CachingModeGuess::default();
            for rec in &recs {
                let index = window.push(*rec);
                recent.note(&mut window, index, &mut caching);
            }
            let (peers, yes, no) = links(&recs);
            let seen: Vec<u64> = window.from(0).map(|(_, r)| r.peer).collect();
            proptest::prop_assert_eq!(seen, &peers[..]);
            proptest::prop_assert_eq!((caching.yes, caching.no), (yes, no));
            let last = peers.iter().rposition(|p| *p != NONE).map(|i| i as u64);
            for index in 0..recs.len() as u64 {
                let none = last.is_none_or(|l| l <= index);
                proptest::prop_assert_eq!(recent.none_linked_behind(index), none);
            }
        }

        #[test]
        fn what_is_beside_is_found_among_all(
            sides in proptest::collection::vec((0..40u64, 1..4u64), 0..1400),
            at in 0..40u64, most in 0..600usize,
        ) {
            let mut history = History::default();
            let mut all = VecDeque::new();
            let found = Found { domain: Some(1), quality: Found::DMA, ..Found::default() };
            for (i, (page, pages)) in sides.iter().enumerate() {
                let rec = FtRec {
                    a: page << 12, size: pages << 12, ..FtRec::new(FtKind::Map, 0, 0, 0)
                };
                history.push(&rec, i as u64, found);
                all.push_front((i as u64, *page, page + pages));
                all.truncate(History::MAX);
            }
            let rec = FtRec { a: at << 12, size: 4096, ..FtRec::new(FtKind::Map, 0, 0, 0) };
            let beside = all.iter().take(most).filter(|(_, start, end)| *start == at + 1 || *end == at);
            let wanted: Vec<u64> = beside.map(|e| e.0).collect();
            let seen: Vec<u64> =
                history.beside(&rec, most).filter(|e| e.touches(&rec)).map(|e| e.index).collect();
            proptest::prop_assert_eq!(seen, wanted);
        }

        #[test]
        fn a_tasks_entries_are_those_of_all(
            tasks in proptest::collection::vec((0..3u32, 0..2u32), 0..1400), most in 0..600usize,
        ) {
            let mut history = History::default();
            let mut all = VecDeque::new();
            let found = Found { domain: Some(1), quality: Found::DMA, ..Found::default() };
            for (i, (pid, cpu)) in tasks.iter().enumerate() {
                let rec = FtRec::new(FtKind::Map, 0, *cpu, *pid);
                history.push(&rec, i as u64, found);
                all.push_front((*pid, *cpu, i as u64));
                all.truncate(History::MAX);
            }
            let seen: Vec<u64> = history.newest_first().map(|e| e.index).collect();
            proptest::prop_assert_eq!(seen, all.iter().map(|e| e.2).collect::<Vec<_>>());
            let wanted: Vec<u64> =
                all.iter().take(most).filter(|e| (e.0, e.1) == (1, 1)).map(|e| e.2).collect();
            let seen: Vec<u64> = history.of_task(1, 1, most).map(|e| e.index).collect();
            proptest::prop_assert_eq!(seen, wanted);
        }
    }
}

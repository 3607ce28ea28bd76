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
    cpus: Vec<(u32, VecDeque<Pending>)>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    index: u64,
    pid: u32,
    map: bool,
    iova: u64,
    last: u64,
    /// Invalidations of the CPU since then that do not cover it.
    passed: u8,
}

impl Recent {
    /// CPUs told apart.
    const MAX_CPUS: usize = 1024;
    /// Events waiting per CPU: a scatter list of 2 MiB.
    const MAX_PENDING: usize = 512;
    /// Interrupts nest a few levels deep at most.
    const MAX_PASSED: u8 = 8;

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
                self.cpus.push((rec.cpu, VecDeque::new()));
                self.cpus.len() - 1
            }
            None => return,
        };
        let pending = &mut self.cpus[at].1;
        let last = rec.a.saturating_add(rec.size.max(1) - 1);
        match rec.kind {
            FtKind::Map | FtKind::Unmap => {
                let map = rec.kind == FtKind::Map;
                // The opposite of what waits: nobody announced it.
                pending.retain(|p| {
                    let over = p.map != map && p.iova <= last && rec.a <= p.last;
                    caching.no += u64::from(over && p.map);
                    !over
                });
                if pending.len() == Self::MAX_PENDING
                    && let Some(p) = pending.pop_front()
                {
                    caching.no += u64::from(p.map);
                }
                pending.push_back(Pending {
                    index,
                    pid: rec.pid,
                    map,
                    iova: rec.a,
                    last,
                    passed: 0,
                });
            }
            FtKind::Submit => {
                let Some((_, addr, am)) = rec.descriptor().pages() else { return };
                let size = 1u64 << (am + 12);
                let (first, last) = (addr & !(size - 1), addr | (size - 1));
                pending.retain_mut(|p| {
                    if p.pid == rec.pid && first <= p.iova && p.last <= last {
                        caching.yes += u64::from(p.map);
                        if let Some(r) = window.get_mut(p.index) {
                            r.peer = index;
                        }
                        return false;
                    }
                    p.passed += 1;
                    let old = p.passed > Self::MAX_PASSED;
                    caching.no += u64::from(old && p.map);
                    !old
                });
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
        }
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

    /// The last `most` entries.
    fn last(&self, most: usize) -> usize {
        self.entries.len().saturating_sub(most.min(Self::MAX))
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Entry> {
        self.entries[self.last(Self::MAX)..].iter().rev()
    }

    /// Those of a task on a CPU among the last `most`, the newest first.
    pub(super) fn of_task(&self, pid: u32, cpu: u32, most: usize) -> impl Iterator<Item = &Entry> {
        const STEP: usize = 16;
        let key = Self::key(pid, cpu);
        let first = self.last(most);
        let mut at = self.keys.len();
        std::iter::from_fn(move || {
            while at > first {
                if at - first >= STEP {
                    // All of a step at once: no early exit, four to an instruction.
                    let step = &self.keys[at - STEP..at];
                    if !step.iter().fold(false, |any, k| any | (*k == key)) {
                        at -= STEP;
                        continue;
                    }
                }
                at -= 1;
                let entry = &self.entries[at];
                if entry.pid == pid && entry.cpu == cpu {
                    return Some(entry);
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
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

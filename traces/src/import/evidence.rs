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
    entries: VecDeque<Entry>,
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

    pub(crate) fn push(&mut self, rec: &FtRec, index: u64, found: Found) {
        let Some(domain) = found.domain.filter(|_| found.quality >= Found::LIVENESS) else {
            return;
        };
        if self.entries.len() == Self::MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            pid: rec.pid,
            cpu: rec.cpu,
            kind: rec.kind,
            domain,
            index,
            iova: rec.a,
            size: rec.size,
        });
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev()
    }
}

//! Finding the domain of the guest's map and unmap events, whose text has
//! neither device nor domain.
//!
//! Evidence, the strongest first:
//! * an access (`DMA`) that missed the IOTLB and found exactly this page and
//!   output, before the mapping went away;
//! * the page-selective invalidation (`INVALIDATION`) that the same task
//!   submits next and that covers the pages: always for an unmap (strict
//!   mode), for a map only under caching mode. Whether the guest runs under
//!   caching mode is seen from how many maps are followed so;
//! * `PAIRING`: the next event for the same IOVA, where it is evidenced;
//! * `LIVENESS`: only one domain has the pages mapped (or free);
//! * `ADJACENCY`: the domain of the nearest evidenced neighbour of the same
//!   task, a guess that is marked in the event.

use std::collections::VecDeque;

use super::emit::page_span;
use super::join::Join;
use super::joined::Joined;
use super::lines::{EventSink, LineSource};
use super::window::{FtKind, FtRec, FtWindow, LogWindow};

/// Pages of a map looked up one by one; larger ones also by 2 MiB regions.
const PROOF_PAGES: u64 = 64;
const PROOF_REGIONS: u64 = 64;
/// A map may be stamped this much later than its first access, ns.
const PROOF_SLACK_NS: i64 = 20_000_000;
/// Later events of the same IOVA that are looked at.
const PAIRING_EVENTS: usize = 16;
/// Neighbours looked at behind and ahead.
const NEIGHBOURS: usize = 256;
const NEIGHBOURS_AHEAD: usize = 256;

/// The domain of an event and how it was found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) domain: Option<u32>,
    pub(crate) quality: u8,
    /// READ and WRITE bits, from the entry that an access found.
    pub(crate) perm: u8,
    /// A map that the guest announces.
    pub(crate) notified: bool,
    /// Access and invalidation name different domains.
    pub(crate) contradicted: bool,
}

impl Found {
    pub(crate) const NOTHING: u8 = 1;
    pub(crate) const ADJACENCY: u8 = 2;
    pub(crate) const LIVENESS: u8 = 3;
    pub(crate) const PAIRING: u8 = 4;
    pub(crate) const INVALIDATION: u8 = 5;
    pub(crate) const DMA: u8 = 6;

    fn new(domain: u32, quality: u8) -> Found {
        Found { domain: Some(domain), quality, perm: 3, ..Found::default() }
    }
}

/// An access that proves a map.
#[derive(Clone, Copy, Debug)]
struct Proof {
    index: u64,
    domain: u32,
    perm: u8,
    time: i64,
}

impl<L: LineSource, F: LineSource, S: EventSink> Join<L, F, S> {
    /// The domain of ftrace record `index`. The answer is kept.
    pub(crate) fn attribute(&mut self, index: u64) -> Found {
        let Some(g) = &self.guest else { return Found::default() };
        let Some(rec) = g.window.get(index).copied() else { return Found::default() };
        if !rec.changes_table() {
            return Found::default();
        }
        let notified = rec.kind == FtKind::Map && rec.peer != super::window::NONE && g.caching.on();
        if rec.quality != 0 {
            let domain = (rec.domain != u32::MAX).then_some(rec.domain);
            return Found {
                domain,
                quality: rec.quality,
                perm: rec.perm,
                notified,
                contradicted: false,
            };
        }
        let mut found = match rec.kind {
            FtKind::Map => self.attribute_map(index, &rec),
            _ => self.attribute_unmap(index, &rec),
        };
        found.notified = notified;
        if found.quality == 0 {
            found.quality = Found::NOTHING;
        }
        if let Some(r) = self.guest.as_mut().and_then(|g| g.window.get_mut(index)) {
            (r.domain, r.quality, r.perm) =
                (found.domain.unwrap_or(u32::MAX), found.quality, found.perm);
        }
        found
    }

    fn attribute_map(&self, index: u64, rec: &FtRec) -> Found {
        let Some(g) = &self.guest else { return Found::default() };
        let proof = g.proof(&self.window, index);
        let told = g.told_domain(rec);
        if let Some(domain) = told
            && g.caching.on()
        {
            let perm = proof.filter(|p| p.domain == domain).map_or(3, |p| p.perm);
            let contradicted = proof.is_some_and(|p| p.domain != domain);
            return Found { perm, contradicted, ..Found::new(domain, Found::INVALIDATION) };
        }
        if let Some(p) = proof {
            return Found { perm: p.perm, ..Found::new(p.domain, Found::DMA) };
        }
        // What happens next to this IOVA.
        let (page, pages) = page_span(rec.a, rec.size);
        let mut excluded = Vec::new();
        for (i, r) in g.window.same_start(index).take(PAIRING_EVENTS) {
            match r.kind {
                FtKind::Unmap => {
                    let Some(domain) = g.told_domain(r) else { break };
                    if self.out.tables.live_pages(domain, page, pages) == 0
                        && !excluded.contains(&domain)
                    {
                        return Found::new(domain, Found::PAIRING);
                    }
                    excluded.push(domain);
                }
                FtKind::Map => {
                    if let Some(p) = g.proof(&self.window, i) {
                        excluded.push(p.domain);
                    }
                }
                _ => {}
            }
        }
        let free: Vec<u32> = self
            .out
            .tables
            .recent()
            .iter()
            .copied()
            .filter(|d| !excluded.contains(d) && self.out.tables.live_pages(*d, page, pages) == 0)
            .collect();
        self.neighbour(index, rec, &free)
    }

    fn attribute_unmap(&self, index: u64, rec: &FtRec) -> Found {
        let Some(g) = &self.guest else { return Found::default() };
        if let Some(domain) = g.told_domain(rec) {
            return Found::new(domain, Found::INVALIDATION);
        }
        let (page, pages) = page_span(rec.a, rec.size);
        let tables = &self.out.tables;
        let mut live: Vec<Candidate> = tables
            .recent()
            .iter()
            .filter_map(|&domain| {
                let mut ranges = tables.within(domain, page, pages);
                let (at, first) = ranges.next()?;
                let (start, whole) = tables.range_of(domain, at)?;
                let (live, used) = ranges.fold((first.pages, first.used), |(n, used), (_, r)| {
                    (n + r.pages, used | r.used)
                });
                let fit = if start == page && whole.pages == pages {
                    Fit::Same
                } else if start == page && live == pages {
                    Fit::Whole
                } else {
                    Fit::Part
                };
                Some(Candidate { domain, fit, used, out: tables.lookup(domain, page) })
            })
            .collect();
        if live.is_empty() {
            // Mapped before anything was recorded, and never accessed.
            return self.neighbour(index, rec, tables.recent());
        }
        // What is unmapped at once was mapped at once.
        let best = live.iter().map(|c| c.fit).max().unwrap_or(Fit::Part);
        live.retain(|c| c.fit == best);
        // A domain whose old output is still found later on, before anybody
        // maps the IOVA again, is not meant.
        if live.len() > 1
            && let Some(time) = g.log_time(index)
        {
            let mut maps = g.window.same_start(index).filter(|(_, r)| r.kind == FtKind::Map);
            let next_map = maps.next().and_then(|(i, _)| g.log_time(i)).unwrap_or(i64::MAX);
            let between = time..next_map.saturating_sub(PROOF_SLACK_NS).max(time.saturating_add(1));
            retain_some(&mut live, |c| {
                let Some(out) = c.out else { return true };
                !self
                    .window
                    .proofs(page, out)
                    .any(|(_, r)| r.domain == c.domain && between.contains(&r.time))
            });
        }
        // Drivers unmap what the device has used.
        retain_some(&mut live, |c| c.used);
        match live[..] {
            [c] => Found::new(c.domain, Found::LIVENESS),
            _ => self.unmap_by_next_map(
                index,
                rec,
                &live.iter().map(|c| c.domain).collect::<Vec<_>>(),
            ),
        }
    }

    /// Several domains have the pages mapped: one that maps the IOVA again
    /// must have unmapped it before, the first to do so first.
    fn unmap_by_next_map(&self, index: u64, rec: &FtRec, live: &[u32]) -> Found {
        let Some(g) = &self.guest else { return Found::default() };
        let mut unmaps_between = 0;
        for (i, r) in g.window.same_start(index).take(PAIRING_EVENTS) {
            match r.kind {
                FtKind::Unmap => unmaps_between += 1,
                FtKind::Map => {
                    if let Some(p) = g.proof(&self.window, i)
                        && live.contains(&p.domain)
                    {
                        if unmaps_between == 0 {
                            return Found::new(p.domain, Found::PAIRING);
                        }
                        break;
                    }
                }
                _ => {}
            }
        }
        self.neighbour(index, rec, live)
    }

    /// One of `candidates` by what the same task did before and after.
    fn neighbour(&self, index: u64, rec: &FtRec, candidates: &[u32]) -> Found {
        let Some(g) = &self.guest else { return Found::default() };
        if let [domain] = candidates {
            return Found::new(*domain, Found::LIVENESS);
        }
        let usable = |d: u32| candidates.is_empty() || candidates.contains(&d);
        let mut near: Option<(u64, u32)> = None;
        for h in g.history.newest_first().take(NEIGHBOURS) {
            if h.pid != rec.pid || h.cpu != rec.cpu || h.kind != rec.kind || !usable(h.domain) {
                continue;
            }
            if h.touches(rec) {
                return Found::new(h.domain, Found::ADJACENCY);
            }
            if near.is_none() {
                near = Some((index.abs_diff(h.index), h.domain));
            }
        }
        for (i, r) in g.window.from(index + 1).take(NEIGHBOURS_AHEAD) {
            if r.pid != rec.pid || r.cpu != rec.cpu || r.kind != rec.kind {
                continue;
            }
            let domain = match r.kind {
                FtKind::Map => g.proof(&self.window, i).map(|p| p.domain),
                _ => g.told_domain(r),
            };
            let Some(domain) = domain.filter(|d| usable(*d)) else { continue };
            let touches = r.a + r.size == rec.a || rec.a + rec.size == r.a;
            if touches || near.is_none_or(|(distance, _)| i - index < distance) {
                near = Some((i - index, domain));
            }
            break;
        }
        let any = near.map(|(_, d)| d).or_else(|| {
            let same_cpu = g
                .history
                .newest_first()
                .find(|h| h.cpu == rec.cpu && usable(h.domain))
                .map(|h| h.domain);
            same_cpu
                .or_else(|| candidates.first().copied())
                .or_else(|| self.out.tables.recent().first().copied())
        });
        any.map_or(Found::default(), |d| Found::new(d, Found::ADJACENCY))
    }
}

/// A domain that has mapped what an unmap names.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    domain: u32,
    fit: Fit,
    /// A device was seen to use some of it.
    used: bool,
    /// Output of the first page.
    out: Option<u64>,
}

/// How an unmap's range agrees with what is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// Some of its pages are mapped.
    Part,
    /// All are, beginning with a mapping of its own.
    Whole,
    /// One mapping is exactly this range.
    Same,
}

/// Keeps what passes, unless nothing does.
fn retain_some(candidates: &mut Vec<Candidate>, keep: impl Fn(&Candidate) -> bool) {
    if candidates.iter().any(&keep) {
        candidates.retain(keep);
    }
}

impl<L: LineSource> Joined<L> {
    /// Domain in the invalidation that covers this map or unmap.
    pub(crate) fn told_domain(&self, rec: &FtRec) -> Option<u32> {
        self.window.get(rec.peer).and_then(|s| s.descriptor().pages()).map(|(domain, ..)| domain)
    }

    /// The first access that proves map `index`.
    fn proof(&self, log: &LogWindow, index: u64) -> Option<Proof> {
        let rec = self.window.get(index)?;
        let not_before =
            self.log_time(index).map_or(i64::MIN, |t| t.saturating_sub(PROOF_SLACK_NS));
        let (page, pages) = page_span(rec.a, rec.size);
        let out = rec.b >> 12;
        let mut best: Option<Proof> = None;
        let mut consider = |at: u64, r: &super::window::LogRec| {
            if best.is_none_or(|b| at < b.index) {
                let perm = if r.flags & 3 == 0 { 3 } else { r.flags & 3 };
                best = Some(Proof { index: at, domain: r.domain, perm, time: r.time });
            }
        };
        for i in 0..pages.min(PROOF_PAGES) {
            if let Some((at, r)) = log.proofs(page + i, out + i).find(|(_, r)| r.time >= not_before)
            {
                consider(at, r);
            }
        }
        if pages > PROOF_PAGES {
            let mut i = PROOF_PAGES;
            for _ in 0..PROOF_REGIONS {
                let inside = |r: &&super::window::LogRec| (r.a >> 12).wrapping_sub(page) < pages;
                let mut proofs = log.region_proofs(page + i, out + i).map(|(at, r)| (at, r));
                if let Some((at, r)) = proofs.find(|(_, r)| inside(r) && r.time >= not_before) {
                    consider(at, r);
                }
                i = (page + i | 0x1ff) + 1 - page;
                if i >= pages {
                    break;
                }
            }
        }
        let best = best.filter(|p| p.domain != u32::MAX)?;
        // Behind an unmap of the same IOVA the access may belong to a later
        // map that is equal to this one.
        let mut unmapped = false;
        for (i, r) in self.window.same_start(index).take(PAIRING_EVENTS) {
            if self.log_time(i).is_none_or(|t| t > best.time) {
                break;
            }
            match r.kind {
                FtKind::Unmap => unmapped = true,
                FtKind::Map if unmapped && r.b == rec.b => return None,
                _ => {}
            }
        }
        Some(best)
    }
}

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
    pid: u32,
    cpu: u32,
    kind: FtKind,
    domain: u32,
    index: u64,
    iova: u64,
    size: u64,
}

impl Entry {
    /// True if the pages lie side by side.
    fn touches(&self, rec: &FtRec) -> bool {
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

    fn newest_first(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev()
    }
}

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

use super::emit::page_span;
use super::evidence::Entry;
use super::join::Join;
use super::joined::Joined;
use super::lines::{EventSink, LineSource};
use super::window::{FtKind, FtRec, LogRec, LogWindow, NONE};

/// Pages of a map looked up one by one; larger ones also by 2 MiB regions.
const PROOF_PAGES: u64 = 64;
const PROOF_REGIONS: u64 = 64;
/// A map may be stamped this much later than its first access, ns.
const PROOF_SLACK_NS: i64 = 20_000_000;
/// Later events of the same IOVA that are looked at.
const PAIRING_EVENTS: usize = 16;
/// Records among which the parts of a scatter list stand.
const PARTS: u64 = 32;
/// Of two mappings, one used this many times later is taken for the one that
/// is unmapped.
const AGE_RATIO: i64 = 4;
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
        let notified = rec.kind == FtKind::Map && rec.peer != NONE && g.caching.on();
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
        if let Some(domain) = self.scatter_list(index, rec) {
            return Found::new(domain, Found::PAIRING);
        }
        // What happens next to this IOVA.
        let (page, pages) = page_span(rec.a, rec.size);
        let mut excluded = Vec::new();
        for (i, r) in g.window.same_start(index).take(PAIRING_EVENTS) {
            match r.kind {
                FtKind::Unmap => {
                    let Some(domain) = g.told_domain(r) else { break };
                    if self.out.tables.is_free(domain, page, pages) && !excluded.contains(&domain) {
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
            .filter(|d| !excluded.contains(d) && self.out.tables.is_free(*d, page, pages))
            .collect();
        self.neighbour(index, rec, &free)
    }

    /// The domain of the scatter list that a map is a part of: the same task
    /// maps its parts one behind the other, to adjoining IOVAs.
    fn scatter_list(&self, index: u64, rec: &FtRec) -> Option<u32> {
        let g = self.guest.as_ref()?;
        let same_task = |pid: u32, cpu: u32| pid == rec.pid && cpu == rec.cpu;
        let before = g.history.of_task(rec.pid, rec.cpu, usize::MAX).next();
        if let Some(h) = before
            && h.kind == FtKind::Map
            && h.iova.wrapping_add(h.size) == rec.a
            && index - h.index <= PARTS
        {
            return Some(h.domain);
        }
        if !self.window.proves() {
            return None;
        }
        let mut end = rec.a.wrapping_add(rec.size);
        let behind = g.window.from(index + 1).take(PARTS as usize);
        for (i, r) in behind.filter(|(_, r)| same_task(r.pid, r.cpu)) {
            if r.kind != FtKind::Map || r.a != end {
                break;
            }
            if let Some(p) = g.proof(&self.window, i) {
                return Some(p.domain);
            }
            end = r.a.wrapping_add(r.size);
        }
        None
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
        // What the device used last is what its driver unmaps now.
        if let Some(now) = g.log_time(index) {
            let page = rec.a >> 12;
            let age =
                |d: u32| g.uses.last(d, page).map_or(i64::MAX, |t| now.saturating_sub(t).max(0));
            let mut ages: Vec<(i64, u32)> = live.iter().map(|d| (age(*d), *d)).collect();
            ages.sort_unstable();
            if let [(youngest, domain), (next, _), ..] = ages[..]
                && youngest.saturating_mul(AGE_RATIO) < next
            {
                return Found::new(domain, Found::ADJACENCY);
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
        let like = |h: &&Entry| h.kind == rec.kind && usable(h.domain);
        let same_task = |h: &&Entry| h.pid == rec.pid && h.cpu == rec.cpu;
        let mut beside = g.history.beside(rec, NEIGHBOURS).filter(like).filter(same_task);
        if let Some(h) = beside.find(|h| h.touches(rec)) {
            return Found::new(h.domain, Found::ADJACENCY);
        }
        let mut of_task = g.history.of_task(rec.pid, rec.cpu, NEIGHBOURS).filter(like);
        let mut near = of_task.next().map(|h| (index.abs_diff(h.index), h.domain));
        // Without accesses nothing ahead tells a map's domain, and without invalidations an unmap's.
        let tells = match rec.kind {
            FtKind::Map => self.window.proves(),
            _ => !g.recent.none_linked_behind(index),
        };
        let ahead = if tells { NEIGHBOURS_AHEAD } else { 0 };
        for (i, r) in g.window.from(index + 1).take(ahead) {
            if r.pid != rec.pid || r.cpu != rec.cpu || r.kind != rec.kind {
                continue;
            }
            let domain = match r.kind {
                FtKind::Map => g.proof(&self.window, i).map(|p| p.domain),
                _ => g.told_domain(r),
            };
            let Some(domain) = domain.filter(|d| usable(*d)) else { continue };
            let touches = r.a.wrapping_add(r.size) == rec.a || rec.a.wrapping_add(rec.size) == r.a;
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
        if rec.told != u32::MAX {
            return Some(rec.told);
        }
        self.window.get(rec.peer).and_then(|s| s.descriptor().pages()).map(|(domain, ..)| domain)
    }

    /// The first access that proves map `index`.
    fn proof(&self, log: &LogWindow, index: u64) -> Option<Proof> {
        if !log.proves() {
            return None;
        }
        let rec = self.window.get(index)?;
        let not_before =
            self.log_time(index).map_or(i64::MIN, |t| t.saturating_sub(PROOF_SLACK_NS));
        let (page, pages) = page_span(rec.a, rec.size);
        let out = rec.b >> 12;
        let mut best: Option<Proof> = None;
        let mut consider = |at: u64, r: &LogRec| {
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
                let inside = |r: &&LogRec| (r.a >> 12).wrapping_sub(page) < pages;
                let mut proofs = log.region_proofs(page + i, out + i);
                if let Some((at, r)) = proofs.find(|(_, r)| inside(r) && r.time >= not_before) {
                    consider(at, r);
                }
                i = ((page + i) | 0x1ff) + 1 - page;
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

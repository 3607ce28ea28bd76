//! Where the ftrace's records go between the log's: by time, corrected by
//! what must have come first (see `join.rs`).

use super::emit::page_span;
use super::join::Join;
use super::joined::PULL_NS;
use super::lines::{EventSink, LineSource};
use super::window::{FtKind, LogRec, NONE};
use crate::Result;

/// Records of the ftrace searched for a map that an access needs.
const PULL_RECORDS: usize = 4096;
/// Behind an unmap without an own invalidation, misses within this time are
/// taken for earlier than the unmap.
const HOLD_NS: i64 = 2_000_000;
/// Up to this many records are looked at one by one.
const NEAR_RECORDS: u64 = 64;
/// Pages of an unmap that are checked for such misses.
const HOLD_PAGES: u64 = 64;

impl<L: LineSource, F: LineSource, S: EventSink> Join<L, F, S> {
    /// Writes ftrace records whose time has come.
    pub(super) fn release(&mut self, time: i64) -> Result<()> {
        let Some(g) = &mut self.guest else { return Ok(()) };
        // What was pulled before its time is gone from the window.
        g.next = g.next.max(g.window.head());
        let due = g.due(g.next, time);
        if !due && self.window.head() < g.retry_at {
            return Ok(());
        }
        let mut blocked = CpuSet::default();
        let mut retry_at = NONE;
        let mut index = g.window.head();
        while let Some(g) = &self.guest
            && let Some(rec) = g.window.get(index)
        {
            if rec.done {
                index += 1;
                continue;
            }
            if index >= g.next && !g.due(index, time) {
                break;
            }
            let cpu = rec.cpu;
            if !blocked.contains(cpu) {
                if let Some(until) = self.wait_for(index) {
                    blocked.insert(cpu);
                    retry_at = retry_at.min(until);
                } else {
                    self.write_ft(index)?;
                }
            }
            index += 1;
        }
        if let Some(g) = &mut self.guest {
            g.next = g.next.max(index);
            g.retry_at = retry_at;
        }
        Ok(())
    }

    /// The log record that must be written before ftrace record `index`.
    fn wait_for(&mut self, index: u64) -> Option<u64> {
        let head = self.window.head();
        let g = self.guest.as_ref()?;
        let rec = *g.window.get(index)?;
        match rec.kind {
            FtKind::Submit => (rec.peer != NONE && rec.peer >= head).then(|| rec.peer + 1),
            FtKind::Unmap => {
                let hold = self.hold(index);
                if hold <= head {
                    return None;
                }
                let rec = self.guest.as_mut().and_then(|g| g.window.get_mut(index))?;
                self.counts.held += u64::from(!std::mem::replace(&mut rec.held, true));
                Some(hold)
            }
            _ => None,
        }
    }

    /// The log record before which unmap `index` cannot be: the one behind
    /// the last miss that still found the old output.
    fn hold(&mut self, index: u64) -> u64 {
        if !self.window.proves() {
            // Nothing misses where accesses are not recorded.
            return 0;
        }
        let found = self.attribute(index);
        let Some(g) = self.guest.as_ref() else { return 0 };
        let Some(rec) = g.window.get(index) else { return 0 };
        let (page, pages) = page_span(rec.a, rec.size);
        let Some(domain) = found.domain.filter(|_| pages <= HOLD_PAGES) else { return 0 };
        // Its own invalidation bounds it.
        let limit = match g.window.get(rec.peer) {
            Some(submit) => submit.peer,
            None if rec.told != u32::MAX => rec.vmm,
            None => NONE,
        };
        if limit != NONE && limit.saturating_sub(self.window.head()) <= NEAR_RECORDS {
            // Mostly there is none in between, which is seen at once.
            let missed = |r: &LogRec| r.proves() && (r.a >> 12).wrapping_sub(page) < pages;
            if !self.window.first(limit).any(missed) {
                return 0;
            }
        }
        let time_limit = g.log_time(index).map_or(i64::MAX, |t| t.saturating_add(HOLD_NS));
        let mut hold = 0;
        for (start, range) in self.out.tables.within(domain, page, pages) {
            for i in 0..range.pages {
                let misses = self.window.proofs(start + i, range.out + i).take_while(|(at, r)| {
                    if limit == NONE { r.time <= time_limit } else { *at < limit }
                });
                for (at, miss) in misses {
                    if miss.domain == domain
                        && !g.maps_again(index, start + i, range.out + i, miss.time)
                    {
                        hold = hold.max(at + 1);
                    }
                }
            }
        }
        hold
    }

    /// Writes what a CPU did before it submitted descriptor `submit`.
    pub(super) fn release_before_submit(&mut self, submit: u64) -> Result<()> {
        let Some(g) = &mut self.guest else { return Ok(()) };
        let Some(cpu) = g.window.get(submit).map(|r| r.cpu) else { return Ok(()) };
        g.window.get_mut(submit).expect("seen above").done = true;
        g.retry_at = 0;
        self.write_cpu_before(submit, cpu)?;
        if !self.log.clock().timed() {
            // Without times the order of the ftrace is all there is.
            let Some(g) = &self.guest else { return Ok(()) };
            let head = self.window.head();
            let open: Vec<u64> = g
                .window
                .from(g.window.head())
                .take_while(|(i, _)| *i < submit)
                .filter(|(_, r)| {
                    !r.done && (r.kind != FtKind::Submit || r.peer == NONE || r.peer < head)
                })
                .map(|(i, _)| i)
                .collect();
            for index in open {
                self.write_ft(index)?;
            }
        }
        Ok(())
    }

    /// Writes what `cpu` did before record `end` and is not written yet.
    fn write_cpu_before(&mut self, end: u64, cpu: u32) -> Result<()> {
        let Some(g) = &self.guest else { return Ok(()) };
        let mut open: Vec<u64> =
            g.window.before(end).filter(|(_, r)| !r.done && r.cpu == cpu).map(|(i, _)| i).collect();
        open.reverse();
        for index in open {
            self.write_ft(index)?;
        }
        Ok(())
    }

    /// Looks for a map that the access at `index` needs among those that
    /// come a little later, and writes it with what must go before it.
    pub(super) fn pull(&mut self, index: u64) -> Result<()> {
        let Some(&dma) = self.window.get(index) else { return Ok(()) };
        let (page, out) = (dma.a >> 12, dma.b >> 12);
        let Some(g) = &self.guest else { return Ok(()) };
        let limit = dma.time.saturating_add(PULL_NS);
        let timed = self.log.clock().timed();
        let mut candidates = Vec::new();
        for (i, r) in g.window.from(g.window.head()).take(PULL_RECORDS) {
            if timed && !g.due(i, limit) {
                break;
            }
            let inside = r.kind == FtKind::Map
                && r.a >> 12 <= page
                && page - (r.a >> 12) < r.size.div_ceil(4096);
            if !r.done && inside && (r.b >> 12).wrapping_add(page - (r.a >> 12)) == out {
                candidates.push((i, r.cpu, r.a, r.size));
            }
        }
        let found = candidates.into_iter().find(|c| self.attribute(c.0).domain == Some(dma.domain));
        let Some((map, cpu, iova, size)) = found else { return Ok(()) };
        let Some(g) = &self.guest else { return Ok(()) };
        // In the program order of its CPU nothing that the log shows later
        // may come first.
        let conflict =
            g.window.from(g.window.head()).take_while(|(i, _)| *i < map).any(|(_, r)| {
                !r.done
                    && r.cpu == cpu
                    && r.kind == FtKind::Submit
                    && r.peer != NONE
                    && r.peer > index
            });
        if conflict {
            self.counts.order_conflicts += 1;
            return Ok(());
        }
        // The page's previous mapping must be gone, whoever unmapped it.
        let unmaps: Vec<(u64, u32)> = g
            .window
            .from(g.window.head())
            .take_while(|(i, _)| *i < map)
            .filter(|(_, r)| {
                !r.done
                    && r.kind == FtKind::Unmap
                    && r.cpu != cpu
                    && r.a < iova.saturating_add(size)
                    && iova < r.a.saturating_add(r.size)
            })
            .map(|(i, r)| (i, r.cpu))
            .collect();
        if self.out.tables.lookup(dma.domain, page).is_some() {
            for (unmap, other) in unmaps {
                if self.attribute(unmap).domain == Some(dma.domain) {
                    self.write_cpu_before(unmap, other)?;
                    self.write_ft(unmap)?;
                }
            }
        }
        self.counts.pulled += 1;
        self.write_cpu_before(map, cpu)?;
        self.write_ft(map)
    }
}

/// CPUs, for one pass over the window.
#[derive(Debug, Default)]
struct CpuSet {
    low: u128,
    high: Vec<u32>,
}

impl CpuSet {
    fn contains(&self, cpu: u32) -> bool {
        if cpu < 128 { self.low >> cpu & 1 != 0 } else { self.high.contains(&cpu) }
    }

    fn insert(&mut self, cpu: u32) {
        if cpu < 128 {
            self.low |= 1 << cpu;
        } else if !self.high.contains(&cpu) {
            self.high.push(cpu);
        }
    }
}

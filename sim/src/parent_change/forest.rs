//! A made-up population of shadows over one level, to measure policies on:
//! the real tables and the real code, without a guest.
//!
//! The children are user-managed and followed by invalidations with a range
//! (`invalidate-range`), or host-managed with captured calls (`map-unmap`).
//! All addresses follow from the [`Spec`]; nothing is random.

use super::{Change, ChangeKind, ChildId, Policy, Shadows, Work};
use crate::events::{PageSize, Perm};
use crate::results::ShadowCounters;
use crate::shadow::{Shadow, ShadowOp, SyncContext};
use crate::sync::{self, Range};
use crate::table::{Prune, RadixTable};

/// Bytes of a page here.
pub const PAGE: u64 = PageSize::Size4K.bytes();
const LEVELS: u32 = 4;
/// First page of every child.
const BASE: u64 = 0x10_0000;
/// Where the parent's pages lie in the host.
const HOST: u64 = 1 << 40;

/// The golden section scatters GPAs.
const GOLDEN: f64 = 0.618_033_988_749;

/// What a [`Forest`] is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Children of the level, 1 or more.
    pub children: u64,
    /// Shadow entries of 4 KiB of all children together, rounded down to a
    /// multiple of the children.
    pub entries: u64,
    /// Share of each child's pages (0 to 1) that all children map; the rest
    /// is its own.
    pub overlap: f64,
    /// Consecutive IOVAs that lead to consecutive GPAs, in pages; beyond a
    /// run GPAs are scattered.
    pub run: u64,
}

impl Spec {
    /// Entries of one child.
    pub fn per_child(&self) -> u64 {
        (self.entries / self.children).max(1)
    }

    /// Pages of each child that all children map.
    fn shared(&self) -> u64 {
        (self.per_child() as f64 * self.overlap) as u64
    }

    /// Pages of the level that entries lead to.
    pub fn gpas(&self) -> u64 {
        self.shared() + self.children * (self.per_child() - self.shared())
    }

    /// IOVA of a child's page.
    pub fn iova(&self, page: u64) -> u64 {
        (BASE + page) * PAGE
    }
}

/// Scatters numbers below `of`: multiplication by a number near a share of it
/// that has no factor in common with it. Scatters of one number by shares
/// that are not related do not follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Scatter {
    by: u64,
    of: u64,
}

impl Scatter {
    /// For numbers below `of`; `share` is between 0 and 1, best irrational.
    pub fn new(of: u64, share: f64) -> Scatter {
        fn gcd(a: u64, b: u64) -> u64 {
            if b == 0 { a } else { gcd(b, a % b) }
        }
        let mut by = (of as f64 * share) as u64 | 1;
        while gcd(by, of) > 1 {
            by += 2;
        }
        Scatter { by, of }
    }

    /// Where the `n`-th number is.
    pub fn at(self, n: u64) -> u64 {
        (n as u128 * self.by as u128 % self.of as u128) as u64
    }
}

struct Child {
    table: RadixTable,
    shadow: Shadow,
}

/// Shadows of children over one parent, filled.
pub struct Forest {
    spec: Spec,
    scatter: Scatter,
    parent: RadixTable,
    children: Vec<Child>,
    captured: bool,
    /// Work of following the children.
    pub counters: ShadowCounters,
    /// Host operations since they were last taken.
    pub ops: Vec<ShadowOp>,
}

fn nowhere() -> impl FnMut(u32, u64) -> u64 {
    |_, _| 0
}

impl Forest {
    /// A forest whose shadows are complete.
    pub fn new(spec: Spec) -> Forest {
        let table = || RadixTable::new(LEVELS, Prune::Covered, &mut nowhere());
        let child = || Child { table: table(), shadow: Shadow::new(LEVELS) };
        let mut forest = Forest {
            spec,
            scatter: Scatter::new(spec.gpas().div_ceil(spec.run), GOLDEN),
            parent: table(),
            children: (0..spec.children).map(|_| child()).collect(),
            captured: false,
            counters: ShadowCounters::default(),
            ops: Vec::new(),
        };
        let end = forest.memory_end();
        forest.parent_map(0, end);
        for child in 0..spec.children as u32 {
            for page in 0..spec.per_child() {
                forest.guest_map(child, page, 1);
            }
            forest.invalidate(child, 0, spec.per_child());
            forest.ops = Vec::new();
        }
        forest
    }

    /// What it is made of.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Address after the last GPA that an entry may lead to.
    pub fn memory_end(&self) -> u64 {
        self.scatter.of * self.spec.run * PAGE
    }

    /// Shadow entries present.
    pub fn entries(&self) -> u64 {
        self.children.iter().map(|c| c.shadow.table().leaves()).sum()
    }

    /// Children are host-managed from now on: their calls are captured.
    pub fn capture_calls(&mut self) {
        self.captured = true;
    }

    /// GPA that a child's page leads to.
    pub fn gpa(&self, child: u32, page: u64) -> u64 {
        let (shared, spec) = (self.spec.shared(), &self.spec);
        let own = spec.per_child() - shared;
        let n = if page < shared { page } else { child as u64 * own + page };
        (self.scatter.at(n / spec.run) * spec.run + n % spec.run) * PAGE
    }

    /// The guest writes entries for `pages` pages; nobody is told.
    pub fn guest_map(&mut self, child: u32, page: u64, pages: u64) {
        for page in page..page + pages {
            let (iova, gpa) = (self.spec.iova(page), self.gpa(child, page));
            let table = &mut self.children[child as usize].table;
            let size = PageSize::Size4K;
            table.map(iova, gpa, PAGE, Perm::RW, size, &mut nowhere()).expect("inside the table");
        }
    }

    /// The guest clears entries of `pages` pages; nobody is told.
    pub fn guest_unmap(&mut self, child: u32, page: u64, pages: u64) {
        let iova = self.spec.iova(page);
        self.children[child as usize].table.unmap(iova, pages * PAGE, &mut nowhere());
    }

    fn with<R>(&mut self, child: u32, f: impl FnOnce(&mut Shadow, &mut SyncContext<'_>) -> R) -> R {
        let Child { table, shadow } = &mut self.children[child as usize];
        let cx = &mut SyncContext {
            child: table,
            parent: &self.parent,
            ops: &mut self.ops,
            counters: &mut self.counters,
        };
        f(shadow, cx)
    }

    /// The guest invalidates `pages` pages, and the VMM brings the shadow in
    /// line. The host operations are added to [`Forest::ops`].
    #[inline]
    pub fn invalidate(&mut self, child: u32, page: u64, pages: u64) {
        let start = self.spec.iova(page);
        let range = Range { start, end: start + pages * PAGE };
        let policy = sync::Policy::of_kind(sync::Kind::InvalidateRange);
        self.with(child, |shadow, cx| policy.invalidate(shadow, cx, Some(range)));
    }

    /// A captured map call of one page, on host-managed children.
    #[inline]
    pub fn map_call(&mut self, child: u32, page: u64) {
        let (start, gpa) = (self.spec.iova(page), self.gpa(child, page));
        let range = Range { start, end: start + PAGE };
        let policy = sync::Policy::of_kind(sync::Kind::MapUnmap);
        self.with(child, |shadow, cx| policy.map_call(shadow, cx, range, gpa, Perm::RW));
    }

    /// A captured unmap call, on host-managed children.
    #[inline]
    pub fn unmap_call(&mut self, child: u32, page: u64, pages: u64) {
        let start = self.spec.iova(page);
        let range = Range { start, end: start + pages * PAGE };
        let policy = sync::Policy::of_kind(sync::Kind::MapUnmap);
        self.with(child, |shadow, cx| policy.unmap_call(shadow, cx, range));
    }

    /// Tells a policy what became of a child since [`Forest::ops`] were taken.
    #[inline]
    pub fn follow(&mut self, child: u32, policy: &mut Policy) {
        policy.follow(ChildId(child), &self.ops);
        self.ops.clear();
    }

    /// Tells a policy that starts now of all entries.
    pub fn feed(&self, policy: &mut Policy) {
        for child in 0..self.children.len() as u32 {
            let id = ChildId(child);
            self.records(id, &mut |iova, gpa, len| policy.mapped(id, iova, gpa, len));
        }
    }

    /// The host removes `[gpa, gpa + len)` and mends what led there.
    pub fn parent_unmap(&mut self, policy: &mut Policy, gpa: u64, len: u64, work: &mut Work) {
        self.parent.unmap(gpa, len, &mut nowhere());
        let change = Change { start: gpa, end: gpa + len, kind: ChangeKind::Altered };
        policy.changed(change, self, work);
    }

    /// The host gives `[gpa, gpa + len)` its memory back and mends what leads
    /// there.
    pub fn parent_restore(&mut self, policy: &mut Policy, gpa: u64, len: u64, work: &mut Work) {
        self.parent_map(gpa, len.min(self.memory_end() - gpa));
        let change = Change { start: gpa, end: gpa + len, kind: ChangeKind::Added };
        policy.changed(change, self, work);
    }

    /// The host gives `[gpa, gpa + len)` its memory back without a word; the
    /// next rebuild finds it.
    pub fn parent_back(&mut self, gpa: u64, len: u64) {
        self.parent_map(gpa, len.min(self.memory_end() - gpa));
    }

    /// The parent is made of 4 KiB pages, no two of which touch in the host.
    fn parent_map(&mut self, gpa: u64, len: u64) {
        for at in (gpa..gpa + len).step_by(PAGE as usize) {
            let (host, size) = (HOST + (at ^ PAGE), PageSize::Size4K);
            let mapped = self.parent.map(at, host, PAGE, Perm::RW, size, &mut nowhere());
            mapped.expect("inside the table");
        }
    }

    fn record(&self, child: ChildId) -> &RadixTable {
        let c = &self.children[child.0 as usize];
        if self.captured { &c.table } else { c.shadow.synced() }
    }

    fn records_in(&self, child: ChildId, start: u64, end: u64) -> Vec<(u64, u64, u64, Perm)> {
        let mut records = Vec::new();
        self.record(child).visit(start, end, &mut |iova, leaf| {
            records.push((iova, leaf.out, leaf.size.bytes(), leaf.perm));
            true
        });
        records
    }
}

impl Shadows for Forest {
    fn children(&self, f: &mut dyn FnMut(ChildId)) {
        (0..self.children.len() as u32).for_each(|c| f(ChildId(c)));
    }

    fn records(&self, child: ChildId, f: &mut dyn FnMut(u64, u64, u64)) {
        self.record(child).visit(0, u64::MAX, &mut |iova, leaf| {
            f(iova, leaf.out, leaf.size.bytes());
            true
        });
    }

    fn touch(&self, child: ChildId, iova: u64, gpa: u64) {
        let shadow = &self.children[child.0 as usize].shadow;
        std::hint::black_box(shadow.table().lookup(iova));
        if self.parent.lookup(gpa).is_some() {
            std::hint::black_box(self.record(child).lookup(iova));
        }
    }

    fn mend(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64, work: &mut Work) {
        work.mends += 1;
        if len == PAGE && self.parent.lookup(gpa).is_none() {
            let shadow = &mut self.children[child.0 as usize].shadow;
            work.entries_changed += shadow.mend_gone(iova, len);
            return;
        }
        if len == PAGE {
            let perm = self.record(child).lookup(iova).expect("recorded").perm;
            let shadow = &mut self.children[child.0 as usize].shadow;
            work.entries_changed += shadow.mend(&self.parent, iova, gpa, len, perm);
            return;
        }
        for (iova, gpa, len, perm) in self.records_in(child, iova, iova + len) {
            let shadow = &mut self.children[child.0 as usize].shadow;
            work.entries_changed += shadow.mend(&self.parent, iova, gpa, len, perm);
        }
    }

    fn rebuild(&mut self, child: ChildId, work: &mut Work) {
        let Child { table, shadow } = &mut self.children[child.0 as usize];
        work.entries_dropped += shadow.clear();
        let mut counters = ShadowCounters::default();
        let end = 1 << table.width();
        let (parent, ops) = (&self.parent, &mut self.ops);
        let cx = &mut SyncContext { child: table, parent, ops, counters: &mut counters };
        shadow.sync(cx, 0, end);
        self.ops.clear();
        work.entries_examined += counters.entries_examined;
        work.lines += counters.pte_reads.div_ceil(8);
        work.entries_rebuilt += counters.mapped;
        work.shadows_dropped += 1;
    }

    fn retire(&mut self, child: ChildId, work: &mut Work) -> Option<RadixTable> {
        let shadow = &mut self.children[child.0 as usize].shadow;
        if shadow.table().leaves() == 0 {
            return None;
        }
        work.entries_dropped += shadow.table().leaves();
        work.shadows_dropped += 1;
        Some(shadow.retire())
    }

    fn fill(&mut self, child: ChildId, start: u64, end: u64, work: &mut Work) {
        for (iova, gpa, len, perm) in self.records_in(child, start, end) {
            let shadow = &mut self.children[child.0 as usize].shadow;
            work.entries_examined += 1;
            work.entries_rebuilt += shadow.restore(&self.parent, iova, gpa, len, perm);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent_change::Kind;

    #[test]
    fn overlap_and_runs_are_as_asked() {
        for (overlap, run, gpas) in [(0.0, 1, 4000), (1.0, 1, 1000), (0.5, 8, 2500)] {
            let forest = Forest::new(Spec { children: 4, entries: 4000, overlap, run });
            assert_eq!((forest.entries(), forest.spec().gpas()), (4000, gpas));
            let all = (0..4).flat_map(|c| (0..1000).map(move |p| (c, p)));
            let mut seen: Vec<u64> = all.map(|(c, p)| forest.gpa(c, p)).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len() as u64, gpas);
            assert_eq!(forest.gpa(0, 1) == forest.gpa(0, 0) + PAGE, run > 1);
        }
    }

    #[test]
    fn every_policy_removes_and_restores() {
        for kind in Kind::ALL {
            for overlap in [0.0, 1.0] {
                let mut forest = Forest::new(Spec { children: 4, entries: 4000, overlap, run: 16 });
                let mut policy = Policy::of_kind(kind);
                forest.feed(&mut policy);
                let end = forest.memory_end();
                for (gpa, len) in [(PAGE * 7, PAGE), (PAGE * 128, PAGE * 64), (0, end)] {
                    let mut work = Work::default();
                    forest.parent_unmap(&mut policy, gpa, len, &mut work);
                    for c in &forest.children {
                        c.shadow.table().visit(0, u64::MAX, &mut |_, leaf| {
                            let gpa_of = (leaf.out - HOST) ^ PAGE;
                            assert!(gpa_of < gpa || gpa + len <= gpa_of, "{}", kind.name());
                            true
                        });
                    }
                    forest.parent_restore(&mut policy, gpa, len, &mut work);
                    while policy.step(1 << 20, &mut forest, &mut work) {}
                    assert_eq!(forest.entries(), 4000, "{}", kind.name());
                }
            }
        }
    }
}

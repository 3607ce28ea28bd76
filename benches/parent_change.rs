//! A parent change under a million shadow entries in 16 children, by policy:
//! time of a 4 KiB unmap, primitives, memory per entry, and what a policy
//! adds to the child's map path.
//!
//! `cargo bench --bench parent_change` prints the table first, then lets
//! criterion measure the unmaps. Times in the table are CPU time of this
//! thread.

mod common;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ioasim_events::{PageSize, Perm};
use ioasim_sim::parent_change::{Change, ChangeKind, ChildId, Kind, Policy, Shadows, Work};
use ioasim_sim::results::ShadowCounters;
use ioasim_sim::shadow::{Shadow, SyncContext};
use ioasim_sim::sync;
use ioasim_sim::table::{Prune, RadixTable};

const CHILDREN: u32 = 16;
const ENTRIES: u64 = 1_000_000;
const PER_CHILD: u64 = ENTRIES / CHILDREN as u64;
const PAGE: u64 = 4096;
const LEVELS: u32 = 4;
/// First page of every child.
const BASE: u64 = 0x100_000;
/// Coprime to the number of pages: neighbours lead to scattered GPAs.
const SCATTER: u64 = 618_033;

fn nowhere() -> impl FnMut(u32, u64) -> u64 {
    |_, _| 0
}

/// How far the children share the parent's pages.
#[derive(Clone, Copy, PartialEq)]
enum Overlap {
    /// Each GPA in one child.
    None,
    /// Each GPA in all children.
    Full,
}

impl Overlap {
    fn gpa(self, child: u32, page: u64) -> u64 {
        let (number, of) = match self {
            Overlap::None => (child as u64 * PER_CHILD + page, ENTRIES),
            Overlap::Full => (page, PER_CHILD),
        };
        number * SCATTER % of * PAGE
    }

    fn gpas(self) -> u64 {
        if self == Overlap::None { ENTRIES } else { PER_CHILD }
    }
}

struct Child {
    table: RadixTable,
    shadow: Shadow,
}

/// Children of one parent, all merged in software and host-managed.
struct Forest {
    parent: RadixTable,
    children: Vec<Child>,
    counters: ShadowCounters,
    ops: Vec<ioasim_sim::shadow::ShadowOp>,
}

impl Forest {
    fn new(gpas: u64) -> Forest {
        let mut parent = RadixTable::new(LEVELS, Prune::Covered, &mut nowhere());
        for page in 0..gpas {
            parent_map(&mut parent, page * PAGE);
        }
        let child = || Child {
            table: RadixTable::new(LEVELS, Prune::Covered, &mut nowhere()),
            shadow: Shadow::new(LEVELS),
        };
        let children = (0..CHILDREN).map(|_| child()).collect();
        Forest { parent, children, counters: ShadowCounters::default(), ops: Vec::new() }
    }

    /// One captured guest map: the VMM's map path.
    fn map(&mut self, child: u32, iova: u64, gpa: u64) {
        let Child { table, shadow } = &mut self.children[child as usize];
        let parent = &self.parent;
        let (ops, counters) = (&mut self.ops, &mut self.counters);
        let cx = &mut SyncContext { child: table, parent, ops, counters };
        let range = sync::Range { start: iova, end: iova + PAGE };
        let policy = sync::Policy::of_kind(sync::Kind::MapUnmap);
        policy.map_call(shadow, cx, range, gpa, Perm::RW);
    }

    /// The guest's own write and the map path of a user-managed child.
    fn invalidate(&mut self, child: u32, iova: u64) {
        let Child { table, shadow } = &mut self.children[child as usize];
        let parent = &self.parent;
        let (ops, counters) = (&mut self.ops, &mut self.counters);
        let cx = &mut SyncContext { child: table, parent, ops, counters };
        let range = sync::Range { start: iova, end: iova + PAGE };
        sync::Policy::of_kind(sync::Kind::InvalidateRange).invalidate(shadow, cx, Some(range));
    }

    fn guest_write(&mut self, child: u32, iova: u64, gpa: u64) {
        let table = &mut self.children[child as usize].table;
        table.map(iova, gpa, PAGE, Perm::RW, PageSize::Size4K, &mut nowhere()).expect("in range");
    }

    fn fill(&mut self, overlap: Overlap, policy: &mut Policy) {
        for child in 0..CHILDREN {
            for page in 0..PER_CHILD {
                let (iova, gpa) = ((BASE + page) * PAGE, overlap.gpa(child, page));
                self.guest_write(child, iova, gpa);
                self.map(child, iova, gpa);
                policy.follow(ChildId(child), &self.ops);
                self.ops.clear();
            }
        }
    }
}

fn parent_map(parent: &mut RadixTable, gpa: u64) {
    let host = (1 << 40) + (gpa ^ PAGE);
    parent.map(gpa, host, PAGE, Perm::RW, PageSize::Size4K, &mut nowhere()).expect("in range");
}

impl Shadows for Forest {
    fn children(&self, f: &mut dyn FnMut(ChildId)) {
        (0..CHILDREN).for_each(|c| f(ChildId(c)));
    }

    fn records(&self, child: ChildId, f: &mut dyn FnMut(u64, u64, u64)) {
        self.children[child.0 as usize].table.visit(0, u64::MAX, &mut |iova, leaf| {
            f(iova, leaf.out, leaf.size.bytes());
            true
        });
    }

    fn mend(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64, work: &mut Work) {
        let Child { table, shadow } = &mut self.children[child.0 as usize];
        let perm = table.lookup(iova).expect("recorded").perm;
        work.entries_changed += shadow.mend(&self.parent, iova, gpa, len, perm);
        work.mends += 1;
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
        work.entries_examined += counters.mapped;
        work.entries_rebuilt += counters.mapped;
        work.shadows_dropped += 1;
    }

    fn retire(&mut self, child: ChildId, work: &mut Work) -> Option<RadixTable> {
        let shadow = &mut self.children[child.0 as usize].shadow;
        work.entries_dropped += shadow.table().leaves();
        work.shadows_dropped += 1;
        (shadow.table().leaves() > 0).then(|| shadow.retire())
    }

    fn fill(&mut self, child: ChildId, start: u64, end: u64, work: &mut Work) {
        let Child { table, shadow } = &mut self.children[child.0 as usize];
        let parent = &self.parent;
        table.visit(start, end, &mut |iova, leaf| {
            work.entries_examined += 1;
            work.entries_rebuilt +=
                shadow.restore(parent, iova, leaf.out, leaf.size.bytes(), leaf.perm);
            true
        });
    }
}

fn change(gpa: u64, kind: ChangeKind) -> Change {
    Change { start: gpa, end: gpa + PAGE, kind }
}

/// Unmaps `count` pages one by one; returns CPU seconds and the work. Then
/// maps them again, unmeasured.
fn unmaps(forest: &mut Forest, policy: &mut Policy, gpas: u64, count: u64) -> (f64, Work) {
    let pages: Vec<u64> = (0..count).map(|i| i * 7_919 % gpas * PAGE).collect();
    let mut work = Work::default();
    let start = common::cpu_seconds();
    for gpa in &pages {
        forest.parent.unmap(*gpa, PAGE, &mut nowhere());
        policy.changed(change(*gpa, ChangeKind::Altered), forest, &mut work);
    }
    let seconds = common::cpu_seconds() - start;
    let mut rest = Work::default();
    for gpa in &pages {
        parent_map(&mut forest.parent, *gpa);
        if matches!(policy, Policy::FlushAll(_)) && Some(gpa) != pages.last() {
            continue; // one rebuild mends all
        }
        policy.changed(change(*gpa, ChangeKind::Added), forest, &mut rest);
    }
    while policy.step(1 << 20, forest, &mut rest) {}
    (seconds, work)
}

fn rounds(kind: Kind) -> u64 {
    match kind {
        Kind::FlushAll | Kind::Epoch => 2,
        Kind::Scan => 40,
        _ => 8_000,
    }
}

/// CPU seconds per map, without and with the policy: the same churn of
/// unmaps and maps of pages near random places, on a filled forest.
fn map_path(forest: &mut Forest, policy: &mut Policy, captured: bool, follow: bool) -> f64 {
    let churn = 200_000u64;
    let mut spent = 0.0;
    for batch in 0..4 {
        let places: Vec<(u32, u64, u64)> = (0..churn / 4)
            .map(|i| {
                let n = (batch * churn + i) * 104_729 % ENTRIES;
                let child = (n / PER_CHILD) as u32;
                ((child), (BASE + n % PER_CHILD) * PAGE, Overlap::None.gpa(child, n % PER_CHILD))
            })
            .collect();
        for (child, iova, _) in &places {
            let c = &mut forest.children[*child as usize];
            c.table.unmap(*iova, PAGE, &mut nowhere());
            let range = sync::Range { start: *iova, end: iova + PAGE };
            let (parent, ops) = (&forest.parent, &mut forest.ops);
            let counters = &mut forest.counters;
            let cx = &mut SyncContext { child: &mut c.table, parent, ops, counters };
            if captured {
                let sync = sync::Policy::of_kind(sync::Kind::MapUnmap);
                sync.unmap_call(&mut c.shadow, cx, range);
            } else {
                let sync = sync::Policy::of_kind(sync::Kind::InvalidateRange);
                sync.invalidate(&mut c.shadow, cx, Some(range));
            }
            if follow {
                policy.follow(ChildId(*child), &forest.ops);
            }
            forest.ops.clear();
        }
        for (child, iova, gpa) in &places {
            forest.guest_write(*child, *iova, *gpa);
        }
        let start = common::cpu_seconds();
        for (child, iova, gpa) in &places {
            if captured {
                forest.map(*child, *iova, *gpa);
            } else {
                forest.invalidate(*child, *iova);
            }
            if follow {
                policy.follow(ChildId(*child), black_box(&forest.ops));
            }
            forest.ops.clear();
        }
        spent += common::cpu_seconds() - start;
    }
    spent / churn as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn table() {
    println!("4 KiB parent unmap, {ENTRIES} shadow entries in {CHILDREN} children");
    println!(
        "{:14} {:>8} {:>14} {:>12} {:>10} {:>10} {:>10} {:>12} {:>12}",
        "policy",
        "overlap",
        "us/unmap",
        "examined",
        "changed",
        "lines",
        "B/entry",
        "map +%",
        "sync +%"
    );
    for overlap in [Overlap::None, Overlap::Full] {
        for kind in Kind::ALL {
            let mut policy = Policy::of_kind(kind);
            let mut forest = Forest::new(overlap.gpas());
            forest.fill(overlap, &mut policy);
            let bytes = policy.memory_bytes() as f64 / ENTRIES as f64;
            let count = rounds(kind);
            let (seconds, work) = unmaps(&mut forest, &mut policy, overlap.gpas(), count);
            let each = |n: u64| n as f64 / count as f64;
            let mut added = [f64::NAN; 2];
            if overlap == Overlap::None
                && matches!(kind, Kind::Rmap | Kind::RmapInterval | Kind::RmapLinked)
            {
                // `synced` follows user-managed children from here on.
                for (i, captured) in [(0, true), (1, false)] {
                    if !captured {
                        let mut work = Work::default();
                        (0..CHILDREN).for_each(|c| forest.rebuild(ChildId(c), &mut work));
                    }
                    let (mut without, mut with) = (Vec::new(), Vec::new());
                    for _ in 0..5 {
                        with.push(map_path(&mut forest, &mut policy, captured, true));
                        without.push(map_path(&mut forest, &mut policy, captured, false));
                    }
                    let (with, without) = (median(with), median(without));
                    eprintln!(
                        "{}: {:.0} ns, {:.0} ns followed",
                        kind.name(),
                        without * 1e9,
                        with * 1e9
                    );
                    added[i] = (with / without - 1.0) * 100.0;
                }
            }
            println!(
                "{:14} {:>8} {:>14.3} {:>12.1} {:>10.1} {:>10.1} {:>10.2} {:>12.1} {:>12.1}",
                kind.name(),
                if overlap == Overlap::None { "none" } else { "full" },
                seconds / count as f64 * 1e6,
                each(work.entries_examined),
                each(work.entries_changed),
                each(work.lines),
                bytes,
                added[0],
                added[1],
            );
        }
    }
}

fn parent_change(c: &mut Criterion) {
    table();
    let mut group = c.benchmark_group("parent_change/4k-unmap");
    group.sample_size(10).warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_secs(2));
    for kind in [Kind::Scan, Kind::Rmap, Kind::RmapInterval, Kind::RmapLinked] {
        let overlap = Overlap::None;
        let mut policy = Policy::of_kind(kind);
        let mut forest = Forest::new(overlap.gpas());
        forest.fill(overlap, &mut policy);
        group.bench_function(kind.name(), |b| {
            b.iter_custom(|count| {
                let (seconds, work) = unmaps(&mut forest, &mut policy, overlap.gpas(), count);
                black_box(work);
                Duration::from_secs_f64(seconds)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parent_change);
criterion_main!(benches);

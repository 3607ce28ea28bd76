//! Shadow synchronisation against a naive walk with QEMU's rules
//! (`vtd_page_walk`, `vtd_page_walk_one` and the `iova_tree` of 7.2).

use std::collections::BTreeMap;

use ioasim_sim::events::{PageSize, Perm};
use ioasim_sim::parent::{Layout, Parent};
use ioasim_sim::results::ShadowCounters;
use ioasim_sim::shadow::{Shadow, ShadowOp, SyncContext};
use ioasim_sim::table::{FANOUT, Leaf, NodeId, Prune, RadixTable, entry_span};
use proptest::collection::vec;
use proptest::prelude::*;

const LEVELS: u32 = 3;
const WIDTH: u64 = 1 << 39;

/// Fixed number of cases, no files written; a failure prints its input.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// An entry that QEMU has notified: `iova_tree`'s record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    size: u64,
    gpa: u64,
    perm: Perm,
}

#[derive(Default)]
struct Naive {
    tree: BTreeMap<u64, Record>,
    pte_reads: u64,
    examined: u64,
    skipped: u64,
    ops: Vec<ShadowOp>,
}

impl Naive {
    fn walk(&mut self, child: &RadixTable, parent: &Parent, start: u64, end: u64) {
        self.walk_node(child, parent, RadixTable::ROOT, LEVELS - 1, 0, start, end.min(WIDTH));
    }

    #[expect(clippy::too_many_arguments)]
    fn walk_node(
        &mut self,
        child: &RadixTable,
        parent: &Parent,
        node: NodeId,
        level: u32,
        base: u64,
        start: u64,
        end: u64,
    ) {
        let span = entry_span(level);
        for at in (0..FANOUT as u64).map(|i| base + i * span) {
            if at + span <= start || end <= at {
                continue;
            }
            self.pte_reads += 1;
            let e = child.read(node, level, at);
            match e.node() {
                Some(below) => self.walk_node(child, parent, below, level - 1, at, start, end),
                None => {
                    let record = Record { size: span, gpa: e.out(), perm: e.perm() };
                    self.event(at, e.is_leaf().then_some(record), span, parent);
                }
            }
        }
    }

    /// Forgets what lies inside the span. Unlike QEMU's tree, which forgets
    /// the whole record, a larger one leaves its rest in smaller ones.
    fn cut(&mut self, iova: u64, span: u64) {
        for at in self.overlapping(iova, span) {
            let Record { size, gpa, perm } = self.tree.remove(&at).unwrap();
            if size > span {
                for i in 0..FANOUT as u64 {
                    let size = size / FANOUT as u64;
                    self.tree.insert(at + i * size, Record { size, gpa: gpa + i * size, perm });
                }
                self.cut(iova, span);
            }
        }
    }

    fn overlapping(&self, iova: u64, span: u64) -> Vec<u64> {
        let records = self.tree.range(..iova + span);
        records.filter(|(at, r)| *at + r.size > iova).map(|(at, _)| *at).collect()
    }

    /// One guest entry: a MAP or UNMAP candidate for its whole span.
    fn event(&mut self, iova: u64, map: Option<Record>, span: u64, parent: &Parent) {
        self.examined += 1;
        let overlapping = self.overlapping(iova, span);
        match map {
            Some(record) => {
                if overlapping == [iova] && self.tree[&iova] == record {
                    self.skipped += 1;
                    return;
                }
                if !overlapping.is_empty() {
                    self.ops.push(ShadowOp::Unmap { iova, size: span });
                    self.cut(iova, span);
                }
                self.tree.insert(iova, record);
                let Record { size, gpa, perm } = record;
                let hpa = parent.lookup(gpa).map_or(0, |l| l.translate(gpa));
                self.ops.push(ShadowOp::Map { iova, size, gpa, hpa, perm });
            }
            None if overlapping.is_empty() => self.skipped += 1,
            None => {
                self.ops.push(ShadowOp::Unmap { iova, size: span });
                self.cut(iova, span);
            }
        }
    }
}

fn leaves(table: &RadixTable) -> Vec<(u64, Leaf)> {
    let mut all = Vec::new();
    table.visit(0, u64::MAX, &mut |at, leaf| {
        all.push((at, leaf));
        true
    });
    all
}

/// The shadow leads exactly where `records` and the parent lead.
fn same_as_composition(
    shadow: &Shadow,
    records: impl Iterator<Item = (u64, Record)>,
    parent: &Parent,
) -> Result<(), TestCaseError> {
    let table = shadow.table();
    let mut bytes = 0;
    for (iova, Record { size, gpa, perm }) in records {
        let mut done = 0;
        while done < size {
            let (at, gpa) = (iova + done, gpa + done);
            let leaf = parent.lookup(gpa);
            let piece = leaf.map_or(4096, |l| l.size.bytes() - gpa % l.size.bytes());
            let piece = piece.min(size - done);
            let rights = leaf.map_or(Perm::NONE, |l| l.perm.and(perm));
            for offset in [0, piece / 2, piece - 1] {
                let expected =
                    leaf.filter(|_| rights != Perm::NONE).map(|l| l.translate(gpa + offset));
                let found = table.lookup(at + offset).map(|l| l.translate(at + offset));
                prop_assert_eq!(found, expected, "iova {:#x}", at + offset);
            }
            if rights != Perm::NONE {
                bytes += piece;
                prop_assert_eq!(table.lookup(at).unwrap().perm, rights);
                prop_assert!(table.lookup(at).unwrap().size.bytes() <= size);
            }
            done += piece;
        }
    }
    // And nowhere else.
    prop_assert_eq!(leaves(table).iter().map(|(_, l)| l.size.bytes()).sum::<u64>(), bytes);
    Ok(())
}

#[derive(Clone, Debug)]
enum Op {
    Map {
        addr: u64,
        gpa: u64,
        len: u64,
        perm: Perm,
    },
    Unmap {
        addr: u64,
        len: u64,
    },
    /// Page-selective: aligned to its size.
    Sync {
        addr: u64,
        am: u32,
    },
    /// Any range.
    SyncRange {
        addr: u64,
        len: u64,
    },
    SyncAll,
    /// The device left, or the parent changed: the shadow starts anew.
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    let region = || {
        prop_oneof![
            // Pages of a few 2 MiB regions, their borders, one far region.
            8 => (0..3u64, 0..6u64).prop_map(|(r, p)| r << 21 | p << 12),
            3 => (0..3u64, 508..512u64).prop_map(|(r, p)| r << 21 | p << 12),
            4 => (0..4u64).prop_map(|r| r << 21),
            1 => (0..2u64).prop_map(|g| g << 30),
            1 => Just((511 << 30) + (511 << 21)),
        ]
    };
    let len = || {
        prop_oneof![
            6 => (1..5u64).prop_map(|p| p << 12),
            4 => Just(1u64 << 21),
            1 => Just((1u64 << 21) + (2 << 12)),
            1 => Just(1u64 << 30),
        ]
    };
    // Several 2 MiB GPA frames: the same ones come again, some are the
    // IOVA's own offsets so that large leaves arise.
    let frame = (0..4u64).prop_map(|f| f << 21);
    let perm = proptest::sample::select(vec![Perm::READ, Perm::RW, Perm::RW]);
    let map = (region(), frame, len(), perm).prop_map(|(addr, frame, len, perm)| {
        let inside = addr & ((1 << 21) - 1);
        // 1 GiB leaves need an aligned GPA; others must not take thousands of leaves.
        let (gpa, len) = match (len == 1 << 30, addr & ((1 << 30) - 1)) {
            (true, 0) => (1 << 30, len),
            (true, _) => (frame | inside, 1 << 21),
            (false, _) => (frame | inside, len),
        };
        Op::Map { addr, gpa, len, perm }
    });
    prop_oneof![
        10 => map,
        5 => (region(), len()).prop_map(|(addr, len)| Op::Unmap { addr, len }),
        10 => (region(), 0..12u32).prop_map(|(addr, am)| {
            Op::Sync { addr: addr & !((4096 << am) - 1), am }
        }),
        2 => (0..1u64 << 22, 1..1u64 << 22).prop_map(|(addr, len)| Op::SyncRange { addr, len }),
        1 => Just(Op::SyncRange { addr: 1 << 38, len: u64::MAX - (1 << 38) }),
        3 => Just(Op::SyncAll),
        1 => Just(Op::Clear),
    ]
}

/// How to make a parent.
#[derive(Clone, Debug)]
enum ParentSpec {
    /// This much of it exists; the rest is a hole.
    Layout(Layout, u64, u64),
    /// First page, pages, writable.
    Recorded(Vec<(u64, u64, bool)>),
}

impl ParentSpec {
    fn build(&self) -> Parent {
        match self {
            ParentSpec::Layout(layout, bytes, seed) => {
                let mut parent = Parent::with_layout(*layout, 4, *seed);
                parent.ensure(0, *bytes);
                parent
            }
            ParentSpec::Recorded(maps) => {
                let mut parent = Parent::recorded(4);
                for (i, (page, pages, writable)) in maps.iter().enumerate() {
                    let perm = if *writable { Perm::RW } else { Perm::READ };
                    let hpa = (i as u64 + 1) << 32 | page << 12;
                    parent.map(page << 12, hpa, pages << 12, perm).unwrap();
                }
                parent
            }
        }
    }
}

/// Parents with every page size, holes, and rights of their own.
fn parent() -> impl Strategy<Value = ParentSpec> {
    let large = proptest::sample::select(vec![Layout::Pages2M, Layout::Pages1G, Layout::Identity]);
    prop_oneof![
        (large, any::<u64>()).prop_map(|(l, seed)| ParentSpec::Layout(l, 2 << 30, seed)),
        any::<u64>().prop_map(|s| ParentSpec::Layout(Layout::Scattered4K, 5 << 20, s)),
        vec((0..2048u64, 1..600u64, any::<bool>()), 0..12).prop_map(ParentSpec::Recorded),
    ]
}

fn new_child() -> RadixTable {
    RadixTable::new(LEVELS, Prune::Covered, &mut |_: u32, _: u64| 0)
}

fn check(parent: &Parent, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut child = new_child();
    let mut place = |_: u32, _: u64| 0;
    let mut shadow = Shadow::new(LEVELS);
    let mut naive = Naive::default();
    let mut counters = ShadowCounters::default();
    let mut cleared = 0;
    let (mut map_calls, mut unmap_calls) = (0, 0);
    for (i, op) in ops.iter().enumerate() {
        let (start, end) = match *op {
            Op::Map { addr, gpa, len, perm } => {
                // Ends at the width if it would reach beyond.
                let len = len.min(WIDTH - addr);
                child.map(addr, gpa, len, perm, PageSize::Size1G, &mut place).unwrap();
                continue;
            }
            Op::Unmap { addr, len } => {
                child.unmap(addr, len, &mut place);
                continue;
            }
            Op::Clear => {
                cleared += shadow.clear();
                naive.tree.clear();
                prop_assert_eq!((shadow.table().leaves(), shadow.synced().leaves()), (0, 0));
                continue;
            }
            Op::Sync { addr, am } => (addr, addr + (4096 << am)),
            Op::SyncRange { addr, len } => (addr, addr.saturating_add(len)),
            Op::SyncAll => (0, WIDTH),
        };
        let mut done = Vec::new();
        let cx =
            &mut SyncContext { child: &mut child, parent, ops: &mut done, counters: &mut counters };
        shadow.sync(cx, start, end);
        naive.ops.clear();
        naive.walk(&child, parent, start, end);
        prop_assert_eq!(&done, &naive.ops, "{} {:?}", i, op);
        for op in &done {
            let (ShadowOp::Map { iova, size, .. } | ShadowOp::Unmap { iova, size }) = *op;
            match op {
                ShadowOp::Map { .. } => map_calls += 1,
                ShadowOp::Unmap { .. } => unmap_calls += 1,
            }
            // I5: the entry's span meets the range.
            prop_assert!(iova < end && start < iova + size, "{op:?} of {start:#x}-{end:#x}");
        }
        let found = (counters.pte_reads, counters.entries_examined, counters.skipped);
        prop_assert_eq!(found, (naive.pte_reads, naive.examined, naive.skipped), "{} {:?}", i, op);
        prop_assert_eq!((counters.map_calls, counters.unmap_calls), (map_calls, unmap_calls));
        prop_assert_eq!(counters.mapped, counters.unmapped + cleared + shadow.table().leaves());
        prop_assert!(counters.resident_entries_peak >= shadow.table().leaves());
        let records: Vec<(u64, Record)> = leaves(shadow.synced())
            .into_iter()
            .map(|(at, l)| (at, Record { size: l.size.bytes(), gpa: l.out, perm: l.perm }))
            .collect();
        let expected: Vec<(u64, Record)> = naive.tree.iter().map(|(at, r)| (*at, *r)).collect();
        prop_assert_eq!(records, expected, "{} {:?}", i, op);
        same_as_composition(&shadow, naive.tree.iter().map(|(at, r)| (*at, *r)), parent)?;
        if (start, end) == (0, WIDTH) {
            // I3: nothing pending, so the record is the child itself.
            prop_assert_eq!(leaves(shadow.synced()), leaves(&child));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn same_operations_and_counts_as_a_naive_walk(
        parent in parent(),
        ops in vec(op(), 1..60),
    ) {
        check(&parent.build(), &ops)?;
    }

    /// `map-unmap`: the shadow follows every call without a look at the child.
    #[test]
    fn captured_calls_keep_the_shadow_in_line(parent in parent(), ops in vec(op(), 1..60)) {
        let parent = parent.build();
        let mut child = new_child();
        let mut place = |_: u32, _: u64| 0;
        let mut shadow = Shadow::new(LEVELS);
        let mut counters = ShadowCounters::default();
        let mut done = Vec::new();
        for op in &ops {
            let parent = &parent;
            match *op {
                Op::Map { addr, gpa, len, perm } => {
                    let len = len.min(WIDTH - addr);
                    child.map(addr, gpa, len, perm, PageSize::Size1G, &mut place).unwrap();
                    let (ops, counters) = (&mut done, &mut counters);
                    let cx = &mut SyncContext { child: &mut child, parent, ops, counters };
                    shadow.map_call(cx, addr, gpa, len, perm);
                }
                Op::Unmap { addr, len } => {
                    child.unmap(addr, len, &mut place);
                    let (ops, counters) = (&mut done, &mut counters);
                    let cx = &mut SyncContext { child: &mut child, parent, ops, counters };
                    shadow.unmap_call(cx, addr, len);
                }
                Op::Clear => {
                    // As the replay does after a parent change.
                    shadow.clear();
                    let (ops, counters) = (&mut done, &mut counters);
                    let cx = &mut SyncContext { child: &mut child, parent, ops, counters };
                    shadow.sync(cx, 0, WIDTH);
                }
                Op::Sync { .. } | Op::SyncRange { .. } | Op::SyncAll => continue,
            }
            let records = leaves(&child)
                .into_iter()
                .map(|(at, l)| (at, Record { size: l.size.bytes(), gpa: l.out, perm: l.perm }));
            // A call maps its range, not the child's leaves: sizes may differ.
            let bytes: u64 = leaves(shadow.table()).iter().map(|(_, l)| l.size.bytes()).sum();
            let mut composed = 0;
            for (iova, r) in records {
                for offset in (0..r.size).step_by(if r.size > 1 << 21 { 1 << 21 } else { 4096 }) {
                    let leaf = parent.lookup(r.gpa + offset);
                    let expected = leaf.filter(|l| l.perm.and(r.perm) != Perm::NONE);
                    let at = iova + offset;
                    let found = shadow.table().lookup(at);
                    prop_assert_eq!(
                        found.map(|l| (l.translate(at), l.perm)),
                        expected.map(|l| (l.translate(r.gpa + offset), l.perm.and(r.perm))),
                        "iova {:#x} after {:?}", at, op
                    );
                    if r.size <= 1 << 21 && found.is_some() {
                        composed += 4096;
                    }
                }
                if r.size > 1 << 21 {
                    let range = (iova, iova + r.size);
                    shadow.table().visit(range.0, range.1, &mut |at, l| {
                        composed += (at + l.size.bytes()).min(range.1) - at.max(range.0);
                        true
                    });
                }
            }
            prop_assert_eq!(bytes, composed, "nothing beyond the child after {:?}", op);
        }
    }
}

/// The adversarial case of FORMATS 2.1 (b): 2 MiB split into 4 KiB without an
/// unmap, and only one page announced. The rest must stay reachable.
#[test]
fn a_split_without_unmap_keeps_the_rest() {
    let mut parent = Parent::with_layout(Layout::Pages2M, 4, 1);
    parent.ensure(0, 16 << 20);
    let mut child = new_child();
    let mut place = |_: u32, _: u64| 0;
    let mut shadow = Shadow::new(LEVELS);
    let mut counters = ShadowCounters::default();
    let mut sync = |child: &mut RadixTable, start: u64, end: u64| {
        let mut ops = Vec::new();
        let cx =
            &mut SyncContext { child, parent: &parent, ops: &mut ops, counters: &mut counters };
        shadow.sync(cx, start, end);
        ops
    };
    child.map(0, 0x20_0000, 1 << 21, Perm::RW, PageSize::Size2M, &mut place).unwrap();
    assert_eq!(sync(&mut child, 0, 1 << 21).len(), 1);
    for page in 0..2 {
        let (iova, gpa) = (page << 12, 0x40_0000 + (page << 12));
        child.map(iova, gpa, 4096, Perm::RW, PageSize::Size4K, &mut place).unwrap();
    }
    let first = sync(&mut child, 0, 4096);
    assert_eq!(first[0], ShadowOp::Unmap { iova: 0, size: 4096 });
    assert!(matches!(first[..], [_, ShadowOp::Map { iova: 0, size: 4096, .. }]));
    let second = sync(&mut child, 4096, 8192);
    assert!(matches!(second[..], [ShadowOp::Unmap { .. }, ShadowOp::Map { iova: 4096, .. }]));
    assert_eq!(sync(&mut child, 8192, 1 << 21), [], "the rest is as it was");
    assert_eq!(shadow.table().leaves(), 512);
}

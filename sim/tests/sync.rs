//! The policies `write-protect` and `demand`, and the record of stores that
//! the first one lives on, against slow and obvious models.

use std::collections::BTreeMap;

use ioasim_sim::events::{PAGE_SIZE, PageSize, Perm};
use ioasim_sim::parent::{Layout, Parent};
use ioasim_sim::results::ShadowCounters;
use ioasim_sim::shadow::{Shadow, ShadowOp, SyncContext};
use ioasim_sim::sync::{Kind, Policy, Range};
use ioasim_sim::table::{
    FANOUT, NodeId, Placement, Prune, PteWriteKind, PteWrites, RadixTable, entry_span,
};
use proptest::collection::vec;
use proptest::prelude::*;

const LEVELS: u32 = 3;
const WIDTH: u64 = 1 << 39;

/// Fixed number of cases, no files written; a failure prints its input.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Records stores; where pages lie does not matter.
#[derive(Default)]
struct Watched(PteWrites);

impl Placement for Watched {
    fn place(&mut self, _: u32, _: u64) -> u64 {
        0
    }

    fn wrote(&mut self, level: u32, base: u64, kind: PteWriteKind) {
        self.0.push(level, base, kind);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Map { addr: u64, gpa: u64, len: u64, perm: Perm },
    Unmap { addr: u64, len: u64 },
    Access { addr: u64 },
    Invalidate { addr: u64, am: u32 },
    InvalidateAll,
}

fn region() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0..3u64, 0..6u64).prop_map(|(r, p)| r << 21 | p << 12),
        3 => (0..3u64, 508..512u64).prop_map(|(r, p)| r << 21 | p << 12),
        4 => (0..4u64).prop_map(|r| r << 21),
        1 => Just((511 << 30) + (511 << 21)),
    ]
}

fn len() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (1..5u64).prop_map(|p| p << 12),
        3 => Just(1u64 << 21),
        1 => Just((1u64 << 21) + (2 << 12)),
        1 => Just(1u64 << 30),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let perm = proptest::sample::select(vec![Perm::READ, Perm::RW, Perm::RW]);
    let map = (region(), (0..4u64), len(), perm).prop_map(|(addr, frame, len, perm)| {
        let gpa = frame << 21 | (addr & ((1 << 21) - 1));
        Op::Map { addr, gpa, len: len.min(3 << 21).min(WIDTH - addr), perm }
    });
    prop_oneof![
        10 => map,
        6 => (region(), len()).prop_map(|(addr, len)| Op::Unmap { addr, len }),
        10 => region().prop_map(|addr| Op::Access { addr: addr + 8 }),
        4 => (region(), 0..12u32)
            .prop_map(|(addr, am)| Op::Invalidate { addr: addr & !((4096 << am) - 1), am }),
        1 => Just(Op::InvalidateAll),
    ]
}

/// Entries by level and first address: a leaf's output and rights, or a pointer.
type Entries = BTreeMap<(u32, u64), Option<(u64, Perm)>>;

fn entries(table: &RadixTable) -> Entries {
    fn node(table: &RadixTable, id: NodeId, level: u32, base: u64, out: &mut Entries) {
        for (i, e) in table.node_entries(id).iter().enumerate() {
            let at = base + i as u64 * entry_span(level);
            if e.is_leaf() {
                out.insert((level, at), Some((e.out(), e.perm())));
            } else if let Some(below) = e.node() {
                out.insert((level, at), None);
                node(table, below, level - 1, at, out);
            }
        }
    }
    let mut all = Entries::new();
    node(table, RadixTable::ROOT, LEVELS - 1, 0, &mut all);
    all
}

/// True if the entry's node was linked, so that stores to it trap.
fn linked(entries: &Entries, level: u32, at: u64) -> bool {
    let base = at & !(entry_span(level) * FANOUT as u64 - 1);
    level + 1 == LEVELS || entries.get(&(level + 1, base)) == Some(&None)
}

fn page_states(child: &RadixTable) -> BTreeMap<u64, (u64, Perm)> {
    let mut pages = BTreeMap::new();
    child.visit(0, WIDTH, &mut |at, leaf| {
        for offset in (0..leaf.size.bytes()).step_by(PAGE_SIZE as usize) {
            pages.insert(at + offset, (leaf.out + offset, leaf.perm));
        }
        true
    });
    pages
}

fn compose(parent: &Parent, state: Option<(u64, Perm)>) -> Option<(u64, Perm)> {
    let (gpa, perm) = state?;
    let leaf = parent.lookup(gpa)?;
    let rights = leaf.perm.and(perm);
    (rights != Perm::NONE).then(|| (leaf.translate(gpa), rights))
}

fn shadow_pages(shadow: &Shadow) -> BTreeMap<u64, (u64, Perm)> {
    page_states(shadow.table())
}

fn parent(holes: bool) -> Parent {
    if !holes {
        let mut parent = Parent::with_layout(Layout::Pages2M, 4, 3);
        parent.ensure(0, 16 << 20);
        return parent;
    }
    let mut parent = Parent::recorded(4);
    parent.map(0, 1 << 32, 1 << 21, Perm::RW).unwrap();
    parent.map(2 << 21, 3 << 32, 1 << 20, Perm::READ).unwrap();
    parent.map(3 << 21, 5 << 32, 4 << 21, Perm::RW).unwrap();
    parent
}

proptest! {
    #![proptest_config(cases(100))]

    /// The record names every entry of a linked page that changed, once and
    /// under its kind, and nothing that was not stored to.
    #[test]
    fn stores_explain_every_change(ops in vec(op(), 1..40)) {
        let mut place = Watched::default();
        let mut child = RadixTable::new(LEVELS, Prune::Covered, &mut place);
        for op in &ops {
            let before = entries(&child);
            place.0.clear();
            let (start, end) = match *op {
                Op::Map { addr, gpa, len, perm } => {
                    child.map(addr, gpa, len, perm, PageSize::Size1G, &mut place).unwrap();
                    (addr, addr + len)
                }
                Op::Unmap { addr, len } => {
                    child.unmap(addr, len, &mut place);
                    (addr, addr + len)
                }
                _ => continue,
            };
            let after = entries(&child);
            let mut stored = BTreeMap::new();
            for w in place.0.iter() {
                prop_assert!(w.entries == 1 || w.kind == PteWriteKind::Value);
                for i in 0..w.entries {
                    let at = w.iova + i * entry_span(w.level);
                    prop_assert!(stored.insert((w.level, at), w.kind).is_none(), "twice: {w:?}");
                    prop_assert!(at < end && start < at + entry_span(w.level), "outside: {w:?}");
                }
            }
            prop_assert_eq!(stored.len() as u64, place.0.entries());
            // Changes in pages that were linked before the operation.
            let keys = before.keys().chain(after.keys());
            for key @ (level, at) in keys.copied() {
                if before.get(&key) != after.get(&key) && linked(&before, level, at) {
                    let gone = !linked(&after, level, at);
                    prop_assert!(stored.contains_key(&key) != gone, "{:?} of {:?}", key, op);
                }
            }
            for (key @ (level, at), kind) in &stored {
                let now = after.get(key).copied();
                prop_assert!(linked(&after, *level, *at), "{:?} is in a freed page", key);
                match kind {
                    PteWriteKind::Value => prop_assert!(now != Some(None), "{:?}", key),
                    PteWriteKind::Unlink => prop_assert_eq!(now, None),
                    PteWriteKind::LinkEmpty | PteWriteKind::LinkSplit => {
                        prop_assert_eq!(now, Some(None));
                        let was_leaf = matches!(before.get(key), Some(Some(_)));
                        prop_assert_eq!(*kind == PteWriteKind::LinkSplit, was_leaf);
                    }
                }
            }
        }
    }

    /// After every map and unmap the shadow is the composition, all of it and
    /// nothing else, and the VMM has read each entry stored to and each page
    /// linked, no more.
    #[test]
    fn write_protect_leaves_nothing_pending(ops in vec(op(), 1..60), holes: bool) {
        let parent = parent(holes);
        let policy = Policy::of_kind(Kind::WriteProtect);
        let mut place = Watched::default();
        let mut child = RadixTable::new(LEVELS, Prune::Covered, &mut place);
        let mut shadow = Shadow::new(LEVELS);
        let mut counters = ShadowCounters::default();
        for op in &ops {
            place.0.clear();
            match *op {
                Op::Map { addr, gpa, len, perm } => {
                    child.map(addr, gpa, len, perm, PageSize::Size1G, &mut place).unwrap();
                }
                Op::Unmap { addr, len } => {
                    child.unmap(addr, len, &mut place);
                }
                _ => continue,
            }
            let reads = counters.pte_reads;
            let syncs = counters.syncs;
            let mut done = Vec::new();
            let cx = &mut SyncContext {
                child: &mut child,
                parent: &parent,
                ops: &mut done,
                counters: &mut counters,
            };
            for w in place.0.iter() {
                policy.pte_write(&mut shadow, cx, w);
            }
            let linked = place.0.iter().filter(|w| {
                matches!(w.kind, PteWriteKind::LinkEmpty | PteWriteKind::LinkSplit)
            });
            let splits = place.0.iter().filter(|w| w.kind == PteWriteKind::LinkSplit).count();
            let expected = place.0.entries() + FANOUT as u64 * linked.count() as u64;
            let read = counters.pte_reads - reads;
            let as_expected = if splits < 2 { read == expected } else { read >= expected };
            prop_assert!(as_expected, "{read} of {expected} reads");
            prop_assert_eq!(counters.syncs - syncs, place.0.entries());
            let composed: BTreeMap<u64, (u64, Perm)> = page_states(&child)
                .into_iter()
                .filter_map(|(at, state)| Some((at, compose(&parent, Some(state))?)))
                .collect();
            prop_assert_eq!(shadow_pages(&shadow), composed, "after {:?}", op);
        }
    }

    /// A page of the shadow is always one that the guest had at some time
    /// since the last invalidation of it, an access to what is mapped finds
    /// it, and an invalidation leaves nothing in its range.
    #[test]
    fn demand_holds_a_part_of_the_composition(ops in vec(op(), 1..80), holes: bool) {
        let parent = parent(holes);
        let policy = Policy::of_kind(Kind::Demand);
        let mut place = |_: u32, _: u64| 0;
        let mut child = RadixTable::new(LEVELS, Prune::Covered, &mut place);
        let mut shadow = Shadow::new(LEVELS);
        let mut counters = ShadowCounters::default();
        // States of a page since its last invalidation.
        let mut legal: BTreeMap<u64, Vec<Option<(u64, Perm)>>> = BTreeMap::new();
        let mut faults = 0;
        for op in &ops {
            let mut done = Vec::new();
            match *op {
                Op::Map { addr, gpa, len, perm } => {
                    child.map(addr, gpa, len, perm, PageSize::Size1G, &mut place).unwrap();
                }
                Op::Unmap { addr, len } => {
                    child.unmap(addr, len, &mut place);
                }
                Op::Access { addr } => {
                    if shadow.table().lookup(addr).is_none() {
                        faults += 1;
                        let cx = &mut SyncContext {
                            child: &mut child,
                            parent: &parent,
                            ops: &mut done,
                            counters: &mut counters,
                        };
                        policy.fault(&mut shadow, cx, addr);
                        prop_assert!(done.len() <= 2, "one entry: {:?}", done);
                        let now = child.lookup(addr).map(|l| (l.translate(addr), l.perm));
                        let found = shadow.table().lookup(addr).map(|l| (l.translate(addr), l.perm));
                        prop_assert_eq!(found, compose(&parent, now));
                    }
                }
                Op::Invalidate { .. } | Op::InvalidateAll => {
                    let range = match *op {
                        Op::Invalidate { addr, am } => {
                            Some(Range { start: addr, end: addr + (4096 << am) })
                        }
                        _ => None,
                    };
                    let reads = counters.pte_reads;
                    let held = shadow.table().leaves();
                    let cx = &mut SyncContext {
                        child: &mut child,
                        parent: &parent,
                        ops: &mut done,
                        counters: &mut counters,
                    };
                    policy.invalidate(&mut shadow, cx, range);
                    prop_assert_eq!(counters.pte_reads, reads, "the guest's table is not read");
                    let Range { start, end } = range.unwrap_or(Range { start: 0, end: WIDTH });
                    prop_assert!(!shadow.table().any_in(start, end));
                    match done[..] {
                        [] => prop_assert_eq!(shadow.table().leaves(), held),
                        [ShadowOp::Unmap { iova, size }] => {
                            prop_assert!(iova < end && start < iova + size);
                        }
                        _ => prop_assert!(false, "one unmap: {:?}", done),
                    }
                    legal.retain(|page, _| !(start..end).contains(page));
                }
            }
            for (page, now) in page_states(&child) {
                legal.entry(page).or_default().push(Some(now));
            }
            for (page, found) in shadow_pages(&shadow) {
                let states = legal.get(&page).into_iter().flatten();
                let known = states.into_iter().any(|s| compose(&parent, *s) == Some(found));
                prop_assert!(known, "page {:#x} after {:?}", page, op);
            }
            prop_assert_eq!(counters.demand_faults, faults);
        }
    }
}

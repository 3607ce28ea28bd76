//! The indices of the parent-change policies against a map of pages.

use std::collections::{BTreeMap, BTreeSet};

use ioasim_sim::parent_change::pinning::{Account, Pinning};
use ioasim_sim::parent_change::{Change, ChangeKind, ChildId, Kind, Policy, Shadows, Work};
use ioasim_sim::table::RadixTable;
use proptest::collection::vec;
use proptest::prelude::*;

const PAGE: u64 = 4096;

/// Records as pages; collects what is mended.
#[derive(Default)]
struct Pages {
    /// (child, IOVA page) -> GPA page.
    map: BTreeMap<(u32, u64), u64>,
    mended: BTreeSet<(u32, u64, u64)>,
}

impl Shadows for Pages {
    fn children(&self, f: &mut dyn FnMut(ChildId)) {
        let ids: BTreeSet<u32> = self.map.keys().map(|(c, _)| *c).collect();
        ids.into_iter().for_each(|c| f(ChildId(c)));
    }

    fn records(&self, child: ChildId, f: &mut dyn FnMut(u64, u64, u64)) {
        for ((_, iova), gpa) in self.map.range((child.0, 0)..(child.0 + 1, 0)) {
            f(iova * PAGE, gpa * PAGE, PAGE);
        }
    }

    fn mend(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64, work: &mut Work) {
        for i in 0..len / PAGE {
            let new = self.mended.insert((child.0, iova / PAGE + i, gpa / PAGE + i));
            assert!(new, "an entry is mended once");
        }
        work.mends += 1;
    }

    fn rebuild(&mut self, _: ChildId, _: &mut Work) {}

    fn retire(&mut self, _: ChildId, _: &mut Work) -> Option<RadixTable> {
        None
    }

    fn fill(&mut self, _: ChildId, _: u64, _: u64, _: &mut Work) {}
}

#[derive(Clone, Debug)]
enum Op {
    Map { child: u32, iova: u64, gpa: u64, pages: u64 },
    Unmap { child: u32, iova: u64, pages: u64 },
    Clear { child: u32 },
    Changed { gpa: u64, pages: u64 },
    Step { budget: u64 },
}

/// Page numbers near block borders, so that 2 MiB and 1 GiB entries appear.
fn page() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..6u64,
        (0..3u64, 0..4u64).prop_map(|(b, i)| b * 512 + i),
        (0..2u64).prop_map(|b| b << 18),
        (506..518u64),
    ]
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![40 => 1..4u64, 20 => 505..520u64, 10 => Just(1024u64), 1 => Just(1u64 << 18)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..3u32, page(), page(), length())
            .prop_map(|(child, iova, gpa, pages)| Op::Map { child, iova, gpa, pages }),
        3 => (0..3u32, page(), length())
            .prop_map(|(child, iova, pages)| Op::Unmap { child, iova, pages }),
        1 => (0..3u32).prop_map(|child| Op::Clear { child }),
        4 => (page(), length()).prop_map(|(gpa, pages)| Op::Changed { gpa, pages }),
    ]
}

/// Changes that go through a log, and few that empty it.
fn small() -> impl Strategy<Value = Op> {
    prop_oneof![
        900 => (0..3u32, page(), page(), 1..4u64)
            .prop_map(|(child, iova, gpa, pages)| Op::Map { child, iova, gpa, pages }),
        600 => (0..3u32, page(), 1..4u64)
            .prop_map(|(child, iova, pages)| Op::Unmap { child, iova, pages }),
        1 => (0..3u32, page(), page())
            .prop_map(|(child, iova, gpa)| Op::Map { child, iova, gpa, pages: 1024 }),
        1 => (0..3u32).prop_map(|child| Op::Clear { child }),
        2 => (page(), length()).prop_map(|(gpa, pages)| Op::Changed { gpa, pages }),
        2 => (0..80u64).prop_map(|budget| Op::Step { budget }),
    ]
}

fn run(kind: Kind, ops: &[Op]) {
    let mut policy = Policy::of_kind(kind);
    let mut pages = Pages::default();
    for op in ops {
        match *op {
            Op::Map { child, iova, gpa, pages: n } => {
                policy.mapped(ChildId(child), iova * PAGE, gpa * PAGE, n * PAGE);
                (0..n).for_each(|i| _ = pages.map.insert((child, iova + i), gpa + i));
            }
            Op::Unmap { child, iova, pages: n } => {
                policy.unmapped(ChildId(child), iova * PAGE, n * PAGE);
                (0..n).for_each(|i| _ = pages.map.remove(&(child, iova + i)));
            }
            Op::Clear { child } => {
                policy.cleared(ChildId(child));
                pages.map.retain(|(c, _), _| *c != child);
            }
            Op::Step { budget } => {
                let mut work = Work::default();
                let left = policy.step(budget, &mut pages, &mut work);
                assert!(work.entries_examined <= budget);
                assert!(!left || work.entries_examined == budget, "stopped early");
            }
            Op::Changed { gpa, pages: n } => {
                pages.mended.clear();
                let change =
                    Change { start: gpa * PAGE, end: (gpa + n) * PAGE, kind: ChangeKind::Altered };
                let mut work = Work::default();
                policy.changed(change, &mut pages, &mut work);
                let want: BTreeSet<(u32, u64, u64)> = pages
                    .map
                    .iter()
                    .filter(|(_, to)| (gpa..gpa + n).contains(to))
                    .map(|((c, iova), to)| (*c, *iova, *to))
                    .collect();
                assert_eq!(pages.mended, want, "{} of {gpa:#x}+{n}", kind.name());
                assert!(work.entries_examined >= work.mends);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_index_finds_exactly_what_leads_into_a_range(ops in vec(op(), 1..24)) {
        for kind in [Kind::Rmap, Kind::RmapInterval, Kind::RmapLinked] {
            run(kind, &ops);
        }
    }

    #[test]
    fn a_search_finds_the_same(ops in vec(op(), 1..10)) {
        run(Kind::Scan, &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// More small changes between two parent changes than any log holds.
    #[test]
    fn a_full_log_loses_nothing(ops in vec(small(), 1500..3000)) {
        for kind in [Kind::Rmap, Kind::RmapLinked] {
            run(kind, &ops);
        }
    }
}

#[test]
fn large_entries_are_one_entry() {
    for kind in [Kind::Rmap, Kind::RmapLinked, Kind::RmapInterval] {
        let mut policy = Policy::of_kind(kind);
        policy.mapped(ChildId(0), 1 << 30, 3 << 30, 1 << 30);
        let mut work = Work::default();
        let change = Change {
            start: (3 << 30) + 0x5000,
            end: (3 << 30) + 0x6000,
            kind: ChangeKind::Altered,
        };
        let mut pages = Pages::default();
        policy.changed(change, &mut pages, &mut work);
        assert_eq!(
            pages.mended.into_iter().collect::<Vec<_>>(),
            [(0, (1 << 18) + 5, (3 << 18) + 5)]
        );
        assert!(work.entries_examined <= 2, "{}: {work:?}", kind.name());
    }
}

#[test]
fn links_take_eight_bytes_and_are_given_back() {
    let mut policy = Policy::of_kind(Kind::RmapLinked);
    let pages = 1u64 << 18;
    policy.mapped(ChildId(0), 0, 0x1000, pages * PAGE);
    let full = policy.memory_bytes();
    assert!(full < pages * 16, "{full} bytes");
    for round in 0..4 {
        policy.unmapped(ChildId(0), 0, pages * PAGE);
        policy.mapped(ChildId(1), round * PAGE, 0x1000, pages * PAGE);
        policy.cleared(ChildId(1));
        policy.mapped(ChildId(0), 0, 0x1000, pages * PAGE);
    }
    assert!(policy.memory_bytes() < full * 5 / 4, "no growth in steady state");
}

#[test]
fn pins_once_or_per_entry() {
    let mut once = Account::new(Pinning::PinOnce);
    let mut each = Account::new(Pinning::PinPerEntry);
    for account in [&mut once, &mut each] {
        account.parent(512, 0);
        account.shadows((512 * 3, 0));
        account.shadows((512 * 3, 512));
        account.parent(0, 512);
    }
    assert_eq!((once.counters().pins, once.counters().held()), (512, 0));
    assert_eq!((each.counters().pins, each.counters().unpins), (1536, 512));
    assert_eq!(each.counters().held_peak, 1536);
}

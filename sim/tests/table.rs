//! Radix tables against a map of intervals.

use std::collections::BTreeMap;

use ioasim_sim::events::{PageSize, Perm};
use ioasim_sim::table::{Leaf, NodeRef, Prune, RadixTable, entry_span};
use proptest::collection::vec;
use proptest::prelude::*;

/// start -> (end, output of start, rights); no overlaps.
#[derive(Clone, Debug, Default)]
struct Intervals(BTreeMap<u64, (u64, u64, Perm)>);

impl Intervals {
    fn remove(&mut self, start: u64, end: u64) -> u64 {
        let touched: Vec<_> =
            self.0.range(..end).filter(|(_, (e, ..))| *e > start).map(|(s, v)| (*s, *v)).collect();
        let mut bytes = 0;
        for (s, (e, out, perm)) in touched {
            self.0.remove(&s);
            bytes += e.min(end) - s.max(start);
            if s < start {
                self.0.insert(s, (start, out, perm));
            }
            if end < e {
                self.0.insert(end, (e, out + (end - s), perm));
            }
        }
        bytes
    }

    fn insert(&mut self, start: u64, len: u64, out: u64, perm: Perm) {
        self.remove(start, start + len);
        self.0.insert(start, (start + len, out, perm));
    }

    fn get(&self, addr: u64) -> Option<(u64, Perm)> {
        let (s, (e, out, perm)) = self.0.range(..=addr).next_back()?;
        (addr < *e).then(|| (out + (addr - s), *perm))
    }

    fn any_in(&self, start: u64, end: u64) -> bool {
        self.0.range(..end).any(|(_, (e, ..))| *e > start)
    }

    /// Intervals with neighbours joined that continue each other.
    fn joined(runs: impl Iterator<Item = (u64, u64, u64, Perm)>) -> Vec<(u64, u64, u64, Perm)> {
        let mut all: Vec<(u64, u64, u64, Perm)> = Vec::new();
        for (start, end, out, perm) in runs {
            match all.last_mut() {
                Some((s, e, o, p)) if *e == start && *p == perm && *o + (start - *s) == out => {
                    *e = end;
                }
                _ => all.push((start, end, out, perm)),
            }
        }
        all
    }
}

#[derive(Clone, Debug)]
enum Op {
    Map { addr: u64, out: u64, len: u64, perm: Perm, largest: PageSize },
    Unmap { addr: u64, len: u64 },
}

/// Around the borders of 2 MiB and 1 GiB, where splits happen.
fn addr() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => (0..8u64).prop_map(|p| p << 12),
        2 => (508..516u64).prop_map(|p| p << 12),
        3 => (0..6u64).prop_map(|p| p << 21),
        2 => (0..3u64).prop_map(|p| p << 30),
        1 => ((1 << 18) - 3..(1u64 << 18) + 3).prop_map(|p| p << 12),
        1 => (1..4u64).prop_map(|p| (1 << 39) - (p << 12)),
        1 => Just((1u64 << 39) - (1 << 30)),
        // Not aligned: rounded outwards.
        1 => 0..1u64 << 22,
    ]
}

fn len() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (1..6u64).prop_map(|p| p << 12),
        2 => (1..3u64).prop_map(|p| p << 21),
        1 => (1..3u64).prop_map(|p| p << 30),
        1 => Just((1u64 << 21) + (3 << 12)),
        1 => 0..1u64 << 14,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let perm = proptest::sample::select(vec![Perm::READ, Perm::WRITE, Perm::RW]);
    let out = prop_oneof![addr(), addr().prop_map(|a| a + (1 << 40))];
    let largest = proptest::sample::select(PageSize::ALL.to_vec());
    prop_oneof![
        5 => (addr(), out, len(), perm, largest).prop_map(|(addr, out, len, perm, largest)| {
            // Not more than about a thousand leaves.
            let len = len.min(largest.bytes() << 10);
            let misaligned = (addr ^ out) & (PageSize::Size2M.bytes() - 1) != 0;
            Op::Map { addr, out, len: if misaligned { len.min(1 << 22) } else { len }, perm, largest }
        }),
        4 => (addr(), len()).prop_map(|(addr, len)| Op::Unmap { addr, len }),
        1 => addr().prop_map(|addr| Op::Unmap { addr, len: 1 << 39 }),
    ]
}

/// Whole pages around `[addr, addr + len)`.
fn rounded(addr: u64, len: u64) -> (u64, u64) {
    let start = addr & !0xfff;
    (start, ((addr + len + 0xfff) & !0xfff) - start)
}

fn leaves(table: &RadixTable) -> Vec<(u64, Leaf)> {
    let mut all = Vec::new();
    table.visit(0, u64::MAX, &mut |at, leaf| {
        all.push((at, leaf));
        true
    });
    all
}

fn check(levels: u32, prune: Prune, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut pages = 0u64;
    let mut place = |_: u32, _: u64| {
        pages += 4096;
        pages
    };
    let mut table = RadixTable::new(levels, prune, &mut place);
    let width = 1u64 << (12 + 9 * levels);
    let mut model = Intervals::default();
    let mut probes = vec![0, 4096, (1 << 39) - 1, 1 << 40, u64::MAX];
    for op in ops {
        match *op {
            Op::Map { addr, out, len, perm, largest } => {
                let (start, bytes) = rounded(addr, len);
                let before = model.clone();
                let free = !model.any_in(start, start + bytes);
                let result = table.map(addr, out, len, perm, largest, &mut place);
                if len == 0 {
                    prop_assert_eq!(result.unwrap().written, 0);
                } else if addr + len > width {
                    prop_assert!(result.is_err());
                    prop_assert_eq!(before.0.len(), model.0.len());
                } else {
                    let outcome = result.unwrap();
                    model.insert(start, bytes, out & !0xfff, perm);
                    if free {
                        prop_assert_eq!((outcome.same, outcome.replaced), (0, 0));
                    } else if before.any_in(start, start + bytes) {
                        prop_assert!(outcome.same + outcome.replaced > 0);
                    }
                    let fits = |l: &(u64, Leaf)| start <= l.0 && l.0 < start + bytes;
                    let there = leaves(&table).iter().filter(|l| fits(l)).count() as u64;
                    prop_assert_eq!(outcome.written + outcome.same, there);
                    prop_assert!(leaves(&table).iter().all(|l| !fits(l) || l.1.size <= largest));
                }
                probes.extend([start.wrapping_sub(1), start, start + bytes / 2, start + bytes]);
            }
            Op::Unmap { addr, len } => {
                let (start, bytes) = rounded(addr, len);
                let end = (start + bytes).min(width);
                let gone = if len > 0 && start < end { model.remove(start, end) } else { 0 };
                prop_assert_eq!(table.unmap(addr, len, &mut place), gone, "{:?}", op);
                probes.extend([start.wrapping_sub(1), start, start + bytes / 2, start + bytes]);
            }
        }
        let all = leaves(&table);
        prop_assert_eq!(table.leaves(), all.len() as u64);
        prop_assert!(all.windows(2).all(|w| w[0].0 + w[0].1.size.bytes() <= w[1].0));
        let found = all.iter().map(|(at, l)| (*at, at + l.size.bytes(), l.out, l.perm));
        let expected = model.0.iter().map(|(s, (e, out, perm))| (*s, *e, *out, *perm));
        prop_assert_eq!(Intervals::joined(found), Intervals::joined(expected), "{:?}", op);
        for &p in &probes {
            let found = table.lookup(p).map(|l| (l.translate(p), l.perm));
            prop_assert_eq!(found, model.get(p), "{:#x} after {:?}", p, op);
        }
        for w in probes.windows(2) {
            let (s, e) = (w[0].min(w[1]), w[0].max(w[1]));
            prop_assert_eq!(table.any_in(s, e), s < e && model.any_in(s, e.min(width)));
        }
    }
    // Everything away: only the root stays if empty nodes go.
    table.unmap(0, width, &mut place);
    prop_assert_eq!(table.leaves(), 0);
    if prune != Prune::Never {
        prop_assert_eq!(table.nodes(), 1);
    }
    Ok(())
}

/// Fixed number of cases, no files written; a failure prints its input.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn maps_and_unmaps(
        levels in 3..=5u32,
        prune in proptest::sample::select(vec![Prune::Never, Prune::Covered, Prune::Empty]),
        ops in vec(op(), 1..40),
    ) {
        check(levels, prune, &ops)?;
    }

    /// Under `Prune::Empty` there is never a node without a leaf below it.
    #[test]
    fn empty_nodes_go(ops in vec(op(), 1..40)) {
        let mut place = |_: u32, _: u64| 0;
        let mut table = RadixTable::new(3, Prune::Empty, &mut place);
        let mut kept: Vec<(NodeRef, u64, u32)> = Vec::new();
        for op in &ops {
            match *op {
                Op::Map { addr, out, len, perm, largest } => {
                    let _ = table.map(addr, out, len, perm, largest, &mut place);
                }
                Op::Unmap { addr, len } => {
                    table.unmap(addr, len, &mut place);
                }
            }
            // Nodes by walking down to each leaf.
            let mut nodes = std::collections::BTreeSet::from([(2, 0)]);
            for (at, leaf) in leaves(&table) {
                for level in leaf.size as u32..2 {
                    nodes.insert((level, at & !(entry_span(level + 1) - 1)));
                }
            }
            prop_assert_eq!(table.nodes(), nodes.len());
            // A kept pointer leads to the node it was made for, or nowhere.
            for (pointer, at, level) in &kept {
                let mut now = Some(RadixTable::ROOT);
                for upper in (*level + 1..3).rev() {
                    now = now.and_then(|n| table.read(n, upper, *at).node());
                }
                match table.resolve(*pointer) {
                    Some(node) => prop_assert_eq!(Some(node), now),
                    None => prop_assert!(now.is_none_or(|n| table.reference(n) != *pointer)),
                }
            }
            for (level, at) in nodes {
                let mut node = RadixTable::ROOT;
                for upper in (level + 1..3).rev() {
                    node = table.read(node, upper, at).node().unwrap();
                }
                let pointers = (0..512u64)
                    .filter(|i| table.read(node, level, at + i * entry_span(level)).node().is_some())
                    .count();
                prop_assert_eq!(table.pointers(node) as usize, pointers);
                if kept.len() < 64 {
                    kept.push((table.reference(node), at, level));
                }
            }
        }
    }
}

/// A freed and reused node is not mistaken for the one that a cache knew.
#[test]
fn a_pointer_to_a_freed_node_resolves_to_nothing() {
    for prune in [Prune::Covered, Prune::Empty] {
        let mut place = |_: u32, _: u64| 0;
        let mut table = RadixTable::new(3, prune, &mut place);
        table.map(0, 0, 4096, Perm::RW, PageSize::Size4K, &mut place).unwrap();
        let upper = table.read(RadixTable::ROOT, 2, 0).node().unwrap();
        let pointer = table.reference(table.read(upper, 1, 0).node().unwrap());
        assert!(table.resolve(pointer).is_some());
        table.unmap(0, 1 << 21, &mut place);
        assert_eq!(table.resolve(pointer), None);
        table.map(1 << 21, 0, 4096, Perm::RW, PageSize::Size4K, &mut place).unwrap();
        assert_eq!(table.resolve(pointer), None, "the node was reused");
    }
}

/// A table that a larger leaf replaces is freed too.
#[test]
fn a_larger_leaf_frees_what_it_replaces() {
    let mut place = |_: u32, _: u64| 0;
    let mut table = RadixTable::new(4, Prune::Never, &mut place);
    for page in 0..512 {
        table.map(page << 12, page << 12, 4096, Perm::RW, PageSize::Size4K, &mut place).unwrap();
    }
    assert_eq!((table.leaves(), table.nodes()), (512, 4));
    let outcome = table.map(0, 1 << 30, 1 << 21, Perm::RW, PageSize::Size2M, &mut place).unwrap();
    assert_eq!((outcome.written, outcome.replaced), (1, 1));
    assert_eq!((table.leaves(), table.nodes()), (1, 3));
}

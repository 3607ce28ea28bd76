//! Trees against a simple model: random trees, placements, policies, changes
//! and requests (invariants I1 to I7).
//!
//! `IOASIM_CASES=1000000 cargo test --release -p ioasim-sim --test tree`
//! runs that many cases; `IOASIM_SEED` is the first seed (default 0). A
//! failure prints its seed and the smallest script that still fails.

#[path = "common/tree_model.rs"]
mod tree_model;
#[path = "common/tree_run.rs"]
mod tree_run;
#[path = "common/tree_script.rs"]
mod tree_script;

use ioasim_sim::events::{Pasid, Perm, Requester};
use ioasim_sim::parent_change::Kind as ChangePolicy;
use ioasim_sim::parent_change::hardware::Family;
use ioasim_sim::sync::{Kind as Sync, Range};
use ioasim_sim::tree::{NodeId, NodeSpec, Ownership, Placement, Tree, TreeConfig, TreeError};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tree_run::{Coverage, PAGE, Run};
use tree_script::{Op, SYNCS, script};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |v| v.parse().expect("a number"))
}

/// Runs seeds `from..to`; the failure of the lowest.
fn run_seeds(from: u64, to: u64) -> Result<Coverage, String> {
    let mut total = Coverage::default();
    for seed in from..to {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config =
            Config { failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, rng);
        let tree = script().new_tree(&mut runner).map_err(|e| e.to_string())?;
        let covered = std::cell::RefCell::new(Coverage::default());
        let outcome = runner.run_one(tree, |s| {
            *covered.borrow_mut() = Run::script(&s).map_err(TestCaseError::fail)?;
            Ok(())
        });
        match outcome {
            Ok(_) => {}
            Err(TestError::Fail(why, s)) => {
                return Err(format!("seed {seed}: {why}\nsmallest script: {s:#?}"));
            }
            Err(e) => return Err(format!("seed {seed}: {e}")),
        }
        let c = covered.into_inner();
        total.requests += c.requests;
        total.translated += c.translated;
        total.stale_possible += c.stale_possible;
        total.parent_unmaps += c.parent_unmaps;
        total.mends += c.mends;
        total.lazy_fills += c.lazy_fills;
        total.pairs.extend(c.pairs);
    }
    Ok(total)
}

#[test]
fn random_trees_agree_with_the_model() {
    let (cases, first) = (number("IOASIM_CASES", 10_000), number("IOASIM_SEED", 0));
    let start = std::time::Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let bound = |t: u64| first + cases * t / threads;
    let results: Vec<Result<Coverage, String>> = std::thread::scope(|scope| {
        let parts: Vec<_> =
            (0..threads).map(|t| scope.spawn(move || run_seeds(bound(t), bound(t + 1)))).collect();
        parts.into_iter().map(|p| p.join().expect("no panic outside of cases")).collect()
    });
    let mut pairs = std::collections::BTreeSet::new();
    let mut totals = [0; 6];
    for result in results {
        let c = result.unwrap_or_else(|e| panic!("{e}"));
        let parts =
            [c.requests, c.translated, c.stale_possible, c.parent_unmaps, c.mends, c.lazy_fills];
        totals.iter_mut().zip(parts).for_each(|(t, p)| *t += p);
        pairs.extend(c.pairs);
    }
    let [requests, translated, stale, unmaps, mends, lazy] = totals;
    println!(
        "{cases} cases, seeds {first}..{}, {:.1} s on {threads} threads: {requests} requests \
         ({translated} translated, {stale} with more than one legal result), {unmaps} root \
         unmaps, {mends} mends, {lazy} lazy fills, {} policy pairs",
        first + cases,
        start.elapsed().as_secs_f64(),
        pairs.len(),
    );
    if cases >= 2_000 {
        let wanted = (1 + SYNCS) * ChangePolicy::ALL.len();
        assert_eq!(pairs.len(), wanted, "every sync x parent-change pair: {pairs:?}");
        assert!(translated * 8 > requests && stale * 500 > requests && lazy > 0 && mends > 0);
    }
}

fn spec(ownership: Ownership, sync: Sync, parent_change: ChangePolicy) -> NodeSpec {
    NodeSpec { ownership, nest_parent: true, sync, parent_change, table_levels: 4 }
}

const HOST: (Ownership, Sync) = (Ownership::HostManaged, Sync::MapUnmap);
const USER: (Ownership, Sync) = (Ownership::UserManaged, Sync::InvalidateRange);

fn chain(placement: Placement, owners: &[(Ownership, Sync)], policy: ChangePolicy) -> Tree {
    let mut tree = Tree::new(TreeConfig::new(placement));
    let mut parent = None;
    for (ownership, sync) in owners {
        let node = tree.create(parent, spec(*ownership, *sync, policy)).unwrap();
        if *ownership == Ownership::UserManaged {
            tree.bind(node).unwrap();
        }
        parent = Some(node);
    }
    tree
}

/// Every parent-change policy with every sync policy of user-managed nodes.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..ChangePolicy::ALL.len()).flat_map(|policy| (0..SYNCS).map(move |sync| (policy, sync)))
}

#[test]
fn three_levels_translate_alike_in_every_placement() {
    for placement in Placement::all(3, 2) {
        for (policy, sync) in pairs() {
            let mut run = Run::new(placement.clone(), Family::IntelVtd, false);
            for (depth, user) in [false, true, true].into_iter().enumerate() {
                run.create(depth.checked_sub(1), user, true, sync, policy).unwrap();
                run.apply(&Op::Bind { node: depth }).unwrap();
            }
            let map = |node, page, out, pages| Op::Map { node, page, out, pages, perm: 3 };
            for op in [
                map(0, 0, 0, 4),
                map(0, 512, 1024, 512),
                map(1, 0, 512, 3),
                map(1, 4, 1, 2),
                map(2, 100, 0, 6),
                Op::InvalidateAll { node: 1 },
                Op::InvalidateAll { node: 2 },
                Op::Request { node: 2, page: 101, write: false },
                Op::Unmap { node: 0, page: 512, pages: 512 },
                Op::Request { node: 2, page: 101, write: false },
                map(0, 512, 2048, 512),
                Op::Request { node: 2, page: 102, write: true },
                Op::Unmap { node: 1, page: 1, pages: 1 },
                Op::Invalidate { node: 1, page: 0, pages: 4 },
                Op::Request { node: 2, page: 101, write: false },
            ] {
                run.apply(&op).unwrap_or_else(|e| panic!("{placement:?} {op:?}: {e}"));
            }
            run.settled().unwrap_or_else(|e| panic!("{placement:?}: {e}"));
            assert!(run.coverage.translated > 10, "{placement:?} {:?}", run.coverage);
        }
    }
}

/// Once found by seed 612274: the nested cache kept the leaves of a destroyed
/// second stage, and nobody told it of changes below.
#[test]
fn a_destroyed_second_stage_leaves_nothing_cached() {
    let stages = [vec!["l2"], vec!["l1", "l0"]];
    let placement = Placement::new(&["l0", "l1", "l2"], &stages, 2).unwrap();
    let mut run = Run::new(placement, Family::IntelVtd, false);
    run.create(None, false, true, 0, 0).unwrap();
    run.create(Some(0), false, true, 0, 0).unwrap();
    run.create(Some(1), true, true, 0, 0).unwrap();
    let map = |node, page, out| Op::Map { node, page, out, pages: 1, perm: 3 };
    for op in [
        Op::Bind { node: 2 },
        map(0, 0, 0),
        map(1, 1024, 0),
        map(2, 0, 1024),
        Op::Request { node: 2, page: 0, write: false },
        Op::Destroy { node: 2 },
        Op::Destroy { node: 1 },
        Op::Unmap { node: 0, page: 0, pages: 1 },
    ] {
        run.apply(&op).unwrap_or_else(|e| panic!("{op:?}: {e}"));
    }
    assert_eq!(run.coverage.translated, 1);
}

#[test]
fn placements_are_checked() {
    let levels = ["l0", "l1", "l2"];
    let place = |stages: &[&[&'static str]], hardware| {
        let stages: Vec<Vec<&str>> = stages.iter().map(|s| s.to_vec()).collect();
        Placement::new(&levels, &stages, hardware)
    };
    let ok = place(&[&["l2", "l1"], &["l0"]], 2).unwrap();
    assert!(ok.merged(2) && !ok.merged(1) && ok.carries_tables(0) && !ok.carries_tables(1));
    assert_eq!(Placement::all(3, 2).len(), 3);
    assert_eq!(Placement::all(3, 1).len(), 1);
    for (stages, hardware, word) in [
        (&[&["l2"][..], &["l1"], &["l0"]][..], 3, "merge adjacent levels"),
        (&[&["l2", "l1"][..], &["l0"]][..], 1, "at most 1"),
        (&[&["l2", "l0"][..], &["l1"]][..], 2, "directly below"),
        (&[&["l2", "l1"][..]][..], 2, "no stage contains the level \"l0\""),
        (&[&["l3", "l1"][..], &["l0"]][..], 2, "\"l3\""),
    ] {
        let error = place(stages, hardware).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn rules_of_iommufd() {
    let placement = Placement::all(2, 2).remove(0);
    let mut tree = chain(placement, &[HOST], ChangePolicy::RmapLinked);
    let root = NodeId(0);
    let leaf = NodeSpec { nest_parent: false, ..spec(USER.0, USER.1, ChangePolicy::Scan) };
    let child = tree.create(Some(root), leaf).unwrap();
    assert_eq!(tree.create(Some(child), leaf), Err(TreeError::NotForNesting(child)));
    let wrong = NodeSpec { sync: Sync::MapUnmap, ..leaf };
    assert!(matches!(tree.create(Some(root), wrong), Err(TreeError::SyncDoesNotFit { .. })));
    let device = Requester(8);
    assert_eq!(tree.attach(device, Pasid::NONE, child), Err(TreeError::NotBound(child)));
    tree.bind(child).unwrap();
    tree.attach(device, Pasid::NONE, child).unwrap();
    tree.attach(device, Pasid(5), root).unwrap();
    assert_eq!(tree.route(device, Pasid(5)), Some(root));
    assert!(matches!(
        tree.attach(device, Pasid::NONE, root),
        Err(TreeError::AlreadyAttached { .. })
    ));
    assert!(matches!(tree.destroy(child), Err(TreeError::InUse { devices: 1, .. })));
    assert!(matches!(tree.destroy(root), Err(TreeError::InUse { children: 1, .. })));
    tree.map(root, 0x10000, 0x50000, 0x4000, Perm::RW).unwrap();
    assert!(matches!(
        tree.map(root, 0x13000, 0, 0x1000, Perm::RW),
        Err(TreeError::Overlap { area: 0x10000, .. })
    ));
    assert!(matches!(tree.unmap(root, 0x10000, 0x1000), Err(TreeError::CutsArea { .. })));
    assert!(matches!(tree.unmap(root, 0x20000, 0x1000), Err(TreeError::NothingMapped { .. })));
    assert!(matches!(tree.map(root, 0x123, 0, 0x1000, Perm::RW), Err(TreeError::Unaligned { .. })));
    assert_eq!(tree.unmap(root, 0, 0x20000), Ok(0x4000));
    assert_eq!(tree.guest_unmap(root, 0, 0x1000), Err(TreeError::NotUserManaged(root)));
    assert_eq!(tree.map(child, 0, 0, 0x1000, Perm::RW), Err(TreeError::NotHostManaged(child)));
    tree.detach(device, Pasid::NONE).unwrap();
    assert!(matches!(tree.detach(device, Pasid::NONE), Err(TreeError::NotAttached { .. })));
    tree.destroy(child).unwrap();
    assert_eq!(tree.bind(child), Err(TreeError::NoSuchNode(child)));
}

/// I4 and I5: a shadow driven by invalidations misses what no invalidation
/// named, and a synchronisation looks at its range only.
#[test]
fn shadows_see_only_what_invalidations_name() {
    let merged = Placement::new(&["l0", "l1"], &[vec!["l1", "l0"]], 2).unwrap();
    let nested = Placement::new(&["l0", "l1"], &[vec!["l1"], vec!["l0"]], 2).unwrap();
    for (placement, sees) in [(merged, false), (nested, true)] {
        let mut run = Run::new(placement, Family::IntelVtd, false);
        run.create(None, false, true, 0, 3).unwrap();
        run.create(Some(0), true, false, 0, 3).unwrap();
        run.apply(&Op::Bind { node: 1 }).unwrap();
        run.apply(&Op::Map { node: 0, page: 0, out: 0, pages: 512, perm: 3 }).unwrap();
        run.apply(&Op::Map { node: 1, page: 8, out: 20, pages: 4, perm: 3 }).unwrap();
        let found = |page: u64, run: &mut Run| {
            let mut reads = ioasim_sim::walk::Reads::default();
            let (tree, hw) = (&mut run.tree, &mut run.hardware);
            hw.translate(tree, NodeId(1), page * PAGE, Perm::READ, &mut reads).unwrap().is_ok()
        };
        assert_eq!(found(8, &mut run), sees, "I4");
        // AM = 1: two pages.
        let range = Range { start: 8 * PAGE, end: 10 * PAGE };
        run.tree.invalidate(NodeId(1), Some(range)).unwrap();
        run.hardware.follow(&mut run.tree);
        assert!(found(8, &mut run) && found(9, &mut run));
        assert_eq!(found(10, &mut run), sees, "I5");
        assert_eq!(found(11, &mut run), sees, "I5");
    }
}

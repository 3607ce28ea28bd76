//! Unmaps and map paths on forests of shadows.

use anyhow::Result;
use ioasim_reports::study::{Axis, MapTime, Point, Setup, Study};
use ioasim_sim::parent_change::forest::{Forest, Spec};
use ioasim_sim::parent_change::{Kind, Policy};

use super::measure::{map_paths, unmaps};
use crate::Interrupted;
use crate::progress::interrupted;

const PAGE: u64 = 4096;
/// Policies that keep an index, which the map path has to feed.
const INDEXED: [Kind; 3] = [Kind::Rmap, Kind::RmapInterval, Kind::RmapLinked];

/// All points, in order.
pub fn plan(quick: bool) -> Vec<Setup> {
    let entries = if quick { 100_000 } else { 1_000_000 };
    let base = |axis| Setup {
        axis,
        children: 16,
        entries,
        overlap_percent: 0,
        run_pages: 1,
        unmap_bytes: PAGE,
    };
    let mut plan = Vec::new();
    let most = if quick { 1_000_000 } else { 10_000_000 };
    for entries in [10_000, 100_000, 1_000_000, 10_000_000u64].into_iter().filter(|n| *n <= most) {
        plan.push(Setup { entries, ..base(Axis::Entries) });
    }
    for children in [1, 2, 4, 8, 16, 32, 64] {
        if !quick || matches!(children, 1 | 8 | 64) {
            plan.push(Setup { children, overlap_percent: 100, ..base(Axis::Children) });
        }
    }
    for overlap_percent in [0, 25, 50, 75, 100] {
        if !quick || overlap_percent % 50 == 0 {
            plan.push(Setup { overlap_percent, ..base(Axis::Overlap) });
        }
    }
    for shift in [12, 16, 21, 25, 30] {
        let unmap_bytes = 1 << shift;
        if unmap_bytes <= entries * PAGE {
            plan.push(Setup { unmap_bytes, run_pages: 512, ..base(Axis::Unmap) });
        }
    }
    plan
}

/// How many unmaps: fixed, so that counts do not depend on the machine.
fn count(kind: Kind, setup: &Setup) -> u64 {
    let pages = setup.unmap_bytes / PAGE;
    match kind {
        Kind::FlushAll | Kind::Epoch => 1 + 9 * u64::from(setup.entries <= 100_000),
        Kind::Scan => (10_000_000 / setup.entries).clamp(2, 200),
        _ => (4_000 / pages).max(2),
    }
}

/// Measures all points and, on the forests without and with full overlap, the
/// map path.
///
/// # Errors
/// Ctrl-C.
pub fn run(plan: &[Setup], study: &mut Study, done: &mut dyn FnMut(u64)) -> Result<()> {
    for setup in plan {
        let mut forest = Forest::new(Spec {
            children: setup.children,
            entries: setup.entries,
            overlap: setup.overlap_percent as f64 / 100.0,
            run: setup.run_pages,
        });
        for kind in Kind::ALL {
            if interrupted() {
                return Err(Interrupted.into());
            }
            let mut policy = Policy::of_kind(kind);
            forest.feed(&mut policy);
            let policy_bytes = policy.memory_bytes();
            let m = unmaps(&mut forest, &mut policy, setup.unmap_bytes, count(kind, setup));
            study.points.push(Point {
                setup: *setup,
                policy: kind.name().into(),
                unmaps: m.count,
                entries_examined: m.work.entries_examined,
                entries_changed: m.work.entries_changed,
                entries_dropped: m.work.entries_dropped,
                entries_rebuilt: m.work.entries_rebuilt,
                lines: m.work.lines,
                policy_bytes,
                ns: m.ns,
                later_ns: m.later_ns,
            });
        }
        if setup.axis == Axis::Overlap && matches!(setup.overlap_percent, 0 | 100) {
            map_path(&mut forest, setup, study);
        }
        done(setup.entries);
    }
    Ok(())
}

fn map_path(forest: &mut Forest, setup: &Setup, study: &mut Study) {
    for captured in [false, true] {
        if captured {
            forest.capture_calls();
        }
        for kind in INDEXED {
            let mut policy = Policy::of_kind(kind);
            forest.feed(&mut policy);
            for batch_pages in [1, 32, 512] {
                let (a, b) = map_paths(forest, &mut policy, batch_pages, captured, 7);
                study.maps.push(MapTime {
                    policy: kind.name().into(),
                    sync: if captured { "map-unmap" } else { "invalidate-range" }.into(),
                    overlap_percent: setup.overlap_percent,
                    batch_pages,
                    map_ns: a.map_ns,
                    map_with_ns: b.map_ns,
                    map_later_ns: b.map_later_ns,
                    unmap_ns: a.unmap_ns,
                    unmap_with_ns: b.unmap_ns,
                    unmap_later_ns: b.unmap_later_ns,
                });
            }
        }
    }
}

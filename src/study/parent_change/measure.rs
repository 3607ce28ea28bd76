//! CPU time of parent changes and of the child's map path, on a forest.

use std::hint::black_box;

use ioasim_sim::parent_change::forest::{Forest, Scatter};
use ioasim_sim::parent_change::{Policy, Work};
use rustix::time::{ClockId, clock_gettime};

/// Inverse of the plastic number: places of changes are scattered by it, so
/// that they do not follow the forest's own order of GPAs.
const PLASTIC: f64 = 0.754_877_666_247;

/// CPU time of this thread in ns.
pub fn cpu_ns() -> f64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

/// Parent unmaps of one size under one policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unmaps {
    /// Unmaps made.
    pub count: u64,
    /// CPU time of each, in ns.
    pub ns: f64,
    /// CPU time of what the policy put off, per unmap, in ns.
    pub later_ns: f64,
    /// Primitives of all, without what was put off.
    pub work: Work,
}

/// Unmaps `count` ranges of `len` bytes one by one, then gives them back,
/// which is not measured.
pub fn unmaps(forest: &mut Forest, policy: &mut Policy, len: u64, count: u64) -> Unmaps {
    let ranges = forest.memory_end().div_ceil(len);
    let scatter = Scatter::new(ranges, PLASTIC);
    let order: Vec<u64> = (0..count.min(ranges)).map(|i| scatter.at(i) * len).collect();
    let mut work = Work::default();
    let start = cpu_ns();
    for gpa in &order {
        forest.parent_unmap(policy, *gpa, len, &mut work);
    }
    let at_once = cpu_ns() - start;
    // One rebuild at the end is enough for policies that always rebuild.
    let mut rest = Work::default();
    let rebuilds = matches!(policy, Policy::FlushAll(_) | Policy::Epoch(_));
    for (i, gpa) in order.iter().enumerate() {
        if rebuilds && i + 1 < order.len() {
            forest.parent_back(*gpa, len);
        } else if !matches!(policy, Policy::Epoch(_)) {
            forest.parent_restore(policy, *gpa, len, &mut rest);
        } else {
            forest.parent_back(*gpa, len);
        }
    }
    let start = cpu_ns();
    while policy.step(1 << 20, forest, &mut rest) {}
    let later = cpu_ns() - start;
    let count = order.len() as f64;
    Unmaps { count: order.len() as u64, ns: at_once / count, later_ns: later / count, work }
}

/// CPU time per page of a child's changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct MapPath {
    /// Synchronisation after a map, in ns.
    pub map_ns: f64,
    /// What the policy put off, in ns.
    pub map_later_ns: f64,
    /// Synchronisation after an unmap, in ns.
    pub unmap_ns: f64,
    /// What the policy put off, in ns.
    pub unmap_later_ns: f64,
}

/// Pages after which the worker, which would be on another CPU, does what the
/// policy put off.
const WORKER: u64 = 512;

/// Pages that one round of [`map_path`] changes.
const CHURN: u64 = 1 << 15;

/// The guest unmaps and maps `batch` consecutive pages at a time at scattered
/// places, and the VMM follows: walk of the invalidated range, shadow entries,
/// host operations, and the policy's own index if `policy` is given. What the
/// policy puts off is done every [`WORKER`] pages and measured apart. The
/// guest's own stores are not measured.
pub fn map_path(
    forest: &mut Forest,
    mut policy: Option<&mut Policy>,
    batch: u64,
    captured: bool,
    round: u64,
) -> MapPath {
    let spec = *forest.spec();
    let batch = batch.min(spec.per_child());
    let batches = spec.per_child() / batch;
    let count = (CHURN / batch).clamp(1, batches * spec.children);
    let scatter = Scatter::new(batches * spec.children, PLASTIC);
    let places: Vec<(u32, u64)> = (0..count)
        .map(|i| {
            let n = scatter.at(round * count + i);
            ((n / batches) as u32, n % batches * batch)
        })
        .collect();
    let mut pass = |forest: &mut Forest, map: bool| {
        let (mut child_ns, mut later_ns) = (0.0, 0.0);
        for some in places.chunks((WORKER / batch).max(1) as usize) {
            let start = cpu_ns();
            for (child, page) in some {
                match (captured, map) {
                    (false, _) => forest.invalidate(*child, *page, batch),
                    (true, true) => (*page..page + batch).for_each(|p| forest.map_call(*child, p)),
                    (true, false) => forest.unmap_call(*child, *page, batch),
                }
                black_box(&forest.ops);
                match &mut policy {
                    Some(policy) => forest.follow(*child, policy),
                    None => forest.ops.clear(),
                }
            }
            let end = cpu_ns();
            child_ns += end - start;
            if let Some(policy) = &mut policy {
                while policy.step(u64::MAX, forest, &mut Work::default()) {}
                later_ns += cpu_ns() - end;
            }
        }
        let pages = (count * batch) as f64;
        (child_ns / pages, later_ns / pages)
    };
    places.iter().for_each(|(child, page)| forest.guest_unmap(*child, *page, batch));
    let (unmap_ns, unmap_later_ns) = pass(forest, false);
    places.iter().for_each(|(child, page)| forest.guest_map(*child, *page, batch));
    let (map_ns, map_later_ns) = pass(forest, true);
    MapPath { map_ns, map_later_ns, unmap_ns, unmap_later_ns }
}

/// Rounds of [`map_path`] without and with a policy in turn; the median of
/// each.
pub fn map_paths(
    forest: &mut Forest,
    policy: &mut Policy,
    batch: u64,
    captured: bool,
    rounds: u64,
) -> (MapPath, MapPath) {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        without.push(map_path(forest, None, batch, captured, 2 * round));
        with.push(map_path(forest, Some(policy), batch, captured, 2 * round + 1));
    }
    (median_of(&without), median_of(&with))
}

fn median_of(all: &[MapPath]) -> MapPath {
    let of = |f: fn(&MapPath) -> f64| median(all.iter().map(f).collect());
    MapPath {
        map_ns: of(|p| p.map_ns),
        map_later_ns: of(|p| p.map_later_ns),
        unmap_ns: of(|p| p.unmap_ns),
        unmap_later_ns: of(|p| p.unmap_later_ns),
    }
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

//! The allocator as simply as it can be said, and its comparison with the
//! fast one.

use proptest::prelude::*;

use super::iova::{IovaDomain, Kernel};
use super::tree::PAGES_32;

/// A node above all others.
const ANCHOR: u64 = u64::MAX;

/// A list of nodes, ascending; searches visit node by node.
#[derive(Debug)]
struct Nodes {
    /// First and last page.
    all: Vec<(u64, u64)>,
    cached_32: u64,
    cached: u64,
    failed_32: u64,
}

impl Nodes {
    fn alloc(&mut self, pages: u64, limit: u64) -> Option<u64> {
        if limit <= PAGES_32 && pages >= self.failed_32 {
            return None;
        }
        let cached = if limit <= PAGES_32 { self.cached_32 } else { self.cached };
        let begin = self.all.iter().position(|n| n.0 == cached).unwrap();
        // From the anchor Linux would go on with page 0, which to its callers
        // means failure.
        let retry = self.all[begin].1.wrapping_add(1).max(1);
        let mut found = self.walk(begin, pages, limit, 1);
        if found.is_none() && retry < limit {
            let above = self.all.iter().position(|n| n.1 >= limit).unwrap();
            found = self.walk(above, pages, limit, retry);
        }
        let Some(first) = found else {
            self.failed_32 = pages;
            return None;
        };
        let node = (first, first + pages - 1);
        let at = self.all.iter().position(|n| n.0 > first).unwrap();
        self.all.insert(at, node);
        if node.1 < PAGES_32 {
            self.cached_32 = first;
        } else {
            self.cached = first;
        }
        Some(first)
    }

    fn walk(&self, from: usize, pages: u64, limit: u64, low: u64) -> Option<u64> {
        let mut high = limit;
        let mut at = from;
        loop {
            high = high.min(self.all[at].0);
            if high < pages {
                return None;
            }
            let fit = (high - pages) / pages.next_power_of_two() * pages.next_power_of_two();
            if fit < low {
                return None;
            }
            if at == 0 || fit > self.all[at - 1].1 {
                return Some(fit);
            }
            at -= 1;
        }
    }

    fn free(&mut self, first: u64) {
        let at = self.all.iter().position(|n| n.0 == first).unwrap();
        let (lo, hi) = self.all[at];
        let next = self.all[at + 1].0;
        if lo == self.cached_32 || (hi < PAGES_32 && lo >= self.cached_32) {
            self.cached_32 = next;
        }
        if lo < PAGES_32 {
            self.failed_32 = PAGES_32;
        }
        if lo >= self.cached {
            self.cached = next;
        }
        self.all.remove(at);
    }
}

/// One size class: for each CPU two stacks, and the depot.
type Class = (Vec<[Vec<u64>; 2]>, Vec<Vec<u64>>);

#[derive(Debug)]
struct Model {
    kernel: Kernel,
    classes: Vec<Class>,
    nodes: Nodes,
    limit: u64,
    next_trim: u64,
}

impl Model {
    fn new(kernel: Kernel, cpus: usize, bits: u32) -> Model {
        let mut all: Vec<_> = (0xfee00..0xfef00).map(|p| (p, p)).collect();
        all.push((ANCHOR, ANCHOR));
        let nodes = Nodes { all, cached_32: ANCHOR, cached: ANCHOR, failed_32: PAGES_32 };
        let classes = (0..6).map(|_| (vec![[vec![], vec![]]; cpus], vec![])).collect();
        Model { kernel, classes, nodes, limit: 1 << (bits - 12), next_trim: 100_000_000 }
    }

    fn order(pages: u64) -> usize {
        (0..).find(|o| 1u64 << o >= pages).unwrap()
    }

    fn alloc(&mut self, cpu: usize, pages: u64) -> Option<u64> {
        let size = if pages <= 32 { 1 << Model::order(pages) } else { pages };
        let limits =
            if self.limit > PAGES_32 { vec![PAGES_32, self.limit] } else { vec![self.limit] };
        for limit in limits {
            if pages <= 32
                && let Some(page) = self.cached(cpu, Model::order(pages), limit)
            {
                return Some(page);
            }
            if let Some(page) = self.nodes.alloc(size, limit) {
                return Some(page);
            }
        }
        for (cpus, depot) in &mut self.classes {
            let all: Vec<u64> = cpus
                .iter_mut()
                .flatten()
                .chain(depot.iter_mut())
                .flat_map(std::mem::take)
                .collect();
            depot.clear();
            all.into_iter().for_each(|p| self.nodes.free(p));
        }
        self.nodes.alloc(size, self.limit)
    }

    fn cached(&mut self, cpu: usize, order: usize, limit: u64) -> Option<u64> {
        let (cpus, depot) = &mut self.classes[order];
        let [loaded, previous] = &mut cpus[cpu];
        if loaded.is_empty() && !previous.is_empty() {
            (*loaded, *previous) = (previous.clone(), loaded.clone());
        } else if loaded.is_empty() {
            *loaded = depot.pop()?;
        }
        let at = (0..loaded.len()).rev().find(|&i| loaded[i] < limit)?;
        let page = loaded[at];
        let top = loaded.pop().unwrap();
        if at < loaded.len() {
            loaded[at] = top;
        }
        Some(page)
    }

    fn free(&mut self, cpu: usize, page: u64, pages: u64) {
        if pages > 32 {
            return self.nodes.free(page);
        }
        let full = self.kernel.magazine();
        let (cpus, depot) = &mut self.classes[Model::order(pages)];
        let [loaded, previous] = &mut cpus[cpu];
        if loaded.len() == full && previous.len() < full {
            (*loaded, *previous) = (previous.clone(), loaded.clone());
        } else if loaded.len() == full {
            let magazine = std::mem::take(loaded);
            if self.kernel == Kernel::V6_12 || depot.len() < 32 {
                depot.push(magazine);
            } else {
                magazine.into_iter().for_each(|p| self.nodes.free(p));
            }
        }
        cpus[cpu][0].push(page);
    }

    fn tick(&mut self, now: u64) {
        if now >= self.next_trim {
            self.next_trim = now + 100_000_000;
            if self.kernel == Kernel::V6_12 {
                for (cpus, depot) in &mut self.classes {
                    if depot.len() > cpus.len() {
                        depot.pop().unwrap().into_iter().for_each(|p| self.nodes.free(p));
                    }
                }
            }
        }
    }
}

/// What a script does next.
#[derive(Clone, Debug)]
enum Step {
    Alloc {
        cpu: usize,
        pages: u64,
        times: usize,
    },
    /// From the front or the back of what is in use.
    Free {
        cpu: usize,
        oldest: bool,
        times: usize,
    },
    Sleep,
}

fn step() -> impl Strategy<Value = Step> {
    let pages = prop_oneof![6 => Just(1u64), 2 => 2u64..40, 1 => 40u64..1200, 1 => Just(1 << 17)];
    prop_oneof![
        4 => (0..3usize, pages, 1..400usize)
            .prop_map(|(cpu, pages, times)| Step::Alloc { cpu, pages, times }),
        4 => (0..3usize, any::<bool>(), 1..400usize)
            .prop_map(|(cpu, oldest, times)| Step::Free { cpu, oldest, times }),
        1 => Just(Step::Sleep),
    ]
}

fn run(kernel: Kernel, bits: u32, steps: &[Step]) {
    let mut fast = IovaDomain::new(kernel, 3, bits);
    let mut model = Model::new(kernel, 3, bits);
    let mut live = std::collections::VecDeque::new();
    let mut now = 0;
    for step in steps {
        match *step {
            Step::Sleep => now += 100_000_000,
            Step::Alloc { cpu, pages, times } => {
                // Large ranges fill the space below 4 GiB within a script.
                for _ in 0..if pages > 64 { times.min(12) } else { times } {
                    let got = fast.alloc(cpu, pages);
                    assert_eq!(got, model.alloc(cpu, pages), "{pages} pages on {cpu}");
                    live.extend(got.map(|page| (page, pages)));
                }
            }
            Step::Free { cpu, oldest, times } => {
                for _ in 0..times {
                    let next = if oldest { live.pop_front() } else { live.pop_back() };
                    let Some((page, pages)) = next else { break };
                    fast.free(cpu, page, pages);
                    model.free(cpu, page, pages);
                }
            }
        }
        fast.tick(now);
        model.tick(now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn the_fast_allocator_is_the_simple_one(
        new in any::<bool>(),
        bits in prop_oneof![Just(32u32), Just(33), Just(48)],
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        run(if new { Kernel::V6_12 } else { Kernel::V6_0 }, bits, &steps);
    }
}

#[test]
fn magazines_overflow_into_depot_and_tree() {
    let alloc = |cpu, times| Step::Alloc { cpu, pages: 1, times };
    let free = |cpu, oldest, times| Step::Free { cpu, oldest, times };
    for kernel in [Kernel::V6_0, Kernel::V6_12] {
        let steps = [
            alloc(0, 6000),
            free(1, true, 5000),
            Step::Sleep,
            Step::Sleep,
            alloc(2, 3000),
            free(0, false, 3000),
            alloc(1, 4000),
        ];
        run(kernel, 32, &steps);
    }
}

#[test]
fn the_search_is_top_down_and_aligned() {
    let mut d = IovaDomain::new(Kernel::V6_0, 1, 48);
    assert_eq!(d.alloc(0, 1), Some(0xfffff));
    assert_eq!(d.alloc(0, 3), Some(0xffff8), "rounded to four pages, aligned");
    assert_eq!(d.alloc(0, 1), Some(0xffff7), "the search goes on below");
    assert_eq!(d.alloc(0, 100), Some(0xfff80), "a hundred pages, aligned to 128");
    d.free(0, 0xffff8, 3);
    assert_eq!(d.alloc(0, 4), Some(0xffff8), "from the magazine of four pages");
}

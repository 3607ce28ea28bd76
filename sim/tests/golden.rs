//! Golden vectors for two-stage translation (`tests/vectors/README.md`).
//!
//! Every case runs twice: through the walker alone, which must read exactly
//! the entries that the vectors list, in their order; and through IOTLB,
//! paging-structure caches and nested cache of several sizes, which may read
//! less and must stay inside the legal results.

#[path = "common/vectors.rs"]
mod vectors;

use std::collections::HashMap;

use ioasim_sim::cache::replacement::{
    Clock, Fifo, Lfu, Lru, Plru, Random, Replacement, S3Fifo, Srrip,
};
use ioasim_sim::cache::{Cached, Iotlb, Key, PageRange, SetAssocStore, Store, Tag};
use ioasim_sim::events::{PageSize, Perm};
use ioasim_sim::table::{Prune, RadixTable};
use ioasim_sim::walk::{Fault, Observer, Stages, Translation, WalkCacheConfig, WalkCaches};
use serde_json::Value;
use vectors::{cases, hex, levels, size};

const TAG: Tag = Tag(1);

/// Writes the order of reads as the vectors do: `4c4c...`.
#[derive(Default)]
struct Order {
    parent: u64,
    reads: u64,
    text: String,
}

impl Observer for Order {
    fn child_read(&mut self) {
        self.reads += 1;
        self.text.push('c');
    }
    fn parent_read(&mut self) {
        self.reads += 1;
        self.parent += 1;
    }
    fn parent_done(&mut self) {
        self.text.push_str(&std::mem::take(&mut self.parent).to_string());
    }
}

struct Case {
    id: u64,
    child: Option<RadixTable>,
    parent: Option<RadixTable>,
    /// (level, first IOVA) -> GPA of the table page.
    pages: HashMap<(u32, u64), u64>,
}

impl Case {
    fn new(case: &Value) -> Case {
        let pages: HashMap<(u32, u64), u64> = case["table_pages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| ((p["level"].as_u64().unwrap() as u32, hex(&p["iova"])), hex(&p["gpa"])))
            .collect();
        let child = levels(&case["cfg"]["child"]).map(|n| {
            // A case that never maps needs no page; its root exists all the same.
            let place = |l: u32, b: u64| pages.get(&(l, b)).copied().unwrap_or(0);
            RadixTable::new(n, Prune::Never, &mut { place })
        });
        let parent = levels(&case["cfg"]["parent"])
            .map(|n| RadixTable::new(n, Prune::Never, &mut |_: u32, _: u64| 0));
        Case { id: case["id"].as_u64().unwrap(), child, parent, pages }
    }

    fn stages(&self) -> Stages<'_> {
        Stages { child: self.child.as_ref(), parent: self.parent.as_ref(), child_tag: TAG }
    }

    /// Applies a map or unmap; false for other operations.
    fn edit(&mut self, op: &Value) -> bool {
        let name = op["op"].as_str().unwrap();
        let Some((verb, level)) = name.split_once('_') else { return false };
        if verb == "inval" {
            return false;
        }
        let n = op["n"].as_u64().unwrap_or(1);
        let bytes = size(&op["size"]).bytes() * n;
        let pages = &self.pages;
        let mut place = |l: u32, b: u64| pages.get(&(l, b)).copied().unwrap_or(0xdead_0000);
        let (table, addr, out) = match level {
            "child" => (self.child.as_mut(), hex(&op["iova"]), "gpa"),
            "parent" => (self.parent.as_mut(), hex(&op["gpa"]), "spa"),
            other => panic!("{other}"),
        };
        let table = table.expect("bare stages have no operations");
        if verb == "map" {
            let perm = if op["perm"] == "rw" { Perm::RW } else { Perm::READ };
            let largest = size(&op["size"]);
            table.map(addr, hex(&op[out]), bytes, perm, largest, &mut place).unwrap();
        } else {
            assert_eq!(table.unmap(addr, bytes, &mut place), bytes);
        }
        true
    }

    fn matches(&self, expect: &Value, got: &Result<Translation, Fault>) -> bool {
        match (expect["ok"].as_bool().unwrap(), got) {
            (true, Ok(t)) => {
                t.out == hex(&expect["spa"])
                    && expect.get("size").is_none_or(|s| s.is_null() || size(s) == t.size)
            }
            (false, Err(fault)) => match (expect["stage"].as_str().unwrap(), fault) {
                ("child", Fault::Child) => true,
                ("parent", Fault::Parent { gpa }) => hex(&expect["gpa"]) == *gpa,
                ("parent-implicit", Fault::ParentImplicit { gpa }) => {
                    hex(&expect["gpa"]) & !0xfff == gpa & !0xfff
                }
                _ => false,
            },
            _ => false,
        }
    }
}

fn needed(op: &Value) -> Perm {
    if op["write"].as_bool().unwrap() { Perm::WRITE } else { Perm::READ }
}

/// The walker alone.
fn run_cold(case: &Value) -> u64 {
    let mut c = Case::new(case);
    let mut requests = 0;
    for op in case["ops"].as_array().unwrap() {
        if c.edit(op) || op["op"] != "xlate" {
            continue;
        }
        requests += 1;
        let mut order = Order::default();
        let addr = hex(&op["iova"]);
        let got = c.stages().walk(addr, needed(op), &mut WalkCaches::none(), &mut order);
        let id = c.id;
        if let Some(any) = op.get("expect_any") {
            assert!(c.matches(&any[0], &got), "case {id} at {addr:#x}: {got:?}, want {}", any[0]);
            continue;
        }
        let want = &op["expect"];
        assert!(c.matches(want, &got), "case {id} at {addr:#x}: {got:?}, want {want}");
        assert_eq!(order.reads, want["pte_reads"].as_u64().unwrap(), "case {id} at {addr:#x}");
        // Faults in a bare stage leave a "0" that the vectors do not write.
        assert_eq!(
            order.text.trim_end_matches('0'),
            want["walk"].as_str().unwrap().trim_end_matches('0'),
            "case {id} at {addr:#x}"
        );
    }
    requests
}

/// IOTLB and walk caches.
fn run_cached<S: Store>(case: &Value, store: S, caches: fn() -> WalkCaches) -> (u64, u64) {
    let mut c = Case::new(case);
    let mut iotlb = Iotlb::new(store);
    let mut walks = caches();
    let (mut requests, mut hits) = (0, 0);
    for op in case["ops"].as_array().unwrap() {
        if c.edit(op) {
            continue;
        }
        match (op["op"].as_str().unwrap(), op["scope"].as_str()) {
            ("inval_child", Some("all")) => {
                iotlb.invalidate_tag(TAG);
                walks.invalidate_stage1_tag(TAG);
                continue;
            }
            ("inval_child", _) => {
                let iova = hex(&op["iova"]) & !0xfff;
                iotlb.invalidate(TAG, PageRange::new(iova, iova + 4096));
                walks.invalidate_stage1(TAG, iova, iova + 4096);
                continue;
            }
            ("inval_parent", _) => {
                iotlb.invalidate_tag(TAG);
                walks.invalidate_parent();
                continue;
            }
            ("xlate", _) => {}
            other => panic!("{other:?}"),
        }
        let cold = op["cold"].as_bool().unwrap_or(false);
        if cold {
            iotlb.invalidate_tag(TAG);
            walks = caches();
        }
        requests += 1;
        let addr = hex(&op["iova"]);
        let need = needed(op);
        let mut order = Order::default();
        let both_bare = c.child.is_none() && c.parent.is_none();
        let got = match iotlb.lookup(TAG, addr, need) {
            Some(out) => {
                hits += 1;
                // The page size of a hit is not reported; take the vectors'.
                let size = op.get("expect").and_then(|e| e.get("size")).map(size);
                Ok(Translation { out, size: size.unwrap_or(PageSize::Size1G), perm: need })
            }
            None => {
                let got = c.stages().walk(addr, need, &mut walks, &mut order);
                if let Ok(t) = &got
                    && !both_bare
                {
                    let base = t.out & !(t.size.bytes() - 1);
                    let key = Key::new(TAG, t.size, addr);
                    let filled = iotlb.fill(key, Cached::new(base, t.perm), 0);
                    iotlb.causes(&mut [filled], |_, _| ());
                }
                got
            }
        };
        let id = c.id;
        if let Some(any) = op.get("expect_any") {
            let legal = any.as_array().unwrap().iter().any(|e| {
                let mut e = e.clone();
                e.as_object_mut().unwrap().remove("size");
                c.matches(&e, &got)
            });
            assert!(legal, "case {id} at {addr:#x}: {got:?} is none of {any}");
            continue;
        }
        let want = &op["expect"];
        assert!(c.matches(want, &got), "case {id} at {addr:#x}: {got:?}, want {want}");
        let limit = want["pte_reads"].as_u64().unwrap();
        assert!(order.reads <= limit, "case {id} at {addr:#x}: {} > {limit}", order.reads);
    }
    (requests, hits)
}

#[test]
fn golden_walker_reads_exactly_what_the_vectors_list() {
    let cases = cases();
    let requests: u64 = cases.iter().map(run_cold).sum();
    println!("{} cases, {requests} requests: results, reads and order equal", cases.len());
}

fn store<P: Replacement<Config = ()>>(entries: usize, ways: usize) -> SetAssocStore<P> {
    SetAssocStore::new(entries, ways, 1)
}

#[test]
fn golden_caches_stay_inside_the_legal_results() {
    fn large() -> WalkCaches {
        let c = WalkCacheConfig { entries: 64, ways: 4 };
        WalkCaches::new([c; 4], [c; 4], c)
    }
    fn small() -> WalkCaches {
        let c = WalkCacheConfig { entries: 2, ways: 1 };
        WalkCaches::new([c; 4], [c; 4], c)
    }
    let cases = cases();
    let mut totals = [(0, 0); 9];
    for case in &cases {
        let runs = [
            run_cached(case, store::<Lru>(1024, 1024), large),
            run_cached(case, store::<Lru>(8, 2), small),
            run_cached(case, store::<Plru>(12, 3), WalkCaches::none),
            run_cached(case, store::<Fifo>(64, 64), small),
            run_cached(case, store::<Clock>(4, 4), large),
            run_cached(case, store::<Random>(16, 4), large),
            run_cached(case, store::<Lfu>(8, 4), small),
            run_cached(case, store::<Srrip>(12, 6), large),
            run_cached(case, store::<S3Fifo>(20, 20), WalkCaches::none),
        ];
        for (total, (requests, hits)) in totals.iter_mut().zip(runs) {
            *total = (total.0 + requests, total.1 + hits);
        }
    }
    for (requests, hits) in totals {
        assert!(hits > 0, "the caches must take part");
        println!("{} cases, {requests} requests, {hits} IOTLB hits: all legal", cases.len());
    }
}

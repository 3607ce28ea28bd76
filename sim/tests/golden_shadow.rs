//! Golden vectors through software nesting: a merged child under each sync
//! policy and each parent-change policy, with an IOTLB and walk caches.
//!
//! What differs from the hardware walk that the vectors describe:
//! * A shadow is one stage, so a fault does not say which level refused.
//! * Software reads the child's table without the parent, so requests that
//!   must fault because a *table page* has no parent mapping do not apply.
//! * Policies driven by invalidations need one for not-present -> present, as
//!   under caching mode (I4); each map of the child is followed by one.
//! * The host changes shadows when the parent changes, not at a later
//!   `inval_parent`; the newest state is always legal.

#[path = "common/vectors.rs"]
mod vectors;

use ioasim_sim::cache::SetAssocStore;
use ioasim_sim::cache::replacement::Lru;
use ioasim_sim::events::Perm;
use ioasim_sim::parent_change::Kind as ChangePolicy;
use ioasim_sim::parent_change::hardware::Family;
use ioasim_sim::sync::{Kind as Sync, Range};
use ioasim_sim::tree::{Hardware, NodeId, NodeSpec, Ownership, Placement, Tree, TreeConfig};
use ioasim_sim::walk::{Reads, WalkCacheConfig, WalkCaches};
use serde_json::Value;
use vectors::{cases, hex, levels, size};

fn caches() -> WalkCaches {
    let c = WalkCacheConfig { entries: 64, ways: 4 };
    WalkCaches::new([c; 4], [c; 4], c)
}

#[derive(Default)]
struct Totals {
    requests: u64,
    stale: u64,
    /// Requests whose fault comes from a table page's parent mapping.
    implicit: u64,
}

struct Case {
    tree: Tree,
    hardware: Hardware<SetAssocStore<Lru>>,
    child: Option<NodeId>,
    parent: Option<NodeId>,
    user: bool,
}

impl Case {
    fn new(case: &Value, sync: Sync, parent_change: ChangePolicy) -> Case {
        let (c, p) = (levels(&case["cfg"]["child"]), levels(&case["cfg"]["parent"]));
        let mut tree = Tree::new(TreeConfig::new(Placement::all(2, 1).remove(0)));
        let user = sync != Sync::MapUnmap;
        let (host, guest) = (Ownership::HostManaged, Ownership::UserManaged);
        let spec = |ownership, table_levels| {
            let sync = if ownership == host { Sync::MapUnmap } else { sync };
            NodeSpec { ownership, nest_parent: true, sync, parent_change, table_levels }
        };
        let parent = p.map(|n| tree.create(None, spec(host, n)).unwrap());
        let owner = if user { guest } else { host };
        let child = c.map(|n| tree.create(parent, spec(owner, n)).unwrap());
        if let Some(child) = child.filter(|_| user) {
            tree.bind(child).unwrap();
        }
        let store = SetAssocStore::new(64, 4, 1);
        let hardware = Hardware::new(store, caches, Family::IntelVtd);
        Case { tree, hardware, child, parent, user }
    }

    fn edit(&mut self, op: &Value) {
        let name = op["op"].as_str().unwrap();
        let n = op["n"].as_u64().unwrap_or(1);
        let (verb, level) = name.split_once('_').unwrap();
        let child = level == "child";
        let user = self.user && child;
        let node = if child { self.child } else { self.parent }.expect("bare stages do not change");
        let base = hex(&op[if child { "iova" } else { "gpa" }]);
        let bytes = size(&op["size"]).bytes();
        // Page by page, so that each is an area of its own.
        for at in (0..n).map(|i| base + i * bytes) {
            match verb {
                "map" => {
                    let out = hex(&op[if child { "gpa" } else { "spa" }]) + (at - base);
                    let perm = if op["perm"] == "rw" { Perm::RW } else { Perm::READ };
                    if user {
                        self.tree.guest_map(node, at, out, bytes, perm).unwrap();
                        let range = Range { start: at, end: at + bytes };
                        self.tree.invalidate(node, Some(range)).unwrap();
                    } else {
                        self.tree.map(node, at, out, bytes, perm).unwrap();
                    }
                }
                _ if user => _ = self.tree.guest_unmap(node, at, bytes).unwrap(),
                _ => assert_eq!(self.tree.unmap(node, at, bytes), Ok(bytes)),
            }
            self.hardware.follow(&mut self.tree);
        }
    }

    fn invalidate(&mut self, range: Option<Range>) {
        if let Some(child) = self.child.filter(|_| self.user) {
            self.tree.invalidate(child, range).unwrap();
            self.hardware.follow(&mut self.tree);
        }
    }

    fn request(&mut self, op: &Value) -> Option<u64> {
        let node = self.child.or(self.parent);
        let iova = hex(&op["iova"]);
        let Some(node) = node else { return Some(iova) }; // both stages bare
        let needed = if op["write"].as_bool().unwrap() { Perm::WRITE } else { Perm::READ };
        let (tree, seen) = (&mut self.tree, &mut Reads::default());
        self.hardware.translate(tree, node, iova, needed, seen).unwrap().ok()
    }
}

fn legal(expect: &Value) -> Option<u64> {
    expect["ok"].as_bool().unwrap().then(|| hex(&expect["spa"]))
}

fn run(case: &Value, sync: Sync, change: ChangePolicy, totals: &mut Totals) {
    let mut c = Case::new(case, sync, change);
    let id = &case["id"];
    for op in case["ops"].as_array().unwrap() {
        match (op["op"].as_str().unwrap(), op["scope"].as_str()) {
            ("inval_child", Some("all")) => c.invalidate(None),
            ("inval_child", _) => {
                let start = hex(&op["iova"]) & !0xfff;
                c.invalidate(Some(Range { start, end: start + 4096 }));
            }
            ("inval_parent", _) => {}
            ("xlate", _) => {
                if op["cold"].as_bool().unwrap_or(false) {
                    c.invalidate(None);
                }
                let got = c.request(op);
                totals.requests += 1;
                if let Some(any) = op.get("expect_any") {
                    totals.stale += 1;
                    let ok = any.as_array().unwrap().iter().any(|e| legal(e) == got);
                    assert!(ok, "case {id} {sync:?} {change:?}: {got:x?} is none of {any}");
                    continue;
                }
                let want = &op["expect"];
                if want["stage"] == "parent-implicit" {
                    totals.implicit += 1;
                    continue;
                }
                assert_eq!(got, legal(want), "case {id} {sync:?} {change:?} {op}");
            }
            _ => c.edit(op),
        }
    }
}

#[test]
fn golden_shadows_of_every_policy_pair() {
    let cases = &cases();
    // One thread per sync policy: the pairs are independent.
    std::thread::scope(|scope| {
        for sync in [
            Sync::MapUnmap,
            Sync::InvalidateRange,
            Sync::InvalidateFull,
            Sync::WriteProtect,
            Sync::Demand,
        ] {
            scope.spawn(move || ChangePolicy::ALL.iter().for_each(|c| run_all(cases, sync, *c)));
        }
    });
}

fn run_all(cases: &[Value], sync: Sync, change: ChangePolicy) {
    let mut totals = Totals::default();
    cases.iter().for_each(|case| run(case, sync, change, &mut totals));
    let Totals { requests, stale, implicit } = totals;
    println!(
        "{sync:?} x {}: {} cases, {requests} requests ({stale} stale, {implicit} about table \
         pages do not apply)",
        change.name(),
        cases.len()
    );
    assert!(implicit * 4 < requests);
}

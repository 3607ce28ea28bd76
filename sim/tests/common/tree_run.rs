//! Runs scripts of tree operations through the tree and the model.
#![allow(dead_code)]

use std::collections::BTreeSet;

use ioasim_sim::cache::SetAssocStore;
use ioasim_sim::cache::replacement::Lru;
use ioasim_sim::events::{Pasid, Perm, Requester};
use ioasim_sim::parent_change::Kind as ChangePolicy;
use ioasim_sim::parent_change::hardware::Family;
use ioasim_sim::sync::{Kind as Sync, Range};
use ioasim_sim::table::RadixTable;
use ioasim_sim::tree::{
    Hardware, NodeId, NodeSpec, Ownership, Placement, Tree, TreeConfig, TreeError,
};
use ioasim_sim::walk::{Reads, Stages, WalkCacheConfig, WalkCaches};

use crate::tree_model::{Model, ModelNode};
use crate::tree_script::{Op, SYNCS, Script};

pub const PAGE: u64 = 4096;
/// Host memory of the root's outputs starts here (pages).
const HOST: u64 = 0x10_0000;

/// How user-managed nodes are followed.
pub const USER: [Sync; SYNCS] =
    [Sync::InvalidateRange, Sync::InvalidateFull, Sync::WriteProtect, Sync::Demand];

fn caches_large() -> WalkCaches {
    let c = WalkCacheConfig { entries: 64, ways: 4 };
    WalkCaches::new([c; 4], [c; 4], c)
}

fn caches_small() -> WalkCaches {
    let c = WalkCacheConfig { entries: 2, ways: 1 };
    WalkCaches::new([c; 4], [c; 4], c)
}

/// What a run covered.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    pub requests: u64,
    pub translated: u64,
    pub stale_possible: u64,
    pub parent_unmaps: u64,
    pub mends: u64,
    pub lazy_fills: u64,
    /// (sync, parent change) pairs that met a parent change.
    pub pairs: BTreeSet<(&'static str, &'static str)>,
}

pub struct Run {
    pub tree: Tree,
    pub hardware: Hardware<SetAssocStore<Lru>>,
    pub model: Model,
    specs: Vec<NodeSpec>,
    pub coverage: Coverage,
}

type Checked = Result<(), String>;

macro_rules! ensure {
    ($cond:expr, $($message:tt)*) => {
        if !$cond {
            return Err(format!($($message)*));
        }
    };
}

impl Run {
    pub fn new(placement: Placement, family: Family, small: bool) -> Run {
        let store = if small { SetAssocStore::new(4, 2, 1) } else { SetAssocStore::new(128, 8, 1) };
        Run {
            tree: Tree::new(TreeConfig::new(placement)),
            hardware: Hardware::new(store, if small { caches_small } else { caches_large }, family),
            model: Model::default(),
            specs: Vec::new(),
            coverage: Coverage::default(),
        }
    }

    /// Runs a script and all checks.
    pub fn script(s: &Script) -> Result<Coverage, String> {
        let placements = Placement::all(s.depth, 2);
        let placement = placements[s.placement % placements.len()].clone();
        let mut run = Run::new(placement, s.family, s.small_caches);
        for (depth, (user, sync, policy)) in s.chain.iter().take(s.depth).enumerate() {
            let user = *user && depth > 0;
            run.create((depth > 0).then(|| depth - 1), user, true, *sync, *policy)?;
            run.apply(&Op::Bind { node: depth })?;
        }
        for (i, op) in s.ops.iter().enumerate() {
            run.apply(op).map_err(|e| format!("operation {i} {op:?}: {e}"))?;
        }
        run.settled()?;
        run.coverage.mends = run.tree.change_work.mends;
        run.coverage.lazy_fills = run.hardware.lazy_fills;
        Ok(run.coverage)
    }

    pub fn create(
        &mut self,
        parent: Option<usize>,
        user: bool,
        nest: bool,
        sync: usize,
        policy: usize,
    ) -> Checked {
        let sync = if user { USER[sync] } else { Sync::MapUnmap };
        let ownership = if user { Ownership::UserManaged } else { Ownership::HostManaged };
        let parent_change = ChangePolicy::ALL[policy];
        let spec = NodeSpec { ownership, nest_parent: nest, sync, parent_change, table_levels: 3 };
        let made = self.tree.create(parent.map(|p| NodeId(p as u32)), spec);
        let depth = parent.map_or(0, |p| self.model.nodes[p].depth + 1);
        let want = parent.is_none_or(|p| {
            let p = &self.model.nodes[p];
            p.alive && p.nest && depth < self.tree.placement().depth()
        });
        ensure!(made.is_ok() == want, "create: {made:?}, want {want}");
        if want {
            ensure!(made == Ok(NodeId(self.model.nodes.len() as u32)), "number {made:?}");
            let bound = !user;
            let merged = self.tree.placement().merged(depth);
            let captured = !user || merged && sync == Sync::WriteProtect;
            let node = ModelNode {
                parent,
                user,
                captured,
                nest,
                bound,
                alive: true,
                depth,
                ..Default::default()
            };
            self.model.nodes.push(node);
            self.specs.push(spec);
            if let Some(p) = parent {
                self.model.nodes[p].children += 1;
            }
        }
        self.hardware.follow(&mut self.tree);
        Ok(())
    }

    fn devices(&self, node: usize) -> bool {
        (0..3).any(|d| self.tree.route(Requester(d), Pasid::NONE) == Some(NodeId(node as u32)))
    }

    pub fn apply(&mut self, op: &Op) -> Checked {
        let count = self.model.nodes.len();
        match *op {
            Op::Create { parent, user, nest, sync, policy } => {
                if count < 6 {
                    self.create(Some(parent % count), user, nest, sync, policy)?;
                }
            }
            Op::Destroy { node } => {
                let node = node % count;
                let m = &self.model.nodes[node];
                let want = m.alive && m.children == 0 && !self.devices(node);
                let got = self.tree.destroy(NodeId(node as u32));
                ensure!(got.is_ok() == want, "{got:?}, want {want}");
                if want {
                    let m = &mut self.model.nodes[node];
                    m.alive = false;
                    if let Some(p) = m.parent {
                        self.model.nodes[p].children -= 1;
                    }
                }
            }
            Op::Map { node, page, out, pages, perm } => {
                self.map(node % count, page, out, pages, Perm(perm))?;
            }
            Op::Unmap { node, page, pages } => self.unmap(node % count, page, pages)?,
            Op::UnmapMapped { node, pick } => self.unmap_mapped(node % count, pick)?,
            Op::Remap { node, pick, out } => {
                let node = node % count;
                if let Some((page, pages)) = self.pick(node, pick) {
                    self.unmap(node, page, pages)?;
                    self.hardware.follow(&mut self.tree);
                    self.map(node, page, out, pages, Perm::RW)?;
                }
            }
            Op::MapInto { node, page, pick } => {
                let node = node % count;
                let below = self.model.nodes[node].parent.map(|p| self.model.pages(p));
                if let Some(below) = below.filter(|b| !b.is_empty()) {
                    self.map(node, page, below[pick % below.len()], 1, Perm::RW)?;
                }
            }
            Op::InvalidateMapped { node, pick } => {
                let node = node % count;
                let past: Vec<u64> = self.model.nodes[node].past.keys().copied().collect();
                if !past.is_empty() {
                    let page = past[pick % past.len()];
                    let range = Range { start: page * PAGE, end: (page + 1) * PAGE };
                    self.invalidate(node, Some(range))?;
                }
            }
            Op::Bind { node } => {
                let node = node % count;
                let m = &mut self.model.nodes[node];
                let got = self.tree.bind(NodeId(node as u32));
                ensure!(got.is_ok() == (m.user && m.alive), "{got:?}");
                if got.is_ok() {
                    m.bound = true;
                    self.model.completed(node, None);
                }
            }
            Op::Invalidate { node, page, pages } => {
                let range = Range { start: page * PAGE, end: (page + pages) * PAGE };
                self.invalidate(node % count, Some(range))?;
            }
            Op::InvalidateAll { node } => self.invalidate(node % count, None)?,
            Op::Attach { device, node } => {
                let node = node % count;
                let device = Requester(device);
                let free = self.tree.route(device, Pasid::NONE).is_none();
                let want = free && self.usable(node);
                let got = self.tree.attach(device, Pasid::NONE, NodeId(node as u32));
                ensure!(got.is_ok() == want, "{got:?}, want {want}");
            }
            Op::Detach { device } => {
                let device = Requester(device);
                let want = self.tree.route(device, Pasid::NONE).is_some();
                ensure!(self.tree.detach(device, Pasid::NONE).is_ok() == want, "want {want}");
            }
            Op::Request { node, page, write } => self.request(node % count, page, write)?,
            Op::RequestMapped { node, pick, write } => {
                let node = node % count;
                let pages = self.model.pages(node);
                if !pages.is_empty() {
                    self.request(node, pages[pick % pages.len()], write)?;
                }
            }
            Op::RequestStale { node, pick, write } => {
                let node = node % count;
                let past: Vec<u64> = self.model.nodes[node].past.keys().copied().collect();
                if !past.is_empty() {
                    self.request(node, past[pick % past.len()], write)?;
                }
            }
            Op::Step { budget } => _ = self.tree.step(budget),
        }
        self.hardware.follow(&mut self.tree);
        Ok(())
    }

    /// Alive and bound, down to the root.
    fn usable(&self, node: usize) -> bool {
        let n = &self.model.nodes[node];
        n.alive && n.bound && n.parent.is_none_or(|p| self.usable(p))
    }

    fn map(&mut self, node: usize, page: u64, out: u64, pages: u64, perm: Perm) -> Checked {
        let m = &self.model.nodes[node];
        let (user, alive) = (m.user, m.alive);
        // Root outputs must not collide, or "leads into the range" means little.
        let out = if m.parent.is_none() { HOST + out + page * 7 / 512 * 512 } else { out };
        let id = NodeId(node as u32);
        let (addr, to, len) = (page * PAGE, out * PAGE, pages * PAGE);
        let wrong = if user {
            self.tree.map(id, addr, to, len, perm)
        } else {
            self.tree.guest_map(id, addr, to, len, perm)
        };
        ensure!(wrong.is_err(), "the wrong owner's call succeeds");
        let (got, want) = if user {
            (self.tree.guest_map(id, addr, to, len, perm), alive)
        } else {
            let free = !self.model.overlaps(node, page, pages);
            (self.tree.map(id, addr, to, len, perm), alive && free)
        };
        ensure!(got.is_ok() == want, "{got:?}, want {want}");
        if want {
            if !user {
                self.model.nodes[node].areas.insert(page, pages);
            }
            for i in 0..pages {
                self.model.set(node, page + i, Some((out + i, perm)));
            }
        }
        Ok(())
    }

    /// An area of a host-managed node, or a page of a user-managed one.
    fn pick(&self, node: usize, pick: usize) -> Option<(u64, u64)> {
        let n = &self.model.nodes[node];
        if n.user {
            let pages = self.model.pages(node);
            return (!pages.is_empty()).then(|| (pages[pick % pages.len()], 1));
        }
        let areas = n.areas.iter().nth(pick % n.areas.len().max(1));
        areas.map(|(page, pages)| (*page, *pages))
    }

    fn unmap_mapped(&mut self, node: usize, pick: usize) -> Checked {
        match self.pick(node, pick) {
            Some((page, pages)) => self.unmap(node, page, pages),
            None => Ok(()),
        }
    }

    fn unmap(&mut self, node: usize, page: u64, pages: u64) -> Checked {
        let m = &self.model.nodes[node];
        let (alive, user, root) = (m.alive, m.user, m.parent.is_none());
        let id = NodeId(node as u32);
        if user {
            let got = self.tree.guest_unmap(id, page * PAGE, pages * PAGE);
            ensure!(got.is_ok() == alive, "{got:?}");
            if alive {
                (page..page + pages).for_each(|p| self.model.set(node, p, None));
            }
            return Ok(());
        }
        let areas = self.model.whole_areas(node, page, pages).filter(|_| alive);
        let got = self.tree.unmap(id, page * PAGE, pages * PAGE);
        ensure!(got.is_ok() == areas.is_some(), "{got:?}, want {areas:?}");
        self.hardware.follow(&mut self.tree);
        let Some(areas) = areas else { return Ok(()) };
        let mut gone = BTreeSet::new();
        for (start, n) in areas {
            gone.extend(self.model.outs(node, start, n));
            self.model.nodes[node].areas.remove(&start);
            (start..start + n).for_each(|p| self.model.set(node, p, None));
        }
        for child in 0..self.model.nodes.len() {
            let c = &self.model.nodes[child];
            if c.alive && c.parent == Some(node) && self.tree.placement().merged(c.depth) {
                let pair =
                    (sync_name(self.specs[child].sync), self.specs[node].parent_change.name());
                self.coverage.pairs.insert(pair);
            }
        }
        if root {
            self.coverage.parent_unmaps += 1;
            let left = self.model.in_use(node);
            gone.retain(|p| !left.contains(p));
            self.nothing_leads_into(&gone)?;
        }
        Ok(())
    }

    /// I6: no table, IOTLB entry or nested-cache entry leads into host pages
    /// that the root no longer maps.
    fn nothing_leads_into(&self, gone: &BTreeSet<u64>) -> Checked {
        let hit = |out: u64, bytes: u64| {
            gone.range(out / PAGE..(out + bytes) / PAGE).next().map(|p| p * PAGE)
        };
        for node in self.tree.nodes() {
            let base = self.tree.second_stage(node).map_err(|e| e.to_string())?;
            if base.is_some() {
                continue; // outputs are not host addresses
            }
            let mut found = None;
            let table = self.tree.effective(node).map_err(|e| e.to_string())?;
            table.visit(0, 1 << 38, &mut |iova, leaf| {
                found = hit(leaf.out, leaf.size.bytes()).map(|h| (iova, h));
                found.is_none()
            });
            ensure!(found.is_none(), "I6: table of {node:?} leads into gone memory: {found:x?}");
        }
        let mut found = None;
        self.hardware.iotlb().for_each(|key, value| {
            found = found.or(hit(value.out(), key.size().bytes()).map(|h| (key.base(), h)));
        });
        ensure!(found.is_none(), "I6: an IOTLB entry leads into gone memory: {found:x?}");
        self.hardware.for_each_nested(|gpa, leaf| {
            if gpa < 1 << 38 {
                found = found.or(hit(leaf.out, leaf.size.bytes()).map(|h| (gpa, h)));
            }
        });
        ensure!(found.is_none(), "I6: a nested-cache entry leads into gone memory: {found:x?}");
        Ok(())
    }

    fn invalidate(&mut self, node: usize, range: Option<Range>) -> Checked {
        let m = &self.model.nodes[node];
        let want = m.alive && m.user && m.bound;
        let got = self.tree.invalidate(NodeId(node as u32), range);
        ensure!(got.is_ok() == want, "{got:?}, want {want}");
        if want {
            self.model.completed(node, range.map(|r| (r.start / PAGE, r.end / PAGE)));
            for child in 0..self.model.nodes.len() {
                let c = &self.model.nodes[child];
                if c.alive && c.parent == Some(node) && self.tree.placement().merged(c.depth) {
                    let policy = self.specs[node].parent_change.name();
                    self.coverage.pairs.insert((sync_name(self.specs[child].sync), policy));
                }
            }
        }
        Ok(())
    }

    /// I1, and I2 where only one result is legal.
    pub fn request(&mut self, node: usize, page: u64, write: bool) -> Checked {
        if !self.usable(node) {
            return Ok(());
        }
        let needed = if write { Perm::WRITE } else { Perm::READ };
        let iova = page * PAGE + 0x123;
        let id = NodeId(node as u32);
        let got = self
            .hardware
            .translate(&mut self.tree, id, iova, needed, &mut Reads::default())
            .map_err(|e| e.to_string())?;
        let legal = self.model.legal(node, page, needed);
        self.coverage.requests += 1;
        self.coverage.translated += got.is_ok() as u64;
        self.coverage.stale_possible += (legal.len() > 1) as u64;
        let offset_kept = got.is_err() || got.is_ok_and(|out| out & 0xfff == 0x123);
        let result = got.ok().map(|out| out / PAGE);
        ensure!(
            offset_kept && legal.contains(&result),
            "node {node} page {page:#x} write {write}: {got:x?}, legal pages {legal:x?}"
        );
        Ok(())
    }

    /// After complete invalidations, every node translates every page as the
    /// model composes it (I2, I3), cold walks read what the formula says (I7).
    pub fn settled(&mut self) -> Checked {
        for node in 0..self.model.nodes.len() {
            let m = &self.model.nodes[node];
            if m.alive && m.user && m.bound {
                self.apply(&Op::InvalidateAll { node })?;
            }
        }
        for node in 0..self.model.nodes.len() {
            if !self.usable(node) {
                continue;
            }
            let mut pages = self.model.pages(node);
            // Of 2 MiB runs the first and some others will do.
            let keep = |(i, _): &(usize, u64)| *i < 24 || i % 37 == 0;
            pages = pages.into_iter().enumerate().filter(keep).map(|(_, p)| p).collect();
            pages.push(7);
            for page in pages {
                for write in [false, true] {
                    self.request(node, page, write).map_err(|e| format!("at the end: {e}"))?;
                }
                self.cold_reads(node, page)?;
            }
        }
        Ok(())
    }

    fn cold_reads(&self, node: usize, page: u64) -> Checked {
        let id = NodeId(node as u32);
        let error = |e: TreeError| e.to_string();
        let child = self.tree.effective(id).map_err(error)?;
        let parent = match self.tree.second_stage(id).map_err(error)? {
            Some(p) => Some(self.tree.effective(p).map_err(error)?),
            None => None,
        };
        let iova = page * PAGE;
        let stages = Stages { child: Some(child), parent, child_tag: ioasim_sim::cache::Tag(0) };
        let mut reads = Reads::default();
        if stages.walk(iova, Perm::READ, &mut WalkCaches::none(), &mut reads).is_err() {
            return Ok(());
        }
        let visited = |t: &RadixTable, a: u64| -> Option<u64> {
            Some(t.levels() as u64 - t.lookup(a)?.size as u64)
        };
        let leaf = child.lookup(iova).ok_or("a walk without a leaf")?;
        let n = visited(child, iova).ok_or("no leaf")?;
        let mut want = n;
        if let Some(p) = parent {
            want += visited(p, leaf.translate(iova)).ok_or("no parent leaf")?;
            let mut node = RadixTable::ROOT;
            for level in (0..child.levels()).rev() {
                want += visited(p, child.node_addr(node)).ok_or("table page not mapped")?;
                match child.read(node, level, iova).node() {
                    Some(below) => node = below,
                    None => break,
                }
            }
        }
        ensure!(reads.total() == want, "I7: {} reads, the formula says {want}", reads.total());
        Ok(())
    }
}

fn sync_name(kind: Sync) -> &'static str {
    match kind {
        Sync::MapUnmap => "map-unmap",
        Sync::InvalidateRange => "invalidate-range",
        Sync::InvalidateFull => "invalidate-full",
        Sync::WriteProtect => "write-protect",
        Sync::Demand => "demand",
    }
}

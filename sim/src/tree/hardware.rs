//! Hardware under a tree: an IOTLB and walk caches that follow its effects.

use rustc_hash::FxHashMap;

use super::{Effect, NodeId, Tree, TreeError};
use crate::cache::{Cached, Iotlb, Key, PageRange, Store, Tag};
use crate::events::Perm;
use crate::parent_change::hardware::{Family, FlushCounters, ParentRange, parent_changed};
use crate::walk::{Fault, Observer, Stages, WalkCaches};

/// An IOMMU whose devices are attached to nodes of a tree.
///
/// Entries are tagged by node, as domain ids do. Walk caches are kept apart
/// per second stage, whose addresses they hold.
pub struct Hardware<S> {
    iotlb: Iotlb<S>,
    /// Single-stage walks.
    single: WalkCaches,
    by_parent: FxHashMap<NodeId, WalkCaches>,
    make: fn() -> WalkCaches,
    family: Family,
    /// Nodes that have been walked, with their second stage.
    seen: FxHashMap<NodeId, Option<NodeId>>,
    /// What changes of second stages cost.
    pub flushes: FlushCounters,
    /// Faults that a policy answered by building what was missing.
    pub lazy_fills: u64,
}

impl<S: Store> Hardware<S> {
    /// An IOMMU with an IOTLB and walk caches made by `make`.
    pub fn new(store: S, make: fn() -> WalkCaches, family: Family) -> Hardware<S> {
        Hardware {
            iotlb: Iotlb::new(store),
            single: make(),
            by_parent: FxHashMap::default(),
            make,
            family,
            seen: FxHashMap::default(),
            flushes: FlushCounters::default(),
            lazy_fills: 0,
        }
    }

    /// The IOTLB.
    pub fn iotlb(&self) -> &Iotlb<S> {
        &self.iotlb
    }

    /// Calls `f(gpa, leaf)` for every nested-cache entry.
    pub fn for_each_nested(&self, mut f: impl FnMut(u64, crate::table::Leaf)) {
        self.by_parent.values().for_each(|c| c.for_each_nested(&mut f));
    }

    fn caches(&mut self, parent: Option<NodeId>) -> &mut WalkCaches {
        match parent {
            None => &mut self.single,
            Some(parent) => self.by_parent.entry(parent).or_insert_with(self.make),
        }
    }

    /// Carries out what the tree's last operations ask for.
    pub fn follow(&mut self, tree: &mut Tree) {
        for effect in tree.take_effects() {
            match effect {
                Effect::Input { node, start, end } => {
                    let tag = Tag(node.0);
                    self.iotlb.invalidate(tag, PageRange::new(start, end));
                    if let Some(parent) = self.seen.get(&node).copied() {
                        let caches = self.caches(parent);
                        match start {
                            0 => caches.invalidate_stage1_tag(tag),
                            _ => caches.invalidate_stage1(tag, start, end),
                        }
                    }
                }
                Effect::Parent { node, start, end, hosts } => {
                    let above = self.seen.iter().filter(|(_, p)| **p == Some(node));
                    let children: Vec<Tag> = above.map(|(child, _)| Tag(child.0)).collect();
                    let everywhere = [(0, u64::MAX)];
                    let range = ParentRange {
                        start,
                        end,
                        hosts: hosts.as_deref().unwrap_or(&everywhere),
                        own: None,
                        children: &children,
                        domains: children.len() as u64,
                        devices: children.len() as u64,
                    };
                    let caches = self.by_parent.entry(node).or_insert_with(self.make);
                    let counters = &mut self.flushes;
                    parent_changed(self.family, &range, &mut self.iotlb, caches, counters);
                }
            }
        }
    }

    /// Translates an access of a device attached to `node`.
    ///
    /// # Errors
    /// [`TreeError::NoSuchNode`]; inside, the fault that the device sees.
    pub fn translate(
        &mut self,
        tree: &mut Tree,
        node: NodeId,
        iova: u64,
        needed: Perm,
        seen: &mut impl Observer,
    ) -> Result<Result<u64, Fault>, TreeError> {
        let tag = Tag(node.0);
        tree.effective(node)?;
        if let Some(out) = self.iotlb.lookup(tag, iova, needed) {
            return Ok(Ok(out));
        }
        let parent = tree.second_stage(node)?;
        self.seen.insert(node, parent);
        loop {
            let child = Some(tree.effective(node)?);
            let below = match parent {
                Some(parent) => Some(tree.effective(parent)?),
                None => None,
            };
            let stages = Stages { child, parent: below, child_tag: tag };
            let found = stages.walk(iova, needed, self.caches(parent), seen);
            let retry = match (&found, parent) {
                (Ok(_), _) => false,
                (Err(Fault::Child), _) | (Err(_), None) => tree.fault(node, iova),
                (Err(Fault::ParentImplicit { gpa } | Fault::Parent { gpa }), Some(parent)) => {
                    tree.fault(parent, *gpa)
                }
            };
            if retry {
                self.lazy_fills += 1;
                self.follow(tree);
                continue;
            }
            return Ok(found.map(|t| {
                let base = t.out & !(t.size.bytes() - 1);
                let key = Key::new(tag, t.size, iova);
                let filled = self.iotlb.fill(key, Cached::new(base, t.perm), 0);
                self.iotlb.causes(&mut [filled], |_, _| ());
                t.out
            }));
        }
    }
}

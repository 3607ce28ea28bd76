//! Trees of I/O address spaces (IOASIDs) of any depth.
//!
//! Each node's own table translates into its parent's address space; the
//! root's output is host memory. A [`Placement`] says which levels the
//! hardware walks and which are merged in software. The *effective table* of
//! a node is what stands for it and all levels merged with it below: its own
//! table if it is the lowest level of its stage, else the shadow of its own
//! table over its parent's effective table. The hardware walks the effective
//! table of the node that a device is attached to, over the effective table
//! of the level below that node's stage, if there is one.
//!
//! A change of an effective table goes to the node's merged children through
//! the node's parent-change policy ([`crate::parent_change`]), to theirs in
//! turn, and to hardware caches ([`Effect`]) wherever a device may have used
//! what changed.

mod change;
mod edge;
mod error;
mod hardware;
mod placement;

pub use error::TreeError;
pub use hardware::Hardware;
pub use placement::{MAX_STAGES, Placement};

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::events::{PageSize, Pasid, Perm, Requester};
use crate::parent_change::pinning::{Account, PinCounters, Pinning};
use crate::parent_change::{self, ChildId, Work};
use crate::results::ShadowCounters;
use crate::shadow::{Shadow, ShadowOp};
use crate::sync;
use crate::table::{Placement as PlaceTables, Prune, PteWriteKind, PteWrites, RadixTable};

/// A node of the tree. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// Who changes a node's table, fixed when the node is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ownership {
    /// Explicit map and unmap calls; every change is captured.
    HostManaged,
    /// The user binds a table in its own memory, writes it, and issues
    /// invalidations.
    UserManaged,
}

impl Ownership {
    /// Name as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Ownership::HostManaged => "host-managed",
            Ownership::UserManaged => "user-managed",
        }
    }
}

/// What a node is created with.
#[derive(Clone, Copy, Debug)]
pub struct NodeSpec {
    /// Who changes the table.
    pub ownership: Ownership,
    /// May have children.
    pub nest_parent: bool,
    /// How the node's shadow follows its table, if the node is merged.
    pub sync: sync::Kind,
    /// How shadows over this node follow its effective table.
    pub parent_change: parent_change::Kind,
    /// Levels of the node's table (3 to 5).
    pub table_levels: u32,
}

/// Settings of a tree.
#[derive(Clone, Debug)]
pub struct TreeConfig {
    /// Which levels the hardware walks.
    pub placement: Placement,
    /// Where table pages lie, in every address space that carries tables of
    /// a stage above: [`WINDOW_BYTES`] from here are mapped to themselves and
    /// reserved. A multiple of 1 GiB.
    pub table_window: u64,
    /// Who pins.
    pub pinning: Pinning,
}

impl TreeConfig {
    /// Settings with this placement, the window at 256 GiB, and pin-once.
    pub fn new(placement: Placement) -> TreeConfig {
        TreeConfig { placement, table_window: 1 << 38, pinning: Pinning::PinOnce }
    }
}

/// Size of the reserved range of table pages.
pub const WINDOW_BYTES: u64 = 16 << 30;
/// 4 KiB pages of the window for one table; more than that are used again
/// (addresses only, contents are kept per table).
const WINDOW_SLICE: u64 = 1 << 12;

/// Something that hardware caches must drop before an operation is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The effective table of `node` changed in `[start, end)`: devices
    /// attached to it may hold translations of that range.
    Input {
        /// The node.
        node: NodeId,
        /// First address.
        start: u64,
        /// Address after the last.
        end: u64,
    },
    /// The effective table of `node`, which hardware walks as its second
    /// stage, changed in `[start, end)`: devices attached to nodes above it
    /// may hold translations through that range.
    Parent {
        /// The node.
        node: NodeId,
        /// First address (GPA).
        start: u64,
        /// Address after the last.
        end: u64,
        /// Host ranges that it led to; `None` if not known.
        hosts: Option<Vec<(u64, u64)>>,
    },
}

struct Node {
    parent: Option<NodeId>,
    depth: usize,
    spec: NodeSpec,
    own: RadixTable,
    /// Present if the node is merged with its parent.
    shadow: Option<Shadow>,
    sync: sync::Policy,
    /// Serves the merged children; taken out while it works.
    edge: Option<parent_change::Policy>,
    /// Areas of a host-managed node: start and length.
    areas: BTreeMap<u64, u64>,
    bound: bool,
    children: Vec<NodeId>,
    devices: usize,
    /// Next page of the window for the node's own table.
    next_page: u64,
}

impl Node {
    fn effective(&self) -> &RadixTable {
        self.shadow.as_ref().map_or(&self.own, |s| s.table())
    }

    /// IOVA to parent's address, as the host knows it.
    fn record(&self) -> &RadixTable {
        match (&self.shadow, self.spec.ownership) {
            (Some(shadow), Ownership::UserManaged) => shadow.synced(),
            _ => &self.own,
        }
    }
}

/// A change of an effective table that its users have not been told of.
struct Pending {
    node: NodeId,
    change: parent_change::Change,
    hosts: Option<Vec<(u64, u64)>>,
}

/// See the module.
pub struct Tree {
    config: TreeConfig,
    nodes: Vec<Option<Node>>,
    attached: FxHashMap<(Requester, Pasid), NodeId>,
    pending: VecDeque<Pending>,
    effects: Vec<Effect>,
    ops: Vec<ShadowOp>,
    /// Stores to a write-protected table that are not handled yet.
    writes: PteWrites,
    /// Work of following the children.
    pub sync_work: ShadowCounters,
    /// Work of parent changes.
    pub change_work: Work,
    account: Account,
}

impl Tree {
    /// An empty tree.
    pub fn new(config: TreeConfig) -> Tree {
        Tree {
            account: Account::new(config.pinning),
            config,
            nodes: Vec::new(),
            attached: FxHashMap::default(),
            pending: VecDeque::new(),
            effects: Vec::new(),
            ops: Vec::new(),
            writes: PteWrites::default(),
            sync_work: ShadowCounters::default(),
            change_work: Work::default(),
        }
    }

    fn get(&self, node: NodeId) -> Result<&Node, TreeError> {
        self.nodes.get(node.0 as usize).and_then(|n| n.as_ref()).ok_or(TreeError::NoSuchNode(node))
    }

    /// A node that the tree itself refers to.
    fn at(&self, node: NodeId) -> &Node {
        self.nodes[node.0 as usize].as_ref().expect("in use, so not destroyed")
    }

    fn at_mut(&mut self, node: NodeId) -> &mut Node {
        self.nodes[node.0 as usize].as_mut().expect("in use, so not destroyed")
    }

    /// Creates a node; without a parent it is a root.
    ///
    /// # Errors
    /// [`TreeError::NoSuchNode`], [`TreeError::NotForNesting`],
    /// [`TreeError::TooDeep`], [`TreeError::SyncDoesNotFit`].
    pub fn create(&mut self, parent: Option<NodeId>, spec: NodeSpec) -> Result<NodeId, TreeError> {
        let levels = self.config.placement.depth();
        let mut depth = 0;
        if let Some(id) = parent {
            let node = self.get(id)?;
            if !node.spec.nest_parent {
                return Err(TreeError::NotForNesting(id));
            }
            depth = node.depth + 1;
            if depth >= levels {
                return Err(TreeError::TooDeep { parent: id, levels });
            }
        }
        let merged = self.config.placement.merged(depth);
        let policy = match spec.sync {
            sync::Kind::MapUnmap => "map-unmap",
            sync::Kind::InvalidateRange => "invalidate-range",
            sync::Kind::InvalidateFull => "invalidate-full",
            sync::Kind::WriteProtect => "write-protect",
            sync::Kind::Demand => "demand",
        };
        let captured = spec.sync == sync::Kind::MapUnmap;
        if merged && captured != (spec.ownership == Ownership::HostManaged) {
            let ownership = spec.ownership.name();
            return Err(TreeError::SyncDoesNotFit { policy, ownership });
        }
        let id = NodeId(self.nodes.len() as u32);
        let slices = WINDOW_BYTES / 4096 / WINDOW_SLICE / 2;
        let page = self.config.table_window + (id.0 as u64 % slices) * 2 * WINDOW_SLICE * 4096;
        let mut node = Node {
            parent,
            depth,
            spec,
            own: RadixTable::new(spec.table_levels, Prune::Covered, &mut |_: u32, _: u64| page),
            shadow: merged.then(|| {
                Shadow::with_pages(spec.table_levels, page + WINDOW_SLICE * 4096, WINDOW_SLICE)
            }),
            sync: sync::Policy::of_kind(spec.sync),
            edge: Some(parent_change::Policy::of_kind(spec.parent_change)),
            areas: BTreeMap::new(),
            bound: spec.ownership == Ownership::HostManaged,
            children: Vec::new(),
            devices: 0,
            next_page: 1,
        };
        let carries = self.config.placement.carries_tables(depth);
        let window = self.config.table_window;
        if carries {
            let next = &mut node.next_page;
            let place = &mut TablePages { base: page, next, writes: None };
            let size = PageSize::Size1G;
            node.own.map(window, window, WINDOW_BYTES, Perm::RW, size, place)?;
        }
        self.nodes.push(Some(node));
        if let Some(parent) = parent {
            self.at_mut(parent).children.push(id);
        }
        if carries && merged && spec.ownership == Ownership::HostManaged {
            let range = sync::Range { start: window, end: window + WINDOW_BYTES };
            self.with_shadow(id, |p, shadow, cx| p.map_call(shadow, cx, range, window, Perm::RW));
            self.settle();
        }
        Ok(id)
    }

    /// Destroys a node.
    ///
    /// # Errors
    /// [`TreeError::NoSuchNode`]; [`TreeError::InUse`] while devices or
    /// children use it.
    pub fn destroy(&mut self, id: NodeId) -> Result<(), TreeError> {
        let node = self.get(id)?;
        let (devices, children) = (node.devices, node.children.len());
        if devices + children > 0 {
            return Err(TreeError::InUse { node: id, devices, children });
        }
        let end = 1 << node.own.width();
        let parent = node.parent;
        self.effects.push(Effect::Input { node: id, start: 0, end });
        if self.nests(id) {
            // What hardware cached of it as its second stage outlives the
            // children that caused it, and nobody tells the node any more of
            // changes below.
            self.effects.push(Effect::Parent { node: id, start: 0, end, hosts: None });
        }
        self.nodes[id.0 as usize] = None;
        if let Some(parent) = parent {
            let parent = self.at_mut(parent);
            parent.children.retain(|c| *c != id);
            if let Some(edge) = &mut parent.edge {
                edge.cleared(ChildId(id.0));
            }
        }
        Ok(())
    }

    /// Attaches a device, or one PASID of it.
    ///
    /// # Errors
    /// [`TreeError::NoSuchNode`], [`TreeError::AlreadyAttached`];
    /// [`TreeError::NotBound`] if a table on the way to the root is missing.
    pub fn attach(
        &mut self,
        device: Requester,
        pasid: Pasid,
        node: NodeId,
    ) -> Result<(), TreeError> {
        let mut next = Some(node);
        while let Some(id) = next {
            let node = self.get(id)?;
            if !node.bound {
                return Err(TreeError::NotBound(id));
            }
            next = node.parent;
        }
        if let Some(node) = self.attached.get(&(device, pasid)) {
            return Err(TreeError::AlreadyAttached { device, pasid, node: *node });
        }
        self.attached.insert((device, pasid), node);
        self.at_mut(node).devices += 1;
        Ok(())
    }

    /// Detaches a device; with the last one the node's cached translations go.
    ///
    /// # Errors
    /// [`TreeError::NotAttached`].
    pub fn detach(&mut self, device: Requester, pasid: Pasid) -> Result<(), TreeError> {
        let node = self.attached.remove(&(device, pasid));
        let id = node.ok_or(TreeError::NotAttached { device, pasid })?;
        let node = self.at_mut(id);
        node.devices -= 1;
        if node.devices == 0 {
            let end = 1 << node.own.width();
            self.effects.push(Effect::Input { node: id, start: 0, end });
        }
        Ok(())
    }

    /// The node that a device is attached to.
    pub fn route(&self, device: Requester, pasid: Pasid) -> Option<NodeId> {
        self.attached.get(&(device, pasid)).copied()
    }

    /// What stands for a node and the levels merged with it.
    ///
    /// # Errors
    /// [`TreeError::NoSuchNode`].
    pub fn effective(&self, node: NodeId) -> Result<&RadixTable, TreeError> {
        Ok(self.get(node)?.effective())
    }

    /// The node whose effective table is the second stage for `node`, if the
    /// placement has one below it.
    ///
    /// # Errors
    /// [`TreeError::NoSuchNode`].
    pub fn second_stage(&self, node: NodeId) -> Result<Option<NodeId>, TreeError> {
        let mut at = self.get(node)?;
        let base = self.config.placement.base(at.depth);
        while at.depth > base {
            at = self.at(at.parent.expect("deeper than the root"));
        }
        Ok(at.parent)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        let alive = |(i, n): (usize, &Option<Node>)| n.as_ref().map(|_| NodeId(i as u32));
        self.nodes.iter().enumerate().filter_map(alive)
    }

    /// The placement.
    pub fn placement(&self) -> &Placement {
        &self.config.placement
    }

    /// Takes what hardware caches must drop; the operation that caused it is
    /// complete when they have.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Bytes that parent-change policies take.
    pub fn policy_bytes(&self) -> u64 {
        self.nodes.iter().flatten().filter_map(|n| n.edge.as_ref()).map(|e| e.memory_bytes()).sum()
    }

    /// Pins of host memory.
    pub fn pins(&self) -> PinCounters {
        self.account.counters()
    }
}

/// Hands out pages of a slice of the window for a node's own table.
struct TablePages<'a> {
    base: u64,
    next: &'a mut u64,
    /// Who watches the stores to the table; `None`: nobody.
    writes: Option<&'a mut PteWrites>,
}

impl PlaceTables for TablePages<'_> {
    fn place(&mut self, _: u32, _: u64) -> u64 {
        *self.next += 1;
        self.base + *self.next % WINDOW_SLICE * 4096
    }

    fn wrote(&mut self, level: u32, base: u64, kind: PteWriteKind) {
        if let Some(writes) = &mut self.writes {
            writes.push(level, base, kind);
        }
    }
}

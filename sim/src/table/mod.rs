//! Radix page tables with real nodes: 512 entries of 8 bytes per page, 3 to 5
//! levels, leaves of 4 KiB, 2 MiB and 1 GiB.
//!
//! The same structure serves as the guest's child table, the parent table, the
//! shadow table, and the VMM's record of what it shadowed. Every node has an
//! address in the space where its table lives (GPA for a child, HPA for a
//! parent or a shadow), so that a two-stage walk can translate it.

mod edit;
mod entry;
mod writes;

pub use edit::{MapOutcome, TableError};
pub use entry::{Entry, Leaf};
pub use writes::{PteWrite, PteWriteKind, PteWrites};

/// Entries per node.
pub const FANOUT: usize = 512;
/// log2 of [`FANOUT`].
const FANOUT_BITS: u32 = 9;

/// What happens to nodes that an unmap leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    /// Nodes stay until a larger leaf replaces them (golden vectors).
    Never,
    /// A node goes when one unmap covers its whole span, as Linux's
    /// `dma_pte_clear_level` does.
    Covered,
    /// A node goes when its last entry goes.
    Empty,
}

/// Bookkeeping of one node.
#[derive(Clone, Copy, Debug)]
struct NodeMeta {
    /// Address of the node's page.
    addr: u64,
    /// Entries that are present.
    live: u16,
    /// Entries that point to a lower node.
    pointers: u16,
    /// 0 = holds 4 KiB leaves.
    level: u8,
    /// Changed since [`RadixTable::clear_dirty`].
    dirty: bool,
    /// How often this node was freed: tells a cached pointer from a reused node.
    generation: u32,
}

/// Index of a node inside its table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeId(pub u32);

/// What covers an address at the lowest level ([`RadixTable::lowest`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lowest {
    /// A node.
    Node(NodeId),
    /// Nothing is mapped in its 2 MiB.
    Absent,
    /// A leaf of 2 MiB or more.
    LargerLeaf,
}

/// A pointer to a node as a paging-structure cache keeps it.
///
/// Hardware that uses a cached pointer to a freed node reads a page that may
/// hold anything; drivers free table pages only after the invalidation, so the
/// model treats such an entry as absent ([`RadixTable::resolve`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeRef {
    node: NodeId,
    generation: u32,
}

/// A radix page table.
#[derive(Clone, Debug)]
pub struct RadixTable {
    levels: u32,
    prune: Prune,
    /// Node `i` owns `entries[i * 512 .. (i + 1) * 512]`.
    entries: Vec<Entry>,
    meta: Vec<NodeMeta>,
    free: Vec<u32>,
    /// Leaves present, of any size.
    leaves: u64,
}

/// Decides where a new node's page lives: called with the node's level and
/// the first input address that it covers, returns the page's address.
pub trait Placement {
    /// Address of the page for a new node at `level` covering `base`.
    fn place(&mut self, level: u32, base: u64) -> u64;

    /// Told of every store to an entry: its level and the first address that
    /// it translates. Stores to a page that is not yet linked do not count.
    #[inline]
    fn wrote(&mut self, _level: u32, _base: u64, _kind: PteWriteKind) {}
}

impl<F: FnMut(u32, u64) -> u64> Placement for F {
    fn place(&mut self, level: u32, base: u64) -> u64 {
        self(level, base)
    }
}

impl RadixTable {
    /// The root's node.
    pub const ROOT: NodeId = NodeId(0);

    /// An empty table of `levels` (1 to 5) levels; `place` gives the root's page.
    pub fn new(levels: u32, prune: Prune, place: &mut impl Placement) -> RadixTable {
        assert!((1..=5).contains(&levels), "1 to 5 levels");
        let mut table = RadixTable {
            levels,
            prune,
            entries: Vec::new(),
            meta: Vec::new(),
            free: Vec::new(),
            leaves: 0,
        };
        let addr = place.place(levels - 1, 0);
        table.new_node(levels - 1, addr);
        table
    }

    /// Number of levels.
    #[inline]
    pub fn levels(&self) -> u32 {
        self.levels
    }

    /// Bits of an input address that the table can translate.
    #[inline]
    pub fn width(&self) -> u32 {
        12 + FANOUT_BITS * self.levels
    }

    /// True if `addr` is inside the table's width.
    #[inline]
    pub fn covers(&self, addr: u64) -> bool {
        addr >> self.width() == 0
    }

    /// Leaves present, of any size.
    pub fn leaves(&self) -> u64 {
        self.leaves
    }

    /// Nodes in use.
    pub fn nodes(&self) -> usize {
        self.meta.len() - self.free.len()
    }

    /// Address of a node's page.
    #[inline]
    pub fn node_addr(&self, node: NodeId) -> u64 {
        self.meta[node.0 as usize].addr
    }

    /// Reads the entry of `node` (at `level`) that translates `addr`.
    #[inline]
    pub fn read(&self, node: NodeId, level: u32, addr: u64) -> Entry {
        self.entries[node.0 as usize * FANOUT + index(level, addr)]
    }

    /// A pointer to `node` that can be checked later.
    #[inline]
    pub fn reference(&self, node: NodeId) -> NodeRef {
        NodeRef { node, generation: self.meta[node.0 as usize].generation }
    }

    /// The node behind a kept pointer, unless it was freed since.
    #[inline]
    pub fn resolve(&self, r: NodeRef) -> Option<NodeId> {
        let meta = self.meta.get(r.node.0 as usize)?;
        (meta.generation == r.generation).then_some(r.node)
    }

    /// All entries of a node.
    #[inline]
    pub fn node_entries(&self, node: NodeId) -> &[Entry] {
        let at = node.0 as usize * FANOUT;
        &self.entries[at..at + FANOUT]
    }

    /// Entries of a node that point to a lower node.
    #[inline]
    pub fn pointers(&self, node: NodeId) -> u32 {
        self.meta[node.0 as usize].pointers as u32
    }

    /// True if an entry of this node changed since its flag was cleared.
    #[inline]
    pub fn is_dirty(&self, node: NodeId) -> bool {
        self.meta[node.0 as usize].dirty
    }

    /// Clears a node's dirty flag.
    pub fn clear_dirty(&mut self, node: NodeId) {
        self.meta[node.0 as usize].dirty = false;
    }

    /// The leaf that translates `addr`, if any. Counts nothing.
    #[inline]
    pub fn lookup(&self, addr: u64) -> Option<Leaf> {
        if !self.covers(addr) {
            return None;
        }
        let mut node = Self::ROOT;
        for level in (0..self.levels).rev() {
            let e = self.read(node, level, addr);
            if e.is_leaf() {
                return Some(Leaf::new(e, level));
            }
            node = e.node()?;
        }
        None
    }

    /// The lowest-level node that covers `addr`: its 512 entries translate
    /// 4 KiB each.
    #[inline]
    pub fn lowest(&self, addr: u64) -> Lowest {
        let mut node = Self::ROOT;
        for level in (1..self.levels).rev() {
            let e = self.read(node, level, addr);
            match e.node() {
                Some(below) => node = below,
                None if e.is_leaf() => return Lowest::LargerLeaf,
                None => return Lowest::Absent,
            }
        }
        Lowest::Node(node)
    }

    /// The node at `level` that covers `addr`.
    pub fn node_at(&self, level: u32, addr: u64) -> Option<NodeId> {
        if !self.covers(addr) || level >= self.levels {
            return None;
        }
        let mut node = Self::ROOT;
        for above in (level + 1..self.levels).rev() {
            node = self.read(node, above, addr).node()?;
        }
        Some(node)
    }

    /// Reads what a walk for `addr` reads, and returns a number of no meaning;
    /// bits beyond the table's width are ignored.
    #[inline(always)]
    pub(crate) fn read_ahead(&self, addr: u64) -> u64 {
        let mut entry = self.entries[index(self.levels - 1, addr)];
        let mut all = 0;
        for level in (0..self.levels - 1).rev() {
            let Some(node) = entry.node() else { break };
            all ^= self.node_addr(node);
            entry = self.read(node, level, addr);
        }
        all ^ entry.out()
    }

    /// True if any leaf lies in `[start, end)`. Needs [`Prune::Empty`] to be
    /// fast: then every node below a pointer holds a leaf.
    pub fn any_in(&self, start: u64, end: u64) -> bool {
        let mut found = false;
        self.visit(start, end, &mut |_, _| {
            found = true;
            false
        });
        found
    }

    /// Calls `f(base, leaf)` for every leaf that overlaps `[start, end)`, in
    /// address order, until it returns false.
    pub fn visit(&self, start: u64, end: u64, f: &mut impl FnMut(u64, Leaf) -> bool) {
        let end = end.min(1 << self.width());
        if start < end {
            self.visit_node(Self::ROOT, self.levels - 1, 0, start, end, f);
        }
    }

    fn visit_node(
        &self,
        node: NodeId,
        level: u32,
        base: u64,
        start: u64,
        end: u64,
        f: &mut impl FnMut(u64, Leaf) -> bool,
    ) -> bool {
        let span = entry_span(level);
        let first = index(level, start.max(base));
        let last = index(level, (end - 1).min(base + span * FANOUT as u64 - 1));
        for i in first..=last {
            let e = self.entries[node.0 as usize * FANOUT + i];
            let at = base + i as u64 * span;
            let go_on = if e.is_leaf() {
                f(at, Leaf::new(e, level))
            } else if let Some(child) = e.node() {
                self.visit_node(child, level - 1, at, start, end, f)
            } else {
                true
            };
            if !go_on {
                return false;
            }
        }
        true
    }

    fn new_node(&mut self, level: u32, addr: u64) -> NodeId {
        let mut meta =
            NodeMeta { addr, live: 0, pointers: 0, level: level as u8, dirty: true, generation: 0 };
        if let Some(id) = self.free.pop() {
            meta.generation = self.meta[id as usize].generation;
            self.meta[id as usize] = meta;
            return NodeId(id);
        }
        let id = self.meta.len() as u32;
        self.meta.push(meta);
        self.entries.resize(self.entries.len() + FANOUT, Entry::EMPTY);
        NodeId(id)
    }
}

/// Bytes that one entry at `level` covers.
#[inline]
pub const fn entry_span(level: u32) -> u64 {
    1 << (12 + FANOUT_BITS * level)
}

/// Index of the entry at `level` that translates `addr`.
#[inline]
pub const fn index(level: u32, addr: u64) -> usize {
    (addr >> (12 + FANOUT_BITS * level)) as usize & (FANOUT - 1)
}

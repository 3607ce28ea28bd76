//! The shadows over one node, as its parent-change policy reaches them.

use super::{NodeId, Ownership, Pending, Tree};
use crate::parent_change::{Change, ChangeKind, ChildId, Shadows, Work};
use crate::shadow::{Shadow, SyncContext};
use crate::table::RadixTable;

/// See the module. Changes of the children's effective tables are queued.
pub(super) struct Edge<'a> {
    pub tree: &'a mut Tree,
    /// The node below.
    pub node: NodeId,
    /// What the present change may have done to shadows.
    pub kind: ChangeKind,
}

impl Edge<'_> {
    /// Runs `f` with a child's shadow and the effective table below it.
    fn with<R>(&mut self, child: ChildId, f: impl FnOnce(&mut Shadow, &Tree) -> R) -> R {
        let id = NodeId(child.0);
        let mut shadow = self.tree.at_mut(id).shadow.take().expect("merged children have shadows");
        let result = f(&mut shadow, self.tree);
        self.tree.at_mut(id).shadow = Some(shadow);
        result
    }

    fn queue(&mut self, child: ChildId, start: u64, end: u64, kind: ChangeKind) {
        let change = Change { start, end, kind };
        let node = NodeId(child.0);
        self.tree.pending.push_back(Pending { node, change, hosts: None });
    }

    /// Records `(iova, gpa, len, perm)` of a child in a range, clipped to it.
    fn records_in(
        &self,
        child: ChildId,
        start: u64,
        end: u64,
        f: &mut dyn FnMut(u64, u64, u64, crate::events::Perm),
    ) {
        self.tree.at(NodeId(child.0)).record().visit(start, end, &mut |iova, leaf| {
            let (from, to) = (iova.max(start), (iova + leaf.size.bytes()).min(end));
            f(from, leaf.translate(from), to - from, leaf.perm);
            true
        });
    }
}

impl Shadows for Edge<'_> {
    fn children(&self, f: &mut dyn FnMut(ChildId)) {
        self.tree.at(self.node).children.iter().for_each(|c| f(ChildId(c.0)));
    }

    fn records(&self, child: ChildId, f: &mut dyn FnMut(u64, u64, u64)) {
        self.records_in(child, 0, u64::MAX, &mut |iova, gpa, len, _| f(iova, gpa, len));
    }

    fn mend(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64, work: &mut Work) {
        let record = self.tree.at(NodeId(child.0)).record().lookup(iova);
        let below = self.node;
        let end = iova + len;
        let one = record.filter(|l| (iova & !(l.size.bytes() - 1)) + l.size.bytes() >= end);
        let changed = if let Some(leaf) = one {
            debug_assert_eq!(leaf.translate(iova), gpa, "policies know the record");
            self.with(child, |shadow, tree| {
                shadow.mend(tree.at(below).effective(), iova, gpa, len, leaf.perm)
            })
        } else {
            // A span of several records, whose rights may differ.
            let mut records = Vec::new();
            self.records_in(child, iova, end, &mut |iova, gpa, len, perm| {
                records.push((iova, gpa, len, perm));
            });
            self.with(child, |shadow, tree| {
                let below = tree.at(below).effective();
                let mend = |(iova, gpa, len, perm)| shadow.mend(below, iova, gpa, len, perm);
                records.into_iter().map(mend).sum()
            })
        };
        work.mends += 1;
        work.entries_changed += changed;
        self.queue(child, iova, end, self.kind);
    }

    fn rebuild(&mut self, child: ChildId, work: &mut Work) {
        let (id, below) = (NodeId(child.0), self.node);
        let mut counters = crate::results::ShadowCounters { syncs: 1, ..Default::default() };
        let mut own = {
            let empty = RadixTable::new(1, crate::table::Prune::Never, &mut |_: u32, _: u64| 0);
            std::mem::replace(&mut self.tree.at_mut(id).own, empty)
        };
        // On demand the shadow stays empty until devices ask.
        let rebuilds = self.tree.at(id).bound && !self.tree.at(id).sync.fills_on_fault();
        let end = 1 << own.width();
        let mut ops = Vec::new();
        let dropped = self.with(child, |shadow, tree| {
            let dropped = shadow.clear();
            if rebuilds {
                let cx = &mut SyncContext {
                    child: &mut own,
                    parent: tree.at(below).effective(),
                    ops: &mut ops,
                    counters: &mut counters,
                };
                shadow.sync(cx, 0, end);
            }
            dropped
        });
        self.tree.at_mut(id).own = own;
        work.shadows_dropped += 1;
        work.entries_dropped += dropped;
        work.entries_rebuilt += counters.mapped;
        work.entries_examined += match self.tree.at(id).spec.ownership {
            // The host replays its own record; it reads no guest entry.
            Ownership::HostManaged => counters.mapped,
            Ownership::UserManaged => counters.entries_examined,
        };
        self.queue(child, 0, end, ChangeKind::Altered);
    }

    fn retire(&mut self, child: ChildId, work: &mut Work) -> Option<RadixTable> {
        let table =
            self.with(child, |shadow, _| (shadow.table().leaves() > 0).then(|| shadow.retire()))?;
        work.shadows_dropped += 1;
        work.entries_dropped += table.leaves();
        self.queue(child, 0, 1 << table.width(), ChangeKind::Altered);
        Some(table)
    }

    fn fill(&mut self, child: ChildId, start: u64, end: u64, work: &mut Work) {
        let mut records = Vec::new();
        self.records_in(child, start, end, &mut |iova, gpa, len, perm| {
            records.push((iova, gpa, len, perm));
        });
        work.entries_examined += records.len() as u64;
        let below = self.node;
        let (written, limit) = self.with(child, |shadow, tree| {
            let below = tree.at(below).effective();
            let fill = |(iova, gpa, len, perm)| shadow.restore(below, iova, gpa, len, perm);
            let written: u64 = records.into_iter().map(fill).sum();
            (written, 1 << shadow.table().width())
        });
        work.entries_rebuilt += written;
        if written > 0 {
            self.queue(child, start, end.min(limit), ChangeKind::Added);
        }
    }
}

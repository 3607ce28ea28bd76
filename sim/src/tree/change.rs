//! Changes of nodes, and what follows from them.

use super::edge::Edge;
use super::{Effect, NodeId, Ownership, Pending, TablePages, Tree, TreeError, WINDOW_BYTES};
use crate::events::{PAGE_MASK, PageSize, Perm};
use crate::parent_change::{Change, ChangeKind, ChildId, Work};
use crate::shadow::{Shadow, ShadowOp, SyncContext};
use crate::sync::{self, Range};
use crate::table::RadixTable;

impl Tree {
    fn check(&self, id: NodeId, addr: u64, len: u64, out: u64) -> Result<Range, TreeError> {
        let bad = (addr | len | out) & PAGE_MASK != 0 || len == 0;
        let end = addr.checked_add(len).filter(|_| out.checked_add(len).is_some() && !bad);
        let end = end.ok_or(TreeError::Unaligned { addr, len })?;
        let node = self.get(id)?;
        let reserved = self.config.table_window;
        let carries = self.config.placement.carries_tables(node.depth);
        if carries && addr < reserved + WINDOW_BYTES && reserved < end {
            return Err(TreeError::Reserved { start: addr, end, reserved });
        }
        Ok(Range { start: addr, end })
    }

    /// Maps `[addr, addr + len)` of a host-managed node to `out`.
    ///
    /// # Errors
    /// [`TreeError::NotHostManaged`], [`TreeError::Overlap`],
    /// [`TreeError::Unaligned`], [`TreeError::Reserved`], [`TreeError::Table`].
    pub fn map(
        &mut self,
        id: NodeId,
        addr: u64,
        out: u64,
        len: u64,
        perm: Perm,
    ) -> Result<(), TreeError> {
        let range = self.check(id, addr, len, out)?;
        let node = self.get(id)?;
        if node.spec.ownership != Ownership::HostManaged {
            return Err(TreeError::NotHostManaged(id));
        }
        let before = node.areas.range(..range.end).next_back();
        if let Some((area, _)) = before.filter(|(start, len)| *start + *len > addr) {
            return Err(TreeError::Overlap { start: addr, end: range.end, area: *area });
        }
        self.write(id, addr, out, len, perm)?;
        let node = self.at_mut(id);
        node.areas.insert(addr, len);
        if node.parent.is_none() {
            self.account.parent(len / 4096, 0);
        }
        if self.at(id).shadow.is_some() {
            self.with_shadow(id, |p, shadow, cx| p.map_call(shadow, cx, range, out, perm));
        } else {
            self.queue(id, range, ChangeKind::Added, None);
        }
        self.settle();
        Ok(())
    }

    /// Unmaps all areas in `[addr, addr + len)` of a host-managed node;
    /// returns their bytes. When it returns and the effects are carried out,
    /// nothing leads into what was mapped there.
    ///
    /// # Errors
    /// [`TreeError::NotHostManaged`], [`TreeError::CutsArea`],
    /// [`TreeError::NothingMapped`], [`TreeError::Unaligned`].
    pub fn unmap(&mut self, id: NodeId, addr: u64, len: u64) -> Result<u64, TreeError> {
        let Range { start, end } = self.check(id, addr, len, 0)?;
        let node = self.get(id)?;
        if node.spec.ownership != Ownership::HostManaged {
            return Err(TreeError::NotHostManaged(id));
        }
        let before = node.areas.range(..start).next_back().filter(|(a, len)| *a + *len > start);
        let last = node.areas.range(start..end).next_back().filter(|(a, len)| *a + *len > end);
        if let Some((area, _)) = before.or(last) {
            return Err(TreeError::CutsArea { start, end, area: *area });
        }
        let areas: Vec<(u64, u64)> =
            node.areas.range(start..end).map(|(a, len)| (*a, *len)).collect();
        if areas.is_empty() {
            return Err(TreeError::NothingMapped { start, end });
        }
        let nests = self.nests(id);
        let mut bytes = 0;
        for (area, len) in areas {
            let range = Range { start: area, end: area + len };
            let hosts = nests.then(|| self.leads_to(id, range));
            self.erase(id, range);
            let node = self.at_mut(id);
            node.areas.remove(&area);
            bytes += len;
            if node.parent.is_none() {
                self.account.parent(0, len / 4096);
            }
            if self.at(id).shadow.is_some() {
                self.with_shadow(id, |p, shadow, cx| p.unmap_call(shadow, cx, range));
            } else {
                self.queue(id, range, ChangeKind::Altered, hosts);
            }
            self.settle();
        }
        Ok(bytes)
    }

    /// Binds a user-managed node's table, as it is now.
    ///
    /// # Errors
    /// [`TreeError::NotUserManaged`].
    pub fn bind(&mut self, id: NodeId) -> Result<(), TreeError> {
        self.user_managed(id)?;
        self.at_mut(id).bound = true;
        if self.at(id).shadow.is_some() && self.at(id).sync.wants_pte_writes() {
            // What was stored before the table was protected.
            self.with_shadow(id, |_, shadow, cx| {
                let end = 1 << cx.child.width();
                shadow.sync(cx, 0, end);
                true
            });
            self.settle();
        }
        self.invalidate(id, None)
    }

    fn user_managed(&self, id: NodeId) -> Result<(), TreeError> {
        match self.get(id)?.spec.ownership {
            Ownership::UserManaged => Ok(()),
            Ownership::HostManaged => Err(TreeError::NotUserManaged(id)),
        }
    }

    /// The user writes entries of its table: `[addr, addr + len)` to `out`,
    /// over what was there. Nobody is told, unless the table is write-protected.
    ///
    /// # Errors
    /// [`TreeError::NotUserManaged`], [`TreeError::Unaligned`],
    /// [`TreeError::Reserved`], [`TreeError::Table`].
    pub fn guest_map(
        &mut self,
        id: NodeId,
        addr: u64,
        out: u64,
        len: u64,
        perm: Perm,
    ) -> Result<(), TreeError> {
        self.check(id, addr, len, out)?;
        self.user_managed(id)?;
        self.write(id, addr, out, len, perm)?;
        self.stored(id);
        Ok(())
    }

    /// The user clears entries of its table; returns the bytes that were
    /// mapped. Nobody is told, unless the table is write-protected.
    ///
    /// # Errors
    /// As [`Tree::guest_map`].
    pub fn guest_unmap(&mut self, id: NodeId, addr: u64, len: u64) -> Result<u64, TreeError> {
        let range = self.check(id, addr, len, 0)?;
        self.user_managed(id)?;
        let bytes = self.erase(id, range);
        self.stored(id);
        Ok(bytes)
    }

    /// The user invalidates a range (`None` = all) of its table.
    ///
    /// # Errors
    /// [`TreeError::NotUserManaged`], [`TreeError::NotBound`].
    pub fn invalidate(&mut self, id: NodeId, range: Option<Range>) -> Result<(), TreeError> {
        self.user_managed(id)?;
        let node = self.at(id);
        if !node.bound {
            return Err(TreeError::NotBound(id));
        }
        if node.shadow.is_some() {
            self.with_shadow(id, |p, shadow, cx| {
                p.invalidate(shadow, cx, range);
                true
            });
        } else {
            let end = 1 << node.own.width();
            let range = range.unwrap_or(Range { start: 0, end });
            let range = Range { end: range.end.min(end), ..range };
            if range.start < range.end {
                self.queue(id, range, ChangeKind::Altered, None);
            }
        }
        self.settle();
        Ok(())
    }

    /// Handles the stores to a write-protected table, in order.
    fn stored(&mut self, id: NodeId) {
        let mut writes = std::mem::take(&mut self.writes);
        // A table that is not bound yet is read as a whole when it is.
        if writes.entries() > 0 && self.at(id).bound {
            self.with_shadow(id, |p, shadow, cx| {
                writes.iter().for_each(|w| p.pte_write(shadow, cx, w));
                true
            });
            self.settle();
        }
        writes.clear();
        self.writes = writes;
    }

    fn write(
        &mut self,
        id: NodeId,
        addr: u64,
        out: u64,
        len: u64,
        perm: Perm,
    ) -> Result<(), TreeError> {
        self.get(id)?;
        let (own, mut place) = self.own_table(id);
        own.map(addr, out, len, perm, PageSize::Size1G, &mut place)?;
        Ok(())
    }

    /// A node's own table, and where its pages come from.
    fn own_table(&mut self, id: NodeId) -> (&mut RadixTable, TablePages<'_>) {
        let node = self.nodes[id.0 as usize].as_mut().expect("in use, so not destroyed");
        let watched = node.shadow.is_some() && node.sync.wants_pte_writes();
        let writes = watched.then_some(&mut self.writes);
        let base = node.own.node_addr(RadixTable::ROOT);
        (&mut node.own, TablePages { base, next: &mut node.next_page, writes })
    }

    fn erase(&mut self, id: NodeId, range: Range) -> u64 {
        let (own, mut place) = self.own_table(id);
        own.unmap(range.start, range.end - range.start, &mut place)
    }

    /// True if hardware walks this node as its second stage, or has: what it
    /// cached of the stage outlives the children that caused it.
    pub(super) fn nests(&self, id: NodeId) -> bool {
        let above = self.at(id).depth + 1;
        above < self.config.placement.depth() && !self.config.placement.merged(above)
    }

    fn leads_to(&self, id: NodeId, range: Range) -> Vec<(u64, u64)> {
        let mut hosts = Vec::new();
        self.at(id).effective().visit(range.start, range.end, &mut |_, leaf| {
            hosts.push((leaf.out, leaf.out + leaf.size.bytes()));
            true
        });
        hosts
    }

    /// Runs the sync policy of a merged node and passes on what it did.
    pub(super) fn with_shadow(
        &mut self,
        id: NodeId,
        run: impl FnOnce(&sync::Policy, &mut Shadow, &mut SyncContext<'_>) -> bool,
    ) {
        let below = self.at(id).parent.expect("merged nodes have a parent");
        let pair = [id.0 as usize, below.0 as usize];
        let [node, parent] = self.nodes.get_disjoint_mut(pair).expect("two nodes of the tree");
        let (Some(node), Some(parent)) = (node, parent) else { unreachable!("both are in use") };
        let Some(shadow) = &mut node.shadow else { return };
        let cx = &mut SyncContext {
            child: &mut node.own,
            parent: parent.effective(),
            ops: &mut self.ops,
            counters: &mut self.sync_work,
        };
        run(&node.sync, shadow, cx);
        let edge = parent.edge.as_mut().expect("only taken out while it works");
        edge.follow(ChildId(id.0), &self.ops);
        for op in self.ops.drain(..) {
            // A map's span was empty: what was there was unmapped before.
            let (start, size, kind) = match op {
                ShadowOp::Map { iova, size, .. } => (iova, size, ChangeKind::Added),
                ShadowOp::Unmap { iova, size } => (iova, size, ChangeKind::Altered),
            };
            let change = Change { start, end: start.saturating_add(size), kind };
            self.pending.push_back(Pending { node: id, change, hosts: None });
        }
    }

    fn queue(
        &mut self,
        node: NodeId,
        range: Range,
        kind: ChangeKind,
        hosts: Option<Vec<(u64, u64)>>,
    ) {
        let change = Change { start: range.start, end: range.end, kind };
        self.pending.push_back(Pending { node, change, hosts });
    }

    /// Tells users of effective tables of all changes, theirs in turn.
    pub(super) fn settle(&mut self) {
        while let Some(Pending { node, change, hosts }) = self.pending.pop_front() {
            let Change { start, end, kind } = change;
            if kind == ChangeKind::Altered {
                // No cache keeps what was not there: `Added` needs nothing.
                self.effects.push(Effect::Input { node, start, end });
                if self.nests(node) {
                    self.effects.push(Effect::Parent { node, start, end, hosts });
                }
            }
            self.on_edge(node, kind, |edge, shadows, work| edge.changed(change, shadows, work));
        }
        let traffic = self.nodes.iter().flatten().filter_map(|n| n.shadow.as_ref());
        let traffic = traffic.map(|s| s.page_traffic()).fold((0, 0), |a, t| (a.0 + t.0, a.1 + t.1));
        self.account.shadows(traffic);
    }

    /// Runs the parent-change policy of a node, if it has merged children.
    fn on_edge<R: Default>(
        &mut self,
        node: NodeId,
        kind: ChangeKind,
        run: impl FnOnce(&mut crate::parent_change::Policy, &mut Edge<'_>, &mut Work) -> R,
    ) -> R {
        let Some(n) = self.nodes[node.0 as usize].as_mut() else { return R::default() };
        let above = n.depth + 1;
        let merges = above < self.config.placement.depth() && self.config.placement.merged(above);
        if !merges || n.children.is_empty() {
            return R::default();
        }
        let mut edge = n.edge.take().expect("only taken out while it works");
        let mut work = Work::default();
        let result = run(&mut edge, &mut Edge { tree: self, node, kind }, &mut work);
        self.change_work.add(&work);
        self.at_mut(node).edge = Some(edge);
        result
    }

    /// A device faulted at `addr` in the effective table of `id`: lets lazy
    /// policies build what is missing. True if the device should try again.
    pub(super) fn fault(&mut self, id: NodeId, addr: u64) -> bool {
        let node = self.at(id);
        if node.shadow.is_none() {
            return false;
        }
        let below = node.parent.expect("merged nodes have a parent");
        // On demand the table itself is asked, which may have more.
        let fills = node.sync.fills_on_fault();
        let record = if fills { &node.own } else { node.record() }.lookup(addr);
        // First the level below, or there is nothing to compose with.
        let mut built = record.is_some_and(|leaf| self.fault(below, leaf.translate(addr)));
        built |= self.on_edge(below, ChangeKind::Added, |edge, shadows, work| {
            edge.fault(ChildId(id.0), addr, shadows, work)
        });
        if fills {
            self.with_shadow(id, |p, shadow, cx| {
                p.fault(shadow, cx, addr);
                true
            });
            // Something changed, so asking again may help; a fault that finds
            // the record in line does nothing.
            built |= !self.pending.is_empty();
        }
        self.settle();
        built
    }

    /// Does up to `budget` entries per level of work that policies put off;
    /// true if some is left.
    pub fn step(&mut self, budget: u64) -> bool {
        let mut left = false;
        for i in 0..self.nodes.len() as u32 {
            left |= self.on_edge(NodeId(i), ChangeKind::Added, |edge, shadows, work| {
                edge.step(budget, shadows, work)
            });
            self.settle();
        }
        left
    }
}

//! The shadows of a replay, as the parent-change policy reaches them.

use super::engine::Engine;
use super::spaces::SpaceId;
use crate::cache::{PageRange, Store, Tag};
use crate::events::Perm;
use crate::parent_change::{ChangeKind, ChildId, Shadows, Work};
use crate::table::RadixTable;

/// See the module.
pub(super) struct OverParent<'a, S: Store> {
    pub engine: &'a mut Engine<S>,
    /// What the present change may have made wrong.
    pub kind: ChangeKind,
}

impl<S: Store> OverParent<'_, S> {
    /// Calls `f(iova, gpa, len, perm)` for every record of a child in a range,
    /// clipped to it.
    fn records_in(
        &self,
        child: ChildId,
        start: u64,
        end: u64,
        f: &mut dyn FnMut(u64, u64, u64, Perm),
    ) {
        let Some(record) = self.engine.record(SpaceId(child.0)) else { return };
        record.visit(start, end, &mut |iova, leaf| {
            let (from, to) = (iova.max(start), (iova + leaf.size.bytes()).min(end));
            f(from, leaf.translate(from), to - from, leaf.perm);
            true
        });
    }

    /// Drops a span of a child from the hardware's caches.
    fn drop_cached(&mut self, id: SpaceId, start: u64, end: u64) {
        let e = &mut *self.engine;
        if !e.host_invalidations {
            e.counters.parent.hardware_invalidations += 1;
            for tag in &e.spaces.get(id).tags {
                e.iotlb.invalidate(*tag, PageRange::new(start, end));
            }
        }
        e.caches.invalidate_stage1(Tag(id.0), start, end);
    }

    /// Notes the size of a shadow that grew.
    fn grew(&mut self, id: SpaceId) {
        let leaves = self.engine.spaces.get(id).shadow.as_ref().map_or(0, |s| s.table().leaves());
        let peak = &mut self.engine.counters.shadow.resident_entries_peak;
        *peak = (*peak).max(leaves);
    }
}

impl<S: Store> Shadows for OverParent<'_, S> {
    fn children(&self, f: &mut dyn FnMut(ChildId)) {
        let with_shadow = |id: &SpaceId| self.engine.spaces.get(*id).shadow.is_some();
        self.engine.spaces.ids().filter(with_shadow).for_each(|id| f(ChildId(id.0)));
    }

    fn records(&self, child: ChildId, f: &mut dyn FnMut(u64, u64, u64)) {
        self.records_in(child, 0, u64::MAX, &mut |iova, gpa, len, _| f(iova, gpa, len));
    }

    fn mend(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64, work: &mut Work) {
        let (id, end) = (SpaceId(child.0), iova + len);
        let record = self.engine.record(id).and_then(|r| r.lookup(iova));
        let one = record.filter(|l| (iova & !(l.size.bytes() - 1)) + l.size.bytes() >= end);
        let mut several = Vec::new();
        match one {
            Some(leaf) => debug_assert_eq!(leaf.translate(iova), gpa, "policies know the record"),
            // A span of several records, whose rights may differ.
            None => self.records_in(child, iova, end, &mut |iova, gpa, len, perm| {
                several.push((iova, gpa, len, perm));
            }),
        }
        let engine = &mut *self.engine;
        let Some(shadow) = &mut engine.spaces.get_mut(id).shadow else { return };
        let (parent, had) = (&engine.parent, shadow.table().leaves());
        let before = shadow.page_traffic();
        let changed: u64 = match one {
            Some(leaf) => shadow.mend(parent, iova, gpa, len, leaf.perm),
            None => {
                let mend = |(iova, gpa, len, perm)| shadow.mend(parent, iova, gpa, len, perm);
                several.into_iter().map(mend).sum()
            }
        };
        let (after, left) = (shadow.page_traffic(), shadow.table().leaves());
        work.mends += 1;
        work.entries_changed += changed;
        let c = &mut engine.counters.parent;
        c.shadow_entries_dropped += (changed + had).saturating_sub(left) / 2;
        c.host_map_calls += (after.0 > before.0) as u64;
        c.host_unmap_calls += (after.1 > before.1) as u64;
        self.grew(id);
        if self.kind == ChangeKind::Altered {
            self.drop_cached(id, iova, end);
        }
    }

    fn rebuild(&mut self, child: ChildId, work: &mut Work) {
        let id = SpaceId(child.0);
        self.engine.drop_cached(id);
        let space = self.engine.spaces.get_mut(id);
        // Calls that found no memory behind their GPAs left nothing in the
        // shadow, but the VMM knows them.
        let calls = match &space.child {
            Some(child) if !self.engine.policy.wants_invalidations() => child.leaves(),
            _ => 0,
        };
        let Some(shadow) = &mut space.shadow else { return };
        if shadow.table().leaves() + shadow.synced().leaves() + calls == 0 {
            return;
        }
        let dropped = shadow.clear();
        let built = self.engine.resync(id);
        work.shadows_dropped += 1;
        work.entries_dropped += dropped;
        work.entries_rebuilt += built.mapped;
        work.entries_examined += match self.engine.policy.wants_invalidations() {
            true => built.entries_examined,
            false => built.mapped,
        };
        self.engine.counters.parent.host_unmap_calls += (dropped > 0) as u64;
        self.engine.counters.parent.host_map_calls += built.map_calls;
    }

    fn retire(&mut self, child: ChildId, work: &mut Work) -> Option<RadixTable> {
        let id = SpaceId(child.0);
        let shadow = self.engine.spaces.get_mut(id).shadow.as_mut()?;
        let leaves = shadow.table().leaves();
        if leaves == 0 {
            return None;
        }
        let table = shadow.retire();
        work.shadows_dropped += 1;
        work.entries_dropped += leaves;
        self.engine.counters.parent.host_unmap_calls += 1;
        self.engine.drop_cached(id);
        Some(table)
    }

    fn fill(&mut self, child: ChildId, start: u64, end: u64, work: &mut Work) {
        let id = SpaceId(child.0);
        let mut records = Vec::new();
        self.records_in(child, start, end, &mut |iova, gpa, len, perm| {
            records.push((iova, gpa, len, perm));
        });
        work.entries_examined += records.len() as u64;
        let engine = &mut *self.engine;
        let Some(shadow) = &mut engine.spaces.get_mut(id).shadow else { return };
        for (iova, gpa, len, perm) in records {
            let written = shadow.restore(&engine.parent, iova, gpa, len, perm);
            work.entries_rebuilt += written;
            engine.counters.parent.host_map_calls += (written > 0) as u64;
        }
        self.grew(id);
    }
}

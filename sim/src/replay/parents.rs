//! Changes of the parent, and how shadows and hardware caches follow them.

use super::engine::Engine;
use super::over_parent::OverParent;
use super::spaces::{PARENT_SPACE, SpaceId};
use crate::cache::{PageRange, Store, Tag};
use crate::config::{Config, Nesting};
use crate::events::{Event, PAGE_MASK, PAGE_SIZE, Perm};
use crate::parent_change::hardware::{self, FlushCounters, ParentRange};
use crate::parent_change::pinning::{Account, Pinning};
use crate::parent_change::{Change, ChangeKind, ChildId, Policy, Work};
use crate::results::ShadowCounters;
use crate::shadow::{ShadowOp, SyncContext};
use crate::table::RadixTable;

use super::apply::{or_rw, whole_pages};

/// Operations on shadows from one look at a policy's memory to the next.
const LOOK_EVERY: u64 = 256;

/// What follows the parent's changes.
pub(super) struct Follower {
    pub policy: Policy,
    account: Account,
    /// Page traffic of each space's shadow that is accounted.
    seen: Vec<(u64, u64)>,
    /// Page traffic of all shadows.
    traffic: (u64, u64),
    keeps_records: bool,
    pins_entries: bool,
    operations: u64,
    step_entries: u64,
}

impl Follower {
    pub fn new(config: &Config) -> Follower {
        let parent = &config.parent;
        Follower {
            policy: Policy::with_epoch(parent.change, &parent.epoch.policy()),
            account: Account::new(parent.pinning),
            seen: Vec::new(),
            traffic: (0, 0),
            keeps_records: parent.change.keeps_records(),
            pins_entries: parent.pinning == Pinning::PinPerEntry,
            operations: 0,
            step_entries: parent.epoch.step_entries,
        }
    }

    /// True if it must hear of every operation on a shadow.
    pub fn listens(config: &Config) -> bool {
        let pins_entries = config.parent.pinning == Pinning::PinPerEntry;
        let listens = config.parent.change.keeps_records() || pins_entries;
        config.nesting == Nesting::Software && listens
    }

    /// Accounts for what a shadow's leaves have come to map since last time.
    fn count_pins(&mut self, id: SpaceId, now: (u64, u64)) {
        if self.seen.len() <= id.0 as usize {
            self.seen.resize(id.0 as usize + 1, (0, 0));
        }
        let old = std::mem::replace(&mut self.seen[id.0 as usize], now);
        self.traffic.0 += now.0 - old.0;
        self.traffic.1 += now.1 - old.1;
        self.account.shadows(self.traffic);
    }
}

/// Part of an operation's span that the parent could ever translate.
fn reachable(gpa: u64, len: u64, parent_bits: u32) -> u64 {
    (1u64 << parent_bits).saturating_sub(gpa).min(len)
}

impl<S: Store> Engine<S> {
    pub(super) fn parent_map(&mut self, e: &Event) {
        self.counters.parent.maps += 1;
        if e.size == 0 {
            return;
        }
        let perm = or_rw(e.flags.perm());
        let Some((gpa, hpa, len)) = whole_pages(e) else {
            self.counters.diagnostics.beyond_width += 1;
            return;
        };
        let (had, hosts) = self.before_change(gpa, len);
        if self.parent.map(gpa, hpa, len, perm).is_err() {
            self.counters.diagnostics.beyond_width += 1;
            return;
        }
        if self.parent.table().is_some() {
            self.pin_parent(len / 4096, had / 4096);
            let kind = if had > 0 { ChangeKind::Altered } else { ChangeKind::Added };
            self.parent_changed(Change { start: gpa, end: gpa + len, kind }, &hosts);
            if let Some(v) = &mut self.verifier {
                v.parent_map(gpa, hpa, len);
            }
        }
    }

    pub(super) fn parent_unmap(&mut self, e: &Event, number: u64) {
        self.counters.parent.unmaps += 1;
        self.before_parent_unmap(e.addr, e.size);
        let start = e.addr & !PAGE_MASK;
        let end = e.addr.saturating_add(e.size).saturating_add(PAGE_MASK) & !PAGE_MASK;
        let (_, hosts) = self.before_change(start, end.saturating_sub(start));
        let bytes = self.parent.unmap(e.addr, e.size);
        if bytes == 0 {
            self.counters.diagnostics.unmaps_of_unmapped += 1;
        } else {
            self.pin_parent(0, bytes / 4096);
            self.parent_changed(Change { start, end, kind: ChangeKind::Altered }, &hosts);
        }
        self.parent_unmapped(number, e.time_ns);
        if let Some(v) = &mut self.verifier {
            let hosts = v.parent_unmap(e.addr, e.size);
            v.nothing_leads_into(number, &hosts, &self.iotlb, &self.caches, &self.spaces);
        }
    }

    /// Bytes that the parent maps in a range, and where they lie in the host
    /// if the hardware selects by that.
    fn before_change(&self, gpa: u64, len: u64) -> (u64, Vec<(u64, u64)>) {
        let (mut bytes, mut hosts) = (0, Vec::new());
        let by_host = self.config.nesting == Nesting::Hardware
            && self.config.parent.hardware_flush == hardware::Family::RiscvIommu;
        let end = gpa.saturating_add(len);
        if let Some(table) = self.parent.table() {
            table.visit(gpa, end, &mut |at, leaf| {
                let (from, to) = (at.max(gpa), (at + (leaf.size.bytes() - 1)).min(end - 1));
                bytes += to - from + 1;
                if by_host {
                    let host = leaf.translate(from);
                    hosts.push((host, host + (to - from) + 1));
                }
                true
            });
        }
        (bytes, hosts)
    }

    fn pin_parent(&mut self, mapped: u64, unmapped: u64) {
        if let Some(f) = &mut self.follower {
            f.account.parent(mapped, unmapped);
        }
    }

    /// The parent changed: no shadow and no hardware cache leads into what
    /// was removed when this returns.
    fn parent_changed(&mut self, change: Change, hosts: &[(u64, u64)]) {
        self.counters.parent.changes += 1;
        let before = self.iotlb.invalidated;
        let altered = change.kind == ChangeKind::Altered;
        match self.config.nesting {
            // Nothing is cached of what was not there.
            Nesting::None if altered => {
                // Devices use GPAs, whatever their domain.
                self.spaces.ids().for_each(|id| self.drop_pages(id, change.start, change.end));
                self.caches.invalidate_stage2();
            }
            Nesting::Hardware if altered => self.hardware_follows(change, hosts),
            Nesting::Software => {
                if altered {
                    self.drop_pages(PARENT_SPACE, change.start, change.end);
                    self.caches.invalidate_stage2();
                }
                self.with_follower(change.kind, |policy, shadows, work| {
                    policy.changed(change, shadows, work);
                });
            }
            Nesting::None | Nesting::Hardware => {}
        }
        self.counters.parent.cached_entries_dropped += self.iotlb.invalidated - before;
    }

    /// Drops a range of a space from the IOTLB with one command.
    fn drop_pages(&mut self, id: SpaceId, start: u64, end: u64) {
        if self.host_invalidations || self.spaces.get(id).tags.is_empty() {
            return;
        }
        self.counters.parent.hardware_invalidations += 1;
        for tag in &self.spaces.get(id).tags {
            self.iotlb.invalidate(*tag, PageRange::new(start, end));
        }
    }

    fn hardware_follows(&mut self, change: Change, hosts: &[(u64, u64)]) {
        if self.host_invalidations {
            return self.caches.invalidate_parent();
        }
        self.drop_pages(PARENT_SPACE, change.start, change.end);
        let nested = self.spaces.ids().filter(|id| *id != PARENT_SPACE);
        let (mut tags, mut domains) = (Vec::new(), 0);
        for id in nested {
            let of = &self.spaces.get(id).tags;
            domains += !of.is_empty() as u64;
            tags.extend_from_slice(of);
        }
        let range = ParentRange {
            start: change.start,
            end: change.end,
            hosts,
            own: None,
            children: &tags,
            domains,
            devices: self.spaces.device_ids.len() as u64,
        };
        let family = self.config.parent.hardware_flush;
        let mut flushed = FlushCounters::default();
        hardware::parent_changed(family, &range, &mut self.iotlb, &mut self.caches, &mut flushed);
        self.counters.parent.hardware_invalidations += flushed.commands;
        self.counters.parent.device_tlb_flushes += flushed.device_tlb_flushes;
    }

    /// Lets the parent-change policy work on the shadows.
    fn with_follower<T: Default>(
        &mut self,
        kind: ChangeKind,
        run: impl FnOnce(&mut Policy, &mut OverParent<'_, S>, &mut Work) -> T,
    ) -> T {
        let Some(mut follower) = self.follower.take() else { return T::default() };
        let mut work = Work::default();
        let result = run(&mut follower.policy, &mut OverParent { engine: self, kind }, &mut work);
        let c = &mut self.counters.parent;
        c.entries_examined += work.entries_examined;
        c.entries_changed += work.entries_changed;
        c.entries_rebuilt += work.entries_rebuilt;
        c.mends += work.mends;
        c.shadows_dropped += work.shadows_dropped;
        c.shadow_entries_dropped += work.entries_dropped;
        c.host_pte_writes += work.entries_changed + work.entries_dropped + work.entries_rebuilt;
        c.policy_lines += work.lines;
        c.policy_bytes_peak = c.policy_bytes_peak.max(follower.policy.memory_bytes());
        if follower.pins_entries {
            for id in self.spaces.ids() {
                if let Some(shadow) = &self.spaces.get(id).shadow {
                    follower.count_pins(id, shadow.page_traffic());
                }
            }
        }
        self.follower = Some(follower);
        result
    }

    /// Reports the latest operations on a shadow to the policy and accounts
    /// for their pins.
    pub(super) fn follow(&mut self, id: SpaceId) {
        let Some(follower) = &mut self.follower else { return };
        let child = ChildId(id.0);
        let (space, parent_bits) = (self.spaces.get(id), self.config.parent.levels * 9 + 12);
        if follower.keeps_records {
            let end = space.child.as_ref().map_or(0, |c| 1 << c.width());
            for op in &self.ops {
                // Recorded ranges may be odd; tables hold whole pages.
                match *op {
                    ShadowOp::Map { iova, size, gpa, .. } => {
                        let len = reachable(gpa, size, parent_bits);
                        if len > 0 {
                            follower.policy.mapped(child, iova, gpa, len);
                        }
                        if len < size {
                            follower.policy.unmapped(child, iova + len, size - len);
                        }
                    }
                    ShadowOp::Unmap { iova, size } => {
                        let to = iova.saturating_add(size).min(end).next_multiple_of(4096);
                        let from = iova & !PAGE_MASK;
                        if from < to && size > 0 {
                            follower.policy.unmapped(child, from, to - from);
                        }
                    }
                }
            }
            follower.operations += self.ops.len() as u64;
            if follower.operations >= LOOK_EVERY {
                follower.operations = 0;
                let peak = &mut self.counters.parent.policy_bytes_peak;
                *peak = (*peak).max(follower.policy.memory_bytes());
            }
        }
        if follower.pins_entries
            && let Some(shadow) = &space.shadow
        {
            follower.count_pins(id, shadow.page_traffic());
        }
    }

    /// A shadow and its record were emptied.
    pub(super) fn emptied(&mut self, id: SpaceId) {
        let Some(follower) = &mut self.follower else { return };
        follower.policy.cleared(ChildId(id.0));
        if follower.pins_entries
            && let Some(shadow) = &self.spaces.get(id).shadow
        {
            follower.count_pins(id, shadow.page_traffic());
        }
    }

    /// IOVA to GPA of a child, as the VMM knows it: the calls that it saw, or
    /// what it last saw of the guest's table.
    pub(super) fn record(&self, id: SpaceId) -> Option<&RadixTable> {
        let space = self.spaces.get(id);
        match self.policy.wants_invalidations() {
            true => space.shadow.as_ref().map(|s| s.synced()),
            false => space.child.as_ref(),
        }
    }

    /// Calls `f(iova, len, out)` for what a space's shadow gives in a range
    /// and, where a lazy policy has yet to rebuild it, for what it will give
    /// to a device that asks.
    pub(super) fn visit_shadow(
        &self,
        id: SpaceId,
        start: u64,
        end: u64,
        f: &mut dyn FnMut(u64, u64, u64),
    ) {
        let Some(shadow) = &self.spaces.get(id).shadow else { return };
        shadow.table().visit(start, end, &mut |at, leaf| {
            f(at, leaf.size.bytes(), leaf.out);
            true
        });
        let Some(record) = self.record(id).filter(|_| self.is_incomplete(id)) else { return };
        record.visit(start, end, &mut |at, leaf| {
            let (from, to) = (at.max(start), (at + (leaf.size.bytes() - 1)).min(end - 1));
            for iova in (from & !PAGE_MASK..=to).step_by(PAGE_SIZE as usize) {
                let gpa = leaf.translate(iova);
                if shadow.table().lookup(iova).is_none()
                    && let Some(host) = self.parent.lookup(gpa)
                    && host.perm.and(leaf.perm) != Perm::NONE
                {
                    f(iova, PAGE_SIZE, host.translate(gpa));
                }
            }
            true
        });
    }

    /// Rebuilds a shadow that was cleared, without counting guest operations.
    pub(super) fn resync(&mut self, id: SpaceId) -> ShadowCounters {
        let space = self.spaces.get_mut(id);
        let (Some(child), Some(shadow)) = (&mut space.child, &mut space.shadow) else {
            return ShadowCounters::default();
        };
        if child.leaves() == 0 || self.policy.fills_on_fault() {
            return ShadowCounters::default();
        }
        let end = 1 << child.width();
        let mut work = ShadowCounters { syncs: 1, ..ShadowCounters::default() };
        let (parent, ops) = (&self.parent, &mut self.ops);
        let cx = &mut SyncContext { child, parent, ops, counters: &mut work };
        shadow.sync(cx, 0, end);
        if self.followed {
            self.follow(id);
        }
        self.ops.clear();
        if !self.policy.wants_invalidations() {
            // The VMM replays its own record of the calls: no guest entry is read.
            work.entries_examined = 0;
            work.pte_reads = 0;
            work.skipped = 0;
        }
        self.counters.shadow.add(&work);
        work
    }

    /// A device found nothing in the shadow: true if a lazy policy had yet to
    /// build it.
    #[cold]
    pub(super) fn lazy_fill(&mut self, id: SpaceId, iova: u64) -> bool {
        if !self.lazy || self.spaces.get(id).shadow.is_none() {
            return false;
        }
        self.add_causes();
        let built = self.with_follower(ChangeKind::Added, |policy, shadows, work| {
            policy.fault(ChildId(id.0), iova, shadows, work)
        });
        self.counters.parent.lazy_fills += built as u64;
        built
    }

    /// Some of the work that a lazy policy put off.
    pub(super) fn rebuild_in_background(&mut self) {
        let budget = self.follower.as_ref().map_or(0, |f| f.step_entries);
        if budget > 0 {
            self.with_follower(ChangeKind::Added, |policy, shadows, work| {
                policy.step(budget, shadows, work)
            });
        }
    }

    /// All the work that a lazy policy put off; not counted.
    pub(super) fn rebuild_everything(&mut self) {
        if self.lazy {
            let counted = self.counters.clone();
            self.with_follower(
                ChangeKind::Added,
                |policy, shadows, work| {
                    while policy.step(u64::MAX, shadows, work) {}
                },
            );
            self.counters = counted;
        }
    }

    /// Whether some of a space's shadow is yet to be rebuilt.
    pub(super) fn is_incomplete(&self, id: SpaceId) -> bool {
        self.lazy && self.follower.as_ref().is_some_and(|f| f.policy.is_incomplete(ChildId(id.0)))
    }

    /// I3, where nothing is pending.
    pub(super) fn look_at_shadows(&mut self, number: u64) {
        let Some(mut v) = self.verifier.take() else { return };
        v.settled(number, &self.spaces, &self.parent, &|id| self.is_incomplete(id));
        self.verifier = Some(v);
    }

    /// Totals at the end of the trace.
    pub(super) fn end_of_changes(&mut self) {
        let Some(follower) = &mut self.follower else { return };
        if self.config.nesting == Nesting::Software {
            let peak = &mut self.counters.parent.policy_bytes_peak;
            *peak = (*peak).max(follower.policy.memory_bytes());
        }
        // A made-up parent was there from the start.
        follower.account.parent(self.parent.synthesized_bytes() / 4096, 0);
        let (pins, c) = (follower.account.counters(), &mut self.counters.parent);
        (c.pins, c.unpins, c.pins_held_peak) = (pins.pins, pins.unpins, pins.held_peak);
    }

    /// Drops everything cached of a space.
    pub(super) fn drop_cached(&mut self, id: SpaceId) {
        if !self.host_invalidations {
            self.counters.parent.hardware_invalidations += 1;
            self.drop_space(id);
        } else {
            self.caches.invalidate_stage1_tag(Tag(id.0));
        }
    }
}

//! What the guest does: maps, unmaps, invalidations, and the traps they cost.

use super::ReplayError;
use super::apply::{Reach, or_rw, whole_pages};
use super::encode::{Changes, Command, Span, encode};
use super::engine::Engine;
use super::spaces::{PARENT_SPACE, SpaceId};
use crate::cache::{PageRange, Store, Tag};
use crate::config::{CachingModeConfig, InvalidationEncoding, Nesting};
use crate::events::{DomainId, Event, Flags, PageSize, Perm, Scope};
use crate::parent::Parent;
use crate::prefetch::Policy;
use crate::sync;
use crate::table::{Placement, PteWriteKind, PteWrites};

/// Where the guest's table pages lie, and who watches its stores to them.
struct GuestTable<'a> {
    parent: &'a mut Parent,
    /// `None`: nobody.
    writes: Option<&'a mut PteWrites>,
}

impl Placement for GuestTable<'_> {
    fn place(&mut self, _: u32, _: u64) -> u64 {
        self.parent.take_table_page()
    }

    #[inline]
    fn wrote(&mut self, level: u32, base: u64, kind: PteWriteKind) {
        if let Some(writes) = &mut self.writes {
            writes.push(level, base, kind);
        }
    }
}

impl<S: Store> Engine<S> {
    pub(super) fn guest_map(&mut self, e: &Event, number: u64) -> Result<(), ReplayError> {
        self.counters.guest.maps += 1;
        if e.domain == DomainId::NONE || e.domain == DomainId::PARENT {
            self.counters.diagnostics.unattributed += 1;
            return Ok(());
        }
        if e.size == 0 {
            return Ok(());
        }
        let limit = |_| ReplayError::TooManyTags { event: number, limit: Tag::LIMIT };
        let id = self.spaces.of_domain(e.domain, &mut self.parent).map_err(limit)?;
        let perm = or_rw(e.flags.perm());
        let space = self.spaces.get(id);
        let child = space.child.as_ref().expect("only the parent's space has no child");
        let Some((iova, gpa, len)) = whole_pages(e).filter(|(a, _, n)| child.covers(a + n - 1))
        else {
            self.counters.diagnostics.beyond_width += 1;
            return Ok(());
        };
        self.parent.ensure(gpa, len);
        let watched = self.config.nesting == Nesting::Software && self.policy.wants_pte_writes();
        let space = self.spaces.get_mut(id);
        let child = space.child.as_mut().expect("only the parent's space has no child");
        let writes = watched.then_some(&mut self.writes);
        let mut place = GuestTable { parent: &mut self.parent, writes };
        let mapped = child.map(iova, gpa, len, perm, PageSize::Size1G, &mut place);
        let replaced = mapped.is_ok_and(|outcome| outcome.replaced > 0);
        self.counters.diagnostics.overlapping_maps += replaced as u64;
        let announced = e.flags.has(Flags::NOTIFIED)
            && self.config.guest.caching_mode != CachingModeConfig::Off;
        if self.reencodes() && (replaced || announced) {
            self.changes.add(id, iova, iova + len);
        }
        if let Some(v) = &mut self.verifier {
            v.child_map(id, iova, gpa, len, perm);
        }
        if let Some(fetcher) = &mut self.fetcher {
            fetcher.policy.mapped(id.0, iova, iova + len);
        }
        let range = sync::Range { start: iova, end: iova + len };
        if self.config.nesting == Nesting::Software {
            let called = self.with_shadow(id, number, |policy, shadow, cx| {
                policy.map_call(shadow, cx, range, gpa, perm)
            });
            if called {
                self.trap(number, 1);
                self.completed(id, Some(range));
            }
            self.trap_pte_writes(id, range, number);
            let wanted = self.policy.wants_invalidations()
                && self.config.guest.caching_mode == CachingModeConfig::On;
            if wanted
                && !e.flags.has(Flags::NOTIFIED)
                && let Some(first) = self.pending.add(id, range.start, range.end)
            {
                self.notify(first, number);
            }
        }
        Ok(())
    }

    pub(super) fn guest_unmap(&mut self, e: &Event, number: u64) {
        self.counters.guest.unmaps += 1;
        let Some(id) = self.spaces.find(e.domain).filter(|id| *id != PARENT_SPACE) else {
            let d = &mut self.counters.diagnostics;
            match e.domain {
                DomainId::NONE | DomainId::PARENT => d.unattributed += 1,
                _ => d.unmaps_of_unmapped += 1,
            }
            return;
        };
        if self.reencodes() {
            self.changes.add(id, e.addr, e.addr.saturating_add(e.size));
        }
        if let Some(fetcher) = &mut self.fetcher {
            fetcher.policy.unmapped(id.0, e.addr, e.addr.saturating_add(e.size));
        }
        self.before_child_unmap(id, e.addr, e.size);
        let child = self.spaces.get_mut(id).child.as_mut().expect("a child");
        let watched = self.config.nesting == Nesting::Software && self.policy.wants_pte_writes();
        let writes = watched.then_some(&mut self.writes);
        let mut place = GuestTable { parent: &mut self.parent, writes };
        if child.unmap(e.addr, e.size, &mut place) == 0 {
            self.counters.diagnostics.unmaps_of_unmapped += 1;
        }
        if let Some(v) = &mut self.verifier {
            v.child_unmap(id, e.addr, e.size);
        }
        if self.config.nesting == Nesting::Software {
            let range = sync::Range { start: e.addr, end: e.addr.saturating_add(e.size) };
            let called = self
                .with_shadow(id, number, |policy, shadow, cx| policy.unmap_call(shadow, cx, range));
            if called {
                self.trap(number, 1);
                self.completed(id, Some(range));
            }
            self.trap_pte_writes(id, range, number);
        }
        self.child_unmapped(id, number, e.time_ns);
    }

    /// A recorded invalidation by the guest: sent, or left out because this
    /// configuration's guest would not send it.
    pub(super) fn guest_invalidate(&mut self, e: &Event, number: u64) {
        if let Some(v) = &mut self.verifier {
            v.next_invalidation(number);
        }
        let scope = e.flags.scope().unwrap_or(Scope::Global);
        if scope == Scope::Reset {
            return self.reset();
        }
        let reaches_vmm = match self.config.nesting {
            Nesting::None => false,
            Nesting::Hardware => true,
            Nesting::Software => self.policy.wants_invalidations(),
        };
        let for_map = e.flags.has(Flags::MAP_NOTIFY)
            && self.config.guest.caching_mode == CachingModeConfig::Off;
        if !reaches_vmm || for_map {
            self.provenance.invalidations_left_out += 1;
            return;
        }
        if self.reencodes() {
            match self.reach(e) {
                Some(Reach::Page(id, range)) => {
                    self.provenance.invalidations_reencoded += 1;
                    let changed = self.changes.take(id, range.start, range.end);
                    let leaf_only = e.flags.has(Flags::LEAF_ONLY);
                    return self.send(id, &changed, leaf_only, number);
                }
                Some(Reach::Space(id)) => {
                    self.changes.clear(id);
                }
                Some(Reach::All) => self.changes = Changes::default(),
                None => {}
            }
        }
        let sent = &mut self.counters.guest.invalidations;
        match scope {
            Scope::Page => sent.page += 1,
            Scope::Domain => sent.domain += 1,
            Scope::Global | Scope::Reset => sent.global += 1,
            Scope::Context => sent.context += 1,
        }
        self.trap(number, 1);
        match self.config.nesting {
            Nesting::None => {}
            Nesting::Hardware => {
                let reach = self.reach(e);
                if !self.host_invalidations {
                    self.hardware_invalidate(reach, e.flags);
                }
                match reach {
                    Some(Reach::Page(id, r)) => {
                        let range = sync::Range { start: r.start, end: r.end };
                        self.completed(id, Some(range));
                    }
                    Some(Reach::Space(id)) => self.completed(id, None),
                    Some(Reach::All) if scope != Scope::Context => {
                        self.spaces.ids().for_each(|id| self.completed(id, None));
                    }
                    _ => {}
                }
            }
            Nesting::Software => match (scope, self.reach(e)) {
                (Scope::Context, _) => {
                    for id in self.spaces.attached_to(e.requester) {
                        self.sync(id, None, number);
                    }
                }
                (_, Some(Reach::Page(id, r))) => {
                    self.sync(id, Some(sync::Range { start: r.start, end: r.end }), number);
                }
                (_, Some(Reach::Space(id))) => self.sync(id, None, number),
                (_, Some(Reach::All)) => {
                    self.spaces.ids().for_each(|id| self.sync(id, None, number));
                }
                (_, None) => {}
            },
        }
    }

    /// The stores of a map or unmap of `range` to write-protected table pages.
    fn trap_pte_writes(&mut self, id: SpaceId, range: sync::Range, number: u64) {
        if !self.policy.wants_pte_writes() {
            return;
        }
        let mut writes = std::mem::take(&mut self.writes);
        let entries = writes.entries();
        self.counters.guest.traps += entries;
        self.counters.guest.pte_writes += entries;
        self.with_shadow(id, number, |policy, shadow, cx| {
            writes.iter().for_each(|w| policy.pte_write(shadow, cx, w));
        });
        writes.clear();
        self.writes = writes;
        // The VMM knows every change that far: nothing is pending.
        self.completed(id, Some(range));
    }

    /// A device found nothing (or not the right) in the shadow: true if the
    /// VMM filled it in, so that the device's second request finds it.
    #[cold]
    pub(super) fn page_request(
        &mut self,
        id: SpaceId,
        iova: u64,
        needed: Perm,
        number: u64,
    ) -> bool {
        if self.config.nesting != Nesting::Software || id == PARENT_SPACE {
            return false;
        }
        // The policy may invalidate.
        self.add_causes();
        let allowed = |engine: &Self| {
            let shadow = engine.spaces.get(id).shadow.as_ref();
            shadow.and_then(|s| s.table().lookup(iova)).is_some_and(|l| l.perm.allows(needed))
        };
        if allowed(self) {
            // Some level below the shadow refuses: no page request helps.
            return false;
        }
        self.with_shadow(id, number, |policy, shadow, cx| policy.fault(shadow, cx, iova));
        allowed(self)
    }

    fn sync(&mut self, id: SpaceId, range: Option<sync::Range>, number: u64) {
        if id == PARENT_SPACE {
            return;
        }
        self.with_shadow(id, number, |policy, shadow, cx| policy.invalidate(shadow, cx, range));
        if let (Some(v), Some(range)) = (&mut self.verifier, range) {
            v.sync_stayed_inside(number, self.config.sync.policy, range);
        }
        self.completed(id, range);
    }

    /// Sends the invalidation that is pending for recent maps.
    pub(super) fn flush_pending(&mut self, number: u64) {
        if let Some(range) = self.pending.take() {
            self.notify(range, number);
        }
    }

    /// Sends what caching mode asks for after maps; it happens before `number`.
    fn notify(&mut self, (id, start, end): (SpaceId, u64, u64), number: u64) {
        let sent = self.counters.guest.invalidations;
        self.send(id, &[(start, end)], false, number.saturating_sub(1));
        let now = self.counters.guest.invalidations;
        self.provenance.invalidations_added += now.page + now.domain - sent.page - sent.domain;
    }

    /// True if the simulated guest encodes ranges itself.
    fn reencodes(&self) -> bool {
        self.config.guest.invalidation != InvalidationEncoding::AsRecorded
    }

    /// `commands` more reach the VMM.
    fn trap(&mut self, number: u64, commands: u64) {
        let per_trap = self.config.guest.commands_per_trap;
        self.counters.guest.traps += self.doorbell.ring(number, commands, per_trap);
    }

    /// Announces what changed in a space, in the configured encoding.
    fn send(&mut self, id: SpaceId, changed: &[Span], leaf_only: bool, number: u64) {
        let mut commands = Vec::new();
        encode(self.config.guest.invalidation, changed, &mut commands);
        self.trap(number, commands.len() as u64);
        for command in commands {
            let sent = &mut self.counters.guest.invalidations;
            let range = match command {
                Command::Pages((start, end)) => {
                    sent.page += 1;
                    Some(sync::Range { start, end })
                }
                Command::Domain => {
                    sent.domain += 1;
                    None
                }
            };
            if self.config.nesting == Nesting::Software {
                self.counters.shadow.over_invalidated += self.shadowed_beyond(id, range, changed);
                self.sync(id, range, number);
            } else {
                self.hardware_command(id, range, changed, leaf_only);
                self.completed(id, range);
            }
        }
    }

    /// Shadow entries that a command drops beside what changed. Policies that
    /// compare with the guest's table drop none.
    fn shadowed_beyond(&self, id: SpaceId, range: Option<sync::Range>, changed: &[Span]) -> u64 {
        if !self.policy.fills_on_fault() || !self.reencodes() {
            return 0;
        }
        let Some(shadow) = &self.spaces.get(id).shadow else { return 0 };
        let (start, end) = range.map_or((0, u64::MAX), |r| (r.start, r.end));
        let mut beyond = 0;
        shadow.table().visit(start, end, &mut |at, leaf| {
            let last = at + leaf.size.bytes();
            beyond += !changed.iter().any(|(s, e)| at < *e && *s < last) as u64;
            true
        });
        beyond
    }

    /// A forwarded command drops what it covers; first what changed, so that
    /// the rest can be told apart.
    fn hardware_command(
        &mut self,
        id: SpaceId,
        range: Option<sync::Range>,
        changed: &[Span],
        leaf_only: bool,
    ) {
        let (start, end) = range.map_or((0, u64::MAX), |r| (r.start, r.end));
        for tag in &self.spaces.get(id).tags {
            for (s, e) in changed {
                self.iotlb.invalidate(*tag, PageRange::new((*s).max(start), (*e).min(end)));
            }
            let beyond = match range {
                Some(r) => self.iotlb.invalidate(*tag, PageRange::new(r.start, r.end)),
                None => self.iotlb.invalidate_tag(*tag),
            };
            self.counters.iotlb.over_invalidated += beyond as u64;
        }
        match range {
            None => self.caches.invalidate_stage1_tag(Tag(id.0)),
            Some(_) if leaf_only => {}
            Some(r) => self.caches.invalidate_stage1(Tag(id.0), r.start, r.end),
        }
    }
}

//! Events other than DMA.

use super::ReplayError;
use super::engine::Engine;
use super::spaces::SpaceId;
use crate::cache::{PageRange, Store, Tag};
use crate::events::{Event, Flags, Kind, PAGE_MASK, PAGE_SIZE, Perm, Scope};
use crate::shadow::{ShadowOp, SyncContext};
use crate::sync;

/// Reach of an invalidation inside the model.
#[derive(Clone, Copy)]
pub(super) enum Reach {
    Page(SpaceId, PageRange),
    Space(SpaceId),
    All,
}

impl<S: Store> Engine<S> {
    /// Applies an event that is not a DMA.
    pub(super) fn apply(&mut self, e: &Event, number: u64) -> Result<(), ReplayError> {
        if !self.pending.is_empty() && e.kind != Kind::Map {
            self.flush_pending(number);
        }
        let limit = |_| ReplayError::TooManyTags { event: number, limit: Tag::LIMIT };
        match e.kind {
            Kind::Dma => unreachable!("handled by the loop"),
            Kind::Map => self.guest_map(e, number)?,
            Kind::Unmap => self.guest_unmap(e, number),
            Kind::Invalidate => {
                self.guest_invalidate(e, number);
                if self.verifier.as_ref().is_some_and(|v| v.look_is_due()) {
                    self.look_at_shadows(number);
                }
            }
            Kind::HostInvalidate => {
                if self.host_invalidations {
                    self.hardware_invalidate(self.reach(e), e.flags);
                }
            }
            Kind::ParentMap => self.parent_map(e),
            Kind::ParentUnmap => self.parent_unmap(e, number),
            Kind::Attach => {
                let space = self.spaces.of_domain(e.domain, &mut self.parent).map_err(limit)?;
                self.spaces.attach(e.requester, e.pasid, space);
            }
            Kind::Detach => {
                if !self.spaces.detach(e.requester, e.pasid) {
                    self.counters.diagnostics.unattributed += 1;
                }
            }
            Kind::Marker => self.look_at_shadows(number),
            Kind::ShadowMap | Kind::ShadowUnmap => {
                if let Some(v) = &mut self.verifier {
                    v.recorded_shadow_op(number, e, &self.parent);
                }
            }
        }
        if self.lazy {
            self.rebuild_in_background();
        }
        if self.exposed {
            let everything = match e.kind {
                Kind::ParentMap | Kind::ParentUnmap => true,
                Kind::Map => {
                    // It may make valid again what was removed.
                    let space = self.spaces.find(e.domain);
                    if let (Some(exposure), Some(space)) = (&mut self.exposure, space) {
                        let (start, end) = (e.addr & !PAGE_MASK, e.addr.saturating_add(e.size));
                        exposure.touched.push((space, start, end - start));
                    }
                    false
                }
                Kind::Invalidate => e.flags.scope() == Some(Scope::Reset),
                _ => false,
            };
            self.look_at_exposure(number, e.time_ns, everything);
        }
        Ok(())
    }

    /// What an invalidation event reaches; `None` if its domain is unknown
    /// to the model (nothing of it is cached or shadowed).
    pub(super) fn reach(&self, e: &Event) -> Option<Reach> {
        match e.flags.scope()? {
            Scope::Page => {
                // Traces that do not come from VT-d have no descriptor.
                let inside = e.out.wrapping_sub(e.addr) < e.size;
                let range = PageRange {
                    start: e.addr,
                    end: e.addr.saturating_add(e.size),
                    descriptor: if inside { e.out } else { e.addr },
                };
                self.spaces.find(e.domain).map(|id| Reach::Page(id, range))
            }
            Scope::Domain => self.spaces.find(e.domain).map(Reach::Space),
            Scope::Global | Scope::Reset => Some(Reach::All),
            Scope::Context => None,
        }
    }

    /// Drops what an invalidation of the physical IOMMU reaches.
    pub(super) fn hardware_invalidate(&mut self, reach: Option<Reach>, flags: Flags) {
        match reach {
            Some(Reach::Page(id, range)) => {
                for tag in &self.spaces.get(id).tags {
                    self.iotlb.invalidate(*tag, range);
                }
                if !flags.has(Flags::LEAF_ONLY) {
                    self.caches.invalidate_stage1(Tag(id.0), range.start, range.end);
                }
            }
            Some(Reach::Space(id)) => self.drop_space(id),
            Some(Reach::All) => self.spaces.ids().for_each(|id| self.drop_space(id)),
            None => {}
        }
    }

    pub(super) fn drop_space(&mut self, id: SpaceId) {
        for tag in &self.spaces.get(id).tags {
            self.iotlb.invalidate_tag(*tag);
        }
        self.caches.invalidate_stage1_tag(Tag(id.0));
    }

    /// The IOMMU emptied its caches itself (reset, switched on or off).
    pub(super) fn reset(&mut self) {
        self.counters.guest.invalidations.global += 1;
        for id in self.spaces.ids() {
            self.drop_space(id);
            if let Some(shadow) = &mut self.spaces.get_mut(id).shadow {
                // QEMU unmaps the whole address space and replays it at the
                // next context invalidation (vtd_address_space_refresh_all).
                shadow.clear();
                self.emptied(id);
                self.resync(id);
            }
            self.completed(id, None);
        }
        self.caches.invalidate_parent();
    }

    /// Runs a policy on a space's shadow and carries its operations out.
    pub(super) fn with_shadow<T: Default>(
        &mut self,
        id: SpaceId,
        number: u64,
        run: impl FnOnce(&sync::Policy, &mut crate::shadow::Shadow, &mut SyncContext<'_>) -> T,
    ) -> T {
        let space = self.spaces.get_mut(id);
        let (Some(child), Some(shadow)) = (&mut space.child, &mut space.shadow) else {
            return T::default();
        };
        let cx = &mut SyncContext {
            child,
            parent: &self.parent,
            ops: &mut self.ops,
            counters: &mut self.counters.shadow,
        };
        let outcome = run(&self.policy, shadow, cx);
        if self.exposed
            && let Some(exposure) = &mut self.exposure
        {
            exposure.touched.extend(self.ops.iter().map(|op| match *op {
                ShadowOp::Unmap { iova, size } | ShadowOp::Map { iova, size, .. } => {
                    (id, iova, size)
                }
            }));
        }
        for op in &self.ops {
            if let ShadowOp::Unmap { iova, size } = *op {
                let range = PageRange::new(iova, iova.saturating_add(size));
                for tag in &space.tags {
                    self.iotlb.invalidate(*tag, range);
                }
                self.caches.invalidate_stage1(Tag(id.0), range.start, range.end);
            }
        }
        if let Some(v) = &mut self.verifier {
            v.shadow_ops(number, &self.ops);
        }
        if self.followed {
            self.follow(id);
        }
        self.ops.clear();
        outcome
    }

    /// Tells the reference model that an invalidation is complete.
    pub(super) fn completed(&mut self, id: SpaceId, range: Option<sync::Range>) {
        if let Some(v) = &mut self.verifier {
            v.completed(id, range);
        }
    }
}

/// Input address, output address and length of a mapping, rounded outwards to
/// whole pages; `None` if one of the ranges passes the end of 64 bits.
pub(super) fn whole_pages(e: &Event) -> Option<(u64, u64, u64)> {
    let end = e.addr.checked_add(e.size)?.checked_next_multiple_of(PAGE_SIZE)?;
    let (addr, out) = (e.addr & !PAGE_MASK, e.out & !PAGE_MASK);
    out.checked_add(end - addr)?;
    Some((addr, out, end - addr))
}

/// Recordings without rights mean "both".
pub(super) fn or_rw(perm: Perm) -> Perm {
    if perm == Perm::NONE { Perm::RW } else { perm }
}

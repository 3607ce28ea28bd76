//! What the records of a bundle mean: the parent's table, the shadow, the
//! physical IOTLB, and the events written for them.

use std::collections::VecDeque;

use ioasim_events::{DomainId, Event, Flags, Kind, Requester, Scope};

use super::bundle_scan::Scan;
use super::emit::{Emitter, Mapping, page_span};
use super::iotlb::Iotlb;
use super::lines::EventSink;
use super::model::Model;
use super::tables::{Range, Removed, Tables};
use super::window::{FtKind, FtRec, LogKind, LogRec, NONE, log_flags};
use crate::Result;

/// Regions of guest RAM kept at most; machines have a few dozen.
const MAX_REGIONS: usize = 4096;
/// Assigned devices kept at most.
const MAX_DEVICES: usize = 4096;
/// Key of the parent's table.
const PARENT: u32 = 0;

/// What a bundle's import counts beside what the [`Emitter`] does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BundleCounts {
    pub(crate) table_changes: u64,
    pub(crate) by_invalidation: u64,
    pub(crate) by_liveness: u64,
    pub(crate) without_domain: u64,
    pub(crate) notified: u64,
    pub(crate) shadow_maps: u64,
    pub(crate) shadow_unmaps: u64,
    pub(crate) shadow_hpa_checked: u64,
    pub(crate) shadow_hpa_mismatches: u64,
    pub(crate) shadow_maps_scattered: u64,
    pub(crate) shadow_maps_without_hpa: u64,
    pub(crate) parent_maps: u64,
    pub(crate) parent_unmaps: u64,
    pub(crate) parent_readded: u64,
    pub(crate) hypervisor_unmaps_at_switch: u64,
    pub(crate) hypervisor_changes_of_others: u64,
    pub(crate) dma_of_other_devices: u64,
    pub(crate) dma_in_parent: u64,
    pub(crate) dma_without_mapping: u64,
    pub(crate) host_invalidations: u64,
    pub(crate) host_invalidations_of_others: u64,
    pub(crate) labels: u64,
    pub(crate) labels_unlike_qemu: u64,
    pub(crate) pulled: u64,
    pub(crate) regions_pulled: u64,
    pub(crate) switches: u64,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct State {
    scan: Scan,
    /// The assigned device is behind the guest's IOMMU; else it is attached
    /// straight to the parent.
    shadowed: bool,
    /// RAM that VFIO was told about, `[start, end]`.
    regions: Vec<(u64, u64)>,
    parent: Tables,
    shadow: Tables,
    iotlb: Iotlb,
    /// Requester ids of assigned devices and their physical domains.
    devices: Vec<(u32, u32)>,
    removed: Vec<Removed>,
    /// Hypervisor's descriptors that invalidate what VFIO removed of the
    /// parent when the device moved behind the guest's IOMMU.
    removals: VecDeque<u64>,
    pub(crate) counts: BundleCounts,
}

impl State {
    pub(crate) fn new(scan: Scan) -> State {
        State {
            scan,
            shadowed: false,
            regions: Vec::new(),
            parent: Tables::default(),
            shadow: Tables::default(),
            iotlb: Iotlb::new(Model::VtD),
            devices: Vec::new(),
            removed: Vec::new(),
            removals: VecDeque::new(),
            counts: BundleCounts::default(),
        }
    }

    /// A map or unmap of the guest.
    pub(crate) fn guest_change<S: EventSink>(
        &mut self,
        out: &mut Emitter<S>,
        time: i64,
        rec: &FtRec,
        told: Option<u32>,
        perm: u8,
    ) -> Result<()> {
        let c = &mut self.counts;
        c.table_changes += 1;
        let mut flags = Flags::default();
        // All of the guest's changes are announced; with one domain there is
        // no choice anyway.
        let only = match self.scan.guest_domain.len() {
            1 => self.scan.guest_domain.values().next().copied(),
            _ => None,
        };
        let domain = match (told, only) {
            (Some(domain), _) => {
                c.by_invalidation += 1;
                domain
            }
            (None, Some(domain)) => {
                c.by_liveness += 1;
                domain
            }
            (None, None) => {
                c.without_domain += 1;
                DomainId::NONE.0
            }
        };
        if rec.kind == FtKind::Unmap {
            return out.unmap(time, rec.cpu, domain, rec.a, rec.size, flags);
        }
        flags = flags.with(Flags(u32::from(perm)));
        if told.is_some() {
            c.notified += 1;
            flags = flags.with(Flags::NOTIFIED);
        }
        out.map(time, rec.cpu, domain, Mapping { iova: rec.a, size: rec.size, out: rec.b }, flags)
    }

    /// An operation of the VMM on the shadow. `pieces` are the hypervisor's
    /// maps that it became.
    pub(crate) fn shadow_change<S: EventSink>(
        &mut self,
        out: &mut Emitter<S>,
        time: i64,
        rec: &LogRec,
        pieces: &[FtRec],
    ) -> Result<()> {
        out.agree(time, rec, false)?;
        let map = rec.flags != 0;
        let mut e = Event::new(if map { Kind::ShadowMap } else { Kind::ShadowUnmap });
        (e.addr, e.size, e.domain) = (rec.a, rec.c.wrapping_add(1), DomainId(rec.domain));
        if !map {
            self.counts.shadow_unmaps += 1;
            return out.write(time, e);
        }
        self.counts.shadow_maps += 1;
        e.out = rec.b;
        e.flags = Flags(u32::from(rec.flags));
        let Some(first) = pieces.first() else {
            self.counts.shadow_maps_without_hpa += 1;
            return out.write(time, e);
        };
        if pieces.iter().all(|p| p.b.wrapping_sub(first.b) == p.a.wrapping_sub(first.a)) {
            e.aux = first.b;
        } else {
            // One number cannot tell pages that lie apart.
            self.counts.shadow_maps_scattered += 1;
        }
        self.counts.shadow_hpa_checked += 1;
        let right = pieces.iter().all(|p| {
            (0..p.size >> 12).all(|i| {
                let gpa = rec.b.wrapping_add(p.a - rec.a).wrapping_add(i << 12);
                self.parent.lookup(PARENT, gpa >> 12) == Some((p.b >> 12) + i)
            })
        });
        self.counts.shadow_hpa_mismatches += u64::from(!right);
        out.write(time, e)
    }

    /// A device's address space is switched. `moves_regions`: VFIO follows,
    /// so it is an assigned one.
    pub(crate) fn switch<S: EventSink>(
        &mut self,
        out: &mut Emitter<S>,
        time: i64,
        rec: &LogRec,
        moves_regions: bool,
    ) -> Result<()> {
        let on = rec.c != 0;
        if !moves_regions || on == self.shadowed {
            return Ok(());
        }
        self.shadowed = on;
        self.counts.switches += 1;
        for i in 0..self.devices.len() {
            let (sid, domain) = self.devices[i];
            let domain = self.domain(domain);
            out.attach(time, sid, domain.0)?;
        }
        Ok(())
    }

    /// VFIO is told about a region of guest memory.
    pub(crate) fn region(&mut self, rec: &LogRec) {
        if self.shadowed {
            // What the container holds changes, the parent's table does not.
            return;
        }
        let (start, end) = (rec.a, rec.b);
        if rec.kind == LogKind::RegionDel {
            self.regions.retain(|(s, e)| *s < start || *e > end);
        } else if self.regions.len() < MAX_REGIONS {
            self.regions.push((start, end));
        }
    }

    fn in_region(&self, rec: &FtRec) -> bool {
        let last = rec.a + (rec.size - 1);
        self.regions.iter().any(|(s, e)| *s <= rec.a && last <= *e)
    }

    /// What VFIO must have been told before a map or unmap of the parent's
    /// table in the hypervisor, if it was not.
    pub(crate) fn awaited_region(&self, rec: &FtRec, told: Option<u32>) -> Option<LogKind> {
        let other = told.is_some_and(|d| !self.scan.guest_domain.contains_key(&d));
        if other || self.shadowed || rec.vmm != NONE || !rec.changes_table() {
            return None;
        }
        let (page, pages) = page_span(rec.a, rec.size);
        match (rec.kind, self.in_region(rec)) {
            (FtKind::Map, false) => Some(LogKind::RegionRam),
            (FtKind::Unmap, true) if self.parent.live_pages(PARENT, page, pages) > 0 => {
                Some(LogKind::RegionDel)
            }
            _ => None,
        }
    }

    /// A map or unmap in the hypervisor.
    pub(crate) fn hypervisor_change<S: EventSink>(
        &mut self,
        out: &mut Emitter<S>,
        time: i64,
        rec: &FtRec,
        told: Option<u32>,
    ) -> Result<()> {
        let (page, pages) = page_span(rec.a, rec.size);
        if told.is_some_and(|d| !self.scan.guest_domain.contains_key(&d)) {
            self.counts.hypervisor_changes_of_others += 1;
            return Ok(());
        }
        if rec.vmm != NONE || self.shadowed {
            let domain = self.shadow_domain(rec, told);
            self.removed.clear();
            self.shadow.unmap(domain, page, pages, &mut self.removed);
            if rec.kind == FtKind::Map {
                let range = Range { pages, out: rec.b >> 12, perm: 3, fresh: false, used: false };
                self.shadow.map(domain, page, range);
            } else if rec.vmm == NONE {
                self.counts.hypervisor_unmaps_at_switch += 1;
                if self.removed.is_empty()
                    && rec.peer != NONE
                    && self.removals.back() != Some(&rec.peer)
                {
                    if self.removals.len() == MAX_REGIONS {
                        self.removals.pop_front();
                    }
                    self.removals.push_back(rec.peer);
                }
            }
            return Ok(());
        }
        match rec.kind {
            FtKind::Map if self.in_region(rec) => {
                let out_page = rec.b >> 12;
                let same = self.parent.range_of(PARENT, page).is_some_and(|(start, r)| {
                    r.out + (page - start) == out_page && start + r.pages >= page + pages
                });
                if same {
                    self.counts.parent_readded += 1;
                    return Ok(());
                }
                self.parent_unmap(out, time, page, pages)?;
                self.parent.map(
                    PARENT,
                    page,
                    Range { pages, out: out_page, perm: 3, fresh: false, used: false },
                );
                self.counts.parent_maps += 1;
                let mut e = Event::new(Kind::ParentMap);
                (e.addr, e.size, e.out, e.flags) =
                    (rec.a, rec.size, rec.b, Flags::READ.with(Flags::WRITE));
                out.write(time, e)
            }
            FtKind::Unmap if self.parent.live_pages(PARENT, page, pages) > 0 => {
                if self.in_region(rec) {
                    // Nobody removed the region: the VMM gives up the device.
                    self.counts.hypervisor_unmaps_at_switch += 1;
                    return Ok(());
                }
                self.parent_unmap(out, time, page, pages)
            }
            _ => {
                self.counts.hypervisor_changes_of_others += 1;
                Ok(())
            }
        }
    }

    /// The guest's domain whose shadow a record changes.
    fn shadow_domain(&self, rec: &FtRec, told: Option<u32>) -> u32 {
        if rec.domain != u32::MAX {
            return rec.domain;
        }
        let known = &self.scan.guest_domain;
        told.and_then(|d| known.get(&d))
            .or_else(|| known.values().next())
            .copied()
            .unwrap_or(u32::MAX)
    }

    /// Removes pages of the parent's table, one event per run.
    fn parent_unmap<S: EventSink>(
        &mut self,
        out: &mut Emitter<S>,
        time: i64,
        page: u64,
        pages: u64,
    ) -> Result<()> {
        self.removed.clear();
        self.parent.unmap(PARENT, page, pages, &mut self.removed);
        let mut i = 0;
        while i < self.removed.len() {
            let start = self.removed[i].page;
            let mut end = start + self.removed[i].pages;
            i += 1;
            while i < self.removed.len() && self.removed[i].page == end {
                end += self.removed[i].pages;
                i += 1;
            }
            self.counts.parent_unmaps += 1;
            let mut e = Event::new(Kind::ParentUnmap);
            (e.addr, e.size) = (start << 12, (end - start) << 12);
            out.write(time, e)?;
        }
        Ok(())
    }

    /// The domain that a device in physical domain `host` is in now.
    fn domain(&self, host: u32) -> DomainId {
        match self.scan.guest_domain.get(&host) {
            Some(domain) if self.shadowed => DomainId(*domain),
            _ => DomainId::PARENT,
        }
    }

    /// True if neither the tables nor the IOTLB explain an access.
    pub(crate) fn lacks_mapping(&self, rec: &LogRec) -> bool {
        let (page, out) = (rec.a >> 12, rec.b >> 12);
        if !rec.has(log_flags::OUT) || !self.scan.guest_domain.contains_key(&rec.domain) {
            return false;
        }
        if rec.has(log_flags::HIT) && self.iotlb.lookup(rec.sid, rec.domain, page) == Some(out) {
            return false;
        }
        let mapped = if self.shadowed {
            self.shadow.lookup(self.domain(rec.domain).0, page)
        } else {
            self.parent.lookup(PARENT, page)
        };
        mapped != Some(out)
    }

    /// An access seen by the physical IOMMU.
    pub(crate) fn dma<S: EventSink>(&mut self, out: &mut Emitter<S>, rec: &LogRec) -> Result<()> {
        let assigned = self.scan.guest_domain.contains_key(&rec.domain);
        if assigned {
            self.counts.dma_without_mapping += u64::from(self.lacks_mapping(rec));
        }
        if rec.has(log_flags::LABEL) {
            let page = rec.a >> 12;
            let hit = self.iotlb.lookup(rec.sid, rec.domain, page);
            self.counts.labels += u64::from(assigned);
            self.counts.labels_unlike_qemu += u64::from(hit.is_some() != rec.has(log_flags::HIT));
            if !rec.has(log_flags::HIT) || hit != Some(rec.b >> 12) {
                self.iotlb.insert(rec.sid, rec.domain, page, rec.b >> 12, rec.c >> 12);
            }
        }
        if !assigned {
            self.counts.dma_of_other_devices += 1;
            return Ok(());
        }
        if !self.devices.contains(&(rec.sid, rec.domain)) && self.devices.len() < MAX_DEVICES {
            self.devices.push((rec.sid, rec.domain));
        }
        let domain = self.domain(rec.domain);
        self.counts.dma_in_parent += u64::from(domain == DomainId::PARENT);
        out.attach(rec.time, rec.sid, domain.0)?;
        let mut e = Event::new(Kind::Dma);
        (e.domain, e.requester, e.addr) = (domain, Requester(rec.sid), rec.a);
        let mut flags = Flags::default();
        if rec.has(log_flags::OUT) {
            flags = flags.with(Flags::OUT_KNOWN);
            e.out = rec.b;
        }
        if rec.has(log_flags::FAULT) {
            flags = flags.with(Flags::FAULT).with(Flags(u32::from(rec.flags & 3)));
        }
        if rec.has(log_flags::LABEL) {
            flags = flags.with(Flags::LABEL_KNOWN);
            if rec.has(log_flags::HIT) {
                flags = flags.with(Flags::HIT);
            }
        }
        e.flags = flags;
        out.counts.dma += 1;
        out.write(rec.time, e)
    }

    /// An invalidation of the physical IOMMU.
    pub(crate) fn host_invalidation<S: EventSink>(
        &mut self,
        out: &mut Emitter<S>,
        rec: &LogRec,
    ) -> Result<()> {
        let d = rec.descriptor();
        if let Some((domain, addr, am)) = d.pages() {
            self.iotlb.drop_pages(domain, addr >> 12, am);
        } else if let Some(domain) = d.flush() {
            match domain {
                Some(domain) => self.iotlb.drop_domain(domain),
                None => self.iotlb.clear(),
            }
        }
        let Some(mut e) = d.event(Kind::HostInvalidate) else { return Ok(()) };
        let ours = match e.flags.scope() {
            Some(Scope::Page | Scope::Domain) => self.scan.guest_domain.contains_key(&e.domain.0),
            Some(Scope::Context) => {
                e.requester == Requester::NONE
                    || self.devices.iter().any(|(sid, _)| *sid == e.requester.0)
            }
            _ => true,
        };
        if !ours {
            self.counts.host_invalidations_of_others += 1;
            return Ok(());
        }
        if e.domain != DomainId::NONE {
            e.domain = self.domain(e.domain.0);
            while self.removals.front().is_some_and(|submit| *submit < rec.peer) {
                self.removals.pop_front();
            }
            if rec.peer != NONE && self.removals.front() == Some(&rec.peer) {
                e.domain = DomainId::PARENT;
            }
        }
        self.counts.host_invalidations += 1;
        out.write(rec.time, e)
    }

    /// The physical IOMMU empties its caches.
    pub(crate) fn host_reset<S: EventSink>(
        &mut self,
        out: &mut Emitter<S>,
        time: i64,
    ) -> Result<()> {
        self.iotlb.clear();
        self.counts.host_invalidations += 1;
        let mut e = Event::new(Kind::HostInvalidate);
        e.flags = Flags::with_scope(Scope::Reset);
        out.write(time, e)
    }
}

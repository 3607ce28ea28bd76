//! Collecting statistics chunk by chunk.

use std::collections::{BTreeMap, BTreeSet};

use ioasim_events::{Chunk, DomainId, Event, Flags, Kind, PAGE_SHIFT, Pasid, Requester, Scope};
use rustc_hash::{FxHashMap, FxHashSet};

use super::extents::{Extents, span};
use super::locality::Collector;
use super::values::Values;
use super::{
    DeviceStats, DomainStats, Inferred, Invalidations, MapStats, Pages, ParentStats, Recorded,
    Reuse, SizeClass, TraceStats,
};
use crate::file::Meta;

/// Collects [`TraceStats`] from chunks in their order.
#[derive(Debug)]
pub struct StatsBuilder {
    meta: Meta,
    events: u64,
    end_ns: u64,
    kinds: [u64; Kind::ALL.len()],
    recorded: Recorded,
    inferred: Inferred,
    invalidations: Invalidations,
    maps: MapStats,
    /// By log2 of the size, rounded up.
    size_classes: [u64; 65],
    lifetimes: Values,
    accesses_per_map: Values,
    mapped_pages: u64,
    parent: ParentStats,
    parent_extents: Extents,
    devices: BTreeMap<u32, Device>,
    domains: BTreeMap<u32, Domain>,
    outputs: FxHashSet<u64>,
    locality: Collector,
}

/// One device while collecting.
#[derive(Debug, Default)]
struct Device {
    dma: u64,
    dma_bytes: u64,
    labels: u64,
    hits: u64,
    faults: u64,
    domains: BTreeSet<u32>,
    pasids: BTreeSet<u32>,
    pages: FxHashSet<(u32, u64)>,
}

/// One domain while collecting.
#[derive(Debug, Default)]
struct Domain {
    dma: u64,
    maps: u64,
    unmaps: u64,
    invalidations_page: u64,
    invalidations_domain: u64,
    /// Accesses of each page.
    accessed: FxHashMap<u64, u64>,
    /// Maps of each page.
    mapped: FxHashMap<u64, u64>,
    outputs: FxHashSet<u64>,
    extents: Extents,
    peak_pages: u64,
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The pages of `[addr, addr + size)`, at least one, at most
/// [`StatsBuilder::MAX_PAGES`].
fn pages(addr: u64, size: u64) -> impl Iterator<Item = u64> {
    let first = addr >> PAGE_SHIFT;
    let last = addr.saturating_add(size.saturating_sub(1)) >> PAGE_SHIFT;
    first..=last.min(first + StatsBuilder::MAX_PAGES - 1)
}

impl StatsBuilder {
    /// Most pages that one event counts for in the figures per page: 2 MiB.
    /// It bounds memory and time if a map covers terabytes.
    pub const MAX_PAGES: u64 = 512;

    /// Statistics of a trace with this metadata.
    pub fn new(meta: &Meta) -> StatsBuilder {
        StatsBuilder {
            meta: meta.clone(),
            events: 0,
            end_ns: 0,
            kinds: Default::default(),
            recorded: Recorded::default(),
            inferred: Inferred::default(),
            invalidations: Invalidations::default(),
            maps: MapStats::default(),
            size_classes: [0; 65],
            lifetimes: Values::default(),
            accesses_per_map: Values::default(),
            mapped_pages: 0,
            parent: ParentStats::default(),
            parent_extents: Extents::default(),
            devices: BTreeMap::new(),
            domains: BTreeMap::new(),
            outputs: FxHashSet::default(),
            locality: Collector::new(meta.totals.events),
        }
    }

    /// Counts the next chunk.
    pub fn add(&mut self, chunk: &Chunk) {
        for i in 0..chunk.len() {
            self.event(&chunk.event(i));
        }
    }

    fn event(&mut self, e: &Event) {
        self.events += 1;
        self.end_ns = e.time_ns;
        self.kinds[e.kind as usize] += 1;
        self.locality.event(e);
        self.inferred.domains_inferred += u64::from(e.flags.has(Flags::DOMAIN_INFERRED));
        if e.flags.has(Flags::INFERRED) {
            match e.kind {
                Kind::Map => self.inferred.maps_inferred += 1,
                Kind::Unmap => self.inferred.unmaps_inferred += 1,
                _ => self.inferred.others_inferred += 1,
            }
        }
        match e.kind {
            Kind::Dma => self.dma(e),
            Kind::Map => self.map(e),
            Kind::Unmap => self.unmap(e),
            Kind::Invalidate => self.invalidate(e),
            Kind::HostInvalidate => self.invalidations.host += 1,
            Kind::ParentMap => {
                self.parent.maps += 1;
                if let Some((first, last)) = span(e.addr, e.size) {
                    self.parent_extents.remove(first, last, |_| {});
                    self.parent_extents.insert(first, last, e.time_ns);
                    let bytes = u64::try_from(self.parent_extents.bytes()).unwrap_or(u64::MAX);
                    self.parent.peak_bytes = self.parent.peak_bytes.max(bytes);
                }
            }
            Kind::ParentUnmap => {
                self.parent.unmaps += 1;
                if let Some((first, last)) = span(e.addr, e.size) {
                    self.parent_extents.remove(first, last, |_| {});
                }
            }
            Kind::Attach | Kind::Detach | Kind::Marker | Kind::ShadowMap | Kind::ShadowUnmap => {}
        }
    }

    fn dma(&mut self, e: &Event) {
        self.locality.access(e);
        let r = &mut self.recorded;
        let device = self.devices.entry(e.requester.0).or_default();
        let domain = self.domains.entry(e.domain.0).or_default();
        r.dma += 1;
        device.dma += 1;
        domain.dma += 1;
        if e.size > 0 {
            r.dma_with_length += 1;
            r.dma_bytes = r.dma_bytes.saturating_add(e.size);
            device.dma_bytes = device.dma_bytes.saturating_add(e.size);
        }
        r.dma_with_direction += u64::from(e.flags.perm().0 != 0);
        if e.flags.has(Flags::LABEL_KNOWN) {
            let hit = u64::from(e.flags.has(Flags::HIT));
            r.dma_with_label += 1;
            r.label_hits += hit;
            device.labels += 1;
            device.hits += hit;
        }
        if e.flags.has(Flags::FAULT) {
            r.dma_faults += 1;
            device.faults += 1;
        }
        if e.flags.has(Flags::OUT_KNOWN) {
            r.dma_with_output += 1;
            for page in pages(e.out, e.size) {
                domain.outputs.insert(page);
                self.outputs.insert(page);
            }
        }
        if e.domain == DomainId::NONE {
            self.inferred.dma_unattributed += 1;
        }
        device.domains.insert(e.domain.0);
        if e.pasid != Pasid::NONE {
            device.pasids.insert(e.pasid.0);
        }
        for page in pages(e.addr, e.size) {
            let count = domain.accessed.entry(page).or_default();
            *count += 1;
            device.pages.insert((e.domain.0, page));
        }
        match domain.extents.find(e.addr) {
            Some(extent) => extent.accesses += 1,
            None => self.inferred.dma_outside_maps += u64::from(domain.maps > 0),
        }
    }

    fn map(&mut self, e: &Event) {
        let domain = self.domains.entry(e.domain.0).or_default();
        domain.maps += 1;
        self.inferred.maps_unattributed += u64::from(e.domain == DomainId::NONE);
        self.inferred.maps_notified += u64::from(e.flags.has(Flags::NOTIFIED));
        let Some((first, last)) = span(e.addr, e.size) else {
            return;
        };
        self.maps.mapped_bytes = self.maps.mapped_bytes.saturating_add(e.size);
        self.size_classes[(u64::BITS - (e.size - 1).leading_zeros()) as usize] += 1;
        for page in pages(e.addr, e.size) {
            *domain.mapped.entry(page).or_default() += 1;
        }
        let before = domain.extents.bytes();
        let again = domain.extents.remove(first, last, |_| {});
        domain.extents.insert(first, last, e.time_ns);
        self.maps.remapped_bytes = self.maps.remapped_bytes.saturating_add(clamp(again));
        let pages = to_pages(domain.extents.bytes());
        domain.peak_pages = domain.peak_pages.max(pages);
        self.mapped_pages = self.mapped_pages.saturating_add(pages - to_pages(before).min(pages));
        self.maps.peak_pages = self.maps.peak_pages.max(self.mapped_pages);
    }

    fn unmap(&mut self, e: &Event) {
        let domain = self.domains.entry(e.domain.0).or_default();
        domain.unmaps += 1;
        self.inferred.maps_unattributed += u64::from(e.domain == DomainId::NONE);
        let Some((first, last)) = span(e.addr, e.size) else {
            return;
        };
        self.maps.unmapped_bytes = self.maps.unmapped_bytes.saturating_add(e.size);
        let before = to_pages(domain.extents.bytes());
        let (lifetimes, per_map) = (&mut self.lifetimes, &mut self.accesses_per_map);
        let removed = domain.extents.remove(first, last, |extent| {
            lifetimes.add(e.time_ns.saturating_sub(extent.since_ns));
            per_map.add(extent.accesses);
        });
        let unknown = clamp(u128::from(last - first) + 1 - removed);
        self.inferred.unmapped_bytes_unknown =
            self.inferred.unmapped_bytes_unknown.saturating_add(unknown);
        let gone = before - to_pages(domain.extents.bytes());
        self.mapped_pages = self.mapped_pages.saturating_sub(gone);
    }

    fn invalidate(&mut self, e: &Event) {
        let i = &mut self.invalidations;
        i.leaf_only += u64::from(e.flags.has(Flags::LEAF_ONLY));
        self.inferred.invalidations_map_notify += u64::from(e.flags.has(Flags::MAP_NOTIFY));
        match e.flags.scope() {
            Some(Scope::Page) => {
                i.page += 1;
                let pages = (e.size >> PAGE_SHIFT).max(1);
                i.page_covered_pages = i.page_covered_pages.saturating_add(pages);
                self.domains.entry(e.domain.0).or_default().invalidations_page += 1;
            }
            Some(Scope::Domain) => {
                i.domain += 1;
                self.domains.entry(e.domain.0).or_default().invalidations_domain += 1;
            }
            Some(Scope::Global) => i.global += 1,
            Some(Scope::Context) => i.context += 1,
            Some(Scope::Reset) => i.reset += 1,
            None => i.unknown += 1,
        }
        let needs_domain = matches!(e.flags.scope(), Some(Scope::Page | Scope::Domain));
        if needs_domain && e.domain == DomainId::NONE {
            self.inferred.invalidations_unattributed += 1;
        }
    }

    /// The statistics of what was added.
    pub fn finish(mut self) -> TraceStats {
        let mut accesses = Values::default();
        let mut maps = Values::default();
        let mut domains = Vec::new();
        for (&id, d) in &self.domains {
            d.accessed.values().for_each(|&n| accesses.add(n));
            d.mapped.values().for_each(|&n| maps.add(n));
            self.maps.alive_at_end += d.extents.len() as u64;
            domains.push(DomainStats {
                domain: (id < DomainId::PARENT.0).then_some(id),
                is_parent: id == DomainId::PARENT.0,
                dma: d.dma,
                maps: d.maps,
                unmaps: d.unmaps,
                invalidations_page: d.invalidations_page,
                invalidations_domain: d.invalidations_domain,
                iova_pages: d.accessed.len() as u64,
                output_pages: d.outputs.len() as u64,
                peak_pages: d.peak_pages,
            });
        }
        let devices = self.devices.into_iter().map(|(id, d)| DeviceStats {
            requester: Requester(id).to_string(),
            domains: d.domains.into_iter().collect(),
            dma: d.dma,
            dma_bytes: d.dma_bytes,
            labels: d.labels,
            label_hits: d.hits,
            label_hit_share: share(d.hits, d.labels),
            faults: d.faults,
            iova_pages: d.pages.len() as u64,
            pasids: d.pasids.len() as u64,
        });
        self.recorded.label_hit_share =
            share(self.recorded.label_hits, self.recorded.dma_with_label);
        let classes = self.size_classes.iter().enumerate().filter(|(_, n)| **n > 0);
        self.maps.sizes = classes
            .map(|(log2, &maps)| SizeClass {
                up_to_bytes: 1u64.checked_shl(log2 as u32).unwrap_or(u64::MAX),
                maps,
            })
            .collect();
        self.maps.lifetime_ns = self.lifetimes.spread();
        let kinds = Kind::ALL.iter().zip(self.kinds).filter(|&(_, n)| n > 0);
        TraceStats {
            file: None,
            events: self.events,
            end_ns: self.end_ns,
            events_by_kind: kinds.map(|(k, n)| (k.name(), n)).collect(),
            recorded: self.recorded,
            inferred: self.inferred,
            invalidations: self.invalidations,
            maps: self.maps,
            reuse: Reuse {
                accesses_per_page: accesses.spread(),
                accesses_per_map: self.accesses_per_map.spread(),
                maps_per_page: maps.spread(),
            },
            locality: self.locality.finish(),
            pages: Pages {
                accessed: domains.iter().map(|d| d.iova_pages).sum(),
                mapped: self.domains.values().map(|d| d.mapped.len() as u64).sum(),
                outputs: self.outputs.len() as u64,
            },
            parent: self.parent,
            devices: devices.collect(),
            domains,
            provenance: self.meta,
        }
    }
}

fn clamp(bytes: u128) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn to_pages(bytes: u128) -> u64 {
    clamp(bytes.div_ceil(1 << PAGE_SHIFT))
}

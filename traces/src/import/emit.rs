//! Writes events and keeps what they imply: the guest's tables, the emulated
//! IOTLB, which device is where. Where a recorded access contradicts the
//! tables, the missing change is written first, marked as inferred.

use std::collections::BTreeMap;

use ioasim_events::{DomainId, Event, Flags, Kind, Requester, Scope};
use rustc_hash::FxHashMap;

use super::desc::Descriptor;
use super::iotlb::Iotlb;
use super::lines::EventSink;
use super::model::Model;
use super::tables::{Range, Removed, Tables};
use super::window::{LogRec, log_flags};
use crate::Result;

/// Unmapped and not yet invalidated ranges kept (caching mode only).
const MAX_DIRTY: usize = 1 << 16;

/// What an [`Emitter`] counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EmitCounts {
    pub(crate) events: u64,
    pub(crate) dma: u64,
    pub(crate) maps: u64,
    pub(crate) unmaps: u64,
    pub(crate) invalidations: u64,
    pub(crate) attaches: u64,
    pub(crate) inferred_maps: u64,
    pub(crate) inferred_unmaps: u64,
    /// The same while the guest's ftrace covers the log.
    pub(crate) inferred_maps_covered: u64,
    pub(crate) inferred_unmaps_covered: u64,
    /// Recorded unmaps of pages that were not known to be mapped.
    pub(crate) unmaps_of_unknown: u64,
    pub(crate) labels: u64,
    pub(crate) labels_unlike_qemu: u64,
    /// Recorded hits on an entry whose mapping has changed.
    pub(crate) stale_hits: u64,
    pub(crate) map_notify: u64,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Emitter<S> {
    sink: S,
    pub(crate) tables: Tables,
    iotlb: Iotlb,
    attached: FxHashMap<u32, u32>,
    /// Pages unmapped and not invalidated yet: length by first page.
    dirty: BTreeMap<(u32, u64), u64>,
    /// Log time of the first event.
    first: Option<i64>,
    last: u64,
    /// The guest announces new mappings.
    pub(crate) caching_mode: bool,
    /// The guest's ftrace covers the present.
    pub(crate) covered: bool,
    /// Requester ids are the guest's own.
    pub(crate) guest_devices: bool,
    /// Invalidations are signs of unmaps: nothing else tells about them.
    pub(crate) unmap_by_invalidation: bool,
    pub(crate) counts: EmitCounts,
    removed: Vec<Removed>,
}

impl<S: EventSink> Emitter<S> {
    pub(crate) fn new(sink: S) -> Self {
        Emitter {
            sink,
            tables: Tables::default(),
            iotlb: Iotlb::new(Model::VtD),
            attached: FxHashMap::default(),
            dirty: BTreeMap::new(),
            first: None,
            last: 0,
            caching_mode: false,
            covered: false,
            guest_devices: true,
            unmap_by_invalidation: true,
            counts: EmitCounts::default(),
            removed: Vec::new(),
        }
    }

    /// The recording is of this IOMMU.
    pub(crate) fn set_model(&mut self, model: Model) {
        self.iotlb = Iotlb::new(model);
    }

    /// Gives the event its time and writes it.
    pub(crate) fn write(&mut self, time: i64, mut event: Event) -> Result<()> {
        event.time_ns = self.time(time);
        self.counts.events += 1;
        self.sink.push(&event)
    }

    pub(crate) fn marker(&mut self, time: i64, cpu: u32, text: &str) -> Result<()> {
        let mut event = Event::new(Kind::Marker);
        event.cpu = cpu_column(cpu);
        event.time_ns = self.time(time);
        self.counts.events += 1;
        self.sink.push_marker(&event, text)
    }

    /// ns since the first event, never decreasing.
    fn time(&mut self, time: i64) -> u64 {
        let first = *self.first.get_or_insert(time);
        self.last = self.last.max(u64::try_from(time.saturating_sub(first)).unwrap_or(0));
        self.last
    }

    /// A recorded map of the guest. `flags`: rights and marks.
    pub(crate) fn map(
        &mut self,
        time: i64,
        cpu: u32,
        domain: u32,
        m: Mapping,
        flags: Flags,
    ) -> Result<()> {
        let (page, pages) = page_span(m.iova, m.size);
        if domain != DomainId::NONE.0 {
            // The change that made room was not recorded.
            self.infer_unmap(time, domain, page, pages)?;
            let perm = flags.perm().0;
            self.tables.map(
                domain,
                page,
                Range { pages, out: m.out >> 12, perm, fresh: true, used: false },
            );
        }
        self.counts.maps += 1;
        let mut e = Event::new(Kind::Map);
        (e.flags, e.cpu, e.domain) = (flags, cpu_column(cpu), DomainId(domain));
        (e.addr, e.size, e.out) = (m.iova, m.size, m.out);
        self.write(time, e)
    }

    /// A recorded unmap of the guest.
    pub(crate) fn unmap(
        &mut self,
        time: i64,
        cpu: u32,
        domain: u32,
        iova: u64,
        size: u64,
        flags: Flags,
    ) -> Result<()> {
        let (page, pages) = page_span(iova, size);
        if domain != DomainId::NONE.0 {
            self.removed.clear();
            self.tables.unmap(domain, page, pages, &mut self.removed);
            let known: u64 = self.removed.iter().map(|r| r.pages).sum();
            self.counts.unmaps_of_unknown += u64::from(known == 0);
            self.soil(domain, page, pages);
        }
        self.counts.unmaps += 1;
        let mut e = Event::new(Kind::Unmap);
        (e.flags, e.cpu, e.domain) = (flags, cpu_column(cpu), DomainId(domain));
        (e.addr, e.size) = (iova, size);
        self.write(time, e)
    }

    /// Unmaps what is known to be mapped in these pages, as inferred.
    pub(crate) fn infer_unmap(
        &mut self,
        time: i64,
        domain: u32,
        page: u64,
        pages: u64,
    ) -> Result<()> {
        if self.tables.forgotten == 0 && self.tables.is_free(domain, page, pages) {
            return Ok(());
        }
        self.removed.clear();
        let mut removed = std::mem::take(&mut self.removed);
        self.tables.unmap(domain, page, pages, &mut removed);
        if removed.is_empty() && self.tables.forgotten > 0 {
            // It may have been mapped and forgotten: unmapping is harmless.
            removed.push(Removed { page, pages, out: 0 });
        }
        let mut i = 0;
        while i < removed.len() {
            let first = removed[i];
            let mut end = first.page + first.pages;
            i += 1;
            while i < removed.len() && removed[i].page == end {
                end += removed[i].pages;
                i += 1;
            }
            self.counts.inferred_unmaps += 1;
            self.counts.inferred_unmaps_covered += u64::from(self.covered);
            self.soil(domain, first.page, end - first.page);
            let mut e = Event::new(Kind::Unmap);
            (e.flags, e.domain) = (Flags::INFERRED, DomainId(domain));
            (e.addr, e.size) = (first.page << 12, (end - first.page) << 12);
            self.write(time, e)?;
        }
        self.removed = removed;
        Ok(())
    }

    /// Maps a page that an access proves, as inferred.
    ///
    /// `marks`: NOTIFIED if an invalidation follows that announces it.
    fn infer_map(
        &mut self,
        time: i64,
        domain: u32,
        p: Pages,
        perm: u8,
        marks: Flags,
    ) -> Result<()> {
        let Pages { page, pages, out } = p;
        self.infer_unmap(time, domain, page, pages)?;
        let fresh = marks.has(Flags::NOTIFIED);
        self.tables.map(domain, page, Range { pages, out, perm, fresh, used: true });
        self.counts.inferred_maps += 1;
        self.counts.inferred_maps_covered += u64::from(self.covered);
        let mut e = Event::new(Kind::Map);
        (e.flags, e.domain) =
            (Flags::INFERRED.with(Flags(u32::from(perm))).with(marks), DomainId(domain));
        (e.addr, e.size, e.out) = (page << 12, pages << 12, out << 12);
        self.write(time, e)
    }

    /// True if this access needs a mapping that the tables do not have: it
    /// was translated, and no cached translation explains the output.
    pub(crate) fn lacks_mapping(&mut self, rec: &LogRec) -> bool {
        if !rec.has(log_flags::OUT) || rec.has(log_flags::PASS) || rec.domain == DomainId::NONE.0 {
            return false;
        }
        let (page, out) = (rec.a >> 12, rec.b >> 12);
        if rec.has(log_flags::HIT) && self.iotlb.lookup(rec.sid, rec.domain, page) == Some(out) {
            return false;
        }
        !self.tables.access(rec.domain, page, out)
    }

    /// A device's access. `lacking`: it may lack its mapping.
    pub(crate) fn dma(&mut self, rec: &LogRec, lacking: bool) -> Result<()> {
        let domain = if rec.has(log_flags::PASS) { DomainId::PARENT.0 } else { rec.domain };
        self.attach(rec.time, rec.sid, domain)?;
        let page = rec.a >> 12;
        let mut flags = Flags::default();
        if rec.has(log_flags::FAULT) {
            let need = rec.flags & 3;
            // If the direction is not known, both are meant.
            let any = if need == 0 { 3 } else { need };
            flags = Flags::FAULT.with(Flags(u32::from(need)));
            if let Some((_, r)) = self.tables.range_of(domain, page)
                && r.perm & any == any
            {
                // What would have been allowed was not there.
                self.infer_unmap(rec.time, domain, page, 1)?;
            }
        } else if !rec.has(log_flags::PASS) && domain != DomainId::NONE.0 {
            if lacking && self.lacks_mapping(rec) {
                self.infer_map(rec.time, domain, Pages::of(rec), perm_of(rec), Flags::default())?;
            }
            if rec.has(log_flags::LABEL) {
                self.label(rec);
            }
        }
        if rec.has(log_flags::LABEL) {
            flags = flags.with(Flags::LABEL_KNOWN);
            if rec.has(log_flags::HIT) {
                flags = flags.with(Flags::HIT);
            }
        }
        let mut e = Event::new(Kind::Dma);
        if rec.has(log_flags::OUT) {
            flags = flags.with(Flags::OUT_KNOWN);
            e.out = rec.b;
        }
        (e.flags, e.domain, e.requester, e.addr) =
            (flags, DomainId(domain), Requester(rec.sid), rec.a);
        e.aux = u64::from(rec.reads);
        self.counts.dma += 1;
        self.write(rec.time, e)
    }

    /// Follows the IOTLB with a labelled access.
    fn label(&mut self, rec: &LogRec) {
        let (page, out, mask) = (rec.a >> 12, rec.b >> 12, rec.c >> 12);
        let hit = rec.has(log_flags::HIT);
        let cached = self.iotlb.lookup(rec.sid, rec.domain, page);
        self.counts.labels += 1;
        self.counts.labels_unlike_qemu += u64::from(cached.is_some() != hit);
        if !hit || cached != Some(out) {
            self.iotlb.insert(rec.sid, rec.domain, page, out, mask);
        } else if self.tables.lookup(rec.domain, page) != Some(out) {
            self.counts.stale_hits += 1;
        }
    }

    /// Maps what a later access finds, before the invalidation that announces
    /// it; nothing if it is mapped already.
    pub(crate) fn foresee(&mut self, time: i64, dma: &LogRec) -> Result<()> {
        let p = Pages::of(dma);
        if self.tables.lookup(dma.domain, p.page) == Some(p.out) {
            return Ok(());
        }
        self.infer_map(time, dma.domain, p, perm_of(dma), Flags::NOTIFIED)
    }

    /// Brings the guest's table in line with what the VMM saw in it: a change
    /// that is not recorded is written first, as inferred. `announced`: an
    /// invalidation follows.
    pub(crate) fn agree(&mut self, time: i64, walk: &LogRec, announced: bool) -> Result<()> {
        let (page, pages) = (walk.a >> 12, (walk.c >> 12) + 1);
        if walk.flags == 0 {
            return self.infer_unmap(time, walk.domain, page, pages);
        }
        let gpa = walk.b >> 12;
        let first = self.tables.lookup(walk.domain, page);
        let last = self.tables.lookup(walk.domain, page + (pages - 1));
        if first == Some(gpa) && last == Some(gpa + (pages - 1)) {
            return Ok(());
        }
        let marks = if announced { Flags::NOTIFIED } else { Flags::default() };
        self.infer_map(time, walk.domain, Pages { page, pages, out: gpa }, walk.flags, marks)
    }

    /// Notes where a device is.
    pub(crate) fn attach(&mut self, time: i64, sid: u32, domain: u32) -> Result<()> {
        if domain == DomainId::NONE.0 || self.attached.get(&sid) == Some(&domain) {
            return Ok(());
        }
        self.attached.insert(sid, domain);
        self.counts.attaches += 1;
        let mut e = Event::new(Kind::Attach);
        (e.domain, e.requester) = (DomainId(domain), Requester(sid));
        self.write(time, e)
    }

    /// An invalidation. `cpu` is that of the guest if known.
    pub(crate) fn invalidate(&mut self, time: i64, cpu: Option<u32>, d: Descriptor) -> Result<()> {
        let Some(mut e) = d.event(Kind::Invalidate) else { return Ok(()) };
        if let Some((domain, addr, am)) = d.pages() {
            let (page, pages) = (e.addr >> 12, e.size >> 12);
            if self.unmap_by_invalidation && !self.covered {
                self.infer_unmap(time, domain, page, pages)?;
            }
            if self.caching_mode {
                let soiled = self.clean(domain, page, pages);
                if self.tables.announce(domain, page, pages) && !soiled {
                    e.flags = e.flags.with(Flags::MAP_NOTIFY);
                    self.counts.map_notify += 1;
                }
            }
            self.iotlb.drop_pages(domain, addr >> 12, am);
        } else if let Some(domain) = d.flush() {
            match domain {
                Some(domain) => {
                    self.iotlb.drop_domain(domain);
                    self.clean(domain, 0, u64::MAX);
                }
                None => {
                    self.iotlb.clear();
                    self.dirty.clear();
                }
            }
        }
        if !self.guest_devices {
            // The guest's numbers mean other devices than the trace's.
            e.requester = Requester::NONE;
        }
        e.cpu = cpu.map_or(-1, cpu_column);
        self.counts.invalidations += 1;
        self.write(time, e)
    }

    /// Caches emptied by the IOMMU itself. `new_tables`: not because
    /// translation was switched, so the guest's tables are others now.
    pub(crate) fn reset(&mut self, time: i64, new_tables: bool) -> Result<()> {
        if new_tables {
            self.drop_tables(time)?;
        }
        self.iotlb.clear();
        self.dirty.clear();
        self.counts.invalidations += 1;
        let mut e = Event::new(Kind::Invalidate);
        e.flags = Flags::with_scope(Scope::Reset);
        self.write(time, e)
    }

    /// Unmaps everything, as inferred: after a reset of the machine or a new
    /// root table none of it holds.
    fn drop_tables(&mut self, time: i64) -> Result<()> {
        let mut all = self.tables.take().into_iter().peekable();
        while let Some(((domain, page), range)) = all.next() {
            let mut end = page + range.pages;
            while let Some(((d, p), r)) = all.peek()
                && *d == domain
                && *p == end
            {
                end += r.pages;
                all.next();
            }
            self.counts.inferred_unmaps += 1;
            let mut e = Event::new(Kind::Unmap);
            (e.flags, e.domain) = (Flags::INFERRED, DomainId(domain));
            (e.addr, e.size) = (page << 12, (end - page) << 12);
            self.write(time, e)?;
        }
        Ok(())
    }

    /// Notes pages as unmapped and not invalidated.
    fn soil(&mut self, domain: u32, page: u64, pages: u64) {
        if !self.caching_mode {
            return;
        }
        if self.dirty.len() >= MAX_DIRTY {
            self.dirty.pop_first();
        }
        let n = self.dirty.entry((domain, page)).or_insert(0);
        *n = (*n).max(pages);
    }

    /// Forgets notes that touch the pages; tells whether there was one.
    fn clean(&mut self, domain: u32, page: u64, pages: u64) -> bool {
        let mut soiled = false;
        let end = page.saturating_add(pages);
        // Ranges are as large as unmaps are; the nearest one below may reach
        // into this one.
        while !self.dirty.is_empty()
            && let Some((&key, &n)) = self.dirty.range(..(domain, end)).next_back()
            && key.0 == domain
            && key.1.saturating_add(n) > page
        {
            self.dirty.remove(&key);
            soiled = true;
        }
        soiled
    }
}

/// A mapping as recorded, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    pub(crate) iova: u64,
    pub(crate) size: u64,
    pub(crate) out: u64,
}

/// A mapping in pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pages {
    page: u64,
    pages: u64,
    out: u64,
}

impl Pages {
    /// The (large) page that an access used.
    fn of(dma: &LogRec) -> Pages {
        let mask = dma.c >> 12;
        Pages { page: dma.a >> 12 & !mask, pages: mask + 1, out: dma.b >> 12 & !mask }
    }
}

/// Rights in the table entry that an access found.
fn perm_of(dma: &LogRec) -> u8 {
    match dma.flags & 3 {
        0 => 3,
        p => p,
    }
}

/// First page and number of pages that a byte range touches.
pub(crate) fn page_span(iova: u64, size: u64) -> (u64, u64) {
    let last = iova.saturating_add(size.max(1) - 1);
    (iova >> 12, (last >> 12) - (iova >> 12) + 1)
}

pub(crate) fn cpu_column(cpu: u32) -> i32 {
    i16::try_from(cpu).map_or(-1, i32::from)
}

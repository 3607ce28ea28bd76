//! A log of QEMU's virtio-iommu (`hw/virtio/trace-events`, the same text from
//! 7.2 to 10.2).
//!
//! It is a paravirtual IOMMU: the guest's MAP and UNMAP requests are logged as
//! they are, so nothing is inferred and no ftrace is needed. There is no
//! IOTLB, so accesses have outputs but no labels.
//!
//! * An access is `virtio_iommu_translate` and then, of the same thread,
//!   `virtio_iommu_translate_out`. Without the latter it was passed through
//!   (the endpoint is in no domain), ended in the MSI doorbell's reserved region, or faulted
//!   (`virtio_iommu_report_fault`).
//! * A request to unmap logs `virtio_iommu_unmap_done` for each mapping removed. The request
//!   is its own invalidation.

mod line;

use ioasim_events::{CachingMode, DomainId, Event, Flags, Kind, OutputSpace, Requester, Scope};
use rustc_hash::FxHashMap;

use super::clock::Clock;
use super::lines::{EventSink, LineSource, import_error};
use super::parent::Parent;
use super::qemu_line;
use super::report::{Diagnostics, ImportReport, Options};
use super::tables::{Range, Tables};
use crate::Result;
use line::{Line, Virtio};

/// Endpoints told apart: as many as there are requester ids.
const MAX_ENDPOINTS: usize = 1 << 16;
/// Threads that translate at once.
const MAX_THREADS: usize = 1 << 12;

/// Imports a log of QEMU's virtio-iommu into `sink`; gives the input back.
///
/// # Errors
/// [`Error::Import`](crate::Error::Import) if the log holds no such event, or if more lines are damaged
/// than allowed; whatever reading or `sink` reports.
pub fn virtio_iommu<L: LineSource>(
    lines: L,
    sink: &mut impl EventSink,
    options: &mut Options<'_>,
) -> Result<(ImportReport, L)> {
    let mut import = Import::new(lines, sink, options.max_errors);
    import.run(options)?;
    if import.counts.events_read == 0 {
        let lines = import.counts.lines;
        return Err(import_error(
            import.lines.path(),
            format!(
                "no virtio_iommu_map, _unmap, _attach or _translate in {lines} lines; record with \
                 -trace 'virtio_iommu_*' -msg timestamp=on -D FILE"
            ),
        ));
    }
    Ok(import.finish())
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    lines: u64,
    events_read: u64,
    events: u64,
    dma: u64,
    maps: u64,
    unmaps: u64,
    invalidations: u64,
    attaches: u64,
    detaches: u64,
    faults: u64,
    passed: u64,
    without_output: u64,
    outputs_alone: u64,
    unmaps_inferred: u64,
    unmaps_of_unknown: u64,
    maps_refused: u64,
    vmm_events_unused: u64,
    lost: u64,
}

/// A translation whose output may come.
#[derive(Clone, Copy, Debug)]
struct Access {
    endpoint: u32,
    addr: u64,
    rights: u8,
    time: i64,
}

/// A request to unmap whose mappings may come.
#[derive(Clone, Copy, Debug)]
struct Request {
    domain: u32,
    start: u64,
    last: u64,
    time: i64,
    /// A mapping of it was named.
    done: bool,
}

#[derive(Debug)]
struct Import<L, S> {
    lines: L,
    sink: S,
    clock: Clock,
    diag: Diagnostics,
    tables: Tables,
    /// Domain of each endpoint.
    attached: FxHashMap<u32, u32>,
    accesses: FxHashMap<u32, Access>,
    request: Option<(u32, Request)>,
    parent: Parent,
    /// The log names the mappings that a request removes.
    names_mappings: bool,
    /// Time of the last event.
    last: u64,
    counts: Counts,
}

impl<L: LineSource, S: EventSink> Import<L, S> {
    fn new(lines: L, sink: S, max_errors: u64) -> Self {
        Import {
            lines,
            sink,
            clock: Clock::default(),
            diag: Diagnostics::new(max_errors),
            tables: Tables::default(),
            attached: FxHashMap::default(),
            accesses: FxHashMap::default(),
            request: None,
            parent: Parent::default(),
            names_mappings: false,
            last: 0,
            counts: Counts::default(),
        }
    }

    fn run(&mut self, options: &mut Options<'_>) -> Result<()> {
        while let Some(line) = self.lines.next_line()? {
            self.counts.lines += 1;
            let number = line.number;
            let (stamp, parsed) = if line.truncated {
                (qemu_line::Stamp::default(), Line::Damaged("line too long"))
            } else {
                line::parse(line.bytes)
            };
            match parsed {
                Line::Event(event) => {
                    self.counts.events_read += 1;
                    let time = self.time(stamp)?;
                    self.event(stamp.tid, time, event)?;
                }
                Line::Qemu(event) => {
                    let time = self.time(stamp)?;
                    self.host_side(time, event)?;
                }
                Line::Other(name) => self.diag.ignored(name),
                Line::Blank => {}
                Line::Damaged(reason) => {
                    self.diag.damaged(self.lines.path(), number, reason)?;
                }
            }
            options.tick_lines(&self.lines, self.counts.lines)?;
        }
        self.end_request()?;
        self.parent.settle();
        self.write_parent(0)
    }

    /// The time of the line with this stamp.
    #[inline]
    fn time(&mut self, stamp: qemu_line::Stamp) -> Result<i64> {
        if !self.clock.doubts(stamp.time) {
            return Ok(self.clock.tick(stamp.time).time);
        }
        let next = self.lines.peek_line()?.and_then(|next| line::parse(next).0.time);
        Ok(self.clock.tick_beside(stamp.time, next).time)
    }

    /// What VFIO's listener tells of the parent's table.
    fn host_side(&mut self, time: i64, event: qemu_line::Event) -> Result<()> {
        match event {
            qemu_line::Event::RegionAddRam { start, end, vaddr } => {
                self.parent.add(start, end, vaddr);
            }
            qemu_line::Event::RegionAddIommu { start, end } => self.parent.switched(start, end),
            qemu_line::Event::RegionDel { start, end } => {
                self.parent.remove_later(start, end);
            }
            qemu_line::Event::Lost(n) => self.counts.lost += n,
            // The device's own events tell the same and more.
            _ => self.counts.vmm_events_unused += 1,
        }
        self.write_parent(time)
    }

    fn write_parent(&mut self, time: i64) -> Result<()> {
        let events: Vec<Event> = self.parent.drain().collect();
        events.into_iter().try_for_each(|event| self.write(time, event))
    }

    fn finish(self) -> (ImportReport, L) {
        let mut report = ImportReport {
            output_space: OutputSpace::Gpa,
            caching_mode: CachingMode::Off,
            importer: "qemu-virtio-iommu",
            ..ImportReport::default()
        };
        let c = &self.counts;
        for (name, n) in [
            ("log_lines", c.lines),
            ("log_virtio_iommu_events", c.events_read),
            ("log_seams", self.clock.seams),
            ("log_times_clamped", self.clock.clamped),
            ("events", c.events),
            ("dma", c.dma),
            ("dma_faults", c.faults),
            ("dma_passed_through", c.passed),
            ("dma_without_translate_line", c.outputs_alone),
            ("translations_without_output", c.without_output),
            ("maps", c.maps),
            ("maps_refused", c.maps_refused),
            ("unmaps", c.unmaps),
            ("unmaps_inferred", c.unmaps_inferred),
            ("unmaps_of_unknown_pages", c.unmaps_of_unknown),
            ("invalidations", c.invalidations),
            ("attaches", c.attaches),
            ("detaches", c.detaches),
            ("mappings_forgotten", self.tables.forgotten),
            ("vmm_events_unused", c.vmm_events_unused),
            ("log_events_lost", c.lost),
        ] {
            report.counts.insert(name.into(), n);
        }
        self.parent.counts.add_to(&mut |name, n| {
            report.counts.insert(name.into(), n);
        });
        report.times_outlying(self.clock.outlying);
        if !self.clock.timed() {
            report.notes.push("The log has no time stamps: events are 1 us apart.".into());
        }
        report
            .notes
            .push("QEMU's virtio-iommu has no IOTLB: accesses have no hit/miss labels.".into());
        self.diag.finish(&mut report);
        (report, self.lines)
    }

    fn write(&mut self, time: i64, mut event: Event) -> Result<()> {
        // A request is written when the next line shows its end.
        self.last = self.last.max(u64::try_from(time).unwrap_or(0));
        event.time_ns = self.last;
        self.counts.events += 1;
        self.sink.push(&event)
    }

    fn event(&mut self, tid: u32, time: i64, event: Virtio) -> Result<()> {
        let of_request = matches!(event, Virtio::UnmapDone { .. });
        if !of_request && self.request.is_some_and(|(t, _)| t == tid) {
            self.end_request()?;
        }
        match event {
            Virtio::Attach { domain, endpoint } => {
                if self.attached.len() == MAX_ENDPOINTS && !self.attached.contains_key(&endpoint) {
                    return Err(import_error(
                        self.lines.path(),
                        format!(
                            "more than {MAX_ENDPOINTS} endpoints are attached by line {}, but a machine has no more \
                             requester ids; check the file",
                            self.counts.lines
                        ),
                    ));
                }
                if self.attached.insert(endpoint, domain) != Some(domain) {
                    self.counts.attaches += 1;
                    self.place(time, Kind::Attach, domain, endpoint)?;
                }
            }
            Virtio::Detach { domain, endpoint } => {
                if self.attached.remove(&endpoint).is_some() {
                    self.counts.detaches += 1;
                    self.place(time, Kind::Detach, domain, endpoint)?;
                }
            }
            Virtio::FreeEndpoint { endpoint } => {
                if let Some(domain) = self.attached.remove(&endpoint) {
                    self.counts.detaches += 1;
                    self.place(time, Kind::Detach, domain, endpoint)?;
                }
            }
            Virtio::FreeDomain { domain } => self.unmap(time, domain, (0, u64::MAX), true)?,
            Virtio::Reset => {
                for domain in self.tables.recent().to_vec() {
                    self.unmap(time, domain, (0, u64::MAX), true)?;
                }
                self.attached.clear();
                self.accesses.clear();
            }
            Virtio::Map { domain, start, last, out, rights } => {
                let (page, pages) = span(start, last);
                if !self.tables.is_free(domain, page, pages) {
                    // VIRTIO_IOMMU_S_INVAL (virtio 1.2, 5.13.6.7.2): an
                    // overlapping request changes nothing.
                    self.counts.maps_refused += 1;
                    return Ok(());
                }
                let range =
                    Range { pages, out: out >> 12, perm: rights, fresh: false, used: false };
                self.tables.map(domain, page, range);
                self.counts.maps += 1;
                let mut e = Event::new(Kind::Map);
                (e.domain, e.flags) = (DomainId(domain), Flags(u32::from(rights)));
                (e.addr, e.size, e.out) = (start, size(start, last), out);
                self.write(time, e)?;
            }
            Virtio::Unmap { domain, start, last } => {
                self.end_request()?;
                self.request = Some((tid, Request { domain, start, last, time, done: false }));
            }
            Virtio::UnmapDone { domain, start, last } => {
                self.names_mappings = true;
                if let Some((_, request)) = &mut self.request {
                    request.done = true;
                }
                self.unmap(time, domain, (start, last), false)?;
            }
            Virtio::Translate { endpoint, addr, rights } => {
                let access = Access { endpoint, addr, rights, time };
                if self.accesses.len() == MAX_THREADS {
                    // Their outputs would have come by now.
                    for (_, old) in std::mem::take(&mut self.accesses) {
                        self.without_output(old)?;
                    }
                }
                if let Some(old) = self.accesses.insert(tid, access) {
                    self.without_output(old)?;
                }
            }
            Virtio::Out { endpoint, addr, out } => {
                let access =
                    self.accesses.remove(&tid).filter(|a| a.endpoint == endpoint && a.addr == addr);
                self.counts.outputs_alone += u64::from(access.is_none());
                let rights = access.map_or(0, |a| a.rights);
                let domain = self.attached.get(&endpoint).copied();
                let flags = Flags(u32::from(rights)).with(Flags::OUT_KNOWN);
                self.dma(
                    time,
                    domain.map_or(DomainId::NONE, DomainId),
                    endpoint,
                    (addr, out),
                    flags,
                )?;
            }
            Virtio::Fault { endpoint, addr } => {
                let access = self.accesses.remove(&tid).filter(|a| a.endpoint == endpoint);
                self.counts.faults += 1;
                let domain = self.attached.get(&endpoint).map_or(DomainId::NONE, |d| DomainId(*d));
                let flags = Flags(u32::from(access.map_or(0, |a| a.rights))).with(Flags::FAULT);
                self.dma(time, domain, endpoint, (addr, 0), flags)?;
            }
        }
        Ok(())
    }

    /// An access that was passed through, or went to the MSI doorbell.
    fn without_output(&mut self, access: Access) -> Result<()> {
        if self.attached.contains_key(&access.endpoint) {
            self.counts.without_output += 1;
            return Ok(());
        }
        self.counts.passed += 1;
        let flags = Flags(u32::from(access.rights)).with(Flags::OUT_KNOWN);
        let addrs = (access.addr, access.addr);
        self.dma(access.time, DomainId::PARENT, access.endpoint, addrs, flags)
    }

    fn dma(
        &mut self,
        time: i64,
        domain: DomainId,
        endpoint: u32,
        (addr, out): (u64, u64),
        flags: Flags,
    ) -> Result<()> {
        self.counts.dma += 1;
        let mut e = Event::new(Kind::Dma);
        (e.domain, e.requester, e.flags) = (domain, Requester(endpoint), flags);
        (e.addr, e.out) = (addr, out);
        self.write(time, e)
    }

    fn place(&mut self, time: i64, kind: Kind, domain: u32, endpoint: u32) -> Result<()> {
        let mut e = Event::new(kind);
        (e.domain, e.requester) = (DomainId(domain), Requester(endpoint));
        self.write(time, e)
    }

    /// Unmaps what is mapped of a range. `inferred`: no request says so.
    fn unmap(&mut self, time: i64, domain: u32, range: (u64, u64), inferred: bool) -> Result<()> {
        let (page, pages) = span(range.0, range.1);
        let mut removed = Vec::new();
        self.tables.unmap(domain, page, pages, &mut removed);
        if removed.is_empty() && !inferred {
            self.counts.unmaps_of_unknown += 1;
        }
        for r in removed {
            let mut e = Event::new(Kind::Unmap);
            e.domain = DomainId(domain);
            (e.addr, e.size) = (r.page << 12, r.pages << 12);
            if inferred {
                e.flags = Flags::INFERRED;
                self.counts.unmaps_inferred += 1;
            }
            self.counts.unmaps += 1;
            self.write(time, e)?;
        }
        Ok(())
    }

    /// The mappings of a request have been named: it is an invalidation, too.
    fn end_request(&mut self) -> Result<()> {
        let Some((_, r)) = self.request.take() else { return Ok(()) };
        if !r.done && !self.names_mappings {
            self.unmap(r.time, r.domain, (r.start, r.last), false)?;
        }
        self.counts.invalidations += 1;
        let mut e = Event::new(Kind::Invalidate);
        (e.domain, e.flags) = (DomainId(r.domain), Flags::with_scope(Scope::Page));
        (e.addr, e.size, e.out) = (r.start, size(r.start, r.last), r.start);
        self.write(r.time, e)
    }
}

/// First page and number of pages of an inclusive range.
fn span(start: u64, last: u64) -> (u64, u64) {
    (start >> 12, (last >> 12) - (start >> 12) + 1)
}

/// Bytes of an inclusive range, all but one page for the whole space.
fn size(start: u64, last: u64) -> u64 {
    (last - start).checked_add(1).unwrap_or(!0xfff)
}

//! A log of QEMU's side of the host alone: what VFIO's memory listener and
//! notifiers saw (`vfio_listener_region_*`, `vfio_iommu_map_notify`) and what
//! the `iommufd` backend asked of the kernel (`iommufd_*`). No emulated IOMMU
//! logged anything, so there are no accesses and no invalidations of the guest.
//!
//! * RAM that the listener adds is the parent's table: guest-physical address to the
//!   VMM's own address (the physical one is not known to QEMU).
//! * A notification maps a range of the guest's I/O addresses. Where iommufd's
//!   line follows, its address, looked up in the parent's table, is the
//!   guest-physical address: the guest's own mapping, seen through its shadow.
//! * A map that nothing announced is one of its I/O address space.
//!
//! A domain is an object of `/dev/iommu` (an IOAS or a nested table); of the
//! second and later file descriptors with their number in bits 31:20.

mod changes;
mod objects;
mod pending;
mod summary;

use ioasim_events::{DomainId, Event, Flags, Kind, Requester, Scope};
use rustc_hash::FxHashMap;

use super::clock::Clock;
use super::lines::{EventSink, LineSource, import_error};
use super::parent::Parent;
use super::qemu_line::{self, Host, Line, Object};
use super::report::{Diagnostics, ImportReport, Options};
use super::tables::Tables;
use crate::Result;
use objects::{Level, Objects};
use pending::{Announced, Pending};

/// Domain of maps where the log names no object: there is one container then.
const CONTAINER: u32 = 1;

/// Imports such a log into `sink`; gives the input back.
///
/// # Errors
/// [`Error::Import`](crate::Error::Import) if the log holds no such event, or if more lines are damaged
/// than allowed; whatever reading or `sink` reports.
pub fn host_log<L: LineSource>(
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
                "no vfio_listener_region_*, vfio_iommu_map_notify or iommufd_backend_* in {lines} lines; record \
                 with -trace 'vfio_listener*' -trace 'vfio_iommu*' -trace 'iommufd*' -msg timestamp=on -D FILE"
            ),
        ));
    }
    Ok(import.finish())
}

/// The emulated IOMMU in a log: `None` if there is none, `Some(true)` for a
/// virtio-iommu. Reads up to its first event.
///
/// # Errors
/// Whatever reading it reports.
pub(crate) fn emulated(mut lines: impl LineSource) -> Result<Option<bool>> {
    while let Some(line) = lines.next_line()? {
        match qemu_line::parse(line.bytes).1 {
            Line::Event(e) if !e.is_host_side() && !matches!(e, qemu_line::Event::Lost(_)) => {
                return Ok(Some(false));
            }
            Line::Other(name) if name.starts_with(b"virtio_iommu_") => return Ok(Some(true)),
            _ => {}
        }
    }
    Ok(None)
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    lines: u64,
    events_read: u64,
    events: u64,
    maps: u64,
    unmaps: u64,
    unmaps_inferred: u64,
    unmaps_of_unknown: u64,
    shadow_operations: u64,
    without_output: u64,
    at_own_address: u64,
    refused: u64,
    not_asked: u64,
    failed: u64,
    attaches: u64,
    detaches: u64,
    invalidations: u64,
    entries: u64,
    nested_tables: u64,
    markers: u64,
    lost: u64,
}

#[derive(Debug)]
struct Import<L, S> {
    lines: L,
    sink: S,
    clock: Clock,
    diag: Diagnostics,
    parent: Parent,
    tables: Tables,
    objects: Objects,
    /// Announced by the thread and not carried out yet.
    pending: FxHashMap<u32, Pending>,
    made_up: u64,
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
            parent: Parent::default(),
            tables: Tables::default(),
            objects: Objects::default(),
            pending: FxHashMap::default(),
            made_up: changes::MADE_UP,
            last: 0,
            counts: Counts::default(),
        }
    }

    fn run(&mut self, options: &mut Options<'_>) -> Result<()> {
        let mut time = 0;
        while let Some(line) = self.lines.next_line()? {
            self.counts.lines += 1;
            let number = line.number;
            let (stamp, parsed) = if line.truncated {
                (qemu_line::Stamp::default(), Line::Damaged("line too long"))
            } else {
                qemu_line::parse(line.bytes)
            };
            match parsed {
                Line::Event(qemu_line::Event::Lost(n)) => self.counts.lost += n,
                Line::Event(event) if event.is_host_side() => {
                    self.counts.events_read += 1;
                    time = if self.clock.doubts(stamp.time) {
                        let next = self.lines.peek_line()?;
                        let next = next.and_then(|line| qemu_line::parse(line).0.time);
                        self.clock.tick_beside(stamp.time, next).time
                    } else {
                        self.clock.tick(stamp.time).time
                    };
                    self.event(stamp.tid, time, event)?;
                }
                Line::Event(_) => self.diag.ignored(b"(event of an emulated IOMMU)"),
                Line::Other(name) => self.diag.ignored(name),
                Line::Blank => {}
                Line::Damaged(reason) => {
                    self.diag.damaged(self.lines.path(), number, reason)?;
                }
            }
            options.tick_lines(&self.lines, self.counts.lines)?;
        }
        let mut left: Vec<u32> = self.pending.keys().copied().collect();
        left.sort_unstable();
        for tid in left {
            self.carry_out(tid, None)?;
        }
        self.parent.settle();
        self.write_parent(time)
    }

    fn event(&mut self, tid: u32, time: i64, event: qemu_line::Event) -> Result<()> {
        if let qemu_line::Event::Host(host) = event {
            return self.iommufd(tid, time, host);
        }
        // What the thread announced before was not asked of iommufd.
        self.carry_out(tid, None)?;
        match event {
            qemu_line::Event::RegionAddRam { start, end, vaddr } => {
                self.parent.add(start, end, vaddr);
                self.write_parent(time)?;
                self.announce(tid, Announced::Ram, (start, end), time);
            }
            qemu_line::Event::RegionAddIommu { start, end } => {
                self.parent.switched(start, end);
                self.write_parent(time)?;
            }
            qemu_line::Event::RegionDel { start, end } => {
                if self.parent.remove_later(start, end) {
                    // "One big unmap" (QEMU's vfio_listener_region_del).
                    self.announce(tid, Announced::Unmap, (start, end), time);
                } else {
                    self.announce(tid, Announced::RamGone, (start, end), time);
                }
            }
            qemu_line::Event::VfioNotify { map, start, end } => {
                self.parent.settle();
                self.write_parent(time)?;
                let what = if map { Announced::Map } else { Announced::Unmap };
                self.announce(tid, what, (start, end), time);
            }
            _ => {}
        }
        Ok(())
    }

    fn announce(&mut self, tid: u32, what: Announced, (start, last): (u64, u64), time: i64) {
        if self.pending.len() > pending::MAX_THREADS {
            self.pending.clear();
        }
        self.pending.insert(tid, Pending { what, start, last, time });
    }

    /// Writes what a thread announced. `by`: the object and the VMM's address
    /// that iommufd's line named.
    fn carry_out(&mut self, tid: u32, by: Option<(Object, u64, bool)>) -> Result<()> {
        let Some(p) = self.pending.remove(&tid) else { return Ok(()) };
        if by.is_none()
            && !self.objects.none()
            && matches!(p.what, Announced::Map | Announced::Unmap)
        {
            // iommufd's line is missing: nothing was asked of it, or it is lost.
            self.counts.not_asked += 1;
            return Ok(());
        }
        let (ioas, vaddr, readonly) = match by {
            Some((ioas, vaddr, readonly)) => (Some(ioas), vaddr, readonly),
            None => (None, 0, false),
        };
        let domain = match ioas {
            Some(ioas) => self.objects.domain(ioas),
            None => CONTAINER,
        };
        match p.what {
            // Written when they were announced.
            Announced::Ram | Announced::RamGone => Ok(()),
            Announced::Map => self.map(p.time, domain, (p.start, p.last), vaddr, readonly, true),
            Announced::Unmap => self.unmap(p.time, domain, (p.start, p.last), true),
        }
    }

    fn iommufd(&mut self, tid: u32, time: i64, event: Host) -> Result<()> {
        match event {
            Host::Map { ioas, iova, size, vaddr, readonly, ok } => {
                let announced =
                    self.pending.get(&tid).filter(|p| p.is((iova, iova + (size - 1)))).copied();
                if !ok {
                    self.counts.failed += 1;
                    self.pending.remove(&tid);
                    if announced.is_some_and(|p| p.what == Announced::Ram) {
                        self.parent.remove_later(iova, iova + (size - 1));
                        self.parent.settle();
                        self.write_parent(time)?;
                    }
                    return Ok(());
                }
                match announced.map(|p| p.what) {
                    Some(Announced::Ram) => {
                        self.pending.remove(&tid);
                        self.place(time, ioas, Level::Parent)
                    }
                    Some(Announced::Map) => {
                        self.place(time, ioas, Level::Child)?;
                        self.carry_out(tid, Some((ioas, vaddr, readonly)))
                    }
                    _ => {
                        self.carry_out(tid, None)?;
                        self.place(time, ioas, Level::Child)?;
                        let domain = self.objects.domain(ioas);
                        let range = (iova, iova + (size - 1));
                        self.map(time, domain, range, vaddr, readonly, false)
                    }
                }
            }
            Host::Unmap { ioas, iova, size, ok } => {
                let range = (iova, iova + (size - 1));
                let announced = self.pending.get(&tid).filter(|p| p.is(range)).copied();
                if !ok {
                    self.counts.failed += 1;
                    self.pending.remove(&tid);
                    return Ok(());
                }
                match announced.map(|p| p.what) {
                    Some(Announced::RamGone) => self.carry_out(tid, None),
                    Some(Announced::Unmap) => self.carry_out(tid, Some((ioas, 0, false))),
                    _ => {
                        self.carry_out(tid, None)?;
                        let domain = self.objects.domain(ioas);
                        self.unmap(time, domain, range, false)
                    }
                }
            }
            Host::AllocHwpt { hwpt, parent, device, kind, ok } => {
                if !ok {
                    self.counts.failed += 1;
                    return Ok(());
                }
                self.objects.add_table(hwpt, parent, kind != 0);
                if kind == 0 {
                    return Ok(());
                }
                self.counts.nested_tables += 1;
                let what = objects::kind_name(kind);
                let text =
                    format!("nested table {} ({what}) on {parent} for device {device}", hwpt.id);
                self.marker(time, &text)
            }
            Host::Invalidate { of, entries } => {
                self.counts.entries += u64::from(entries);
                self.counts.invalidations += 1;
                let mut e = Event::new(Kind::Invalidate);
                if self.objects.is_nested(of) {
                    e.flags = Flags::with_scope(Scope::Domain);
                    e.domain = DomainId(self.objects.domain(of));
                } else {
                    // Of a vIOMMU: any table on it.
                    e.flags = Flags::with_scope(Scope::Global);
                }
                self.write(time, e)
            }
            Host::SetDirty { hwpt, on, ok } => {
                if !ok {
                    self.counts.failed += 1;
                    return Ok(());
                }
                let word = if on { "on" } else { "off" };
                self.marker(time, &format!("dirty tracking {word}, table {}", hwpt.id))
            }
            Host::Free { object, ok } => {
                if !ok {
                    self.counts.failed += 1;
                    return Ok(());
                }
                // What is still mapped in it is gone.
                let domain = self.objects.domain(object);
                self.unmap_all(time, domain)?;
                self.objects.free(object);
                Ok(())
            }
            Host::Attach { device, to } => {
                self.detach(time, to.iommufd, device)?;
                if let Some(domain) = self.objects.attach(device, to) {
                    self.attach(time, device, domain)?;
                }
                Ok(())
            }
            Host::Detach { iommufd, device } => self.detach(time, iommufd, device),
        }
    }

    /// It shows which level an IOAS holds: its devices are attached there.
    fn place(&mut self, time: i64, ioas: Object, level: Level) -> Result<()> {
        let Some(devices) = self.objects.place(ioas, level) else { return Ok(()) };
        let domain = match level {
            Level::Parent => DomainId::PARENT.0,
            Level::Child => self.objects.domain(ioas),
        };
        for device in devices {
            self.attach(time, device, domain)?;
        }
        Ok(())
    }

    fn attach(&mut self, time: i64, device: u32, domain: u32) -> Result<()> {
        self.counts.attaches += 1;
        let mut e = Event::new(Kind::Attach);
        (e.requester, e.domain) = (Requester(device), DomainId(domain));
        self.write(time, e)
    }

    fn detach(&mut self, time: i64, iommufd: u32, device: u32) -> Result<()> {
        let Some(domain) = self.objects.detach(iommufd, device) else { return Ok(()) };
        self.counts.detaches += 1;
        let mut e = Event::new(Kind::Detach);
        (e.requester, e.domain) = (Requester(device), DomainId(domain));
        self.write(time, e)
    }

    fn write_parent(&mut self, time: i64) -> Result<()> {
        let events: Vec<Event> = self.parent.drain().collect();
        events.into_iter().try_for_each(|event| self.write(time, event))
    }

    fn write(&mut self, time: i64, mut event: Event) -> Result<()> {
        self.last = self.last.max(u64::try_from(time).unwrap_or(0));
        event.time_ns = self.last;
        self.counts.events += 1;
        self.sink.push(&event)
    }

    fn marker(&mut self, time: i64, text: &str) -> Result<()> {
        self.last = self.last.max(u64::try_from(time).unwrap_or(0));
        let mut event = Event::new(Kind::Marker);
        event.time_ns = self.last;
        self.counts.events += 1;
        self.counts.markers += 1;
        self.sink.push_marker(&event, text)
    }
}

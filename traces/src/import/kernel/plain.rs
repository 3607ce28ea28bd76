//! Maps and unmaps of a kernel's trace as they stand, with the domain of the
//! device that `dma:*` events name, if they were recorded.
//!
//! Linux traces `dma:dma_map_*` behind the `iommu:map` that it makes, and
//! `dma:dma_unmap_*` behind `iommu:unmap`, in the same task (`kernel/dma/mapping.c`
//! above `drivers/iommu/dma-iommu.c`); but `dma:dma_unmap_sg` before it. So changes wait a
//! little for the event that tells their device, and lists for their change. Where none comes, the domain is the first one in which
//! the pages are free (mapped, for an unmap).

use std::collections::VecDeque;

use ioasim_events::{DomainId, Event, Flags, Kind, Requester};
use rustc_hash::FxHashMap;

use super::super::clock::Clock;
use super::super::emit::cpu_column;
use super::super::ftrace_line::{self, Event as Traced, Line, Prefix};
use super::super::lines::{EventSink, LineSource, import_error};
use super::super::report::{Diagnostics, ImportReport, Options};
use super::super::tables::{Range, Tables};
use super::dma_line::{self, Dma, List};
use super::lists::{self, Lists};
use crate::Result;

/// Changes that wait for the event with their device.
const WAITING: usize = 256;
/// Lists of which the unmap has been announced and not come.
const ANNOUNCED: usize = 64;
/// Domains looked at for a change without a device.
const MAX_DOMAINS: u32 = 64;
/// Devices told apart: as many as there are requester ids.
const MAX_DEVICES: usize = 1 << 16;
/// First output of buffers whose physical address is not traced: above the memory of today's
/// machines.
const MADE_UP: u64 = 1 << 46;
/// They begin anew behind this.
const MADE_UP_END: u64 = 1 << 62;

/// A change or marker that waits.
#[derive(Debug)]
struct Waiting {
    event: Event,
    pid: u32,
    text: Option<String>,
}

/// A scatter list about to be unmapped.
#[derive(Clone, Copy, Debug)]
struct Announced {
    pid: u32,
    domain: u32,
    start: u64,
    end: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    lines: u64,
    maps: u64,
    unmaps: u64,
    by_device: u64,
    inferred: u64,
    unknown: u64,
    made_up: u64,
    lists_cut: u64,
    lists_without_map: u64,
    lost: u64,
    markers: u64,
    events: u64,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Plain<L, S> {
    lines: L,
    sink: S,
    clock: Clock,
    diag: Diagnostics,
    tables: Tables,
    waiting: VecDeque<Waiting>,
    /// Domain of each device, in the order of appearance.
    devices: FxHashMap<u32, u32>,
    lists: Lists,
    announced: VecDeque<Announced>,
    /// `iommu:map` and `unmap` are recorded: `dma:*` tells devices only.
    table_changes: bool,
    made_up: u64,
    /// Time of the last line.
    now_ns: u64,
    counts: Counts,
}

impl<L: LineSource, S: EventSink> Plain<L, S> {
    pub(super) fn new(lines: L, sink: S, max_errors: u64, table_changes: bool) -> Self {
        Plain {
            lines,
            sink,
            clock: Clock::default(),
            diag: Diagnostics::new(max_errors),
            tables: Tables::default(),
            waiting: VecDeque::new(),
            devices: FxHashMap::default(),
            lists: Lists::default(),
            announced: VecDeque::new(),
            table_changes,
            made_up: MADE_UP,
            now_ns: 0,
            counts: Counts::default(),
        }
    }

    pub(super) fn run(&mut self, options: &mut Options<'_>) -> Result<()> {
        while let Some(line) = self.lines.next_line()? {
            self.counts.lines += 1;
            let number = line.number;
            let parsed = if line.truncated {
                Err("line too long")
            } else {
                read(line.bytes, &mut self.diag, &mut self.counts)
            };
            match parsed {
                Ok(Some((prefix, found))) => self.found(prefix, found)?,
                Ok(None) => {}
                Err(reason) => self.diag.damaged(self.lines.path(), number, reason)?,
            }
            while self.waiting.len() > WAITING {
                self.write_first()?;
            }
            options.tick_lines(&self.lines, self.counts.lines)?;
        }
        while !self.waiting.is_empty() {
            self.write_first()?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> (ImportReport, L) {
        let mut report = ImportReport::default();
        let c = &self.counts;
        for (name, n) in [
            ("ftrace_lines", c.lines),
            ("events", c.events),
            ("maps", c.maps),
            ("unmaps", c.unmaps),
            ("unmaps_inferred", c.inferred),
            ("unmaps_of_unknown_pages", c.unknown),
            ("maps_without_output", c.made_up),
            ("scatter_lists_cut", c.lists_cut),
            ("scatter_unmaps_without_map", c.lists_without_map),
            ("ftrace_events_lost", c.lost),
            ("markers", c.markers),
            ("attaches", self.devices.len() as u64),
            ("table_changes", c.maps + c.unmaps),
            ("table_changes_by_device", c.by_device),
            ("table_changes_by_adjacency", c.maps + c.unmaps - c.by_device),
            ("mappings_forgotten", self.tables.forgotten),
            ("ftrace_seams", self.clock.seams),
        ] {
            report.counts.insert(name.into(), n);
        }
        report.notes.push("No invalidation is recorded.".into());
        report.times_outlying(self.clock.outlying);
        if c.by_device < c.maps + c.unmaps {
            report.notes.push(
                "Where no dma:* event names a device, domains are the first in which the pages fit.".into(),
            );
        }
        if c.made_up > 0 {
            report.notes.push(format!(
                "The kernel does not trace the physical address of {} buffers (dma_alloc); their outputs are made up.",
                c.made_up
            ));
        }
        self.diag.finish(&mut report);
        (report, self.lines)
    }

    fn found(&mut self, prefix: Prefix, found: Found) -> Result<()> {
        let stamp = Some(prefix.time);
        let time = if self.clock.doubts(stamp) {
            let next = self.lines.peek_line()?;
            let next = next.and_then(|line| ftrace_line::split(line).ok()).map(|l| l.0.time);
            self.clock.tick_beside(stamp, next).time
        } else {
            self.clock.tick(stamp).time
        };
        let mut event = Event::new(Kind::Marker);
        event.time_ns = u64::try_from(time).unwrap_or(0);
        self.now_ns = event.time_ns;
        event.cpu = cpu_column(prefix.cpu);
        match found {
            Found::Change { kind, iova, size, out } if self.table_changes => {
                event.kind = kind;
                if kind == Kind::Map {
                    event.flags = Flags::READ.with(Flags::WRITE);
                }
                (event.addr, event.size, event.out) = (iova, size, out);
                if kind == Kind::Unmap {
                    self.take_announced(prefix.pid, &mut event);
                }
                self.waiting.push_back(Waiting { event, pid: prefix.pid, text: None });
            }
            Found::Change { .. } => {}
            Found::Marker(text) => {
                self.waiting.push_back(Waiting { event, pid: prefix.pid, text: Some(text) });
            }
            Found::Dma(dma) if self.table_changes => self.name_device(prefix.pid, dma)?,
            Found::Dma(dma) => self.buffer(event, dma)?,
        }
        Ok(())
    }

    /// A device's domain; its attach is written when it is first seen, before
    /// the changes that wait.
    fn domain_of(&mut self, device: u32) -> Result<u32> {
        if let Some(domain) = self.devices.get(&device) {
            return Ok(*domain);
        }
        if self.devices.len() == MAX_DEVICES {
            return Err(import_error(
                self.lines.path(),
                format!(
                    "more than {MAX_DEVICES} devices by line {}, but a machine has no more requester ids; check the file",
                    self.counts.lines
                ),
            ));
        }
        let domain = self.devices.len() as u32 + 1;
        self.devices.insert(device, domain);
        let mut e = Event::new(Kind::Attach);
        e.time_ns = self.waiting.front().map_or(self.now_ns, |w| w.event.time_ns);
        (e.domain, e.requester) = (DomainId(domain), Requester(device));
        self.counts.events += 1;
        self.sink.push(&e)?;
        Ok(domain)
    }

    /// Gives the changes that a `dma:*` event is about their domain.
    fn name_device(&mut self, pid: u32, dma: Dma) -> Result<()> {
        let (kind, device, pieces) = match dma {
            Dma::Map { device, addr, size, .. } => (Kind::Map, device, vec![(addr, size)]),
            Dma::Unmap { device, addr, size } => (Kind::Unmap, device, vec![(addr, size)]),
            Dma::MapList(list) => {
                self.lists.mapped(&list);
                (Kind::Map, list.device, list.pieces)
            }
            Dma::UnmapList { device, phys, .. } => {
                let pieces = self.lists.unmapped(device, &phys).unwrap_or_default();
                let domain = self.domain_of(device)?;
                let start = pieces.iter().map(|p| p.0).min();
                let end = pieces.iter().map(|p| p.0 + p.1).max();
                if let (Some(start), Some(end)) = (start, end) {
                    if self.announced.len() == ANNOUNCED {
                        self.announced.pop_front();
                    }
                    self.announced.push_back(Announced { pid, domain, start, end });
                }
                return Ok(());
            }
            Dma::Nothing => return Ok(()),
        };
        let domain = self.domain_of(device)?;
        for (addr, size) in pieces {
            let of_it = |w: &&mut Waiting| {
                w.pid == pid
                    && w.event.kind == kind
                    && w.event.domain == DomainId::NONE
                    && w.event.addr < addr.saturating_add(size.max(1))
                    && addr <= w.event.addr + (w.event.size - 1)
            };
            for w in self.waiting.iter_mut().filter(of_it) {
                w.event.domain = DomainId(domain);
            }
        }
        Ok(())
    }

    /// Gives an unmap the domain of the list that its task announced.
    fn take_announced(&mut self, pid: u32, event: &mut Event) {
        let covers = |a: &Announced| {
            a.pid == pid && event.addr <= a.start && a.end <= event.addr.saturating_add(event.size)
        };
        if let Some(at) = self.announced.iter().position(covers)
            && let Some(a) = self.announced.remove(at)
        {
            event.domain = DomainId(a.domain);
        }
    }

    /// A `dma:*` event where nothing else tells of the table.
    fn buffer(&mut self, at: Event, dma: Dma) -> Result<()> {
        match dma {
            Dma::Map { device, rights, addr, size, phys } => {
                self.add(Event { kind: Kind::Map, ..at }, device, rights, (addr, size), phys)?;
            }
            Dma::Unmap { device, addr, size } => {
                self.add(Event { kind: Kind::Unmap, ..at }, device, 0, (addr, size), None)?;
            }
            Dma::MapList(list) => self.map_list(at, &list)?,
            Dma::UnmapList { device, phys, cut } => {
                self.counts.lists_cut += u64::from(cut);
                match self.lists.unmapped(device, &phys) {
                    Some(pieces) => {
                        for piece in pieces {
                            self.add(Event { kind: Kind::Unmap, ..at }, device, 0, piece, None)?;
                        }
                    }
                    None => self.counts.lists_without_map += 1,
                }
            }
            Dma::Nothing => {}
        }
        Ok(())
    }

    fn map_list(&mut self, at: Event, list: &List) -> Result<()> {
        self.counts.lists_cut += u64::from(list.cut);
        self.lists.mapped(list);
        let map = Event { kind: Kind::Map, ..at };
        match lists::outputs(list) {
            Some(parts) => {
                for (addr, size, phys) in parts {
                    self.add(map, list.device, list.rights, (addr, size), Some(phys))?;
                }
            }
            None => {
                for piece in &list.pieces {
                    self.add(map, list.device, list.rights, *piece, None)?;
                }
            }
        }
        Ok(())
    }

    /// A buffer's pages, mapped or unmapped.
    fn add(
        &mut self,
        mut event: Event,
        device: u32,
        rights: u8,
        (addr, size): (u64, u64),
        phys: Option<u64>,
    ) -> Result<()> {
        event.domain = DomainId(self.domain_of(device)?);
        let last = addr.saturating_add(size.max(1) - 1);
        event.addr = addr & !0xfff;
        event.size = ((last >> 12) - (addr >> 12) + 1) << 12;
        if event.kind == Kind::Map {
            event.flags = Flags(u32::from(rights));
            event.out = phys.map_or(self.made_up, |phys| phys & !0xfff);
            if phys.is_none() {
                self.counts.made_up += 1;
                self.made_up += event.size;
                if self.made_up > MADE_UP_END {
                    self.made_up = MADE_UP;
                }
            }
        }
        self.waiting.push_back(Waiting { event, pid: 0, text: None });
        Ok(())
    }

    fn write_first(&mut self) -> Result<()> {
        let Some(Waiting { mut event, text, .. }) = self.waiting.pop_front() else { return Ok(()) };
        self.counts.events += 1;
        if let Some(text) = text {
            self.counts.markers += 1;
            return self.sink.push_marker(&event, &text);
        }
        let page = event.addr >> 12;
        let pages = ((event.addr + (event.size - 1)) >> 12) - page + 1;
        let map = event.kind == Kind::Map;
        if event.domain == DomainId::NONE {
            event.domain = DomainId(self.fitting(page, pages, map));
            event.flags = event.flags.with(Flags::DOMAIN_INFERRED);
        } else {
            self.counts.by_device += 1;
        }
        let domain = event.domain.0;
        let mut removed = Vec::new();
        if map && self.tables.is_free(domain, page, pages) {
            self.tables.used(domain);
        } else {
            self.tables.unmap(domain, page, pages, &mut removed);
        }
        if map {
            self.counts.maps += 1;
            for old in removed {
                // The unmap was not recorded.
                let mut e = Event { kind: Kind::Unmap, out: 0, ..event };
                (e.addr, e.size, e.flags) = (old.page << 12, old.pages << 12, Flags::INFERRED);
                self.counts.inferred += 1;
                self.counts.events += 1;
                self.sink.push(&e)?;
            }
            let perm = event.flags.perm().0;
            let range = Range { pages, out: event.out >> 12, perm, fresh: false, used: false };
            self.tables.map(domain, page, range);
        } else {
            self.counts.unmaps += 1;
            self.counts.unknown += u64::from(removed.iter().map(|r| r.pages).sum::<u64>() < pages);
        }
        self.sink.push(&event)
    }

    /// The first domain in which pages are free, or mapped as a whole.
    fn fitting(&self, page: u64, pages: u64, map: bool) -> u32 {
        let mut domains = 1..=MAX_DOMAINS;
        let fit = if map {
            domains.find(|d| self.tables.is_free(*d, page, pages))
        } else {
            domains.find(|d| self.tables.live_pages(*d, page, pages) == pages)
        };
        fit.unwrap_or(1)
    }
}

/// What a line is to this importer.
enum Found {
    Change { kind: Kind, iova: u64, size: u64, out: u64 },
    Dma(Dma),
    Marker(String),
}

fn read(
    bytes: &[u8],
    diag: &mut Diagnostics,
    counts: &mut Counts,
) -> std::result::Result<Option<(Prefix, Found)>, &'static str> {
    match ftrace_line::parse(bytes) {
        Line::Event(prefix, Traced::Map { iova, size, out }) => {
            Ok(Some((prefix, Found::Change { kind: Kind::Map, iova, size, out })))
        }
        Line::Event(_, Traced::Unmap { size: 0, .. }) => Ok(None),
        Line::Event(prefix, Traced::Unmap { iova, size }) => {
            let overflow = iova.checked_add(size - 1).is_none();
            if overflow {
                return Err("the range runs over the top");
            }
            Ok(Some((prefix, Found::Change { kind: Kind::Unmap, iova, size, out: 0 })))
        }
        Line::Event(prefix, Traced::Marker(text)) => {
            let text = String::from_utf8_lossy(&text[..text.len().min(4096)]).trim().to_owned();
            Ok(Some((prefix, Found::Marker(text))))
        }
        Line::Event(..) => Ok(None),
        Line::Other(name) if dma_line::is_dma(name) => {
            let Ok((prefix, name, mut text)) = ftrace_line::split(bytes) else { return Ok(None) };
            match dma_line::parse(name, &mut text) {
                Some(Dma::Nothing) => {
                    diag.ignored(name);
                    Ok(None)
                }
                Some(dma) => Ok(Some((prefix, Found::Dma(dma)))),
                None => Err("arguments of a known event cannot be read"),
            }
        }
        Line::Other(name) => {
            diag.ignored(name);
            Ok(None)
        }
        Line::Lost(n) => {
            counts.lost = counts.lost.saturating_add(n);
            Ok(None)
        }
        Line::Blank => Ok(None),
        Line::Damaged(reason) => Err(reason),
    }
}

//! A QEMU log as a stream of records: lines that belong together are put
//! together here.
//!
//! * A DMA is `vtd_iotlb_page_hit` or `_update` and then `vtd_dmar_translate`
//!   of the same thread (QEMU 7.2, `vtd_do_iommu_translate` and its caller
//!   `vtd_iommu_translate`); other threads' lines may stand between them.
//! * An invalidation is `vtd_inv_desc` (raw) and then a decoded line
//!   (`vtd_process_inv_desc`); the effect follows the decoded line.
//!
//! The same for the other IOMMUs: `qemu/amdvi.rs`, `qemu/smmu.rs`. Their
//! commands become the VT-d descriptors that say the same.

mod amdvi;
mod smmu;

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::clock::Clock;
use super::desc::{Descriptor, kind};
use super::lines::{LineSource, import_error};
use super::model::Model;
use super::qemu_line::{self, Event, Line};
use super::report::Diagnostics;
use super::window::{LogKind, LogRec, LogWindow, log_flags};
use crate::Result;

/// A translation whose `vtd_dmar_translate` does not come within this many
/// lines is taken from the table entry.
const PAIR_LINES: u64 = 64;
/// Address bits of a second-level table entry (51:12).
const SLPTE_ADDR: u64 = 0x000f_ffff_ffff_f000;
/// Page-size bit of a second-level table entry.
const SLPTE_LARGE: u64 = 1 << 7;

/// Numbers that a [`LogReader`] counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogCounts {
    pub(crate) lines: u64,
    /// Events of the emulated IOMMU.
    pub(crate) iommu_events: u64,
    pub(crate) raw_descriptors: u64,
    pub(crate) decoded_only: u64,
    pub(crate) waits: u64,
    pub(crate) without_translate: u64,
    pub(crate) translate_only: u64,
    pub(crate) iotlb_resets: u64,
    pub(crate) faults: u64,
    pub(crate) vmm_events_unused: u64,
    pub(crate) shadow_operations: u64,
    /// Reads of page tables, and misses for which they are logged.
    pub(crate) table_reads: u64,
    pub(crate) misses_with_reads: u64,
    /// Commands for pages of which only the domain is logged.
    pub(crate) commands_without_range: u64,
    /// Invalidations of device TLBs, and those of a device's whole one.
    pub(crate) device_tlb: u64,
    pub(crate) device_tlb_whole: u64,
    /// Events that QEMU's `simple` backend had no room for.
    pub(crate) lost: u64,
}

/// Reads a QEMU log into a [`LogWindow`].
#[derive(Debug)]
pub(crate) struct LogReader<L> {
    lines: L,
    clock: Clock,
    pub(crate) counts: LogCounts,
    eof: bool,
    /// Accesses that wait for their `vtd_dmar_translate`: index and line.
    open: VecDeque<(u64, u64)>,
    /// A raw descriptor that waits for its decoded line: index and line.
    raw: Option<(u64, u64)>,
    /// Thread that just logged `vtd_dmar_enable`: a reset follows.
    enabling: Option<u32>,
    /// High halves of context entries, by device.
    contexts: FxHashMap<u32, u64>,
    /// The IOMMU that the log is of, once one of its events was read.
    pub(crate) model: Option<Model>,
    amdvi: amdvi::State,
    smmu: smmu::State,
    /// Names of other emulated IOMMUs seen.
    pub(crate) other_iommu: Option<&'static str>,
    /// Keep the records that only a VMM's log needs.
    vmm: bool,
    /// Table levels of the context entries seen, 0 if none was.
    pub(crate) levels: u32,
    /// The next record is the first one after a seam.
    seam: bool,
}

impl<L: LineSource> LogReader<L> {
    pub(crate) fn new(lines: L, vmm: bool) -> Self {
        LogReader {
            lines,
            clock: Clock::default(),
            counts: LogCounts::default(),
            eof: false,
            open: VecDeque::new(),
            raw: None,
            enabling: None,
            contexts: FxHashMap::default(),
            model: None,
            amdvi: amdvi::State::default(),
            smmu: smmu::State::default(),
            other_iommu: None,
            vmm,
            levels: 0,
            seam: false,
        }
    }

    /// The log of a VT-d of which nothing but descriptors is known
    /// ([`LogReader::submitted`]); `lines` gives its name.
    pub(crate) fn of_descriptors(lines: L) -> Self {
        LogReader {
            clock: Clock::of_times(),
            model: Some(Model::VtD),
            eof: true,
            ..LogReader::new(lines, false)
        }
    }

    /// Takes a descriptor that a guest submitted for one that the IOMMU carried out; gives its
    /// record.
    pub(crate) fn submitted(&mut self, w: &mut LogWindow, time: i64, d: Descriptor) -> Option<u64> {
        self.counts.iommu_events += 1;
        self.descriptor(w, LogRec::new(LogKind::Void, time, 0), d)
    }

    pub(crate) fn lines(&self) -> &L {
        &self.lines
    }

    pub(crate) fn into_lines(self) -> L {
        self.lines
    }

    pub(crate) fn eof(&self) -> bool {
        self.eof
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Records before this index do not change any more.
    pub(crate) fn stable(&self, window: &LogWindow) -> u64 {
        let open = self.open.front().map_or(u64::MAX, |o| o.0);
        let raw = self.raw.map_or(u64::MAX, |r| r.0);
        open.min(raw).min(window.end())
    }

    /// Reads one line into the window; false at the end of the log.
    pub(crate) fn read(&mut self, window: &mut LogWindow, diag: &mut Diagnostics) -> Result<bool> {
        if self.eof {
            return Ok(false);
        }
        let Some(line) = self.lines.next_line()? else {
            self.eof = true;
            self.raw = None;
            while let Some((index, _)) = self.open.pop_front() {
                self.complete_alone(window, index);
            }
            return Ok(false);
        };
        let number = line.number;
        self.counts.lines += 1;
        let (stamp, parsed) = if line.truncated {
            (Default::default(), Line::Damaged("line too long"))
        } else {
            qemu_line::parse(line.bytes)
        };
        match parsed {
            Line::Event(event) => {
                self.expect(event)?;
                let tick = if self.clock.doubts(stamp.time) {
                    let next = self.lines.peek_line()?;
                    let next = next.and_then(|line| qemu_line::parse(line).0.time);
                    self.clock.tick_beside(stamp.time, next)
                } else {
                    self.clock.tick(stamp.time)
                };
                self.seam |= tick.seam;
                let before = window.end();
                self.counts.iommu_events += u64::from(!event.is_host_side());
                let mut rec = LogRec::new(LogKind::Void, tick.time, stamp.tid);
                rec.seam = self.seam;
                self.event(window, event, rec, number);
                self.seam &= window.end() == before;
            }
            Line::Other(name) => {
                other(name, &mut self.counts, &mut self.other_iommu);
                diag.ignored(name);
            }
            Line::Blank => {}
            Line::Damaged(reason) => diag.damaged(self.lines.path(), number, reason)?,
        }
        while let Some(&(index, at)) = self.open.front()
            && number >= at + PAIR_LINES
        {
            self.open.pop_front();
            self.complete_alone(window, index);
        }
        if self.raw.is_some_and(|(_, at)| number >= at + PAIR_LINES) {
            self.raw = None;
        }
        Ok(true)
    }

    /// One log is of one IOMMU.
    #[inline]
    fn expect(&mut self, event: Event) -> Result<()> {
        let model = match event {
            Event::AmdVi(_) => Model::AmdVi,
            Event::Smmu(_) => Model::SmmuV3,
            _ if event.is_host_side() || matches!(event, Event::Lost(_)) => return Ok(()),
            _ => Model::VtD,
        };
        match *self.model.get_or_insert(model) {
            first if first == model => Ok(()),
            first => Err(import_error(
                self.lines.path(),
                format!(
                    "events of {} at line {} behind events of {}; a log is of one machine with one IOMMU, import them apart",
                    model.name(),
                    self.counts.lines,
                    first.name()
                ),
            )),
        }
    }

    #[inline]
    fn event(&mut self, w: &mut LogWindow, event: Event, mut rec: LogRec, line: u64) {
        let enabling = self.enabling.take();
        match event {
            Event::AmdVi(event) => self.amdvi_event(w, event, rec, line),
            Event::Smmu(event) => self.smmu_event(w, event, rec, line),
            Event::IotlbPage { hit, sid, iova, slpte, domain } => {
                rec.kind = LogKind::Dma;
                rec.sid = sid;
                rec.domain = domain;
                rec.a = iova;
                // The page's size is the translation's mask; until that line
                // comes, a large page is taken for 2 MiB.
                rec.c = if slpte & SLPTE_LARGE != 0 { 0x1f_ffff } else { 0xfff };
                rec.b = slpte & SLPTE_ADDR & !rec.c | iova & rec.c;
                rec.flags = log_flags::LABEL
                    | log_flags::OUT
                    | (slpte & 3) as u8
                    | if hit { log_flags::HIT } else { 0 };
                let index = w.push(rec);
                self.open.push_back((index, line));
                self.enabling = enabling;
            }
            Event::Translate { sid, iova, gpa, mask } => {
                self.translate(w, rec, sid, iova, gpa, mask);
                self.enabling = enabling;
            }
            Event::PassThrough { sid, iova } => {
                rec.kind = LogKind::Dma;
                (rec.sid, rec.a, rec.b, rec.c) = (sid, iova, iova, 0xfff);
                rec.flags = log_flags::OUT | log_flags::PASS;
                let index = w.push(rec);
                self.open.push_back((index, line));
            }
            Event::Fault { sid, addr, write } => {
                self.counts.faults += 1;
                rec.kind = LogKind::Dma;
                (rec.sid, rec.a, rec.c) = (sid, addr, 0xfff);
                rec.domain = self.domain_of(sid);
                rec.flags =
                    log_flags::FAULT | if write { log_flags::WRITE } else { log_flags::READ };
                w.push(rec);
            }
            Event::InvDesc { qw0, qw1 } => {
                if let Some(index) = self.descriptor(w, rec, Descriptor { qw0, qw1 }) {
                    self.raw = Some((index, line));
                }
            }
            Event::InvPages { domain, addr, am } => {
                self.decoded(w, rec, Descriptor::iotlb_pages(domain, addr, am))
            }
            Event::InvDomain { domain } => self.decoded(w, rec, Descriptor::iotlb_domain(domain)),
            Event::InvGlobal => self.decoded(w, rec, Descriptor::iotlb_global()),
            Event::CcGlobal => self.decoded(w, rec, Descriptor::context_global()),
            Event::CcDomain { domain } => self.decoded(w, rec, Descriptor::context_domain(domain)),
            Event::CcDevices { sid, fmask } => {
                self.decoded(w, rec, Descriptor::context_devices(sid, fmask))
            }
            Event::Iec { granularity, index, mask } => {
                self.decoded(w, rec, Descriptor::interrupt(granularity, index, mask));
            }
            Event::DmarEnable { on } => {
                // QEMU 7.2, vtd_handle_gcmd_te: the caches are emptied, which
                // it logs next as vtd_context_cache_reset: one event for both.
                self.enabling = Some(rec.tid);
                rec.kind = LogKind::Reset;
                rec.c = u64::from(on);
                w.push(rec);
            }
            Event::CacheReset => {
                if enabling != Some(rec.tid) {
                    rec.kind = LogKind::Reset;
                    rec.c = 2;
                    w.push(rec);
                }
            }
            Event::Context { sid, high } => self.context(sid, high),
            Event::ReplayContext { sid, high } => self.context(sid, high),
            Event::Switch { .. }
            | Event::UnmapWhole { .. }
            | Event::WalkOne { .. }
            | Event::VfioNotify { .. }
            | Event::RegionAddRam { .. }
            | Event::RegionAddIommu { .. }
            | Event::RegionDel { .. }
            | Event::Host(_) => self.vmm_event(w, event, rec),
            Event::Lost(n) => self.counts.lost += n,
        }
    }

    /// A raw descriptor; its record, unless it only waits.
    fn descriptor(&mut self, w: &mut LogWindow, rec: LogRec, d: Descriptor) -> Option<u64> {
        self.counts.raw_descriptors += 1;
        if d.kind() == kind::WAIT {
            self.counts.waits += 1;
            return None;
        }
        if let Some(tlb) = d.device_tlb() {
            self.counts.device_tlb += 1;
            self.counts.device_tlb_whole += u64::from(tlb.order == 52);
        }
        Some(push_descriptor(w, rec, d))
    }

    /// The line with the output of a translation.
    #[inline]
    fn translate(
        &mut self,
        w: &mut LogWindow,
        mut rec: LogRec,
        sid: u32,
        iova: u64,
        gpa: u64,
        mask: u64,
    ) {
        let found = self.open.iter().position(|&(index, _)| {
            w.get(index)
                .is_some_and(|r| r.tid == rec.tid && r.sid == sid && (r.a ^ iova) & !mask == 0)
        });
        if let Some(at) = found {
            let (index, _) = self.open.remove(at).expect("position is in range");
            if let Some(r) = w.get_mut(index) {
                r.c = mask;
                r.b = gpa & !mask | r.a & mask;
            }
            w.index_dma(index);
            return;
        }
        // Nothing was looked up: translation is off or passes this device
        // (QEMU then reports the page itself), or the log lacks the labels.
        self.counts.translate_only += 1;
        rec.kind = LogKind::Dma;
        (rec.sid, rec.a, rec.b, rec.c) = (sid, iova, gpa, mask);
        rec.domain = self.domain_of(sid);
        rec.flags = log_flags::OUT;
        if gpa == iova && mask == 0xfff {
            rec.flags |= log_flags::PASS;
        }
        let index = w.push(rec);
        w.index_dma(index);
    }

    /// An access whose translation line did not come.
    fn complete_alone(&mut self, w: &mut LogWindow, index: u64) {
        if w.get(index).is_some_and(|r| !r.has(log_flags::PASS)) {
            self.counts.without_translate += 1;
        }
        w.index_dma(index);
    }

    /// The decoded line of a descriptor; its raw line, if there was one, has
    /// put a record into the window already.
    fn decoded(&mut self, w: &mut LogWindow, rec: LogRec, d: Descriptor) {
        if let Some((index, _)) = self.raw
            && let Some(raw) = w.get(index)
            && raw.descriptor().token() == d.token()
        {
            self.raw = None;
            if index + 1 != w.end() {
                // Other threads logged in between: the effect is here.
                let d = raw.descriptor();
                w.get_mut(index).expect("seen above").kind = LogKind::Void;
                push_descriptor(w, rec, d);
            }
            return;
        }
        self.counts.decoded_only += 1;
        push_descriptor(w, rec, d);
    }

    /// A context entry, hit or filled. In legacy mode its high half has the
    /// domain (bits 87:72) and is never 0 there; in scalable mode both are in
    /// the PASID entry, which is not logged.
    fn context(&mut self, sid: u32, high: u64) {
        if high >> 8 & 0xffff != 0 && self.contexts.insert(sid, high) != Some(high) {
            self.note_levels(high);
        }
    }

    /// Address width of a legacy context entry (bits 66:64): 1 is 39 bits or
    /// three levels, 2 is 48 bits, 3 is 57 bits.
    fn note_levels(&mut self, high: u64) {
        if let width @ 1..=3 = high & 7 {
            self.levels = self.levels.max(width as u32 + 2);
        }
    }

    fn domain_of(&self, sid: u32) -> u32 {
        self.contexts.get(&sid).map_or(u32::MAX, |high| (high >> 8) as u32 & 0xffff)
    }

    /// Events of a VMM that shadows the guest's table. The shadow operations
    /// tell about the table in any log.
    fn vmm_event(&mut self, w: &mut LogWindow, event: Event, mut rec: LogRec) {
        match event {
            Event::Host(_)
            | Event::VfioNotify { .. }
            | Event::UnmapWhole { .. }
            | Event::Switch { .. }
                if !self.vmm =>
            {
                self.counts.vmm_events_unused += 1;
                return;
            }
            Event::Switch { sid, on } => {
                rec.kind = LogKind::Switch;
                (rec.sid, rec.c) = (sid, u64::from(on));
            }
            Event::WalkOne { domain, iova, gpa, mask, perm } => {
                self.counts.shadow_operations += 1;
                rec.kind = LogKind::Walk;
                (rec.domain, rec.a, rec.b, rec.c, rec.flags) =
                    (domain, iova, gpa, mask, perm as u8);
            }
            Event::RegionAddRam { start, end, vaddr } => {
                rec.kind = LogKind::RegionRam;
                (rec.a, rec.b, rec.c) = (start, end, vaddr);
            }
            Event::RegionAddIommu { start, end } => {
                rec.kind = LogKind::RegionIommu;
                (rec.a, rec.b) = (start, end);
            }
            Event::RegionDel { start, end } => {
                rec.kind = LogKind::RegionDel;
                (rec.a, rec.b) = (start, end);
            }
            _ => return,
        }
        w.push(rec);
    }
}

fn push_descriptor(w: &mut LogWindow, mut rec: LogRec, d: Descriptor) -> u64 {
    rec.kind = if matches!(
        d.kind(),
        kind::IOTLB | kind::CONTEXT | kind::PASID_IOTLB | kind::PASID_CACHE
    ) {
        LogKind::Inv
    } else {
        LogKind::Token
    };
    (rec.a, rec.b) = (d.qw1, d.qw0);
    let index = w.push(rec);
    w.index_invalidation(index);
    index
}

/// An event of a kind that is not used.
fn other(name: &[u8], counts: &mut LogCounts, other_iommu: &mut Option<&'static str>) {
    if Model::of_event(name).is_some() {
        counts.iommu_events += 1;
        if name == b"vtd_iotlb_reset" {
            // An effect of the fills before it, not an input.
            counts.iotlb_resets += 1;
        }
    } else if other_iommu.is_none() {
        *other_iommu = [
            (&b"virtio_iommu_"[..], "virtio-iommu (virtio_iommu_*)"),
            (b"riscv_iommu", "RISC-V IOMMU (riscv_iommu_*)"),
        ]
        .into_iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map(|(_, name)| name);
    }
}

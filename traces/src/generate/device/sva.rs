//! Processes that share their address space with a device (SVA): one PASID
//! each, pages appear when they are first touched, and the kernel invalidates
//! what a process unmaps.
//!
//! After drivers/iommu/iommu-sva.c and intel/svm.c of Linux 6.12 (R):
//! invalidations are page-selective in the PASID, whatever `--unmap` says.

use ioasim_events::{DomainId, Event, Flags, Kind, Pasid, Scope};
use rand::SeedableRng;
use rand::distr::Distribution as _;
use rand_distr::Zipf;
use rand_pcg::Pcg64;

use super::{Device, chance};
use crate::generate::choose::below;
use crate::generate::error::{OptionError, limit};
use crate::generate::linux::{DmaOptions, Frames, Out, Side};

/// First address of a process's heap (R: x86-64 Linux maps below 2^47).
const HEAP: u64 = 0x7f00_0000_0000;

/// Parameters; defaults are assumptions (A).
#[derive(Clone, Debug, PartialEq)]
pub struct SvaOptions {
    /// Processes, a PASID each, 1 to n. Default 8.
    pub processes: u64,
    /// Pages of 4 KiB that a process works on. Default 4,096.
    pub pages: u64,
    /// Exponent of the Zipf distribution over them. Default 0.9.
    pub zipf: f64,
    /// Bytes of a work descriptor's transfer. Default 16 KiB.
    pub transfer: u64,
    /// Share of transfers after which the process unmaps a piece of its memory
    /// (munmap, reclaim, migration). Default 0.01.
    pub unmaps: f64,
    /// Pages of that piece. Default 16.
    pub unmap_pages: u64,
    /// Transfers per second, all processes. Default 1,000,000.
    pub rate: f64,
}

impl Default for SvaOptions {
    fn default() -> SvaOptions {
        SvaOptions {
            processes: 8,
            pages: 4096,
            zipf: 0.9,
            transfer: 16 << 10,
            unmaps: 0.01,
            unmap_pages: 16,
            rate: 1e6,
        }
    }
}

impl SvaOptions {
    /// log2 of the pages of guest memory: twice what is used, so that it is
    /// scattered.
    pub(super) fn frame_bits(&self) -> u32 {
        (2 * self.pages * self.processes).next_power_of_two().trailing_zeros()
    }

    pub(super) fn check(&self) -> Result<(), OptionError> {
        if !(1..1 << 20).contains(&self.processes) {
            return Err(limit("--processes", self.processes, "1 to 1048575 (20 bits of PASID)"));
        }
        if self.pages == 0 || self.pages.saturating_mul(self.processes) > 1 << 26 {
            let what = "at least 1 page, and at most 67108864 in all processes together";
            return Err(limit("--pages", self.pages, what));
        }
        if !(0.0..=10.0).contains(&self.zipf) {
            return Err(limit("--zipf", self.zipf, "from 0 to 10"));
        }
        if !(64..=1 << 30).contains(&self.transfer) {
            return Err(limit("--transfer", self.transfer, "64 bytes to 1G"));
        }
        if !(0.0..=1.0).contains(&self.unmaps) {
            return Err(limit("--unmaps", self.unmaps, "a share from 0 to 1"));
        }
        if !(1..=self.pages).contains(&self.unmap_pages) {
            return Err(limit("--unmap-pages", self.unmap_pages, "1 to --pages"));
        }
        if !(self.rate > 0.0 && self.rate <= 1e9) {
            return Err(limit("--rate", self.rate, "above 0 and at most 1e9"));
        }
        Ok(())
    }

    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        vec![
            ("processes", self.processes.to_string()),
            ("pages_per_process", self.pages.to_string()),
            ("zipf_exponent", self.zipf.to_string()),
            ("transfer_bytes", self.transfer.to_string()),
            ("unmap_share", self.unmaps.to_string()),
            ("unmap_pages", self.unmap_pages.to_string()),
            ("transfers_per_second", self.rate.to_string()),
        ]
    }
}

/// The device and its processes. Each process is a domain of its own: the
/// device's domain number and those that follow.
#[derive(Debug)]
pub(super) struct Sva {
    options: SvaOptions,
    side: Side,
    caching_mode: bool,
    frames: Frames,
    rng: Pcg64,
    ranks: Option<Zipf<f64>>,
    /// GPA page number of each page of each process, 0 = absent.
    tables: Vec<u64>,
    now: f64,
}

impl Sva {
    pub fn new(options: SvaOptions, dma: &DmaOptions, side: Side, seed: u64) -> Sva {
        let tables = vec![0; (options.pages * options.processes) as usize];
        let ranks = (options.zipf > 0.0)
            .then(|| Zipf::new(options.pages as f64, options.zipf).ok())
            .flatten();
        let rng = Pcg64::seed_from_u64(seed);
        let caching_mode = dma.caching_mode;
        let frames = Frames::new(options.frame_bits());
        Sva { options, side, caching_mode, frames, rng, ranks, tables, now: 0.0 }
    }

    /// What the events of a process carry.
    fn of(&self, process: u64) -> Side {
        Side {
            domain: DomainId(self.side.domain.0.wrapping_add(process as u32)),
            pasid: Pasid(process as u32 + 1),
            ..self.side
        }
    }

    fn invalidate(&self, out: &mut Out, side: Side, now: u64, addr: u64, pages: u64, why: Flags) {
        let (first, last) = (addr >> 12, (addr >> 12) + pages - 1);
        let bits = u64::BITS - (first ^ last).leading_zeros();
        let start = first >> bits << bits << 12;
        let flags = Flags::with_scope(Scope::Page).with(Flags::LEAF_ONLY).with(why);
        let event = side.event(Kind::Invalidate, now);
        out.events.push(Event { flags, addr: start, size: 4096 << bits, out: start, ..event });
    }
}

impl Device for Sva {
    fn begin(&mut self, out: &mut Out) {
        for process in 0..self.options.processes {
            let side = self.of(process);
            let attach = side.event(Kind::Attach, 0);
            out.events.push(Event { requester: side.requester, ..attach });
        }
    }

    fn now(&self) -> u64 {
        self.now as u64
    }

    fn step(&mut self, out: &mut Out) {
        let now = self.now as u64;
        self.now += 1e9 / self.options.rate;
        let (pages, transfer) = (self.options.pages, self.options.transfer);
        let process = below(&mut self.rng, self.options.processes);
        let side = self.of(process);
        let rank = match &self.ranks {
            Some(zipf) => zipf.sample(&mut self.rng) as u64,
            None => below(&mut self.rng, pages),
        };
        let first = rank.wrapping_mul(0x9e37_79b1) % pages;
        let right = if chance(&mut self.rng, 0.5) { Flags::WRITE } else { Flags::READ };
        let base = (process * pages) as usize;
        let count = transfer.div_ceil(4096).min(pages - first);
        for i in 0..count {
            let (page, addr) = (first + i, HEAP + ((first + i) << 12));
            let at = base + page as usize;
            if self.tables[at] == 0 {
                // The page request or the process itself brings it.
                self.tables[at] = self.frames.take();
                let rights = Flags::READ.with(Flags::WRITE);
                let notified = if self.caching_mode { Flags::NOTIFIED } else { Flags::default() };
                let event = side.event(Kind::Map, now);
                let (flags, to) = (rights.with(notified), self.tables[at]);
                out.events.push(Event { flags, addr, size: 4096, out: to, ..event });
                if self.caching_mode {
                    self.invalidate(out, side, now, addr, 1, Flags::MAP_NOTIFY);
                }
            }
            let bytes = 4096.min(transfer - i * 4096);
            out.events.push(side.dma(now, right, addr, bytes, self.tables[at]));
        }
        if chance(&mut self.rng, self.options.unmaps) {
            let pages_gone = self.options.unmap_pages;
            let first = below(&mut self.rng, pages - pages_gone + 1);
            let addr = HEAP + (first << 12);
            let mut any = false;
            for i in 0..pages_gone {
                let at = base + (first + i) as usize;
                let gpa = std::mem::take(&mut self.tables[at]);
                if gpa != 0 {
                    any = true;
                    self.frames.give(gpa);
                    let event = side.event(Kind::Unmap, now);
                    out.events.push(Event { addr: addr + (i << 12), size: 4096, ..event });
                }
            }
            if any {
                self.invalidate(out, side, now, addr, pages_gone, Flags::default());
            }
        }
    }
}

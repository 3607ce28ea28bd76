//! A VMM that assigns a device and boots a guest: all of guest memory is mapped
//! (IOVA = the guest's address), the firmware moves windows about, and then the
//! device works.
//!
//! After VFIO type1 (R: `vfio_iommu_map` maps runs of contiguous pinned pages)
//! and QEMU's q35 memory map (R: hw/i386/pc_q35.c: memory below 2 GiB or 3 GiB,
//! the rest from 4 GiB).

use ioasim_events::{Event, Flags, Kind, Scope};
use rand::SeedableRng;
use rand_pcg::Pcg64;

use super::{Device, chance};
use crate::generate::choose::below;
use crate::generate::error::{OptionError, limit};
use crate::generate::linux::{Frames, Out, Side};

/// The firmware's shadow area, whose parts become read-only and writable again.
const SHADOW: u64 = 0xc_0000;
const SHADOW_PART: u64 = 0x4000;
const SHADOW_PARTS: u64 = 16;

/// Parameters. Tags: R read in the source named, A assumption.
#[derive(Clone, Debug, PartialEq)]
pub struct VfioBootOptions {
    /// Guest memory in bytes. Default 4 GiB (A).
    pub memory: u64,
    /// Share of memory that lies in huge pages of 2 MiB in the host; the rest in
    /// runs of one to 16 pages. Default 0.9 (A).
    pub huge: f64,
    /// Changes of the firmware's shadow area while it boots, each an unmap and a
    /// map. Default 32 (A).
    pub remaps: u64,
    /// Accesses per second once the guest runs. Default 1,000,000 (A).
    pub rate: f64,
    /// Bytes of the guest's memory that the device uses. Default 64 MiB (A).
    pub working_set: u64,
}

impl Default for VfioBootOptions {
    fn default() -> VfioBootOptions {
        VfioBootOptions { memory: 4 << 30, huge: 0.9, remaps: 32, rate: 1e6, working_set: 64 << 20 }
    }
}

impl VfioBootOptions {
    /// log2 of the pages of host memory: twice the guest's.
    pub(super) fn frame_bits(&self) -> u32 {
        (self.memory / 2048).next_power_of_two().trailing_zeros()
    }

    pub(super) fn check(&self) -> Result<(), OptionError> {
        if !(16 << 20..=1 << 42).contains(&self.memory) || !self.memory.is_multiple_of(2 << 20) {
            return Err(limit("--memory", self.memory, "16M to 4096G, a multiple of 2M"));
        }
        if !(0.0..=1.0).contains(&self.huge) {
            return Err(limit("--huge", self.huge, "a share from 0 to 1"));
        }
        if self.remaps > 1_000_000 {
            return Err(limit("--remaps", self.remaps, "at most 1000000"));
        }
        if !(self.rate > 0.0 && self.rate <= 1e9) {
            return Err(limit("--rate", self.rate, "above 0 and at most 1e9"));
        }
        if !(4096..=self.memory - (1 << 20)).contains(&self.working_set) {
            let what = "4096 bytes to 1M less than --memory";
            return Err(limit("--working-set", self.working_set, what));
        }
        Ok(())
    }

    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        vec![
            ("memory_bytes", self.memory.to_string()),
            ("huge_share", self.huge.to_string()),
            ("remaps", self.remaps.to_string()),
            ("accesses_per_second", self.rate.to_string()),
            ("working_set_bytes", self.working_set.to_string()),
        ]
    }
}

/// Where the boot is.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Maps 2 MiB at a time, up to this address of memory.
    Map(u64),
    Remap(u64),
    Run,
}

/// A run of pages of memory: its place in 2 MiB, its bytes, where it lies.
type Run = (u64, u64, u64);

/// Runs of 2 MiB that accesses have asked for; a block's place is its number
/// modulo this.
const KNOWN: usize = 256;

/// The VMM and its guest's device. Outputs of memory: a function of the place,
/// so that nothing has to be kept for each page.
#[derive(Debug)]
pub(super) struct VfioBoot {
    options: VfioBootOptions,
    side: Side,
    rng: Pcg64,
    frames: Frames,
    /// Drawn once: whether and where each 2 MiB lie.
    salt: u64,
    phase: Phase,
    /// Blocks of 2 MiB and their runs, as worked out last.
    known: Vec<(u64, Vec<Run>)>,
    now: f64,
}

impl VfioBoot {
    pub fn new(options: VfioBootOptions, side: Side, seed: u64) -> VfioBoot {
        let mut rng = Pcg64::seed_from_u64(seed);
        let salt = below(&mut rng, u64::MAX);
        let phase = Phase::Map(0);
        let frames = Frames::new(options.frame_bits());
        let known = vec![(u64::MAX, Vec::new()); KNOWN];
        VfioBoot { options, side, rng, frames, salt, phase, known, now: 0.0 }
    }

    /// Bytes of memory below 4 GiB.
    fn low(&self) -> u64 {
        let split = if self.options.memory >= 0xb000_0000 { 2 << 30 } else { 0xb000_0000 };
        self.options.memory.min(split)
    }

    /// The guest's address of a place in its memory.
    fn address(&self, place: u64) -> u64 {
        if place < self.low() { place } else { place - self.low() + (4 << 30) }
    }

    /// Runs of the 2 MiB at `place`: pages each, and where it lies.
    fn runs(&self, place: u64) -> impl Iterator<Item = Run> + use<> {
        let block = place >> 21;
        let mut rng = Pcg64::seed_from_u64(self.salt ^ block.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let base = self.frames.huge(block + 1, 2 << 20);
        let huge = chance(&mut rng, self.options.huge);
        let mut at = 0;
        std::iter::from_fn(move || {
            if at == 512 {
                return None;
            }
            // Within a block small runs change places in pairs: they stay
            // contiguous inside and are not outside.
            let pages = if huge { 512 } else { (1 + below(&mut rng, 16)).min(512 - at) };
            let to = if huge { base } else { base + ((511 - at + 1 - pages) << 12) };
            let run = (at << 12, pages << 12, to);
            at += pages;
            Some(run)
        })
    }

    /// Where a place lies.
    fn output(&mut self, place: u64) -> u64 {
        let (block, offset) = (place >> 21, place & ((2 << 20) - 1));
        let at = block as usize % KNOWN;
        if self.known[at].0 != block {
            let runs = self.runs(place);
            self.known[at].0 = block;
            self.known[at].1.clear();
            self.known[at].1.extend(runs);
        }
        let runs = &self.known[at].1;
        let run = runs[runs.partition_point(|r| r.0 <= offset) - 1];
        run.2 + (offset - run.0)
    }

    fn map(&self, out: &mut Out, now: u64, addr: u64, bytes: u64, to: u64, rights: Flags) {
        let event = self.side.event(Kind::Map, now);
        out.events.push(Event { cpu: 0, flags: rights, addr, size: bytes, out: to, ..event });
    }

    /// One change of the shadow area: read-only, or writable again.
    fn remap(&mut self, out: &mut Out, n: u64) {
        let now = self.now as u64;
        let addr = SHADOW + n % SHADOW_PARTS * SHADOW_PART;
        let event = self.side.event(Kind::Unmap, now);
        out.events.push(Event { cpu: 0, addr, size: SHADOW_PART, ..event });
        let flags = Flags::with_scope(Scope::Page).with(Flags::LEAF_ONLY);
        let event = self.side.event(Kind::Invalidate, now);
        let size = SHADOW_PART;
        out.events.push(Event { cpu: 0, flags, addr, size, out: addr, ..event });
        let writable = n / SHADOW_PARTS % 2 == 1;
        let rights = if writable { Flags::READ.with(Flags::WRITE) } else { Flags::READ };
        for page in 0..SHADOW_PART >> 12 {
            let at = addr + (page << 12);
            let to = self.output(at);
            self.map(out, now, at, 4096, to, rights);
        }
    }
}

impl Device for VfioBoot {
    fn begin(&mut self, out: &mut Out) {
        let attach = self.side.event(Kind::Attach, 0);
        out.events.push(Event { requester: self.side.requester, ..attach });
    }

    fn now(&self) -> u64 {
        self.now as u64
    }

    fn step(&mut self, out: &mut Out) {
        match self.phase {
            Phase::Map(place) => {
                let (now, addr) = (self.now as u64, self.address(place));
                let both = Flags::READ.with(Flags::WRITE);
                for (offset, bytes, to) in self.runs(place) {
                    let size = if place == 0 { 4096 } else { bytes };
                    // The first 2 MiB are mapped page by page: the firmware's
                    // windows cut them up.
                    for cut in (0..bytes).step_by(size as usize) {
                        self.map(out, now, addr + offset + cut, size, to + cut, both);
                    }
                }
                // Pinning and mapping 2 MiB: 11.5 ns per 4 KiB (CALIBRATION).
                self.now += 512.0 * 11.5;
                let next = place + (2 << 20);
                let more = next < self.options.memory;
                self.phase = if more { Phase::Map(next) } else { Phase::Remap(0) };
            }
            Phase::Remap(n) if n < self.options.remaps => {
                self.remap(out, n);
                // The firmware takes its time (A).
                self.now += 1e6;
                self.phase = Phase::Remap(n + 1);
            }
            Phase::Remap(_) => self.phase = Phase::Run,
            Phase::Run => {
                let pages = self.options.working_set >> 12;
                let top = self.options.memory - self.options.working_set;
                let place = top + (below(&mut self.rng, pages) << 12);
                let write = chance(&mut self.rng, 0.5);
                let right = if write { Flags::WRITE } else { Flags::READ };
                let (now, addr) = (self.now as u64, self.address(place));
                let to = self.output(place);
                out.events.push(self.side.dma(now, right, addr, 4096, to));
                self.now += 1e9 / self.options.rate;
            }
        }
    }
}

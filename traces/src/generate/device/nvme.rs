//! An NVMe disk: a queue pair per CPU, each command's data mapped as a scatter
//! list and unmapped when it is done.
//!
//! After drivers/nvme/host/pci.c of Linux 6.0 to 6.12 (R) and the NVMe base
//! specification, 4.1.1 (PRP lists).

use ioasim_events::Flags;
use rand::SeedableRng;
use rand_pcg::Pcg64;

use super::ring::Ring;
use super::{Device, FRAME_BITS, chance};
use crate::generate::choose::below;
use crate::generate::error::{OptionError, limit};
use crate::generate::linux::{Dma, DmaOptions, Frames, Out, Side};

/// Bytes of a submission entry and of a completion (NVMe base 2.0, 4.1, 4.2).
const SUBMISSION: u64 = 64;
const COMPLETION: u64 = 16;
/// Bytes of a PRP list in the driver's small pool (R: `prp_small_pool`, 256);
/// longer lists take a page.
const SMALL_LIST: u64 = 256;

/// Parameters of an NVMe disk. Tags: R read in the source named, A assumption.
#[derive(Clone, Debug, PartialEq)]
pub struct NvmeOptions {
    /// Queue pairs, on CPUs 0 to n - 1. Default: one per CPU (R: pci.c).
    pub queues: Option<usize>,
    /// Commands under way in each queue. Default 32 (A; fio's common choice).
    pub depth: usize,
    /// Bytes of a command's data. Default 4,096 (A).
    pub block: u64,
    /// Share of commands that read the disk, so write memory. Default 1 (A).
    pub reads: f64,
    /// Pages of a buffer that lie in one piece: the page cache's folios.
    /// Default 1 (A).
    pub contiguous: u64,
    /// Commands per second, all queues. Default 1,000,000 (A).
    pub iops: f64,
}

impl Default for NvmeOptions {
    fn default() -> NvmeOptions {
        NvmeOptions { queues: None, depth: 32, block: 4096, reads: 1.0, contiguous: 1, iops: 1e6 }
    }
}

impl NvmeOptions {
    pub(super) fn check(&self, dma: &DmaOptions) -> Result<(), OptionError> {
        let queues = self.queues.unwrap_or(dma.cpus);
        if !(1..=dma.cpus).contains(&queues) {
            return Err(limit("--queues", queues, "at least 1 and at most --cpus"));
        }
        if !(1..=1023).contains(&self.depth) {
            return Err(limit("--depth", self.depth, "1 to 1023 commands (NVME_Q_DEPTH)"));
        }
        if !(512..=4 << 20).contains(&self.block) || !self.block.is_multiple_of(512) {
            return Err(limit("--block", self.block, "512 bytes to 4M, a multiple of 512"));
        }
        if !(0.0..=1.0).contains(&self.reads) {
            return Err(limit("--reads", self.reads, "a share from 0 to 1"));
        }
        if !(1..=512).contains(&self.contiguous) {
            return Err(limit("--contiguous", self.contiguous, "1 to 512 pages"));
        }
        if !(self.iops > 0.0 && self.iops <= 1e9) {
            return Err(limit("--iops", self.iops, "above 0 and at most 1e9"));
        }
        Ok(())
    }

    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        vec![
            ("queues", self.queues.map_or("cpus".into(), |q| q.to_string())),
            ("depth_commands", self.depth.to_string()),
            ("block_bytes", self.block.to_string()),
            ("read_share", self.reads.to_string()),
            ("contiguous_pages", self.contiguous.to_string()),
            ("commands_per_second", self.iops.to_string()),
        ]
    }
}

/// A command under way.
#[derive(Debug, Default)]
struct Command {
    iova: u64,
    reads: bool,
    /// GPA of each piece.
    pieces: Vec<u64>,
}

#[derive(Debug)]
struct Queue {
    submissions: Ring,
    completions: Ring,
    /// PRP lists, one place per command.
    lists: Vec<(u64, u64)>,
    commands: Vec<Command>,
}

/// The disk and its driver.
#[derive(Debug)]
pub(super) struct Nvme {
    options: NvmeOptions,
    dma: Dma,
    frames: Frames,
    rng: Pcg64,
    queues: Vec<Queue>,
    now: f64,
    gap_ns: f64,
    /// Commands issued so far, up to the number that are under way at once.
    filled: usize,
}

impl Nvme {
    pub fn new(options: NvmeOptions, dma: &DmaOptions, side: Side, seed: u64) -> Nvme {
        let queues = options.queues.unwrap_or(dma.cpus);
        let mut dma = Dma::new(dma, side);
        let mut frames = Frames::new(FRAME_BITS);
        let list = if options.block / 4096 * 8 <= SMALL_LIST { SMALL_LIST } else { 4096 };
        let queues = (0..queues)
            .map(|cpu| {
                let mut ring = |entry| Ring::new(&mut dma, &mut frames, cpu, 1024, entry);
                let (submissions, completions) = (ring(SUBMISSION), ring(COMPLETION));
                let mut lists = Vec::new();
                let mut page = (0, 0);
                for i in 0..options.depth as u64 {
                    let at = i * list % 4096;
                    if at == 0 {
                        page = (dma.iova(cpu, 4096), frames.take());
                    }
                    lists.push((page.0 + at, page.1 + at));
                }
                let commands = (0..options.depth).map(|_| Command::default()).collect();
                Queue { submissions, completions, lists, commands }
            })
            .collect();
        let rng = Pcg64::seed_from_u64(seed);
        let gap_ns = 1e9 / options.iops;
        Nvme { options, dma, frames, rng, queues, now: 0.0, gap_ns, filled: 0 }
    }

    /// Maps a command's data and lets the device read the command.
    fn submit(&mut self, cpu: usize, slot: usize, out: &mut Out) {
        let now = self.now as u64;
        let o = &self.options;
        let piece = o.contiguous * 4096;
        let iova = self.dma.iova(cpu, o.block);
        let queue = &mut self.queues[cpu];
        let command = &mut queue.commands[slot];
        command.iova = iova;
        command.reads = chance(&mut self.rng, o.reads);
        command.pieces.clear();
        let mut at = 0;
        // The whole list is one range; its pieces are mapped one by one and
        // announced once (`iommu_map_sg`, `iotlb_sync_map`).
        while at < o.block {
            let bytes = piece.min(o.block - at);
            let gpa = self.frames.take();
            let mapped = bytes.next_multiple_of(4096);
            self.dma.map_at(out, now, cpu, iova + at, gpa, mapped);
            command.pieces.push(gpa);
            at += bytes;
        }
        self.dma.sync_map(out, now, cpu, iova, o.block.next_multiple_of(4096));
        queue.submissions.access(&self.dma, out, now, Flags::READ);
        // Two pages stand in the command itself.
        let pages = o.block.div_ceil(4096);
        if pages > 2 {
            let (list, gpa) = queue.lists[slot];
            let bytes = ((pages - 1) * 8).min(4096 - (list & 0xfff));
            out.events.push(self.dma.side.dma(now, Flags::READ, list, bytes, gpa));
        }
    }

    /// The device moves a command's data and completes it.
    fn complete(&mut self, cpu: usize, slot: usize, out: &mut Out) {
        let now = self.now as u64;
        let o = &self.options;
        let queue = &mut self.queues[cpu];
        let command = &queue.commands[slot];
        let right = if command.reads { Flags::WRITE } else { Flags::READ };
        let piece = o.contiguous * 4096;
        let mut at = 0;
        while at < o.block {
            let bytes = 4096.min(o.block - at);
            let gpa = command.pieces[(at / piece) as usize] + at % piece;
            out.events.push(self.dma.side.dma(now, right, command.iova + at, bytes, gpa));
            at += bytes;
        }
        queue.completions.access(&self.dma, out, now, Flags::WRITE);
        let whole = o.block.next_multiple_of(4096);
        self.dma.unmap(out, now, cpu, command.iova, whole);
        queue.commands[slot].pieces.drain(..).for_each(|gpa| self.frames.give(gpa));
    }
}

impl Device for Nvme {
    fn begin(&mut self, out: &mut Out) {
        self.dma.attach(out, 0);
        for (cpu, queue) in self.queues.iter().enumerate() {
            queue.submissions.map(&self.dma, out, 0, cpu);
            queue.completions.map(&self.dma, out, 0, cpu);
            for &(iova, gpa) in queue.lists.iter().filter(|l| l.0 & 0xfff == 0) {
                self.dma.map_at(out, 0, cpu, iova, gpa, 4096);
                self.dma.sync_map(out, 0, cpu, iova, 4096);
            }
        }
    }

    fn now(&self) -> u64 {
        self.now as u64
    }

    fn step(&mut self, out: &mut Out) {
        let all = self.queues.len() * self.options.depth;
        let (cpu, slot) = if self.filled < all {
            let next = (self.filled % self.queues.len(), self.filled / self.queues.len());
            self.filled += 1;
            next
        } else {
            // A flash disk completes in no particular order.
            let cpu = below(&mut self.rng, self.queues.len() as u64) as usize;
            let slot = below(&mut self.rng, self.options.depth as u64) as usize;
            self.complete(cpu, slot, out);
            (cpu, slot)
        };
        self.submit(cpu, slot, out);
        self.now += self.gap_ns;
    }
}

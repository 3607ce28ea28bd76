//! A NIC that receives: descriptors of 64 pages, each page mapped by itself.
//!
//! After the mlx5 driver of Linux 6.0 (R: en_rx.c, en_txrx.c, en_main.c) and
//! Fast & Safe, SOSP'24, section 2. `docs/generating.md` tells the story.

use std::collections::VecDeque;

use ioasim_events::{Flags, Kind};
use rand::SeedableRng;
use rand_pcg::Pcg64;

use super::history::{self, COMPLETION, DESCRIPTOR_PAGES, RingSetting};
use super::ring::Ring;
use super::{Device, FRAME_BITS, chance};
use crate::generate::choose::below;
use crate::generate::error::{OptionError, limit};
use crate::generate::linux::{Dma, DmaOptions, Frames, Out, Side};

/// Packets that one poll handles at most (R: `NAPI_POLL_WEIGHT`).
const BUDGET: u64 = 64;
/// Descriptors that must be missing before new ones are posted (R:
/// `UMR_WQE_BULK`).
const REFILL: usize = 2;
/// Bytes of an acknowledgement with its headers.
const ACK: u64 = 66;
/// Entries of a send queue (R: `MLX5E_PARAMS_DEFAULT_LOG_SQ_SIZE` = 10), 64
/// bytes each.
const SEND_ENTRIES: u64 = 1024;

/// Parameters of a NIC's receive side. Tags: R read in the source named, A
/// assumption.
#[derive(Clone, Debug, PartialEq)]
pub struct NicOptions {
    /// Cores that receive, CPUs 0 to n - 1. Default 5 (R: Fast & Safe).
    pub cores: usize,
    /// Channels, CPUs 0 to n - 1: rings that exist and are filled, most of them
    /// without traffic. Default: a channel per CPU (R: mlx5
    /// `mlx5e_build_nic_params`).
    pub channels: Option<usize>,
    /// Flows, evenly on the cores (aRFS). Default 5 (R: Fast & Safe).
    pub flows: usize,
    /// Ring size and MTU, and what they were before; the last is in force
    /// while the trace runs. Default 1,500/1,024 (R: the driver's), then
    /// 4,000/1,024, then 4,000/256 (R: Fast & Safe's scripts set the MTU, then
    /// the ring).
    pub history: Vec<RingSetting>,
    /// Pages of an old ring that one CPU gives back while every other takes one
    /// for the new ring. Default 3.05 (A, fitted: taking one waits for the lock of the
    /// tree, giving one back mostly does not; see `docs/generating.md`).
    pub close_rate: f64,
    /// Rate at which packets arrive, Gb/s. Default 100 (R: Fast & Safe).
    pub gbps: f64,
    /// Acknowledgements per 4 KiB received. Default 0.044 (R: Fast & Safe, 5
    /// flows).
    pub acks: f64,
    /// Bytes of one flow that arrive in a row. Default 65,536: a segmentation
    /// offload's largest packet (R: `GSO_MAX_SIZE`); less if the congestion
    /// window is smaller.
    pub burst: u64,
    /// Packets after which an interrupt is raised at the latest. Default 32 (A;
    /// mlx5 adapts it).
    pub moderation: u64,
    /// Pages received, per core, before the trace begins: what mixes the
    /// caches. Default 4,000,000 (A: about 10 s at 13 Gb/s per core).
    pub warm_up: u64,
    /// Share of pages that stay mapped and are posted again (page pool).
    /// Default 0 for nic-mlx5 (R: Fast & Safe unmaps all), 0.95 for
    /// nic-recycle (A).
    pub recycle: f64,
    /// ns that a core needs to unmap and invalidate a page. Default 700 (A).
    pub unmap_ns: u64,
    /// ns to map a page. Default 350 (A).
    pub map_ns: u64,
    /// ns to handle a packet. Default 400 (A).
    pub packet_ns: u64,
    /// ns from an acknowledgement's map to the end of its moderation. Default
    /// 16,000 (R: `MLX5E_PARAMS_DEFAULT_TX_CQ_MODERATION_USEC`).
    pub send_ns: u64,
}

impl Default for NicOptions {
    fn default() -> NicOptions {
        let at = |mtu, packets| RingSetting { mtu, packets };
        NicOptions {
            cores: 5,
            channels: None,
            flows: 5,
            history: vec![at(1500, 1024), at(4000, 1024), at(4000, 256)],
            close_rate: 3.05,
            gbps: 100.0,
            acks: 0.044,
            burst: 65_536,
            moderation: 32,
            warm_up: 4_000_000,
            recycle: 0.0,
            unmap_ns: 700,
            map_ns: 350,
            packet_ns: 400,
            send_ns: 16_000,
        }
    }
}

impl NicOptions {
    pub(super) fn check(&self, dma: &DmaOptions) -> Result<(), OptionError> {
        if !(1..=dma.cpus).contains(&self.cores) {
            return Err(limit("--cores", self.cores, "at least 1 and at most --cpus"));
        }
        let channels = self.channels.unwrap_or(dma.cpus);
        if !(self.cores..=dma.cpus).contains(&channels) {
            return Err(limit("--channels", channels, "at least --cores and at most --cpus"));
        }
        if !(1..=1 << 20).contains(&self.flows) {
            return Err(limit("--flows", self.flows, "1 to 1048576"));
        }
        if self.history.is_empty() || self.history.len() > 64 {
            return Err(limit("--history", self.history.len(), "1 to 64 settings"));
        }
        for s in &self.history {
            if !(64..=9978).contains(&s.mtu) {
                return Err(limit("--mtu", s.mtu, "64 to 9978 bytes"));
            }
            if !(64..=8192).contains(&s.packets) {
                return Err(limit("--ring", s.packets, "64 to 8192 packets"));
            }
        }
        if !(0.0..=1000.0).contains(&self.close_rate) {
            return Err(limit("--close-rate", self.close_rate, "from 0 to 1000"));
        }
        if !(self.gbps > 0.0 && self.gbps <= 10_000.0) {
            return Err(limit("--gbps", self.gbps, "above 0 and at most 10000 Gb/s"));
        }
        for (option, share) in [("--acks", self.acks), ("--recycle", self.recycle)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(limit(option, share, "from 0 to 1"));
            }
        }
        if !(1..=1 << 30).contains(&self.burst) {
            return Err(limit("--burst", self.burst, "1 byte to 1G"));
        }
        if self.warm_up > 1 << 32 {
            return Err(limit("--warm-up", self.warm_up, "at most 4294967296 pages"));
        }
        Ok(())
    }

    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        let history: Vec<String> =
            self.history.iter().map(|s| format!("{}:{}", s.mtu, s.packets)).collect();
        vec![
            ("cores", self.cores.to_string()),
            ("channels", self.channels.map_or("cpus".into(), |c| c.to_string())),
            ("flows", self.flows.to_string()),
            ("history_mtu_bytes_ring_packets", history.join(" ")),
            ("close_rate", self.close_rate.to_string()),
            ("rate_gbps", self.gbps.to_string()),
            ("acks_per_page", self.acks.to_string()),
            ("burst_bytes", self.burst.to_string()),
            ("moderation_packets", self.moderation.to_string()),
            ("warm_up_pages_per_core", self.warm_up.to_string()),
            ("recycled_share", self.recycle.to_string()),
            ("unmap_ns", self.unmap_ns.to_string()),
            ("map_ns", self.map_ns.to_string()),
            ("packet_ns", self.packet_ns.to_string()),
            ("send_ns", self.send_ns.to_string()),
        ]
    }
}

/// A page that a descriptor points to: IOVA and GPA.
type Page = (u64, u64);

/// One receiving core and its channel.
#[derive(Debug)]
struct Core {
    /// Pages of the posted descriptors, oldest first.
    posted: VecDeque<Page>,
    /// Where the NIC writes next: byte behind the oldest posted page.
    nic: u64,
    /// Where the driver reads next, likewise.
    cpu: u64,
    /// Packets received and not handled.
    waiting: u64,
    /// Descriptors used up and not replaced; pages that stay mapped for them.
    missing: usize,
    kept: Vec<Page>,
    /// Acknowledgements under way: completion time, IOVA, GPA.
    sent: VecDeque<(u64, u64, u64)>,
    /// Acknowledgements due, in parts of one.
    owed: f64,
    work: Work,
    /// When the core takes its next step.
    at: u64,
    completions: Ring,
    sends: Ring,
    send_completions: Ring,
    /// Queue of the commands that post descriptors.
    posts: Ring,
}

/// What a core is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Idle,
    /// Looks for completed acknowledgements.
    Poll,
    /// Handles packets: so many more in this poll.
    Packets(u64),
    /// Gives so many pages of a used descriptor back, then goes on with packets.
    Free(u64, u64),
    /// Replaces descriptors.
    Refill,
    /// Maps so many more pages of a descriptor.
    Map(u64),
}

/// The NIC and its driver.
#[derive(Debug)]
pub(super) struct Nic {
    options: NicOptions,
    dma: Dma,
    frames: Frames,
    rng: Pcg64,
    cores: Vec<Core>,
    /// Bytes that a packet takes in a descriptor.
    slot: u64,
    packet: u64,
    gap_ns: f64,
    /// Time of the next packet, and its parts of a ns.
    next: f64,
    /// Flow and packets left of the burst under way.
    flow: usize,
    burst: u64,
}

impl Nic {
    pub fn new(options: NicOptions, dma: &DmaOptions, side: Side, seed: u64) -> Nic {
        let mut rng = Pcg64::seed_from_u64(seed);
        let channels = options.channels.unwrap_or(dma.cpus);
        let mut frames = Frames::new(FRAME_BITS);
        let mut dma = Dma::new(dma, side);
        let (history, rate) = (&options.history, options.close_rate);
        let rings = history::open(&mut dma, &mut frames, &mut rng, channels, history, rate);
        let used = rings.pages.into_iter().zip(rings.completions).take(options.cores);
        let cores = used
            .enumerate()
            .map(|(cpu, (pages, completions))| {
                let mut queue =
                    |entries| Ring::new(&mut dma, &mut frames, cpu, entries, COMPLETION);
                let (sends, send_completions) = (queue(SEND_ENTRIES), queue(SEND_ENTRIES));
                let posts = queue(256);
                Core {
                    posted: pages.into_iter().map(|iova| (iova, frames.take())).collect(),
                    nic: 0,
                    cpu: 0,
                    waiting: 0,
                    missing: 0,
                    kept: Vec::new(),
                    sent: VecDeque::new(),
                    owed: 0.0,
                    work: Work::Idle,
                    at: u64::MAX,
                    completions,
                    sends,
                    send_completions,
                    posts,
                }
            })
            .collect();
        let setting = options.history[options.history.len() - 1];
        let packet = setting.mtu + 14;
        let slot = setting.slot();
        Nic {
            // 24 bytes on the wire besides: preamble, checksum, gap.
            gap_ns: (packet + 24) as f64 * 8.0 / options.gbps,
            options,
            dma,
            frames,
            rng,
            cores,
            slot,
            packet,
            next: 0.0,
            flow: 0,
            burst: 0,
        }
    }

    /// Receives without a trace until the caches are mixed.
    fn warm_up(&mut self) {
        let pages = self.options.warm_up * self.cores.len() as u64;
        let packets = pages * 4096 / self.slot.max(1);
        let mut out = Out::default();
        for _ in 0..packets {
            self.packet_or_work(&mut out);
            out.events.clear();
        }
        // The trace's clock begins when it does.
        let now = self.next as u64;
        self.next -= now as f64;
        for core in &mut self.cores {
            core.at = if core.at == u64::MAX { core.at } else { core.at.saturating_sub(now) };
            core.sent.iter_mut().for_each(|s| s.0 = s.0.saturating_sub(now));
        }
        self.dma.restart();
    }

    /// The next packet, after all that cores do before it.
    fn packet_or_work(&mut self, out: &mut Out) {
        let now = self.next as u64;
        self.next += self.gap_ns;
        for cpu in 0..self.cores.len() {
            while self.cores[cpu].at <= now {
                self.work(cpu, out);
            }
        }
        if self.burst == 0 {
            self.burst = (self.options.burst / self.packet).max(1);
            self.flow = below(&mut self.rng, self.options.flows as u64) as usize;
        }
        self.burst -= 1;
        let cpu = self.flow % self.cores.len();
        self.receive(cpu, now, out);
    }

    /// The NIC writes a packet, or drops it if the ring is empty.
    #[inline]
    fn receive(&mut self, cpu: usize, now: u64, out: &mut Out) {
        let core = &mut self.cores[cpu];
        let descriptor = DESCRIPTOR_PAGES << 12;
        if core.nic % descriptor + self.slot > descriptor {
            // Strides that are too few for a packet stay unused.
            core.nic = core.nic.next_multiple_of(descriptor);
        }
        if core.nic + self.slot > (core.posted.len() as u64) << 12 {
            return;
        }
        let side = self.dma.side;
        let (mut at, end) = (core.nic, core.nic + self.packet);
        while at < end {
            let (iova, gpa) = core.posted[(at >> 12) as usize];
            let offset = at & 0xfff;
            let bytes = (4096 - offset).min(end - at);
            out.events.push(side.dma(now, Flags::WRITE, iova + offset, bytes, gpa + offset));
            at += bytes;
        }
        core.nic += self.slot;
        core.completions.access(&self.dma, out, now, Flags::WRITE);
        core.waiting += 1;
        if core.work == Work::Idle {
            // An interrupt after some packets; a lone one waits 8 us (R: mlx5
            // MLX5E_PARAMS_DEFAULT_RX_CQ_MODERATION_USEC).
            let wait = if core.waiting >= self.options.moderation { 0 } else { 8000 };
            core.at = core.at.min(now + wait);
        }
    }

    /// One step of a core, at its time.
    fn work(&mut self, cpu: usize, out: &mut Out) {
        let o = &self.options;
        let core = &mut self.cores[cpu];
        let now = core.at;
        match core.work {
            Work::Idle => core.work = Work::Poll,
            Work::Poll => match core.sent.front() {
                Some(&(done, iova, gpa)) if done <= now => {
                    core.sent.pop_front();
                    self.dma.unmap(out, now, cpu, iova, 4096);
                    self.frames.give(gpa);
                    core.at += o.unmap_ns;
                }
                _ => core.work = Work::Packets(BUDGET.min(core.waiting)),
            },
            Work::Packets(0) => core.work = Work::Refill,
            Work::Packets(left) => {
                core.waiting -= 1;
                core.at += o.packet_ns;
                let descriptor = DESCRIPTOR_PAGES << 12;
                if core.cpu % descriptor + self.slot > descriptor {
                    core.cpu = core.cpu.next_multiple_of(descriptor);
                }
                core.cpu += self.slot;
                core.owed += o.acks * self.packet as f64 / 4096.0;
                core.work = Work::Packets(left - 1);
                if core.owed >= 1.0 || chance(&mut self.rng, core.owed) {
                    core.owed -= 1.0;
                    self.acknowledge(cpu, now, out);
                }
                let core = &mut self.cores[cpu];
                let used = core.cpu % descriptor;
                if used == 0 || used + self.slot > descriptor {
                    // Its last packet: the descriptor is used up.
                    core.work = Work::Free(DESCRIPTOR_PAGES, left - 1);
                }
            }
            Work::Free(0, left) => {
                let core = &mut self.cores[cpu];
                core.missing += 1;
                let descriptor = DESCRIPTOR_PAGES << 12;
                core.cpu = core.cpu.next_multiple_of(descriptor) - descriptor;
                core.nic = core.nic.max(descriptor) - descriptor;
                core.work = Work::Packets(left);
            }
            Work::Free(pages, left) => {
                core.work = Work::Free(pages - 1, left);
                let Some((iova, gpa)) = core.posted.pop_front() else { return };
                if o.recycle > 0.0 && chance(&mut self.rng, o.recycle) {
                    core.kept.push((iova, gpa));
                } else {
                    self.dma.unmap(out, now, cpu, iova, 4096);
                    self.frames.give(gpa);
                    core.at += o.unmap_ns;
                }
            }
            Work::Refill if core.missing >= REFILL => core.work = Work::Map(DESCRIPTOR_PAGES),
            Work::Refill => {
                let more = core.waiting > 0;
                core.work = if more { Work::Poll } else { Work::Idle };
                core.at = if more { now } else { u64::MAX };
            }
            Work::Map(0) => {
                core.missing -= 1;
                // The NIC reads the command: 64 addresses of 8 bytes behind its
                // head.
                for _ in 0..10 {
                    core.posts.access(&self.dma, out, now, Flags::READ);
                }
                core.work =
                    if core.missing > 0 { Work::Map(DESCRIPTOR_PAGES) } else { Work::Refill };
            }
            Work::Map(left) => {
                core.work = Work::Map(left - 1);
                let page = core.kept.pop().unwrap_or_else(|| {
                    core.at += o.map_ns;
                    let gpa = self.frames.take();
                    (self.dma.map(out, now, cpu, gpa, 4096), gpa)
                });
                core.posted.push_back(page);
            }
        }
    }

    /// Maps and sends one acknowledgement.
    fn acknowledge(&mut self, cpu: usize, now: u64, out: &mut Out) {
        let gpa = self.frames.take();
        let iova = self.dma.map(out, now, cpu, gpa, 4096);
        let core = &mut self.cores[cpu];
        core.at += self.options.map_ns;
        core.sends.access(&self.dma, out, now, Flags::READ);
        out.events.push(self.dma.side.dma(now, Flags::READ, iova, ACK, gpa));
        core.send_completions.access(&self.dma, out, now, Flags::WRITE);
        core.sent.push_back((now + self.options.send_ns, iova, gpa));
    }
}

impl Device for Nic {
    fn begin(&mut self, out: &mut Out) {
        self.warm_up();
        self.dma.attach(out, 0);
        for (cpu, core) in self.cores.iter().enumerate() {
            let rings = [&core.completions, &core.sends, &core.send_completions, &core.posts];
            rings.iter().for_each(|r| r.map(&self.dma, out, 0, cpu));
            let sent = core.sent.iter().map(|&(_, iova, gpa)| (iova, gpa));
            for (iova, gpa) in core.posted.iter().chain(&core.kept).copied().chain(sent) {
                self.dma.map_at(out, 0, cpu, iova, gpa, 4096);
                self.dma.sync_map(out, 0, cpu, iova, 4096);
            }
        }
        debug_assert!(out.events.iter().all(|e| e.kind != Kind::Unmap));
    }

    fn now(&self) -> u64 {
        // A step begins with what cores do before the next packet.
        let cores = self.cores.iter().map(|c| c.at).min().unwrap_or(u64::MAX);
        cores.min(self.next as u64)
    }

    fn step(&mut self, out: &mut Out) {
        self.packet_or_work(out);
    }
}

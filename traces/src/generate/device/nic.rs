//! A NIC that receives: descriptors of 64 pages, each page mapped by itself.
//!
//! After the mlx5 driver of Linux 6.0 (R: en_rx.c, en_txrx.c, en_main.c) and
//! Fast & Safe, SOSP'24, section 2. `docs/generating.md` tells the story.

use std::collections::VecDeque;

use ioasim_events::{Flags, Kind};
use rand::SeedableRng;
use rand_pcg::Pcg64;

use super::history::{self, DESCRIPTOR_PAGES, RingSetting, Rings};
use super::nic_options::NicOptions;
use super::{Device, FRAME_BITS, chance, exponential};
use crate::generate::choose::below;
use crate::generate::linux::{Dma, DmaOptions, Frames, Out, Side};

/// Packets that one poll handles at most (R: `NAPI_POLL_WEIGHT`).
const BUDGET: u64 = 64;
/// Bytes of an acknowledgement with its headers.
const ACK: u64 = 66;
/// Pages that each core receives in a run before the trace (A).
const RUN_PAGES: u64 = 100_000;

/// Pages that the application reads at once: a segmentation offload's largest
/// packet.
const READ_PAGES: u64 = 16;

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
    /// Flow of the last packet.
    flow: usize,
    /// Packets received and not handled.
    waiting: u64,
    /// Descriptors used up and not replaced; pages that stay mapped for them.
    missing: usize,
    kept: Vec<Page>,
    /// The driver's cache of pages that are still mapped, oldest first, and
    /// when the application will have read each.
    cache: VecDeque<(Page, u64)>,
    /// When the application will have read the pages that come next.
    read: u64,
    /// Acknowledgements under way that this core will unmap.
    sent: VecDeque<Sent>,
    /// Acknowledgements due, in parts of one.
    owed: f64,
    work: Work,
    /// When the core takes its next step.
    at: u64,
}

impl Default for Core {
    fn default() -> Core {
        Core {
            posted: VecDeque::new(),
            nic: 0,
            cpu: 0,
            flow: 0,
            waiting: 0,
            missing: 0,
            kept: Vec::new(),
            cache: VecDeque::new(),
            read: 0,
            sent: VecDeque::new(),
            owed: 0.0,
            work: Work::Idle,
            at: u64::MAX,
        }
    }
}

/// An acknowledgement under way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// When it is done.
    done: u64,
    /// CPU that unmaps it.
    cpu: usize,
    page: Page,
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
    rings: Rings,
    /// Acknowledgements under way that other CPUs unmap.
    sent: VecDeque<Sent>,
    /// CPU at which each flow arrives, and by whose queue it sends.
    receivers: Vec<usize>,
    senders: Vec<usize>,
    flows: usize,
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
        let mut nic = Nic {
            dma: Dma::new(dma, side),
            frames: Frames::new(FRAME_BITS),
            rng: Pcg64::seed_from_u64(seed),
            cores: Vec::new(),
            rings: Rings::default(),
            sent: VecDeque::new(),
            receivers: Vec::new(),
            senders: Vec::new(),
            flows: options.flows,
            slot: 0,
            packet: 0,
            gap_ns: 0.0,
            next: 0.0,
            flow: 0,
            burst: 0,
            options,
        };
        let channels = nic.options.channels.unwrap_or(dma.cpus);
        let history = nic.options.history.clone();
        let mut settings = history.into_iter().peekable();
        while let Some(setting) = settings.next() {
            nic.change(channels, setting);
            if settings.peek().is_none() {
                nic.begin_run(channels, nic.options.flows);
            } else if setting.flows > 0 {
                nic.begin_run(channels, setting.flows);
                nic.receive_pages(RUN_PAGES);
            }
        }
        nic
    }

    /// Replaces all rings by those of a setting.
    fn change(&mut self, channels: usize, setting: RingSetting) {
        let mut old = std::mem::take(&mut self.rings);
        let sent = std::mem::take(&mut self.sent);
        for (cpu, core) in std::mem::take(&mut self.cores).into_iter().enumerate() {
            let cached = core.cache.into_iter().map(|c| c.0);
            let pages = core.posted.into_iter().chain(core.kept).chain(cached);
            for (iova, gpa) in pages.chain(core.sent.iter().map(|s| s.page)) {
                old.pages[cpu].push(iova);
                self.frames.give(gpa);
            }
        }
        for Sent { cpu, page: (iova, gpa), .. } in sent {
            old.pages[cpu].push(iova);
            self.frames.give(gpa);
        }
        let (dma, frames, rng) = (&mut self.dma, &mut self.frames, &mut self.rng);
        let rate = self.options.close_rate;
        self.rings = history::change(dma, frames, rng, channels, setting, old, rate);
        self.packet = setting.mtu + 14;
        self.slot = setting.slot();
        // 24 bytes on the wire besides: preamble, checksum, gap.
        self.gap_ns = (self.packet + 24) as f64 * 8.0 / self.options.gbps;
        let receiving = if self.options.receive_by_flow { channels } else { self.options.cores };
        let pages = self.rings.pages.iter_mut().take(receiving);
        self.cores = pages
            .map(|pages| Core {
                posted: pages.drain(..).map(|iova| (iova, self.frames.take())).collect(),
                ..Core::default()
            })
            .collect();
    }

    /// So many flows arrive from now on.
    fn begin_run(&mut self, channels: usize, flows: usize) {
        self.flows = flows;
        self.burst = 0;
        let mut any = || below(&mut self.rng, channels as u64) as usize;
        let o = &self.options;
        self.receivers = (0..flows)
            .map(|flow| match o.receive_by_flow {
                true if flow > 0 => any(),
                _ => flow % o.cores,
            })
            .collect();
        let own = self.receivers.iter();
        self.senders = own.map(|&own| if o.send_by_flow { any() } else { own }).collect();
    }

    /// Receives so many pages per core without a trace.
    fn receive_pages(&mut self, pages: u64) {
        let packets = pages * self.options.cores as u64 * 4096 / self.slot.max(1);
        let mut out = Out::default();
        for _ in 0..packets {
            self.packet_or_work(&mut out);
            out.events.clear();
        }
    }

    /// Receives without a trace until the caches are mixed.
    fn warm_up(&mut self) {
        self.receive_pages(self.options.warm_up);
        // The trace's clock begins when it does.
        let now = self.next as u64;
        self.next -= now as f64;
        for core in &mut self.cores {
            core.at = if core.at == u64::MAX { core.at } else { core.at.saturating_sub(now) };
            core.sent.iter_mut().for_each(|s| s.done = s.done.saturating_sub(now));
            core.cache.iter_mut().for_each(|c| c.1 = c.1.saturating_sub(now));
        }
        self.sent.iter_mut().for_each(|s| s.done = s.done.saturating_sub(now));
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
        while let Some(sent) = self.sent.front().copied().filter(|s| s.done <= now) {
            self.sent.pop_front();
            self.unmap_sent(sent, sent.done, out);
        }
        if self.burst == 0 {
            self.burst = (self.options.burst / self.packet).max(1);
            self.flow = below(&mut self.rng, self.flows as u64) as usize;
        }
        self.burst -= 1;
        let cpu = self.receivers[self.flow];
        self.cores[cpu].flow = self.flow;
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
        core.waiting += 1;
        self.rings.queues[cpu].completions.access(&self.dma, out, now, Flags::WRITE);
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
                Some(&sent) if sent.done <= now => {
                    core.sent.pop_front();
                    core.at += o.unmap_ns;
                    self.unmap_sent(sent, now, out);
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
                if pages.is_multiple_of(READ_PAGES) {
                    core.read = now + exponential(&mut self.rng, o.read_ns);
                }
                if o.recycle == 0.0 && (core.cache.len() as u64) < o.page_cache {
                    core.cache.push_back(((iova, gpa), core.read));
                } else if o.recycle > 0.0 && chance(&mut self.rng, o.recycle) {
                    core.kept.push((iova, gpa));
                } else {
                    self.dma.unmap(out, now, cpu, iova, 4096);
                    self.frames.give(gpa);
                    core.at += o.unmap_ns;
                }
            }
            Work::Refill if core.missing >= self.options.refill => {
                core.work = Work::Map(DESCRIPTOR_PAGES)
            }
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
                    self.rings.queues[cpu].posts.access(&self.dma, out, now, Flags::READ);
                }
                core.work =
                    if core.missing > 0 { Work::Map(DESCRIPTOR_PAGES) } else { Work::Refill };
            }
            Work::Map(left) => {
                core.work = Work::Map(left - 1);
                // Only its oldest page is looked at (R: `mlx5e_rx_cache_get`).
                let read = core.cache.front().is_some_and(|c| c.1 <= now);
                let cached = if read { core.cache.pop_front().map(|c| c.0) } else { None };
                let page = cached.or_else(|| core.kept.pop()).unwrap_or_else(|| {
                    core.at += o.map_ns;
                    let gpa = self.frames.take();
                    (self.dma.map(out, now, cpu, gpa, 4096), gpa)
                });
                core.posted.push_back(page);
            }
        }
    }

    /// Maps and sends one acknowledgement, of one of the core's flows.
    fn acknowledge(&mut self, cpu: usize, now: u64, out: &mut Out) {
        let gpa = self.frames.take();
        let iova = self.dma.map(out, now, cpu, gpa, 4096);
        self.cores[cpu].at += self.options.map_ns;
        let cores = self.cores.len();
        let own = self.flows.saturating_sub(cpu).div_ceil(cores) as u64;
        let flow = match self.options.receive_by_flow {
            true => self.cores[cpu].flow,
            false => cpu + cores * below(&mut self.rng, own) as usize,
        };
        let sender = self.senders.get(flow).copied().unwrap_or(cpu);
        let queues = &mut self.rings.queues[sender];
        queues.sends.access(&self.dma, out, now, Flags::READ);
        out.events.push(self.dma.side.dma(now, Flags::READ, iova, ACK, gpa));
        queues.send_completions.access(&self.dma, out, now, Flags::WRITE);
        let sent = Sent { done: now + self.options.send_ns, cpu: sender, page: (iova, gpa) };
        match self.cores.get_mut(sender) {
            Some(core) => core.sent.push_back(sent),
            None => self.sent.push_back(sent),
        }
    }

    fn unmap_sent(&mut self, sent: Sent, now: u64, out: &mut Out) {
        let (iova, gpa) = sent.page;
        self.dma.unmap(out, now, sent.cpu, iova, 4096);
        self.frames.give(gpa);
    }
}

impl Device for Nic {
    fn begin(&mut self, out: &mut Out) {
        self.warm_up();
        self.dma.attach(out, 0);
        for (cpu, queues) in self.rings.queues.iter().enumerate() {
            let sends = [&queues.sends, &queues.send_completions];
            let receives = [&queues.completions, &queues.posts];
            let used = receives.iter().filter(|_| cpu < self.cores.len());
            let sends = sends.iter().filter(|_| self.senders.contains(&cpu));
            used.chain(sends).for_each(|r| r.map(&self.dma, out, 0, cpu));
        }
        for (cpu, core) in self.cores.iter().enumerate() {
            let sent = core.sent.iter().map(|s| s.page);
            let cached = core.cache.iter().map(|c| c.0);
            let pages = core.posted.iter().chain(&core.kept).copied().chain(cached);
            for (iova, gpa) in pages.chain(sent) {
                self.dma.map_at(out, 0, cpu, iova, gpa, 4096);
                self.dma.sync_map(out, 0, cpu, iova, 4096);
            }
        }
        for Sent { cpu, page: (iova, gpa), .. } in &self.sent {
            self.dma.map_at(out, 0, *cpu, *iova, *gpa, 4096);
            self.dma.sync_map(out, 0, *cpu, *iova, 4096);
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

//! The experiments of Fast & Safe (SOSP'24): what came before each run, and how
//! the paper measures reuse.

use std::collections::HashMap;

use ioasim_events::{Flags, Kind};
use ioasim_traces::generate::{
    DeviceKind, DeviceTrace, DmaOptions, Kernel, NicOptions, RingSetting,
};

/// The core whose allocations are looked at.
const CORE: i32 = 0;

/// Reuse of 2 MiB regions.
pub struct Reuse {
    /// LRU stack distances of successive receive allocations, ascending: how
    /// many distinct regions were used since the region's last use, itself
    /// included. Of the second half of the trace.
    pub distances: Vec<u64>,
    /// Distinct regions; the example prints them.
    #[allow(dead_code)]
    pub regions: usize,
    /// Share of the pages received that were mapped anew.
    #[allow(dead_code)]
    pub mapped: f64,
}

impl Reuse {
    /// Mean, median and 90th percentile.
    pub fn measures(&self) -> [f64; 3] {
        let (all, n) = (&self.distances, self.distances.len());
        let mean = all.iter().sum::<u64>() as f64 / n as f64;
        [mean, all[n / 2] as f64, all[n * 9 / 10] as f64]
    }
}

/// The reuse in a trace, of one core as in the paper: there, with its own
/// allocator, runs of exactly 64 pages follow each other (figures 5e and 6e),
/// which the records of several cores would cut up. A core's pages are written
/// in the order in which its descriptors were filled.
pub fn reuse(trace: &DeviceTrace) -> Reuse {
    // Pages mapped on the core, and whether nothing was received there yet.
    let mut on_core: HashMap<u64, bool> = HashMap::new();
    let (mut visits, mut fresh) = (0u64, 0u64);
    let mut regions: Vec<u64> = Vec::new();
    let mut last = None;
    trace
        .visit(&mut |e| {
            let page = e.addr >> 12;
            match e.kind {
                Kind::Map if e.cpu == CORE => {
                    on_core.insert(page, e.time_ns > 0);
                }
                Kind::Unmap => {
                    on_core.remove(&page);
                }
                // Completions have 64 bytes.
                Kind::Dma if e.flags.has(Flags::WRITE) && e.size > 64 && last != Some(page) => {
                    if let Some(new) = on_core.get_mut(&page) {
                        regions.push(e.addr >> 21);
                        visits += 1;
                        fresh += u64::from(std::mem::take(new));
                        last = Some(page);
                    }
                }
                _ => {}
            }
            Ok(())
        })
        .unwrap();
    let mut stack: Vec<u64> = Vec::new();
    let mut found = Vec::new();
    for region in regions {
        if let Some(at) = stack.iter().rposition(|r| *r == region) {
            found.push((stack.len() - at) as u64);
            stack.remove(at);
        }
        stack.push(region);
    }
    // First uses end early; the second half has seen every region.
    found.drain(..found.len() / 2);
    found.sort_unstable();
    let mapped = fresh as f64 / visits.max(1) as f64;
    Reuse { distances: found, regions: stack.len(), mapped }
}

/// A run of the paper.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub flows: usize,
    /// Packets of a ring.
    pub ring: u64,
    /// Runs before this one.
    pub before: usize,
    /// Received, Gb/s; acknowledgements per page.
    pub gbps: f64,
    pub acks: f64,
    /// Mean ns until applications have read: the time with which as many pages
    /// per page received are unmapped as the paper's misses of the PT-L1 cache
    /// m1, one entry that every invalidation drops, show: m1 m / (m - m1) - acks
    /// with m IOTLB misses (0.007, 0.11, 0.44, 0.77; 0.002 to 0.004).
    pub read_ns: u64,
}

/// The runs, in the order of the paper's figures.
pub const RUNS: [Run; 7] = {
    const fn run(flows: usize, ring: u64, before: usize, rates: (f64, f64), read_ns: u64) -> Run {
        Run { flows, ring, before, gbps: rates.0, acks: rates.1, read_ns }
    }
    [
        run(5, 256, 0, (77.8, 0.044), 40_000),
        run(10, 256, 1, (61.6, 0.067), 120_000),
        run(20, 256, 2, (40.1, 0.100), 530_000),
        run(40, 256, 3, (30.9, 0.120), 2_300_000),
        // That of 5 flows and a ring of 256 was run twice; the first counts.
        run(5, 512, 5, (69.0, 0.053), 40_000),
        run(5, 1024, 6, (66.6, 0.054), 40_000),
        run(5, 2048, 7, (66.3, 0.054), 40_000),
    ]
};

impl Run {
    /// The NIC of the run.
    pub fn nic(self) -> NicOptions {
        let Run { flows, gbps, acks, read_ns, .. } = self;
        // 64 event queues (63 channels are what a large machine sees, netdev
        // 2020-05-03, "max channels for mlx5") less four for other events (R:
        // `mlx5_eq_table_create`).
        let channels = Some(60);
        let history = history(self.before, self.ring);
        // A flow's window: its share of the rate, over a round trip of 100 us (A).
        let burst = (gbps * 100e3 / 8.0 / flows as f64).min(65_536.0) as u64;
        // The driver's of Linux 6.0, see docs/generating.md.
        let page_cache = 255;
        let d = NicOptions::default();
        NicOptions { flows, gbps, acks, page_cache, read_ns, channels, history, burst, ..d }
    }
}

/// A trace of the paper's machine: four processors of 8 cores with two threads
/// each (the same machines in github.com/Terabit-Ethernet/dcPIM, kernel_impl).
pub fn trace(nic: NicOptions, events: u64, seed: u64) -> DeviceTrace {
    let dma = DmaOptions { kernel: Kernel::V6_0, cpus: 64, ..DmaOptions::default() };
    DeviceTrace { device: DeviceKind::Nic(nic), dma, events, seed }
}

/// What happened before a run: the runs of the paper's figures in their order,
/// 5, 10, 20 and 40 flows, then rings of 256 to 2,048, each after a reset of the
/// driver (MTU 1,500, ring 1,024) and the setting of the MTU.
fn history(runs_before: usize, ring: u64) -> Vec<RingSetting> {
    let at = |mtu, packets, flows| RingSetting { mtu, packets, flows };
    let runs = [(256, 5), (256, 10), (256, 20), (256, 40), (256, 5), (512, 5), (1024, 5)];
    let reset = [at(1500, 1024, 0), at(4000, 1024, 0)];
    let mut all = Vec::new();
    for (ring, flows) in &runs[..runs_before] {
        all.extend(reset);
        all.push(at(4000, *ring, *flows));
    }
    all.extend(reset);
    all.push(at(4000, ring, 0));
    all
}

//! The experiments of Fast & Safe (SOSP'24): what came before each run, and how
//! the paper measures reuse.

use std::collections::HashMap;

use ioasim_events::{Flags, Kind};
use ioasim_traces::generate::{DeviceTrace, RingSetting};

/// Reuse of 2 MiB regions.
pub struct Reuse {
    /// LRU stack distances of successive receive allocations, ascending: how
    /// many distinct regions were used since the region's last use, itself
    /// included. Of the second half of the trace.
    pub distances: Vec<u64>,
    /// Distinct regions; the example prints them.
    #[allow(dead_code)]
    pub regions: usize,
}

impl Reuse {
    /// Mean, median and 90th percentile.
    pub fn measures(&self) -> [f64; 3] {
        let (all, n) = (&self.distances, self.distances.len());
        let mean = all.iter().sum::<u64>() as f64 / n as f64;
        [mean, all[n / 2] as f64, all[n * 9 / 10] as f64]
    }
}

/// The reuse in a trace.
pub fn reuse(trace: &DeviceTrace) -> Reuse {
    let mut allocations: Vec<(u64, bool)> = Vec::new();
    let mut by_page: HashMap<u64, usize> = HashMap::new();
    trace
        .visit(&mut |e| {
            match e.kind {
                Kind::Map if e.time_ns > 0 => {
                    by_page.insert(e.addr >> 12, allocations.len());
                    allocations.push((e.addr >> 21, false));
                }
                // The device writes what it receives and reads what is sent.
                Kind::Dma if e.flags.has(Flags::WRITE) => {
                    by_page.get(&(e.addr >> 12)).into_iter().for_each(|&i| allocations[i].1 = true);
                }
                _ => {}
            }
            Ok(())
        })
        .unwrap();
    let mut stack: Vec<u64> = Vec::new();
    let mut found = Vec::new();
    for (region, _) in allocations.into_iter().filter(|a| a.1) {
        if let Some(at) = stack.iter().rposition(|r| *r == region) {
            found.push((stack.len() - at) as u64);
            stack.remove(at);
        }
        stack.push(region);
    }
    // First uses end early; the second half has seen every region.
    found.drain(..found.len() / 2);
    found.sort_unstable();
    Reuse { distances: found, regions: stack.len() }
}

/// What happened before a run: the runs of the paper's figures in their order,
/// 5, 10, 20 and 40 flows, then rings of 256 to 2,048, each after a reset of the
/// driver (MTU 1,500, ring 1,024) and the setting of the MTU.
pub fn history(runs_before: usize, ring: u64) -> Vec<RingSetting> {
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

//! Generated receive traffic has the reuse distances that Fast & Safe (SOSP'24,
//! figures 2e and 3e) measured at the 2 MiB level.

use std::collections::HashMap;

use ioasim_events::{Flags, Kind};
use ioasim_traces::generate::{
    DeviceKind, DeviceTrace, DmaOptions, Kernel, NicOptions, RingSetting,
};

/// LRU stack distances of successive receive allocations, ascending: how many
/// distinct 2 MiB regions were used since the region's last use, itself
/// included.
fn distances(trace: &DeviceTrace) -> Vec<u64> {
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
    found
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

fn traffic(flows: usize, gbps: f64, acks: f64, before: usize, ring: u64, seed: u64) -> DeviceTrace {
    let history = history(before, ring);
    let nic = NicOptions { flows, gbps, acks, history, ..NicOptions::default() };
    let dma = DmaOptions { kernel: Kernel::V6_0, cpus: 32, ..DmaOptions::default() };
    DeviceTrace { device: DeviceKind::Nic(nic), dma, events: 1_000_000, seed }
}

/// Mean, median and 90th percentile.
fn measures(found: &[u64]) -> [f64; 3] {
    let n = found.len();
    let mean = found.iter().sum::<u64>() as f64 / n as f64;
    [mean, found[n / 2] as f64, found[n * 9 / 10] as f64]
}

#[track_caller]
fn within_15_percent(found: f64, measured: f64) {
    let off = (found / measured - 1.0).abs();
    assert!(off <= 0.15, "{found} instead of {measured}");
}

#[track_caller]
fn all_within_15_percent(trace: &DeviceTrace, measured: [f64; 3]) {
    let found = measures(&distances(trace));
    found.into_iter().zip(measured).for_each(|(f, m)| within_15_percent(f, m));
}

#[test]
fn forty_flows_with_a_ring_of_256() {
    for seed in [1, 2, 3] {
        all_within_15_percent(&traffic(40, 30.9, 0.12, 3, 256, seed), [70.6, 61.0, 143.0]);
    }
}

#[test]
fn five_flows_with_a_ring_of_2048() {
    all_within_15_percent(&traffic(5, 66.3, 0.054, 7, 2048, 1), [186.5, 180.0, 378.0]);
}

//! Generated receive traffic has the reuse distances that Fast & Safe (SOSP'24,
//! figures 2e and 3e) measured at the 2 MiB level.

#[path = "generate_common/fast_and_safe.rs"]
mod fast_and_safe;

use fast_and_safe::{history, reuse};
use ioasim_traces::generate::{DeviceKind, DeviceTrace, DmaOptions, Kernel, NicOptions};

fn traffic(flows: usize, gbps: f64, acks: f64, before: usize, ring: u64, seed: u64) -> DeviceTrace {
    let history = history(before, ring);
    let nic = NicOptions { flows, gbps, acks, history, ..NicOptions::default() };
    let dma = DmaOptions { kernel: Kernel::V6_0, cpus: 32, ..DmaOptions::default() };
    DeviceTrace { device: DeviceKind::Nic(nic), dma, events: 1_000_000, seed }
}

#[track_caller]
fn within_15_percent(found: f64, measured: f64) {
    let off = (found / measured - 1.0).abs();
    assert!(off <= 0.15, "{found} instead of {measured}");
}

#[track_caller]
fn all_within_15_percent(trace: &DeviceTrace, measured: [f64; 3]) {
    let found = reuse(trace).measures();
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

//! Generated mlx5-like receive traffic beside the figures of Fast & Safe
//! (SOSP'24): reuse distances at the 2 MiB level, and misses per page of an
//! IOTLB and a cache of 2 MiB entries over a range of sizes.
//!
//! ```text
//! cargo run --release -p ioasim-traces --example mlx5_rows -- distances
//! cargo run --release -p ioasim-traces --example mlx5_rows -- misses
//! ```
//! Further arguments `name=value` change parameters; see the code.

#[path = "../tests/generate_common/fast_and_safe.rs"]
mod fast_and_safe;

use std::collections::HashMap;

use fast_and_safe::{history, reuse};
use ioasim_events::{Flags, Kind};
use ioasim_traces::generate::{DeviceKind, DeviceTrace, DmaOptions, Kernel, NicOptions};

/// Flows, ring, Gb/s, acknowledgements per page; IOTLB and L3 misses per page.
const ROWS: [(usize, u64, f64, f64, f64, f64); 7] = [
    (5, 256, 77.8, 0.044, 1.299, 0.361),
    (10, 256, 61.6, 0.067, 1.437, 0.566),
    (20, 256, 40.1, 0.100, 1.957, 0.762),
    (40, 256, 30.9, 0.120, 2.196, 0.896),
    (5, 512, 69.0, 0.053, 1.344, 0.694),
    (5, 1024, 66.6, 0.054, 1.367, 0.834),
    (5, 2048, 66.3, 0.054, 1.355, 0.856),
];

fn argument(name: &str, default: f64) -> f64 {
    let find = |a: String| a.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
    std::env::args().find_map(find).unwrap_or(default)
}

fn trace(row: usize) -> DeviceTrace {
    let (flows, ring, gbps, acks, ..) = ROWS[row];
    // The row's place among the runs; that of 5 flows and a ring of 256 was
    // run twice, and the first counts.
    let before = if row < 4 { row } else { row + 1 };
    let nic = NicOptions {
        flows,
        acks,
        gbps,
        history: history(before, ring),
        // A flow's window: its share of the rate, over a round trip (A).
        burst: (gbps * argument("rtt", 100e3) / 8.0 / flows as f64).min(65_536.0) as u64,
        close_rate: argument("close", 2.75),
        send_by_flow: argument("by-flow", 1.0) > 0.0,
        warm_up: argument("warm", 4e6) as u64,
        moderation: argument("moderation", 32.0) as u64,
        send_ns: argument("send", 16e3) as u64,
        unmap_ns: argument("unmap", 700.0) as u64,
        ..NicOptions::default()
    };
    let cpus = argument("cpus", 32.0) as usize;
    let dma = DmaOptions { kernel: Kernel::V6_0, cpus, ..DmaOptions::default() };
    DeviceTrace {
        device: DeviceKind::Nic(nic),
        dma,
        events: argument("events", 2e6) as u64,
        seed: argument("seed", 1.0) as u64,
    }
}

/// Reuse distances of a row.
fn distances(row: usize) {
    let reuse = reuse(&trace(row));
    let [mean, median, most] = reuse.measures();
    let (all, n) = (&reuse.distances, reuse.distances.len());
    let ones = all.iter().filter(|&&d| d == 1).count() as f64 / n as f64;
    let (flows, ring, ..) = ROWS[row];
    println!(
        "{flows} flows, ring {ring}: {n} distances, mean {mean:.1}, median {median}, 90 % {most}, max {}, {} regions, ones {ones:.3}",
        all[n - 1],
        reuse.regions
    );
}

/// A fully associative LRU cache.
#[derive(Default)]
struct Lru {
    size: usize,
    clock: u64,
    of: HashMap<u64, u64>,
    by: std::collections::BTreeMap<u64, u64>,
}
impl Lru {
    fn hit(&mut self, key: u64) -> bool {
        self.clock += 1;
        let old = self.of.insert(key, self.clock);
        if let Some(old) = old {
            self.by.remove(&old);
        } else if self.of.len() > self.size {
            let (_, victim) = self.by.pop_first().unwrap();
            self.of.remove(&victim);
        }
        self.by.insert(self.clock, key);
        old.is_some()
    }
    fn drop(&mut self, key: u64) {
        if let Some(old) = self.of.remove(&key) {
            self.by.remove(&old);
        }
    }
}

fn misses(row: usize) {
    let sizes: Vec<(usize, usize, bool)> = [8, 12, 16, 20, 24, 32, 48, 64]
        .iter()
        .flat_map(|&a| [56, 64, 72].map(|b| (a, b)))
        .flat_map(|(a, b)| [(a, b, false), (a, b, true)])
        .collect();
    let mut caches: Vec<(Lru, Lru, u64, u64)> = sizes
        .iter()
        .map(|s| (Lru { size: s.0, ..Lru::default() }, Lru { size: s.1, ..Lru::default() }, 0, 0))
        .collect();
    let (mut bytes, mut time) = (0, 0);
    trace(row)
        .visit(&mut |e| {
            time = e.time_ns;
            match e.kind {
                Kind::Dma => {
                    if e.flags.has(Flags::WRITE) && e.size > 64 {
                        bytes += e.size;
                    }
                    for (c, _) in caches.iter_mut().zip(&sizes) {
                        if !c.0.hit(e.addr >> 12) {
                            c.2 += 1;
                            if !c.1.hit(e.addr >> 21) {
                                c.3 += 1;
                            }
                        }
                    }
                }
                Kind::Invalidate => {
                    for (c, s) in caches.iter_mut().zip(&sizes) {
                        c.0.drop(e.addr >> 12);
                        if s.2 {
                            c.1.drop(e.addr >> 21);
                        }
                    }
                }
                _ => {}
            }
            Ok(())
        })
        .expect("nothing fails here");
    let (flows, ring, _, _, want, want3) = ROWS[row];
    println!(
        "{flows} flows, ring {ring}: {:.1} Gb/s; paper {want} {want3}",
        bytes as f64 * 8.0 / time as f64
    );
    let pages = bytes as f64 / 4096.0;
    for (c, s) in caches.iter().zip(&sizes) {
        let (m, m3) = (c.2 as f64 / pages, c.3 as f64 / pages);
        let fits = |a: f64, b: f64| if (a / b - 1.0).abs() <= 0.15 { "*" } else { " " };
        println!(
            "  {row} iotlb {:4} l3 {:4} pwc-inv {:5}: {m:.3}{} {m3:.3}{}",
            s.0,
            s.1,
            s.2,
            fits(m, want),
            fits(m3, want3)
        );
    }
}

fn main() {
    let what = std::env::args().nth(1).unwrap_or_default();
    let only = argument("row", -1.0);
    for row in (0..7).filter(|&r| only < 0.0 || r as f64 == only) {
        if what == "misses" {
            misses(row)
        } else if [0, 3, 6].contains(&row) {
            distances(row)
        }
    }
}

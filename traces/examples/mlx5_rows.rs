//! Generated mlx5-like receive traffic beside the figures of Fast & Safe
//! (SOSP'24): reuse distances at the 2 MiB level, and misses per page of an
//! IOTLB and a cache of 2 MiB entries over a range of sizes.
//!
//! ```text
//! cargo run --release -p ioasim-traces --example mlx5_rows -- distances
//! cargo run --release -p ioasim-traces --example mlx5_rows -- sweep
//! cargo run --release -p ioasim-traces --example mlx5_rows -- misses
//! ```
//! Further arguments `name=value` change parameters; see the code.

#[path = "../tests/generate_common/fast_and_safe.rs"]
mod fast_and_safe;

use std::collections::HashMap;

use fast_and_safe::{RUNS, reuse};
use ioasim_events::{Flags, Kind};
use ioasim_traces::generate::{DeviceTrace, NicOptions, RingSetting};

/// IOTLB and L3 misses per page of the runs.
const MISSES: [(f64, f64); 7] = [
    (1.299, 0.361),
    (1.437, 0.566),
    (1.957, 0.762),
    (2.196, 0.896),
    (1.344, 0.694),
    (1.367, 0.834),
    (1.355, 0.856),
];

fn argument(name: &str, default: f64) -> f64 {
    let find = |a: String| a.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
    std::env::args().find_map(find).unwrap_or(default)
}

fn nic(row: usize) -> NicOptions {
    let d = RUNS[row].nic();
    NicOptions {
        // Below 0: closed before.
        close_rate: Some(argument("close", -1.0)).filter(|r| *r >= 0.0),
        page_cache: argument("cache", d.page_cache as f64) as u64,
        read_ns: argument("read", d.read_ns as f64) as u64,
        channels: d.channels.map(|c| argument("channels", c as f64) as usize),
        send_by_flow: argument("by-flow", 0.0) > 0.0,
        receive_by_flow: argument("rss", 0.0) > 0.0,
        refill: argument("refill", d.refill as f64) as usize,
        warm_up: argument("warm", d.warm_up as f64) as u64,
        moderation: argument("moderation", 32.0) as u64,
        send_ns: argument("send", 16e3) as u64,
        unmap_ns: argument("unmap", 700.0) as u64,
        ..d
    }
}

fn trace(nic: NicOptions) -> DeviceTrace {
    let events = argument("events", 2e6) as u64;
    let mut trace = fast_and_safe::trace(nic, events, argument("seed", 1.0) as u64);
    trace.dma.cpus = argument("cpus", 64.0) as usize;
    trace
}

/// Reuse distances of a row.
fn distances(row: usize, trace: &DeviceTrace) {
    let reuse = reuse(trace);
    let [mean, median, most] = reuse.measures();
    let (all, n) = (&reuse.distances, reuse.distances.len());
    let ones = all.iter().filter(|&&d| d == 1).count() as f64 / n as f64;
    let (flows, ring) = (RUNS[row].flows, RUNS[row].ring);
    println!(
        "{flows} flows, ring {ring}: {n} distances, mean {mean:.1}, median {median}, 90 % {most}, max {}, {} regions, ones {ones:.3}, mapped anew {:.4}",
        all[n - 1],
        reuse.regions,
        reuse.mapped
    );
}

/// The three rows over what is not known: how far old rings are gone when new
/// ones fill, threads and channels, the driver's page cache, whose queue sends,
/// and what came before.
fn sweep() {
    let rows = |name: &str, cpus: usize, change: &dyn Fn(&mut NicOptions)| {
        println!("{name}");
        for row in [0, 3, 6] {
            let mut nic = nic(row);
            change(&mut nic);
            let mut trace = trace(nic);
            trace.dma.cpus = cpus;
            distances(row, &trace);
        }
    };
    rows("the driver's order, 64 threads, 60 channels", 64, &|_| {});
    rows("64 channels", 64, &|n| n.channels = Some(64));
    rows("32 threads, 32 channels", 32, &|n| n.channels = Some(32));
    rows("no page cache", 64, &|n| n.page_cache = 0);
    rows("sent by the flow's hash", 64, &|n| n.send_by_flow = true);
    rows("no runs before", 64, &|n| n.history.drain(..n.history.len() - 3).for_each(drop));
    rows("no reset between runs", 64, &|n| {
        n.history.retain(|s| s.packets != 1024 || s.flows > 0);
    });
    rows("the script's order: no reset, link down and up twice between runs", 64, &|n| {
        let reset = |s: &RingSetting| s.packets == 1024 && s.flows == 0;
        let first = n.history.iter().position(|s| !reset(s)).unwrap_or(0);
        let runs = n.history.split_off(first);
        let mut runs = runs.into_iter().filter(|s| !reset(s)).peekable();
        while let Some(run) = runs.next() {
            n.history.push(run);
            let same = RingSetting { flows: 0, ..run };
            match runs.peek() {
                // The second fills the ring that the next run has.
                Some(next) if next.packets == run.packets => n.history.push(same),
                Some(_) => n.history.extend([same, same]),
                None => {}
            }
        }
    });
    rows("no flow steering: rings by the flow's hash", 64, &|n| n.receive_by_flow = true);
    rows("the same, and sent by the flow's hash", 64, &|n| {
        (n.receive_by_flow, n.send_by_flow) = (true, true);
    });
    rows("four descriptors replaced at once", 64, &|n| n.refill = 4);
    rows("eight descriptors replaced at once", 64, &|n| n.refill = 8);
    rows("eight, and sent by the flow's hash", 64, &|n| {
        (n.refill, n.send_by_flow) = (8, true);
    });
    for pages in [20_000, 100_000, 20_000_000] {
        rows(&format!("after {pages} pages per core"), 64, &|n| n.warm_up = pages);
    }
    rows("5 flows, ring 2048 first", 64, &|n| {
        let at = n.history.iter().position(|s| s.mtu == 4000 && s.packets == 1024).unwrap_or(0);
        n.history.insert(at + 1, RingSetting { mtu: 4000, packets: 2048, flows: 5 });
    });
    for rate in [0.0, 1.0, 2.0, 3.0, 3.25, 3.5, 4.0, 5.0, 6.0, 8.0, 12.0] {
        rows(&format!("closed at {rate} pages a page"), 64, &|n| n.close_rate = Some(rate));
    }
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
        .flat_map(|&a| [32, 36, 40, 44, 48, 56, 64, 72].map(|b| (a, b)))
        .flat_map(|(a, b)| [(a, b, false), (a, b, true)])
        .collect();
    let mut caches: Vec<(Lru, Lru, u64, u64)> = sizes
        .iter()
        .map(|s| (Lru { size: s.0, ..Lru::default() }, Lru { size: s.1, ..Lru::default() }, 0, 0))
        .collect();
    let (mut bytes, mut time) = (0, 0);
    trace(nic(row))
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
    let (flows, ring) = (RUNS[row].flows, RUNS[row].ring);
    let (want, want3) = MISSES[row];
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
    if what == "sweep" {
        return sweep();
    }
    for row in (0..7).filter(|&r| only < 0.0 || r as f64 == only) {
        if what == "misses" {
            misses(row)
        } else if only >= 0.0 || [0, 3, 6].contains(&row) {
            distances(row, &trace(nic(row)))
        }
    }
}

//! One timed pass over the Zipf trace, for `vs_libcachesim.py`.
//!
//!     replay_speed [engine|cache] [ENTRIES] [WAYS] [PRESET] [KEY=VALUE]...
//!
//! Prints `NAME SECONDS REQUESTS MISSES` after preparing everything (trace in
//! memory, pages mapped) outside the measured time. The seconds are the
//! thread's time on a CPU, which other processes on the machine disturb less
//! than the wall clock.

mod common;

use common::zipf::{SEED, Zipf};
use ioasim_events::PageSize;
use ioasim_sim::cache::replacement::Lru;
use ioasim_sim::cache::{Cache, FullLru, Key, SetAssoc, Tag};

const REQUESTS: usize = 10_000_000;

fn main() {
    // `cargo bench` passes `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let arg = |i: usize, default: &str| args.get(i).cloned().unwrap_or(default.into());
    let number = |i: usize, default: &str| arg(i, default).parse::<u64>().expect("a number");
    let (mode, entries) = (arg(0, "engine"), number(1, "4096"));
    let ways = number(2, &entries.to_string());
    let (seconds, misses) = match mode.as_str() {
        "cache" if ways == entries => cache(FullLru::new(entries as usize)),
        "cache" => cache(SetAssoc::<Lru, _>::new(entries as usize, ways as usize, &(), 0)),
        "engine" => engine(entries, ways, &arg(3, "hw-nested"), args.get(4..).unwrap_or(&[])),
        other => panic!("{other}: engine or cache"),
    };
    println!("{mode} {seconds:.6} {REQUESTS} {misses}");
}

/// The cache alone.
fn cache(mut cache: impl Cache<u64>) -> (f64, u64) {
    let pages: Vec<u64> = Zipf::new(SEED).take(REQUESTS).collect();
    let mut misses = 0;
    let start = common::cpu_seconds();
    for page in &pages {
        let key = Key::new(Tag(0), PageSize::Size4K, page << 12);
        if cache.get(key).is_none() {
            misses += 1;
            cache.insert_absent(key, *page);
        }
    }
    (common::cpu_seconds() - start, misses)
}

/// The whole functional replay.
fn engine(entries: u64, ways: u64, preset: &str, settings: &[String]) -> (f64, u64) {
    let shape = [format!("iotlb.entries={entries}"), format!("iotlb.ways={ways}")];
    let settings: Vec<&str> = shape.iter().chain(settings).map(String::as_str).collect();
    let config = common::config(preset, &settings);
    let mut accesses = common::Accesses::new(Zipf::new(SEED), REQUESTS);
    let replay = common::prepared(&config, REQUESTS);
    let (seconds, result) = accesses.replay(replay, common::cpu_seconds);
    assert_eq!(result.counters.dma.faults, 0);
    (seconds, result.counters.iotlb.misses)
}

//! Translations per second of the whole functional replay: Zipf(1.0) over
//! 1 M mapped pages, one thread. `iotlb` is `passthrough` with entries of 4 KiB
//! and a bare parent: the IOTLB does all, no walk reads an entry. `walk` has a
//! bare parent and no walk caches, so a miss costs one walk of the child.
//! `full` walks two stages with all walk caches (`hw-nested`). Budget: DESIGN
//! section 7.

mod common;

use std::time::{Duration, Instant};

use common::Accesses;
use common::zipf::{SEED, Zipf};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const REQUESTS: usize = 1 << 21;

/// A bare parent, no paging-structure caches, no nested cache.
const PLAIN: [&str; 8] = [
    "parent.layout=identity",
    "pwc.stage1.2m.entries=0",
    "pwc.stage1.1g.entries=0",
    "pwc.stage1.512g.entries=0",
    "pwc.stage2.2m.entries=0",
    "pwc.stage2.1g.entries=0",
    "pwc.stage2.512g.entries=0",
    "nested_cache.entries=0",
];

/// Nothing but the IOTLB.
const ALONE: [&str; 2] = ["parent.layout=identity", "iotlb.largest_page=4k"];

fn translate(c: &mut Criterion) {
    let mut accesses = Accesses::new(Zipf::new(SEED), REQUESTS);
    let start = Instant::now();
    let clock = || start.elapsed().as_secs_f64();
    let kinds = [
        ("iotlb", "passthrough", &ALONE[..]),
        ("walk", "hw-nested", &PLAIN[..]),
        ("full", "hw-nested", &[]),
    ];
    for (name, preset, walker) in kinds {
        let mut group = c.benchmark_group(format!("translate/{name}"));
        group.throughput(Throughput::Elements(REQUESTS as u64)).sample_size(10);
        for (entries, ways) in [(64, 64), (1024, 1024), (4096, 4096), (4096, 8)] {
            let shape = [format!("iotlb.entries={entries}"), format!("iotlb.ways={ways}")];
            let settings: Vec<&str> =
                shape.iter().map(String::as_str).chain(walker.iter().copied()).collect();
            let config = common::config(preset, &settings);
            group.bench_function(format!("lru-{entries}x{ways}"), |b| {
                b.iter_custom(|runs| {
                    let run = |_| accesses.replay(common::prepared(&config, REQUESTS), clock).0;
                    Duration::from_secs_f64((0..runs).map(run).sum())
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, translate);
criterion_main!(benches);

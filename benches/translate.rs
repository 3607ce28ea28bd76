//! Translations per second of the functional replay: Zipf(1.0) over a million
//! mapped pages, one thread. Budget: at least 20 M/s with an LRU IOTLB of at
//! most 4,096 entries.

mod common;

use common::zipf::{SEED, Zipf};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const REQUESTS: usize = 2_000_000;

fn translate(c: &mut Criterion) {
    let chunks = common::accesses(Zipf::new(SEED), REQUESTS);
    let mut group = c.benchmark_group("translate");
    group.throughput(Throughput::Elements(REQUESTS as u64)).sample_size(10);
    for (entries, ways) in [(64, 64), (1024, 1024), (4096, 4096), (4096, 8)] {
        let config = common::hw_nested(entries, ways, "lru");
        group.bench_function(format!("lru-{entries}x{ways}"), |b| {
            b.iter_batched(
                || common::prepared(&config, REQUESTS),
                |replay| common::run(replay, &chunks),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, translate);
criterion_main!(benches);

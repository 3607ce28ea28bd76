//! Replacement policies against each other on the same Zipf requests.

mod common;

use common::zipf::{SEED, Zipf};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const REQUESTS: usize = 1_000_000;

fn policies(c: &mut Criterion) {
    let chunks = common::accesses(Zipf::new(SEED), REQUESTS);
    let mut group = c.benchmark_group("policies");
    group.throughput(Throughput::Elements(REQUESTS as u64)).sample_size(10);
    for policy in ["lru", "plru", "fifo", "clock", "random"] {
        for (entries, ways) in [(1024, 8), (1024, 1024)] {
            let config = common::hw_nested(entries, ways, policy);
            group.bench_function(format!("{policy}-{entries}x{ways}"), |b| {
                b.iter_batched(
                    || common::prepared(&config, REQUESTS),
                    |replay| common::run(replay, &chunks),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, policies);
criterion_main!(benches);

//! Two-stage walks: cold, and with the caches of `hw-nested`. Every request
//! misses an IOTLB of one entry.

mod common;

use common::zipf::{SEED, Zipf};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const REQUESTS: usize = 200_000;
const NO_CACHES: [&str; 7] = [
    "pwc.stage1.2m.entries=0",
    "pwc.stage1.1g.entries=0",
    "pwc.stage1.512g.entries=0",
    "pwc.stage2.2m.entries=0",
    "pwc.stage2.1g.entries=0",
    "pwc.stage2.512g.entries=0",
    "nested_cache.entries=0",
];

fn walk(c: &mut Criterion) {
    let chunks = common::accesses(Zipf::new(SEED), REQUESTS);
    let mut group = c.benchmark_group("walk");
    group.throughput(Throughput::Elements(REQUESTS as u64)).sample_size(10);
    let small = ["iotlb.entries=1", "iotlb.ways=1", "child.levels=4"];
    for layout in ["2m", "4k-scattered"] {
        for (name, caches) in [("cold", &NO_CACHES[..]), ("cached", &[])] {
            let layout_setting = format!("parent.layout={layout}");
            let mut settings = vec![layout_setting.as_str()];
            settings.extend(small.iter().chain(caches));
            let config = common::config("hw-nested", &settings);
            group.bench_function(format!("{layout}-{name}"), |b| {
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

criterion_group!(benches, walk);
criterion_main!(benches);

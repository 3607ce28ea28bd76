//! Replacement policies: requests per second of the cache alone, Zipf(1.0)
//! over 1 M pages, a miss inserts.

mod common;

use common::zipf::{SEED, Zipf};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ioasim_events::PageSize;
use ioasim_sim::cache::replacement::{Clock, Fifo, Lfu, Lru, Plru, Random, S3Fifo, Srrip};
use ioasim_sim::cache::{Cache, FlushWhenFull, FullLru, Key, LruSets, SetAssoc, Tag};

const REQUESTS: usize = 1 << 20;

fn requests(keys: &[Key], mut cache: impl Cache<u64>) -> u64 {
    let mut misses = 0;
    for key in keys {
        if cache.get(*key).is_none() {
            misses += 1;
            cache.insert_absent(*key, misses);
        }
    }
    misses
}

fn policies(c: &mut Criterion) {
    let keys: Vec<Key> = Zipf::new(SEED)
        .take(REQUESTS)
        .map(|page| Key::new(Tag(0), PageSize::Size4K, page << 12))
        .collect();
    for (entries, ways) in [(4096usize, 4096usize), (4096, 8), (64, 64)] {
        let mut group = c.benchmark_group(format!("policies/{entries}x{ways}"));
        group.throughput(Throughput::Elements(REQUESTS as u64)).sample_size(10);
        macro_rules! policy {
            ($name:literal, $policy:ty) => {
                group.bench_function($name, |b| {
                    b.iter_batched(
                        || SetAssoc::<$policy, u64>::new(entries, ways, &(), 1),
                        |cache| requests(&keys, cache),
                        BatchSize::LargeInput,
                    );
                });
            };
        }
        policy!("lru", Lru);
        policy!("plru", Plru);
        policy!("fifo", Fifo);
        policy!("clock", Clock);
        policy!("random", Random);
        policy!("lfu", Lfu);
        policy!("srrip", Srrip);
        policy!("s3fifo", S3Fifo);
        if ways == 8 {
            group.bench_function("lru-sets", |b| {
                b.iter_batched(
                    || LruSets::<u64, 8>::new(entries),
                    |cache| requests(&keys, cache),
                    BatchSize::LargeInput,
                );
            });
        }
        if ways == entries {
            group.bench_function("full-lru", |b| {
                b.iter_batched(
                    || FullLru::new(entries),
                    |cache| requests(&keys, cache),
                    BatchSize::LargeInput,
                );
            });
            group.bench_function("flush-when-full", |b| {
                b.iter_batched(
                    || FlushWhenFull::<u64>::new(entries),
                    |mut cache| {
                        for key in &keys {
                            if cache.get(*key).is_none() {
                                cache.insert(*key, 1);
                            }
                        }
                        cache.len()
                    },
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, policies);
criterion_main!(benches);

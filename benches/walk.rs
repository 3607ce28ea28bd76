//! Walks per second: 4 + 4 levels of 4 KiB leaves, cold (24 reads) and with
//! the walk caches of `hw-nested`.

mod common;

use common::zipf::{SEED, Zipf};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ioasim_events::{PageSize, Perm};
use ioasim_sim::cache::Tag;
use ioasim_sim::table::{Prune, RadixTable};
use ioasim_sim::walk::{Reads, Stages, WalkCacheConfig, WalkCaches};

/// 64 MiB of IOVA, and enough GPA for it and its tables.
const PAGES: u64 = 1 << 14;
const WALKS: usize = 1 << 16;

fn tables() -> (RadixTable, RadixTable) {
    let (size, mut host) = (PageSize::Size4K, 1u64 << 40);
    let mut place_parent = |_: u32, _: u64| {
        host += 4096;
        host
    };
    let mut parent = RadixTable::new(4, Prune::Covered, &mut place_parent);
    // Frames in another order, so that leaves stay at 4 KiB.
    for page in 0..2 * PAGES {
        let hpa = (page ^ 0x155) << 12;
        parent.map(page << 12, hpa, 4096, Perm::RW, size, &mut place_parent).expect("covered");
    }
    let mut gpa = PAGES << 12;
    let mut place_child = |_: u32, _: u64| {
        gpa += 4096;
        gpa
    };
    let mut child = RadixTable::new(4, Prune::Covered, &mut place_child);
    for page in 0..PAGES {
        let gpa = (page ^ 0x2aa) << 12;
        child.map(page << 12, gpa, 4096, Perm::RW, size, &mut place_child).expect("covered");
    }
    (child, parent)
}

fn caches() -> WalkCaches {
    let of = |entries| WalkCacheConfig { entries, ways: 4 };
    let stage = [of(64), of(32), of(32), WalkCacheConfig::NONE];
    WalkCaches::new(stage, stage, of(128))
}

fn walk(c: &mut Criterion) {
    let (child, parent) = tables();
    let addrs: Vec<u64> = Zipf::new(SEED).take(WALKS).map(|p| (p % PAGES) << 12).collect();
    let two = Stages { child: Some(&child), parent: Some(&parent), child_tag: Tag(0) };
    let one = Stages { parent: None, ..two };
    let mut group = c.benchmark_group("walk");
    group.throughput(Throughput::Elements(WALKS as u64));
    for (name, stages, make) in [
        ("one-stage-cold", one, WalkCaches::none as fn() -> WalkCaches),
        ("two-stage-cold", two, WalkCaches::none),
        ("two-stage-cached", two, caches),
    ] {
        group.bench_function(name, |b| {
            b.iter_batched(
                make,
                |mut caches| {
                    let mut reads = Reads::default();
                    for addr in &addrs {
                        stages.walk(*addr, Perm::READ, &mut caches, &mut reads).expect("mapped");
                    }
                    reads.total()
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    let mut reads = Reads::default();
    two.walk(0, Perm::READ, &mut WalkCaches::none(), &mut reads).expect("mapped");
    assert_eq!(reads.total(), 24);
}

criterion_group!(benches, walk);
criterion_main!(benches);

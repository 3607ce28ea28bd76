//! Shadow synchronisation: map, invalidate, unmap, invalidate - one page at a
//! time - over a shadow of 4,096 resident pages.

mod common;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ioasim_events::{Chunk, Flags, Kind};
use ioasim_sim::replay::Replay;

const PAGES: u64 = 4096;
const ROUNDS: u64 = 20_000;

fn sync(c: &mut Criterion) {
    let at = |page: u64| 0x1_0000_0000 + page * 4096;
    let notified = |kind, page: u64| ioasim_events::Event {
        flags: Flags::NOTIFIED,
        ..common::event(kind, at(page), 4096, 0x2000_0000 + (page % PAGES) * 8192)
    };
    let resident: Chunk =
        (0..PAGES).flat_map(|p| [notified(Kind::Map, p), common::psi(at(p), 4096)]).collect();
    let changes: Chunk = (0..ROUNDS)
        .flat_map(|i| {
            let page = PAGES + i % 512;
            let psi = common::psi(at(page), 4096);
            [notified(Kind::Map, page), psi, notified(Kind::Unmap, page), psi]
        })
        .collect();
    let mut group = c.benchmark_group("sync");
    group.throughput(Throughput::Elements(2 * ROUNDS)).sample_size(10);
    for preset in ["sw-nested-map", "sw-nested-invalidate", "sw-nested-flush", "hw-nested"] {
        let config = common::config(preset, &[]);
        group.bench_function(preset, |b| {
            b.iter_batched(
                || {
                    let mut replay = Replay::new(&config, &common::info(0), false);
                    replay.run(&resident).expect("one domain");
                    replay
                },
                |mut replay| {
                    replay.run(&changes).expect("one domain");
                    replay.finish().expect("a valid configuration")
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, sync);
criterion_main!(benches);

//! Shadow synchronisation per guest invalidation, through the whole replay:
//! one page is unmapped and invalidated, another mapped and announced, while
//! `resident` pages stay mapped. `invalidate-range` looks at the range,
//! `invalidate-full` at the whole child, `map-unmap` at nothing.

mod common;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ioasim_events::{Chunk, Event, Kind};

const BASE: u64 = 0x1_0000_0000;

/// `rounds` x (map, announcement, unmap, invalidation) of single pages beside
/// the resident ones.
fn churn(rounds: u64) -> Chunk {
    let gpa = 0x1000_0000_0000;
    let round = |i: u64| -> [Event; 4] {
        let iova = i * 7 % 512 * 4096;
        [
            common::event(Kind::Map, iova, 4096, gpa + i * 4096),
            common::psi(iova, 4096),
            common::event(Kind::Unmap, iova, 4096, 0),
            common::psi(iova, 4096),
        ]
    };
    (0..rounds).flat_map(round).collect()
}

fn sync(c: &mut Criterion) {
    for resident in [512u64, 16_384, 262_144] {
        let mut group = c.benchmark_group(format!("sync/{resident}-resident"));
        for preset in ["sw-nested-map", "sw-nested-invalidate", "sw-nested-flush", "hw-nested"] {
            // As recorded: exactly two invalidations per round.
            let config = common::config(preset, &["guest.caching_mode=as-recorded"]);
            let rounds = if preset == "sw-nested-flush" { 32 } else { 4096 };
            let chunk = churn(rounds);
            group.throughput(Throughput::Elements(2 * rounds)).sample_size(10);
            group.bench_function(preset, |b| {
                b.iter_batched(
                    || {
                        let mut replay =
                            ioasim_sim::replay::Replay::new(&config, &common::info(1), false);
                        replay.run(&common::maps(resident)).expect("one domain");
                        let all = common::psi(BASE, 1 << 38);
                        replay.run(&[all].into_iter().collect()).expect("one domain");
                        replay
                    },
                    |mut replay| {
                        replay.run(&chunk).expect("one domain");
                        replay
                    },
                    BatchSize::PerIteration,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, sync);
criterion_main!(benches);

//! A parent change under a million shadow entries in 16 children, by policy:
//! time of a 4 KiB unmap, primitives, memory per entry, and what a policy
//! adds to the child's map path.
//!
//! `cargo bench --bench parent_change` prints the tables first, then lets
//! criterion measure the unmaps. All times are CPU time of this thread.

#[path = "../src/study/parent_change/measure.rs"]
#[allow(dead_code)]
mod measure;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ioasim_sim::parent_change::forest::{Forest, PAGE, Spec};
use ioasim_sim::parent_change::{Kind, Policy};

const SPEC: Spec = Spec { children: 16, entries: 1_000_000, overlap: 0.0, run: 1 };
const INDEXED: [Kind; 3] = [Kind::Rmap, Kind::RmapInterval, Kind::RmapLinked];

fn rounds(kind: Kind) -> u64 {
    match kind {
        Kind::FlushAll | Kind::Epoch => 2,
        Kind::Scan => 20,
        _ => 8_000,
    }
}

fn unmap_table(forests: &mut [(&str, Forest)]) {
    println!("4 KiB parent unmap, {} shadow entries in {} children", SPEC.entries, SPEC.children);
    println!(
        "{:14} {:>8} {:>12} {:>12} {:>10} {:>9} {:>9} {:>8}",
        "policy", "overlap", "us/unmap", "us later", "examined", "changed", "lines", "B/entry"
    );
    for (name, forest) in forests {
        for kind in Kind::ALL {
            let mut policy = Policy::of_kind(kind);
            forest.feed(&mut policy);
            let bytes = policy.memory_bytes() as f64 / forest.entries() as f64;
            let m = measure::unmaps(forest, &mut policy, PAGE, rounds(kind));
            let each = |n: u64| n as f64 / m.count as f64;
            println!(
                "{:14} {:>8} {:>12.3} {:>12.3} {:>10.1} {:>9.1} {:>9.1} {:>8.2}",
                kind.name(),
                name,
                m.ns / 1e3,
                m.later_ns / 1e3,
                each(m.work.entries_examined),
                each(m.work.entries_changed),
                each(m.work.lines),
                bytes,
            );
        }
    }
}

fn map_table(forests: &mut [(&str, Forest)]) {
    println!("\nchild's map path, ns per page without and with the policy");
    println!(
        "{:14} {:>8} {:>10} {:>6} {:>7} {:>7} {:>7} {:>6} {:>7} {:>7} {:>7} {:>6}",
        "policy",
        "overlap",
        "sync",
        "batch",
        "map",
        "with",
        "+%",
        "later",
        "unmap",
        "with",
        "+%",
        "later"
    );
    for captured in [false, true] {
        for (name, forest) in forests.iter_mut() {
            if captured {
                forest.capture_calls();
            }
            for kind in INDEXED {
                let mut policy = Policy::of_kind(kind);
                forest.feed(&mut policy);
                for batch in [1, 32, 512] {
                    let (a, b) = measure::map_paths(forest, &mut policy, batch, captured, 9);
                    let plus = |a: f64, b: f64| (b / a - 1.0) * 100.0;
                    println!(
                        "{:14} {:>8} {:>10} {:>6} {:>7.1} {:>7.1} {:>7.1} {:>6.1} {:>7.1} {:>7.1} {:>7.1} {:>6.1}",
                        kind.name(),
                        name,
                        if captured { "map-unmap" } else { "inv-range" },
                        batch,
                        a.map_ns,
                        b.map_ns,
                        plus(a.map_ns, b.map_ns),
                        b.map_later_ns,
                        a.unmap_ns,
                        b.unmap_ns,
                        plus(a.unmap_ns, b.unmap_ns),
                        b.unmap_later_ns,
                    );
                }
            }
        }
    }
}

fn parent_change(c: &mut Criterion) {
    let mut forests =
        [("none", Forest::new(SPEC)), ("full", Forest::new(Spec { overlap: 1.0, ..SPEC }))];
    unmap_table(&mut forests);
    for (name, forest) in &mut forests {
        let mut group = c.benchmark_group(format!("parent_change/4k-unmap/{name}-overlap"));
        group.sample_size(10).warm_up_time(Duration::from_millis(200));
        group.measurement_time(Duration::from_secs(1));
        for kind in [Kind::Scan, Kind::Rmap, Kind::RmapInterval, Kind::RmapLinked] {
            let mut policy = Policy::of_kind(kind);
            forest.feed(&mut policy);
            group.bench_function(kind.name(), |b| {
                b.iter_custom(|count| {
                    // Distinct pages, so that each unmap finds its entries.
                    let (mut left, mut ns) = (count, 0.0);
                    while left > 0 {
                        let some = left.min(8_000);
                        let m = measure::unmaps(forest, &mut policy, PAGE, some);
                        ns += m.ns * some as f64;
                        black_box(m.work);
                        left -= some;
                    }
                    Duration::from_nanos(ns as u64)
                });
            });
        }
        group.finish();
    }
    map_table(&mut forests);
}

criterion_group!(benches, parent_change);
criterion_main!(benches);

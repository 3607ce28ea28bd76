//! Generators alone: events per second of each kind, nothing written.
//!
//! Criterion's times include what a run makes before its first event (rings
//! and their past); the warm-up of `nic-mlx5` is left out.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ioasim_traces::generate::{
    DeviceKind, DeviceTrace, DmaOptions, MapOnceOptions, Member, MixOptions, NicOptions,
    NvmeOptions, SvaOptions, VfioBootOptions,
};

/// Events of one pass.
const EVENTS: u64 = 1_000_000;

fn kinds() -> Vec<DeviceKind> {
    let nic = |recycle| NicOptions { warm_up: 0, recycle, ..NicOptions::default() };
    let member = |tenants, device| Member { tenants, device };
    vec![
        DeviceKind::Nic(nic(0.0)),
        DeviceKind::Nic(nic(0.95)),
        DeviceKind::Nvme(NvmeOptions::default()),
        DeviceKind::MapOnce(MapOnceOptions::default()),
        DeviceKind::VfioBoot(VfioBootOptions::default()),
        DeviceKind::Sva(SvaOptions::default()),
        DeviceKind::Mix(MixOptions {
            members: vec![
                member(2, DeviceKind::Nic(nic(0.0))),
                member(4, DeviceKind::Nvme(NvmeOptions::default())),
                member(1, DeviceKind::Sva(SvaOptions::default())),
            ],
        }),
    ]
}

fn generate(c: &mut Criterion) {
    let mut group = c.benchmark_group("generate");
    group.throughput(Throughput::Elements(EVENTS)).sample_size(10);
    for device in kinds() {
        let name = device.name();
        let dma = DmaOptions::default();
        let trace = DeviceTrace { device, dma, events: EVENTS, seed: 1 };
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut sum = 0u64;
                let all = trace.visit_batches(&mut |events| {
                    sum = events.iter().fold(sum, |sum, e| sum.wrapping_add(e.addr ^ e.time_ns));
                    Ok(())
                });
                all.expect("nothing fails here");
                black_box(sum)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, generate);
criterion_main!(benches);

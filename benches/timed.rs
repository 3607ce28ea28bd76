//! Speed of simulated time: requests per second of CPU time.
//!
//! `tenants`: 1,024 tenants behind one device of 200 Gb/s with a device TLB of
//! 64 entries; each packet of 1,542 B on the wire needs three translations
//! (descriptor, data, completion), as HyperSIO's traces do.
//! `closed-loop`: maps, accesses, unmaps and invalidations in turn.

mod common;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use ioasim_events::{Chunk, DomainId, Event, Flags, Kind, Requester, TraceInfo};
use ioasim_sim::replay::Replay;
use ioasim_sim::results::RunResult;

const TENANTS: u32 = 1024;
const PACKETS: u64 = 200_000;
/// Translations per packet.
const REQUESTS: u64 = 3 * PACKETS;
const CHUNK: usize = 8_192;

fn chunks(events: impl Iterator<Item = Event>) -> Vec<Chunk> {
    let events: Vec<Event> = events.collect();
    let mut first = 0;
    let split = events.chunks(CHUNK).map(|part| {
        let chunk = Chunk { first, ..part.iter().copied().collect() };
        first += part.len() as u64;
        chunk
    });
    split.collect()
}

fn of_tenant(kind: Kind, tenant: u32, page: u64) -> Event {
    let (domain, requester) = (DomainId(tenant), Requester(tenant));
    Event { domain, requester, addr: 0x1_0000_0000 + page * 4096, ..Event::new(kind) }
}

fn tenants() -> Vec<Chunk> {
    let maps = (0..TENANTS).map(|t| {
        let (size, out) = (3 * 4096, 0x2000_1000 + u64::from(t) * 3 * 4096);
        Event { size, out, ..of_tenant(Kind::Map, t, 0) }
    });
    // Packets come at the link's rate, after the maps.
    let packets = (0..PACKETS).flat_map(|n| {
        // A fixed order without a pattern in the low bits.
        let tenant = (n as u32).wrapping_mul(0x9e37_79b1) >> 22;
        let time_ns = 2_000_000 + (n as f64 * 1542.0 * 8.0 / 200.0) as u64;
        [(16, Flags::READ), (1460, Flags::WRITE), (16, Flags::WRITE)].into_iter().enumerate().map(
            move |(page, (size, flags))| Event {
                size,
                flags,
                time_ns,
                ..of_tenant(Kind::Dma, tenant, page as u64)
            },
        )
    });
    chunks(maps.chain(packets))
}

fn replay(chunks: &[Chunk], settings: &[&str]) -> RunResult {
    let config = common::config("intel-vtd", settings);
    let info = TraceInfo { iova_bits: 39, end_ns: 1 << 30, ..TraceInfo::default() };
    let mut replay = Replay::new(&config, &info, false);
    for chunk in chunks {
        replay.run(chunk).expect("fewer spaces than tags");
    }
    replay.finish().expect("a valid configuration")
}

/// Time on a CPU: other processes on the machine do not count.
fn on_cpu(b: &mut Bencher<'_>, run: impl Fn() -> RunResult) {
    b.iter_custom(|times| {
        let start = common::cpu_seconds();
        for _ in 0..times {
            black_box(run());
        }
        Duration::from_secs_f64(common::cpu_seconds() - start)
    });
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("timed");
    group.sample_size(10);
    let trace = tenants();
    let settings = [
        "time.mode=open-loop",
        "time.device.sharing=all",
        "time.device.link_gbps=200",
        "time.ats.entries=64",
        "time.ats.ways=64",
        "time.device.outstanding=256",
    ];
    let result = replay(&trace, &settings);
    let timing = result.timing.expect("time is simulated");
    assert_eq!(timing.checks.requests_done, REQUESTS);
    group.throughput(Throughput::Elements(REQUESTS));
    group.bench_function("tenants", |b| on_cpu(b, || replay(&trace, &settings)));

    let mut events = Vec::new();
    for n in 0..100_000u64 {
        let (at, out) = (0x1_0000_0000 + n % 1000 * 4096, 0x2000_1000 + n % 1000 * 4096);
        events.push(common::event(Kind::Map, at, 4096, out));
        let access = common::event(Kind::Dma, at, 1024, 0);
        events.extend((0..4).map(|_| Event { flags: Flags::WRITE, ..access }));
        events.push(common::event(Kind::Unmap, at, 4096, 0));
        events.push(common::psi(at, 4096));
    }
    let trace = chunks(events.into_iter());
    group.throughput(Throughput::Elements(400_000));
    group.bench_function("closed-loop", |b| on_cpu(b, || replay(&trace, &[])));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

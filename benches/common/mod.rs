//! What the benches share: the Zipf trace as chunks, and configurations.
#![allow(dead_code)]

#[path = "../../sim/tests/common/zipf.rs"]
pub mod zipf;

use ioasim_events::{Chunk, DomainId, Event, Flags, Kind, Requester, Scope, TraceInfo};
use ioasim_sim::config::{Config, Layer, resolve};
use ioasim_sim::replay::Replay;
use ioasim_sim::results::RunResult;

/// Events per chunk, as the trace reader delivers them.
pub const CHUNK: usize = 65_536;
const DOMAIN: DomainId = DomainId(1);
/// First IOVA of the trace.
const BASE: u64 = 0x1_0000_0000;

/// The preset with settings.
pub fn config(preset: &str, settings: &[&str]) -> Config {
    let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
    resolve(&Layer::Preset(preset.into()), &settings).expect("a valid configuration")
}

/// `hw-nested` with an IOTLB of this shape.
pub fn hw_nested(entries: u64, ways: u64, policy: &str) -> Config {
    config(
        "hw-nested",
        &[
            &format!("iotlb.entries={entries}"),
            &format!("iotlb.ways={ways}"),
            &format!("iotlb.replacement={policy}"),
        ],
    )
}

/// One event of the trace's only domain.
pub fn event(kind: Kind, addr: u64, size: u64, out: u64) -> Event {
    Event { domain: DOMAIN, requester: Requester(8), addr, size, out, ..Event::new(kind) }
}

/// A page-selective invalidation.
pub fn psi(addr: u64, size: u64) -> Event {
    Event { flags: Flags::with_scope(Scope::Page), ..event(Kind::Invalidate, addr, size, addr) }
}

/// Maps of `pages` pages in leaves of 4 KiB: GPAs are not aligned to IOVAs.
pub fn maps(pages: u64) -> Chunk {
    let step = 1 << 21;
    let end = BASE + pages * 4096;
    (BASE..end)
        .step_by(step as usize)
        .map(|at| event(Kind::Map, at, step.min(end - at), at - BASE + 0x2000_1000))
        .collect()
}

/// `requests` accesses to `pages` as chunks.
pub fn accesses(pages: impl Iterator<Item = u64>, requests: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut chunk = Chunk::default();
    for (i, page) in pages.take(requests).enumerate() {
        let e = Event {
            flags: Flags::READ,
            time_ns: i as u64,
            ..event(Kind::Dma, BASE + page * 4096, 64, 0)
        };
        chunk.push(&e);
        if chunk.len() == CHUNK {
            let first = chunk.first + CHUNK as u64;
            chunks.push(std::mem::take(&mut chunk));
            chunk.first = first;
        }
    }
    chunks.push(chunk);
    chunks
}

/// Facts about a trace of `requests` accesses.
pub fn info(requests: usize) -> TraceInfo {
    TraceInfo {
        events: requests as u64,
        end_ns: requests as u64,
        iova_bits: 39,
        ..TraceInfo::default()
    }
}

/// A replay with everything mapped.
pub fn prepared(config: &Config, requests: usize) -> Replay {
    let mut replay = Replay::new(config, &info(requests), false);
    replay.run(&maps(zipf::PAGES)).expect("one domain");
    replay
}

/// Replays all chunks.
pub fn run(mut replay: Replay, chunks: &[Chunk]) -> RunResult {
    for chunk in chunks {
        replay.run(chunk).expect("one domain");
    }
    replay.finish().expect("a valid configuration")
}

/// Seconds that this thread has spent on a CPU (Linux).
pub fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let ns: f64 = text.split(' ').next().and_then(|n| n.parse().ok()).expect("nanoseconds");
    ns / 1e9
}

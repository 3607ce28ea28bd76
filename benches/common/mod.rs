//! What the benches share: the Zipf trace as chunks, and configurations.
#![allow(dead_code)]

#[path = "../../sim/tests/common/zipf.rs"]
pub mod zipf;

use ioasim_events::{Chunk, DomainId, Event, Flags, Kind, Requester, Scope, TraceInfo};
use ioasim_sim::config::{Config, Layer, resolve};
use ioasim_sim::replay::Replay;
use ioasim_sim::results::RunResult;

/// Events per chunk.
pub const CHUNK: usize = 8_192;
const DOMAIN: DomainId = DomainId(1);
/// First IOVA of the trace.
const BASE: u64 = 0x1_0000_0000;
/// First GPA: not aligned to the IOVA beyond 4 KiB.
const GPA: u64 = 0x2000_1000;

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
        .map(|at| event(Kind::Map, at, step.min(end - at), at - BASE + GPA))
        .collect()
}

/// Accesses to pages, decoded into one chunk that is used again and again, as
/// a trace reader does.
pub struct Accesses {
    pages: Vec<u32>,
    chunk: Chunk,
}

impl Accesses {
    /// `requests` (a multiple of [`CHUNK`]) accesses.
    pub fn new(pages: impl Iterator<Item = u64>, requests: usize) -> Accesses {
        let flags = Flags::READ.with(Flags::OUT_KNOWN);
        let read = Event { flags, ..event(Kind::Dma, 0, 64, 0) };
        Accesses {
            pages: pages.take(requests).map(|p| p as u32).collect(),
            chunk: std::iter::repeat_n(read, CHUNK).collect(),
        }
    }

    /// Number of requests.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// True if there is no request.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Replays all; `clock` tells seconds. Returns the seconds that the replay
    /// took, without those for filling the chunk.
    pub fn replay(&mut self, mut replay: Replay, clock: impl Fn() -> f64) -> (f64, RunResult) {
        let mut seconds = 0.0;
        for (number, pages) in self.pages.chunks(CHUNK).enumerate() {
            let chunk = &mut self.chunk;
            chunk.first = (number * CHUNK) as u64;
            if pages.len() < chunk.len() {
                *chunk = (0..pages.len()).map(|i| chunk.event(i)).collect();
            }
            let columns = chunk.addr.iter_mut().zip(&mut chunk.out).zip(&mut chunk.time_ns);
            for (i, (page, ((addr, out), time))) in pages.iter().zip(columns).enumerate() {
                *addr = (BASE + *page as u64 * 4096) as i64;
                *out = (GPA + *page as u64 * 4096) as i64;
                *time = (number * CHUNK + i) as i64;
            }
            let start = clock();
            replay.run(chunk).expect("one domain");
            seconds += clock() - start;
        }
        (seconds, replay.finish().expect("a valid configuration"))
    }
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

/// Seconds that this thread has spent on a CPU (Linux).
pub fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let ns: f64 = text.split(' ').next().and_then(|n| n.parse().ok()).expect("nanoseconds");
    ns / 1e9
}

//! Measures writing and decoding of a trace file.
//!
//!     cargo run --release -p ioasim-traces --example decode_speed [TRACE [--stats]]
//!
//! Without TRACE it writes a synthetic one of 2 M events to a temporary
//! directory: an NVMe and a NIC behind strict unmapping, with rings that are
//! hit again and again, buffers that are mapped, read or written and unmapped,
//! and microsecond time stamps as QEMU logs them.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ioasim_events::{DomainId, Event, Flags, Kind, Requester, Scope};
use ioasim_traces::file::{Meta, TraceReader, TraceWriter};
use ioasim_traces::generate::Control;
use ioasim_traces::stats::TraceStats;

const EVENTS: u64 = 2_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => write(&dir.path().join("synthetic.parquet"))?,
    };
    let reader = TraceReader::open(&path)?;
    let summary = reader.summary();
    println!(
        "{}: {} events, {:.2} bytes/event, {} row groups",
        path.display(),
        summary.events,
        summary.file_bytes as f64 / summary.events as f64,
        summary.row_groups
    );
    let mut best = f64::INFINITY;
    for _ in 0..7 {
        let start = Instant::now();
        let mut events = 0;
        for chunk in reader.chunks() {
            events += chunk?.len() as u64;
        }
        assert_eq!(events, summary.events);
        best = best.min(start.elapsed().as_nanos() as f64 / events as f64);
    }
    println!("decode: {best:.1} ns/event (best of 7, one thread)");
    let start = Instant::now();
    let stats = TraceStats::collect(&reader, &mut Control::default())?;
    let ns = start.elapsed().as_nanos() as f64 / summary.events as f64;
    println!("statistics: {ns:.1} ns/event");
    if std::env::args().any(|a| a == "--stats") {
        println!("{}", stats.render_text(80));
    }
    Ok(())
}

fn write(path: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let events = synthetic();
    let start = Instant::now();
    let mut writer = TraceWriter::create(path)?;
    for e in &events {
        writer.push(e)?;
    }
    let pushed = start.elapsed();
    writer.finish(Meta { tool: "decode_speed".into(), ..Meta::default() })?;
    let per_event = |d: std::time::Duration| d.as_nanos() as f64 / events.len() as f64;
    println!(
        "write: {:.1} ns/event until all are pushed, {:.1} ns/event until finished",
        per_event(pushed),
        per_event(start.elapsed())
    );
    Ok(path.to_owned())
}

/// xorshift64*: good enough to place pages.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) * n) >> 32
    }
}

/// Two devices' transactions: invalidated, mapped, used, unmapped.
fn synthetic() -> Vec<Event> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut events = Vec::with_capacity(EVENTS as usize + 64);
    let mut now_us = 0;
    while (events.len() as u64) < EVENTS {
        let nic = random.below(3) > 0;
        let (requester, domain) = if nic { (0x20, 6) } else { (0x08, 3) };
        let cpu = random.below(2) as i32;
        let base = |kind| Event {
            domain: DomainId(domain),
            requester: if kind == Kind::Dma { Requester(requester) } else { Requester::NONE },
            cpu: if kind == Kind::Dma { -1 } else { cpu },
            ..Event::new(kind)
        };
        let page = 0xf_f000 + random.below(0xf00);
        let target = 0x10_0000 + random.below(if nic { 0x800 } else { 0x2_0000 });
        let notify = Flags::with_scope(Scope::Page).with(Flags::LEAF_ONLY);
        let mut put = |mut e: Event, random: &mut Random| {
            now_us +=
                1 + random.below(3) + if random.below(100) == 0 { random.below(200) } else { 0 };
            e.time_ns = now_us * 1000;
            events.push(e);
        };
        let (addr, size) = (page << 12, 4096);
        let map = Event {
            addr,
            size,
            out: target << 12,
            flags: Flags::READ.with(Flags::WRITE),
            ..base(Kind::Map)
        };
        put(map, &mut random);
        let flags = notify.with(Flags::MAP_NOTIFY);
        put(Event { addr, size, flags, ..base(Kind::Invalidate) }, &mut random);
        for i in 0..4 + random.below(12) {
            // Descriptors and completions on a few ring pages, then the buffer.
            let (p, t) = match i % 4 {
                3 => (page, target),
                ring => (0xf_ff00 + u64::from(domain) * 4 + ring, 0x11_50e0 + ring),
            };
            let offset = random.below(256) * 16;
            let hit = if p == page { i > 3 } else { random.below(50) > 0 };
            let mut flags = Flags::LABEL_KNOWN.with(Flags::OUT_KNOWN);
            if hit {
                flags = flags.with(Flags::HIT);
            }
            put(
                Event { addr: p << 12 | offset, out: t << 12 | offset, flags, ..base(Kind::Dma) },
                &mut random,
            );
        }
        put(Event { addr, size, ..base(Kind::Unmap) }, &mut random);
        put(Event { addr, size, flags: notify, ..base(Kind::Invalidate) }, &mut random);
    }
    events
}

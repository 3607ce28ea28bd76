//! Imports texts that lie in memory, to measure importers alone on one thread
//! (no file, no decompression, no trace written): `import_memory KIND FILE... [--times N] [--like MB]`
//! with KIND one of log, virtio, kernel, csv, json, hypersio. Each text is imported N times
//! (`--like`: as often as it takes to read so many MB); prints the best and the median in MB/s of text,
//! the same by the thread's CPU time (which other programs on the machine disturb less), and a digest of the events, by which two builds are compared.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Instant;

use ioasim_events::Event;
use ioasim_traces::Result;
use ioasim_traces::exchange::{self, Foreign, ImportOptions, MemoryBytes};
use ioasim_traces::generate::Control;
use ioasim_traces::import::{self, EventSink, MemoryLines, Options};

/// Counts events, and digests them if asked to.
#[derive(Default)]
struct Seen {
    events: u64,
    digest: Option<DefaultHasher>,
}

impl EventSink for Seen {
    fn push(&mut self, e: &Event) -> Result<()> {
        self.events += 1;
        if let Some(d) = &mut self.digest {
            (e.time_ns, e.kind.name(), e.flags.0, e.cpu, e.domain.0, e.requester.0).hash(d);
            (e.pasid.0, e.addr, e.size, e.out, e.aux).hash(d);
        }
        Ok(())
    }

    fn push_marker(&mut self, e: &Event, text: &str) -> Result<()> {
        if let Some(d) = &mut self.digest {
            text.hash(d);
        }
        self.push(e)
    }
}

/// CPU time of this thread so far in s, 0 where the kernel does not tell.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// One import; the counts of its report are digested, too.
fn run(kind: &str, text: &[u8], seen: &mut Seen) -> Result<()> {
    let (lines, options) = (MemoryLines::new("x", text), &mut Options::default());
    let report = match kind {
        "log" => import::qemu_log(lines, None::<MemoryLines>, seen, options)?.0,
        "virtio" => import::virtio_iommu(lines, seen, options)?.0,
        "kernel" => import::kernel_trace(|| Ok(MemoryLines::new("x", text)), seen, options)?.0,
        _ => {
            let format = match kind {
                "csv" => Foreign::Csv,
                "json" => Foreign::JsonLines,
                "hypersio" => Foreign::HypersioText,
                other => panic!("{other} is none of log, virtio, kernel, csv, json, hypersio"),
            };
            let (input, control) = (MemoryBytes::new("x", text), &mut Control::default());
            let options = ImportOptions::default();
            let meta = exchange::import_events(format, input, &mut *seen, &options, control)?;
            if let Some(d) = &mut seen.digest {
                format!("{:?}{:?}", meta.import_counts, meta.notes).hash(d);
            }
            return Ok(());
        }
    };
    if let Some(d) = &mut seen.digest {
        format!("{report:?}").hash(d);
    }
    Ok(())
}

fn main() -> Result<()> {
    let (mut kind, mut files) = (None, Vec::new());
    let (mut times, mut like) = (5, None);
    let mut args = std::env::args().skip(1);
    while let Some(a) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse::<u64>().ok()).expect("a number");
        match &*a {
            "--times" => times = number(),
            "--like" => like = Some(number()),
            _ if kind.is_none() => kind = Some(a),
            _ => files.push(a),
        }
    }
    let kind = kind.expect("what the texts are");
    for file in files {
        let text = std::fs::read(&file).expect("a text");
        let times = like.map_or(times, |mb| (mb * 1_000_000).div_ceil(text.len().max(1) as u64));
        let mut speeds = Vec::new();
        let cpu = cpu_s();
        for _ in 0..times {
            let (mut seen, start) = (Seen::default(), Instant::now());
            run(&kind, &text, &mut seen)?;
            speeds.push(text.len() as f64 / start.elapsed().as_secs_f64() / 1e6);
        }
        let cpu = (times * text.len() as u64) as f64 / (cpu_s() - cpu) / 1e6;
        speeds.sort_by(f64::total_cmp);
        let mut seen = Seen { digest: Some(DefaultHasher::new()), ..Seen::default() };
        if times != 1 {
            run(&kind, &text, &mut seen)?;
        }
        let (best, median) = (speeds.last().unwrap_or(&0.0), speeds.get(speeds.len() / 2));
        let digest = seen.digest.map_or(0, |d| d.finish());
        let name = Path::new(&file).file_name().unwrap_or_default().display();
        println!(
            "{name:45} {:9} bytes {:8} events {digest:016x} best {best:4.0} median {:4.0} MB/s, {cpu:4.0} of CPU time",
            text.len(),
            seen.events,
            median.unwrap_or(&0.0)
        );
    }
    Ok(())
}

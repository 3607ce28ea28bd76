//! Imports logs and prints the report: `import [--ftrace F] LOG [-o T]`, for
//! measuring speed and memory (`/usr/bin/time -v`).

use std::path::{Path, PathBuf};

use ioasim_events::{Event, Requester};
use ioasim_traces::import::{self, EventSink, Options};
use ioasim_traces::input::open_text;

/// Drops events, or prints them.
struct Print(bool);

impl EventSink for Print {
    fn push(&mut self, e: &Event) -> ioasim_traces::Result<()> {
        if self.0 {
            let rid = (e.requester != Requester::NONE).then_some(e.requester.0);
            let (d, f) = (e.domain.0 as i32, e.flags.0);
            let out = (e.addr, e.size, e.out, e.aux);
            println!("{} {} d={d} f={f:x} cpu={} rid={rid:x?} {out:x?}", e.time_ns, e.kind.name(), e.cpu);
        }
        Ok(())
    }
    fn push_marker(&mut self, e: &Event, text: &str) -> ioasim_traces::Result<()> {
        if self.0 {
            println!("{} marker {text}", e.time_ns);
        }
        Ok(())
    }
}

fn main() -> ioasim_traces::Result<()> {
    let mut args = std::env::args().skip(1);
    let (mut log, mut ftrace, mut print) = (None, None, false);
    while let Some(a) = args.next() {
        match &*a {
            "--print" => print = true,
            "--ftrace" => ftrace = args.next().map(PathBuf::from),
            _ => log = Some(PathBuf::from(a)),
        }
    }
    let log = log.expect("a log");
    let start = std::time::Instant::now();
    let ftrace = ftrace.as_deref().map(open_text).transpose()?;
    let (report, log, _) = import::qemu_log(open_text(Path::new(&log))?, ftrace, &mut Print(print), &mut Options::default())?;
    let seconds = start.elapsed().as_secs_f64();
    for (name, n) in &report.counts {
        println!("{name:40} {n}");
    }
    println!("{:?} levels {} {:?}", report.caching_mode, report.child_levels, report.attributed_percent());
    println!("{:.3} s, {:.0} MB/s of log text", seconds, log.text_bytes() as f64 / seconds / 1e6);
    Ok(())
}

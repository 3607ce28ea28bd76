//! Imports logs and prints the report, for measuring speed and memory
//! (`/usr/bin/time -v`): `import [--ftrace F] LOG`, `import FILE -o T.parquet` of any format, or
//! `import --host H --ftrace G --vmm V --hypervisor K`; `--print` shows the
//! events.

use std::path::PathBuf;

use ioasim_events::{Event, Requester};
use ioasim_traces::exchange;
use ioasim_traces::generate::Control;
use ioasim_traces::import::{self, BundleInputs, EventSink, Options};
use ioasim_traces::input::open_text;

/// Drops events, or prints them.
struct Print(bool);

impl EventSink for Print {
    fn push(&mut self, e: &Event) -> ioasim_traces::Result<()> {
        if self.0 {
            let rid = (e.requester != Requester::NONE).then_some(e.requester.0);
            let (d, f) = (e.domain.0 as i32, e.flags.0);
            let out = (e.addr, e.size, e.out, e.aux);
            println!(
                "{} {} d={d} f={f:x} cpu={} rid={rid:x?} {out:x?}",
                e.time_ns,
                e.kind.name(),
                e.cpu
            );
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
    let mut print = Print(false);
    let [mut log, mut ftrace, mut host, mut vmm, mut hypervisor, mut output] =
        [const { None::<PathBuf> }; 6];
    while let Some(a) = args.next() {
        match &*a {
            "--print" => print.0 = true,
            "--ftrace" => ftrace = args.next().map(PathBuf::from),
            "-o" => output = args.next().map(PathBuf::from),
            "--host" => host = args.next().map(PathBuf::from),
            "--vmm" => vmm = args.next().map(PathBuf::from),
            "--hypervisor" => hypervisor = args.next().map(PathBuf::from),
            _ => log = Some(PathBuf::from(a)),
        }
    }
    let start = std::time::Instant::now();
    let mut options = Options::default();
    let (report, bytes) =
        if let (Some(h), Some(g), Some(v), Some(k)) = (&host, &ftrace, &vmm, &hypervisor) {
            let inputs = BundleInputs {
                host: open_text(h)?,
                guest_ftrace: open_text(g)?,
                vmm: open_text(v)?,
                hypervisor_ftrace: open_text(k)?,
            };
            let (report, inputs) =
                import::bundle(inputs, (open_text(v)?, open_text(k)?), &mut print, &mut options)?;
            (report, inputs.host.text_bytes() + inputs.vmm.text_bytes())
        } else {
            if let Some(output) = output {
                let log = log.expect("a log");
                let bytes = std::fs::metadata(&log).map_or(0, |m| m.len());
                let summary = if ftrace.is_none() && exchange::tell(&log)?.is_some() {
                    let foreign = exchange::ImportOptions::default();
                    exchange::import(&log, &output, &foreign, &mut Control::default())?
                } else {
                    let inputs = import::Inputs::Log { log, guest_ftrace: ftrace };
                    import::import_to_file(&inputs, &output, &mut options)?.1
                };
                let seconds = start.elapsed().as_secs_f64();
                let (events, speed) = (summary.events, bytes as f64 / seconds / 1e6);
                println!("{events} events, {seconds:.3} s, {speed:.0} MB/s of the file");
                return Ok(());
            }
            let ftrace = ftrace.as_deref().map(open_text).transpose()?;
            let log = open_text(&log.expect("a log"))?;
            let (report, log, _) = import::qemu_log(log, ftrace, &mut print, &mut options)?;
            (report, log.text_bytes())
        };
    let seconds = start.elapsed().as_secs_f64();
    for (name, n) in &report.counts {
        println!("{name:40} {n}");
    }
    println!(
        "{:?} levels {} {:?}",
        report.caching_mode,
        report.child_levels,
        report.attributed_percent()
    );
    println!("{:.3} s, {:.0} MB/s of log text", seconds, bytes as f64 / seconds / 1e6);
    Ok(())
}

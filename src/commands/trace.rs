//! `ioasim trace`.

use std::path::PathBuf;

use anyhow::Result;
use ioasim_reports::TraceSection;
use ioasim_reports::trace_info::{Distribution, Part, Reuse, TraceInfo, write_trace_info};
use ioasim_traces::import::{BundleInputs, ImportReport, Inputs, Options, import_to_file};
use ioasim_traces::stats::{Spread, TraceStats};

use super::generate::with_progress;
use crate::cli::{Import, Info};
use crate::files::refuse_same;
use crate::progress::{Progress, interrupt_flag, interrupted};
use crate::{Interrupted, drive};

/// Imports logs; the counts that matter go to stdout, damaged lines to stderr.
pub fn import(args: &Import, quiet: bool) -> Result<()> {
    let all = [&args.log, &args.guest_ftrace, &args.host, &args.vmm, &args.hypervisor_ftrace];
    refuse_same(all.into_iter().flatten().map(PathBuf::as_path), [args.output.as_path()])?;
    if let Some(done) = super::tools::import(args, quiet)? {
        return Ok(done);
    }
    let inputs = inputs(args);
    let mut progress: Option<Progress> = None;
    let mut show = |done: u64, total: u64| {
        progress.get_or_insert_with(|| Progress::new(quiet, "import", "bytes", total)).at(done);
    };
    let mut options = Options {
        max_errors: args.max_errors,
        progress: Some(&mut show),
        cancel: Some(interrupt_flag()),
    };
    let (report, summary) = import_to_file(&inputs, &args.output, &mut options)?;
    if let Some(progress) = progress {
        progress.finish();
    }
    for line in &report.damaged {
        eprintln!("damaged: {line}");
    }
    let mut out = format!(
        "{}: {} events, {} bytes\n",
        args.output.display(),
        summary.events,
        summary.file_bytes
    );
    out += &describe(&report);
    super::print(out.as_bytes())
}

/// Clap has checked that the options belong together.
fn inputs(args: &Import) -> Inputs {
    let own = |p: &Option<PathBuf>| p.clone().unwrap_or_default();
    match &args.host {
        Some(host) => Inputs::Bundle(BundleInputs {
            host: host.clone(),
            guest_ftrace: own(&args.guest_ftrace),
            vmm: own(&args.vmm),
            hypervisor_ftrace: own(&args.hypervisor_ftrace),
        }),
        None => Inputs::Log { log: own(&args.log), guest_ftrace: args.guest_ftrace.clone() },
    }
}

fn describe(report: &ImportReport) -> String {
    let mut out = String::new();
    for (name, n) in &report.counts {
        if *n > 0 {
            out += &format!("  {name:<46} {n:>12}\n");
        }
    }
    if let Some((by_evidence, all)) = report.attributed_percent() {
        out += &format!(
            "  map/unmap events with a domain: {all:.3} % ({by_evidence:.3} % by evidence)\n"
        );
    }
    for note in &report.notes {
        out += &format!("  note: {note}\n");
    }
    out
}

/// Says what is in a trace.
pub fn info(args: &Info, quiet: bool) -> Result<()> {
    let html = args.html.as_deref();
    refuse_same([args.trace.as_path()], html)?;
    let reader = drive::open(Some(&args.trace))?;
    let stats = with_progress("info", quiet, |control| TraceStats::collect(&reader, control))?;
    let mut page = None;
    if html.is_some() {
        let sha256 = reader.decoder().sha256()?;
        page = Some(page_of(&stats, crate::document::trace_section(&reader, sha256)?));
    }
    let mut text = match args.json {
        true => serde_json::to_string_pretty(&stats)? + "\n",
        false => stats.render_text(80),
    };
    if args.plots {
        text += "\n";
        text += &stats.render_plots(80);
    }
    if interrupted() {
        return Err(Interrupted.into());
    }
    if let (Some(path), Some(page)) = (html, page) {
        write_trace_info(path, &page)?;
    }
    super::print_about(&[html], &text)
}

/// The page's contents.
fn page_of(stats: &TraceStats, trace: TraceSection) -> TraceInfo {
    let spread = |s: &Spread| Distribution {
        count: s.count,
        mean: s.mean,
        p50: s.p50,
        p90: s.p90,
        p99: s.p99,
        max: s.max,
        classes: s.classes.iter().map(|c| (c.up_to, c.count)).collect(),
    };
    let l = &stats.locality;
    let reuse = |unit: &str, firsts, s| Reuse { unit: unit.into(), firsts, distances: spread(s) };
    let made_up = &stats.provenance.synthetic;
    TraceInfo {
        version: crate::document::version(),
        trace,
        made_up: made_up.iter().map(|s| format!("{}, seed {}", s.workload, s.seed)).collect(),
        all_made_up: made_up.iter().any(|s| s.guest),
        accesses: stats.recorded.dma,
        devices: stats.devices.len() as u64,
        domains: stats.domains.iter().filter(|d| d.domain.is_some()).count() as u64,
        working_set: l
            .working_set
            .iter()
            .map(|i| Part { time_ns: i.time_ns, accesses: i.accesses, pages: i.pages })
            .collect(),
        reuse: [
            reuse("4 KiB pages", l.first_accesses_4k, &l.reuse_distance_4k),
            reuse("2 MiB regions", l.first_accesses_2m, &l.reuse_distance_2m),
        ],
        lifetime_ns: spread(&stats.maps.lifetime_ns),
        bursts: spread(&l.burst_accesses),
    }
}

//! `ioasim trace`.

use std::path::PathBuf;

use anyhow::Result;
use ioasim_traces::import::{BundleInputs, ImportReport, Inputs, Options, import_to_file};
use ioasim_traces::stats::TraceStats;

use crate::cli::{Import, Info};
use crate::drive;
use crate::progress::{Progress, interrupt_flag};

/// Imports logs; the counts that matter go to stdout, damaged lines to stderr.
pub fn import(args: &Import, quiet: bool) -> Result<()> {
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
pub fn info(args: &Info) -> Result<()> {
    let reader = drive::open(Some(&args.trace))?;
    let stats = TraceStats::collect(&reader)?;
    let text = if args.json {
        serde_json::to_string_pretty(&stats)? + "\n"
    } else {
        stats.render_text(80)
    };
    super::print(text.as_bytes())
}

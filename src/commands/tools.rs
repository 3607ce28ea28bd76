//! Commands that make traces from traces.

use std::path::Path;

use anyhow::{Result, bail};
use ioasim_traces::events::DomainId;
use ioasim_traces::exchange::{self, Format};
use ioasim_traces::file::{Summary, TraceReader};
use ioasim_traces::generate::Control;
use ioasim_traces::tools;

use super::generate::with_progress;
use crate::cli::Import;
use crate::cli::tools::{Anonymize, Diff, Export, Merge, Replicate, Slice};
use crate::files::refuse_same;
use crate::{Usage, drive};

/// Imports a file that is no log; nothing if it is one.
pub fn import(args: &Import, quiet: bool) -> Result<Option<()>> {
    let Some(log) = args.log.as_deref() else { return Ok(None) };
    let options = args.foreign.options(args.max_errors);
    if options.format.is_none() && (args.guest_ftrace.is_some() || exchange::tell(log)?.is_none()) {
        return Ok(None);
    }
    let summary = with_progress("import", quiet, |control| {
        exchange::import(log, &args.output, &options, control)
    })?;
    let mut out = wrote(&args.output, &summary);
    for (name, n) in &summary.meta.import_counts {
        out += &format!("  {name:<46} {n:>14}\n");
    }
    super::print(out.as_bytes()).map(Some)
}

/// Writes another program's format, or queries.
pub fn export(args: &Export, quiet: bool) -> Result<()> {
    if args.sql {
        if drive::open(Some(&args.trace))?.is_embedded() {
            let what = "the sample is in the program, and DuckDB reads files; make one with \
                        `ioasim trace slice sample -o sample.parquet`";
            return Err(Usage(what.into()).into());
        }
        return super::print(exchange::queries(&args.trace).as_bytes());
    }
    let Some(output) = &args.output else { bail!("no output") };
    let Some(format) = args.format.map(Format::from).or_else(|| Format::of(output)) else {
        let what = format!(
            "{} tells no format; name it *.jsonl, *.csv, *.oracleGeneral or *.pftrace, or give \
             --format",
            output.display()
        );
        return Err(Usage(what).into());
    };
    let reader = open(&args.trace, output)?;
    let written = with_progress("export", quiet, |control| {
        exchange::export(&reader, output, format, args.selection(), control)
    })?;
    let text = format!(
        "{}: {} events, {} records, {} bytes\n",
        output.display(),
        written.events,
        written.records,
        written.bytes
    );
    super::print_about(&[Some(output)], &text)
}

/// Cuts a part out.
pub fn slice(args: &Slice, quiet: bool) -> Result<()> {
    let reader = open(&args.trace, &args.output)?;
    let what = tools::slice::Slice {
        from_ns: args.from_ns,
        to_ns: args.to_ns,
        after_marker: args.after_marker.clone(),
        before_marker: args.before_marker.clone(),
        devices: args.devices.clone(),
        domains: args.domains.iter().map(|d| DomainId(*d)).collect(),
        without_state: args.without_state,
    };
    made(&args.output, quiet, "slice", |control| {
        tools::slice::slice(&reader, &args.output, &what, control)
    })
}

/// Makes one of several.
pub fn merge(args: &Merge, quiet: bool) -> Result<()> {
    if args.shift_ns.len() > args.traces.len() {
        let what = format!(
            "--shift-ns has {} times for {} traces; give at most one for each",
            args.shift_ns.len(),
            args.traces.len()
        );
        return Err(Usage(what).into());
    }
    let readers: Vec<TraceReader> =
        args.traces.iter().map(|t| open(t, &args.output)).collect::<Result<_>>()?;
    let how = tools::merge::Merge { shifts_ns: args.shift_ns.clone(), keep_ids: args.keep_ids };
    made(&args.output, quiet, "merge", |control| {
        tools::merge::merge(&readers, &args.output, &how, control)
    })
}

/// Makes many tenants of one.
pub fn replicate(args: &Replicate, quiet: bool) -> Result<()> {
    let how = tools::replicate::Replicate {
        tenants: args.tenants,
        spread_ns: args.spread_ns,
        share_memory: args.share_memory,
        max_events: args.max_events,
        seed: args.seed,
    };
    how.check().map_err(|e| Usage(e.to_string()))?;
    let reader = open(&args.trace, &args.output)?;
    made(&args.output, quiet, "replicate", |control| {
        tools::replicate::replicate(&reader, &args.output, &how, control)
    })
}

/// Permutes addresses.
pub fn anonymize(args: &Anonymize, quiet: bool) -> Result<()> {
    let reader = open(&args.trace, &args.output)?;
    let how = tools::anonymize::Anonymize { seed: args.seed, keep_markers: args.keep_markers };
    made(&args.output, quiet, "anonymize", |control| {
        tools::anonymize::anonymize(&reader, &args.output, &how, control)
    })
}

/// Compares two.
pub fn diff(args: &Diff, quiet: bool) -> Result<()> {
    let (left, right) = (drive::open(Some(&args.left))?, drive::open(Some(&args.right))?);
    let found = with_progress("diff", quiet, |control| {
        tools::diff::diff(&left, &right, args.most, control)
    })?;
    let mut out = String::new();
    if args.json {
        out = serde_json::to_string_pretty(&found)? + "\n";
    } else if found.is_empty() {
        out += &format!("the same: {} events\n", found.events[0]);
    } else {
        out += &format!("events: {} and {}\n", found.events[0], found.events[1]);
        for (name, a, b) in &found.facts {
            out += &format!("{name}: {a} and {b}\n");
        }
        out += &format!("different: {}\n", found.different);
        for (column, n) in &found.columns {
            out += &format!("  {column:<10} {n:>12}\n");
        }
        for d in &found.first {
            out += &format!("event {} ({})\n", d.event, d.columns.join(", "));
            out += &format!("  - {}\n  + {}\n", d.left, d.right);
        }
    }
    super::print(out.as_bytes())?;
    if !found.is_empty() {
        bail!("the traces differ");
    }
    Ok(())
}

/// Opens an input that must not be the output.
fn open(trace: &Path, output: &Path) -> Result<TraceReader> {
    refuse_same([trace], [output])?;
    drive::open(Some(trace))
}

fn made(
    output: &Path,
    quiet: bool,
    what: &'static str,
    run: impl FnOnce(&mut Control<'_>) -> ioasim_traces::Result<Summary>,
) -> Result<()> {
    let summary = with_progress(what, quiet, run)?;
    super::print(wrote(output, &summary).as_bytes())
}

fn wrote(output: &Path, summary: &Summary) -> String {
    format!("{}: {} events, {} bytes\n", output.display(), summary.events, summary.file_bytes)
}

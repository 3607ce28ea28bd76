//! `ioasim trace overlay` and `ioasim trace generate`.

use std::path::Path;

use anyhow::Result;
use ioasim_traces::file::Summary;
use ioasim_traces::generate::{Control, device_to_file, generate_to_file, overlay_to_file};

use crate::cli::{Generate, Overlay, ParentChange};
use crate::files::refuse_same;
use crate::progress::{Progress, interrupt_flag};
use crate::{Usage, drive};

/// Lays parent changes over a trace.
pub fn overlay(args: &Overlay, quiet: bool) -> Result<()> {
    let options = args.changes.options();
    options.check().map_err(|e| Usage(e.to_string()))?;
    refuse_same([args.trace.as_path()], [args.output.as_path()])?;
    let reader = drive::open(Some(&args.trace))?;
    with_progress("overlay", quiet, |control| {
        overlay_to_file(&reader, &args.output, &options, control)
    })
    .and_then(|summary| describe(&args.output, &summary))
}

/// Makes up a guest and parent changes.
pub fn parent_change(args: &ParentChange, quiet: bool) -> Result<()> {
    let (guest, options) = (args.guest(), args.changes.options());
    options.check().and_then(|()| guest.check()).map_err(|e| Usage(e.to_string()))?;
    with_progress("generate", quiet, |control| {
        generate_to_file(&guest, &args.output, &options, control)
    })
    .and_then(|summary| describe(&args.output, &summary))
}

/// Makes up a device and its driver.
pub fn device(kind: &Generate, quiet: bool) -> Result<()> {
    let (trace, output) = match kind {
        Generate::ParentChange(args) => return parent_change(args, quiet),
        Generate::NicMlx5(args) => args.trace(0.0),
        Generate::NicRecycle(args) => args.trace(0.95),
        Generate::Nvme(args) => args.trace(),
        Generate::MapOnce(args) => args.trace(),
        Generate::VfioBoot(args) => args.trace(),
        Generate::Sva(args) => args.trace(),
        Generate::Mix(args) => args.trace(),
    };
    trace.check().map_err(|e| Usage(e.to_string()))?;
    with_progress("generate", quiet, |control| device_to_file(&trace, output, control))
        .and_then(|summary| describe(output, &summary))
}

/// Runs with progress on stderr, and until Ctrl-C.
pub fn with_progress<T>(
    what: &'static str,
    quiet: bool,
    run: impl FnOnce(&mut Control<'_>) -> ioasim_traces::Result<T>,
) -> Result<T> {
    let mut progress: Option<Progress> = None;
    let mut show = |done: u64, total: u64| {
        progress.get_or_insert_with(|| Progress::new(quiet, what, "events", total)).at(done);
    };
    let mut control = Control { progress: Some(&mut show), cancel: Some(interrupt_flag()) };
    let done = run(&mut control)?;
    if let Some(progress) = progress {
        progress.finish();
    }
    Ok(done)
}

/// What was made up, on stdout.
fn describe(output: &Path, summary: &Summary) -> Result<()> {
    let mut out =
        format!("{}: {} events, {} bytes\n", output.display(), summary.events, summary.file_bytes);
    let made_up = summary
        .meta
        .import_counts
        .iter()
        .filter(|(k, _)| k.starts_with("overlay_") || k.starts_with("made_up_"));
    for (name, n) in made_up {
        out += &format!("  {name:<46} {n:>14}\n");
    }
    super::print(out.as_bytes())
}

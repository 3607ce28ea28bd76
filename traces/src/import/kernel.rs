//! The kernel's trace alone, without a log of an IOMMU.
//!
//! A guest on VT-d traces the descriptors that it submits (`qi_submit`), and
//! these are all that a log of the IOMMU would tell of invalidations. They are
//! taken for the log (`own.rs`) and joined with the maps and unmaps
//! around them like any other pair. Elsewhere maps and unmaps stand alone
//! ([`plain`]). Accesses are not recorded either way.

pub(super) mod cache_tags;
mod dma_line;
mod lists;
mod plain;

use std::path::Path;
use std::sync::LazyLock;

use ioasim_events::OutputSpace;
use memchr::memmem::Finder;

use super::ftrace_line::{self, Event, Line};
use super::lines::{EventSink, LineSource, import_error};
use super::report::{ImportReport, Options};
use super::single;
use crate::Result;
use plain::Plain;

/// Imports a kernel's trace into `sink`. `open` gives its lines from the
/// beginning each time; the reader of the last pass is given back.
///
/// # Errors
/// [`Error::Import`](crate::Error::Import) if it holds no map or unmap, or if more lines are
/// damaged than allowed; whatever reading or `sink` reports.
pub fn kernel_trace<L: LineSource>(
    mut open: impl FnMut() -> Result<L>,
    sink: &mut impl EventSink,
    options: &mut Options<'_>,
) -> Result<(ImportReport, L)> {
    let shown = look(open()?)?;
    if !shown.changes {
        return Err(nothing(open()?.path(), shown.lines));
    }
    let invalidations = shown.descriptors || shown.flushes;
    let (mut report, lines) = if invalidations && shown.table_changes {
        let (mut report, lines) = single::kernel(open()?, !shown.descriptors, sink, options)?;
        if !shown.descriptors {
            report.notes.push(
                "The trace has no qi_submit: invalidations are those of cache_tag_flush_range."
                    .into(),
            );
        }
        (report, lines)
    } else {
        let mut plain = Plain::new(open()?, sink, options.max_errors, shown.table_changes);
        plain.run(options)?;
        plain.finish()
    };
    // What stands for the log is made of the same lines.
    for name in ["log_lines", "log_vtd_events", "log_seams", "log_times_clamped"] {
        report.counts.remove(name);
    }
    report.importer = "linux-ftrace";
    report.output_space = OutputSpace::Gpa;
    report.notes.push("The kernel's trace tells no accesses: none is in the trace.".into());
    Ok((report, lines))
}

/// What a trace is made of.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    lines: u64,
    /// Invalidation descriptors for the IOTLB.
    descriptors: bool,
    /// Flushes of cache tags of the IOTLB.
    flushes: bool,
    /// `iommu:map` or `unmap`.
    table_changes: bool,
    /// These or `dma:*`.
    changes: bool,
}

/// Reads until it is known what the trace is made of.
fn look<L: LineSource>(mut lines: L) -> Result<Shown> {
    let mut shown = Shown::default();
    while let Some(line) = lines.next_line()? {
        shown.lines += 1;
        if line.truncated {
            continue;
        }
        // Letters of their names that the lines of other events rarely have.
        if shown.table_changes
            && (memchr::memchr2(b'q', b'g', line.bytes).is_none()
                || !tells_submit(line.bytes)
                    && (shown.flushes || !cache_tags::tells_flush(line.bytes)))
        {
            // Only invalidations are still to be seen.
            continue;
        }
        match ftrace_line::parse(line.bytes) {
            Line::Event(_, Event::Map { .. } | Event::Unmap { .. }) => {
                (shown.table_changes, shown.changes) = (true, true);
            }
            Line::Event(_, Event::QiSubmit { qw0, qw1 }) => {
                let d = super::desc::Descriptor { qw0, qw1 };
                shown.descriptors |= d.pages().is_some() || d.flush().is_some();
            }
            Line::Other(name) if dma_line::is_dma(name) => shown.changes = true,
            Line::Other(name) if cache_tags::is_flush(name) => {
                let text = ftrace_line::split(line.bytes)
                    .map(|(_, name, text)| cache_tags::parse(name, &text));
                shown.flushes |= matches!(text, Ok(Some(Some(_))));
            }
            _ => {}
        }
        if shown.descriptors && shown.table_changes {
            break;
        }
    }
    Ok(shown)
}

/// True if a line may be a `qi_submit`. Most lines of a trace are others, which need not be taken
/// apart to look for it.
fn tells_submit(line: &[u8]) -> bool {
    static SUBMIT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("qi_submit"));
    SUBMIT.find(line).is_some()
}

fn nothing(path: &Path, lines: u64) -> crate::Error {
    import_error(
        path,
        format!(
            "no map or unmap in {lines} lines (looked for iommu:map, iommu:unmap and dma:dma_map_*, dma_unmap_*); \
             record with: trace-cmd record -e iommu -e intel_iommu -e dma"
        ),
    )
}

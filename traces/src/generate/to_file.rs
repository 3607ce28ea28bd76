//! From a trace or a made-up guest to a trace file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ioasim_events::{CachingMode, Event, OutputSpace};

use super::options::{Options, ParentPage};
use super::overlay::{Overlay, Sink};
use super::survey::{Survey, Surveyor};
use super::synthetic::SyntheticGuest;
use crate::file::{Meta, Source, Summary, Synthetic, TraceReader, TraceWriter};
use crate::{Error, Result};

/// Events between two looks at the hooks.
const TICK: u64 = 65_536;

/// Hooks of a long run.
#[derive(Default)]
pub struct Control<'a> {
    /// Called now and then with the events passed so far, in both passes, and
    /// the events that will pass in all (an estimate for a made-up guest).
    pub progress: Option<&'a mut dyn FnMut(u64, u64)>,
    /// Set from elsewhere to end the run early, with an error.
    pub cancel: Option<&'a AtomicBool>,
}

impl std::fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control<'_> {
    pub(crate) fn tick(&mut self, output: &Path, done: u64, total: u64) -> Result<()> {
        if self.cancel.is_some_and(|c| c.load(Ordering::Relaxed)) {
            return Err(refused(output, "interrupted; nothing was written".into()));
        }
        if let Some(f) = &mut self.progress {
            f(done, total);
        }
        Ok(())
    }
}

/// What both passes read.
enum Input<'a> {
    Trace(&'a TraceReader),
    Guest(&'a SyntheticGuest),
}

impl Input<'_> {
    /// Calls `f` with every event, in order, and with markers' texts.
    fn visit(&self, f: &mut Sink<'_>) -> Result<()> {
        match self {
            Input::Guest(guest) => guest.visit(&mut |e| f(e, None)),
            Input::Trace(reader) => reader.visit(f),
        }
    }

    fn output_space(&self) -> OutputSpace {
        match self {
            Input::Guest(_) => OutputSpace::Gpa,
            Input::Trace(reader) => reader.meta().output_space,
        }
    }

    fn events(&self) -> u64 {
        match self {
            Input::Guest(guest) => guest.events(),
            Input::Trace(reader) => reader.meta().totals.events,
        }
    }
}

/// Lays a workload over a recorded trace and writes the result to `output`,
/// with the trace's provenance, the options and counts in its metadata. The
/// file appears only if all went well.
///
/// # Errors
/// [`Error::Options`] if the options contradict each other; the reader's and
/// the writer's errors; [`Error::Import`] if the trace uses more guest memory
/// than can be laid out, or the run is interrupted.
pub fn overlay_to_file(
    reader: &TraceReader,
    output: &Path,
    options: &Options,
    control: &mut Control<'_>,
) -> Result<Summary> {
    options.check()?;
    let mut meta = reader.meta().clone();
    meta.sources.push(source_of(reader)?);
    meta.created_by = "trace overlay".into();
    meta.importer = format!("{}, overlaid with {}", meta.importer, options.workload.name());
    run(&Input::Trace(reader), output, options, BTreeMap::new(), meta, control)
}

/// Makes up a guest, lays a workload over it and writes the trace to `output`.
///
/// # Errors
/// As [`overlay_to_file`].
pub fn generate_to_file(
    guest: &SyntheticGuest,
    output: &Path,
    options: &Options,
    control: &mut Control<'_>,
) -> Result<Summary> {
    options.check()?;
    guest.check()?;
    let guest_parameters = [
        ("children", guest.children.to_string()),
        ("entries", guest.entries.to_string()),
        ("accesses", guest.accesses.to_string()),
        ("memory_bytes", guest.memory.to_string()),
        ("overlap", guest.overlap.to_string()),
        ("churn", guest.churn.to_string()),
        ("writes", guest.writes.to_string()),
        ("guest_seed", guest.seed.to_string()),
    ];
    let meta = Meta {
        created_by: "trace generate".into(),
        importer: format!("generator parent-change ({})", options.workload.name()),
        caching_mode: CachingMode::Off,
        notes: vec!["Every event of this trace is made up; nothing was recorded.".into()],
        ..Meta::default()
    };
    let parameters = guest_parameters.map(|(name, value)| (name.to_string(), value)).into();
    run(&Input::Guest(guest), output, options, parameters, meta, control)
}

fn run(
    input: &Input<'_>,
    output: &Path,
    options: &Options,
    mut parameters: BTreeMap<String, String>,
    mut meta: Meta,
    control: &mut Control<'_>,
) -> Result<Summary> {
    let mut writer = TraceWriter::create(output)?;
    let total = 2 * input.events();
    let mut done = 0;
    let survey = survey(input, output, options, &mut done, total, control)?;
    let laid_out = (!survey.has_parent).then(|| layout_name(options.parent_page));
    let counts = {
        let mut sink = |e: &Event, text: Option<&str>| match text {
            Some(text) => writer.push_marker(e, text),
            None => writer.push(e),
        };
        let mut overlay = Overlay::new(options, survey, input.output_space(), &mut sink)?;
        input.visit(&mut |e, text| {
            done += 1;
            if done.is_multiple_of(TICK) {
                control.tick(output, done, total)?;
            }
            overlay.event(e, text, &mut sink)
        })?;
        overlay.finish(&mut sink)?
    };
    meta.tool = concat!("ioasim ", env!("CARGO_PKG_VERSION")).into();
    for (name, n) in &counts {
        *meta.import_counts.entry(name.clone()).or_default() += n;
    }
    if let Some(outputs) = meta.import_counts.get_mut("outputs") {
        *outputs = outputs.saturating_sub(counts["overlay_outputs_cleared"]);
    }
    parameters.extend(options.parameters());
    meta.notes.extend(remarks(input, options, &counts, &parameters, laid_out));
    meta.synthetic.push(Synthetic {
        workload: options.workload.name().into(),
        seed: options.seed,
        guest: matches!(input, Input::Guest(_)),
        parent_layout: laid_out.map(str::to_owned),
        parameters,
    });
    writer.finish(meta)
}

fn survey(
    input: &Input<'_>,
    output: &Path,
    options: &Options,
    done: &mut u64,
    total: u64,
    control: &mut Control<'_>,
) -> Result<Survey> {
    let mut surveyor = Surveyor::new(input.output_space(), options.seed);
    input.visit(&mut |e, _| {
        *done += 1;
        if done.is_multiple_of(TICK) {
            control.tick(output, *done, total)?;
        }
        surveyor.event(e);
        Ok(())
    })?;
    let granule = options.size().max(options.parent_page.bytes());
    surveyor.finish(granule).map_err(|why| match input {
        Input::Trace(reader) => refused(reader.path(), why),
        Input::Guest(_) => refused(output, why),
    })
}

fn layout_name(page: ParentPage) -> &'static str {
    match page {
        ParentPage::Size4K => "4k",
        ParentPage::Size2M => "2m",
        ParentPage::Size1G => "1g",
    }
}

/// What people must know about the trace: what in it is not recorded.
fn remarks(
    input: &Input<'_>,
    options: &Options,
    counts: &BTreeMap<String, u64>,
    parameters: &BTreeMap<String, String>,
    laid_out: Option<&str>,
) -> Vec<String> {
    let n = |name: &str| counts.get(name).copied().unwrap_or(0);
    let name = options.workload.name();
    let mut notes = vec![format!(
        "OVERLAID, not recorded: {} parent maps and {} parent unmaps of the workload {name}, in {} operations{}.",
        n("overlay_parent_maps"),
        n("overlay_parent_unmaps"),
        n("overlay_operations"),
        if options.in_use { ", pages in use included" } else { "" },
    )];
    if let Some(layout) = laid_out {
        notes.push(format!(
            "The parent table is made up as well: {} MiB of guest memory in leaves of at most {layout}.",
            n("overlay_guest_memory_bytes") >> 20
        ));
    }
    if matches!(input, Input::Trace(_)) {
        notes.push(
            "Recorded hits and misses are those of the machine without the overlay; do not compare labels."
                .into(),
        );
    }
    let (outputs, hpas) = (n("overlay_outputs_cleared"), n("overlay_shadow_hpas_cleared"));
    if outputs + hpas > 0 {
        notes.push(format!(
            "{outputs} recorded output addresses and {hpas} host addresses of shadow operations were \
             cleared, because the overlay made them untrue."
        ));
    }
    if n("overlay_stopped_at_max_changes") > 0 {
        notes.push(format!(
            "The overlay ended before the trace, at the {} changes allowed.",
            options.max_changes
        ));
    }
    if n("overlay_spans_cut") > 0 {
        notes.push(format!(
            "{} times the recorded shadow stayed behind the guest's table for so long that parent \
             changes were made in between; shadow operations may differ there.",
            n("overlay_spans_cut")
        ));
    }
    let list: Vec<String> = parameters.iter().map(|(k, v)| format!("{k} {v}")).collect();
    notes.push(format!("Parameters of {name}: {}.", list.join(", ")));
    notes
}

/// Name and checksum of the trace that an overlay was laid on.
pub(crate) fn source_of(reader: &TraceReader) -> Result<Source> {
    Ok(Source {
        role: "trace".into(),
        path: reader.path().display().to_string(),
        bytes: reader.file_bytes(),
        sha256: reader.decoder().sha256()?,
    })
}

pub(super) fn refused(path: &Path, why: String) -> Error {
    Error::Import { path: path.to_owned(), why }
}

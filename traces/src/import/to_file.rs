//! From files to a trace file.

use std::path::{Path, PathBuf};

use super::lines::import_error;
use super::model::Model;
use super::nested::BundleInputs;
use super::report::{ImportReport, Options};
use super::{ftrace_line, host, nested, qemu_line, single};
use crate::Result;
use crate::exchange;
use crate::file::{Meta, Source, Summary, TraceWriter};
use crate::input::open_text;

/// Lines looked at to tell what a file is.
const SNIFF_LINES: usize = 4096;

/// The files of one import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// One level: a QEMU log, and the guest's ftrace if there is one.
    Log {
        /// QEMU's log.
        log: PathBuf,
        /// The guest's ftrace text.
        guest_ftrace: Option<PathBuf>,
    },
    /// All levels of software nesting.
    Bundle(BundleInputs<PathBuf, PathBuf, PathBuf, PathBuf>),
}

/// What a text is, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKind {
    /// Output of QEMU's `log` trace backend.
    QemuLog,
    /// The same of a virtio-iommu.
    VirtioIommu,
    /// The same of VFIO and iommufd, QEMU's side of the host, without an
    /// emulated IOMMU.
    QemuHost,
    /// The kernel's ftrace text.
    Ftrace,
    /// None of them, as far as its first lines tell.
    Unknown,
}

/// Tells what a file is by its first lines.
///
/// # Errors
/// If it cannot be read.
pub fn sniff(path: &Path) -> Result<TextKind> {
    let mut input = open_text(path)?;
    for _ in 0..SNIFF_LINES {
        let Some(line) = input.next_line()? else { break };
        if line.bytes.starts_with(b"# tracer:") {
            return Ok(TextKind::Ftrace);
        }
        match qemu_line::parse(line.bytes).1 {
            qemu_line::Line::Event(e) if e.is_host_side() => return sniff_host(path),
            qemu_line::Line::Event(qemu_line::Event::Lost(_)) => {}
            qemu_line::Line::Event(_) => return Ok(TextKind::QemuLog),
            qemu_line::Line::Other(name) if name.starts_with(b"virtio_iommu_") => {
                return Ok(TextKind::VirtioIommu);
            }
            qemu_line::Line::Other(name)
                if name.starts_with(b"vfio_") || name.starts_with(b"iommufd_") =>
            {
                return sniff_host(path);
            }
            qemu_line::Line::Other(name)
                if Model::of_event(name).is_some() || name.starts_with(b"riscv_iommu") =>
            {
                return Ok(TextKind::QemuLog);
            }
            _ => {}
        }
        match ftrace_line::parse(line.bytes) {
            ftrace_line::Line::Event(..) => return Ok(TextKind::Ftrace),
            ftrace_line::Line::Other(name) if name.starts_with(b"dma_") => {
                return Ok(TextKind::Ftrace);
            }
            _ => {}
        }
    }
    Ok(TextKind::Unknown)
}

/// A log that begins with events of QEMU's host side: what else is in it.
fn sniff_host(path: &Path) -> Result<TextKind> {
    match host::emulated(open_text(path)?)? {
        None => Ok(TextKind::QemuHost),
        Some(true) => Ok(TextKind::VirtioIommu),
        Some(false) => Ok(TextKind::QemuLog),
    }
}

/// Imports `inputs` and writes the trace to `output`, with provenance, counts
/// and notes in its metadata. The file appears only if all went well.
///
/// # Errors
/// As [`qemu_log`](super::qemu_log) and [`bundle`](super::bundle); also if an
/// input is given in the wrong role, or `output` cannot be written.
pub fn import_to_file(
    inputs: &Inputs,
    output: &Path,
    options: &mut Options<'_>,
) -> Result<(ImportReport, Summary)> {
    let kind = match inputs {
        Inputs::Log { log, .. } => sniff(log)?,
        Inputs::Bundle(_) => TextKind::Unknown,
    };
    if let (Inputs::Log { log, .. }, TextKind::Unknown) = (inputs, kind)
        && let Some(why) = exchange::no_table(log)?
    {
        return Err(import_error(log, why));
    }
    let mut writer = TraceWriter::create(output)?;
    let (mut report, sources, importer) = match inputs {
        Inputs::Log { log, guest_ftrace: None } if kind == TextKind::Ftrace => {
            let (report, lines) = super::kernel_trace(|| open_text(log), &mut writer, options)?;
            let importer = report.importer.to_owned();
            (report, vec![lines.finish("guest-ftrace")?], importer)
        }
        Inputs::Log { log, guest_ftrace } if kind == TextKind::VirtioIommu => {
            if guest_ftrace.is_some() {
                return Err(import_error(
                    log,
                    "a log of virtio-iommu holds the guest's maps and unmaps itself; import it without --guest-ftrace",
                ));
            }
            let (report, lines) = super::virtio_iommu(open_text(log)?, &mut writer, options)?;
            let importer = report.importer.to_owned();
            (report, vec![lines.finish("qemu-log")?], importer)
        }
        Inputs::Log { log, guest_ftrace } if kind == TextKind::QemuHost => {
            if guest_ftrace.is_some() {
                return Err(import_error(
                    log,
                    "a log of VFIO and iommufd alone has nothing that joins a guest's ftrace; trace 'vtd_*' as well, \
                     or import it without --guest-ftrace",
                ));
            }
            let (report, lines) = super::host_log(open_text(log)?, &mut writer, options)?;
            let importer = report.importer.to_owned();
            (report, vec![lines.finish("qemu-log")?], importer)
        }
        Inputs::Log { log, guest_ftrace } => {
            expect_log(log, "as the log")?;
            if let Some(ftrace) = guest_ftrace {
                expect_ftrace(ftrace, "--guest-ftrace")?;
            }
            let ftrace = guest_ftrace.as_deref().map(open_text).transpose()?;
            let (report, log, ftrace) =
                single::qemu_log(open_text(log)?, ftrace, &mut writer, options)?;
            let mut sources = vec![log.finish("qemu-log")?];
            if let Some(ftrace) = ftrace {
                sources.push(ftrace.finish("guest-ftrace")?);
            }
            let with = if sources.len() == 2 { " with guest ftrace" } else { "" };
            let importer = format!("{}{with}", report.importer);
            (report, sources, importer)
        }
        Inputs::Bundle(b) => {
            expect_log(&b.host, "--host")?;
            expect_log(&b.vmm, "--vmm")?;
            expect_ftrace(&b.guest_ftrace, "--guest-ftrace")?;
            expect_ftrace(&b.hypervisor_ftrace, "--hypervisor-ftrace")?;
            let texts = BundleInputs {
                host: open_text(&b.host)?,
                guest_ftrace: open_text(&b.guest_ftrace)?,
                vmm: open_text(&b.vmm)?,
                hypervisor_ftrace: open_text(&b.hypervisor_ftrace)?,
            };
            let first_look = (open_text(&b.vmm)?, open_text(&b.hypervisor_ftrace)?);
            let (report, texts) = nested::bundle(texts, first_look, &mut writer, options)?;
            let sources: Vec<Source> = vec![
                texts.host.finish("host-log")?,
                texts.guest_ftrace.finish("guest-ftrace")?,
                texts.vmm.finish("vmm-log")?,
                texts.hypervisor_ftrace.finish("hypervisor-ftrace")?,
            ];
            (report, sources, "qemu-vtd bundle".to_owned())
        }
    };
    remarks(&mut report);
    let meta = Meta {
        tool: concat!("ioasim ", env!("CARGO_PKG_VERSION")).into(),
        created_by: "trace import".into(),
        importer,
        sources,
        import_counts: report.counts.clone(),
        notes: report.notes.clone(),
        output_space: report.output_space,
        caching_mode: report.caching_mode,
        child_levels: report.child_levels,
        ..Meta::default()
    };
    let summary = writer.finish(meta)?;
    Ok((report, summary))
}

fn expect_log(path: &Path, role: &str) -> Result<()> {
    match sniff(path)? {
        TextKind::Ftrace => Err(import_error(
            path,
            format!(
                "this is an ftrace text, but it was given {role}; a QEMU log belongs there (vtd_* events)"
            ),
        )),
        TextKind::Unknown => match exchange::tell(path)? {
            Some(format) => Err(import_error(
                path,
                format!(
                    "its format is {}, but a join needs a QEMU log (vtd_*, amdvi_*, smmu*); import it alone",
                    format.name()
                ),
            )),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn expect_ftrace(path: &Path, role: &str) -> Result<()> {
    match sniff(path)? {
        TextKind::QemuLog | TextKind::VirtioIommu | TextKind::QemuHost => Err(import_error(
            path,
            format!(
                "this is a QEMU log, but it was given as {role}; an ftrace text belongs there (iommu:map, qi_submit)"
            ),
        )),
        _ => Ok(()),
    }
}

/// What people should know about the trace.
fn remarks(report: &mut ImportReport) {
    let mut notes = Vec::new();
    let inferred = report.count("maps_inferred") + report.count("unmaps_inferred");
    if inferred > 0 {
        notes.push(format!(
            "{inferred} map and unmap events were learned from DMA outputs and invalidations (flag inferred)."
        ));
    }
    if let Some((evident, all)) = report.attributed_percent() {
        notes.push(format!(
            "The domain of {evident:.2} % of the guest's maps and unmaps is evident, of {all:.2} % known or guessed from \
             neighbours (flag domain_inferred)."
        ));
    }
    for (count, text) in [
        ("lines_damaged", "damaged lines were left out."),
        ("log_events_lost", "events were lost by QEMU's trace buffer."),
        ("ftrace_events_lost", "events were lost by the kernel's ftrace buffer."),
        (
            "ftrace_events_not_joined",
            "ftrace events could not be placed in the log and were left out.",
        ),
        ("dma_without_mapping", "accesses found a mapping that no recorded change explains."),
        ("shadow_hpa_mismatches", "shadow entries do not agree with guest table and parent table."),
        ("mappings_forgotten", "mappings were forgotten because too many were live at once."),
    ] {
        let n = report.count(count);
        if n > 0 {
            notes.push(format!("{n} {text}"));
        }
    }
    let without = report.count("commands_without_range");
    if without > 0 {
        notes.push(format!(
            "{without} invalidation commands for pages are logged with their domain only; they stand as domain-selective ones."
        ));
    }
    let (joined, all) = (report.count("descriptors_joined"), report.count("ftrace_descriptors"));
    if joined * 2 < all {
        notes.push(format!(
            "Only {joined} of the {all} invalidation descriptors in the ftrace were found in the log; \
             check that both are of the same run."
        ));
    }
    let steps = report.count("clock_steps");
    if steps > 0 {
        notes.push(format!(
            "A clock stepped against another {steps} times, by up to {:.3} s (a machine was paused, or its clock set): \
             order follows the common operations, times between the last one before and the first one after a step are guesses.",
            report.count("clock_step_largest_ns") as f64 / 1e9
        ));
    }
    let outlying = report.count("times_outlying");
    if outlying > 0 {
        notes.push(format!(
            "{outlying} time stamps were more than an hour away from those before and behind them and were not \
             believed; their events have the time of the one before."
        ));
    }
    let seams = report.count("log_seams");
    if seams > 0 {
        notes.push(format!("The log's clock jumped back {seams} times; times go on where it was."));
    }
    report.notes.append(&mut notes);
}

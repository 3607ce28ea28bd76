//! The import of a single-level recording: QEMU's log of VT-d, AMD-Vi or
//! SMMUv3, and the guest's ftrace if there is one.

use ioasim_events::{CachingMode, OutputSpace};

use super::join::Join;
use super::joined::Joined;
use super::lines::{EventSink, LineSource, MemoryLines, import_error};
use super::model::Model;
use super::pairing::Pairing;
use super::qemu::LogReader;
use super::report::{ImportReport, Options};
use crate::Result;

/// Imports a log of QEMU's emulated VT-d, AMD-Vi or SMMUv3 into `sink`, with
/// the guest's ftrace if there is one; gives the inputs back for their
/// digests. Which IOMMU it is shows in the log.
///
/// # Errors
/// [`Error::Import`](crate::Error::Import) if the log holds no event of these IOMMUs or of
/// two of them, if
/// the ftrace does not belong to it, or if more lines are damaged than
/// allowed; whatever reading or `sink` reports.
pub fn qemu_log<L: LineSource, F: LineSource>(
    log: L,
    guest_ftrace: Option<F>,
    sink: &mut impl EventSink,
    options: &mut Options<'_>,
) -> Result<(ImportReport, L, Option<F>)> {
    let mut join = Join::new(log, guest_ftrace, sink, options.max_errors);
    join.run(options)?;
    let (report, log, guest) = finish(join)?;
    Ok((report, log.into_lines(), guest.map(|g| g.reader.into_lines())))
}

/// Imports a kernel's trace that holds invalidations; `flushes`: those of cache tags, as there are
/// no descriptors.
pub(super) fn kernel<L: LineSource>(
    trace: L,
    flushes: bool,
    sink: &mut impl EventSink,
    options: &mut Options<'_>,
) -> Result<(ImportReport, L)> {
    let none = MemoryLines::new("descriptors", b"");
    let mut trace = Joined::new(trace);
    if flushes {
        trace.reader.take_flushes();
    }
    let mut join = Join::of_kernel(none, trace, sink, options.max_errors);
    join.run_own(options)?;
    let (report, _, guest) = finish(join)?;
    Ok((report, guest.expect("given above").reader.into_lines()))
}

type Finished<L, F> = (ImportReport, LogReader<L>, Option<Joined<F>>);

/// The report of a join that has read everything, and its inputs.
fn finish<L: LineSource, F: LineSource, S: EventSink>(
    join: Join<L, F, S>,
) -> Result<Finished<L, F>> {
    let mut report = ImportReport { output_space: OutputSpace::Gpa, ..ImportReport::default() };
    check(&join)?;
    count(&join, &mut report);
    let of_guest = join.guest.as_ref().map_or(0, |g| g.reader.clock().outlying);
    report.times_outlying(join.log.clock().outlying + of_guest);
    let Join { log, guest, diag, .. } = join;
    diag.finish(&mut report);
    Ok((report, log, guest))
}

/// Refuses inputs that are not what they were given as.
fn check<L: LineSource, F: LineSource, S: EventSink>(join: &Join<L, F, S>) -> Result<()> {
    let path = join.log.lines().path();
    if join.log.counts.iommu_events == 0 {
        return Err(import_error(
            path,
            no_iommu_event(join.log.counts.lines, join.log.other_iommu),
        ));
    }
    let Some(g) = &join.guest else { return Ok(()) };
    let path = g.reader.lines().path();
    if g.reader.counts.events == 0 {
        return Err(import_error(
            path,
            format!(
                "no ftrace event in {} lines (looked for \"TASK-PID [CPU] SECONDS: map: IOMMU: ...\", unmap and \
                 qi_submit); give the guest's trace text as --guest-ftrace",
                g.reader.counts.lines
            ),
        ));
    }
    let mut matched = g.pairing.matched();
    let Pairing::Mappings(votes) = &g.pairing else {
        // Machines of one kind boot alike, so a few pairs prove nothing.
        let in_log =
            join.log.counts.raw_descriptors - join.log.counts.waits + join.log.counts.decoded_only;
        let in_ftrace = g.reader.counts.descriptors;
        if matched == 0 || matched * 10 < in_log.min(in_ftrace) {
            return Err(import_error(
                path,
                format!(
                    "it does not belong to the log: {matched} of its {in_ftrace} invalidation descriptors \
                     (qi_submit) agree with the {in_log} in the log; give the ftrace of the same run, \
                     or import the log alone",
                ),
            ));
        }
        return Ok(());
    };
    if !join.log.clock().timed() {
        return Err(import_error(
            path,
            "it has no invalidation descriptors (qi_submit) and the log has no time stamps, so nothing joins \
             the two; record the log with -msg timestamp=on, or import it alone",
        ));
    }
    matched += votes.unmaps;
    if matched == 0 || matched * 10 < votes.causes.min(votes.effects) {
        return Err(import_error(
            path,
            format!(
                "it does not belong to the log: {matched} of its maps and unmaps ({} maps) are followed by an access \
                 that finds their output or by their invalidation (the log shows {} such accesses); give the ftrace of the same run, or import the log alone",
                votes.causes, votes.effects
            ),
        ));
    }
    Ok(())
}

/// Why a file is refused as a QEMU log.
pub(crate) fn no_iommu_event(lines: u64, other: Option<&str>) -> String {
    match other {
        _ if lines == 0 => "it is empty; a recording belongs there".into(),
        Some(other) => format!(
            "no event of VT-d, AMD-Vi or SMMUv3 in {lines} lines, but events of {other}, which cannot be imported \
             yet; record with -device intel-iommu, -device amd-iommu or -machine virt,iommu=smmuv3"
        ),
        None => format!(
            "no VT-d event in {lines} lines, nor one of AMD-Vi or SMMUv3 (looked for vtd_iotlb_page_hit, \
             vtd_iotlb_page_update, vtd_dmar_translate, vtd_inv_desc*, amdvi_*, smmu_*, smmuv3_*), of virtio-iommu, VFIO \
             or a kernel's trace, and neither JSON lines nor a CSV with a column addr, address or iova; record with \
             -trace 'vtd_*' -D FILE and QEMU's log backend, or name another format with --format"
        ),
    }
}

fn count<L: LineSource, F: LineSource, S: EventSink>(
    join: &Join<L, F, S>,
    report: &mut ImportReport,
) {
    let mut add = |name: &str, n: u64| {
        report.counts.insert(name.into(), n);
    };
    let l = &join.log.counts;
    add("log_lines", l.lines);
    let model = join.log.model.unwrap_or(Model::VtD);
    report.importer = model.importer();
    add(
        match model {
            Model::VtD => "log_vtd_events",
            Model::AmdVi => "log_amdvi_events",
            Model::SmmuV3 => "log_smmu_events",
        },
        l.iommu_events,
    );
    match model {
        Model::VtD => {}
        Model::AmdVi => add("commands_without_range", l.commands_without_range),
        Model::SmmuV3 => {
            add("page_table_reads", l.table_reads);
            add("misses_with_page_table_reads", l.misses_with_reads);
        }
    }
    add("log_seams", join.log.clock().seams);
    add("log_times_clamped", join.log.clock().clamped);
    add("dma_without_translate_line", l.without_translate);
    add("dma_without_iotlb_line", l.translate_only);
    add("dma_faults", l.faults);
    add("iotlb_overflows", l.iotlb_resets);
    let e = &join.out.counts;
    add("events", e.events);
    add("dma", e.dma);
    add("maps", e.maps);
    add("unmaps", e.unmaps);
    add("invalidations", e.invalidations);
    add("attaches", e.attaches);
    add("maps_inferred", e.inferred_maps);
    add("unmaps_inferred", e.inferred_unmaps);
    add("labels", e.labels);
    add("labels_unlike_qemu_iotlb", e.labels_unlike_qemu);
    add("stale_hits", e.stale_hits);
    add("mappings_forgotten", join.out.tables.forgotten);
    add("shadow_operations", l.shadow_operations);
    add("vmm_events_unused", l.vmm_events_unused);
    add("log_events_lost", l.lost);
    if l.device_tlb > 0 {
        add("device_tlb_invalidations", l.device_tlb);
        add("device_tlb_invalidations_of_all", l.device_tlb_whole);
    }
    join.parent.counts.add_to(&mut add);
    report.child_levels = join.log.levels;
    if !join.log.clock().timed() {
        report.notes.push("The log has no time stamps: events are 1 us apart.".into());
    }
    if model == Model::SmmuV3 {
        // An SMMU caches no faulting entries: nothing is announced.
        report.caching_mode = CachingMode::Off;
    }
    let Some(g) = &join.guest else {
        let a = &join.alone;
        if model != Model::VtD {
            return;
        }
        report.caching_mode = match (l.shadow_operations > 0 || a.on(), a.known()) {
            (true, _) => CachingMode::On,
            (false, true) => CachingMode::Off,
            (false, false) => CachingMode::Unknown,
        };
        return;
    };
    add("maps_inferred_within_ftrace", e.inferred_maps_covered);
    add("unmaps_inferred_within_ftrace", e.inferred_unmaps_covered);
    add("unmaps_of_unknown_pages", e.unmaps_of_unknown);
    add("invalidations_for_maps_only", e.map_notify);
    let f = &g.reader.counts;
    add("ftrace_lines", f.lines);
    add("ftrace_maps", f.maps);
    add("ftrace_unmaps", f.unmaps);
    add("ftrace_unmaps_of_nothing", f.empty_unmaps);
    add("ftrace_descriptors", f.descriptors);
    add("ftrace_events_lost", f.lost);
    add("ftrace_seams", g.reader.clock().seams);
    let c = &join.counts;
    add("table_changes", c.table_changes);
    add("table_changes_by_dma", c.by_dma);
    add("table_changes_by_invalidation", c.by_invalidation);
    add("table_changes_by_pairing", c.by_pairing);
    add("table_changes_by_liveness", c.by_liveness);
    add("table_changes_by_adjacency", c.by_adjacency);
    add("table_changes_without_domain", c.without_domain);
    add("table_changes_contradicted", c.contradictions);
    add("maps_notified", c.notified);
    add("maps_moved_before_their_dma", c.pulled);
    add("unmaps_moved_behind_their_dma", c.held);
    add("order_conflicts", c.order_conflicts);
    add("ftrace_events_not_joined", c.not_joined);
    add("markers", c.markers);
    add("join_resyncs", g.pairing.resyncs());
    match &g.pairing {
        Pairing::Descriptors(a) => {
            add("descriptors_joined", a.matched);
            add("descriptors_only_in_log", a.first_unmatched);
            add("descriptors_only_in_ftrace", f.descriptors - a.matched);
        }
        Pairing::Mappings(v) => {
            add("maps_joined", v.matched);
            add("maps_without_access", v.causes - v.matched);
            add("unmaps_joined", v.unmaps);
        }
    }
    if let Some(a) = g.pairing.descriptors() {
        report.clocks_stepped(a.steps, a.largest_step);
    }
    // Without descriptors nothing shows whether maps are announced.
    if g.pairing.descriptors().is_some() && g.caching.known() {
        report.caching_mode = if g.caching.on() { CachingMode::On } else { CachingMode::Off };
    }
}

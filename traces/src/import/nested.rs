//! The import of a bundle: software nesting recorded at all levels.

use ioasim_events::{CachingMode, OutputSpace};

use super::bundle::Bundle;
use super::bundle_scan::{self, Scan};
use super::lines::{EventSink, LineSource, import_error};
use super::model::Model;
use super::report::{ImportReport, Options};
use super::single::no_iommu_event;
use crate::Result;

/// The four inputs of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleInputs<H, G, V, K> {
    /// Log of the QEMU that emulates the physical IOMMU: the device's DMA.
    pub host: H,
    /// ftrace of the guest.
    pub guest_ftrace: G,
    /// Log of the VMM: the guest's IOMMU, and the shadow's operations.
    pub vmm: V,
    /// ftrace of the kernel that the VMM runs on.
    pub hypervisor_ftrace: K,
}

/// Imports a bundle into `sink`; gives the inputs back for their digests.
///
/// The VMM's log and the hypervisor's ftrace are read twice: `first_look`
/// are the same two texts once more.
///
/// # Errors
/// [`Error::Import`](crate::Error::Import) if an input is not what it was
/// given as, if two neighbours have nothing in common, or if more lines are
/// damaged than allowed; whatever reading or `sink` reports.
pub fn bundle<H: LineSource, G: LineSource, V: LineSource, K: LineSource>(
    inputs: BundleInputs<H, G, V, K>,
    first_look: (impl LineSource, impl LineSource),
    sink: &mut impl EventSink,
    options: &mut Options<'_>,
) -> Result<(ImportReport, BundleInputs<H, G, V, K>)> {
    let scan = bundle_scan::scan(first_look.0, first_look.1)?;
    check_scan(&inputs, &scan)?;
    let lanes = (inputs.host, inputs.guest_ftrace, inputs.vmm, inputs.hypervisor_ftrace);
    let mut bundle = Bundle::new(lanes, scan, sink, options.max_errors);
    bundle.run(options)?;
    check(&bundle)?;
    let mut report = ImportReport { output_space: OutputSpace::Hpa, ..ImportReport::default() };
    count(&bundle, &mut report);
    bundle.diag.finish(&mut report);
    let inputs = BundleInputs {
        host: bundle.host.into_lines(),
        guest_ftrace: bundle.guest.reader.into_lines(),
        vmm: bundle.vmm.into_lines(),
        hypervisor_ftrace: bundle.hypervisor.reader.into_lines(),
    };
    Ok((report, inputs))
}

fn check_scan<H, G, V: LineSource, K: LineSource>(
    inputs: &BundleInputs<H, G, V, K>,
    scan: &Scan,
) -> Result<()> {
    if scan.vmm_operations == 0 {
        return Err(import_error(
            inputs.vmm.path(),
            "no shadow operation in it (looked for vtd_page_walk_one); give the log of the VMM that runs the guest, \
             recorded with -trace 'vtd_*' and intel-iommu,caching-mode=on",
        ));
    }
    if scan.operations == 0 || scan.guest_domain.is_empty() {
        return Err(import_error(
            inputs.hypervisor_ftrace.path(),
            format!(
                "the shadow operations of {} are not in it ({} there, {} found here); give the ftrace (events iommu and \
                 intel_iommu) of the kernel that the VMM ran on",
                inputs.vmm.path().display(),
                scan.vmm_operations,
                scan.operations
            ),
        ));
    }
    Ok(())
}

fn check<H: LineSource, G: LineSource, V: LineSource, K: LineSource, S: EventSink>(
    b: &Bundle<H, G, V, K, S>,
) -> Result<()> {
    if b.host.counts.iommu_events == 0 {
        return Err(import_error(
            b.host.lines().path(),
            no_iommu_event(b.host.counts.lines, b.host.other_iommu),
        ));
    }
    for (model, path) in
        [(b.host.model, b.host.lines().path()), (b.vmm.model, b.vmm.lines().path())]
    {
        if let Some(model) = model.filter(|m| *m != Model::VtD) {
            return Err(import_error(
                path,
                format!(
                    "it is a log of {}, and bundles are read of VT-d only; import it alone",
                    model.name()
                ),
            ));
        }
    }
    for (ftrace, matched, what, log) in [
        (b.guest.reader.lines().path(), b.guest.pairing.matched(), "guest", b.vmm.lines().path()),
        (
            b.hypervisor.reader.lines().path(),
            b.hypervisor.pairing.matched(),
            "hypervisor",
            b.host.lines().path(),
        ),
    ] {
        if matched == 0 {
            return Err(import_error(
                ftrace,
                format!(
                    "none of its invalidation descriptors (qi_submit) is in {}; give the {what}'s ftrace of the same run",
                    log.display()
                ),
            ));
        }
    }
    Ok(())
}

fn count<H: LineSource, G: LineSource, V: LineSource, K: LineSource, S: EventSink>(
    b: &Bundle<H, G, V, K, S>,
    report: &mut ImportReport,
) {
    let mut add = |name: &str, n: u64| {
        report.counts.insert(name.into(), n);
    };
    add("host_log_lines", b.host.counts.lines);
    add("vmm_log_lines", b.vmm.counts.lines);
    add("guest_ftrace_lines", b.guest.reader.counts.lines);
    add("hypervisor_ftrace_lines", b.hypervisor.reader.counts.lines);
    add("log_seams", b.host.clock().seams + b.vmm.clock().seams);
    add("ftrace_seams", b.guest.reader.clock().seams + b.hypervisor.reader.clock().seams);
    add("ftrace_events_lost", b.guest.reader.counts.lost + b.hypervisor.reader.counts.lost);
    add("dma_without_translate_line", b.host.counts.without_translate);
    add("dma_without_iotlb_line", b.host.counts.translate_only);
    add("dma_faults", b.host.counts.faults);
    add("iotlb_overflows", b.host.counts.iotlb_resets);
    let e = &b.out.counts;
    add("events", e.events);
    add("dma", e.dma);
    add("maps", e.maps);
    add("unmaps", e.unmaps);
    add("invalidations", e.invalidations);
    add("invalidations_for_maps_only", e.map_notify);
    add("attaches", e.attaches);
    add("maps_inferred", e.inferred_maps);
    add("unmaps_inferred", e.inferred_unmaps);
    add("unmaps_of_unknown_pages", e.unmaps_of_unknown);
    add("mappings_forgotten", b.out.tables.forgotten);
    let c = &b.state.counts;
    add("table_changes", c.table_changes);
    add("table_changes_by_invalidation", c.by_invalidation);
    add("table_changes_by_liveness", c.by_liveness);
    add("table_changes_without_domain", c.without_domain);
    add("maps_notified", c.notified);
    add("shadow_maps", c.shadow_maps);
    add("shadow_unmaps", c.shadow_unmaps);
    add("shadow_hpa_checked", c.shadow_hpa_checked);
    add("shadow_hpa_mismatches", c.shadow_hpa_mismatches);
    add("shadow_maps_scattered", c.shadow_maps_scattered);
    add("shadow_maps_without_hpa", c.shadow_maps_without_hpa);
    add("parent_maps", c.parent_maps);
    add("parent_unmaps", c.parent_unmaps);
    add("parent_maps_repeated", c.parent_readded);
    add("hypervisor_unmaps_at_switch", c.hypervisor_unmaps_at_switch);
    add("hypervisor_changes_of_others", c.hypervisor_changes_of_others);
    add("dma_of_other_devices", c.dma_of_other_devices);
    add("dma_in_parent", c.dma_in_parent);
    add("dma_without_mapping", c.dma_without_mapping);
    add("host_invalidations", c.host_invalidations);
    add("host_invalidations_of_others", c.host_invalidations_of_others);
    add("labels", c.labels);
    add("labels_unlike_qemu_iotlb", c.labels_unlike_qemu);
    add("maps_moved_before_their_dma", c.pulled);
    add("address_space_switches", c.switches);
    add("order_conflicts", b.order_conflicts);
    add("guest_descriptors_joined", b.guest.pairing.matched());
    add(
        "guest_descriptors_not_joined",
        b.guest.pairing.descriptors().map_or(0, |p| p.second_unmatched),
    );
    add("shadow_operations_joined", b.shadow_ops.matched);
    add("shadow_operations_not_joined", b.shadow_ops.second_unmatched);
    add("hypervisor_descriptors_joined", b.hypervisor.pairing.matched());
    add(
        "hypervisor_descriptors_not_joined",
        b.hypervisor.pairing.descriptors().map_or(0, |p| p.second_unmatched),
    );
    // Rare, so counted only where there are some.
    let descriptors = [b.guest.pairing.descriptors(), b.hypervisor.pairing.descriptors()];
    for aligner in descriptors.into_iter().flatten().chain([&b.shadow_ops]) {
        report.clocks_stepped(aligner.steps, aligner.largest_step);
    }
    report.times_outlying(
        b.host.clock().outlying
            + b.vmm.clock().outlying
            + b.guest.reader.clock().outlying
            + b.hypervisor.reader.clock().outlying,
    );
    for (aligner, what, ftrace, log) in [
        (b.guest.pairing.descriptors(), "invalidation descriptors", "guest's", "VMM's"),
        (b.hypervisor.pairing.descriptors(), "invalidation descriptors", "hypervisor's", "host's"),
        (Some(&b.shadow_ops), "shadow operations", "hypervisor's", "VMM's"),
    ] {
        let Some(aligner) = aligner.filter(|a| a.second_unmatched > 0) else { continue };
        report.notes.push(format!(
            "INCOMPLETE: {} of the {} {what} in the {ftrace} ftrace were not found in the {log} log; one of the two \
             ends early or has gaps, and what happened there is guessed.",
            aligner.second_unmatched,
            aligner.matched + aligner.second_unmatched
        ));
    }
    if c.regions_pulled > 0 {
        report.counts.insert("regions_moved_before_their_maps".into(), c.regions_pulled);
    }
    report.child_levels = b.vmm.levels;
    report.caching_mode = CachingMode::On;
}

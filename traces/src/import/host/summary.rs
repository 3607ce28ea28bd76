//! What the import of a host's log tells about itself.

use ioasim_events::{CachingMode, OutputSpace};

use super::super::lines::{EventSink, LineSource};
use super::super::report::ImportReport;
use super::Import;

impl<L: LineSource, S: EventSink> Import<L, S> {
    pub(super) fn finish(self) -> (ImportReport, L) {
        let mut report = ImportReport {
            output_space: OutputSpace::Gpa,
            caching_mode: CachingMode::Unknown,
            importer: "qemu-host",
            ..ImportReport::default()
        };
        let c = &self.counts;
        for (name, n) in [
            ("log_lines", c.lines),
            ("log_host_events", c.events_read),
            ("log_events_lost", c.lost),
            ("log_seams", self.clock.seams),
            ("log_times_clamped", self.clock.clamped),
            ("events", c.events),
            ("maps", c.maps),
            ("maps_without_output", c.without_output),
            ("maps_at_own_address", c.at_own_address),
            ("maps_refused", c.refused),
            ("unmaps", c.unmaps),
            ("unmaps_inferred", c.unmaps_inferred),
            ("unmaps_of_unknown_pages", c.unmaps_of_unknown),
            ("shadow_operations", c.shadow_operations),
            ("requests_failed", c.failed),
            ("requests_announced_only", c.not_asked),
            ("attaches", c.attaches),
            ("detaches", c.detaches),
            ("nested_tables", c.nested_tables),
            ("invalidations", c.invalidations),
            ("commands_without_range", c.entries),
            ("markers", c.markers),
            ("mappings_forgotten", self.tables.forgotten),
        ] {
            report.counts.insert(name.into(), n);
        }
        self.parent.counts.add_to(&mut |name, n| {
            report.counts.insert(name.into(), n);
        });
        report.times_outlying(self.clock.outlying);
        if !self.clock.timed() {
            report.notes.push("The log has no time stamps: events are 1 us apart.".into());
        }
        report.notes.push(
            "A log of QEMU's host side: no accesses; outputs of the parent are the VMM's own addresses.".into(),
        );
        if c.without_output > 0 {
            report.notes.push(format!(
                "{} maps are logged without an address (only iommufd tells it); their outputs are made up.",
                c.without_output
            ));
        }
        if c.at_own_address > 0 {
            report.notes.push(format!(
                "{} maps are at addresses of no known RAM; their outputs are the VMM's own (trace vfio_listener* as well).",
                c.at_own_address
            ));
        }
        self.diag.finish(&mut report);
        (report, self.lines)
    }
}

//! The result document of a run.

use std::collections::BTreeMap;

use anyhow::Result;
use ioasim_reports::{Document, MadeUp, Marker, Source, TraceSection, Version};
use ioasim_sim::results::RunResult;
use ioasim_traces::file::{Meta, TraceReader};

/// ioasim's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Puts runs and facts about their trace together; `sha256` is the file's.
///
/// # Errors
/// Facts that are no JSON.
pub fn assemble(reader: &TraceReader, sha256: String, runs: Vec<RunResult>) -> Result<Document> {
    Ok(Document::new(version(), trace_section(reader, sha256)?, runs))
}

/// This program.
pub fn version() -> Version {
    Version { ioasim: VERSION.into(), git: option_env!("IOASIM_GIT").map(Into::into) }
}

/// Facts about a trace; `sha256` is the file's.
///
/// # Errors
/// Facts that are no JSON.
pub fn trace_section(reader: &TraceReader, sha256: String) -> Result<TraceSection> {
    let meta = reader.meta();
    let totals = &meta.totals;
    let json = serde_json::to_value(meta)?;
    let word = |key: &str| json[key].as_str().unwrap_or_default().to_string();
    let pick = |names: &[(&str, &str)]| -> BTreeMap<String, u64> {
        let found = |(from, to): &(&str, &str)| {
            let n = meta.import_counts.get(*from)?;
            Some((to.to_string(), *n))
        };
        names.iter().filter_map(found).collect()
    };
    // A virtio-iommu's attach requests and the host's attachments are logged.
    let logged = ["qemu-virtio-iommu", "qemu-host"];
    let attaches = match logged.iter().any(|name| meta.importer.starts_with(name)) {
        true => "",
        false => "attaches",
    };
    let mut recorded = pick(&[("labels", "labels"), ("outputs", "outputs")]);
    let shadow_ops = ["shadow_map", "shadow_unmap"].iter().filter_map(|k| totals.kinds.get(*k));
    let shadow_ops: u64 = shadow_ops.sum();
    if shadow_ops > 0 {
        recorded.insert("shadow_ops".into(), shadow_ops);
    }
    let path = match reader.is_embedded() {
        true => "embedded sample".into(),
        false => reader.path().display().to_string(),
    };
    Ok(TraceSection {
        path,
        sha256,
        events: totals.events,
        end_ns: totals.end_ns,
        counts: totals.kinds.clone(),
        output_space: word("output_space"),
        caching_mode: word("caching_mode"),
        sources: meta
            .sources
            .iter()
            .map(|s| Source {
                role: s.role.clone(),
                path: s.path.clone(),
                bytes: s.bytes,
                sha256: s.sha256.clone(),
            })
            .collect(),
        importer: meta.importer.clone(),
        importer_counts: meta.import_counts.clone(),
        notes: meta.notes.clone(),
        markers: totals
            .markers
            .iter()
            .map(|m| Marker { time_ns: m.time_ns, text: m.text.clone() })
            .collect(),
        recorded,
        inferred: pick(&[
            ("maps_inferred", "maps"),
            ("unmaps_inferred", "unmaps"),
            (attaches, "attachments"),
            ("table_changes_by_adjacency", "domains of maps and unmaps, by adjacency"),
        ]),
        made_up: made_up(meta),
    })
}

/// What of a trace was made up.
fn made_up(meta: &Meta) -> Option<MadeUp> {
    let by = &meta.synthetic;
    let all = by.iter().any(|s| s.guest);
    let added = || {
        [("overlay_parent_maps", "parent_map"), ("overlay_parent_unmaps", "parent_unmap")]
            .iter()
            .filter_map(|(from, kind)| Some(((*kind).to_owned(), *meta.import_counts.get(*from)?)))
            .filter(|(_, n)| *n > 0)
            .collect()
    };
    (!by.is_empty()).then(|| MadeUp {
        workloads: by.iter().map(|s| s.workload.clone()).collect(),
        all,
        events: if all { meta.totals.kinds.clone() } else { added() },
    })
}

//! One run: all its counters as keys and values.

use serde_json::Value;

use super::{WIDTH, left, paragraph, right};
use crate::config::{self, flatten};
use crate::document::Document;
use crate::format::{clean, percent, rate, thousands, truncate, width};
use crate::summary::{fault_reason, named};

/// Counters for which a rate per 1,000 DMA says nothing.
const NO_RATE: [&str; 4] =
    ["dma.requests", "dma.bytes", "iotlb.lookups", "shadow.resident_entries_peak"];

/// Column where values end.
const VALUE_END: usize = 52;

/// The terminal's view of single runs (`ioasim replay`): what was replayed,
/// every counter with its rate per 1,000 DMA, devices, and the outcome of
/// verification. No line is wider than 80 columns. Ends with a line feed.
pub fn render_replay(document: &Document) -> String {
    let mut out = String::new();
    let runs = named(document);
    paragraph(&mut out, &super::compare::headline(document, &runs), 2);
    if runs.is_empty() {
        out.push_str("No runs.\n");
    }
    for r in &runs {
        out.push('\n');
        paragraph(&mut out, &configuration_line(&r.name, r.run), 2);
        let counters = serde_json::to_value(&r.run.counters).unwrap_or(Value::Null);
        let mut group = "";
        let rows = flatten(&counters);
        for (key, value) in &rows {
            let head = key.split('.').next().unwrap_or("");
            if head != group {
                group = head;
                out.push('\n');
            }
            out.push_str(&counter(key, value, r.m.requests));
        }
        devices(&mut out, r.run);
        super::exposure::section(&mut out, std::slice::from_ref(r));
        super::timing::section(&mut out, std::slice::from_ref(r), true);
        provenance(&mut out, r.run);
        if let Some((_, why)) = fault_reason(document, r.run).filter(|_| r.m.faults > 0) {
            out.push('\n');
            paragraph(&mut out, &format!("Faults: {why}."), 2);
        }
        if r.run.verify.is_some() {
            out.push('\n');
            out.push_str(&super::verify::section(&r.name, r.run));
        }
    }
    out
}

fn configuration_line(name: &str, run: &ioasim_sim::results::RunResult) -> String {
    let mut parts = vec![format!("Configuration {name}")];
    for (label, key) in [
        ("nesting", "nesting"),
        ("sync", "sync.policy"),
        ("IOTLB entries", "iotlb.entries"),
        ("ways", "iotlb.ways"),
        ("replacement", "iotlb.replacement"),
    ] {
        // Without a shadow there is nothing to synchronise.
        if key == "sync.policy" && config::nesting(run) != config::Nesting::Software {
            continue;
        }
        if let Some(value) = config::value(run, key) {
            parts.push(format!("{label} {}", config::leaf(value)));
        }
    }
    format!("{}: {}", parts[0], parts[1..].join(", "))
}

/// `iotlb.misses      2,217    27.99 /1k DMA`
fn counter(key: &str, value: &Value, requests: u64) -> String {
    let (text, note) = match value.as_u64() {
        Some(n) => {
            let per = crate::measure::per_1000(n, requests);
            let note = match per {
                Some(p) if n > 0 && !NO_RATE.contains(&key) => format!("{} /1k DMA", rate(Some(p))),
                _ => String::new(),
            };
            (thousands(n), note)
        }
        None if key.ends_with("hit_rate") => (percent(value.as_f64()), "%".to_owned()),
        None => (rate(value.as_f64()), String::new()),
    };
    // The longest key has 33 characters.
    let key_width = 34;
    let line = format!(
        "{}{}  {}",
        left(&truncate(key, key_width), key_width),
        right(&text, VALUE_END - key_width),
        note
    );
    format!("{}\n", line.trim_end())
}

fn devices(out: &mut String, run: &ioasim_sim::results::RunResult) {
    if run.devices.is_empty() {
        return;
    }
    out.push('\n');
    let row = |cells: [&str; 6]| {
        let mut line = left(&truncate(cells[0], 14), 14);
        for cell in &cells[1..] {
            line.push_str(&right(cell, 13));
        }
        debug_assert!(width(&line) <= WIDTH);
        line.push('\n');
        line
    };
    out.push_str(&row(["device", "requests", "hit %", "misses", "walk reads", "faults"]));
    for d in &run.devices {
        let short = crate::format::short_count;
        out.push_str(&row([
            &clean(&d.device),
            &short(d.requests),
            &percent(crate::measure::ratio(d.hits, d.hits.saturating_add(d.misses))),
            &short(d.misses),
            &short(d.memory_reads),
            &short(d.faults),
        ]));
    }
}

fn provenance(out: &mut String, run: &ioasim_sim::results::RunResult) {
    let p = &run.provenance;
    out.push('\n');
    let layout = &p.parent_layout;
    let parent = match (p.parent_recorded, layout.starts_with("recorded")) {
        (true, _) => format!("as recorded (layout {layout})"),
        (false, true) => layout.clone(),
        (false, false) => format!("assumed (layout {layout})"),
    };
    paragraph(out, &format!("Parent table: {parent}."), 2);
    if !p.host_layout.is_empty() {
        paragraph(out, &format!("Host level below it: assumed (layout {}).", p.host_layout), 2);
    }
    if !p.invalidations.is_empty() {
        paragraph(
            out,
            &format!(
                "Invalidations: {} ({} added, {} left out).",
                p.invalidations.trim_end_matches('.'),
                thousands(p.invalidations_added),
                thousands(p.invalidations_left_out)
            ),
            2,
        );
    }
}

//! The comparison of all runs of a trace, one row per configuration.

use super::{WIDTH, left, paragraph, right};
use crate::document::Document;
use crate::format::{duration, percent, plural, rate, short_count, truncate, width};
use crate::summary::{Named, brief, named};
use crate::write::Written;

type Cell = fn(&Named<'_>) -> String;

/// The two lines of a column's head, and its cells.
const COLUMNS: [(&str, &str, Cell); 7] = [
    ("hit", "%", |r| percent(r.m.hit_rate)),
    ("reads", "/miss", |r| rate(r.m.reads_per_miss)),
    ("reads", "/DMA", |r| rate(r.m.reads_per_dma)),
    ("traps", "/1k DMA", |r| rate(r.m.traps)),
    ("shadow", "chg/1k", |r| rate(r.m.shadow_changes())),
    ("VMM PTE", "rd/1k", |r| rate(r.m.vmm_pte_reads)),
    ("", "faults", |r| short_count(r.m.faults)),
];

/// The terminal's comparison of every document: a table with one row per
/// configuration, the findings in two to four lines, the outcome of
/// verification where there was one, and the files written.
///
/// No line is wider than 80 columns. Ends with a line feed.
pub fn render_comparison(documents: &[Document], written: Option<&Written>) -> String {
    let mut out = String::new();
    for (i, document) in documents.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        one(&mut out, document);
    }
    if let Some(written) = written {
        out.push('\n');
        let names: Vec<String> = written
            .files
            .iter()
            .filter_map(|f| Some(f.file_name()?.to_string_lossy().into_owned()))
            .collect();
        paragraph(
            &mut out,
            &format!("Written to {}: {}", written.dir.display(), names.join(", ")),
            2,
        );
    }
    out
}

fn one(out: &mut String, document: &Document) {
    let runs = named(document);
    paragraph(out, &headline(document, &runs), 2);
    out.push('\n');
    if !runs.is_empty() {
        table(out, &runs);
        out.push('\n');
    }
    for line in brief(document) {
        paragraph(out, &line, 2);
    }
    super::exposure::section(out, &runs);
    super::timing::section(out, &runs, false);
    for (i, f) in crate::summary::timing(&runs).into_iter().enumerate() {
        if i == 0 {
            out.push('\n');
        }
        paragraph(out, &format!("{} {}", f.lead, f.text), 2);
    }
    if runs.iter().any(|r| r.run.verify.is_some()) {
        out.push('\n');
        for r in &runs {
            out.push_str(&super::verify::section(&r.name, r.run));
        }
    }
}

/// What was replayed, in one sentence.
pub(super) fn headline(document: &Document, runs: &[Named<'_>]) -> String {
    let trace = &document.trace;
    let requests = runs.iter().map(|r| r.m.requests).max().unwrap_or(0);
    let devices = runs.iter().map(|r| r.run.devices.len()).max().unwrap_or(0);
    format!(
        "{}: {}, {} DMA of {}, {} {}",
        trace.path,
        plural(trace.events as usize, "event", "events"),
        crate::format::thousands(requests),
        plural(devices, "device", "devices"),
        duration(trace.end_ns),
        if trace.all_made_up() { "made up" } else { "recorded" },
    )
}

fn table(out: &mut String, runs: &[Named<'_>]) {
    let cells: Vec<Vec<String>> =
        runs.iter().map(|r| COLUMNS.iter().map(|(_, _, cell)| cell(r)).collect()).collect();
    let widths: Vec<usize> = COLUMNS
        .iter()
        .enumerate()
        .map(|(i, (top, bottom, _))| {
            let widest = cells.iter().map(|row| width(&row[i])).max().unwrap_or(0);
            widest.max(width(top)).max(width(bottom))
        })
        .collect();
    // What the numbers leave is for names: at least 80 - 7 * (8 + 2) = 10.
    let room = WIDTH - widths.iter().map(|w| w + 2).sum::<usize>();
    let longest = runs.iter().map(|r| width(&r.name)).max().unwrap_or(0);
    let name_width = longest.max(width("configuration")).min(room);
    let mut line = |name: &str, cells: &mut dyn Iterator<Item = &str>| {
        let mut text = left(&truncate(name, name_width), name_width);
        for (cell, w) in cells.zip(&widths) {
            text.push_str("  ");
            text.push_str(&right(cell, *w));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line("", &mut COLUMNS.iter().map(|c| c.0));
    line("configuration", &mut COLUMNS.iter().map(|c| c.1));
    for (r, row) in runs.iter().zip(&cells) {
        line(&r.name, &mut row.iter().map(String::as_str));
    }
}

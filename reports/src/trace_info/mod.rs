//! The page of `ioasim trace info --html`: what is in a trace, drawn.

mod data;
mod figures;

use std::path::Path;

use minijinja::value::Value;
use serde::Serialize;

pub use data::{Distribution, Part, Reuse, TraceInfo};

use crate::error::Result;
use crate::format::{clean, counted, duration, plural, thousands};
use crate::html::{CSS, Drawn, JS, Table, markup, render};
use crate::write::write_text;

#[derive(Serialize)]
struct Page<'a> {
    css: Value,
    js: Value,
    version: &'a str,
    title: String,
    origin: &'static str,
    facts: Vec<(String, &'static str)>,
    figures: Vec<Drawn>,
    spreads: Table,
    kinds: Table,
    recorded: Vec<String>,
    inferred: Vec<String>,
    made_up: Vec<String>,
    path: String,
    sha256: &'a str,
    importer: &'a str,
    notes: &'a [String],
    sources: Vec<(String, String, String, String)>,
}

fn spreads(info: &TraceInfo) -> Table {
    let row = |name: &str, d: &Distribution, show: fn(u64) -> String| {
        let mut cells = vec![name.to_owned(), thousands(d.count)];
        cells.extend([d.p50, d.p90, d.p99, d.max, d.mean.round() as u64].map(show));
        (d.count > 0).then_some(cells)
    };
    let mut rows = vec![row("lifetime of a map", &info.lifetime_ns, duration)];
    for r in &info.reuse {
        rows.push(row(&format!("reuse distance, {}", r.unit), &r.distances, thousands));
    }
    rows.push(row("accesses of one device in a row", &info.bursts, thousands));
    Table {
        caption: "Distributions".into(),
        labels: 1,
        columns: ["", "values", "median", "90 %", "99 %", "largest", "mean"]
            .map(String::from)
            .into(),
        rows: rows.into_iter().flatten().collect(),
    }
}

/// The text of the page.
///
/// # Errors
///
/// A template or a figure fails, which is a bug.
pub fn trace_info_html(info: &TraceInfo) -> Result<String> {
    let t = &info.trace;
    let file = Path::new(&t.path).file_name().map(|n| n.to_string_lossy().into_owned());
    let named = |n: &(&String, &u64)| counted(*n.1, &clean(n.0));
    let kinds = t.counts.iter().map(|(k, n)| {
        let share = 100.0 * *n as f64 / t.events.max(1) as f64;
        vec![k.clone(), thousands(*n), format!("{share:.1}")]
    });
    let made_up = !info.made_up.is_empty();
    let page = Page {
        css: markup(CSS),
        js: markup(JS),
        version: &info.version.ioasim,
        title: file.map_or_else(|| clean(&t.path).into_owned(), |f| clean(&f).into_owned()),
        origin: match (made_up, info.all_made_up) {
            (_, true) => "made up",
            (true, false) => "recorded and changed",
            (false, false) => "recorded",
        },
        facts: vec![
            (thousands(t.events), "events"),
            (thousands(info.accesses), "accesses"),
            (
                duration(t.end_ns),
                if info.all_made_up { "of made-up time" } else { "of recorded clock" },
            ),
            (plural(info.devices as usize, "device", "devices"), ""),
            (plural(info.domains as usize, "domain", "domains"), ""),
        ],
        figures: figures::all(info)?
            .into_iter()
            .map(|f| Drawn::new(f.id.to_owned(), &[], f))
            .collect(),
        spreads: spreads(info),
        kinds: Table {
            caption: "Events by kind".into(),
            labels: 1,
            columns: ["kind", "events", "share, %"].map(String::from).into(),
            rows: kinds.collect(),
        },
        recorded: t.recorded.iter().filter(|n| *n.1 > 0).map(|n| named(&n)).collect(),
        inferred: t.inferred.iter().filter(|n| *n.1 > 0).map(|n| named(&n)).collect(),
        made_up: info.made_up.clone(),
        path: clean(&t.path).into_owned(),
        sha256: &t.sha256,
        importer: &t.importer,
        notes: &t.notes,
        sources: t
            .sources
            .iter()
            .map(|s| {
                let size = crate::format::bytes(s.bytes);
                (s.role.clone(), s.path.clone(), size, s.sha256.clone())
            })
            .collect(),
    };
    render("trace_info.html", &page)
}

/// Writes the page to `path`, complete or not at all; its folder must exist.
///
/// # Errors
///
/// The folder does not exist or cannot be written to, or the disk is full; a
/// template or a figure fails, which is a bug.
pub fn write_trace_info(path: &Path, info: &TraceInfo) -> Result<()> {
    write_text(path, &trace_info_html(info)?)
}

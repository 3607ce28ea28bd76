//! The report of `ioasim study parent-change`: what it costs to keep shadows
//! right when the level below them changes.

mod data;
mod files;
mod plots;

use std::path::Path;

use minijinja::value::Value;
use serde::Serialize;

pub use data::{
    Axis, Machine, MapTime, Point, ReplayRow, STUDY_SCHEMA, Setup, Study, TIMES_SCHEMA,
};

use crate::error::Result;
use crate::figures::DataTable;
use crate::format::{bytes, duration, factor, list, percent, plural, rate, short_count, thousands};
use crate::html::{CSS, JS, markup, render};
use crate::write::{Written, write_texts};

/// Policies in the order of figures and tables.
const POLICIES: [&str; 6] = ["flush-all", "scan", "epoch", "rmap-interval", "rmap", "rmap-linked"];

/// A power of two as people name it: `4 KiB`.
fn bytes_name(n: u64) -> String {
    match n {
        n if n < 1 << 20 => format!("{}K", n >> 10),
        n if n < 1 << 30 => format!("{}M", n >> 20),
        n => format!("{}G", n >> 30),
    }
}

/// Least and most.
fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, 0.0), |(l, h), v| (l.min(v), h.max(v)))
}

#[derive(Serialize)]
struct Table {
    caption: &'static str,
    labels: usize,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

#[derive(Serialize)]
struct Figure {
    id: &'static str,
    title: String,
    caption: String,
    note: String,
    wide: Value,
    narrow: Value,
    table: Table,
}

#[derive(Serialize)]
struct Page {
    css: Value,
    js: Value,
    version: String,
    quick: bool,
    machine: String,
    reference: String,
    findings: Vec<(String, String)>,
    main: Table,
    figures: Vec<Figure>,
    maps: Table,
    replays: Table,
    recorded: Vec<String>,
    simulated: Vec<String>,
    assumed: Vec<String>,
    omitted: Vec<String>,
}

fn heads<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(String::from).to_vec()
}

fn ns(v: f64) -> String {
    if v < 0.5 {
        "0".into()
    } else if v < 1e3 {
        format!("{v:.0}\u{a0}ns")
    } else {
        duration(v.round() as u64)
    }
}

impl Study {
    /// Points of the reference: overlap none to full, everything else fixed.
    fn reference(&self) -> impl Iterator<Item = &Point> {
        self.points
            .iter()
            .filter(|p| p.setup.axis == Axis::Overlap && matches!(p.setup.overlap_percent, 0 | 100))
    }

    fn speedup(&self, p: &Point) -> Option<f64> {
        let scan = self.points.iter().find(|q| q.setup == p.setup && q.policy == "scan")?;
        Some(scan.ns / (p.ns + p.later_ns))
    }

    fn main_table(&self) -> Table {
        let row = |p: &Point| {
            let each = |n: u64| rate(Some(n as f64 / p.unmaps as f64));
            vec![
                p.policy.clone(),
                if p.setup.overlap_percent == 0 { "none" } else { "full" }.into(),
                each(p.entries_examined),
                each(p.entries_changed),
                each(p.lines),
                rate(Some(p.policy_bytes as f64 / p.setup.entries as f64)),
                ns(p.ns),
                if p.later_ns < p.ns / 100.0 { "-".into() } else { ns(p.later_ns) },
                self.speedup(p).map_or("-".into(), |v| match v {
                    v if v < 0.995 => rate(Some(v)),
                    v => factor(v),
                }),
            ]
        };
        Table {
            caption: "A 4 KiB unmap by policy",
            labels: 2,
            columns: heads([
                "policy",
                "overlap",
                "examined",
                "changed",
                "lines",
                "bytes per entry",
                "time",
                "later",
                "speed-up",
            ]),
            rows: self.reference().map(row).collect(),
        }
    }

    fn map_table(&self) -> Table {
        let row = |m: &MapTime| {
            vec![
                m.policy.clone(),
                m.sync.clone(),
                format!("{} %", m.overlap_percent),
                m.batch_pages.to_string(),
                format!("{:.0}", m.map_ns),
                format!("{:.0}", m.map_with_ns),
                format!("{:.0}", m.added()),
                format!("{:.0}", m.map_later_ns),
                format!("{:.0}", m.unmap_ns),
                format!("{:.0}", m.unmap_with_ns),
                format!("{:.0}", m.unmap_later_ns),
            ]
        };
        Table {
            caption: "Map path by policy",
            labels: 2,
            columns: heads([
                "policy",
                "sync",
                "overlap",
                "batch, pages",
                "map, ns",
                "with index, ns",
                "added, %",
                "later, ns",
                "unmap, ns",
                "with index, ns",
                "later, ns",
            ]),
            rows: self.maps.iter().map(row).collect(),
        }
    }

    fn replay_table(&self) -> Table {
        let row = |r: &ReplayRow| {
            let each = |n: u64| rate((r.changes > 0).then(|| n as f64 / r.changes as f64));
            vec![
                r.policy.clone(),
                r.workload.clone(),
                r.trace.clone(),
                thousands(r.changes),
                each(r.entries_examined),
                each(r.host_pte_writes),
                each(r.hardware_invalidations),
                short_count(r.policy_bytes_peak),
                percent(
                    (r.iotlb_lookups > 0).then(|| r.iotlb_hits as f64 / r.iotlb_lookups as f64),
                ),
                thousands(r.faults),
                ns(r.ns),
            ]
        };
        Table {
            caption: "Overlaid traces by policy",
            labels: 3,
            columns: heads([
                "policy",
                "overlay",
                "trace",
                "changes",
                "examined",
                "shadow writes",
                "IOMMU commands",
                "policy, bytes",
                "hit rate, %",
                "faults",
                "CPU",
            ]),
            rows: self.replays.iter().map(row).collect(),
        }
    }

    fn findings(&self) -> Vec<(String, String)> {
        let mut out = Vec::new();
        let best = |overlap: u64| {
            self.reference()
                .find(|p| p.policy == "rmap-linked" && p.setup.overlap_percent == overlap)
        };
        for (overlap, name) in [(0, "no overlap"), (100, "full overlap")] {
            let Some(p) = best(overlap) else { continue };
            let each = |n: u64| n as f64 / p.unmaps as f64;
            out.push((
                format!("rmap-linked, {name}"),
                format!(
                    "A 4 KiB unmap takes {} and examines {} entries to change {}: {} times faster than scan.",
                    ns(p.ns),
                    rate(Some(each(p.entries_examined))),
                    rate(Some(each(p.entries_changed))),
                    self.speedup(p).map_or("-".into(), factor),
                ),
            ));
        }
        if let Some(p) = best(0) {
            let all = self.points.iter().filter(|p| p.policy == "rmap-linked");
            let most =
                all.map(|p| p.policy_bytes as f64 / p.setup.entries as f64).fold(0.0, f64::max);
            out.push((
                "Memory".into(),
                format!(
                    "{} bytes per shadow entry at {} entries, {} at most in this study.",
                    rate(Some(p.policy_bytes as f64 / p.setup.entries as f64)),
                    thousands(p.setup.entries),
                    rate(Some(most))
                ),
            ));
        }
        for sync in ["invalidate-range", "map-unmap"] {
            let added = |m: &&MapTime| m.policy == "rmap-linked" && m.sync == sync;
            let parts: Vec<String> = self
                .maps
                .iter()
                .filter(added)
                .map(|m| {
                    let overlap = if m.overlap_percent == 0 { "no" } else { "full" };
                    format!(
                        "{:+.0} % ({}, {overlap} overlap)",
                        m.added(),
                        plural(m.batch_pages as usize, "page", "pages")
                    )
                })
                .collect();
            if !parts.is_empty() {
                let later = self.maps.iter().filter(added).map(|m| m.map_later_ns);
                let (low, high) = extremes(later);
                out.push((
                    format!("Map path, {sync}"),
                    format!(
                        "rmap-linked adds {}; a worker links each page later, in {low:.0} to {high:.0} ns.",
                        list(&parts)
                    ),
                ));
            }
        }
        out
    }

    fn page(&self) -> Result<Page> {
        let machine = format!("{} ({})", self.machine.cpu, self.machine.system);
        let figure = |p: plots::Plot| Figure {
            id: p.id,
            title: p.title,
            caption: p.caption,
            note: p.note,
            wide: markup(p.wide),
            narrow: markup(p.narrow),
            table: data_table(p.table),
        };
        let reference = self.reference().next().map_or(String::new(), |p| {
            format!(
                "{} shadow entries in {} children",
                thousands(p.setup.entries),
                p.setup.children
            )
        });
        let mut traces: Vec<&str> = self.replays.iter().map(|r| r.trace.as_str()).collect();
        traces.dedup();
        let recorded = match traces.is_empty() {
            true => vec!["Nothing: no trace was replayed.".to_owned()],
            false => vec![format!(
                "The guests' maps, unmaps, invalidations and accesses in {}.",
                list(&traces)
            )],
        };
        Ok(Page {
            css: markup(CSS),
            js: markup(JS),
            version: self.version.ioasim.clone(),
            quick: self.quick,
            reference,
            findings: self.findings(),
            main: self.main_table(),
            figures: plots::all(self)?.into_iter().map(figure).collect(),
            maps: self.map_table(),
            replays: self.replay_table(),
            recorded,
            simulated: vec![
                "Tables, shadows, sync and policies: real code, run on made-up forests of shadows; all counts come from it.".into(),
                format!("CPU times are measured, of one thread, on {machine}: of ioasim's own code, without traps, system calls and hardware invalidations."),
            ],
            assumed: vec![
                "Forests: 4 KiB entries; GPAs scattered over the parent, a multiplicative pattern without chance.".into(),
                "Overlays: rates and address distributions, with their sources in docs/generating.md; pages mapped for DMA are taken, too.".into(),
            ],
            omitted: self.omitted.clone(),
            machine,
        })
    }
}

fn data_table(t: DataTable) -> Table {
    Table { caption: "Numbers of the figure", labels: 1, columns: t.columns, rows: t.rows }
}

/// A figure as a file of its own: with the style sheet, for documents.
fn standalone(svg: &str) -> String {
    let style = "svg { font: 13px system-ui, sans-serif; background: var(--bg); } \
                 text { dominant-baseline: central; }";
    match svg.split_once('>') {
        Some((head, rest)) => format!("{head}><style>{CSS}\n{style}</style>{rest}"),
        None => svg.to_owned(),
    }
}

/// Writes `index.html`, `study.json`, `study.csv`, `times.json`, `times.csv`
/// and one SVG per figure into `dir`: all or nothing.
///
/// # Errors
///
/// The folder cannot be written to; a figure or a template fails, which is a
/// bug.
pub fn write(dir: &Path, study: &Study) -> Result<Written> {
    let mut texts = vec![
        ("index.html".to_owned(), render("study.html", &study.page()?)?),
        ("study.json".to_owned(), files::study_json(study)?),
        ("study.csv".to_owned(), files::study_csv(study)),
        ("times.json".to_owned(), files::times_json(study)?),
        ("times.csv".to_owned(), files::times_csv(study)),
    ];
    for plot in plots::all(study)? {
        texts.push((format!("{}.svg", plot.id), standalone(&plot.wide)));
    }
    write_texts(dir, &texts)
}

/// The findings as text for a terminal.
pub fn render_findings(study: &Study, written: &Written) -> String {
    let mut out = String::new();
    for (what, text) in study.findings() {
        out += &crate::format::wrap(&format!("{what}: {text}"), 80, 2);
        out.push('\n');
    }
    let size: u64 =
        written.files.iter().filter_map(|f| std::fs::metadata(f).ok()).map(|m| m.len()).sum();
    let files = written.files.len();
    out +=
        &format!("{}: {files} files, {}\n", written.dir.join("index.html").display(), bytes(size));
    out
}

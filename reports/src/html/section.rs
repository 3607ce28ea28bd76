//! The part of the page about one trace.

use ioasim_sim::results::Verify;
use minijinja::value::Value;
use serde::Serialize;

use super::context::Table;
use super::evidence::Evidence;
use super::markup;
use super::timing::{Timing, timing};
use crate::config::{self, Nesting};
use crate::document::Document;
use crate::error::{Error, Result};
use crate::figures::{self, DataTable, Figure, slot_class, slots};
use crate::format::{bytes, clean, duration, percent, plural, rate, thousands};
use crate::summary::{Named, findings, named};
use crate::tables::checks;

/// Everything about one trace.
#[derive(Serialize)]
pub(super) struct Section {
    id: String,
    title: String,
    facts: Vec<(String, &'static str)>,
    /// Lead, then text in pieces.
    findings: Vec<(String, Vec<Piece>)>,
    comparison: Vec<Compared>,
    figures: Vec<Drawn>,
    devices: Option<Table>,
    exposure: Option<Table>,
    timing: Option<Timing>,
    evidence: Evidence,
    configurations: Configurations,
    counters: Table,
    verification: Option<Verification>,
    provenance: Provenance,
}

/// One row of the comparison.
#[derive(Serialize)]
struct Compared {
    name: String,
    class: &'static str,
    nesting: &'static str,
    cells: Vec<String>,
    faulty: bool,
}

/// A figure as the template needs it.
#[derive(Serialize)]
pub(crate) struct Drawn {
    id: String,
    title: String,
    caption: Vec<Piece>,
    note: String,
    wide: Value,
    narrow: Value,
    /// `left right left right` for the read-out: wide, then narrow.
    readout: Option<String>,
    table: Table,
}

/// The resolved configurations.
#[derive(Serialize)]
struct Configurations {
    names: Vec<String>,
    /// Keys that differ: key, then (value, unusual) per configuration.
    differing: Vec<(String, Vec<(String, bool)>)>,
    /// Keys that are the same everywhere.
    same: Vec<(String, String)>,
    /// Name, description, TOML.
    full: Vec<(String, String, String)>,
}

/// A piece of a sentence, and whether it is a configuration's name.
pub(super) type Piece = (String, bool);

/// Outcome of the verified runs.
#[derive(Serialize)]
struct Verification {
    /// The checks that compared something: what, against what.
    checks: Vec<(&'static str, &'static str)>,
    runs: Vec<Verified>,
}

/// Outcome of one run's verification.
#[derive(Serialize)]
struct Verified {
    name: String,
    verdict: &'static str,
    /// Compared and different per check, as texts; `-` if nothing was compared.
    cells: Vec<(String, String)>,
    stale: String,
    /// Event, check, detail.
    mismatches: Vec<(String, String, String)>,
}

/// Where the trace comes from.
#[derive(Serialize)]
struct Provenance {
    path: String,
    sha256: String,
    importer: String,
    output_space: String,
    sources: Vec<(String, String, String, String)>,
    counts: Vec<(String, String)>,
    notes: Vec<String>,
    markers: Vec<(String, String)>,
    /// Per run: name, parent, invalidations.
    runs: Vec<(String, String, String)>,
}

impl Section {
    /// The section of the `number`th document.
    pub(super) fn new(number: usize, document: &Document) -> Result<Section> {
        let id = format!("t{number}");
        let runs = named(document);
        let mut figures = figures::all(document, &runs)?;
        let devices = devices_table(&mut figures);
        let names: Vec<&str> = runs.iter().map(|r| r.name.as_str()).collect();
        let drawn =
            figures.into_iter().map(|f| Drawn::new(format!("{id}-{}", f.id), &names, f)).collect();
        let rows =
            findings(document).into_iter().map(|f| (f.lead, pieces(&f.text, &names))).collect();
        Ok(Section {
            title: file_name(&document.trace.path),
            facts: facts(document, &runs),
            findings: rows,
            comparison: comparison(&runs),
            figures: drawn,
            devices,
            exposure: super::exposure::table(&runs),
            timing: timing(&id, &runs)?,
            evidence: Evidence::new(document, &runs),
            configurations: configurations(&runs),
            counters: counters(&runs)?,
            verification: verification(&runs),
            provenance: provenance(document, &runs),
            id,
        })
    }

    /// Name of the trace.
    pub(super) fn title(&self) -> &str {
        &self.title
    }
}

impl Drawn {
    /// `names` of configurations are kept together in the caption.
    pub(crate) fn new(id: String, names: &[&str], f: Figure) -> Drawn {
        Drawn {
            id,
            table: Table::of(f.table, f.title.clone()),
            title: f.title,
            caption: pieces(&f.caption, names),
            note: f.note,
            wide: markup(f.wide),
            narrow: markup(f.narrow),
            readout: f.readout.map(|r| {
                let (a, b) = (r.wide, r.narrow);
                format!("{:.4} {:.4} {:.4} {:.4}", a.0, a.1, b.0, b.1)
            }),
        }
    }
}

/// Splits a sentence where configurations are named, so that the page can keep
/// a name together.
pub(super) fn pieces(text: &str, names: &[&str]) -> Vec<Piece> {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "-_".contains(c));
    let mut out: Vec<Piece> = Vec::new();
    let mut plain = 0;
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        let found = names
            .iter()
            .filter(|n| !n.is_empty() && text[at..].starts_with(**n))
            .filter(|n| !inside(text[at + n.len()..].chars().next()))
            .max_by_key(|n| n.len());
        match found {
            Some(name) if !inside(text[..at].chars().next_back()) => {
                if plain < at {
                    out.push((text[plain..at].to_owned(), false));
                }
                out.push(((*name).to_owned(), crate::format::width(name) <= 28));
                at += name.len();
                plain = at;
            }
            _ => at += next.len_utf8(),
        }
    }
    if plain < text.len() {
        out.push((text[plain..].to_owned(), false));
    }
    out
}

/// Takes the per-device numbers out of the figure: they have a place of their
/// own on the page.
fn devices_table(figures: &mut [Figure]) -> Option<Table> {
    let figure = figures.iter_mut().find(|f| f.id == "devices")?;
    let table = std::mem::take(&mut figure.table);
    Some(Table::of(table, "Each device under each configuration".into()))
}

fn file_name(path: &str) -> String {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    let name = clean(name).into_owned();
    if name.is_empty() { "unnamed trace".into() } else { name }
}

fn facts(document: &Document, runs: &[Named<'_>]) -> Vec<(String, &'static str)> {
    let requests = runs.iter().map(|r| r.m.requests).max().unwrap_or(0);
    let devices = runs.iter().map(|r| r.run.devices.len()).max().unwrap_or(0);
    vec![
        (thousands(requests), if requests == 1 { "device access" } else { "device accesses" }),
        (thousands(document.trace.events), "events in the trace"),
        (thousands(devices as u64), if devices == 1 { "device" } else { "devices" }),
        (
            duration(document.trace.end_ns),
            if document.trace.all_made_up() { "of made-up time" } else { "of recorded time" },
        ),
    ]
}

fn comparison(runs: &[Named<'_>]) -> Vec<Compared> {
    let colours = slots(runs.iter().map(|r| r.run));
    runs.iter()
        .zip(colours)
        .map(|(r, slot)| Compared {
            name: r.name.clone(),
            class: slot_class(slot),
            nesting: match config::nesting(r.run) {
                Nesting::None => "no nesting",
                Nesting::Hardware => "in hardware",
                Nesting::Software => "in software",
                Nesting::Unknown => "-",
            },
            cells: vec![
                percent(r.m.hit_rate),
                rate(r.m.reads_per_miss),
                rate(r.m.reads_per_dma),
                rate(r.m.traps),
                rate(r.m.shadow_maps),
                rate(r.m.shadow_unmaps),
                rate(r.m.vmm_pte_reads),
                thousands(r.m.faults),
            ],
            faulty: r.m.faults > 0,
        })
        .collect()
}

fn configurations(runs: &[Named<'_>]) -> Configurations {
    let trees: Vec<&serde_json::Value> = runs.iter().map(|r| &r.run.config).collect();
    let mut out = Configurations {
        names: runs.iter().map(|r| r.name.clone()).collect(),
        differing: Vec::new(),
        same: Vec::new(),
        full: Vec::new(),
    };
    for row in config::side_by_side(&trees) {
        if row.key == "name" || row.key == "description" {
            continue;
        }
        let text = |v: &Option<String>| v.clone().unwrap_or_else(|| "-".into());
        if row.differs() {
            let usual = row.usual().cloned();
            let cells = row.values.iter().zip(runs).map(|(v, r)| {
                // Without a shadow there is nothing to synchronise.
                match row.key.starts_with("sync.") && config::nesting(r.run) != Nesting::Software {
                    true => ("-".to_owned(), false),
                    false => (text(v), *v != usual),
                }
            });
            let cells = cells.collect();
            out.differing.push((row.key, cells));
        } else if let Some(value) = row.values.first() {
            out.same.push((row.key.clone(), text(value)));
        }
    }
    for r in runs {
        let description = config::text(r.run, "description").unwrap_or("");
        out.full.push((
            r.name.clone(),
            clean(description).into_owned(),
            config::to_toml(&r.run.config),
        ));
    }
    out
}

fn counters(runs: &[Named<'_>]) -> Result<Table> {
    let trees = runs
        .iter()
        .map(|r| serde_json::to_value(&r.run.counters))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|source| Error::Serialise { what: "index.html", source })?;
    let trees: Vec<&serde_json::Value> = trees.iter().collect();
    let number = |v: &Option<String>| match v {
        None => "-".to_owned(),
        Some(text) => match (text.parse::<u64>(), text.parse::<f64>()) {
            (Ok(n), _) => thousands(n),
            (_, Ok(v)) => format!("{v:.4}"),
            _ => text.clone(),
        },
    };
    let mut columns = vec!["counter".to_owned()];
    columns.extend(runs.iter().map(|r| r.name.clone()));
    let rows = config::side_by_side(&trees)
        .into_iter()
        .map(|row| std::iter::once(row.key.clone()).chain(row.values.iter().map(number)).collect())
        .collect();
    Ok(Table::of(DataTable { columns, rows }, "All counters".into()))
}

fn verification(runs: &[Named<'_>]) -> Option<Verification> {
    let all: Vec<(&Named<'_>, &Verify)> =
        runs.iter().filter_map(|r| Some((r, r.run.verify.as_ref()?))).collect();
    if all.is_empty() {
        return None;
    }
    let did = |v: &Verify, i: usize| checks(v)[i].compared > 0 || checks(v)[i].different > 0;
    let used: Vec<usize> = (0..5).filter(|i| all.iter().any(|(_, v)| did(v, *i))).collect();
    let first = checks(all[0].1);
    Some(Verification {
        checks: used.iter().map(|i| (first[*i].what, first[*i].against)).collect(),
        runs: all.iter().map(|(r, v)| verified(r, v, &used)).collect(),
    })
}

fn verified(r: &Named<'_>, v: &Verify, used: &[usize]) -> Verified {
    let checks = checks(v);
    let cells = used
        .iter()
        .map(|i| &checks[*i])
        .map(|c| match (c.compared, c.different) {
            (0, 0) => ("-".to_owned(), String::new()),
            (n, 0) => (thousands(n), String::new()),
            (n, d) => (thousands(n), format!("{} differ", thousands(d))),
        })
        .collect::<Vec<_>>();
    let verdict = match (cells.iter().all(|(c, _)| c == "-"), v.passed()) {
        (true, true) => "nothing to compare",
        (_, true) => "passed",
        (_, false) => "failed",
    };
    let stale = match v.stale_legal {
        0 => String::new(),
        n => format!(
            "{}: {} from the recording but {} legally stale, valid since the last invalidation \
             that covers the address.",
            r.name,
            plural(n as usize, "output differs", "outputs differ"),
            if n == 1 { "is" } else { "are" }
        ),
    };
    let mismatches = v
        .first_mismatches
        .iter()
        .map(|m| (m.event.to_string(), clean(&m.check).into_owned(), clean(&m.detail).into_owned()))
        .collect();
    Verified { name: r.name.clone(), verdict, cells, stale, mismatches }
}

fn provenance(document: &Document, runs: &[Named<'_>]) -> Provenance {
    let trace = &document.trace;
    let text = |s: &str| clean(s).into_owned();
    Provenance {
        path: text(&trace.path),
        sha256: text(&trace.sha256),
        importer: text(&trace.importer),
        output_space: match trace.output_space.as_str() {
            "gpa" if trace.all_made_up() => "GPA".into(),
            "hpa" if trace.all_made_up() => "HPA".into(),
            "gpa" => "GPA (one level was recorded)".into(),
            "hpa" => "HPA (all levels were recorded)".into(),
            other => text(other),
        },
        sources: trace
            .sources
            .iter()
            .map(|s| (text(&s.role), text(&s.path), bytes(s.bytes), text(&s.sha256)))
            .collect(),
        counts: trace.importer_counts.iter().map(|(k, n)| (text(k), thousands(*n))).collect(),
        notes: trace.notes.iter().map(|n| text(n)).collect(),
        markers: trace.markers.iter().map(|m| (duration(m.time_ns), text(&m.text))).collect(),
        runs: runs
            .iter()
            .map(|r| {
                let p = &r.run.provenance;
                let parent = if p.parent_recorded {
                    "recorded".to_owned()
                } else if p.parent_layout.starts_with("recorded") {
                    text(&p.parent_layout)
                } else {
                    format!("assumed: {}", text(&p.parent_layout))
                };
                (r.name.clone(), parent, text(&p.invalidations))
            })
            .collect(),
    }
}

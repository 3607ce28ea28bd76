//! What the page's template is filled with.

use minijinja::value::Value;
use serde::Serialize;

use super::markup;
use super::section::Section;
use crate::document::Document;
use crate::error::Result;
use crate::figures::{DataTable, PATTERNS};
use crate::format::plural;
use crate::summary::named;

/// The whole page.
#[derive(Serialize)]
pub(super) struct Page {
    css: Value,
    js: Value,
    patterns: Value,
    title: String,
    version: String,
    /// All traces in one table; only with several documents.
    overview: Option<Table>,
    /// What the page covers, in a few words.
    scope: String,
    /// What was replayed.
    accesses: &'static str,
    sections: Vec<Section>,
}

/// A table whose first `labels` columns are text and whose others are numbers.
#[derive(Serialize)]
pub(crate) struct Table {
    pub caption: String,
    pub labels: usize,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The numbers behind a figure.
    pub(super) fn of(table: DataTable, caption: String) -> Table {
        let second_is_text = table.columns.get(1).is_some_and(|c| c == "configuration");
        Table {
            caption,
            labels: if second_is_text { 2 } else { 1 },
            columns: table.columns,
            rows: table.rows,
        }
    }
}

/// The context of a page about `documents`.
pub(super) fn page(documents: &[Document]) -> Result<Page> {
    let sections = documents
        .iter()
        .enumerate()
        .map(|(i, d)| Section::new(i + 1, d))
        .collect::<Result<Vec<_>>>()?;
    let runs: usize = documents.iter().map(|d| d.runs.len()).sum();
    let scope = match documents {
        [one] => plural(one.runs.len(), "configuration", "configurations"),
        many => format!("{} traces, {}", many.len(), plural(runs, "run", "runs")),
    };
    let title = match sections.as_slice() {
        [one] => format!("{} · ioasim", one.title()),
        many => format!("{} traces · ioasim", many.len()),
    };
    Ok(Page {
        css: markup(super::CSS),
        js: markup(super::JS),
        patterns: markup(PATTERNS),
        title,
        version: versions(documents),
        overview: (documents.len() > 1).then(|| overview(documents, &sections)),
        scope,
        accesses: accesses(documents),
        sections,
    })
}

/// What was replayed: it may be no recording.
fn accesses(documents: &[Document]) -> &'static str {
    let made_up = documents.iter().filter(|d| d.trace.all_made_up()).count();
    match made_up {
        0 => "recorded accesses",
        n if n == documents.len() => "accesses of a trace that was made up",
        _ => "accesses of a trace, recorded or made up,",
    }
}

/// The versions that the results were made with.
fn versions(documents: &[Document]) -> String {
    let mut all: Vec<String> = Vec::new();
    for d in documents {
        let text = match &d.version.git {
            Some(git) => format!("{} ({git})", d.version.ioasim),
            None => d.version.ioasim.clone(),
        };
        if !all.contains(&text) {
            all.push(text);
        }
    }
    crate::format::list(&all)
}

fn overview(documents: &[Document], sections: &[Section]) -> Table {
    use crate::format::{percent, rate, thousands};
    let rows = documents
        .iter()
        .zip(sections)
        .flat_map(|(d, s)| named(d).into_iter().map(move |r| (s, r)))
        .map(|(s, r)| {
            vec![
                s.title().to_owned(),
                r.name.clone(),
                thousands(r.m.requests),
                percent(r.m.hit_rate),
                rate(r.m.reads_per_miss),
                rate(r.m.reads_per_dma),
                rate(r.m.traps),
                rate(r.m.shadow_changes()),
                rate(r.m.vmm_pte_reads),
                thousands(r.m.faults),
            ]
        })
        .collect();
    Table {
        caption: "All traces and configurations".into(),
        labels: 2,
        columns: [
            "trace",
            "configuration",
            "DMA",
            "hit rate, %",
            "walk reads per miss",
            "walk reads per DMA",
            "traps per 1,000 DMA",
            "shadow changes per 1,000 DMA",
            "VMM table reads per 1,000 DMA",
            "faults",
        ]
        .map(String::from)
        .to_vec(),
        rows,
    }
}

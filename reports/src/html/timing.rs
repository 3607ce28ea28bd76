//! The part of the page about simulated time.

use serde::Serialize;

use super::context::Table;
use super::section::{Drawn, Piece, pieces};
use crate::error::Result;
use crate::figures;
use crate::summary::Named;
use crate::tables::timing::{Grid, MEANING, details, overview, verdict};

/// The part of a section that is about simulated time.
#[derive(Serialize)]
pub(super) struct Timing {
    meaning: &'static str,
    /// Lead, then text in pieces.
    summary: Vec<(String, Vec<Piece>)>,
    overview: Table,
    figures: Vec<Drawn>,
    details: Vec<Table>,
    constants: Option<Table>,
    verdicts: Vec<String>,
}

fn table(g: Grid) -> Table {
    Table { caption: g.title, labels: 1, columns: g.columns, rows: g.rows }
}

/// Findings, figures and tables of the runs that simulated time; `None` if
/// none did.
pub(super) fn timing(section: &str, runs: &[Named<'_>]) -> Result<Option<Timing>> {
    let Some(overview) = overview(runs) else { return Ok(None) };
    let names: Vec<&str> = runs.iter().map(|r| r.name.as_str()).collect();
    let timed = || runs.iter().filter_map(|r| Some((r.name.as_str(), r.run.timing.as_ref()?)));
    let summary = crate::summary::timing(runs);
    let drawn = figures::timing(runs)?
        .into_iter()
        .map(|f| Drawn::new(format!("{section}-{}", f.id), &names, f));
    Ok(Some(Timing {
        meaning: MEANING,
        summary: summary.into_iter().map(|f| (f.lead, pieces(&f.text, &names))).collect(),
        overview: table(overview),
        figures: drawn.collect(),
        details: timed().flat_map(|(name, t)| details(name, t)).map(table).collect(),
        constants: super::constants::table(runs),
        verdicts: timed().map(|(name, t)| verdict(name, t)).collect(),
    }))
}

//! The tables about simulated time.

use serde::Serialize;

use super::context::Table;
use crate::summary::Named;
use crate::tables::timing::{Grid, MEANING, details, overview, verdict};

/// The part of a section that is about simulated time.
#[derive(Serialize)]
pub(super) struct Timing {
    meaning: &'static str,
    summary: Vec<String>,
    overview: Table,
    details: Vec<Table>,
    verdicts: Vec<String>,
}

fn table(g: Grid) -> Table {
    Table { caption: g.title, labels: 1, columns: g.columns, rows: g.rows }
}

/// Tables of the runs that simulated time; `None` if none did.
pub(super) fn timing(runs: &[Named<'_>]) -> Option<Timing> {
    let timed = || runs.iter().filter_map(|r| Some((r.name.as_str(), r.run.timing.as_ref()?)));
    Some(Timing {
        meaning: MEANING,
        summary: crate::summary::timing(runs),
        overview: table(overview(runs)?),
        details: timed().flat_map(|(name, t)| details(name, t)).map(table).collect(),
        verdicts: timed().map(|(name, t)| verdict(name, t)).collect(),
    })
}

//! The table about exposure.

use super::context::Table;
use crate::summary::Named;
use crate::tables::exposure::{COLUMNS, MEANING, cells};

/// One row per run that measured it; `None` if none did.
pub(super) fn table(runs: &[Named<'_>]) -> Option<Table> {
    let rows: Vec<Vec<String>> = runs
        .iter()
        .filter_map(|r| Some(std::iter::once(r.name.clone()).chain(cells(r)?).collect()))
        .collect();
    let head = std::iter::once("configuration").chain(COLUMNS);
    (!rows.is_empty()).then(|| Table {
        caption: MEANING.into(),
        labels: 1,
        columns: head.map(String::from).collect(),
        rows,
    })
}

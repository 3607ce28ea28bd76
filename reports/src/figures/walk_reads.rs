//! Page-table entries that the hardware walker reads per miss.

use super::bars::{Bar, Bars, Panel};
use super::palette::{Role, slots};
use super::{DataTable, Figure, Size};
use crate::error::Result;
use crate::format::{factor, rate, thousands};
use crate::summary::{Named, extreme};

const ID: &str = "walk-reads";

/// The figure; `None` if nothing missed.
pub(super) fn figure(runs: &[Named<'_>]) -> Result<Option<Figure>> {
    let (Some(few), Some(many)) =
        (extreme(runs, false, |r| r.m.reads_per_miss), extreme(runs, true, |r| r.m.reads_per_miss))
    else {
        return Ok(None);
    };
    let colours = slots(runs.iter().map(|r| r.run));
    let bars = runs
        .iter()
        .zip(colours)
        .map(|(r, slot)| Bar {
            segments: vec![(r.m.reads_per_miss.unwrap_or(0.0), Role::Run(slot))],
            end: rate(r.m.reads_per_miss),
        })
        .collect();
    let figure = Bars {
        figure: ID,
        rows: runs.iter().map(|r| r.name.clone()).collect(),
        panels: vec![Panel { title: String::new(), bars, max: None }],
        key: Vec::new(),
        columns: 1,
    };
    let rows = runs
        .iter()
        .map(|r| {
            let w = &r.run.counters.walk;
            vec![
                r.name.clone(),
                thousands(w.walks),
                thousands(w.memory_reads),
                thousands(w.child_reads),
                thousands(w.parent_reads),
                rate(r.m.reads_per_miss),
                rate(r.m.reads_per_dma),
            ]
        })
        .collect();
    let caption = if few.text == many.text {
        format!(
            "A miss costs {} table reads{}.",
            few.text,
            if runs.len() > 1 { " everywhere" } else { "" }
        )
    } else if few.value > 0.0 {
        format!(
            "A miss costs {} table reads in {}, {} times the {} in {}.",
            many.text,
            many.names,
            factor(many.value / few.value),
            few.text,
            few.names
        )
    } else {
        format!(
            "A miss costs {} table reads in {} and none in {}.",
            many.text, many.names, few.names
        )
    };
    Ok(Some(Figure {
        id: ID,
        title: "Table entries read by the IOMMU, per IOTLB miss".into(),
        caption,
        note: String::new(),
        wide: figure.svg(Size::Wide)?,
        narrow: figure.svg(Size::Narrow)?,
        table: DataTable {
            columns: [
                "configuration",
                "walks",
                "reads",
                "of the child's table",
                "of the parent's table",
                "reads per miss",
                "reads per DMA",
            ]
            .map(String::from)
            .to_vec(),
            rows,
        },
        readout: None,
    }))
}

//! What a configuration makes the VMM do.

use super::bars::{Bar, Bars, Panel};
use super::palette::{Role, slots};
use super::{DataTable, Figure, Size};
use crate::error::Result;
use crate::format::{rate, thousands};
use crate::summary::{Named, extreme};

const ID: &str = "vmm-work";

type Pick = fn(&Named<'_>) -> Option<f64>;

/// The panels: title, and the value per 1,000 DMA.
const PANELS: [(&str, Pick); 4] = [
    ("traps to the VMM", |r| r.m.traps),
    ("guest table entries read", |r| r.m.vmm_pte_reads),
    ("shadow entries mapped", |r| r.m.shadow_maps),
    ("shadow entries unmapped", |r| r.m.shadow_unmaps),
];

/// The figure; `None` if there was no work or no DMA to relate it to.
pub(super) fn figure(runs: &[Named<'_>]) -> Result<Option<Figure>> {
    let most: Vec<_> = PANELS
        .iter()
        .filter_map(|(title, pick)| Some((*title, extreme(runs, true, pick)?)))
        .filter(|(_, e)| e.value > 0.0)
        .collect();
    if most.is_empty() {
        return Ok(None);
    }
    let colours = slots(runs.iter().map(|r| r.run));
    let panels = PANELS
        .iter()
        .map(|(title, pick)| Panel {
            title: (*title).to_owned(),
            bars: runs
                .iter()
                .zip(&colours)
                .map(|(r, slot)| Bar {
                    segments: vec![(pick(r).unwrap_or(0.0), Role::Run(*slot))],
                    end: rate(pick(r)),
                })
                .collect(),
            max: None,
        })
        .collect();
    let figure = Bars {
        figure: ID,
        rows: runs.iter().map(|r| r.name.clone()).collect(),
        panels,
        key: Vec::new(),
        columns: 2,
    };
    let rows = runs
        .iter()
        .map(|r| {
            let s = &r.run.counters.shadow;
            vec![
                r.name.clone(),
                thousands(r.run.counters.guest.traps),
                thousands(s.syncs),
                thousands(s.pte_reads),
                thousands(s.entries_examined),
                thousands(s.skipped),
                thousands(s.mapped),
                thousands(s.unmapped),
                thousands(s.map_calls),
                thousands(s.unmap_calls),
                thousands(s.resident_entries_peak),
            ]
        })
        .collect();
    let caption = {
        let reads = extreme(runs, true, |r| r.m.vmm_pte_reads).filter(|e| e.value > 0.0);
        let traps = extreme(runs, true, |r| r.m.traps).filter(|e| e.value > 0.0);
        match (traps, reads) {
            (Some(t), Some(p)) if t.names == p.names => format!(
                "{} needs most: {} traps and {} guest table entries read per 1,000 DMA.",
                t.names, t.text, p.text
            ),
            (Some(t), Some(p)) => format!(
                "Most traps: {} ({}); most guest table entries read: {} ({}).",
                t.names, t.text, p.names, p.text
            ),
            (Some(t), None) => {
                format!("Most traps: {} ({} per 1,000 DMA); no guest table was read.", t.names, t.text)
            }
            _ => "No guest operation traps.".to_owned(),
        }
    };
    Ok(Some(Figure {
        id: ID,
        title: "Work for the VMM, per 1,000 DMA (each panel has its own scale)".into(),
        caption,
        wide: figure.svg(Size::Wide)?,
        narrow: figure.svg(Size::Narrow)?,
        table: DataTable {
            columns: [
                "configuration",
                "traps",
                "syncs",
                "PTE reads",
                "examined",
                "unchanged",
                "mapped",
                "unmapped",
                "map calls",
                "unmap calls",
                "peak entries",
            ]
            .map(String::from)
            .to_vec(),
            rows,
        },
        readout: None,
    }))
}

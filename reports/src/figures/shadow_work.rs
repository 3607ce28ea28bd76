//! What a configuration makes the VMM do.

use super::bars::{Bar, Bars, Panel};
use super::palette::{Role, slots};
use super::{DataTable, Figure, Size};
use crate::error::Result;
use crate::format::{list, rate, thousands};
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
    let (drawn, zero): (Vec<_>, Vec<_>) =
        PANELS.iter().partition(|(title, _)| most.iter().any(|(t, _)| t == title));
    let panels = drawn
        .into_iter()
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
    let mut note = String::new();
    if most.len() > 1 {
        note.push_str("Each panel has its own scale. ");
    }
    if !zero.is_empty() {
        let titles: Vec<&str> = zero.iter().map(|(title, _)| *title).collect();
        note.push_str(&format!("Zero everywhere, so not drawn: {}.", list(&titles)));
    }
    let note = note.trim_end().to_owned();
    let caption = if runs.len() == 1 {
        let amounts: Vec<String> =
            most.iter().map(|(title, e)| format!("{} {title}", e.text)).collect();
        format!("Per 1,000 DMA there are {}.", list(&amounts))
    } else {
        let reads = extreme(runs, true, |r| r.m.vmm_pte_reads).filter(|e| e.value > 0.0);
        let traps = extreme(runs, true, |r| r.m.traps).filter(|e| e.value > 0.0);
        match (traps, reads) {
            (Some(t), Some(p)) if t.names == p.names => format!(
                "{} {} the VMM most: {} traps and {} table entries read per 1,000 DMA.",
                t.names,
                if t.count == 1 { "costs" } else { "cost" },
                t.text,
                p.text
            ),
            (Some(t), Some(p)) => format!(
                "{} {} most ({} per 1,000 DMA); {} {} the VMM read most table entries ({}).",
                t.names,
                if t.count == 1 { "traps" } else { "trap" },
                t.text,
                p.names,
                if p.count == 1 { "makes" } else { "make" },
                p.text
            ),
            (Some(t), None) => {
                format!(
                    "Most traps: {} ({} per 1,000 DMA); no guest table was read.",
                    t.names, t.text
                )
            }
            _ => "No guest operation traps.".to_owned(),
        }
    };
    Ok(Some(Figure {
        id: ID,
        title: "Work for the VMM, per 1,000 DMA".into(),
        caption,
        note,
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

//! IOTLB hit rate per configuration.

use super::bars::{Bar, Bars, Panel};
use super::palette::{Role, slots};
use super::{DataTable, Figure, Size};
use crate::error::Result;
use crate::format::{list, percent, percent_sign, thousands};
use crate::summary::Named;

const ID: &str = "hit-rate";

/// The figure; `None` without look-ups.
pub(super) fn figure(runs: &[Named<'_>]) -> Result<Option<Figure>> {
    let rates: Vec<f64> = runs.iter().filter_map(|r| r.m.hit_rate).collect();
    let (Some(low), Some(high)) =
        (rates.iter().copied().reduce(f64::min), rates.iter().copied().reduce(f64::max))
    else {
        return Ok(None);
    };
    let colours = slots(runs.iter().map(|r| r.run));
    let bars = runs
        .iter()
        .zip(colours)
        .map(|(r, slot)| Bar {
            segments: vec![(r.m.hit_rate.unwrap_or(0.0) * 100.0, Role::Run(slot))],
            end: percent_sign(r.m.hit_rate),
        })
        .collect();
    let figure = Bars {
        figure: ID,
        rows: runs.iter().map(|r| r.name.clone()).collect(),
        panels: vec![Panel { title: String::new(), bars, max: Some(100.0) }],
        key: Vec::new(),
        columns: 1,
    };
    let rows = runs
        .iter()
        .map(|r| {
            let t = &r.run.counters.iotlb;
            vec![
                r.name.clone(),
                thousands(t.lookups),
                thousands(t.hits),
                thousands(t.misses),
                percent(r.m.hit_rate),
                thousands(t.evictions),
                thousands(t.invalidated),
            ]
        })
        .collect();
    let caption = if percent(Some(low)) == percent(Some(high)) {
        match runs.len() {
            1 => format!("The IOTLB answers {} of the look-ups.", percent_sign(Some(high))),
            _ => format!(
                "The IOTLB answers {} of the look-ups in every configuration.",
                percent_sign(Some(high))
            ),
        }
    } else {
        let names = |wanted: f64| {
            let same = |r: &&Named<'_>| percent(r.m.hit_rate) == percent(Some(wanted));
            list(&runs.iter().filter(same).map(|r| r.name.as_str()).collect::<Vec<_>>())
        };
        format!(
            "Best hit rate: {}, {}; worst: {}, {}.",
            names(high),
            percent_sign(Some(high)),
            names(low),
            percent_sign(Some(low))
        )
    };
    Ok(Some(Figure {
        id: ID,
        title: "IOTLB hit rate, % of look-ups".into(),
        caption,
        note: String::new(),
        wide: figure.svg(Size::Wide)?,
        narrow: figure.svg(Size::Narrow)?,
        table: DataTable {
            columns: [
                "configuration",
                "look-ups",
                "hits",
                "misses",
                "hit rate, %",
                "evictions",
                "invalidated",
            ]
            .map(String::from)
            .to_vec(),
            rows,
        },
        readout: None,
    }))
}

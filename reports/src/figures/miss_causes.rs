//! Why the IOTLB missed.

use ioasim_sim::results::MissCauses;

use super::bars::{Bar, Bars, Panel};
use super::palette::Role;
use super::{DataTable, Figure, Size};
use crate::error::Result;
use crate::format::{percent, percent_sign, rate, thousands};
use crate::measure::{per_1000, ratio};
use crate::summary::Named;

const ID: &str = "miss-causes";

/// The causes in the order of the drawing, and their colours.
pub(super) const KEY: [(&str, Role); 4] = [
    ("cold", Role::Cause(0)),
    ("capacity", Role::Cause(1)),
    ("conflict", Role::Cause(2)),
    ("invalidation", Role::Cause(3)),
];

/// The counts in the order of [`KEY`].
pub(super) fn counts(m: &MissCauses) -> [u64; 4] {
    [m.cold, m.capacity, m.conflict, m.invalidation]
}

/// Misses by cause per 1,000 requests, as a bar's segments.
pub(super) fn segments(m: &MissCauses, requests: u64) -> Vec<(f64, Role)> {
    counts(m)
        .into_iter()
        .zip(KEY)
        .map(|(n, (_, role))| (per_1000(n, requests).unwrap_or(0.0), role))
        .collect()
}

/// The figure; `None` if nothing missed.
pub(super) fn figure(runs: &[Named<'_>]) -> Result<Option<Figure>> {
    if runs.iter().all(|r| r.m.requests == 0 || r.run.counters.iotlb.misses == 0) {
        return Ok(None);
    }
    let bars = runs
        .iter()
        .map(|r| Bar {
            segments: segments(&r.run.counters.iotlb.miss_causes, r.m.requests),
            end: rate(per_1000(r.run.counters.iotlb.misses, r.m.requests)),
        })
        .collect();
    let figure = Bars {
        figure: ID,
        rows: runs.iter().map(|r| r.name.clone()).collect(),
        panels: vec![Panel { title: String::new(), bars, max: None }],
        key: KEY.to_vec(),
        columns: 1,
    };
    let rows = runs
        .iter()
        .map(|r| {
            let t = &r.run.counters.iotlb;
            let mut row = vec![r.name.clone(), thousands(t.misses)];
            for n in counts(&t.miss_causes) {
                row.push(thousands(n));
                row.push(percent(ratio(n, t.misses)));
            }
            row
        })
        .collect();
    Ok(Some(Figure {
        id: ID,
        title: "IOTLB misses by cause, per 1,000 DMA".into(),
        caption: caption(runs),
        note: String::new(),
        wide: figure.svg(Size::Wide)?,
        narrow: figure.svg(Size::Narrow)?,
        table: DataTable {
            columns: [
                "configuration",
                "misses",
                "cold",
                "%",
                "capacity",
                "%",
                "conflict",
                "%",
                "invalidation",
                "%",
            ]
            .map(String::from)
            .to_vec(),
            rows,
        },
        readout: None,
    }))
}

fn caption(runs: &[Named<'_>]) -> String {
    let mut total = [0u64; 4];
    for r in runs {
        for (sum, n) in total.iter_mut().zip(counts(&r.run.counters.iotlb.miss_causes)) {
            *sum = sum.saturating_add(n);
        }
    }
    let all = total.iter().fold(0u64, |a, b| a.saturating_add(*b));
    let most = total.iter().enumerate().max_by_key(|(i, n)| (**n, 4 - i)).map_or(0, |(i, _)| i);
    let words = [
        "Pages touched for the first time",
        "Too few entries for the working set",
        "Limited associativity",
        "Invalidations, which removed entries that were used again,",
    ][most];
    let verb = if most == 1 || most == 2 { "accounts" } else { "account" };
    format!(
        "{words} {verb} for {} of the misses{}.",
        percent_sign(ratio(total[most], all)),
        if runs.len() > 1 { " of all configurations together" } else { "" }
    )
}

//! Where the latency of an access goes, by class.

use ioasim_sim::results::timing::{ClassTime, TimingResult};

use super::{Timed, rows};
use crate::error::Result;
use crate::figures::bars::{Bar, Bars, Panel};
use crate::figures::palette::Role;
use crate::figures::{DataTable, Figure, Size};
use crate::format::{percent, percent_sign, rate, thousands};
use crate::measure::ratio;

const ID: &str = "latency-parts";

/// Parts as they are drawn.
const KEY: [(&str, Role); 6] = [
    ("slot and link", Role::Part(0)),
    ("look-up", Role::Part(1)),
    ("waiting for a walker", Role::Part(2)),
    ("page-table walk", Role::Part(3)),
    ("page request", Role::Part(4)),
    ("PCIe and memory", Role::Part(5)),
];

/// Classes in order of what they need, and what they are.
const CLASSES: [(&str, &str); 6] = [
    ("device-tlb-hit", "device-TLB hit: translated in the device"),
    ("hit", "hit: translation in the IOTLB"),
    ("coalesced", "coalesced: joins another's walk"),
    ("miss", "miss: walks the table"),
    ("page-request", "page request: the page is fetched first"),
    ("fault", "fault: no translation"),
];

fn class<'a>(t: &'a TimingResult, name: &str) -> Option<&'a ClassTime> {
    t.classes.iter().find(|c| c.class == name && c.count > 0)
}

/// The figure; `None` without accesses.
pub(super) fn figure(runs: &[Timed<'_>]) -> Result<Option<Figure>> {
    let used = |c: &&(&str, &str)| runs.iter().any(|r| class(r.t, c.0).is_some());
    let classes: Vec<_> = CLASSES.iter().filter(used).collect();
    if classes.is_empty() {
        return Ok(None);
    }
    let panels = classes.iter().map(|(name, title)| Panel {
        title: (*title).into(),
        bars: runs
            .iter()
            .map(|r| match class(r.t, name) {
                Some(c) => Bar {
                    segments: c.parts_ns().into_iter().zip(KEY).map(|(v, k)| (v, k.1)).collect(),
                    end: rate(Some(c.mean_ns)),
                },
                None => Bar { segments: Vec::new(), end: "none".into() },
            })
            .collect(),
        max: None,
    });
    let occurs =
        |i: &usize| runs.iter().any(|r| r.t.classes.iter().any(|c| c.parts_ns()[*i] > 0.0));
    let figure = Bars {
        figure: ID,
        rows: rows(runs),
        panels: panels.collect(),
        key: (0..KEY.len()).filter(occurs).map(|i| KEY[i]).collect(),
        columns: 2,
    };
    let mut table = Vec::new();
    for r in runs {
        let all = r.t.latency.dma.count;
        for c in classes.iter().filter_map(|(name, _)| class(r.t, name)) {
            let start = [
                format!("{}, {}", r.name, c.class),
                thousands(c.count),
                percent(ratio(c.count, all)),
                rate(Some(c.mean_ns)),
            ];
            table.push(start.into_iter().chain(c.parts_ns().map(|p| rate(Some(p)))).collect());
        }
    }
    let columns = ["configuration, class", "accesses", "%", "mean ns"].map(String::from);
    let columns = columns.into_iter().chain(KEY.iter().map(|k| format!("{}, ns", k.0))).collect();
    Ok(Some(Figure {
        id: ID,
        title: "Mean latency of accesses by class and part, ns".into(),
        caption: caption(runs),
        note: "Each panel has its own scale. How many accesses are in each class is in the \
               numbers below."
            .into(),
        wide: figure.svg(Size::Wide)?,
        narrow: figure.svg(Size::Narrow)?,
        table: DataTable { columns, rows: table },
        readout: None,
    }))
}

/// What translation adds to an access, where it adds most.
fn caption(runs: &[Timed<'_>]) -> String {
    let added = |t: &TimingResult| {
        let sum = |f: &dyn Fn(&ClassTime) -> f64| {
            t.classes.iter().map(|c| f(c) * c.count as f64).sum::<f64>()
        };
        let all = sum(&|c| c.mean_ns);
        let translation = sum(&|c| c.parts_ns()[1..5].iter().sum());
        if all > 0.0 { translation / all } else { 0.0 }
    };
    let Some(worst) = super::most(runs, added) else { return String::new() };
    let mean = worst.t.latency.dma.mean_ns * added(worst.t);
    format!(
        "Translation (look-ups, walks and waiting for them) takes {} of an access's time under \
         {}, {} ns on average.",
        percent_sign(Some(added(worst.t))),
        worst.name,
        rate(Some(mean)),
    )
}

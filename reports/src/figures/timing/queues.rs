//! Lengths of the queues over simulated time, strips per configuration.

use ioasim_sim::results::timing::TimingSeries;

use super::strips::{Strip, svg};
use super::{Timed, most};
use crate::error::Result;
use crate::figures::{DataTable, Figure, Size};
use crate::format::{duration, rate};

const ID: &str = "time-queues";

/// Name of a queue, and its mean length per interval.
type Queue = (&'static str, fn(&TimingSeries) -> &[f64]);

const QUEUES: [Queue; 3] = [
    ("walker", |s| &s.walker_queue_mean),
    ("lock", |s| &s.invalidation_queue_mean),
    ("VMM", |s| &s.vmm_queue_mean),
];

fn longest(s: &TimingSeries) -> f64 {
    QUEUES.iter().flat_map(|(_, of)| of(s)).copied().fold(0.0, f64::max)
}

fn caption(worst: &Timed<'_>) -> String {
    let most = longest(&worst.t.series);
    let at_most = |of: &fn(&TimingSeries) -> &[f64]| of(&worst.t.series).contains(&most);
    let name = QUEUES.iter().find(|(_, of)| at_most(of)).map_or("", |(name, _)| *name);
    format!(
        "The longest queue is that for the {name} under {}: {} wait, on average over an interval.",
        worst.name,
        rate(Some(most))
    )
}

/// The figure; `None` if nothing ever waited.
pub(super) fn figure(runs: &[Timed<'_>]) -> Result<Option<Figure>> {
    // A single interval is the mean, which the resources have already.
    let some = |r: &&Timed<'_>| r.t.series.requests.len() > 1 && longest(&r.t.series) > 0.0;
    let some: Vec<&Timed<'_>> = runs.iter().filter(some).collect();
    let Some(worst) = most(runs, |t| longest(&t.series)).filter(|_| !some.is_empty()) else {
        return Ok(None);
    };
    let strips: Vec<Vec<Strip<'_>>> = some
        .iter()
        .map(|r| {
            let values =
                |of: fn(&TimingSeries) -> &[f64]| of(&r.t.series).iter().copied().map(Some);
            QUEUES
                .iter()
                .map(|(name, of)| Strip::new(r, name, values(*of).collect(), true))
                .collect()
        })
        .collect();
    let mut rows = Vec::new();
    for r in &some {
        let s = &r.t.series;
        for i in 0..s.requests.len() {
            let from = duration(s.interval_ns.saturating_mul(i as u64));
            let start = [format!("{}, {from}", r.name)];
            let lengths = QUEUES.iter().map(|(_, of)| rate(of(s).get(i).copied()));
            rows.push(start.into_iter().chain(lengths).collect());
        }
    }
    let columns = ["configuration, from"].into_iter().chain(QUEUES.iter().map(|(name, _)| *name));
    Ok(Some(Figure {
        id: ID,
        title: "Waiting over simulated time".into(),
        caption: caption(worst),
        note: "How many wait: walks for a page-table walker, vCPUs for the lock of the \
               invalidation queue and for the VMM. Means over intervals; shorter peaks are higher. Each strip \
               has its own scales, which start at zero."
            .into(),
        wide: svg(ID, &strips, Size::Wide)?,
        narrow: svg(ID, &strips, Size::Narrow)?,
        table: DataTable { columns: columns.map(String::from).collect(), rows },
        readout: None,
    }))
}

//! Throughput and latency over simulated time, a strip per configuration.

use super::Timed;
use super::strips::{Strip, svg};
use crate::error::Result;
use crate::figures::{DataTable, Figure, Size};
use crate::format::{duration, rate};

const ID: &str = "time-series";

/// The figure; `None` if no run has intervals.
pub(super) fn figure(runs: &[Timed<'_>]) -> Result<Option<Figure>> {
    let some: Vec<&Timed<'_>> = runs.iter().filter(|r| r.t.series.requests.len() > 1).collect();
    if some.is_empty() {
        return Ok(None);
    }
    let strips: Vec<Vec<Strip<'_>>> = some.iter().map(|r| strips(r)).collect();
    let mut rows = Vec::new();
    for r in &some {
        let s = &r.t.series;
        for (i, n) in s.requests.iter().enumerate() {
            rows.push(vec![
                format!("{}, {}", r.name, duration(s.interval_ns.saturating_mul(i as u64))),
                rate(Some(per_second(*n, s.interval_ns) / 1e3)),
                rate(s.latency_mean_ns.get(i).copied().filter(|_| *n > 0)),
            ]);
        }
    }
    let columns = ["configuration, from", "k DMA/s", "mean DMA ns"];
    Ok(Some(Figure {
        id: ID,
        title: "Throughput and mean latency of accesses over simulated time".into(),
        caption: caption(&some),
        note: "Each strip has its own scales, which start at zero; the horizontal one is that \
               configuration's simulated time. Where no access was done there is no latency."
            .into(),
        wide: svg(ID, &strips, Size::Wide)?,
        narrow: svg(ID, &strips, Size::Narrow)?,
        table: DataTable { columns: columns.map(String::from).to_vec(), rows },
        readout: None,
    }))
}

fn per_second(n: u64, interval_ns: u64) -> f64 {
    n as f64 * 1e9 / interval_ns.max(1) as f64
}

fn strips<'a>(r: &'a Timed<'a>) -> Vec<Strip<'a>> {
    let s = &r.t.series;
    let throughput = s.requests.iter().map(|n| Some(per_second(*n, s.interval_ns) / 1e3));
    let latency = s.requests.iter().zip(&s.latency_mean_ns).map(|(n, l)| (*n > 0).then_some(*l));
    vec![
        Strip::new(r, "k DMA/s", throughput.collect(), true),
        Strip::new(r, "mean ns", latency.collect(), false),
    ]
}

fn caption(runs: &[&Timed<'_>]) -> String {
    // How uneven throughput is: its peak over its mean.
    let uneven = |r: &Timed<'_>| {
        let s = &r.t.series;
        let peak = s.requests.iter().max().map_or(0.0, |n| per_second(*n, s.interval_ns));
        if r.t.requests_per_second > 0.0 { peak / r.t.requests_per_second } else { 0.0 }
    };
    let worst = runs.iter().reduce(|a, b| if uneven(b) > uneven(a) { b } else { a });
    worst.map_or(String::new(), |r| {
        format!(
            "At its peak, throughput under {} is {} times its mean.",
            r.name,
            rate(Some(uneven(r)))
        )
    })
}

//! Percentiles of latencies.

use std::f64::consts::LOG10_2;

use ioasim_sim::results::timing::{LatencySummary, TimingResult};

use super::Timed;
use crate::error::Result;
use crate::figures::{Curve, Curves, DataTable, Figure, Size};
use crate::format::{factor, list, thousands};

/// Percentiles: number of nines, name.
const AT: [(f64, &str); 5] =
    [(LOG10_2, "p50"), (1.0, "p90"), (2.0, "p99"), (3.0, "p99.9"), (4.0, "p99.99")];

fn values(l: &LatencySummary) -> [u64; 5] {
    [l.p50_ns, l.p90_ns, l.p99_ns, l.p99_9_ns, l.p99_99_ns]
}

fn dma_of(t: &TimingResult) -> &LatencySummary {
    &t.latency.dma
}

fn invalidation_of(t: &TimingResult) -> &LatencySummary {
    &t.latency.invalidation
}

/// Of accesses.
pub(super) fn dma(runs: &[Timed<'_>]) -> Result<Option<Figure>> {
    figure(runs, "dma-percentiles", "accesses", "an access", dma_of)
}

/// Of invalidations after unmaps.
pub(super) fn invalidation(runs: &[Timed<'_>]) -> Result<Option<Figure>> {
    let what = "invalidations after unmaps";
    figure(runs, "invalidation-percentiles", what, "an invalidation", invalidation_of)
}

/// A decade of ns with its unit.
fn unit(ns: f64) -> String {
    match ns {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{:.0} us", n / 1e3),
        n if n < 1e9 => format!("{:.0} ms", n / 1e6),
        n => format!("{:.0} s", n / 1e9),
    }
}

/// True of invalidations that only a few unmaps cause: their distribution says
/// nothing about unmapping (shadows that are kept by calls).
fn is_rare(t: &TimingResult, of: fn(&TimingResult) -> &LatencySummary) -> bool {
    let l = of(t);
    std::ptr::eq(l, &t.latency.invalidation) && l.count.saturating_mul(10) < t.latency.unmap.count
}

fn figure(
    runs: &[Timed<'_>],
    id: &'static str,
    plural: &str,
    one: &str,
    of: fn(&TimingResult) -> &LatencySummary,
) -> Result<Option<Figure>> {
    let some: Vec<&Timed<'_>> =
        runs.iter().filter(|r| of(r.t).count > 0 && values(of(r.t))[4] > 0).collect();
    let (drawn, rare): (Vec<_>, Vec<_>) = some.iter().copied().partition(|r| !is_rare(r.t, of));
    if drawn.is_empty() {
        return Ok(None);
    }
    // Equal curves are drawn once, under all their names.
    let mut groups: Vec<(Vec<&str>, &Timed<'_>)> = Vec::new();
    for r in &drawn {
        match groups.iter_mut().find(|(_, first)| values(of(first.t)) == values(of(r.t))) {
            Some((names, _)) => names.push(r.name),
            None => groups.push((vec![r.name], r)),
        }
    }
    let curve = |(names, r): &(Vec<&str>, &Timed<'_>)| Curve {
        name: match names.len() {
            1 => names[0].to_owned(),
            n => format!("{} and {} more", names[0], n - 1),
        },
        slot: r.slot,
        points: AT.iter().zip(values(of(r.t))).map(|(at, ns)| (at.0, ns.max(1) as f64)).collect(),
    };
    let curves = Curves {
        figure: id,
        log_x: false,
        ticks: AT.iter().map(|(x, name)| (*x, (*name).to_owned())).collect(),
        x: "percentile".into(),
        y: unit,
        curves: groups.iter().map(curve).collect(),
    };
    let row = |r: &&Timed<'_>| {
        let l = of(r.t);
        let start = [r.name.to_owned(), thousands(l.count)];
        let mean = thousands(l.mean_ns.round() as u64);
        let rest = values(l).map(thousands);
        start.into_iter().chain([mean]).chain(rest).chain([thousands(l.max_ns)]).collect()
    };
    let columns =
        ["configuration", "count", "mean ns", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let same: Vec<String> = groups
        .iter()
        .filter(|(names, _)| names.len() > 1)
        .map(|(names, _)| format!("{} have the same curve", list(names)))
        .collect();
    let mut note = format!(
        "Half of the {plural} take at most p50, all but one in 10,000 at most p99.99. The vertical \
         axis is logarithmic."
    );
    if !same.is_empty() {
        note.push_str(&format!(" {}.", same.join("; ")));
    }
    if !rare.is_empty() {
        let names: Vec<&str> = rare.iter().map(|r| r.name).collect();
        note.push_str(&format!(" Not drawn, as their unmaps need few of them: {}.", list(&names)));
    }
    Ok(Some(Figure {
        id,
        title: format!("Latency of {plural} by percentile"),
        caption: caption(&drawn, one, of),
        note,
        wide: curves.svg(Size::Wide)?,
        narrow: curves.svg(Size::Narrow)?,
        table: DataTable {
            columns: columns.map(String::from).to_vec(),
            rows: some.iter().map(row).collect(),
        },
        readout: None,
    }))
}

fn caption(runs: &[&Timed<'_>], one: &str, of: fn(&TimingResult) -> &LatencySummary) -> String {
    let worst = runs.iter().reduce(|a, b| if of(b.t).p99_ns > of(a.t).p99_ns { b } else { a });
    let Some(worst) = worst else { return String::new() };
    let (l, tail) = (of(worst.t), of(worst.t).p99_ns as f64);
    let mut text = format!(
        "One in a hundred times, {one} takes {} ns or more{}",
        thousands(l.p99_ns),
        if runs.len() > 1 { format!(" under {}", worst.name) } else { String::new() },
    );
    if l.p50_ns > 0 && tail / l.p50_ns as f64 >= 1.1 {
        text.push_str(&format!(", {} times the median", factor(tail / l.p50_ns as f64)));
    }
    text + "."
}

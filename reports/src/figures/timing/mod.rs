//! Figures of simulated time: how long, where the time goes, what is busy.

mod breakdown;
mod duration;
mod percentiles;
mod queues;
mod resources;
mod series;
mod strips;
mod vcpus;

use ioasim_sim::results::timing::TimingResult;

use super::Figure;
use super::palette::{Slot, slots};
use crate::error::Result;
use crate::summary::Named;

/// A run that simulated time.
struct Timed<'a> {
    name: &'a str,
    slot: Slot,
    t: &'a TimingResult,
}

/// The figures of the runs that simulated time.
pub(crate) fn timing(runs: &[Named<'_>]) -> Result<Vec<Figure>> {
    let colours = slots(runs.iter().map(|r| r.run));
    let timed: Vec<Timed<'_>> = runs
        .iter()
        .zip(colours)
        .filter_map(|(r, slot)| Some(Timed { name: &r.name, slot, t: r.run.timing.as_ref()? }))
        .collect();
    if timed.is_empty() {
        return Ok(Vec::new());
    }
    let made = [
        duration::figure(&timed)?,
        vcpus::figure(&timed)?,
        breakdown::figure(&timed)?,
        percentiles::dma(&timed)?,
        percentiles::invalidation(&timed)?,
        resources::figure(&timed)?,
        series::figure(&timed)?,
        queues::figure(&timed)?,
    ];
    Ok(made.into_iter().flatten().collect())
}

/// Names of the rows.
fn rows(runs: &[Timed<'_>]) -> Vec<String> {
    runs.iter().map(|r| r.name.to_owned()).collect()
}

/// The run with the largest value.
fn most<'a, 'b>(runs: &'b [Timed<'a>], of: impl Fn(&TimingResult) -> f64) -> Option<&'b Timed<'a>> {
    runs.iter().reduce(|a, b| if of(b.t) > of(a.t) { b } else { a })
}

/// The run with the smallest value.
fn least<'a, 'b>(
    runs: &'b [Timed<'a>],
    of: impl Fn(&TimingResult) -> f64,
) -> Option<&'b Timed<'a>> {
    most(runs, |t| -of(t))
}

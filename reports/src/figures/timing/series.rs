//! Throughput and latency over simulated time, a strip per configuration.

use super::Timed;
use crate::error::Result;
use crate::figures::axis;
use crate::figures::canvas::{Anchor, Canvas, Frame, draw};
use crate::figures::palette::Role;
use crate::figures::{DataTable, Figure, Size};
use crate::format::{duration, rate, time_unit};

const ID: &str = "time-series";

/// Height of a strip.
const STRIP: i32 = 64;

/// One strip: a value per interval.
struct Strip<'a> {
    title: String,
    /// Value per interval; `None` = nothing happened.
    values: Vec<Option<f64>>,
    /// Filled down to zero, or a line.
    filled: bool,
    run: &'a Timed<'a>,
}

/// The figure; `None` if no run has intervals.
pub(super) fn figure(runs: &[Timed<'_>]) -> Result<Option<Figure>> {
    let some: Vec<&Timed<'_>> = runs.iter().filter(|r| r.t.series.requests.len() > 1).collect();
    if some.is_empty() {
        return Ok(None);
    }
    let strips: Vec<[Strip<'_>; 2]> = some.iter().map(|r| strips(r)).collect();
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
        wide: svg(&strips, Size::Wide)?,
        narrow: svg(&strips, Size::Narrow)?,
        table: DataTable { columns: columns.map(String::from).to_vec(), rows },
        readout: None,
    }))
}

fn per_second(n: u64, interval_ns: u64) -> f64 {
    n as f64 * 1e9 / interval_ns.max(1) as f64
}

fn strips<'a>(r: &'a Timed<'a>) -> [Strip<'a>; 2] {
    let s = &r.t.series;
    let throughput = s.requests.iter().map(|n| Some(per_second(*n, s.interval_ns) / 1e3));
    let latency = s.requests.iter().zip(&s.latency_mean_ns).map(|(n, l)| (*n > 0).then_some(*l));
    let strip = |what: &str, values: Vec<Option<f64>>, filled| {
        let most = values.iter().flatten().copied().fold(0.0, f64::max);
        let title = format!("{what}, at most {}", rate(Some(most)));
        Strip { title, values, filled, run: r }
    };
    [strip("k DMA/s", throughput.collect(), true), strip("mean ns", latency.collect(), false)]
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

fn svg(strips: &[[Strip<'_>; 2]], size: Size) -> Result<String> {
    let wide = size == Size::Wide;
    let text = size.text();
    let line = text + 6;
    // Name, titles, strips (side by side or below each other), axis.
    let columns = if wide { 2 } else { 1 };
    let (gap, width) = (36, size.width());
    let strip_width = (width - (columns - 1) * gap) / columns;
    let cell = line + STRIP + 6;
    let block = line + (2 / columns) * cell + line + 12;
    let height = block * strips.len() as i32;
    draw(ID, (width, height), text, |c| {
        for (i, pair) in strips.iter().enumerate() {
            let top = i as i32 * block;
            let run = pair[0].run;
            c.bold((0, top + line / 2), &c.fit(run.name, width), Anchor::Start, Role::Ink)?;
            for (j, strip) in pair.iter().enumerate() {
                let j = j as i32;
                let (column, row) = if wide { (j, 0) } else { (0, j) };
                let x0 = column * (strip_width + gap);
                let y0 = top + line + row * cell;
                c.text((x0, y0 + line / 2), &strip.title, Anchor::Start, Role::Quiet)?;
                let y0 = y0 + line;
                let frame = Frame { x0, y0, x1: x0 + strip_width, y1: y0 + STRIP };
                paint(c, frame, strip)?;
                if wide || j == 1 {
                    time_axis(c, frame, strip, size)?;
                }
            }
        }
        Ok(())
    })
}

/// Length of a strip's axis in ns.
fn length(strip: &Strip<'_>) -> u64 {
    let s = &strip.run.t.series;
    s.interval_ns.saturating_mul(s.requests.len() as u64).max(1)
}

fn paint(c: &Canvas<'_>, frame: Frame, strip: &Strip<'_>) -> Result<()> {
    let most = strip.values.iter().flatten().copied().fold(0.0, f64::max);
    let n = strip.values.len();
    let mut chart = c.chart(frame, (0.0, n as f64), (0.0, if most > 0.0 { most } else { 1.0 }))?;
    let slot = strip.run.slot;
    if strip.filled {
        let steps: Vec<(f64, f64)> = strip
            .values
            .iter()
            .enumerate()
            .flat_map(|(i, v)| {
                let v = v.unwrap_or(0.0);
                [(i as f64, v), (i as f64 + 1.0, v)]
            })
            .collect();
        return c.fill(&mut chart, &steps, 0.0, Role::Run(slot));
    }
    let mut piece: Vec<(f64, f64)> = Vec::new();
    for i in 0..=n {
        match strip.values.get(i).copied().flatten() {
            // A step, so that a lone interval is seen, too.
            Some(v) => piece.extend([(i as f64, v), (i as f64 + 1.0, v)]),
            None if piece.is_empty() => {}
            None => c.curve(&mut chart, std::mem::take(&mut piece), Role::Quiet)?,
        }
    }
    Ok(())
}

fn time_axis(c: &Canvas<'_>, frame: Frame, strip: &Strip<'_>, size: Size) -> Result<()> {
    let ns = length(strip);
    let (unit, unit_ns) = time_unit(ns);
    let end = ns as f64 / unit_ns as f64;
    let ticks = axis::from_zero(end, size.ticks() - 1);
    let labels = axis::labels(&ticks);
    c.line(&[(frame.x0, frame.y1), (frame.x1, frame.y1)], Role::Axis, 1)?;
    let shown: Vec<_> = ticks.iter().zip(&labels).filter(|(t, _)| **t <= end * 1.0001).collect();
    for (i, (tick, label)) in shown.iter().enumerate() {
        let along = **tick / end * f64::from(frame.x1 - frame.x0);
        let x = frame.x0 + along.round() as i32;
        c.line(&[(x, frame.y1), (x, frame.y1 + 4)], Role::Axis, 1)?;
        let last = i + 1 == shown.len();
        let label = if last { format!("{label} {unit}") } else { (*label).clone() };
        let anchor = match i {
            0 if !last => Anchor::Start,
            _ if x + c.text_width(&label) / 2 > frame.x1 => Anchor::End,
            _ => Anchor::Middle,
        };
        c.text((x, frame.y1 + 8 + c.text / 2), &label, anchor, Role::Quiet)?;
    }
    Ok(())
}

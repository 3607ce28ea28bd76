//! Strips over simulated time: a value per interval.

use super::Timed;
use crate::error::Result;
use crate::figures::Size;
use crate::figures::axis;
use crate::figures::canvas::{Anchor, Canvas, Frame, draw};
use crate::figures::palette::Role;
use crate::format::{rate, time_unit};

/// Height of a strip.
const STRIP: i32 = 64;

/// One strip: a value per interval.
pub(super) struct Strip<'a> {
    title: String,
    /// Value per interval; `None` = nothing happened.
    values: Vec<Option<f64>>,
    /// Filled down to zero, or a line.
    filled: bool,
    run: &'a Timed<'a>,
}

impl<'a> Strip<'a> {
    /// A strip of a run; its title says the largest value.
    pub(super) fn new(
        run: &'a Timed<'a>,
        what: &str,
        values: Vec<Option<f64>>,
        filled: bool,
    ) -> Strip<'a> {
        let most = values.iter().flatten().copied().fold(0.0, f64::max);
        let title = format!("{what}, at most {}", rate(Some(most)));
        Strip { title, values, filled, run }
    }
}

/// The strips of every run: side by side if wide, else below each other. All
/// runs have equally many.
pub(super) fn svg(id: &'static str, runs: &[Vec<Strip<'_>>], size: Size) -> Result<String> {
    let wide = size == Size::Wide;
    let text = size.text();
    let line = text + 6;
    // Name, titles, strips (side by side or below each other), axis.
    let count = runs.first().map_or(1, Vec::len) as i32;
    let columns = if wide { count } else { 1 };
    let (gap, width) = (36, size.width());
    let strip_width = (width - (columns - 1) * gap) / columns;
    let cell = line + STRIP + 6;
    let block = line + (count / columns) * cell + line + 12;
    let height = block * runs.len() as i32;
    draw(id, (width, height), text, |c| {
        for (i, strips) in runs.iter().enumerate() {
            let top = i as i32 * block;
            let Some(Strip { run, .. }) = strips.first() else { continue };
            c.bold((0, top + line / 2), &c.fit(run.name, width), Anchor::Start, Role::Ink)?;
            for (j, strip) in strips.iter().enumerate() {
                let j = j as i32;
                let (column, row) = if wide { (j, 0) } else { (0, j) };
                let x0 = column * (strip_width + gap);
                let y0 = top + line + row * cell;
                c.text(
                    (x0, y0 + line / 2),
                    &c.fit(&strip.title, strip_width),
                    Anchor::Start,
                    Role::Quiet,
                )?;
                let y0 = y0 + line;
                let frame = Frame { x0, y0, x1: x0 + strip_width, y1: y0 + STRIP };
                paint(c, frame, strip)?;
                if wide || j == count - 1 {
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
    // Labels are at most about 80 pixels wide.
    let room = ((frame.x1 - frame.x0) / 100).max(2) as usize;
    let ticks = axis::from_zero(end, room.min(size.ticks() - 1));
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

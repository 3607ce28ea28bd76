//! Changes of the shadow over the time of the trace.

use super::canvas::{Anchor, Canvas, Frame, draw};
use super::hit_rate_time::steps;
use super::palette::{Role, Slot, slots};
use super::timeline::Timeline;
use super::{DataTable, Figure, Readout, Size};
use crate::document::Document;
use crate::error::Result;
use crate::format::{list, short_count};
use crate::summary::Named;

const ID: &str = "shadow-time";

/// Most panels drawn; the table has all runs.
const PANELS: usize = 8;

/// Peaks further apart than this get a scale each.
const COMMON_SCALE: u64 = 8;

/// Runs with the same changes, drawn once.
struct Strip {
    names: Vec<String>,
    slot: Slot,
    changes: Vec<u64>,
    peak: u64,
}

/// The figure; `None` if no shadow changed.
pub(super) fn figure(document: &Document, runs: &[Named<'_>]) -> Result<Option<Figure>> {
    let Some(time) = Timeline::new(document, runs) else { return Ok(None) };
    let strips = strips(&time, runs);
    if strips.is_empty() || time.buckets < 2 {
        return Ok(None);
    }
    let drawn = &strips[..strips.len().min(PANELS)];
    let (least, most) =
        drawn.iter().fold((u64::MAX, 0), |(a, b), s| (a.min(s.peak), b.max(s.peak)));
    let common = most <= least.saturating_mul(COMMON_SCALE);
    let plot = Plot { time: &time, strips: drawn, top: common.then_some(most) };
    let (wide, wide_extent) = plot.svg(Size::Wide)?;
    let (narrow, narrow_extent) = plot.svg(Size::Narrow)?;
    let mut caption = caption(&strips, &time);
    if drawn.len() > 1 {
        caption.push_str(if common {
            " All panels have the same vertical scale."
        } else {
            " Each panel has its own vertical scale; the peak is written beside it."
        });
    }
    if drawn.len() < strips.len() {
        let text = format!(" {} of {} panels are drawn; the table has all.", drawn.len(), strips.len());
        caption.push_str(&text);
    }
    let mut columns = vec![time.head()];
    columns.extend(strips.iter().map(|s| s.names.join(" = ")));
    let rows = (0..time.buckets)
        .map(|i| {
            let mut row = vec![time.row(i)];
            row.extend(strips.iter().map(|s| short_count(s.changes[i])));
            row
        })
        .collect();
    Ok(Some(Figure {
        id: ID,
        title: format!("Shadow entries mapped or unmapped over the trace, per {}", time.bucket()),
        caption,
        wide,
        narrow,
        table: DataTable { columns, rows },
        readout: Some(Readout { wide: wide_extent, narrow: narrow_extent }),
    }))
}

fn strips(time: &Timeline<'_>, runs: &[Named<'_>]) -> Vec<Strip> {
    let mut out: Vec<Strip> = Vec::new();
    for (r, slot) in runs.iter().zip(slots(runs.iter().map(|r| r.run))) {
        let changes = time.sum(r.run.series.interval_ns, &r.run.series.shadow_changes);
        let peak = changes.iter().copied().max().unwrap_or(0);
        if peak == 0 {
            continue;
        }
        match out.iter_mut().find(|s| s.changes == changes) {
            Some(strip) => strip.names.push(r.name.clone()),
            None => out.push(Strip { names: vec![r.name.clone()], slot, changes, peak }),
        }
    }
    out
}

fn caption(strips: &[Strip], time: &Timeline<'_>) -> String {
    let Some(most) = strips.iter().reduce(|a, b| if b.peak > a.peak { b } else { a }) else {
        return String::new();
    };
    let at = most.changes.iter().position(|v| *v == most.peak).unwrap_or(0);
    let unit = time.head().replace("from, ", "");
    format!(
        "The most changes in one interval, {}, fall into the one from {} {unit}, under {}.",
        short_count(most.peak),
        time.row(at),
        list(&most.names)
    )
}

struct Plot<'a> {
    time: &'a Timeline<'a>,
    strips: &'a [Strip],
    /// Common top of the scale, or each panel's own.
    top: Option<u64>,
}

impl Plot<'_> {
    fn svg(&self, size: Size) -> Result<(String, (f64, f64))> {
        let text = size.text();
        let wide = size == Size::Wide;
        let (x0, x1) = (4, size.width() - 4);
        // Narrow panels have the peak on a line of its own.
        let head = if wide { text + 8 } else { 2 * text + 12 };
        let panel = head + if wide { 56 } else { 60 } + 10;
        let top = if self.time.has_marks() { text + 10 } else { 0 };
        let bottom = top + panel * self.strips.len() as i32;
        let height = bottom + text + 10;
        let svg = draw(ID, (size.width(), height), text, |c| {
            let whole = Frame { x0, y0: top, x1, y1: bottom - 10 };
            self.time.marks(c, whole, true)?;
            for (i, strip) in self.strips.iter().enumerate() {
                let y0 = top + panel * i as i32;
                let frame = Frame { x0, y0: y0 + head, x1, y1: y0 + panel - 10 };
                self.panel(c, size, strip, frame)?;
            }
            self.time.axis(c, whole, size)
        })?;
        let share = |x: i32| f64::from(x) / f64::from(size.width());
        Ok((svg, (share(x0), share(x1))))
    }

    fn panel(&self, c: &Canvas<'_>, size: Size, strip: &Strip, frame: Frame) -> Result<()> {
        let top = self.top.unwrap_or(strip.peak).max(1) as f64;
        let steps = steps(self.time, &strip.changes);
        let mut chart = c.chart(frame, self.time.extent(), (0.0, top))?;
        c.line(&[(frame.x0, frame.y1), (frame.x1, frame.y1)], Role::Axis, 1)?;
        c.fill(&mut chart, &steps, 0.0, Role::RunArea(strip.slot))?;
        c.curve(&mut chart, steps, Role::Run(strip.slot))?;
        let name = strip.names.join(" = ");
        let peak = format!("peak {}", short_count(strip.peak));
        match size {
            Size::Wide => {
                let y = frame.y0 - c.text / 2 - 5;
                c.bold((frame.x0, y), &c.fit(&name, frame.x1 - 150), Anchor::Start, Role::Ink)?;
                c.text((frame.x1, y), &peak, Anchor::End, Role::Quiet)
            }
            Size::Narrow => {
                let y = frame.y0 - c.text / 2 - 4;
                c.bold((frame.x0, y - c.text - 4), &c.fit(&name, frame.x1), Anchor::Start, Role::Ink)?;
                c.text((frame.x0, y), &peak, Anchor::Start, Role::Quiet)
            }
        }
    }
}

//! Changes of the shadow over the time of the trace.

use super::canvas::{Anchor, Canvas, Frame, columns, draw};
use super::hit_rate_time::steps;
use super::palette::{Role, Slot, slots};
use super::timeline::Timeline;
use super::{DataTable, Figure, Readout, Size};
use crate::document::Document;
use crate::error::Result;
use crate::format::{list, short_count, wrap};
use crate::summary::Named;

const ID: &str = "shadow-time";

/// Most panels drawn; the table has all runs.
const PANELS: usize = 8;

/// Names listed above one panel.
const NAMES: usize = 6;

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
    let mut note = match (drawn.len(), common) {
        (1, _) => String::new(),
        (_, true) => "All panels have the same vertical scale. ".to_owned(),
        (_, false) => "Each panel has its own vertical scale, up to its peak. ".to_owned(),
    };
    if strips.iter().any(|s| s.names.len() > 1) {
        note.push_str("Equal changes are drawn once, under all their names. ");
    }
    if drawn.len() < strips.len() {
        note.push_str(&format!(
            "{} of {} panels are drawn; the table has all. ",
            drawn.len(),
            strips.len()
        ));
    }
    note.push_str(&time.marks_note());
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
        caption: caption(&strips, &time),
        note: note.trim_end().to_owned(),
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
        "The shadow changes most at {} {unit}: {} entries in {}, under {}.",
        time.row(at),
        short_count(most.peak),
        time.bucket(),
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
        let (x0, x1) = (4, size.width() - 4);
        let line = text + 4;
        let plot = if size == Size::Wide { 56 } else { 60 };
        let gap = 16;
        let top = if self.time.has_marks() { text + 10 } else { 0 };
        let heads: Vec<Vec<String>> = self.strips.iter().map(|s| head(s, size)).collect();
        let heights: Vec<i32> =
            heads.iter().map(|h| h.len() as i32 * line + 4 + plot + gap).collect();
        let bottom = top + heights.iter().sum::<i32>() - gap;
        let height = bottom + text + 16;
        let svg = draw(ID, (size.width(), height), text, |c| {
            let whole = Frame { x0, y0: top, x1, y1: bottom };
            self.time.marks(c, whole, true)?;
            let mut y = top;
            for ((strip, head), height) in self.strips.iter().zip(&heads).zip(&heights) {
                for (i, text) in head.iter().enumerate() {
                    c.bold((x0, y + line * i as i32 + line / 2), text, Anchor::Start, Role::Ink)?;
                }
                let y1 = y + height - gap;
                self.panel(c, strip, Frame { x0, y0: y1 - plot, x1, y1 })?;
                y += height;
            }
            self.time.axis(c, whole, size)
        })?;
        let share = |x: i32| f64::from(x) / f64::from(size.width());
        Ok((svg, (share(x0), share(x1))))
    }

    fn panel(&self, c: &Canvas<'_>, strip: &Strip, frame: Frame) -> Result<()> {
        let top = self.top.unwrap_or(strip.peak).max(1) as f64;
        let steps = steps(self.time, &strip.changes);
        let mut chart = c.chart(frame, self.time.extent(), (0.0, top))?;
        c.line(&[(frame.x0, frame.y1), (frame.x1, frame.y1)], Role::Axis, 1)?;
        c.fill(&mut chart, &steps, 0.0, Role::RunArea(strip.slot))?;
        c.curve(&mut chart, steps, Role::RunEdge(strip.slot))?;
        let at = strip.changes.iter().position(|v| *v == strip.peak).unwrap_or(0);
        let share = self.time.middle(at) / self.time.extent().1;
        let x = frame.x0 + (share * f64::from(frame.x1 - frame.x0)) as i32;
        let text = short_count(strip.peak);
        let half = c.text_width(&text) / 2;
        let x = x.clamp(frame.x0 + half, frame.x1 - half);
        let y = frame.y1 - (strip.peak as f64 / top * f64::from(frame.y1 - frame.y0)) as i32;
        c.text((x, y - c.text / 2 - 2), &text, Anchor::Middle, Role::Ink)
    }
}

/// The lines above a panel: its configurations, and room for the peak's number.
fn head(strip: &Strip, size: Size) -> Vec<String> {
    // The names are bold, so a little wider than usual.
    let columns = columns(size.width() * 9 / 10, size.text());
    let mut names: Vec<&str> = strip.names.iter().take(NAMES).map(String::as_str).collect();
    let more = format!("{} more", strip.names.len().saturating_sub(NAMES));
    if strip.names.len() > NAMES {
        names.push(&more);
    }
    let text = wrap(&names.join(" = "), columns, 0);
    text.lines().map(str::to_owned).chain([String::new()]).collect()
}

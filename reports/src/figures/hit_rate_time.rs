//! Hit rate over the time of the trace.

use super::canvas::{Anchor, Canvas, Frame, draw, text_width};
use super::palette::{Role, Slot, slots};
use super::timeline::Timeline;
use super::{DataTable, Figure, Readout, Size, axis};
use crate::document::Document;
use crate::error::Result;
use crate::format::{percent, percent_sign, short_count};
use crate::measure::ratio;
use crate::summary::Named;

const ID: &str = "hit-rate-time";

/// Most curves in the plot.
const CURVES: usize = 8;

/// Requests that an interval needs for a rate worth drawing.
const REQUESTS: u64 = 100;

/// Names listed at one curve.
const NAMES: usize = 5;

/// Runs whose curves are the same, drawn once.
struct Curve {
    names: Vec<String>,
    slot: Slot,
    /// Hit rate in % per bucket; `None` where nothing was requested.
    values: Vec<Option<f64>>,
}

impl Curve {
    fn labels(&self) -> Vec<String> {
        let mut out: Vec<String> = self.names.iter().take(NAMES).cloned().collect();
        if self.names.len() > NAMES {
            out.push(format!("and {} more", self.names.len() - NAMES));
        }
        out
    }

    /// Bucket and value of the last point.
    fn last(&self) -> Option<(usize, f64)> {
        self.values.iter().enumerate().rev().find_map(|(i, v)| Some((i, (*v)?)))
    }

    fn mean(&self) -> f64 {
        let (sum, n) = self.values.iter().flatten().fold((0.0, 0), |(s, n), v| (s + v, n + 1));
        if n == 0 { 0.0 } else { sum / f64::from(n) }
    }
}

/// The figure; `None` without intervals or requests.
pub(super) fn figure(document: &Document, runs: &[Named<'_>]) -> Result<Option<Figure>> {
    let Some(time) = Timeline::new(document, runs) else { return Ok(None) };
    let rates: Vec<Vec<Option<f64>>> = runs.iter().map(|r| rates(&time, r)).collect();
    if time.buckets < 2 || rates.iter().flatten().flatten().next().is_none() {
        return Ok(None);
    }
    let volume = runs.first().map(|r| time.sum(r.run.series.interval_ns, &r.run.series.requests));
    let volume = volume.unwrap_or_default();
    let (busy, idle) = without_idle(&rates, &volume);
    let distinct = curves(runs, &busy);
    let drawn = choose(&distinct);
    let plot = Plot { time: &time, curves: &drawn, volume: &volume };
    let (wide, wide_extent) = plot.svg(Size::Wide)?;
    let (narrow, narrow_extent) = plot.svg(Size::Narrow)?;
    let mut columns = vec![time.head(), "requests".to_owned()];
    columns.extend(runs.iter().map(|r| format!("{}, %", r.name)));
    let rows = (0..time.buckets)
        .map(|i| {
            let mut row = vec![time.row(i), short_count(plot.volume.get(i).copied().unwrap_or(0))];
            row.extend(rates.iter().map(|v| percent(v[i].map(|p| p / 100.0))));
            row
        })
        .collect();
    Ok(Some(Figure {
        id: ID,
        title: format!("IOTLB hit rate over the trace, % of look-ups per {}", time.bucket()),
        caption: caption(&distinct),
        note: note(&distinct, drawn.len(), idle, &time),
        wide,
        narrow,
        table: DataTable { columns, rows },
        readout: Some(Readout { wide: wide_extent, narrow: narrow_extent }),
    }))
}

fn rates(time: &Timeline<'_>, run: &Named<'_>) -> Vec<Option<f64>> {
    let s = &run.run.series;
    let (hits, requests) = (time.sum(s.interval_ns, &s.hits), time.sum(s.interval_ns, &s.requests));
    hits.iter().zip(&requests).map(|(h, n)| ratio(*h, *n).map(|r| r * 100.0)).collect()
}

/// The rates without those of nearly idle intervals, whose few requests would
/// make a curve jump, and whether there were any. A trace that consists of
/// such intervals is left as it is.
fn without_idle(rates: &[Vec<Option<f64>>], volume: &[u64]) -> (Vec<Vec<Option<f64>>>, bool) {
    let sum = |values: &mut dyn Iterator<Item = u64>| values.fold(0, u64::saturating_add);
    let all = sum(&mut volume.iter().copied());
    let kept = sum(&mut volume.iter().copied().filter(|n| *n >= REQUESTS));
    let least = if kept > all / 2 { REQUESTS } else { 0 };
    let mut idle = false;
    let busy = rates
        .iter()
        .map(|values| {
            let keep = |(v, n): (&Option<f64>, &u64)| {
                idle |= v.is_some() && *n < least;
                v.filter(|_| *n >= least)
            };
            values.iter().zip(volume).map(keep).collect()
        })
        .collect();
    (busy, idle)
}

fn curves(runs: &[Named<'_>], rates: &[Vec<Option<f64>>]) -> Vec<Curve> {
    let mut out: Vec<Curve> = Vec::new();
    for ((r, values), slot) in runs.iter().zip(rates).zip(slots(runs.iter().map(|r| r.run))) {
        match out.iter_mut().find(|c| c.values == *values) {
            Some(curve) => curve.names.push(r.name.clone()),
            None => out.push(Curve { names: vec![r.name.clone()], slot, values: values.clone() }),
        }
    }
    out
}

/// All curves, or those at even steps between the lowest and the highest.
fn choose(curves: &[Curve]) -> Vec<&Curve> {
    if curves.len() <= CURVES {
        return curves.iter().collect();
    }
    let mut order: Vec<usize> = (0..curves.len()).collect();
    order.sort_by(|a, b| curves[*a].mean().total_cmp(&curves[*b].mean()));
    let mut picked: Vec<usize> =
        (0..CURVES).map(|i| order[i * (order.len() - 1) / (CURVES - 1)]).collect();
    picked.sort_unstable();
    picked.iter().map(|i| &curves[*i]).collect()
}

fn caption(distinct: &[Curve]) -> String {
    let values = || distinct.iter().flat_map(|c| c.values.iter().flatten().copied());
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(0.0, f64::max);
    let span = |v: f64| percent_sign(Some(v / 100.0));
    if distinct.len() == 1 && distinct[0].names.len() > 1 {
        format!(
            "All configurations have the same curve; it moves between {} and {}.",
            span(low),
            span(high)
        )
    } else {
        format!("Over the trace the hit rate moves between {} and {}.", span(low), span(high))
    }
}

fn note(distinct: &[Curve], drawn: usize, idle: bool, time: &Timeline<'_>) -> String {
    let mut text = String::from("The vertical axis does not start at zero.");
    if idle {
        text.push_str(&format!(" Intervals with fewer than {REQUESTS} requests are not drawn."));
    }
    if distinct.len() > 1 && distinct.iter().any(|c| c.names.len() > 1) {
        text.push_str(" Equal curves are drawn once, under all their names.");
    }
    if drawn < distinct.len() {
        text.push_str(&format!(
            " {drawn} of {} curves are drawn; the table has all.",
            distinct.len()
        ));
    }
    if time.has_marks() {
        text.push(' ');
        text.push_str(&time.marks_note());
    }
    text
}

struct Plot<'a> {
    time: &'a Timeline<'a>,
    curves: &'a [&'a Curve],
    volume: &'a [u64],
}

impl Plot<'_> {
    /// The SVG, and the plot's left and right edge as shares of its width.
    fn svg(&self, size: Size) -> Result<(String, (f64, f64))> {
        let text = size.text();
        let wide = size == Size::Wide;
        let line = text + 4;
        let measure = |s: String| text_width(&s, text);
        let longest = self.curves.iter().flat_map(|c| c.labels()).map(measure).max().unwrap_or(0);
        let labels: i32 = self.curves.iter().map(|c| c.labels().len() as i32).sum();
        // Wide: names at the curves' ends. Narrow: a key above the plot.
        let right = if wide { (longest + 62).min(260) } else { 6 };
        let key = if wide { 0 } else { labels * line + 8 };
        let top = key + if self.time.has_marks() { text + 10 } else { 8 };
        let rows = self.curves.len() as i32 * 6 + labels * line;
        let plot = if wide { 250.max(rows) } else { 230 };
        let x0 = if wide { 48 } else { 52 };
        let frame = Frame { x0, y0: top, x1: size.width() - right, y1: top + plot };
        let strip = Frame { y0: frame.y1 + line + 6, y1: frame.y1 + line + 46, ..frame };
        let height = strip.y1 + text + 14;
        let svg = draw(ID, (size.width(), height), text, |c| {
            self.paint(c, size, frame, strip)?;
            if !wide {
                self.key(c, line)?;
            }
            Ok(())
        })?;
        let share = |x: i32| f64::from(x) / f64::from(size.width());
        Ok((svg, (share(frame.x0), share(frame.x1))))
    }

    fn paint(&self, c: &Canvas<'_>, size: Size, frame: Frame, strip: Frame) -> Result<()> {
        let all = || self.curves.iter().flat_map(|c| c.values.iter().flatten().copied());
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
        let room = ((high - low) * 0.08).max(0.5);
        let ticks =
            axis::between((low - room).max(0.0), (high + room).min(100.0), size.ticks() - 1);
        let (bottom, top) = (ticks[0], ticks[ticks.len() - 1]);
        let y = |v: f64| {
            frame.y1 - ((v - bottom) / (top - bottom) * f64::from(frame.y1 - frame.y0)) as i32
        };
        for (tick, label) in ticks.iter().zip(axis::labels(&ticks)) {
            c.line(&[(frame.x0, y(*tick)), (frame.x1, y(*tick))], Role::Grid, 1)?;
            c.text((frame.x0 - 6, y(*tick)), &label, Anchor::End, Role::Quiet)?;
        }
        self.time.marks(c, Frame { y1: strip.y1, ..frame }, true)?;
        let mut chart = c.chart(frame, self.time.extent(), (bottom, top))?;
        for curve in self.curves {
            for piece in pieces(&curve.values) {
                let mut points: Vec<(f64, f64)> =
                    piece.iter().map(|(i, v)| (self.time.middle(*i), *v)).collect();
                if let [(x, v)] = points[..] {
                    // A lone interval would be invisible as a point.
                    let half = self.time.edge(1) / 2.0;
                    points = vec![(x - half, v), (x + half, v)];
                }
                c.curve(&mut chart, points, Role::Run(curve.slot))?;
            }
        }
        if size == Size::Wide {
            self.end_labels(c, frame, &y)?;
        }
        self.volume(c, size, strip)
    }

    /// Names at the right of the curves, moved apart where they would overlap.
    fn end_labels(&self, c: &Canvas<'_>, frame: Frame, y: &dyn Fn(f64) -> i32) -> Result<()> {
        let line = c.text + 4;
        let (_, end) = self.time.extent();
        let x = |i: usize| {
            let share = self.time.middle(i) / end;
            frame.x0 + (share * f64::from(frame.x1 - frame.x0)).round() as i32
        };
        let mut blocks: Vec<(&Curve, (i32, i32), i32)> = self
            .curves
            .iter()
            .filter_map(|curve| {
                let (i, v) = curve.last()?;
                Some((*curve, (x(i), y(v)), curve.labels().len() as i32 * line))
            })
            .collect();
        blocks.sort_by_key(|(_, (_, at), _)| *at);
        let mut tops: Vec<i32> = Vec::with_capacity(blocks.len());
        let mut free = frame.y0 - 8;
        for (_, (_, at), height) in &blocks {
            let top = (at - height / 2).max(free);
            tops.push(top);
            free = top + height + 6;
        }
        // Push back up what went below the plot.
        let mut limit = frame.y1 + 8;
        for (top, (_, _, height)) in tops.iter_mut().zip(&blocks).rev() {
            *top = (*top).min(limit - height);
            limit = *top - 6;
        }
        for ((curve, (last, at), height), top) in blocks.iter().zip(&tops) {
            let middle = top + height / 2;
            let x = frame.x1;
            c.line(&[(last + 3, *at), (x + 2, *at), (x + 18, middle)], Role::Lead, 1)?;
            c.line(&[(x + 22, middle), (x + 48, middle)], Role::Run(curve.slot), 2)?;
            for (i, label) in curve.labels().iter().enumerate() {
                let y = top + line * i as i32 + line / 2;
                c.text((x + 54, y), &c.fit(label, 206), Anchor::Start, Role::Ink)?;
            }
        }
        Ok(())
    }

    /// Names above the plot, with a piece of the line.
    fn key(&self, c: &Canvas<'_>, line: i32) -> Result<()> {
        let mut y = line / 2;
        for curve in self.curves {
            c.line(&[(0, y), (34, y)], Role::Run(curve.slot), 2)?;
            for label in curve.labels() {
                c.text((42, y), &c.fit(&label, 350), Anchor::Start, Role::Ink)?;
                y += line;
            }
        }
        Ok(())
    }

    /// Requests per interval, so that a reader sees what a rate rests on.
    fn volume(&self, c: &Canvas<'_>, size: Size, strip: Frame) -> Result<()> {
        let peak = self.volume.iter().copied().max().unwrap_or(0).max(1);
        let mut chart = c.chart(strip, self.time.extent(), (0.0, peak as f64))?;
        let steps = steps(self.time, self.volume);
        c.fill(&mut chart, &steps, 0.0, Role::Shade)?;
        let text = format!("requests, at most {} per interval", short_count(peak));
        let at = (strip.x0, strip.y0 - c.text / 2 - 2);
        c.text(at, &text, Anchor::Start, Role::Quiet)?;
        self.time.axis(c, strip, size)
    }
}

/// The outline of bars without gaps.
pub(super) fn steps(time: &Timeline<'_>, values: &[u64]) -> Vec<(f64, f64)> {
    values
        .iter()
        .enumerate()
        .flat_map(|(i, v)| [(time.edge(i), *v as f64), (time.edge(i + 1), *v as f64)])
        .collect()
}

/// Runs of values without holes.
fn pieces(values: &[Option<f64>]) -> Vec<Vec<(usize, f64)>> {
    let mut out: Vec<Vec<(usize, f64)>> = Vec::new();
    let mut open = false;
    for (i, v) in values.iter().enumerate() {
        match v {
            Some(v) if open => out.last_mut().into_iter().for_each(|p| p.push((i, *v))),
            Some(v) => out.push(vec![(i, *v)]),
            None => {}
        }
        open = v.is_some();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_split_a_curve() {
        let p = pieces(&[None, Some(1.0), Some(2.0), None, Some(3.0)]);
        assert_eq!(p, vec![vec![(1, 1.0), (2, 2.0)], vec![(4, 3.0)]]);
    }
}

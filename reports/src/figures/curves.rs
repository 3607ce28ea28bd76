//! Curves of several policies over one parameter, logarithmic axes.

use super::canvas::{Anchor, Canvas, Frame, draw, text_width};
use super::palette::{Role, Slot};
use super::{DataTable, Size};
use crate::error::Result;
use crate::format::rate;

/// One curve.
pub(crate) struct Curve {
    /// Name.
    pub name: String,
    /// Colour and dashes.
    pub slot: Slot,
    /// Points by x, both positive on logarithmic axes.
    pub points: Vec<(f64, f64)>,
}

/// A figure of curves; y is logarithmic.
pub(crate) struct Curves {
    /// Identifier.
    pub figure: &'static str,
    /// x is logarithmic, too.
    pub log_x: bool,
    /// Ticks of x with their labels.
    pub ticks: Vec<(f64, String)>,
    /// Name of the x axis.
    pub x: String,
    /// Label of a decade of y.
    pub y: fn(f64) -> String,
    /// Curves.
    pub curves: Vec<Curve>,
}

impl Curves {
    /// The numbers behind the figure, one row per x.
    pub(crate) fn table(&self) -> DataTable {
        let mut columns = vec![self.x.clone()];
        columns.extend(self.curves.iter().map(|c| c.name.clone()));
        let row = |(x, label): &(f64, String)| {
            let mut row = vec![label.clone()];
            for c in &self.curves {
                let y = c.points.iter().find(|p| p.0 == *x).map(|p| p.1);
                row.push(rate(y));
            }
            row
        };
        DataTable { columns, rows: self.ticks.iter().map(row).collect() }
    }

    fn along(&self, x: f64) -> f64 {
        if self.log_x { x.log10() } else { x }
    }

    /// The drawing.
    pub(crate) fn svg(&self, size: Size) -> Result<String> {
        let wide = size == Size::Wide;
        let (width, text) = (size.width(), size.text());
        let step = text + 7;
        let longest = self.curves.iter().map(|c| text_width(&c.name, text)).max().unwrap_or(0);
        let columns = if longest + 60 > width / 2 { 1 } else { 2 };
        let key_rows = if wide { 0 } else { self.curves.len().div_ceil(columns) as i32 };
        let top = 12 + key_rows * step;
        let frame = Frame {
            x0: 58,
            y0: top,
            x1: if wide { width - (longest + 24).clamp(128, 300) } else { width - 14 },
            y1: top + if wide { 290 } else { 270 },
        };
        let ys = || self.curves.iter().flat_map(|c| c.points.iter().map(|p| p.1));
        let low = ys().fold(f64::INFINITY, f64::min).log10().floor();
        let high = ys().fold(0.0, f64::max).log10().ceil().max(low + 1.0);
        let xs = || self.ticks.iter().map(|t| self.along(t.0));
        let (left, right) =
            (xs().fold(f64::INFINITY, f64::min), xs().fold(f64::NEG_INFINITY, f64::max));
        let px = |x: f64| {
            let share = (self.along(x) - left) / (right - left).max(1e-9);
            frame.x0 + 6 + (share * f64::from(frame.x1 - frame.x0 - 12)).round() as i32
        };
        let py = |y: f64| {
            let share = (y.log10() - low) / (high - low);
            frame.y1 - (share * f64::from(frame.y1 - frame.y0)).round() as i32
        };
        draw(self.figure, (width, frame.y1 + 2 * step + 6), text, |c| {
            let every = if high - low > 6.0 { 2 } else { 1 };
            for decade in low as i32..=high as i32 {
                let y = py(10f64.powi(decade));
                let role = if decade == low as i32 { Role::Axis } else { Role::Grid };
                c.line(&[(frame.x0, y), (frame.x1, y)], role, 1)?;
                if (decade - low as i32) % every == 0 {
                    let label = (self.y)(10f64.powi(decade));
                    c.text((frame.x0 - 6, y), &label, Anchor::End, Role::Quiet)?;
                }
            }
            let mut free = i32::MIN;
            for (x, label) in &self.ticks {
                let (at, half) = (px(*x), c.text_width(label) / 2);
                c.line(&[(at, frame.y1), (at, frame.y1 + 4)], Role::Axis, 1)?;
                if at - half > free {
                    free = at + half + 4;
                    c.text((at, frame.y1 + 8 + text / 2), label, Anchor::Middle, Role::Quiet)?;
                }
            }
            let under = (frame.x1, frame.y1 + 8 + step + text / 2);
            c.text(under, &self.x, Anchor::End, Role::Ink)?;
            for curve in &self.curves {
                let points: Vec<(i32, i32)> =
                    curve.points.iter().map(|p| (px(p.0), py(p.1))).collect();
                c.line(&points, Role::Run(curve.slot), 2)?;
                for (x, y) in points {
                    let dot = Frame { x0: x - 3, y0: y - 3, x1: x + 3, y1: y + 3 };
                    c.rect(dot, Role::Run(curve.slot))?;
                }
            }
            if wide { self.names(c, frame, step, &py) } else { self.key(c, width, columns, step) }
        })
    }

    /// Names beside the ends of the curves, pushed apart.
    fn names(
        &self,
        c: &Canvas<'_>,
        frame: Frame,
        step: i32,
        py: &impl Fn(f64) -> i32,
    ) -> Result<()> {
        let mut ends: Vec<(i32, &Curve)> = self
            .curves
            .iter()
            .filter_map(|curve| curve.points.last().map(|p| (py(p.1), curve)))
            .collect();
        ends.sort_by_key(|e| e.0);
        let mut at: Vec<i32> = ends.iter().map(|e| e.0).collect();
        for i in 1..at.len() {
            at[i] = at[i].max(at[i - 1] + step - 3);
        }
        let over = at.last().map_or(0, |last| (last - frame.y1).max(0));
        for i in (0..at.len()).rev() {
            let limit = if i + 1 < at.len() { at[i + 1] - step + 3 } else { at[i] - over };
            at[i] = at[i].min(limit);
        }
        for ((y, curve), at) in ends.iter().zip(at) {
            c.line(&[(frame.x1, *y), (frame.x1 + 14, at)], Role::Lead, 1)?;
            c.text((frame.x1 + 19, at), &curve.name, Anchor::Start, Role::Ink)?;
        }
        Ok(())
    }

    /// Names above the plot.
    fn key(&self, c: &Canvas<'_>, width: i32, columns: usize, step: i32) -> Result<()> {
        for (i, curve) in self.curves.iter().enumerate() {
            let x = 6 + (i % columns) as i32 * width / 2;
            let y = 10 + (i / columns) as i32 * step;
            c.line(&[(x, y), (x + 34, y)], Role::Run(curve.slot), 2)?;
            c.text((x + 42, y), &curve.name, Anchor::Start, Role::Ink)?;
        }
        Ok(())
    }
}

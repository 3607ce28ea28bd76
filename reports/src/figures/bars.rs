//! Horizontal bars: one row per configuration, in one or several panels.

use super::Size;
use super::axis;
use super::canvas::{Anchor, Canvas, Frame, draw, text_width};
use super::palette::Role;
use crate::error::Result;

/// A bar made of segments, and the number at its end.
pub(super) struct Bar {
    pub segments: Vec<(f64, Role)>,
    pub end: String,
}

impl Bar {
    fn total(&self) -> f64 {
        self.segments.iter().map(|(v, _)| v).sum()
    }
}

/// One set of bars with its own title, one bar per row of the figure.
pub(super) struct Panel {
    /// Empty for a figure of one panel.
    pub title: String,
    pub bars: Vec<Bar>,
    /// Largest value of the axis; `None`: what the bars need.
    pub max: Option<f64>,
}

/// A figure of horizontal bars.
pub(super) struct Bars {
    pub figure: &'static str,
    /// Names of the rows, the same in all panels.
    pub rows: Vec<String>,
    pub panels: Vec<Panel>,
    /// What the segments' colours mean; empty if the colours are the rows'.
    pub key: Vec<(&'static str, Role)>,
    /// Panels side by side when there is room.
    pub columns: usize,
}

/// Sizes of the parts, in drawing units.
struct Layout {
    /// Width of the names' column; 0 if names stand above the bars.
    names: i32,
    /// Width of the plot, without the numbers at the ends.
    plot: i32,
    /// Room for the numbers at the bars' ends.
    ends: i32,
    columns: i32,
    gap: i32,
    row: i32,
    bar: i32,
    title: i32,
    axis: i32,
}

impl Bars {
    /// The figure's SVG.
    pub(super) fn svg(&self, size: Size) -> Result<String> {
        let text = size.text();
        let measure = |s: &str| text_width(s, text);
        let wide = size == Size::Wide;
        let longest = self.rows.iter().map(|n| measure(n)).max().unwrap_or(0);
        let names = if wide { (longest + 12).min(230) } else { 0 };
        let ends =
            self.panels.iter().flat_map(|p| &p.bars).map(|b| measure(&b.end)).max().unwrap_or(0)
                + 10;
        let columns = if wide { self.columns.max(1).min(self.panels.len()) as i32 } else { 1 };
        let gap = 20;
        let plot = (size.width() - names - columns * ends - (columns - 1) * gap) / columns;
        let titled = self.panels.iter().any(|p| !p.title.is_empty());
        let layout = Layout {
            names,
            plot: plot.max(60),
            ends,
            columns,
            gap,
            row: if wide { 24 } else { 48 },
            bar: if wide { 14 } else { 16 },
            title: if titled { text + 12 } else { 0 },
            axis: text + 10,
        };
        let key = self.key_layout(size.width(), text, &measure);
        let key_height = key.last().map_or(0, |(_, y)| y + text + if titled { 18 } else { 10 });
        let panel_height = layout.title
            + layout.row * self.rows.len() as i32
            + 4
            + layout.axis
            + if titled { 22 } else { 0 };
        let lines = (self.panels.len() as i32 + columns - 1) / columns;
        let height = key_height + lines * panel_height - if titled { 22 } else { 0 };
        draw(self.figure, (size.width(), height), text, |c| {
            for ((label, role), (x, y)) in self.key.iter().zip(&key) {
                let middle = y + text / 2 + 2;
                c.rect(Frame { x0: *x, y0: middle - 6, x1: x + 18, y1: middle + 6 }, *role)?;
                c.text((x + 24, middle), label, Anchor::Start, Role::Ink)?;
            }
            for (i, panel) in self.panels.iter().enumerate() {
                let (column, line) = (i as i32 % columns, i as i32 / columns);
                let x0 = layout.names + column * (layout.plot + layout.ends + layout.gap);
                let y0 = key_height + line * panel_height;
                self.panel(c, size, &layout, panel, (x0, y0), column == 0)?;
            }
            Ok(())
        })
    }

    /// Places of the key's entries, wrapped to the width.
    fn key_layout(&self, width: i32, text: i32, measure: &dyn Fn(&str) -> i32) -> Vec<(i32, i32)> {
        let (mut x, mut y) = (0, 0);
        self.key
            .iter()
            .map(|(label, _)| {
                let w = 24 + measure(label) + 18;
                if x > 0 && x + w - 18 > width {
                    x = 0;
                    y += text + 8;
                }
                let at = (x, y);
                x += w;
                at
            })
            .collect()
    }

    fn panel(
        &self,
        c: &Canvas<'_>,
        size: Size,
        l: &Layout,
        panel: &Panel,
        (x0, y0): (i32, i32),
        first: bool,
    ) -> Result<()> {
        if !panel.title.is_empty() {
            let title = c.fit(&panel.title, l.plot + l.ends);
            c.bold((x0, y0 + c.text / 2 + 1), &title, Anchor::Start, Role::Ink)?;
        }
        let top = y0 + l.title;
        let bottom = top + l.row * self.rows.len() as i32 + 4;
        let largest =
            panel.max.unwrap_or_else(|| panel.bars.iter().map(Bar::total).fold(0.0, f64::max));
        let target = if l.columns > 1 { 3 } else { size.ticks() };
        let ticks = axis::from_zero(largest, target);
        let end = ticks.last().copied().unwrap_or(1.0);
        let at = |v: f64| x0 + (v / end * f64::from(l.plot)).round() as i32;
        let labels = axis::labels(&ticks);
        for (i, (tick, label)) in ticks.iter().zip(&labels).enumerate() {
            let x = at(*tick);
            let role = if i == 0 { Role::Axis } else { Role::Grid };
            c.line(&[(x, top), (x, bottom)], role, 1)?;
            // Without names at its left, the first label would leave the drawing.
            let anchor = if i == 0 && l.names == 0 { Anchor::Start } else { Anchor::Middle };
            c.text((x, bottom + l.axis / 2 + 2), label, anchor, Role::Quiet)?;
        }
        for (i, (name, bar)) in self.rows.iter().zip(&panel.bars).enumerate() {
            let row = top + l.row * i as i32;
            let middle =
                if l.names > 0 { row + l.row / 2 + 2 } else { row + l.row - l.bar / 2 - 1 };
            if l.names == 0 {
                c.text(
                    (x0, middle - l.bar / 2 - c.text / 2 - 4),
                    &c.fit(name, l.plot + l.ends),
                    Anchor::Start,
                    Role::Ink,
                )?;
            } else if first {
                c.text((x0 - 10, middle), &c.fit(name, l.names - 10), Anchor::End, Role::Ink)?;
            }
            let (y0, y1) = (middle - l.bar / 2, middle + l.bar / 2);
            let mut sum = 0.0;
            for (value, role) in &bar.segments {
                let (a, b) = (at(sum), at(sum + value));
                sum += value;
                // A gap of one unit tells neighbouring segments apart in grey.
                let x0 = if a > x0 && b - a > 2 { a + 1 } else { a };
                c.rect(Frame { x0, y0, x1: b, y1 }, *role)?;
            }
            // Something tiny is still not nothing.
            if sum > 0.0 && at(sum) == x0 {
                c.rect(Frame { x0, y0, x1: x0 + 1, y1 }, Role::Ink)?;
            }
            let quiet = if sum == 0.0 { Role::Quiet } else { Role::Ink };
            c.text((at(sum) + 6, middle), &bar.end, Anchor::Start, quiet)?;
        }
        Ok(())
    }
}

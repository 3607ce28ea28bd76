//! Vertical bars side by side: parts of a trace, classes of a distribution.

use super::canvas::{Anchor, Frame, draw, text_width};
use super::palette::{Role, Slot};
use super::{Readout, Size, axis};
use crate::error::Result;

/// A figure of vertical bars from zero.
pub(crate) struct Columns {
    /// Identifier.
    pub figure: &'static str,
    /// Heights, left to right.
    pub bars: Vec<f64>,
    /// Places and texts of ticks; the first bar reaches from 0 to 1.
    pub ticks: Vec<(f64, String)>,
    /// Name of the x axis.
    pub x: String,
}

impl Columns {
    /// The drawing, and where its plot lies.
    pub(crate) fn svg(&self, size: Size) -> Result<(String, (f64, f64))> {
        let (width, text) = (size.width(), size.text());
        let step = text + 7;
        let most = self.bars.iter().fold(0.0f64, |m, b| m.max(*b));
        let ticks = axis::from_zero(most, size.ticks() - 1);
        let labels = axis::labels(&ticks);
        let left = labels.iter().map(|l| text_width(l, text)).max().unwrap_or(0) + 12;
        let high = if size == Size::Wide { 230 } else { 210 };
        let frame = Frame { x0: left, y0: 10, x1: width - 14, y1: 10 + high };
        let top = ticks.last().copied().unwrap_or(1.0);
        let px = |at: f64| {
            let share = at / self.bars.len().max(1) as f64;
            frame.x0 + (share * f64::from(frame.x1 - frame.x0)).round() as i32
        };
        let py = |v: f64| frame.y1 - (v / top * f64::from(high)).round() as i32;
        let gap = i32::from(px(1.0) - px(0.0) >= 4);
        let svg = draw(self.figure, (width, frame.y1 + 2 * step + 6), text, |c| {
            for (tick, label) in ticks.iter().zip(&labels) {
                let role = if *tick == 0.0 { Role::Axis } else { Role::Grid };
                c.line(&[(frame.x0, py(*tick)), (frame.x1, py(*tick))], role, 1)?;
                c.text((frame.x0 - 6, py(*tick)), label, Anchor::End, Role::Quiet)?;
            }
            for (i, bar) in self.bars.iter().enumerate().filter(|b| *b.1 > 0.0) {
                let (x0, x1) = (px(i as f64), px(i as f64 + 1.0));
                // What is there shows, however little.
                let y0 = py(*bar).min(frame.y1 - 1);
                let x1 = (x1 - gap).max(x0 + 1);
                c.rect(Frame { x0, y0, x1, y1: frame.y1 }, Role::Run(Slot::FIRST))?;
            }
            let mut free = i32::MIN;
            for (at, label) in &self.ticks {
                let (x, half) = (px(*at), c.text_width(label) / 2);
                c.line(&[(x, frame.y1), (x, frame.y1 + 4)], Role::Axis, 1)?;
                let middle = x.clamp(half, (width - half).max(half));
                if middle - half > free {
                    free = middle + half + 6;
                    let under = (middle, frame.y1 + 8 + text / 2);
                    c.text(under, label, Anchor::Middle, Role::Quiet)?;
                }
            }
            let under = (frame.x1, frame.y1 + 8 + step + text / 2);
            c.text(under, &self.x, Anchor::End, Role::Ink)
        })?;
        let share = |x: i32| f64::from(x) / f64::from(width);
        Ok((svg, (share(frame.x0), share(frame.x1))))
    }

    /// Both drawings and the place of the read-out.
    pub(crate) fn both(&self) -> Result<(String, String, Readout)> {
        let (wide, a) = self.svg(Size::Wide)?;
        let (narrow, b) = self.svg(Size::Narrow)?;
        Ok((wide, narrow, Readout { wide: a, narrow: b }))
    }
}

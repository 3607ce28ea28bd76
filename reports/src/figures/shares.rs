//! Curves of shares, 0 to 100 %, over powers of two.

use super::Size;
use super::canvas::{Anchor, Frame, draw, text_width};
use super::palette::{Role, Slot};
use crate::error::Result;

/// A figure of cumulative shares.
pub(crate) struct Shares {
    /// Identifier.
    pub figure: &'static str,
    /// Name and share in % at 1, 2, 4, ... of each curve, two at most.
    pub curves: [(String, Vec<f64>); 2],
    /// Labels of 1, 2, 4, ...
    pub labels: Vec<String>,
    /// Name of the x axis.
    pub x: String,
}

impl Shares {
    /// The drawing.
    pub(crate) fn svg(&self, size: Size) -> Result<String> {
        let (width, text) = (size.width(), size.text());
        let step = text + 7;
        let wide = size == Size::Wide;
        let keys = if wide { 1 } else { self.curves.len() as i32 };
        let top = keys * step + 10;
        let high = if wide { 260 } else { 230 };
        let frame = Frame { x0: 54, y0: top, x1: width - 14, y1: top + high };
        let last = self.labels.len().saturating_sub(1).max(1) as f64;
        let px =
            |i: f64| frame.x0 + 6 + (i / last * f64::from(frame.x1 - frame.x0 - 12)).round() as i32;
        let py = |v: f64| frame.y1 - (v / 100.0 * f64::from(high)).round() as i32;
        draw(self.figure, (width, frame.y1 + 2 * step + 6), text, |c| {
            for tick in [0, 20, 40, 60, 80, 100] {
                let y = py(f64::from(tick));
                let role = if tick == 0 { Role::Axis } else { Role::Grid };
                c.line(&[(frame.x0, y), (frame.x1, y)], role, 1)?;
                c.text((frame.x0 - 6, y), &format!("{tick} %"), Anchor::End, Role::Quiet)?;
            }
            let mut free = i32::MIN;
            for (i, label) in self.labels.iter().enumerate() {
                let (x, half) = (px(i as f64), c.text_width(label) / 2);
                c.line(&[(x, frame.y1), (x, frame.y1 + 4)], Role::Axis, 1)?;
                let middle = x.min(width - half);
                if middle - half > free {
                    free = middle + half + 6;
                    let under = (middle, frame.y1 + 8 + text / 2);
                    c.text(under, label, Anchor::Middle, Role::Quiet)?;
                }
            }
            let under = (frame.x1, frame.y1 + 8 + step + text / 2);
            c.text(under, &self.x, Anchor::End, Role::Ink)?;
            let mut at = (0, step / 2);
            for ((name, values), slot) in self.curves.iter().zip([Slot::FIRST, Slot::SECOND]) {
                let points: Vec<(i32, i32)> =
                    values.iter().enumerate().map(|(i, v)| (px(i as f64), py(*v))).collect();
                c.line(&points, Role::Run(slot), 2)?;
                for (x, y) in points {
                    let dot = Frame { x0: x - 3, y0: y - 3, x1: x + 3, y1: y + 3 };
                    c.rect(dot, Role::Run(slot))?;
                }
                c.line(&[(at.0, at.1), (at.0 + 34, at.1)], Role::Run(slot), 2)?;
                c.text((at.0 + 42, at.1), name, Anchor::Start, Role::Ink)?;
                if wide {
                    at.0 += 66 + text_width(name, text);
                } else {
                    at.1 += step;
                }
            }
            Ok(())
        })
    }
}

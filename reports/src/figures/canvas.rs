//! A thin layer over plotters: roles instead of colours, errors of this crate,
//! and SVG that the page's style sheet can colour.

use std::fmt::Display;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    Cartesian2d, ChartBuilder, ChartContext, DrawingArea, IntoDrawingArea, PathElement, Polygon,
    Rectangle, SVGBackend, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoTextStyle, ShapeStyle};

use super::palette::{Role, classes};
use crate::error::{Error, Result};
use crate::format::{clean, truncate};

/// Where text stands relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// Begins at the point.
    Start,
    /// Is centred on the point.
    Middle,
    /// Ends at the point.
    End,
}

/// A drawing in progress; coordinates are the SVG's units, from the top left.
pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
    figure: &'static str,
    /// Height of text.
    pub(super) text: i32,
}

/// Data coordinates inside a [`Canvas`].
pub(super) type Chart<'a, 'b> =
    ChartContext<'b, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A rectangle: left, top, right, bottom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub x0: i32,
    pub y0: i32,
    pub x1: i32,
    pub y1: i32,
}

/// Width of an average character as a share of the text's height. Browsers
/// choose the font, so this is an upper estimate for common system fonts.
const CHARACTER: f64 = 0.59;

/// About how wide a text of this height is.
pub(super) fn text_width(text: &str, height: i32) -> i32 {
    (crate::format::width(text) as f64 * f64::from(height) * CHARACTER).ceil() as i32
}

/// About how many characters of this height fit into `width`.
pub(super) fn columns(width: i32, height: i32) -> usize {
    // A little more than exactly, so that a measured text fits its own width.
    ((f64::from(width) + 1.0) / (f64::from(height) * CHARACTER)).max(1.0) as usize
}

/// Draws a figure and returns its SVG.
pub(super) fn draw(
    figure: &'static str,
    (width, height): (i32, i32),
    text: i32,
    paint: impl FnOnce(&Canvas<'_>) -> Result<()>,
) -> Result<String> {
    let mut svg = String::new();
    {
        let area =
            SVGBackend::with_string(&mut svg, (width as u32, height as u32)).into_drawing_area();
        let canvas = Canvas { area, figure, text };
        paint(&canvas)?;
        canvas.area.present().map_err(|e| canvas.failed(e))?;
    }
    Ok(restyle(&svg))
}

impl<'a> Canvas<'a> {
    fn failed(&self, e: impl Display) -> Error {
        Error::Figure { figure: self.figure, reason: e.to_string() }
    }

    /// A filled rectangle; nothing if it has no area.
    pub(super) fn rect(&self, f: Frame, role: Role) -> Result<()> {
        if f.x1 <= f.x0 || f.y1 <= f.y0 {
            return Ok(());
        }
        let shape = Rectangle::new([(f.x0, f.y0), (f.x1, f.y1)], role.sentinel().filled());
        self.area.draw(&shape).map_err(|e| self.failed(e))
    }

    /// A line through points.
    pub(super) fn line(&self, points: &[(i32, i32)], role: Role, width: u32) -> Result<()> {
        let style =
            ShapeStyle { color: role.sentinel().to_rgba(), filled: false, stroke_width: width };
        self.area.draw(&PathElement::new(points.to_vec(), style)).map_err(|e| self.failed(e))
    }

    /// Text, vertically centred on the point.
    pub(super) fn text(
        &self,
        at: (i32, i32),
        text: &str,
        anchor: Anchor,
        role: Role,
    ) -> Result<()> {
        self.label(at, text, anchor, role, false)
    }

    /// Bold text, vertically centred on the point.
    pub(super) fn bold(
        &self,
        at: (i32, i32),
        text: &str,
        anchor: Anchor,
        role: Role,
    ) -> Result<()> {
        self.label(at, text, anchor, role, true)
    }

    fn label(
        &self,
        at: (i32, i32),
        text: &str,
        anchor: Anchor,
        role: Role,
        bold: bool,
    ) -> Result<()> {
        use plotters::style::FontStyle;
        let h = match anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        // plotters' SVG backend divides font sizes by 1.24.
        let size = f64::from(self.text) * 1.24;
        let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
        let colour = role.sentinel();
        let style = ("sans-serif", size, style)
            .into_text_style(&self.area)
            .color(&colour)
            .pos(Pos::new(h, VPos::Center));
        self.area.draw(&Text::new(clean(text).into_owned(), at, style)).map_err(|e| self.failed(e))
    }

    /// About how wide a text is; see [`text_width`].
    pub(super) fn text_width(&self, text: &str) -> i32 {
        text_width(text, self.text)
    }

    /// The text, shortened to about `width`.
    pub(super) fn fit(&self, text: &str, width: i32) -> String {
        truncate(&clean(text), columns(width, self.text)).into_owned()
    }

    /// A chart with data coordinates inside `frame`.
    pub(super) fn chart(
        &self,
        frame: Frame,
        x: (f64, f64),
        y: (f64, f64),
    ) -> Result<Chart<'a, '_>> {
        let area = self.area.clone().shrink(
            (frame.x0, frame.y0),
            ((frame.x1 - frame.x0) as u32, (frame.y1 - frame.y0) as u32),
        );
        ChartBuilder::on(&area).build_cartesian_2d(x.0..x.1, y.0..y.1).map_err(|e| self.failed(e))
    }

    /// A curve in a chart.
    pub(super) fn curve(
        &self,
        chart: &mut Chart<'a, '_>,
        points: Vec<(f64, f64)>,
        role: Role,
    ) -> Result<()> {
        let style = ShapeStyle { color: role.sentinel().to_rgba(), filled: false, stroke_width: 2 };
        chart
            .draw_series(std::iter::once(PathElement::new(points, style)))
            .map(drop)
            .map_err(|e| self.failed(e))
    }

    /// The area between a curve and `base` in a chart.
    pub(super) fn fill(
        &self,
        chart: &mut Chart<'a, '_>,
        points: &[(f64, f64)],
        base: f64,
        role: Role,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return Ok(()) };
        let mut outline = Vec::with_capacity(points.len() + 2);
        outline.push((first.0, base));
        outline.extend_from_slice(points);
        outline.push((last.0, base));
        chart
            .draw_series(std::iter::once(Polygon::new(outline, role.sentinel().filled())))
            .map(drop)
            .map_err(|e| self.failed(e))
    }
}

/// Turns sentinel colours into classes and drops what the style sheet sets.
///
/// Texts from files cannot be mistaken for attributes: plotters escapes their
/// quotes and angle brackets.
fn restyle(svg: &str) -> String {
    let classes = classes();
    let mut out = String::with_capacity(svg.len());
    for line in svg.lines() {
        let mut line = line.to_owned();
        if line.starts_with("<svg ") {
            // The style sheet sets the size; the figure's caption describes it.
            let view = line.find("viewBox").unwrap_or(0);
            line = format!("<svg aria-hidden=\"true\" focusable=\"false\" {}", &line[view..]);
        } else if line.starts_with('<') {
            for noise in [" opacity=\"1\"", " stroke=\"none\"", " fill=\"none\"", " dy=\"0.5ex\""] {
                line = line.replacen(noise, "", 1);
            }
            drop_attribute(&mut line, " font-family=\"");
            drop_attribute(&mut line, " font-size=\"");
            for (attribute, way) in [(" fill=\"", 'f'), (" stroke=\"", 'l')] {
                if let Some((whole, value)) = find_attribute(&line, attribute)
                    && let Some((_, class)) = classes.iter().find(|(hex, _)| hex == value)
                {
                    line.replace_range(whole, &format!(" class=\"{way} {class}\""));
                }
            }
            line = line.replace(" \"", "\"");
        }
        out.push_str(&line);
    }
    out
}

fn drop_attribute(line: &mut String, start: &str) {
    if let Some((whole, _)) = find_attribute(line, start) {
        line.replace_range(whole, "");
    }
}

/// Where the attribute that begins with `start` lies in an element, and its value.
fn find_attribute<'a>(line: &'a str, start: &str) -> Option<(Range<usize>, &'a str)> {
    let at = line.find(start)?;
    let from = at + start.len();
    let to = from + line[from..].find('"')?;
    Some((at..to + 1, &line[from..to]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinels_become_classes_and_text_stays_text() {
        let svg = draw("test", (100, 50), 13, |c| {
            c.rect(Frame { x0: 0, y0: 0, x1: 10, y1: 10 }, Role::Cause(3))?;
            c.line(&[(0, 0), (5, 5)], Role::Grid, 1)?;
            c.text((5, 5), "<script>\" fill=\"#01FE00\" x=\"", Anchor::Start, Role::Ink)
        })
        .unwrap();
        assert!(svg.contains("class=\"f c3\""), "{svg}");
        assert!(svg.contains("class=\"l grid\""), "{svg}");
        assert!(svg.contains("&lt;script&gt;&quot; fill=&quot;#01FE00&quot; x=&quot;"), "{svg}");
        assert!(!svg.contains("fill=\"#") && !svg.contains("stroke=\"#"), "{svg}");
    }
}

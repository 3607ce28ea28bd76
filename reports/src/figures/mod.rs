//! Figures: SVG made with plotters, drawn twice (wide and narrow) and coloured
//! by the page's style sheet, with the table of the numbers behind each.

mod axis;
mod bars;
mod canvas;
mod columns;
mod curves;
mod devices;
mod hit_rate;
mod hit_rate_time;
mod miss_causes;
mod palette;
mod shadow_time;
mod shadow_work;
mod shares;
mod timeline;
mod timing;
mod walk_reads;

pub(crate) use columns::Columns;
pub(crate) use curves::{Curve, Curves};
pub(crate) use palette::Slot;
pub(crate) use palette::{PATTERNS, slot_class, slots};
pub(crate) use shares::Shares;
pub(crate) use timing::timing;

use crate::document::Document;
use crate::error::Result;
use crate::summary::Named;

/// One figure of a document's section.
#[derive(Debug)]
pub(crate) struct Figure {
    /// Identifier within the section.
    pub id: &'static str,
    /// What is shown, with its unit.
    pub title: String,
    /// What it says.
    pub caption: String,
    /// How to read it, if that is not plain.
    pub note: String,
    /// SVG for wide pages.
    pub wide: String,
    /// SVG for narrow pages.
    pub narrow: String,
    /// The numbers.
    pub table: DataTable,
    /// For figures over time: where the plot lies in the wide and the narrow
    /// SVG, for the page's read-out.
    pub readout: Option<Readout>,
}

/// Horizontal extent of the plot, as shares of the SVG's width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readout {
    /// Left and right edge in the wide SVG.
    pub wide: (f64, f64),
    /// Left and right edge in the narrow SVG.
    pub narrow: (f64, f64),
}

/// Numbers behind a figure, as they are printed.
#[derive(Debug, Default)]
pub(crate) struct DataTable {
    /// Heads; the first column holds names or times, the others numbers.
    pub columns: Vec<String>,
    /// Cells.
    pub rows: Vec<Vec<String>>,
}

/// The two renderings of each figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// At least about 700 px.
    Wide,
    /// Down to 320 px: fewer ticks, larger text, names above the bars.
    Narrow,
}

impl Size {
    /// Width of the drawing in its own units.
    fn width(self) -> i32 {
        match self {
            Size::Wide => 760,
            Size::Narrow => 400,
        }
    }

    /// Height of text in the drawing's units.
    fn text(self) -> i32 {
        match self {
            Size::Wide => 13,
            Size::Narrow => 15,
        }
    }

    /// About how many ticks an axis has.
    fn ticks(self) -> usize {
        match self {
            Size::Wide => 6,
            Size::Narrow => 4,
        }
    }
}

/// All figures of a document that have something to show.
pub(crate) fn all(document: &Document, runs: &[Named<'_>]) -> Result<Vec<Figure>> {
    let made = [
        hit_rate::figure(runs)?,
        miss_causes::figure(runs)?,
        walk_reads::figure(runs)?,
        shadow_work::figure(runs)?,
        hit_rate_time::figure(document, runs)?,
        shadow_time::figure(document, runs)?,
        devices::figure(runs)?,
    ];
    Ok(made.into_iter().flatten().collect())
}

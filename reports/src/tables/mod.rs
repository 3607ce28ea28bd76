//! Text for terminals: at most [`WIDTH`] columns, no colours, no control
//! characters from files.

mod compare;
pub(crate) mod exposure;
mod replay;
pub(crate) mod timing;
mod verify;

pub use compare::render_comparison;
pub use replay::render_replay;
pub(crate) use verify::checks;
pub use verify::render_verify;

use crate::format::{clean, width, wrap};

/// Widest line.
pub(crate) const WIDTH: usize = 80;

/// Pads `text` on the right to `columns`.
fn left(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// Pads `text` on the left to `columns`.
fn right(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(width(text))))
}

/// Appends `text` wrapped to the terminal's width, without control characters
/// and with plain spaces only.
fn paragraph(out: &mut String, text: &str, indent: usize) {
    let plain = clean(text).replace('\u{a0}', " ");
    out.push_str(&wrap(&plain, WIDTH, indent));
    out.push('\n');
}

//! How long unmapped memory stays reachable, one row per configuration.

use super::{WIDTH, left, paragraph, right};
use crate::format::{rate, short_count, thousands, truncate, width};
use crate::summary::Named;

/// Stale accesses shown per run; `result.json` has all that were kept.
const SHOWN: usize = 3;

/// What the columns say, for the terminal and the page.
pub(crate) const COLUMNS: [&str; 7] =
    ["unmaps", "at once", "mean", "longest", "mean us", "open", "stale DMA"];

/// What is measured, in one sentence.
pub(crate) const MEANING: &str = "Exposure: events from an unmap until no IOTLB, shadow or nested \
                                  cache entry gives a translation that it removed";

/// The cells of a run; `None` if it did not measure exposure.
pub(crate) fn cells(r: &Named<'_>) -> Option<[String; 7]> {
    let e = r.run.exposure.as_ref()?;
    Some([
        short_count(e.unmaps),
        short_count(e.closed_at_once),
        rate(Some(e.events_mean)),
        short_count(e.events_max),
        rate(Some(e.ns_mean / 1000.0)),
        short_count(e.open_at_end),
        short_count(e.stale_dma),
    ])
}

/// A table of the runs that measured exposure; nothing if none did.
pub(super) fn section(out: &mut String, runs: &[Named<'_>]) {
    let rows: Vec<(&Named<'_>, [String; 7])> =
        runs.iter().filter_map(|r| Some((r, cells(r)?))).collect();
    if rows.is_empty() {
        return;
    }
    out.push('\n');
    paragraph(out, &format!("{MEANING}:"), 2);
    let widths: Vec<usize> = COLUMNS
        .iter()
        .enumerate()
        .map(|(i, head)| rows.iter().map(|(_, c)| width(&c[i])).max().unwrap_or(0).max(width(head)))
        .collect();
    let room = WIDTH - widths.iter().map(|w| w + 2).sum::<usize>();
    let mut line = |name: &str, cells: &[&str]| {
        let mut text = left(&truncate(name, room), room);
        for (cell, w) in cells.iter().zip(&widths) {
            text.push_str("  ");
            text.push_str(&right(cell, *w));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line("configuration", &COLUMNS);
    for (r, row) in &rows {
        line(&r.name, &row.each_ref().map(String::as_str));
    }
    for (r, _) in &rows {
        for s in r.run.exposure.iter().flat_map(|e| &e.first_stale_dma).take(SHOWN) {
            let text = format!(
                "  {}: event {}, device {}: iova {:#x} still led to {:#x}, unmapped by event {}",
                r.name,
                thousands(s.event),
                crate::format::clean(&s.device),
                s.iova,
                s.out,
                thousands(s.unmap_event),
            );
            paragraph(out, &text, 4);
        }
    }
}

//! Time axes: intervals merged to what a figure can show, ticks, and the
//! trace's markers.

use super::Size;
use super::axis;
use super::canvas::{Anchor, Canvas, Frame};
use super::palette::Role;
use crate::document::{Document, Marker};
use crate::error::Result;
use crate::format::{clean, duration, time_unit};
use crate::summary::Named;

/// Most buckets drawn and listed.
const BUCKETS: u64 = 120;

/// Markers drawn; the page lists all that the document holds.
const MARKERS: usize = 24;

/// Intervals of trace time, common to all runs of a document.
pub(super) struct Timeline<'a> {
    /// Length of a bucket in ns.
    pub bucket_ns: u64,
    /// Number of buckets.
    pub buckets: usize,
    unit: &'static str,
    unit_ns: u64,
    markers: Vec<&'a Marker>,
    /// Markers of the document, drawn or not.
    marker_count: usize,
}

impl<'a> Timeline<'a> {
    /// The time axis of a document; `None` if no run has intervals.
    pub(super) fn new(document: &'a Document, runs: &[Named<'_>]) -> Option<Timeline<'a>> {
        let interval = runs.iter().map(|r| r.run.series.interval_ns).filter(|ns| *ns > 0).min()?;
        let end = runs
            .iter()
            .map(|r| r.run.series.interval_ns.saturating_mul(r.run.series.requests.len() as u64))
            .max()?;
        if end == 0 {
            return None;
        }
        let merge = end.div_ceil(interval).div_ceil(BUCKETS).max(1);
        let bucket_ns = interval.saturating_mul(merge);
        let (unit, unit_ns) = time_unit(end);
        let markers =
            document.trace.markers.iter().filter(|m| m.time_ns <= end).take(MARKERS).collect();
        let marker_count = document.trace.markers.len();
        let buckets = end.div_ceil(bucket_ns) as usize;
        Some(Timeline { bucket_ns, buckets, unit, unit_ns, markers, marker_count })
    }

    /// Sums a run's intervals into buckets.
    pub(super) fn sum(&self, interval_ns: u64, values: &[u64]) -> Vec<u64> {
        let mut out = vec![0u64; self.buckets];
        for (i, v) in values.iter().enumerate() {
            let middle = (i as u64).saturating_mul(interval_ns).saturating_add(interval_ns / 2);
            if let Some(sum) = out.get_mut((middle / self.bucket_ns) as usize) {
                *sum = sum.saturating_add(*v);
            }
        }
        out
    }

    /// Extent of the axis, in its unit.
    pub(super) fn extent(&self) -> (f64, f64) {
        (0.0, self.edge(self.buckets))
    }

    /// Start of bucket `i`, in the axis's unit.
    pub(super) fn edge(&self, i: usize) -> f64 {
        i as f64 * self.bucket_ns as f64 / self.unit_ns as f64
    }

    /// Middle of bucket `i`, in the axis's unit.
    pub(super) fn middle(&self, i: usize) -> f64 {
        (i as f64 + 0.5) * self.bucket_ns as f64 / self.unit_ns as f64
    }

    /// Length of a bucket in words.
    pub(super) fn bucket(&self) -> String {
        duration(self.bucket_ns)
    }

    /// Head of a table's time column.
    pub(super) fn head(&self) -> String {
        format!("from, {}", self.unit)
    }

    /// Start of bucket `i` for a table.
    pub(super) fn row(&self, i: usize) -> String {
        let step = self.bucket_ns as f64 / self.unit_ns as f64;
        let decimals =
            (0..6).find(|d| (step * 10f64.powi(*d)).fract().abs() < 1e-9).unwrap_or(3) as usize;
        format!("{:.decimals$}", self.edge(i))
    }

    fn x(&self, frame: Frame, time: f64) -> i32 {
        frame.x0 + (time / self.extent().1 * f64::from(frame.x1 - frame.x0)).round() as i32
    }

    /// Ticks and labels below `frame`.
    pub(super) fn axis(&self, c: &Canvas<'_>, frame: Frame, size: Size) -> Result<()> {
        let (_, end) = self.extent();
        let ticks = axis::from_zero(end, size.ticks());
        let labels = axis::labels(&ticks);
        c.line(&[(frame.x0, frame.y1), (frame.x1, frame.y1)], Role::Axis, 1)?;
        let shown = ticks.iter().zip(&labels).filter(|(t, _)| **t <= end * 1.0001);
        let last = shown.clone().count().saturating_sub(1);
        for (i, (tick, label)) in shown.enumerate() {
            let x = self.x(frame, *tick);
            c.line(&[(x, frame.y1), (x, frame.y1 + 4)], Role::Axis, 1)?;
            let label = if i == last { format!("{label} {}", self.unit) } else { label.clone() };
            let room = c.text_width(&label) / 2;
            let anchor = if x + room > frame.x1 + 20 { Anchor::End } else { Anchor::Middle };
            c.text((x, frame.y1 + 8 + c.text / 2), &label, anchor, Role::Quiet)?;
        }
        Ok(())
    }

    /// The trace's markers as vertical lines through `frame`, named above it
    /// as far as there is room.
    pub(super) fn marks(&self, c: &Canvas<'_>, frame: Frame, named: bool) -> Result<()> {
        let mut free = frame.x0 - 40;
        let at = |m: &Marker| self.x(frame, m.time_ns as f64 / self.unit_ns as f64);
        for (i, m) in self.markers.iter().enumerate() {
            let x = at(m);
            c.line(&[(x, frame.y0), (x, frame.y1)], Role::Mark, 1)?;
            if !named {
                continue;
            }
            // Half of the way to the next one belongs to that one's name.
            let end = self.markers.get(i + 1).map_or(frame.x1, |next| x.midpoint(at(next)));
            let start = free.max(frame.x0 - 40);
            let text = c.fit(&clean(&m.text), (end - start).max(130));
            let half = c.text_width(&text) / 2;
            let end = end.max(start + 2 * half);
            let middle = x.clamp(start + half, end - half);
            if middle - half >= free {
                c.text((middle, frame.y0 - c.text / 2 - 4), &text, Anchor::Middle, Role::Quiet)?;
                free = middle + half + 12;
            }
        }
        Ok(())
    }

    /// True if markers are drawn.
    pub(super) fn has_marks(&self) -> bool {
        !self.markers.is_empty()
    }

    /// What the marker lines are, for a figure's note.
    pub(super) fn marks_note(&self) -> String {
        match (self.markers.len(), self.marker_count) {
            (0, _) => String::new(),
            (drawn, all) if drawn < all => {
                format!("Dotted vertical lines are the first {drawn} of the trace's {all} markers.")
            }
            _ => "Dotted vertical lines are the trace's markers.".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_every_count_in_its_time() {
        let time = Timeline {
            bucket_ns: 40,
            buckets: 3,
            unit: "ns",
            unit_ns: 1,
            markers: Vec::new(),
            marker_count: 0,
        };
        // 10 intervals of 10 ns in buckets of 40 ns; the last bucket is short.
        assert_eq!(time.sum(10, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), [10, 26, 19]);
        // Counts beyond the axis are dropped, huge ones do not overflow.
        assert_eq!(time.sum(40, &[1, u64::MAX, 3, 4]), [1, u64::MAX, 3]);
        assert_eq!(time.sum(10, &[u64::MAX, 1]), [u64::MAX, 0, 0]);
    }
}

//! The study's figures.

use super::data::{Axis, Point, Study};
use super::{POLICIES, bytes_name, extremes};
use crate::error::Result;
use crate::figures::{Curve, Curves, DataTable, Size, Slot};
use crate::format::short_count;

/// A drawn figure.
pub(super) struct Plot {
    pub id: &'static str,
    pub title: String,
    pub caption: String,
    pub note: String,
    pub wide: String,
    pub narrow: String,
    pub table: DataTable,
}

struct Words {
    id: &'static str,
    title: &'static str,
    caption: String,
    note: &'static str,
}

fn time(ns: f64) -> String {
    match ns {
        n if n < 1e3 => format!("{n} ns"),
        n if n < 1e6 => format!("{} µs", n / 1e3),
        n if n < 1e9 => format!("{} ms", n / 1e6),
        n => format!("{} s", n / 1e9),
    }
}

fn count(n: f64) -> String {
    if n < 1.0 { format!("{n}") } else { power(n) }
}

fn power(n: f64) -> String {
    if n < 1e6 { short_count(n as u64) } else { format!("{}M", short_count((n / 1e6) as u64)) }
}

fn tick(axis: Axis, x: f64) -> String {
    match axis {
        Axis::Unmap => bytes_name(x as u64),
        Axis::Overlap => format!("{x}"),
        _ => power(x),
    }
}

fn over(
    s: &Study,
    axis: Axis,
    x: &str,
    y: fn(f64) -> String,
    of: impl Fn(&Point) -> f64,
    words: Words,
) -> Result<Option<Plot>> {
    let points = || s.points.iter().filter(|p| p.setup.axis == axis);
    let mut ticks: Vec<(f64, String)> =
        points().map(|p| (p.setup.x(), tick(axis, p.setup.x()))).collect();
    ticks.sort_by(|a, b| a.0.total_cmp(&b.0));
    ticks.dedup();
    let curves = POLICIES.iter().map(|name| {
        let mut of: Vec<(f64, f64)> =
            points().filter(|p| p.policy == *name).map(|p| (p.setup.x(), of(p))).collect();
        of.retain(|p| p.1 > 0.0 && p.1.is_finite());
        of.sort_by(|a, b| a.0.total_cmp(&b.0));
        Curve { name: (*name).into(), slot: Slot::of_policy(name), points: of }
    });
    let figure = Curves {
        figure: words.id,
        log_x: axis != Axis::Overlap,
        ticks,
        x: x.into(),
        y,
        curves: curves.filter(|c| !c.points.is_empty()).collect(),
    };
    plot(figure, words)
}

fn plot(figure: Curves, words: Words) -> Result<Option<Plot>> {
    if figure.curves.is_empty() {
        return Ok(None);
    }
    Ok(Some(Plot {
        id: words.id,
        title: words.title.into(),
        caption: words.caption,
        note: words.note.into(),
        wide: figure.svg(Size::Wide)?,
        narrow: figure.svg(Size::Narrow)?,
        table: figure.table(),
    }))
}

fn map_path(s: &Study) -> Result<Option<Plot>> {
    let rows = || s.maps.iter().filter(|m| m.sync == "invalidate-range" && m.overlap_percent == 0);
    let mut ticks: Vec<(f64, String)> =
        rows().map(|m| (m.batch_pages as f64, m.batch_pages.to_string())).collect();
    ticks.sort_by(|a, b| a.0.total_cmp(&b.0));
    ticks.dedup();
    let curve = |name: &str| {
        let of = |m: &&super::MapTime| m.policy == name;
        let points = rows().filter(of).map(|m| (m.batch_pages as f64, m.map_with_ns)).collect();
        Curve { name: name.into(), slot: Slot::of_policy(name), points }
    };
    let mut curves: Vec<Curve> = POLICIES.iter().map(|n| curve(n)).collect();
    // The same work without an index was measured beside each; the median.
    let without = ticks.iter().map(|(x, _)| {
        let mut all: Vec<f64> =
            rows().filter(|m| m.batch_pages as f64 == *x).map(|m| m.map_ns).collect();
        all.sort_by(f64::total_cmp);
        (*x, all[all.len() / 2])
    });
    curves.push(Curve {
        name: "no index".into(),
        slot: Slot::of_policy(""),
        points: without.collect(),
    });
    curves.retain(|c| !c.points.is_empty());
    let best = rows().filter(|m| m.policy == "rmap-linked").map(super::MapTime::added);
    let (low, high) = extremes(best);
    let figure = Curves {
        figure: "map-path",
        log_x: true,
        ticks,
        x: "consecutive pages per guest operation".into(),
        y: time,
        curves,
    };
    plot(
        figure,
        Words {
            id: "map-path",
            title: "CPU time per mapped page of the child, measured, ns",
            caption: format!("rmap-linked adds {low:.0} to {high:.0} % to the child's map path."),
            note: "No overlap, invalidate-range. flush-all, scan and epoch keep no index: they are \"no index\". What rmap-linked's worker does later is in the table.",
        },
    )
}

/// All figures.
pub(super) fn all(s: &Study) -> Result<Vec<Plot>> {
    let each = |n: u64, p: &Point| n as f64 / p.unmaps as f64;
    let examined = |p: &Point| each(p.entries_examined, p);
    let ns = |p: &Point| p.ns + p.later_ns;
    let note_later = "Includes what epoch puts off. 16 children, no overlap.";
    let made = [
        over(s, Axis::Entries, "shadow entries", time, ns, Words {
            id: "time-entries",
            title: "CPU time per 4 KiB parent unmap, measured",
            caption: "With a reverse map the time hardly grows with the shadows; without one it grows with all of them.".into(),
            note: note_later,
        })?,
        over(s, Axis::Entries, "shadow entries", count, examined, Words {
            id: "examined-entries",
            title: "entries examined per 4 KiB parent unmap, counted",
            caption: "The counts tell the same story: a reverse map looks at what it changes.".into(),
            note: "16 children, no overlap: one entry changes per unmap. epoch looks at its children only, and rebuilds all entries later.",
        })?,
        over(s, Axis::Children, "children", time, ns, Words {
            id: "time-children",
            title: "CPU time per 4 KiB parent unmap, measured",
            caption: "If every child maps the page, each has an entry to remove.".into(),
            note: "A fixed number of entries, full overlap: as many entries change as there are children.",
        })?,
        over(s, Axis::Overlap, "pages that all children map, %", time, ns, Words {
            id: "time-overlap",
            title: "CPU time per 4 KiB parent unmap, measured",
            caption: "Overlap of the children costs what it changes.".into(),
            note: "A fixed number of entries in 16 children.",
        })?,
        over(s, Axis::Unmap, "bytes of one unmap", time, ns, Words {
            id: "time-unmap",
            title: "CPU time per parent unmap, measured",
            caption: "The larger the unmap, the smaller the difference: in the end all entries change.".into(),
            note: "16 children, no overlap, runs of 512 pages; the parent is mapped with 4 KiB pages.",
        })?,
        over(s, Axis::Unmap, "bytes of one unmap", count, examined, Words {
            id: "examined-unmap",
            title: "entries examined per parent unmap, counted",
            caption: "An index of extents examines the runs, not their pages.".into(),
            note: "As above.",
        })?,
        map_path(s)?,
        over(s, Axis::Entries, "shadow entries", |n| format!("{n} B"),
            |p| p.policy_bytes as f64 / p.setup.entries as f64, Words {
            id: "memory",
            title: "bytes of the policy's own data per shadow entry, counted",
            caption: "A reverse map costs about as much memory as the shadow's own entries (8 bytes).".into(),
            note: "16 children, no overlap, GPAs scattered: the worst case for extents. flush-all, scan and epoch keep nothing per entry.",
        })?,
    ];
    Ok(made.into_iter().flatten().collect())
}

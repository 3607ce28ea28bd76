//! The page's four figures.

use super::data::{Distribution, TraceInfo, up_to};
use crate::error::Result;
use crate::figures::{Columns, DataTable, Figure, Shares, Size};
use crate::format::{duration, short_count, thousands};

/// All figures that have something to show.
pub(super) fn all(info: &TraceInfo) -> Result<Vec<Figure>> {
    let lifetimes = Words {
        id: "lifetime",
        what: "maps",
        title: "share of ended maps by lifetime, %",
        x: "from map to unmap, at most",
        note: "The trace's clock. A map that is unmapped in pieces counts once per piece.",
    };
    let bursts = Words {
        id: "bursts",
        what: "bursts",
        title: "share of bursts by their accesses, %",
        x: "accesses of one device in a row, at most",
        note: "A burst ends where another device accesses.",
    };
    let made = [
        working_set(info)?,
        reuse(info)?,
        classes(&info.lifetime_ns, lifetimes, duration)?,
        classes(&info.bursts, bursts, thousands)?,
    ];
    Ok(made.into_iter().flatten().collect())
}

fn working_set(info: &TraceInfo) -> Result<Option<Figure>> {
    let parts = &info.working_set;
    let most = parts.iter().map(|p| p.pages).max().unwrap_or(0);
    if most == 0 {
        return Ok(None);
    }
    let n = parts.len();
    // A tick at the beginning of every sixth, and one at the end.
    let every = n.div_ceil(6);
    let mut ticks: Vec<(f64, String)> =
        (0..n).step_by(every).map(|i| (i as f64, duration(parts[i].time_ns))).collect();
    ticks.retain(|t| n as f64 - t.0 > every as f64 / 2.0);
    ticks.push((n as f64, duration(info.trace.end_ns)));
    let figure = Columns {
        figure: "working-set",
        bars: parts.iter().map(|p| p.pages as f64).collect(),
        ticks,
        x: "the trace's clock".into(),
    };
    let (wide, narrow, readout) = figure.both()?;
    let least = parts.iter().map(|p| p.pages).min().unwrap_or(0);
    let row =
        |p: &super::Part| vec![duration(p.time_ns), thousands(p.accesses), thousands(p.pages)];
    Ok(Some(Figure {
        id: "working-set",
        title: format!("distinct 4\u{a0}KiB pages accessed in each of {n} parts of the trace"),
        caption: format!(
            "The working set moves between {} and {} pages.",
            short_count(least),
            short_count(most)
        ),
        note: "Parts have equally many events, not equal times. A page counts once per part and domain.".into(),
        wide,
        narrow,
        table: DataTable {
            columns: ["from", "accesses", "distinct pages"].map(String::from).into(),
            rows: parts.iter().map(row).collect(),
        },
        readout: Some(readout),
    }))
}

fn reuse(info: &TraceInfo) -> Result<Option<Figure>> {
    let Some(last) = info.reuse.iter().filter_map(|r| r.distances.last()).max() else {
        return Ok(None);
    };
    let last = last.max(1);
    let shares = info.reuse.each_ref().map(|r| r.shares(last));
    let [small, large] = &shares;
    let rows = (0..=last).map(|i| {
        let at = i as usize;
        vec![thousands(up_to(i)), format!("{:.2}", small[at]), format!("{:.2}", large[at])]
    });
    let [a, b] = info.reuse.each_ref().map(|r| r.unit.clone());
    let columns = vec!["n".into(), format!("{a}, %"), format!("{b}, %")];
    let table = DataTable { columns, rows: rows.collect() };
    let at = |n: u32| small.get(n as usize).or(small.last()).copied().unwrap_or(0.0);
    let figure = Shares {
        figure: "reuse",
        labels: (0..=last).map(|i| tick(up_to(i))).collect(),
        x: "n, entries".into(),
        curves: [(a, small.clone()), (b, large.clone())],
    };
    Ok(Some(Figure {
        id: "reuse",
        title: "accesses that find their page or region among the n used last, %".into(),
        caption: format!(
            "Of all accesses, {:.1}\u{a0}% go to one of the 64 pages used last, {:.1}\u{a0}% to one of the 1,024 used last.",
            at(6),
            at(10)
        ),
        note: "The hit rate of a fully associative LRU cache of n entries in which nothing is invalidated. First accesses never hit.".into(),
        wide: figure.svg(Size::Wide)?,
        narrow: figure.svg(Size::Narrow)?,
        table,
        readout: None,
    }))
}

/// Powers of two as people name them: `512`, `4K`.
fn tick(n: u64) -> String {
    match n {
        n if n < 1 << 10 => n.to_string(),
        n if n < 1 << 20 => format!("{}K", n >> 10),
        n if n < 1 << 30 => format!("{}M", n >> 20),
        n => format!("{}G", n >> 30),
    }
}

struct Words {
    id: &'static str,
    what: &'static str,
    title: &'static str,
    x: &'static str,
    note: &'static str,
}

fn classes(d: &Distribution, w: Words, show: fn(u64) -> String) -> Result<Option<Figure>> {
    if d.count == 0 {
        return Ok(None);
    }
    let filled = d.filled();
    let percent = |n: u64| 100.0 * n as f64 / d.count as f64;
    // A tick under the upper end of a class.
    let every = filled.len().div_ceil(10);
    let ticks =
        filled.iter().enumerate().filter(|(i, _)| (filled.len() - 1 - i).is_multiple_of(every));
    let figure = Columns {
        figure: w.id,
        bars: filled.iter().map(|c| percent(c.1)).collect(),
        ticks: ticks.map(|(i, c)| (i as f64 + 0.5, show(up_to(c.0)))).collect(),
        x: w.x.into(),
    };
    let (wide, narrow, readout) = figure.both()?;
    let row =
        |c: &(u32, u64)| vec![show(up_to(c.0)), thousands(c.1), format!("{:.2}", percent(c.1))];
    Ok(Some(Figure {
        id: w.id,
        title: w.title.into(),
        caption: format!(
            "Half of the {} {} are at most {} long, one in a hundred is longer than {}.",
            short_count(d.count),
            w.what,
            show(d.p50),
            show(d.p99)
        ),
        note: w.note.into(),
        wide,
        narrow,
        table: DataTable {
            columns: vec!["at most".into(), w.what.into(), "share, %".into()],
            rows: filled.iter().map(row).collect(),
        },
        readout: Some(readout),
    }))
}

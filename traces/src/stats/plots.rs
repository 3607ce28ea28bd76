//! Plots as text: columns over time, bars by classes.

use super::table::{Page, duration, grouped};
use super::{Class, Spread, TraceStats};

/// Rows of the plot over time.
const HEIGHT: u64 = 6;
/// Most bars of one plot; more classes are put together.
const BARS: usize = 24;
/// Parts of a character cell, from the bottom and from the left.
const UP: [char; 9] = [
    ' ', '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}',
    '\u{2588}',
];
const RIGHT: [char; 9] = [
    ' ', '\u{258f}', '\u{258e}', '\u{258d}', '\u{258c}', '\u{258b}', '\u{258a}', '\u{2589}',
    '\u{2588}',
];

pub fn render(stats: &TraceStats, width: usize) -> String {
    let mut page = Page::new(width);
    working_set(&mut page, stats, width);
    reuse(&mut page, stats, width);
    let lifetimes = "Lifetime of maps: from a map to the unmap that ends it, recorded clock";
    bars(&mut page, lifetimes, "maps", &stats.maps.lifetime_ns, duration, width);
    let bursts = "Bursts: accesses of one device without one of another between them";
    bars(&mut page, bursts, "bursts", &stats.locality.burst_accesses, grouped, width);
    page.finish()
}

fn working_set(page: &mut Page, s: &TraceStats, width: usize) {
    let parts = &s.locality.working_set;
    let most = parts.iter().map(|p| p.pages).max().unwrap_or(0);
    if most == 0 {
        return;
    }
    page.section(&format!(
        "Working set: distinct 4 KiB pages accessed in each of {} parts of the trace",
        parts.len()
    ));
    let label = grouped(most).len().max(5);
    // A part is as many columns wide as there is room for.
    let each = ((width - label - 5) / parts.len()).clamp(1, 8);
    for row in (0..HEIGHT).rev() {
        let column = |pages: u64| {
            let level = (pages * 8 * HEIGHT).div_ceil(most);
            UP[level.saturating_sub(8 * row).min(8) as usize]
        };
        let line: String =
            parts.iter().flat_map(|p| std::iter::repeat_n(column(p.pages), each)).collect();
        let at = match row {
            r if r == HEIGHT - 1 => grouped(most),
            0 => "0".into(),
            _ => String::new(),
        };
        page.line(format!("  {at:>label$} |{line}").trim_end());
    }
    let columns = each * parts.len();
    let (from, to) = (duration(parts[0].time_ns), duration(s.end_ns));
    let gap = columns.saturating_sub(from.chars().count() + to.chars().count());
    page.line(&format!("  {:label$}  {from}{:gap$}{to}", "", ""));
    page.paragraph(
        2,
        "Parts have equally many events, not equal times; times are of the recorded clock.",
    );
}

/// Shares of accesses whose distance is at most 1, 2, 4, ...
fn cumulative(spread: &Spread, firsts: u64, n: usize) -> Vec<f64> {
    let all = (spread.count + firsts).max(1) as f64;
    let upto = |limit: u64| -> u64 {
        spread.classes.iter().take_while(|c| c.up_to <= limit).map(|c| c.count).sum()
    };
    (0..n).map(|i| upto(1u64.checked_shl(i as u32).unwrap_or(u64::MAX)) as f64 / all).collect()
}

fn reuse(page: &mut Page, s: &TraceStats, width: usize) {
    let l = &s.locality;
    let both = [
        (&l.reuse_distance_4k, l.first_accesses_4k, "4 KiB pages"),
        (&l.reuse_distance_2m, l.first_accesses_2m, "2 MiB regions"),
    ];
    let top = both.iter().flat_map(|b| b.0.classes.last()).map(|c| c.up_to).max();
    let Some(top) = top else { return };
    page.section("Reuse: share of accesses that find their page among the n used last");
    let rows = top.ilog2() as usize + 1;
    let shares = both.map(|(spread, firsts, _)| cumulative(spread, firsts, rows));
    let label = grouped(1 << (rows - 1)).len().max(7);
    let bar = (width - label - 24) / 2;
    page.line(
        format!("  {:>label$}  {:>7}  {:<bar$}  {:>7}  2 MiB regions", "n", "", "4 KiB pages", "")
            .trim_end(),
    );
    for (i, (&small, &large)) in shares[0].iter().zip(&shares[1]).enumerate() {
        let cell = |share: f64| {
            let share = share.min(1.0);
            (format!("{:.1} %", 100.0 * share), filled(share, bar))
        };
        let ((small, a), (large, b)) = (cell(small), cell(large));
        let n = grouped(1 << i);
        page.line(format!("  {n:>label$}  {small:>7}  {a:<bar$}  {large:>7}  {b}").trim_end());
    }
    let cold = |firsts: u64| 100.0 * firsts as f64 / s.recorded.dma.max(1) as f64;
    page.paragraph(
        2,
        &format!(
            "It is the hit rate of a fully associative LRU cache of n entries that nothing is \
             invalidated in. First accesses never hit: {:.1} % of 4 KiB pages, {:.1} % of 2 MiB \
             regions.",
            cold(l.first_accesses_4k),
            cold(l.first_accesses_2m)
        ),
    );
}

/// A bar of at most `width` columns.
fn filled(share: f64, width: usize) -> String {
    // What is there shows.
    let least = if share > 0.0 { 1.0 } else { 0.0 };
    let eighths = (share * width as f64 * 8.0).round().max(least) as usize;
    let mut out = String::from(RIGHT[8]).repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        out.push(RIGHT[eighths % 8]);
    }
    out
}

/// Classes without gaps, so many powers of two each that they are at most
/// [`BARS`].
fn grouped_classes(classes: &[Class]) -> Vec<Class> {
    let index = |c: &Class| if c.up_to == u64::MAX { 64 } else { c.up_to.ilog2() as usize };
    let (Some(first), Some(last)) = (classes.first().map(index), classes.last().map(index)) else {
        return Vec::new();
    };
    let step = (last - first + 1).div_ceil(BARS);
    let n = (last - first) / step + 1;
    // The last class ends where the values do, the others `step` apart.
    let mut out: Vec<Class> = (0..n)
        .map(|i| {
            let end = last - (n - 1 - i) * step;
            Class { up_to: 1u64.checked_shl(end as u32).unwrap_or(u64::MAX), count: 0 }
        })
        .collect();
    for c in classes {
        let at = out.partition_point(|o| o.up_to < c.up_to);
        out[at].count += c.count;
    }
    out
}

fn bars(
    page: &mut Page,
    title: &str,
    what: &str,
    spread: &Spread,
    show: fn(u64) -> String,
    width: usize,
) {
    if spread.count == 0 {
        return;
    }
    page.section(title);
    let classes = grouped_classes(&spread.classes);
    let most = classes.iter().map(|c| c.count).max().unwrap_or(1).max(1);
    let label = classes.iter().map(|c| show(c.up_to).chars().count()).max().unwrap_or(0).max(5);
    let counts = grouped(most).len().max(what.len());
    let bar = width - label - counts - 16;
    page.line(&format!("  {:>label$}  {what:>counts$}  {:>7}", "up to", "share"));
    for c in &classes {
        let percent = format!("{:.1} %", 100.0 * c.count as f64 / spread.count as f64);
        let line = filled(c.count as f64 / most as f64, bar);
        let (up_to, n) = (show(c.up_to), grouped(c.count));
        page.line(format!("  {up_to:>label$}  {n:>counts$}  {percent:>7}  {line}").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(up_to: u64, count: u64) -> Class {
        Class { up_to, count }
    }

    #[test]
    fn classes_have_no_gaps_and_are_not_too_many() {
        let found = grouped_classes(&[class(4, 1), class(32, 2)]);
        assert_eq!(found, [class(4, 1), class(8, 0), class(16, 0), class(32, 2)]);
        // 65 powers of two in steps of 3.
        let all: Vec<Class> =
            (0..64).map(|i| class(1 << i, 1)).chain([class(u64::MAX, 1)]).collect();
        let found = grouped_classes(&all);
        assert_eq!(found.len(), 22);
        assert_eq!(found[0], class(2, 2));
        assert_eq!(found[1], class(16, 3));
        assert_eq!(found[21], class(u64::MAX, 3));
        assert!(grouped_classes(&[]).is_empty());
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!(filled(1.0, 4), "\u{2588}\u{2588}\u{2588}\u{2588}");
        assert_eq!(filled(0.375, 4), "\u{2588}\u{258c}");
        assert_eq!(filled(1e-9, 4), "\u{258f}");
        assert_eq!(filled(0.0, 4), "");
    }

    #[test]
    fn shares_add_up_and_first_accesses_count() {
        let spread = Spread {
            count: 6,
            classes: vec![class(1, 2), class(4, 3), class(8, 1)],
            ..Spread::default()
        };
        assert_eq!(cumulative(&spread, 4, 4), [0.2, 0.2, 0.5, 0.6]);
    }
}

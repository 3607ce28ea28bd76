//! Simulated time: what was waited for, and where it went.

use ioasim_sim::results::timing::{LatencySummary, TimingResult};

use super::{WIDTH, left, paragraph, right};
use crate::format::{percent, rate, short_count, truncate, width};
use crate::summary::Named;

/// Said above every table of simulated time.
pub(crate) const MEANING: &str = "Simulated time, from the constants of time.* in the \
                                  configuration (their sources: ioasim preset show); no time \
                                  here was recorded";

/// A table: names on the left, numbers on the right.
pub(crate) struct Grid {
    /// What it shows.
    pub title: String,
    /// Heads; the first is that of the names.
    pub columns: Vec<String>,
    /// Cells.
    pub rows: Vec<Vec<String>>,
}

fn grid(title: impl Into<String>, columns: &[&str], rows: Vec<Vec<String>>) -> Option<Grid> {
    let columns = columns.iter().map(|c| (*c).into()).collect();
    (!rows.is_empty()).then(|| Grid { title: title.into(), columns, rows })
}

/// Nanoseconds as printed.
fn ns(value: f64) -> String {
    rate(Some(value))
}

fn us(ns: Option<f64>) -> String {
    rate(ns.map(|v| v / 1000.0))
}

/// The runs that simulated time, side by side.
pub(crate) fn overview(runs: &[Named<'_>]) -> Option<Grid> {
    let rows = runs.iter().filter_map(|r| {
        let t = r.run.timing.as_ref()?;
        Some(vec![
            r.name.clone(),
            rate(Some(t.elapsed_ns as f64 / 1e6)),
            rate(Some(t.requests_per_second / 1e3)),
            ns(t.latency.dma.mean_ns),
            short_count(t.latency.dma.p99_ns),
            us(per_call(&t.latency.map, &t.latency.map_invalidation)),
            us(per_call(&t.latency.unmap, &t.latency.invalidation)),
            percent(Some(t.vcpus.utilisation)),
        ])
    });
    let columns =
        ["configuration", "ms", "k DMA/s", "DMA ns", "p99", "map us", "unmap us", "vCPU %"];
    let title = "Simulated duration, throughput, latency of accesses, and cost of map and unmap \
                 calls with the invalidations that they cause";
    grid(title, &columns, rows.collect())
}

/// Mean cost in ns of a call with the invalidations that it causes; `None`
/// without calls.
fn per_call(call: &LatencySummary, invalidation: &LatencySummary) -> Option<f64> {
    let sum = |l: &LatencySummary| l.mean_ns * l.count as f64;
    (call.count > 0).then(|| (sum(call) + sum(invalidation)) / call.count as f64)
}

/// The tables of one run.
pub(crate) fn details(name: &str, t: &TimingResult) -> Vec<Grid> {
    let l = &t.latency;
    let latencies = [
        ("DMA", &l.dma),
        ("walk", &l.walk),
        ("invalidation", &l.invalidation),
        ("invalidation (map)", &l.map_invalidation),
        ("map", &l.map),
        ("unmap", &l.unmap),
    ];
    let latencies = latencies.iter().filter(|(_, s)| s.count > 0).map(|(name, s)| {
        let at = [s.p50_ns, s.p99_ns, s.p99_9_ns, s.p99_99_ns, s.max_ns];
        let start = [(*name).to_owned(), short_count(s.count), ns(s.mean_ns)];
        start.into_iter().chain(at.map(short_count)).collect()
    });
    let classes = t.classes.iter().map(|c| {
        let start = [c.class.clone(), short_count(c.count), ns(c.mean_ns)];
        start.into_iter().chain(c.parts_ns().map(ns)).collect()
    });
    let resources = t.resources.iter().map(|r| {
        vec![
            r.name.clone(),
            if r.servers == 0 { "-".into() } else { short_count(r.servers) },
            if r.servers == 0 { "-".into() } else { percent(Some(r.utilisation)) },
            rate(Some(r.queue_mean)),
            short_count(r.queue_max),
            short_count(r.arrivals),
            short_count(r.waited),
            ns(r.wait_mean_ns),
        ]
    });
    let v = &t.vcpus;
    let causes = [
        ("other work (think)", v.think_ns),
        ("map calls", v.map_ns),
        ("unmap calls", v.unmap_ns),
        ("preparing invalidations", v.prepare_ns),
        ("waiting for the queue's lock", v.lock_ns),
        ("writing descriptors", v.enqueue_ns),
        ("exits to the VMM and back", v.trap_ns),
        ("waiting for the VMM's lock", v.vmm_lock_ns),
        ("the VMM's work", v.vmm_ns),
        ("waiting for hardware", v.hardware_ns),
    ];
    let all = causes.iter().fold(0u64, |all, (_, n)| all.saturating_add(*n));
    let causes = causes.iter().filter(|(_, n)| *n > 0).map(|(cause, n)| {
        let share = crate::measure::ratio(*n, all);
        vec![(*cause).into(), rate(Some(*n as f64 / 1e6)), percent(share)]
    });
    let devices = t.devices.iter().map(|d| {
        vec![
            crate::format::clean(&d.device).into_owned(),
            short_count(d.requests),
            percent(Some(d.link_utilisation)),
            rate(Some(d.in_flight_mean)),
            rate(Some(d.starved_ns as f64 / 1e6)),
        ]
    });
    let titled = |what: &str| format!("{what}, {name}");
    [
        grid(
            titled("Latencies in ns"),
            &["", "count", "mean", "p50", "p99", "p99.9", "p99.99", "max"],
            latencies.collect(),
        ),
        grid(
            titled("Mean latency of DMA in ns, by class and part"),
            &["class", "count", "mean", "queue", "lookup", "walk q.", "walk", "PRI", "PCIe"],
            classes.collect(),
        ),
        grid(
            titled("Shared resources"),
            &["", "servers", "busy %", "queue", "max", "jobs", "waited", "wait ns"],
            resources.collect(),
        ),
        grid(titled("vCPU time by cause"), &["", "ms", "%"], causes.collect()),
        grid(
            titled("Devices"),
            &["device", "requests", "link %", "in flight", "waited for maps, ms"],
            devices.collect(),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The outcome of the checks, in one sentence.
pub(crate) fn verdict(name: &str, t: &TimingResult) -> String {
    let c = &t.checks;
    match c.passed() {
        true => format!(
            "{name}: the books agree: {} requests in and done, Little's law exact at every \
             resource, none busy for longer than the time that passed",
            short_count(c.requests_in)
        ),
        false => format!(
            "{name}: THE BOOKS DO NOT AGREE: requests in {}, done {}, in flight {}; vCPU \
             operations in {}, done {}; Little's law off by {} ps; {} resources overbusy; {} \
             operations stuck. Do not trust these times",
            c.requests_in,
            c.requests_done,
            c.requests_in_flight,
            c.cpu_ops_in,
            c.cpu_ops_done,
            c.littles_law_residual_ps,
            c.overbusy_resources,
            c.stuck
        ),
    }
}

fn draw(out: &mut String, g: &Grid) {
    out.push('\n');
    paragraph(out, &format!("{}:", g.title), 2);
    let widths: Vec<usize> = (1..g.columns.len())
        .map(|i| g.rows.iter().map(|r| width(&r[i])).max().unwrap_or(0).max(width(&g.columns[i])))
        .collect();
    let numbers = widths.iter().map(|w| w + 2).sum::<usize>();
    let names = g.rows.iter().map(|r| width(&r[0])).max().unwrap_or(0).max(width(&g.columns[0]));
    let room = names.min(WIDTH.saturating_sub(numbers));
    for row in std::iter::once(&g.columns).chain(&g.rows) {
        let mut line = left(&truncate(&row[0], room), room);
        for (cell, w) in row[1..].iter().zip(&widths) {
            line.push_str("  ");
            line.push_str(&right(cell, *w));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// The tables of all runs that simulated time; nothing if none did.
pub(super) fn section(out: &mut String, runs: &[Named<'_>], detailed: bool) {
    let Some(all) = overview(runs) else { return };
    out.push('\n');
    paragraph(out, &format!("{MEANING}."), 2);
    draw(out, &all);
    for r in runs {
        let Some(t) = &r.run.timing else { continue };
        if detailed {
            details(&r.name, t).iter().for_each(|g| draw(out, g));
        }
        if detailed || !t.checks.passed() {
            out.push('\n');
            paragraph(out, &format!("{}.", verdict(&r.name, t)), 2);
        }
    }
}

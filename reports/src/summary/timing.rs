//! Simulated time in plain words.

use ioasim_sim::results::timing::TimingResult;

use super::Named;
use crate::format::{factor, percent_sign, rate, thousands};

/// Sentences about the runs that simulated time; none if none did.
pub(crate) fn timing(runs: &[Named<'_>]) -> Vec<String> {
    let timed: Vec<(&str, &TimingResult)> =
        runs.iter().filter_map(|r| Some((r.name.as_str(), r.run.timing.as_ref()?))).collect();
    let mut out = Vec::new();
    let by_time = |(_, t): &&(&str, &TimingResult)| t.elapsed_ns;
    if timed.len() > 1
        && let (Some(fast), Some(slow)) =
            (timed.iter().min_by_key(by_time), timed.iter().max_by_key(by_time))
        && fast.1.elapsed_ns > 0
        && fast.1.elapsed_ns < slow.1.elapsed_ns
    {
        let times = factor(slow.1.elapsed_ns as f64 / fast.1.elapsed_ns as f64);
        out.push(format!(
            "The trace's work takes {} ms of simulated time under {}, and {} ms, {times} times as \
             long, under {}.",
            ms(fast.1.elapsed_ns),
            fast.0,
            ms(slow.1.elapsed_ns),
            slow.0,
        ));
    }
    out.extend(timed.iter().map(|(name, t)| one(name, t)));
    out
}

fn ms(ns: u64) -> String {
    rate(Some(ns as f64 / 1e6))
}

/// Where one run's time goes.
fn one(name: &str, t: &TimingResult) -> String {
    let mut text = format!(
        "Under {name}, an access takes {} ns on average, and one in a hundred takes {} ns or more",
        rate(Some(t.latency.dma.mean_ns)),
        thousands(t.latency.dma.p99_ns),
    );
    if let Some((part, share)) = largest_part(t) {
        text += &format!("; most of it is {part} ({})", percent_sign(Some(share)));
    }
    text.push('.');
    if t.vcpus.vcpus == 0 || t.vcpus.utilisation == 0.0 {
        return text + " The guest's CPUs do nothing for it.";
    }
    let v = &t.vcpus;
    let causes = [
        ("other work", v.think_ns),
        ("mapping and unmapping", v.map_ns + v.unmap_ns),
        ("preparing and queueing invalidations", v.prepare_ns + v.enqueue_ns),
        ("waiting for a lock", v.lock_ns + v.vmm_lock_ns),
        ("exits to the VMM and its work", v.trap_ns + v.vmm_ns),
        ("waiting for hardware", v.hardware_ns),
    ];
    let all: u64 = causes.iter().map(|(_, n)| n).sum();
    if let Some((cause, n)) = causes.iter().max_by_key(|(_, n)| *n) {
        text += &format!(
            " Its CPUs are busy with mappings for {} of the time, mostly with {cause} ({}).",
            percent_sign(Some(v.utilisation)),
            percent_sign(crate::measure::ratio(*n, all)),
        );
    }
    let starved: u64 = t.devices.iter().map(|d| d.starved_ns).max().unwrap_or(0);
    if t.mode == "closed-loop" && starved * 2 > t.elapsed_ns {
        text += &format!(
            " The CPUs are what limits throughput: the device that waits most for its buffers \
             to be mapped does so for {} of the time.",
            percent_sign(crate::measure::ratio(starved.min(t.elapsed_ns), t.elapsed_ns)),
        );
    }
    text
}

/// The part of all accesses' time that is largest, and its share.
fn largest_part(t: &TimingResult) -> Option<(&'static str, f64)> {
    let mut sums = [
        ("waiting for a free slot or the link", 0.0),
        ("look-ups", 0.0),
        ("waiting for a page-table walker", 0.0),
        ("page-table walks", 0.0),
        ("page requests", 0.0),
        ("PCIe and memory, which no translation can save", 0.0),
    ];
    for c in &t.classes {
        let parts = [
            c.queueing_ns,
            c.lookup_ns,
            c.walk_queueing_ns,
            c.walk_ns,
            c.page_request_ns,
            c.pcie_ns,
        ];
        for (sum, part) in sums.iter_mut().zip(parts) {
            sum.1 += part * c.count as f64;
        }
    }
    let all: f64 = sums.iter().map(|(_, s)| s).sum();
    let largest = sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    (all > 0.0).then(|| (largest.0, largest.1 / all))
}

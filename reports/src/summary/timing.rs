//! Simulated time in plain words.

use ioasim_sim::results::timing::TimingResult;

use super::{Finding, Named};
use crate::format::{factor, percent_sign, rate, thousands};

/// Findings about the runs that simulated time; none if none did.
pub(crate) fn timing(runs: &[Named<'_>]) -> Vec<Finding> {
    let timed: Vec<(&str, &TimingResult)> =
        runs.iter().filter_map(|r| Some((r.name.as_str(), r.run.timing.as_ref()?))).collect();
    let mut out = Vec::new();
    if let Some(text) = how_long(&timed) {
        out.push(Finding { lead: "How long.".into(), text });
    }
    out.extend(timed.iter().map(|(name, t)| {
        let lead = if timed.len() > 1 { format!("{name}.") } else { "Where time goes.".into() };
        Finding { lead, text: one(t) }
    }));
    out
}

/// Which configuration is fast and which slow, in one sentence.
pub(super) fn how_long(timed: &[(&str, &TimingResult)]) -> Option<String> {
    let by_time = |(_, t): &&(&str, &TimingResult)| t.elapsed_ns;
    let fast = timed.iter().min_by_key(by_time)?;
    let slow = timed.iter().max_by_key(by_time)?;
    if fast.1.elapsed_ns == 0 || fast.1.elapsed_ns == slow.1.elapsed_ns {
        return None;
    }
    let times = factor(slow.1.elapsed_ns as f64 / fast.1.elapsed_ns as f64);
    let warm_up = match fast.1.warm_up_events {
        0 => "The".to_owned(),
        n => format!("After a warm-up of {} events the", thousands(n)),
    };
    let mut text = format!(
        "{warm_up} trace's work takes {} ms of simulated time under {}, and {} ms, {times} times as \
         long, under {}.",
        ms(fast.1.elapsed_ns),
        fast.0,
        ms(slow.1.elapsed_ns),
        slow.0,
    );
    // Without a vIOMMU there is no protection either: the bound, not a choice.
    if fast.1.vcpus.vcpus == 0
        && let Some(next) = timed.iter().filter(|(_, t)| t.vcpus.vcpus > 0).min_by_key(by_time)
        && next.0 != slow.0
    {
        text += &format!(
            " {} gives the guest no IOMMU, so there is nothing to map: it is the bound, not a \
             choice. Of the others {} is fastest ({} ms).",
            fast.0,
            next.0,
            ms(next.1.elapsed_ns),
        );
    }
    text += " The order rests on the constants, some of which are assumptions: with others it may \
             be another.";
    if timed.iter().all(|(_, t)| t.mode == "closed-loop") {
        text += " Pauses of the recording are left out: each event happens as soon as what it \
                 depends on is done, so these are the shortest times that the mappings allow.";
    }
    Some(text)
}

fn ms(ns: u64) -> String {
    rate(Some(ns as f64 / 1e6))
}

/// Where one run's time goes.
fn one(t: &TimingResult) -> String {
    let l = &t.latency.dma;
    if l.count == 0 {
        return "No device access was measured.".to_owned() + &vcpus(t);
    }
    let mut text = format!("A device access takes {} ns on average", rate(Some(l.mean_ns)));
    // Three significant digits: closer values are the same.
    if l.p99_ns as f64 <= l.p50_ns as f64 * 1.02 {
        text += " and nearly always the same";
    } else {
        text += &format!(", and one in a hundred {} ns or more", thousands(l.p99_ns));
    }
    let [queueing, lookup, waiting, walk, page_request, pcie] = parts(t);
    let translation = lookup + waiting + walk + page_request;
    text += &format!(
        ". Of the average, {} ns are PCIe and memory, {} ns the device's own link and slots, and \
         {} ns translation",
        rate(Some(pcie)),
        rate(Some(queueing)),
        rate(Some(translation)),
    );
    let causes = [
        ("look-ups", lookup),
        ("waiting for a page-table walker", waiting),
        ("page-table walks", walk),
        ("page requests", page_request),
    ];
    let largest = causes.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((what, ns)) = largest.filter(|l| l.1 > 0.0) {
        text += &format!(", mainly {what} ({} ns)", rate(Some(ns)));
    }
    text + "." + &vcpus(t)
}

/// Mean parts of an access over all classes, in ns: queueing, look-up, waiting
/// for a walker, walk, page request, PCIe.
fn parts(t: &TimingResult) -> [f64; 6] {
    let mut sums = [0.0; 6];
    let mut count = 0.0;
    for c in &t.classes {
        count += c.count as f64;
        for (sum, part) in sums.iter_mut().zip(c.parts_ns()) {
            *sum += part * c.count as f64;
        }
    }
    sums.map(|sum| if count > 0.0 { sum / count } else { 0.0 })
}

/// What the guest's CPUs have to do with it.
fn vcpus(t: &TimingResult) -> String {
    let v = &t.vcpus;
    if v.vcpus == 0 || v.utilisation == 0.0 {
        return " The guest's CPUs have nothing to do for it.".into();
    }
    let causes = [
        ("other work", v.think_ns),
        ("the map and unmap calls themselves", v.map_ns.saturating_add(v.unmap_ns)),
        ("preparing and writing invalidations", v.prepare_ns.saturating_add(v.enqueue_ns)),
        ("waiting for a lock that another CPU holds", v.lock_ns.saturating_add(v.vmm_lock_ns)),
        ("exits to the VMM and its work", v.trap_ns.saturating_add(v.vmm_ns)),
        ("waiting for hardware", v.hardware_ns),
    ];
    let all = causes.iter().fold(0u64, |sum, (_, n)| sum.saturating_add(*n));
    let mut text = String::new();
    if let Some((cause, n)) = causes.iter().max_by_key(|(_, n)| *n) {
        text += &format!(
            " Mapping, unmapping and invalidating keep the guest's {} ({} ms of CPU time), \
             mostly with {cause} ({}).",
            match v.vcpus {
                1 => format!("CPU busy for {} of the time", percent_sign(Some(v.utilisation))),
                n => format!(
                    "{n} CPUs busy for {} of the time on average, and the busiest for {}",
                    percent_sign(Some(v.utilisation)),
                    percent_sign(crate::measure::ratio(v.busiest_ns, t.elapsed_ns)),
                ),
            },
            ms(all),
            percent_sign(crate::measure::ratio(*n, all)),
        );
    }
    // What the device with nearly all the traffic waits for, not one that sends three requests.
    let main = t.devices.iter().max_by_key(|d| d.requests);
    if let Some(d) = main.filter(|d| t.mode == "closed-loop" && d.starved_ns > t.elapsed_ns / 2) {
        text += &format!(
            " That, and not the devices, limits throughput: {}, with most of the accesses, waits \
             for its buffers to be mapped for {} of the time.",
            crate::format::clean(&d.device),
            percent_sign(crate::measure::ratio(d.starved_ns.min(t.elapsed_ns), t.elapsed_ns)),
        );
    }
    text
}

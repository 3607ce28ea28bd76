//! Misses of each device, by cause.

use ioasim_sim::results::DeviceCounters;

use super::bars::{Bar, Bars, Panel};
use super::miss_causes::{KEY, segments};
use super::{DataTable, Figure, Size};
use crate::error::Result;
use crate::format::{clean, percent, rate, short_count, thousands};
use crate::measure::{per_1000, ratio};
use crate::summary::Named;

const ID: &str = "devices";

/// Most panels drawn; the table has all devices.
const PANELS: usize = 6;

/// The figure; `None` without devices that missed.
pub(super) fn figure(runs: &[Named<'_>]) -> Result<Option<Figure>> {
    let devices = by_requests(runs);
    let busy: Vec<&(String, u64)> = devices.iter().filter(|(_, n)| *n > 0).collect();
    let missed = runs.iter().any(|r| r.run.devices.iter().any(|d| d.misses > 0));
    if busy.is_empty() || !missed {
        return Ok(None);
    }
    let shown = &busy[..busy.len().min(PANELS)];
    let per_1000_misses = |d: &DeviceCounters| per_1000(d.misses, d.requests).unwrap_or(0.0);
    let largest = runs
        .iter()
        .flat_map(|r| shown.iter().filter_map(|(name, _)| find(r, name)))
        .map(per_1000_misses)
        .fold(0.0, f64::max);
    let panels = shown
        .iter()
        .map(|(name, requests)| Panel {
            title: format!("{} · {} requests", clean(name), short_count(*requests)),
            bars: runs
                .iter()
                .map(|r| match find(r, name) {
                    Some(d) => Bar {
                        segments: segments(&d.miss_causes, d.requests),
                        end: rate(per_1000(d.misses, d.requests)),
                    },
                    None => Bar { segments: Vec::new(), end: "-".into() },
                })
                .collect(),
            max: Some(largest),
        })
        .collect();
    let figure = Bars {
        figure: ID,
        rows: runs.iter().map(|r| r.name.clone()).collect(),
        panels,
        key: KEY.to_vec(),
        columns: 2,
    };
    let caption = caption(runs, shown);
    let mut note = String::new();
    if busy.len() > shown.len() {
        note = format!(
            "The {} busiest of {} devices are drawn; the table has all.",
            shown.len(),
            busy.len()
        );
    }
    Ok(Some(Figure {
        id: ID,
        title: "Misses by device and cause, per 1,000 DMA of the device".into(),
        caption,
        note,
        wide: figure.svg(Size::Wide)?,
        narrow: figure.svg(Size::Narrow)?,
        table: table(runs, &devices),
        readout: None,
    }))
}

/// All devices with their most requests in any run, busiest first.
fn by_requests(runs: &[Named<'_>]) -> Vec<(String, u64)> {
    let mut devices: Vec<(String, u64)> = Vec::new();
    for d in runs.iter().flat_map(|r| &r.run.devices) {
        match devices.iter_mut().find(|(name, _)| *name == d.device) {
            Some((_, n)) => *n = (*n).max(d.requests),
            None => devices.push((d.device.clone(), d.requests)),
        }
    }
    devices.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    devices
}

fn find<'a>(run: &Named<'a>, device: &str) -> Option<&'a DeviceCounters> {
    run.run.devices.iter().find(|d| d.device == device)
}

fn caption(runs: &[Named<'_>], shown: &[&(String, u64)]) -> String {
    let rate_of = |name: &str| {
        let rates = runs
            .iter()
            .filter_map(|r| find(r, name))
            .filter_map(|d| per_1000(d.misses, d.requests));
        rates.fold(0.0, f64::max)
    };
    let rates: Vec<(f64, &str)> =
        shown.iter().map(|(name, _)| (rate_of(name), name.as_str())).collect();
    let most = rates.iter().copied().reduce(|a, b| if b.0 > a.0 { b } else { a });
    let least = rates.iter().copied().reduce(|a, b| if b.0 < a.0 { b } else { a });
    match (most, least) {
        (Some((high, device)), Some((low, other)))
            if rates.len() > 1 && rate(Some(high)) != rate(Some(low)) =>
        {
            format!(
                "Device {} misses most, at worst {} times per 1,000 DMA; {} least ({}).",
                clean(device),
                rate(Some(high)),
                clean(other),
                rate(Some(low))
            )
        }
        (Some((high, _)), _) if rates.len() > 1 => {
            format!("All devices miss alike, at worst {} times per 1,000 DMA.", rate(Some(high)))
        }
        (Some((high, device)), _) => {
            format!(
                "Device {} misses at worst {} times per 1,000 DMA.",
                clean(device),
                rate(Some(high))
            )
        }
        _ => String::new(),
    }
}

fn table(runs: &[Named<'_>], devices: &[(String, u64)]) -> DataTable {
    let mut rows = Vec::new();
    for (name, _) in devices {
        for r in runs {
            let Some(d) = find(r, name) else { continue };
            let m = &d.miss_causes;
            rows.push(vec![
                clean(name).into_owned(),
                r.name.clone(),
                thousands(d.requests),
                thousands(d.hits),
                thousands(d.misses),
                percent(ratio(d.hits, d.hits.saturating_add(d.misses))),
                thousands(m.cold),
                thousands(m.capacity),
                thousands(m.conflict),
                thousands(m.invalidation),
                thousands(d.memory_reads),
                thousands(d.faults),
            ]);
        }
    }
    DataTable {
        columns: [
            "device",
            "configuration",
            "requests",
            "hits",
            "misses",
            "hit rate, %",
            "cold",
            "capacity",
            "conflict",
            "invalidation",
            "walk reads",
            "faults",
        ]
        .map(String::from)
        .to_vec(),
        rows,
    }
}

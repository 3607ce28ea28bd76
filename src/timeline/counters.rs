//! Counters beside the slices: queue lengths and the hit rate.

use ioasim_sim::results::records::{Timeline, Window};
use ioasim_sim::time::Ps;
use ioasim_traces::perfetto::{Packets, TrackKind, Type};

use super::{COUNTERS, Group, LANES, device_name, extent};

/// Intervals of the hit rate.
const INTERVALS: u64 = 100;

/// Places of the counters in their groups.
const WALKS: u64 = COUNTERS;
const WALK_QUEUE: u64 = COUNTERS + 1;
const LOCK_QUEUE: u64 = COUNTERS + 2;
const HIT_RATE: u64 = COUNTERS + 3;
const VMM_QUEUE: u64 = LANES + 4;

/// A counter's new value.
pub struct Count {
    /// From then on.
    pub time: Ps,
    track: u64,
    value: Number,
}

#[derive(Clone, Copy)]
enum Number {
    Whole(i64),
    Percent(f64),
}

impl Count {
    /// Encodes it.
    pub fn write(&self, p: &mut Packets) {
        p.event(Type::Counter, self.track);
        match self.value {
            Number::Whole(n) => p.counter(n),
            Number::Percent(x) => p.double_counter(x),
        }
        p.end_event(self.time.ns());
    }
}

/// Place of a device's counter.
fn device(i: usize) -> u64 {
    (i as u64 + 1) * LANES + LANES - 1
}

/// Describes the counters' tracks.
pub fn describe(p: &mut Packets, timeline: &Timeline) {
    // Of a window of events only their own operations are known.
    let part = match timeline.window {
        Window::Time { .. } => "",
        Window::Events { .. } => ", of the operations shown",
    };
    let mut track = |group: Group, parent: u64, place: u64, name: &str, unit| {
        let name = format!("{name}{part}");
        let kind = TrackKind::Counter(unit);
        p.track(group.track(place), group.track(parent), &name, kind, 0);
    };
    track(Group::Iommu, 0, WALKS, "walks under way", "");
    track(Group::Iommu, 0, WALK_QUEUE, "requests that wait for a walker", "");
    track(Group::Iommu, 0, LOCK_QUEUE, "vCPUs that wait for the invalidation queue", "");
    track(Group::Iommu, 0, HIT_RATE, "IOTLB hit rate", "%");
    track(Group::Vmm, 0, VMM_QUEUE, "vCPUs that wait for the VMM", "");
    for i in 0..timeline.devices.len() {
        if timeline.dmas.iter().any(|d| d.device as usize == i) {
            let name = format!("{}: requests in flight", device_name(timeline, i));
            track(Group::Devices, (i as u64 + 1) * LANES, device(i), &name, "");
        }
    }
}

/// All values in order of time.
pub fn counts(timeline: &Timeline) -> Vec<Count> {
    let Some(extent) = extent(timeline) else { return Vec::new() };
    let mut all = Vec::new();
    let mut level = |track, intervals: &mut dyn Iterator<Item = (Ps, Ps)>| {
        levels(Group::track(Group::Iommu, track), intervals, extent, &mut all);
    };
    level(WALKS, &mut timeline.walks.iter().map(|w| (w.started, w.ended)));
    let served = || timeline.dmas.iter().flat_map(|d| d.served.iter().flatten());
    level(WALK_QUEUE, &mut served().map(|s| (s.came, s.started)));
    level(LOCK_QUEUE, &mut timeline.ops.iter().filter_map(|o| Some((o.prepared, o.locked?))));
    let vmm = timeline.ops.iter().filter_map(|o| Some((o.trapped, o.vmm?.0)));
    levels(Group::Vmm.track(VMM_QUEUE), &mut { vmm }, extent, &mut all);
    for i in 0..timeline.devices.len() {
        let mine = timeline.dmas.iter().filter(|d| d.device as usize == i);
        let track = Group::Devices.track(device(i));
        levels(track, &mut mine.map(|d| (d.start, d.done)), extent, &mut all);
    }
    hit_rate(timeline, extent, &mut all);
    all.sort_by_key(|c| c.time);
    all
}

/// How many intervals overlap, whenever that changes.
fn levels(
    track: u64,
    intervals: &mut dyn Iterator<Item = (Ps, Ps)>,
    (from, to): (Ps, Ps),
    out: &mut Vec<Count>,
) {
    let mut changes: Vec<(Ps, i64)> = Vec::new();
    for (start, end) in intervals.filter(|(start, end)| start < end && *start < to && *end >= from)
    {
        changes.push((start.max(from), 1));
        if end <= to {
            changes.push((end, -1));
        }
    }
    changes.sort_unstable_by_key(|c| c.0);
    let mut level = 0;
    let mut at = 0;
    while let Some(&(time, _)) = changes.get(at) {
        let before = level;
        while let Some((_, by)) = changes.get(at).filter(|c| c.0 == time) {
            level += by;
            at += 1;
        }
        if level != before || out.last().is_none_or(|c| c.track != track) {
            out.push(Count { time, track, value: Number::Whole(level) });
        }
    }
}

/// The IOTLB's hit rate by interval; an interval without look-ups keeps the
/// rate before it.
fn hit_rate(timeline: &Timeline, (from, to): (Ps, Ps), out: &mut Vec<Count>) {
    let step = (to.since(from).0 / INTERVALS).max(1);
    let mut rates = vec![(0u64, 0u64); INTERVALS as usize + 1];
    // What the device TLB answers never gets there.
    let lookups = timeline.dmas.iter().filter(|d| d.class != "device-tlb-hit");
    for d in lookups.filter(|d| d.looked_up >= from && d.looked_up <= to) {
        let place = (d.looked_up.since(from).0 / step).min(INTERVALS) as usize;
        rates[place].0 += u64::from(d.hit);
        rates[place].1 += 1;
    }
    for (i, (hits, lookups)) in rates.iter().enumerate().filter(|(_, r)| r.1 > 0) {
        out.push(Count {
            time: from + Ps(step).times(i as u64),
            track: Group::Iommu.track(HIT_RATE),
            value: Number::Percent(100.0 * *hits as f64 / *lookups as f64),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_the_overlap_inside_the_window() {
        let intervals = [(0, 10), (5, 15), (15, 20), (4, 4), (30, 40)];
        let mut out = Vec::new();
        let ps = intervals.iter().map(|(a, b)| (Ps(*a), Ps(*b)));
        levels(7, &mut { ps }, (Ps(3), Ps(35)), &mut out);
        let found: Vec<(u64, i64)> = out
            .iter()
            .map(|c| match c.value {
                Number::Whole(n) => (c.time.0, n),
                Number::Percent(_) => unreachable!("levels are whole"),
            })
            .collect();
        assert_eq!(found, [(3, 1), (5, 2), (10, 1), (20, 0), (30, 1)]);
    }
}

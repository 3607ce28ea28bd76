//! The timeline of a watched run, for Perfetto.
//!
//! Tracks: lanes per device (requests in flight at one time have a lane each),
//! walkers, invalidation queues, the VMM, vCPUs; counters beside them. Flows
//! lead from an unmap to its invalidation, through the queue, to its
//! completion, and from a request to the walk that serves it.

mod counters;
mod lanes;
mod slices;

use std::path::Path;

use anyhow::Result;
use ioasim_sim::events::Requester;
use ioasim_sim::results::records::{Timeline, Window};
use ioasim_sim::time::Ps;
use ioasim_traces::exchange::Output;
use ioasim_traces::perfetto::{Packets, TrackKind};

use slices::Slices;

/// Bytes encoded before they go to the file.
const BLOCK: usize = 1 << 20;

/// Groups of tracks; a track's number is its place in the group, and the
/// group's above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Devices = 1,
    Iommu,
    Vcpus,
    Vmm,
}

impl Group {
    fn track(self, place: u64) -> u64 {
        (self as u64) << 40 | place
    }
}

/// Places within [`Group::Iommu`] and [`Group::Vmm`]; lanes follow them.
const COUNTERS: u64 = 1;
const WALKERS: u64 = 1 << 20;
const QUEUES: u64 = 2 << 20;
const WORK: u64 = 3 << 20;

/// Lanes that a device can have.
const LANES: u64 = 1 << 20;

/// Writes a timeline; returns the file's size. `what` says which run it is.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, timeline: &Timeline, what: &str) -> Result<u64> {
    let mut out = Output::create(path)?;
    let mut packets = Packets::default();
    packets.begin(&slices::NAMES, &slices::VALUES);
    groups(&mut packets, what);
    let slices = Slices::new(timeline);
    describe(&mut packets, timeline, &slices);
    counters::describe(&mut packets, timeline);
    let mut counts = counters::counts(timeline).into_iter().peekable();
    for i in 0..slices.len() {
        while let Some(count) = counts.next_if(|c| c.time.ns() <= slices.time(i)) {
            count.write(&mut packets);
        }
        slices.write(i, &mut packets);
        if packets.bytes().len() > BLOCK {
            out.put(packets.bytes())?;
            packets.clear();
        }
    }
    counts.for_each(|c| c.write(&mut packets));
    out.put(packets.bytes())?;
    Ok(out.finish()?)
}

fn groups(packets: &mut Packets, what: &str) {
    for (group, name) in [
        (Group::Devices, "devices"),
        (Group::Iommu, "IOMMU"),
        (Group::Vcpus, "vCPUs"),
        (Group::Vmm, "VMM"),
    ] {
        // Who looks at a picture must know what it shows.
        let name = format!("{name}: {what}");
        packets.track(group.track(0), 0, &name, TrackKind::Process(group as u64), group as u64);
    }
}

/// Describes the tracks of slices.
fn describe(packets: &mut Packets, timeline: &Timeline, slices: &Slices<'_>) {
    let mut plain = |group: Group, parent: u64, place: u64, name: &str, rank: u64| {
        packets.track(group.track(place), group.track(parent), name, TrackKind::Plain, rank);
    };
    for (i, lanes) in slices.device_lanes.iter().enumerate().filter(|(_, n)| **n > 0) {
        let device = (i as u64 + 1) * LANES;
        plain(Group::Devices, 0, device, &device_name(timeline, i), i as u64);
        for lane in 0..u64::from(*lanes) {
            plain(
                Group::Devices,
                device,
                device + 1 + lane,
                &format!("lane {}", lane + 1),
                lane + 1,
            );
        }
    }
    for (first, lanes, name) in
        [(WALKERS, slices.walkers, "walker"), (QUEUES, slices.queues, "invalidation queue")]
    {
        for lane in 0..u64::from(lanes) {
            plain(Group::Iommu, 0, first + lane, &format!("{name} {}", lane + 1), first + lane);
        }
    }
    for lane in 0..u64::from(slices.work) {
        plain(Group::Vmm, 0, WORK + lane, &format!("work {}", lane + 1), WORK + lane);
    }
    for (i, cpu) in timeline.cpus.iter().enumerate() {
        if !timeline.ops.iter().any(|o| o.cpu as usize == i) {
            continue;
        }
        match cpu {
            Some(n) => plain(Group::Vcpus, 0, i as u64 + 1, &format!("vCPU {n}"), *n as u64 + 1),
            None => plain(Group::Vmm, 0, i as u64 + 1, "VMM's own thread", 0),
        }
    }
}

/// The track of a vCPU, or of the VMM's thread.
fn cpu_track(timeline: &Timeline, cpu: u32) -> u64 {
    let group = match timeline.cpus.get(cpu as usize) {
        Some(None) => Group::Vmm,
        _ => Group::Vcpus,
    };
    group.track(u64::from(cpu) + 1)
}

fn device_name(timeline: &Timeline, device: usize) -> String {
    match timeline.devices.get(device) {
        Some(&Requester::NONE) | None => "all devices".into(),
        Some(id) => format!("device {id}"),
    }
}

/// The time in which counters are complete: the window, or what its events
/// extend to.
fn extent(timeline: &Timeline) -> Option<(Ps, Ps)> {
    let (first, last) = timeline.extent()?;
    Some(match timeline.window {
        Window::Time { from, to } => (first.max(from), last.min(to)),
        Window::Events { .. } => (first, last),
    })
}

//! Slices on tracks, in order of time, and the flows between them.

use std::collections::{HashMap, HashSet};

use ioasim_sim::events::{DomainId, Pasid};
use ioasim_sim::results::records::{
    Cause, DmaSpan, DmaStage, OpKind, OpSpan, OpStage, Timeline, WalkSpan,
};
use ioasim_sim::time::Ps;
use ioasim_traces::perfetto::{Name, Packets, Type, Value};

use super::lanes::lanes;
use super::{Group, LANES, QUEUES, WALKERS, WORK, cpu_track};

/// Names of slices.
pub const NAMES: [&str; 24] = [
    "slot and link",
    "device TLB look-up",
    "to the IOMMU",
    "IOTLB look-up",
    "waits for a walker",
    "walk",
    "page request",
    "PCIe and memory",
    "own work",
    "blocked: queue's lock",
    "writes descriptors",
    "exit to the VMM and back",
    "blocked: VMM's lock",
    "VMM works",
    "blocked: hardware",
    "map",
    "unmap",
    "invalidation (tlb_sync)",
    "invalidation after map",
    "parent change",
    "completed",
    "DMA read",
    "DMA write",
    "invalidation",
];
/// Names of the values beside them.
pub const VALUES: [&str; 11] = [
    "event",
    "domain",
    "addr",
    "size",
    "pasid",
    "class",
    "bytes",
    "entries read",
    "vCPU",
    "unmaps completed",
    "ns",
];

fn known(name: &str) -> Name<'static> {
    Name::Known(NAMES.iter().position(|n| *n == name).expect("it is in the list"))
}

fn dma_stage(stage: DmaStage) -> Name<'static> {
    // NAMES begins with them, in their order.
    Name::Known(stage as usize)
}

fn op_stage(stage: OpStage) -> Name<'static> {
    Name::Known(8 + stage as usize)
}

fn op_name(kind: OpKind) -> Name<'static> {
    Name::Known(15 + kind as usize)
}

/// What happens on a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    End,
    /// The spans are named by their place in the timeline.
    Dma(u32),
    Walk(u32),
    /// On its vCPU.
    Op(u32),
    /// On the invalidation queue.
    Queued(u32),
    /// On the VMM.
    Work(u32),
    DmaStage(DmaStage),
    OpStage(OpStage),
    Completed(u32),
}

#[derive(Clone, Copy, Debug)]
struct Item {
    time_ns: u64,
    track: u64,
    what: What,
}

/// The slices of a timeline.
pub struct Slices<'a> {
    timeline: &'a Timeline,
    items: Vec<Item>,
    /// Lanes of each device.
    pub device_lanes: Vec<u32>,
    /// Walkers that worked at one time.
    pub walkers: u32,
    /// Invalidation queues, likewise.
    pub queues: u32,
    /// Operations in the VMM, likewise.
    pub work: u32,
    /// Events of the unmaps that are shown.
    unmaps: HashSet<u64>,
    /// Requests by the walks that served them.
    walked: HashMap<u64, Vec<u64>>,
    /// Flows: number of items, and the last of them.
    flows: HashMap<u64, (u32, usize)>,
}

/// Flows of requests; those of operations have other high bits.
const OF_DMA: u64 = 1 << 60;
const OF_UNMAP: u64 = 2 << 60;
const OF_OTHER: u64 = 3 << 60;

impl<'a> Slices<'a> {
    pub fn new(timeline: &'a Timeline) -> Slices<'a> {
        let unmaps = timeline.ops.iter().filter(|o| o.kind == OpKind::Unmap);
        let mut walked: HashMap<u64, Vec<u64>> = HashMap::new();
        for d in &timeline.dmas {
            for s in d.served.iter().flatten() {
                walked.entry(s.walk).or_default().push(d.cause.event);
            }
        }
        let mut slices = Slices {
            timeline,
            items: Vec::new(),
            device_lanes: vec![0; timeline.devices.len()],
            walkers: 0,
            queues: 0,
            work: 0,
            unmaps: unmaps.map(|o| o.cause.event).collect(),
            walked,
            flows: HashMap::new(),
        };
        slices.dmas();
        slices.ops();
        slices.walks();
        // Stable: what is at the same time on a track stays in its order.
        slices.items.sort_by_key(|i| i.time_ns);
        for i in 0..slices.items.len() {
            let mut found = Vec::new();
            slices.flows_of(i, |flow| found.push(flow));
            for flow in found {
                let (count, last) = slices.flows.entry(flow).or_default();
                *count += 1;
                *last = i;
            }
        }
        slices
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Time of item `i` in ns.
    pub fn time(&self, i: usize) -> u64 {
        self.items[i].time_ns
    }

    fn put(&mut self, time: Ps, track: u64, what: What) {
        self.items.push(Item { time_ns: time.ns(), track, what });
    }

    fn dmas(&mut self) {
        let timeline = self.timeline;
        for device in 0..timeline.devices.len() {
            let mut mine: Vec<(u32, &DmaSpan)> =
                (0..).zip(&timeline.dmas).filter(|(_, d)| d.device as usize == device).collect();
            mine.sort_by_key(|(_, d)| d.start);
            let (lane, used) = lanes(mine.iter().map(|(_, d)| (d.start, d.done)));
            self.device_lanes[device] = used;
            for ((i, d), lane) in mine.iter().zip(lane) {
                let first = (device as u64 + 1) * LANES + 1;
                let track = Group::Devices.track(first + u64::from(lane));
                self.put(d.start, track, What::Dma(*i));
                d.stages(|stage, from, to| {
                    self.put(from, track, What::DmaStage(stage));
                    self.put(to, track, What::End);
                });
                self.put(d.done, track, What::End);
            }
        }
    }

    fn ops(&mut self) {
        let timeline = self.timeline;
        let mut by_start: Vec<u32> = (0..timeline.ops.len() as u32).collect();
        by_start.sort_by_key(|i| timeline.ops[*i as usize].start);
        for i in &by_start {
            let op = &timeline.ops[*i as usize];
            let track = cpu_track(timeline, op.cpu);
            self.put(op.start, track, What::Op(*i));
            op.stages(|stage, from, to| {
                self.put(from, track, What::OpStage(stage));
                self.put(to, track, What::End);
            });
            if op.locked.is_some() || op.vmm.is_some() {
                self.put(op.done, track, What::Completed(*i));
            }
            self.put(op.done, track, What::End);
        }
        self.queues = self.shared(QUEUES, Group::Iommu, What::Queued, |op| {
            op.locked.map(|locked| (locked, op.done))
        });
        self.work = self.shared(WORK, Group::Vmm, What::Work, |op| op.vmm);
    }

    /// Operations' times at a shared resource; returns the lanes used.
    fn shared(
        &mut self,
        first: u64,
        group: Group,
        what: fn(u32) -> What,
        times: impl Fn(&OpSpan) -> Option<(Ps, Ps)>,
    ) -> u32 {
        let mut found: Vec<((Ps, Ps), u32)> =
            (0..).zip(&self.timeline.ops).filter_map(|(i, op)| Some((times(op)?, i))).collect();
        found.sort_unstable();
        let (lane, used) = lanes(found.iter().map(|f| f.0));
        for (((from, to), i), lane) in found.iter().zip(lane) {
            let track = group.track(first + u64::from(lane));
            self.put(*from, track, what(*i));
            if first == QUEUES {
                let op = &self.timeline.ops[*i as usize];
                op.stages(|stage, from, to| {
                    if stage > OpStage::LockQueue {
                        self.put(from, track, What::OpStage(stage));
                        self.put(to, track, What::End);
                    }
                });
            }
            self.put(*to, track, What::End);
        }
        used
    }

    fn walks(&mut self) {
        let mut walks: Vec<(u32, &WalkSpan)> = (0..).zip(&self.timeline.walks).collect();
        walks.sort_by_key(|(_, w)| (w.started, w.ended));
        let (lane, used) = lanes(walks.iter().map(|(_, w)| (w.started, w.ended)));
        self.walkers = used;
        for ((i, w), lane) in walks.iter().zip(lane) {
            let track = Group::Iommu.track(WALKERS + u64::from(lane));
            self.put(w.started, track, What::Walk(*i));
            self.put(w.ended, track, What::End);
        }
    }

    /// The flows that an item belongs to.
    fn flows_of(&self, i: usize, mut f: impl FnMut(u64)) {
        let ops = &self.timeline.ops;
        match self.items[i].what {
            What::Dma(i) => {
                let dma = &self.timeline.dmas[i as usize];
                if dma.served[0].is_some() {
                    f(OF_DMA | dma.cause.event);
                }
            }
            What::Walk(i) => {
                let served = self.walked.get(&self.timeline.walks[i as usize].number);
                served.into_iter().flatten().for_each(|event| f(OF_DMA | event));
            }
            What::Op(i) | What::Queued(i) | What::Work(i) | What::Completed(i) => {
                let op = &ops[i as usize];
                if op.kind == OpKind::Unmap {
                    return f(OF_UNMAP | op.cause.event);
                }
                let shown = || op.unmaps.iter().filter(|u| self.unmaps.contains(u));
                shown().for_each(|u| f(OF_UNMAP | u));
                if shown().next().is_none() {
                    f(OF_OTHER | op.cause.event);
                }
            }
            What::End | What::DmaStage(_) | What::OpStage(_) => {}
        }
    }

    /// Encodes item `i`.
    pub fn write(&self, i: usize, p: &mut Packets) {
        let Item { time_ns, track, what } = self.items[i];
        let t = self.timeline;
        p.event(
            match what {
                What::End => Type::End,
                What::Completed(_) => Type::Instant,
                _ => Type::Begin,
            },
            track,
        );
        match what {
            What::End => {}
            What::Dma(i) => {
                let d = &t.dmas[i as usize];
                p.name(known(if d.write { "DMA write" } else { "DMA read" }));
                p.value(5, Value::Text(d.class));
                cause(p, &d.cause);
                p.value(6, Value::Number(u64::from(d.bytes)));
                p.value(10, Value::Number(d.done.since(d.start).ns()));
            }
            What::Walk(i) => {
                let w = &t.walks[i as usize];
                p.name(known("walk"));
                cause(p, &w.cause);
                p.value(7, Value::Number(u64::from(w.reads)));
            }
            What::Op(i) => {
                let op = &t.ops[i as usize];
                p.name(op_name(op.kind));
                cause(p, &op.cause);
                if op.kind == OpKind::Invalidation {
                    p.value(9, Value::Number(op.unmaps.len() as u64));
                }
                p.value(10, Value::Number(op.done.since(op.start).ns()));
            }
            What::Queued(i) | What::Work(i) => {
                let op = &t.ops[i as usize];
                let queued = matches!(what, What::Queued(_));
                p.name(if queued { known("invalidation") } else { op_name(op.kind) });
                cause(p, &op.cause);
                if let Some(Some(cpu)) = t.cpus.get(op.cpu as usize) {
                    p.value(8, Value::Number(*cpu as u64));
                }
            }
            What::Completed(_) => p.name(known("completed")),
            What::DmaStage(stage) => p.name(dma_stage(stage)),
            What::OpStage(stage) => p.name(op_stage(stage)),
        }
        self.flows_of(i, |flow| {
            // An end whose other end is outside the window leads nowhere.
            if let Some((2.., last)) = self.flows.get(&flow) {
                p.flow(flow, *last == i);
            }
        });
        p.end_event(time_ns);
    }
}

fn cause(p: &mut Packets, c: &Cause) {
    p.value(0, Value::Number(c.event));
    if c.domain != DomainId::NONE {
        p.value(1, Value::Number(u64::from(c.domain.0)));
    }
    p.value(2, Value::Address(c.addr));
    if c.size > 0 {
        p.value(3, Value::Number(c.size));
    }
    if c.pasid != Pasid::NONE {
        p.value(4, Value::Number(u64::from(c.pasid.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_where_the_numbers_say() {
        assert_eq!(dma_stage(DmaStage::Transfer), known("PCIe and memory"));
        assert_eq!(dma_stage(DmaStage::WalkQueue), known("waits for a walker"));
        assert_eq!(op_stage(OpStage::Own), known("own work"));
        assert_eq!(op_stage(OpStage::Hardware), known("blocked: hardware"));
        assert_eq!(op_name(OpKind::Map), known("map"));
        assert_eq!(op_name(OpKind::ParentChange), known("parent change"));
    }
}

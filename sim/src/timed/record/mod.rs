//! Records of a run that is watched.

mod latencies;
mod timeline;

use super::costs::Action;
use super::observe::{DmaDone, Got, Observer, OpDone, Unobserved, WalkDone};
use super::walkers::Walked;
use crate::events::{Chunk, Requester};
use crate::results::records::{Records, Watch};
use crate::time::Ps;
use latencies::IntervalLatencies;
use timeline::TimelineRecorder;

/// An observer that may have something to show at the end.
pub(crate) trait Observe: Observer + 'static {
    /// What was kept, once nothing happens any more.
    fn records(&mut self, _devices: Vec<Requester>) -> Option<Records> {
        None
    }
}

impl Observe for Unobserved {}

/// Keeps what a [`Watch`] asks for.
#[derive(Debug)]
pub(crate) struct Recorder {
    latencies: Option<IntervalLatencies>,
    timeline: Option<TimelineRecorder>,
}

impl Recorder {
    pub fn new(watch: &Watch) -> Recorder {
        Recorder {
            latencies: watch.latencies.then(IntervalLatencies::default),
            timeline: watch.timeline.map(TimelineRecorder::new),
        }
    }
}

/// Places in [`LATENCY_KINDS`](crate::results::records::LATENCY_KINDS).
const DMA: usize = 0;
const WALK: usize = 1;

impl Observer for Recorder {
    #[inline]
    fn reads(&mut self, chunk: &Chunk, i: usize) {
        if let Some(t) = &mut self.timeline {
            t.reads(&chunk.event(i), chunk.first + i as u64);
        }
    }

    #[inline]
    fn pushed(&mut self, at: u32) {
        if let Some(t) = &mut self.timeline {
            t.pushed(at);
        }
    }

    fn new_cpu(&mut self, number: Option<i32>) {
        if let Some(t) = &mut self.timeline {
            t.new_cpu(number);
        }
    }

    fn measures(&mut self, now: Ps) {
        if let Some(l) = &mut self.latencies {
            l.restart(now);
        }
    }

    fn dma_done(&mut self, done: &DmaDone<'_>) {
        if let Some(l) = &mut self.latencies
            && done.measured
        {
            l.record(DMA, done.done, done.split.total());
        }
        if let Some(t) = &mut self.timeline {
            t.dma_done(done);
        }
    }

    fn walk_done(&mut self, walk: &WalkDone, now: Ps) {
        if let Some(l) = &mut self.latencies
            && walk.measured
        {
            l.record(WALK, now, now.since(walk.started));
        }
        if let Some(t) = &mut self.timeline {
            t.walk_done(walk, now);
        }
    }

    fn walk_served(&mut self, served: &Walked, now: Ps) {
        if let Some(t) = &mut self.timeline {
            t.walk_served(served, now);
        }
    }

    fn cpu_got(&mut self, at: u32, what: Got, now: Ps) {
        if let Some(t) = &mut self.timeline {
            t.cpu_got(at, what, now);
        }
    }

    fn op_done(&mut self, done: &OpDone<'_>) {
        let kind = match done.op.action {
            Action::Sync => Some(2),
            Action::MapSync => Some(3),
            Action::Map => Some(4),
            Action::Unmap => Some(5),
            Action::Parent => None,
        };
        if let (Some(l), Some(kind), true) = (&mut self.latencies, kind, done.measured) {
            l.record(kind, done.done, done.done.since(done.start));
        }
        if let Some(t) = &mut self.timeline {
            t.op_done(done);
        }
    }
}

impl Observe for Recorder {
    fn records(&mut self, devices: Vec<Requester>) -> Option<Records> {
        Some(Records {
            latencies: self.latencies.take().map(IntervalLatencies::log),
            timeline: self.timeline.take().map(|t| t.timeline(devices)),
        })
    }
}

//! Spans of a window, for a timeline.

use std::collections::VecDeque;

use crate::events::{Event, Flags, Kind, Requester, Scope};
use crate::results::records::{Cause, DmaSpan, OpKind, OpSpan, Served, Timeline, WalkSpan, Window};
use crate::time::Ps;
use crate::timed::costs::Action;
use crate::timed::observe::{DmaDone, Got, OpDone, WalkDone};
use crate::timed::ops::{NONE, WINDOW};
use crate::timed::walkers::Walked;

/// Most unmaps that are remembered until their invalidation; flush queues have
/// 256 entries per vCPU.
const MOST_UNMAPS: usize = 1 << 14;

/// What is known about an operation under way.
#[derive(Clone, Debug)]
struct Flight {
    cause: Cause,
    unmaps: Vec<u64>,
    served: [Option<Served>; 2],
    locked: Option<Ps>,
    vmm: Option<Ps>,
}

/// Collects spans.
#[derive(Debug)]
pub struct TimelineRecorder {
    timeline: Timeline,
    /// The event that is being read.
    reading: Cause,
    completes: Vec<u64>,
    /// By place in the window of operations.
    flights: Vec<Flight>,
    /// Unmaps without invalidation so far.
    unmapped: VecDeque<Cause>,
    walks: u64,
    /// The walk that ended last, until the first request that it served.
    ended: Option<WalkSpan>,
}

impl TimelineRecorder {
    pub fn new(window: Window) -> TimelineRecorder {
        let nothing = Event::new(Kind::Marker);
        let cause = cause(&nothing, 0);
        let flight =
            Flight { cause, unmaps: Vec::new(), served: [None; 2], locked: None, vmm: None };
        TimelineRecorder {
            timeline: Timeline {
                window,
                devices: Vec::new(),
                cpus: Vec::new(),
                dmas: Vec::new(),
                walks: Vec::new(),
                ops: Vec::new(),
                left_out: 0,
            },
            reading: cause,
            completes: Vec::new(),
            flights: vec![flight; WINDOW],
            unmapped: VecDeque::new(),
            walks: 0,
            ended: None,
        }
    }

    pub fn reads(&mut self, e: &Event, number: u64) {
        self.reading = cause(e, number);
        self.completes.clear();
        match e.kind {
            Kind::Unmap => {
                if self.unmapped.len() == MOST_UNMAPS {
                    self.unmapped.pop_front();
                }
                self.unmapped.push_back(self.reading);
            }
            Kind::Invalidate if !e.flags.has(Flags::MAP_NOTIFY) => self.invalidates(e),
            _ => {}
        }
    }

    /// Notes the unmaps that an invalidation covers.
    fn invalidates(&mut self, e: &Event) {
        let (start, end) = (e.addr, e.addr.saturating_add(e.size));
        let completes = &mut self.completes;
        self.unmapped.retain(|u| {
            let covered = match e.flags.scope() {
                Some(Scope::Page) => {
                    u.domain == e.domain && u.addr < end && start < u.addr.saturating_add(u.size)
                }
                Some(Scope::Domain | Scope::Context) => u.domain == e.domain,
                _ => true,
            };
            if covered {
                completes.push(u.event);
            }
            !covered
        });
    }

    pub fn pushed(&mut self, at: u32) {
        let flight = &mut self.flights[at as usize];
        flight.cause = self.reading;
        flight.served = [None; 2];
        flight.locked = None;
        flight.vmm = None;
        flight.unmaps.clear();
        flight.unmaps.append(&mut self.completes);
    }

    pub fn new_cpu(&mut self, number: Option<i32>) {
        self.timeline.cpus.push(number);
    }

    fn wants(&mut self, event: u64, start: Ps, end: Ps) -> bool {
        if !self.timeline.window.holds(event, start, end) {
            return false;
        }
        let room = self.timeline.spans() < Timeline::MOST_SPANS;
        self.timeline.left_out += u64::from(!room);
        room
    }

    pub fn dma_done(&mut self, d: &DmaDone<'_>) {
        let (cause, served) = match d.at {
            NONE => (self.reading, [None; 2]),
            at => (self.flights[at as usize].cause, self.flights[at as usize].served),
        };
        let start = d.start;
        if !self.wants(cause.event, start, d.done) {
            return;
        }
        let sent = start + d.split.queueing;
        // A request that waited for a page was noted as looked up again later.
        let looked_up = served[0].map_or(d.looked_up, |s| s.came);
        let device_looked_up = (sent + d.device_lookup).min(looked_up);
        let lookup = d.split.lookup.since(d.device_lookup);
        self.timeline.dmas.push(DmaSpan {
            cause,
            device: d.device,
            class: d.class.name(),
            hit: !d.walks,
            bytes: d.bytes,
            write: d.write,
            start,
            sent,
            device_looked_up,
            arrived: Ps(looked_up.0.saturating_sub(lookup.0)).max(device_looked_up),
            looked_up,
            served,
            translated: Ps(d.done.0.saturating_sub(d.after.0)),
            done: d.done,
        });
    }

    pub fn walk_done(&mut self, w: &WalkDone, now: Ps) {
        self.walks += 1;
        self.ended = Some(WalkSpan {
            number: self.walks,
            cause: self.reading,
            reads: w.reads,
            started: w.started,
            ended: now,
        });
    }

    pub fn walk_served(&mut self, w: &Walked, now: Ps) {
        if w.token == NONE {
            // Fetched ahead: the event that is being read stands for it.
            if let Some(walk) = self.ended.take()
                && self.wants(walk.cause.event, walk.started, walk.ended)
            {
                self.timeline.walks.push(walk);
            }
            return;
        }
        let flight = &mut self.flights[w.token as usize];
        let started = Ps(now.0.saturating_sub(w.walked.0));
        let came = Ps(started.0.saturating_sub(w.waited.0));
        let served = Served { walk: self.walks, came, started, ended: now };
        if let Some(free) = flight.served.iter_mut().find(|s| s.is_none()) {
            *free = Some(served);
        }
        let cause = flight.cause;
        if let Some(walk) = self.ended.take()
            && self.wants(cause.event, walk.started, walk.ended)
        {
            self.timeline.walks.push(WalkSpan { cause, ..walk });
        }
    }

    pub fn cpu_got(&mut self, at: u32, what: Got, now: Ps) {
        let flight = &mut self.flights[at as usize];
        match what {
            Got::Lock => flight.locked = Some(now),
            Got::Vmm => flight.vmm = Some(now),
        }
    }

    pub fn op_done(&mut self, d: &OpDone<'_>) {
        let OpDone { at, cpu, op, start, done, .. } = *d;
        let event = self.flights[at as usize].cause.event;
        // What takes no time is nothing that a guest without vIOMMU does.
        if !self.wants(event, start, done) {
            return;
        }
        let flight = &mut self.flights[at as usize];
        let prepared = start + op.parts.own;
        let enqueued = flight.locked.unwrap_or(prepared) + op.parts.enqueue;
        self.timeline.ops.push(OpSpan {
            cause: flight.cause,
            cpu,
            kind: match op.action {
                Action::Map => OpKind::Map,
                Action::Unmap => OpKind::Unmap,
                Action::Sync => OpKind::Invalidation,
                Action::MapSync => OpKind::MapInvalidation,
                Action::Parent => OpKind::ParentChange,
            },
            start,
            prepared,
            locked: flight.locked,
            enqueued,
            trapped: enqueued + op.parts.trap,
            vmm: flight.vmm.map(|start| (start, start + op.parts.vmm)),
            done,
            unmaps: std::mem::take(&mut flight.unmaps),
        });
    }

    pub fn timeline(mut self, devices: Vec<Requester>) -> Timeline {
        self.timeline.devices = devices;
        self.timeline
    }
}

fn cause(e: &Event, number: u64) -> Cause {
    Cause {
        event: number,
        addr: e.addr,
        size: e.size,
        domain: e.domain,
        requester: e.requester,
        pasid: e.pasid,
    }
}

//! Operations of vCPUs, in program order.

use super::costs::{Action, Parts};
use super::observe::{Got, Observer, OpDone};
use super::ops::{NONE, Op, What};
use super::world::{Happens, World};
use crate::replay::outcomes::Work;
use crate::results::timing::VcpuTime;
use crate::time::{Admission, Ps};

/// Time by cause.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Causes {
    pub think: Ps,
    pub map: Ps,
    pub unmap: Ps,
    pub prepare: Ps,
    pub lock: Ps,
    pub enqueue: Ps,
    pub trap: Ps,
    pub vmm_lock: Ps,
    pub vmm: Ps,
    pub hardware: Ps,
}

impl Causes {
    pub fn total(&self) -> Ps {
        self.think
            + self.map
            + self.unmap
            + self.prepare
            + self.lock
            + self.enqueue
            + self.trap
            + self.vmm_lock
            + self.vmm
            + self.hardware
    }

    /// Adds to a result.
    pub fn add_to(&self, sum: &mut VcpuTime) {
        sum.think_ns += self.think.ns();
        sum.map_ns += self.map.ns();
        sum.unmap_ns += self.unmap.ns();
        sum.prepare_ns += self.prepare.ns();
        sum.lock_ns += self.lock.ns();
        sum.enqueue_ns += self.enqueue.ns();
        sum.trap_ns += self.trap.ns();
        sum.vmm_lock_ns += self.vmm_lock.ns();
        sum.vmm_ns += self.vmm.ns();
        sum.hardware_ns += self.hardware.ns();
    }
}

/// A vCPU (or the VMM's own thread).
pub(super) struct Cpu {
    /// The VMM's thread: its time is no vCPU's.
    pub host: bool,
    first: u32,
    last: u32,
    /// The operation at the front is under way.
    busy: bool,
    free: Ps,
    /// Start of what the operation's latency counts.
    start: Ps,
    /// Start of the present wait.
    since: Ps,
    /// Maps that no invalidation has followed yet: `(space, start, end)`.
    pub mapped: Vec<(u32, u64, u64)>,
    pub causes: Causes,
}

/// Most maps that one invalidation completes.
const MOST_MAPPED: usize = 1024;

impl Cpu {
    pub fn new(host: bool) -> Cpu {
        Cpu {
            host,
            first: NONE,
            last: NONE,
            busy: false,
            free: Ps::ZERO,
            start: Ps::ZERO,
            since: Ps::ZERO,
            mapped: Vec::new(),
            causes: Causes::default(),
        }
    }

    /// Forgets what was counted.
    pub fn restart(&mut self) {
        self.causes = Causes::default();
    }

    /// Notes a map that an invalidation may follow.
    pub fn note_map(&mut self, space: u32, start: u64, end: u64) {
        match self.mapped.last_mut() {
            Some((s, _, e)) if *s == space && *e == start => *e = end,
            _ => {
                if self.mapped.len() == MOST_MAPPED {
                    self.mapped.clear();
                }
                self.mapped.push((space, start, end));
            }
        }
    }
}

impl<O: Observer> World<O> {
    /// Adds an operation; [`World::feed_cpu`] starts it when its dependencies
    /// are noted.
    pub(super) fn push_cpu(&mut self, cpu: u32, action: Action, work: &Work, arrival: Ps) -> u32 {
        self.make_room();
        self.cpu_ops_in += 1;
        let more = self.common.place(action, work, &self.costs, &mut self.ops.cpu);
        let at = self.ops.push(What::CPU, cpu, self.queue.now().max(arrival), self.measuring);
        self.ops.get_mut(at).more = more;
        self.observer.pushed(at);
        at
    }

    /// Puts an operation at the end of its vCPU's program.
    pub(super) fn feed_cpu(&mut self, at: u32) {
        let cpu = self.ops.get(at).who;
        let c = &mut self.cpus[cpu as usize];
        let last = std::mem::replace(&mut c.last, at);
        if c.first != NONE {
            // The vCPU was given all the time that it could use.
            self.ops.get_mut(last).next = at;
            return;
        }
        c.first = at;
        self.run_cpu(cpu);
        self.go_on();
    }

    /// Starts what a vCPU can start.
    pub(super) fn run_cpu(&mut self, cpu: u32) {
        loop {
            let c = &self.cpus[cpu as usize];
            let at = c.first;
            if c.busy || at == NONE || self.ops.get(at).waiting > 0 {
                return;
            }
            let begin = c.free.max(self.ops.get(at).not_before());
            let parts = self.ops.cpu(at).parts;
            let start = begin + parts.think;
            let prepared = start + parts.own;
            let c = &mut self.cpus[cpu as usize];
            (c.busy, c.start) = (true, start);
            if parts.locked {
                self.post(prepared, Happens::WantsLock(cpu));
                return;
            }
            if !parts.is_private() {
                self.enter_vmm(cpu, prepared + parts.trap);
                return;
            }
            self.finish_op(cpu, prepared + parts.hardware);
        }
    }

    pub(super) fn wants_lock(&mut self, cpu: u32, now: Ps) {
        self.cpus[cpu as usize].since = now;
        if let Admission::Started(cpu) = self.lock.arrive(now, cpu) {
            self.has_lock(cpu, now);
        }
    }

    /// The lock is handed to a vCPU that waited: awake if it still spins.
    fn handed_lock(&mut self, cpu: u32, now: Ps) {
        let waited = now.since(self.cpus[cpu as usize].since);
        if waited > self.costs.spin {
            let awake = now + self.costs.wake;
            self.post(awake, Happens::HasLock(cpu));
        } else {
            self.has_lock(cpu, now);
        }
    }

    pub(super) fn has_lock(&mut self, cpu: u32, now: Ps) {
        let at = self.cpus[cpu as usize].first;
        let (parts, measured) = (self.ops.cpu(at).parts, self.ops.get(at).measured);
        let c = &mut self.cpus[cpu as usize];
        if measured {
            c.causes.lock += now.since(c.since);
        }
        self.observer.cpu_got(at, Got::Lock, now);
        let written = now + parts.enqueue;
        if parts.trap + parts.vmm > Ps::ZERO {
            self.enter_vmm(cpu, written + parts.trap);
        } else {
            self.post(written + parts.hardware, Happens::CpuDone(cpu));
        }
    }

    /// A vCPU's exit will reach the VMM at `at`.
    fn enter_vmm(&mut self, cpu: u32, at: Ps) {
        let c = &mut self.cpus[cpu as usize];
        c.since = at;
        let op = c.first;
        let Parts { vmm, hardware, .. } = self.ops.cpu(op).parts;
        if vmm > Ps::ZERO && !self.vmm_never_waits {
            return self.post(at, Happens::AtVmm(cpu));
        }
        // It waits for nobody: when it is through is known now.
        if vmm > Ps::ZERO {
            self.observer.cpu_got(op, Got::Vmm, at);
        }
        self.post(at + vmm + hardware, Happens::CpuDone(cpu));
    }

    pub(super) fn at_vmm(&mut self, cpu: u32, now: Ps) {
        if let Admission::Started(cpu) = self.vmm.arrive(now, cpu) {
            self.vmm_starts(cpu, now);
        }
    }

    fn vmm_starts(&mut self, cpu: u32, now: Ps) {
        let at = self.cpus[cpu as usize].first;
        let (work, measured) = (self.ops.cpu(at).parts.vmm, self.ops.get(at).measured);
        let c = &mut self.cpus[cpu as usize];
        if measured {
            c.causes.vmm_lock += now.since(c.since);
        }
        self.observer.cpu_got(at, Got::Vmm, now);
        self.post(now + work, Happens::VmmDone(cpu));
    }

    pub(super) fn vmm_done(&mut self, cpu: u32, now: Ps) {
        if let Some(next) = self.vmm.depart(now) {
            self.vmm_starts(next, now);
        }
        self.vmm_left(cpu, now);
    }

    fn vmm_left(&mut self, cpu: u32, now: Ps) {
        let at = self.cpus[cpu as usize].first;
        match self.ops.cpu(at).parts.hardware {
            Ps::ZERO => self.cpu_done(cpu, now),
            hardware => {
                self.post(now + hardware, Happens::CpuDone(cpu));
            }
        }
    }

    /// The operation at the front of a vCPU's program ends.
    pub(super) fn cpu_done(&mut self, cpu: u32, now: Ps) {
        let at = self.cpus[cpu as usize].first;
        let Parts { locked, vmm, .. } = self.ops.cpu(at).parts;
        if vmm > Ps::ZERO && self.vmm_never_waits {
            let came = self.cpus[cpu as usize].since;
            self.vmm.usage.served(came, came + vmm);
        }
        if locked && let Some(next) = self.lock.depart(now) {
            self.handed_lock(next, now);
        }
        self.finish_op(cpu, now);
        self.run_cpu(cpu);
    }

    /// Books the operation at the front and takes it off.
    fn finish_op(&mut self, cpu: u32, done: Ps) {
        let at = self.cpus[cpu as usize].first;
        let Op { measured, next, more, .. } = *self.ops.get(at);
        let op = &self.ops.cpu[more];
        let c = &mut self.cpus[cpu as usize];
        let start = c.start;
        c.first = next;
        c.busy = false;
        c.free = done;
        self.cpu_ops_done += 1;
        self.end = self.end.max(done);
        if measured {
            let (parts, latency) = (&op.parts, done.since(c.start));
            c.causes.think += parts.think;
            c.causes.hardware += parts.hardware;
            if !parts.is_private() {
                c.causes.enqueue += parts.enqueue;
                c.causes.trap += parts.trap;
                c.causes.vmm += parts.vmm;
            }
            *match op.action {
                Action::Map => &mut c.causes.map,
                Action::Unmap => &mut c.causes.unmap,
                _ => &mut c.causes.prepare,
            } += parts.own;
            self.action_latency[op.action as usize].record(latency);
        }
        self.observer.op_done(&OpDone { at, cpu, op, start, done, measured });
        if !op.shared {
            self.ops.cpu.release(more);
        }
        self.ops.complete(at, done, &mut self.freed);
    }
}

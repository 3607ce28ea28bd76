//! From primitives to time: what an operation of a vCPU costs.

use crate::config::{Config, InvalidationPath, Nesting};
use crate::replay::outcomes::Work;
use crate::time::Ps;

/// What a vCPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A map call.
    Map,
    /// An unmap call.
    Unmap,
    /// An invalidation after an unmap (`tlb_sync`).
    Sync,
    /// An invalidation after a map (caching mode, `iotlb_sync_map`).
    MapSync,
    /// The VMM changes the parent; no vCPU waits for it.
    Parent,
}

impl Action {
    /// Number of actions.
    pub const COUNT: usize = 5;
}

/// The parts of an operation, in the order in which they happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The vCPU's own other work before.
    pub think: Ps,
    /// Nobody else is needed.
    pub own: Ps,
    /// The invalidation queue's lock is taken then, and held to the end.
    pub locked: bool,
    /// Writing descriptors, lock held.
    pub enqueue: Ps,
    /// Exits to the VMM and back.
    pub trap: Ps,
    /// The VMM's work, under its lock.
    pub vmm: Ps,
    /// Hardware's completion.
    pub hardware: Ps,
}

impl Parts {
    /// True if no shared resource is needed.
    #[inline]
    pub fn is_private(&self) -> bool {
        !self.locked && self.vmm == Ps::ZERO && self.trap == Ps::ZERO
    }
}

/// Costs in integers.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    nesting: Nesting,
    direct: bool,
    ats_invalidation: Ps,
    /// A vCPU spins for so long before it halts.
    pub spin: Ps,
    /// From the hand-over of a lock to a vCPU that runs again.
    pub wake: Ps,
    prepare: Ps,
    enqueue: Ps,
    descriptor: Ps,
    hardware: Ps,
    map: Ps,
    unmap: Ps,
    think: Ps,
    trap: Ps,
    forward: Ps,
    pte_read: Ps,
    map_call: Ps,
    map_entry: Ps,
    unmap_call: Ps,
    unmap_entry: Ps,
    host_invalidation: Ps,
}

impl Costs {
    /// From the configuration.
    pub fn new(config: &Config) -> Costs {
        let t = &config.time;
        let ps = Ps::from_ns_f64;
        Costs {
            nesting: config.nesting,
            direct: t.invalidation.path == InvalidationPath::Direct,
            ats_invalidation: match t.ats.entries {
                0 => Ps::ZERO,
                _ => ps(t.ats.invalidation_ns),
            },
            spin: ps(t.invalidation.spin_ns),
            wake: ps(t.invalidation.wake_ns),
            prepare: ps(t.invalidation.prepare_ns),
            enqueue: ps(t.invalidation.enqueue_ns),
            descriptor: ps(t.invalidation.descriptor_ns),
            hardware: ps(t.invalidation.hardware_ns),
            map: ps(t.guest.map_ns),
            unmap: ps(t.guest.unmap_ns),
            think: ps(t.guest.think_ns),
            trap: ps(t.vmm.trap_ns),
            forward: ps(t.vmm.forward_ns),
            pte_read: ps(t.vmm.pte_read_ns),
            map_call: ps(t.vmm.map_call_ns),
            map_entry: ps(t.vmm.map_entry_ns),
            unmap_call: ps(t.vmm.unmap_call_ns),
            unmap_entry: ps(t.vmm.unmap_entry_ns),
            host_invalidation: ps(t.vmm.host_invalidation_ns),
        }
    }

    /// The VMM's work on a shadow, traps not counted.
    fn shadow(&self, w: &Work) -> Ps {
        self.pte_read.times(w.pte_reads)
            + self.map_call.times(w.map_calls)
            + self.map_entry.times(w.mapped)
            + (self.unmap_call + self.host_invalidation).times(w.unmap_calls)
            + self.unmap_entry.times(w.unmapped)
    }

    /// The parts of an operation.
    pub fn parts(&self, action: Action, w: &Work) -> Parts {
        if self.nesting == Nesting::None {
            // No vIOMMU: the guest's DMA API has nothing to do.
            return Parts::default();
        }
        let shadow = self.shadow(w);
        let mut parts = Parts::default();
        match action {
            Action::Map => {
                parts.think = self.think;
                parts.own = self.map;
            }
            Action::Unmap => parts.own = self.unmap,
            Action::Sync | Action::MapSync | Action::Parent => {}
        }
        if action == Action::Parent {
            parts.vmm = shadow;
            return parts;
        }
        if w.commands > 0 {
            parts.own += self.prepare;
            parts.locked = true;
            parts.enqueue = self.enqueue + self.descriptor.times(w.commands - 1);
            parts.hardware = self.ats_invalidation.times(w.commands);
        }
        if self.direct {
            parts.hardware += if w.commands > 0 { self.hardware } else { Ps::ZERO };
            return parts;
        }
        parts.trap = self.trap.times(w.traps);
        parts.vmm = match self.nesting {
            Nesting::Hardware => self.forward.times(w.commands),
            _ => shadow,
        };
        parts
    }
}

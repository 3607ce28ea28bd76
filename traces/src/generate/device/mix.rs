//! Tenants, each with a device and a domain of its own.

use ioasim_events::{DomainId, Event, Kind, Pasid, Requester};

use super::{Device, DeviceKind};
use crate::generate::error::{OptionError, limit};
use crate::generate::linux::{DmaOptions, Out, Side};

/// So many tenants with such a device.
#[derive(Clone, Debug)]
pub struct Member {
    /// Their number.
    pub tenants: u64,
    /// Their device.
    pub device: DeviceKind,
}

/// Parameters of a mix.
#[derive(Clone, Debug)]
pub struct MixOptions {
    /// The members.
    pub members: Vec<Member>,
}

impl MixOptions {
    pub(super) fn check(&self, dma: &DmaOptions) -> Result<(), OptionError> {
        let tenants: u64 = self.members.iter().map(|m| m.tenants).sum();
        if !(1..=4096).contains(&tenants) {
            return Err(limit("--tenants", tenants, "1 to 4096 in all"));
        }
        self.members.iter().try_for_each(|m| m.device.check(dma))
    }

    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        let all: Vec<String> =
            self.members.iter().map(|m| format!("{} {}", m.tenants, m.device.name())).collect();
        vec![("tenants", all.join(", "))]
    }
}

/// The tenants' devices; the earliest takes the next step.
#[derive(Debug)]
pub(super) struct Mix {
    devices: Vec<Box<dyn Device>>,
    /// What is added to each one's guest addresses: tenants share no memory.
    memory: Vec<u64>,
    /// Next step of each, a heap of (time, number).
    next: std::collections::BinaryHeap<std::cmp::Reverse<(u64, usize)>>,
}

impl Mix {
    pub fn new(options: &MixOptions, dma: &DmaOptions, side: Side, seed: u64) -> Mix {
        let (mut devices, mut memory) = (Vec::new(), Vec::new());
        let mut next = 0u64;
        let mut domain = side.domain.0;
        for member in &options.members {
            for _ in 0..member.tenants {
                let n = devices.len() as u32;
                let side = Side {
                    domain: DomainId(domain),
                    requester: Requester(side.requester.0.wrapping_add(n << 3)),
                    pasid: Pasid::NONE,
                };
                domain += match &member.device {
                    DeviceKind::Sva(sva) => sva.processes as u32,
                    _ => 1,
                };
                let size = member.device.memory();
                memory.push(next.next_multiple_of(size));
                next = next.next_multiple_of(size) + size;
                devices.push(member.device.build(dma, side, seed.wrapping_add(u64::from(n))));
            }
        }
        Mix { devices, memory, next: Default::default() }
    }
}

impl Device for Mix {
    fn begin(&mut self, out: &mut Out) {
        for (n, device) in self.devices.iter_mut().enumerate() {
            let from = out.events.len();
            device.begin(out);
            apart(&mut out.events[from..], self.memory[n]);
            self.next.push(std::cmp::Reverse((device.now(), n)));
        }
    }

    fn now(&self) -> u64 {
        self.next.peek().map_or(0, |n| n.0.0)
    }

    fn step(&mut self, out: &mut Out) {
        let Some(mut top) = self.next.peek_mut() else { return };
        let n = top.0.1;
        let from = out.events.len();
        self.devices[n].step(out);
        apart(&mut out.events[from..], self.memory[n]);
        top.0.0 = self.devices[n].now();
    }
}

/// Moves the guest memory that events speak of.
fn apart(events: &mut [Event], by: u64) {
    for e in events.iter_mut().filter(|e| matches!(e.kind, Kind::Map | Kind::Dma)) {
        e.out += by;
    }
}

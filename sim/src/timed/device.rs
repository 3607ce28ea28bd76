//! A device: its link and its slots for requests in flight.

use crate::config::DeviceTime;
use crate::time::Ps;

/// Costs of a device, in integers.
#[derive(Clone, Copy, Debug)]
pub struct DeviceCosts {
    link_kbps: u64,
    overhead_bytes: u64,
    request: Ps,
    round_trip: Ps,
}

impl DeviceCosts {
    /// From the configuration.
    pub fn new(config: &DeviceTime) -> DeviceCosts {
        DeviceCosts {
            link_kbps: (config.link_gbps * 1e6).round() as u64,
            overhead_bytes: config.overhead_bytes,
            request: Ps::from_ns_f64(config.request_ns),
            round_trip: Ps::from_ns_f64(config.pcie_round_trip_ns),
        }
    }

    /// Time that the device and its link are taken by a request.
    #[inline]
    pub fn occupancy(&self, bytes: u64) -> Ps {
        let bits = bytes.saturating_add(self.overhead_bytes).saturating_mul(8);
        let wire = match self.link_kbps {
            0 => 0,
            kbps => bits.saturating_mul(1_000_000_000) / kbps,
        };
        self.request.max(Ps(wire))
    }

    /// PCIe and memory: a round trip for a read, half of it for a posted
    /// write.
    #[inline]
    pub fn transfer(&self, write: bool) -> Ps {
        if write { Ps(self.round_trip.0 / 2) } else { self.round_trip }
    }
}

/// The link of a device and its slots.
///
/// Slots are a ring: the request that takes slot `i` waits until the one that
/// had it before is done, as descriptors of a hardware ring are used again in
/// order.
#[derive(Clone, Debug)]
pub struct Slots<T> {
    slots: Vec<T>,
    next: usize,
    link_free: Ps,
    /// Time that the link was taken.
    pub link_busy: Ps,
    /// Requests issued.
    pub issued: u64,
}

impl<T: Copy> Slots<T> {
    /// `outstanding` slots, each used by `free` before.
    pub fn new(outstanding: u64, free: T) -> Slots<T> {
        Slots {
            slots: vec![free; outstanding as usize],
            next: 0,
            link_free: Ps::ZERO,
            link_busy: Ps::ZERO,
            issued: 0,
        }
    }

    /// Who had the next slot before.
    #[inline]
    pub fn before(&self) -> T {
        self.slots[self.next]
    }

    /// When the link is free.
    #[inline]
    pub fn link_free(&self) -> Ps {
        self.link_free
    }

    /// Issues a request that is ready at `ready` and takes the link for
    /// `occupancy`; returns when its last byte is on the link.
    #[inline]
    pub fn issue(&mut self, ready: Ps, occupancy: Ps) -> Ps {
        let sent = self.link_free.max(ready) + occupancy;
        self.link_free = sent;
        self.link_busy += occupancy;
        self.issued += 1;
        sent
    }

    /// `user` has the next slot.
    #[inline]
    pub fn take(&mut self, user: T) {
        self.slots[self.next] = user;
        self.next += 1;
        if self.next == self.slots.len() {
            self.next = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 Gb/s: 256 + 24 bytes take 22.4 ns.
    #[test]
    fn the_link_takes_bytes_one_after_the_other() {
        let config = DeviceTime {
            sharing: crate::config::Sharing::Requester,
            outstanding: 2,
            link_gbps: 100.0,
            overhead_bytes: 24,
            request_ns: 0.0,
            pcie_round_trip_ns: 547.0,
            bytes_if_unknown: 0,
            direction_if_unknown: crate::config::Direction::Read,
        };
        let costs = DeviceCosts::new(&config);
        assert_eq!(costs.occupancy(256), Ps(22_400));
        assert_eq!((costs.transfer(false), costs.transfer(true)), (Ps(547_000), Ps(273_500)));
        let mut slots = Slots::new(2, 'x');
        assert_eq!(slots.issue(Ps(100), Ps(50)), Ps(150));
        slots.take('a');
        assert_eq!(slots.issue(Ps(100), Ps(50)), Ps(200), "behind the first");
        slots.take('b');
        assert_eq!(slots.before(), 'a', "two slots: the first is used again");
        assert_eq!(slots.link_busy, Ps(100));
    }
}

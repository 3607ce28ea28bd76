//! Simulated time: costs and contended resources (`time.*`).

use serde::{Deserialize, Serialize};

use super::Refusal;

/// Limits of `time.*`.
pub mod limits {
    /// Longest single latency: 10 s.
    pub const LATENCY_NS: f64 = 1e10;
    /// Most servers, slots and entries.
    pub const COUNT: u64 = 1 << 20;
    /// Fastest link in Gb/s.
    pub const LINK_GBPS: f64 = 1e5;
    /// Largest factor on recorded times.
    pub const SCALE: f64 = 1e6;
}

/// Simulated time. Latencies are in nanoseconds; a count of 0 is "no limit".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeConfig {
    /// Costs and contention are simulated.
    pub enabled: bool,
    /// What gives an event its time.
    pub mode: LoopMode,
    /// Factor on recorded times (`open-loop`).
    pub scale: f64,
    /// Events at the start that statistics of time leave out.
    pub warm_up_events: u64,
    /// Devices.
    pub device: DeviceTime,
    /// ATS: translations kept by the device.
    pub ats: AtsTime,
    /// The IOMMU's look-ups and walkers.
    pub iommu: IommuTime,
    /// Memory, as the walker reads it.
    pub memory: MemoryTime,
    /// The invalidation (command) queue.
    pub invalidation: InvalidationTime,
    /// The guest's own work.
    pub guest: GuestTime,
    /// The VMM.
    pub vmm: VmmTime,
}

/// What gives an event its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoopMode {
    /// Not before its recorded time (times `scale`).
    OpenLoop,
    /// As soon as what it depends on is done.
    ClosedLoop,
}

/// Which requesters share a link, slots and device TLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Each requester id is a device.
    Requester,
    /// All requester ids are functions of one device.
    All,
}

/// Direction of accesses whose recording has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Non-posted: done when the data is back.
    Read,
    /// Posted: done when the root complex has it.
    Write,
}

/// Devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceTime {
    /// Who shares a device.
    pub sharing: Sharing,
    /// Requests in flight per device; slot `i` is used again when its request
    /// is done.
    pub outstanding: u64,
    /// Bandwidth of the link in Gb/s; 0 = no limit.
    pub link_gbps: f64,
    /// Bytes on the link beside the payload of each request.
    pub overhead_bytes: u64,
    /// Time that the device needs per request, one after the other.
    pub request_ns: f64,
    /// PCIe round trip of a read, memory included; a posted write takes half.
    pub pcie_round_trip_ns: f64,
    /// Payload of accesses whose recording has no length.
    pub bytes_if_unknown: u64,
    /// Direction of accesses whose recording has none.
    pub direction_if_unknown: Direction,
}

/// ATS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtsTime {
    /// Entries of the device TLB; 0 = no ATS.
    pub entries: u64,
    /// Entries per set.
    pub ways: u64,
    /// Look-up in the device.
    pub lookup_ns: f64,
    /// A translation request and its completion, without look-up and walk.
    pub round_trip_ns: f64,
    /// A device-TLB invalidation, issued after each IOTLB invalidation.
    pub invalidation_ns: f64,
    /// A page request (PRI) until the device may ask again.
    pub page_request_ns: f64,
}

/// Look-ups and walkers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IommuTime {
    /// IOTLB look-up.
    pub lookup_ns: f64,
    /// Look-up of the walk caches, once per walk.
    pub pwc_lookup_ns: f64,
    /// Walkers; 0 = no limit.
    pub walkers: u64,
    /// Walks that run or wait in the pending-translation buffer; requests
    /// beyond stall. 0 = no limit.
    pub pending: u64,
    /// Requests for a page that is being walked wait for that walk.
    pub coalescing: bool,
}

/// Memory, as the walker reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryTime {
    /// A read.
    pub read_ns: f64,
    /// Reads differ by up to this in both directions, uniformly (seeded).
    pub spread_ns: f64,
    /// Part of the reads that the last-level cache answers, 0 to 1.
    pub llc_hit_rate: f64,
    /// A read that the last-level cache answers.
    pub llc_ns: f64,
    /// Reads at one time, of all walkers; 0 = no limit.
    pub outstanding: u64,
}

/// How the guest's invalidations reach hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InvalidationPath {
    /// The tail write traps to the VMM.
    Trap,
    /// The guest owns a hardware queue: no trap (hardware nesting only).
    Direct,
}

/// The invalidation (command) queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvalidationTime {
    /// Trapped or direct.
    pub path: InvalidationPath,
    /// Work before the queue's lock: page-table locks, building descriptors.
    pub prepare_ns: f64,
    /// Writing the descriptors of one submission, with the lock held.
    pub enqueue_ns: f64,
    /// Each further descriptor of a submission.
    pub descriptor_ns: f64,
    /// Hardware's completion of a submission (wait descriptor), lock held.
    pub hardware_ns: f64,
    /// Queues, each with its lock; 0 = no limit.
    pub queues: u64,
    /// Spinning on the lock before a vCPU halts.
    pub spin_ns: f64,
    /// Waking a halted vCPU when the lock is handed to it.
    pub wake_ns: f64,
}

/// The guest's own work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestTime {
    /// A map call, without invalidation or trap.
    pub map_ns: f64,
    /// An unmap call, without invalidation or trap.
    pub unmap_ns: f64,
    /// A vCPU's other work before each map.
    pub think_ns: f64,
}

/// The VMM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmmTime {
    /// Exit to the VMM and back.
    pub trap_ns: f64,
    /// Forwarding one trapped invalidation to the physical IOMMU (hardware
    /// nesting), trap excluded.
    pub forward_ns: f64,
    /// Reading one entry of the guest's table.
    pub pte_read_ns: f64,
    /// A host map call, fixed part.
    pub map_call_ns: f64,
    /// A host map call, per shadow entry.
    pub map_entry_ns: f64,
    /// A host unmap call, fixed part.
    pub unmap_call_ns: f64,
    /// A host unmap call, per shadow entry.
    pub unmap_entry_ns: f64,
    /// Physical invalidation after a host unmap call.
    pub host_invalidation_ns: f64,
    /// Locks that serialise the VMM's work; 0 = no limit.
    pub locks: u64,
}

impl TimeConfig {
    /// The first value outside its limits.
    pub(super) fn refused(&self, hardware: bool) -> Option<Refusal> {
        let (d, a, i, m) = (&self.device, &self.ats, &self.iommu, &self.memory);
        let (q, g, v) = (&self.invalidation, &self.guest, &self.vmm);
        let latencies = [
            ("device.request_ns", d.request_ns),
            ("device.pcie_round_trip_ns", d.pcie_round_trip_ns),
            ("ats.lookup_ns", a.lookup_ns),
            ("ats.round_trip_ns", a.round_trip_ns),
            ("ats.invalidation_ns", a.invalidation_ns),
            ("ats.page_request_ns", a.page_request_ns),
            ("iommu.lookup_ns", i.lookup_ns),
            ("iommu.pwc_lookup_ns", i.pwc_lookup_ns),
            ("memory.read_ns", m.read_ns),
            ("memory.spread_ns", m.spread_ns),
            ("memory.llc_ns", m.llc_ns),
            ("invalidation.prepare_ns", q.prepare_ns),
            ("invalidation.enqueue_ns", q.enqueue_ns),
            ("invalidation.descriptor_ns", q.descriptor_ns),
            ("invalidation.hardware_ns", q.hardware_ns),
            ("invalidation.spin_ns", q.spin_ns),
            ("invalidation.wake_ns", q.wake_ns),
            ("guest.map_ns", g.map_ns),
            ("guest.unmap_ns", g.unmap_ns),
            ("guest.think_ns", g.think_ns),
            ("vmm.trap_ns", v.trap_ns),
            ("vmm.forward_ns", v.forward_ns),
            ("vmm.pte_read_ns", v.pte_read_ns),
            ("vmm.map_call_ns", v.map_call_ns),
            ("vmm.map_entry_ns", v.map_entry_ns),
            ("vmm.unmap_call_ns", v.unmap_call_ns),
            ("vmm.unmap_entry_ns", v.unmap_entry_ns),
            ("vmm.host_invalidation_ns", v.host_invalidation_ns),
        ];
        let refusal = |key: &str, value: String, limit: String| {
            Some(Refusal { key: format!("time.{key}"), value, limit })
        };
        for (key, ns) in latencies {
            if !(0.0..=limits::LATENCY_NS).contains(&ns) {
                return refusal(key, ns.to_string(), "0 to 1e10 ns".into());
            }
        }
        let counts = [
            ("device.outstanding", d.outstanding, 1),
            ("device.overhead_bytes", d.overhead_bytes, 0),
            ("device.bytes_if_unknown", d.bytes_if_unknown, 0),
            ("ats.entries", a.entries, 0),
            ("ats.ways", a.ways, 1),
            ("iommu.walkers", i.walkers, 0),
            ("iommu.pending", i.pending, 0),
            ("memory.outstanding", m.outstanding, 0),
            ("invalidation.queues", q.queues, 0),
            ("vmm.locks", v.locks, 0),
        ];
        for (key, n, least) in counts {
            if !(least..=limits::COUNT).contains(&n) {
                return refusal(key, n.to_string(), format!("{least} to {}", limits::COUNT));
            }
        }
        if a.entries > 0 && (a.ways > a.entries || !a.entries.is_multiple_of(a.ways)) {
            let limit = format!("it must divide the {} entries into equal sets", a.entries);
            return refusal("ats.ways", a.ways.to_string(), limit);
        }
        let rates = [
            ("device.link_gbps", d.link_gbps, limits::LINK_GBPS),
            ("scale", self.scale, limits::SCALE),
            ("memory.llc_hit_rate", m.llc_hit_rate, 1.0),
        ];
        for (key, value, most) in rates {
            if !(0.0..=most).contains(&value) {
                return refusal(key, value.to_string(), format!("0 to {most}"));
            }
        }
        if m.spread_ns > m.read_ns {
            let limit = format!("at most memory.read_ns = {}: no read ends early", m.read_ns);
            return refusal("memory.spread_ns", m.spread_ns.to_string(), limit);
        }
        if q.path == InvalidationPath::Direct && !hardware {
            let limit = "a shadow is kept by the VMM, which must see invalidations: use \"trap\"";
            return refusal("invalidation.path", "\"direct\"".into(), limit.into());
        }
        None
    }
}

//! What a run under simulated time reports.

use serde::{Deserialize, Serialize};

/// Simulated time of a run. All of it is simulated from the constants of
/// `time.*` in the configuration; nothing here is recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimingResult {
    /// `open-loop` or `closed-loop`.
    pub mode: String,
    /// Simulated time that was measured, warm-up left out, in ns.
    pub elapsed_ns: u64,
    /// Events of the warm-up, which are left out; what they began has ended
    /// when the measurement begins.
    #[serde(default)]
    pub warm_up_events: u64,
    /// Requests done per second of simulated time.
    pub requests_per_second: f64,
    /// Payload in Gb/s of simulated time.
    pub gbps: f64,
    /// Latencies by what took them.
    pub latency: Latency,
    /// Where the time of requests went, by class.
    pub classes: Vec<ClassTime>,
    /// Shared resources.
    pub resources: Vec<ResourceUse>,
    /// Devices, in the order of their first request.
    pub devices: Vec<DeviceUse>,
    /// vCPUs.
    pub vcpus: VcpuTime,
    /// Device TLBs (all zero without ATS).
    pub device_tlb: DeviceTlbCounters,
    /// Laws that every run must obey.
    pub checks: TimingChecks,
    /// Requests and their latency per interval of simulated time.
    pub series: TimingSeries,
    /// Events that the engine scheduled.
    pub scheduled_events: u64,
}

/// Latencies by what took them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// Requests of devices.
    pub dma: LatencySummary,
    /// Page-table walks, from their start.
    pub walk: LatencySummary,
    /// Invalidations after unmaps (`tlb_sync`), from the vCPU's start.
    pub invalidation: LatencySummary,
    /// Invalidations after maps (caching mode).
    pub map_invalidation: LatencySummary,
    /// Map calls.
    pub map: LatencySummary,
    /// Unmap calls.
    pub unmap: LatencySummary,
}

/// A distribution of latencies in ns. The mean is exact; percentiles are those
/// of an HdrHistogram with three significant digits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencySummary {
    /// Number.
    pub count: u64,
    /// Mean.
    pub mean_ns: f64,
    /// Median.
    pub p50_ns: u64,
    /// 90 %.
    pub p90_ns: u64,
    /// 99 %.
    pub p99_ns: u64,
    /// 99.9 %.
    pub p99_9_ns: u64,
    /// 99.99 %.
    pub p99_99_ns: u64,
    /// Longest.
    pub max_ns: u64,
}

/// Mean parts of the latency of a class of requests, in ns; they sum to
/// `mean_ns`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassTime {
    /// `hit`, `device-tlb-hit`, `coalesced` (waited for another request's
    /// walk), `miss`, `page-request`, `fault`.
    pub class: String,
    /// Requests.
    pub count: u64,
    /// Mean latency.
    pub mean_ns: f64,
    /// Waiting for a slot or the link, and the time on it.
    pub queueing_ns: f64,
    /// Look-ups in device TLB, IOTLB and walk caches.
    pub lookup_ns: f64,
    /// Waiting for a walker.
    pub walk_queueing_ns: f64,
    /// Walking: reads of memory.
    pub walk_ns: f64,
    /// Page requests.
    pub page_request_ns: f64,
    /// PCIe and memory.
    pub pcie_ns: f64,
}

impl ClassTime {
    /// The parts of the mean latency, in ns and in the order in which a request
    /// meets them: queueing, look-up, waiting for a walker, walk, page request,
    /// PCIe.
    pub fn parts_ns(&self) -> [f64; 6] {
        [
            self.queueing_ns,
            self.lookup_ns,
            self.walk_queueing_ns,
            self.walk_ns,
            self.page_request_ns,
            self.pcie_ns,
        ]
    }
}

/// Use of a shared resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceUse {
    /// `walkers`, `memory`, `invalidation-queue`, `vmm`.
    pub name: String,
    /// Servers; 0 = no limit.
    pub servers: u64,
    /// Busy part of the servers' time, 0 to 1; 0 where there is no limit.
    pub utilisation: f64,
    /// Mean number in service.
    pub busy_mean: f64,
    /// Mean number waiting.
    pub queue_mean: f64,
    /// Most waiting at one time.
    pub queue_max: u64,
    /// Jobs that came.
    pub arrivals: u64,
    /// Of these, jobs that waited.
    pub waited: u64,
    /// Mean wait over all jobs, in ns.
    pub wait_mean_ns: f64,
}

/// Use of a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceUse {
    /// Requester id as `BB:DD.F`, or `all`.
    pub device: String,
    /// Requests done.
    pub requests: u64,
    /// Busy part of its link's time, 0 to 1.
    pub link_utilisation: f64,
    /// Mean requests in flight or waiting for a slot.
    pub in_flight_mean: f64,
    /// Time in ns in which it could have issued, but its next request waited
    /// for a map to be complete (open loop: or for its recorded time).
    pub starved_ns: u64,
}

/// Where the time of vCPUs went, in ns, summed over vCPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VcpuTime {
    /// vCPUs that did something.
    pub vcpus: u64,
    /// Busy part of their time, 0 to 1.
    pub utilisation: f64,
    /// Busy time of the one that was busiest.
    pub busiest_ns: u64,
    /// Other work of the guest (`time.guest.think_ns`).
    pub think_ns: u64,
    /// Map calls, invalidations and traps not counted.
    pub map_ns: u64,
    /// Unmap calls, likewise.
    pub unmap_ns: u64,
    /// Preparing invalidations.
    pub prepare_ns: u64,
    /// Waiting for the invalidation queue's lock, wake-ups included.
    pub lock_ns: u64,
    /// Writing descriptors.
    pub enqueue_ns: u64,
    /// Exits to the VMM and back.
    pub trap_ns: u64,
    /// Waiting for the VMM's lock.
    pub vmm_lock_ns: u64,
    /// The VMM's work.
    pub vmm_ns: u64,
    /// Waiting for hardware.
    pub hardware_ns: u64,
}

/// Device TLBs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceTlbCounters {
    /// Requests translated in the device; the IOMMU's counters leave them out.
    pub hits: u64,
    /// Translation requests to the IOMMU.
    pub misses: u64,
    /// Entries removed by invalidations.
    pub invalidated: u64,
}

/// Laws checked at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimingChecks {
    /// Requests read from the trace.
    pub requests_in: u64,
    /// Requests done.
    pub requests_done: u64,
    /// Requests still in flight: 0 at the end. Counted among the operations
    /// that wait, not as a difference.
    pub requests_in_flight: u64,
    /// Operations of vCPUs read from the trace.
    pub cpu_ops_in: u64,
    /// Operations of vCPUs done.
    pub cpu_ops_done: u64,
    /// Largest difference, over all resources, between the integral of the
    /// number inside and the sum of the times inside (Little's law), in ps:
    /// 0 if the books agree.
    pub littles_law_residual_ps: u64,
    /// Resources that were busy for longer than the time that passed.
    pub overbusy_resources: u64,
    /// Operations that were never able to start (0: the causes have an order).
    pub stuck: u64,
}

impl TimingChecks {
    /// True if every law holds.
    pub fn passed(&self) -> bool {
        self.broken().is_empty()
    }

    /// The laws that do not hold, in words.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut law = |holds: bool, text: String| {
            if !holds {
                broken.push(text);
            }
        };
        let (read, done, left) = (self.requests_in, self.requests_done, self.requests_in_flight);
        law(
            read == done + left,
            format!("{read} requests came, {done} are done, {left} in flight"),
        );
        law(left == 0, format!("{left} requests are in flight at the end"));
        let (read, done) = (self.cpu_ops_in, self.cpu_ops_done);
        law(read == done, format!("{read} operations of vCPUs came, {done} are done"));
        let residual = self.littles_law_residual_ps;
        law(residual == 0, format!("Little's law is off by {residual} ps"));
        let busy = self.overbusy_resources;
        law(busy == 0, format!("{busy} resources were busy for longer than the time that passed"));
        law(self.stuck == 0, format!("{} operations were never able to start", self.stuck));
        broken
    }
}

/// Requests per interval of simulated time, by the time that they were done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimingSeries {
    /// Length of an interval in ns (rounded down from picoseconds).
    pub interval_ns: u64,
    /// Requests done.
    pub requests: Vec<u64>,
    /// Their mean latency in ns.
    pub latency_mean_ns: Vec<f64>,
    /// Payload of requests done, in Gb/s.
    pub gbps: Vec<f64>,
    /// Mean walks waiting for a walker.
    pub walker_queue_mean: Vec<f64>,
    /// Mean vCPUs waiting for the invalidation queue's lock.
    pub invalidation_queue_mean: Vec<f64>,
    /// Mean operations waiting for the VMM.
    pub vmm_queue_mean: Vec<f64>,
}

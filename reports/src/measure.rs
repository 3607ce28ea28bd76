//! The rates that tables and figures show, derived from counters in one place.

use ioasim_sim::results::Counters;

/// Rates of one run. `None` where the denominator is zero: a report shows `-`
/// there, never 0 or NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measures {
    /// Translation requests.
    pub requests: u64,
    /// Hits per look-up, 0 to 1.
    pub hit_rate: Option<f64>,
    /// Page-table entries read by the hardware walker per IOTLB miss.
    pub reads_per_miss: Option<f64>,
    /// Page-table entries read by the hardware walker per request.
    pub reads_per_dma: Option<f64>,
    /// Exits from the guest to the VMM per 1,000 requests.
    pub traps: Option<f64>,
    /// Shadow entries written per 1,000 requests.
    pub shadow_maps: Option<f64>,
    /// Shadow entries removed per 1,000 requests.
    pub shadow_unmaps: Option<f64>,
    /// Guest page-table entries read by the VMM per 1,000 requests.
    pub vmm_pte_reads: Option<f64>,
    /// Requests that faulted.
    pub faults: u64,
}

impl Measures {
    /// Rates of a run's totals.
    pub fn of(c: &Counters) -> Measures {
        let requests = c.dma.requests;
        Measures {
            requests,
            hit_rate: ratio(c.iotlb.hits, c.iotlb.lookups),
            reads_per_miss: ratio(c.walk.memory_reads, c.iotlb.misses),
            reads_per_dma: ratio(c.walk.memory_reads, requests),
            traps: per_1000(c.guest.traps, requests),
            shadow_maps: per_1000(c.shadow.mapped, requests),
            shadow_unmaps: per_1000(c.shadow.unmapped, requests),
            vmm_pte_reads: per_1000(c.shadow.pte_reads, requests),
            faults: c.dma.faults,
        }
    }

    /// Shadow entries written or removed per 1,000 requests.
    pub fn shadow_changes(&self) -> Option<f64> {
        Some(self.shadow_maps? + self.shadow_unmaps?)
    }
}

/// `a / b`, `None` if `b` is 0.
pub(crate) fn ratio(a: u64, b: u64) -> Option<f64> {
    (b != 0).then(|| a as f64 / b as f64)
}

/// `a` per 1,000 of `b`, `None` if `b` is 0.
pub(crate) fn per_1000(a: u64, b: u64) -> Option<f64> {
    ratio(a, b).map(|r| r * 1000.0)
}

//! What a run reports: counters, series and the outcome of verification.
//!
//! These structures serialise to the `runs` of `result.json`
//! (`reports/schema/result.schema.json`). Counts are events unless the name
//! says otherwise (`*_bytes`, `*_ns`). Keys are added, never renamed, within
//! one schema version.

pub mod records;
pub mod timing;

use serde::{Deserialize, Serialize};

use timing::TimingResult;

/// Everything that one configuration's replay of one trace produced.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunResult {
    /// The resolved configuration: `name`, then every key.
    pub config: serde_json::Value,
    /// Totals.
    pub counters: Counters,
    /// Totals by requester id, ascending.
    pub devices: Vec<DeviceCounters>,
    /// Counts per interval of trace time.
    pub series: Series,
    /// Where constants, layouts and labels come from, in words.
    pub provenance: RunProvenance,
    /// Present if the run measured it (`report.exposure`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<ExposureResult>,
    /// Present if the run simulated time (`time.enabled`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<TimingResult>,
    /// Present if the run verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
}

/// What of a run's input was recorded, simulated or assumed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunProvenance {
    /// `recorded`, or the configured layout (`identity`, `2m`, ...).
    pub parent_layout: String,
    /// `true` if the parent table is in the recording.
    pub parent_recorded: bool,
    /// Layout of the made-up host level below the parent; empty = two levels.
    #[serde(default)]
    pub host_layout: String,
    /// How recorded invalidations were used: `as-recorded`, or what was added
    /// or left out for the configured caching mode.
    pub invalidations: String,
    /// Invalidations added because the configuration's guest runs under
    /// caching mode and the recording's did not.
    pub invalidations_added: u64,
    /// Recorded invalidations left out because the configuration's guest
    /// would not send them.
    pub invalidations_left_out: u64,
    /// `as-recorded`, or how the simulated guest encodes ranges (`page`, ...).
    #[serde(default)]
    pub invalidation_encoding: String,
    /// Recorded page-selective invalidations that were replaced by the
    /// commands of that encoding.
    #[serde(default)]
    pub invalidations_reencoded: u64,
    /// `as-recorded`, or when the simulated guest invalidates what it unmapped
    /// (`strict`, `lazy`). Numbers of events are then those of the rewritten
    /// trace.
    #[serde(default)]
    pub unmap: String,
    /// Recorded invalidations of unmapped ranges that were replaced by those
    /// of that policy.
    #[serde(default)]
    pub invalidations_replaced: u64,
}

/// Totals of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Device accesses.
    pub dma: DmaCounters,
    /// Final-translation cache.
    pub iotlb: IotlbCounters,
    /// Page-table walks by the (simulated) hardware.
    pub walk: WalkCounters,
    /// What the guest did and what it cost in traps.
    pub guest: GuestCounters,
    /// Work on the shadow table (software nesting; zeros otherwise).
    pub shadow: ShadowCounters,
    /// Changes of the parent table and their consequences.
    pub parent: ParentCounters,
    /// Contradictions found in the data.
    pub diagnostics: Diagnostics,
}

/// Device accesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DmaCounters {
    /// Translation requests.
    pub requests: u64,
    /// Bytes accessed; 0 where the recording has no lengths.
    pub bytes: u64,
    /// Requests that found no translation or not the right.
    pub faults: u64,
}

/// IOTLB outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IotlbCounters {
    /// Look-ups.
    pub lookups: u64,
    /// Look-ups answered by the IOTLB.
    pub hits: u64,
    /// Look-ups that needed a walk.
    pub misses: u64,
    /// hits / lookups, 0 without look-ups.
    pub hit_rate: f64,
    /// Entries displaced for want of room.
    pub evictions: u64,
    /// Entries removed by invalidations.
    pub invalidated: u64,
    /// Entries removed by invalidation commands although they lie outside what
    /// the guest changed; counted where the simulated guest encodes ranges
    /// itself (`guest.invalidation` other than `as-recorded`).
    pub over_invalidated: u64,
    /// Misses by cause; sums to `misses`.
    pub miss_causes: MissCauses,
    /// Translations fetched before they were asked for.
    pub prefetch: PrefetchCounters,
}

/// Translations fetched before they were asked for (`iotlb.prefetch`);
/// issued = useful + evicted_unused + invalidated_unused + resident_unused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrefetchCounters {
    /// Translations fetched.
    pub issued: u64,
    /// Of these, asked for later.
    pub useful: u64,
    /// Of these, displaced before anybody asked.
    pub evicted_unused: u64,
    /// Of these, invalidated before anybody asked.
    pub invalidated_unused: u64,
    /// Of these, still there at the end.
    pub resident_unused: u64,
    /// Walks that found no translation; nothing was fetched.
    pub refused: u64,
    /// Table entries read, those of refused walks included; `walk.memory_reads`
    /// leaves them out.
    pub memory_reads: u64,
}

/// Misses by cause; `docs/miss-causes.md` has the definition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MissCauses {
    /// First reference.
    pub cold: u64,
    /// A fully associative cache of the same size and policy misses too.
    pub capacity: u64,
    /// Only the limited associativity explains it.
    pub conflict: u64,
    /// The entry was there and was removed by an invalidation.
    pub invalidation: u64,
}

/// Walks by the hardware walker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WalkCounters {
    /// Walks started.
    pub walks: u64,
    /// Page-table entries read from memory.
    pub memory_reads: u64,
    /// Of these, entries of the child's table.
    pub child_reads: u64,
    /// Of these, entries of the parent's table.
    pub parent_reads: u64,
    /// memory_reads / misses, 0 without misses.
    pub reads_per_miss: f64,
    /// Walk steps saved by paging-structure caches, stage 1.
    pub pwc_stage1_hits: u64,
    /// Walk steps saved by paging-structure caches, stage 2.
    pub pwc_stage2_hits: u64,
    /// Parent translations answered by the nested (GPA) cache.
    pub nested_cache_hits: u64,
}

/// The guest's operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestCounters {
    /// Map events.
    pub maps: u64,
    /// Unmap events.
    pub unmaps: u64,
    /// Invalidations that this configuration's guest sends.
    pub invalidations: InvalidationCounters,
    /// Guest operations that exit to the VMM.
    pub traps: u64,
    /// Entries of its tables that the guest wrote while those pages were
    /// write-protected; each is a trap too (`write-protect` only).
    pub pte_writes: u64,
    /// The flush queues (`guest.unmap = "lazy"`).
    pub flush_queue: FlushQueueCounters,
}

/// Flush queues of lazy unmapping, all domains. Every flush is one
/// domain-selective invalidation; flushes = full + timeout + reuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlushQueueCounters {
    /// Flushes because a ring was full.
    pub full: u64,
    /// Flushes because the timer fired.
    pub timeout: u64,
    /// Flushes because a map needed an IOVA that waited and no other was left.
    pub reuse: u64,
    /// Maps that got another IOVA than the recorded one, which waited.
    pub renamed_maps: u64,
}

/// Invalidations by reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InvalidationCounters {
    /// Page-selective.
    pub page: u64,
    /// Domain-selective.
    pub domain: u64,
    /// Global, resets included.
    pub global: u64,
    /// Context cache.
    pub context: u64,
}

/// Work on the shadow table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShadowCounters {
    /// Synchronisations run.
    pub syncs: u64,
    /// Guest entries (leaf or not present) compared with the shadow.
    pub entries_examined: u64,
    /// Guest page-table entries read by the VMM.
    pub pte_reads: u64,
    /// Entries written to the shadow.
    pub mapped: u64,
    /// Entries removed from the shadow.
    pub unmapped: u64,
    /// Examined entries that needed no change.
    pub skipped: u64,
    /// Host map calls (one per mapped guest entry, whatever its pieces).
    pub map_calls: u64,
    /// Host unmap calls.
    pub unmap_calls: u64,
    /// Most entries present at one time.
    pub resident_entries_peak: u64,
    /// Page requests: accesses that found nothing in the shadow and made the
    /// VMM look at the guest's table (`demand` only).
    pub demand_faults: u64,
    /// Entries that invalidation commands removed although they lie outside
    /// what the guest changed (`demand` only, and only where the simulated
    /// guest encodes ranges itself).
    pub over_invalidated: u64,
}

impl ShadowCounters {
    /// Adds the work of a part; the peak is the larger of both.
    pub fn add(&mut self, part: &ShadowCounters) {
        self.syncs += part.syncs;
        self.entries_examined += part.entries_examined;
        self.pte_reads += part.pte_reads;
        self.mapped += part.mapped;
        self.unmapped += part.unmapped;
        self.skipped += part.skipped;
        self.map_calls += part.map_calls;
        self.unmap_calls += part.unmap_calls;
        self.demand_faults += part.demand_faults;
        self.over_invalidated += part.over_invalidated;
        self.resident_entries_peak = self.resident_entries_peak.max(part.resident_entries_peak);
    }
}

/// Parent changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParentCounters {
    /// Recorded parent maps.
    pub maps: u64,
    /// Recorded parent unmaps.
    pub unmaps: u64,
    /// Changes that shadows or hardware were told of: a map or unmap of what
    /// was not there is none.
    pub changes: u64,
    /// Shadow entries removed because the parent changed under them.
    pub shadow_entries_dropped: u64,
    /// Records, links, list heads and extents looked at to find what a change
    /// affects, and entries rebuilt though nothing had happened to them.
    pub entries_examined: u64,
    /// Shadow entries removed or written because what they were composed from
    /// changed (`scan` and the reverse maps).
    pub entries_changed: u64,
    /// Shadow entries written by rebuilding, at once or later (`flush-all`,
    /// `epoch`).
    pub entries_rebuilt: u64,
    /// Spans of shadows that were composed anew.
    pub mends: u64,
    /// Shadows that were emptied as a whole.
    pub shadows_dropped: u64,
    /// Shadow entries written or removed in all:
    /// changed + dropped with whole shadows + rebuilt.
    pub host_pte_writes: u64,
    /// Host map calls for parent changes; those of a rebuild are also in
    /// `shadow.map_calls`.
    pub host_map_calls: u64,
    /// Host unmap calls for parent changes; a shadow that is emptied is one.
    pub host_unmap_calls: u64,
    /// 64-byte lines of the policy's own memory that were touched.
    pub policy_lines: u64,
    /// Most bytes of the policy's own structures (looked at after each change
    /// and every 256th operation on a shadow).
    pub policy_bytes_peak: u64,
    /// Device faults that a policy answered by building what was missing
    /// (`epoch`).
    pub lazy_fills: u64,
    /// Invalidation commands to the IOMMU because the parent changed.
    pub hardware_invalidations: u64,
    /// Device TLBs that would be emptied because the parent changed
    /// (`nesting = "hardware"`; device TLBs are not modelled).
    pub device_tlb_flushes: u64,
    /// 4 KiB pages of host memory pinned, in total.
    pub pins: u64,
    /// 4 KiB pages of host memory unpinned, in total.
    pub unpins: u64,
    /// Most pins held at one time.
    pub pins_held_peak: u64,
    /// Cached translations removed because the parent changed.
    pub cached_entries_dropped: u64,
    /// Pages of the parent's layout made up on first use (no recorded table).
    pub synthesized_pages: u64,
}

/// Data that contradicts itself. Not errors: real traces contain them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Diagnostics {
    /// Maps over pages that were mapped to something else.
    pub overlapping_maps: u64,
    /// Unmaps that found no mapped page.
    pub unmaps_of_unmapped: u64,
    /// Events without a domain or device that the model needs.
    pub unattributed: u64,
    /// Addresses beyond the configured table's width.
    pub beyond_width: u64,
    /// DMA whose recorded fault the model did not reproduce, or the reverse.
    pub fault_differences: u64,
}

/// Totals of one device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceCounters {
    /// Requester id as `BB:DD.F`.
    pub device: String,
    /// Translation requests.
    pub requests: u64,
    /// IOTLB hits.
    pub hits: u64,
    /// IOTLB misses.
    pub misses: u64,
    /// Misses by cause.
    pub miss_causes: MissCauses,
    /// Faulting requests.
    pub faults: u64,
    /// Walk reads for this device's misses.
    pub memory_reads: u64,
}

/// Counts per interval. All vectors have the same length; interval `i` is
/// `[i * interval_ns, (i+1) * interval_ns)` of trace time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Length of an interval in ns.
    pub interval_ns: u64,
    /// Translation requests.
    pub requests: Vec<u64>,
    /// IOTLB hits.
    pub hits: Vec<u64>,
    /// Walk reads.
    pub memory_reads: Vec<u64>,
    /// Shadow entries mapped or unmapped.
    pub shadow_changes: Vec<u64>,
    /// Guest PTEs read by the VMM.
    pub shadow_pte_reads: Vec<u64>,
    /// Traps.
    pub traps: Vec<u64>,
}

/// How long unmapped memory stayed reachable for devices.
///
/// Distances run from an unmap's event to the event after which no IOTLB,
/// shadow or nested-cache entry gives a translation that it removed: 0 if that
/// is the unmap itself. Means are over unmaps that closed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExposureResult {
    /// Unmaps that removed something, of children and parent.
    pub unmaps: u64,
    /// Of these, unmaps of the parent.
    pub parent_unmaps: u64,
    /// Closed at the unmap itself.
    pub closed_at_once: u64,
    /// Closed by a later event.
    pub closed_later: u64,
    /// Never closed.
    pub open_at_end: u64,
    /// Mean distance in events.
    pub events_mean: f64,
    /// Longest distance in events.
    pub events_max: u64,
    /// Mean distance in ns of recorded time.
    pub ns_mean: f64,
    /// Longest distance in ns of recorded time.
    pub ns_max: u64,
    /// Distance in events, from the unmap to the trace's end, of the longest
    /// that never closed.
    pub open_events_max: u64,
    /// Unmaps by distance in events: element 0 counts distance 0, element `i`
    /// distances from 2^(i-1) to 2^i - 1.
    pub events_histogram: Vec<u64>,
    /// Accesses that used a translation which an unmap had removed.
    pub stale_dma: u64,
    /// The first of them.
    pub first_stale_dma: Vec<StaleDma>,
}

/// An access through a translation that an unmap had removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleDma {
    /// Event number of the access (0-based row).
    pub event: u64,
    /// Event number of the unmap.
    pub unmap_event: u64,
    /// Requester id as `BB:DD.F`.
    pub device: String,
    /// Input address.
    pub iova: u64,
    /// Output address (HPA) that it was given.
    pub out: u64,
}

/// Outcome of `--verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    /// Translations whose output was compared with the recording.
    pub translations: u64,
    /// Of these, outputs that are neither the recorded one nor a legally
    /// stale one.
    pub target_mismatches: u64,
    /// Of these, outputs that differ from the recorded one but were valid
    /// since the last invalidation that covers them.
    pub stale_legal: u64,
    /// Translations compared with the reference composition (I1, I2).
    pub reference_checks: u64,
    /// Translations outside the legal set.
    pub reference_mismatches: u64,
    /// Fingerprint of all outputs, faults included, in order (FNV-1a of 64
    /// bits, hexadecimal): equal for configurations that translate alike.
    #[serde(default)]
    pub outputs_fingerprint: String,
    /// Requests with a recorded hit/miss label that were compared (0 if the
    /// configuration does not claim the recording machine's IOTLB).
    pub hit_labels: u64,
    /// Labels predicted wrongly.
    pub hit_label_mismatches: u64,
    /// Requests whose recorded walk has a number of page-table reads, which
    /// was compared (0 as for labels).
    #[serde(default)]
    pub walk_reads: u64,
    /// Numbers of reads predicted wrongly.
    #[serde(default)]
    pub walk_read_mismatches: u64,
    /// Recorded shadow operations compared (0 unless software nesting with
    /// `invalidate-range`).
    pub shadow_ops: u64,
    /// Operations that differ, are missing or are too many.
    pub shadow_op_mismatches: u64,
    /// Checks of invariants I3, I5, I6, I7 (DESIGN section 3).
    pub invariant_checks: u64,
    /// Invariants violated.
    pub invariant_violations: u64,
    /// The first differences, with their event numbers.
    pub first_mismatches: Vec<Mismatch>,
}

impl Verify {
    /// True if nothing differed.
    pub fn passed(&self) -> bool {
        self.target_mismatches == 0
            && self.reference_mismatches == 0
            && self.hit_label_mismatches == 0
            && self.walk_read_mismatches == 0
            && self.shadow_op_mismatches == 0
            && self.invariant_violations == 0
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// Event number in the trace (0-based row).
    pub event: u64,
    /// `target`, `reference`, `label`, `walk_reads`, `shadow_op` or
    /// `invariant`.
    pub check: String,
    /// What was expected and what was found.
    pub detail: String,
}

//! `--verify`: every translation against the recording and a reference model,
//! every label, every recorded shadow operation, and the invariants.

mod reference;

use std::collections::VecDeque;

use crate::cache::{Iotlb, Store};
use crate::config::{Config, InvalidationEncoding, Nesting};
use crate::events::{Event, Flags, Kind, OutputSpace, PAGE_MASK, Perm, TraceInfo};
use crate::parent::Parent;
use crate::replay::spaces::{PARENT_SPACE, SpaceId, Spaces};
use crate::results::{Mismatch, Verify};
use crate::shadow::ShadowOp;
use crate::sync;
use crate::table::entry_span;
use crate::walk::{Reads, Stages, WalkCaches};
use reference::Reference;

/// Invalidations of the guest from one look at the whole shadow to the next.
const LOOK_EVERY: u64 = 256;
/// Differences kept with their details.
const SHOWN: usize = 20;

/// A request as the verifier sees it.
pub(crate) struct Request {
    pub event: u64,
    pub space: SpaceId,
    pub iova: u64,
    pub needed: Perm,
    pub flags: Flags,
    pub recorded_out: u64,
    /// Reads of page tables that the recorded walk made, 0 if unknown.
    pub recorded_reads: u64,
}

/// The model's answer.
pub(crate) struct Answer {
    pub out: Option<u64>,
    pub hit: bool,
    /// Reads of page tables for it.
    pub reads: u64,
}

/// State of a verification.
pub(crate) struct Verifier {
    nesting: Nesting,
    labels: bool,
    compare_ops: bool,
    /// The shadow holds what devices asked for, not all of the composition.
    subset: bool,
    reference: Reference,
    /// The model's shadow operations that the recording has yet to confirm.
    unconfirmed: VecDeque<(u64, ShadowOp)>,
    /// Unconfirmed when the next invalidation came: too many, if the
    /// recording has shadow operations at all.
    surplus: Vec<(u64, ShadowOp)>,
    last_ops: Vec<ShadowOp>,
    invalidations: u64,
    outputs: Fnv,
    result: Verify,
}

/// FNV-1a of 64 bits (Fowler, Noll, Vo), eight bytes at a time.
struct Fnv(u64);

impl Fnv {
    fn add(&mut self, value: u64) {
        for byte in value.to_le_bytes() {
            self.0 = (self.0 ^ byte as u64).wrapping_mul(0x100_0000_01b3);
        }
    }
}

impl Verifier {
    pub fn new(config: &Config) -> Verifier {
        Verifier {
            nesting: config.nesting,
            labels: config.verify.labels,
            compare_ops: config.nesting == Nesting::Software
                && config.sync.policy == sync::Kind::InvalidateRange
                && config.guest.invalidation == InvalidationEncoding::AsRecorded,
            subset: config.sync.policy == sync::Kind::Demand,
            reference: Reference::default(),
            unconfirmed: VecDeque::new(),
            surplus: Vec::new(),
            last_ops: Vec::new(),
            invalidations: 0,
            outputs: Fnv(0xcbf2_9ce4_8422_2325),
            result: Verify::default(),
        }
    }

    fn mismatch(&mut self, event: u64, check: &str, detail: impl FnOnce() -> String) {
        if self.result.first_mismatches.len() < SHOWN {
            let detail = detail();
            self.result.first_mismatches.push(Mismatch { event, check: check.into(), detail });
        }
    }

    /// Checks one answer.
    pub fn translation(&mut self, r: &Request, a: &Answer, info: &TraceInfo, parent: &Parent) {
        self.outputs.add(a.out.unwrap_or(u64::MAX));
        let hex = |a: Option<u64>| a.map_or("fault".into(), |a| format!("{a:#x}"));
        // Without a vIOMMU the child plays no part.
        let legal = self.nesting == Nesting::None
            || r.space == PARENT_SPACE
            || self.reference.allows(r.space, r.iova, r.needed, a.out, parent);
        if self.nesting != Nesting::None && r.space != PARENT_SPACE {
            self.result.reference_checks += 1;
            if !legal {
                self.result.reference_mismatches += 1;
                let now = self.reference.now(r.space, r.iova, r.needed, parent);
                self.mismatch(r.event, "reference", || {
                    let (now, out) = (hex(now), hex(a.out));
                    format!("iova {:#x}: a fresh walk gives {now}, the model {out}", r.iova)
                });
            }
        }
        if r.flags.has(Flags::OUT_KNOWN) {
            self.result.translations += 1;
            let expected = match info.output_space {
                OutputSpace::Hpa => parent.to_host(r.recorded_out),
                OutputSpace::Gpa => {
                    parent.final_leaf(r.recorded_out).map(|l| l.translate(r.recorded_out))
                }
            };
            if a.out != expected {
                let stale = self.nesting != Nesting::None && r.space != PARENT_SPACE && legal;
                if stale {
                    self.result.stale_legal += 1;
                } else {
                    self.result.target_mismatches += 1;
                    self.mismatch(r.event, "target", || {
                        let (want, out) = (hex(expected), hex(a.out));
                        format!("iova {:#x}: recorded {want}, the model {out}", r.iova)
                    });
                }
            }
        }
        if self.labels && r.flags.has(Flags::LABEL_KNOWN) {
            self.result.hit_labels += 1;
            let recorded = r.flags.has(Flags::HIT);
            if recorded != a.hit {
                self.result.hit_label_mismatches += 1;
                let word = |hit| if hit { "hit" } else { "miss" };
                self.mismatch(r.event, "label", || {
                    let (want, got) = (word(recorded), word(a.hit));
                    format!("iova {:#x}: recorded {want}, the model {got}", r.iova)
                });
            }
        }
        if self.labels && r.recorded_reads > 0 {
            self.result.walk_reads += 1;
            if r.recorded_reads != a.reads {
                self.result.walk_read_mismatches += 1;
                self.mismatch(r.event, "walk_reads", || {
                    let (want, got) = (r.recorded_reads, a.reads);
                    format!("iova {:#x}: the recorded walk read {want}, the model {got}", r.iova)
                });
            }
        }
    }

    /// I7: a walk without caches reads exactly what the leaf levels say, and
    /// caches never add reads.
    pub fn walk(&mut self, stages: &Stages<'_>, addr: u64, needed: Perm, actual: &Reads) {
        let mut cold = Reads::default();
        let walked = stages.walk(addr, needed, &mut WalkCaches::none(), &mut cold);
        self.result.invariant_checks += 1;
        let expected = formula(stages, addr);
        let wrong = walked.is_ok() && cold.total() != expected || actual.total() > cold.total();
        if wrong {
            self.result.invariant_violations += 1;
            self.mismatch(0, "invariant", || {
                let (cold, actual) = (cold.total(), actual.total());
                format!(
                    "I7 at {addr:#x}: {expected} reads by the formula, {cold} cold, {actual} done"
                )
            });
        }
    }

    /// The child's table changed.
    pub fn child_map(&mut self, space: SpaceId, iova: u64, gpa: u64, len: u64, perm: Perm) {
        self.reference.map(space, iova, gpa, len, perm);
    }

    /// The child's table changed.
    pub fn child_unmap(&mut self, space: SpaceId, iova: u64, len: u64) {
        self.reference.unmap(space, iova, len);
    }

    /// A recorded parent map.
    pub fn parent_map(&mut self, gpa: u64, hpa: u64, len: u64) {
        self.reference.parent_map(gpa, hpa, len);
    }

    /// A recorded parent unmap; returns the host ranges that it gave up.
    pub fn parent_unmap(&mut self, gpa: u64, len: u64) -> Vec<(u64, u64)> {
        self.reference.parent_unmap(gpa, len)
    }

    /// An invalidation is complete: only the present state is legal now.
    pub fn completed(&mut self, space: SpaceId, range: Option<sync::Range>) {
        self.reference.completed(space, range);
    }

    /// I6: after a parent unmap nothing cached or shadowed leads into the
    /// host ranges that it gave up.
    pub fn nothing_leads_into<S: Store>(
        &mut self,
        event: u64,
        hosts: &[(u64, u64)],
        (iotlb, caches): (&Iotlb<S>, &WalkCaches),
        spaces: &Spaces,
        parent: &Parent,
    ) {
        // Aliases: another GPA may still lead to the same host page.
        let given_up: Vec<(u64, u64)> =
            hosts.iter().copied().filter(|h| !self.reference.host_in_use(*h)).collect();
        if given_up.is_empty() {
            return;
        }
        self.result.invariant_checks += 1;
        let in_host: Vec<(u64, u64)> =
            given_up.iter().flat_map(|range| parent.ranges_to_host(*range)).collect();
        let leads_in = |ranges: &[(u64, u64)], out: u64, size: u64| {
            ranges.iter().any(|(start, end)| out < *end && *start < out + size) as u64
        };
        let mut left = 0;
        iotlb.for_each(|k, v| left += leads_in(&in_host, v.out(), k.size().bytes()));
        // A level of its own below the shadows did not change; what it led
        // to is out of reach with them.
        let shadowed = if parent.is_over_walked_host() { &given_up } else { &in_host };
        if !parent.is_over_walked_host() {
            caches.for_each_nested(|_, leaf| {
                left += leads_in(&in_host, leaf.out, leaf.size.bytes());
            });
        }
        for id in spaces.ids() {
            if let Some(shadow) = &spaces.get(id).shadow {
                shadow.table().visit(0, u64::MAX, &mut |_, leaf| {
                    left += leads_in(shadowed, leaf.out, leaf.size.bytes());
                    true
                });
            }
        }
        if left > 0 {
            self.result.invariant_violations += 1;
            self.mismatch(event, "invariant", || {
                format!("I6: {left} entries still lead into memory that the parent unmapped")
            });
        }
    }

    /// The model's shadow operations for one guest operation.
    pub fn shadow_ops(&mut self, event: u64, ops: &[ShadowOp]) {
        self.last_ops.clear();
        self.last_ops.extend_from_slice(ops);
        if self.compare_ops {
            self.unconfirmed.extend(ops.iter().map(|op| (event, *op)));
        }
    }

    /// I5: a synchronisation over a range changes only entries whose spans
    /// overlap it.
    pub fn sync_stayed_inside(&mut self, event: u64, policy: sync::Kind, range: sync::Range) {
        if policy != sync::Kind::InvalidateRange {
            return;
        }
        self.result.invariant_checks += 1;
        let outside = self.last_ops.iter().any(|op| {
            let (ShadowOp::Map { iova, size, .. } | ShadowOp::Unmap { iova, size }) = *op;
            iova >= range.end || iova + size <= range.start
        });
        if outside {
            self.result.invariant_violations += 1;
            self.mismatch(event, "invariant", || {
                format!("I5: a sync of {:#x}-{:#x} changed entries outside", range.start, range.end)
            });
        }
    }

    /// The guest's next invalidation comes: what is unconfirmed is too much.
    pub fn next_invalidation(&mut self, _event: u64) {
        self.invalidations += 1;
        if self.result.shadow_ops == 0 {
            // The recording may have no shadow operations at all.
            self.surplus.truncate(SHOWN);
        }
        self.surplus.extend(self.unconfirmed.drain(..));
    }

    /// A shadow operation that the recording shows.
    pub fn recorded_shadow_op(&mut self, event: u64, e: &Event, parent: &Parent) {
        if !self.compare_ops {
            return;
        }
        self.result.shadow_ops += 1;
        let modelled = self.unconfirmed.pop_front();
        let same = match (e.kind, modelled) {
            (Kind::ShadowMap, Some((_, ShadowOp::Map { iova, size, gpa, hpa, perm }))) => {
                let same_host = e.aux == 0 || parent.to_effective(e.aux) == Some(hpa);
                let same_rights = e.flags.perm() == Perm::NONE || e.flags.perm() == perm;
                (iova, size, gpa) == (e.addr, e.size, e.out) && same_host && same_rights
            }
            (Kind::ShadowUnmap, Some((_, ShadowOp::Unmap { iova, size }))) => {
                (iova, size) == (e.addr, e.size)
            }
            _ => false,
        };
        if !same {
            self.result.shadow_op_mismatches += 1;
            self.mismatch(event, "shadow_op", || {
                let Event { addr, size, out, aux, .. } = *e;
                let kind = e.kind.name();
                let got = modelled.map_or("nothing".into(), |(_, op)| format!("{op:x?}"));
                format!(
                    "recorded {kind} {addr:#x}+{size:#x} gpa {out:#x} hpa {aux:#x}, the model {got}"
                )
            });
        }
    }

    /// True after every 256th invalidation: recordings have few markers, and
    /// the end alone would show little.
    pub fn look_is_due(&self) -> bool {
        self.invalidations.is_multiple_of(LOOK_EVERY)
    }

    /// I3 wherever nothing is pending: the shadow equals the composition, in
    /// address and rights; one that is filled on demand is a part of it. The
    /// guest's calls and trapped stores leave nothing pending.
    ///
    /// `incomplete` says whether entries of a space's shadow are yet to be
    /// rebuilt after a change of the parent.
    pub fn settled(
        &mut self,
        event: u64,
        spaces: &Spaces,
        parent: &Parent,
        incomplete: &dyn Fn(SpaceId) -> bool,
    ) {
        if self.nesting != Nesting::Software {
            return;
        }
        for id in spaces.ids() {
            let Some(shadow) = &spaces.get(id).shadow else { continue };
            let table = shadow.table();
            type Found = Option<(u64, Perm)>;
            let mut wrong: Option<(u64, Found, Found)> = None;
            let mut checks = 0;
            let subset = self.subset || incomplete(id);
            self.reference.for_each_settled(id, parent, |iova, expected| {
                checks += 1;
                let found = table.lookup(iova).map(|l| (l.translate(iova), l.perm));
                let missing = subset && found.is_none();
                if found != expected && !missing && wrong.is_none_or(|(first, ..)| iova < first) {
                    wrong = Some((iova, expected, found));
                }
            });
            self.result.invariant_checks += checks;
            if let Some((iova, expected, found)) = wrong {
                self.result.invariant_violations += 1;
                self.mismatch(event, "invariant", || {
                    format!("I3 at {iova:#x}: composition {expected:x?}, shadow {found:x?}")
                });
            }
        }
    }

    /// Ends the verification.
    pub fn finish(mut self) -> Verify {
        if self.result.shadow_ops > 0 {
            let rest: Vec<_> = self.surplus.drain(..).chain(self.unconfirmed.drain(..)).collect();
            self.result.shadow_op_mismatches += rest.len() as u64;
            for (event, op) in rest {
                self.mismatch(event, "shadow_op", || format!("not recorded: {op:x?}"));
            }
        }
        self.result.outputs_fingerprint = format!("{:016x}", self.outputs.0);
        self.result
    }
}

/// Reads of a walk without caches, from the leaf levels alone
/// (`vectors/FORMAT.md` 5.2; (n+1)(m+1)-1 where every leaf is 4 KiB).
fn formula(stages: &Stages<'_>, addr: u64) -> u64 {
    let parent_reads = |gpa: u64| match stages.parent {
        None => 0,
        Some(p) => p.lookup(gpa).map_or(0, |leaf| (p.levels() - leaf.size as u32) as u64),
    };
    let Some(child) = stages.child else { return parent_reads(addr) };
    let Some(leaf) = child.lookup(addr) else { return 0 };
    let mut reads = parent_reads(leaf.translate(addr));
    let mut node = crate::table::RadixTable::ROOT;
    for level in (leaf.size as u32..child.levels()).rev() {
        reads += parent_reads(child.node_addr(node)) + 1;
        debug_assert!(entry_span(level) > PAGE_MASK);
        if let Some(below) = child.read(node, level, addr).node() {
            node = below;
        }
    }
    reads
}

//! SMMUv3 (QEMU 7.2, `hw/arm/smmuv3.c`, `smmu-common.c`).
//!
//! A DMA is, within one thread that holds the SMMU's lock: its configuration
//! (`smmuv3_config_cache_hit` or `_miss`, which has the stream id), the
//! look-up in the IOTLB with its label, on a miss one `smmu_get_pte` per
//! level and `smmu_iotlb_insert`, then `smmuv3_translate_success`; or
//! `smmuv3_record_event` if it ends in a fault.
//!
//! An address space is a (VMID, ASID); its domain id is the ASID where there
//! is no VMID or VMID 0, else VMID 31:16, ASID 15:0.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::super::desc::Descriptor;
use super::super::lines::LineSource;
use super::super::qemu_line::{Smmu, Tag};
use super::super::window::{LogKind, LogRec, LogWindow, log_flags};
use super::{LogReader, push_descriptor};

/// Address spaces remembered, for commands that reach several.
const MAX_SPACES: usize = 1 << 16;
/// Descriptor's leaf-only hint (IH).
const LEAF: u64 = 1 << 6;

/// What earlier lines tell about later ones.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Thread and stream id of the last configuration.
    config: Option<(u32, u32)>,
    /// The request that is being looked up.
    current: Option<Request>,
    /// Domain of a stream in its last request.
    domains: FxHashMap<u32, u32>,
    /// Domains seen.
    spaces: BTreeSet<u32>,
}

/// A request between its look-up and its result.
#[derive(Clone, Copy, Debug)]
struct Request {
    tid: u32,
    index: u64,
    reads: u32,
    /// Page mask of the entry inserted.
    mask: Option<u64>,
}

/// The domain id of an address space.
fn domain_of(tag: Tag) -> u32 {
    let asid = if tag.asid < 0 { 0xffff } else { tag.asid as u32 };
    group(tag.vmid) << 16 | asid
}

fn group(vmid: i32) -> u32 {
    vmid.max(0) as u32
}

impl<L: LineSource> LogReader<L> {
    #[inline]
    pub(super) fn smmu_event(
        &mut self,
        w: &mut LogWindow,
        event: Smmu,
        mut rec: LogRec,
        line: u64,
    ) {
        match event {
            Smmu::Config { sid } => self.smmu.config = Some((rec.tid, sid)),
            Smmu::Lookup { hit, tag, addr } => {
                rec.kind = LogKind::Dma;
                rec.domain = domain_of(tag);
                if self.smmu.spaces.len() < MAX_SPACES {
                    self.smmu.spaces.insert(rec.domain);
                }
                if let Some((tid, sid)) = self.smmu.config.take()
                    && tid == rec.tid
                {
                    rec.sid = sid;
                }
                (rec.a, rec.c) = (addr, 0xfff);
                rec.flags = log_flags::LABEL | if hit { log_flags::HIT } else { 0 };
                let index = w.push(rec);
                self.open.push_back((index, line));
                self.smmu.current = Some(Request { tid: rec.tid, index, reads: 0, mask: None });
            }
            Smmu::GetPte => {
                self.counts.table_reads += 1;
                if let Some(r) = self.smmu.current.as_mut().filter(|r| r.tid == rec.tid) {
                    r.reads += 1;
                }
            }
            Smmu::Insert { granule, level } => {
                let Some(r) = self.smmu.current.as_mut().filter(|r| r.tid == rec.tid) else {
                    return;
                };
                r.mask = Some((1 << (granule + (3 - level) * (granule - 3))) - 1);
                if r.reads > 0 && granule == 12 {
                    // A walk reads one entry per level, the last one at `level`.
                    self.levels = self.levels.max((3 - level + r.reads).min(5));
                }
            }
            Smmu::Success { sid, iova, out, perm } => {
                self.smmu_success(w, rec, (sid, iova, out, perm))
            }
            Smmu::Fault { sid } => {
                let Some(r) = self.smmu.current.take().filter(|r| r.tid == rec.tid) else {
                    return;
                };
                self.counts.faults += 1;
                self.smmu_close(r);
                if let Some(dma) = w.get_mut(r.index) {
                    dma.sid = sid;
                    dma.flags |= log_flags::FAULT;
                }
            }
            Smmu::Bypass { sid, iova } => {
                self.counts.translate_only += 1;
                rec.kind = LogKind::Dma;
                (rec.sid, rec.a, rec.b, rec.c) = (sid, iova, iova, 0xfff);
                rec.flags = log_flags::OUT | log_flags::PASS;
                w.push(rec);
            }
            Smmu::Abort { sid, iova } => {
                self.counts.faults += 1;
                rec.kind = LogKind::Dma;
                (rec.sid, rec.a, rec.c) = (sid, iova, 0xfff);
                rec.domain = self.smmu.domains.get(&sid).copied().unwrap_or(u32::MAX);
                rec.flags = log_flags::FAULT;
                w.push(rec);
            }
            Smmu::Range { tag, addr, am, leaf, stage } => {
                let hint = if leaf { LEAF } else { 0 };
                let push = |w: &mut LogWindow, domain| {
                    let d = Descriptor::iotlb_pages(domain, addr, am);
                    push_descriptor(w, rec, Descriptor { qw1: d.qw1 | hint, ..d });
                };
                if tag.asid < 0 && stage != 2 {
                    // By address in all address spaces of the VMID (NH_VAA).
                    for &domain in self.smmu.of_group(tag.vmid) {
                        push(w, domain);
                    }
                } else {
                    push(w, domain_of(tag));
                }
            }
            Smmu::InvAsid { tag } => {
                push_descriptor(w, rec, Descriptor::iotlb_domain(domain_of(tag)));
            }
            Smmu::InvVmid { vmid } => {
                for &domain in self.smmu.of_group(vmid) {
                    push_descriptor(w, rec, Descriptor::iotlb_domain(domain));
                }
            }
            Smmu::InvAll => match self.smmu.current {
                // The insertion that finds the IOTLB full.
                Some(r) if r.tid == rec.tid && r.mask.is_none() && r.reads > 0 => {
                    self.counts.iotlb_resets += 1;
                }
                _ => {
                    push_descriptor(w, rec, Descriptor::iotlb_global());
                }
            },
            Smmu::ConfigInv { sid } => {
                push_descriptor(w, rec, Descriptor::context_devices(sid, 0));
            }
            Smmu::ConfigInvAll => {
                push_descriptor(w, rec, Descriptor::context_global());
            }
        }
    }

    fn smmu_success(
        &mut self,
        w: &mut LogWindow,
        mut rec: LogRec,
        (sid, iova, out, perm): (u32, u64, u64, u8),
    ) {
        if let Some(r) = self.smmu.current.take().filter(|r| r.tid == rec.tid) {
            self.smmu_close(r);
            if let Some(dma) = w.get_mut(r.index) {
                self.smmu.domains.insert(sid, dma.domain);
                (dma.sid, dma.a, dma.b, dma.c) = (sid, iova, out, r.mask.unwrap_or(0xfff));
                dma.flags |= log_flags::OUT | perm;
                if r.reads > 0 {
                    self.counts.misses_with_reads += 1;
                    dma.reads = u8::try_from(r.reads).unwrap_or(u8::MAX);
                }
            }
            w.index_dma(r.index);
            return;
        }
        // The look-up was not recorded.
        self.counts.translate_only += 1;
        rec.kind = LogKind::Dma;
        (rec.sid, rec.a, rec.b, rec.c) = (sid, iova, out, 0xfff);
        rec.domain = self.smmu.domains.get(&sid).copied().unwrap_or(u32::MAX);
        rec.flags = log_flags::OUT | perm;
        let index = w.push(rec);
        w.index_dma(index);
    }

    /// The request's lines are complete.
    fn smmu_close(&mut self, r: Request) {
        // It is the youngest one, unless another SMMU's lines are mixed in.
        if let Some(at) = self.open.iter().rposition(|o| o.0 == r.index) {
            self.open.remove(at);
        }
    }
}

impl State {
    /// Domains of a VMID.
    fn of_group(&self, vmid: i32) -> impl Iterator<Item = &u32> {
        let first = group(vmid) << 16;
        self.spaces.range(first..=first | 0xffff)
    }
}

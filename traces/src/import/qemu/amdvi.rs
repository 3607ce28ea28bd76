//! AMD-Vi (QEMU 7.2, `hw/i386/amd_iommu.c`).
//!
//! * A DMA is `amdvi_iotlb_hit` or `amdvi_cache_update` (a miss and its fill)
//!   and then `amdvi_translation_result` of the same thread; the latter alone
//!   is a request that was passed through or that faulted.
//! * A command for pages is logged without its address: it drops the whole
//!   domain from QEMU's IOTLB, and is imported as that.
//! * `amdvi_iotlb_reset` is logged for an insertion that finds the IOTLB
//!   full (behind its `amdvi_cache_update`), for the command that invalidates
//!   everything (before `amdvi_all_inval`) and when the machine resets.

use rustc_hash::FxHashMap;

use super::super::desc::Descriptor;
use super::super::lines::LineSource;
use super::super::qemu_line::AmdVi;
use super::super::window::{LogKind, LogRec, LogWindow, log_flags};
use super::{LogReader, push_descriptor};

/// What earlier lines tell about later ones.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Domain of a device in its last fill: hits do not name it.
    domains: FxHashMap<u32, u32>,
    /// Thread that filled the IOTLB and has not told the result yet.
    filling: Option<u32>,
    /// Thread and record of an emptied IOTLB whose cause may follow.
    reset: Option<(u32, u64)>,
}

impl<L: LineSource> LogReader<L> {
    #[inline]
    pub(super) fn amdvi_event(
        &mut self,
        w: &mut LogWindow,
        event: AmdVi,
        mut rec: LogRec,
        line: u64,
    ) {
        match event {
            AmdVi::Hit { sid, iova, out } => {
                rec.domain = self.amdvi.domains.get(&sid).copied().unwrap_or(u32::MAX);
                rec.flags = log_flags::HIT;
                self.amdvi_dma(w, rec, (sid, iova, out), line);
            }
            AmdVi::Fill { domain, sid, iova, out } => {
                self.amdvi.domains.insert(sid, domain);
                self.amdvi.filling = Some(rec.tid);
                rec.domain = domain;
                self.amdvi_dma(w, rec, (sid, iova, out), line);
            }
            AmdVi::Result { sid, iova, out } => {
                self.amdvi.filling = None;
                let found = self.open.iter().position(|&(index, _)| {
                    w.get(index).is_some_and(|r| r.tid == rec.tid && r.sid == sid && r.a == iova)
                });
                if let Some((index, _)) = found.and_then(|at| self.open.remove(at)) {
                    w.index_dma(index);
                    return;
                }
                rec.kind = LogKind::Dma;
                (rec.sid, rec.a, rec.c) = (sid, iova, 0xfff);
                if out == iova & !0xfff {
                    self.counts.translate_only += 1;
                    rec.b = iova;
                    rec.flags = log_flags::OUT | log_flags::PASS;
                } else if out == 0 {
                    self.counts.faults += 1;
                    rec.domain = self.amdvi.domains.get(&sid).copied().unwrap_or(u32::MAX);
                    rec.flags = log_flags::FAULT;
                } else {
                    self.counts.translate_only += 1;
                    rec.domain = self.amdvi.domains.get(&sid).copied().unwrap_or(u32::MAX);
                    rec.b = out & !0xfff | iova & 0xfff;
                    rec.flags = log_flags::OUT;
                }
                let index = w.push(rec);
                w.index_dma(index);
            }
            AmdVi::Pages { domain } => {
                self.counts.commands_without_range += 1;
                push_descriptor(w, rec, Descriptor::iotlb_domain(domain));
            }
            AmdVi::Device { sid } => {
                push_descriptor(w, rec, Descriptor::context_devices(sid, 0));
            }
            AmdVi::Reset if self.amdvi.filling == Some(rec.tid) => self.counts.iotlb_resets += 1,
            AmdVi::Reset => {
                rec.kind = LogKind::Reset;
                rec.c = 2;
                self.amdvi.reset = Some((rec.tid, w.push(rec)));
            }
            AmdVi::All => {
                // Its own reset is the line before.
                if let Some((tid, index)) = self.amdvi.reset.take()
                    && tid == rec.tid
                    && let Some(reset) = w.get_mut(index)
                {
                    reset.kind = LogKind::Void;
                }
                push_descriptor(w, rec, Descriptor::iotlb_global());
            }
        }
        if !matches!(event, AmdVi::Reset) && self.amdvi.reset.is_some_and(|(tid, _)| tid == rec.tid)
        {
            self.amdvi.reset = None;
        }
    }

    fn amdvi_dma(
        &mut self,
        w: &mut LogWindow,
        mut rec: LogRec,
        (sid, iova, out): (u32, u64, u64),
        line: u64,
    ) {
        rec.kind = LogKind::Dma;
        (rec.sid, rec.a, rec.c) = (sid, iova, 0xfff);
        rec.b = out & !0xfff | iova & 0xfff;
        rec.flags |= log_flags::LABEL | log_flags::OUT;
        let index = w.push(rec);
        self.open.push_back((index, line));
    }
}

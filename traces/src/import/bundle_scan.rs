//! A first look at a bundle: which domains of the physical IOMMU are shadows,
//! and of which domains of the guest.

use rustc_hash::FxHashMap;

use super::anchors::{Aligner, Token};
use super::bundle::{hypervisor_operation, vmm_operation};
use super::joined::Joined;
use super::lines::LineSource;
use super::qemu::LogReader;
use super::report::Diagnostics;
use super::window::{FtKind, LogWindow};
use crate::Result;

/// Records of each input in memory.
const AHEAD: usize = 1 << 16;
/// Pairs of domains told apart.
const MAX_PAIRS: usize = 4096;

/// What the first look found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Guest's domain by the domain of the physical IOMMU.
    pub(crate) guest_domain: FxHashMap<u32, u32>,
    /// Hypervisor's clock minus the VMM's at the first common operation, ns.
    pub(crate) vmm_offset: i64,
    /// Operations found on both sides.
    pub(crate) operations: u64,
    /// Shadow operations in the VMM's log.
    pub(crate) vmm_operations: u64,
}

/// Reads the VMM's log and the hypervisor's ftrace. Damaged lines are left to
/// the import itself.
pub(crate) fn scan(vmm: impl LineSource, hypervisor: impl LineSource) -> Result<Scan> {
    let mut diag = Diagnostics::new(u64::MAX);
    let mut log = LogReader::new(vmm, true);
    let mut window = LogWindow::default();
    let mut k = Joined::new(hypervisor);
    let mut aligner = Aligner::new(true);
    let (mut fed_log, mut fed) = (0, 0);
    let mut votes: FxHashMap<(u32, u32), u64> = FxHashMap::default();
    let mut scan = Scan::default();
    loop {
        let before = (log.counts.lines, k.reader.counts.lines, window.head(), k.window.head());
        while window.len() < AHEAD && log.read(&mut window, &mut diag)? {}
        while !k.window.is_full(AHEAD) && k.reader.read(&mut k.window, &mut diag)? {}
        k.feed();
        while fed_log < log.stable(&window) {
            if let Some(rec) = window.get(fed_log).filter(|r| r.seam) {
                aligner.seam_second(fed_log, rec.time);
            }
            if let Some(rec) = window.get(fed_log)
                && let Some(hash) = vmm_operation(rec)
            {
                scan.vmm_operations += 1;
                aligner.push_second(Token { hash, time: rec.time, index: fed_log });
            }
            fed_log += 1;
        }
        while fed < k.window.end() {
            if let Some(rec) = k.window.get(fed).filter(|r| r.seam) {
                aligner.seam_first(fed, rec.time);
            }
            if let Some(rec) = k.window.get(fed)
                && let Some(hash) = hypervisor_operation(rec)
            {
                aligner.push_first(Token { hash, time: rec.time, index: fed });
            }
            fed += 1;
        }
        aligner.set_timed(log.clock().timed());
        if k.reader.eof() {
            aligner.end_first();
        }
        if log.eof() {
            aligner.end_second();
        }
        aligner.poll();
        while let Some(pair) = aligner.next_pair() {
            if scan.operations == 0 {
                scan.vmm_offset = pair.offset;
            }
            scan.operations += 1;
            let (Some(walk), Some(op)) =
                (window.get(pair.second.index), k.window.get(pair.first.index))
            else {
                continue;
            };
            if op.kind == FtKind::Unmap
                && let Some(domain) = k.told_domain(op)
                && (votes.len() < MAX_PAIRS || votes.contains_key(&(domain, walk.domain)))
            {
                *votes.entry((domain, walk.domain)).or_default() += 1;
            }
        }
        let log_done = log.eof() && aligner.undecided_second().is_none();
        if log_done || k.reader.eof() && aligner.undecided_first().is_none() {
            break;
        }
        // Keep what is not decided yet.
        let keep = aligner.undecided_second().unwrap_or(fed_log);
        while window.head() < keep {
            window.pop();
        }
        let keep = aligner.undecided_first().unwrap_or(fed);
        while k.window.head() < keep {
            k.window.pop();
        }
        if before == (log.counts.lines, k.reader.counts.lines, window.head(), k.window.head()) {
            // Both windows are full and have nothing in common.
            aligner.give_up_first();
            aligner.give_up_second();
        }
    }
    let mut best: FxHashMap<u32, (u64, u32)> = FxHashMap::default();
    for ((host, guest), n) in votes {
        let slot = best.entry(host).or_default();
        *slot = (*slot).max((n, guest));
    }
    scan.guest_domain = best.into_iter().map(|(host, (_, guest))| (host, guest)).collect();
    Ok(scan)
}

//! A recording of software nesting at all levels: the guest's ftrace, the
//! VMM's log, the hypervisor's ftrace and the log of the physical IOMMU, as
//! one sequence of events in causal order.
//!
//! Neighbouring inputs share operations: the guest's descriptors are in the
//! VMM's log, the VMM's shadow operations in the hypervisor's ftrace, the
//! hypervisor's descriptors in the host's log. Three [`Aligner`]s pair them
//! and tell the clocks' differences. The four inputs are then merged by time
//! on the host's clock, under these constraints (`ready` and the `write`
//! methods):
//!
//! * what the guest did before it submitted a descriptor stands before the
//!   VMM's record of it, what it did afterwards behind it;
//! * a shadow operation stands in the VMM's log before the hypervisor's map
//!   or unmap; the VMM goes on when that has returned;
//! * what the hypervisor did before it submitted a descriptor stands before
//!   the host's record of it, what it did afterwards behind it;
//! * what the VMM did before the hypervisor on their machine's clock stands
//!   before it, and a region that VFIO is told about before its maps and
//!   unmaps (`vmm_first`);
//! * a shadow map stands before the first access that needs it.

mod vmm_first;

use super::anchors::{Aligner, Token};
use super::bundle_events::State;
use super::bundle_scan::Scan;
use super::clock::Segments;
use super::desc::mix;
use super::emit::Emitter;
use super::joined::Joined;
use super::lines::{EventSink, LineSource};
use super::qemu::LogReader;
use super::report::{Diagnostics, Options};
use super::window::{FtKind, FtRec, LogKind, LogRec, LogWindow, NONE};
use crate::Result;

/// Records looked ahead in each input.
const AHEAD: usize = 1 << 16;
/// A shadow map may be stamped this much later than an access that needs it.
const PULL_NS: i64 = 20_000_000;

/// One of the four inputs, in the order of their causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Guest,
    Vmm,
    Hypervisor,
    Host,
}

/// The merge; see the module's text.
#[derive(Debug)]
pub(crate) struct Bundle<H, G, V, K, S> {
    pub(crate) host: LogReader<H>,
    pub(crate) host_window: LogWindow,
    pub(crate) vmm: LogReader<V>,
    pub(crate) vmm_window: LogWindow,
    /// The guest's ftrace, joined with the VMM's log.
    pub(crate) guest: Joined<G>,
    /// The hypervisor's ftrace, joined with the host's log.
    pub(crate) hypervisor: Joined<K>,
    /// Shadow operations: the hypervisor's ftrace (first, as it comes later)
    /// and the VMM's log.
    pub(crate) shadow_ops: Aligner,
    fed_vmm: u64,
    fed_hypervisor: u64,
    /// Hypervisor's clock minus the VMM's.
    vmm_clock: Segments,
    /// The same before the first common operation, ns.
    vmm_offset: i64,
    /// Hypervisor record that the VMM waits for.
    vmm_waits: Option<u64>,
    pub(crate) state: State,
    pub(crate) out: Emitter<S>,
    pub(crate) diag: Diagnostics,
    pub(crate) order_conflicts: u64,
}

/// The token of a shadow operation.
pub(crate) fn operation(map: bool, iova: u64) -> u64 {
    mix(iova >> 12, u64::from(map)) >> 16
}

/// The token of a VMM's record, if it is a shadow operation.
pub(crate) fn vmm_operation(rec: &LogRec) -> Option<u64> {
    (rec.kind == LogKind::Walk).then(|| operation(rec.flags != 0, rec.a))
}

/// The token of a hypervisor's record, if it changes a table.
pub(crate) fn hypervisor_operation(rec: &FtRec) -> Option<u64> {
    rec.changes_table().then(|| operation(rec.kind == FtKind::Map, rec.a))
}

impl<H: LineSource, G: LineSource, V: LineSource, K: LineSource, S: EventSink>
    Bundle<H, G, V, K, S>
{
    pub(crate) fn new(inputs: (H, G, V, K), scan: Scan, sink: S, max_errors: u64) -> Self {
        let (host, guest, vmm, hypervisor) = inputs;
        let mut out = Emitter::new(sink);
        out.caching_mode = true;
        out.covered = true;
        out.guest_devices = false;
        out.unmap_by_invalidation = false;
        Bundle {
            host: LogReader::new(host, false),
            host_window: LogWindow::default(),
            vmm: LogReader::new(vmm, true),
            vmm_window: LogWindow::default(),
            guest: Joined::new(guest),
            hypervisor: Joined::new(hypervisor),
            shadow_ops: Aligner::new(true),
            fed_vmm: 0,
            fed_hypervisor: 0,
            vmm_clock: Segments::default(),
            vmm_offset: scan.vmm_offset,
            vmm_waits: None,
            state: State::new(scan),
            out,
            diag: Diagnostics::new(max_errors),
            order_conflicts: 0,
        }
    }

    /// Reads all inputs to their ends.
    pub(crate) fn run(&mut self, options: &mut Options<'_>) -> Result<()> {
        let mut steps = 0u32;
        loop {
            self.fill()?;
            let Some(lane) = self.next_lane() else { return Ok(()) };
            self.write(lane)?;
            steps = steps.wrapping_add(1);
            if steps.is_multiple_of(1 << 13) {
                let parts = [
                    self.host.lines().progress(),
                    self.vmm.lines().progress(),
                    self.guest.reader.lines().progress(),
                    self.hypervisor.reader.lines().progress(),
                ];
                let sum = parts.iter().fold((0, 0), |(d, t), (x, y)| (d + x, t + y));
                // The VMM's and the hypervisor's were read once before.
                options.tick(self.host.lines().path(), sum.0, sum.1)?;
            }
        }
    }

    /// Reads all inputs as far as the windows allow and pairs what can be.
    fn fill(&mut self) -> Result<()> {
        let mut more = false;
        while self.host_window.len() < AHEAD
            && self.host.read(&mut self.host_window, &mut self.diag)?
        {
            more = true;
        }
        while self.vmm_window.len() < AHEAD
            && self.vmm.read(&mut self.vmm_window, &mut self.diag)?
        {
            more = true;
        }
        while !self.guest.window.is_full(AHEAD)
            && self.guest.reader.read(&mut self.guest.window, &mut self.diag)?
        {
            more = true;
        }
        while !self.hypervisor.window.is_full(AHEAD)
            && self.hypervisor.reader.read(&mut self.hypervisor.window, &mut self.diag)?
        {
            more = true;
        }
        if more {
            self.pair();
        }
        Ok(())
    }

    fn pair(&mut self) {
        let (host_timed, vmm_timed) = (self.host.clock().timed(), self.vmm.clock().timed());
        self.hypervisor.feed_log(&self.host, &self.host_window);
        self.hypervisor.feed();
        self.guest.feed_log(&self.vmm, &self.vmm_window);
        self.guest.feed();
        let stable = self.vmm.stable(&self.vmm_window);
        while self.fed_vmm < stable {
            let index = self.fed_vmm;
            self.fed_vmm += 1;
            let Some(rec) = self.vmm_window.get(index) else { continue };
            if rec.seam {
                self.vmm_clock.seam(index);
                self.shadow_ops.seam_second(index, rec.time);
            }
            if let Some(hash) = vmm_operation(rec) {
                self.shadow_ops.push_second(Token { hash, time: rec.time, index });
            }
        }
        while self.fed_hypervisor < self.hypervisor.window.end() {
            let index = self.fed_hypervisor;
            self.fed_hypervisor += 1;
            let Some(rec) = self.hypervisor.window.get(index) else { continue };
            if rec.seam {
                self.shadow_ops.seam_first(index, rec.time);
            }
            if let Some(hash) = hypervisor_operation(rec) {
                self.shadow_ops.push_first(Token { hash, time: rec.time, index });
            }
        }
        self.hypervisor.finish_pairing(self.host.eof(), &mut self.host_window, host_timed);
        self.guest.finish_pairing(self.vmm.eof(), &mut self.vmm_window, vmm_timed);
        self.shadow_ops.set_timed(vmm_timed);
        if self.hypervisor.reader.eof() {
            self.shadow_ops.end_first();
        }
        if self.vmm.eof() {
            self.shadow_ops.end_second();
        }
        self.shadow_ops.poll();
        self.take_operations();
    }

    fn take_operations(&mut self) {
        while let Some(pair) = self.shadow_ops.next_pair() {
            let Some(walk) = self.vmm_window.get_mut(pair.second.index) else { continue };
            walk.peer = pair.first.index;
            if let Some(r) = self.hypervisor.window.get_mut(pair.first.index) {
                r.vmm = pair.second.index;
                r.domain = walk.domain;
            }
            self.vmm_clock.pair(pair.second.index, pair.epoch, pair.offset);
        }
    }

    /// Makes sure that the heads are decided: with full windows what has no
    /// partner yet will not get one.
    fn decide_heads(&mut self) {
        let (host_timed, vmm_timed) = (self.host.clock().timed(), self.vmm.clock().timed());
        self.hypervisor.decide(self.host_window.head(), &mut self.host_window, host_timed);
        self.guest.decide(self.vmm_window.head(), &mut self.vmm_window, vmm_timed);
        let head = self.vmm_window.head();
        while self.shadow_ops.undecided_second().is_some_and(|i| i <= head) {
            self.shadow_ops.give_up_second();
            self.shadow_ops.poll();
            self.take_operations();
        }
    }

    /// Host time of the VMM's clock.
    fn host_time_of_vmm(&self, time: i64) -> i64 {
        self.hypervisor.extrapolate(self.hypervisor_time_of_vmm(time))
    }

    /// The input whose head comes next.
    fn next_lane(&mut self) -> Option<Lane> {
        self.decide_heads();
        let heads = [
            (Lane::Guest, self.guest.window.front().map(|r| self.guest_time(r))),
            (Lane::Vmm, self.vmm_window.front().map(|r| self.host_time_of_vmm(r.time))),
            (
                Lane::Hypervisor,
                self.hypervisor.window.front().map(|r| self.hypervisor.extrapolate(r.time)),
            ),
            (Lane::Host, self.host_window.front().map(|r| r.time)),
        ];
        let mut best: Option<(i64, Lane)> = None;
        let mut blocked: Option<(i64, Lane)> = None;
        for (lane, time) in heads {
            let Some(time) = time else { continue };
            let slot = if self.ready(lane) { &mut best } else { &mut blocked };
            if slot.is_none_or(|(t, _)| time < t) {
                *slot = Some((time, lane));
            }
        }
        if best.is_none() && blocked.is_some() {
            self.order_conflicts += 1;
        }
        best.or(blocked).map(|(_, lane)| lane)
    }

    fn guest_time(&self, rec: &FtRec) -> i64 {
        self.host_time_of_vmm(self.guest.extrapolate(rec.time))
    }

    /// False if a lane's head must wait for another lane.
    fn ready(&self, lane: Lane) -> bool {
        match lane {
            // Submitting returns when the VMM has processed it.
            Lane::Guest => self.guest.window.front().is_none_or(|r| {
                r.kind != FtKind::Submit || r.peer == NONE || r.peer < self.vmm_window.head()
            }),
            Lane::Vmm => {
                !self.vmm_waits_for_host()
                    && self.vmm_waits.is_none_or(|k| {
                        self.hypervisor.window.head() > k || self.hypervisor.window.len() == 0
                    })
            }
            Lane::Hypervisor => self.hypervisor.window.front().is_none_or(|r| {
                r.kind != FtKind::Submit || r.peer == NONE || r.peer < self.host_window.head()
            }),
            Lane::Host => true,
        }
    }

    /// Writes a lane's head, and before it what must come first.
    fn write(&mut self, lane: Lane) -> Result<()> {
        match lane {
            Lane::Guest => self.write_guest(),
            Lane::Vmm => self.write_vmm(),
            Lane::Hypervisor => self.write_hypervisor(),
            Lane::Host => self.write_host(),
        }
    }

    fn write_guest(&mut self) -> Result<()> {
        let Some(&rec) = self.guest.window.front() else { return Ok(()) };
        let index = self.guest.window.head();
        let time = self.guest_time(&rec);
        match rec.kind {
            FtKind::Map | FtKind::Unmap => {
                let domain = self.guest.told_domain(&rec);
                let perm = self.shadowed_perm(&rec);
                self.state.guest_change(&mut self.out, time, &rec, domain, perm)?;
            }
            FtKind::Marker => {
                let text = self.guest.window.text(index).to_owned();
                self.out.marker(time, rec.cpu, &text)?;
            }
            FtKind::Submit => {}
        }
        self.guest.window.pop();
        Ok(())
    }

    /// Rights of the shadow entry that a guest's map will get.
    fn shadowed_perm(&self, rec: &FtRec) -> u8 {
        let at = self.guest.window.get(rec.peer).map_or(NONE, |submit| submit.peer);
        let mut after = at;
        while let Some(r) = after.checked_add(1).and_then(|i| self.vmm_window.get(i)) {
            after += 1;
            match r.kind {
                LogKind::Walk if r.flags != 0 && r.a <= rec.a && rec.a - r.a <= r.c => {
                    return r.flags;
                }
                LogKind::Walk => {}
                _ => break,
            }
        }
        3
    }

    fn write_vmm(&mut self) -> Result<()> {
        let Some(&rec) = self.vmm_window.front() else { return Ok(()) };
        let time = self.host_time_of_vmm(rec.time);
        match rec.kind {
            LogKind::Inv => {
                // What the guest did before.
                while rec.peer != NONE
                    && self.guest.window.head() < rec.peer
                    && self.guest.window.len() > 0
                {
                    self.write_guest()?;
                }
                let cpu = self.guest.window.get(rec.peer).map(|r| r.cpu);
                for walk in self.vmm_window.walks_behind_head() {
                    self.out.agree(time, walk, true)?;
                }
                self.out.invalidate(time, cpu, rec.descriptor())?;
            }
            LogKind::Walk => {
                let pieces = self.pieces(&rec);
                self.state.shadow_change(&mut self.out, time, &rec, &pieces)?;
                if rec.peer != NONE {
                    self.vmm_waits = Some(rec.peer + pieces.len().saturating_sub(1) as u64);
                }
            }
            LogKind::Switch => {
                let regions = self.switch_moves_regions();
                self.state.switch(&mut self.out, time, &rec, regions)?;
            }
            LogKind::RegionRam | LogKind::RegionDel => self.state.region(&rec),
            LogKind::Reset => self.out.reset(time, rec.c == 2)?,
            _ => {}
        }
        self.vmm_window.pop();
        Ok(())
    }

    /// The hypervisor's maps that make up one shadow map: the host pages may
    /// lie apart.
    fn pieces(&self, rec: &LogRec) -> Vec<FtRec> {
        let mut pieces = Vec::new();
        if rec.peer == NONE || rec.flags == 0 {
            return pieces;
        }
        let end = rec.a.saturating_add(rec.c);
        let mut next = rec.a;
        for (_, r) in self.hypervisor.window.from(rec.peer) {
            if r.kind != FtKind::Map || r.a != next {
                break;
            }
            pieces.push(*r);
            next = r.a.wrapping_add(r.size);
            if next.wrapping_sub(1) >= end {
                break;
            }
        }
        pieces
    }

    /// True if the switch at the VMM's head changes what VFIO has mapped: the
    /// listener's lines follow before another device's switch.
    fn switch_moves_regions(&self) -> bool {
        let mut index = self.vmm_window.head() + 1;
        while let Some(r) = self.vmm_window.get(index) {
            match r.kind {
                LogKind::RegionDel | LogKind::RegionIommu | LogKind::RegionRam => return true,
                LogKind::Void | LogKind::Token => {}
                _ => return false,
            }
            index += 1;
        }
        false
    }

    fn write_hypervisor(&mut self) -> Result<()> {
        let Some(&rec) = self.hypervisor.window.front() else { return Ok(()) };
        self.write_vmm_before(&rec)?;
        let time = self.hypervisor.extrapolate(rec.time);
        if rec.changes_table() {
            if rec.vmm != NONE {
                // The VMM's record of the operation.
                while self.vmm_window.head() <= rec.vmm && self.vmm_window.len() > 0 {
                    self.write_vmm()?;
                }
            }
            let domain = self.hypervisor.told_domain(&rec);
            self.state.hypervisor_change(&mut self.out, time, &rec, domain)?;
        }
        self.hypervisor.window.pop();
        Ok(())
    }

    fn write_host(&mut self) -> Result<()> {
        let Some(&rec) = self.host_window.front() else { return Ok(()) };
        if rec.kind == LogKind::Inv && rec.peer != NONE {
            while self.hypervisor.window.head() < rec.peer && self.hypervisor.window.len() > 0 {
                self.write_hypervisor()?;
            }
        }
        match rec.kind {
            LogKind::Dma => {
                if self.state.lacks_mapping(&rec) {
                    self.pull(&rec)?;
                }
                self.state.dma(&mut self.out, &rec)?;
            }
            LogKind::Inv => {
                self.state.host_invalidation(&mut self.out, &rec)?;
            }
            LogKind::Reset => self.state.host_reset(&mut self.out, rec.time)?,
            _ => {}
        }
        self.host_window.pop();
        Ok(())
    }

    /// Writes the hypervisor's records up to a map that an access needs and
    /// that is stamped a little later.
    fn pull(&mut self, dma: &LogRec) -> Result<()> {
        let (page, out) = (dma.a >> 12, dma.b >> 12);
        let limit = dma.time.saturating_add(PULL_NS);
        let found = self
            .hypervisor
            .window
            .from(self.hypervisor.window.head())
            .take_while(|(_, r)| self.hypervisor.extrapolate(r.time) <= limit)
            .find(|(_, r)| {
                let at = page.wrapping_sub(r.a >> 12);
                r.kind == FtKind::Map && at < r.size >> 12 && (r.b >> 12) + at == out
            })
            .map(|(i, _)| i);
        let Some(map) = found else { return Ok(()) };
        self.state.counts.pulled += 1;
        while self.hypervisor.window.head() <= map && self.hypervisor.window.len() > 0 {
            self.write_hypervisor()?;
        }
        Ok(())
    }
}

//! A workload laid over a sequence of events.
//!
//! The trace's events pass through in order; between them the workload's
//! operations add parent maps and unmaps. Three rules keep the result a
//! trace of a machine that could exist:
//!
//! * before an event that uses guest memory which is away, that memory comes
//!   back; before an access that may write, write protection goes;
//! * where the trace holds recorded shadow operations, parent changes happen
//!   only at instants at which the recorded shadow is in line with the
//!   guest's table. A VMM that rebuilds shadows after a parent change would
//!   otherwise see guest changes earlier than the recording shows. Events up
//!   to such an instant are looked at together (a *span*);
//! * recorded outputs in host addresses that a parent change made untrue lose
//!   their flag; those in guest addresses do not depend on the parent.

use std::collections::BTreeMap;

use ioasim_events::{Event, Flags, Kind, OutputSpace};
use rand::SeedableRng;
use rand_pcg::Pcg64;

use super::children::{Children, TOP, pages};
use super::choose::Chooser;
use super::host::Host;
use super::options::{Options, Workload};
use super::pace::Pace;
use super::survey::{Survey, may_write};
use super::workload::{self, Guest, Work};
use crate::Result;

/// Events of a span at most: the bound of the look-ahead.
const LONGEST_SPAN: usize = 16_384;

/// Where events go.
pub(super) type Sink<'a> = dyn FnMut(&Event, Option<&str>) -> Result<()> + 'a;

/// Guest memory that an event uses.
#[derive(Clone, Copy, Debug)]
struct Use {
    start: u64,
    end: u64,
    /// It is an access, and it may write.
    writes: bool,
}

/// Counts of what an overlay did.
#[derive(Debug, Default)]
struct Counts {
    operations: u64,
    given_back: u64,
    unprotected: u64,
    outputs_cleared: u64,
    shadow_hpas_cleared: u64,
    spans_cut: u64,
    absent_peak: u64,
}

/// The state between two events.
#[derive(Debug)]
pub(super) struct Overlay {
    guest: Guest,
    work: Box<dyn Work>,
    pace: Pace,
    protects: bool,
    host_outputs: bool,
    after_dma: u64,
    max_changes: u64,
    begun: bool,
    stopped: bool,
    /// Parent events and operations so far.
    spent: u64,
    accesses: u64,
    last_ns: u64,
    span: Vec<(Event, Option<String>)>,
    uses: Vec<Use>,
    ranges: Vec<(u64, u64)>,
    counts: Counts,
}

impl Overlay {
    /// Prepares an overlay and lays guest memory out if the trace has no
    /// parent. `options` have been checked.
    pub fn new(
        options: &Options,
        survey: Survey,
        output_space: OutputSpace,
        sink: &mut Sink<'_>,
    ) -> Result<Overlay> {
        let mut host = Host::new(options.size(), survey.highest_hpa);
        if !survey.has_parent {
            for (start, end) in &survey.regions {
                host.lay_out(*start, *end, options.parent_page.bytes());
            }
            let (start, end) = survey.page_tables;
            host.lay_out(start, end, 2 << 20);
        }
        let chooser = Chooser::new(
            options.distribution(),
            options.zipf.unwrap_or(1.0),
            options.size(),
            &survey.regions,
            survey.hot,
        );
        host.regions = survey.regions;
        host.page_tables = survey.page_tables;
        let work = workload::of(options, host.memory());
        let mut overlay = Overlay {
            guest: Guest {
                host,
                children: Children::new(output_space, survey.has_shadow),
                chooser,
                rng: Pcg64::seed_from_u64(options.seed),
                in_use: options.in_use,
                refused: 0,
            },
            work,
            pace: Pace::new(options.rate),
            protects: options.workload == Workload::WriteProtect,
            host_outputs: output_space == OutputSpace::Hpa,
            after_dma: options.after_dma,
            max_changes: options.max_changes,
            begun: false,
            stopped: false,
            spent: 0,
            accesses: 0,
            last_ns: 0,
            span: Vec::new(),
            uses: Vec::new(),
            ranges: Vec::new(),
            counts: Counts::default(),
        };
        overlay.write_made(sink)?;
        overlay.spent = 0;
        Ok(overlay)
    }

    /// The trace's next event.
    pub fn event(&mut self, e: &Event, text: Option<&str>, sink: &mut Sink<'_>) -> Result<()> {
        if self.span.is_empty() {
            self.operate(e, sink)?;
        }
        self.note_uses(e);
        self.guest.children.apply(e);
        if e.kind == Kind::Dma {
            self.accesses += 1;
            if self.begun {
                self.pace.access();
            }
        }
        self.span.push((*e, text.map(str::to_owned)));
        if self.guest.children.settled() {
            return self.flush(sink);
        }
        if self.span.len() >= LONGEST_SPAN {
            self.counts.spans_cut += 1;
            return self.flush(sink);
        }
        Ok(())
    }

    /// The trace is over; returns what was counted.
    pub fn finish(mut self, sink: &mut Sink<'_>) -> Result<BTreeMap<String, u64>> {
        self.flush(sink)?;
        let c = &self.counts;
        let counted = [
            ("overlay_operations", c.operations),
            ("overlay_parent_maps", self.guest.host.maps),
            ("overlay_parent_unmaps", self.guest.host.unmaps),
            ("overlay_ranges_given_back_for_use", c.given_back),
            ("overlay_ranges_unprotected_for_writes", c.unprotected),
            ("overlay_candidates_refused", self.guest.refused),
            ("overlay_outputs_cleared", c.outputs_cleared),
            ("overlay_shadow_hpas_cleared", c.shadow_hpas_cleared),
            ("overlay_spans_cut", c.spans_cut),
            ("overlay_guest_memory_bytes", self.guest.host.memory()),
            ("overlay_absent_peak_bytes", c.absent_peak),
            ("overlay_stopped_at_max_changes", u64::from(self.stopped)),
        ];
        Ok(counted.map(|(name, n)| (name.to_string(), n)).into())
    }

    /// Operations that are due before `next`.
    fn operate(&mut self, next: &Event, sink: &mut Sink<'_>) -> Result<()> {
        // After a span that was cut the shadow is not in line.
        if !self.guest.children.settled() {
            return Ok(());
        }
        if !self.begun {
            if next.kind != Kind::Dma || self.accesses < self.after_dma {
                return Ok(());
            }
            self.begun = true;
            self.pace.begin(self.last_ns);
            self.guest.host.now_ns = self.last_ns;
            self.work.begin(&mut self.guest);
            self.write_made(sink)?;
        }
        while !self.stopped {
            let Some(due) = self.pace.due(self.last_ns, next.time_ns) else { break };
            if self.spent >= self.max_changes || self.guest.host.exhausted() {
                self.stopped = true;
                break;
            }
            self.guest.host.now_ns = due;
            self.work.step(&mut self.guest);
            self.counts.operations += 1;
            // Operations that find nothing to do count, too: they take time.
            self.spent += 1;
            self.write_made(sink)?;
        }
        Ok(())
    }

    /// Remembers what guest memory an event uses.
    fn note_uses(&mut self, e: &Event) {
        match e.kind {
            Kind::Dma if self.guest.host.absent() > 0 || self.protects => {
                self.ranges.clear();
                self.guest.children.reached_by(e, &mut self.ranges);
                let writes = self.protects && may_write(e.flags);
                let uses = self.ranges.iter().map(|(start, end)| (*start, *end));
                self.uses.extend(uses.map(|(start, end)| Use { start, end, writes }));
            }
            Kind::Map if self.guest.host.absent() > 0 && self.work.back_at_map(&self.guest) => {
                let (start, end) = pages(e.out, e.size);
                self.uses.push(Use { start, end, writes: false });
            }
            _ => {}
        }
    }

    /// Writes the span, and before it what its events need.
    fn flush(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        let Some((first, _)) = self.span.first() else { return Ok(()) };
        self.guest.host.now_ns = first.time_ns;
        let host = &mut self.guest.host;
        for used in self.uses.drain(..) {
            if host.is_absent(used.start, used.end) {
                for (start, end) in host.give_back(used.start, used.end) {
                    self.counts.given_back += 1;
                    self.work.asked_for(start, end);
                }
            }
            if used.writes && host.is_protected(used.start, used.end) {
                let mask = host.unit - 1;
                let (start, end) = (used.start & !mask, (used.end + mask) & !mask);
                host.protect(start, end, None);
                self.counts.unprotected += 1;
                self.work.written(start, end);
            }
        }
        self.write_made(sink)?;
        let mut span = std::mem::take(&mut self.span);
        for (mut e, text) in span.drain(..) {
            self.correct(&mut e);
            self.last_ns = e.time_ns;
            sink(&e, text.as_deref())?;
        }
        self.span = span;
        Ok(())
    }

    /// Follows recorded parent events, and takes back what the recording
    /// claims of host addresses that are no longer so.
    fn correct(&mut self, e: &mut Event) {
        let host = &mut self.guest.host;
        match e.kind {
            Kind::ParentMap if e.size > 0 => {
                let (start, end) = pages(e.addr, e.size);
                host.recorded_map(start, end, e.out.min(TOP) & !0xfff, e.flags.perm());
            }
            Kind::ParentUnmap => {
                let (start, end) = pages(e.addr, e.size);
                host.recorded_unmap(start, end);
            }
            Kind::Dma
                if self.host_outputs
                    && e.flags.has(Flags::OUT_KNOWN)
                    && host.is_displaced(e.out, e.size) =>
            {
                e.flags = Flags(e.flags.0 & !Flags::OUT_KNOWN.0);
                e.out = 0;
                self.counts.outputs_cleared += 1;
            }
            Kind::ShadowMap if e.aux != 0 && host.is_displaced(e.aux, e.size) => {
                // "Not recorded", as the format has it.
                e.aux = 0;
                self.counts.shadow_hpas_cleared += 1;
            }
            _ => {}
        }
    }

    fn write_made(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        let host = &mut self.guest.host;
        self.counts.absent_peak = self.counts.absent_peak.max(host.absent());
        self.spent += host.made.len() as u64;
        for e in host.made.drain(..) {
            self.last_ns = e.time_ns;
            sink(&e, None)?;
        }
        Ok(())
    }
}

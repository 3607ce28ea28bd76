//! A QEMU log, alone or with the guest's ftrace, as one sequence of events.
//!
//! The log is the backbone: its records keep their order. The ftrace's maps
//! and unmaps are put between them by time, where the difference of the two
//! clocks comes from the invalidation descriptors that both sides recorded
//! (`anchors.rs`), or from maps and the misses that need them (`votes.rs`).
//! Clocks are good to some 20 us, so causality has the last
//! word:
//!
//! * what a CPU did before it submitted a descriptor stands before the
//!   descriptor's record, what it did afterwards behind it (submitting waits
//!   for completion);
//! * a map stands before the first access that needs it;
//! * an unmap stands behind accesses that still missed the IOTLB and found
//!   the old output: the walk has seen the entry.
//!
//! Both inputs are read through windows of bounded size.

use ioasim_events::{DomainId, Event, Flags, Kind};

use super::alone::LogGuess;
use super::attribute::Found;
use super::emit::Emitter;
use super::joined::{FT_AHEAD, Joined};
use super::lines::{EventSink, LineSource};
use super::model::Model;
use super::parent::Parent;
use super::qemu::LogReader;
use super::report::{Diagnostics, Options};
use super::window::{FtKind, LogKind, LogRec, LogWindow, NONE};
use crate::Result;

/// Records of the log written between two looks at what is to be read.
pub(super) const STEPS: usize = 1024;
/// Records of the log looked ahead with and without an ftrace.
pub(super) const LOG_AHEAD: usize = 1 << 17;
const LOG_AHEAD_ALONE: usize = 1 << 15;
/// Records of an ftrace among which a descriptor is looked for.
const LOOK_FOR_DESCRIPTORS: usize = 1 << 14;
/// log2 of the pages of an invalidation that are looked up one by one.
const MAX_AM: u64 = 6;

/// What the join counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct JoinCounts {
    pub(crate) table_changes: u64,
    pub(crate) by_dma: u64,
    pub(crate) by_invalidation: u64,
    pub(crate) by_pairing: u64,
    pub(crate) by_liveness: u64,
    pub(crate) by_adjacency: u64,
    pub(crate) without_domain: u64,
    pub(crate) notified: u64,
    /// DMA and invalidation tell different domains.
    pub(crate) contradictions: u64,
    pub(crate) pulled: u64,
    pub(crate) held: u64,
    pub(crate) order_conflicts: u64,
    pub(crate) not_joined: u64,
    pub(crate) markers: u64,
}

/// The join; see the module's text.
#[derive(Debug)]
pub(crate) struct Join<L, F, S> {
    pub(crate) log: LogReader<L>,
    pub(crate) window: LogWindow,
    pub(crate) guest: Option<Joined<F>>,
    pub(crate) out: Emitter<S>,
    pub(crate) diag: Diagnostics,
    pub(crate) counts: JoinCounts,
    /// The parent's table, if VFIO's listener was logged.
    pub(crate) parent: Parent,
    /// What the log alone tells about caching mode, up to record `noted`.
    pub(crate) alone: LogGuess,
    noted: u64,
    /// The first lines were read.
    begun: bool,
}

impl<L: LineSource, F: LineSource, S: EventSink> Join<L, F, S> {
    /// Of a kernel's trace alone; `log` gives a name to what its descriptors stand for.
    pub(crate) fn of_kernel(log: L, trace: Joined<F>, sink: S, max_errors: u64) -> Self {
        let mut join = Join::new(log, None, sink, max_errors);
        join.window = LogWindow::default();
        (join.begun, join.guest) = (true, Some(trace));
        Join { log: LogReader::of_descriptors(join.log.into_lines()), ..join }
    }

    pub(crate) fn new(log: L, guest: Option<F>, sink: S, max_errors: u64) -> Self {
        Join {
            log: LogReader::new(log, false),
            window: if guest.is_some() { LogWindow::default() } else { LogWindow::by_domain() },
            parent: Parent::default(),
            alone: LogGuess::default(),
            noted: 0,
            begun: false,
            guest: guest.map(Joined::new),
            out: Emitter::new(sink),
            diag: Diagnostics::new(max_errors),
            counts: JoinCounts::default(),
        }
    }

    /// Reads both inputs to their ends.
    pub(crate) fn run(&mut self, options: &mut Options<'_>) -> Result<()> {
        let mut rounds = 0u32;
        loop {
            self.fill()?;
            if self.window.len() == 0 {
                break;
            }
            for _ in 0..STEPS.min(self.window.len()) {
                self.step()?;
            }
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(16) {
                let (mut done, mut total) = self.log.lines().progress();
                if let Some(g) = &self.guest {
                    let (d, t) = g.reader.lines().progress();
                    (done, total) = (done + d, total + t);
                }
                options.tick(self.log.lines().path(), done, total)?;
            }
        }
        self.parent.settle();
        self.write_parent(0)?;
        self.rest_of_ftrace()
    }

    /// Changes of the parent's table.
    fn region(&mut self, rec: &LogRec) -> Result<()> {
        match rec.kind {
            LogKind::RegionRam => self.parent.add(rec.a, rec.b, rec.c),
            LogKind::RegionIommu => self.parent.switched(rec.a, rec.b),
            _ => {
                self.parent.remove_later(rec.a, rec.b);
            }
        }
        self.write_parent(rec.time)
    }

    fn write_parent(&mut self, time: i64) -> Result<()> {
        for event in self.parent.drain() {
            self.out.write(time, event)?;
        }
        Ok(())
    }

    /// Sees what the inputs are before anything is written.
    fn begin(&mut self) -> Result<()> {
        let model = self.log.model.unwrap_or(Model::VtD);
        self.out.set_model(model);
        let Some(g) = &mut self.guest else { return Ok(()) };
        while model == Model::VtD
            && g.reader.counts.descriptors == 0
            && g.window.len() < LOOK_FOR_DESCRIPTORS
            && g.reader.read(&mut g.window, &mut self.diag)?
        {}
        if g.reader.counts.descriptors == 0 {
            g.pair_by_mappings();
        }
        g.feed();
        Ok(())
    }

    /// Reads until both windows are full enough for the next [`STEPS`].
    fn fill(&mut self) -> Result<()> {
        let ahead = if self.guest.as_ref().is_some_and(|g| !g.finished()) {
            LOG_AHEAD
        } else {
            LOG_AHEAD_ALONE
        };
        while self.window.len() < ahead && self.log.read(&mut self.window, &mut self.diag)? {}
        if !self.begun {
            self.begun = true;
            self.begin()?;
        }
        let Some(g) = &mut self.guest else {
            let stable = self.log.stable(&self.window);
            while let Some(rec) = self.window.get(self.noted).filter(|_| self.noted < stable) {
                self.alone.note(rec);
                self.noted += 1;
            }
            return Ok(());
        };
        if g.finished() {
            return Ok(());
        }
        let log_ended = self.log.eof();
        g.feed_log(&self.log, &self.window);
        let timed = self.log.clock().timed();
        g.pairing.set_timed(timed);
        if log_ended && g.pairing.descriptors().is_none() {
            g.pairing.end_first();
        }
        loop {
            let needs = g.pairing.poll();
            g.take_pairs(&mut self.window, timed);
            if g.reader.eof() {
                g.pairing.end_second();
            }
            let full = g.window.is_full(FT_AHEAD);
            let wanted = needs.second || !g.reaches(&self.window, timed);
            if !wanted || full || g.reader.eof() {
                if log_ended && g.reader.eof() {
                    // Nothing more will come: let the pairing decide.
                    g.finish_pairing(true, &mut self.window, timed);
                }
                g.decide(self.window.head() + STEPS as u64, &mut self.window, timed);
                if full && timed && g.log_time(g.window.head()).is_none() {
                    // The ftrace begins long before the log, or another
                    // recording lies between.
                    self.counts.not_joined += g.drop_oldest();
                }
                return Ok(());
            }
            for _ in 0..64 {
                if !g.reader.read(&mut g.window, &mut self.diag)? {
                    break;
                }
                g.feed();
            }
        }
    }

    /// Writes the next record of the log and what belongs before it.
    pub(super) fn step(&mut self) -> Result<()> {
        let Some(&rec) = self.window.front() else { return Ok(()) };
        let index = self.window.head();
        if self.guest.is_some() {
            self.release(rec.time)?;
            if rec.peer != NONE {
                self.release_before_submit(rec.peer)?;
            }
            self.out.covered = self.guest.as_ref().is_some_and(Joined::covers);
        }
        match rec.kind {
            LogKind::Dma => {
                let lacking = self.out.lacks_mapping(&rec);
                if lacking && self.guest.is_some() {
                    self.pull(index)?;
                }
                self.out.dma(&rec, lacking)?;
                if let Some(g) = self.guest.as_mut().filter(|g| g.uses.wanted) {
                    g.uses.note(&rec);
                }
            }
            LogKind::Inv => {
                let cpu = self.guest.as_ref().and_then(|g| g.window.get(rec.peer)).map(|s| s.cpu);
                self.before_invalidation(index, &rec)?;
                self.out.invalidate(rec.time, cpu, rec.descriptor())?;
            }
            LogKind::Walk => self.shadow(&rec)?,
            LogKind::RegionRam | LogKind::RegionIommu | LogKind::RegionDel => self.region(&rec)?,
            LogKind::Reset => {
                // QEMU 7.2 resets the caches when translation is switched,
                // when the root table changes and when the machine resets.
                let new_tables = rec.c == 2;
                self.out.reset(rec.time, new_tables)?;
            }
            _ => {}
        }
        self.window.pop();
        if let Some(g) = &mut self.guest {
            g.pop_done();
        }
        Ok(())
    }

    /// Writes the table changes that an invalidation announces and that only
    /// later records show.
    fn before_invalidation(&mut self, index: u64, rec: &LogRec) -> Result<()> {
        if self.log.counts.shadow_operations > 0 {
            // A VMM's log tells what it found in the table.
            self.out.unmap_by_invalidation = false;
            self.out.caching_mode = true;
            for walk in self.window.walks_behind_head() {
                self.out.agree(rec.time, walk, true)?;
            }
            return Ok(());
        }
        if self.guest.is_some() {
            return Ok(());
        }
        self.out.caching_mode = self.alone.on();
        self.out.unmap_by_invalidation = true;
        let Some((domain, addr, am)) =
            rec.descriptor().pages().filter(|p| p.2 <= MAX_AM && self.alone.on())
        else {
            return Ok(());
        };
        let first = addr >> 12 & !((1 << am) - 1);
        // The next invalidation of these pages ends what this one announces.
        let mut later = self
            .window
            .next_uses(domain, first)
            .filter(|(i, r)| *i > index && r.kind == LogKind::Inv);
        let end = later.next().map_or(NONE, |(i, _)| i);
        self.out.unmap_by_invalidation = false;
        for page in first..first + (1 << am) {
            let mut uses =
                self.window.next_uses(domain, page).filter(|(_, r)| r.kind == LogKind::Dma);
            match uses.next().filter(|(i, _)| *i < end) {
                Some((_, dma)) => self.out.foresee(rec.time, dma)?,
                None => self.out.infer_unmap(rec.time, domain, page, 1)?,
            }
        }
        Ok(())
    }

    /// A shadow operation that a VMM's log tells about.
    fn shadow(&mut self, rec: &LogRec) -> Result<()> {
        self.out.agree(rec.time, rec, false)?;
        let map = rec.flags != 0;
        let mut e = Event::new(if map { Kind::ShadowMap } else { Kind::ShadowUnmap });
        (e.addr, e.size, e.domain) = (rec.a, rec.c.wrapping_add(1), DomainId(rec.domain));
        (e.out, e.flags) = (rec.b, Flags(u32::from(rec.flags)));
        self.out.write(rec.time, e)
    }

    /// Writes ftrace record `index` as an event.
    pub(super) fn write_ft(&mut self, index: u64) -> Result<()> {
        let found = self.attribute(index);
        let Some(g) = &mut self.guest else { return Ok(()) };
        let time = g.log_time(index).or_else(|| self.window.front().map(|r| r.time)).unwrap_or(0);
        let Some(rec) = g.window.get_mut(index) else { return Ok(()) };
        if rec.done {
            return Ok(());
        }
        rec.done = true;
        let rec = *rec;
        g.last_written = g.last_written.max(Some(index));
        match rec.kind {
            FtKind::Submit => return Ok(()),
            FtKind::Marker => {
                self.counts.markers += 1;
                let text = g.window.text(index).to_owned();
                return self.out.marker(time, rec.cpu, &text);
            }
            FtKind::Map | FtKind::Unmap => {}
        }
        g.history.push(&rec, index, found);
        g.uses.wanted |= rec.kind == FtKind::Unmap && rec.peer == NONE;
        self.out.caching_mode = g.caching.on();
        let flags = self.count_change(found, rec.kind == FtKind::Map);
        let domain = found.domain.unwrap_or(u32::MAX);
        if rec.kind == FtKind::Map {
            let m = super::emit::Mapping { iova: rec.a, size: rec.size, out: rec.b };
            self.out.map(time, rec.cpu, domain, m, flags)
        } else {
            self.out.unmap(time, rec.cpu, domain, rec.a, rec.size, flags)
        }
    }

    /// Counts how a change's domain was found; gives the event's flags.
    fn count_change(&mut self, found: Found, map: bool) -> Flags {
        let c = &mut self.counts;
        c.table_changes += 1;
        c.contradictions += u64::from(found.contradicted);
        *match found.quality {
            Found::DMA => &mut c.by_dma,
            Found::INVALIDATION => &mut c.by_invalidation,
            Found::PAIRING => &mut c.by_pairing,
            Found::LIVENESS => &mut c.by_liveness,
            Found::ADJACENCY => &mut c.by_adjacency,
            _ => &mut c.without_domain,
        } += 1;
        let mut flags = Flags::default();
        if found.quality == Found::ADJACENCY {
            flags = flags.with(Flags::DOMAIN_INFERRED);
        }
        if map {
            flags = flags.with(Flags(u32::from(found.perm)));
            if found.notified {
                c.notified += 1;
                flags = flags.with(Flags::NOTIFIED);
            }
        }
        flags
    }

    /// What the ftrace recorded after the log's end.
    pub(super) fn rest_of_ftrace(&mut self) -> Result<()> {
        loop {
            let Some(g) = &mut self.guest else { return Ok(()) };
            let index = g.window.head();
            if index == g.window.end() {
                if g.window.len() == 0 && !g.reader.read(&mut g.window, &mut self.diag)? {
                    return Ok(());
                }
                g.feed();
                continue;
            }
            let known = g.log_time(index).is_some()
                || (!self.log.clock().timed() && g.pairing.matched() > 0);
            let rec = *g.window.get(index).expect("not empty");
            if rec.done || known {
                self.write_ft(index)?;
            } else if rec.kind != FtKind::Submit {
                self.counts.not_joined += 1;
            }
            if let Some(g) = &mut self.guest {
                g.window.pop();
            }
        }
    }
}

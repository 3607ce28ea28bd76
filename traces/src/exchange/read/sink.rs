//! What the readers of foreign formats write to: times in order, damage
//! counted, the maps added that a replay needs.

use std::fmt;
use std::path::{Path, PathBuf};

use ioasim_events::{Event, Kind};

use crate::Result;
use crate::exchange::dma_only::Mapper;
use crate::exchange::refuse;
use crate::generate::Control;
use crate::import::{EventSink, OUTLYING_NS};

/// Where an event stands in its file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// 1-based.
    Line(u64),
    /// 0-based.
    Record(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(n) => write!(f, "line {n}"),
            Place::Record(n) => write!(f, "record {n}"),
        }
    }
}

/// What an import writes to.
pub(super) struct Sink<'a, 'b, S> {
    out: S,
    pub path: PathBuf,
    control: &'a mut Control<'b>,
    pub mapper: Option<Mapper>,
    last_ns: u64,
    pub maps: u64,
    pub clamped: u64,
    pub outlying: u64,
    /// An event far ahead of the one before, until the next one shows whether
    /// its time is to be believed.
    held: Option<(Event, Option<String>, Place)>,
    pub records: u64,
    pub damaged: u64,
    max_errors: u64,
    pub first_damage: Option<String>,
}

impl<'a, 'b, S: EventSink> Sink<'a, 'b, S> {
    pub fn new(out: S, path: &Path, max_errors: u64, control: &'a mut Control<'b>) -> Self {
        Sink {
            out,
            path: path.to_owned(),
            control,
            mapper: None,
            last_ns: 0,
            maps: 0,
            clamped: 0,
            outlying: 0,
            held: None,
            records: 0,
            damaged: 0,
            max_errors,
            first_damage: None,
        }
    }

    /// Takes an event, unless it cannot be one.
    #[inline]
    pub fn event(&mut self, e: Event, text: Option<&str>, place: Place) -> Result<()> {
        if e.time_ns > i64::MAX as u64 || e.cpu as i16 as i32 != e.cpu {
            let why = "its time does not fit 63 bits, or its CPU 16";
            return self.damage(place, why);
        }
        if self.held.is_some() {
            self.release(Some(e.time_ns))?;
        }
        if e.time_ns.saturating_sub(self.last_ns) > OUTLYING_NS.unsigned_abs() {
            self.held = Some((e, text.map(str::to_owned), place));
            return Ok(());
        }
        self.write(e, text, place)
    }

    /// Writes the event that waits; `next` is the time behind it. One far ahead
    /// of both neighbours is a mistake, and must not raise those that follow.
    #[cold]
    fn release(&mut self, next: Option<u64>) -> Result<()> {
        let Some((mut e, text, place)) = self.held.take() else { return Ok(()) };
        if next.is_some_and(|next| e.time_ns.saturating_sub(next) > OUTLYING_NS.unsigned_abs()) {
            e.time_ns = self.last_ns;
            self.outlying += 1;
        }
        self.write(e, text.as_deref(), place)
    }

    /// The input has ended.
    pub fn finish(&mut self) -> Result<()> {
        self.release(None)
    }

    #[inline]
    fn write(&mut self, mut e: Event, text: Option<&str>, place: Place) -> Result<()> {
        if e.time_ns < self.last_ns {
            e.time_ns = self.last_ns;
            self.clamped += 1;
        }
        self.last_ns = e.time_ns;
        let out = &mut self.out;
        match (&mut self.mapper, text) {
            (Some(mapper), _) if e.kind == Kind::Dma => {
                if let Some(why) = mapper.refuses(&e) {
                    return self.damage(place, &why);
                }
                let maps = mapper.event(&e, &mut |e| out.push(e))?;
                let Some(maps) = maps else {
                    return Err(refuse(&self.path, format!("{place}: {}", Mapper::FULL)));
                };
                self.maps += maps;
                Ok(())
            }
            (_, Some(text)) if e.kind == Kind::Marker => out.push_marker(&e, text),
            _ => out.push(&e),
        }
    }

    /// One more record; `progress` is that of the input.
    #[inline]
    pub fn tick(&mut self, progress: impl FnOnce() -> (u64, u64)) -> Result<()> {
        self.records += 1;
        if self.records.is_multiple_of(65_536) {
            let (done, total) = progress();
            self.control.tick(&self.path, done, total.max(done))?;
        }
        Ok(())
    }

    /// Counts what cannot be read.
    #[cold]
    pub fn damage(&mut self, place: Place, why: &str) -> Result<()> {
        self.damaged += 1;
        let what = format!("{place}: {why}");
        if self.damaged > self.max_errors {
            let limit = format!("more than {} damaged; see --max-errors", self.max_errors);
            return Err(refuse(&self.path, format!("{what} ({limit})")));
        }
        self.first_damage.get_or_insert(what);
        Ok(())
    }
}

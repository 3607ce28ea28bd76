//! Several traces as one, in the order of their times.
//!
//! Memory: a few decoded chunks per input.

use std::path::Path;
use std::sync::Arc;

use ioasim_events::{Chunk, Event, Kind};

use super::names::Names;
use super::{refuse, source};
use crate::Result;
use crate::file::{ChunkStream, Markers, Meta, Summary, Synthetic, TraceReader, TraceWriter};
use crate::generate::Control;

/// How inputs become one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// ns added to each input's times; an input without one has 0.
    pub shifts_ns: Vec<u64>,
    /// Devices and domains keep their ids: the same id in two inputs is the
    /// same device. Otherwise every input has its own.
    pub keep_ids: bool,
}

/// One input being read.
struct Cursor {
    chunks: ChunkStream,
    chunk: Option<Arc<Chunk>>,
    at: usize,
    texts: Markers,
    text: Option<(u64, String)>,
    shift: u64,
}

impl Cursor {
    fn new(reader: &TraceReader, shift: u64) -> Result<Cursor> {
        let mut texts = reader.markers();
        let text = texts.next().transpose()?;
        let mut cursor = Cursor { chunks: reader.chunks(), chunk: None, at: 0, texts, text, shift };
        cursor.load()?;
        Ok(cursor)
    }

    /// Makes the next event current if there is one.
    fn load(&mut self) -> Result<()> {
        while self.chunk.as_ref().is_none_or(|c| self.at >= c.len()) {
            self.at = 0;
            match self.chunks.next().transpose()? {
                Some(chunk) => self.chunk = Some(chunk),
                None => {
                    self.chunk = None;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn time(&self) -> Option<u64> {
        let chunk = self.chunk.as_ref()?;
        Some((chunk.time_ns[self.at] as u64).saturating_add(self.shift))
    }

    fn take(&mut self) -> Result<Option<(Event, Option<String>)>> {
        let Some(chunk) = &self.chunk else { return Ok(None) };
        let number = chunk.first + self.at as u64;
        let mut e = chunk.event(self.at);
        e.time_ns = e.time_ns.saturating_add(self.shift);
        self.at += 1;
        let text = match &self.text {
            Some((at, _)) if *at == number => {
                let next = self.texts.next().transpose()?;
                std::mem::replace(&mut self.text, next).map(|t| t.1)
            }
            _ => None,
        };
        self.load()?;
        Ok(Some((e, text)))
    }
}

/// Merges `readers` into `output`. Events of equal times are in the order of
/// the inputs.
///
/// # Errors
/// The readers' and the writer's; [`Error::Import`](crate::Error::Import) if
/// the inputs cannot be one machine's or the run is interrupted.
pub fn merge(
    readers: &[TraceReader],
    output: &Path,
    how: &Merge,
    control: &mut Control<'_>,
) -> Result<Summary> {
    let Some(first) = readers.first() else {
        return Err(refuse(output, "there is no input"));
    };
    let parents = readers.iter().filter(|r| r.info().has_parent).count();
    if parents > 1 && !how.keep_ids {
        let why = "several inputs have a parent table of their own; keep one, or give --keep-ids if \
                   they are parts of one recording";
        return Err(refuse(first.path(), why));
    }
    let space = first.meta().output_space;
    if let Some(other) = readers.iter().find(|r| r.meta().output_space != space) {
        let why = "its outputs are in another address space than those of the first input";
        return Err(refuse(other.path(), why));
    }
    let total = readers.iter().map(|r| r.meta().totals.events).sum();
    let mut cursors: Vec<Cursor> = Vec::new();
    for (i, reader) in readers.iter().enumerate() {
        cursors.push(Cursor::new(reader, how.shifts_ns.get(i).copied().unwrap_or(0))?);
    }
    let mut writer = TraceWriter::create(output)?;
    let mut names = Names::default();
    let (mut done, mut zero) = (0, None);
    loop {
        let next = cursors.iter().enumerate().filter_map(|(i, c)| Some((c.time()?, i))).min();
        let Some((_, input)) = next else { break };
        let Some((mut e, text)) = cursors[input].take()? else { break };
        // The trace begins with its first event.
        e.time_ns -= *zero.get_or_insert(e.time_ns);
        if !how.keep_ids {
            names.rename(input as u32, &mut e);
        }
        match text {
            Some(text) if e.kind == Kind::Marker => writer.push_marker(&e, &text)?,
            _ => writer.push(&e)?,
        }
        done += 1;
        if done % 65_536 == 0 {
            control.tick(output, done, total)?;
        }
    }
    let caching = readers.iter().map(|r| r.meta().caching_mode);
    let same = caching.clone().all(|c| c == first.meta().caching_mode);
    let mut meta = Meta {
        tool: concat!("ioasim ", env!("CARGO_PKG_VERSION")).into(),
        created_by: "trace merge".into(),
        importer: "merge".into(),
        output_space: space,
        caching_mode: if same { first.meta().caching_mode } else { Default::default() },
        child_levels: readers.iter().map(|r| r.meta().child_levels).max().unwrap_or(0),
        ..Meta::default()
    };
    // Of a merge with a recording it is not true that nothing was recorded.
    let made_up = |r: &&TraceReader| r.meta().synthetic.iter().any(|s| s.guest);
    let all_made_up = readers.iter().all(|r| made_up(&r));
    for reader in readers {
        meta.sources.push(source(reader)?);
        let synthetic = reader.meta().synthetic.iter().cloned();
        meta.synthetic.extend(synthetic.map(|s| Synthetic { guest: s.guest && all_made_up, ..s }));
        for note in &reader.meta().notes {
            meta.notes.push(format!("{}: {note}", reader.path().display()));
        }
    }
    meta.notes.push(format!(
        "{} traces merged by time; the order between them is that of their clocks.",
        readers.len()
    ));
    writer.finish(meta)
}

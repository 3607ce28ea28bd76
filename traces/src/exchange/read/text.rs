//! Formats of lines.

use ioasim_events::Event;

use super::bytes::{ByteSource, Lines};
use super::sink::{Place, Sink};
use crate::exchange::csv::{self, Fields};
use crate::exchange::dma_only::Mapper;
use crate::exchange::{hypersio, json_lines, refuse};
use crate::file::{Meta, SCHEMA};
use crate::import::EventSink;
use crate::{Error, Result};

/// JSON lines.
pub(super) fn json<R: ByteSource, S: EventSink>(
    input: R,
    sink: &mut Sink<'_, '_, S>,
    meta: &mut Meta,
) -> Result<()> {
    let mut lines = Lines::new(input);
    let mut first = true;
    loop {
        let Some((number, line)) = lines.next()? else { return Ok(()) };
        let (place, line) = (Place::Line(number), line.trim_ascii_end());
        if line.is_empty() {
            continue;
        }
        if std::mem::take(&mut first)
            && let Ok(head) = serde_json::from_slice::<json_lines::Head>(line)
        {
            if head.schema != SCHEMA {
                return Err(Error::Schema {
                    path: sink.path.clone(),
                    found: head.schema.chars().take(60).collect(),
                    expected: SCHEMA,
                });
            }
            *meta = head.meta;
            continue;
        }
        match json_lines::plain(line) {
            Some((e, text)) => sink.event(e, text, place)?,
            None => {
                let row =
                    serde_json::from_slice::<json_lines::Row>(line).map_err(|e| e.to_string());
                match row.as_ref().map_err(String::clone).and_then(|r| r.event()) {
                    Ok((e, text)) => sink.event(e, text, place)?,
                    Err(why) => sink.damage(place, &why)?,
                }
            }
        }
        sink.tick(|| lines.input.progress())?;
    }
}

/// Longest row of several lines: texts of markers have 4 KiB at most. A quote
/// that does not end is damage to its line, not to all that follows.
const MAX_ROW: usize = 1 << 16;

/// Comma-separated values. A quoted field may hold ends of lines.
pub(super) fn table<R: ByteSource, S: EventSink>(
    input: R,
    sink: &mut Sink<'_, '_, S>,
    meta: &mut Meta,
    maps: bool,
) -> Result<()> {
    let mut lines = Lines::new(input);
    let mut fields = Fields::default();
    let mut columns: Option<csv::Columns> = None;
    let mut last = csv::LastDevice::default();
    while let Some((first, line)) = lines.next()? {
        let (place, length) = (Place::Line(first), line.len());
        if line.is_empty() || line == b"\r" {
            continue;
        }
        if let Some(e) = columns.as_ref().and_then(|c| c.plain(line, &mut last)) {
            sink.event(e, None, place)?;
            sink.tick(|| lines.input.progress())?;
            continue;
        }
        let mut whole = fields.begin(line);
        while !whole {
            let Some(more) = lines.grow(MAX_ROW)? else { break };
            whole = fields.go_on(more);
        }
        fields.end();
        match &columns {
            None => {
                let found = csv::Columns::of(fields.iter());
                let found = found.map_err(|why| refuse(&sink.path, why))?;
                if found.accesses_only && maps {
                    sink.mapper = Some(Mapper::default());
                }
                columns = Some(found);
                continue;
            }
            Some(_) if !whole => {
                lines.take_back(first, length);
                sink.damage(place, "a quoted field does not end")?;
            }
            Some(columns) => match columns.event(fields.iter()) {
                Ok(row) => {
                    if let Some(found) = row.meta
                        && sink.records == 0
                    {
                        *meta = found;
                    }
                    sink.event(row.event, row.text.as_deref(), place)?;
                }
                Err(why) => sink.damage(place, &why)?,
            },
        }
        sink.tick(|| lines.input.progress())?;
    }
    Ok(())
}

/// HyperSIO's log.
pub(super) fn hypersio<R: ByteSource, S: EventSink>(
    input: R,
    sink: &mut Sink<'_, '_, S>,
) -> Result<()> {
    let mut lines = Lines::new(input);
    let mut events = 0;
    while let Some((number, line)) = lines.next()? {
        let found = hypersio::line(line);
        let place = Place::Line(number);
        match found {
            Ok(None) => continue,
            Ok(Some(e)) => {
                // It has no clock: a microsecond from access to access.
                sink.event(Event { time_ns: events * 1000, ..e }, None, place)?;
                events += 1;
            }
            Err(why) => sink.damage(place, &why)?,
        }
        sink.tick(|| lines.input.progress())?;
    }
    Ok(())
}

//! Formats of records of one length.

use ioasim_events::Event;
use rustc_hash::FxHashMap;

use super::bytes::ByteSource;
use super::sink::{Place, Sink};
use crate::Result;
use crate::exchange::dma_only::Mapper;
use crate::exchange::{hypersio, oracle_general, refuse};
use crate::import::EventSink;

/// Objects that are numbered: a table of 2^22 slots, filled to 7/8.
const MAX_OBJECTS: usize = 7 << 19;
/// Objects from which on there is room for all, so that no two large tables
/// are needed at once.
const MANY_OBJECTS: usize = 7 << 16;

/// First page of numbered objects.
const FIRST_PAGE: u64 = 16;

/// The mapper for numbered objects.
pub(super) fn dense_mapper() -> Mapper {
    Mapper::of_numbered_pages(FIRST_PAGE)
}

/// Calls `f` with every record of `N` bytes, its number, and the progress.
fn records<const N: usize, R: ByteSource>(
    mut input: R,
    mut f: impl FnMut(&[u8; N], u64, (u64, u64)) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; N * 4096];
    let mut have = 0;
    let mut number = 0;
    loop {
        let n = match input.read(&mut buffer[have..]) {
            Ok(n) => n,
            Err(e) => return Err(input.error(e)),
        };
        have += n;
        let whole = have / N * N;
        let progress = input.progress();
        for record in buffer[..whole].as_chunks::<N>().0 {
            f(record, number, progress)?;
            number += 1;
        }
        buffer.copy_within(whole..have, 0);
        have -= whole;
        if n == 0 && have > 0 {
            let why = format!("it ends within record {number} of {N} bytes; copy it again");
            return Err(refuse(input.path(), why));
        }
        if n == 0 {
            return Ok(());
        }
    }
}

/// libCacheSim's oracleGeneral.
pub(super) fn oracle<R: ByteSource, S: EventSink>(
    input: R,
    sink: &mut Sink<'_, '_, S>,
    dense: bool,
) -> Result<()> {
    let mut numbers: FxHashMap<u64, u64> = FxHashMap::default();
    records(input, |bytes, number, progress| {
        let mut record = oracle_general::Record::decode(bytes);
        if dense {
            let next = numbers.len() as u64;
            let page = match numbers.get(&record.object) {
                Some(page) => *page,
                None if numbers.len() == MAX_OBJECTS => {
                    let why = format!(
                        "record {number}: more than {MAX_OBJECTS} objects are to be numbered; import a part of the trace"
                    );
                    return Err(refuse(&sink.path, why));
                }
                None => {
                    if numbers.len() == MANY_OBJECTS {
                        numbers.reserve(MAX_OBJECTS - MANY_OBJECTS);
                    }
                    numbers.insert(record.object, next);
                    next
                }
            };
            record.object = 1 << oracle_general::PAGE_BITS | (page + FIRST_PAGE);
        } else if record.object >> (oracle_general::PAGE_BITS + 18) != 0 {
            let why = format!(
                "object {:#x} of record {number} is no page number; give --dense-ids to number \
                 objects by first use",
                record.object
            );
            return Err(refuse(&sink.path, why));
        }
        sink.event(record.event(), None, Place::Record(number))?;
        sink.tick(|| progress)
    })
}

/// HyperSIO's binary.
pub(super) fn hypersio<R: ByteSource, S: EventSink>(
    input: R,
    sink: &mut Sink<'_, '_, S>,
) -> Result<()> {
    records(input, |bytes, number, progress| {
        let place = Place::Record(number);
        match hypersio::record(bytes) {
            // It has no clock: a microsecond from record to record.
            Ok(e) => sink.event(Event { time_ns: number * 1000, ..e }, None, place)?,
            Err(why) => sink.damage(place, &why)?,
        }
        sink.tick(|| progress)
    })
}

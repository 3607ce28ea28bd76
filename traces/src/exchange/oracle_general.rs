//! libCacheSim's `oracleGeneral`: records of 24 bytes, little-endian.
//!
//! Time in seconds (u32), object (u64), bytes (u32), and the number, from 0, of
//! the next request of the same object (i64, -1 = none), which Belady's policy
//! needs (R: libCacheSim, FAQ.md and traceReader/customizedReader/oracle).
//! An object here is a page of a domain: `domain << 45 | page number`.

use ioasim_events::{DomainId, Event, Flags, Kind, Requester};
use rustc_hash::FxHashMap;

use super::output::Output;
use super::{Encoder, refuse};
use crate::Result;

/// Bytes of a record.
pub const RECORD: usize = 24;
/// Bits of a page number: 57 bits of address.
pub const PAGE_BITS: u32 = 45;
/// Records that wait in memory for their next access.
const WAITING: usize = 1 << 16;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Seconds.
    pub time_s: u32,
    /// The object.
    pub object: u64,
    /// Bytes.
    pub bytes: u32,
    /// Number of the object's next request, -1 if there is none.
    pub next: i64,
}

impl Record {
    /// As it stands in a file.
    pub fn encode(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..4].copy_from_slice(&self.time_s.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.object.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[16..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }

    /// From a file.
    pub fn decode(bytes: &[u8; RECORD]) -> Record {
        let (four, eight) = (
            |at: usize| {
                u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            },
            |at: usize| {
                let mut b = [0; 8];
                b.copy_from_slice(&bytes[at..at + 8]);
                u64::from_le_bytes(b)
            },
        );
        Record { time_s: four(0), object: eight(4), bytes: four(12), next: eight(16) as i64 }
    }

    /// The access that it stands for.
    pub fn event(&self) -> Event {
        Event {
            time_ns: u64::from(self.time_s) * 1_000_000_000,
            flags: Flags::default(),
            domain: DomainId((self.object >> PAGE_BITS) as u32),
            requester: Requester(8),
            addr: (self.object & ((1 << PAGE_BITS) - 1)) << 12,
            size: u64::from(self.bytes),
            ..Event::new(Kind::Dma)
        }
    }
}

/// Writes them. The number of the next request is written when it comes: into
/// the records in memory, or behind them in the file. Memory grows with the
/// distinct pages.
#[derive(Debug, Default)]
pub(super) struct Writer {
    waiting: Vec<Record>,
    /// Records before those.
    written: u64,
    patches: Vec<(u64, [u8; 8])>,
    last: FxHashMap<u64, u64>,
}

impl Writer {
    fn record(&mut self, record: Record, out: &mut Output) -> Result<()> {
        let number = self.written + self.waiting.len() as u64;
        if let Some(previous) = self.last.insert(record.object, number) {
            match previous.checked_sub(self.written) {
                Some(i) => self.waiting[i as usize].next = number as i64,
                None => {
                    let at = previous * RECORD as u64 + 16;
                    self.patches.push((at, (number as i64).to_le_bytes()));
                }
            }
        }
        self.waiting.push(record);
        if self.waiting.len() == WAITING {
            self.flush(WAITING / 2, out)?;
        }
        Ok(())
    }

    fn flush(&mut self, records: usize, out: &mut Output) -> Result<()> {
        for record in self.waiting.drain(..records) {
            out.put(&record.encode())?;
        }
        self.written += records as u64;
        if !self.patches.is_empty() {
            self.patches.sort_unstable();
            out.patch(&self.patches)?;
            self.patches.clear();
        }
        Ok(())
    }
}

impl Encoder for Writer {
    fn event(&mut self, e: &Event, _text: Option<&str>, out: &mut Output) -> Result<()> {
        if e.kind != Kind::Dma {
            return Ok(());
        }
        let domain = if e.domain == DomainId::NONE { 0 } else { u64::from(e.domain.0) };
        if domain >= 1 << (64 - PAGE_BITS) || e.addr >> 12 >= 1 << PAGE_BITS {
            let why = format!(
                "the access to {:#x} in domain {domain} has no object id (19 bits of domain, 57 of \
                 address); export a single domain with --domain",
                e.addr
            );
            return Err(refuse(out.path(), why));
        }
        let end = e.addr.saturating_add(e.size.max(1));
        let mut at = e.addr;
        while at < end {
            let next = ((at >> 12) + 1) << 12;
            let record = Record {
                time_s: u32::try_from(e.time_ns / 1_000_000_000).unwrap_or(u32::MAX),
                object: domain << PAGE_BITS | at >> 12,
                // A cache of pages counts pages.
                bytes: 4096,
                next: -1,
            };
            self.record(record, out)?;
            at = next;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Output) -> Result<Option<u64>> {
        self.flush(self.waiting.len(), out)?;
        Ok(Some(self.written))
    }
}

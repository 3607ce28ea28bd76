//! A trace as many tenants: each runs it, at its own time, with devices,
//! domains and memory of its own.
//!
//! The events are laid down decoded in a temporary file beside the output (72
//! bytes each), so that every tenant can read at its own place; memory is a few
//! KiB per tenant.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use ioasim_events::{DomainId, Event, Flags, Kind, OutputSpace, Pasid, Requester};
use rand::SeedableRng;
use rand_pcg::Pcg64;

use super::names::Names;
use super::{derived, refuse};
use crate::file::{Summary, Synthetic, TraceReader, TraceWriter};
use crate::generate::{Control, OptionError};
use crate::{Error, Result};

/// Bytes of a decoded event.
const RECORD: usize = 72;
/// Events that a tenant has in memory.
const AHEAD: usize = 64;

/// How a trace is replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicate {
    /// Tenants.
    pub tenants: u64,
    /// Tenants begin within so many ns, each at a time of its own; the trace's
    /// length if absent.
    pub spread_ns: Option<u64>,
    /// Tenants share memory: the same guest addresses. Otherwise each has its
    /// own.
    pub share_memory: bool,
    /// Events after which the trace ends.
    pub max_events: Option<u64>,
    /// Seed of the times.
    pub seed: u64,
}

impl Replicate {
    /// Checks limits.
    ///
    /// # Errors
    /// [`OptionError`], one sentence that names the option and its limit.
    pub fn check(&self) -> Result<(), OptionError> {
        if !(1..=1 << 17).contains(&self.tenants) {
            return Err(OptionError::Limit {
                option: "--tenants",
                value: self.tenants.to_string(),
                limit: "1 to 131072".into(),
            });
        }
        Ok(())
    }
}

fn encode(e: &Event) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    let words = [e.time_ns, e.addr, e.size, e.out, e.aux];
    for (i, word) in words.into_iter().enumerate() {
        bytes[i * 8..][..8].copy_from_slice(&word.to_le_bytes());
    }
    let halves = [e.kind as u32, e.flags.0, e.cpu as u32, e.domain.0, e.requester.0, e.pasid.0];
    for (i, half) in halves.into_iter().enumerate() {
        bytes[40 + i * 4..][..4].copy_from_slice(&half.to_le_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Event {
    let word =
        |i: usize| bytes[i * 8..][..8].iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    let half =
        |i: usize| bytes[40 + i * 4..][..4].iter().rev().fold(0u32, |v, b| v << 8 | u32::from(*b));
    Event {
        time_ns: word(0),
        kind: Kind::from_code(half(0) as i32).unwrap_or(Kind::Marker),
        flags: Flags(half(1)),
        cpu: half(2) as i32,
        domain: DomainId(half(3)),
        requester: Requester(half(4)),
        pasid: Pasid(half(5)),
        addr: word(1),
        size: word(2),
        out: word(3),
        aux: word(4),
    }
}

/// One tenant's place.
#[derive(Debug, Default)]
struct Tenant {
    start_ns: u64,
    /// Number of the next event to read.
    next: u64,
    ahead: Vec<Event>,
    at: usize,
}

/// Writes the trace of all tenants to `output`.
///
/// # Errors
/// The reader's and the writer's; [`Error::Options`] if an option is out of its
/// limits; [`Error::Import`] if the tenants' memory does not fit 64 bits or the
/// run is interrupted.
pub fn replicate(
    reader: &TraceReader,
    output: &Path,
    how: &Replicate,
    control: &mut Control<'_>,
) -> Result<Summary> {
    how.check()?;
    let events = reader.meta().totals.events;
    let all = events * how.tenants;
    let limit = how.max_events.unwrap_or(all).min(all);
    let total = events + limit;
    let fail = |e| Error::io("write a temporary file beside", output, e);
    let target = ioasim_output::file(output).map_err(|e| Error::io("create", output, e))?;
    let directory = target.parent().filter(|p| !p.as_os_str().is_empty());
    let spool = tempfile::tempfile_in(directory.unwrap_or(Path::new("."))).map_err(fail)?;
    let mut spool = BufWriter::with_capacity(1 << 20, spool);
    let (mut done, mut top) = (0, 0u64);
    let hpa = reader.meta().output_space == OutputSpace::Hpa;
    reader.visit(&mut |e, _| {
        done += 1;
        if done % 65_536 == 0 {
            control.tick(output, done, total)?;
        }
        let ends = match e.kind {
            Kind::Map | Kind::Dma | Kind::ShadowMap => [e.out, e.aux],
            Kind::ParentMap | Kind::ParentUnmap => [e.addr, e.out],
            _ => [0, 0],
        };
        // A parent unmap of everything is no memory.
        let size = if e.size > 1 << 46 { 0 } else { e.size };
        top = ends.into_iter().fold(top, |t, a| t.max(a.saturating_add(size)));
        spool.write_all(&encode(e)).map_err(fail)
    })?;
    let mut spool = spool.into_inner().map_err(|e| fail(e.into_error()))?;
    // A tenant's memory, aligned so that huge pages stay huge.
    let memory = if how.share_memory { 0 } else { top.next_multiple_of(1 << 30) };
    if memory.checked_mul(how.tenants).is_none_or(|m| m > 1 << 57) {
        let why = format!(
            "{} tenants with {memory} bytes of addresses each need more than 57 bits; give \
             --share-memory or fewer tenants",
            how.tenants
        );
        return Err(refuse(reader.path(), why));
    }
    let spread = how.spread_ns.unwrap_or(reader.meta().totals.end_ns);
    let mut rng = Pcg64::seed_from_u64(how.seed);
    let mut tenants: Vec<Tenant> = (0..how.tenants)
        .map(|_| Tenant {
            start_ns: crate::generate::below(&mut rng, spread.saturating_add(1)),
            ..Tenant::default()
        })
        .collect();
    let mut writer = TraceWriter::create(output)?;
    let mut names = Names::default();
    let mut next = BinaryHeap::new();
    let mut buffer = vec![0; AHEAD * RECORD];
    let mut fill = |tenant: &mut Tenant| -> Result<Option<u64>> {
        if tenant.at == tenant.ahead.len() {
            let n = (AHEAD as u64).min(events - tenant.next) as usize;
            spool.seek(SeekFrom::Start(tenant.next * RECORD as u64)).map_err(fail)?;
            spool.read_exact(&mut buffer[..n * RECORD]).map_err(fail)?;
            tenant.ahead.clear();
            tenant.ahead.extend(buffer[..n * RECORD].chunks_exact(RECORD).map(decode));
            (tenant.next, tenant.at) = (tenant.next + n as u64, 0);
        }
        Ok(tenant.ahead.get(tenant.at).map(|e| e.time_ns + tenant.start_ns))
    };
    for (i, tenant) in tenants.iter_mut().enumerate() {
        if let Some(time) = fill(tenant)? {
            next.push(Reverse((time, i)));
        }
    }
    let (mut zero, mut wrote) = (None, 0);
    while let Some(Reverse((time, i))) = next.pop() {
        if wrote == limit {
            break;
        }
        let tenant = &mut tenants[i];
        let mut e = tenant.ahead[tenant.at];
        tenant.at += 1;
        if let Some(time) = fill(tenant)? {
            next.push(Reverse((time, i)));
        }
        e.time_ns = time - *zero.get_or_insert(time);
        shift(&mut e, memory * i as u64, hpa);
        names.rename(i as u32, &mut e);
        // Markers speak of one tenant; their texts are left out.
        writer.push(&e)?;
        wrote += 1;
        done += 1;
        if done % 65_536 == 0 {
            control.tick(output, done, total)?;
        }
    }
    let (devices, domains) = names.counts();
    let note = format!(
        "REPLICATED: {} tenants, {devices} devices and {domains} domains in all, made of one trace; \
         recorded hits and misses are those of a single tenant.",
        how.tenants
    );
    let mut meta = derived(reader, "replicate", note)?;
    meta.synthetic.push(Synthetic {
        workload: "replicate".into(),
        seed: how.seed,
        guest: false,
        parent_layout: None,
        parameters: [
            ("tenants".to_string(), how.tenants.to_string()),
            ("spread_ns".into(), spread.to_string()),
            ("memory_bytes_per_tenant".into(), memory.to_string()),
        ]
        .into(),
    });
    writer.finish(meta)
}

/// Moves an event's memory (guest's and host's addresses) by `by`.
fn shift(e: &mut Event, by: u64, _hpa: bool) {
    match e.kind {
        Kind::Map => e.out += by,
        Kind::Dma => {
            if e.flags.has(Flags::OUT_KNOWN) {
                e.out += by;
            }
            if e.domain == DomainId::PARENT {
                e.addr += by;
            }
        }
        Kind::ShadowMap => {
            e.out += by;
            if e.aux != 0 {
                e.aux += by;
            }
        }
        Kind::ParentMap => {
            e.addr += by;
            e.out += by;
        }
        Kind::ParentUnmap => e.addr = e.addr.saturating_add(by),
        _ => {}
    }
    // Labels are those of one tenant alone.
    e.flags = Flags(e.flags.0 & !(Flags::LABEL_KNOWN.0 | Flags::HIT.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_keep_every_column() {
        let e = Event {
            time_ns: u64::MAX / 3,
            kind: Kind::HostInvalidate,
            flags: Flags(0x7001),
            cpu: -1,
            domain: DomainId::PARENT,
            requester: Requester::NONE,
            pasid: Pasid(0xf_ffff),
            addr: 1 << 63,
            size: u64::MAX,
            out: 0x1234_5678_9abc_def0,
            aux: 7,
        };
        assert_eq!(decode(&encode(&e)), e);
    }
}

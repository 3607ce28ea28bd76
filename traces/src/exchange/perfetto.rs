//! Perfetto's timeline of a recording.
//!
//! Devices are threads of one process with their accesses, CPUs are threads of
//! another with maps, unmaps and invalidations; a counter shows the pages that
//! each domain has mapped.

use std::collections::{BTreeMap, HashSet};

use ioasim_events::{Event, Flags, Kind, Requester, Scope};

use super::Encoder;
use super::output::Output;
use crate::Result;
use crate::file::Meta;
use crate::perfetto::{Name, Packets, TrackKind, Type, Value};

/// Names that are written once.
const NAMES: [&str; 18] = [
    "dma",
    "dma hit",
    "dma miss",
    "dma fault",
    "map",
    "unmap",
    "invalidate page",
    "invalidate domain",
    "invalidate global",
    "invalidate context",
    "reset",
    "parent map",
    "parent unmap",
    "attach",
    "detach",
    "shadow map",
    "shadow unmap",
    "host invalidate",
];
/// Names of the values of an event, likewise.
const VALUES: [&str; 5] = ["domain", "addr", "size", "out", "pasid"];

/// Numbers of tracks: what the number says, and its kind above.
const DEVICES: u64 = 1 << 40;
const CPUS: u64 = 2 << 40;
const DOMAINS: u64 = 3 << 40;
const MARKERS: u64 = 4 << 40;

/// Writes them.
#[derive(Debug)]
pub(super) struct Writer {
    note: String,
    tracks: HashSet<u64>,
    /// Pages mapped, of each domain.
    mapped: BTreeMap<u32, i64>,
    packets: Packets,
}

impl Writer {
    pub fn new(meta: &Meta) -> Writer {
        let made_up = !meta.synthetic.is_empty();
        // Who looks at a picture must know what it shows.
        let note = if made_up { "made up or overlaid" } else { "recorded order, recorded clock" };
        Writer {
            note: note.into(),
            tracks: HashSet::new(),
            mapped: BTreeMap::new(),
            packets: Packets::default(),
        }
    }

    fn send(&mut self, out: &mut Output) -> Result<()> {
        out.put(self.packets.bytes())?;
        self.packets.clear();
        Ok(())
    }

    /// Describes a track at its first use.
    fn track(&mut self, track: u64, parent: u64, name: &str) {
        if !self.tracks.insert(track) {
            return;
        }
        let kind = match track {
            _ if parent == 0 => TrackKind::Process(track >> 40),
            _ if track & (7 << 40) == DOMAINS => TrackKind::Counter("pages"),
            _ => TrackKind::Plain,
        };
        self.packets.track(track, parent, name, kind, track & ((1 << 31) - 1));
    }

    /// Pages mapped in the event's domain, after it.
    fn count(&mut self, e: &Event) {
        let pages = (e.size >> 12) as i64;
        let mapped = self.mapped.entry(e.domain.0).or_default();
        *mapped = match e.kind {
            Kind::Map => mapped.saturating_add(pages),
            // An unmap may cover what is not mapped.
            _ => (*mapped - pages.min(*mapped)).max(0),
        };
        let mapped = *mapped;
        let track = DOMAINS + 1 + u64::from(e.domain.0);
        let name = format!("domain {}: pages mapped", e.domain.0 as i32);
        self.track(DOMAINS, 0, "domains");
        self.track(track, DOMAINS, &name);
        self.packets.event(Type::Counter, track);
        self.packets.counter(mapped);
        self.packets.end_event(e.time_ns);
    }
}

/// The place of an event's name.
fn name(e: &Event) -> usize {
    let plain = e.kind.name().replace('_', " ");
    let at = match (e.kind, e.flags.scope()) {
        (Kind::Dma, _) if e.flags.has(Flags::FAULT) => "dma fault",
        (Kind::Dma, _) if e.flags.has(Flags::LABEL_KNOWN.with(Flags::HIT)) => "dma hit",
        (Kind::Dma, _) if e.flags.has(Flags::LABEL_KNOWN) => "dma miss",
        (Kind::Invalidate, Some(Scope::Domain)) => "invalidate domain",
        (Kind::Invalidate, Some(Scope::Global)) => "invalidate global",
        (Kind::Invalidate, Some(Scope::Context)) => "invalidate context",
        (Kind::Invalidate, Some(Scope::Reset)) => "reset",
        (Kind::Invalidate, _) => "invalidate page",
        _ => &plain,
    };
    NAMES.iter().position(|n| *n == at).unwrap_or(0)
}

impl Encoder for Writer {
    fn begin(&mut self, out: &mut Output) -> Result<()> {
        self.packets.begin(&NAMES, &VALUES);
        self.send(out)
    }

    fn event(&mut self, e: &Event, label: Option<&str>, out: &mut Output) -> Result<()> {
        let (parent, track, called) = if e.kind == Kind::Marker {
            (MARKERS, MARKERS + 1, "markers".to_string())
        } else if e.requester != Requester::NONE {
            let track = DEVICES + 1 + u64::from(e.requester.0);
            (DEVICES, track, format!("device {}", e.requester))
        } else {
            // CPU -1 comes first.
            let track = CPUS + 1 + (e.cpu + 1).max(0) as u64;
            let called = if e.cpu < 0 { "no CPU".into() } else { format!("CPU {}", e.cpu) };
            (CPUS, track, called)
        };
        let group = match parent {
            DEVICES => format!("devices ({})", self.note),
            CPUS => format!("guest's CPUs ({})", self.note),
            _ => "markers".into(),
        };
        self.track(parent, 0, &group);
        self.track(track, parent, &called);
        let p = &mut self.packets;
        p.event(Type::Instant, track);
        p.name(match label {
            Some(label) => Name::Text(label),
            None if e.kind == Kind::Marker => Name::Text("marker"),
            None => Name::Known(name(e)),
        });
        if e.kind != Kind::Marker {
            if e.domain != ioasim_events::DomainId::NONE {
                p.value(0, Value::Number(u64::from(e.domain.0)));
            }
            p.value(1, Value::Address(e.addr));
            p.value(2, Value::Number(e.size));
            if e.out != 0 {
                p.value(3, Value::Address(e.out));
            }
            if e.pasid != ioasim_events::Pasid::NONE {
                p.value(4, Value::Number(u64::from(e.pasid.0)));
            }
        }
        p.end_event(e.time_ns);
        if matches!(e.kind, Kind::Map | Kind::Unmap) {
            self.count(e);
        }
        self.send(out)
    }
}

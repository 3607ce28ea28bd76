//! Perfetto's timeline: protocol buffers with `TrackEvent`s.
//!
//! Devices are threads of one process with their accesses, CPUs are threads of
//! another with maps, unmaps and invalidations; a counter shows the pages that
//! each domain has mapped. Field numbers are those of Perfetto's
//! protos/perfetto/trace (R: trace_packet.proto, track_event.proto,
//! track_descriptor.proto, interned_data.proto, debug_annotation.proto).

use std::collections::BTreeMap;

use ioasim_events::{Event, Flags, Kind, Requester, Scope};

use super::Encoder;
use super::output::Output;
use crate::Result;
use crate::file::Meta;

/// Fields of a `TracePacket`.
mod packet {
    pub const TIMESTAMP: u32 = 8;
    pub const SEQUENCE: u32 = 10;
    pub const TRACK_EVENT: u32 = 11;
    pub const INTERNED: u32 = 12;
    pub const SEQUENCE_FLAGS: u32 = 13;
    pub const DESCRIPTOR: u32 = 60;
}

/// Fields of a `TrackEvent`.
mod track_event {
    pub const ANNOTATION: u32 = 4;
    pub const TYPE: u32 = 9;
    pub const NAME_IID: u32 = 10;
    pub const TRACK: u32 = 11;
    pub const NAME: u32 = 23;
    pub const COUNTER: u32 = 30;
    pub const INSTANT: u64 = 3;
    pub const COUNTER_TYPE: u64 = 4;
}

/// Names that are written once; the number is the place plus one.
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
    tracks: std::collections::HashSet<u64>,
    /// Pages mapped, of each domain.
    mapped: BTreeMap<u32, i64>,
    body: Vec<u8>,
    packet: Vec<u8>,
    annotation: Vec<u8>,
}

impl Writer {
    pub fn new(meta: &Meta) -> Writer {
        let made_up = !meta.synthetic.is_empty();
        // Who looks at a picture must know what it shows.
        let note = if made_up { "made up or overlaid" } else { "recorded order, recorded clock" };
        Writer {
            note: note.into(),
            tracks: Default::default(),
            mapped: BTreeMap::new(),
            body: Vec::new(),
            packet: Vec::new(),
            annotation: Vec::new(),
        }
    }

    /// Writes `self.packet` as the next packet of the trace.
    fn send(&mut self, out: &mut Output) -> Result<()> {
        let mut head = Vec::with_capacity(12);
        tag(&mut head, 1, 2);
        varint(&mut head, self.packet.len() as u64);
        out.put(&head)?;
        out.put(&self.packet)
    }

    /// Describes a track at its first use.
    fn track(&mut self, track: u64, parent: u64, name: &str, out: &mut Output) -> Result<()> {
        if !self.tracks.insert(track) {
            return Ok(());
        }
        let mut descriptor = Vec::new();
        int(&mut descriptor, 1, track);
        text(&mut descriptor, 2, name);
        match track {
            // A process of its own.
            _ if parent == 0 => {
                let mut process = Vec::new();
                int(&mut process, 1, track >> 40);
                text(&mut process, 6, name);
                bytes(&mut descriptor, 3, &process);
            }
            _ if track & (7 << 40) == DOMAINS => {
                int(&mut descriptor, 5, parent);
                bytes(&mut descriptor, 8, &[]);
            }
            _ => int(&mut descriptor, 5, parent),
        }
        self.packet.clear();
        int(&mut self.packet, packet::SEQUENCE, 1);
        bytes(&mut self.packet, packet::DESCRIPTOR, &descriptor);
        self.send(out)
    }

    fn value(&mut self, name: u64, value: u64, is_address: bool) {
        self.annotation.clear();
        // DebugAnnotation: 1 name_iid, 3 uint_value, 7 pointer_value.
        int(&mut self.annotation, 1, name);
        int(&mut self.annotation, if is_address { 7 } else { 3 }, value);
        bytes(&mut self.body, track_event::ANNOTATION, &self.annotation);
    }

    fn finish(&mut self, time_ns: u64, out: &mut Output) -> Result<()> {
        self.packet.clear();
        int(&mut self.packet, packet::TIMESTAMP, time_ns);
        int(&mut self.packet, packet::SEQUENCE, 1);
        // Interned names are needed.
        int(&mut self.packet, packet::SEQUENCE_FLAGS, 2);
        bytes(&mut self.packet, packet::TRACK_EVENT, &self.body);
        self.send(out)
    }

    /// Pages mapped in the event's domain, after it.
    fn count(&mut self, e: &Event, out: &mut Output) -> Result<()> {
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
        self.track(DOMAINS, 0, "domains", out)?;
        self.track(track, DOMAINS, &name, out)?;
        self.body.clear();
        int(&mut self.body, track_event::TYPE, track_event::COUNTER_TYPE);
        int(&mut self.body, track_event::TRACK, track);
        int(&mut self.body, track_event::COUNTER, mapped as u64);
        self.finish(e.time_ns, out)
    }
}

/// The number of an event's name.
fn name(e: &Event) -> u64 {
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
    NAMES.iter().position(|n| *n == at).map_or(1, |i| i as u64 + 1)
}

impl Encoder for Writer {
    fn begin(&mut self, out: &mut Output) -> Result<()> {
        let mut interned = Vec::new();
        // InternedData: 2 event_names, 3 debug_annotation_names; both 1 iid, 2 name.
        for (field, names) in [(2, &NAMES[..]), (3, &VALUES[..])] {
            for (i, name) in names.iter().enumerate() {
                let mut entry = Vec::new();
                int(&mut entry, 1, i as u64 + 1);
                text(&mut entry, 2, name);
                bytes(&mut interned, field, &entry);
            }
        }
        self.packet.clear();
        int(&mut self.packet, packet::SEQUENCE, 1);
        bytes(&mut self.packet, packet::INTERNED, &interned);
        // State cleared: names begin here.
        int(&mut self.packet, packet::SEQUENCE_FLAGS, 1);
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
        self.track(parent, 0, &group, out)?;
        self.track(track, parent, &called, out)?;
        self.body.clear();
        int(&mut self.body, track_event::TYPE, track_event::INSTANT);
        int(&mut self.body, track_event::TRACK, track);
        match label {
            Some(label) => text(&mut self.body, track_event::NAME, label),
            None if e.kind == Kind::Marker => text(&mut self.body, track_event::NAME, "marker"),
            None => int(&mut self.body, track_event::NAME_IID, name(e)),
        }
        if e.kind != Kind::Marker {
            if e.domain != ioasim_events::DomainId::NONE {
                self.value(1, u64::from(e.domain.0), false);
            }
            self.value(2, e.addr, true);
            self.value(3, e.size, false);
            if e.out != 0 {
                self.value(4, e.out, true);
            }
            if e.pasid != ioasim_events::Pasid::NONE {
                self.value(5, u64::from(e.pasid.0), false);
            }
        }
        self.finish(e.time_ns, out)?;
        if matches!(e.kind, Kind::Map | Kind::Unmap) {
            self.count(e, out)?;
        }
        Ok(())
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, field: u32, wire: u32) {
    varint(out, u64::from(field << 3 | wire));
}

fn int(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, 0);
    varint(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    tag(out, field, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn text(out: &mut Vec<u8>, field: u32, value: &str) {
    bytes(out, field, value.as_bytes());
}

//! Perfetto's `TrackEvent` protocol buffers, packet by packet.
//!
//! The field numbers are those of Perfetto's protos/perfetto/trace (R:
//! trace_packet.proto, track_event/{track_event, track_descriptor,
//! counter_descriptor, debug_annotation, process_descriptor}.proto,
//! interned_data.proto). Timestamps are nanoseconds. Tests read the packets
//! back; `tests/perfetto_check.py` does so with Perfetto's own definitions.

/// Fields of a `TracePacket`.
mod packet {
    pub const TIMESTAMP: u32 = 8;
    pub const SEQUENCE: u32 = 10;
    pub const TRACK_EVENT: u32 = 11;
    pub const INTERNED: u32 = 12;
    pub const SEQUENCE_FLAGS: u32 = 13;
    pub const DESCRIPTOR: u32 = 60;
}

/// Fields of a `TrackDescriptor`.
mod descriptor {
    pub const UUID: u32 = 1;
    pub const NAME: u32 = 2;
    pub const PROCESS: u32 = 3;
    pub const PARENT: u32 = 5;
    pub const COUNTER: u32 = 8;
    pub const CHILD_ORDERING: u32 = 11;
    pub const RANK: u32 = 12;
    /// Children in the order of their ranks.
    pub const EXPLICIT: u64 = 3;
}

/// Fields of a `TrackEvent`.
mod event {
    pub const ANNOTATION: u32 = 4;
    pub const TYPE: u32 = 9;
    pub const NAME_IID: u32 = 10;
    pub const TRACK: u32 = 11;
    pub const NAME: u32 = 23;
    pub const COUNTER: u32 = 30;
    pub const DOUBLE_COUNTER: u32 = 44;
    pub const FLOW: u32 = 47;
    pub const TERMINATING_FLOW: u32 = 48;
}

/// The kinds of `TrackEvent`s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A slice begins.
    Begin = 1,
    /// The slice that began last on the track ends.
    End = 2,
    /// A point in time.
    Instant = 3,
    /// A counter's new value.
    Counter = 4,
}

/// What a track is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackKind {
    /// A group of its own, shown as a process of this number.
    Process(u64),
    /// Slices, or a group of tracks.
    Plain,
    /// A counter of this unit (empty = plain number).
    Counter(&'static str),
}

/// A value beside an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A number.
    Number(u64),
    /// Shown in hexadecimal.
    Address(u64),
    /// A text.
    Text(&'a str),
}

/// The name of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// Place in the names given to [`Packets::begin`].
    Known(usize),
    /// Written out.
    Text(&'a str),
}

/// Encodes packets into memory, from where the caller takes them.
#[derive(Debug, Default)]
pub struct Packets {
    out: Vec<u8>,
    /// The message inside the packet.
    body: Vec<u8>,
    packet: Vec<u8>,
    inner: Vec<u8>,
}

impl Packets {
    /// The packets since they were taken; the caller clears them with
    /// [`Packets::clear`].
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// The packets were taken.
    pub fn clear(&mut self) {
        self.out.clear();
    }

    /// The first packet: names of events and of values, which later packets
    /// give by their place.
    pub fn begin(&mut self, events: &[&str], values: &[&str]) {
        self.body.clear();
        // InternedData: 2 event_names, 3 debug_annotation_names; both 1 iid, 2 name.
        for (field, names) in [(2, events), (3, values)] {
            for (i, name) in names.iter().enumerate() {
                self.inner.clear();
                int(&mut self.inner, 1, i as u64 + 1);
                bytes(&mut self.inner, 2, name.as_bytes());
                bytes(&mut self.body, field, &self.inner);
            }
        }
        // Incremental state cleared: names begin here.
        self.send(None, Some(1), packet::INTERNED);
    }

    /// Describes a track; once, before its first event. `parent` 0: none.
    /// Siblings are shown in the order of `rank`.
    pub fn track(&mut self, track: u64, parent: u64, name: &str, kind: TrackKind, rank: u64) {
        self.body.clear();
        int(&mut self.body, descriptor::UUID, track);
        bytes(&mut self.body, descriptor::NAME, name.as_bytes());
        if parent != 0 {
            int(&mut self.body, descriptor::PARENT, parent);
        }
        self.inner.clear();
        match kind {
            TrackKind::Process(number) => {
                // ProcessDescriptor: 1 pid, 6 process_name.
                int(&mut self.inner, 1, number);
                bytes(&mut self.inner, 6, name.as_bytes());
                bytes(&mut self.body, descriptor::PROCESS, &self.inner);
                int(&mut self.body, descriptor::CHILD_ORDERING, descriptor::EXPLICIT);
            }
            TrackKind::Plain => {
                int(&mut self.body, descriptor::CHILD_ORDERING, descriptor::EXPLICIT)
            }
            TrackKind::Counter(unit) => {
                // CounterDescriptor: 6 unit_name.
                if !unit.is_empty() {
                    bytes(&mut self.inner, 6, unit.as_bytes());
                }
                bytes(&mut self.body, descriptor::COUNTER, &self.inner);
            }
        }
        int(&mut self.body, descriptor::RANK, rank);
        self.send(None, None, packet::DESCRIPTOR);
    }

    /// Begins an event; values and flows follow, then [`Packets::end_event`].
    pub fn event(&mut self, kind: Type, track: u64) {
        self.body.clear();
        int(&mut self.body, event::TYPE, kind as u64);
        int(&mut self.body, event::TRACK, track);
    }

    /// The event's name.
    pub fn name(&mut self, name: Name<'_>) {
        match name {
            Name::Known(place) => int(&mut self.body, event::NAME_IID, place as u64 + 1),
            Name::Text(text) => bytes(&mut self.body, event::NAME, text.as_bytes()),
        }
    }

    /// A value beside it; `name` is its place in the names given to
    /// [`Packets::begin`].
    pub fn value(&mut self, name: usize, value: Value<'_>) {
        self.inner.clear();
        // DebugAnnotation: 1 name_iid, 3 uint_value, 6 string_value, 7 pointer_value.
        int(&mut self.inner, 1, name as u64 + 1);
        match value {
            Value::Number(n) => int(&mut self.inner, 3, n),
            Value::Text(text) => bytes(&mut self.inner, 6, text.as_bytes()),
            Value::Address(address) => int(&mut self.inner, 7, address),
        }
        bytes(&mut self.body, event::ANNOTATION, &self.inner);
    }

    /// The counter's value.
    pub fn counter(&mut self, value: i64) {
        int(&mut self.body, event::COUNTER, value as u64);
    }

    /// The counter's value, with a fraction.
    pub fn double_counter(&mut self, value: f64) {
        tag(&mut self.body, event::DOUBLE_COUNTER, 1);
        self.body.extend_from_slice(&value.to_le_bytes());
    }

    /// The event belongs to a flow; if `last`, the flow ends with it.
    pub fn flow(&mut self, flow: u64, last: bool) {
        let field = if last { event::TERMINATING_FLOW } else { event::FLOW };
        tag(&mut self.body, field, 1);
        self.body.extend_from_slice(&flow.to_le_bytes());
    }

    /// Ends the event and gives it its time.
    pub fn end_event(&mut self, time_ns: u64) {
        // Interned names are needed.
        self.send(Some(time_ns), Some(2), packet::TRACK_EVENT);
    }

    fn send(&mut self, time_ns: Option<u64>, flags: Option<u64>, field: u32) {
        self.packet.clear();
        if let Some(time) = time_ns {
            int(&mut self.packet, packet::TIMESTAMP, time);
        }
        int(&mut self.packet, packet::SEQUENCE, 1);
        if let Some(flags) = flags {
            int(&mut self.packet, packet::SEQUENCE_FLAGS, flags);
        }
        bytes(&mut self.packet, field, &self.body);
        bytes(&mut self.out, 1, &self.packet);
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

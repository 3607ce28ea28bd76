//! Reads Perfetto traces and checks them, as `tests/perfetto_check.py` does with
//! Perfetto's own definitions. The messages are the parts of perfetto_trace.proto
//! that ioasim writes; anything else in the file is a fault.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct Trace {
    #[prost(message, repeated, tag = "1")]
    pub packet: Vec<TracePacket>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TracePacket {
    #[prost(uint64, optional, tag = "8")]
    pub timestamp: Option<u64>,
    #[prost(uint32, tag = "10")]
    pub trusted_packet_sequence_id: u32,
    #[prost(message, optional, tag = "11")]
    pub track_event: Option<TrackEvent>,
    #[prost(message, optional, tag = "12")]
    pub interned_data: Option<InternedData>,
    #[prost(uint32, optional, tag = "13")]
    pub sequence_flags: Option<u32>,
    #[prost(message, optional, tag = "60")]
    pub track_descriptor: Option<TrackDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
pub struct InternedData {
    #[prost(message, repeated, tag = "2")]
    pub event_names: Vec<Interned>,
    #[prost(message, repeated, tag = "3")]
    pub debug_annotation_names: Vec<Interned>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Interned {
    #[prost(uint64, tag = "1")]
    pub iid: u64,
    #[prost(string, tag = "2")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct TrackDescriptor {
    #[prost(uint64, tag = "1")]
    pub uuid: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, optional, tag = "3")]
    pub process: Option<ProcessDescriptor>,
    #[prost(uint64, optional, tag = "5")]
    pub parent_uuid: Option<u64>,
    #[prost(message, optional, tag = "8")]
    pub counter: Option<CounterDescriptor>,
    #[prost(int32, optional, tag = "11")]
    pub child_ordering: Option<i32>,
    #[prost(int32, optional, tag = "12")]
    pub sibling_order_rank: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ProcessDescriptor {
    #[prost(int32, optional, tag = "1")]
    pub pid: Option<i32>,
    #[prost(string, optional, tag = "6")]
    pub process_name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct CounterDescriptor {
    #[prost(string, optional, tag = "6")]
    pub unit_name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TrackEvent {
    #[prost(message, repeated, tag = "4")]
    pub debug_annotations: Vec<DebugAnnotation>,
    #[prost(int32, tag = "9")]
    pub r#type: i32,
    #[prost(uint64, optional, tag = "10")]
    pub name_iid: Option<u64>,
    #[prost(uint64, tag = "11")]
    pub track_uuid: u64,
    #[prost(string, optional, tag = "23")]
    pub name: Option<String>,
    #[prost(int64, optional, tag = "30")]
    pub counter_value: Option<i64>,
    #[prost(double, optional, tag = "44")]
    pub double_counter_value: Option<f64>,
    #[prost(fixed64, repeated, packed = "false", tag = "47")]
    pub flow_ids: Vec<u64>,
    #[prost(fixed64, repeated, packed = "false", tag = "48")]
    pub terminating_flow_ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct DebugAnnotation {
    #[prost(uint64, tag = "1")]
    pub name_iid: u64,
    #[prost(uint64, optional, tag = "3")]
    pub uint_value: Option<u64>,
    #[prost(string, optional, tag = "6")]
    pub string_value: Option<String>,
    #[prost(uint64, optional, tag = "7")]
    pub pointer_value: Option<u64>,
}

/// A slice.
pub struct Slice {
    /// Name of its group of tracks, up to the colon.
    pub group: String,
    pub name: String,
    pub start_ns: u64,
    pub end_ns: u64,
}

/// What a trace holds.
#[derive(Default)]
pub struct Seen {
    pub slices: Vec<Slice>,
    pub tracks: Vec<String>,
    pub flows: Vec<u64>,
}

/// The packets of a trace, each as the bytes of a trace of its own.
pub fn packets(bytes: &[u8]) -> Vec<Vec<u8>> {
    let trace = Trace::decode(bytes).expect("a trace");
    trace.packet.into_iter().map(|p| Trace { packet: vec![p] }.encode_to_vec()).collect()
}

/// Checks a trace; the first fault, or what it holds.
pub fn check(bytes: &[u8]) -> Result<Seen, String> {
    let trace = Trace::decode(bytes).map_err(|e| e.to_string())?;
    // Whatever is not in the messages above would be lost.
    if trace.encoded_len() != bytes.len() {
        return Err("it has unknown fields".into());
    }
    let mut seen = Seen::default();
    let (mut tracks, mut names) = (HashMap::<u64, &TrackDescriptor>::new(), HashMap::new());
    let mut open: BTreeMap<u64, Vec<(u64, String)>> = BTreeMap::new();
    let mut flows: BTreeMap<u64, Vec<(usize, bool)>> = BTreeMap::new();
    let mut values = HashSet::new();
    let mut last = 0;
    for (n, packet) in trace.packet.iter().enumerate() {
        for name in packet.interned_data.iter().flat_map(|d| &d.event_names) {
            names.insert(name.iid, name.name.clone());
        }
        let known = packet.interned_data.iter().flat_map(|d| &d.debug_annotation_names);
        values.extend(known.map(|v| v.iid));
        if let Some(t) = &packet.track_descriptor {
            if t.parent_uuid.is_some_and(|p| !tracks.contains_key(&p)) {
                return Err(format!("{} has an undescribed track as parent", t.name));
            }
            if tracks.insert(t.uuid, t).is_some() {
                return Err(format!("{} is described twice", t.name));
            }
            seen.tracks.push(t.name.clone());
        }
        let Some(event) = &packet.track_event else { continue };
        let time = packet.timestamp.ok_or(format!("packet {n} has no time"))?;
        if time < last {
            return Err(format!("packet {n} goes back in time"));
        }
        last = time;
        let track = *tracks
            .get(&event.track_uuid)
            .ok_or(format!("packet {n} is on an undescribed track"))?;
        if track.counter.is_some() != (event.r#type == 4) {
            return Err(format!("packet {n} is on a track of another kind"));
        }
        if event.debug_annotations.iter().any(|a| !values.contains(&a.name_iid)) {
            return Err(format!("packet {n} has a value without a name"));
        }
        let name = || {
            let interned = event.name_iid.and_then(|iid| names.get(&iid).cloned());
            interned.or(event.name.clone()).ok_or(format!("packet {n} has no known name"))
        };
        let stack = open.entry(event.track_uuid).or_default();
        match event.r#type {
            1 => stack.push((time, name()?)),
            2 => {
                let (start_ns, name) = stack
                    .pop()
                    .ok_or(format!("packet {n} ends a slice that never began on {}", track.name))?;
                let group = group(&tracks, track);
                seen.slices.push(Slice { group, name, start_ns, end_ns: time });
            }
            3 => drop(name()?),
            4 if event.counter_value.is_some() != event.double_counter_value.is_some() => {}
            other => return Err(format!("packet {n} has type {other} or no value")),
        }
        let ends = event.flow_ids.iter().map(|f| (f, false));
        for (flow, terminates) in ends.chain(event.terminating_flow_ids.iter().map(|f| (f, true))) {
            if event.r#type == 2 || event.r#type == 4 {
                return Err(format!("packet {n} has a flow and is no slice"));
            }
            flows.entry(*flow).or_default().push((n, terminates));
        }
    }
    if let Some((track, _)) = open.iter().find(|(_, s)| !s.is_empty()) {
        return Err(format!("a slice stays open on {}", tracks[track].name));
    }
    for (flow, ends) in &flows {
        if ends.iter().map(|e| e.0).collect::<HashSet<_>>().len() < 2 {
            return Err(format!("flow {flow} has one end"));
        }
        if ends.iter().position(|e| e.1) != Some(ends.len() - 1) {
            return Err(format!("flow {flow} does not end with its last end"));
        }
    }
    seen.flows = flows.into_keys().collect();
    Ok(seen)
}

fn group(tracks: &HashMap<u64, &TrackDescriptor>, track: &TrackDescriptor) -> String {
    let mut at = track;
    while let Some(parent) = at.parent_uuid {
        at = tracks[&parent];
    }
    at.name.split(':').next().unwrap_or_default().to_owned()
}

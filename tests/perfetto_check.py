#!/usr/bin/env python3
"""Reads a .pftrace back with Perfetto's published definitions and checks it.

    pip install perfetto
    python3 tests/perfetto_check.py FILE.pftrace [FILE.pftrace ...]

Needs the PyPI package `perfetto` (for perfetto_trace_pb2). Checked, per file:

* every packet parses with no unknown fields, timestamps do not go back;
* every track is described once and before its first event, with a described
  parent (or none);
* every event is on a described track of its kind, every name is known;
* every slice that begins ends on its track, in the order of nesting, and no
  slice reaches beyond the one around it;
* every flow has at least two ends, which are not all on one slice, and its
  last end, and only that, terminates it;
* counters have numbers.

Exit code 0 and a line of counts per file, or 1 and the first fault.
"""

import collections
import sys

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

BEGIN, END = pb.TrackEvent.TYPE_SLICE_BEGIN, pb.TrackEvent.TYPE_SLICE_END
INSTANT, COUNTER = pb.TrackEvent.TYPE_INSTANT, pb.TrackEvent.TYPE_COUNTER


class Fault(Exception):
    pass


def need(condition, *what):
    if not condition:
        raise Fault(" ".join(str(w) for w in what))


def all_known(message):
    need(len(UnknownFieldSet(message)) == 0, "unknown fields in", message)
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in value if isinstance(value, collections.abc.Sequence) else [value]:
            all_known(part)


def check(path):
    trace = pb.Trace()
    with open(path, "rb") as file:
        trace.ParseFromString(file.read())
    tracks, names, values = {}, {}, {}
    stacks = collections.defaultdict(list)
    flows = collections.defaultdict(list)
    counts = collections.Counter()
    last_time = 0
    for number, packet in enumerate(trace.packet):
        all_known(packet)
        need(packet.trusted_packet_sequence_id == 1, "packet", number, "has another sequence")
        if number == 0:
            cleared = pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
            need(packet.sequence_flags & cleared, "the first packet clears no state")
        for entry in packet.interned_data.event_names:
            names[entry.iid] = entry.name
        for entry in packet.interned_data.debug_annotation_names:
            values[entry.iid] = entry.name
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            need(track.uuid not in tracks, "track", track.uuid, "is described twice")
            need(track.name, "track", track.uuid, "has no name")
            if track.HasField("parent_uuid"):
                need(track.parent_uuid in tracks, "track", track.name, "has an unknown parent")
            tracks[track.uuid] = track
        if packet.HasField("track_event"):
            time, event = packet.timestamp, packet.track_event
            need(time >= last_time, "packet", number, "goes back in time")
            last_time = time
            need(event.track_uuid in tracks, "packet", number, "is on an undescribed track")
            one_event(number, time, event, tracks, names, values, stacks, flows, counts)
    for track, stack in stacks.items():
        need(not stack, len(stack), "slices stay open on", tracks[track].name)
    for flow, ends in flows.items():
        need(len(ends) >= 2, "flow", flow, "has one end")
        need(len({place for place, _ in ends}) >= 2, "flow", flow, "stays on one slice")
        last = [terminates for _, terminates in ends]
        need(last[-1] and not any(last[:-1]), "flow", flow, "does not end with its last end")
    counts["flows"] = len(flows)
    counts["tracks"] = len(tracks)
    return counts


def one_event(number, time, event, tracks, names, values, stacks, flows, counts):
    track, where = tracks[event.track_uuid], (event.track_uuid, number)
    counter = track.HasField("counter")
    need(counter == (event.type == COUNTER), "packet", number, "is on a track of another kind")
    if event.type in (BEGIN, INSTANT):
        name = names.get(event.name_iid) if event.HasField("name_iid") else event.name
        need(name, "packet", number, "has no known name")
    for annotation in event.debug_annotations:
        need(annotation.name_iid in values, "packet", number, "has a value without a name")
    stack = stacks[event.track_uuid]
    if event.type == BEGIN:
        counts["slices"] += 1
        stack.append((time, name))
    elif event.type == END:
        need(stack, "packet", number, "ends a slice that never began on", track.name)
        need(stack.pop()[0] <= time, "a slice ends before it begins on", track.name)
    elif event.type == INSTANT:
        counts["instants"] += 1
    elif event.type == COUNTER:
        counts["counter values"] += 1
        given = event.HasField("counter_value") + event.HasField("double_counter_value")
        need(given == 1, "packet", number, "has no counter value")
    else:
        raise Fault(f"packet {number} has type {event.type}")
    need(event.type in (BEGIN, INSTANT) or not event.flow_ids, "a flow ends nowhere")
    for flow in event.flow_ids:
        flows[flow].append((where, False))
    for flow in event.terminating_flow_ids:
        flows[flow].append((where, True))


def main():
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    for path in sys.argv[1:]:
        try:
            counts = check(path)
        except (Fault, OSError, DecodeError) as fault:
            print(f"{path}: {fault}", file=sys.stderr)
            return 1
        print(path + ": " + ", ".join(f"{n} {what}" for what, n in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())

//! A part of a trace: by time, by event, between markers, of some devices or
//! domains.
//!
//! What was attached and mapped when the part begins is put in front, so that it
//! can be replayed by itself. Memory grows with what is mapped at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ioasim_events::{DomainId, Event, Flags, Kind, Pasid, Requester};
use rustc_hash::FxHashSet;

use super::{derived, refuse};
use crate::Result;
use crate::file::{Summary, TraceReader, TraceWriter};
use crate::generate::Control;
use crate::generate::range_map::{RangeMap, Span};

/// Which part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// First time in ns.
    pub from_ns: Option<u64>,
    /// Time in ns at which it ends, exclusive.
    pub to_ns: Option<u64>,
    /// Begins behind the first marker whose text begins with this.
    pub after_marker: Option<String>,
    /// Ends before the next marker whose text begins with this.
    pub before_marker: Option<String>,
    /// Accesses of these devices only, and the domains that they use.
    pub devices: Vec<Requester>,
    /// Events of these domains only.
    pub domains: Vec<DomainId>,
    /// Leave out what was mapped before.
    pub without_state: bool,
}

/// What a range maps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    out: u64,
    flags: Flags,
    pasid: Pasid,
}

impl Span for Target {
    fn moved(self, by: u64) -> Target {
        Target { out: self.out.wrapping_add(by), ..self }
    }
}

/// What is attached and mapped.
#[derive(Debug, Default)]
struct State {
    attached: BTreeMap<(u32, u32), Event>,
    children: BTreeMap<u32, RangeMap<Target>>,
    parent: RangeMap<Target>,
}

impl State {
    fn event(&mut self, e: &Event) {
        // A range that reaches the end of the space stops one page short.
        let end = e.addr.saturating_add(e.size);
        let target = Target { out: e.out, flags: e.flags, pasid: e.pasid };
        match e.kind {
            Kind::Attach => {
                self.attached.insert((e.requester.0, e.pasid.0), *e);
            }
            Kind::Detach => {
                self.attached.remove(&(e.requester.0, e.pasid.0));
            }
            Kind::Map if e.addr < end => {
                self.children.entry(e.domain.0).or_default().set(e.addr, end, target);
            }
            Kind::Unmap if e.addr < end => {
                self.children.entry(e.domain.0).or_default().remove(e.addr, end);
            }
            Kind::ParentMap if e.addr < end => self.parent.set(e.addr, end, target),
            Kind::ParentUnmap if e.addr < end => self.parent.remove(e.addr, end),
            _ => {}
        }
    }

    /// Events that make it, at time 0: the parent first.
    fn events(&self) -> impl Iterator<Item = Event> + '_ {
        let of = |kind, domain, (start, end, t): (u64, u64, Target)| Event {
            domain,
            pasid: t.pasid,
            flags: t.flags.with(Flags::INFERRED),
            addr: start,
            size: end - start,
            out: t.out,
            ..Event::new(kind)
        };
        let parent = self.parent.iter().map(move |r| of(Kind::ParentMap, DomainId::NONE, r));
        let attached = self.attached.values().map(|e| Event {
            time_ns: 0,
            flags: e.flags.with(Flags::INFERRED),
            ..*e
        });
        let maps = self.children.iter().flat_map(move |(domain, map)| {
            map.iter().map(move |r| of(Kind::Map, DomainId(*domain), r))
        });
        parent.chain(attached).chain(maps)
    }
}

/// What a trace has, as far as a wrong choice is answered with it.
#[derive(Debug, Default)]
struct Present {
    devices: BTreeSet<u32>,
    domains: BTreeSet<u32>,
    /// Texts of markers, each once.
    markers: Vec<String>,
    more_markers: bool,
    last: Option<(Requester, DomainId)>,
}

impl Present {
    /// Names that an error lists.
    const MOST: usize = 10;
    /// Characters of a marker's text in it.
    const LONGEST: usize = 60;

    fn event(&mut self, e: &Event, text: Option<&str>) {
        if self.last != Some((e.requester, e.domain)) {
            self.last = Some((e.requester, e.domain));
            if e.requester != Requester::NONE {
                self.devices.insert(e.requester.0);
            }
            if e.domain != DomainId::NONE {
                self.domains.insert(e.domain.0);
            }
        }
        let Some(text) = text else { return };
        let short: String = text.chars().take(Present::LONGEST).collect();
        if self.markers.contains(&short) {
            return;
        }
        match self.markers.len() < Present::MOST {
            true => self.markers.push(short),
            false => self.more_markers = true,
        }
    }

    /// What was asked for and is not there: one sentence with what is.
    fn missing(&self, what: &Slice) -> Option<String> {
        let listed = |kind: &str, all: &[String], more: bool| match all {
            [] => format!("the trace has no {kind}"),
            all => {
                format!("its {kind} are {}{}", all.join(", "), if more { " and more" } else { "" })
            }
        };
        let first = |all: &BTreeSet<u32>, name: &dyn Fn(u32) -> String| {
            all.iter().take(Present::MOST).map(|id| name(*id)).collect::<Vec<_>>()
        };
        if let Some(device) = what.devices.iter().find(|d| !self.devices.contains(&d.0)) {
            let all = first(&self.devices, &|id| Requester(id).to_string());
            let there = listed("devices", &all, self.devices.len() > all.len());
            return Some(format!("there is no device {device}; {there}"));
        }
        if let Some(domain) = what.domains.iter().find(|d| !self.domains.contains(&d.0)) {
            let all = first(&self.domains, &|id| match DomainId(id) {
                DomainId::PARENT => format!("{id} (the parent)"),
                _ => id.to_string(),
            });
            let there = listed("domains", &all, self.domains.len() > all.len());
            return Some(format!("there is no domain {}; {there}", domain.0));
        }
        None
    }

    fn no_marker(&self, text: &str, place: &str) -> String {
        let quoted: Vec<String> = self.markers.iter().map(|t| format!("{t:?}")).collect();
        let there = match quoted.as_slice() {
            [] => "the trace has none with a text".to_owned(),
            all => {
                let more = if self.more_markers { " and more" } else { "" };
                format!("there are {}{more}", all.join(", "))
            }
        };
        format!("there is no marker whose text begins with {text:?}{place}; {there}")
    }
}

/// Writes the part of the trace to `output`, its times beginning at 0.
///
/// # Errors
/// The reader's and the writer's; [`Error::Import`](crate::Error::Import) if
/// the part is empty, a marker, device or domain is not there, or the run is
/// interrupted.
pub fn slice(
    reader: &TraceReader,
    output: &Path,
    what: &Slice,
    control: &mut Control<'_>,
) -> Result<Summary> {
    let total = reader.meta().totals.events;
    let passes = if what.devices.is_empty() { 1 } else { 2 };
    let mut done = 0;
    let mut tick = |control: &mut Control<'_>| -> Result<()> {
        done += 1;
        if done % 65_536 == 0 { control.tick(output, done, passes * total) } else { Ok(()) }
    };
    let mut domains: FxHashSet<u32> = what.domains.iter().map(|d| d.0).collect();
    let devices: FxHashSet<u32> = what.devices.iter().map(|d| d.0).collect();
    if !devices.is_empty() {
        let given = domains.clone();
        reader.visit(&mut |e, _| {
            let used = devices.contains(&e.requester.0) && e.domain != DomainId::NONE;
            if used && (given.is_empty() || given.contains(&e.domain.0)) {
                domains.insert(e.domain.0);
            }
            tick(control)
        })?;
    }
    let all = devices.is_empty() && domains.is_empty();
    let takes = |e: &Event| {
        let device = devices.is_empty()
            || e.requester == Requester::NONE
            || devices.contains(&e.requester.0);
        let domain = all || domains.contains(&e.domain.0) || e.domain == DomainId::NONE;
        device && (domain || matches!(e.kind, Kind::ParentMap | Kind::ParentUnmap | Kind::Marker))
    };
    let mut writer = TraceWriter::create(output)?;
    let mut state = State::default();
    let mut present = Present::default();
    let (mut begun, mut ended) = (what.after_marker.is_none(), false);
    let mut closed = what.before_marker.is_none();
    let (mut start, mut wrote) = (None, 0u64);
    let mut added = 0;
    reader.visit(&mut |e, text| {
        tick(control)?;
        present.event(e, text);
        let marked = |name: &Option<String>| {
            e.kind == Kind::Marker
                && text.zip(name.as_deref()).is_some_and(|(t, n)| t.starts_with(n))
        };
        if !begun {
            begun = marked(&what.after_marker);
            state.event(e);
            return Ok(());
        }
        closed |= marked(&what.before_marker);
        ended |= marked(&what.before_marker) || what.to_ns.is_some_and(|to| e.time_ns >= to);
        if ended {
            return Ok(());
        }
        if what.from_ns.is_some_and(|from| e.time_ns < from) {
            state.event(e);
            return Ok(());
        }
        if !takes(e) {
            return Ok(());
        }
        let zero = match start {
            Some(zero) => zero,
            None => {
                if !what.without_state {
                    for e in state.events().filter(|e| takes(e)) {
                        writer.push(&e)?;
                        added += 1;
                    }
                }
                start = Some(e.time_ns);
                e.time_ns
            }
        };
        wrote += 1;
        let e = Event { time_ns: e.time_ns - zero, ..*e };
        match text {
            Some(text) => writer.push_marker(&e, text),
            None => writer.push(&e),
        }
    })?;
    if let Some(why) = present.missing(what) {
        return Err(refuse(reader.path(), why));
    }
    for (there, name, place) in [
        (begun, &what.after_marker, ""),
        (
            closed,
            &what.before_marker,
            if what.after_marker.is_some() { " behind the start" } else { "" },
        ),
    ] {
        if !there {
            let why = present.no_marker(name.as_deref().unwrap_or_default(), place);
            return Err(refuse(reader.path(), why));
        }
    }
    if wrote == 0 {
        let why = "no event is in this part; `ioasim trace info` tells times, devices and domains";
        return Err(refuse(reader.path(), why));
    }
    let note = format!(
        "A part: {wrote} of {total} events from {} ns on; {added} attaches and maps that were in \
         force before stand in front, marked as inferred.",
        start.unwrap_or(0)
    );
    let mut meta = derived(reader, "slice", note)?;
    meta.import_counts.insert("slice_state_events".into(), added);
    writer.finish(meta)
}

//! Traces from traces, against slow and simple rules.

mod file_common;

use std::collections::{BTreeMap, HashMap, HashSet};

use file_common::{Dir, read};
use ioasim_events::{DomainId, Event, Flags, Kind, Pasid, Requester, Scope};
use ioasim_traces::file::{Meta, TraceReader, TraceWriter};
use ioasim_traces::generate::{
    Control, DeviceKind, DeviceTrace, DmaOptions, Member, MixOptions, NvmeOptions, SvaOptions,
};
use ioasim_traces::tools::anonymize::{Anonymize, anonymize};
use ioasim_traces::tools::diff::diff;
use ioasim_traces::tools::merge::{Merge, merge};
use ioasim_traces::tools::replicate::{Replicate, replicate};
use ioasim_traces::tools::slice::{Slice, slice};
use proptest::prelude::*;

impl Dir {
    fn write(&self, name: &str, events: &[Event]) -> TraceReader {
        let mut writer = TraceWriter::create(&self.at(name)).unwrap();
        for e in events {
            match e.kind {
                Kind::Marker => writer.push_marker(e, &format!("m{}", e.aux)).unwrap(),
                _ => writer.push(e).unwrap(),
            }
        }
        writer.finish(Meta { importer: "test".into(), ..Meta::default() }).unwrap();
        TraceReader::open(&self.at(name)).unwrap()
    }

    fn open(&self, name: &str) -> TraceReader {
        TraceReader::open(&self.at(name)).unwrap()
    }
}

/// Three NVMe disks and two processes, with markers after every 500 events.
fn guests(seed: u64, events: u64) -> Vec<Event> {
    let member = |tenants, device| Member { tenants, device };
    let nvme = NvmeOptions { queues: Some(2), block: 12 << 10, depth: 4, ..Default::default() };
    let sva = SvaOptions { processes: 2, pages: 64, ..SvaOptions::default() };
    let members = vec![member(3, DeviceKind::Nvme(nvme)), member(1, DeviceKind::Sva(sva))];
    let device = DeviceKind::Mix(MixOptions { members });
    let dma = DmaOptions { cpus: 2, ..DmaOptions::default() };
    let mut all: Vec<Event> = Vec::new();
    DeviceTrace { device, dma, events, seed }
        .visit(&mut |e| {
            all.push(*e);
            if all.len().is_multiple_of(500) {
                let aux = all.len() as u64 / 500;
                all.push(Event { time_ns: e.time_ns, aux, ..Event::new(Kind::Marker) });
            }
            Ok(())
        })
        .unwrap();
    all
}

/// Pages mapped, by domain and page.
fn table(events: &[Event]) -> BTreeMap<(u32, u64), u64> {
    let mut pages = BTreeMap::new();
    for e in events {
        for i in 0..e.size / 4096 {
            let key = (e.domain.0, (e.addr >> 12) + i);
            match e.kind {
                Kind::Map => drop(pages.insert(key, e.out + i * 4096)),
                Kind::Unmap => drop(pages.remove(&key)),
                _ => {}
            }
        }
    }
    pages
}

#[test]
fn a_slice_begins_with_what_was_mapped() {
    let dir = Dir::new();
    let events = guests(1, 6000);
    let reader = dir.write("in", &events);
    let (from, to) = (events[2000].time_ns, events[4000].time_ns);
    let what = Slice { from_ns: Some(from), to_ns: Some(to), ..Slice::default() };
    slice(&reader, &dir.at("out"), &what, &mut Control::default()).unwrap();
    let part = read(&dir.open("out")).unwrap();
    let state = part.iter().take_while(|e| e.flags.has(Flags::INFERRED)).count();
    let before: Vec<Event> = events.iter().filter(|e| e.time_ns < from).copied().collect();
    assert_eq!(table(&part[..state]), table(&before));
    let inside = events.iter().filter(|e| (from..to).contains(&e.time_ns));
    let shifted: Vec<Event> = inside.map(|e| Event { time_ns: e.time_ns - from, ..*e }).collect();
    // The marker's number is not stored but in its text.
    let plain = |events: &[Event]| -> Vec<Event> { events.to_vec() };
    assert_eq!(plain(&part[state..]), plain(&shifted));
    assert_eq!(part[..state].iter().filter(|e| e.kind == Kind::Attach).count(), 5);
}

#[test]
fn a_slice_between_markers_of_one_device() {
    let dir = Dir::new();
    let events = guests(2, 6000);
    let reader = dir.write("in", &events);
    let device = Requester(16);
    let what = Slice {
        after_marker: Some("m3".into()),
        before_marker: Some("m7".into()),
        devices: vec![device],
        ..Slice::default()
    };
    slice(&reader, &dir.at("out"), &what, &mut Control::default()).unwrap();
    let part = dir.open("out");
    let texts: Vec<String> = part.markers().map(|m| m.unwrap().1).collect();
    assert_eq!(texts, ["m4", "m5", "m6"]);
    let part = read(&part).unwrap();
    assert!(part.iter().all(|e| e.requester == device || e.requester == Requester::NONE));
    let domains: HashSet<DomainId> =
        part.iter().map(|e| e.domain).filter(|d| *d != DomainId::NONE).collect();
    assert_eq!(domains.len(), 1);
    // Every access finds its map.
    let mut mapped = HashMap::new();
    for e in &part {
        for i in 0..e.size / 4096 {
            match e.kind {
                Kind::Map => drop(mapped.insert((e.addr >> 12) + i, e.out + i * 4096)),
                Kind::Unmap => drop(mapped.remove(&((e.addr >> 12) + i))),
                _ => {}
            }
        }
        if e.kind == Kind::Dma {
            assert_eq!(mapped.get(&(e.addr >> 12)), Some(&(e.out & !0xfff)), "{e:?}");
        }
    }
    let none = Slice { after_marker: Some("no".into()), ..Slice::default() };
    let why = slice(&reader, &dir.at("x"), &none, &mut Control::default()).unwrap_err();
    assert!(
        why.to_string().contains("no marker whose text begins with \"no\"")
            && !dir.at("x").exists(),
        "{why}"
    );
    let late = Slice { from_ns: Some(u64::MAX), ..Slice::default() };
    assert!(slice(&reader, &dir.at("x"), &late, &mut Control::default()).is_err());
}

#[test]
fn merging_sorts_by_time_and_keeps_each_order() {
    let dir = Dir::new();
    let inputs = [guests(3, 2000), guests(4, 3000)];
    let readers = vec![dir.write("a", &inputs[0]), dir.write("b", &inputs[1])];
    let how = Merge { shifts_ns: vec![100_000], keep_ids: false };
    merge(&readers, &dir.at("out"), &how, &mut Control::default()).unwrap();
    let merged = dir.open("out");
    let found = read(&merged).unwrap();
    assert_eq!(found.len(), inputs[0].len() + inputs[1].len());
    assert!(found.is_sorted_by_key(|e| e.time_ns));
    // By what does not change, each input is found in its order.
    let key = |e: &Event| (e.kind, e.addr, e.size, e.out, e.flags);
    let mut at = [0, 0];
    let mut ids: [HashMap<u32, u32>; 2] = Default::default();
    for e in &found {
        let from = |i: usize| {
            let shift = if i == 0 { 100_000 } else { 0 };
            inputs[i].get(at[i]).filter(|o| key(o) == key(e) && o.time_ns + shift == e.time_ns)
        };
        let i = usize::from(from(0).is_none());
        let Some(old) = from(i) else { panic!("{e:?} is of neither input") };
        at[i] += 1;
        if old.domain != DomainId::NONE {
            assert_eq!(*ids[i].entry(old.domain.0).or_insert(e.domain.0), e.domain.0);
        }
    }
    let new: HashSet<u32> = ids.iter().flat_map(|m| m.values().copied()).collect();
    assert_eq!(new.len(), ids[0].len() + ids[1].len(), "no domain is shared");
    assert_eq!(merged.meta().totals.devices.len(), 8);
    // With their ids, the first input alone is itself.
    let how = Merge { keep_ids: true, ..Merge::default() };
    merge(&readers[..1], &dir.at("same"), &how, &mut Control::default()).unwrap();
    assert!(diff(&readers[0], &dir.open("same"), 3, &mut Control::default()).unwrap().is_empty());
}

#[test]
fn tenants_are_copies_at_their_own_times() {
    let dir = Dir::new();
    let events: Vec<Event> = guests(5, 800);
    let reader = dir.write("in", &events);
    let how = Replicate {
        tenants: 50,
        spread_ns: Some(1_000_000),
        share_memory: false,
        max_events: None,
        seed: 3,
    };
    let run = |name: &str, how: &Replicate| {
        replicate(&reader, &dir.at(name), how, &mut Control::default()).unwrap();
        read(&dir.open(name)).unwrap()
    };
    let all = run("out", &how);
    assert_eq!(all.len(), 50 * events.len());
    assert_eq!(all, run("again", &how), "the seed decides");
    // The events of a tenant: those of its domains and devices, in order.
    let mut by_domain: BTreeMap<u32, Vec<Event>> = BTreeMap::new();
    for e in all.iter().filter(|e| e.domain != DomainId::NONE) {
        by_domain.entry(e.domain.0).or_default().push(*e);
    }
    assert_eq!(by_domain.len(), 50 * 5);
    let mut lists: HashMap<Vec<(Kind, u64, u64, u64)>, u64> = HashMap::new();
    let mut targets = HashSet::new();
    for list in by_domain.values() {
        let first = list[0].time_ns;
        let key =
            list.iter().map(|e| (e.kind, e.time_ns - first, e.addr, e.size)).collect::<Vec<_>>();
        *lists.entry(key).or_default() += 1;
        let out = list.iter().find(|e| e.kind == Kind::Map).unwrap().out;
        assert!(targets.insert(out) || list.len() < 5, "memory is apart");
    }
    // Five domains in the original, each as often as there are tenants.
    assert!(lists.values().all(|n| n % 50 == 0), "{:?}", lists.values());
    let devices: HashSet<_> =
        all.iter().filter(|e| e.kind == Kind::Dma).map(|e| e.requester).collect();
    assert_eq!(devices.len(), 200);
    let few = run("few", &Replicate { max_events: Some(100), ..how });
    assert_eq!(few[..], all[..100]);
}

#[test]
fn anonymizing_keeps_structure() {
    let dir = Dir::new();
    let mut events = guests(6, 3000);
    // A huge page, a range across blocks, and "everything".
    let map =
        |addr, size, out| Event { domain: DomainId(9), addr, size, out, ..Event::new(Kind::Map) };
    let unmap = Event { domain: DomainId(9), size: !0xfff, ..Event::new(Kind::Unmap) };
    let more = [
        map(1 << 30, 1 << 30, 5 << 30),
        map((7 << 30) + (1 << 20), 3 << 20, (9 << 30) + (1 << 20)),
        map((7 << 30) + (4 << 20), 4096, 11 << 30),
        Event {
            kind: Kind::Invalidate,
            flags: Flags::with_scope(Scope::Page),
            out: (1 << 30) + 5,
            ..map(1 << 30, 1 << 30, 0)
        },
        unmap,
    ];
    let time_ns = events.last().unwrap().time_ns;
    events.extend(more.map(|e| Event { time_ns, ..e }));
    let reader = dir.write("in", &events);
    let how = Anonymize { seed: 1, keep_markers: false };
    anonymize(&reader, &dir.at("out"), &how, &mut Control::default()).unwrap();
    let out = dir.open("out");
    let new = read(&out).unwrap();
    assert_eq!(new.len(), events.len());
    let mut blocks: HashMap<(DomainId, u64), u64> = HashMap::new();
    let mut back: HashMap<(DomainId, u64), u64> = HashMap::new();
    let mut moved = 0;
    for (a, b) in events.iter().zip(&new) {
        let same = Event { addr: b.addr, out: b.out, aux: b.aux, ..*a };
        assert_eq!(same, *b, "nothing else changes");
        if a.size > 1 << 39 || matches!(a.kind, Kind::Attach | Kind::Marker) {
            assert_eq!((a.addr, a.size), (b.addr, b.size));
            continue;
        }
        moved += u64::from(a.addr != b.addr);
        // The same block goes to the same place, and no two to one.
        for i in 0..=(a.size.max(1) - 1) >> 21 {
            let (x, y) = ((a.addr >> 21) + i, (b.addr >> 21) + i);
            assert_eq!(*blocks.entry((a.domain, x)).or_insert(y), y);
            assert_eq!(*back.entry((a.domain, y)).or_insert(x), x);
        }
        assert_eq!(a.addr & 0x1f_ffff, b.addr & 0x1f_ffff);
        if a.size == 1 << 30 {
            assert_eq!(
                (b.addr % (1 << 30), b.kind == Kind::Invalidate || b.out % (1 << 30) == 0),
                (0, true)
            );
        }
    }
    assert!(moved > 1000, "{moved}");
    // The table is the same one, seen through the permutation.
    let (before, after) = (table(&events[..events.len() - 1]), table(&new[..new.len() - 1]));
    assert_eq!(before.len(), after.len());
    for ((domain, page), _) in before {
        let block = blocks[&(DomainId(domain), page >> 9)];
        assert!(after.contains_key(&(domain, block << 9 | page & 511)));
    }
    assert!(out.markers().all(|m| m.unwrap().1.starts_with("marker ")));
    assert!(out.meta().sources.is_empty());
}

#[test]
fn differences_are_found_and_named() {
    let dir = Dir::new();
    let events = guests(7, 1000);
    let left = dir.write("a", &events);
    let mut other = events.clone();
    other[700].addr ^= 0x1000;
    other[700].pasid = Pasid(3);
    other[900].cpu = 5;
    other.pop();
    let right = dir.write("b", &other);
    let found = diff(&left, &right, 1, &mut Control::default()).unwrap();
    assert_eq!(found.events, [events.len() as u64, events.len() as u64 - 1]);
    assert_eq!((found.different, found.first.len()), (2, 1));
    assert_eq!((found.first[0].event, &found.first[0].columns[..]), (700, &["pasid", "addr"][..]));
    assert_eq!(found.columns["cpu"], 1);
    assert!(diff(&left, &left, 1, &mut Control::default()).unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn any_slice_has_the_table_of_its_beginning(
        seed in 0..50u64, a in 0.0..1.0f64, b in 0.0..1.0f64,
    ) {
        let dir = Dir::new();
        let events = guests(seed, 1500);
        let reader = dir.write("in", &events);
        let end = events.last().unwrap().time_ns;
        let from = (a.min(b) * end as f64) as u64;
        let to = (a.max(b) * end as f64) as u64 + 1;
        let what = Slice { from_ns: Some(from), to_ns: Some(to), ..Slice::default() };
        let inside = events.iter().filter(|e| (from..to).contains(&e.time_ns)).count();
        match slice(&reader, &dir.at("out"), &what, &mut Control::default()) {
            Err(_) => prop_assert_eq!(inside, 0),
            Ok(summary) => {
                let part = read(&dir.open("out")).unwrap();
                let state = summary.meta.import_counts["slice_state_events"] as usize;
                prop_assert_eq!(part.len() - state, inside);
                let before: Vec<Event> =
                    events.iter().filter(|e| e.time_ns < to).copied().collect();
                prop_assert_eq!(table(&part), table(&before));
            }
        }
    }
}

//! Formats of other programs: what goes out comes back, and damage is told.

mod file_common;

use std::io::Write;
use std::path::{Path, PathBuf};

use file_common::{Dir, read};
use ioasim_events::{
    CachingMode, DomainId, Event, Flags, Kind, OutputSpace, Pasid, Requester, Scope,
};
use ioasim_traces::exchange::{
    Foreign, Format, ImportOptions, Selection, export, import, no_table, oracle_general, tell,
};
use ioasim_traces::file::{Meta, Synthetic, TraceReader, TraceWriter};
use ioasim_traces::generate::Control;
use proptest::prelude::*;

type Marked = (Event, Option<String>);

impl Dir {
    fn trace(&self, events: &[Marked]) -> TraceReader {
        let meta = Meta {
            importer: "test".into(),
            notes: vec!["a \"note\", with a comma".into()],
            child_levels: 3,
            ..Meta::default()
        };
        self.trace_of(events, meta)
    }

    fn trace_of(&self, events: &[Marked], meta: Meta) -> TraceReader {
        let path = self.at("in.parquet");
        let mut writer = TraceWriter::create(&path).unwrap();
        for (e, text) in events {
            match text {
                Some(text) => writer.push_marker(e, text).unwrap(),
                None => writer.push(e).unwrap(),
            }
        }
        writer.finish(meta).unwrap();
        TraceReader::open(&path).unwrap()
    }

    fn export(&self, reader: &TraceReader, name: &str) -> PathBuf {
        let path = self.at(name);
        let format = Format::of(&path).unwrap();
        export(reader, &path, format, Selection::default(), &mut Control::default()).unwrap();
        path
    }

    fn import(&self, path: &Path) -> Result<TraceReader, ioasim_traces::Error> {
        self.import_with(path, ImportOptions::default())
    }

    fn import_with(
        &self,
        path: &Path,
        options: ImportOptions,
    ) -> Result<TraceReader, ioasim_traces::Error> {
        let out = self.at("out.parquet");
        let _ = std::fs::remove_file(&out);
        let done = import(path, &out, &options, &mut Control::default());
        assert_eq!(done.is_ok(), out.exists(), "a file appears only if all went well");
        done.and_then(|_| TraceReader::open(&out))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.at(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn marked(reader: &TraceReader) -> Vec<Marked> {
    let mut all = Vec::new();
    reader
        .visit(&mut |e, text| {
            all.push((*e, text.map(str::to_owned)));
            Ok(())
        })
        .unwrap();
    all
}

prop_compose! {
    /// Any event that a trace can hold.
    fn event()(
        gap in prop_oneof![Just(0u64), 0..1_000_000u64, 0..(1u64 << 50)],
        kind in 0..12i32,
        flags in any::<u32>(),
        cpu in -1..32_767i32,
        ids in any::<[u32; 3]>(),
        none in any::<[bool; 3]>(),
        words in any::<[u64; 4]>(),
        text in proptest::option::of(any::<String>()),
    ) -> (u64, Marked) {
        let id = |i: usize| if none[i] { u32::MAX } else { ids[i] };
        let kind = Kind::from_code(kind).unwrap();
        let e = Event {
            time_ns: 0,
            kind,
            flags: Flags(flags),
            cpu,
            domain: DomainId(id(0)),
            requester: Requester(id(1)),
            pasid: Pasid(id(2)),
            addr: words[0],
            size: words[1],
            out: words[2],
            aux: words[3],
        };
        (gap, (e, text.filter(|_| kind == Kind::Marker)))
    }
}

fn timed(events: Vec<(u64, Marked)>) -> Vec<Marked> {
    let mut now = 0;
    let step = |(gap, (e, text)): (u64, Marked)| {
        now += gap;
        (Event { time_ns: now, ..e }, text)
    };
    events.into_iter().map(step).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn what_goes_out_as_json_or_csv_comes_back(
        events in proptest::collection::vec(event(), 1..60).prop_map(timed),
        hpa: bool,
        caching_mode in prop_oneof![
            Just(CachingMode::On), Just(CachingMode::Off), Just(CachingMode::Unknown),
        ],
        child_levels in 0..6u32,
        note in any::<String>(),
        workload in proptest::option::of("[a-z]{1,9}"),
    ) {
        let dir = Dir::new();
        let synthetic = workload.map(|workload| Synthetic { workload, ..Synthetic::default() });
        let reader = dir.trace_of(&events, Meta {
            importer: "test".into(),
            import_counts: [("maps_inferred".into(), 7)].into(),
            notes: vec!["a \"note\", with a comma".into(), note],
            output_space: if hpa { OutputSpace::Hpa } else { OutputSpace::Gpa },
            caching_mode,
            child_levels,
            synthetic: synthetic.into_iter().collect(),
            ..Meta::default()
        });
        // Texts are cut by the file itself, at 4,096 bytes.
        let stored = marked(&reader);
        for name in ["t.jsonl", "t.csv"] {
            let path = dir.export(&reader, name);
            let back = dir.import(&path).unwrap();
            prop_assert_eq!(&marked(&back), &stored, "{}", name);
            // All that is known of it, but for the file that it came from.
            let known = |r: &TraceReader| Meta {
                sources: Vec::new(), tool: String::new(), ..r.meta().clone()
            };
            prop_assert_eq!(known(&back), known(&reader), "{}", name);
        }
    }

    #[test]
    fn oracle_general_keeps_pages_and_knows_the_next_use(
        pages in proptest::collection::vec((0..40u64, 0..3u32, 0..9000u64), 1..400),
    ) {
        let dir = Dir::new();
        let events: Vec<Marked> = pages.iter().enumerate().map(|(i, &(page, domain, size))| {
            let e = Event {
                time_ns: i as u64 * 300_000_000,
                domain: DomainId(domain),
                requester: Requester(8),
                addr: page << 12 | 0x80,
                size,
                ..Event::new(Kind::Dma)
            };
            (e, None)
        }).collect();
        let reader = dir.trace(&events);
        let path = dir.export(&reader, "t.oracleGeneral");
        let bytes = std::fs::read(&path).unwrap();
        let records: Vec<_> = bytes.as_chunks().0.iter()
            .map(oracle_general::Record::decode).collect();
        prop_assert_eq!(bytes.len(), records.len() * 24);
        // The obvious way: look ahead for the object.
        for (i, r) in records.iter().enumerate() {
            let next = records[i + 1..].iter().position(|o| o.object == r.object);
            prop_assert_eq!(r.next, next.map_or(-1, |n| (i + 1 + n) as i64));
        }
        // In and out again: the same bytes.
        let back = dir.import_with(&path, ImportOptions {
            format: Some(Foreign::OracleGeneral), ..ImportOptions::default()
        }).unwrap();
        let again = dir.export(&back, "again.oracleGeneral");
        prop_assert_eq!(std::fs::read(again).unwrap(), bytes);
        // Every access has its map before it.
        let mut mapped = std::collections::HashSet::new();
        for e in read(&back).unwrap() {
            match e.kind {
                Kind::Map => {
                    prop_assert!(e.flags.has(Flags::INFERRED));
                    mapped.insert((e.domain, e.addr >> 12));
                }
                Kind::Dma => prop_assert!(mapped.contains(&(e.domain, e.addr >> 12))),
                _ => {}
            }
        }
    }

    #[test]
    fn nothing_panics_on_any_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        format in prop_oneof![
            Just(None), Just(Some(Foreign::JsonLines)), Just(Some(Foreign::Csv)),
            Just(Some(Foreign::OracleGeneral)), Just(Some(Foreign::HypersioText)),
            Just(Some(Foreign::HypersioBinary)),
        ],
    ) {
        let dir = Dir::new();
        let path = dir.write("any", &bytes);
        let _ = dir.import_with(&path, ImportOptions { format, ..ImportOptions::default() });
    }
}

#[test]
fn records_behind_the_window_are_patched() {
    // More records than wait in memory between two uses of a page.
    let dir = Dir::new();
    let events: Vec<Marked> = (0..300_000u64)
        .map(|i| {
            let page = if i % 100_000 == 0 { 1 } else { 2 + i };
            let e =
                Event { domain: DomainId(1), addr: page << 12, size: 64, ..Event::new(Kind::Dma) };
            (e, None)
        })
        .collect();
    let reader = dir.trace(&events);
    let bytes = std::fs::read(dir.export(&reader, "t.oracleGeneral")).unwrap();
    let next = |i: usize| oracle_general::Record::decode(&bytes.as_chunks().0[i]).next;
    assert_eq!((next(0), next(100_000), next(200_000), next(5)), (100_000, 200_000, -1, -1));
}

#[test]
fn csv_of_accesses_with_other_names() {
    let dir = Dir::new();
    let text = b"Timestamp,BDF,IOVA,length,rw,comment\n\
        10,00:03.0,0xfff01010,64,W,\"hello, you\"\n\
        20,0000:00:03.0,4294901776,64,read,\n\
        5,24,0xfff01020,,,\n";
    let back = dir.import(&dir.write("t.csv", text)).unwrap();
    let events = read(&back).unwrap();
    let dma: Vec<&Event> = events.iter().filter(|e| e.kind == Kind::Dma).collect();
    assert_eq!(dma.len(), 3);
    assert!(dma.iter().all(|e| e.requester == Requester(0x18) && e.domain == DomainId(1)));
    assert_eq!((dma[0].addr, dma[1].addr), (0xfff0_1010, 0xffff_0010));
    assert_eq!((dma[0].flags, dma[1].flags), (Flags::WRITE, Flags::READ));
    assert_eq!(dma[2].time_ns, 20, "a time that goes back is raised");
    assert_eq!(back.meta().import_counts["times_clamped"], 1);
    assert_eq!(events.iter().filter(|e| e.kind == Kind::Map).count(), 2);
    // As recorded, without the maps.
    let options = ImportOptions { maps: false, ..ImportOptions::default() };
    assert_eq!(read(&dir.import_with(&dir.at("t.csv"), options).unwrap()).unwrap().len(), 3);
}

#[test]
fn damage_is_counted_shown_and_limited() {
    let dir = Dir::new();
    let good = "{\"kind\":\"dma\",\"addr\":4096}\n";
    let text = format!("{good}{{\"kind\":\"dmx\"}}\n{good}{{\"knd\":1}}\n{good}");
    let path = dir.write("t.jsonl", text.as_bytes());
    let back = dir.import(&path).unwrap();
    assert_eq!((read(&back).unwrap().len(), back.meta().import_counts["lines_damaged"]), (3, 2));
    assert!(back.meta().notes.iter().any(|n| n.contains("line 2") && n.contains("dmx")));
    let options = ImportOptions { max_errors: 1, ..ImportOptions::default() };
    let why = dir.import_with(&path, options).unwrap_err().to_string();
    assert!(why.contains("line 4") && why.contains("--max-errors"), "{why}");
    // A table without an address, and one whose columns mean the same.
    for (header, part) in [("time,kind\n1,dma\n", "address"), ("iova,addr\n1,2\n", "two columns")] {
        let options = ImportOptions { format: Some(Foreign::Csv), ..ImportOptions::default() };
        let path = dir.write("b.csv", header.as_bytes());
        let why = dir.import_with(&path, options).unwrap_err().to_string();
        assert!(why.contains(part), "{why}");
    }
    // Hashes are no page numbers, unless asked for.
    let record = oracle_general::Record { time_s: 0, object: u64::MAX, bytes: 1, next: -1 };
    let path = dir.write("h.bin", &record.encode());
    assert!(dir.import(&path).unwrap_err().to_string().contains("--dense-ids"));
    let options = ImportOptions { dense_ids: true, ..ImportOptions::default() };
    assert!(dir.import_with(&path, options).is_ok());
    let path = dir.write("cut.bin", &record.encode()[..20]);
    let options =
        ImportOptions { format: Some(Foreign::OracleGeneral), ..ImportOptions::default() };
    assert!(dir.import_with(&path, options).unwrap_err().to_string().contains("within record 0"));
}

/// Four maps and their times.
fn four(times: [u64; 4]) -> Vec<Marked> {
    let map = |time_ns| Event { time_ns, addr: time_ns << 12, size: 4096, ..Event::new(Kind::Map) };
    times.into_iter().map(|t| (map(t), None)).collect()
}

#[test]
fn rows_with_fewer_fields_than_columns_are_damaged() {
    let dir = Dir::new();
    let reader = dir.trace(&four([1, 2, 3, 4]));
    let text = std::fs::read_to_string(dir.export(&reader, "t.csv")).unwrap();
    let cut = format!("{}21872373000,invalidate,4\n5,map\r\n", text);
    let back = dir.import(&dir.write("cut.csv", cut.as_bytes())).unwrap();
    assert_eq!(read(&back).unwrap().len(), 4);
    assert_eq!(back.meta().import_counts["lines_damaged"], 2);
    let told = |what: &str| back.meta().notes.iter().any(|n| n.contains(what));
    assert!(told("line 6") && told("3 of 13 fields"), "{:?}", back.meta().notes);
    // A row may have more than the header names: programs write a last comma.
    let more = dir.import(&dir.write("more.csv", b"time,addr\n1,4096,\n2,8192,x,y\n")).unwrap();
    assert!(!more.meta().import_counts.contains_key("lines_damaged"));
    assert_eq!(read(&more).unwrap().iter().filter(|e| e.kind == Kind::Dma).count(), 2);
}

#[test]
fn exports_that_end_early_are_noted() {
    let dir = Dir::new();
    let reader = dir.trace(&four([1, 2, 3, 4]));
    for name in ["t.jsonl", "t.csv"] {
        let path = dir.export(&reader, name);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let cut = lines[..lines.len() - 1].join("\n");
        let back = dir.import(&dir.write(name, cut.as_bytes())).unwrap();
        assert_eq!(back.meta().import_counts["events_missing"], 1, "{name}");
        let note = "INCOMPLETE: 1 of the 4 events";
        assert!(back.meta().notes.iter().any(|n| n.starts_with(note)), "{:?}", back.meta().notes);
        // A part that was asked for is whole.
        let part = Selection { device: None, domain: Some(DomainId(9)) };
        let path = dir.at(name);
        let format = Format::of(&path).unwrap();
        let only = Event { domain: DomainId(9), ..Event::new(Kind::Map) };
        let reader = dir.trace(&[(only, None), (Event { domain: DomainId(8), ..only }, None)]);
        export(&reader, &path, format, part, &mut Control::default()).unwrap();
        let back = dir.import(&path).unwrap();
        assert_eq!(read(&back).unwrap().len(), 1);
        assert!(!back.meta().import_counts.contains_key("events_missing"), "{name}");
        assert!(back.meta().notes.iter().any(|n| n.contains("of domain 9")), "{name}");
    }
}

#[test]
fn one_time_far_ahead_of_both_neighbours_raises_nothing() {
    let dir = Dir::new();
    let day = 86_400_000_000_000u64;
    let row = |time: u64| format!("{time},4096,1\n");
    let times = |rows: &[u64]| {
        let text: String = rows.iter().map(|t| row(*t)).collect();
        let path = dir.write("t.csv", format!("time_ns,addr,size\n{text}").as_bytes());
        let back = dir.import(&path).unwrap();
        let counts = &back.meta().import_counts;
        let count = |name: &str| counts.get(name).copied().unwrap_or(0);
        let numbers = (count("times_outlying"), count("times_clamped"));
        let noted = back.meta().notes.iter().any(|n| n.contains("not believed"));
        assert_eq!(noted, numbers.0 > 0);
        let events = read(&back).unwrap();
        let dma = events.iter().filter(|e| e.kind == Kind::Dma);
        (dma.map(|e| e.time_ns).collect::<Vec<_>>(), numbers)
    };
    assert_eq!(times(&[10, 926 * day, 20, 30]), (vec![10, 10, 20, 30], (1, 0)));
    assert_eq!(times(&[926 * day, 20, 30]), (vec![0, 20, 30], (1, 0)), "the first");
    // What stays ahead is believed: a pause, times since 1970, the last event.
    let pause = [10, day, day + 1, 3 * day];
    assert_eq!(times(&pause), (pause.to_vec(), (0, 0)));
    // Two in a row are not told from a pause.
    assert_eq!(times(&[10, day, day, 20]), (vec![10, day, day, day], (0, 1)));
}

#[test]
fn a_table_of_one_column_is_one() {
    let dir = Dir::new();
    let path = dir.write("a.csv", b"addr\n4096\n8192\n");
    assert_eq!(tell(&path).unwrap(), Some(Foreign::Csv));
    let events = read(&dir.import(&path).unwrap()).unwrap();
    assert_eq!(events.iter().filter(|e| e.kind == Kind::Dma).count(), 2);
    // Why others are none.
    let why = |text: &[u8]| no_table(&dir.write("x", text)).unwrap();
    assert!(why(b"time,size\n1,2\n").is_some_and(|w| w.contains("addr, address or iova")));
    assert_eq!(why(b"time,addr\n1,2\n"), None);
    assert_eq!(why(b"1@2.0:vtd_x a, b\n"), None);
    assert_eq!(why(b""), None);
}

#[test]
fn endless_lines_are_refused_in_bounded_memory() {
    let dir = Dir::new();
    for (name, head) in [("l.jsonl", "{\"kind\":\"dma\",\"text\":\""), ("l.csv", "addr,x\n1,")] {
        let mut bytes = head.as_bytes().to_vec();
        bytes.resize(8 << 20, b'a');
        let why = dir.import(&dir.write(name, &bytes)).unwrap_err().to_string();
        assert!(why.contains("longer than 1048576 bytes"), "{why}");
    }
}

#[test]
fn compressed_files_are_told_and_read() {
    let dir = Dir::new();
    let e = Event { addr: 4096, domain: DomainId(2), ..Event::new(Kind::Dma) };
    let reader = dir.trace(&[(e, None)]);
    let path = dir.export(&reader, "t.jsonl");
    let packed = zstd::encode_all(std::fs::File::open(&path).unwrap(), 1).unwrap();
    let packed = dir.write("t.jsonl.zst", &packed);
    assert_eq!(tell(&packed).unwrap(), Some(Foreign::JsonLines));
    assert_eq!(read(&dir.import(&packed).unwrap()).unwrap(), [e]);
}

#[test]
fn logs_and_traces_are_not_taken_for_these_formats() {
    let dir = Dir::new();
    let log =
        "1@2.3:vtd_iotlb_page_hit IOTLB page hit sid 0x8 iova 0x1000 slpte 0x5003 domain 0x3\n";
    for text in [log, "# tracer: nop\n", "hello\n", "", "a,b\n"] {
        assert_eq!(tell(&dir.write("x", text.as_bytes())).unwrap(), None, "{text}");
    }
}

#[test]
fn hypersio_text_and_binary() {
    let dir = Dir::new();
    let text = b"7@1.0:vtd_iotlb_cc_update x\n\
        7@1.1:vtd_iotlb_page_update IOTLB page update sid 0x10 iova 0xbfe01234 slpte 0x7a001003 level 0x1 domain 0x5\n\
        7@1.2:vtd_iotlb_page_hit IOTLB page hit sid 0x10 iova 0xbfe01238 pmask 0xfffff000 slpte 0x7a001003 domain 0x5\n";
    let path = dir.write("x_0.txt", text);
    assert_eq!(tell(&path).unwrap(), Some(Foreign::HypersioText));
    let events = read(&dir.import(&path).unwrap()).unwrap();
    let kinds: Vec<Kind> = events.iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [Kind::Attach, Kind::Map, Kind::Dma, Kind::Dma]);
    assert_eq!((events[1].addr, events[1].out), (0xbfe0_1000, 0x7a00_1000));
    let mut bytes = Vec::new();
    for i in 0..3u64 {
        bytes.write_all(&1u32.to_le_bytes()).unwrap();
        bytes.write_all(&0x10u16.to_le_bytes()).unwrap();
        bytes.write_all(&5u16.to_le_bytes()).unwrap();
        for word in [0x1000 * i, !0xfff, 1, 0x7000_0003 + 0x1000 * i, u64::MAX] {
            bytes.write_all(&word.to_le_bytes()).unwrap();
        }
    }
    let path = dir.write("t.bin", &bytes);
    assert_eq!(tell(&path).unwrap(), Some(Foreign::HypersioBinary));
    let events = read(&dir.import(&path).unwrap()).unwrap();
    assert_eq!(events.len(), 7);
    assert_eq!(events[6].out, 0x7000_2000);
}

#[test]
fn a_selection_keeps_what_belongs_to_it() {
    let dir = Dir::new();
    let dma = |requester, domain| Event {
        requester: Requester(requester),
        domain: DomainId(domain),
        ..Event::new(Kind::Dma)
    };
    let map = Event { domain: DomainId(2), size: 4096, ..Event::new(Kind::Map) };
    let flush = Event { flags: Flags::with_scope(Scope::Global), ..Event::new(Kind::Invalidate) };
    let events: Vec<Marked> =
        [dma(8, 1), dma(16, 2), map, flush].into_iter().map(|e| (e, None)).collect();
    let reader = dir.trace(&events);
    let count = |selection| {
        let out = dir.at("s.jsonl");
        export(&reader, &out, Format::JsonLines, selection, &mut Control::default()).unwrap().events
    };
    assert_eq!(count(Selection { device: Some(Requester(8)), domain: None }), 3);
    assert_eq!(count(Selection { device: None, domain: Some(DomainId(2)) }), 3);
    assert_eq!(count(Selection { device: Some(Requester(8)), domain: Some(DomainId(2)) }), 2);
}

/// Fields of a protocol buffer: number and value (integers as they are).
fn fields(mut bytes: &[u8]) -> Vec<(u64, Result<u64, &[u8]>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        if tag & 7 == 0 {
            all.push((tag >> 3, Ok(varint(&mut bytes))));
        } else {
            assert_eq!(tag & 7, 2);
            let n = varint(&mut bytes) as usize;
            all.push((tag >> 3, Err(&bytes[..n])));
            bytes = &bytes[n..];
        }
    }
    all
}

#[test]
fn perfetto_gets_a_packet_for_every_event_on_described_tracks() {
    let dir = Dir::new();
    let map = Event { domain: DomainId(2), size: 8192, cpu: 1, ..Event::new(Kind::Map) };
    let dma = Event {
        time_ns: 5,
        requester: Requester(0x18),
        domain: DomainId(2),
        addr: 64,
        flags: Flags::LABEL_KNOWN,
        ..Event::new(Kind::Dma)
    };
    let marker = Event { time_ns: 9, ..Event::new(Kind::Marker) };
    let reader = dir.trace(&[(map, None), (dma, None), (marker, Some("work begin".into()))]);
    let bytes = std::fs::read(dir.export(&reader, "t.pftrace")).unwrap();
    let (mut tracks, mut events, mut counter) = (Vec::new(), Vec::new(), None);
    for (field, packet) in fields(&bytes) {
        assert_eq!(field, 1);
        let packet = fields(packet.unwrap_err());
        let find = |n| packet.iter().find(|f| f.0 == n).map(|f| f.1);
        if let Some(Err(descriptor)) = find(60) {
            let uuid = fields(descriptor)[0].1.unwrap();
            assert!(!tracks.contains(&uuid));
            tracks.push(uuid);
        }
        if let Some(Err(event)) = find(11) {
            let event = fields(event);
            let get = |n| event.iter().find(|f| f.0 == n).map(|f| f.1);
            assert!(tracks.contains(&get(11).unwrap().unwrap()), "described before its use");
            match get(9).unwrap().unwrap() {
                4 => counter = get(30).map(|c| c.unwrap()),
                _ => events.push((find(8).unwrap().unwrap(), get(10).or(get(23)).unwrap())),
            }
        }
    }
    assert_eq!(counter, Some(2), "two pages mapped");
    // Names by number: 5 is map, 3 a miss.
    assert_eq!(events, [(0, Ok(5)), (5, Ok(3)), (9, Err(&b"work begin"[..]))]);
}

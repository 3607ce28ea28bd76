//! Statistics of small traces counted by hand.

mod file_common;

use file_common::{events, write};
use ioasim_events::{Chunk, DomainId, Event, Flags, Kind, Requester, Scope};
use ioasim_traces::file::{Meta, Source, TraceReader};
use ioasim_traces::generate::Control;
use ioasim_traces::stats::{StatsBuilder, TraceStats};

fn stats(events: &[Event]) -> TraceStats {
    let mut builder = StatsBuilder::new(&Meta::default());
    for part in events.chunks(3) {
        builder.add(&part.iter().copied().collect::<Chunk>());
    }
    builder.finish()
}

fn at(time_ns: u64, kind: Kind, page: u64, pages: u64) -> Event {
    Event { time_ns, addr: page << 12, size: pages << 12, domain: DomainId(3), ..Event::new(kind) }
}

fn dma(time_ns: u64, page: u64, flags: Flags) -> Event {
    let requester = Requester(8);
    Event { size: 64, requester, flags, out: 0x9000, ..at(time_ns, Kind::Dma, page, 0) }
}

#[test]
fn a_small_trace_is_counted_exactly() {
    let label = Flags::LABEL_KNOWN.with(Flags::OUT_KNOWN);
    let page = Flags::with_scope(Scope::Page);
    let all = [
        at(0, Kind::Map, 16, 2),
        at(5, Kind::Map, 32, 1),
        dma(10, 16, label),
        dma(11, 16, label.with(Flags::HIT)),
        dma(12, 32, Flags::FAULT.with(Flags::READ)),
        dma(13, 99, Flags::default()),
        at(20, Kind::Unmap, 16, 1),
        Event { flags: page.with(Flags::LEAF_ONLY), ..at(21, Kind::Invalidate, 16, 1) },
        at(30, Kind::Unmap, 17, 1),
        at(35, Kind::Unmap, 200, 4),
        Event { flags: Flags::INFERRED.with(Flags::NOTIFIED), ..at(40, Kind::Map, 16, 512) },
        Event {
            flags: Flags::with_scope(Scope::Domain),
            domain: DomainId::NONE,
            ..Event::new(Kind::Invalidate)
        },
    ];
    let mut all = all.to_vec();
    let last = all.len() - 1;
    all[last].time_ns = 50;
    let s = stats(&all);
    assert_eq!((s.events, s.end_ns), (12, 50));
    assert_eq!(s.events_by_kind["map"], 3);
    let r = &s.recorded;
    assert_eq!((r.dma, r.dma_bytes, r.dma_with_direction, r.dma_faults), (4, 256, 1, 1));
    assert_eq!((r.dma_with_label, r.label_hits, r.label_hit_share), (2, 1, Some(0.5)));
    assert_eq!(
        (s.invalidations.page, s.invalidations.domain, s.invalidations.leaf_only),
        (1, 1, 1)
    );
    assert_eq!((s.pages.accessed, s.pages.outputs, s.pages.mapped), (3, 1, 512));
    let m = &s.maps;
    // Pages 16, 17 and 32; at the end 16 to 527, over 32, which was there.
    assert_eq!((m.peak_pages, m.alive_at_end, m.remapped_bytes), (512, 1, 4096));
    assert_eq!((m.lifetime_ns.count, m.lifetime_ns.min, m.lifetime_ns.max), (2, 20, 30));
    let sizes: Vec<_> = m.sizes.iter().map(|c| (c.up_to_bytes, c.maps)).collect();
    assert_eq!(sizes, [(4096, 1), (8192, 1), (512 * 4096, 1)]);
    assert_eq!(s.reuse.accesses_per_page.max, 2);
    assert_eq!(s.reuse.maps_per_page.max, 2);
    let i = &s.inferred;
    assert_eq!((i.maps_inferred, i.maps_notified, i.invalidations_unattributed), (1, 1, 1));
    assert_eq!((i.dma_outside_maps, i.unmapped_bytes_unknown), (1, 4 * 4096));
    assert_eq!(s.devices[0].requester, "00:01.0");
    assert_eq!(s.domains[0].peak_pages, 512);
}

#[test]
fn hostile_sizes_neither_overflow_nor_take_memory() {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        for (addr, size) in [(0, u64::MAX), (u64::MAX, u64::MAX), (u64::MAX, 1), (1 << 63, 1 << 63)]
        {
            let flags = Flags(u32::MAX);
            all.push(Event { addr, size, out: addr, flags, ..Event::new(kind) });
        }
    }
    let s = stats(&all);
    assert_eq!(s.events, 48);
    s.render_text(80);
}

#[test]
fn text_fits_80_columns_and_json_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    write(&path, &events(100_000)).unwrap();
    let mut s =
        TraceStats::collect(&TraceReader::open(&path).unwrap(), &mut Control::default()).unwrap();
    s.provenance.notes = vec!["A remark that is long enough to be broken into lines. ".repeat(4)];
    s.provenance.sources = vec![Source {
        role: "qemu-log".into(),
        path: "x".repeat(100),
        bytes: 5,
        sha256: "0".repeat(64),
    }];
    let text = s.render_text(80);
    assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    assert!(text.lines().all(|l| l == l.trim_end()), "{text}");
    for part in ["events                                     100,000", "00:01.0", "sha256 0000"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let json = serde_json::to_value(&s).unwrap();
    assert_eq!(json["events"], 100_000);
    assert_eq!(json["file"]["row_groups"], 2);
    assert_eq!(json["recorded"]["label_hit_share"], 1.0);
    assert_eq!(json["provenance"]["totals"]["events"], 100_000);
    assert!(json["maps"]["lifetime_ns"]["p50"].is_u64());
}

//! Records of watched runs: they change nothing, and they agree with the
//! totals of the same run, which are kept by other code.

use ioasim_sim::config::{Config, Layer, preset_names, resolve};
use ioasim_sim::events::{Chunk, DomainId, Event, Flags, Kind, Requester, Scope, TraceInfo};
use ioasim_sim::replay::Replay;
use ioasim_sim::results::RunResult;
use ioasim_sim::results::records::{
    DmaStage, LATENCY_KINDS, OpKind, Records, Timeline, Watch, Window,
};
use ioasim_sim::results::timing::{LatencySummary, TimingResult};
use ioasim_sim::time::Ps;
use proptest::prelude::*;

const BASE: u64 = 0x1_0000_0000;

/// A step of a made-up driver: `(what, page, device, cpu)`.
type Step = (u8, u64, u32, i32);

/// Steps as events; unmaps are followed by their invalidation.
fn events(steps: &[Step]) -> Vec<Event> {
    let mut events = Vec::new();
    for (what, page, device, cpu) in steps {
        let (domain, addr) = (DomainId(3), BASE + page * 4096);
        let of = |kind| Event { domain, addr, cpu: *cpu, size: 4096, ..Event::new(kind) };
        match what {
            0 => events.push(Event {
                out: 0x2000_1000 + page * 8192,
                flags: Flags::READ.with(Flags::WRITE),
                ..of(Kind::Map)
            }),
            1 => {
                events.push(of(Kind::Unmap));
                let flags = Flags::with_scope(Scope::Page);
                events.push(Event { out: addr, flags, ..of(Kind::Invalidate) });
            }
            2 => events.push(of(Kind::ParentUnmap)),
            _ => {
                let requester = Requester(8 + device);
                let flags = if page % 2 == 0 { Flags::WRITE } else { Flags::READ };
                events.push(Event { requester, cpu: -1, size: 256, flags, ..of(Kind::Dma) });
            }
        }
    }
    for (i, e) in events.iter_mut().enumerate() {
        e.time_ns = i as u64 * 100;
    }
    events
}

fn watched(config: &Config, events: &[Event], watch: &Watch) -> (RunResult, Option<Records>) {
    let n = events.len() as u64;
    let info = TraceInfo { events: n, end_ns: n * 100, iova_bits: 39, ..TraceInfo::default() };
    let mut replay = Replay::watched(config, &info, false, watch);
    for (i, part) in events.chunks(50).enumerate() {
        let mut c: Chunk = part.iter().copied().collect();
        c.first = (i * 50) as u64;
        replay.run(&c).expect("one domain");
    }
    replay.finish_watched().expect("a valid configuration")
}

fn config(preset: &str, settings: &[&str]) -> Config {
    let mut all: Vec<String> = vec!["time.enabled=true".into()];
    all.extend(settings.iter().map(|s| s.to_string()));
    resolve(&Layer::Preset(preset.into()), &all).expect("a valid configuration")
}

const ALL: Watch =
    Watch { latencies: true, timeline: Some(Window::Events { from: 0, to: 1 << 40 }) };

fn spans_agree_with_totals(t: &TimingResult, timeline: &Timeline) {
    assert_eq!(timeline.left_out, 0);
    for class in &t.classes {
        let mine = || timeline.dmas.iter().filter(|d| d.class == class.class);
        assert_eq!(mine().count() as u64, class.count, "{}", class.class);
        let mut parts = [0u64; 6];
        for d in mine() {
            let mut at = d.start;
            d.stages(|stage, from, to| {
                assert_eq!(from, at, "parts follow each other: {d:?}");
                at = to;
                parts[match stage {
                    DmaStage::Queue => 0,
                    DmaStage::DeviceLookup | DmaStage::Lookup => 1,
                    DmaStage::WalkQueue => 2,
                    DmaStage::Walk => 3,
                    DmaStage::PageRequest => 4,
                    DmaStage::ToIommu | DmaStage::Transfer => 5,
                }] += to.since(from).0;
            });
            assert_eq!(at, d.done, "parts fill the whole: {d:?}");
        }
        let means = [
            class.queueing_ns,
            class.lookup_ns,
            class.walk_queueing_ns,
            class.walk_ns,
            class.page_request_ns,
            class.pcie_ns,
        ];
        for (sum, mean) in parts.iter().zip(means) {
            assert_eq!(*sum as f64 / class.count as f64 / 1000.0, mean, "{class:?}");
        }
    }
    assert_eq!(timeline.dmas.len() as u64, t.latency.dma.count);
    assert_eq!(timeline.walks.len() as u64, t.latency.walk.count);
    let l = &t.latency;
    for (kind, total) in [
        (OpKind::Map, &l.map),
        (OpKind::Unmap, &l.unmap),
        (OpKind::Invalidation, &l.invalidation),
        (OpKind::MapInvalidation, &l.map_invalidation),
    ] {
        let mine = || timeline.ops.iter().filter(|o| o.kind == kind);
        assert_eq!(mine().count() as u64, total.count, "{kind:?}");
        assert_eq!(mine().map(|o| o.done.since(o.start).ns()).max().unwrap_or(0), total.max_ns);
    }
    for op in &timeline.ops {
        let mut at = op.start;
        op.stages(|_, from, to| {
            assert_eq!(from, at, "{op:?}");
            at = to;
        });
        assert_eq!(at, op.done, "{op:?}");
    }
    // A request's walk is the walk that it says.
    for d in &timeline.dmas {
        for s in d.served.iter().flatten() {
            let walk = timeline.walks.iter().find(|w| w.number == s.walk).expect("recorded");
            assert!(walk.started <= s.started && s.ended == walk.ended, "{d:?} {walk:?}");
        }
    }
    // Every invalidation that was sent knows the unmap before it.
    for op in timeline.ops.iter().filter(|o| o.kind == OpKind::Invalidation) {
        assert_eq!(op.unmaps.last(), Some(&(op.cause.event - 1)), "{op:?}");
    }
}

fn histograms_agree_with_totals(t: &TimingResult, records: &Records) {
    let log = records.latencies.as_ref().expect("asked for");
    let l = &t.latency;
    let totals = [&l.dma, &l.walk, &l.invalidation, &l.map_invalidation, &l.map, &l.unmap];
    for (kind, total) in totals.into_iter().enumerate() {
        let h = log.total(kind);
        let at = |q: f64| h.value_at_quantile(q).min(total.max_ns);
        let mine = LatencySummary {
            count: h.len(),
            mean_ns: total.mean_ns,
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p99_9_ns: at(0.999),
            p99_99_ns: at(0.9999),
            max_ns: total.max_ns,
        };
        assert!(h.is_empty() || h.equivalent(h.max(), total.max_ns), "{}", h.max());
        assert_eq!(&mine, total, "{}", LATENCY_KINDS[kind].name);
    }
}

fn step() -> impl Strategy<Value = Step> {
    (prop_oneof![2 => 0u8..2, 1 => 2u8..3, 8 => 3u8..4], 0u64..40, 0u32..3, 0i32..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Under every preset, whatever waits for what.
    #[test]
    fn records_agree_with_the_totals_and_change_nothing(
        steps in prop::collection::vec(step(), 1..300),
        walkers in 0u64..3,
        pending in 0u64..3,
        outstanding in 1u64..5,
        ats in prop::bool::ANY,
    ) {
        let events = events(&steps);
        let walkers = format!("time.iommu.walkers={walkers}");
        let pending = format!("time.iommu.pending={pending}");
        let outstanding = format!("time.device.outstanding={outstanding}");
        let mut settings = vec![walkers.as_str(), &pending, &outstanding];
        if ats {
            settings.extend(["time.ats.entries=8", "time.ats.ways=2"]);
        }
        for preset in preset_names() {
            let config = config(preset, &settings);
            let (alone, nothing) = watched(&config, &events, &Watch::default());
            prop_assert!(nothing.is_none());
            let (result, records) = watched(&config, &events, &ALL);
            prop_assert_eq!(&alone.timing, &result.timing);
            prop_assert_eq!(&alone.counters, &result.counters);
            let (t, records) = (result.timing.expect("simulated"), records.expect("asked for"));
            spans_agree_with_totals(&t, records.timeline.as_ref().expect("asked for"));
            histograms_agree_with_totals(&t, &records);
        }
    }

    /// A window of time has exactly the spans that overlap it.
    #[test]
    fn a_window_is_a_part_of_the_whole(
        steps in prop::collection::vec(step(), 1..300),
        from in 0u64..40_000,
        length in 0u64..20_000,
    ) {
        let (config, events) = (config("hw-nested", &["time.iommu.walkers=1"]), events(&steps));
        let timeline = |window| {
            let watch = Watch { latencies: false, timeline: Some(window) };
            watched(&config, &events, &watch).1.and_then(|r| r.timeline).expect("asked for")
        };
        let all = timeline(Window::Events { from: 0, to: 1 << 40 });
        let (from, to) = (Ps::from_ns(from), Ps::from_ns(from + length));
        let part = timeline(Window::Time { from, to });
        let inside = |start: Ps, end: Ps| start < to && end >= from;
        let dmas = all.dmas.iter().filter(|d| inside(d.start, d.done));
        prop_assert_eq!(
            dmas.map(|d| d.cause.event).collect::<Vec<_>>(),
            part.dmas.iter().map(|d| d.cause.event).collect::<Vec<_>>()
        );
        let walks = all.walks.iter().filter(|w| inside(w.started, w.ended));
        prop_assert_eq!(walks.count(), part.walks.len());
        let ops = all.ops.iter().filter(|o| inside(o.start, o.done));
        prop_assert_eq!(ops.count(), part.ops.len());
    }
}

#[test]
fn the_warm_up_is_left_out_of_histograms_and_not_of_timelines() {
    let steps: Vec<Step> = (0..400).map(|i| (if i < 40 { 0 } else { 3 }, i % 40, 0, 0)).collect();
    let events = events(&steps);
    let config = config("hw-nested", &["time.warm_up_events=200"]);
    let (result, records) = watched(&config, &events, &ALL);
    let (t, records) = (result.timing.expect("simulated"), records.expect("asked for"));
    histograms_agree_with_totals(&t, &records);
    assert!(t.latency.dma.count < 360);
    let timeline = records.timeline.expect("asked for");
    assert_eq!((timeline.dmas.len(), timeline.cpus), (360, vec![Some(0)]));
}

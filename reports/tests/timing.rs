//! What reports say about simulated time.

mod fixture;

use ioasim_reports::{Document, index_html, render_comparison, render_replay};
use ioasim_sim::results::timing::{
    ClassTime, DeviceUse, Latency, LatencySummary, ResourceUse, TimingChecks, TimingResult,
    TimingSeries, VcpuTime,
};

fn latency(count: u64, ns: u64) -> LatencySummary {
    LatencySummary {
        count,
        mean_ns: ns as f64,
        p50_ns: ns,
        p90_ns: ns,
        p99_ns: ns * 3,
        p99_9_ns: ns * 4,
        p99_99_ns: ns * 5,
        max_ns: ns * 6,
    }
}

/// An invented run, `times` as slow as another.
fn timing(times: u64, vcpus: u64) -> TimingResult {
    let class = |class: &str, count, walk_ns| ClassTime {
        class: class.into(),
        count,
        mean_ns: 600.0 + walk_ns,
        queueing_ns: 50.0,
        lookup_ns: 3.0,
        walk_queueing_ns: 0.0,
        walk_ns,
        page_request_ns: 0.0,
        pcie_ns: 547.0,
    };
    TimingResult {
        warm_up_events: 0,
        mode: "closed-loop".into(),
        elapsed_ns: 1_000_000 * times,
        requests_per_second: 5e6 / times as f64,
        gbps: 10.0,
        latency: Latency {
            dma: latency(5000, 600),
            walk: latency(100, 800),
            invalidation: latency(50 * vcpus, 12_000 * times),
            map_invalidation: LatencySummary::default(),
            map: latency(60 * vcpus, 1000),
            unmap: latency(50 * vcpus, 1100),
        },
        classes: vec![class("hit", 4900, 0.0), class("miss", 100, 800.0)],
        resources: vec![ResourceUse {
            name: "walkers".into(),
            servers: 1,
            utilisation: 0.08,
            busy_mean: 0.08,
            queue_mean: 0.01,
            queue_max: 3,
            arrivals: 100,
            waited: 4,
            wait_mean_ns: 12.0,
        }],
        devices: vec![DeviceUse {
            device: "00:03.0".into(),
            requests: 5000,
            link_utilisation: 0.1,
            in_flight_mean: 3.0,
            starved_ns: 900_000 * times,
        }],
        vcpus: VcpuTime {
            vcpus,
            utilisation: 0.7 * vcpus.min(1) as f64,
            map_ns: 60_000 * vcpus,
            unmap_ns: 55_000 * vcpus,
            vmm_ns: 600_000 * times * vcpus,
            ..VcpuTime::default()
        },
        checks: TimingChecks { requests_in: 5000, requests_done: 5000, ..Default::default() },
        series: TimingSeries {
            interval_ns: 1000,
            requests: vec![5, 0, 7, 9],
            latency_mean_ns: vec![600.0, 0.0, 610.0, 590.0],
            gbps: vec![160.0, 0.0, 230.0, 290.0],
            walker_queue_mean: vec![0.5, 0.0, 1.5, 0.0],
            invalidation_queue_mean: vec![0.0; 4],
            vmm_queue_mean: vec![2.0, 1.0, 0.0, 0.0],
        },
        ..TimingResult::default()
    }
}

fn document() -> Document {
    let mut d = fixture::document();
    for (i, run) in d.runs.iter_mut().enumerate() {
        run.timing = Some(timing(i as u64 + 1, (i as u64).min(1)));
        run.config["time"] = serde_json::json!({
            "memory": { "read_ns": 197.0 }, "iommu": { "walkers": 7 }, "vmm": { "pte_read_ns": 50.0 }
        });
    }
    d
}

#[test]
fn the_page_shows_where_time_goes_and_what_it_rests_on() {
    let page = index_html(&[document()]).unwrap();
    for id in [
        "time-duration",
        "vcpu-time",
        "latency-parts",
        "dma-percentiles",
        "invalidation-percentiles",
        "resources",
        "time-series",
        "time-queues",
    ] {
        assert!(page.contains(&format!("-{id}\"")), "no figure {id}");
    }
    for words in [
        "no time here was recorded",
        "Fast &amp; Safe",
        "A assumption",
        "set for this run",
        "assumptions (tag A)",
        "the bound, not a choice",
        "limits throughput",
        "The longest queue is that for the VMM",
        "the books agree",
    ] {
        assert!(page.contains(words), "no {words:?}");
    }
    // Without time there is none of it.
    let without = index_html(&[fixture::document()]).unwrap();
    assert!(!without.contains("Simulated time</h3>"));
    assert!(!without.contains("constants behind the simulated times"));
}

#[test]
fn every_part_has_a_pattern_or_a_colour_of_its_own() {
    let page = index_html(&[document()]).unwrap();
    for class in ["d0", "d1", "d3", "d5"] {
        assert!(page.contains(&format!(".{class} {{ --k")), "{class} has no colour");
        assert!(page.contains(&format!("f {class}\"")), "{class} is not drawn");
    }
    assert!(!page.contains("#01FE"), "a colour without class");
}

#[test]
fn terminal_tables_are_at_most_80_columns_wide() {
    let mut d = document();
    d.runs[1].config["name"] = "a-configuration-with-a-name-that-nobody-would-choose".into();
    if let Some(t) = &mut d.runs[2].timing {
        t.elapsed_ns = u64::MAX / 2;
        t.latency.dma.mean_ns = 1e15;
        t.vcpus.vmm_ns = u64::MAX;
    }
    let mut texts = vec![render_comparison(std::slice::from_ref(&d), None)];
    for run in d.runs.clone() {
        let mut one = d.clone();
        one.runs = vec![run];
        texts.push(render_replay(&one));
    }
    for text in texts {
        let wide = text.lines().find(|l| l.chars().count() > 80);
        assert_eq!(wide, None, "{text}");
    }
}

/// Results from elsewhere may hold anything of the right type.
#[test]
fn odd_numbers_do_not_break_the_page() {
    let mut d = document();
    let odd = [
        TimingResult::default(),
        TimingResult { classes: Vec::new(), devices: Vec::new(), ..timing(1, 1) },
        TimingResult {
            series: TimingSeries {
                interval_ns: 0,
                requests: vec![u64::MAX, u64::MAX],
                latency_mean_ns: vec![f64::MAX],
                gbps: vec![f64::MAX],
                walker_queue_mean: vec![f64::MAX],
                ..TimingSeries::default()
            },
            elapsed_ns: u64::MAX,
            gbps: f64::MAX,
            ..timing(1, u64::from(u32::MAX))
        },
    ];
    for (run, t) in d.runs.iter_mut().zip(odd) {
        run.timing = Some(t);
    }
    let page = index_html(std::slice::from_ref(&d)).unwrap();
    let page = page.split("<script>'use strict'").next().unwrap(); // without the page's own
    for bad in ["NaN", ">inf"] {
        let at = page.find(bad).map(|at| &page[at.saturating_sub(300)..at + 20]);
        assert_eq!(at, None, "not a number on the page");
    }
    render_comparison(&[d], None);
}

/// Names come from files.
#[test]
fn a_device_with_markup_for_a_name_is_shown_as_text() {
    let mut d = document();
    for t in d.runs.iter_mut().filter_map(|run| run.timing.as_mut()) {
        t.devices.iter_mut().for_each(|device| device.device = "<i>00:03.0</i>".into());
    }
    let page = index_html(&[d]).unwrap();
    assert!(page.contains("&lt;i&gt;00:03.0&lt;"), "the summary names it");
    assert!(!page.contains("<i>00:03.0"));
}

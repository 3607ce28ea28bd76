//! Imported events, replayed in file order on a slow model of what was
//! recorded, give every recorded label and output.

mod import_common;

use import_common::*;
use ioasim_events::{CachingMode, DomainId, Event, Flags, Kind};

const SINGLE: [&str; 4] =
    ["mixed-strict-cm", "nic-bidir-lazy", "nic-rx-strict", "nvme-seqwrite128k-lazy"];
const ALL: [&str; 6] = [
    "nvme-randread4k-strict-cm",
    "nvme-seqwrite128k-lazy",
    "nic-rx-strict",
    "nic-bidir-lazy",
    "mixed-strict-cm",
    "large-mixed-strict-cm",
];

fn texts(name: &str) -> (Vec<u8>, Vec<u8>) {
    (fixture(&format!("{name}.qemu.log")), fixture(&format!("{name}.ftrace.txt")))
}

fn check_joined(name: &str, log: &[u8], ftrace: &[u8]) {
    let (report, sink) = import(log, Some(ftrace)).unwrap();
    let (faults, seen) = replay(&sink.events);
    assert_eq!(faults, Faults::default(), "{name}: {report:#?}");
    assert_eq!(seen.dma, report.count("dma"));
    assert_eq!(seen.labelled, report.count("labels"));
    assert_eq!(report.count("labels_unlike_qemu_iotlb"), 0, "{name}");
    let recorded = report.count("ftrace_maps") + report.count("ftrace_unmaps");
    assert_eq!(report.count("table_changes"), recorded, "{name}: every change is written");
    assert_eq!(report.count("descriptors_joined"), report.count("ftrace_descriptors"), "{name}");
    let (evident, known) = report.attributed_percent().unwrap();
    assert!(known >= 99.9, "{name}: {known}");
    assert_eq!(report.child_levels, 3);
    let mode = if name.ends_with("-cm") { CachingMode::On } else { CachingMode::Off };
    assert_eq!(report.caching_mode, mode, "{name}");
    println!(
        "{name}: {} events, {evident:.2} % evident, {known:.2} % known, within the ftrace {} maps and {} unmaps inferred",
        sink.events.len(),
        report.count("maps_inferred_within_ftrace"),
        report.count("unmaps_inferred_within_ftrace"),
    );
}

fn check_alone(name: &str, log: &[u8]) {
    let (report, sink) = import(log, None).unwrap();
    let (faults, seen) = replay(&sink.events);
    assert_eq!(faults, Faults::default(), "{name} alone: {report:#?}");
    assert!(seen.inferred > 0);
}

#[test]
fn fixtures_joined() {
    for name in SINGLE {
        let (log, ftrace) = texts(name);
        check_joined(name, &log, &ftrace);
    }
}

#[test]
fn fixtures_alone() {
    for name in SINGLE {
        check_alone(name, &texts(name).0);
    }
}

#[test]
fn recordings_joined_and_alone() {
    let Some(dir) = recordings() else { return };
    let read =
        |name: String| zstd::decode_all(std::fs::File::open(dir.join(name)).unwrap()).unwrap();
    for name in ALL {
        let log = read(format!("{name}.qemu.log.zst"));
        check_joined(name, &log, &read(format!("{name}.ftrace.txt.zst")));
        check_alone(name, &log);
    }
}

const BUNDLE: [&str; 4] =
    ["host.qemu.log", "guest.ftrace.txt", "vmm.qemu.log", "hypervisor.ftrace.txt"];

fn check_bundle(texts: &Texts) -> (u64, Vec<Event>) {
    let (report, sink) = import_bundle(texts).unwrap();
    let (faults, compared) = replay_bundle(&sink.events);
    assert_eq!(faults, BundleFaults::default(), "{report:#?}");
    for name in [
        "shadow_hpa_mismatches",
        "shadow_maps_without_hpa",
        "dma_without_mapping",
        "labels_unlike_qemu_iotlb",
        "maps_inferred",
        "unmaps_inferred",
        "table_changes_without_domain",
        "order_conflicts",
    ] {
        assert_eq!(report.count(name), 0, "{name}: {report:#?}");
    }
    assert_eq!(report.count("shadow_hpa_checked"), report.count("shadow_maps"));
    (compared, sink.events)
}

#[test]
fn bundle_fixture() {
    let texts = BUNDLE.map(|n| fixture(&format!("shadow-nvme-a.{n}")));
    let (compared, events) = check_bundle(&texts);
    assert!(compared > 1000);
    // The device begins in the parent (firmware) and moves behind the guest.
    let attaches: Vec<_> =
        events.iter().filter(|e| e.kind == Kind::Attach).map(|e| e.domain).collect();
    assert_eq!(attaches, [DomainId::PARENT, DomainId(3)]);
}

#[test]
fn bundle_concatenated() {
    let texts = BUNDLE.map(|n| fixture(&format!("shadow-nvme-a.{n}")));
    let (once, _) = import_bundle(&texts).unwrap();
    let (twice, sink) = import_bundle(&texts.map(|t| t.repeat(2))).unwrap();
    assert!(sink.events.windows(2).all(|w| w[0].time_ns <= w[1].time_ns));
    for name in [
        "shadow_hpa_checked",
        "shadow_maps",
        "shadow_operations_joined",
        "guest_descriptors_joined",
        "dma",
    ] {
        assert_eq!(twice.count(name), 2 * once.count(name), "{name}");
    }
    assert_eq!(twice.count("shadow_hpa_mismatches"), 0);
    assert_eq!(twice.count("dma_without_mapping"), 0);
}

#[test]
fn bundle_recording() {
    let Some(dir) = recordings() else { return };
    let texts = BUNDLE.map(|n| {
        zstd::decode_all(std::fs::File::open(dir.join(format!("shadow-nvme-a/{n}.zst"))).unwrap())
            .unwrap()
    });
    let (compared, events) = check_bundle(&texts);
    let count = |kind| events.iter().filter(|e| e.kind == kind).count();
    assert_eq!(compared, 16_888);
    assert_eq!((count(Kind::ShadowMap), count(Kind::ShadowUnmap)), (6_939, 6_914));
    assert_eq!((count(Kind::Map), count(Kind::Unmap)), (6_923, 1_514));
    assert_eq!(count(Kind::Dma), 19_275 - 349);
}

/// The same recording `n` times: both clocks jump back at each seam.
fn repeated(text: &[u8], n: usize) -> Vec<u8> {
    text.repeat(n)
}

#[test]
fn concatenated() {
    for name in SINGLE {
        let (log, ftrace) = texts(name);
        let (once, _) = import(&log, Some(&ftrace)).unwrap();
        let (report, sink) = import(&repeated(&log, 3), Some(&repeated(&ftrace, 3))).unwrap();
        let (faults, _) = replay(&sink.events);
        assert_eq!(faults, Faults::default(), "{name}: {report:#?}");
        assert_eq!(report.count("log_seams"), 2, "{name}");
        assert_eq!(report.count("ftrace_seams"), 2, "{name}");
        for count in ["descriptors_joined", "table_changes", "dma", "ftrace_maps"] {
            assert_eq!(report.count(count), 3 * once.count(count), "{name} {count}");
        }
        assert!(report.attributed_percent().unwrap().1 >= 99.9);
    }
}

#[test]
fn concatenated_log_alone() {
    let (log, _) = texts("mixed-strict-cm");
    let (report, sink) = import(&repeated(&log, 4), None).unwrap();
    assert_eq!(replay(&sink.events).0, Faults::default());
    assert_eq!(report.count("log_seams"), 3);
}

/// Domains of the recorded maps and unmaps, by what they say.
fn domains(
    events: &[Event],
) -> std::collections::HashMap<(Kind, i32, u64, u64, u64), Vec<DomainId>> {
    let mut by = std::collections::HashMap::<_, Vec<_>>::new();
    for e in events {
        if matches!(e.kind, Kind::Map | Kind::Unmap) && !e.flags.has(Flags::INFERRED) {
            by.entry((e.kind, e.cpu, e.addr, e.size, e.out)).or_default().push(e.domain);
        }
    }
    by
}

/// Share of table changes whose domain is found right if most of the guest's
/// page-selective invalidations are hidden from the importer.
fn accuracy_without_invalidations(name: &str, log: &[u8], ftrace: &[u8]) -> f64 {
    let truth = import(log, Some(ftrace)).unwrap().1;
    let mut n = 0;
    let hidden: Vec<u8> = ftrace
        .split_inclusive(|b| *b == b'\n')
        .filter(|l| {
            let submit = memchr::memmem::find(l, b"qi_submit: iotlb_inv").is_some();
            n += u32::from(submit);
            // Runs of descriptors stay, so that the clocks can be joined.
            !submit || n % 2048 < 16
        })
        .flatten()
        .copied()
        .collect();
    let (report, sink) = import(log, Some(&hidden)).unwrap();
    let (truth, found) = (domains(&truth.events), domains(&sink.events));
    let (mut right, mut all) = (0u64, 0u64);
    for (key, wanted) in &truth {
        let found = found.get(key).map_or(&[][..], |v| v);
        all += wanted.len() as u64;
        right += wanted.iter().zip(found).filter(|(a, b)| a == b).count() as u64;
    }
    let share = 100.0 * right as f64 / all as f64;
    println!(
        "{name}: {share:.3} % of {all} right without invalidations ({:?} % evident, known)",
        report.attributed_percent().unwrap()
    );
    share
}

#[test]
fn attribution_without_invalidations() {
    let (log, ftrace) = texts("nic-rx-strict");
    assert!(accuracy_without_invalidations("fixture nic-rx-strict", &log, &ftrace) > 99.0);
    let Some(dir) = recordings() else { return };
    let read =
        |name: String| zstd::decode_all(std::fs::File::open(dir.join(name)).unwrap()).unwrap();
    for name in ["nic-rx-strict", "nvme-randread4k-strict-cm", "mixed-strict-cm"] {
        let (log, ftrace) =
            (read(format!("{name}.qemu.log.zst")), read(format!("{name}.ftrace.txt.zst")));
        // Without its invalidations nothing tells the domain of a device that
        // makes no access at all: two NICs' rings in the NVMe recording.
        assert!(accuracy_without_invalidations(name, &log, &ftrace) > 98.0);
    }
}

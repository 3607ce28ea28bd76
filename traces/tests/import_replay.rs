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

/// `text` with `change` applied to the stamp of each line, in us: behind `tid@` in a QEMU log,
/// before `: event:` in an ftrace.
fn restamped(text: &[u8], change: impl Fn(u64) -> u64) -> Vec<u8> {
    let mut out = String::new();
    for line in std::str::from_utf8(text).unwrap().lines() {
        let stamp = line.split(['@', ':', ' ']).find_map(|word| {
            let (s, us) = word.split_once('.').filter(|(_, us)| us.len() == 6)?;
            Some((word, s.parse::<u64>().ok()? * 1_000_000 + us.parse::<u64>().ok()?))
        });
        if let Some((word, us)) = stamp {
            let us = change(us);
            let new = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
            out += &line.replacen(word, &new, 1);
        } else {
            out += line;
        }
        out.push('\n');
    }
    out.into_bytes()
}

/// The events without their times, and without the physical IOMMU's invalidations: those need not
/// stand at the same place among events that do not depend on them.
fn untimed(events: &[Event]) -> Vec<Event> {
    let inside = events.iter().filter(|e| e.kind != Kind::HostInvalidate);
    inside.map(|e| Event { time_ns: 0, ..*e }).collect()
}

/// The machine is paused while the guest boots. Its clocks lose what the clock source's counter
/// wraps by (32 bits of 100 MHz), the host's goes on.
#[test]
fn bundle_of_a_paused_machine() {
    const BOOTED_US: u64 = 1_795_404_183_000_000;
    let texts = BUNDLE.map(|n| fixture(&format!("shadow-nvme-a.{n}")));
    let (_, events) = check_bundle(&texts);
    let [host, guest, vmm, hypervisor] = texts;
    let host = restamped(&host, |us| if us < BOOTED_US { us } else { us + 42_949_672 });
    let paused = [host, guest, vmm, hypervisor];
    let (_, of_paused) = check_bundle(&paused);
    assert_eq!(untimed(&of_paused), untimed(&events));
    let (report, _) = import_bundle(&paused).unwrap();
    assert_eq!(report.count("clock_steps"), 1);
    assert!(report.count("clock_step_largest_ns").abs_diff(42_949_672_000) < 1_000_000_000);
}

/// A paused machine's clock stands still afterwards, and the VMM reads it 1 ms late: regions that
/// VFIO is told about still stand before the maps and unmaps that they become.
#[test]
fn bundle_of_a_standing_clock() {
    // The VMM's times of two looks of the guest's firmware at the device's BARs, and the same
    // on the hypervisor's clock.
    const VMM_US: std::ops::Range<u64> = 1_795_404_183_050_000..1_795_404_183_500_000;
    const HYPERVISOR_US: std::ops::Range<u64> = 222_705_000..223_155_000;
    let texts = BUNDLE.map(|n| fixture(&format!("shadow-nvme-a.{n}")));
    let (_, events) = check_bundle(&texts);
    let [host, guest, vmm, hypervisor] = texts;
    let vmm = restamped(&vmm, |us| if VMM_US.contains(&us) { VMM_US.start + 1_000 } else { us });
    let hypervisor =
        restamped(
            &hypervisor,
            |us| if HYPERVISOR_US.contains(&us) { HYPERVISOR_US.start } else { us },
        );
    let standing = [host, guest, vmm, hypervisor];
    let (_, of_standing) = check_bundle(&standing);
    assert_eq!(untimed(&of_standing), untimed(&events));
    assert!(import_bundle(&standing).unwrap().0.count("regions_moved_before_their_maps") > 10);
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

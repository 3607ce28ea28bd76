//! QEMU's side of the host: VFIO's listener and notifiers, iommufd. The VMM's log of the bundle
//! `shadow-nvme-a` (QEMU 7.2) is the fixture for VFIO; iommufd's lines follow the format strings
//! of QEMU 10.2.2 (7.2 has none).

mod import_common;

use std::collections::BTreeMap;

use import_common::fixture;
use ioasim_events::{DomainId, Event, Flags, Kind, Requester, Scope};
use ioasim_traces::import::{
    ImportReport, Inputs, MemoryLines, MemorySink, Options, TextKind, host_log, import_to_file,
    qemu_log, sniff, virtio_iommu,
};
use proptest::prelude::*;

fn host(text: &[u8]) -> (ImportReport, MemorySink) {
    let mut sink = MemorySink::default();
    let lines = MemoryLines::new("host", text);
    let (report, _) = host_log(lines, &mut sink, &mut Options::default()).unwrap();
    assert_eq!(report.count("lines_damaged"), 0, "{:?}", report.damaged);
    (report, sink)
}

fn vmm(with: &[&str]) -> Vec<u8> {
    let text = String::from_utf8(fixture("shadow-nvme-a.vmm.qemu.log")).unwrap();
    let kept = text.lines().filter(|l| with.iter().any(|w| l.contains(w)));
    kept.fold(String::new(), |all, l| all + l + "\n").into_bytes()
}

fn of(events: &[Event], kind: Kind) -> Vec<Event> {
    events.iter().filter(|e| e.kind == kind).copied().collect()
}

/// The parent's table at the end, by first address.
fn parent(events: &[Event]) -> BTreeMap<u64, (u64, u64)> {
    let mut table = BTreeMap::new();
    for e in events {
        match e.kind {
            Kind::ParentMap => assert!(table.insert(e.addr, (e.size, e.out)).is_none()),
            Kind::ParentUnmap => assert_eq!(table.remove(&e.addr).map(|r| r.0), Some(e.size)),
            _ => {}
        }
    }
    table
}

/// The listener alone: the guest's memory while its firmware rearranges it.
#[test]
fn memory_of_a_recorded_guest() {
    let (report, sink) = host(&vmm(&["vfio_listener_region"]));
    assert_eq!(report.importer, "qemu-host");
    let text = vmm(&["vfio_listener_region_add_ram"]);
    let added = text.iter().filter(|b| **b == b'\n').count() as u64;
    assert_eq!(report.count("parent_maps") + report.count("parent_maps_repeated"), added);
    assert_eq!(report.count("parent_unmaps_of_unknown"), 0);
    assert_eq!(report.count("maps"), 0);
    assert!(report.count("parent_unmaps_at_switch") > 0, "the device moved behind the IOMMU");
    let table = parent(&sink.events);
    let ram: u64 = table.range(..0x2000_0000).map(|(_, r)| r.0).sum();
    assert_eq!(ram, 512 << 20, "RAM without holes, although the device has left");
    assert!(sink.events.windows(2).all(|e| e[0].time_ns <= e[1].time_ns));
}

/// With notifications: the shadow's operations are those that the VMM's walk logged.
#[test]
fn notifications_of_a_recorded_guest() {
    let (report, sink) = host(&vmm(&["vfio_"]));
    let (_, whole) = import_common::import(&fixture("shadow-nvme-a.vmm.qemu.log"), None).unwrap();
    let maps = |events: &[Event]| -> Vec<(u64, u64)> {
        of(events, Kind::ShadowMap).iter().map(|e| (e.addr, e.size)).collect()
    };
    assert!(maps(&sink.events).len() > 500);
    assert_eq!(maps(&sink.events), maps(&whole.events));
    assert_eq!(report.count("maps_without_output"), maps(&sink.events).len() as u64);
    // Each is a map of the guest, too, of one page after the other.
    assert_eq!(of(&sink.events, Kind::Map).len(), maps(&sink.events).len());
    assert_eq!(report.count("maps_refused"), 0);
}

/// In one log with the emulated IOMMU its importer writes the parent as well.
#[test]
fn together_with_vtd() {
    let all = fixture("shadow-nvme-a.vmm.qemu.log");
    let (report, sink) = import_common::import(&all, None).unwrap();
    let (alone, expected) = host(&vmm(&["vfio_listener_region"]));
    for name in ["parent_maps", "parent_unmaps", "parent_maps_repeated", "parent_unmaps_at_switch"]
    {
        assert_eq!(report.count(name), alone.count(name), "{name}");
    }
    let changes = |events: &[Event]| -> Vec<(Kind, u64, u64, u64)> {
        let all = events.iter().filter(|e| matches!(e.kind, Kind::ParentMap | Kind::ParentUnmap));
        all.map(|e| (e.kind, e.addr, e.size, e.out)).collect()
    };
    assert_eq!(changes(&sink.events), changes(&expected.events));
    let without = vmm(&["vtd_"]);
    let (_, rest) = import_common::import(&without, None).unwrap();
    assert!(changes(&rest.events).is_empty());
    let guests = |events: &[Event]| -> Vec<(Kind, u64, u64, u64)> {
        let all = events.iter().filter(|e| !matches!(e.kind, Kind::ParentMap | Kind::ParentUnmap));
        all.map(|e| (e.kind, e.addr, e.size, e.out)).collect()
    };
    assert_eq!(guests(&sink.events), guests(&rest.events), "the guest's events are the same");
}

const RAM: &str =
    "5@1.000000:vfio_listener_region_add_ram region_add [ram] 0x0 - 0x3fffffff [0x7f0000000000]\n";

#[test]
fn together_with_virtio_iommu() {
    let text = format!(
        "{RAM}5@1.000001:virtio_iommu_attach domain=1 endpoint=8\n\
         5@1.000002:virtio_iommu_map domain=1 virt_start=0x1000 virt_end=0x1fff phys_start=0x5000 flags=3\n\
         5@1.000003:vfio_iommu_map_notify iommu MAP @ 0x1000 - 0x1fff\n"
    );
    let mut sink = MemorySink::default();
    let lines = MemoryLines::new("log", text.as_bytes());
    let (report, _) = virtio_iommu(lines, &mut sink, &mut Options::default()).unwrap();
    assert_eq!((report.count("maps"), report.count("parent_maps")), (1, 1));
    assert_eq!(report.count("vmm_events_unused"), 1);
    assert_eq!(of(&sink.events, Kind::ParentMap)[0].out, 0x7f00_0000_0000);
}

fn kind_of(text: &str) -> TextKind {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, text).unwrap();
    sniff(&path).unwrap()
}

#[test]
fn told_by_content() {
    assert_eq!(kind_of(RAM), TextKind::QemuHost);
    assert_eq!(kind_of("iommufd_backend_connect fd=18 owned=1 users=1\n"), TextKind::QemuHost);
    let vtd = "1@2.0:vtd_context_cache_reset \n";
    let virtio = "1@2.0:virtio_iommu_attach domain=1 endpoint=8\n";
    assert_eq!(kind_of(&format!("{}{vtd}", RAM.repeat(9000))), TextKind::QemuLog);
    assert_eq!(kind_of(&format!("{RAM}{virtio}")), TextKind::VirtioIommu);
    // In a wrong role.
    let dir = tempfile::tempdir().unwrap();
    let (log, ftrace) = (dir.path().join("log"), dir.path().join("ftrace"));
    std::fs::write(&log, RAM).unwrap();
    std::fs::write(&ftrace, "# tracer: nop\n").unwrap();
    let inputs = Inputs::Log { log: log.clone(), guest_ftrace: Some(ftrace) };
    let out = dir.path().join("t.parquet");
    let error = import_to_file(&inputs, &out, &mut Options::default()).unwrap_err().to_string();
    assert!(error.contains("joins"), "{error}");
    let inputs = Inputs::Log { log, guest_ftrace: None };
    let (report, summary) = import_to_file(&inputs, &out, &mut Options::default()).unwrap();
    assert_eq!((report.importer, summary.events), ("qemu-host", 1));
    std::fs::write(dir.path().join("none"), "vfio_msi_disable  (0000:01:00.0)\n").unwrap();
    let inputs = Inputs::Log { log: dir.path().join("none"), guest_ftrace: None };
    let error = import_to_file(&inputs, &out, &mut Options::default()).unwrap_err().to_string();
    assert!(error.contains("-trace 'vfio_listener*'"), "{error}");
}

/// An assigned device in a guest without an IOMMU, as QEMU 10.2 with iommufd logs it.
#[test]
fn an_ioas_of_memory() {
    let text = format!(
        "5@1.0:iommufd_cdev_connect_and_bind  [iommufd=18] Successfully bound device 0000:3b:00.1 (fd=24): output devid=1\n\
         5@1.1:iommufd_backend_alloc_ioas  iommufd=18 ioas=2\n\
         5@1.2:iommufd_backend_alloc_hwpt  iommufd=18 dev_id=1 pt_id=2 flags=0x2 hwpt_type=0 len=0 data_ptr=0x0 out_hwpt=3 (0)\n\
         5@1.3:iommufd_cdev_attach_ioas_hwpt  [iommufd=18] Successfully attached device 0000:3b:00.1 (24) to id=3\n\
         {}5@1.5:iommufd_backend_map_file_dma  iommufd=18 ioas=2 iova=0x0 size=0x40000000 fd=9 start=0 readonly=0 (0)\n\
         5@1.6:vfio_listener_region_add_ram region_add [ram] 0xfe000000 - 0xfe003fff [0x7f4000000000]\n\
         5@1.7:iommufd_backend_map_dma  iommufd=18 ioas=2 iova=0xfe000000 size=0x4000 addr=0x7f4000000000 readonly=0 (-14)\n\
         5@1.8:iommufd_backend_set_dirty  iommufd=18 hwpt=3 enable=1 (0)\n\
         5@1.9:vfio_listener_region_del region_del 0x0 - 0x3fffffff\n\
         5@2.0:iommufd_backend_unmap_dma  iommufd=18 ioas=2 iova=0x0 size=0x40000000 (0)\n\
         5@2.1:iommufd_cdev_detach_ioas_hwpt  [iommufd=18] Successfully detached 0000:3b:00.1\n\
         5@2.2:iommufd_backend_free_id  iommufd=18 id=3 (0)\n\
         5@2.3:iommufd_backend_free_id  iommufd=18 id=2 (0)\n",
        RAM.replace("1.000000", "1.4")
    );
    let (report, sink) = host(text.as_bytes());
    let kinds: Vec<Kind> = sink.events.iter().map(|e| e.kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::ParentMap,
            Kind::Attach,
            // The kernel refused it.
            Kind::ParentMap,
            Kind::ParentUnmap,
            Kind::Marker,
            Kind::Detach,
            Kind::ParentUnmap,
        ]
    );
    let attach = sink.events[1];
    assert_eq!((attach.requester, attach.domain), (Requester(0x3b01), DomainId::PARENT));
    assert_eq!(sink.markers[0].1, "dirty tracking on, table 3");
    assert_eq!((report.count("requests_failed"), report.count("maps")), (1, 0));
}

/// The shadow of a guest's table, and a nested table.
#[test]
fn ioas_of_shadows_and_nested_tables() {
    let text = format!(
        "{RAM}5@1.1:iommufd_backend_map_dma  iommufd=18 ioas=2 iova=0x0 size=0x40000000 addr=0x7f0000000000 readonly=0 (0)\n\
         5@1.2:iommufd_cdev_attach_ioas_hwpt  [iommufd=18] Successfully attached device 0000:3b:00.1 (24) to id=4\n\
         6@1.3:vfio_iommu_map_notify iommu MAP @ 0xfffff000 - 0xffffffff\n\
         5@1.31:vfio_listener_region_skip SKIPPING region_add 0xb0000000 - 0xbfffffff\n\
         6@1.4:iommufd_backend_map_dma  iommufd=18 ioas=4 iova=0xfffff000 size=0x1000 addr=0x7f0000005000 readonly=1 (0)\n\
         6@1.5:vfio_iommu_map_notify iommu UNMAP @ 0xfffff000 - 0xffffffff\n\
         6@1.6:iommufd_backend_unmap_dma  iommufd=18 ioas=4 iova=0xfffff000 size=0x1000 (0)\n\
         6@1.7:iommufd_backend_map_dma  iommufd=18 ioas=4 iova=0x5000 size=0x2000 addr=0x7e0000005000 readonly=0 (0)\n\
         6@1.8:iommufd_backend_alloc_hwpt  iommufd=18 dev_id=1 pt_id=3 flags=0x0 hwpt_type=1 len=24 data_ptr=0x7ffc00001000 out_hwpt=9 (0)\n\
         6@1.9:iommufd_cdev_attach_ioas_hwpt  [iommufd=18] Successfully attached device 0000:3b:00.1 (24) to id=9\n\
         6@2.0:iommufd_backend_invalidate_cache  iommufd=18 id=9 data_type=0 entry_len=16 entry_num=2 done_num=2 data_ptr=0x7ffc00001000 (0)\n\
         6@2.1:iommufd_backend_invalidate_cache  iommufd=18 id=77 data_type=1 entry_len=16 entry_num=1 done_num=1 data_ptr=0x7ffc00001000 (0)\n\
         6@2.2:iommufd_backend_free_id  iommufd=18 id=4 (0)\n\
         6@2.3:iommufd_backend_alloc_ioas  iommufd=40 ioas=4\n\
         6@2.4:iommufd_backend_map_dma  iommufd=40 ioas=4 iova=0x5000 size=0x1000 addr=0x7f0000005000 readonly=0 (0)\n"
    );
    let (report, sink) = host(text.as_bytes());
    let maps = of(&sink.events, Kind::Map);
    let told: Vec<_> = maps.iter().map(|e| (e.domain.0, e.addr, e.size, e.out)).collect();
    assert_eq!(
        told,
        [
            (4, 0xffff_f000, 0x1000, 0x5000),
            (4, 0x5000, 0x2000, 0x7e00_0000_5000),
            (1 << 20 | 4, 0x5000, 0x1000, 0x5000),
        ]
    );
    // Announced: the guest's own, seen through its shadow.
    assert!(maps[0].flags.has(Flags::INFERRED) && !maps[0].flags.has(Flags::WRITE));
    assert!(!maps[1].flags.has(Flags::INFERRED));
    assert_eq!(of(&sink.events, Kind::ShadowMap).len(), 1);
    assert_eq!(of(&sink.events, Kind::ShadowUnmap).len(), 1);
    let places: Vec<_> =
        of(&sink.events, Kind::Attach).iter().map(|e| (e.requester.0, e.domain.0)).collect();
    assert_eq!(places, [(0x3b01, 4), (0x3b01, 9)]);
    let scopes: Vec<_> =
        of(&sink.events, Kind::Invalidate).iter().map(|e| (e.domain.0, e.flags.scope())).collect();
    assert_eq!(scopes, [(9, Some(Scope::Domain)), (u32::MAX, Some(Scope::Global))]);
    assert_eq!(sink.markers[0].1, "nested table 9 (VT-d stage 1) on 3 for device 1");
    assert_eq!(report.count("maps_at_own_address"), 1);
    assert_eq!(report.count("commands_without_range"), 3);
    // The freed IOAS held a map.
    assert_eq!(report.count("unmaps_inferred"), 1);
}

/// One table, page by page, as the kernel keeps it.
fn replay(events: &[Event]) -> BTreeMap<(u32, u64), u64> {
    let mut table = BTreeMap::new();
    for e in events {
        let pages =
            (0..e.size >> 12).map(|i| ((e.domain.0, (e.addr >> 12) + i), (e.out >> 12) + i));
        match e.kind {
            Kind::Map => pages.for_each(|(p, out)| assert!(table.insert(p, out).is_none())),
            Kind::Unmap => pages.for_each(|(p, _)| assert!(table.remove(&p).is_some())),
            _ => {}
        }
    }
    table
}

proptest! {
    /// Random requests, printed as QEMU prints them, give the tables that the kernel keeps.
    #[test]
    fn printed_requests_read_back(
        steps in proptest::collection::vec(
            (any::<bool>(), 1..5u32, 0..24u64, 1..4u64, 0..1u64 << 18, any::<bool>(), any::<bool>()), 1..120),
    ) {
        let mut text = RAM.to_owned();
        let mut kernel: BTreeMap<u32, BTreeMap<u64, (u64, u64)>> = BTreeMap::new();
        for (i, (map, ioas, slot, pages, gpa, announced, fails)) in steps.into_iter().enumerate() {
            let table = kernel.entry(ioas).or_default();
            let (iova, size) = (slot << 14, pages << 12);
            let (last, vaddr) = (iova + size - 1, 0x7f00_0000_0000 + (gpa << 12));
            let stamp = format!("{}@2.{i:06}:", ioas + 10);
            if map {
                // Overlaps are the kernel's to refuse.
                let errno = if table.contains_key(&iova) { -17 } else if fails { -12 } else { 0 };
                if announced {
                    text += &format!("{stamp}vfio_iommu_map_notify iommu MAP @ {iova:#x} - {last:#x}\n");
                }
                text += &format!("{stamp}iommufd_backend_map_dma  iommufd=18 ioas={ioas} iova={iova:#x} size={size:#x} addr={vaddr:#x} readonly=0 ({errno})\n");
                if errno == 0 {
                    table.insert(iova, (size, gpa << 12));
                }
            } else {
                let size = table.get(&iova).map_or(size, |m| m.0);
                let (last, errno) = (iova + size - 1, if fails { -5 } else { 0 });
                if announced {
                    text += &format!("{stamp}vfio_iommu_map_notify iommu UNMAP @ {iova:#x} - {last:#x}\n");
                }
                let name = if table.contains_key(&iova) { "unmap_dma " } else { "unmap_dma_non_exist  Unmap nonexistent mapping:" };
                text += &format!("{stamp}iommufd_backend_{name} iommufd=18 ioas={ioas} iova={iova:#x} size={size:#x} ({errno})\n");
                if errno == 0 {
                    table.remove(&iova);
                }
            }
        }
        let (report, sink) = host(text.as_bytes());
        let mut expected = BTreeMap::new();
        for (ioas, table) in &kernel {
            for (iova, (size, gpa)) in table {
                expected.extend((0..size >> 12).map(|i| ((*ioas, (iova >> 12) + i), (gpa >> 12) + i)));
            }
        }
        prop_assert_eq!(replay(&sink.events), expected);
        prop_assert_eq!(report.count("maps_without_output"), 0);
        prop_assert_eq!(report.count("unmaps_inferred"), 0);
        // The same shadow operations as announced and carried out.
        let shadow = of(&sink.events, Kind::ShadowMap).len() + of(&sink.events, Kind::ShadowUnmap).len();
        prop_assert_eq!(shadow as u64, report.count("shadow_operations"));
    }

    #[test]
    fn cut_and_damaged(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut text = vmm(&["vfio_"]);
        text.truncate(20_000);
        let i = at.index(text.len());
        text[i] = byte;
        text.truncate(cut.index(text.len()));
        let mut sink = MemorySink::default();
        let lines = MemoryLines::new("host", &text);
        let mut options = Options { max_errors: u64::MAX, ..Options::default() };
        if host_log(lines, &mut sink, &mut options).is_ok() {
            prop_assert!(sink.events.windows(2).all(|e| e[0].time_ns <= e[1].time_ns));
        }
        // Handed to the wrong importer: an error, or no event of its own.
        let lines = MemoryLines::new("host", &text);
        let none = None::<MemoryLines<'_>>;
        let mut options = Options { max_errors: u64::MAX, ..Options::default() };
        prop_assert!(qemu_log(lines, none, &mut MemorySink::default(), &mut options).is_err());
    }
}

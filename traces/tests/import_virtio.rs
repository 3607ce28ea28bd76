//! A log of QEMU's virtio-iommu. The fixture is the beginning of a recording
//! made with `traces/record/record.sh --iommu virtio` (Linux 6.12, QEMU 7.2).

mod import_common;

use std::collections::BTreeMap;

use import_common::fixture;
use ioasim_events::{DomainId, Flags, Kind};
use ioasim_traces::import::{ImportReport, MemoryLines, MemorySink, Options, virtio_iommu};
use proptest::prelude::*;

fn import(text: &[u8]) -> (ImportReport, MemorySink) {
    let mut sink = MemorySink::default();
    let lines = MemoryLines::new("log", text);
    let (report, _) = virtio_iommu(lines, &mut sink, &mut Options::default()).unwrap();
    (report, sink)
}

/// Every access against a page-by-page table of the maps before it; the
/// number of accesses compared, and of those that differ.
fn replay(sink: &MemorySink) -> (u64, u64) {
    let mut table = BTreeMap::new();
    let (mut compared, mut wrong) = (0, 0);
    let mut last = 0;
    for e in &sink.events {
        assert!(e.time_ns >= last);
        last = e.time_ns;
        match e.kind {
            Kind::Map => {
                for i in 0..e.size >> 12 {
                    let old = table.insert((e.domain, (e.addr >> 12) + i), (e.out >> 12) + i);
                    wrong += u64::from(old.is_some());
                }
            }
            Kind::Unmap => {
                for i in 0..e.size >> 12 {
                    let old = table.remove(&(e.domain, (e.addr >> 12) + i));
                    wrong += u64::from(old.is_none());
                }
            }
            Kind::Dma if e.flags.has(Flags::OUT_KNOWN) && e.domain != DomainId::PARENT => {
                compared += 1;
                let right = table.get(&(e.domain, e.addr >> 12)) == Some(&(e.out >> 12));
                wrong += u64::from(!right || e.out & 0xfff != e.addr & 0xfff);
            }
            _ => {}
        }
    }
    (compared, wrong)
}

#[test]
fn fixture_explains_every_output() {
    let text = fixture("virtio-nvme.qemu.log");
    let (report, sink) = import(&text);
    let lines = |what: &str| {
        let text = std::str::from_utf8(&text).unwrap();
        text.lines().filter(|l| l.contains(what)).count() as u64
    };
    assert_eq!(report.count("lines_damaged"), 0);
    assert_eq!(report.count("maps"), lines("virtio_iommu_map "));
    assert_eq!(report.count("unmaps"), lines("virtio_iommu_unmap_done "));
    assert_eq!(report.count("invalidations"), lines("virtio_iommu_unmap "));
    assert_eq!(report.count("attaches"), lines("virtio_iommu_attach "));
    assert_eq!(report.count("maps_refused"), 0);
    let (compared, wrong) = replay(&sink);
    assert_eq!(compared, lines("virtio_iommu_translate_out "));
    assert_eq!(wrong, 0);
    // Interrupts go to the doorbell, which is no mapping.
    let doorbell = lines("addr=0xfee");
    let read = report.count("translations_without_output") + report.count("dma_passed_through");
    assert!(read.abs_diff(doorbell) <= 1, "{read} {doorbell}");
    // The requests alone, without the mappings that they removed, say the same.
    let text: String = std::str::from_utf8(&text)
        .unwrap()
        .lines()
        .filter(|l| !l.contains("unmap_done"))
        .fold(String::new(), |all, l| all + l + "\n");
    let (_, without) = import(text.as_bytes());
    assert_eq!(replay(&without), (compared, 0));
}

proptest! {
    /// Random requests on a slow model of the device, printed and read back.
    #[test]
    fn printed_requests_read_back(
        steps in proptest::collection::vec((0..3u8, 0..2u32, 0..32u64, 1..5u64, 0..1u64 << 36), 1..200),
    ) {
        let mut text = String::new();
        let mut n = 0;
        let mut line = |what: String| {
            n += 7;
            text += &format!("5@100.{n:06}:virtio_iommu_{what}\n");
        };
        for endpoint in 0..2 {
            line(format!("attach domain={} endpoint={}", endpoint + 1, endpoint * 8));
        }
        // Mappings by domain and first page: pages and output.
        let mut model: BTreeMap<(u32, u64), (u64, u64)> = BTreeMap::new();
        // Before the first `unmap_done` a log looks like that of a QEMU that
        // never prints them, and what a request removes is inferred.
        line("map domain=9 virt_start=0x0 virt_end=0xfff phys_start=0x0 flags=3".into());
        line("unmap domain=9 virt_start=0x0 virt_end=0xfff".into());
        line("unmap_done domain=9 virt_start=0x0 virt_end=0xfff".into());
        let (mut maps, mut unmaps, mut accesses) = (1, 1, 0);
        for (what, endpoint, page, pages, out) in steps {
            let domain = endpoint + 1;
            let overlaps = |m: &BTreeMap<(u32, u64), (u64, u64)>, page: u64, pages: u64| -> Vec<u64> {
                m.iter()
                    .filter(|((d, p), (n, _))| *d == domain && *p < page + pages && page < p + n)
                    .map(|((_, p), _)| *p)
                    .collect()
            };
            let (start, last) = (page << 12, ((page + pages) << 12) - 1);
            match what {
                0 => {
                    line(format!("map domain={domain} virt_start={start:#x} virt_end={last:#x} phys_start={:#x} flags=3", out << 12));
                    if overlaps(&model, page, pages).is_empty() {
                        model.insert((domain, page), (pages, out));
                        maps += 1;
                    }
                }
                1 => {
                    line(format!("unmap domain={domain} virt_start={start:#x} virt_end={last:#x}"));
                    let hit = overlaps(&model, page, pages);
                    let whole = hit.iter().all(|p| *p >= page && p + model[&(domain, *p)].0 <= page + pages);
                    for p in hit.into_iter().filter(|_| whole) {
                        let (n, _) = model.remove(&(domain, p)).unwrap();
                        let (start, last) = (p << 12, ((p + n) << 12) - 1);
                        line(format!("unmap_done domain={domain} virt_start={start:#x} virt_end={last:#x}"));
                        unmaps += 1;
                    }
                }
                _ => {
                    let sid = endpoint * 8;
                    let addr = start + (out & 0xfff);
                    line(format!("translate mr=region-{sid} rid={sid} addr={addr:#x} flag=1"));
                    match overlaps(&model, page, 1).first() {
                        Some(p) => {
                            let to = ((model[&(domain, *p)].1 + page - p) << 12) | (out & 0xfff);
                            line(format!("translate_out {addr:#x} -> {to:#x} for sid={sid}"));
                            accesses += 1;
                        }
                        None => line(format!("report_fault FAULT reason=1 flags=1 endpoint={sid} address ={addr:#x}")),
                    }
                }
            }
        }
        let (report, sink) = import(text.as_bytes());
        prop_assert_eq!(report.count("maps"), maps);
        prop_assert_eq!(report.count("unmaps"), unmaps);
        prop_assert_eq!(replay(&sink), (accesses, 0));
    }
}

#[test]
fn damage() {
    let text = fixture("virtio-nvme.qemu.log");
    for cut in (0..text.len()).step_by(text.len() / 19) {
        let mut flipped = text[..cut].to_vec();
        if let Some(byte) = flipped.get_mut(cut / 2) {
            *byte ^= 0x10;
        }
        let lines = MemoryLines::new("log", &flipped);
        let _ = virtio_iommu(lines, &mut MemorySink::default(), &mut Options::default());
    }
    let other = b"1@2.3:vtd_inv_desc_iotlb_global iotlb invalidate global\n";
    let lines = MemoryLines::new("log", other);
    let error = virtio_iommu(lines, &mut MemorySink::default(), &mut Options::default());
    assert!(error.unwrap_err().to_string().contains("virtio_iommu_*"));
}

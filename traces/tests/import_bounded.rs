//! Memory stays bounded, however long or strange the logs are. One test in a
//! process of its own, since it looks at the process's peak.

mod import_common;

use import_common::fixture;
use import_common::made::{Count, Made, peak_mb};
use ioasim_traces::import::{self, LineSource, Options};

fn repeated(text: Vec<u8>, times: u64) -> impl LineSource {
    let (mut at, mut round) = (0, 0);
    Made::new(move |_, line: &mut Vec<u8>| {
        if at == text.len() {
            (at, round) = (0, round + 1);
        }
        let rest = &text[at..];
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len() - 1) + 1;
        line.extend_from_slice(rest[..end].trim_ascii_end());
        at += end;
        round < times
    })
}

#[test]
fn peak_memory() {
    let options = &mut Options::default();
    let (log, ftrace) =
        (fixture("mixed-strict-cm.qemu.log"), fixture("mixed-strict-cm.ftrace.txt"));

    // The same recording 20 and 200 times.
    let mut events = Count(0);
    let (report, ..) = import::qemu_log(
        repeated(log.clone(), 20),
        Some(repeated(ftrace.clone(), 20)),
        &mut events,
        options,
    )
    .unwrap();
    let first = peak_mb();
    assert_eq!(report.count("log_seams"), 19);
    let (report, ..) =
        import::qemu_log(repeated(log, 200), Some(repeated(ftrace, 200)), &mut events, options)
            .unwrap();
    assert_eq!(report.count("log_seams"), 199);
    assert_eq!(report.count("descriptors_joined"), report.count("ftrace_descriptors"));
    let second = peak_mb();
    println!("peak {first} MB for 20 copies, {second} MB for 200");
    assert!(second <= first + 24, "grows with the length: {first} to {second} MB");

    // A new domain with every access.
    let hostile = Made::new(|n, line: &mut Vec<u8>| {
        let text = format!(
            "1@{}.{:06}:vtd_iotlb_page_update IOTLB page update sid {:#x} iova {:#x} slpte {:#x} domain {:#x}",
            n / 1_000_000,
            n % 1_000_000,
            n & 0xffff,
            n << 12 & 0xffff_ffff_f000,
            n << 12 & 0xf_ffff_f000 | 3,
            n & 0x7fff_ffff,
        );
        line.extend_from_slice(text.as_bytes());
        n < 3_000_000
    });
    let (report, ..) =
        import::qemu_log(hostile, None::<import::MemoryLines>, &mut events, options).unwrap();
    assert_eq!(report.count("dma"), 3_000_000);
    assert!(report.count("mappings_forgotten") > 0);
    println!("peak {} MB with three million domains", peak_mb());
    assert!(peak_mb() < 256, "{} MB", peak_mb());

    // An SMMU's log with a new page, address space and stream every time, and
    // the ftrace of another run that ends early.
    let hostile = Made::new(|n, line: &mut Vec<u8>| {
        let (id, page) = ((n / 3) & 0xffff, (n / 3) << 12 & 0xffff_ffff_f000);
        let text = match n % 3 {
            0 => format!("smmu_iotlb_lookup_miss IOTLB cache MISS asid={id} addr={page:#x}"),
            1 => format!(
                "smmuv3_translate_success m sid={id:#x} iova={page:#x} translated={page:#x} perm=0x3"
            ),
            _ => format!(
                "smmuv3_s1_range_inval vmid=0 asid={id} addr={page:#x} tg=1 num_pages=0x1 ttl=3 leaf=1"
            ),
        };
        line.extend_from_slice(
            format!("1@{}.{:06}:{text}", n / 1_000_000, n % 1_000_000).as_bytes(),
        );
        n < 4_500_000
    });
    let short = repeated(fixture("smmu-nvme-strict.ftrace.txt"), 1);
    let result = import::qemu_log(hostile, Some(short), &mut events, options);
    assert!(result.is_err_and(|e| e.to_string().contains("does not belong")));
    println!("peak {} MB with an SMMU", peak_mb());
    assert!(peak_mb() < 256, "{} MB", peak_mb());

    // Nothing but markers, names and CPUs.
    let (log, _) = (fixture("mixed-strict-cm.qemu.log"), ());
    let strange = Made::new(|n, line: &mut Vec<u8>| {
        let text = match n % 3 {
            0 => format!("t-{n} [{n}] ..... {n}.5: tracing_mark_write: {}", "x".repeat(3000)),
            1 => format!("t-{n} [000] ..... {n}.5: event_{n}: y"),
            _ => format!(
                "t-{n} [{}] ..... {n}.5: map: IOMMU: iova=0x1000 - 0x2000 paddr=0x0 size=4096",
                n % 5000
            ),
        };
        line.extend_from_slice(text.as_bytes());
        n < 300_000
    });
    let result = import::qemu_log(repeated(log, 3), Some(strange), &mut events, options);
    let e = result.map(|_| ()).unwrap_err();
    assert!(e.to_string().contains("does not belong to the log"), "{e}");
    println!("peak {} MB with strange texts", peak_mb());
    assert!(peak_mb() < 256, "{} MB", peak_mb());
}

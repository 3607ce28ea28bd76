//! Memory stays bounded for logs of QEMU's host side and for scatter lists that are never
//! unmapped. One test in a process of its own, since it looks at the process's peak.

mod import_common;

use import_common::made::{Count, Made, peak_mb};
use ioasim_traces::import::{Options, host_log, kernel_trace};

const LINES: u64 = 600_000;

#[test]
fn peak_memory() {
    // New objects, devices, threads, addresses and ranges of RAM with every line.
    let hostile = Made::new(|n, line: &mut Vec<u8>| {
        let (tid, iova, id) = (n & 0xff_ffff, n << 13, n & 0x7fff_ffff);
        let text = match n % 8 {
            0 => format!(
                "vfio_listener_region_add_ram region_add [ram] {iova:#x} - {:#x} [{:#x}]",
                iova + 0xfff,
                n << 21
            ),
            1 => format!(
                "vfio_listener_region_add_iommu region_add [iommu] {iova:#x} - {:#x}",
                iova + 0xfff
            ),
            2 => format!("vfio_iommu_map_notify iommu MAP @ {iova:#x} - {:#x}", iova + 0xfff),
            3 => format!(
                "iommufd_backend_alloc_hwpt  iommufd={} dev_id=1 pt_id={id} flags=0x0 hwpt_type={} len=0 data_ptr=0x0 out_hwpt={id} (0)",
                n % 5000,
                n & 1
            ),
            4 => format!(
                "iommufd_cdev_attach_ioas_hwpt  [iommufd={}] Successfully attached device {id:x} (3) to id={id}",
                n % 5000
            ),
            5 => format!("vfio_listener_region_del region_del {iova:#x} - {:#x}", iova + 0xfff),
            _ => format!(
                "iommufd_backend_map_dma  iommufd={} ioas={id} iova={iova:#x} size=0x1000 addr={:#x} readonly=0 (0)",
                n % 5000,
                n << 21 | 0x1000
            ),
        };
        line.extend_from_slice(
            format!("{tid}@{}.{:06}:{text}", n / 1_000_000, n % 1_000_000).as_bytes(),
        );
        n < LINES
    });
    let mut events = Count(0);
    let (report, _) = host_log(hostile, &mut events, &mut Options::default()).unwrap();
    assert_eq!(report.count("lines_damaged"), 0);
    assert!(report.count("maps") > LINES / 8);
    assert_eq!(report.count("parent_maps"), LINES / 8);
    assert!(report.count("parent_ranges_forgotten") > 0);
    println!("peak {} MB for the host's log", peak_mb());
    assert!(peak_mb() < 256, "{} MB", peak_mb());

    // Scatter lists that are mapped and never unmapped.
    let open = || {
        Ok(Made::new(|n, line: &mut Vec<u8>| {
            let (addr, phys) = (n << 13 & 0xffff_ffff, n << 12);
            let text = format!(
                "a-1 [000] {}.{:06}: dma_map_sg: 0000:00:01.0 dir=TO_DEVICE nents=1/1 ents=1/1 dma_addrs={{{addr:#x}}} sizes={{0x1000}} phys_addrs={{{phys:#x}}} attrs=",
                n / 1_000_000,
                n % 1_000_000,
            );
            line.extend_from_slice(text.as_bytes());
            n < LINES
        }))
    };
    let (report, _) = kernel_trace(open, &mut events, &mut Options::default()).unwrap();
    assert_eq!(report.count("maps"), LINES);
    println!("peak {} MB with scatter lists", peak_mb());
    assert!(peak_mb() < 256, "{} MB", peak_mb());
}

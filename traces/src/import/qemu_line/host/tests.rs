use proptest::prelude::*;

use super::super::{Line, parse};
use super::*;

fn read(text: &str) -> Line<'_> {
    parse(text.as_bytes()).1
}

const IOAS: Object = Object { iommufd: 18, id: 2 };

/// Lines as `backends/trace-events` of QEMU 10.2.2 says; none was recorded here.
#[test]
fn lines() {
    let map = |vaddr, readonly, ok| Host::Map {
        ioas: IOAS,
        iova: 0x1000,
        size: 0x2000,
        vaddr,
        readonly,
        ok,
    };
    for (text, expected) in [
        (
            "iommufd_backend_map_dma  iommufd=18 ioas=2 iova=0x1000 size=0x2000 addr=0x7f0000001000 readonly=0 (0)",
            map(0x7f00_0000_1000, false, true),
        ),
        (
            "iommufd_backend_map_dma  iommufd=18 ioas=2 iova=0x1000 size=0x2000 addr=0x7f0000001000 readonly=1 (-17)",
            map(0x7f00_0000_1000, true, false),
        ),
        (
            "iommufd_backend_map_file_dma  iommufd=18 ioas=2 iova=0x1000 size=0x2000 fd=9 start=-4096 readonly=0 (0)",
            map(0, false, true),
        ),
        (
            "iommufd_backend_unmap_dma  iommufd=18 ioas=2 iova=0x1000 size=0x2000 (0)",
            Host::Unmap { ioas: IOAS, iova: 0x1000, size: 0x2000, ok: true },
        ),
        (
            "iommufd_backend_unmap_dma_non_exist  Unmap nonexistent mapping: iommufd=18 ioas=2 iova=0x1000 size=0x2000 (-1)",
            Host::Unmap { ioas: IOAS, iova: 0x1000, size: 0x2000, ok: true },
        ),
        (
            "iommufd_backend_alloc_hwpt  iommufd=18 dev_id=1 pt_id=3 flags=0x2 hwpt_type=1 len=24 data_ptr=0x7ffc00001000 out_hwpt=5 (0)",
            Host::AllocHwpt {
                hwpt: Object { iommufd: 18, id: 5 },
                parent: 3,
                device: 1,
                kind: 1,
                ok: true,
            },
        ),
        (
            "iommufd_backend_invalidate_cache  iommufd=18 id=5 data_type=0 entry_len=16 entry_num=4 done_num=3 data_ptr=0x7ffc00001000 (-5)",
            Host::Invalidate { of: Object { iommufd: 18, id: 5 }, entries: 3 },
        ),
        (
            "iommufd_backend_set_dirty  iommufd=18 hwpt=5 enable=1 (0)",
            Host::SetDirty { hwpt: Object { iommufd: 18, id: 5 }, on: true, ok: true },
        ),
        ("iommufd_backend_free_id  iommufd=18 id=2 (0)", Host::Free { object: IOAS, ok: true }),
        (
            "iommufd_cdev_attach_ioas_hwpt  [iommufd=18] Successfully attached device 0000:3b:00.1 (24) to id=2",
            Host::Attach { device: 0x3b01, to: IOAS },
        ),
        (
            "iommufd_cdev_detach_ioas_hwpt  [iommufd=18] Successfully detached 0000:3b:00.1",
            Host::Detach { iommufd: 18, device: 0x3b01 },
        ),
    ] {
        assert_eq!(read(text), Line::Event(Event::Host(expected)), "{text}");
    }
    assert_eq!(
        read("iommufd_backend_connect fd=18 owned=1 users=1"),
        Line::Other(b"iommufd_backend_connect")
    );
    for text in [
        "iommufd_backend_map_dma  iommufd=18 ioas=2 iova=0x1000 size=0x0 addr=0x1000 readonly=0 (0)",
        "iommufd_backend_map_dma  iommufd=18 ioas=2 iova=0xfffffffffffff000 size=0x2000 addr=0x1000 readonly=0 (0)",
        "iommufd_backend_map_dma  iommufd=-1 ioas=2 iova=0x1000 size=0x1000 addr=0x1000 readonly=0 (0)",
        "iommufd_backend_unmap_dma  iommufd=18 ioas=2 iova=0x1000 size=0x2000",
        "iommufd_cdev_attach_ioas_hwpt  [iommufd=18] Successfully attached device ",
    ] {
        assert!(matches!(read(text), Line::Damaged(_)), "{text}");
    }
    // A mediated device.
    assert!(requester_of(b"4b20d080-1b54-4048-85b3-a6a62d165c01") > 0xffff);
}

proptest! {
    #[test]
    fn printed_events_read_back(
        (iommufd, id, other) in (0..1u32 << 31, 0..1u32 << 31, any::<u32>()),
        iova in 0..u64::MAX / 2,
        size in 1..u64::MAX / 2,
        vaddr in 1..u64::MAX,
        (flag, errno) in (any::<bool>(), prop_oneof![Just(0), -4096..0i32]),
        device in 0..0x1_0000u32,
        kind in 0..9,
    ) {
        let (ioas, ok, on) = (Object { iommufd, id }, errno == 0, i32::from(flag));
        let name = format!("0000:{:02x}:{:02x}.{:x}", device >> 8, device >> 3 & 31, device & 7);
        let map = |vaddr| Host::Map { ioas, iova, size, vaddr, readonly: flag, ok };
        let (text, event) = match kind {
            0 => (
                format!("backend_map_dma  iommufd={iommufd} ioas={id} iova={iova:#x} size={size:#x} addr={vaddr:#x} readonly={on} ({errno})"),
                map(vaddr),
            ),
            1 => (
                format!("backend_map_file_dma  iommufd={iommufd} ioas={id} iova={iova:#x} size={size:#x} fd=7 start={} readonly={on} ({errno})", vaddr as i64),
                map(0),
            ),
            2 => (
                format!("backend_unmap_dma  iommufd={iommufd} ioas={id} iova={iova:#x} size={size:#x} ({errno})"),
                Host::Unmap { ioas, iova, size, ok },
            ),
            3 => (
                format!("backend_alloc_hwpt  iommufd={iommufd} dev_id=1 pt_id={other} flags=0x1 hwpt_type=2 len=16 data_ptr={vaddr:#x} out_hwpt={id} ({errno})"),
                Host::AllocHwpt { hwpt: ioas, parent: other, device: 1, kind: 2, ok },
            ),
            4 => (
                format!("backend_invalidate_cache  iommufd={iommufd} id={id} data_type=0 entry_len=16 entry_num=9 done_num={other} data_ptr={vaddr:#x} ({errno})"),
                Host::Invalidate { of: ioas, entries: other },
            ),
            5 => (
                format!("backend_set_dirty  iommufd={iommufd} hwpt={id} enable={on} ({errno})"),
                Host::SetDirty { hwpt: ioas, on: flag, ok },
            ),
            6 => (
                format!("backend_free_id  iommufd={iommufd} id={id} ({errno})"),
                Host::Free { object: ioas, ok },
            ),
            7 => (
                format!("cdev_attach_ioas_hwpt  [iommufd={iommufd}] Successfully attached device {name} (9) to id={id}"),
                Host::Attach { device, to: ioas },
            ),
            _ => (
                format!("cdev_detach_ioas_hwpt  [iommufd={iommufd}] Successfully detached {name}"),
                Host::Detach { iommufd, device },
            ),
        };
        for stamp in ["", "77@5.000001:", "2026-01-01T00:00:00.000001Z "] {
            let line = format!("{stamp}iommufd_{text}");
            prop_assert_eq!(read(&line), Line::Event(Event::Host(event)));
        }
    }
}

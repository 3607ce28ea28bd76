//! Arguments of the events that importers read, as QEMU's `log` backend prints
//! them (`hw/*/trace-events`, `backends/trace-events` of 7.2.0, 10.0.13 and
//! 10.2.2). Where a version changed them there is a text for each.

use std::io::Write;

/// The texts of an event's arguments; none for events that no importer reads.
///
/// `%x`, `%02x` hexadecimal, `%h` that of a signed 32-bit value, `%d` signed 32 bits, `%u` unsigned 32 bits, `%l`
/// signed 64 bits, `%p` a pointer, `%s` a string.
pub(super) fn of(name: &[u8]) -> &'static [&'static str] {
    let Ok(name) = std::str::from_utf8(name) else { return &[] };
    ALL.binary_search_by(|(n, _)| (*n).cmp(name)).map_or(&[], |i| ALL[i].1)
}

/// Prints arguments; false if they are not those of `text`.
pub(super) fn print(text: &str, mut arguments: &[u8], swapped: bool, to: &mut Vec<u8>) -> bool {
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr(b'%', rest) {
        to.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix(b"s") {
            rest = behind;
            let Some((length, behind)) = arguments.split_first_chunk() else { return false };
            let length =
                if swapped { u32::from_be_bytes(*length) } else { u32::from_le_bytes(*length) };
            let Some((string, behind)) = behind.split_at_checked(length as usize) else {
                return false;
            };
            // A line end in a name would make two lines of one, and no name of
            // QEMU's is anything but printable ASCII.
            to.extend(string.iter().map(|b| if (b' '..=b'~').contains(b) { *b } else { b'?' }));
            arguments = behind;
            continue;
        }
        let Some((value, behind)) = arguments.split_first_chunk() else { return false };
        arguments = behind;
        let value = super::word(*value, swapped);
        let (printed, used) = match rest {
            [b'x', ..] => (write!(to, "{value:x}"), 1),
            [b'0', b'2', b'x', ..] => (write!(to, "{value:02x}"), 3),
            // Narrower types were widened; the text shows them as they were.
            [b'h', ..] => (write!(to, "{:x}", value as u32), 1),
            [b'd', ..] => (write!(to, "{}", value as u32 as i32), 1),
            [b'u', ..] => (write!(to, "{}", value as u32), 1),
            [b'l', ..] => (write!(to, "{}", value as i64), 1),
            [b'p', ..] if value == 0 => (write!(to, "(nil)"), 1),
            [b'p', ..] => (write!(to, "{value:#x}"), 1),
            _ => return false,
        };
        debug_assert!(printed.is_ok(), "memory takes all");
        rest = &rest[used..];
    }
    to.extend_from_slice(rest);
    arguments.is_empty()
}

/// By name, ascending.
const ALL: &[(&str, &[&str])] = &[
    ("amdvi_all_inval", &["Invalidation of all AMD-Vi cache requested "]),
    ("amdvi_cache_update", &[" update iotlb domid 0x%x devid: %02x:%02x.%x gpa 0x%x hpa 0x%x"]),
    ("amdvi_devtab_inval", &["device table entry for devid: %02x:%02x.%x invalidated"]),
    ("amdvi_iotlb_hit", &["hit iotlb devid %02x:%02x.%x gpa 0x%x hpa 0x%x"]),
    ("amdvi_iotlb_reset", &["IOTLB exceed size limit - reset "]),
    ("amdvi_pages_inval", &["AMD-Vi pages for domain 0x%x invalidated"]),
    ("amdvi_translation_result", &["devid: %02x:%02x.%x gpa 0x%x hpa 0x%x"]),
    (
        "iommufd_backend_alloc_hwpt",
        &[
            " iommufd=%d dev_id=%u pt_id=%u flags=0x%x hwpt_type=%u len=%u data_ptr=0x%x out_hwpt=%u (%d)",
        ],
    ),
    ("iommufd_backend_alloc_ioas", &[" iommufd=%d ioas=%d"]),
    ("iommufd_backend_free_id", &[" iommufd=%d id=%d (%d)"]),
    (
        "iommufd_backend_invalidate_cache",
        &[
            " iommufd=%d id=%u data_type=%u entry_len=%u entry_num=%u done_num=%u data_ptr=0x%x (%d)",
        ],
    ),
    (
        "iommufd_backend_map_dma",
        &[" iommufd=%d ioas=%d iova=0x%x size=0x%x addr=%p readonly=%d (%d)"],
    ),
    (
        "iommufd_backend_map_file_dma",
        &[" iommufd=%d ioas=%d iova=0x%x size=0x%x fd=%d start=%l readonly=%d (%d)"],
    ),
    ("iommufd_backend_set_dirty", &[" iommufd=%d hwpt=%u enable=%d (%d)"]),
    ("iommufd_backend_unmap_dma", &[" iommufd=%d ioas=%d iova=0x%x size=0x%x (%d)"]),
    (
        "iommufd_backend_unmap_dma_non_exist",
        &[" Unmap nonexistent mapping: iommufd=%d ioas=%d iova=0x%x size=0x%x (%d)"],
    ),
    ("iommufd_cdev_alloc_ioas", &[" [iommufd=%d] new IOMMUFD container with ioasid=%d"]),
    (
        "iommufd_cdev_attach_ioas_hwpt",
        &[" [iommufd=%d] Successfully attached device %s (%d) to id=%d"],
    ),
    (
        "iommufd_cdev_connect_and_bind",
        &[" [iommufd=%d] Successfully bound device %s (fd=%d): output devid=%d"],
    ),
    ("iommufd_cdev_detach_ioas_hwpt", &[" [iommufd=%d] Successfully detached %s"]),
    ("smmu_get_pte", &["baseaddr=0x%x index=0x%h, pteaddr=0x%x, pte=0x%x"]),
    (
        "smmu_iotlb_insert",
        &[
            "IOTLB ++ asid=%d addr=0x%x tg=%d level=%d",
            "IOTLB ++ asid=%d vmid=%d addr=0x%x tg=%d level=%d",
        ],
    ),
    ("smmu_iotlb_inv_all", &["IOTLB invalidate all"]),
    ("smmu_iotlb_inv_asid", &["IOTLB invalidate asid=%d"]),
    ("smmu_iotlb_inv_asid_vmid", &["IOTLB invalidate asid=%d vmid=%d"]),
    ("smmu_iotlb_inv_vmid", &["IOTLB invalidate vmid=%d"]),
    ("smmu_iotlb_inv_vmid_s1", &["IOTLB invalidate vmid=%d"]),
    (
        "smmu_iotlb_lookup_hit",
        &[
            "IOTLB cache HIT asid=%d addr=0x%x hit=%d miss=%d hit rate=%d",
            "IOTLB cache HIT asid=%d vmid=%d addr=0x%x hit=%d miss=%d hit rate=%d",
        ],
    ),
    (
        "smmu_iotlb_lookup_miss",
        &[
            "IOTLB cache MISS asid=%d addr=0x%x hit=%d miss=%d hit rate=%d",
            "IOTLB cache MISS asid=%d vmid=%d addr=0x%x hit=%d miss=%d hit rate=%d",
        ],
    ),
    ("smmuv3_cmdq_cfgi_cd", &["sid=0x%x"]),
    ("smmuv3_cmdq_cfgi_ste", &["streamid= 0x%h"]),
    ("smmuv3_cmdq_cfgi_ste_range", &["start=0x%h - end=0x%h"]),
    (
        "smmuv3_config_cache_hit",
        &["Config cache HIT for sid=0x%x (hits=%d, misses=%d, hit rate=%d)"],
    ),
    (
        "smmuv3_config_cache_miss",
        &["Config cache MISS for sid=0x%x (hits=%d, misses=%d, hit rate=%d)"],
    ),
    (
        "smmuv3_range_inval",
        &["vmid=%d asid=%d addr=0x%x tg=%d num_pages=0x%x ttl=%d leaf=%d stage=%d"],
    ),
    ("smmuv3_record_event", &["%s sid=0x%x"]),
    ("smmuv3_s1_range_inval", &["vmid=%d asid=%d addr=0x%x tg=%d num_pages=0x%x ttl=%d leaf=%d"]),
    ("smmuv3_translate_abort", &["%s sid=0x%x abort on iova:0x%x is_write=%d"]),
    ("smmuv3_translate_bypass", &["%s sid=0x%x STE bypass iova:0x%x is_write=%d"]),
    ("smmuv3_translate_disable", &["%s sid=0x%x bypass (smmu disabled) iova:0x%x is_write=%d"]),
    (
        "smmuv3_translate_success",
        &[
            "%s sid=0x%x iova=0x%x translated=0x%x perm=0x%h",
            "%s sid=0x%x iova=0x%x translated=0x%x perm=0x%h stage=%d",
        ],
    ),
    ("vfio_iommu_map_notify", &["iommu %s @ 0x%x - 0x%x"]),
    (
        "vfio_listener_region_add_iommu",
        &["region_add [iommu] 0x%x - 0x%x", "region_add [iommu] %s 0x%x - 0x%x"],
    ),
    ("vfio_listener_region_add_ram", &["region_add [ram] 0x%x - 0x%x [%p]"]),
    ("vfio_listener_region_del", &["region_del 0x%x - 0x%x"]),
    ("vfio_listener_region_del_iommu", &["region_del [iommu] %s"]),
    ("virtio_iommu_attach", &["domain=%d endpoint=%d"]),
    ("virtio_iommu_detach", &["domain=%d endpoint=%d"]),
    ("virtio_iommu_device_reset", &["reset!"]),
    ("virtio_iommu_device_reset_exit", &["reset!"]),
    ("virtio_iommu_map", &["domain=%d virt_start=0x%x virt_end=0x%x phys_start=0x%x flags=%d"]),
    ("virtio_iommu_put_domain", &["Free domain=%d"]),
    ("virtio_iommu_put_endpoint", &["Free endpoint=%d"]),
    ("virtio_iommu_report_fault", &["FAULT reason=%d flags=%d endpoint=%d address =0x%x"]),
    ("virtio_iommu_system_reset", &["system reset!"]),
    ("virtio_iommu_translate", &["mr=%s rid=%d addr=0x%x flag=%d"]),
    ("virtio_iommu_translate_out", &["0x%x -> 0x%x for sid=%d"]),
    ("virtio_iommu_unmap", &["domain=%d virt_start=0x%x virt_end=0x%x"]),
    ("virtio_iommu_unmap_done", &["domain=%d virt_start=0x%x virt_end=0x%x"]),
    ("vtd_as_unmap_whole", &["Device %02x:%02x.%x start 0x%x size 0x%x"]),
    ("vtd_context_cache_reset", &[""]),
    ("vtd_dmar_enable", &["enable %d"]),
    ("vtd_dmar_fault", &["sid 0x%x fault %d addr 0x%x write %d"]),
    ("vtd_dmar_translate", &["dev %02x:%02x.%02x iova 0x%x -> gpa 0x%x mask 0x%x"]),
    ("vtd_inv_desc", &["invalidate desc type %s high 0x%x low 0x%x"]),
    ("vtd_inv_desc_cc_device", &["context invalidate device %02x:%02x.%02x"]),
    ("vtd_inv_desc_cc_devices", &["context invalidate devices sid 0x%x fmask 0x%x"]),
    ("vtd_inv_desc_cc_domain", &["context invalidate domain 0x%x"]),
    ("vtd_inv_desc_cc_global", &["context invalidate globally"]),
    ("vtd_inv_desc_iec", &["granularity 0x%x index 0x%x mask 0x%x"]),
    ("vtd_inv_desc_iotlb_domain", &["iotlb invalidate whole domain 0x%x"]),
    ("vtd_inv_desc_iotlb_global", &["iotlb invalidate global"]),
    ("vtd_inv_desc_iotlb_pages", &["iotlb invalidate domain 0x%x addr 0x%x mask 0x%x"]),
    ("vtd_iotlb_cc_hit", &["IOTLB context hit bus 0x%x devfn 0x%x high 0x%x low 0x%x gen %u"]),
    (
        "vtd_iotlb_cc_update",
        &["IOTLB context update bus 0x%x devfn 0x%x high 0x%x low 0x%x gen %u -> gen %u"],
    ),
    ("vtd_iotlb_page_hit", &["IOTLB page hit sid 0x%x iova 0x%x slpte 0x%x domain 0x%x"]),
    ("vtd_iotlb_page_update", &["IOTLB page update sid 0x%x iova 0x%x slpte 0x%x domain 0x%x"]),
    ("vtd_iotlb_reset", &["IOTLB reset (reason: %s)"]),
    ("vtd_page_walk_one", &["domain 0x%x iova 0x%x -> gpa 0x%x mask 0x%x perm %d"]),
    (
        "vtd_replay_ce_valid",
        &["%s: replay valid context device %02x:%02x.%02x domain 0x%x hi 0x%x lo 0x%x"],
    ),
    (
        "vtd_switch_address_space",
        &["Device %02x:%02x.%x switching address space (iommu enabled=%d)"],
    ),
    ("vtd_translate_pt", &["source id 0x%x, iova 0x%x"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order() {
        assert!(ALL.windows(2).all(|w| w[0].0 < w[1].0));
        assert_eq!(of(b"vtd_dmar_enable"), ["enable %d"]);
        assert!(of(b"vtd_reg_read").is_empty() && of(b"\xff").is_empty());
    }

    #[test]
    fn narrow_values() {
        let mut arguments = Vec::new();
        for value in [8, u64::MAX, u64::from(u32::MAX - 1), 0x7f00_0000_1000, 0] {
            arguments.extend_from_slice(&value.to_le_bytes());
        }
        let mut to = Vec::new();
        assert!(print("a=%02x b=%d c=%u d=%p e=%p.", &arguments, false, &mut to));
        assert_eq!(to, b"a=08 b=-1 c=4294967294 d=0x7f0000001000 e=(nil).");
        to.clear();
        assert!(!print("a=%x", &arguments, false, &mut to), "more than the text says");
        assert!(!print("%x %x %x %x %x %x", &arguments, false, &mut to), "fewer");
        assert!(!print("%s", &arguments, false, &mut to), "8 bytes of a string, then more");
    }
}

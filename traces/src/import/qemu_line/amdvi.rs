//! Events of QEMU's AMD-Vi (`hw/i386/trace-events`, the same text in 7.2 and
//! 10.2). "gpa" is the IOVA there and "hpa" the output.

use super::{Event, device, domain};
use crate::import::bytes::Cursor;

/// An event of `hw/i386/amd_iommu.c` that importers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AmdVi {
    /// `amdvi_iotlb_hit`
    Hit { sid: u32, iova: u64, out: u64 },
    /// `amdvi_cache_update`: a miss, walked and filled.
    Fill { domain: u32, sid: u32, iova: u64, out: u64 },
    /// `amdvi_translation_result`: behind each of them, and alone where
    /// nothing was cached: passed through, or a fault (output 0).
    Result { sid: u32, iova: u64, out: u64 },
    /// `amdvi_pages_inval`: a command for pages of a domain.
    Pages { domain: u32 },
    /// `amdvi_all_inval`
    All,
    /// `amdvi_iotlb_reset`
    Reset,
    /// `amdvi_devtab_inval`
    Device { sid: u32 },
}

/// `None`: not an event that importers use; `Some(None)`: a damaged one.
pub(super) fn parse(name: &[u8], c: &mut Cursor<'_>) -> Option<Option<Event>> {
    // In order of frequency in real logs.
    let event = match name {
        b"translation_result" => result(c),
        b"cache_update" => fill(c),
        b"iotlb_hit" => hit(c),
        b"pages_inval" => pages(c),
        b"devtab_inval" => devtab(c),
        b"all_inval" => Some(AmdVi::All),
        b"iotlb_reset" => Some(AmdVi::Reset),
        _ => return None,
    };
    Some(event.map(Event::AmdVi))
}

/// `gpa 0xIOVA hpa 0xOUT`
fn addresses(c: &mut Cursor<'_>) -> Option<(u64, u64)> {
    c.lit(b" gpa 0x")?;
    let iova = c.hex()?;
    c.lit(b" hpa 0x")?;
    Some((iova, c.hex()?))
}

fn result(c: &mut Cursor<'_>) -> Option<AmdVi> {
    c.lit(b"devid: ")?;
    let sid = device(c)?;
    let (iova, out) = addresses(c)?;
    Some(AmdVi::Result { sid, iova, out })
}

fn hit(c: &mut Cursor<'_>) -> Option<AmdVi> {
    c.lit(b"hit iotlb devid ")?;
    let sid = device(c)?;
    let (iova, out) = addresses(c)?;
    Some(AmdVi::Hit { sid, iova, out })
}

fn fill(c: &mut Cursor<'_>) -> Option<AmdVi> {
    c.skip_spaces();
    c.lit(b"update iotlb domid 0x")?;
    let domain = domain(c)?;
    c.lit(b" devid: ")?;
    let sid = device(c)?;
    let (iova, out) = addresses(c)?;
    Some(AmdVi::Fill { domain, sid, iova, out })
}

fn pages(c: &mut Cursor<'_>) -> Option<AmdVi> {
    c.lit(b"AMD-Vi pages for domain 0x")?;
    Some(AmdVi::Pages { domain: domain(c)? })
}

fn devtab(c: &mut Cursor<'_>) -> Option<AmdVi> {
    c.lit(b"device table entry for devid: ")?;
    Some(AmdVi::Device { sid: device(c)? })
}

#[cfg(test)]
mod tests {
    use super::super::{Line, parse};
    use super::*;

    fn read(text: &str) -> Line<'_> {
        parse(text.as_bytes()).1
    }

    #[test]
    fn recorded_lines() {
        for (text, expected) in [
            (
                "29284@1795407630.210933:amdvi_cache_update  update iotlb domid 0x3 devid: 00:03.0 gpa 0xffffe000 hpa 0x101b0d000",
                AmdVi::Fill { domain: 3, sid: 0x18, iova: 0xffff_e000, out: 0x1_01b0_d000 },
            ),
            (
                "29284@1795407630.223501:amdvi_iotlb_hit hit iotlb devid 00:03.0 gpa 0xffffe1c0 hpa 0x101b0d000",
                AmdVi::Hit { sid: 0x18, iova: 0xffff_e1c0, out: 0x1_01b0_d000 },
            ),
            (
                "29284@1795407630.210947:amdvi_translation_result devid: 00:03.0 gpa 0xffffe000 hpa 0x101b0d000",
                AmdVi::Result { sid: 0x18, iova: 0xffff_e000, out: 0x1_01b0_d000 },
            ),
            (
                "1@2.000003:amdvi_pages_inval AMD-Vi pages for domain 0x2 invalidated",
                AmdVi::Pages { domain: 2 },
            ),
            (
                "1@2.000003:amdvi_devtab_inval device table entry for devid: 00:01.5 invalidated",
                AmdVi::Device { sid: 13 },
            ),
            ("1@2.000003:amdvi_all_inval Invalidation of all AMD-Vi cache requested ", AmdVi::All),
            ("amdvi_iotlb_reset IOTLB exceed size limit - reset ", AmdVi::Reset),
        ] {
            assert_eq!(read(text), Line::Event(Event::AmdVi(expected)), "{text}");
        }
        assert_eq!(
            read("amdvi_command_exec command buffer head at 0x0"),
            Line::Other(b"amdvi_command_exec")
        );
        for text in [
            "amdvi_iotlb_hit hit iotlb devid 00:03.0 gpa 0xffffe1c0 hpa",
            "amdvi_iotlb_hit hit iotlb devid 00:03.9 gpa 0xffffe1c0 hpa 0x1",
            "amdvi_pages_inval AMD-Vi pages for domain 0xffffffff invalidated",
        ] {
            assert!(matches!(read(text), Line::Damaged(_)), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn printed_events_read_back(
            d in 0..0x1_0000u32, sid in 0..0x1_0000u32, iova: u64, out: u64, kind in 0..5,
        ) {
            let dev = format!("{:02x}:{:02x}.{:x}", sid >> 8, sid >> 3 & 0x1f, sid & 7);
            let (text, event) = match kind {
                0 => (
                    format!("cache_update  update iotlb domid 0x{d:x} devid: {dev} gpa 0x{iova:x} hpa 0x{out:x}"),
                    AmdVi::Fill { domain: d, sid, iova, out },
                ),
                1 => (
                    format!("iotlb_hit hit iotlb devid {dev} gpa 0x{iova:x} hpa 0x{out:x}"),
                    AmdVi::Hit { sid, iova, out },
                ),
                2 => (
                    format!("translation_result devid: {dev} gpa 0x{iova:x} hpa 0x{out:x}"),
                    AmdVi::Result { sid, iova, out },
                ),
                3 => (
                    format!("pages_inval AMD-Vi pages for domain 0x{d:x} invalidated"),
                    AmdVi::Pages { domain: d },
                ),
                _ => (
                    format!("devtab_inval device table entry for devid: {dev} invalidated"),
                    AmdVi::Device { sid },
                ),
            };
            let text = format!("77@1795407630.210947:amdvi_{text}");
            proptest::prop_assert_eq!(read(&text), Line::Event(Event::AmdVi(event)));
        }
    }
}

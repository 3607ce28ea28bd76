//! `intel_iommu:cache_tag_flush_range` and `_range_np` as the descriptors that
//! they stand for, for traces without `qi_submit`.
//!
//! Linux traces them where it queues the invalidation of a cache tag
//! (`drivers/iommu/intel/cache.c` and `trace.h`, 6.11 to 7.2). Formats: 6.12
//! has `pages 0x..`, 7.2 has not; `cache_tag_flush_all` (up to 6.12) flushes the domain. A tag
//! of type `iotlb` or `nesting_iotlb` is an IOTLB invalidation; tags of device TLBs, and
//! `cache_tag_assign` and `_unassign`, are none. trace-cmd prints the type as a number.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::super::bytes::Cursor;
use super::super::desc::Descriptor;
use super::super::ftrace_line::{self, Prefix};

/// From this order on, the kernel asks for the whole domain (`mask` of a
/// flush from 0 to the end of the address space).
const WHOLE_ORDER: u64 = 45;

/// A flush of a cache tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) struct Flush {
    pub(super) domain: u32,
    pub(super) pasid: u32,
    /// Address and log2 of the pages; `None`: all of the domain.
    pub(super) range: Option<(u64, u32)>,
}

impl Flush {
    pub(in crate::import) fn descriptor(self) -> Descriptor {
        match (self.pasid, self.range) {
            // IOMMU_NO_PASID: legacy and second-stage tables.
            (0, Some((addr, order))) => Descriptor::iotlb_pages(self.domain, addr, order),
            (0, None) => Descriptor::iotlb_domain(self.domain),
            (pasid, range) => Descriptor::pasid_iotlb(self.domain, pasid, range),
        }
    }
}

/// True for the names of such events.
pub(in crate::import) fn is_flush(name: &[u8]) -> bool {
    matches!(name, b"cache_tag_flush_range" | b"cache_tag_flush_range_np" | b"cache_tag_flush_all")
}

/// True if a line may be such an event.
pub(super) fn tells_flush(line: &[u8]) -> bool {
    static FLUSH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("cache_tag_flush_"));
    FLUSH.find(line).is_some()
}

/// Reads the text of an event: `Some(None)` for a device TLB's tag, `None` if
/// it is damaged.
pub(super) fn parse(name: &[u8], text: &Cursor<'_>) -> Option<Option<Flush>> {
    let mut c = *text;
    let all = name == b"cache_tag_flush_all";
    // "dmar0 0000:00:01.0[0] type iotlb did 3 ..." and, of flush_all,
    // "dmar0/dmar0 type iotlb did 3 pasid 0 ref 1".
    let at = memchr::memmem::find(c.rest(), b" type ")?;
    let head = &c.rest()[..at];
    c = Cursor::new(&c.rest()[at + 6..]);
    let kind = c.rest().split(|b| *b == b' ').next()?;
    c.lit(kind)?;
    let iotlb = match kind {
        b"iotlb" | b"nesting_iotlb" | b"parent_iotlb" | b"0x0" | b"0x2" => true,
        b"devtlb" | b"nesting_devtlb" | b"parent_devtlb" | b"0x1" | b"0x3" => false,
        _ => return None,
    };
    c.lit(b" did ")?;
    let domain = u32::from(u16::try_from(c.dec()?).ok()?);
    if all {
        c.lit(b" pasid ")?;
        let pasid = pasid(&mut c)?;
        return Some(iotlb.then_some(Flush { domain, pasid, range: None }));
    }
    let open = memchr::memrchr(b'[', head)?;
    let pasid = pasid(&mut Cursor::new(&head[open + 1..]))?;
    c.lit(b" [0x")?;
    c.hex()?;
    c.lit(b"-0x")?;
    c.hex()?;
    c.lit(b"] addr 0x")?;
    let addr = c.hex()?;
    let mut whole = false;
    if c.try_lit(b" pages 0x") {
        whole = c.hex()? == u64::MAX;
    }
    c.lit(b" mask 0x")?;
    let order = c.hex()?;
    whole |= order >= WHOLE_ORDER;
    let range = (!whole).then_some((addr, order as u32));
    Some(iotlb.then_some(Flush { domain, pasid, range }))
}

/// 20 bits; `IOMMU_NO_PASID` is 0, in some versions printed as -1.
fn pasid(c: &mut Cursor<'_>) -> Option<u32> {
    if c.try_lit(b"-1") {
        return Some(0);
    }
    u32::try_from(c.dec()?).ok().filter(|p| *p < 1 << 20)
}

/// Reads a line of an event that flushes IOTLB entries; `None` for all others.
pub(in crate::import) fn line(bytes: &[u8]) -> Option<(Prefix, Flush)> {
    let (prefix, name, text) = ftrace_line::split(bytes).ok()?;
    let flush = is_flush(name).then(|| parse(name, &text)).flatten()??;
    Some((prefix, flush))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Option<Flush>> {
        let (name, text) = line.split_once(": ").unwrap();
        assert!(is_flush(name.as_bytes()));
        parse(name.as_bytes(), &Cursor::new(text.as_bytes()))
    }

    /// The first two are recorded, with ftrace and with trace-cmd (Linux 6.12); the others
    /// follow the format strings of 6.12 and 7.2.
    #[test]
    fn lines() {
        let one = Flush { domain: 3, pasid: 0, range: Some((0xfffb_a000, 0)) };
        for (text, expected) in [
            (
                "cache_tag_flush_range: dmar0 dmar0[0] type iotlb did 3 [0xfffba000-0xfffbafff] addr 0xfffba000 pages 0x1 mask 0x0",
                Some(one),
            ),
            (
                "cache_tag_flush_range: dmar0 dmar0[0] type 0x0 did 3 [0xfffba000-0xfffbafff] addr 0xfffba000 pages 0x1 mask 0x0",
                Some(one),
            ),
            (
                "cache_tag_flush_range_np: dmar0 dmar0[0] type iotlb did 3 [0xfffba000-0xfffbafff] addr 0xfffba000 mask 0x0",
                Some(one),
            ),
            (
                "cache_tag_flush_range: dmar0 0000:00:01.0[0] type devtlb did 3 [0xfffba000-0xfffbafff] addr 0xfffba000 mask 0x0",
                None,
            ),
            (
                "cache_tag_flush_range: dmar0 dmar0[5] type nesting_iotlb did 9 [0x0-0xffffffffffffffff] addr 0x0 pages 0xffffffffffffffff mask 0x34",
                Some(Flush { domain: 9, pasid: 5, range: None }),
            ),
            (
                "cache_tag_flush_all: dmar0/dmar0 type iotlb did 3 pasid 0 ref 1",
                Some(Flush { domain: 3, pasid: 0, range: None }),
            ),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for text in [
            "cache_tag_flush_range: dmar0 dmar0[0] type other did 3 [0x0-0xfff] addr 0x0 mask 0x0",
            "cache_tag_flush_range: dmar0 dmar0[0] type iotlb did 65536 [0x0-0xfff] addr 0x0 mask 0x0",
            "cache_tag_flush_range: dmar0 dmar0[1048576] type iotlb did 1 [0x0-0xfff] addr 0x0 mask 0x0",
            "cache_tag_flush_range: dmar0 dmar0[0] type iotlb did 3 [0x0-0xfff] addr 0x0",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn printed_flushes_read_back(
            domain in 0..0x1_0000u32,
            pasid in 0..1u32 << 20,
            page in 0..1u64 << 45,
            order in 0..WHOLE_ORDER as u32,
            pages: bool,
            np: bool,
            numbers: bool,
        ) {
            let addr = (page >> order << order) << 12;
            let name = if np { "cache_tag_flush_range_np" } else { "cache_tag_flush_range" };
            let kind = if numbers { "0x0" } else { "iotlb" };
            let count = if pages { format!(" pages {:#x}", 1u64 << order) } else { String::new() };
            let text = format!(
                "{name}: dmar1 dmar1[{pasid}] type {kind} did {domain} [{addr:#x}-{:#x}] addr {addr:#x}{count} mask {order:#x}",
                addr + (1 << (order + 12)) - 1
            );
            let flush = Flush { domain, pasid, range: Some((addr, order)) };
            proptest::prop_assert_eq!(read(&text), Some(Some(flush)));
            let event = flush.descriptor().event(ioasim_events::Kind::Invalidate).unwrap();
            proptest::prop_assert_eq!((event.addr, event.size), (addr, 1 << (order + 12)));
            proptest::prop_assert_eq!(event.domain.0, domain);
            proptest::prop_assert_eq!(event.pasid.0, if pasid == 0 { u32::MAX } else { pasid });
        }

        #[test]
        fn any_bytes_can_be_parsed(bytes: Vec<u8>) {
            for name in [&b"cache_tag_flush_range"[..], b"cache_tag_flush_all"] {
                let _ = parse(name, &Cursor::new(&bytes));
                let _ = parse(name, &Cursor::new(&[b"a b[0] type iotlb did 1 ", &bytes[..]].concat()));
            }
        }
    }
}

//! One line of a log written by QEMU's `log` trace backend.
//!
//! Formats are those of QEMU 7.2 to 10.2 (`hw/i386/trace-events`,
//! `hw/arm/trace-events`, `hw/vfio/trace-events`). A line is `[stamp]name arguments`; the stamp is
//! `TID@SEC.USEC:` (7.2, 10.0 with `-msg timestamp=on`), an ISO-8601 time and
//! a blank (10.2), or absent.

mod amdvi;
mod host;
mod smmu;

pub(crate) use amdvi::AmdVi;
pub(crate) use host::{Host, Object};
pub(crate) use smmu::{Smmu, Tag};

use super::bytes::{Cursor, iso8601_ns};

/// What stands before the event's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Wall-clock time in ns since 1970, if there is one.
    pub(crate) time: Option<i64>,
    /// Thread id, 0 if there is none.
    pub(crate) tid: u32,
}

/// A line, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// An event that importers use.
    Event(Event),
    /// An event (or a message) of another kind; its name.
    Other(&'a [u8]),
    /// Nothing on it.
    Blank,
    /// Damaged, and why.
    Damaged(&'static str),
}

/// An event that importers use. Device ids are PCI requester ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// `vtd_iotlb_page_hit` and `vtd_iotlb_page_update` (a miss, then a fill).
    IotlbPage { hit: bool, sid: u32, iova: u64, slpte: u64, domain: u32 },
    /// `vtd_dmar_translate`: page-aligned input and output of a translation.
    Translate { sid: u32, iova: u64, gpa: u64, mask: u64 },
    /// `vtd_inv_desc`: a raw descriptor, its two quadwords.
    InvDesc { qw0: u64, qw1: u64 },
    /// `vtd_inv_desc_iotlb_pages`
    InvPages { domain: u32, addr: u64, am: u32 },
    /// `vtd_inv_desc_iotlb_domain`
    InvDomain { domain: u32 },
    /// `vtd_inv_desc_iotlb_global`
    InvGlobal,
    /// `vtd_inv_desc_cc_global`
    CcGlobal,
    /// `vtd_inv_desc_cc_domain`
    CcDomain { domain: u32 },
    /// `vtd_inv_desc_cc_devices`
    CcDevices { sid: u32, fmask: u32 },
    /// `vtd_inv_desc_iec`
    Iec { granularity: u64, index: u64, mask: u64 },
    /// `vtd_context_cache_reset`
    CacheReset,
    /// `vtd_dmar_enable`
    DmarEnable { on: bool },
    /// `vtd_iotlb_cc_hit` and `vtd_iotlb_cc_update`: a context entry.
    Context { sid: u32, high: u64 },
    /// `vtd_dmar_fault`
    Fault { sid: u32, addr: u64, write: bool },
    /// `vtd_translate_pt`: passed through.
    PassThrough { sid: u32, iova: u64 },
    /// `vtd_switch_address_space`
    Switch { sid: u32, on: bool },
    /// `vtd_as_unmap_whole`
    UnmapWhole { sid: u32, start: u64, size: u64 },
    /// `vtd_replay_ce_valid`
    ReplayContext { sid: u32, high: u64 },
    /// `vtd_page_walk_one`: the shadow's change; perm 0 is an unmap.
    WalkOne { domain: u32, iova: u64, gpa: u64, mask: u64, perm: u32 },
    /// `vfio_iommu_map_notify`, end inclusive.
    VfioNotify { map: bool, start: u64, end: u64 },
    /// `vfio_listener_region_add_ram`, end inclusive; `vaddr` is the VMM's
    /// own address of it.
    RegionAddRam { start: u64, end: u64, vaddr: u64 },
    /// `vfio_listener_region_add_iommu`, end inclusive.
    RegionAddIommu { start: u64, end: u64 },
    /// `vfio_listener_region_del`, end inclusive.
    RegionDel { start: u64, end: u64 },
    /// `amdvi_*`
    AmdVi(AmdVi),
    /// `smmuv3_*` and `smmu_*`
    Smmu(Smmu),
    /// `iommufd_*`
    Host(Host),
    /// QEMU's buffer was full (`simple` backend); events lost.
    Lost(u64),
}

impl Event {
    /// True for what QEMU tells about its dealings with the host, not of an
    /// emulated IOMMU.
    pub(crate) fn is_host_side(self) -> bool {
        matches!(
            self,
            Event::VfioNotify { .. }
                | Event::RegionAddRam { .. }
                | Event::RegionAddIommu { .. }
                | Event::RegionDel { .. }
                | Event::Host(_)
        )
    }
}

/// Takes a line apart.
#[inline]
pub(crate) fn parse(bytes: &[u8]) -> (Stamp, Line<'_>) {
    let Some((stamp, c)) = behind_stamp(bytes) else {
        return (Stamp::default(), Line::Damaged("time stamp cannot be read"));
    };
    match frequent(c) {
        Some(event) => (stamp, Line::Event(event)),
        None => rare(bytes, c.rest(), stamp),
    }
}

/// A line's stamp and what stands behind it; `None` if the stamp is damaged.
#[inline]
pub(crate) fn behind_stamp(bytes: &[u8]) -> Option<(Stamp, Cursor<'_>)> {
    let mut c = Cursor::new(bytes);
    let stamp = match bytes.first() {
        Some(b) if b.is_ascii_digit() => parse_stamp(&mut c)?,
        _ => Stamp::default(),
    };
    Some((stamp, c))
}

/// The events that nearly all lines of a log are; `None` for others and for
/// damaged ones.
#[inline]
fn frequent(mut c: Cursor<'_>) -> Option<Event> {
    let rest = c.rest();
    match rest.get(4)? {
        b'd' => {
            c.lit(b"vtd_dmar_translate ")?;
            translate(&mut c)
        }
        b'i' if rest.get(8) == Some(&b'b') => {
            if c.try_lit(b"vtd_iotlb_page_hit ") {
                iotlb_page(&mut c, true)
            } else {
                c.lit(b"vtd_iotlb_page_update ")?;
                iotlb_page(&mut c, false)
            }
        }
        b'i' => {
            if c.try_lit(b"vtd_inv_desc ") {
                inv_desc(&mut c)
            } else {
                c.lit(b"vtd_inv_desc_iotlb_pages ")?;
                inv_pages(&mut c)
            }
        }
        _ => None,
    }
}

/// Any line, behind its stamp.
fn rare<'a>(bytes: &'a [u8], rest: &'a [u8], stamp: Stamp) -> (Stamp, Line<'a>) {
    if rest.is_empty() {
        return (
            stamp,
            if bytes.is_empty() {
                Line::Blank
            } else {
                Line::Damaged("no event after the time stamp")
            },
        );
    }
    let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    let name = &rest[..end];
    let mut args = Cursor::new(rest.get(end + 1..).unwrap_or_default());
    let known = if let Some(tail) = name.strip_prefix(b"vtd_") {
        parse_vtd(tail, &mut args)
    } else if let Some(tail) = name.strip_prefix(b"vfio_") {
        parse_vfio(tail, &mut args)
    } else if let Some(tail) = name.strip_prefix(b"amdvi_") {
        amdvi::parse(tail, &mut args)
    } else if let Some(tail) = name.strip_prefix(b"smmuv3_").or_else(|| name.strip_prefix(b"smmu_"))
    {
        smmu::parse(tail, &mut args)
    } else if let Some(tail) = name.strip_prefix(b"iommufd_") {
        host::parse(tail, &mut args)
    } else if name == b"#simpletrace" {
        return (stamp, simple(args));
    } else {
        None
    };
    let line = match known {
        Some(Some(event)) => Line::Event(event),
        Some(None) => Line::Damaged("arguments of a known event cannot be read"),
        None => other(rest, name),
    };
    (stamp, line)
}

/// `TID@SEC.USEC:` or `YYYY-MM-DDT...Z `.
#[inline]
fn parse_stamp(c: &mut Cursor<'_>) -> Option<Stamp> {
    let start = *c;
    let tid = c.dec()?;
    if c.try_lit(b"@") {
        let time = c.seconds_ns()?;
        c.lit(b":")?;
        return Some(Stamp { time: Some(time), tid: u32::try_from(tid).ok()? });
    }
    *c = start;
    let time = iso8601_ns(c)?;
    c.lit(b" ")?;
    Some(Stamp { time: Some(time), tid: 0 })
}

/// What `input/simple.rs` says of a record that is no event.
fn simple(mut c: Cursor<'_>) -> Line<'static> {
    if c.try_lit(b"dropped ") {
        return c
            .dec()
            .map_or(Line::Damaged("number of dropped events"), |n| Line::Event(Event::Lost(n)));
    }
    Line::Damaged(match c.rest() {
        b"cut" => "the file ends within this record",
        _ => "a record of an event that the file does not name",
    })
}

/// A line that is no known event: an event of another name, QEMU's own
/// messages (they go to the same file), or damage.
fn other<'a>(line: &'a [u8], name: &'a [u8]) -> Line<'a> {
    if !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_') {
        return Line::Other(name);
    }
    if line.iter().any(|b| *b < 0x20 && *b != b'\t' && *b != b'\r' || *b == 0x7f) {
        return Line::Damaged("not text");
    }
    if line.iter().all(|b| b.is_ascii_whitespace()) {
        Line::Blank
    } else {
        Line::Other(b"(other text)")
    }
}

/// `None`: not an event that importers use; `Some(None)`: one that is damaged.
fn parse_vtd(name: &[u8], c: &mut Cursor<'_>) -> Option<Option<Event>> {
    // In order of frequency in real logs.
    Some(match name {
        b"dmar_translate" => translate(c),
        b"iotlb_page_hit" => iotlb_page(c, true),
        b"iotlb_page_update" => iotlb_page(c, false),
        b"inv_desc" => inv_desc(c),
        b"inv_desc_iotlb_pages" => inv_pages(c),
        b"page_walk_one" => walk_one(c),
        b"iotlb_cc_hit" => context(c, b"IOTLB context hit bus 0x"),
        b"iotlb_cc_update" => context(c, b"IOTLB context update bus 0x"),
        b"inv_desc_iotlb_domain" => after(c, b"iotlb invalidate whole domain 0x")
            .and_then(Cursor::hex32)
            .map(|domain| Event::InvDomain { domain }),
        b"inv_desc_iotlb_global" => Some(Event::InvGlobal),
        b"inv_desc_cc_global" => Some(Event::CcGlobal),
        b"inv_desc_cc_domain" => after(c, b"context invalidate domain 0x")
            .and_then(Cursor::hex32)
            .map(|domain| Event::CcDomain { domain }),
        b"inv_desc_cc_devices" => cc_devices(c),
        b"inv_desc_iec" => iec(c),
        b"context_cache_reset" => Some(Event::CacheReset),
        b"dmar_enable" => {
            after(c, b"enable ").and_then(Cursor::dec).map(|on| Event::DmarEnable { on: on != 0 })
        }
        b"dmar_fault" => fault(c),
        b"translate_pt" => pass_through(c),
        b"switch_address_space" => switch(c),
        b"as_unmap_whole" => unmap_whole(c),
        b"replay_ce_valid" => replay_context(c),
        _ => return None,
    })
}

fn parse_vfio(name: &[u8], c: &mut Cursor<'_>) -> Option<Option<Event>> {
    Some(match name {
        b"iommu_map_notify" => vfio_notify(c),
        b"listener_region_add_ram" => {
            range(c, b"region_add [ram] 0x").and_then(|(start, end)| {
                // glibc prints a null pointer in words.
                let vaddr = if c.try_lit(b" [(nil)]") {
                    0
                } else {
                    c.lit(b" [0x")?;
                    c.hex()?
                };
                Some(Event::RegionAddRam { start, end, vaddr })
            })
        }
        // 10.2 puts the region's name between "[iommu] " and the range.
        b"listener_region_add_iommu" => after(c, b"region_add [iommu] ").and_then(|c| {
            let at = memchr::memmem::rfind(c.rest(), b" - 0x")?;
            let start = memchr::memmem::rfind(&c.rest()[..at], b"0x")?;
            let mut c = Cursor::new(&c.rest()[start..]);
            range(&mut c, b"0x").map(|(start, end)| Event::RegionAddIommu { start, end })
        }),
        b"listener_region_del" => {
            range(c, b"region_del 0x").map(|(start, end)| Event::RegionDel { start, end })
        }
        _ => return None,
    })
}

/// Steps over a fixed text.
#[inline]
fn after<'c, 'a>(c: &'c mut Cursor<'a>, text: &[u8]) -> Option<&'c mut Cursor<'a>> {
    c.lit(text)?;
    Some(c)
}

#[inline]
fn translate(c: &mut Cursor<'_>) -> Option<Event> {
    c.lit(b"dev ")?;
    let sid = device(c)?;
    c.lit(b" iova 0x")?;
    let iova = c.hex()?;
    c.lit(b" -> gpa 0x")?;
    let gpa = c.hex()?;
    c.lit(b" mask 0x")?;
    let mask = page_mask(c.hex()?)?;
    Some(Event::Translate { sid, iova, gpa, mask })
}

#[inline]
fn iotlb_page(c: &mut Cursor<'_>, hit: bool) -> Option<Event> {
    c.lit(b"IOTLB page ")?;
    c.lit(if hit { b"hit sid 0x" } else { b"update sid 0x" })?;
    let sid = requester(c)?;
    c.lit(b" iova 0x")?;
    let iova = c.hex()?;
    c.lit(b" slpte 0x")?;
    let slpte = c.hex()?;
    c.lit(b" domain 0x")?;
    Some(Event::IotlbPage { hit, sid, iova, slpte, domain: domain(c)? })
}

#[inline]
fn inv_desc(c: &mut Cursor<'_>) -> Option<Event> {
    // "invalidate desc type context-cache high 0x0 low 0x11"; the type is in
    // the low four bits of the low word as well.
    c.lit(b"invalidate desc type ")?;
    c.skip_past(b' ')?;
    c.lit(b"high 0x")?;
    let qw1 = c.hex()?;
    c.lit(b" low 0x")?;
    Some(Event::InvDesc { qw0: c.hex()?, qw1 })
}

fn inv_pages(c: &mut Cursor<'_>) -> Option<Event> {
    c.lit(b"iotlb invalidate domain 0x")?;
    let domain = domain(c)?;
    c.lit(b" addr 0x")?;
    let addr = c.hex()?;
    c.lit(b" mask 0x")?;
    Some(Event::InvPages { domain, addr, am: c.hex32().filter(|am| *am < 64)? })
}

fn walk_one(c: &mut Cursor<'_>) -> Option<Event> {
    c.lit(b"domain 0x")?;
    let domain = domain(c)?;
    c.lit(b" iova 0x")?;
    let iova = c.hex()?;
    c.lit(b" -> gpa 0x")?;
    let gpa = c.hex()?;
    c.lit(b" mask 0x")?;
    let mask = page_mask(c.hex()?)?;
    c.lit(b" perm ")?;
    let perm = u32::try_from(c.dec()?).ok().filter(|p| *p < 4)?;
    Some(Event::WalkOne { domain, iova, gpa, mask, perm })
}

fn context(c: &mut Cursor<'_>, text: &[u8]) -> Option<Event> {
    c.lit(text)?;
    let bus = c.hex32().filter(|b| *b < 256)?;
    c.lit(b" devfn 0x")?;
    let devfn = c.hex32().filter(|d| *d < 256)?;
    c.lit(b" high 0x")?;
    let high = c.hex()?;
    c.lit(b" low 0x")?;
    c.hex()?;
    Some(Event::Context { sid: bus << 8 | devfn, high })
}

fn cc_devices(c: &mut Cursor<'_>) -> Option<Event> {
    c.lit(b"context invalidate devices sid 0x")?;
    let sid = requester(c)?;
    c.lit(b" fmask 0x")?;
    Some(Event::CcDevices { sid, fmask: c.hex32()? })
}

fn iec(c: &mut Cursor<'_>) -> Option<Event> {
    c.lit(b"granularity 0x")?;
    let granularity = c.hex()?;
    c.lit(b" index 0x")?;
    let index = c.hex()?;
    c.lit(b" mask 0x")?;
    Some(Event::Iec { granularity, index, mask: c.hex()? })
}

fn fault(c: &mut Cursor<'_>) -> Option<Event> {
    c.lit(b"sid 0x")?;
    let sid = requester(c)?;
    c.lit(b" fault ")?;
    c.dec()?;
    c.lit(b" addr 0x")?;
    let addr = c.hex()?;
    c.lit(b" write ")?;
    Some(Event::Fault { sid, addr, write: c.dec()? != 0 })
}

fn pass_through(c: &mut Cursor<'_>) -> Option<Event> {
    c.lit(b"source id 0x")?;
    let sid = requester(c)?;
    c.lit(b", iova 0x")?;
    Some(Event::PassThrough { sid, iova: c.hex()? })
}

fn switch(c: &mut Cursor<'_>) -> Option<Event> {
    c.lit(b"Device ")?;
    let sid = device(c)?;
    c.lit(b" switching address space (iommu enabled=")?;
    Some(Event::Switch { sid, on: c.dec()? != 0 })
}

fn unmap_whole(c: &mut Cursor<'_>) -> Option<Event> {
    c.lit(b"Device ")?;
    let sid = device(c)?;
    c.lit(b" start 0x")?;
    let start = c.hex()?;
    c.lit(b" size 0x")?;
    Some(Event::UnmapWhole { sid, start, size: c.hex()? })
}

fn replay_context(c: &mut Cursor<'_>) -> Option<Event> {
    // "legacy mode: replay valid context device 00:01.00 domain 0x3 hi .. lo .."
    c.skip_past(b':')?;
    c.lit(b" replay valid context device ")?;
    let sid = device(c)?;
    c.lit(b" domain 0x")?;
    domain(c)?;
    c.lit(b" hi 0x")?;
    Some(Event::ReplayContext { sid, high: c.hex()? })
}

fn vfio_notify(c: &mut Cursor<'_>) -> Option<Event> {
    c.lit(b"iommu ")?;
    let map = c.try_lit(b"MAP");
    if !map {
        c.lit(b"UNMAP")?;
    }
    c.lit(b" @ 0x")?;
    let start = c.hex()?;
    c.lit(b" - 0x")?;
    let end = c.hex()?;
    (start <= end).then_some(Event::VfioNotify { map, start, end })
}

/// `START - 0xEND` behind a fixed text.
fn range(c: &mut Cursor<'_>, text: &[u8]) -> Option<(u64, u64)> {
    c.lit(text)?;
    let start = c.hex()?;
    c.lit(b" - 0x")?;
    let end = c.hex()?;
    (start <= end).then_some((start, end))
}

/// `BB:DD.F` with any number of digits.
#[inline]
fn device(c: &mut Cursor<'_>) -> Option<u32> {
    let bus = c.hex32().filter(|v| *v < 256)?;
    c.lit(b":")?;
    let dev = c.hex32().filter(|v| *v < 32)?;
    c.lit(b".")?;
    let function = c.hex32().filter(|v| *v < 8)?;
    Some(bus << 8 | dev << 3 | function)
}

/// A requester id: 16 bits.
#[inline]
fn requester(c: &mut Cursor<'_>) -> Option<u32> {
    c.hex32().filter(|v| *v <= 0xffff)
}

/// A domain id. VT-d has 16 bits; only the two reserved values of
/// `DomainId` are refused.
#[inline]
fn domain(c: &mut Cursor<'_>) -> Option<u32> {
    c.hex32().filter(|v| *v < u32::MAX - 1)
}

/// An address mask: a page size minus one, 4 KiB to the span of a 57-bit
/// table's top entry.
#[inline]
fn page_mask(mask: u64) -> Option<u64> {
    (0xfff..1 << 48).contains(&mask).then_some(mask).filter(|m| (m + 1).is_power_of_two())
}

#[cfg(test)]
mod tests;

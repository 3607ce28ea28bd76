//! Events of QEMU's SMMUv3 (`hw/arm/trace-events`): the formats of 7.2, and
//! of 10.x, which add a VMID and the stage.

use super::{Event, requester};
use crate::import::bytes::Cursor;

/// An event of `hw/arm/smmuv3.c` or `smmu-common.c` that importers use.
///
/// A VMID is -1 where the line has none or the SMMU has one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Smmu {
    /// `smmuv3_config_cache_hit` and `_miss`: a request of this stream id.
    Config { sid: u32 },
    /// `smmu_iotlb_lookup_hit` and `_miss`; the address is that of the granule.
    Lookup { hit: bool, tag: Tag, addr: u64 },
    /// `smmu_get_pte`: one read of a page table.
    GetPte,
    /// `smmu_iotlb_insert`
    Insert { granule: u32, level: u32 },
    /// `smmuv3_translate_success`
    Success { sid: u32, iova: u64, out: u64, perm: u8 },
    /// `smmuv3_translate_bypass` and `_disable`
    Bypass { sid: u32, iova: u64 },
    /// `smmuv3_translate_abort`
    Abort { sid: u32, iova: u64 },
    /// `smmuv3_record_event`: what was looked up ended in a fault.
    Fault { sid: u32 },
    /// `smmuv3_s1_range_inval` (7.2) and `smmuv3_range_inval`: a naturally
    /// aligned range of 2^`am` pages of 4 KiB.
    Range { tag: Tag, addr: u64, am: u32, leaf: bool, stage: u32 },
    /// `smmu_iotlb_inv_asid` and `_inv_asid_vmid`
    InvAsid { tag: Tag },
    /// `smmu_iotlb_inv_vmid` and `_inv_vmid_s1`
    InvVmid { vmid: i32 },
    /// `smmu_iotlb_inv_all`
    InvAll,
    /// `smmuv3_cmdq_cfgi_ste` and `_cfgi_cd`
    ConfigInv { sid: u32 },
    /// `smmuv3_cmdq_cfgi_ste_range`
    ConfigInvAll,
}

/// What an IOTLB entry belongs to; -1 is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) asid: i32,
    pub(crate) vmid: i32,
}

/// `None`: not an event that importers use; `Some(None)`: a damaged one.
/// `name` is without its `smmuv3_` or `smmu_`.
pub(super) fn parse(name: &[u8], c: &mut Cursor<'_>) -> Option<Option<Event>> {
    // In order of frequency in real logs.
    let event = match name {
        b"get_pte" => pte(c),
        b"translate_success" => success(c),
        b"config_cache_hit" => config(c),
        b"iotlb_lookup_hit" => lookup(c, true),
        b"iotlb_lookup_miss" => lookup(c, false),
        b"iotlb_insert" => insert(c),
        b"s1_range_inval" | b"range_inval" => range(c),
        b"config_cache_miss" => config(c),
        b"iotlb_inv_asid" | b"iotlb_inv_asid_vmid" => inv_asid(c),
        b"iotlb_inv_vmid" | b"iotlb_inv_vmid_s1" => inv_vmid(c),
        b"iotlb_inv_all" => Some(Smmu::InvAll),
        b"translate_bypass" | b"translate_disable" => untranslated(c, false),
        b"translate_abort" => untranslated(c, true),
        b"record_event" => named_sid(c).map(|sid| Smmu::Fault { sid }),
        b"cmdq_cfgi_ste" | b"cmdq_cfgi_cd" => config_inv(c),
        b"cmdq_cfgi_ste_range" => Some(Smmu::ConfigInvAll),
        _ => return None,
    };
    Some(event.map(Event::Smmu))
}

/// `key=VALUE` or, in very old versions, `key =VALUE`; the blank before it.
fn key<'c, 'a>(c: &'c mut Cursor<'a>, name: &[u8]) -> Option<&'c mut Cursor<'a>> {
    c.skip_spaces();
    c.lit(name)?;
    c.skip_spaces();
    c.lit(b"=")?;
    c.skip_spaces();
    Some(c)
}

/// A decimal number, -1 for "any".
fn signed(c: &mut Cursor<'_>) -> Option<i32> {
    if c.try_lit(b"-") {
        return (c.dec()? == 1).then_some(-1);
    }
    i32::try_from(c.dec()?).ok().filter(|v| *v <= 0xffff)
}

fn number(c: &mut Cursor<'_>, name: &[u8]) -> Option<u32> {
    u32::try_from(key(c, name)?.dec()?).ok()
}

fn hex(c: &mut Cursor<'_>, name: &[u8]) -> Option<u64> {
    let c = key(c, name)?;
    c.lit(b"0x")?;
    c.hex()
}

/// A stream id: hexadecimal, in very old versions decimal.
fn sid(c: &mut Cursor<'_>) -> Option<u32> {
    if c.try_lit(b"0x") {
        return requester(c);
    }
    u32::try_from(c.dec()?).ok().filter(|v| *v <= 0xffff)
}

/// `asid=N[ vmid=N]`
fn tag(c: &mut Cursor<'_>) -> Option<Tag> {
    let asid = signed(key(c, b"asid")?)?;
    Some(Tag { asid, vmid: vmid(c)? })
}

/// `[ vmid=N]`
fn vmid(c: &mut Cursor<'_>) -> Option<i32> {
    let mut ahead = *c;
    match key(&mut ahead, b"vmid") {
        Some(_) => {
            *c = ahead;
            signed(c)
        }
        None => Some(-1),
    }
}

fn pte(c: &mut Cursor<'_>) -> Option<Smmu> {
    // "baseaddr=0x439a0000 index=0x0, pteaddr=0x439a0000, pte=0x43930003"
    c.lit(b"baseaddr=0x")?;
    c.hex()?;
    c.lit(b" index=0x")?;
    c.hex()?;
    c.lit(b", pteaddr=0x")?;
    c.hex()?;
    c.lit(b", pte=0x")?;
    c.hex()?;
    Some(Smmu::GetPte)
}

fn success(c: &mut Cursor<'_>) -> Option<Smmu> {
    let sid = named_sid(c)?;
    let iova = hex(c, b"iova")?;
    let out = hex(c, b"translated")?;
    let perm = hex(c, b"perm")?;
    // The granule is at least 4 KiB: offsets agree.
    (perm < 4 && (iova ^ out) & 0xfff == 0).then_some(Smmu::Success {
        sid,
        iova,
        out,
        perm: perm as u8,
    })
}

/// `NAME sid=0x8`: the name of a memory region or of an event.
fn named_sid(c: &mut Cursor<'_>) -> Option<u32> {
    let at = memchr::memmem::find(c.rest(), b" sid")?;
    *c = Cursor::new(&c.rest()[at..]);
    sid(key(c, b"sid")?)
}

fn config(c: &mut Cursor<'_>) -> Option<Smmu> {
    let at = memchr::memmem::find(c.rest(), b" sid")?;
    *c = Cursor::new(&c.rest()[at + 4..]);
    if !c.try_lit(b"=") {
        c.lit(b" ")?;
    }
    Some(Smmu::Config { sid: sid(c)? })
}

fn lookup(c: &mut Cursor<'_>, hit: bool) -> Option<Smmu> {
    c.lit(if hit { b"IOTLB cache HIT" } else { b"IOTLB cache MISS" })?;
    let tag = tag(c).filter(|t| t.asid >= 0 || t.vmid >= 0)?;
    Some(Smmu::Lookup { hit, tag, addr: hex(c, b"addr")? })
}

fn insert(c: &mut Cursor<'_>) -> Option<Smmu> {
    c.lit(b"IOTLB ++")?;
    tag(c)?;
    hex(c, b"addr")?;
    let granule = granule(number(c, b"tg")?)?;
    let level = number(c, b"level")?;
    (level < 4).then_some(Smmu::Insert { granule, level })
}

/// log2 of the bytes of a page: the field TG of commands, 0 if not given.
fn granule(tg: u32) -> Option<u32> {
    match tg {
        0 => Some(12),
        1..=3 => Some(tg * 2 + 10),
        _ => None,
    }
}

fn range(c: &mut Cursor<'_>) -> Option<Smmu> {
    let vmid = vmid(c)?;
    let asid = signed(key(c, b"asid")?)?;
    let addr = hex(c, b"addr")?;
    let granule = granule(number(c, b"tg")?)?;
    let pages = hex(c, b"num_pages")?;
    number(c, b"ttl")?;
    let leaf = number(c, b"leaf")? != 0;
    let mut ahead = *c;
    let stage = number(&mut ahead, b"stage").unwrap_or(1);
    // QEMU splits commands into powers of two before it logs them.
    let bits = pages.is_power_of_two().then(|| pages.trailing_zeros() + granule)?;
    let tag = Tag { asid, vmid };
    (bits < 64).then(|| Smmu::Range { tag, addr, am: bits - 12, leaf, stage })
}

fn inv_asid(c: &mut Cursor<'_>) -> Option<Smmu> {
    c.lit(b"IOTLB invalidate")?;
    Some(Smmu::InvAsid { tag: tag(c)? })
}

fn inv_vmid(c: &mut Cursor<'_>) -> Option<Smmu> {
    c.lit(b"IOTLB invalidate")?;
    Some(Smmu::InvVmid { vmid: signed(key(c, b"vmid")?)? })
}

/// `NAME sid=0x8 TEXT iova:0x1000 is_write=1`
fn untranslated(c: &mut Cursor<'_>, abort: bool) -> Option<Smmu> {
    let sid = named_sid(c)?;
    let at = memchr::memmem::find(c.rest(), b"iova:0x")?;
    let mut c = Cursor::new(&c.rest()[at + 7..]);
    // "is_write" behind it is always 1 (QEMU makes a bool of the rights).
    let iova = c.hex()?;
    Some(if abort { Smmu::Abort { sid, iova } } else { Smmu::Bypass { sid, iova } })
}

fn config_inv(c: &mut Cursor<'_>) -> Option<Smmu> {
    // "streamid= 0x8" (7.2), "streamid = 8", "sid=0x8".
    let mut ahead = *c;
    let name: &[u8] = if key(&mut ahead, b"streamid").is_some() { b"streamid" } else { b"sid" };
    Some(Smmu::ConfigInv { sid: sid(key(c, name)?)? })
}

#[cfg(test)]
mod tests;

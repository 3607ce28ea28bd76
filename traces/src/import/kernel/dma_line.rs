//! The text of the kernel's `dma:*` events (`include/trace/events/dma.h`, from
//! Linux 6.12, which brought them, to 7.2), and of `intel_iommu:map_single` and
//! its siblings (`include/trace/events/intel_iommu.h` of Linux 5.4 to 5.11). They
//! name the device, but are maps and unmaps of buffers, not accesses.
//!
//! What changed: `dma_alloc` and `dma_free` had `phys_addr=` in 6.12's first
//! releases, then `virt_addr=`, and since 6.13 (6.12.y, too) `dir=`; `dma_map_sg` got its
//! counts and its limit of 128 entries; `dma_map_page` and `_resource` became
//! `dma_map_phys`.

mod fields;

use super::super::bytes::Cursor;

/// Pieces of a scatter list that the kernel prints at most.
pub(super) const MAX_PIECES: usize = 128;

/// A `dma:*` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dma {
    /// `dma_map_page`, `dma_map_resource`, `dma_map_phys`; `dma_alloc`,
    /// `dma_alloc_pages` (their physical address is not told);
    /// `intel_iommu:map_single`, `map_sg`, `bounce_map_single`.
    Map { device: u32, rights: u8, addr: u64, size: u64, phys: Option<u64> },
    /// `dma_unmap_*`, `dma_free`, `dma_free_pages`, `dma_free_sgt`;
    /// `intel_iommu:unmap_single`, `unmap_sg`, `bounce_unmap_single`.
    Unmap { device: u32, addr: u64, size: u64 },
    /// `dma_map_sg`: address and size of each piece; physical addresses of
    /// the list's entries. `dma_alloc_sgt`: one piece.
    MapList(List),
    /// `dma_unmap_sg`: physical addresses only.
    UnmapList { device: u32, phys: Vec<u64>, cut: bool },
    /// `dma_sync_*`, failed maps.
    Nothing,
}

/// A mapped scatter list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    pub(super) device: u32,
    pub(super) rights: u8,
    pub(super) pieces: Vec<(u64, u64)>,
    pub(super) phys: Vec<u64>,
    /// The kernel did not print all of it.
    pub(super) cut: bool,
    /// Its unmap names physical addresses only.
    pub(super) by_phys: bool,
}

/// True for the names of such events.
pub(super) fn is_dma(name: &[u8]) -> bool {
    name.starts_with(b"dma_map_")
        || name.starts_with(b"dma_unmap_")
        || name.starts_with(b"dma_alloc")
        || name.starts_with(b"dma_free")
        || name.starts_with(b"dma_sync_")
        || is_intel(name)
}

/// Events of the VT-d driver from before it used the common DMA code.
fn is_intel(name: &[u8]) -> bool {
    let name = name.strip_prefix(b"bounce_").unwrap_or(name);
    matches!(name, b"map_single" | b"map_sg" | b"unmap_single" | b"unmap_sg")
}

/// Reads the text of an event; `None` if it is damaged.
pub(super) fn parse(name: &[u8], text: &mut Cursor<'_>) -> Option<Dma> {
    let mut c = *text;
    if name.starts_with(b"dma_sync_") || name.ends_with(b"_err") {
        return Some(Dma::Nothing);
    }
    if is_intel(name) {
        return intel(name, &mut c);
    }
    if c.try_lit(b"[FAILED TO PARSE] ") {
        return fields::parse(name, &mut c);
    }
    let device = device(&mut c)?;
    let rights = rights(&mut c)?;
    match name {
        b"dma_map_page" | b"dma_map_resource" | b"dma_map_phys" => {
            let Some((addr, size)) = range(&mut c)? else { return Some(Dma::Nothing) };
            c.lit(b" phys_addr=")?;
            Some(Dma::Map { device, rights, addr, size, phys: Some(c.hex()?) })
        }
        b"dma_alloc" | b"dma_alloc_pages" => {
            let Some((addr, size)) = range(&mut c)? else { return Some(Dma::Nothing) };
            let phys = if c.try_lit(b" phys_addr=") {
                Some(c.hex()?)
            } else {
                c.lit(b" virt_addr=")?;
                let word = c.rest().split(|b| *b == b' ').next()?;
                if matches!(word, b"(null)" | b"(nil)") || word.iter().all(|b| *b == b'0') {
                    // It failed.
                    return Some(Dma::Nothing);
                }
                None
            };
            Some(Dma::Map { device, rights, addr, size, phys })
        }
        b"dma_unmap_page"
        | b"dma_unmap_resource"
        | b"dma_unmap_phys"
        | b"dma_free"
        | b"dma_free_pages"
        | b"dma_free_sgt" => Some(match range(&mut c)? {
            Some((addr, size)) => Dma::Unmap { device, addr, size },
            None => Dma::Nothing,
        }),
        b"dma_map_sg" => {
            let cut = counts(&mut c)?;
            let addrs = list(&mut c, b" dma_addrs=")?;
            let sizes = list(&mut c, b" sizes=")?;
            let phys = list(&mut c, b" phys_addrs=")?;
            let pieces = pieces(&addrs, &sizes)?;
            Some(Dma::MapList(List { device, rights, pieces, phys, cut, by_phys: true }))
        }
        b"dma_alloc_sgt" => {
            let Some(piece) = range(&mut c)? else { return Some(Dma::Nothing) };
            let phys = list(&mut c, b" phys_addrs=")?;
            let pieces = vec![piece];
            Some(Dma::MapList(List { device, rights, pieces, phys, cut: false, by_phys: false }))
        }
        b"dma_unmap_sg" => {
            let cut = counts(&mut c)?;
            Some(Dma::UnmapList { device, phys: list(&mut c, b" phys_addrs=")?, cut })
        }
        _ => Some(Dma::Nothing),
    }
}

/// ` dir=WORD`: what the device may do. Coherent memory, whose events had no
/// direction at first, is for both.
fn rights(c: &mut Cursor<'_>) -> Option<u8> {
    if !c.try_lit(b" dir=") {
        return Some(3);
    }
    let word = c.rest().split(|b| *b == b' ').next()?;
    let rights = match word {
        b"TO_DEVICE" => 1,
        b"FROM_DEVICE" => 2,
        b"BIDIRECTIONAL" => 3,
        b"NONE" => 0,
        _ => return None,
    };
    c.lit(word)?;
    Some(rights)
}

/// Entries behind the last mapped one are empty.
fn pieces(addrs: &[u64], sizes: &[u64]) -> Option<Vec<(u64, u64)>> {
    if addrs.len() != sizes.len() {
        return None;
    }
    let all = addrs.iter().copied().zip(sizes.iter().copied()).filter(|p| p.1 > 0);
    all.map(|p| check(p.0, p.1).map(|()| p)).collect()
}

/// `dev=NAME[ [N/M]] dev_addr=0x..[ phys_addr=0x..] size=N`
fn intel(name: &[u8], c: &mut Cursor<'_>) -> Option<Dma> {
    c.lit(b"dev=")?;
    let device = device(c)?;
    if c.try_lit(b" [") {
        c.skip_past(b']')?;
    }
    c.lit(b" dev_addr=0x")?;
    let addr = c.hex()?;
    let bounced = name.starts_with(b"bounce_");
    let map = name.strip_prefix(b"bounce_").unwrap_or(name).starts_with(b"map");
    let mut phys = None;
    if map {
        c.lit(b" phys_addr=0x")?;
        // That of the buffer; what is not of whole pages is bounced
        // elsewhere.
        phys = Some(c.hex()?);
    }
    c.lit(b" size=")?;
    let size = c.dec()?;
    check(addr, size)?;
    if !map {
        return Some(Dma::Unmap { device, addr, size });
    }
    let phys = phys.filter(|p| !bounced || (p | size) & 0xfff == 0);
    Some(Dma::Map { device, rights: 3, addr, size, phys })
}

/// `DDDD:BB:DD.F` without the segment. Devices that are not of PCI have other
/// names; they get numbers above all requester ids, by their name.
fn device(c: &mut Cursor<'_>) -> Option<u32> {
    let name = c.rest().split(|b| *b == b' ').next().filter(|n| !n.is_empty())?;
    let mut pci = Cursor::new(name);
    c.lit(name)?;
    Some(bdf(&mut pci).unwrap_or_else(|| {
        let hash =
            name.iter().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
        0x1_0000 | hash & 0x7fff_ffff
    }))
}

fn bdf(c: &mut Cursor<'_>) -> Option<u32> {
    c.hex32()?;
    c.lit(b":")?;
    let bus = c.hex32().filter(|b| *b < 256)?;
    c.lit(b":")?;
    let slot = c.hex32().filter(|d| *d < 32)?;
    c.lit(b".")?;
    let function = c.hex32().filter(|f| *f < 8)?;
    c.at_end().then_some(bus << 8 | slot << 3 | function)
}

/// A buffer ends within the 57 bits that tables translate today.
fn check(addr: u64, size: u64) -> Option<()> {
    (size <= 1 << 57 && addr.checked_add(size).is_some()).then_some(())
}

/// `Some(None)`: the address of a map that failed (`DMA_MAPPING_ERROR`).
fn range(c: &mut Cursor<'_>) -> Option<Option<(u64, u64)>> {
    c.lit(b" dma_addr=")?;
    c.try_lit(b"0x");
    let addr = c.hex()?;
    c.lit(b" size=")?;
    let size = c.dec()?;
    if addr == u64::MAX {
        return Some(None);
    }
    check(addr, size)?;
    Some(Some((addr, size)))
}

/// The later form's ` nents=N/M ents=N/M[ [TRUNCATED]]`; true if it was cut.
fn counts(c: &mut Cursor<'_>) -> Option<bool> {
    if !c.try_lit(b" nents=") {
        return Some(false);
    }
    let at = memchr::memmem::find(c.rest(), b" dma_addrs=")
        .or_else(|| memchr::memmem::find(c.rest(), b" phys_addrs="))?;
    let head = &c.rest()[..at];
    let cut = memchr::memmem::find(head, b"[TRUNCATED]").is_some();
    c.lit(head)?;
    Some(cut)
}

/// `NAME{0xA,0xB,...}`. The kernel prints all lists in hexadecimal; what
/// trace-cmd and perf print has other separators, and no `0x` where it is decimal. Kernels
/// that do not cut lists at [`MAX_PIECES`] print as many as fit in a page.
fn list(c: &mut Cursor<'_>, name: &[u8]) -> Option<Vec<u64>> {
    c.lit(name)?;
    c.lit(b"{")?;
    let mut all = Vec::new();
    c.skip_spaces();
    if c.try_lit(b"}") {
        return Some(all);
    }
    loop {
        all.push(if c.try_lit(b"0x") { c.hex() } else { c.dec() }?);
        let space = c.rest().first() == Some(&b' ');
        c.skip_spaces();
        if c.try_lit(b"}") {
            return Some(all);
        }
        if !c.try_lit(b",") && !space {
            return None;
        }
        c.skip_spaces();
        if all.len() > 16 * MAX_PIECES {
            return None;
        }
    }
}

#[cfg(test)]
mod tests;

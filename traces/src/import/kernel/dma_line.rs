//! The text of the kernel's `dma:*` events (`include/trace/events/dma.h`,
//! Linux 6.12 to 7.2). They name the device, but are maps and unmaps of
//! buffers, not accesses.

use super::super::bytes::Cursor;

/// Pieces of a scatter list that the kernel prints at most.
pub(super) const MAX_PIECES: usize = 128;

/// A `dma:*` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dma {
    /// `dma_map_page`, `dma_map_resource`, `dma_map_phys`; `dma_alloc`,
    /// `dma_alloc_pages` (their physical address is not told).
    Map { device: u32, rights: u8, addr: u64, size: u64, phys: Option<u64> },
    /// `dma_unmap_*`, `dma_free`, `dma_free_pages`.
    Unmap { device: u32, addr: u64, size: u64 },
    /// `dma_map_sg`: address and size of each piece; physical addresses of
    /// the list's entries.
    MapList { device: u32, rights: u8, pieces: Vec<(u64, u64)>, phys: Vec<u64>, cut: bool },
    /// `dma_unmap_sg`: physical addresses only.
    UnmapList { device: u32, phys: Vec<u64>, cut: bool },
    /// `dma_sync_*`, failed maps.
    Nothing,
}

/// True for the names of such events.
pub(super) fn is_dma(name: &[u8]) -> bool {
    name.starts_with(b"dma_map_")
        || name.starts_with(b"dma_unmap_")
        || name.starts_with(b"dma_alloc")
        || name.starts_with(b"dma_free")
        || name.starts_with(b"dma_sync_")
}

/// Reads the text of an event; `None` if it is damaged.
pub(super) fn parse(name: &[u8], text: &mut Cursor<'_>) -> Option<Dma> {
    let mut c = *text;
    if name.starts_with(b"dma_sync_") || name.ends_with(b"_err") {
        return Some(Dma::Nothing);
    }
    let device = device(&mut c)?;
    c.lit(b" dir=")?;
    let word = c.rest().split(|b| *b == b' ').next()?;
    // What the device may do.
    let rights = match word {
        b"TO_DEVICE" => 1,
        b"FROM_DEVICE" => 2,
        b"BIDIRECTIONAL" => 3,
        b"NONE" => 0,
        _ => return None,
    };
    c.lit(word)?;
    match name {
        b"dma_map_page" | b"dma_map_resource" | b"dma_map_phys" => {
            let (addr, size) = range(&mut c)?;
            c.lit(b" phys_addr=")?;
            Some(Dma::Map { device, rights, addr, size, phys: Some(c.hex()?) })
        }
        b"dma_alloc" | b"dma_alloc_pages" => {
            let (addr, size) = range(&mut c)?;
            Some(Dma::Map { device, rights, addr, size, phys: None })
        }
        b"dma_unmap_page"
        | b"dma_unmap_resource"
        | b"dma_unmap_phys"
        | b"dma_free"
        | b"dma_free_pages" => {
            let (addr, size) = range(&mut c)?;
            Some(Dma::Unmap { device, addr, size })
        }
        b"dma_map_sg" => {
            let cut = counts(&mut c)?;
            let addrs = list(&mut c, b" dma_addrs=", true)?;
            let sizes = list(&mut c, b" sizes=", false)?;
            let phys = list(&mut c, b" phys_addrs=", true)?;
            if addrs.len() != sizes.len() {
                return None;
            }
            let mut pieces = Vec::with_capacity(addrs.len());
            for (addr, size) in addrs.into_iter().zip(sizes) {
                addr.checked_add(size)?;
                // Entries behind the last mapped one are empty.
                if size > 0 {
                    pieces.push((addr, size));
                }
            }
            Some(Dma::MapList { device, rights, pieces, phys, cut })
        }
        b"dma_unmap_sg" => {
            let cut = counts(&mut c)?;
            Some(Dma::UnmapList { device, phys: list(&mut c, b" phys_addrs=", true)?, cut })
        }
        _ => Some(Dma::Nothing),
    }
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

fn range(c: &mut Cursor<'_>) -> Option<(u64, u64)> {
    c.lit(b" dma_addr=")?;
    let addr = c.hex()?;
    c.lit(b" size=")?;
    let size = c.dec()?;
    addr.checked_add(size)?;
    Some((addr, size))
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

/// `NAME{A,B,...}`, hexadecimal or decimal. Kernels that do not cut lists at
/// [`MAX_PIECES`] print as many as fit in a page.
fn list(c: &mut Cursor<'_>, name: &[u8], hex: bool) -> Option<Vec<u64>> {
    c.lit(name)?;
    c.lit(b"{")?;
    let mut all = Vec::new();
    if c.try_lit(b"}") {
        return Some(all);
    }
    loop {
        c.try_lit(b"0x");
        all.push(if hex { c.hex() } else { c.dec() }?);
        if c.try_lit(b"}") {
            return Some(all);
        }
        c.lit(b",")?;
        if all.len() > 16 * MAX_PIECES {
            return None;
        }
    }
}

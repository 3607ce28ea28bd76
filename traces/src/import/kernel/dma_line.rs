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
                check(addr, size)?;
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

/// A buffer ends within the 57 bits that tables translate today.
fn check(addr: u64, size: u64) -> Option<()> {
    (size <= 1 << 57 && addr.checked_add(size).is_some()).then_some(())
}

fn range(c: &mut Cursor<'_>) -> Option<(u64, u64)> {
    c.lit(b" dma_addr=")?;
    let addr = c.hex()?;
    c.lit(b" size=")?;
    let size = c.dec()?;
    check(addr, size)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Dma> {
        let (name, rest) = text.split_once(": ").unwrap();
        parse(name.as_bytes(), &mut Cursor::new(rest.as_bytes()))
    }

    /// The first two are recorded; scatter lists follow the format strings of Linux 6.10 (without
    /// counts) and 6.12.107 (`include/trace/events/dma.h`).
    #[test]
    fn lines() {
        let map = |addr, size, phys| Dma::Map { device: 8, rights: 2, addr, size, phys };
        for (text, expected) in [
            (
                "dma_map_page: 0000:00:01.0 dir=FROM_DEVICE dma_addr=ffffd000 size=4096 phys_addr=2587000 attrs=",
                map(0xffff_d000, 4096, Some(0x258_7000)),
            ),
            (
                "dma_alloc: 0000:00:01.0 dir=BIDIRECTIONAL dma_addr=fffff000 size=512 virt_addr=00000000dda65984 flags=GFP_KERNEL attrs=",
                Dma::Map { device: 8, rights: 3, addr: 0xffff_f000, size: 512, phys: None },
            ),
            (
                "dma_unmap_phys: 0000:00:01.0 dir=TO_DEVICE dma_addr=ffffb000 size=8 attrs=",
                Dma::Unmap { device: 8, addr: 0xffff_b000, size: 8 },
            ),
            (
                "dma_map_sg: 0000:00:01.0 dir=TO_DEVICE dma_addrs={fff00000,0} sizes={8192,0} phys_addrs={1000,2000} attrs=",
                Dma::MapList {
                    device: 8,
                    rights: 1,
                    pieces: vec![(0xfff0_0000, 8192)],
                    phys: vec![0x1000, 0x2000],
                    cut: false,
                },
            ),
            (
                "dma_map_sg: 0000:00:01.0 dir=TO_DEVICE nents=200/200 ents=1/1 [TRUNCATED] dma_addrs={0xfff00000} sizes={8192} phys_addrs={0x1000,0x2000} attrs=WEAK_ORDERING",
                Dma::MapList {
                    device: 8,
                    rights: 1,
                    pieces: vec![(0xfff0_0000, 8192)],
                    phys: vec![0x1000, 0x2000],
                    cut: true,
                },
            ),
            (
                "dma_unmap_sg: 0000:00:01.0 dir=TO_DEVICE phys_addrs={0x1000,0x2000} attrs=",
                Dma::UnmapList { device: 8, phys: vec![0x1000, 0x2000], cut: false },
            ),
            (
                "dma_map_sg_err: 0000:00:01.0 dir=TO_DEVICE dma_addrs={1000} err=-12 attrs=",
                Dma::Nothing,
            ),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for damaged in [
            "dma_map_page: 0000:00:01.0 dir=SIDEWAYS dma_addr=1000 size=4096 phys_addr=0 attrs=",
            "dma_map_page: 0000:00:01.0 dir=TO_DEVICE dma_addr=1000 size=4096",
            "dma_map_sg: 0000:00:01.0 dir=TO_DEVICE dma_addrs={1000,2000} sizes={1} phys_addrs={0} attrs=",
            "dma_unmap_page: 0000:00:01.0 dir=TO_DEVICE dma_addr=fffffffffffffff0 size=32 attrs=",
        ] {
            assert_eq!(read(damaged), None, "{damaged}");
        }
    }

    proptest::proptest! {
        #[test]
        fn printed_buffers_read_back(
            bdf in 0..0x1_0000u32,
            dir in 0..4u8,
            addr in 0..u64::MAX / 2,
            size in 0..1u64 << 40,
            phys: u64,
            pieces in proptest::collection::vec((0..u64::MAX / 2, 1..1u64 << 40, 0..u64::MAX), 1..MAX_PIECES),
        ) {
            let name = ["NONE", "TO_DEVICE", "FROM_DEVICE", "BIDIRECTIONAL"][usize::from(dir)];
            let device = format!("0000:{:02x}:{:02x}.{}", bdf >> 8, bdf >> 3 & 31, bdf & 7);
            for event in ["page", "resource", "phys"] {
                let text = format!("dma_map_{event}: {device} dir={name} dma_addr={addr:x} size={size} phys_addr={phys:x} attrs=SKIP_CPU_SYNC");
                let map = Dma::Map { device: bdf, rights: dir, addr, size, phys: Some(phys) };
                proptest::prop_assert_eq!(read(&text), Some(map));
                let text = format!("dma_unmap_{event}: {device} dir={name} dma_addr={addr:x} size={size} attrs=");
                proptest::prop_assert_eq!(read(&text), Some(Dma::Unmap { device: bdf, addr, size }));
            }
            let join = |f: &dyn Fn(&(u64, u64, u64)) -> String| pieces.iter().map(f).collect::<Vec<_>>().join(",");
            let text = format!(
                "dma_map_sg: {device} dir={name} dma_addrs={{{}}} sizes={{{}}} phys_addrs={{{}}} attrs=",
                join(&|p| format!("{:x}", p.0)), join(&|p| p.1.to_string()), join(&|p| format!("{:x}", p.2)),
            );
            let phys: Vec<u64> = pieces.iter().map(|p| p.2).collect();
            let list = Dma::MapList {
                device: bdf,
                rights: dir,
                pieces: pieces.iter().map(|p| (p.0, p.1)).collect(),
                phys: phys.clone(),
                cut: false,
            };
            proptest::prop_assert_eq!(read(&text), Some(list));
            let text = format!("dma_unmap_sg: {device} dir={name} phys_addrs={{{}}} attrs=", join(&|p| format!("{:x}", p.2)));
            proptest::prop_assert_eq!(read(&text), Some(Dma::UnmapList { device: bdf, phys, cut: false }));
        }

        #[test]
        fn any_bytes_can_be_parsed(bytes: Vec<u8>) {
            for name in [&b"dma_map_sg"[..], b"dma_unmap_sg", b"dma_map_page"] {
                let _ = parse(name, &mut Cursor::new(&bytes));
                let _ = parse(name, &mut Cursor::new(&[b"a dir=NONE ", &bytes[..]].concat()));
            }
        }
    }
}

//! Events whose text the tool could not put together: libtraceevent up to 1.7
//! does not know arrays of 64 bits, and trace-cmd prints the record's fields
//! as they are, arrays as bytes.
//!
//! `[FAILED TO PARSE] device=NAME full_nents=2 ... dma_addrs=ARRAY[00, f0, ...] dir=2 attrs=0x0`

use super::{Dma, List, device, pieces};
use crate::import::bytes::Cursor;

/// Bytes of one array at most; the kernel's lists end far before.
const MAX_BYTES: usize = 1 << 16;

/// The fields that events on buffers have.
#[derive(Default)]
struct Fields {
    device: Option<u32>,
    dir: Option<u64>,
    dma_addr: Option<u64>,
    size: Option<u64>,
    truncated: bool,
    dma_addrs: Vec<u8>,
    lengths: Vec<u8>,
    phys: Vec<u8>,
}

/// Reads the fields of an event; `None` if it is damaged.
pub(super) fn parse(name: &[u8], c: &mut Cursor<'_>) -> Option<Dma> {
    let f = fields(c)?;
    let device = f.device?;
    let phys = words(&f.phys)?;
    match name {
        b"dma_map_sg" => {
            let sizes: Vec<u64> = f
                .lengths
                .chunks(4)
                .map(|b| Some(u64::from(u32::from_le_bytes(b.try_into().ok()?))))
                .collect::<Option<_>>()?;
            let pieces = pieces(&words(&f.dma_addrs)?, &sizes)?;
            let rights = rights(f.dir?)?;
            Some(Dma::MapList(List {
                device,
                rights,
                pieces,
                phys,
                cut: f.truncated,
                by_phys: true,
            }))
        }
        b"dma_unmap_sg" => Some(Dma::UnmapList { device, phys, cut: f.truncated }),
        b"dma_alloc_sgt" | b"dma_free_sgt" => {
            let (addr, size) = (f.dma_addr?, f.size?);
            addr.checked_add(size)?;
            if name == b"dma_free_sgt" {
                return Some(Dma::Unmap { device, addr, size });
            }
            let (rights, pieces) = (rights(f.dir?)?, vec![(addr, size)]);
            Some(Dma::MapList(List { device, rights, pieces, phys, cut: false, by_phys: false }))
        }
        _ => Some(Dma::Nothing),
    }
}

fn fields(c: &mut Cursor<'_>) -> Option<Fields> {
    let mut f = Fields::default();
    loop {
        c.skip_spaces();
        let Some(at) = memchr::memchr(b'=', c.rest()) else {
            return c.at_end().then_some(f);
        };
        let name = &c.rest()[..at];
        *c = Cursor::new(&c.rest()[at + 1..]);
        if name == b"device" {
            f.device = Some(device(c)?);
        } else if c.try_lit(b"ARRAY[") {
            let bytes = array(c)?;
            match name {
                b"dma_addrs" => f.dma_addrs = bytes,
                b"lengths" => f.lengths = bytes,
                b"phys_addrs" | b"addrs" => f.phys = bytes,
                _ => {}
            }
        } else {
            let value = if c.try_lit(b"0x") { c.hex() } else { c.dec() }?;
            match name {
                b"dir" => f.dir = Some(value),
                b"truncated" => f.truncated = value != 0,
                b"dma_addr" => f.dma_addr = Some(value),
                b"size" => f.size = Some(value),
                _ => {}
            }
        }
    }
}

/// `00, f0, ...]`
fn array(c: &mut Cursor<'_>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if c.try_lit(b"]") {
        return Some(bytes);
    }
    loop {
        bytes.push(u8::try_from(c.hex()?).ok()?);
        if c.try_lit(b"]") {
            return Some(bytes);
        }
        c.lit(b", ")?;
        if bytes.len() == MAX_BYTES {
            return None;
        }
    }
}

/// The recording machine's words; those that trace such events are
/// little-endian.
fn words(bytes: &[u8]) -> Option<Vec<u64>> {
    bytes.chunks(8).map(|b| Some(u64::from_le_bytes(b.try_into().ok()?))).collect()
}

/// `enum dma_data_direction`.
fn rights(dir: u64) -> Option<u8> {
    [3, 1, 2, 0].get(usize::try_from(dir).ok()?).copied()
}

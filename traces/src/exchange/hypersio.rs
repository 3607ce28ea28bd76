//! Logs and traces of HyperSIO, Princeton's simulator of shared I/O
//! translation (R: src/sioperf of PrincetonUniversity/hypersio).
//!
//! *Text*: lines of its patched QEMU. `vtd_iotlb_page_update ... sid iova slpte
//! level domain` is a miss, `vtd_iotlb_page_hit ... sid iova pmask slpte domain`
//! a hit. Stock QEMU prints neither `level` nor `pmask`.
//!
//! *Binary*: records of 48 bytes, little-endian: type (u32, 1 = translation),
//! device and domain (u16), IOVA, mask, level, entry, and the number of the
//! next access (u64 each).

use std::sync::LazyLock;

use ioasim_events::{DomainId, Event, Flags, Kind, Requester};
use memchr::memmem::Finder;

use crate::import::bytes::Cursor;

/// Bytes of a binary record.
pub const RECORD: usize = 48;
/// Its type.
const TRANSLATION: u32 = 1;
/// Address bits of a second-level entry (VT-d 9.8).
const ENTRY_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bytes of a page at a level, 1 = 4 KiB.
fn page_bytes(level: u64) -> Option<u64> {
    (1..=4).contains(&level).then(|| 4096 << (9 * (level - 1)))
}

/// A translation as an access with its output.
fn access(sid: u64, did: u64, iova: u64, entry: u64, page: u64) -> Event {
    Event {
        domain: DomainId(did as u32),
        requester: Requester(sid as u32),
        addr: iova,
        out: (entry & ENTRY_ADDRESS & !(page - 1)) | (iova & (page - 1)),
        flags: Flags::OUT_KNOWN,
        ..Event::new(Kind::Dma)
    }
}

/// An event from a binary record.
///
/// # Errors
/// One sentence if it is no translation.
pub fn record(bytes: &[u8; RECORD]) -> Result<Event, String> {
    let int = |at: usize, n: usize| {
        bytes[at..at + n].iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b))
    };
    if int(0, 4) != u64::from(TRANSLATION) {
        return Err(format!("type {} is no translation (1)", int(0, 4)));
    }
    let (sid, did, iova, mask, level) = (int(4, 2), int(6, 2), int(8, 8), int(16, 8), int(24, 8));
    let Some(page) = page_bytes(level) else {
        return Err(format!("level {level} is not 1 to 4"));
    };
    if mask != !(page - 1) {
        return Err(format!("mask {mask:#x} is not that of level {level}"));
    }
    Ok(access(sid, did, iova, int(32, 8), page))
}

/// What a line of a text log says: nothing of use, or an access.
///
/// # Errors
/// One sentence if a line of interest cannot be read.
pub fn line(line: &[u8]) -> Result<Option<Event>, String> {
    let Some(at) = PAGE_EVENT.find(line) else { return Ok(None) };
    let name = &line[at + PAGE_EVENT.needle().len()..];
    let update = name.starts_with(b"update");
    if !update && !name.starts_with(b"hit") {
        return Ok(None);
    }
    let access = match in_order(name, update) {
        Some(values) => values,
        None => in_any_order(line)?,
    };
    let Access { sid, did, iova, entry, page } = access;
    if sid > 0xffff || did > 0xffff || !page.is_power_of_two() || page < 4096 {
        return Err("a number is out of its limits".into());
    }
    let mut e = self::access(sid, did, iova, entry, page);
    e.flags = e.flags.with(Flags::LABEL_KNOWN);
    if !update {
        e.flags = e.flags.with(Flags::HIT);
    }
    Ok(Some(e))
}

/// What the names of its lines have in common.
static PAGE_EVENT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("vtd_iotlb_page_"));

/// The numbers of a line.
struct Access {
    sid: u64,
    did: u64,
    iova: u64,
    entry: u64,
    page: u64,
}

/// The numbers where they are printed; `None` if the line is another.
fn in_order(name: &[u8], update: bool) -> Option<Access> {
    let mut c = Cursor::new(name);
    let text: &[u8] =
        if update { b"update IOTLB page update sid 0x" } else { b"hit IOTLB page hit sid 0x" };
    c.lit(text)?;
    let sid = c.hex()?;
    c.lit(b" iova 0x")?;
    let iova = c.hex()?;
    let mut page = 4096;
    if !update && c.try_lit(b" pmask 0x") {
        page = page_of_mask(c.hex()?);
    }
    c.lit(b" slpte 0x")?;
    let entry = c.hex()?;
    if update && c.try_lit(b" level 0x") {
        page = page_bytes(c.hex()?)?;
    }
    c.lit(b" domain 0x")?;
    let did = c.hex()?;
    c.at_end().then_some(Access { sid, did, iova, entry, page })
}

/// The numbers by the words before them.
fn in_any_order(line: &[u8]) -> Result<Access, String> {
    let (mut sid, mut did, mut iova, mut entry, mut page) = (None, None, None, None, None);
    let mut words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).peekable();
    while let Some(word) = words.next() {
        let slot = match word {
            b"sid" => &mut sid,
            b"domain" => &mut did,
            b"iova" => &mut iova,
            b"slpte" => &mut entry,
            b"level" | b"pmask" => &mut page,
            _ => continue,
        };
        let Some(value) = words.next_if(|w| w.starts_with(b"0x")).and_then(hex) else { continue };
        *slot = Some(match word {
            b"pmask" => page_of_mask(value),
            b"level" => page_bytes(value).ok_or_else(|| format!("level {value} is not 1 to 4"))?,
            _ => value,
        });
    }
    let (Some(sid), Some(did), Some(iova), Some(entry)) = (sid, did, iova, entry) else {
        return Err("sid, iova, slpte or domain is missing".into());
    };
    Ok(Access { sid, did, iova, entry, page: page.unwrap_or(4096) })
}

/// The page of this mask; 32 bits of it in some versions.
fn page_of_mask(mask: u64) -> u64 {
    (!(mask | 0xffff_ffff_0000_0000)).wrapping_add(1)
}

/// True if a line is of HyperSIO's QEMU and not of stock QEMU.
pub fn is_own(line: &[u8]) -> bool {
    let has = |what: &[u8]| memchr::memmem::find(line, what).is_some();
    (has(b"vtd_iotlb_page_update") && has(b" level 0x"))
        || (has(b"vtd_iotlb_page_hit") && has(b" pmask 0x"))
        || has(b"vtd_slpte_fetch")
}

/// `0x` and digits.
fn hex(word: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(word).ok()?.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_its_qemu() {
        // After the patterns in src/sioperf/src/main.cpp.
        let update = b"123@1.2:vtd_iotlb_page_update IOTLB page update sid 0x10 iova 0xbfe01234 \
            slpte 0x7a001003 level 0x1 domain 0x5";
        let e = line(update).unwrap().unwrap();
        assert_eq!((e.requester, e.domain), (Requester(0x10), DomainId(5)));
        assert_eq!((e.addr, e.out), (0xbfe0_1234, 0x7a00_1234));
        assert!(e.flags.has(Flags::LABEL_KNOWN) && !e.flags.has(Flags::HIT));
        let hit = b"vtd_iotlb_page_hit IOTLB page hit sid 0x10 iova 0x40212345 \
            pmask 0xffe00000 slpte 0x7a200083 domain 0x5";
        let e = line(hit).unwrap().unwrap();
        assert_eq!(e.out, 0x7a21_2345, "a page of 2 MiB");
        assert!(e.flags.has(Flags::HIT));
        assert!(is_own(update) && is_own(hit));
        assert!(!is_own(
            b"vtd_iotlb_page_hit IOTLB page hit sid 0x8 iova 0x1 slpte 0x1 domain 0x1"
        ));
        assert_eq!(line(b"vtd_inv_qi_tail write tail 3"), Ok(None));
        assert!(line(b"vtd_iotlb_page_hit sid 0x1 iova").is_err());
    }

    #[test]
    fn records_of_48_bytes() {
        let mut bytes = [0; RECORD];
        bytes[0] = 1;
        bytes[4..6].copy_from_slice(&0x18u16.to_le_bytes());
        bytes[6..8].copy_from_slice(&7u16.to_le_bytes());
        bytes[8..16].copy_from_slice(&0xffff_f010u64.to_le_bytes());
        bytes[16..24].copy_from_slice(&(!0xfffu64).to_le_bytes());
        bytes[24] = 1;
        bytes[32..40].copy_from_slice(&0x1234_5003u64.to_le_bytes());
        let e = record(&bytes).unwrap();
        assert_eq!((e.requester, e.domain), (Requester(0x18), DomainId(7)));
        assert_eq!((e.addr, e.out), (0xffff_f010, 0x1234_5010));
        bytes[24] = 9;
        assert!(record(&bytes).is_err());
        bytes[0] = 2;
        assert!(record(&bytes).is_err());
    }
}

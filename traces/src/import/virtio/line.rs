//! One line of a log of QEMU's virtio-iommu.

use super::super::bytes::Cursor;
use super::super::qemu_line::{self, Stamp};

/// A line, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// An event that the importer uses.
    Event(Virtio),
    /// QEMU's dealings with the host, or lost events.
    Qemu(qemu_line::Event),
    /// Another event; its name.
    Other(&'a [u8]),
    /// Nothing on it.
    Blank,
    /// Damaged, and why.
    Damaged(&'static str),
}

/// An event that the importer uses. Ends are inclusive; endpoints are PCI
/// requester ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Virtio {
    /// `virtio_iommu_attach`
    Attach { domain: u32, endpoint: u32 },
    /// `virtio_iommu_detach`
    Detach { domain: u32, endpoint: u32 },
    /// `virtio_iommu_put_endpoint`
    FreeEndpoint { endpoint: u32 },
    /// `virtio_iommu_put_domain`: it and its mappings are gone.
    FreeDomain { domain: u32 },
    /// `virtio_iommu_device_reset` (7.2), `_device_reset_exit` (10.x), `_system_reset`
    Reset,
    /// `virtio_iommu_map`; rights: 1 read, 2 write.
    Map { domain: u32, start: u64, last: u64, out: u64, rights: u8 },
    /// `virtio_iommu_unmap`: the request.
    Unmap { domain: u32, start: u64, last: u64 },
    /// `virtio_iommu_unmap_done`: a mapping that it removed.
    UnmapDone { domain: u32, start: u64, last: u64 },
    /// `virtio_iommu_translate`
    Translate { endpoint: u32, addr: u64, rights: u8 },
    /// `virtio_iommu_translate_out`
    Out { endpoint: u32, addr: u64, out: u64 },
    /// `virtio_iommu_report_fault`
    Fault { endpoint: u32, addr: u64 },
}

/// Takes a line apart.
#[inline]
pub(super) fn parse(bytes: &[u8]) -> (Stamp, Line<'_>) {
    if let Some((stamp, mut c)) = qemu_line::behind_stamp(bytes)
        && c.try_lit(b"virtio_iommu_")
    {
        let rest = c.rest();
        let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
        let (tail, mut args) = (&rest[..end], Cursor::new(rest.get(end + 1..).unwrap_or_default()));
        match event(tail, &mut args) {
            Some(Some(event)) => return (stamp, Line::Event(event)),
            Some(None) => {
                return (stamp, Line::Damaged("arguments of a known event cannot be read"));
            }
            None => {}
        }
    }
    let (stamp, parsed) = qemu_line::parse(bytes);
    let line = match parsed {
        qemu_line::Line::Other(name) => Line::Other(name),
        qemu_line::Line::Event(e) if e.is_host_side() || matches!(e, qemu_line::Event::Lost(_)) => {
            Line::Qemu(e)
        }
        qemu_line::Line::Event(_) => Line::Other(b"(event of another kind)"),
        qemu_line::Line::Blank => Line::Blank,
        qemu_line::Line::Damaged(why) => Line::Damaged(why),
    };
    (stamp, line)
}

fn event(name: &[u8], c: &mut Cursor<'_>) -> Option<Option<Virtio>> {
    Some(match name {
        b"translate" => translate(c),
        b"translate_out" => out(c),
        b"map" => map(c),
        b"unmap" => range(c).map(|(domain, start, last)| Virtio::Unmap { domain, start, last }),
        b"unmap_done" => {
            range(c).map(|(domain, start, last)| Virtio::UnmapDone { domain, start, last })
        }
        b"attach" => place(c).map(|(domain, endpoint)| Virtio::Attach { domain, endpoint }),
        b"detach" => place(c).map(|(domain, endpoint)| Virtio::Detach { domain, endpoint }),
        b"put_endpoint" => {
            number(c, b"Free endpoint=").map(|endpoint| Virtio::FreeEndpoint { endpoint })
        }
        b"put_domain" => number(c, b"Free domain=").map(|domain| Virtio::FreeDomain { domain }),
        b"device_reset" | b"device_reset_exit" | b"system_reset" => Some(Virtio::Reset),
        b"report_fault" => fault(c),
        _ => return None,
    })
}

/// A decimal number behind a text. QEMU prints ids as signed; the two
/// reserved values of `DomainId` and `Requester` are refused.
fn number(c: &mut Cursor<'_>, text: &[u8]) -> Option<u32> {
    c.lit(text)?;
    let negative = c.try_lit(b"-");
    let n = c.dec()?;
    let n = if negative { u64::from(u32::try_from(n).ok()?.wrapping_neg()) } else { n };
    u32::try_from(n).ok().filter(|n| *n < u32::MAX - 1)
}

fn place(c: &mut Cursor<'_>) -> Option<(u32, u32)> {
    Some((number(c, b"domain=")?, number(c, b" endpoint=")?))
}

fn range(c: &mut Cursor<'_>) -> Option<(u32, u64, u64)> {
    let domain = number(c, b"domain=")?;
    c.lit(b" virt_start=0x")?;
    let start = c.hex()?;
    c.lit(b" virt_end=0x")?;
    let last = c.hex()?;
    (start <= last && last - start < u64::MAX).then_some((domain, start, last))
}

fn map(c: &mut Cursor<'_>) -> Option<Virtio> {
    let (domain, start, last) = range(c)?;
    c.lit(b" phys_start=0x")?;
    let out = c.hex()?;
    out.checked_add(last - start).filter(|_| last - start < 1 << 63)?;
    c.lit(b" flags=")?;
    // VIRTIO_IOMMU_MAP_F_READ, _WRITE, _MMIO (virtio 1.2, 5.13.6.6).
    Some(Virtio::Map { domain, start, last, out, rights: (c.dec()? & 3) as u8 })
}

fn translate(c: &mut Cursor<'_>) -> Option<Virtio> {
    // "mr=NAME rid=8 addr=0xffffe000 flag=1"
    c.lit(b"mr=")?;
    // A name has no blanks, or the last " rid=" is meant.
    let rest = c.rest();
    let first = memchr::memchr(b' ', rest)?;
    if let Some(event) = translated(&rest[first..]) {
        return Some(event);
    }
    translated(&rest[memchr::memmem::rfind(rest, b" rid=")?..])
}

#[inline]
fn translated(text: &[u8]) -> Option<Virtio> {
    let mut c = Cursor::new(text);
    let endpoint = number(&mut c, b" rid=")?;
    c.lit(b" addr=0x")?;
    let addr = c.hex()?;
    c.lit(b" flag=")?;
    Some(Virtio::Translate { endpoint, addr, rights: (c.dec()? & 3) as u8 })
}

fn out(c: &mut Cursor<'_>) -> Option<Virtio> {
    c.lit(b"0x")?;
    let addr = c.hex()?;
    c.lit(b" -> 0x")?;
    let out = c.hex()?;
    Some(Virtio::Out { endpoint: number(c, b" for sid=")?, addr, out })
}

fn fault(c: &mut Cursor<'_>) -> Option<Virtio> {
    // "FAULT reason=1 flags=1 endpoint=8 address =0x1000"
    let at = memchr::memmem::find(c.rest(), b"endpoint=")?;
    let mut c = Cursor::new(&c.rest()[at..]);
    let endpoint = number(&mut c, b"endpoint=")?;
    let at = memchr::memmem::find(c.rest(), b"=0x")?;
    let mut c = Cursor::new(&c.rest()[at + 3..]);
    Some(Virtio::Fault { endpoint, addr: c.hex()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (text, expected) in [
            (
                "4517@1795445925.282036:virtio_iommu_map domain=2 virt_start=0xfffff000 virt_end=0xffffffff phys_start=0x113f5000 flags=3",
                Virtio::Map {
                    domain: 2,
                    start: 0xffff_f000,
                    last: 0xffff_ffff,
                    out: 0x113f_5000,
                    rights: 3,
                },
            ),
            (
                "4514@1795445925.355448:virtio_iommu_translate mr=virtio-iommu-memory-region-1-8 rid=8 addr=0xffffe000 flag=1",
                Virtio::Translate { endpoint: 8, addr: 0xffff_e000, rights: 1 },
            ),
            (
                "2026-11-23T14:58:45.355457Z virtio_iommu_translate_out 0xffffe000 -> 0x113f4000 for sid=8",
                Virtio::Out { endpoint: 8, addr: 0xffff_e000, out: 0x113f_4000 },
            ),
            ("virtio_iommu_put_domain Free domain=0", Virtio::FreeDomain { domain: 0 }),
            (
                "virtio_iommu_report_fault FAULT reason=1 flags=1 endpoint=240 address =0x1000",
                Virtio::Fault { endpoint: 240, addr: 0x1000 },
            ),
        ] {
            assert_eq!(parse(text.as_bytes()).1, Line::Event(expected), "{text}");
        }
        assert!(matches!(
            parse(b"virtio_iommu_map domain=2 virt_start=0x2000 virt_end=0x1fff phys_start=0x0 flags=3").1,
            Line::Damaged(_)
        ));
        assert!(matches!(parse(b"virtio_iommu_get_features x").1, Line::Other(_)));
    }

    proptest::proptest! {
        #[test]
        fn printed_requests_read_back(
            tid: u32, sec in 0..1u64 << 33, us in 0..1_000_000u64,
            domain in 0..1u32 << 31, start in 0..u64::MAX / 4, length in 0..u64::MAX / 4,
            out in 0..u64::MAX / 4, rights in 0..4u8, endpoint in 0..0x1_0000u32,
        ) {
            let last = start + length;
            for (text, expected) in [
                (format!("virtio_iommu_map domain={domain} virt_start={start:#x} virt_end={last:#x} phys_start={out:#x} flags={rights}"),
                 Virtio::Map { domain, start, last, out, rights }),
                (format!("virtio_iommu_unmap domain={domain} virt_start={start:#x} virt_end={last:#x}"),
                 Virtio::Unmap { domain, start, last }),
                (format!("virtio_iommu_unmap_done domain={domain} virt_start={start:#x} virt_end={last:#x}"),
                 Virtio::UnmapDone { domain, start, last }),
                (format!("virtio_iommu_attach domain={domain} endpoint={endpoint}"), Virtio::Attach { domain, endpoint }),
                (format!("virtio_iommu_detach domain={domain} endpoint={endpoint}"), Virtio::Detach { domain, endpoint }),
                ("virtio_iommu_device_reset reset!".to_owned(), Virtio::Reset),
                ("virtio_iommu_device_reset_exit reset!".to_owned(), Virtio::Reset),
                (format!("virtio_iommu_translate mr=a b rid=7 rid={endpoint} addr={start:#x} flag={rights}"),
                 Virtio::Translate { endpoint, addr: start, rights }),
                (format!("virtio_iommu_translate_out {start:#x} -> {out:#x} for sid={endpoint}"),
                 Virtio::Out { endpoint, addr: start, out }),
            ] {
                let stamped = format!("{tid}@{sec}.{us:06}:{text}");
                let (stamp, line) = parse(stamped.as_bytes());
                proptest::prop_assert_eq!(line, Line::Event(expected), "{}", stamped);
                proptest::prop_assert_eq!(stamp.time, Some((sec * 1_000_000_000 + us * 1000) as i64));
            }
        }

        #[test]
        fn any_bytes_can_be_parsed(bytes: Vec<u8>) {
            let _ = parse(&[b"virtio_iommu_map domain=", &bytes[..]].concat());
            let _ = parse(&bytes);
        }
    }
}

//! Events of QEMU's side of the host: what its `iommufd` backend asks of
//! `/dev/iommu` (`backends/trace-events`, `hw/vfio/trace-events` of 10.0.13 and
//! 10.2.2; 7.2 has none of them). The leading blank is in QEMU's texts.

use super::{Event, device};
use crate::import::bytes::Cursor;

/// An object of one `/dev/iommu`: the file descriptor and the object's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Object {
    pub(crate) iommufd: u32,
    pub(crate) id: u32,
}

/// An `iommufd_*` event that importers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// `iommufd_backend_map_dma`; and `iommufd_backend_map_file_dma`, whose
    /// `vaddr` is 0: it maps a part of a file.
    Map { ioas: Object, iova: u64, size: u64, vaddr: u64, readonly: bool, ok: bool },
    /// `iommufd_backend_unmap_dma`; `_non_exist`, which found nothing to unmap
    /// and is no error to QEMU.
    Unmap { ioas: Object, iova: u64, size: u64, ok: bool },
    /// `iommufd_backend_alloc_hwpt`: `kind` is `enum iommu_hwpt_data_type` of
    /// Linux' `include/uapi/linux/iommufd.h`, 0 for a table of the kernel's own.
    AllocHwpt { hwpt: Object, parent: u32, device: u32, kind: u32, ok: bool },
    /// `iommufd_backend_invalidate_cache`: entries carried out; what they say
    /// is not printed.
    Invalidate { of: Object, entries: u32 },
    /// `iommufd_backend_set_dirty`
    SetDirty { hwpt: Object, on: bool, ok: bool },
    /// `iommufd_backend_free_id`
    Free { object: Object, ok: bool },
    /// `iommufd_cdev_attach_ioas_hwpt`
    Attach { device: u32, to: Object },
    /// `iommufd_cdev_detach_ioas_hwpt`
    Detach { iommufd: u32, device: u32 },
}

/// `None`: not an event that importers use; `Some(None)`: a damaged one.
/// `name` is without its `iommufd_`.
pub(super) fn parse(name: &[u8], c: &mut Cursor<'_>) -> Option<Option<Event>> {
    c.skip_spaces();
    let event = match name {
        b"backend_map_dma" => map(c),
        b"backend_map_file_dma" => map_file(c),
        b"backend_unmap_dma" => unmap(c),
        b"backend_unmap_dma_non_exist" => unmap_nothing(c),
        b"backend_alloc_hwpt" => alloc_hwpt(c),
        b"backend_invalidate_cache" => invalidate(c),
        b"backend_set_dirty" => set_dirty(c),
        b"backend_free_id" => free(c),
        b"cdev_attach_ioas_hwpt" => attach(c),
        b"cdev_detach_ioas_hwpt" => detach(c),
        _ => return None,
    };
    Some(event.map(Event::Host))
}

/// `NAME=NUMBER`, and the blanks before it.
fn number(c: &mut Cursor<'_>, name: &[u8]) -> Option<u32> {
    c.skip_spaces();
    c.lit(name)?;
    c.lit(b"=")?;
    u32::try_from(c.dec()?).ok()
}

fn hex(c: &mut Cursor<'_>, name: &[u8]) -> Option<u64> {
    c.skip_spaces();
    c.lit(name)?;
    c.lit(b"=0x")?;
    c.hex()
}

/// ` (RESULT)`: a negative errno.
fn ok(c: &mut Cursor<'_>) -> Option<bool> {
    c.lit(b" (")?;
    let negative = c.try_lit(b"-");
    let n = c.dec()?;
    c.lit(b")")?;
    Some(n == 0 && !negative)
}

fn ioas(c: &mut Cursor<'_>) -> Option<Object> {
    Some(Object { iommufd: number(c, b"iommufd")?, id: number(c, b"ioas")? })
}

fn range(c: &mut Cursor<'_>) -> Option<(u64, u64)> {
    let (iova, size) = (hex(c, b"iova")?, hex(c, b"size")?);
    iova.checked_add(size.checked_sub(1)?)?;
    Some((iova, size))
}

fn map(c: &mut Cursor<'_>) -> Option<Host> {
    let ioas = ioas(c)?;
    let (iova, size) = range(c)?;
    let vaddr = hex(c, b"addr")?;
    let readonly = number(c, b"readonly")? != 0;
    Some(Host::Map { ioas, iova, size, vaddr, readonly, ok: ok(c)? })
}

fn map_file(c: &mut Cursor<'_>) -> Option<Host> {
    let ioas = ioas(c)?;
    let (iova, size) = range(c)?;
    number(c, b"fd")?;
    number_of_any_sign(c, b" start=")?;
    let readonly = number(c, b"readonly")? != 0;
    Some(Host::Map { ioas, iova, size, vaddr: 0, readonly, ok: ok(c)? })
}

fn number_of_any_sign(c: &mut Cursor<'_>, text: &[u8]) -> Option<()> {
    c.lit(text)?;
    c.try_lit(b"-");
    c.dec().map(|_| ())
}

fn unmap(c: &mut Cursor<'_>) -> Option<Host> {
    let ioas = ioas(c)?;
    let (iova, size) = (hex(c, b"iova")?, hex(c, b"size")?);
    // The whole space has no size in 64 bits.
    let size = if size == 0 { u64::MAX } else { size };
    iova.checked_add(size - 1)?;
    Some(Host::Unmap { ioas, iova, size, ok: ok(c)? })
}

fn unmap_nothing(c: &mut Cursor<'_>) -> Option<Host> {
    c.lit(b"Unmap nonexistent mapping:")?;
    match unmap(c)? {
        Host::Unmap { ioas, iova, size, .. } => Some(Host::Unmap { ioas, iova, size, ok: true }),
        other => Some(other),
    }
}

fn alloc_hwpt(c: &mut Cursor<'_>) -> Option<Host> {
    let iommufd = number(c, b"iommufd")?;
    let device = number(c, b"dev_id")?;
    let parent = number(c, b"pt_id")?;
    hex(c, b"flags")?;
    let kind = number(c, b"hwpt_type")?;
    number(c, b"len")?;
    hex(c, b"data_ptr")?;
    let id = number(c, b"out_hwpt")?;
    Some(Host::AllocHwpt { hwpt: Object { iommufd, id }, parent, device, kind, ok: ok(c)? })
}

fn invalidate(c: &mut Cursor<'_>) -> Option<Host> {
    let iommufd = number(c, b"iommufd")?;
    let of = Object { iommufd, id: number(c, b"id")? };
    number(c, b"data_type")?;
    number(c, b"entry_len")?;
    number(c, b"entry_num")?;
    let entries = number(c, b"done_num")?;
    hex(c, b"data_ptr")?;
    ok(c)?;
    Some(Host::Invalidate { of, entries })
}

fn set_dirty(c: &mut Cursor<'_>) -> Option<Host> {
    let iommufd = number(c, b"iommufd")?;
    let hwpt = Object { iommufd, id: number(c, b"hwpt")? };
    let on = number(c, b"enable")? != 0;
    Some(Host::SetDirty { hwpt, on, ok: ok(c)? })
}

fn free(c: &mut Cursor<'_>) -> Option<Host> {
    let iommufd = number(c, b"iommufd")?;
    let object = Object { iommufd, id: number(c, b"id")? };
    Some(Host::Free { object, ok: ok(c)? })
}

/// `[iommufd=N] `
fn bracket(c: &mut Cursor<'_>) -> Option<u32> {
    c.lit(b"[")?;
    let iommufd = number(c, b"iommufd")?;
    c.lit(b"] ")?;
    Some(iommufd)
}

fn attach(c: &mut Cursor<'_>) -> Option<Host> {
    let iommufd = bracket(c)?;
    c.lit(b"Successfully attached device ")?;
    let device = named(c)?;
    let at = memchr::memmem::rfind(c.rest(), b" to id=")?;
    *c = Cursor::new(&c.rest()[at + 7..]);
    let id = u32::try_from(c.dec()?).ok()?;
    Some(Host::Attach { device, to: Object { iommufd, id } })
}

fn detach(c: &mut Cursor<'_>) -> Option<Host> {
    let iommufd = bracket(c)?;
    c.lit(b"Successfully detached ")?;
    Some(Host::Detach { iommufd, device: named(c)? })
}

/// A device of the host, `DDDD:BB:DD.F` without the segment. Mediated devices
/// have other names; they get numbers above all requester ids, by their name.
fn named(c: &mut Cursor<'_>) -> Option<u32> {
    let name = c.rest().split(|b| *b == b' ').next().filter(|n| !n.is_empty())?;
    c.lit(name)?;
    Some(requester_of(name))
}

/// See [`named`].
fn requester_of(name: &[u8]) -> u32 {
    let mut pci = Cursor::new(name);
    let bdf = pci.hex32().and_then(|_| pci.lit(b":")).and_then(|()| device(&mut pci));
    match bdf.filter(|_| pci.at_end()) {
        Some(bdf) => bdf,
        None => {
            // FNV-1a
            let hash = name
                .iter()
                .fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
            0x1_0000 | hash & 0x7fff_ffff
        }
    }
}

#[cfg(test)]
mod tests;

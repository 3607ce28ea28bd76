//! What a trace of accesses alone needs to be replayed.

use ioasim_events::{DomainId, Event, Flags, Kind};
use rustc_hash::FxHashMap;

/// Adds the attach of each device and, right before the first access to a page,
/// its map, both marked as inferred. Where the output is not recorded the page
/// lies in guest memory in the order of first use, scattered (A).
#[derive(Debug, Default)]
pub(super) struct Mapper {
    /// Target of each page.
    pages: FxHashMap<(u32, u64), u64>,
    devices: FxHashMap<(u32, u32), ()>,
    next: u64,
}

/// First address of made-up guest memory.
const FIRST: u64 = 1 << 32;

impl Mapper {
    /// Calls `f` with what `e` needs and then with `e` itself. Returns how many
    /// maps were added, and unmaps of pages that moved.
    pub fn event<E>(
        &mut self,
        e: &Event,
        f: &mut impl FnMut(&Event) -> Result<(), E>,
    ) -> Result<u64, E> {
        let first = Event { flags: Flags::INFERRED, size: 0, out: 0, addr: 0, ..*e };
        if self.devices.insert((e.domain.0, e.requester.0), ()).is_none() {
            f(&Event { kind: Kind::Attach, ..first })?;
        }
        let mut added = 0;
        let last = e.addr.saturating_add(e.size.max(1) - 1) >> 12;
        for page in e.addr >> 12..=last {
            let known = e.flags.has(Flags::OUT_KNOWN);
            let at = page << 12;
            let recorded = (e.out & !0xfff).wrapping_add(at.wrapping_sub(e.addr & !0xfff));
            let old = self.pages.get(&(e.domain.0, page)).copied();
            if old.is_some_and(|old| !known || old == recorded) {
                continue;
            }
            let to = if known {
                recorded
            } else {
                self.next += 1;
                FIRST + ((self.next.wrapping_mul(0x9e37_79b1) & 0xff_ffff) << 12)
            };
            let change = Event { addr: at, size: 4096, ..first };
            let change = Event { requester: ioasim_events::Requester::NONE, ..change };
            if old.is_some() {
                f(&Event { kind: Kind::Unmap, ..change })?;
            }
            let flags = Flags::INFERRED.with(Flags::READ).with(Flags::WRITE);
            f(&Event { kind: Kind::Map, flags, out: to, ..change })?;
            self.pages.insert((e.domain.0, page), to);
            added += 1;
        }
        debug_assert!(e.domain != DomainId::NONE);
        f(e)?;
        Ok(added)
    }
}

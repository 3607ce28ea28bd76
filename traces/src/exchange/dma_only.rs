//! What a trace of accesses alone needs to be replayed.

use ioasim_events::{DomainId, Event, Flags, Kind, Requester};
use rustc_hash::{FxHashMap, FxHashSet};

/// Adds the attach of each device and, right before the first access to a page,
/// its map, both marked as inferred. Where the output is not recorded the page
/// lies in guest memory in the order of first use, scattered (A).
#[derive(Debug, Default)]
pub(super) struct Mapper {
    /// Target of each page, by number of its domain and page.
    pages: FxHashMap<u64, u64>,
    /// Number of each domain, and the last one asked for.
    domains: FxHashMap<u32, u64>,
    last_domain: (u32, u64),
    /// Pages are numbered in the order of first use: those before this one are
    /// mapped, and `pages` is not needed.
    numbered: Option<u64>,
    devices: FxHashSet<(u32, u32)>,
    /// Domain and device of the last access: most accesses follow one of the same device.
    last_device: Option<(u32, u32)>,
    next: u64,
}

/// First address of made-up guest memory.
const FIRST: u64 = 1 << 32;

/// Pages remembered: 14 GiB of them. A table of 2^22 slots of 17 bytes, which
/// is filled to 7/8, leaves room for the rest of an import in 256 MB.
const MAX_PAGES: usize = 7 << 19;
/// Pages from which on there is room for all of them: growing in steps would
/// need two large tables at once.
const MANY_PAGES: usize = 7 << 16;
/// Pairs of device and domain remembered: each requester id (16 bits) in four
/// domains.
const MAX_DEVICES: usize = 1 << 18;
/// Bits of an address in a table of five levels.
const ADDRESS_BITS: u32 = 57;
/// Longest access. No device asks for more than some MiB at once; a larger
/// number is damaged, and would be a map for each of its pages.
pub(super) const MAX_ACCESS_BYTES: u64 = 1 << 30;

impl Mapper {
    /// Why an import ends that needs more than this remembers.
    pub const FULL: &str = "more than 3,670,016 pages (14 GiB) or 262,144 devices and domains are accessed, \
        whose maps would have to be added; give --no-maps to import the accesses alone";

    /// A mapper for accesses to one domain without outputs, whose pages are
    /// numbered from `first` in the order of first use.
    pub fn of_numbered_pages(first: u64) -> Mapper {
        Mapper { numbered: Some(first), ..Mapper::default() }
    }

    /// Why no maps can be added for an access.
    pub fn refuses(&self, e: &Event) -> Option<String> {
        (e.size > MAX_ACCESS_BYTES || e.addr.saturating_add(e.size.max(1) - 1) >> ADDRESS_BITS != 0)
            .then(|| {
                format!(
                    "an access of {} bytes at {:#x} is longer than 1 GiB or ends beyond 57 bits",
                    e.size, e.addr
                )
            })
    }

    /// Calls `f` with what `e` needs and then with `e` itself. Returns how many
    /// maps were added; `None` if there are too many pages or devices. `e` is
    /// one that this does not refuse.
    pub fn event<E>(
        &mut self,
        e: &Event,
        f: &mut impl FnMut(&Event) -> Result<(), E>,
    ) -> Result<Option<u64>, E> {
        if e.domain == DomainId::NONE {
            // There is no table that its pages could be in.
            return f(e).map(|()| Some(0));
        }
        let first = || Event { flags: Flags::INFERRED, size: 0, out: 0, addr: 0, ..*e };
        let device = Some((e.domain.0, e.requester.0));
        if self.last_device != device && self.devices.insert((e.domain.0, e.requester.0)) {
            if self.devices.len() > MAX_DEVICES {
                return Ok(None);
            }
            f(&Event { kind: Kind::Attach, ..first() })?;
        }
        self.last_device = device;
        let domain = self.number_of(e.domain.0) << (ADDRESS_BITS - 12);
        let mut added = 0;
        let last = (e.addr + (e.size.max(1) - 1)) >> 12;
        for page in e.addr >> 12..=last {
            if let Some(next) = &mut self.numbered {
                if page < *next {
                    continue;
                }
                *next = page + 1;
            }
            let known = e.flags.has(Flags::OUT_KNOWN);
            let at = page << 12;
            let recorded = (e.out & !0xfff).wrapping_add(at.wrapping_sub(e.addr & !0xfff));
            let old = self.pages.get(&(domain | page)).copied();
            if old.is_some_and(|old| !known || old == recorded) {
                continue;
            }
            let to = if known {
                recorded
            } else {
                self.next += 1;
                FIRST + ((self.next.wrapping_mul(0x9e37_79b1) & 0xff_ffff) << 12)
            };
            let change = Event { addr: at, size: 4096, requester: Requester::NONE, ..first() };
            if old.is_some() {
                f(&Event { kind: Kind::Unmap, ..change })?;
            } else if self.pages.len() == MAX_PAGES {
                return Ok(None);
            }
            let flags = Flags::INFERRED.with(Flags::READ).with(Flags::WRITE);
            f(&Event { kind: Kind::Map, flags, out: to, ..change })?;
            if self.numbered.is_some() {
                added += 1;
                continue;
            }
            if self.pages.len() == MANY_PAGES {
                self.pages.reserve(MAX_PAGES - MANY_PAGES);
            }
            self.pages.insert(domain | page, to);
            added += 1;
        }
        f(e)?;
        Ok(Some(added))
    }

    /// Numbers of domains are fewer than pairs of device and domain: with a
    /// page's number they fit 64 bits.
    fn number_of(&mut self, domain: u32) -> u64 {
        if self.last_domain.0 != domain || self.domains.is_empty() {
            let next = self.domains.len() as u64;
            self.last_domain = (domain, *self.domains.entry(domain).or_insert(next));
        }
        self.last_domain.1
    }
}

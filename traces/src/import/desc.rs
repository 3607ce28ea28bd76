//! VT-d invalidation descriptors (VT-d specification, 6.5.2; the same bits in
//! Linux' `qi_submit` trace and in QEMU's `vtd_inv_desc`).

use ioasim_events::{DomainId, Event, Flags, Kind, Pasid, Requester, Scope};

/// A 128-bit descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) qw0: u64,
    pub(crate) qw1: u64,
}

/// Types of descriptors (bits 3:0 of the first quadword).
pub(crate) mod kind {
    pub(crate) const CONTEXT: u64 = 1;
    pub(crate) const IOTLB: u64 = 2;
    pub(crate) const INTERRUPT: u64 = 4;
    pub(crate) const WAIT: u64 = 5;
    pub(crate) const PASID_IOTLB: u64 = 6;
}

/// Granularity field (bits 5:4): 1 global, 2 domain, 3 page or device.
const GLOBAL: u64 = 1;
const DOMAIN: u64 = 2;
const PAGE: u64 = 3;

/// Address widths end at 57 bits, so an AM beyond 45 covers everything; 2^51
/// pages is the largest size that a byte count can hold.
const MAX_AM: u64 = 51;

impl Descriptor {
    pub(crate) fn iotlb_pages(domain: u32, addr: u64, am: u32) -> Descriptor {
        Descriptor {
            qw0: kind::IOTLB | PAGE << 4 | u64::from(domain) << 16,
            qw1: addr & !0xfff | u64::from(am & 0x3f),
        }
    }

    pub(crate) fn iotlb_domain(domain: u32) -> Descriptor {
        Descriptor { qw0: kind::IOTLB | DOMAIN << 4 | u64::from(domain) << 16, qw1: 0 }
    }

    /// `range`: address and log2 of the pages, `None` for all of the PASID.
    pub(crate) fn pasid_iotlb(domain: u32, pasid: u32, range: Option<(u64, u32)>) -> Descriptor {
        let granularity = if range.is_some() { PAGE } else { DOMAIN };
        Descriptor {
            qw0: kind::PASID_IOTLB
                | granularity << 4
                | u64::from(domain & 0xffff) << 16
                | u64::from(pasid & 0xf_ffff) << 32,
            qw1: range.map_or(0, |(addr, order)| addr & !0xfff | u64::from(order & 0x3f)),
        }
    }

    pub(crate) fn iotlb_global() -> Descriptor {
        Descriptor { qw0: kind::IOTLB | GLOBAL << 4, qw1: 0 }
    }

    pub(crate) fn context_global() -> Descriptor {
        Descriptor { qw0: kind::CONTEXT | GLOBAL << 4, qw1: 0 }
    }

    pub(crate) fn context_domain(domain: u32) -> Descriptor {
        Descriptor { qw0: kind::CONTEXT | DOMAIN << 4 | u64::from(domain) << 16, qw1: 0 }
    }

    pub(crate) fn context_devices(sid: u32, fmask: u32) -> Descriptor {
        let ids = u64::from(sid & 0xffff) << 32 | u64::from(fmask & 3) << 48;
        Descriptor { qw0: kind::CONTEXT | PAGE << 4 | ids, qw1: 0 }
    }

    pub(crate) fn interrupt(granularity: u64, index: u64, mask: u64) -> Descriptor {
        Descriptor {
            qw0: kind::INTERRUPT
                | (granularity & 1) << 4
                | (mask & 0x1f) << 27
                | (index & 0xffff) << 32,
            qw1: 0,
        }
    }

    /// Type of the descriptor; see [`kind`].
    pub(crate) fn kind(self) -> u64 {
        // Bits 11:9 extend the type; no descriptor used here has them.
        self.qw0 & 0xf | (self.qw0 >> 9 & 7) << 4
    }

    fn granularity(self) -> u64 {
        self.qw0 >> 4 & 3
    }

    /// Domain id field of IOTLB and context descriptors. QEMU prints wider
    /// ones only if they were made up, so nothing is cut off here.
    pub(crate) fn domain(self) -> u32 {
        (self.qw0 >> 16) as u32 & if self.kind() == kind::IOTLB { u32::MAX } else { 0xffff }
    }

    /// Page-selective invalidation of the IOTLB: domain, address of the
    /// descriptor (not aligned to its range), log2 of the pages.
    pub(crate) fn pages(self) -> Option<(u32, u64, u64)> {
        (self.kind() == kind::IOTLB && self.granularity() == PAGE)
            .then(|| (self.domain(), self.qw1 & !0xfff, (self.qw1 & 0x3f).min(MAX_AM)))
    }

    /// Domain-selective (`Some(Some(domain))`) or global (`Some(None)`)
    /// invalidation of the IOTLB.
    pub(crate) fn flush(self) -> Option<Option<u32>> {
        match (self.kind(), self.granularity()) {
            (kind::IOTLB, DOMAIN) => Some(Some(self.domain())),
            (kind::IOTLB, GLOBAL) => Some(None),
            _ => None,
        }
    }

    /// Requester of a device-selective context invalidation; `None` also if
    /// it names several functions (FM, bits 49:48).
    pub(crate) fn context_device(self) -> Option<u32> {
        let one =
            self.kind() == kind::CONTEXT && self.granularity() == PAGE && self.qw0 >> 48 & 3 == 0;
        one.then_some((self.qw0 >> 32) as u32 & 0xffff)
    }

    /// A number that is equal where the descriptor says the same, whether it
    /// was read raw or rebuilt from QEMU's decoded line (which lacks the
    /// hints and, for context entries, the domain).
    pub(crate) fn token(self) -> u64 {
        let (a, b) = match self.kind() {
            kind::IOTLB => match self.granularity() {
                PAGE => (self.qw0 & 0xffff_ffff_0000 | 0x32, self.qw1 & !0xfff | self.qw1 & 0x3f),
                DOMAIN => (self.qw0 & 0xffff_ffff_0000 | 0x22, 0),
                g => (g << 4 | 2, 0),
            },
            kind::CONTEXT => match self.granularity() {
                PAGE => (self.qw0 & 0x0003_ffff_0000_0000 | 0x31, 0),
                DOMAIN => (self.qw0 & 0xffff_0000 | 0x21, 0),
                g => (g << 4 | 1, 0),
            },
            kind::INTERRUPT if self.qw0 & 0x10 == 0 => (4, 0),
            kind::INTERRUPT => (self.qw0 & 0xffff_f800_001f, 0),
            _ => (self.qw0, self.qw1),
        };
        // The top bits are left to markers of the join.
        mix(a, b) >> 16
    }

    /// The event of this invalidation, without time and CPU; `None` for
    /// descriptors that do not concern DMA translations.
    pub(crate) fn event(self, kind: Kind) -> Option<Event> {
        let mut e = Event::new(kind);
        let scope = match (self.kind(), self.granularity()) {
            (kind::IOTLB, PAGE) => {
                let (_, addr, am) = self.pages()?;
                e.size = 1 << (am + 12);
                e.addr = addr & !(e.size - 1);
                // The address as written: QEMU uses its bits below the range.
                e.out = addr;
                Scope::Page
            }
            (kind::IOTLB, DOMAIN) => Scope::Domain,
            (kind::IOTLB, GLOBAL) => Scope::Global,
            (kind::CONTEXT, g) if g != 0 => {
                e.requester = self.context_device().map_or(Requester::NONE, Requester);
                Scope::Context
            }
            (kind::PASID_IOTLB, PAGE) => {
                e.pasid = Pasid((self.qw0 >> 32) as u32 & 0xf_ffff);
                e.size = 1 << ((self.qw1 & 0x3f).min(MAX_AM) + 12);
                e.out = self.qw1 & !0xfff;
                e.addr = e.out & !(e.size - 1);
                Scope::Page
            }
            (kind::PASID_IOTLB, DOMAIN) => {
                e.pasid = Pasid((self.qw0 >> 32) as u32 & 0xf_ffff);
                Scope::Domain
            }
            _ => return None,
        };
        e.flags = Flags::with_scope(scope);
        if scope == Scope::Page && self.qw1 & 1 << 6 != 0 {
            e.flags = e.flags.with(Flags::LEAF_ONLY);
        }
        if matches!(scope, Scope::Page | Scope::Domain)
            || (scope == Scope::Context && self.granularity() == DOMAIN)
        {
            e.domain = DomainId(self.domain());
        }
        Some(e)
    }
}

/// Mixes two words into one (a Murmur3 finaliser); equal input, equal output.
#[inline]
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ b.rotate_left(32).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^ x >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_and_decoded_agree() {
        // From the recordings: high 0xfff74001 low 0x600f2 = PSI of domain 6.
        let raw = Descriptor { qw0: 0x600f2, qw1: 0xfff7_4001 };
        assert_eq!(raw.token(), Descriptor::iotlb_pages(6, 0xfff7_4000, 1).token());
        assert_eq!(raw.pages(), Some((6, 0xfff7_4000, 1)));
        assert_eq!(Descriptor { qw0: 0xd2, qw1: 0 }.token(), Descriptor::iotlb_global().token());
        assert_eq!(
            Descriptor { qw0: 0x400e2, qw1: 0 }.token(),
            Descriptor::iotlb_domain(4).token()
        );
        assert_eq!(Descriptor { qw0: 0x11, qw1: 0 }.token(), Descriptor::context_global().token());
        assert_eq!(
            Descriptor { qw0: 0x10_0004_0031, qw1: 0 }.token(),
            Descriptor::context_devices(0x10, 0).token()
        );
        assert_eq!(
            Descriptor { qw0: 0x8_0000_0014, qw1: 0 }.token(),
            Descriptor::interrupt(1, 8, 0).token()
        );
        assert_eq!(Descriptor { qw0: 0x4, qw1: 0 }.token(), Descriptor::interrupt(0, 0, 0).token());
        assert_ne!(raw.token(), Descriptor::iotlb_pages(5, 0xfff7_4000, 1).token());
    }

    #[test]
    fn page_event_keeps_the_raw_address() {
        let e = Descriptor { qw0: 0x300f2, qw1: 0x12_7000 | 1 << 6 | 2 }
            .event(Kind::Invalidate)
            .unwrap();
        assert_eq!((e.addr, e.size, e.out, e.domain), (0x12_4000, 0x4000, 0x12_7000, DomainId(3)));
        assert_eq!(e.flags.scope(), Some(Scope::Page));
        assert!(e.flags.has(Flags::LEAF_ONLY));
        // AM = 63 does not overflow.
        assert_eq!(
            Descriptor { qw0: 0x300f2, qw1: 63 }.event(Kind::Invalidate).unwrap().size,
            1 << 63
        );
    }

    #[test]
    fn other_scopes() {
        let scope =
            |qw0| Descriptor { qw0, qw1: 0 }.event(Kind::Invalidate).and_then(|e| e.flags.scope());
        assert_eq!(scope(0xd2), Some(Scope::Global));
        assert_eq!(scope(0x400e2), Some(Scope::Domain));
        assert_eq!(scope(0x11), Some(Scope::Context));
        assert_eq!(scope(0x4), None);
        assert_eq!(scope(0x2_0000_0025), None);
        let e = Descriptor { qw0: 0x10_0004_0031, qw1: 0 }.event(Kind::Invalidate).unwrap();
        assert_eq!(e.requester, Requester(0x10));
    }
}

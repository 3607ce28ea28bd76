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
    pub(crate) const DEVICE_TLB: u64 = 3;
    pub(crate) const INTERRUPT: u64 = 4;
    pub(crate) const WAIT: u64 = 5;
    pub(crate) const PASID_IOTLB: u64 = 6;
    pub(crate) const PASID_CACHE: u64 = 7;
    pub(crate) const PASID_DEVICE_TLB: u64 = 8;
}

/// What a device-TLB descriptor invalidates. Traces have no event for it: the
/// device TLB of a recorded device is not visible otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceTlb {
    pub(crate) requester: u32,
    pub(crate) pasid: Option<u32>,
    pub(crate) addr: u64,
    /// log2 of the pages, 52 for all of them.
    pub(crate) order: u32,
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

    /// True if it invalidates IOTLB entries: second-stage ones, or first-stage ones of a PASID
    /// (Linux in scalable mode has a domain id of its own for each table of the DMA API).
    fn is_iotlb(self) -> bool {
        matches!(self.kind(), kind::IOTLB | kind::PASID_IOTLB)
    }

    /// Page-selective invalidation of the IOTLB: domain, address of the
    /// descriptor (not aligned to its range), log2 of the pages.
    pub(crate) fn pages(self) -> Option<(u32, u64, u64)> {
        (self.is_iotlb() && self.granularity() == PAGE)
            .then(|| (self.domain(), self.qw1 & !0xfff, (self.qw1 & 0x3f).min(MAX_AM)))
    }

    /// Domain-selective (`Some(Some(domain))`) or global (`Some(None)`)
    /// invalidation of the IOTLB.
    pub(crate) fn flush(self) -> Option<Option<u32>> {
        match (self.kind(), self.granularity()) {
            (kind::IOTLB | kind::PASID_IOTLB, DOMAIN) => Some(Some(self.domain())),
            (kind::IOTLB, GLOBAL) => Some(None),
            _ => None,
        }
    }

    /// Device-TLB invalidation (types 3 and 8). With the S bit, the lowest clear
    /// bit of the address tells the size (PCIe's ATS, 10.2.3.2).
    pub(crate) fn device_tlb(self) -> Option<DeviceTlb> {
        let (requester, pasid, sized) = match self.kind() {
            kind::DEVICE_TLB => (self.qw0 >> 32 & 0xffff, None, self.qw1 & 1 != 0),
            kind::PASID_DEVICE_TLB => {
                let pasid = (self.qw0 >> 32) as u32 & 0xf_ffff;
                (self.qw0 >> 16 & 0xffff, Some(pasid), self.qw1 & 1 << 11 != 0)
            }
            _ => return None,
        };
        let page = self.qw1 >> 12;
        let order = if sized { page.trailing_ones() + 1 } else { 0 };
        let addr = (page & !(u64::MAX.checked_shr(64 - order).unwrap_or(0))) << 12;
        Some(DeviceTlb { requester: requester as u32, pasid, addr, order: order.min(52) })
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
            // Granularity: 0 all of a domain, 1 one PASID of it, 3 everything.
            // IOTLB entries survive, as those of context entries do.
            (kind::PASID_CACHE, g @ (0 | 1 | 3)) => {
                if g != 3 {
                    e.domain = DomainId(self.domain());
                }
                if g == 1 {
                    e.pasid = Pasid((self.qw0 >> 32) as u32 & 0xf_ffff);
                }
                Scope::Context
            }
            _ => return None,
        };
        e.flags = Flags::with_scope(scope);
        if scope == Scope::Page && self.qw1 & 1 << 6 != 0 {
            e.flags = e.flags.with(Flags::LEAF_ONLY);
        }
        if matches!(scope, Scope::Page | Scope::Domain)
            || (self.kind() == kind::CONTEXT && self.granularity() == DOMAIN)
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

    /// Bits as in Linux' `drivers/iommu/intel/iommu.h` (`QI_*`).
    #[test]
    fn scalable_mode() {
        let event = |qw0, qw1| Descriptor { qw0, qw1 }.event(Kind::Invalidate);
        // p_iotlb_inv: all of a PASID, pages of a PASID.
        let all = event(0x6 | 2 << 4 | 5 << 16 | 0xabcde << 32, 0).unwrap();
        assert_eq!((all.domain, all.pasid), (DomainId(5), Pasid(0xabcde)));
        assert_eq!(all.flags.scope(), Some(Scope::Domain));
        let pages = event(0x6 | 3 << 4 | 5 << 16 | 7 << 32, 0x12_7000 | 1 << 6 | 2).unwrap();
        assert_eq!((pages.addr, pages.size, pages.pasid), (0x12_4000, 0x4000, Pasid(7)));
        assert!(pages.flags.has(Flags::LEAF_ONLY));
        // pc_inv: a domain's, one PASID's, all.
        let scope = |qw0| event(qw0, 0).map(|e| (e.domain, e.pasid, e.flags.scope().unwrap()));
        let (domain, all) = (DomainId(5), DomainId::NONE);
        assert_eq!(scope(0x7 | 5 << 16), Some((domain, Pasid::NONE, Scope::Context)));
        assert_eq!(
            scope(0x7 | 1 << 4 | 5 << 16 | 9 << 32),
            Some((domain, Pasid(9), Scope::Context))
        );
        assert_eq!(scope(0x7 | 3 << 4), Some((all, Pasid::NONE, Scope::Context)));
        assert_eq!(scope(0x7 | 2 << 4), None, "reserved");
    }

    #[test]
    fn device_tlbs() {
        let of = |qw0, qw1| Descriptor { qw0, qw1 }.device_tlb();
        let tlb = |requester, pasid, addr, order| Some(DeviceTlb { requester, pasid, addr, order });
        assert_eq!(of(0x3 | 0x3b01 << 32, 0x5000), tlb(0x3b01, None, 0x5000, 0));
        // S with address bits 12 and 13 set and 14 clear: 8 pages.
        assert_eq!(of(0x3 | 8 << 32, 0x10_3001), tlb(8, None, 0x10_0000, 3));
        assert_eq!(of(0x3 | 8 << 32, 0x7fff_ffff_ffff_f001), tlb(8, None, 0, 52));
        assert_eq!(of(0x3 | 8 << 32, !0xffe), tlb(8, None, 0, 52));
        assert_eq!(of(0x8 | 8 << 16 | 7 << 32, 0x10_0800), tlb(8, Some(7), 0x10_0000, 1));
        assert_eq!(of(0x2, 0), None);
    }

    proptest::proptest! {
        #[test]
        fn any_descriptor_has_a_size_within_the_space(qw0: u64, qw1: u64) {
            let d = Descriptor { qw0, qw1 };
            if let Some(e) = d.event(Kind::Invalidate) {
                proptest::prop_assert!(e.size == 0 || e.addr.checked_add(e.size - 1).is_some());
                proptest::prop_assert_eq!(e.addr & e.size.saturating_sub(1), 0);
            }
            if let Some(t) = d.device_tlb() {
                proptest::prop_assert!(t.order <= 52 && t.requester < 1 << 16);
                proptest::prop_assert_eq!(t.addr & ((1u128 << (t.order + 12)) - 1) as u64, 0);
            }
        }

        /// Device-TLB descriptors made as Linux makes them (`qi_desc_dev_iotlb`).
        #[test]
        fn printed_device_tlbs_read_back(requester in 0..0x1_0000u32, page in 0..1u64 << 52, order in 0..52u32, pasid in 0..1u32 << 20) {
            let page = page >> order << order;
            // The bits below the size are set, but for the highest of them.
            let mask = if order == 0 { 0 } else { (1u64 << (order - 1)) - 1 };
            let addr = (page | mask) << 12;
            let legacy = Descriptor { qw0: 0x3 | u64::from(requester) << 32, qw1: addr | u64::from(order > 0) };
            let scalable = Descriptor {
                qw0: 0x8 | u64::from(requester) << 16 | u64::from(pasid) << 32,
                qw1: addr | u64::from(order > 0) << 11,
            };
            let tlb = |pasid| Some(DeviceTlb { requester, pasid, addr: page << 12, order });
            proptest::prop_assert_eq!(legacy.device_tlb(), tlb(None));
            proptest::prop_assert_eq!(scalable.device_tlb(), tlb(Some(pasid)));
        }
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

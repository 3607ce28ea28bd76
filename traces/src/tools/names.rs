//! New requester and domain ids.

use ioasim_events::{DomainId, Event, Pasid, Requester};
use rustc_hash::FxHashMap;

/// Ids of 16 bits (PCI requester ids; VT-d domain ids).
const IDS: u32 = 1 << 16;

/// Hands out ids in the order of first use, distinct for each (input, old id).
///
/// The 65,536th device and those after it share a requester id with an earlier
/// one and have a PASID of their own. Domains have 32 bits here and stay
/// distinct.
#[derive(Debug, Default)]
pub(super) struct Names {
    devices: FxHashMap<(u32, u32), u32>,
    domains: FxHashMap<(u32, u32), u32>,
}

impl Names {
    /// Gives `e` of input `input` its new ids.
    pub fn rename(&mut self, input: u32, e: &mut Event) {
        if e.requester != Requester::NONE {
            let next = self.devices.len() as u32;
            let id = *self.devices.entry((input, e.requester.0)).or_insert(next);
            // 00:00.0 is the host bridge; begin at 00:01.0.
            e.requester = Requester((id + 8) % IDS);
            if id >= IDS {
                let more = id / IDS;
                e.pasid = match e.pasid {
                    Pasid::NONE => Pasid(more),
                    Pasid(p) => Pasid((p + (more << 12)) & 0xf_ffff),
                };
            }
        }
        if e.domain != DomainId::NONE && e.domain != DomainId::PARENT {
            let next = self.domains.len() as u32 + 1;
            let id = *self.domains.entry((input, e.domain.0)).or_insert(next);
            e.domain = DomainId(id);
        }
    }

    /// Devices and domains named so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.devices.len() as u64, self.domains.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ioasim_events::Kind;

    #[test]
    fn ids_are_distinct_and_pasids_come_beyond_16_bits() {
        let mut names = Names::default();
        let mut seen = std::collections::HashSet::new();
        let mut domains = std::collections::HashSet::new();
        for input in 0..70_000 {
            let mut e = Event::new(Kind::Dma);
            (e.requester, e.domain) = (Requester(8), DomainId(3));
            names.rename(input, &mut e);
            assert!(e.requester.0 < IDS);
            assert_eq!(e.pasid == Pasid::NONE, input < IDS, "{input}");
            assert!(seen.insert((e.requester, e.pasid)) && domains.insert(e.domain));
        }
        // The same device again, and ids that mean nothing.
        let mut e = Event::new(Kind::Dma);
        (e.requester, e.domain) = (Requester(8), DomainId::PARENT);
        names.rename(0, &mut e);
        assert_eq!((e.requester, e.domain), (Requester(8), DomainId::PARENT));
        let mut e = Event::new(Kind::Marker);
        names.rename(0, &mut e);
        assert_eq!((e.requester, e.domain), (Requester::NONE, DomainId::NONE));
    }
}

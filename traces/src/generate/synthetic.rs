//! A guest made up for parent-change studies.
//!
//! Its children keep a fixed number of pages mapped and access them evenly;
//! now and then a page is unmapped, invalidated (strictly, page by page) and
//! mapped to another GPA. It is no model of a driver: it exists so that the
//! number of shadow entries, of children and of GPAs that children share can
//! be set, which recordings do not allow.

use ioasim_events::{DomainId, Event, Flags, Kind, Requester, Scope};
use rand::SeedableRng;
use rand_pcg::Pcg64;

use super::choose::below;
use super::error::{OptionError, limit};
use crate::Result;

/// First GPA: above the hole below 4 GiB in which PCI devices lie.
const FIRST_GPA: u64 = 1 << 32;
/// Nanoseconds from event to event (A: no clock is modelled).
const STEP_NS: u64 = 1000;
/// Pages mapped in all children together, at most: 4 bytes of memory each.
const MOST_ENTRIES: u64 = 1 << 24;

/// Parameters of the guest. [`SyntheticGuest::default`] gives the defaults,
/// all of them assumptions (A): a small case of the study's ranges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SyntheticGuest {
    /// Children (I/O address spaces), each with one device. Default 4.
    pub children: u64,
    /// 4 KiB pages that each child keeps mapped. Default 1,024.
    pub entries: u64,
    /// Accesses in all. Default 1,000,000.
    pub accesses: u64,
    /// Guest memory in bytes. Default 1 GiB.
    pub memory: u64,
    /// Share of mappings, 0 to 1, whose GPA is drawn from all guest memory
    /// instead of the child's own part of it. Default 0.
    pub overlap: f64,
    /// Share of accesses, 0 to 1, before which their page is unmapped and
    /// mapped anew. Default 0.1.
    pub churn: f64,
    /// Share of accesses, 0 to 1, that write. Default 0.5.
    pub writes: f64,
    /// Seed. Default 1.
    pub seed: u64,
}

impl Default for SyntheticGuest {
    fn default() -> SyntheticGuest {
        SyntheticGuest {
            children: 4,
            entries: 1024,
            accesses: 1_000_000,
            memory: 1 << 30,
            overlap: 0.0,
            churn: 0.1,
            writes: 0.5,
            seed: 1,
        }
    }
}

impl SyntheticGuest {
    /// Checks limits.
    ///
    /// # Errors
    /// [`OptionError`], one sentence that names the option and its limit.
    pub fn check(&self) -> Result<(), OptionError> {
        if !(1..=4096).contains(&self.children) {
            return Err(limit("--children", self.children, "1 to 4096"));
        }
        if self.entries == 0 || self.entries.saturating_mul(self.children) > MOST_ENTRIES {
            let what = "at least 1 page, and at most 16777216 in all children together";
            return Err(limit("--entries", self.entries, what));
        }
        if self.accesses > 100_000_000_000 {
            return Err(limit("--accesses", self.accesses, "at most 1e11"));
        }
        if !(1 << 20..=1 << 43).contains(&self.memory) || self.memory >> 12 < self.children {
            let value = format!("{} bytes", self.memory);
            return Err(limit("--memory", value, "1M to 8192G, and a page for each child"));
        }
        let shares =
            [("--overlap", self.overlap), ("--churn", self.churn), ("--writes", self.writes)];
        for (option, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(limit(option, share, "a share from 0 to 1"));
            }
        }
        Ok(())
    }

    /// Events, an estimate for progress.
    pub(super) fn events(&self) -> u64 {
        let cycles = (self.accesses as f64 * self.churn) as u64;
        self.children * (1 + self.entries) + self.accesses + 3 * cycles
    }

    /// All events, in order. The same parameters give the same events.
    pub(super) fn visit(&self, f: &mut dyn FnMut(&Event) -> Result<()>) -> Result<()> {
        let mut rng = Pcg64::seed_from_u64(self.seed ^ 0x6e57);
        let mut time_ns = 0;
        let mut put = |e: Event| -> Result<()> {
            f(&Event { time_ns, ..e })?;
            time_ns += STEP_NS;
            Ok(())
        };
        let chance =
            |rng: &mut Pcg64, share: f64| (below(rng, 1 << 32) as f64) < share * 2f64.powi(32);
        let pages = self.memory >> 12;
        let gpa_page = |rng: &mut Pcg64, child: u64| {
            if chance(rng, self.overlap) {
                return below(rng, pages) as u32;
            }
            let (from, to) = (child * pages / self.children, (child + 1) * pages / self.children);
            (from + below(rng, to - from)) as u32
        };
        // Top-down below 4 GiB as Linux allocates, or below 512 GiB if that
        // is too little.
        let top: u64 = if self.entries <= 1_000_000 { 1 << 32 } else { 1 << 39 };
        let iova = |slot: u64| top - 4096 * (slot + 1);
        let gpa = |page: u32| FIRST_GPA + (u64::from(page) << 12);
        let of = |child: u64, kind: Kind| Event {
            domain: DomainId(child as u32 + 1),
            cpu: 0,
            ..Event::new(kind)
        };
        let mapped = |child: u64, slot: u64, page: u32| Event {
            flags: Flags::READ.with(Flags::WRITE),
            addr: iova(slot),
            size: 4096,
            out: gpa(page),
            ..of(child, Kind::Map)
        };
        let device = |child: u64| Requester((child as u32 + 1) << 3);
        let mut tables: Vec<u32> = Vec::with_capacity((self.children * self.entries) as usize);
        for child in 0..self.children {
            put(Event { requester: device(child), ..of(child, Kind::Attach) })?;
            for slot in 0..self.entries {
                let page = gpa_page(&mut rng, child);
                tables.push(page);
                put(mapped(child, slot, page))?;
            }
        }
        for _ in 0..self.accesses {
            let (child, slot) = (below(&mut rng, self.children), below(&mut rng, self.entries));
            let at = (child * self.entries + slot) as usize;
            if chance(&mut rng, self.churn) {
                let (addr, size) = (iova(slot), 4096);
                put(Event { addr, size, ..of(child, Kind::Unmap) })?;
                let flags = Flags::with_scope(Scope::Page);
                put(Event { addr, size, out: addr, flags, ..of(child, Kind::Invalidate) })?;
                tables[at] = gpa_page(&mut rng, child);
                put(mapped(child, slot, tables[at]))?;
            }
            let offset = below(&mut rng, 64) * 64;
            let writes = chance(&mut rng, self.writes);
            put(Event {
                cpu: -1,
                requester: device(child),
                flags: Flags::OUT_KNOWN.with(if writes { Flags::WRITE } else { Flags::READ }),
                addr: iova(slot) + offset,
                size: 64,
                out: gpa(tables[at]) + offset,
                ..of(child, Kind::Dma)
            })?;
        }
        Ok(())
    }
}

//! Maps and unmaps of address spaces that are not the parent's.

use ioasim_events::{DomainId, Event, Flags, Kind};

use super::super::lines::{EventSink, LineSource};
use super::super::tables::Range;
use super::Import;
use crate::Result;

/// First output of maps whose guest-physical address is not known: above the
/// memory of today's machines.
pub(super) const MADE_UP: u64 = 1 << 46;

impl<L: LineSource, S: EventSink> Import<L, S> {
    /// A map of an address space that is not the parent's. `shadow`: it was
    /// announced by the emulated IOMMU.
    pub(super) fn map(
        &mut self,
        time: i64,
        domain: u32,
        (start, last): (u64, u64),
        vaddr: u64,
        readonly: bool,
        shadow: bool,
    ) -> Result<()> {
        let (page, pages) = span(start, last);
        if !self.tables.is_free(domain, page, pages) {
            if shadow && self.objects.none() {
                // The kernel refuses it, and the log does not tell so; or
                // it is another container's.
                self.counts.refused += 1;
                return Ok(());
            }
            self.unmap_known(time, domain, page, pages)?;
        }
        let bytes = pages << 12;
        let out = match self.parent.gpa_of(vaddr, bytes) {
            _ if vaddr == 0 => {
                self.counts.without_output += 1;
                let out = self.made_up;
                self.made_up += bytes;
                out
            }
            Some(gpa) => gpa,
            None => {
                self.counts.at_own_address += 1;
                vaddr & !0xfff
            }
        };
        let rights = if readonly { Flags::READ } else { Flags::READ.with(Flags::WRITE) };
        let perm = rights.perm().0;
        let range = Range { pages, out: out >> 12, perm, fresh: false, used: false };
        self.tables.map(domain, page, range);
        self.counts.maps += 1;
        let mut e = Event::new(Kind::Map);
        e.domain = DomainId(domain);
        (e.addr, e.size, e.out) = (page << 12, bytes, out);
        // A shadow's change shows the guest's.
        e.flags = if shadow { rights.with(Flags::INFERRED) } else { rights };
        self.write(time, e)?;
        if shadow {
            self.counts.shadow_operations += 1;
            e.kind = Kind::ShadowMap;
            e.flags = rights;
            self.write(time, e)?;
        }
        Ok(())
    }

    /// An unmap that the log tells. `shadow`: the emulated IOMMU announced it.
    pub(super) fn unmap(
        &mut self,
        time: i64,
        domain: u32,
        (start, last): (u64, u64),
        shadow: bool,
    ) -> Result<()> {
        let (page, pages) = span(start, last);
        let runs = self.remove(domain, page, pages);
        self.counts.unmaps_of_unknown += u64::from(runs.is_empty());
        for (page, pages) in runs {
            self.counts.unmaps += 1;
            let mut e = Event::new(Kind::Unmap);
            e.domain = DomainId(domain);
            (e.addr, e.size) = (page << 12, pages << 12);
            if shadow {
                e.flags = Flags::INFERRED;
            }
            self.write(time, e)?;
            if shadow {
                self.counts.shadow_operations += 1;
                e.kind = Kind::ShadowUnmap;
                e.flags = Flags::default();
                self.write(time, e)?;
            }
        }
        Ok(())
    }

    pub(super) fn unmap_all(&mut self, time: i64, domain: u32) -> Result<()> {
        self.unmap_known(time, domain, 0, 1 << 52)
    }

    /// Unmaps what is known, though no line says so.
    fn unmap_known(&mut self, time: i64, domain: u32, page: u64, pages: u64) -> Result<()> {
        for (page, pages) in self.remove(domain, page, pages) {
            self.counts.unmaps += 1;
            self.counts.unmaps_inferred += 1;
            let mut e = Event::new(Kind::Unmap);
            (e.domain, e.flags) = (DomainId(domain), Flags::INFERRED);
            (e.addr, e.size) = (page << 12, pages << 12);
            self.write(time, e)?;
        }
        Ok(())
    }

    /// Removes what is mapped; as runs of neighbouring pages.
    fn remove(&mut self, domain: u32, page: u64, pages: u64) -> Vec<(u64, u64)> {
        let mut removed = Vec::new();
        self.tables.unmap(domain, page, pages, &mut removed);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for r in removed {
            match runs.last_mut() {
                Some((page, pages)) if *page + *pages == r.page => *pages += r.pages,
                _ => runs.push((r.page, r.pages)),
            }
        }
        runs
    }
}

/// First page and number of pages of an inclusive range.
fn span(start: u64, last: u64) -> (u64, u64) {
    (start >> 12, (last >> 12) - (start >> 12) + 1)
}

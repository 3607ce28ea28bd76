//! Post-copy live migration.
//!
//! The guest runs on the destination before its memory is there. A page that
//! is used is asked for and placed on demand; a background stream sends the
//! rest in order (QEMU `docs/devel/migration/postcopy.rst`; the fault side is
//! userfaultfd, `UFFDIO_COPY`, page by page, since huge pages are switched
//! off). That the stream goes on behind the page asked for last is assumed. Pages of
//! hugetlbfs come whole: `--size 2M`.
//!
//! A pinning VFIO cannot do this; by default a page is therefore placed when
//! the guest maps it for DMA, as a VMM that pins at map time would. With
//! `--in-use` only an access brings it, as I/O page faults (PRI) would.

use super::workload::{Guest, Work};

/// Memory that comes on demand and in the background.
#[derive(Debug)]
pub(super) struct PostCopy {
    /// Pages that one operation sends in the background.
    batch: u64,
    /// Where the background stream goes on.
    cursor: u64,
}

impl PostCopy {
    pub fn new(batch: u64) -> PostCopy {
        PostCopy { batch, cursor: 0 }
    }
}

impl Work for PostCopy {
    fn begin(&mut self, guest: &mut Guest) {
        for (start, end) in guest.host.regions.clone() {
            let (from, to) = guest.host.page_tables;
            guest.host.take(start, end.min(from.max(start)));
            guest.host.take(start.max(to), end.max(to));
        }
    }

    fn step(&mut self, guest: &mut Guest) {
        for _ in 0..self.batch {
            let next = guest.host.next_absent(self.cursor).or_else(|| guest.host.next_absent(0));
            let Some((start, end)) = next else { return };
            guest.host.give_back(start, end);
            self.cursor = end;
        }
    }

    fn asked_for(&mut self, _start: u64, end: u64) {
        self.cursor = end;
    }
}

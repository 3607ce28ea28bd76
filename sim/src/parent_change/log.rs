//! Child changes that a reverse map has not linked yet.

use super::ChildId;

/// Pages of one child that came to lead somewhere, or ceased to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub iova: u64,
    /// [`GONE`] for an unmap.
    gpa: u64,
    pub child: ChildId,
    /// 4 KiB pages; all inside one block of 512, on either side.
    pub pages: u32,
}

const GONE: u64 = u64::MAX;

impl Record {
    #[inline]
    pub fn map(child: ChildId, iova: u64, gpa: u64, pages: u64) -> Record {
        Record { iova, gpa, child, pages: pages as u32 }
    }

    #[inline]
    pub fn unmap(child: ChildId, iova: u64, pages: u64) -> Record {
        Record { iova, gpa: GONE, child, pages: pages as u32 }
    }

    /// Where a map leads; `None` for an unmap.
    #[inline]
    pub fn gpa(&self) -> Option<u64> {
        (self.gpa != GONE).then_some(self.gpa)
    }

    /// True if `next` goes on where this ends, inside the same blocks.
    #[inline]
    fn takes(&self, next: &Record) -> bool {
        let len = u64::from(self.pages) << 12;
        let last = (u64::from(next.pages) << 12) - 1;
        let near = |a: u64, b: u64| (a ^ b) >> 21 == 0;
        let to = match (self.gpa(), next.gpa()) {
            (Some(a), Some(b)) => a + len == b && near(a, b + last),
            (None, None) => true,
            _ => false,
        };
        to && self.child == next.child
            && self.iova + len == next.iova
            && near(self.iova, next.iova + last)
    }
}

/// Records in the order in which things happened.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    records: Vec<Record>,
    /// Records before this one were carried out.
    done: usize,
}

impl Log {
    /// Adds a record, to the one before if it goes on there.
    #[inline]
    pub fn push(&mut self, record: Record) {
        match self.records.last_mut() {
            Some(last) if last.takes(&record) => last.pages += record.pages,
            _ => self.records.push(record),
        }
    }

    /// Records that wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.records.len() - self.done
    }

    /// The oldest of them.
    pub fn first(&self, most: usize) -> &[Record] {
        let waiting = &self.records[self.done..];
        &waiting[..most.min(waiting.len())]
    }

    /// As many were carried out.
    pub fn done(&mut self, records: usize) {
        self.done += records;
        // Not for each: moving what waits costs no more than what was done.
        if self.done >= self.len() {
            self.records.drain(..self.done);
            self.done = 0;
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        (self.records.capacity() * size_of::<Record>()) as u64
    }
}

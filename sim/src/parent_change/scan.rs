//! Search the records of all children.

use super::{Change, ChildId, ParentChange, Shadows, Work};

/// Records in one 64-byte line of a page table.
const RECORDS_PER_LINE: u64 = 8;

/// Nothing is kept: each change of the level looks at every record of every
/// child for GPAs in the range.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    found: Vec<(ChildId, u64, u64, u64)>,
}

impl ParentChange for Scan {
    type Config = ();

    fn new(_: &()) -> Self {
        Scan::default()
    }

    fn mapped(&mut self, _: ChildId, _: u64, _: u64, _: u64) {}

    fn unmapped(&mut self, _: ChildId, _: u64, _: u64) {}

    fn cleared(&mut self, _: ChildId) {}

    fn changed(&mut self, change: Change, shadows: &mut dyn Shadows, work: &mut Work) {
        let found = &mut self.found;
        let mut children = Vec::new();
        shadows.children(&mut |child| children.push(child));
        for child in children {
            let mut seen = 0;
            shadows.records(child, &mut |iova, gpa, len| {
                seen += 1;
                let (from, to) = (gpa.max(change.start), (gpa + len).min(change.end));
                if from < to {
                    found.push((child, iova + (from - gpa), from, to - from));
                }
            });
            work.entries_examined += seen;
            work.lines += seen.div_ceil(RECORDS_PER_LINE);
        }
        for (child, iova, gpa, len) in found.drain(..) {
            shadows.mend(child, iova, gpa, len, work);
        }
    }

    fn memory_bytes(&self) -> u64 {
        0
    }
}

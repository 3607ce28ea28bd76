//! A QEMU log without the guest's ftrace: what it shows about the guest's
//! caching mode.
//!
//! In strict mode an IOVA that is used again was invalidated in between: once
//! for its unmap, and under caching mode once more for its new map. So the
//! number of invalidations between two accesses tells the mode; and under
//! caching mode the last invalidation before an access announces the mapping
//! that the access finds, which must then stand before it.

use rustc_hash::FxHashMap;

use super::desc::mix;
use super::window::{LogKind, LogRec};

/// Pages followed.
const MAX_PAGES: usize = 1 << 17;
/// Ranges of more pages are not followed, 256 KiB.
pub(crate) const MAX_RANGE: u64 = 64;

/// Guesses the caching mode from a log's records.
#[derive(Debug, Default)]
pub(crate) struct LogGuess {
    /// Invalidations since the last access, by domain and page.
    since: FxHashMap<u64, u32>,
    twice: u64,
    once: u64,
}

impl LogGuess {
    /// Takes the next record.
    pub(crate) fn note(&mut self, rec: &LogRec) {
        match rec.kind {
            LogKind::Dma if rec.proves() => {
                if self.since.len() >= MAX_PAGES {
                    self.since.clear();
                }
                match self.since.insert(mix(rec.a >> 12, u64::from(rec.domain)), 0) {
                    Some(1) => self.once += 1,
                    Some(n) if n > 1 => self.twice += 1,
                    _ => {}
                }
            }
            LogKind::Inv => {
                let Some((domain, addr, am)) = rec.descriptor().pages() else { return };
                let first = addr >> 12 & !((1 << am) - 1);
                for page in first..first + (1 << am).min(MAX_RANGE) {
                    if let Some(n) = self.since.get_mut(&mix(page, u64::from(domain))) {
                        *n += 1;
                    }
                }
            }
            _ => {}
        }
    }

    /// True if there is enough to judge by.
    pub(crate) fn known(&self) -> bool {
        self.once + self.twice >= 16
    }

    /// True if nearly every reuse was announced.
    pub(crate) fn on(&self) -> bool {
        self.known() && self.twice >= self.once.saturating_mul(9)
    }
}

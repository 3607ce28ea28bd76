//! How the simulated guest puts a changed range into invalidation commands,
//! and how many of them one trap carries.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use crate::config::InvalidationEncoding;
use crate::events::{PAGE_MASK, PAGE_SIZE};

/// Most pages of one VT-d page-selective command, and of all the commands
/// that replace it under `page`: 2^18 (1 GiB). QEMU's VT-d reports MAMV = 18;
/// beyond it Linux sends a domain-selective invalidation (`cap_max_amask_val`
/// in `drivers/iommu/intel`).
const MOST_PAGES: u64 = 1 << 18;
/// Changed ranges remembered per space until an invalidation names them.
const MOST_CHANGES: usize = 256;

/// A range of bytes, whole pages.
pub(crate) type Span = (u64, u64);

/// One invalidation command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Page-selective.
    Pages(Span),
    /// Domain-selective.
    Domain,
}

/// Turns changed ranges (sorted, disjoint, not empty) into commands.
pub(crate) fn encode(encoding: InvalidationEncoding, changed: &[Span], out: &mut Vec<Command>) {
    let (Some(first), Some(last)) = (changed.first(), changed.last()) else { return };
    match encoding {
        InvalidationEncoding::Page => {
            let pages: u64 = changed.iter().map(|(s, e)| (e - s) / PAGE_SIZE).sum();
            if pages > MOST_PAGES {
                return out.push(Command::Domain);
            }
            for (start, end) in changed {
                let pages = (*start..*end).step_by(PAGE_SIZE as usize);
                out.extend(pages.map(|at| Command::Pages((at, at + PAGE_SIZE))));
            }
        }
        // Linux's VT-d driver sends what was recorded in `as-recorded`.
        InvalidationEncoding::RangeCover | InvalidationEncoding::AsRecorded => {
            let (first, last) = (first.0 / PAGE_SIZE, (last.1 - 1) / PAGE_SIZE);
            let am = u64::BITS - (first ^ last).leading_zeros();
            out.push(match 1u64.checked_shl(am) {
                Some(pages) if pages <= MOST_PAGES => {
                    let base = (first & !(pages - 1)) * PAGE_SIZE;
                    Command::Pages((base, base + pages * PAGE_SIZE))
                }
                _ => Command::Domain,
            });
        }
        InvalidationEncoding::RangeSplit => {
            for (start, end) in changed {
                let mut at = *start;
                while at < *end {
                    // amd_iommu_domain_flush_pages under NpCache: the largest
                    // power of two that the address and the rest allow.
                    let aligned = if at == 0 { 1 << 63 } else { at & at.wrapping_neg() };
                    let size = aligned.min(1 << (end - at).ilog2());
                    out.push(Command::Pages((at, at + size)));
                    at += size;
                }
            }
        }
        InvalidationEncoding::Domain => out.push(Command::Domain),
    }
}

/// What the guest changed and has not yet announced, by space. Recorded
/// commands cover more than what changed; this tells what it was.
pub(crate) struct Changes<K>(FxHashMap<K, Vec<Span>>);

impl<K> Default for Changes<K> {
    fn default() -> Self {
        Changes(FxHashMap::default())
    }
}

impl<K: Copy + Eq + Hash> Changes<K> {
    /// The guest changed `[start, end)`, rounded outwards to pages. Of more
    /// than 256 unannounced changes the oldest are forgotten.
    pub fn add(&mut self, space: K, start: u64, end: u64) {
        let (start, end) = (start & !PAGE_MASK, end.saturating_add(PAGE_MASK) & !PAGE_MASK);
        if start >= end {
            return;
        }
        let known = self.0.entry(space).or_default();
        if known.len() == MOST_CHANGES {
            known.remove(0);
        }
        known.push((start, end));
    }

    /// Everything of a space was announced; true if there was something.
    pub fn clear(&mut self, space: K) -> bool {
        self.0.remove(&space).is_some_and(|known| !known.is_empty())
    }

    /// Takes what changed inside `[start, end)`, sorted and merged; the range
    /// itself if nothing is known of it.
    pub fn take(&mut self, space: K, start: u64, end: u64) -> Vec<Span> {
        let mut taken = self.take_known(space, start, end);
        if taken.is_empty() && start < end {
            taken.push((start & !PAGE_MASK, end.saturating_add(PAGE_MASK) & !PAGE_MASK));
            taken.retain(|(s, e)| s < e);
        }
        taken
    }

    /// Takes what is known to have changed inside `[start, end)`, sorted and
    /// merged.
    pub fn take_known(&mut self, space: K, start: u64, end: u64) -> Vec<Span> {
        let mut taken = Vec::new();
        if let Some(known) = self.0.get_mut(&space) {
            let mut rest = Vec::new();
            known.retain(|(s, e)| {
                if *e <= start || end <= *s {
                    return true;
                }
                taken.push(((*s).max(start), (*e).min(end)));
                rest.extend((*s < start).then_some((*s, start)));
                rest.extend((end < *e).then_some((end, *e)));
                false
            });
            known.extend(rest);
        }
        taken.sort_unstable();
        taken.dedup_by(|next, kept| {
            let touch = next.0 <= kept.1;
            if touch {
                kept.1 = kept.1.max(next.1);
            }
            touch
        });
        taken
    }
}

/// Commands that the guest has put into its queue before it tells the VMM,
/// which is one trap. Only commands of one event or of directly consecutive
/// events share a trap: the guest waits for the completion of a submission
/// before it goes on (Linux's `qi_submit_sync`).
#[derive(Default)]
pub(super) struct Doorbell {
    /// Event after which the submission ends unless more follows.
    next: u64,
    /// Commands that still fit.
    room: u64,
}

impl Doorbell {
    /// `commands` more at this event; returns the traps that they add.
    pub fn ring(&mut self, event: u64, commands: u64, per_trap: u64) -> u64 {
        if event > self.next {
            self.room = 0;
        }
        self.next = event.saturating_add(1);
        let more = commands.saturating_sub(self.room);
        let traps = more.div_ceil(per_trap);
        self.room = self.room + traps * per_trap - commands;
        traps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const P: u64 = PAGE_SIZE;

    fn commands(encoding: InvalidationEncoding, changed: &[Span]) -> Vec<Command> {
        let mut out = Vec::new();
        encode(encoding, changed, &mut out);
        out
    }

    #[test]
    fn each_encoding_of_one_range() {
        let pages = |from: u64, to: u64| Command::Pages((from * P, to * P));
        let range = [(3 * P, 7 * P)];
        let three: Vec<Command> = (3..7).map(|p| pages(p, p + 1)).collect();
        assert_eq!(commands(InvalidationEncoding::Page, &range), three);
        assert_eq!(commands(InvalidationEncoding::RangeCover, &range), [pages(0, 8)]);
        assert_eq!(
            commands(InvalidationEncoding::RangeSplit, &range),
            [pages(3, 4), pages(4, 6), pages(6, 7)]
        );
        assert_eq!(commands(InvalidationEncoding::Domain, &range), [Command::Domain]);
        // Larger than one command can say.
        let large = [(0, (MOST_PAGES + 1) * P)];
        assert_eq!(commands(InvalidationEncoding::RangeCover, &large), [Command::Domain]);
        assert_eq!(commands(InvalidationEncoding::Page, &large), [Command::Domain]);
        assert_eq!(commands(InvalidationEncoding::RangeSplit, &large).len(), 2);
        let all = [(0, !PAGE_MASK)];
        assert_eq!(commands(InvalidationEncoding::RangeCover, &all), [Command::Domain]);
        assert_eq!(commands(InvalidationEncoding::RangeSplit, &all).len(), 52);
    }

    #[test]
    fn commands_share_traps_only_if_nothing_lies_between() {
        let mut bell = Doorbell::default();
        assert_eq!(bell.ring(10, 3, 4), 1);
        assert_eq!(bell.ring(11, 1, 4), 0, "the fourth");
        assert_eq!(bell.ring(12, 1, 4), 1);
        assert_eq!(bell.ring(14, 3, 4), 1, "an event between");
        assert_eq!(bell.ring(15, 10, 4), 3, "one fits, nine more");
        let mut each = Doorbell::default();
        assert_eq!((0..5).map(|e| each.ring(e, 2, 1)).sum::<u64>(), 10);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Every encoding covers what changed; `page` and `range-split` cover
        /// nothing else, in aligned powers of two; a cover is the smallest.
        #[test]
        fn encodings_cover_what_changed(spans in prop::collection::vec((0..300u64, 1..40u64), 1..6)) {
            let mut changes = Changes::default();
            let space = 1;
            let mut pages = BTreeSet::new();
            for (first, n) in &spans {
                changes.add(space, first * P + 5, (first + n) * P - 5);
                pages.extend(*first..first + n);
            }
            let changed = changes.take(space, 0, 1 << 40);
            prop_assert!(changed.windows(2).all(|w| w[0].1 < w[1].0), "merged: {:?}", changed);
            let in_spans = |spans: &[Span]| -> BTreeSet<u64> {
                spans.iter().flat_map(|(s, e)| s / P..e / P).collect()
            };
            prop_assert_eq!(&in_spans(&changed), &pages);
            for encoding in [InvalidationEncoding::Page, InvalidationEncoding::RangeSplit, InvalidationEncoding::RangeCover] {
                let spans: Vec<Span> = commands(encoding, &changed)
                    .into_iter()
                    .map(|c| match c {
                        Command::Pages(span) => span,
                        Command::Domain => panic!("small enough"),
                    })
                    .collect();
                for (s, e) in &spans {
                    prop_assert!((e - s).is_power_of_two() && s % (e - s) == 0);
                }
                let covered = in_spans(&spans);
                prop_assert!(covered.is_superset(&pages));
                if encoding == InvalidationEncoding::RangeCover {
                    let (s, e) = spans[0];
                    let half = (s + e) / 2 / P;
                    let (first, last) = (*pages.first().unwrap(), *pages.last().unwrap());
                    prop_assert!(e - s == P || (first < half && half <= last), "smaller would do");
                } else {
                    prop_assert_eq!(&covered, &pages);
                    prop_assert_eq!(spans.iter().map(|(s, e)| (e - s) / P).sum::<u64>(), pages.len() as u64);
                }
            }
            // Taken once; what is not known of stands for itself.
            prop_assert_eq!(changes.take(space, P, 3 * P), vec![(P, 3 * P)]);
        }
    }
}

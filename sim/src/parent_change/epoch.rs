//! Drop everything at once, rebuild on use.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use super::{Change, ChangeKind, ChildId, ParentChange, Shadows, Work};
use crate::events::PageSize;
use crate::table::RadixTable;

/// Settings of [`Epoch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EpochConfig {
    /// log2 of the bytes that one use rebuilds (12 to 30).
    pub fill_shift: u32,
}

impl Default for EpochConfig {
    fn default() -> Self {
        EpochConfig { fill_shift: PageSize::Size2M.shift() }
    }
}

/// What of a child is of the current generation.
#[derive(Clone, Debug, Default)]
struct Child {
    /// Something may be missing in the shadow.
    incomplete: bool,
    /// Regions built in the current generation.
    filled: FxHashSet<u64>,
    /// Everything below this IOVA was built by `step`.
    cursor: u64,
}

/// Generations of whole shadows, after KVM's fast zap (`mmu_valid_gen`,
/// `kvm_mmu_zap_all_fast`): a change starts a new generation by exchanging
/// the roots, so that the obsolete tables are out of reach for the hardware
/// at once, in time proportional to the number of children. Obsolete tables
/// are freed and new ones filled in bounded steps, or when a device needs
/// them; until then a device faults and the VMM fills the region it touched.
/// (A plain IOMMU cannot retry a fault: without PRI the VMM must finish
/// [`ParentChange::step`] before it lets DMA continue.)
#[derive(Clone, Debug)]
pub struct Epoch {
    config: EpochConfig,
    generation: u64,
    children: FxHashMap<ChildId, Child>,
    retired: VecDeque<RadixTable>,
}

impl Epoch {
    /// Number of root exchanges so far.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// True if something may be missing in a child's shadow.
    pub fn is_incomplete(&self, child: ChildId) -> bool {
        self.children.get(&child).is_some_and(|c| c.incomplete)
    }

    /// Obsolete tables that are not freed yet, in 4 KiB nodes.
    pub fn retired_nodes(&self) -> u64 {
        self.retired.iter().map(|t| t.nodes() as u64).sum()
    }
}

impl ParentChange for Epoch {
    type Config = EpochConfig;

    fn new(config: &EpochConfig) -> Self {
        Epoch {
            config: *config,
            generation: 0,
            children: FxHashMap::default(),
            retired: VecDeque::new(),
        }
    }

    fn mapped(&mut self, _: ChildId, _: u64, _: u64, _: u64) {}

    fn unmapped(&mut self, _: ChildId, _: u64, _: u64) {}

    fn cleared(&mut self, child: ChildId) {
        self.children.remove(&child);
    }

    fn changed(&mut self, change: Change, shadows: &mut dyn Shadows, work: &mut Work) {
        self.generation += 1;
        let mut children = Vec::new();
        shadows.children(&mut |child| children.push(child));
        for child in children {
            if change.kind == ChangeKind::Altered {
                self.retired.extend(shadows.retire(child, work));
            }
            // Also for `Added`: records over the new memory have no leaf yet.
            let state = self.children.entry(child).or_default();
            state.incomplete = true;
            state.filled.clear();
            state.cursor = 0;
            work.entries_examined += 1;
            work.lines += 1;
        }
    }

    fn fault(
        &mut self,
        child: ChildId,
        iova: u64,
        shadows: &mut dyn Shadows,
        work: &mut Work,
    ) -> bool {
        let Some(state) = self.children.get_mut(&child).filter(|s| s.incomplete) else {
            return false;
        };
        let shift = self.config.fill_shift;
        let region = iova >> shift;
        let new = iova >= state.cursor && state.filled.insert(region);
        if new {
            shadows.fill(child, region << shift, (region + 1) << shift, work);
        }
        new
    }

    fn step(&mut self, budget: u64, shadows: &mut dyn Shadows, work: &mut Work) -> bool {
        let mut left = budget;
        while let Some(table) = self.retired.front() {
            let nodes = table.nodes() as u64;
            if nodes > left && left < budget {
                return true;
            }
            left = left.saturating_sub(nodes);
            self.retired.pop_front();
        }
        let mut order: Vec<ChildId> =
            self.children.iter().filter(|(_, s)| s.incomplete).map(|(c, _)| *c).collect();
        order.sort_unstable();
        for child in order {
            let state = self.children.get_mut(&child).expect("just listed");
            // The next records, up to the budget.
            let (mut seen, mut end) = (0, None);
            let cursor = state.cursor;
            shadows.records(child, &mut |iova, _, len| {
                if iova + len > cursor {
                    seen += 1;
                    if seen > left && end.is_none() {
                        end = Some(iova);
                    }
                }
            });
            shadows.fill(child, cursor, end.unwrap_or(u64::MAX), work);
            match end {
                Some(end) => {
                    state.cursor = end;
                    return true;
                }
                None => {
                    state.incomplete = false;
                    state.filled.clear();
                    left -= seen;
                }
            }
        }
        false
    }

    fn memory_bytes(&self) -> u64 {
        let child = |c: &Child| (size_of::<(ChildId, Child)>() + c.filled.capacity() * 9) as u64;
        self.children.values().map(child).sum::<u64>() + self.retired_nodes() * 4096
    }
}

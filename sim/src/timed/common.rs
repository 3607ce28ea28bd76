//! Operations that many events ask for.

use super::costs::{Action, Costs};
use super::ops::{CpuOp, Places};
use crate::replay::outcomes::Work;

/// Kinds of work remembered for each action.
const KINDS: usize = 16;

/// What operations need, worked out once for each of the usual kinds of work:
/// most unmaps cause none, most invalidations the same.
pub struct Common {
    /// By [`Action`] and a hash of the work: the work, and the place of its
    /// operation, which is kept for good.
    known: [[Option<(Work, u32)>; KINDS]; Action::COUNT],
}

impl Default for Common {
    fn default() -> Self {
        Common { known: [[None; KINDS]; Action::COUNT] }
    }
}

impl Common {
    /// The place of an operation, which may be used by others, too.
    #[inline]
    pub fn place(
        &mut self,
        action: Action,
        work: &Work,
        costs: &Costs,
        ops: &mut Places<CpuOp>,
    ) -> u32 {
        let known = &mut self.known[action as usize][work.hash() % KINDS];
        if let Some((of, place)) = known
            && of == work
        {
            return *place;
        }
        let shared = known.is_none();
        let place = ops.put(CpuOp { action, shared, parts: costs.parts(action, work) });
        if shared {
            *known = Some((*work, place));
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layer, resolve};

    /// More kinds of work than are remembered: every operation is what its
    /// work asks for, and only a bounded number is kept.
    #[test]
    fn shared_or_not_an_operation_is_what_its_work_asks_for() {
        let config = resolve(&Layer::Preset("intel-vtd".into()), &[]).unwrap();
        let costs = Costs::new(&config);
        let (mut common, mut ops) = (Common::default(), Places::default());
        let mut shared = std::collections::BTreeSet::new();
        for round in 0..3 {
            for n in 0..100 {
                let work = Work { commands: n, traps: n % 7, ..Work::default() };
                for action in [Action::Map, Action::Unmap, Action::Sync] {
                    let place = common.place(action, &work, &costs, &mut ops);
                    let op = ops[place];
                    assert_eq!((op.action, op.parts), (action, costs.parts(action, &work)));
                    if op.shared {
                        assert!(shared.insert(place) == (round == 0), "one for each kind");
                    } else {
                        assert!(!shared.contains(&place));
                        ops.release(place);
                    }
                }
            }
        }
        assert!(shared.len() > 3 && shared.len() <= 3 * KINDS, "{}", shared.len());
    }
}

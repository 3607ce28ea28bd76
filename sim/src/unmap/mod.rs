//! When a guest's driver invalidates what it unmapped: strict or lazy, whatever
//! the recording's did.
//!
//! The recorded trace is rewritten on its way into the replay. The recording's
//! own invalidations of unmapped ranges are dropped, and those of the policy
//! are put in. All that follows sees a guest of that kind.

mod flush_queue;
mod names;
mod rewriter;

use crate::config::{Config, UnmapPolicy};
use crate::events::{Chunk, TraceInfo};
use crate::replay::outcomes::Outcomes;
use crate::replay::spaces::child_levels;
use crate::replay::{ReplayError, Run};
use crate::results::RunResult;
use crate::results::records::Records;
use crate::table::Leaf;
use rewriter::Rewriter;

/// A replay of a trace that is rewritten for another unmap policy.
pub(crate) struct Rewritten {
    run: Box<dyn Run>,
    rewriter: Rewriter,
    policy: UnmapPolicy,
}

/// What a replay of the rewritten trace has to know: the number of its events
/// is not known.
pub(crate) fn rewritten_info(info: &TraceInfo) -> TraceInfo {
    TraceInfo { events: 0, ..*info }
}

impl Rewritten {
    /// `run` has replayed nothing yet and was made for [`rewritten_info`] of
    /// `info`, the recording's.
    pub fn new(run: Box<dyn Run>, config: &Config, info: &TraceInfo) -> Rewritten {
        let (policy, queue) = (config.guest.unmap, config.guest.flush_queue);
        // Of the guest's tables, which do not get levels for it.
        let width = 12 + 9 * child_levels(config.child.levels, info);
        let rewriter = Rewriter::new(policy, queue, info.iova_bits, width);
        Rewritten { run, rewriter, policy }
    }
}

impl Run for Rewritten {
    fn run(&mut self, chunk: &Chunk) -> Result<(), ReplayError> {
        let rewritten = self.rewriter.rewrite(chunk);
        if rewritten.is_empty() { Ok(()) } else { self.run.run(rewritten) }
    }

    fn settle(&mut self) {
        self.run.settle();
    }

    fn for_each_shadow_leaf(&self, f: &mut dyn FnMut(u32, u64, Leaf)) {
        self.run.for_each_shadow_leaf(f);
    }

    fn finish(self: Box<Self>) -> Result<RunResult, ReplayError> {
        let mut result = self.run.finish()?;
        result.counters.guest.flush_queue = self.rewriter.counters;
        let provenance = &mut result.provenance;
        provenance.unmap = self.policy.name().into();
        provenance.invalidations_replaced = self.rewriter.replaced;
        provenance.invalidations += &format!("; those of unmaps replaced: {}", self.policy.name());
        Ok(result)
    }

    fn observe(&mut self) {
        self.run.observe();
    }

    fn outcomes(&mut self) -> &mut Outcomes {
        self.run.outcomes()
    }

    fn records(&mut self) -> Option<Records> {
        self.run.records()
    }
}

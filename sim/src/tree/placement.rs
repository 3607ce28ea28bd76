//! Which levels of a tree the hardware walks, and which are merged.

use super::TreeError;

/// Stages that the walker ([`crate::walk::Stages`]) can chain.
pub const MAX_STAGES: usize = 2;

/// Levels of a tree, cut into hardware stages.
///
/// Written as in the configuration, deepest level first:
/// `[["l2", "l1"], ["l0"]]` merges `l2` into `l1` in software and lets the
/// hardware walk the result over `l0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// For each depth (0 = root) the depth of the lowest level of its group.
    base: Vec<usize>,
    stages: usize,
}

impl Placement {
    /// Places `levels` (root first) as `stages` says, on hardware that walks
    /// `hardware` stages.
    ///
    /// # Errors
    /// [`TreeError::UnknownLevel`], [`TreeError::LevelsNotAdjacent`],
    /// [`TreeError::LevelMissing`], [`TreeError::TooManyStages`].
    pub fn new<S: AsRef<str>>(
        levels: &[S],
        stages: &[Vec<S>],
        hardware: usize,
    ) -> Result<Placement, TreeError> {
        if stages.len() > hardware.min(MAX_STAGES) {
            let limit = hardware.min(MAX_STAGES);
            return Err(TreeError::TooManyStages { stages: stages.len(), limit });
        }
        let mut base = vec![0; levels.len()];
        // Deepest first, without a gap.
        let mut next = levels.len();
        for stage in stages {
            let mut members = Vec::new();
            for name in stage {
                let name = name.as_ref();
                let Some(depth) = levels.iter().position(|l| l.as_ref() == name) else {
                    return Err(TreeError::UnknownLevel { level: name.into() });
                };
                if depth + 1 != next {
                    let after = levels.get(next).map_or("nothing", |l| l.as_ref()).into();
                    return Err(TreeError::LevelsNotAdjacent { level: name.into(), after });
                }
                next = depth;
                members.push(depth);
            }
            members.iter().for_each(|depth| base[*depth] = next);
        }
        if next > 0 || levels.is_empty() {
            let level = levels.get(next.wrapping_sub(1)).map_or("l0", |l| l.as_ref()).into();
            return Err(TreeError::LevelMissing { level });
        }
        Ok(Placement { base, stages: stages.len() })
    }

    /// Every legal placement of `depth` levels on hardware of `hardware` stages.
    pub fn all(depth: usize, hardware: usize) -> Vec<Placement> {
        let mut found = Vec::new();
        for cuts in 0u32..1 << depth.saturating_sub(1) {
            let stages = cuts.count_ones() as usize + 1;
            if stages > hardware.min(MAX_STAGES) || depth == 0 {
                continue;
            }
            let mut base: Vec<usize> = vec![0; depth];
            for d in 1..depth {
                base[d] = if cuts >> (d - 1) & 1 == 1 { d } else { base[d - 1] };
            }
            found.push(Placement { base, stages });
        }
        found
    }

    /// Levels.
    pub fn depth(&self) -> usize {
        self.base.len()
    }

    /// Hardware stages used by the deepest level.
    pub fn stages(&self) -> usize {
        self.stages
    }

    /// True if a node at this depth is merged with its parent in software.
    pub fn merged(&self, depth: usize) -> bool {
        self.base[depth] < depth
    }

    /// Depth of the lowest level that is merged with this one.
    pub fn base(&self, depth: usize) -> usize {
        self.base[depth]
    }

    /// True if hardware walks tables of a stage above this level through it.
    pub fn carries_tables(&self, depth: usize) -> bool {
        self.base[depth] < *self.base.last().expect("at least one level")
    }
}

//! How a shadow follows its child: one policy per file behind one trait.

mod invalidate_full;
mod invalidate_range;
mod map_unmap;

pub use invalidate_full::InvalidateFull;
pub use invalidate_range::InvalidateRange;
pub use map_unmap::MapUnmap;

use serde::{Deserialize, Serialize};

use crate::events::Perm;
use crate::shadow::{Shadow, SyncContext};

/// Names of the policies in configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Every guest map and unmap is a call that the VMM sees.
    MapUnmap,
    /// The range of each invalidation is walked.
    InvalidateRange,
    /// Each invalidation walks the whole child.
    InvalidateFull,
}

/// A range of IOVAs in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Byte after the last.
    pub end: u64,
}

/// A synchronisation policy.
///
/// The simulation first changes the child's table, then calls the policy for
/// every event of the child, in order; the policy changes the shadow through
/// [`Shadow`], which reports each host operation in [`SyncContext::ops`].
/// After `map_call` / `unmap_call` / `invalidate` return true, the guest
/// operation has trapped to the VMM.
pub trait SyncPolicy {
    /// Settings of the policy, part of the configuration file.
    type Config: Clone + Default;

    /// A policy with these settings.
    fn new(config: &Self::Config) -> Self;

    /// The guest mapped `range` to `gpa`.
    fn map_call(
        &self,
        shadow: &mut Shadow,
        cx: &mut SyncContext<'_>,
        range: Range,
        gpa: u64,
        perm: Perm,
    ) -> bool;

    /// The guest unmapped `range`.
    fn unmap_call(&self, shadow: &mut Shadow, cx: &mut SyncContext<'_>, range: Range) -> bool;

    /// The guest invalidated `range` of this child (`None` = all of it).
    fn invalidate(
        &self,
        shadow: &mut Shadow,
        cx: &mut SyncContext<'_>,
        range: Option<Range>,
    ) -> bool;

    /// True if the guest's invalidations reach the VMM at all.
    fn wants_invalidations(&self) -> bool {
        true
    }
}

/// The configured policy.
#[derive(Clone, Debug)]
pub enum Policy {
    /// See [`MapUnmap`].
    MapUnmap(MapUnmap),
    /// See [`InvalidateRange`].
    InvalidateRange(InvalidateRange),
    /// See [`InvalidateFull`].
    InvalidateFull(InvalidateFull),
}

impl Policy {
    /// The policy of this name.
    pub fn of_kind(kind: Kind) -> Policy {
        match kind {
            Kind::MapUnmap => Policy::MapUnmap(MapUnmap::new(&())),
            Kind::InvalidateRange => Policy::InvalidateRange(InvalidateRange::new(&())),
            Kind::InvalidateFull => Policy::InvalidateFull(InvalidateFull::new(&())),
        }
    }
}

macro_rules! each {
    ($self:ident, $p:ident => $e:expr) => {
        match $self {
            Policy::MapUnmap($p) => $e,
            Policy::InvalidateRange($p) => $e,
            Policy::InvalidateFull($p) => $e,
        }
    };
}

impl Policy {
    /// [`SyncPolicy::map_call`].
    pub fn map_call(
        &self,
        shadow: &mut Shadow,
        cx: &mut SyncContext<'_>,
        range: Range,
        gpa: u64,
        perm: Perm,
    ) -> bool {
        each!(self, p => p.map_call(shadow, cx, range, gpa, perm))
    }

    /// [`SyncPolicy::unmap_call`].
    pub fn unmap_call(&self, shadow: &mut Shadow, cx: &mut SyncContext<'_>, range: Range) -> bool {
        each!(self, p => p.unmap_call(shadow, cx, range))
    }

    /// [`SyncPolicy::invalidate`].
    pub fn invalidate(
        &self,
        shadow: &mut Shadow,
        cx: &mut SyncContext<'_>,
        range: Option<Range>,
    ) -> bool {
        each!(self, p => p.invalidate(shadow, cx, range))
    }

    /// [`SyncPolicy::wants_invalidations`].
    pub fn wants_invalidations(&self) -> bool {
        each!(self, p => p.wants_invalidations())
    }
}

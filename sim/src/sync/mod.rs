//! How a shadow follows its child: one policy per file behind one trait.

mod demand;
mod invalidate_full;
mod invalidate_range;
mod map_unmap;
mod write_protect;

pub use demand::Demand;
pub use invalidate_full::InvalidateFull;
pub use invalidate_range::InvalidateRange;
pub use map_unmap::MapUnmap;
pub use write_protect::WriteProtect;

use serde::{Deserialize, Serialize};

use crate::events::Perm;
use crate::shadow::{Shadow, SyncContext};
use crate::table::PteWrite;

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
    /// Every guest write to a page table traps.
    WriteProtect,
    /// The shadow is filled when a device faults on it.
    Demand,
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
/// A policy implements the hooks of what it hears of; the others do nothing.
pub trait SyncPolicy {
    /// Settings of the policy, part of the configuration file.
    type Config: Clone + Default;

    /// A policy with these settings.
    fn new(config: &Self::Config) -> Self;

    /// The guest mapped `range` to `gpa`. True if that was a call, which traps.
    fn map_call(
        &self,
        _shadow: &mut Shadow,
        _cx: &mut SyncContext<'_>,
        _range: Range,
        _gpa: u64,
        _perm: Perm,
    ) -> bool {
        false
    }

    /// The guest unmapped `range`. True if that was a call, which traps.
    fn unmap_call(&self, _shadow: &mut Shadow, _cx: &mut SyncContext<'_>, _range: Range) -> bool {
        false
    }

    /// The guest wrote entries of its table (only if
    /// [`SyncPolicy::wants_pte_writes`]); each entry traps. What one map or
    /// unmap wrote is handed over in order, when all of it is written.
    fn pte_write(&self, _shadow: &mut Shadow, _cx: &mut SyncContext<'_>, _write: PteWrite) {}

    /// The guest invalidated `range` of this child (`None` = all of it).
    fn invalidate(&self, _shadow: &mut Shadow, _cx: &mut SyncContext<'_>, _range: Option<Range>) {}

    /// A device faulted on the shadow at `iova` (only if
    /// [`SyncPolicy::fills_on_fault`]); it asks again afterwards.
    fn fault(&self, _shadow: &mut Shadow, _cx: &mut SyncContext<'_>, _iova: u64) {}

    /// True if the guest's invalidations reach the VMM at all.
    fn wants_invalidations(&self) -> bool {
        true
    }

    /// True if the guest's writes to its table trap.
    fn wants_pte_writes(&self) -> bool {
        false
    }

    /// True if device faults fill the shadow, which is else kept complete.
    fn fills_on_fault(&self) -> bool {
        false
    }
}

macro_rules! policies {
    ($($name:ident),*) => {
        /// The configured policy.
        #[derive(Clone, Debug)]
        pub enum Policy {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name),)*
        }

        impl Policy {
            /// The policy of this name.
            pub fn of_kind(kind: Kind) -> Policy {
                match kind {
                    $(Kind::$name => Policy::$name($name::new(&Default::default())),)*
                }
            }
        }

        macro_rules! each {
            ($self:ident, $p:ident => $e:expr) => {
                match $self {
                    $(Policy::$name($p) => $e,)*
                }
            };
        }
    };
}

policies!(MapUnmap, InvalidateRange, InvalidateFull, WriteProtect, Demand);

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

    /// [`SyncPolicy::pte_write`].
    pub fn pte_write(&self, shadow: &mut Shadow, cx: &mut SyncContext<'_>, write: PteWrite) {
        each!(self, p => p.pte_write(shadow, cx, write))
    }

    /// [`SyncPolicy::invalidate`].
    pub fn invalidate(&self, shadow: &mut Shadow, cx: &mut SyncContext<'_>, range: Option<Range>) {
        each!(self, p => p.invalidate(shadow, cx, range))
    }

    /// [`SyncPolicy::fault`].
    pub fn fault(&self, shadow: &mut Shadow, cx: &mut SyncContext<'_>, iova: u64) {
        each!(self, p => p.fault(shadow, cx, iova))
    }

    /// [`SyncPolicy::wants_invalidations`].
    pub fn wants_invalidations(&self) -> bool {
        each!(self, p => p.wants_invalidations())
    }

    /// [`SyncPolicy::wants_pte_writes`].
    pub fn wants_pte_writes(&self) -> bool {
        each!(self, p => p.wants_pte_writes())
    }

    /// [`SyncPolicy::fills_on_fault`].
    pub fn fills_on_fault(&self) -> bool {
        each!(self, p => p.fills_on_fault())
    }
}

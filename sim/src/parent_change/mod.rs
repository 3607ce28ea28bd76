//! How merged tables stay right when the level below them changes: one policy
//! per file behind one trait.
//!
//! A shadow maps IOVAs straight to the output of the level below its child
//! (GPA to HPA, in the field's two-level words). When that level changes,
//! every shadow entry composed from the changed GPAs must go before the change
//! completes (invariant I6), and entries for GPAs that came must appear. The
//! policies differ in how they find those entries: they see the same stream
//! of host map and unmap calls ([`ShadowOp`]) that a VMM issues while it
//! follows the child, and answer [`ParentChange::changed`].
//!
//! What they keep is the *record* of the child, IOVA to GPA, and not the
//! composed leaves: a record over a GPA without memory has no leaf, but must
//! get one when the memory comes.

pub mod forest;
pub mod hardware;
pub mod pinning;

mod epoch;
mod flush_all;
mod heads;
mod lists;
mod log;
mod reverse_map;
mod rmap;
mod rmap_interval;
mod rmap_linked;
mod scan;
mod slots;

pub use epoch::{Epoch, EpochConfig};
pub use flush_all::FlushAll;
pub use rmap::Rmap;
pub use rmap_interval::RmapInterval;
pub use rmap_linked::RmapLinked;
pub use scan::Scan;

use serde::{Deserialize, Serialize};

use crate::shadow::ShadowOp;
use crate::table::RadixTable;

/// Names of the policies in configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Every shadow is emptied and built anew.
    FlushAll,
    /// The records of all children are searched.
    Scan,
    /// Reverse map from pages to entries, in the form of KVM's.
    Rmap,
    /// Reverse map of extents.
    RmapInterval,
    /// Reverse map whose lists run through arrays parallel to the shadow.
    RmapLinked,
    /// All shadows are dropped at once and rebuilt on use.
    Epoch,
}

impl Kind {
    /// All policies.
    pub const ALL: [Kind; 6] =
        [Kind::FlushAll, Kind::Scan, Kind::Rmap, Kind::RmapInterval, Kind::RmapLinked, Kind::Epoch];

    /// Name as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Kind::FlushAll => "flush-all",
            Kind::Scan => "scan",
            Kind::Rmap => "rmap",
            Kind::RmapInterval => "rmap-interval",
            Kind::RmapLinked => "rmap-linked",
            Kind::Epoch => "epoch",
        }
    }

    /// True if the policy keeps an index of the children's records, so that it
    /// must be told of every operation on a shadow; the others ignore
    /// [`ParentChange::mapped`] and [`ParentChange::unmapped`].
    pub fn keeps_records(self) -> bool {
        match self {
            Kind::Rmap | Kind::RmapInterval | Kind::RmapLinked => true,
            Kind::FlushAll | Kind::Scan | Kind::Epoch => false,
        }
    }
}

/// A child of the level that changes; the number is the owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub u32);

/// A change of the level below, in its input addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// First GPA.
    pub start: u64,
    /// GPA after the last.
    pub end: u64,
    /// What happened to the range.
    pub kind: ChangeKind,
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Nothing was mapped in the range before: no translation became wrong.
    Added,
    /// Something was removed, moved, or lost rights.
    Altered,
}

/// Primitive costs of parent changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// Records, links, list heads and extents looked at to find what is
    /// affected, and entries rebuilt though nothing had happened to them.
    pub entries_examined: u64,
    /// Shadow entries removed or written because what they were composed
    /// from changed.
    pub entries_changed: u64,
    /// 64-byte lines of the policy's own memory that were touched to find
    /// them; `64 *` this is the memory traffic in bytes.
    pub lines: u64,
    /// Spans of shadows that were composed anew.
    pub mends: u64,
    /// Shadows that were emptied and rebuilt, or whose root was exchanged.
    pub shadows_dropped: u64,
    /// Shadow entries that went with them.
    pub entries_dropped: u64,
    /// Entries written by rebuilding, at once or later.
    pub entries_rebuilt: u64,
}

impl Work {
    /// Adds the work of a part.
    pub fn add(&mut self, part: &Work) {
        self.entries_examined += part.entries_examined;
        self.entries_changed += part.entries_changed;
        self.lines += part.lines;
        self.mends += part.mends;
        self.shadows_dropped += part.shadows_dropped;
        self.entries_dropped += part.entries_dropped;
        self.entries_rebuilt += part.entries_rebuilt;
    }
}

/// The shadows over the level that changes, as its policy reaches them.
pub trait Shadows {
    /// Calls `f` for every child that is merged with this level.
    fn children(&self, f: &mut dyn FnMut(ChildId));

    /// Calls `f(iova, gpa, len)` for every record of a child, in order.
    fn records(&self, child: ChildId, f: &mut dyn FnMut(u64, u64, u64));

    /// The span `[iova, iova + len)` of a child translates to `gpa`, and what
    /// lies there changed: removes its leaves, drops it from the hardware's
    /// caches, and composes it anew.
    fn mend(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64, work: &mut Work);

    /// The entry of a child at `iova`, which leads to `gpa`, will be mended
    /// shortly: an owner whose tables may be cold reads the lines that
    /// [`Shadows::mend`] will need.
    fn touch(&self, _child: ChildId, _iova: u64, _gpa: u64) {}

    /// Empties a child's shadow, drops the child from the hardware's caches,
    /// and builds the shadow anew.
    fn rebuild(&mut self, child: ChildId, work: &mut Work);

    /// Gives a child's shadow an empty root and drops the child from the
    /// hardware's caches; `None` if it was empty.
    fn retire(&mut self, child: ChildId, work: &mut Work) -> Option<RadixTable>;

    /// Composes the records of a child that overlap `[start, end)`, clipped
    /// to it, into its shadow.
    fn fill(&mut self, child: ChildId, start: u64, end: u64, work: &mut Work);
}

/// A parent-change policy of one level, for all its merged children.
///
/// The owner reports every host operation on a child's shadow after it was
/// carried out, in order ([`ParentChange::follow`]), and every change of the
/// level after its table changed ([`ParentChange::changed`]). When `changed`
/// returns, no shadow and no hardware cache leads into what was removed.
pub trait ParentChange {
    /// Settings of the policy, part of the configuration file.
    type Config: Clone + Default;

    /// A policy with these settings.
    fn new(config: &Self::Config) -> Self;

    /// `[iova, iova + len)` of a child translates to `gpa` from now on,
    /// whatever it was before.
    fn mapped(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64);

    /// `[iova, iova + len)` of a child translates to nothing from now on.
    fn unmapped(&mut self, child: ChildId, iova: u64, len: u64);

    /// A child left, or its record was emptied.
    fn cleared(&mut self, child: ChildId);

    /// The level changed.
    fn changed(&mut self, change: Change, shadows: &mut dyn Shadows, work: &mut Work);

    /// A device faulted at `iova` of a child, or is about to use it: a policy
    /// that rebuilds lazily does it here. True if it built something, so that
    /// the device should try again.
    fn fault(&mut self, _: ChildId, _iova: u64, _: &mut dyn Shadows, _: &mut Work) -> bool {
        false
    }

    /// Does up to `budget` entries of work that was put off; true if some is
    /// left.
    fn step(&mut self, _budget: u64, _: &mut dyn Shadows, _: &mut Work) -> bool {
        false
    }

    /// Bytes that the policy's own data take.
    fn memory_bytes(&self) -> u64;

    /// Reports operations on a child's shadow.
    fn follow(&mut self, child: ChildId, ops: &[ShadowOp]) {
        for op in ops {
            match *op {
                ShadowOp::Map { iova, size, gpa, .. } => self.mapped(child, iova, gpa, size),
                ShadowOp::Unmap { iova, size } => self.unmapped(child, iova, size),
            }
        }
    }
}

/// The configured policy.
#[derive(Clone, Debug)]
pub enum Policy {
    /// See [`FlushAll`].
    FlushAll(FlushAll),
    /// See [`Scan`].
    Scan(Scan),
    /// See [`Rmap`].
    Rmap(Rmap),
    /// See [`RmapInterval`].
    RmapInterval(RmapInterval),
    /// See [`RmapLinked`].
    RmapLinked(RmapLinked),
    /// See [`Epoch`].
    Epoch(Epoch),
}

impl Policy {
    /// The policy of this name with default settings.
    pub fn of_kind(kind: Kind) -> Policy {
        Policy::with_epoch(kind, &EpochConfig::default())
    }

    /// The policy of this name; `epoch` are the settings of [`Epoch`], the only
    /// one that has any.
    pub fn with_epoch(kind: Kind, epoch: &EpochConfig) -> Policy {
        match kind {
            Kind::FlushAll => Policy::FlushAll(FlushAll::new(&())),
            Kind::Scan => Policy::Scan(Scan::new(&())),
            Kind::Rmap => Policy::Rmap(Rmap::new(&())),
            Kind::RmapInterval => Policy::RmapInterval(RmapInterval::new(&())),
            Kind::RmapLinked => Policy::RmapLinked(RmapLinked::new(&())),
            Kind::Epoch => Policy::Epoch(Epoch::new(epoch)),
        }
    }
}

macro_rules! each {
    ($self:ident, $p:ident => $e:expr) => {
        match $self {
            Policy::FlushAll($p) => $e,
            Policy::Scan($p) => $e,
            Policy::Rmap($p) => $e,
            Policy::RmapInterval($p) => $e,
            Policy::RmapLinked($p) => $e,
            Policy::Epoch($p) => $e,
        }
    };
}

impl Policy {
    /// [`ParentChange::mapped`].
    pub fn mapped(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64) {
        each!(self, p => p.mapped(child, iova, gpa, len));
    }

    /// [`ParentChange::unmapped`].
    pub fn unmapped(&mut self, child: ChildId, iova: u64, len: u64) {
        each!(self, p => p.unmapped(child, iova, len));
    }

    /// [`ParentChange::follow`].
    pub fn follow(&mut self, child: ChildId, ops: &[ShadowOp]) {
        each!(self, p => p.follow(child, ops));
    }

    /// [`ParentChange::cleared`].
    pub fn cleared(&mut self, child: ChildId) {
        each!(self, p => p.cleared(child));
    }

    /// [`ParentChange::changed`].
    pub fn changed(&mut self, change: Change, shadows: &mut dyn Shadows, work: &mut Work) {
        each!(self, p => p.changed(change, shadows, work));
    }

    /// [`ParentChange::fault`].
    pub fn fault(
        &mut self,
        child: ChildId,
        iova: u64,
        shadows: &mut dyn Shadows,
        work: &mut Work,
    ) -> bool {
        each!(self, p => p.fault(child, iova, shadows, work))
    }

    /// [`ParentChange::step`].
    pub fn step(&mut self, budget: u64, shadows: &mut dyn Shadows, work: &mut Work) -> bool {
        each!(self, p => p.step(budget, shadows, work))
    }

    /// True if shadow entries of a child may be missing that a fault or a step
    /// would build.
    pub fn is_incomplete(&self, child: ChildId) -> bool {
        matches!(self, Policy::Epoch(epoch) if epoch.is_incomplete(child))
    }

    /// [`ParentChange::memory_bytes`].
    pub fn memory_bytes(&self) -> u64 {
        each!(self, p => p.memory_bytes())
    }
}

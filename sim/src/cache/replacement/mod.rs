//! Replacement policies of a set-associative cache, one file each.

mod clock;
mod fifo;
mod first_of;
mod lfu;
mod lru;
mod order;
mod plru;
mod random;
mod s3fifo;
mod srrip;

use super::{Associative, Key, Value};

pub use clock::Clock;
pub use fifo::Fifo;
pub use lfu::Lfu;
pub use lru::Lru;
pub use plru::Plru;
pub use random::Random;
pub use s3fifo::S3Fifo;
pub use srrip::Srrip;

/// Shape of the cache that a policy serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of sets.
    pub sets: usize,
    /// Entries per set.
    pub ways: usize,
}

/// Chooses the entry that makes room.
///
/// The cache calls the methods with `set < sets` and `way < ways`, in the
/// order of the accesses. It fills free ways without asking for a victim, and
/// calls [`Replacement::victim`] only on a set without free ways; the way
/// returned is then filled.
pub trait Replacement: Clone + std::fmt::Debug + Send {
    /// Settings of the policy, part of the configuration file.
    type Config: Clone + Default + std::fmt::Debug + Send;

    /// True if the number of hits matters, also of hits in a row on the same
    /// entry. If false, the second of them changes nothing: a replay may leave
    /// it out.
    const COUNTS_HITS: bool = false;

    /// The cache that serves this policy best when there is one set.
    type Full<V: Value>: Associative<V>;

    /// Such a cache.
    fn full<V: Value>(entries: usize, config: &Self::Config, seed: u64) -> Self::Full<V>;

    /// A policy for a cache of this shape. `seed` feeds random choices.
    fn new(shape: Shape, config: &Self::Config, seed: u64) -> Self;
    /// The entry was referenced and was present.
    fn hit(&mut self, set: usize, way: usize);
    /// The entry `key` was put into `way`, which was free or the latest victim.
    fn fill(&mut self, set: usize, way: usize, key: Key);
    /// The way that has to make room in a full set.
    fn victim(&mut self, set: usize) -> usize;
    /// The entry was invalidated; its way is free now.
    fn remove(&mut self, set: usize, way: usize);
}

/// Configuration of a policy that has no settings.
pub type NoConfig = ();

//! Functional replay: events in, counters out.

mod apply;
pub(crate) mod encode;
mod engine;
mod exposure;
mod guest;
mod inject;
pub(crate) mod outcomes;
mod over_parent;
mod parents;
mod prefetch;
mod series;
pub(crate) mod spaces;
mod warm;

use crate::cache::replacement::{Clock, Fifo, Lfu, Lru, Plru, Random, S3Fifo, Srrip};
use crate::cache::{CacheStore, FlushWhenFullStore, FullLru, SetAssocStore};
use crate::config::UnmapPolicy;
use crate::config::{Config, ReplacementKind};
use crate::events::{Chunk, TraceInfo};
use crate::results::RunResult;
use crate::results::records::{Records, Watch};
use crate::table::Leaf;
use crate::timed::TimedReplay;
use crate::timed::observe::Unobserved;
use crate::timed::record::Recorder;
use crate::unmap::{Rewritten, rewritten_info};
use engine::Engine;
use outcomes::Outcomes;

/// Why a replay cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// More tags than a cache key holds.
    #[error(
        "event {event}: the trace uses more than {limit} address spaces or tags; \
         tag the IOTLB by `domain`, or slice the trace"
    )]
    TooManyTags {
        /// Event number.
        event: u64,
        /// Most tags.
        limit: u32,
    },
    /// A name in the configuration does not fit the trace.
    #[error("the configuration cannot be written as JSON: {0}")]
    Config(#[from] serde_json::Error),
}

/// A replay of one trace under one configuration.
///
/// Feed the trace's chunks in order, then ask for the result. The replay owns
/// its memory and touches nothing else, so several may run on several threads
/// over the same chunks.
pub struct Replay(Box<dyn Run>);

/// The part of a replay that depends on the IOTLB's type, called per chunk so
/// that the loop over events is compiled for each type.
pub(crate) trait Run: Send {
    fn run(&mut self, chunk: &Chunk) -> Result<(), ReplayError>;
    fn settle(&mut self);
    fn for_each_shadow_leaf(&self, f: &mut dyn FnMut(u32, u64, Leaf));
    fn finish(self: Box<Self>) -> Result<RunResult, ReplayError>;
    /// Asks for records of what happens.
    fn observe(&mut self);
    /// The records since they were cleared.
    fn outcomes(&mut self) -> &mut Outcomes;
    /// What a watched run kept; to be asked for once, at the end.
    fn records(&mut self) -> Option<Records> {
        None
    }
}

impl Replay {
    /// Prepares a replay. `config` has been checked ([`Config::check`]).
    /// `verify` compares everything with the recording and the reference
    /// model; it costs several times the replay's own time.
    pub fn new(config: &Config, info: &TraceInfo, verify: bool) -> Replay {
        Replay::watched(config, info, verify, &Watch::default())
    }

    /// As [`Replay::new`], and keeps records of simulated time, which
    /// [`Replay::finish_watched`] returns. Without simulated time there are
    /// none.
    pub fn watched(config: &Config, info: &TraceInfo, verify: bool, watch: &Watch) -> Replay {
        if config.guest.unmap == UnmapPolicy::AsRecorded {
            return Replay::of_trace(config, info, verify, watch);
        }
        let Replay(run) = Replay::of_trace(config, &rewritten_info(info), verify, watch);
        Replay(Box::new(Rewritten::new(run, config, info)))
    }

    /// A replay of the trace's events as they are.
    fn of_trace(config: &Config, info: &TraceInfo, verify: bool, watch: &Watch) -> Replay {
        fn of<S: crate::cache::Store + 'static>(
            store: S,
            config: &Config,
            info: &TraceInfo,
            verify: bool,
            watch: &Watch,
        ) -> Replay {
            let run = Box::new(Engine::new(store, config, info, verify));
            match config.time.enabled {
                true if watch.wants_something() => {
                    Replay(Box::new(TimedReplay::new(run, config, Recorder::new(watch))))
                }
                true => Replay(Box::new(TimedReplay::new(run, config, Unobserved))),
                false => Replay(run),
            }
        }
        let (entries, ways) = (config.iotlb.entries as usize, config.iotlb.ways as usize);
        let (seed, partitions) = (config.seed, config.iotlb.partitions as usize);
        macro_rules! set_assoc {
            ($policy:ty) => {
                of(
                    SetAssocStore::<$policy>::partitioned(entries, ways, partitions, seed),
                    config,
                    info,
                    verify,
                    watch,
                )
            };
        }
        match config.iotlb.replacement {
            ReplacementKind::Lru if ways == entries => {
                of(CacheStore::of(FullLru::new(entries)), config, info, verify, watch)
            }
            ReplacementKind::Lru => set_assoc!(Lru),
            ReplacementKind::Plru => set_assoc!(Plru),
            ReplacementKind::Fifo => set_assoc!(Fifo),
            ReplacementKind::Clock => set_assoc!(Clock),
            ReplacementKind::Random => set_assoc!(Random),
            ReplacementKind::Lfu => set_assoc!(Lfu),
            ReplacementKind::Srrip => set_assoc!(Srrip),
            ReplacementKind::S3fifo => set_assoc!(S3Fifo),
            ReplacementKind::FlushWhenFull => {
                let page_match = config.iotlb.page_match;
                of(FlushWhenFullStore::new(entries, page_match), config, info, verify, watch)
            }
        }
    }

    /// Replays the next chunk.
    ///
    /// # Errors
    /// [`ReplayError::TooManyTags`]; the replay is over then.
    pub fn run(&mut self, chunk: &Chunk) -> Result<(), ReplayError> {
        self.0.run(chunk)
    }

    /// Does all work that policies put off: invalidations that are pending for
    /// recent maps, and shadows that `epoch` has not rebuilt yet. Counts
    /// nothing of the latter, which a longer trace would have done in time.
    pub fn settle(&mut self) {
        self.0.settle();
    }

    /// Calls `f(space, iova, leaf)` for every shadow leaf (IOVA to HPA), by
    /// space in the order of first use, then by address.
    pub fn for_each_shadow_leaf(&self, f: &mut dyn FnMut(u32, u64, Leaf)) {
        self.0.for_each_shadow_leaf(f);
    }

    /// Ends the replay.
    ///
    /// # Errors
    /// If the configuration cannot be serialised.
    pub fn finish(self) -> Result<RunResult, ReplayError> {
        self.0.finish()
    }

    /// Ends the replay; the records that [`Replay::watched`] asked for, if time
    /// was simulated.
    ///
    /// # Errors
    /// As [`Replay::finish`].
    pub fn finish_watched(mut self) -> Result<(RunResult, Option<Records>), ReplayError> {
        let records = self.0.records();
        Ok((self.0.finish()?, records))
    }
}

//! Simulated time over the functional replay.
//!
//! The functional replay ([`crate::replay`]) reads the trace in its order,
//! which is a legal order of causes, and decides *what* happens: hits, reads of
//! walks, shadow work. This layer gives each of it its cost, and makes it wait
//! for what it depends on and for shared resources:
//!
//! * a request waits for the map of its page (or the invalidation that
//!   completes the map), for a slot of its device, and for the link;
//! * a miss waits for the pending-translation buffer, a walker, memory;
//! * an unmap waits for the last access to each of its pages;
//! * an invalidation waits for the queue's lock, and for the VMM or hardware;
//! * operations of one vCPU, and requests of one device, start in order.
//!
//! What needs no shared resource is computed when it is read: a hit never
//! touches the event queue. `docs/timing.md` says what is approximated.

mod common;
pub(crate) mod costs;
mod cpus;
pub mod device;
pub mod device_tlb;
mod devices;
mod feed;
mod finish;
pub mod memory;
pub(crate) mod observe;
mod ops;
mod pages;
pub(crate) mod record;
mod series;
mod stats;
pub mod walkers;
mod world;

use crate::config::Config;
use crate::events::Chunk;
use crate::replay::outcomes::Outcomes;
use crate::replay::{ReplayError, Run};
use crate::results::RunResult;
use crate::results::records::Records;
use crate::results::timing::TimingResult;
use crate::table::Leaf;
use feed::Feed;
use record::Observe;
use world::World;

/// A functional replay with simulated time around it.
pub(crate) struct TimedReplay<O> {
    run: Box<dyn Run>,
    feed: Feed,
    world: World<O>,
    /// Requests that the device TLBs let pass, and everything else.
    passed: Chunk,
}

impl<O: Observe> TimedReplay<O> {
    /// `run` has replayed nothing yet.
    pub fn new(mut run: Box<dyn Run>, config: &Config, observer: O) -> TimedReplay<O> {
        run.observe();
        TimedReplay {
            run,
            feed: Feed::new(config),
            world: World::new(config, observer),
            passed: Chunk::default(),
        }
    }
}

impl<O: Observe> Run for TimedReplay<O> {
    fn run(&mut self, chunk: &Chunk) -> Result<(), ReplayError> {
        self.run.outcomes().clear();
        if !self.feed.has_device_tlbs() {
            self.run.run(chunk)?;
            self.feed.chunk(chunk, None, self.run.outcomes(), &mut self.world);
            return Ok(());
        }
        let device_hits = self.feed.filter(chunk);
        if device_hits.contains(&true) {
            self.passed.clear();
            self.passed.first = chunk.first;
            for (i, hit) in device_hits.iter().enumerate() {
                if !hit {
                    self.passed.push(&chunk.event(i));
                }
            }
            self.run.run(&self.passed)?;
        } else {
            self.run.run(chunk)?;
        }
        let outcomes = self.run.outcomes();
        self.feed.chunk(chunk, Some(&device_hits), outcomes, &mut self.world);
        self.feed.keep(device_hits);
        Ok(())
    }

    fn settle(&mut self) {
        self.run.settle();
    }

    fn for_each_shadow_leaf(&self, f: &mut dyn FnMut(u32, u64, Leaf)) {
        self.run.for_each_shadow_leaf(f);
    }

    fn finish(self: Box<Self>) -> Result<RunResult, ReplayError> {
        let mut result = self.run.finish()?;
        let timing: TimingResult = self.world.finish(self.feed.device_tlb_counters());
        result.timing = Some(timing);
        Ok(result)
    }

    fn observe(&mut self) {}

    fn records(&mut self) -> Option<Records> {
        self.world.run_out();
        let devices = self.world.devices.iter().map(|d| d.id).collect();
        self.world.observer.records(devices)
    }

    fn outcomes(&mut self) -> &mut Outcomes {
        self.run.outcomes()
    }
}

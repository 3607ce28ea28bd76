//! Records that a watched run keeps besides its totals: latencies by interval,
//! and what happened in a window.
//!
//! All times are simulated, from the constants of `time.*`; none is recorded.

mod latencies;
mod timeline;

pub use latencies::{LATENCY_KINDS, LatencyKind, LatencyLog};
pub use timeline::{
    Cause, DmaSpan, DmaStage, OpKind, OpSpan, OpStage, Served, Timeline, WalkSpan, Window,
};

/// What to keep.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    /// Histograms of latencies, by interval.
    pub latencies: bool,
    /// Everything that happens in a window.
    pub timeline: Option<Window>,
}

impl Watch {
    /// True unless nothing is kept.
    pub fn wants_something(&self) -> bool {
        self.latencies || self.timeline.is_some()
    }
}

/// What was kept.
#[derive(Debug, Default)]
pub struct Records {
    /// As asked for with [`Watch::latencies`].
    pub latencies: Option<LatencyLog>,
    /// As asked for with [`Watch::timeline`].
    pub timeline: Option<Timeline>,
}

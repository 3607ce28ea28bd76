//! What a simulation has to know about a trace before it starts.

/// Address space of the recorded outputs of DMA events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputSpace {
    /// Child's output: the recording machine had one level.
    #[default]
    Gpa,
    /// Parent's output: all levels were recorded.
    Hpa,
}

/// Whether the recorded guest invalidated after not-present to present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CachingMode {
    /// The recording does not tell.
    #[default]
    Unknown,
    /// It did (VT-d CM=1).
    On,
    /// It did not.
    Off,
}

/// Facts about a whole trace, taken from its file's metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceInfo {
    /// Number of events.
    pub events: u64,
    /// Time of the last event in ns (the first is at 0).
    pub end_ns: u64,
    /// Space of the recorded outputs.
    pub output_space: OutputSpace,
    /// True if the trace holds parent maps (the parent table was recorded).
    pub has_parent: bool,
    /// Recorded caching mode.
    pub caching_mode: CachingMode,
    /// Levels of the guest's table if the recording shows them (context
    /// entry's address width), else 0.
    pub child_levels: u32,
    /// Bits needed for the largest IOVA in the trace (0 for an empty trace).
    pub iova_bits: u32,
}

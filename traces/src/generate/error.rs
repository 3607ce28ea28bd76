//! Why options or a trace are refused.

/// Options that contradict each other or are out of their limits, and traces
/// that an overlay cannot be laid on. One sentence each: what, limit, remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// A number is out of its limits.
    #[error("{option} is {value}; it must be {limit}")]
    Limit {
        /// The option as it is written on the command line.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is allowed, with its unit.
        limit: String,
    },
    /// An option has no meaning for the workload.
    #[error("{option} means nothing to {workload}: {why}")]
    Meaningless {
        /// The option as it is written on the command line.
        option: &'static str,
        /// The workload's name.
        workload: &'static str,
        /// What the workload does instead.
        why: &'static str,
    },
}

/// An [`OptionError::Limit`].
pub(super) fn limit(option: &'static str, value: impl ToString, limit: &str) -> OptionError {
    OptionError::Limit { option, value: value.to_string(), limit: limit.into() }
}

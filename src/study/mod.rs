//! Studies: named, reproducible sets of runs and the reports that explain them.

pub mod parent_change;

/// Names and descriptions of all studies.
pub const ALL: [(&str, &str); 1] = [(
    "parent-change",
    "cost of parent unmaps under shadows: every policy over entries, children, sizes, overlap, overlays",
)];

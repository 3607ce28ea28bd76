//! The event types that ioasim's traces and simulator share, and nothing else.
//!
//! A trace is a sequence of events in **causal order**: the order of rows is
//! the truth, the time stamps are information. Traces are decoded into
//! [`Chunk`]s (structure of arrays), which many simulations read at the same
//! time; importers write single [`Event`]s.
//!
//! Addresses are byte addresses everywhere; sizes are bytes; times are
//! nanoseconds since the first event of the trace.

mod addr;
mod chunk;
mod event;
mod info;

pub use addr::{Gpa, Hpa, Iova, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, PageSize, Perm};
pub use chunk::Chunk;
pub use event::{DomainId, Event, Flags, Kind, Pasid, Requester, Scope};
pub use info::{CachingMode, OutputSpace, TraceInfo};

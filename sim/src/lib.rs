//! ioasim's model of nested I/O address translation.
//!
//! No I/O, no clock, no threads, no global state.
pub mod cache;
pub mod config;
pub mod parent;
pub mod parent_change;
pub mod prefetch;
pub mod replay;
pub mod results;
pub mod shadow;
pub mod sync;
pub mod table;
pub mod time;
pub mod timed;
pub mod tree;
mod unmap;
mod verify;
pub mod walk;

pub use ioasim_events as events;

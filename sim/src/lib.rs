//! ioasim's model of nested I/O address translation: no I/O, no clock, no threads, no global state.
pub use ioasim_events as events;
pub mod results;

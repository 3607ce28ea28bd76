//! The command line of ioasim.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod configs;
mod document;
mod drive;
mod fan_out;
mod files;
mod progress;
mod study;
mod timeline;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

/// Exit code of a run that could not do what was asked.
const FAILURE: u8 = 1;
/// Exit code of a command line that makes no sense (clap's own, too).
const USAGE: u8 = 2;
/// Exit code after Ctrl-C: 128 + SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;

/// A mistake in the command line or a configuration, as opposed to a failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// The user asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; nothing was written")]
struct Interrupted;

fn main() -> ExitCode {
    let cli = Cli::parse();
    progress::install_interrupt();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // `ioasim ... | head` is no failure of ours.
            if e.chain().any(|c| {
                c.downcast_ref::<std::io::Error>()
                    .is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
            }) {
                return ExitCode::SUCCESS;
            }
            if progress::interrupted() {
                eprintln!("ioasim: {Interrupted}");
                return ExitCode::from(INTERRUPTED);
            }
            eprintln!("ioasim: {}", sentence(&e));
            let options = |e: &ioasim_traces::Error| matches!(e, ioasim_traces::Error::Options(_));
            let usage = e.downcast_ref::<Usage>().is_some()
                || e.downcast_ref::<ioasim_traces::Error>().is_some_and(options)
                || e.downcast_ref::<ioasim_sim::config::ConfigError>().is_some();
            ExitCode::from(if usage { USAGE } else { FAILURE })
        }
    }
}

/// An error and its causes; most errors of the libraries quote their cause
/// already.
fn sentence(e: &anyhow::Error) -> String {
    e.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = || std::io::Error::other("the disk is full");
        let quoted = anyhow::Error::from(cause()).context("cannot write x: the disk is full");
        assert_eq!(sentence(&quoted), "cannot write x: the disk is full");
        let bare = anyhow::Error::from(cause()).context("cannot write x");
        assert_eq!(sentence(&bare), "cannot write x: the disk is full");
    }
}

//! The subcommands.

mod compare;
mod generate;
mod preset;
mod records;
mod replay;
mod report;
mod study;
mod tools;
mod trace;

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use clap::CommandFactory;

use crate::cli::{Cli, Command, Generate, Trace};

/// Runs what the command line asks for.
///
/// # Errors
/// Whatever failed, with its context.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Compare(args) => compare::run(&args, cli.quiet),
        Command::Replay(args) => replay::run(&args, cli.quiet),
        Command::Trace(Trace::Import(args)) => trace::import(&args, cli.quiet),
        Command::Trace(Trace::Info(args)) => trace::info(&args, cli.quiet),
        Command::Trace(Trace::Overlay(args)) => generate::overlay(&args, cli.quiet),
        Command::Trace(Trace::Generate(Generate::ParentChange(args))) => {
            generate::parent_change(&args, cli.quiet)
        }
        Command::Trace(Trace::Export(args)) => tools::export(&args, cli.quiet),
        Command::Trace(Trace::Slice(args)) => tools::slice(&args, cli.quiet),
        Command::Trace(Trace::Merge(args)) => tools::merge(&args, cli.quiet),
        Command::Trace(Trace::Replicate(args)) => tools::replicate(&args, cli.quiet),
        Command::Trace(Trace::Anonymize(args)) => tools::anonymize(&args, cli.quiet),
        Command::Trace(Trace::Diff(args)) => tools::diff(&args, cli.quiet),
        Command::Trace(Trace::Generate(kind)) => generate::device(&kind, cli.quiet),
        Command::Report(args) => report::run(&args),
        Command::Study(args) => study::run(&args, cli.quiet),
        Command::Preset(args) => preset::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ioasim", &mut script);
            print(&script)
        }
    }
}

/// Says something about files on stdout, unless one of them is stdout: it stays
/// alone there.
fn print_about(files: &[Option<&Path>], text: &str) -> Result<()> {
    match files.iter().flatten().any(|file| is_stdout(file)) {
        true => Ok(()),
        false => print(text.as_bytes()),
    }
}

/// `-`, or a name of stdout.
fn is_stdout(path: &Path) -> bool {
    path == Path::new("-") || ioasim_output::is_stdout(path)
}

/// Writes to stdout; a closed pipe is an error that `main` forgives.
fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

//! Writes the tests' made-up report to a folder, to look at it:
//! `cargo run --release -p ioasim-reports --example fixture_report -- DIR`,
//! with a second argument for variants: `troubled` (faults, a verification
//! that fails), `two` (two traces), or a result.json.

#[path = "../tests/fixture/mod.rs"]
mod fixture;

use std::path::Path;

fn main() -> Result<(), ioasim_reports::Error> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| "ioasim-report".to_owned());
    let documents = match args.next().as_deref() {
        Some("two") => vec![fixture::document(), fixture::troubled()],
        Some("troubled") => vec![fixture::troubled()],
        Some(path) => vec![ioasim_reports::Document::read(Path::new(path))?],
        None => vec![fixture::document()],
    };
    let written = ioasim_reports::write_all(Path::new(&dir), &documents)?;
    print!("{}", ioasim_reports::render_comparison(&documents, Some(&written)));
    let mut one = documents[0].clone();
    one.runs.truncate(1);
    println!();
    print!("{}", ioasim_reports::render_replay(&one));
    Ok(())
}

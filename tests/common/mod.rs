//! Helpers of the command line's tests.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;

use ioasim_sim::events::{DomainId, Event, Flags, Kind, Requester};
use ioasim_traces::file::{Meta, TraceWriter};

/// The program under test, without progress.
pub fn ioasim() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ioasim"));
    command.arg("--quiet");
    command
}

/// Runs; panics with stderr unless it succeeds; returns stdout.
pub fn succeeds(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {}\n{err}", out.status);
    String::from_utf8(out.stdout).unwrap()
}

/// Runs; panics if it succeeds; returns exit code, stdout and stderr.
pub fn fails(command: &mut Command) -> (i32, String, String) {
    let out = command.output().unwrap();
    assert!(!out.status.success(), "{command:?} succeeded");
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    let code = out.status.code().expect("ended by a signal");
    (code, text(out.stdout), text(out.stderr))
}

/// Parses JSON.
pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// A folder that goes with the test.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(tempfile::tempdir().unwrap())
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
    pub fn write(&self, name: &str, text: &str) {
        self.write_bytes(name, text.as_bytes());
    }
    pub fn write_bytes(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }
    /// Names of everything in it.
    pub fn names(&self) -> Vec<String> {
        let name = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name();
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        entries.map(|e| name(e).to_string_lossy().into_owned()).collect()
    }
}

pub fn map(domain: u32, iova: u64, gpa: u64, size: u64) -> Event {
    let (kind, flags) = (Kind::Map, Flags::READ.with(Flags::WRITE));
    let domain = DomainId(domain);
    Event { domain, addr: iova, out: gpa, size, flags, ..Event::new(kind) }
}

pub fn unmap(domain: u32, iova: u64, size: u64) -> Event {
    Event { domain: DomainId(domain), addr: iova, size, ..Event::new(Kind::Unmap) }
}

pub fn dma(domain: u32, iova: u64) -> Event {
    let requester = Requester(0x8);
    Event { domain: DomainId(domain), requester, addr: iova, ..Event::new(Kind::Dma) }
}

pub fn write_trace(path: &Path, events: &[Event]) {
    write_trace_with_text(path, events, "marker");
}

pub fn write_trace_with_text(path: &Path, events: &[Event], text: &str) {
    let mut writer = TraceWriter::create(path).unwrap();
    for (i, e) in events.iter().enumerate() {
        let e = Event { time_ns: i as u64 * 1000, ..*e };
        match e.kind {
            Kind::Marker => writer.push_marker(&e, text).unwrap(),
            _ => writer.push(&e).unwrap(),
        }
    }
    writer.finish(Meta::default()).unwrap();
}

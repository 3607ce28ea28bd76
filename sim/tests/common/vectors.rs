//! Reading the golden vectors (`tests/vectors/README.md`).

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use ioasim_sim::events::PageSize;
use serde_json::Value;

pub fn hex(v: &Value) -> u64 {
    u64::from_str_radix(v.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

pub fn size(v: &Value) -> PageSize {
    match v.as_str().unwrap() {
        "4K" => PageSize::Size4K,
        "2M" => PageSize::Size2M,
        "1G" => PageSize::Size1G,
        other => panic!("size {other}"),
    }
}

pub fn levels(cfg: &Value) -> Option<u32> {
    match cfg.as_str().unwrap() {
        "bare" => None,
        s if s.starts_with("sv39") => Some(3),
        s if s.starts_with("sv48") => Some(4),
        s if s.starts_with("sv57") => Some(5),
        other => panic!("cfg {other}"),
    }
}

fn vectors() -> PathBuf {
    match std::env::var_os("IOASIM_VECTORS") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/two-stage.jsonl.zst"),
    }
}

pub fn cases() -> Vec<Value> {
    let path = vectors();
    let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let plain: Box<dyn Read> = if path.extension().is_some_and(|e| e == "zst") {
        Box::new(zstd::Decoder::new(file).unwrap())
    } else {
        Box::new(file)
    };
    let cases: Vec<Value> = BufReader::new(plain)
        .lines()
        .map(|l| l.unwrap())
        .filter(|l| !l.trim().is_empty())
        .map(|l| serde_json::from_str(&l).unwrap())
        .collect();
    assert!(!cases.is_empty(), "{}: no cases", path.display());
    cases
}

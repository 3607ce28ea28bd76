//! Text logs: every compression, damage, long lines, line ends.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use ioasim_traces::Error;
use ioasim_traces::input::{BLOCK_BYTES, MAX_LINE_BYTES, open_text};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// A log of `n` lines whose lengths vary, larger than a block for n > 20,000.
fn log(n: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for i in 0..n {
        let dots = ".".repeat(i * 7 % 60);
        writeln!(text, "24940@1795405396.{i:06}:vtd_iotlb_page_hit sid 0x20 {dots}").unwrap();
    }
    text
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 1).unwrap()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn xz(text: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// All lines, and whether each was cut.
fn lines(path: &Path) -> Result<Vec<(Vec<u8>, bool)>, Error> {
    let mut input = open_text(path)?;
    let mut lines = Vec::new();
    while let Some(line) = input.next_line()? {
        assert_eq!(line.number, lines.len() as u64 + 1);
        lines.push((line.bytes.to_vec(), line.truncated));
    }
    assert!(input.next_line()?.is_none(), "the end stays the end");
    Ok(lines)
}

fn split(text: &[u8]) -> Vec<(Vec<u8>, bool)> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|&b| b == b'\n')
        .map(|l| (l.strip_suffix(b"\r").unwrap_or(l).to_vec(), false))
        .collect()
}

#[test]
fn every_compression_is_told_by_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let text = log(40_000);
    assert!(text.len() > 2 * BLOCK_BYTES);
    let wanted = split(&text);
    for (name, bytes) in [
        ("plain.zst", text.clone()),
        ("z.log", zstd(&text)),
        ("g.log", gzip(&text)),
        ("x.log", xz(&text)),
    ] {
        let path = put(dir.path(), name, &bytes);
        assert!(lines(&path).unwrap() == wanted, "{name}");
        // The digest is the file's, however much was read before.
        let sum: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        for read in [0, 10, usize::MAX] {
            let mut input = open_text(&path).unwrap();
            for _ in 0..read {
                if input.next_line().unwrap().is_none() {
                    break;
                }
            }
            assert_eq!(input.raw_bytes_total(), bytes.len() as u64);
            let source = input.finish("qemu-log").unwrap();
            assert_eq!((source.bytes, &source.sha256), (bytes.len() as u64, &sum), "{name}");
            assert_eq!(source.role, "qemu-log");
            assert_eq!(source.path, path.display().to_string());
        }
    }
}

#[test]
fn frames_members_and_streams_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (log(3000), log(17));
    let wanted = split(&[&a[..], &b[..]].concat());
    for (name, pack) in [("z", zstd as fn(&[u8]) -> Vec<u8>), ("g", gzip), ("x", xz)] {
        let path = put(dir.path(), name, &[pack(&a), pack(b""), pack(&b)].concat());
        assert!(lines(&path).unwrap() == wanted, "{name}");
    }
    // A skippable zstd frame first.
    let skip = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(&a)].concat();
    assert!(lines(&put(dir.path(), "skip", &skip)).unwrap() == split(&a));
}

#[test]
fn zstd_with_a_long_window_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let text = log(1000);
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&text).unwrap();
    let path = put(dir.path(), "long.zst", &encoder.finish().unwrap());
    assert!(lines(&path).unwrap() == split(&text));
}

#[test]
fn truncated_files_hand_out_their_lines_and_then_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let text = log(40_000);
    for (name, packed, check) in [
        ("t.zst", zstd(&text), "zstd -t"),
        ("t.gz", gzip(&text), "gzip -t"),
        ("t.xz", xz(&text), "xz -t"),
    ] {
        for part in [2, 3, 50, 97, 99] {
            let path = put(dir.path(), name, &packed[..packed.len() * part / 100]);
            let error = lines(&path).unwrap_err();
            let message = error.to_string();
            assert!(matches!(error, Error::Compressed { .. }), "{message}");
            assert!(message.contains("truncated, after "), "{message}");
            assert!(message.contains(&format!("check it with `{check} ")), "{message}");
            let mut input = open_text(&path).unwrap();
            input.next_line().ok();
            assert!(input.finish("x").is_err());
        }
        // Lines before the damage come first.
        let path = put(dir.path(), name, &packed[..packed.len() * 9 / 10]);
        let mut input = open_text(&path).unwrap();
        let mut good = 0;
        while let Ok(Some(_)) = input.next_line() {
            good += 1;
        }
        assert!(good > 20_000, "{name}: {good}");
    }
}

#[test]
fn damaged_streams_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let text = log(40_000);
    for (name, mut packed) in [("d.zst", zstd(&text)), ("d.gz", gzip(&text)), ("d.xz", xz(&text))] {
        let middle = packed.len() / 2;
        packed[middle..middle + 64].fill(0x5a);
        let path = put(dir.path(), name, &packed);
        match lines(&path) {
            Err(error) => {
                assert!(error.to_string().contains("the compressed stream is damaged"), "{error}");
            }
            // zstd without a checksum may decode to other text.
            Ok(lines) => assert!(name == "d.zst" && lines != split(&text), "{name}"),
        }
    }
}

#[test]
fn a_line_without_end_is_cut_and_memory_stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    // 512 MiB of one line, 50 KiB as zstd.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(b"first\n").unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..512 {
        encoder.write_all(&block).unwrap();
    }
    encoder.write_all(b"\nlast").unwrap();
    let path = put(dir.path(), "bomb", &encoder.finish().unwrap());
    let lines = lines(&path).unwrap();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0], (b"first".to_vec(), false));
    assert_eq!((lines[1].0.len(), lines[1].1), (MAX_LINE_BYTES, true));
    assert_eq!(lines[2], (b"last".to_vec(), false));
}

#[test]
fn lines_end_with_lf_crlf_or_the_file() {
    let dir = tempfile::tempdir().unwrap();
    for (text, wanted) in [
        (&b""[..], vec![]),
        (b"\n", vec![&b""[..]]),
        (b"a", vec![b"a"]),
        (b"a\r\nb\r\r\n\r\nc\r", vec![b"a", b"b\r", b"", b"c"]),
        (b"\xff\xfe\0\n\x80", vec![b"\xff\xfe\0", b"\x80"]),
        (b"no magic: \x1f\x8b\n", vec![b"no magic: \x1f\x8b"]),
    ] {
        let found = lines(&put(dir.path(), "t", text)).unwrap();
        let found: Vec<_> = found.iter().map(|(line, _)| &line[..]).collect();
        assert_eq!(found, wanted, "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Lines of any length around the sizes of blocks.
    #[test]
    fn lines_across_blocks_are_whole(
        lengths in proptest::collection::vec(
            prop_oneof![0usize..100, BLOCK_BYTES - 3..BLOCK_BYTES, 300_000usize..700_000], 1..8),
        crlf: bool,
        ended: bool,
    ) {
        let end: &[u8] = if crlf { b"\r\n" } else { b"\n" };
        let mut text = Vec::new();
        let mut wanted = Vec::new();
        for (i, &length) in lengths.iter().enumerate() {
            let line = vec![b'a' + i as u8; length];
            text.extend_from_slice(&line);
            text.extend_from_slice(end);
            wanted.push((line, false));
        }
        if !ended && lengths[lengths.len() - 1] > 0 {
            text.truncate(text.len() - end.len());
        }
        let dir = tempfile::tempdir().unwrap();
        prop_assert!(lines(&put(dir.path(), "t", &text)).unwrap() == wanted);
    }
}

#[test]
fn other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = open_text(&put(dir.path(), "t.parquet", b"PAR1....PAR1")).unwrap_err();
    assert!(
        error.to_string().contains("is a Parquet file, not a text log; if it is an ioasim trace"),
        "{error}"
    );
    let error = open_text(&dir.path().join("none")).unwrap_err();
    assert!(error.to_string().starts_with("cannot open "), "{error}");
    assert!(open_text(dir.path()).is_err());
}

#[cfg(unix)]
#[test]
fn pipes_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    if !Command::new("mkfifo").arg(&path).status().is_ok_and(|s| s.success()) {
        return;
    }
    let packed = zstd(&log(100));
    let writer = std::thread::spawn({
        let (path, packed) = (path.clone(), packed.clone());
        move || std::fs::write(path, packed).unwrap()
    });
    assert_eq!(lines(&path).unwrap().len(), 100);
    writer.join().unwrap();
}

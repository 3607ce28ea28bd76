//! Every importer with files of other formats, files cut anywhere, and files
//! with a byte that is another one: a clear error or a counted diagnostic.

mod damage_common;

use std::sync::LazyLock;

use damage_common::*;
use ioasim_traces::input::open_text;
use proptest::prelude::*;

/// An example's name, its importer, what it is, and its bytes.
type Own = (&'static str, Importer, Is, Vec<u8>);

/// The examples, with the importer that takes each.
static OWN: LazyLock<Vec<Own>> = LazyLock::new(|| {
    let of = |is: Is| IMPORTERS.iter().filter(move |i| i.2.contains(&is));
    let all = examples().into_iter();
    let with = |(is, name, bytes): (Is, &'static str, Vec<u8>)| {
        of(is).map(|i| (name, i.1, is, bytes.clone())).collect::<Vec<_>>()
    };
    all.flat_map(with).collect()
});

/// Lines and records that one place of a file belongs to: a line's end that
/// goes joins two.
const TOUCHED: u64 = 2;

#[test]
fn every_importer_with_every_format() {
    for (is, name, bytes) in examples() {
        for (importer, run, takes) in IMPORTERS {
            match run(&bytes) {
                Ok(read) => {
                    assert!(takes.contains(&is), "{importer} takes {name}: {read:?}");
                    assert_eq!(read.damaged, 0, "{importer} with {name}");
                }
                Err(e) => {
                    assert!(!takes.contains(&is), "{importer} refuses {name}: {e}");
                    assert!(is_clear(&e), "{importer} with {name}: {e}");
                }
            }
        }
    }
}

#[test]
fn every_format_is_told_by_its_content() {
    let dir = tempfile::tempdir().unwrap();
    for (is, name, bytes) in examples() {
        let (path, output) = (dir.path().join("given"), dir.path().join("out"));
        std::fs::write(&path, &bytes).unwrap();
        let done = by_content(&path, &output);
        match is {
            Is::Native => assert!(done.unwrap_err().to_string().contains("use it without")),
            _ => assert!(done.unwrap() > 0, "{name}"),
        }
        let _ = std::fs::remove_file(&output);
        // Nothing of what no importer takes is left behind.
        std::fs::write(&path, [b"nothing of use\n".as_slice(), &bytes[..7]].concat()).unwrap();
        let e = by_content(&path, &output).unwrap_err();
        assert!(is_clear(&e), "{name}: {e}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{name}");
    }
}

/// What a cut file may end in.
fn check_cut(name: &str, run: Importer, is: Is, bytes: &[u8], cut: usize) {
    match run(&bytes[..cut]) {
        Ok(read) => {
            assert!(read.damaged <= TOUCHED, "{name} at {cut}: {read:?}");
            assert_ne!(is, Is::Native, "{name} at {cut}");
        }
        Err(e) => assert!(is_clear(&e), "{name} at {cut}: {e}"),
    }
}

#[test]
fn a_file_cut_within_its_last_lines() {
    for (name, run, is, bytes) in OWN.iter() {
        let short = if *is == Is::Native { bytes } else { &bytes[..bytes.len().min(3000)] };
        for cut in (0..24).chain(short.len() - 400..short.len()) {
            check_cut(name, *run, *is, short, cut);
        }
    }
}

/// Blocks of compressed streams and of the reader end anywhere.
#[test]
fn a_compressed_file_cut_anywhere() {
    let text = fixture("mixed-strict-cm.qemu.log", 6_000);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("given");
    for (name, stored) in compressed(&text) {
        for cut in 10..=stored.len() {
            std::fs::write(&path, &stored[..cut]).unwrap();
            let mut input = open_text(&path).unwrap();
            let mut lines = 0;
            let end = loop {
                match input.next_line() {
                    Ok(Some(_)) => lines += 1,
                    Ok(None) => break Ok(()),
                    Err(e) => break Err(e),
                }
            };
            match end.and_then(|()| input.finish("x").map(drop)) {
                Ok(()) => assert_eq!(cut, stored.len(), "{name}"),
                Err(e) => {
                    assert!(cut < stored.len() && is_clear(&e), "{name} at {cut}: {e}");
                    assert!(e.to_string().contains("truncated"), "{name} at {cut}: {e}");
                }
            }
            assert!(lines <= 60 || cut == stored.len() || lines < 6_000);
        }
    }
}

fn compressed(text: &[u8]) -> [(&'static str, Vec<u8>); 3] {
    use std::io::Write as _;
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(text).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
    xz.write_all(text).unwrap();
    let mut zst = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    zst.include_checksum(true).unwrap();
    zst.write_all(text).unwrap();
    [("zstd", zst.finish().unwrap()), ("gzip", gz.finish().unwrap()), ("xz", xz.finish().unwrap())]
}

proptest! {
    #[test]
    fn a_file_cut_at_random(which: prop::sample::Index, at: prop::sample::Index) {
        let (name, run, is, bytes) = &OWN[which.index(OWN.len())];
        check_cut(name, *run, *is, bytes, at.index(bytes.len()));
    }

    #[test]
    fn a_byte_is_another_one(
        which: prop::sample::Index, at: prop::sample::Index, by in 1..=255u8, bit in 0..9u32,
    ) {
        let which = which.index(OWN.len());
        let (name, run, is, bytes) = &OWN[which];
        let mut bytes = bytes.clone();
        let at = at.index(bytes.len());
        // Any other byte, or one flipped bit.
        bytes[at] ^= if bit < 8 { 1 << bit } else { by };
        match run(&bytes) {
            Ok(read) => {
                prop_assert!(read.damaged <= TOUCHED, "{name} at {at}: {read:?}");
                // Checksums cover the native file's events, not its notes.
                let same = *is != Is::Native || read.events == run(&OWN[which].3).unwrap().events;
                prop_assert!(same, "{name} at {at}: {read:?}");
            }
            Err(e) => {
                prop_assert!(is_clear(&e), "{name} at {at}: {e}");
                // A log or trace never ends for one byte. Headers and records do.
                let log = matches!(is, Is::VtdLog | Is::OtherLog | Is::Virtio | Is::Ftrace);
                prop_assert!(!log, "{name} at {at}: {e}");
            }
        }
    }

    #[test]
    fn a_compressed_byte_is_another_one(which in 0..3usize, at: prop::sample::Index, by in 1..=255u8) {
        let text = fixture("mixed-strict-cm.qemu.log", 6_000);
        let (name, mut stored) = compressed(&text)[which].clone();
        let at = at.index(stored.len());
        stored[at] ^= by;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("given");
        std::fs::write(&path, &stored).unwrap();
        let Ok(mut input) = open_text(&path) else { return Ok(()) };
        let mut read = Vec::new();
        let end = loop {
            match input.next_line() {
                Ok(Some(line)) => {
                    read.extend_from_slice(line.bytes);
                    read.push(b'\n');
                }
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        match end {
            // What no checksum covers changes nothing: a name in gzip's header, a time.
            // A changed magic makes it a plain file, or one that ends before it begins.
            Ok(()) => prop_assert!(read == text || at < 10, "{name} at {at}"),
            Err(e) => prop_assert!(is_clear(&e), "{name} at {at}: {e}"),
        }
    }
}

//! Text in zstd, gzip or xz: damaged streams, and (by the input's first byte)
//! intact ones of any text.
#![no_main]

use std::cell::OnceCell;
use std::io::Write as _;

use ioasim_traces::input::{MAX_LINE_BYTES, open_text};
use ioasim_traces_fuzz::Scratch;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SCRATCH: OnceCell<Scratch> = const { OnceCell::new() };
}

/// Text read of one input: a bomb goes on as long as it is asked to.
const MAX_TEXT: u64 = 64 << 20;

fuzz_target!(|data: &[u8]| {
    let (stored, plain) = match data {
        [b'z', text @ ..] => (zstd::encode_all(text, 1).expect("memory takes all"), Some(text)),
        [b'g', text @ ..] => {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(text).expect("memory takes all");
            (gz.finish().expect("memory takes all"), Some(text))
        }
        [b'x', text @ ..] => {
            let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
            xz.write_all(text).expect("memory takes all");
            (xz.finish().expect("memory takes all"), Some(text))
        }
        _ => (data.to_vec(), None),
    };
    let path = SCRATCH.with(|s| s.get_or_init(Scratch::default).file(&stored));
    let Ok(mut input) = open_text(&path) else { return };
    let (mut lines, mut bytes) = (0, 0);
    let whole = loop {
        match input.next_line() {
            Ok(Some(line)) => {
                lines += 1;
                bytes += line.bytes.len() as u64;
                assert_eq!(line.number, lines);
                assert!(line.bytes.len() <= MAX_LINE_BYTES);
                assert!(!line.bytes.contains(&b'\n'));
            }
            Ok(None) => break true,
            Err(_) => break false,
        }
        if input.text_bytes() > MAX_TEXT {
            break false;
        }
    };
    if let Some(text) = plain {
        assert!(whole, "an intact stream is read to its end");
        let ends = text.iter().filter(|b| **b == b'\n').count() as u64;
        let last = u64::from(text.last().is_some_and(|b| *b != b'\n'));
        assert_eq!(lines, ends + last);
        assert!(bytes <= text.len() as u64);
    }
    if whole {
        input.finish("fuzz").expect("it has been read to its end");
    }
});

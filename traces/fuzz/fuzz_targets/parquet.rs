//! The native file: opened, read to its end, its markers listed.
#![no_main]

use std::cell::OnceCell;

use ioasim_traces::file::TraceReader;
use ioasim_traces_fuzz::Scratch;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SCRATCH: OnceCell<Scratch> = const { OnceCell::new() };
}

// The Parquet library panics at some damaged files, which the reader makes an
// error of. libFuzzer's hook would end the run there; a panic that reaches the
// target still does.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |data: &[u8]| {
    let path = SCRATCH.with(|s| s.get_or_init(Scratch::default).file(data));
    let Ok(reader) = TraceReader::open(&path) else { return };
    let mut last = 0;
    let _ = reader.visit(&mut |e, _| {
        assert!(e.time_ns >= last, "the reader checks the order of times");
        last = e.time_ns;
        Ok(())
    });
    for marker in reader.markers() {
        if marker.is_err() {
            break;
        }
    }
});

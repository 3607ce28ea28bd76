//! QEMU's binary traces (its `simple` backend): text as the `log` backend's,
//! whatever the records hold.
#![no_main]

use std::cell::OnceCell;

use ioasim_traces::input::open_text;
use ioasim_traces_fuzz::{Scratch, host, joined_or_alone, virtio};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SCRATCH: OnceCell<Scratch> = const { OnceCell::new() };
}

fuzz_target!(|data: &[u8]| {
    let path = SCRATCH.with(|s| s.get_or_init(Scratch::default).file(data));
    let Ok(mut input) = open_text(&path) else { return };
    let mut text = Vec::new();
    while let Ok(Some(line)) = input.next_line() {
        text.extend_from_slice(line.bytes);
        text.push(b'\n');
    }
    let _ = (joined_or_alone(&text), virtio(&text), host(&text));
});

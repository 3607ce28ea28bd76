//! A file of any kind, as the command takes it: told by its content, imported
//! into a native file, and read back.
#![no_main]

use std::cell::OnceCell;

use ioasim_traces::exchange::{self, ImportOptions};
use ioasim_traces::file::TraceReader;
use ioasim_traces::generate::Control;
use ioasim_traces::import::{Inputs, Options, import_to_file};
use ioasim_traces_fuzz::Scratch;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SCRATCH: OnceCell<Scratch> = const { OnceCell::new() };
}

fuzz_target!(|data: &[u8]| {
    // Recordings of trace-cmd and perf are read by those programs.
    if data.starts_with(b"\x17\x08\x44") || data.starts_with(b"PERF") || data.starts_with(b"2ELI") {
        return;
    }
    SCRATCH.with(|scratch| {
        let scratch = scratch.get_or_init(Scratch::default);
        let (path, output) = (scratch.file(data), scratch.path("trace.parquet"));
        let summary = match exchange::tell(&path) {
            Ok(Some(_)) => {
                let options = ImportOptions::default();
                exchange::import(&path, &output, &options, &mut Control::default())
            }
            Ok(None) => {
                let inputs = Inputs::Log { log: path, guest_ftrace: None };
                import_to_file(&inputs, &output, &mut Options::default()).map(|(_, s)| s)
            }
            Err(e) => Err(e),
        };
        let Ok(summary) = summary else {
            assert!(!output.exists(), "nothing is left of what failed");
            return;
        };
        let reader = TraceReader::open(&output).expect("it was just written");
        let mut events = 0;
        let counted = reader.visit(&mut |_, _| {
            events += 1;
            Ok(())
        });
        counted.expect("it was just written");
        assert_eq!(events, summary.events);
        std::fs::remove_file(&output).expect("it is there");
    });
});

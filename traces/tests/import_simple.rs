//! QEMU's `simple` trace backend. The fixtures were written by the backend itself (`trace/simple.c` and
//! what `scripts/tracetool` makes of the `trace-events` files, QEMU 7.2.0), built without the rest of
//! QEMU and fed with the events of the text fixtures; QEMU's `scripts/simpletrace.py` reads all of their
//! records. Debian's QEMU is built without this backend.

mod import_common;

use std::path::PathBuf;

use import_common::fixture;
use ioasim_events::Event;
use ioasim_traces::import::{
    ImportReport, Inputs, MemoryLines, MemorySink, Options, TextKind, import_to_file, qemu_log,
    sniff, virtio_iommu,
};
use ioasim_traces::input::open_text;

/// Fixture, and the text fixture of which it has the first events.
const FIXTURES: [(&str, &str, usize); 4] = [
    ("simple-vmm.trace", "shadow-nvme-a.vmm.qemu.log", 4000),
    ("simple-smmu.trace", "smmu-nvme-strict.qemu.log", 3000),
    ("simple-virtio.trace", "virtio-nvme.qemu.log", 3000),
    ("simple-amd.trace", "amd-nvme-randread4k-strict.qemu.log", 3000),
];

fn file(dir: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join("trace");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The first lines of a text, as of one thread: the backend tells the process only.
fn text(name: &str, lines: usize) -> String {
    let text = String::from_utf8(fixture(name)).unwrap();
    let lines = text.lines().take(lines).map(|l| "1".to_owned() + &l[l.find('@').unwrap()..]);
    lines.fold(String::new(), |all, l| all + &l + "\n")
}

fn lines(path: &std::path::Path) -> Vec<String> {
    let mut input = open_text(path).unwrap();
    let mut all = Vec::new();
    while let Some(line) = input.next_line().unwrap() {
        all.push(String::from_utf8(line.bytes.to_vec()).unwrap());
    }
    all
}

/// What is read is what the `log` backend wrote, to the byte.
#[test]
fn records_are_the_lines_of_a_log() {
    let dir = tempfile::tempdir().unwrap();
    for (name, log, count) in FIXTURES {
        let read = lines(&file(&dir, &fixture(name)));
        let text = text(log, count);
        assert_eq!(read.len(), count, "{name}");
        let mut known = 0;
        for (read, expected) in read.iter().zip(text.lines()) {
            let (_, read) = read.split_once('@').unwrap();
            let (_, expected) = expected.split_once('@').unwrap();
            let (stamp, event) = expected.split_once(':').unwrap();
            let (seconds, us) = stamp.split_once('.').unwrap();
            let rest = read.strip_prefix(&format!("{seconds}.{us}000:")).unwrap();
            if rest != event {
                // An event that no importer reads: its name.
                let (name, _) = event.split_once(' ').unwrap();
                assert_eq!(rest, format!("{name} "));
            } else {
                known += 1;
            }
        }
        assert!(known * 3 > count, "{name}: {known} of {count}");
    }
}

fn of_text(text: &str) -> (ImportReport, Vec<Event>) {
    let mut sink = MemorySink::default();
    let (lines, mut options) = (MemoryLines::new("log", text.as_bytes()), Options::default());
    let report = if text.contains(":virtio_iommu_") {
        virtio_iommu(lines, &mut sink, &mut options).unwrap().0
    } else {
        qemu_log(lines, None::<MemoryLines<'_>>, &mut sink, &mut options).unwrap().0
    };
    (report, sink.events)
}

/// All importers of QEMU's logs serve it.
#[test]
fn imported_like_the_text() {
    let dir = tempfile::tempdir().unwrap();
    for (name, log, count) in FIXTURES {
        let expected = of_text(&text(log, count));
        for compressed in [false, true] {
            let bytes = fixture(name);
            let bytes = if compressed { zstd::encode_all(&bytes[..], 1).unwrap() } else { bytes };
            let path = file(&dir, &bytes);
            let mut sink = MemorySink::default();
            let input = open_text(&path).unwrap();
            let mut options = Options::default();
            let report = if sniff(&path).unwrap() == TextKind::VirtioIommu {
                virtio_iommu(input, &mut sink, &mut options).unwrap().0
            } else {
                qemu_log(input, None::<MemoryLines<'_>>, &mut sink, &mut options).unwrap().0
            };
            assert_eq!(sink.events, expected.1, "{name}");
            assert_eq!(report.counts, expected.0.counts, "{name}");
        }
    }
}

#[test]
fn files_and_errors() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fixture("simple-amd.trace");
    let import = |bytes: &[u8]| {
        let inputs = Inputs::Log { log: file(&dir, bytes), guest_ftrace: None };
        let out = dir.path().join("t.parquet");
        import_to_file(&inputs, &out, &mut Options::default()).map_err(|e| e.to_string())
    };
    let (report, summary) = import(&whole).unwrap();
    assert_eq!(report.importer, "qemu-amdvi");
    assert_eq!(report.count("lines_damaged"), 0);
    assert_eq!(summary.meta.sources[0].bytes, whole.len() as u64);
    // Cut within a record: what is before it, and a note of where.
    let (report, _) = import(&whole[..whole.len() - 7]).unwrap();
    assert_eq!(report.count("lines_damaged"), 1);
    assert_eq!(report.damaged[0].line, 3000);
    assert!(report.damaged[0].reason.contains("ends within"));
    // Out of step.
    let mut broken = whole.clone();
    let at = broken.len() - 100;
    broken.drain(at..at + 3);
    let error = import(&broken).unwrap_err();
    assert!(error.contains("at byte") && error.contains("is damaged"), "{error}");
    let mut old = whole;
    old[16] = 3;
    let error = import(&old).unwrap_err();
    assert!(error.contains("version 3") && error.contains("QEMU 2.8"), "{error}");
}

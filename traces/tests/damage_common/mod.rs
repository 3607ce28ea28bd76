//! Shared by the tests of damaged input: every importer as a function of a
//! file's bytes, and an example of every format.
#![allow(dead_code)]

use std::fmt::Write as _;
use std::path::Path;

use ioasim_events::{Event, Kind};
use ioasim_traces::exchange::{
    self, Foreign, Format, ImportOptions, MemoryBytes, Selection, oracle_general,
};
use ioasim_traces::file::{TraceReader, TraceWriter};
use ioasim_traces::generate::Control;
use ioasim_traces::import::{self, EventSink, Inputs, MemoryLines, Options, import_to_file};
use ioasim_traces::{Error, Result};

/// Counts events and checks what the trace file's writer checks.
#[derive(Debug, Default)]
pub struct Checked {
    pub events: u64,
    last_ns: u64,
}

impl EventSink for Checked {
    fn push(&mut self, e: &Event) -> Result<()> {
        assert!(e.time_ns >= self.last_ns && e.time_ns <= i64::MAX as u64, "{e:?}");
        assert_eq!(i32::from(e.cpu as i16), e.cpu, "{e:?}");
        (self.last_ns, self.events) = (e.time_ns, self.events + 1);
        Ok(())
    }

    fn push_marker(&mut self, e: &Event, _: &str) -> Result<()> {
        assert_eq!(e.kind, Kind::Marker);
        self.push(e)
    }
}

/// What came of an import.
#[derive(Debug)]
pub struct Read {
    pub events: u64,
    pub damaged: u64,
}

/// Reads a file's bytes.
pub type Importer = fn(&[u8]) -> Result<Read>;

/// What a file is. Importers take files of one kind, or of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    VtdLog,
    OtherLog,
    Virtio,
    Ftrace,
    Csv,
    Json,
    Oracle,
    HypersioText,
    HypersioBinary,
    Native,
}

/// Every importer, its name and what it takes.
pub const IMPORTERS: [(&str, Importer, &[Is]); 10] = [
    ("QEMU log", log, &[Is::VtdLog, Is::OtherLog]),
    ("guest ftrace", joined, &[Is::Ftrace]),
    ("virtio-iommu", virtio, &[Is::Virtio]),
    ("kernel's trace", kernel, &[Is::Ftrace]),
    ("CSV", |b| foreign(Foreign::Csv, b), &[Is::Csv]),
    ("JSON lines", |b| foreign(Foreign::JsonLines, b), &[Is::Json]),
    // Half a record of HyperSIO's is a request for some object.
    ("oracleGeneral", |b| foreign(Foreign::OracleGeneral, b), &[Is::Oracle, Is::HypersioBinary]),
    // Stock QEMU's lines are the same but for the page size.
    ("HyperSIO text", |b| foreign(Foreign::HypersioText, b), &[Is::HypersioText, Is::VtdLog]),
    ("HyperSIO binary", |b| foreign(Foreign::HypersioBinary, b), &[Is::HypersioBinary]),
    ("native", native, &[Is::Native]),
];

fn read(sink: Checked, report: import::ImportReport) -> Read {
    assert_eq!(report.damaged.len() as u64, report.count("lines_damaged").min(5));
    Read { events: sink.events, damaged: report.count("lines_damaged") }
}

fn log(bytes: &[u8]) -> Result<Read> {
    let mut sink = Checked::default();
    let lines = MemoryLines::new("given", bytes);
    let done = import::qemu_log(lines, None::<MemoryLines>, &mut sink, &mut Options::default())?;
    Ok(read(sink, done.0))
}

/// A text as the ftrace of a log of another run: refused, if not earlier.
fn joined(bytes: &[u8]) -> Result<Read> {
    let log = b"1@2.000000:vtd_inv_desc invalidate desc type iotlb high 0x1000 low 0x500f2\n\
        1@2.000001:vtd_iotlb_page_update IOTLB page update sid 0x8 iova 0x1010 slpte 0x501003 domain 0x5\n";
    let mut sink = Checked::default();
    let (log, ftrace) = (MemoryLines::new("log", log), MemoryLines::new("given", bytes));
    match import::qemu_log(log, Some(ftrace), &mut sink, &mut Options::default()) {
        // It is an ftrace, and more is not asked here.
        Err(e) if e.to_string().contains("does not belong to the log") => {
            Ok(Read { events: 0, damaged: 0 })
        }
        done => Ok(read(sink, done?.0)),
    }
}

fn virtio(bytes: &[u8]) -> Result<Read> {
    let mut sink = Checked::default();
    let lines = MemoryLines::new("given", bytes);
    let (report, _) = import::virtio_iommu(lines, &mut sink, &mut Options::default())?;
    Ok(read(sink, report))
}

fn kernel(bytes: &[u8]) -> Result<Read> {
    let mut sink = Checked::default();
    let open = || Ok(MemoryLines::new("given", bytes));
    let (report, _) = import::kernel_trace(open, &mut sink, &mut Options::default())?;
    Ok(read(sink, report))
}

fn foreign(format: Foreign, bytes: &[u8]) -> Result<Read> {
    let mut sink = Checked::default();
    let input = MemoryBytes::new("given", bytes);
    let options = ImportOptions::default();
    let meta =
        exchange::import_events(format, input, &mut sink, &options, &mut Control::default())?;
    let damaged = meta.import_counts.get("lines_damaged").copied().unwrap_or(0);
    Ok(Read { events: sink.events, damaged })
}

fn native(bytes: &[u8]) -> Result<Read> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("given");
    std::fs::write(&path, bytes).unwrap();
    let mut events = 0;
    TraceReader::open(&path)?.visit(&mut |_, _| {
        events += 1;
        Ok(())
    })?;
    Ok(Read { events, damaged: 0 })
}

/// As the command does it: told by the content, imported into a file.
pub fn by_content(path: &Path, output: &Path) -> Result<u64> {
    let summary = match exchange::tell(path)? {
        Some(_) => {
            let options = ImportOptions::default();
            exchange::import(path, output, &options, &mut Control::default())?
        }
        None => {
            let inputs = Inputs::Log { log: path.to_owned(), guest_ftrace: None };
            import_to_file(&inputs, output, &mut Options::default())?.1
        }
    };
    Ok(summary.events)
}

/// A sentence that names the file and is no report of the library's innards.
pub fn is_clear(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("given") && text.len() < 700 && !text.contains("panicked")
}

/// A recorded text, its first `bytes` whole lines.
pub fn fixture(name: &str, bytes: usize) -> Vec<u8> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.zst"));
    let mut text = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    text.truncate(bytes);
    text.truncate(text.iter().rposition(|b| *b == b'\n').unwrap() + 1);
    text
}

/// An example of every format: what it is, its name, its bytes.
pub fn examples() -> Vec<(Is, &'static str, Vec<u8>)> {
    let part = |is, name| (is, name, fixture(name, 60_000));
    let mut all = vec![
        part(Is::VtdLog, "mixed-strict-cm.qemu.log"),
        part(Is::VtdLog, "nic-bidir-lazy.qemu.log"),
        part(Is::OtherLog, "amd-nvme-randread4k-strict.qemu.log"),
        part(Is::OtherLog, "smmu-nvme-strict.qemu.log"),
        part(Is::Virtio, "virtio-nvme.qemu.log"),
        part(Is::Ftrace, "nic-rx-strict.ftrace.txt"),
        part(Is::Ftrace, "linux-6.12-dma.ftrace.txt"),
        part(Is::Ftrace, "trace-cmd-report.txt"),
        part(Is::Ftrace, "perf-script.txt"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let native = dir.path().join("native");
    let mut writer = TraceWriter::create(&native).unwrap();
    let log = fixture("mixed-strict-cm.qemu.log", 60_000);
    let lines = MemoryLines::new("log", &log);
    import::qemu_log(lines, None::<MemoryLines>, &mut writer, &mut Options::default()).unwrap();
    writer.finish(Default::default()).unwrap();
    all.push((Is::Native, "native", std::fs::read(&native).unwrap()));
    let reader = TraceReader::open(&native).unwrap();
    for (is, name, format) in [
        (Is::Csv, "CSV", Format::Csv),
        (Is::Json, "JSON lines", Format::JsonLines),
        (Is::Oracle, "oracleGeneral", Format::OracleGeneral),
    ] {
        let path = dir.path().join(name);
        let control = &mut Control::default();
        exchange::export(&reader, &path, format, Selection::default(), control).unwrap();
        all.push((is, name, std::fs::read(&path).unwrap()));
    }
    let (mut text, mut binary) = (String::new(), Vec::new());
    for i in 0..500 {
        writeln!(text, "{}", hypersio_line(i, 5)).unwrap();
        binary.extend_from_slice(&hypersio_record(i));
    }
    all.push((Is::HypersioText, "HyperSIO text", text.into_bytes()));
    all.push((Is::HypersioBinary, "HyperSIO binary", binary));
    all
}

/// An access to page `i`.
pub fn hypersio_line(i: u64, domain: u64) -> String {
    let (iova, entry) = (0x1_0000_0234 + (i << 12), 0x7a00_1003 + (i << 12));
    format!(
        "7@1.2:vtd_iotlb_page_update IOTLB page update sid 0x10 iova {iova:#x} slpte {entry:#x} level 0x1 domain {domain:#x}"
    )
}

/// The same in binary.
pub fn hypersio_record(i: u64) -> Vec<u8> {
    let fields = [
        (4, 1),
        (2, 0x18),
        (2, 7),
        (8, 0x1_0000_0234 + (i << 12)),
        (8, !0xfff),
        (8, 1),
        (8, 0x7a00_1003),
        (8, i + 1),
    ];
    fields.iter().flat_map(|&(n, v)| u64::to_le_bytes(v)[..n].to_vec()).collect()
}

/// A request for an object.
pub fn oracle_record(object: u64, bytes: u32) -> [u8; oracle_general::RECORD] {
    oracle_general::Record { time_s: 1, object, bytes, next: -1 }.encode()
}

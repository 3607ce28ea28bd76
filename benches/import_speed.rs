//! Import of every text format, bytes of text per second on one thread: a
//! recorded piece in memory, events counted and dropped. Files, decompression
//! and the writing of the trace are not in it.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ioasim_traces::Result;
use ioasim_traces::events::Event;
use ioasim_traces::exchange::{self, Foreign, Format, ImportOptions, MemoryBytes, Selection};
use ioasim_traces::file::{TraceReader, TraceWriter};
use ioasim_traces::generate::Control;
use ioasim_traces::import::{self, EventSink, MemoryLines, Options};

/// Counts what it is given.
#[derive(Default)]
struct Count(u64);

impl EventSink for Count {
    fn push(&mut self, e: &Event) -> Result<()> {
        black_box(e);
        self.0 += 1;
        Ok(())
    }

    fn push_marker(&mut self, e: &Event, _: &str) -> Result<()> {
        self.push(e)
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/tests/fixtures");
    let file = std::fs::File::open(dir.join(format!("{name}.zst"))).expect("a fixture");
    zstd::decode_all(file).expect("a fixture")
}

fn log(text: &[u8]) -> u64 {
    let (mut sink, lines) = (Count::default(), MemoryLines::new("x", text));
    let none = None::<MemoryLines>;
    import::qemu_log(lines, none, &mut sink, &mut Options::default()).expect("a log");
    sink.0
}

fn virtio(text: &[u8]) -> u64 {
    let (mut sink, lines) = (Count::default(), MemoryLines::new("x", text));
    import::virtio_iommu(lines, &mut sink, &mut Options::default()).expect("a log");
    sink.0
}

fn kernel(text: &[u8]) -> u64 {
    let mut sink = Count::default();
    let open = || Ok(MemoryLines::new("x", text));
    import::kernel_trace(open, &mut sink, &mut Options::default()).expect("a trace");
    sink.0
}

fn foreign(format: Foreign, text: &[u8]) -> u64 {
    let (mut sink, input) = (Count::default(), MemoryBytes::new("x", text));
    let (options, control) = (ImportOptions::default(), &mut Control::default());
    exchange::import_events(format, input, &mut sink, &options, control).expect("rows");
    sink.0
}

/// A log's events as rows.
fn rows(format: Format) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let (trace, out) = (dir.path().join("t.parquet"), dir.path().join("rows"));
    let text = fixture("nic-rx-strict.qemu.log");
    let mut writer = TraceWriter::create(&trace).expect("a file");
    let (lines, none) = (MemoryLines::new("x", &text), None::<MemoryLines>);
    import::qemu_log(lines, none, &mut writer, &mut Options::default()).expect("a log");
    writer.finish(Default::default()).expect("a file");
    let reader = TraceReader::open(&trace).expect("a trace");
    let control = &mut Control::default();
    exchange::export(&reader, &out, format, Selection::default(), control).expect("rows");
    std::fs::read(&out).expect("rows")
}

/// The accesses of a log's rows, as other programs write them: `time,device,op,addr,size`.
fn accesses() -> Vec<u8> {
    let text = String::from_utf8(rows(Format::Csv)).expect("text");
    let line = |l: &str| {
        let f: Vec<&str> = l.split(',').collect();
        let addr = f[7].parse::<u64>().ok().filter(|_| f[1] == "dma")?;
        let id = f[5].parse::<u32>().ok()?;
        let (bus, device, function) = (id >> 8, id >> 3 & 31, id & 7);
        Some(format!("{},{bus:02x}:{device:02x}.{function},r,{addr:#x},64\n", f[0]))
    };
    let head = String::from("time_ns,device,op,addr,size\n");
    text.lines().filter_map(line).fold(head, |all, l| all + &l).into_bytes()
}

/// Lines of HyperSIO's QEMU: stock QEMU's, with the page's size.
fn hypersio() -> Vec<u8> {
    let text = String::from_utf8(fixture("nic-rx-strict.qemu.log")).expect("text");
    let line = |l: &str| match l.contains("vtd_iotlb_page_update") {
        true => l.replace(" domain ", " level 0x1 domain ") + "\n",
        false => l.replace(" slpte ", " pmask 0xfffffffffffff000 slpte ") + "\n",
    };
    text.lines().map(line).collect::<String>().into_bytes()
}

fn import_speed(c: &mut Criterion) {
    let mut group = c.benchmark_group("import");
    let mut bench = |name: &str, text: &[u8], run: &dyn Fn(&[u8]) -> u64| {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| b.iter(|| run(black_box(text))));
    };
    bench("qemu-vtd", &fixture("nic-rx-strict.qemu.log"), &log);
    bench("qemu-amdvi", &fixture("amd-nvme-randread4k-strict.qemu.log"), &log);
    bench("qemu-smmuv3", &fixture("smmu-nvme-strict.qemu.log"), &log);
    bench("qemu-virtio-iommu", &fixture("virtio-nvme.qemu.log"), &virtio);
    bench("ftrace", &fixture("linux-6.12-dma.ftrace.txt"), &kernel);
    bench("ftrace, strict", &fixture("nic-rx-strict.ftrace.txt"), &kernel);
    bench("ftrace, caching mode", &fixture("mixed-strict-cm.ftrace.txt"), &kernel);
    bench("ftrace, lazy", &fixture("nic-bidir-lazy.ftrace.txt"), &kernel);
    bench("ftrace, no invalidations", &fixture("smmu-nvme-strict.ftrace.txt"), &kernel);
    bench("trace-cmd report", &fixture("trace-cmd-report.txt"), &kernel);
    bench("perf script", &fixture("perf-script.txt"), &kernel);
    bench("csv", &rows(Format::Csv), &|t| foreign(Foreign::Csv, t));
    bench("csv, accesses alone", &accesses(), &|t| foreign(Foreign::Csv, t));
    bench("json-lines", &rows(Format::JsonLines), &|t| foreign(Foreign::JsonLines, t));
    bench("hypersio-text", &hypersio(), &|t| foreign(Foreign::HypersioText, t));
    group.finish();
}

criterion_group!(benches, import_speed);
criterion_main!(benches);

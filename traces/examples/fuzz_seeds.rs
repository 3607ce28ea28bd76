//! Writes the seeds of the fuzz targets: `cargo run --release -p ioasim-traces
//! --example fuzz_seeds` fills `traces/fuzz/corpus/TARGET/` with small pieces of
//! the tests' recordings, and of what the exporters make of them.

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use ioasim_events::{Event, Kind};
use ioasim_traces::exchange::{self, Format, Selection, oracle_general};
use ioasim_traces::file::{TraceReader, TraceWriter};
use ioasim_traces::generate::Control;
use ioasim_traces::import::{Inputs, Options, import_to_file};

type Done<T = ()> = Result<T, Box<dyn Error>>;

/// Ends one text and begins the next, as in `fuzz/src/lib.rs`.
const SEPARATOR: &[u8] = b"\n%%%%\n";
/// Lines of a piece. Short inputs are mutated to better effect.
const LINES: usize = 24;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn fixture(name: &str) -> Done<Vec<u8>> {
    let path = root().join("../tests/fixtures").join(format!("{name}.zst"));
    Ok(zstd::decode_all(std::fs::File::open(path)?)?)
}

fn put(target: &str, name: &str, bytes: &[u8]) -> Done {
    let dir = root().join("corpus").join(target);
    std::fs::create_dir_all(&dir)?;
    Ok(std::fs::write(dir.join(name), bytes)?)
}

/// `n` lines from a share of the text on.
fn piece(text: &[u8], from: f64, n: usize) -> Vec<u8> {
    let start = (text.len() as f64 * from) as usize;
    let start = text[..start].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    text[start..].split_inclusive(|b| *b == b'\n').take(n).flatten().copied().collect()
}

/// Lines that hold one of the words, so that a piece shows something.
fn with(text: &[u8], words: &[&str], n: usize) -> Vec<u8> {
    let has = |line: &&[u8]| {
        let line = String::from_utf8_lossy(line);
        words.iter().any(|w| line.contains(w))
    };
    text.split_inclusive(|b| *b == b'\n').filter(has).take(n).flatten().copied().collect()
}

fn texts() -> Done {
    let vtd = ["mixed-strict-cm", "nic-bidir-lazy", "nic-rx-strict", "nvme-seqwrite128k-lazy"];
    for name in vtd {
        let (log, ftrace) =
            (fixture(&format!("{name}.qemu.log"))?, fixture(&format!("{name}.ftrace.txt"))?);
        for (i, at) in [0.0, 0.4, 0.9].into_iter().enumerate() {
            put("qemu_vtd", &format!("{name}-{i}"), &piece(&log, at, LINES))?;
            put("kernel_ftrace", &format!("{name}-{i}"), &piece(&ftrace, at, LINES))?;
        }
        // A log and an ftrace that have something in common at their beginning.
        let log = with(&log, &["vtd_inv_desc ", "vtd_iotlb_page", "vtd_dmar_tr"], 3 * LINES);
        let ftrace = with(&ftrace, &["map: ", "qi_submit"], 3 * LINES);
        let both = [&log[..], SEPARATOR, &ftrace].concat();
        put("qemu_vtd_joined", name, &both)?;
        put("replay_imported", name, &both)?;
        put("replay_imported", &format!("{name}-alone"), &log)?;
        put("told_by_content", &format!("{name}.log"), &piece(&log, 0.0, LINES))?;
    }
    for (target, name) in
        [("qemu_amdvi", "amd-nvme-randread4k-strict"), ("qemu_smmu", "smmu-nvme-strict")]
    {
        let log = fixture(&format!("{name}.qemu.log"))?;
        let ftrace = fixture(&format!("{name}.ftrace.txt"))?;
        for (i, at) in [0.0, 0.3, 0.6, 0.9].into_iter().enumerate() {
            put(target, &format!("alone-{i}"), &piece(&log, at, LINES))?;
        }
        let both = [&piece(&log, 0.2, 4 * LINES)[..], SEPARATOR, &piece(&ftrace, 0.2, LINES)];
        put(target, "both", &both.concat())?;
        put("replay_imported", name, &both.concat())?;
    }
    let log = fixture("virtio-nvme.qemu.log")?;
    for (i, at) in [0.0, 0.2, 0.5, 0.9].into_iter().enumerate() {
        put("virtio_iommu", &format!("{i}"), &piece(&log, at, LINES))?;
    }
    let vmm = fixture("shadow-nvme-a.vmm.qemu.log")?;
    for (i, at) in [0.0, 0.3, 0.8].into_iter().enumerate() {
        let host = with(&vmm[(vmm.len() as f64 * at) as usize..], &["vfio_"], LINES);
        put("host_log", &format!("vfio-{i}"), &host)?;
    }
    // Made up after backends/iommufd.c of QEMU 10.2.
    let iommufd = b"1@0.000001:iommufd_backend_connect fd=8 owned=1 users=1\n\
        1@0.000002:iommufd_backend_alloc_ioas  iommufd=8 ioas=2\n\
        1@0.000003:iommufd_backend_map_dma  iommufd=8 ioas=2 iova=0x0 size=0x80000000 addr=0x7f0000000000 readonly=0 (0)\n\
        1@0.000004:iommufd_backend_unmap_dma  iommufd=8 ioas=2 iova=0x0 size=0x1000 (0)\n\
        1@0.000005:iommufd_backend_unmap_dma_non_exist  Unmap nonexistent mapping: iommufd=8 ioas=2 iova=0x0 size=0x1000 (0)\n\
        1@0.000006:iommufd_backend_free_id  iommufd=8 id=2 (0)\n";
    put("host_log", "iommufd", iommufd)?;
    for name in ["amd", "smmu", "virtio", "vmm"] {
        let trace = fixture(&format!("simple-{name}.trace"))?;
        put("qemu_simple", name, &trace[..trace.len().min(4096)])?;
    }
    let kernel = [
        ("kernel_ftrace", "linux-6.12-dma.ftrace.txt"),
        ("trace_cmd_report", "trace-cmd-report.txt"),
        ("perf_script", "perf-script.txt"),
    ];
    for (target, name) in kernel {
        let text = fixture(name)?;
        for (i, at) in [0.0, 0.25, 0.5, 0.9].into_iter().enumerate() {
            put(target, &format!("{name}-{i}"), &piece(&text, at, LINES))?;
        }
        let maps = with(&text, &["map: ", "map_", "qi_submit", "dma_"], LINES);
        put(target, &format!("{name}-maps"), &maps)?;
        put("told_by_content", name, &maps)?;
    }
    // Made up after include/trace/events/dma.h: no fixture has scatter lists.
    let lists = b"fio-7 [001] ..... 1.000001: dma_map_sg: 0000:00:01.0 dir=TO_DEVICE dma_addrs={fff00000,fff02000} sizes={8192,4096} phys_addrs={1000,9000} attrs=\n\
        fio-7 [001] ..... 1.000002: dma_map_sg: 0000:00:01.0 dir=FROM_DEVICE nents=3/3 ents=1/1 [TRUNCATED] dma_addrs={0xffe00000} sizes={8192} phys_addrs={0x1000,0x2000} attrs=WEAK_ORDERING\n\
        fio-7 [001] ..... 1.000003: dma_unmap_sg: 0000:00:01.0 dir=TO_DEVICE phys_addrs={1000,9000} attrs=\n\
        CPU:1 [LOST 12 EVENTS]\n\
        fio-7 [001] ..... 1.000004: dma_alloc: 0000:00:02.0 dir=BIDIRECTIONAL dma_addr=fffff000 size=512 virt_addr=0 flags=GFP_KERNEL attrs=\n";
    put("kernel_ftrace", "lists", lists)?;
    let bundle = ["host.qemu.log", "guest.ftrace.txt", "vmm.qemu.log", "hypervisor.ftrace.txt"];
    let mut parts = Vec::new();
    for name in bundle {
        parts.push(fixture(&format!("shadow-nvme-a.{name}"))?);
    }
    for (i, at) in [0.0, 0.5].into_iter().enumerate() {
        let small: Vec<Vec<u8>> = parts.iter().map(|t| piece(t, at, 2 * LINES)).collect();
        put("bundle", &format!("{i}"), &small.join(SEPARATOR))?;
    }
    let words = ["page_walk_one", "map: ", "qi_submit", "iotlb_page", "vfio_", "vtd_switch"];
    let small: Vec<Vec<u8>> = parts.iter().map(|t| with(t, &words, 2 * LINES)).collect();
    put("bundle", "changes", &small.join(SEPARATOR))
}

/// HyperSIO's formats, after its source as its tests are.
fn hypersio() -> Done {
    let (mut text, mut binary) = (Vec::new(), Vec::new());
    for i in 0..12u64 {
        let (iova, entry) = (0xbfe0_1234 + (i << 12), 0x7a00_1003 + (i << 12));
        let what = if i % 3 == 0 {
            format!("update IOTLB page update sid 0x10 iova {iova:#x} slpte {entry:#x} level 0x1")
        } else {
            format!("hit IOTLB page hit sid 0x10 iova {iova:#x} pmask 0xffe00000 slpte {entry:#x}")
        };
        writeln!(text, "123@1.{i}:vtd_iotlb_page_{what} domain 0x5")?;
        for (n, value) in
            [(4, 1), (2, 0x18), (2, 7), (8, iova), (8, !0xfff), (8, 1), (8, entry), (8, i + 4)]
        {
            binary.extend_from_slice(&u64::to_le_bytes(value)[..n]);
        }
    }
    put("hypersio_text", "both", &text)?;
    put("hypersio_binary", "records", &binary)?;
    put("told_by_content", "hypersio.txt", &text)?;
    put("told_by_content", "hypersio.bin", &binary)
}

/// A trace of an import's first events, for the exporters.
fn small_trace(dir: &Path) -> Done<PathBuf> {
    let log = dir.join("log");
    std::fs::write(&log, piece(&fixture("mixed-strict-cm.qemu.log")?, 0.3, 4 * LINES))?;
    let whole = dir.join("whole.parquet");
    let inputs = Inputs::Log { log, guest_ftrace: None };
    import_to_file(&inputs, &whole, &mut Options::default())?;
    let reader = TraceReader::open(&whole)?;
    let path = dir.join("small.parquet");
    let mut writer = TraceWriter::create(&path)?;
    reader.visit(&mut |e, _| writer.push(e))?;
    let time_ns = reader.summary().meta.totals.end_ns;
    writer.push_marker(&Event { time_ns, ..Event::new(Kind::Marker) }, "work, \"quoted\"\nend")?;
    writer.finish(reader.meta().clone())?;
    Ok(path)
}

fn exported() -> Done {
    let dir = tempfile::tempdir()?;
    let trace = small_trace(dir.path())?;
    let native = std::fs::read(&trace)?;
    put("parquet", "small", &native)?;
    // Without checksums damage gets to the decoders.
    let key = b"ioasim.crc32";
    let mut unchecked = native.clone();
    if let Some(at) = native.windows(key.len()).position(|w| w == key) {
        unchecked[at] = b'x';
    }
    put("parquet", "unchecked", &unchecked)?;
    let reader = TraceReader::open(&trace)?;
    for (format, target) in [
        (Format::Csv, "csv"),
        (Format::JsonLines, "json_lines"),
        (Format::OracleGeneral, "oracle_general"),
    ] {
        let out = dir.path().join(target);
        exchange::export(&reader, &out, format, Selection::default(), &mut Control::default())?;
        let bytes = std::fs::read(&out)?;
        put(target, "exported", &bytes)?;
        put("told_by_content", target, &bytes)?;
    }
    let plain = b"time,op,iova,len,bdf\n1000,r,0x1000,4096,00:03.0\n1.5,w,8192,64,01:00.1\n";
    put("csv", "accesses", plain)?;
    put("csv", "objects", b"clock_time,obj_id,obj_size\n0.5,77,4096\n0.6,99,1\n")?;
    put(
        "json_lines",
        "accesses",
        b"{\"kind\":\"dma\",\"addr\":4096,\"domain\":1,\"requester\":8}\n",
    )?;
    let record = oracle_general::Record { time_s: 1, object: 1 << 45 | 77, bytes: 4096, next: -1 };
    put("oracle_general", "one", &record.encode())
}

fn compressed() -> Done {
    let text = piece(&fixture("mixed-strict-cm.qemu.log")?, 0.5, LINES);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&text)?;
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
    xz.write_all(&text)?;
    for (name, bytes) in
        [("zst", zstd::encode_all(&text[..], 3)?), ("gz", gz.finish()?), ("xz", xz.finish()?)]
    {
        put("compressed", name, &bytes)?;
        put("told_by_content", name, &bytes)?;
    }
    for first in ["z", "g", "x", ""] {
        put("compressed", &format!("plain-{first}"), &[first.as_bytes(), &text].concat())?;
    }
    Ok(())
}

fn main() -> Done {
    texts()?;
    hypersio()?;
    exported()?;
    compressed()
}

//! Memory stays bounded with hostile input: lines and records without end,
//! more domains, devices and pages than a machine has, sizes in headers that
//! nothing stands behind.

mod damage_common;

use std::io::{Read as _, Write as _};
use std::path::Path;

use damage_common::*;
use ioasim_traces::Result;
use ioasim_traces::exchange::{self, ByteSource, Foreign, ImportOptions};
use ioasim_traces::file::{TraceReader, TraceWriter};
use ioasim_traces::generate::Control;
use ioasim_traces::import::{self, Inputs, LineSource, Options, import_to_file};
use ioasim_traces::input::Line;

/// What an import may use, in MB.
const LIMIT_MB: u64 = 256;

/// Peak resident memory of this process in MB, where the system tells.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or("0 0");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1000
}

/// Begins to look for a new peak.
fn reset_peak() {
    // Linux: "5" resets VmHWM (proc(5), clear_refs). Elsewhere the peak stays.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn within_the_limit<T>(what: &str, run: impl FnOnce() -> T) -> T {
    reset_peak();
    let done = run();
    println!("{:>4} MB: {what}", peak_mb());
    assert!(peak_mb() < LIMIT_MB, "{} MB: {what}", peak_mb());
    done
}

/// Text made up as it is read: `make` appends the lines of a number.
struct Made<F> {
    text: Vec<u8>,
    at: usize,
    number: u64,
    make: F,
}

/// `count` times what `make` appends.
fn made(
    count: u64,
    make: impl Fn(u64, &mut Vec<u8>),
) -> Made<impl FnMut(u64, &mut Vec<u8>) -> bool> {
    let make = move |n, text: &mut Vec<u8>| {
        if n < count {
            make(n, text);
        }
        n < count
    };
    Made { text: Vec::new(), at: 0, number: 0, make }
}

impl<F: FnMut(u64, &mut Vec<u8>) -> bool> Made<F> {
    fn next(&mut self) -> bool {
        self.text.clear();
        self.at = 0;
        self.number += 1;
        (self.make)(self.number - 1, &mut self.text)
    }
}

impl<F: FnMut(u64, &mut Vec<u8>) -> bool> LineSource for Made<F> {
    fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        let more = self.next();
        let line =
            Line { number: self.number, bytes: self.text.trim_ascii_end(), truncated: false };
        Ok(more.then_some(line))
    }

    fn path(&self) -> &Path {
        Path::new("given")
    }

    fn progress(&self) -> (u64, u64) {
        (self.number, self.number)
    }
}

impl<F: FnMut(u64, &mut Vec<u8>) -> bool> std::io::Read for Made<F> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.text.len() && !self.next() {
            return Ok(0);
        }
        let n = into.len().min(self.text.len() - self.at);
        into[..n].copy_from_slice(&self.text[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

impl<F: FnMut(u64, &mut Vec<u8>) -> bool> ByteSource for Made<F> {
    fn path(&self) -> &Path {
        Path::new("given")
    }

    fn progress(&self) -> (u64, u64) {
        (self.number, self.number)
    }
}

/// Imports into a file, as the command does.
fn to_file(format: Foreign, dense_ids: bool, input: impl ByteSource) -> Result<u64> {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = TraceWriter::create(&dir.path().join("out")).unwrap();
    let options = ImportOptions { dense_ids, ..ImportOptions::default() };
    let control = &mut Control::default();
    let meta = exchange::import_events(format, input, &mut writer, &options, control)?;
    Ok(writer.finish(meta)?.events)
}

fn says(error: ioasim_traces::Error, what: &str) {
    assert!(error.to_string().contains(what) && is_clear(&error), "{error}");
}

/// Set for a process that does one of the cases.
const CASE: &str = "IOASIM_BOUNDED_CASE";

/// Each case in a process of its own: what the allocator keeps of one would count for the next.
#[test]
fn peak_memory() {
    let cases: [(&str, fn()); 10] = [
        ("a line of a gigabyte", a_line_of_a_gigabyte),
        ("endpoints", endpoints_without_end),
        ("domains", domains_without_end),
        ("devices", || devices_without_end("{}.platform")),
        ("scatter lists", || devices_without_end("0000:00:01.0")),
        ("rows", rows_without_end),
        ("bundle", a_bundle_without_end),
        ("pages", pages_without_end),
        ("objects", objects_without_end),
        ("sizes", sizes_with_nothing_behind),
    ];
    if let Ok(name) = std::env::var(CASE) {
        return cases.iter().find(|case| case.0 == name).expect("a case").1();
    }
    for (name, _) in cases {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "peak_memory", "--nocapture"]).env(CASE, name);
        let done = command.output().unwrap();
        print!("{}", String::from_utf8_lossy(&done.stdout));
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// `head` and then a line of 2^30 bytes, compressed.
fn gigabyte(path: &Path, head: &[u8], tail: &[u8]) {
    let file = std::fs::File::create(path).unwrap();
    let mut zst = zstd::stream::write::Encoder::new(file, 1).unwrap();
    zst.write_all(head).unwrap();
    std::io::copy(&mut std::io::repeat(b'x').take(1 << 30), &mut zst).unwrap();
    zst.write_all(tail).unwrap();
    zst.finish().unwrap();
}

fn a_line_of_a_gigabyte() {
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (&dir.path().join("given"), &dir.path().join("out"));
    // Logs go on behind it.
    for name in [
        "mixed-strict-cm.qemu.log",
        "virtio-nvme.qemu.log",
        "linux-6.12-dma.ftrace.txt",
        "perf-script.txt",
    ] {
        let text = fixture(name, 30_000);
        gigabyte(path, &text, &[b"\n", &text[..]].concat());
        let inputs = Inputs::Log { log: path.to_owned(), guest_ftrace: None };
        let (report, _) = within_the_limit(&format!("a line of 1 GiB in {name}"), || {
            import_to_file(&inputs, out, &mut Options::default()).unwrap()
        });
        // A text that is read twice is damaged twice.
        assert!((1..=2).contains(&report.count("lines_damaged")), "{name}");
        assert_eq!(report.damaged[0].reason, "line too long");
    }
    // Rows of other formats end there.
    for (head, name) in [
        (&b"time_ns,addr,text\n1,4096,\n2,"[..], "CSV"),
        (b"time_ns,addr,text\n1,4096,\n2,8192,\"", "CSV in quotes"),
        (b"{\"kind\":\"dma\"}\n{\"kind\":\"marker\",\"text\":\"", "JSON lines"),
        (b"vtd_slpte_fetch x\n", "HyperSIO text"),
    ] {
        gigabyte(path, head, b"");
        let done =
            within_the_limit(&format!("a line of 1 GiB in {name}"), || by_content(path, out));
        says(done.unwrap_err(), "is longer than 1048576 bytes");
    }
    gigabyte(path, b"", b"");
    let done = within_the_limit("a line of 1 GiB alone", || by_content(path, out));
    assert!(is_clear(&done.unwrap_err()));
}

fn endpoints_without_end() {
    let sink = &mut Checked::default();
    let options = &mut Options::default();

    // Each line attaches another endpoint to another domain.
    let attaches = made(u64::MAX, |n, text| {
        write!(text, "1@2.000001:virtio_iommu_attach domain={n} endpoint={n}").unwrap();
    });
    let done =
        within_the_limit("virtio: endpoints", || import::virtio_iommu(attaches, sink, options));
    says(done.map(|_| ()).unwrap_err(), "more than 65536 endpoints");
}

/// Each maps in another domain, each translates in another thread.
fn domains_without_end() {
    let options = &mut Options::default();
    let maps = made(4_400_000, |n, text| {
        match n % 2 {
        0 => write!(text, "1@2.000001:virtio_iommu_map domain={n} virt_start=0x1000 virt_end=0x1fff phys_start=0x1000 flags=3").unwrap(),
        _ => write!(text, "{n}@2.000001:virtio_iommu_translate mr=x rid=8 addr=0x1000 flag=1").unwrap(),
    }
    });
    let sink = &mut Checked::default();
    let done =
        within_the_limit("virtio: domains, threads", || import::virtio_iommu(maps, sink, options));
    assert!(done.unwrap().0.count("mappings_forgotten") > 0);
}

/// Each line of a kernel's trace names another device, or another list of one.
fn devices_without_end(device: &'static str) {
    let options = &mut Options::default();
    let buffers = || {
        Ok(made(3_000_000, move |n, text| {
            let device = device.replace("{}", &n.to_string());
            write!(
                    text,
                    "a-{n} [001] ..... 1.000001: dma_map_sg: {device} dir=TO_DEVICE dma_addrs={{{:#x}}} sizes={{0x1000}} phys_addrs={{{:#x}}} attrs=",
                    n << 12,
                    n << 12
                )
                .unwrap();
        }))
    };
    let sink = &mut Checked::default();
    let what = format!("dma events of {device}");
    let done = within_the_limit(&what, || import::kernel_trace(buffers, sink, options));
    match device {
        "0000:00:01.0" => assert!(done.unwrap().0.count("mappings_forgotten") > 0),
        _ => says(done.map(|_| ()).unwrap_err(), "more than 65536 devices"),
    }
}

fn rows_without_end() {
    // Another domain and device with each access.
    for (name, reason) in [
        ("time_ns,addr,domain,requester", "262,144 devices and domains"),
        ("time_ns,addr,domain,requester,kind", "more than 262144 devices"),
    ] {
        let kind = if name.ends_with("kind") { ",dma" } else { "" };
        let rows = made(u64::MAX, |n, text| {
            if n == 0 {
                writeln!(text, "{name}").unwrap();
            }
            writeln!(text, "{n},4096,{n},{n}{kind}").unwrap();
        });
        let done =
            within_the_limit(&format!("rows: {name}"), || to_file(Foreign::Csv, false, rows));
        let e = done.unwrap_err().to_string();
        assert!(e.contains(reason), "{e}");
    }
    // PASIDs and domains alone are kept nowhere.
    let rows = made(3_000_000, |n, text| {
        writeln!(
            text,
            "{{\"kind\":\"dma\",\"domain\":{n},\"requester\":8,\"pasid\":{n},\"addr\":4096}}"
        )
        .unwrap();
    });
    let events = within_the_limit("PASIDs", || to_file(Foreign::JsonLines, false, rows)).unwrap();
    assert_eq!(events, 3_000_000);
}

fn a_bundle_without_end() {
    let options = &mut Options::default();
    // A bundle's four texts, each with a new domain, device and page in every line.
    let host = || {
        made(1_500_000, |n, text| {
            let (s, us) = (n / 1_000_000, n % 1_000_000);
            write!(
                text,
                "1@{s}.{us:06}:vtd_iotlb_page_update IOTLB page update sid {:#x} iova {:#x} slpte {:#x} domain {:#x}",
                n & 0xffff, n << 12, n << 12 | 3, n & 0x7fff_ffff
            )
            .unwrap();
        })
    };
    let vmm = || {
        made(1_500_000, |n, text| {
            let (s, us) = (n / 1_000_000, n % 1_000_000);
            write!(
                text,
                "1@{s}.{us:06}:vtd_page_walk_one domain {:#x} iova {:#x} -> gpa {:#x} mask 0xfff perm 3",
                n & 0x7fff_ffff, n << 12, n << 12
            )
            .unwrap();
        })
    };
    let ftrace = || {
        made(1_500_000, |n, text| {
            let (s, us) = (n / 1_000_000, n % 1_000_000);
            write!(
                text,
                "a-{n} [{}] ..... {s}.{us:06}: map: IOMMU: iova={:#x} - {:#x} paddr={:#x} size=4096",
                n % 30_000, n << 12, (n + 1) << 12, n << 12
            )
            .unwrap();
        })
    };
    let inputs = import::BundleInputs {
        host: host(),
        guest_ftrace: ftrace(),
        vmm: vmm(),
        hypervisor_ftrace: ftrace(),
    };
    let sink = &mut Checked::default();
    let done = within_the_limit("bundle", || {
        import::bundle(inputs, (vmm(), ftrace()), sink, options).map(|_| ())
    });
    if let Err(e) = done {
        println!("          {e}");
    }
}

fn pages_without_end() {
    let rows = made(u64::MAX, |n, text| writeln!(text, "{}", hypersio_line(n, 5)).unwrap());
    let done =
        within_the_limit("HyperSIO text: pages", || to_file(Foreign::HypersioText, false, rows));
    says(done.unwrap_err(), "more than 3,670,016 pages");
}

fn objects_without_end() {
    for dense in [false, true] {
        let records = made(u64::MAX, |n, bytes| {
            bytes.extend_from_slice(&oracle_record(1 << 45 | n, 4096));
        });
        let what = format!("oracleGeneral: objects, numbered: {dense}");
        let done = within_the_limit(&what, || to_file(Foreign::OracleGeneral, dense, records));
        let limit = if dense { "more than 3670016 objects" } else { "more than 3,670,016 pages" };
        says(done.unwrap_err(), limit);
    }
}

fn sizes_with_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = &dir.path().join("given");
    // One access to all of memory is damaged, not 2^52 maps.
    for row in [
        "addr,size\n0,18446744073709551615\n4096,4096\n",
        "addr,size\n18446744073709547520,8192\n4096,4096\n",
    ] {
        let input = exchange::MemoryBytes::new("given", row.as_bytes());
        let sink = Checked::default();
        let options = ImportOptions::default();
        let control = &mut Control::default();
        let meta = within_the_limit("an access to everything", || {
            exchange::import_events(Foreign::Csv, input, sink, &options, control)
        });
        assert_eq!(meta.unwrap().import_counts["lines_damaged"], 1);
    }
    let record = oracle_record(1 << 45 | 7, u32::MAX);
    let done = within_the_limit("an object of 4 GiB", || {
        to_file(Foreign::OracleGeneral, false, exchange::MemoryBytes::new("given", &record))
    });
    says(done.unwrap_err(), "it holds no event");

    // A native file whose footer says anything.
    let native = examples().into_iter().find(|e| e.0 == Is::Native).unwrap().2;
    let footer = u32::from_le_bytes(native[native.len() - 8..][..4].try_into().unwrap()) as usize;
    within_the_limit("footers", || {
        for at in native.len() - 8 - footer..native.len() - 4 {
            for by in [0x80, 0x7f, 0xff] {
                let mut damaged = native.clone();
                damaged[at] ^= by;
                std::fs::write(path, &damaged).unwrap();
                let read = TraceReader::open(path).and_then(|r| r.visit(&mut |_, _| Ok(())));
                if let Err(e) = read {
                    assert!(is_clear(&e), "{at}: {e}");
                }
            }
        }
    });
}

//! What the fuzz targets share: inputs of several files in one, a sink that
//! checks what every trace promises, and a limit on the work of one input.
//!
//! Input is data: an importer may refuse it with an error, or count what is
//! damaged; a panic, a hang or memory without bound is a defect.

#![forbid(unsafe_code)]

use ioasim_events::{Chunk, Event, Kind, TraceInfo};
use ioasim_sim::config::{Config, Layer, resolve};
use ioasim_sim::replay::Replay;
use ioasim_traces::Result;
use ioasim_traces::exchange::{self, Foreign, ImportOptions, MemoryBytes};
use ioasim_traces::generate::Control;
use ioasim_traces::import::{self, BundleInputs, EventSink, ImportReport, MemoryLines, Options};

/// A line of its own that ends one text and begins the next, in inputs that
/// stand for several files.
pub const SEPARATOR: &[u8] = b"\n%%%%\n";

/// The first `N` texts of an input; what is missing is empty.
pub fn texts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut rest = data;
    std::array::from_fn(|_| {
        let at = rest.windows(SEPARATOR.len()).position(|w| w == SEPARATOR);
        let (text, more) = match at {
            Some(at) => (&rest[..at], &rest[at + SEPARATOR.len()..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = more;
        text
    })
}

/// Checks each event as the trace file's writer does, and keeps the first ones
/// for a replay.
#[derive(Debug, Default)]
pub struct Checked {
    last_ns: u64,
    /// What is written of a trace as it stands may be of any size.
    any_size: bool,
    number: u64,
    iova_bits: u32,
    chunk: Chunk,
}

/// Events kept for a replay.
const KEPT: usize = 1 << 16;

impl EventSink for Checked {
    fn push(&mut self, e: &Event) -> Result<()> {
        let number = self.number;
        assert!(e.time_ns >= self.last_ns, "event {number} goes back in time: {e:?}");
        assert!(e.time_ns <= i64::MAX as u64, "event {number}: {e:?}");
        assert_eq!(i32::from(e.cpu as i16), e.cpu, "event {number}: {e:?}");
        let sized = matches!(e.kind, Kind::Map | Kind::Unmap | Kind::ParentMap | Kind::ParentUnmap);
        assert!(!sized || e.size > 0 || self.any_size, "event {number} changes nothing: {e:?}");
        if matches!(e.kind, Kind::Map | Kind::Dma) {
            let last = e.addr.saturating_add(e.size.saturating_sub(1));
            self.iova_bits = self.iova_bits.max(u64::BITS - last.leading_zeros());
        }
        (self.last_ns, self.number) = (e.time_ns, number + 1);
        if self.chunk.len() < KEPT {
            self.chunk.push(e);
        }
        Ok(())
    }

    fn push_marker(&mut self, e: &Event, _text: &str) -> Result<()> {
        assert_eq!(e.kind, Kind::Marker);
        self.push(e)
    }
}

/// As many damaged lines as the command allows by default, or all of them: an
/// input's first byte decides, so that both ways are gone.
fn options(data: &[u8]) -> Options<'static> {
    let all = data.first().is_some_and(|b| b % 2 == 0);
    Options { max_errors: if all { u64::MAX } else { Options::MAX_ERRORS }, ..Options::default() }
}

/// A log of an emulated IOMMU, alone.
pub fn log(data: &[u8]) -> Option<(ImportReport, Checked)> {
    let mut sink = Checked::default();
    let lines = MemoryLines::new("log", data);
    let done = import::qemu_log(lines, None::<MemoryLines>, &mut sink, &mut options(data));
    done.ok().map(|(report, ..)| (report, sink))
}

/// A log and its guest's ftrace.
pub fn joined(data: &[u8]) -> Option<(ImportReport, Checked)> {
    let [log, ftrace] = texts(data);
    let mut sink = Checked::default();
    let lines = (MemoryLines::new("log", log), MemoryLines::new("ftrace", ftrace));
    let done = import::qemu_log(lines.0, Some(lines.1), &mut sink, &mut options(data));
    done.ok().map(|(report, ..)| (report, sink))
}

/// A recording of all levels of software nesting.
pub fn bundle(data: &[u8]) -> Option<(ImportReport, Checked)> {
    let [host, guest, vmm, hypervisor] = texts(data);
    let mut sink = Checked::default();
    let inputs = BundleInputs {
        host: MemoryLines::new("host", host),
        guest_ftrace: MemoryLines::new("guest", guest),
        vmm: MemoryLines::new("vmm", vmm),
        hypervisor_ftrace: MemoryLines::new("hypervisor", hypervisor),
    };
    let again = (MemoryLines::new("vmm", vmm), MemoryLines::new("hypervisor", hypervisor));
    let done = import::bundle(inputs, again, &mut sink, &mut options(data));
    done.ok().map(|(report, _)| (report, sink))
}

/// A log of a virtio-iommu.
pub fn virtio(data: &[u8]) -> Option<(ImportReport, Checked)> {
    let mut sink = Checked::default();
    let lines = MemoryLines::new("log", data);
    let done = import::virtio_iommu(lines, &mut sink, &mut options(data));
    done.ok().map(|(report, _)| (report, sink))
}

/// A log of VFIO and iommufd.
pub fn host(data: &[u8]) -> Option<(ImportReport, Checked)> {
    let mut sink = Checked::default();
    let lines = MemoryLines::new("log", data);
    let done = import::host_log(lines, &mut sink, &mut options(data));
    done.ok().map(|(report, _)| (report, sink))
}

/// A kernel's trace alone.
pub fn kernel(data: &[u8]) -> Option<(ImportReport, Checked)> {
    let mut sink = Checked::default();
    let open = || Ok(MemoryLines::new("ftrace", data));
    let done = import::kernel_trace(open, &mut sink, &mut options(data));
    done.ok().map(|(report, _)| (report, sink))
}

/// Another program's format.
pub fn foreign(format: Foreign, data: &[u8]) -> Option<Checked> {
    let first = data.first().copied().unwrap_or_default();
    let options = ImportOptions {
        max_errors: if first % 2 == 0 { u64::MAX } else { 100 },
        dense_ids: first % 4 < 2,
        maps: first % 8 < 6,
        ..ImportOptions::default()
    };
    let mut sink = Checked { any_size: true, ..Checked::default() };
    let control = &mut Control::default();
    let bytes = MemoryBytes::new("input", data);
    let done = exchange::import_events(format, bytes, &mut sink, &options, control);
    done.ok().map(|_| sink)
}

/// The presets that reproduce what QEMU 7.2 did, resolved.
pub fn presets() -> [Config; 3] {
    ["qemu-vtd-7.2", "qemu-amdvi-7.2", "qemu-smmuv3-7.2"]
        .map(|name| resolve(&Layer::Preset(name.into()), &[]).expect("a preset is valid"))
}

/// Replays what was imported and verifies it. Differences may be found, for
/// fuzzed recordings contradict themselves; nothing may panic.
pub fn replay(config: &Config, report: &ImportReport, sink: &Checked) {
    let info = TraceInfo {
        events: sink.chunk.len() as u64,
        end_ns: sink.last_ns,
        output_space: report.output_space,
        has_parent: sink.chunk.kind.contains(&(Kind::ParentMap as i32)),
        caching_mode: report.caching_mode,
        child_levels: report.child_levels,
        iova_bits: sink.iova_bits,
    };
    let mut replay = Replay::new(config, &info, true);
    if replay.run(&sink.chunk).is_ok() {
        let _ = replay.finish();
    }
}

/// A log alone, or with an ftrace if the input has two parts.
pub fn joined_or_alone(data: &[u8]) -> Option<(ImportReport, Checked)> {
    let two = data.windows(SEPARATOR.len()).any(|w| w == SEPARATOR);
    if two { joined(data) } else { log(data) }
}

/// A file of the fuzzer's own in memory (tmpfs), for readers of files.
#[derive(Debug)]
pub struct Scratch {
    dir: tempfile::TempDir,
}

impl Default for Scratch {
    fn default() -> Self {
        let shm = std::path::Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        Scratch { dir: dir.expect("a folder can be made") }
    }
}

impl Scratch {
    /// The path of `name` in it.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// A file with these bytes.
    pub fn file(&self, data: &[u8]) -> std::path::PathBuf {
        let path = self.path("input");
        std::fs::write(&path, data).expect("the file can be written");
        path
    }
}

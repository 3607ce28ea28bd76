//! From a made-up device to a trace file.

use std::collections::BTreeMap;
use std::path::Path;

use ioasim_events::{CachingMode, DomainId, Event, Kind, Pasid, Requester};

use super::device::DeviceKind;
use super::error::{OptionError, limit};
use super::linux::{DmaOptions, Kernel, Out, Side, Unmap};
use super::to_file::{Control, refused};
use crate::Result;
use crate::file::{Meta, Summary, Synthetic, TraceWriter};

/// Events between two looks at the hooks.
const TICK: u64 = 65_536;
/// Events that are handed over at once: 18 KiB, which stay in a core's first cache.
const BATCH: u64 = 256;

/// A trace of made-up devices.
#[derive(Clone, Debug)]
pub struct DeviceTrace {
    /// The device and its workload.
    pub device: DeviceKind,
    /// How the guest's kernel maps for DMA.
    pub dma: DmaOptions,
    /// Events after which the trace ends, those of its beginning not counted.
    pub events: u64,
    /// Seed of all that is random.
    pub seed: u64,
}

impl DeviceTrace {
    /// Checks limits.
    ///
    /// # Errors
    /// [`OptionError`], one sentence that names the option and its limit.
    pub fn check(&self) -> Result<(), OptionError> {
        if !(1..=1024).contains(&self.dma.cpus) {
            return Err(limit("--cpus", self.dma.cpus, "1 to 1024"));
        }
        if !(32..=57).contains(&self.dma.bits) {
            return Err(limit("--address-bits", self.dma.bits, "32 to 57"));
        }
        if self.events > 100_000_000_000 {
            return Err(limit("--events", self.events, "at most 1e11"));
        }
        if let Unmap::Lazy { entries, .. } = self.dma.unmap
            && !(2..=1 << 20).contains(&entries)
        {
            return Err(limit("--queue-entries", entries, "2 to 1048576"));
        }
        self.device.check(&self.dma)
    }

    /// Calls `f` with every event, in order, with times that never decrease.
    /// The same parameters give the same events.
    ///
    /// # Errors
    /// What `f` returns; it ends the run.
    pub fn visit(&self, f: &mut dyn FnMut(&Event) -> Result<()>) -> Result<()> {
        self.visit_batches(&mut |events| events.iter().try_for_each(&mut *f))
    }

    /// Calls `f` with all events, in order, some thousands at a time; what
    /// happened before the trace comes first, in one piece.
    ///
    /// # Errors
    /// What `f` returns; it ends the run.
    pub fn visit_batches(&self, f: &mut dyn FnMut(&[Event]) -> Result<()>) -> Result<()> {
        let side = Side { domain: DomainId(1), requester: Requester(8), pasid: Pasid::NONE };
        let mut device = self.device.build(&self.dma, side, self.seed);
        let mut out = Out::default();
        let mut last = 0;
        let mut hand_over = |out: &mut Out| -> Result<u64> {
            for e in &mut out.events {
                last = last.max(e.time_ns);
                e.time_ns = last;
            }
            f(&out.events)?;
            let n = out.events.len() as u64;
            out.events.clear();
            Ok(n)
        };
        device.begin(&mut out);
        hand_over(&mut out)?;
        let mut made = 0;
        while made < self.events && !device.ended() {
            device.fill(&mut out, BATCH.min(self.events - made) as usize);
            made += hand_over(&mut out)?;
        }
        Ok(())
    }

    fn parameters(&self) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> =
            self.device.parameters().into_iter().map(|(k, v)| (k.to_string(), v)).collect();
        let unmap = match self.dma.unmap {
            Unmap::Strict => "strict".to_string(),
            Unmap::Lazy { entries, timeout_ns, single } => {
                let rings = if single { "one queue" } else { "a queue per CPU" };
                format!("lazy, {rings}, {entries} entries, {timeout_ns} ns")
            }
        };
        all.extend([
            ("unmap".to_string(), unmap),
            ("kernel".into(), self.dma.kernel.name().into()),
            ("cpus".into(), self.dma.cpus.to_string()),
            ("address_bits".into(), self.dma.bits.to_string()),
            ("events".into(), self.events.to_string()),
        ]);
        all
    }
}

impl Default for DmaOptions {
    /// Linux 6.12 on 8 CPUs, strict, without caching mode, 48 bits: assumed (A)
    /// unless an option says otherwise.
    fn default() -> DmaOptions {
        DmaOptions {
            kernel: Kernel::V6_12,
            cpus: 8,
            unmap: Unmap::Strict,
            caching_mode: false,
            bits: 48,
        }
    }
}

/// Makes the trace and writes it to `output`, which appears only if all went
/// well; its metadata says that nothing was recorded.
///
/// # Errors
/// [`Error::Options`](crate::Error::Options) if a parameter is out of its
/// limits; the writer's errors; [`Error::Import`](crate::Error::Import) if
/// interrupted.
pub fn device_to_file(
    trace: &DeviceTrace,
    output: &Path,
    control: &mut Control<'_>,
) -> Result<Summary> {
    trace.check()?;
    let mut writer = TraceWriter::create(output)?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let (mut done, mut kinds) = (0u64, [0u64; Kind::ALL.len()]);
    trace.visit_batches(&mut |events| {
        let before = done / TICK;
        done += events.len() as u64;
        if done / TICK > before {
            control.tick(output, done, trace.events.max(done))?;
        }
        events.iter().try_for_each(|e| {
            kinds[e.kind as usize] += 1;
            writer.push(e)
        })
    })?;
    for (kind, n) in Kind::ALL.iter().zip(kinds).filter(|k| k.1 > 0) {
        counts.insert(format!("made_up_{}", kind.name()), n);
    }
    if counts.is_empty() {
        return Err(refused(output, "the device made no event".into()));
    }
    let parameters = trace.parameters();
    let list: Vec<String> = parameters.iter().map(|(k, v)| format!("{k} {v}")).collect();
    let name = trace.device.name();
    writer.finish(Meta {
        tool: concat!("ioasim ", env!("CARGO_PKG_VERSION")).into(),
        created_by: "trace generate".into(),
        importer: format!("generator {name}"),
        caching_mode: if trace.dma.caching_mode { CachingMode::On } else { CachingMode::Off },
        import_counts: counts,
        notes: vec![
            "Every event of this trace is made up; nothing was recorded.".into(),
            format!("Parameters of {name}: {}.", list.join(", ")),
        ],
        synthetic: vec![Synthetic {
            workload: name.into(),
            seed: trace.seed,
            guest: true,
            parent_layout: None,
            parameters,
        }],
        ..Meta::default()
    })
}
